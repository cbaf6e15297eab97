"""How taps are stored: what comes back of each number."""

import numpy as np
import pytest
import torch
from helpers import through_a_shard as back

from mmkd.errors import UserError
from mmkd.teacher_cache.codecs import DenseCodec, check_first_axis
from mmkd.teacher_cache.outputs import StoredOutputs, columns
from mmkd.teacher_cache.shards import Shard, written_shard


def _values():
    generator = torch.Generator().manual_seed(0)
    exponents = torch.randint(-30, 25, (4, 7, 3, 5), generator=generator)
    return torch.randn(4, 7, 3, 5, generator=generator) * 2.0 ** exponents


def test_float32_is_exact(tmp_path):
    value = _values()
    found = back(DenseCodec('float32'), value, tmp_path)
    assert found.dtype == torch.float32 and torch.equal(found, value)


def _nearest_half(number):
    """The half-precision number nearest to ``number``, ties to the even one, from its formula."""
    if number == 0:
        return 0.0
    exponent = max(int(np.floor(np.log2(abs(number)))), -14)
    step = 2.0 ** (exponent - 10)
    return float(np.round(number / step) * step)  # NumPy rounds ties to the even number


def test_float16_rounds_to_the_nearest(tmp_path):
    value = _values().clamp(-60000, 60000)
    halfway = [1 + 2 ** -11, 1 + 3 * 2 ** -11, 2 ** -24, 2 ** -25, 3 * 2 ** -25]
    value[0, 0, 0] = torch.tensor(halfway)
    found = back(DenseCodec('float16'), value, tmp_path)
    assert found.dtype == torch.float32
    assert found.flatten().tolist() == [_nearest_half(v) for v in value.flatten().tolist()]


@pytest.mark.parametrize('dtype', ['float16', 'float32'])
def test_nothing_becomes_infinite(dtype, tmp_path):
    found = back(DenseCodec(dtype), torch.tensor([[65504.0, 65520.0, -1e30, float('inf')]]),
                 tmp_path)
    assert found.isfinite().all()
    limit = 65504.0 if dtype == 'float16' else torch.finfo(torch.float32).max
    expected = [[65504, min(65520, limit), max(-1e30, -limit), limit]]
    assert torch.equal(found, torch.tensor(expected))


@pytest.mark.parametrize('shape', [(), (3, 2), (6, 2, 5)])
def test_a_leaf_without_a_row_for_each_image(shape):
    """As the layers of a decoder that come stacked."""
    check_first_axis(torch.zeros(2, 5), 2, 'head', 't')
    with pytest.raises(UserError, match=r"'head' of teacher 't' has the shape .* for 2 images"):
        check_first_axis(torch.zeros(shape), 2, 'head', 't')


@pytest.mark.parametrize('value', [
    torch.randn(3, 10, dtype=torch.float64), torch.randn(3, 10).half(),
    torch.randn(3, 10).bfloat16(),
    torch.randn(3, 10, requires_grad=True), torch.randn(10, 3).T,
    torch.randn(3, 4, 5, 6).to(memory_format=torch.channels_last)])
def test_whatever_a_network_gives(value, tmp_path):
    found = back(DenseCodec('float32'), value, tmp_path)
    assert torch.equal(found, value.detach().float()) and not found.requires_grad


def test_entries_of_a_batch_join_and_move(tmp_path):
    with written_shard(tmp_path / 'a.shard') as writer:
        for number in range(4):
            writer.add([np.full((2, 3), number, np.float16), np.arange(number, dtype=np.int32)])
    shard = Shard(tmp_path / 'a.shard')
    single = [StoredOutputs({'t': [shard.read(i)], 'u': [shard.read(3 - i)]}) for i in (2, 0, 1)]
    joined = StoredOutputs.joined(outputs.to('cpu', non_blocking=True) for outputs in single)
    for name, order in (('t', (2, 0, 1)), ('u', (1, 3, 2))):
        full, ragged = columns(joined.entries[name], torch.device('cpu'))
        assert [tensor.unique().tolist() for tensor in full] == [[number] for number in order]
        assert [tensor.tolist() for tensor in ragged] == [list(range(n)) for n in order]
