"""Downloads, from a server of our own that is a folder."""

import hashlib

import pytest
import torch
from helpers import leave_process_group

import mmkd  # noqa: F401  (before mmdet)
from mmkd.classification.data.downloads import RemoteFile, obtain, on_main_process
from mmkd.errors import UserError

CONTENT = b'published'
MD5 = hashlib.md5(CONTENT).hexdigest()


@pytest.fixture
def file(tmp_path):
    source = tmp_path / 'server.bin'
    source.write_bytes(CONTENT)
    return RemoteFile('data.bin', source.as_uri(), MD5)


def test_a_missing_file_is_downloaded_once(tmp_path, file, monkeypatch):
    root = tmp_path / 'new/folder'
    [path] = obtain(root, [file], 'layout')
    assert path.read_bytes() == CONTENT
    monkeypatch.setattr(torch.hub, 'download_url_to_file', None)
    assert obtain(root, [file], 'layout') == [path]
    assert [p.name for p in root.iterdir()] == ['data.bin']


def test_a_wrong_checksum_leaves_nothing_behind(tmp_path, file):
    root = tmp_path / 'root'
    with pytest.raises(UserError, match=f'MD5 {MD5} and not 0123'):
        obtain(root, [RemoteFile(file.name, file.url, '0123')], 'layout')
    assert list(root.iterdir()) == []


def test_a_server_out_of_reach(tmp_path):
    missing = RemoteFile('data.bin', (tmp_path / 'nothing').as_uri(), MD5)
    with pytest.raises(UserError, match=r'data.bin is missing.*layout is root/data\.bin'):
        obtain(tmp_path / 'root', [missing], 'root/data.bin')
    assert list((tmp_path / 'root').iterdir()) == []


def test_a_data_root_that_is_a_file(tmp_path, file):
    with pytest.raises(UserError, match=r'data.bin is missing .* layout is DATA_ROOT'):
        obtain(tmp_path / 'server.bin', [file], 'DATA_ROOT/data.bin')
    assert (tmp_path / 'server.bin').read_bytes() == CONTENT


def test_a_local_file_that_differs_is_used_with_a_warning(tmp_path, file, recwarn):
    (tmp_path / 'data.bin').write_bytes(CONTENT)
    obtain(tmp_path, [file], 'layout')
    assert not [w for w in recwarn if 'published' in str(w.message)]
    (tmp_path / 'data.bin').write_bytes(b'mine')
    with pytest.warns(UserWarning, match='data.bin in .* differ from the published'):
        [path] = obtain(tmp_path, [file], 'layout')
    assert path.read_bytes() == b'mine'


def _one_of_two(rank, folder, good, queue):
    import torch.distributed as dist
    dist.init_process_group('gloo', init_method=f'file://{folder}/store', rank=rank, world_size=2)
    ran = []
    on_main_process(lambda: ran.append(rank))
    [path] = obtain(folder / 'root', [good], 'layout')
    try:
        obtain(folder / 'root', [RemoteFile('other', 'file:///nothing/here', MD5)], 'layout')
        error = None
    except UserError as caught:
        error = str(caught)
    queue.put((rank, ran, path.read_bytes(), error))
    leave_process_group()


@pytest.mark.dist
def test_two_processes_download_once_and_fail_together(tmp_path, file):
    queue = torch.multiprocessing.get_context('spawn').SimpleQueue()
    torch.multiprocessing.spawn(_one_of_two, (tmp_path, file, queue), nprocs=2)
    answers = sorted(queue.get() for _ in range(2))
    assert [answer[:3] for answer in answers] == [(0, [0], CONTENT), (1, [], CONTENT)]
    assert all('other is missing' in error for *_, error in answers)
