"""Files and folders appear whole or not at all."""

import errno
import os

import pytest

from mmkd import files


def _listed(folder):
    return sorted(path.name for path in folder.iterdir())


def _full(*_, **__):
    raise OSError(errno.ENOSPC, 'No space left on device')


@pytest.mark.parametrize('failing', ['replace', 'fsync'])
def test_failed_write_leaves_the_old_content(failing, tmp_path, monkeypatch):
    path = tmp_path / 'file'
    files.write_atomically(path, b'old')
    monkeypatch.setattr(os, failing, _full)
    with pytest.raises(OSError, match='No space'):
        files.write_atomically(path, b'new')
    assert path.read_bytes() == b'old'
    assert _listed(tmp_path) == ['file']


def test_a_file_to_write_into(tmp_path):
    with files.written_file(tmp_path / 'new/a.json') as file:
        file.write(b'{}')
        assert not (tmp_path / 'new/a.json').exists()
        [unfinished] = files.leftovers(tmp_path / 'new', 'a.json')
        assert unfinished.suffix == '.json'
        assert not list(files.leftovers(tmp_path / 'new', 'b.json'))
    assert (tmp_path / 'new/a.json').read_bytes() == b'{}'
    assert _listed(tmp_path / 'new') == ['a.json']


def test_a_folder(tmp_path):
    folder = tmp_path / 'new/set'
    with pytest.raises(ZeroDivisionError), files.written_folder(folder) as part:
        (part / 'a').write_text('half')
        raise ZeroDivisionError
    assert not folder.exists()
    with files.written_folder(folder) as part:
        (part / 'b').write_text('whole')
    with pytest.raises(OSError), files.written_folder(folder) as part:
        (part / 'c').write_text('another')
    assert _listed(tmp_path / 'new') == ['set'] and _listed(folder) == ['b']


def test_a_link_falls_back_to_a_copy(tmp_path, monkeypatch):
    (tmp_path / 'a').write_bytes(b'new')
    for hard in (True, False):
        if not hard:
            monkeypatch.setattr(os, 'link', _full)
        (tmp_path / 'b').unlink(missing_ok=True)
        (tmp_path / 'b').write_bytes(b'old')
        files.link_atomically(tmp_path / 'a', tmp_path / 'b')
        files.link_atomically(tmp_path / 'a', tmp_path / 'b')  # a rename onto itself does nothing
        assert (tmp_path / 'b').read_bytes() == b'new'
        assert _listed(tmp_path) == ['a', 'b']


@pytest.mark.parametrize('module, name', [
    ('mmkd.engine.checkpoint_hook', 'write_atomically'),
    ('mmkd.engine.run_folder', 'link_atomically'),
    ('mmkd.teacher_cache.shards', 'written_file')])
def test_old_places(module, name):
    with pytest.warns(DeprecationWarning, match=f'{module}.{name} is in mmkd.files now'):
        found = getattr(pytest.importorskip(module), name)
    assert found is getattr(files, name)
    with pytest.raises(AttributeError, match="has no attribute 'nothing'"):
        pytest.importorskip(module).nothing  # noqa: B018
