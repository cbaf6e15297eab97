"""Damage to weights that PyTorch reads without a word, and files that hold no weights."""

import hashlib
import io
import os
import pickle
import warnings

import pytest
import torch
from torch import nn

from mmkd.checkpoint_checks import WEIGHTS_HASH, is_whole, weights_hash
from mmkd.checkpoints import load_checkpoint_safely, load_weights
from mmkd.errors import UserError


def network():
    torch.manual_seed(0)
    return nn.Sequential(nn.Linear(3, 2), nn.BatchNorm1d(2))


def saved(content, legacy=False):
    file = io.BytesIO()
    torch.save(content, file, _use_new_zipfile_serialization=not legacy)
    return file.getvalue()


def refused(path, content, message):
    path.write_bytes(content if isinstance(content, bytes) else saved(content))
    with pytest.raises(UserError, match=message):
        load_weights(network(), path)


def test_a_flipped_bit_of_a_weight_is_found_by_the_checksum(tmp_path):
    """PyTorch alone reads another number."""
    state = network().state_dict()
    content = bytearray(saved(state))
    weight = state['0.weight'].numpy().tobytes()
    content[content.index(weight) + 3] ^= 64
    (tmp_path / 'a.pth').write_bytes(content)
    assert not torch.load(tmp_path / 'a.pth')['0.weight'].equal(state['0.weight'])
    assert not is_whole(tmp_path / 'a.pth')
    refused(tmp_path / 'a.pth', bytes(content), 'is truncated, damaged or no PyTorch checkpoint')


def test_the_hash_that_mmkd_writes_is_compared(tmp_path):
    state = network().state_dict()
    whole = dict(meta={WEIGHTS_HASH: weights_hash(state), 'epoch': 1}, state_dict=state)
    torch.save(whole, tmp_path / 'a.pth')
    assert load_weights(network(), tmp_path / 'a.pth')['epoch'] == 1
    other = dict(state, **{'0.bias': state['0.bias'] + 1e-6})
    refused(tmp_path / 'b.pth', dict(whole, state_dict=other), 'other weights than were written')


def test_the_hash_knows_names_types_shapes_and_bits():
    one = dict(a=torch.zeros(2, 3), b=torch.ones(1))
    by_hand = hashlib.sha256()
    by_hand.update(b'atorch.float32 (2, 3)' + bytes(24))
    by_hand.update(b'btorch.float32 (1,)' + b'\x00\x00\x80\x3f')
    assert weights_hash(one) == by_hand.hexdigest()
    assert weights_hash({'module.b': one['b'], 'module.a': one['a']}) == weights_hash(one)
    others = [dict(one, a=torch.zeros(3, 2)), dict(one, a=torch.zeros(2, 3).int()),
              dict(one, a=-torch.zeros(2, 3)), dict(a=one['b'], b=one['a'])]
    assert len({weights_hash(other) for other in [one, *others]}) == 5


@pytest.mark.parametrize(('content', 'message'), [
    ([torch.ones(2)], 'holds a list instead of weights by name'),
    (dict(state_dict=[torch.ones(2)]), 'holds a list where its weights by name should be'),
    (dict(model='resnet'), 'holds a str where its weights by name should be'),
    ({3: torch.ones(2)}, r'1 entries among its weights whose name is no text \(first: 3\)'),
    (dict(state_dict={('a', 1): torch.ones(2)}), 'whose name is no text'),
    (dict(epoch=3, lr=0.1), 'holds no tensor'),
    ({}, 'holds no tensor'),
    (dict(network().state_dict(), **{'0.weight': torch.ones(2, 3).to_sparse()}),
     r'1 sparse, .* tensors or such without content \(first: 0\.weight\)'),
    (dict(network().state_dict(), **{'0.weight': torch.ones(2, 3, dtype=torch.complex64)}),
     r'sparse, quantised or complex'),
    (dict(network().state_dict(), **{'0.weight': torch.ones(2, 3, device='meta')}),
     'such without content'),
    (dict(network().state_dict(), **{'0.weight': 'text'}),
     r'1 of another shape \(first: 0\.weight a str for \(2, 3\)\)'),
])
def test_no_weights(tmp_path, content, message):
    refused(tmp_path / 'a.pth', content, message)


def test_every_truncation_of_the_old_format(tmp_path):
    content = saved(network().state_dict(), legacy=True)
    for length in [*range(0, len(content), 7), len(content) - 1]:
        refused(tmp_path / 'a.pth', content[:length], 'is truncated, damaged or no PyTorch check')


def test_the_old_format_has_no_checksums_but_perhaps_one_in_its_name(tmp_path):
    content = saved(network().state_dict(), legacy=True)
    (tmp_path / 'a.pth').write_bytes(content)
    with pytest.warns(UserWarning, match=r"a\.pth' is in PyTorch's format of before 1\.6, which "):
        load_checkpoint_safely(tmp_path / 'a.pth')
    named = tmp_path / f'a-{hashlib.sha256(content).hexdigest()[:8]}.pth'
    named.write_bytes(content)
    (tmp_path / 'zip.pth').write_bytes(saved(network().state_dict()))
    with warnings.catch_warnings():
        warnings.simplefilter('error')
        load_checkpoint_safely(named)
        load_checkpoint_safely(tmp_path / 'zip.pth')


class Shell:
    def __init__(self, mark):
        self.mark = mark

    def __reduce__(self):
        return os.system, (f'touch {self.mark}',)


@pytest.mark.parametrize('write', [
    lambda evil, mark: saved(dict(state_dict=evil)),
    lambda evil, mark: saved(dict(state_dict=evil), legacy=True),
    lambda evil, mark: pickle.dumps(evil, 0),
    lambda evil, mark: pickle.dumps(evil, 2),
    lambda evil, mark: pickle.dumps(evil, 4),
    lambda evil, mark: f"(S'touch {mark}'\nios\nsystem\n.".encode(),
], ids=['zip', 'legacy', 'protocol 0', 'protocol 2', 'protocol 4', 'instance'])
def test_a_pickle_that_names_os_is_said_to_run_code(tmp_path, write):
    mark = tmp_path / 'ran'
    refused(tmp_path / 'a.pth', write(Shell(mark), mark), 'could run code when loaded')
    assert not mark.exists()


@pytest.mark.parametrize('text', [
    b'', b'import os\n', b'<html>404</html>', b'\x80\x04', b'c\n\n',
    b'\x8e' + b'\xff' * 7 + b'\x0f'])
def test_what_is_no_pickle_is_not_said_to_run_code(tmp_path, text):
    refused(tmp_path / 'a.pth', text, 'is truncated, damaged or no PyTorch checkpoint')


def test_places_that_are_no_file(tmp_path):
    (tmp_path / 'folder').mkdir()
    torch.save(network().state_dict(), tmp_path / 'folder/epoch_1.pth')
    with pytest.raises(UserError, match=r"is a folder: name a file in it; .*: epoch_1\.pth"):
        load_checkpoint_safely(tmp_path / 'folder')
    with pytest.raises(UserError, match='does not exist'):
        load_checkpoint_safely(tmp_path / ('x' * 5000))
