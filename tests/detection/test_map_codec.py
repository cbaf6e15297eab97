"""Stored CenterNet maps: what comes back, and what that does to the terms."""

import math

import pytest
import torch
from helpers import through_a_shard as back

from mmkd.detection.map_codec import MapCodec
from mmkd.detection.teacher_maps import final_maps
from mmkd.distillation.cache.shards import entry_bytes
from mmkd.distillation.losses import HeatmapLoss, OffsetLoss, WidthHeightLoss

SIZES = ((32, 32), (30, 41), (5, 3), (1, 7))


def _gaussian(y, x, centre, sigma):
    return torch.exp(-((y - centre[0]) ** 2 + (x - centre[1]) ** 2) / (2 * sigma ** 2))


def maps(batch=2, classes=3, size=(32, 32), seed=0, objects=6, background=0.004):
    """Heatmaps of `objects` peaks, high and low, over a low noisy background; as a head's output.

    Image ``i`` has ``i`` objects more.
    """
    generator = torch.Generator().manual_seed(seed)

    def draw(*shape):
        return torch.rand(*shape, generator=generator)

    y, x = torch.meshgrid(*(torch.arange(side).float() for side in size), indexing='ij')
    heatmap = background * torch.exp(torch.randn(batch, classes, *size, generator=generator))
    for image in range(batch):
        for _ in range(objects + image):
            centre = draw(2) * torch.tensor(size)
            peak = (0.05 + 0.9 * draw(1)) * _gaussian(y, x, centre, 0.7 + 1.5 * draw(1))
            label = int(draw(1) * classes)
            heatmap[image, label] = torch.maximum(heatmap[image, label], peak)
    wh = 2 + 10 * draw(batch, 2, *size)
    return [heatmap.clamp(1e-4, 1 - 1e-4)], [wh], [draw(batch, 2, *size)]


def student_of(teacher, seed=1):
    """Peaks moved by a cell, lower, noisier; sizes and offsets a little off."""
    heatmap, wh, offset = final_maps(teacher)
    generator = torch.Generator().manual_seed(seed)

    def noise(like):
        return torch.randn(like.shape, generator=generator)

    moved = 0.6 * heatmap + 0.3 * heatmap.roll(1, -1)
    return ((moved * torch.exp(0.3 * noise(moved))).clamp(1e-4, 1 - 1e-4),
            wh + 0.5 * noise(wh), offset + 0.1 * noise(offset))


@pytest.mark.parametrize('size', SIZES)
def test_float32_is_exact(size, tmp_path):
    value = maps(size=size)
    found = back(MapCodec('float32'), value, tmp_path)
    for ours, theirs in zip(final_maps(found), final_maps(value), strict=True):
        assert ours.dtype == torch.float32 and torch.equal(ours, theirs)
    assert all(len(level) == 1 for level in found)


@pytest.mark.parametrize('size', SIZES)
@pytest.mark.parametrize('tolerance', [1e-4, 1e-2, 0.0])
def test_float16_loses_no_more_energy_than_stated(size, tolerance, tmp_path):
    value = maps(size=size)
    heatmap, wh, offset = final_maps(value)
    found = final_maps(back(MapCodec('float16', tolerance), value, tmp_path))
    for ours, theirs in zip(found.heatmap.double(), heatmap.double(), strict=True):
        rounding = theirs.abs() * 2 ** -11 + 2 ** -25  # of each number, half a step at most
        bound = math.sqrt(tolerance * theirs.square().sum()) + rounding.norm()
        assert (ours - theirs).norm() <= bound
        # A mean in place of the cells keeps the sum of whole blocks.
        if size[0] % 4 == size[1] % 4 == 0:
            assert abs(ours.sum() - theirs.sum()) <= rounding.sum()
    assert torch.equal(found.wh, wh.half().float()) and torch.equal(found.offset,
                                                                    offset.half().float())


def test_a_block_is_stored_as_cells_or_as_its_mean(tmp_path):
    """By hand: three blocks in a row, of which one varies."""
    heatmap = torch.zeros(1, 1, 4, 12)
    heatmap[..., 4:8] = 0.25
    heatmap[0, 0, 1, 9] = 0.5
    rest = torch.zeros(1, 2, 4, 12)
    means, numbers, cells, *_ = MapCodec().encode(([heatmap], [rest], [rest]))[0]
    assert means.tolist() == [0.0, 0.25, 0.03125]
    assert numbers.tolist() == [2]
    assert cells.tolist() == [[0.0] * 5 + [0.5] + [0.0] * 10]
    found = back(MapCodec(), ([heatmap], [rest], [rest]), tmp_path)
    assert torch.equal(found[0][-1], heatmap)


def test_which_blocks_are_stored_as_means():
    """Those that vary least, as many as together lose no more than the tolerance allows."""
    value = maps(batch=1, size=(24, 16), classes=2)
    heatmap = final_maps(value).heatmap[0].double()
    lost = {}
    for c in range(2):
        for row in range(6):
            for column in range(4):
                block = heatmap[c, 4 * row:4 * row + 4, 4 * column:4 * column + 4]
                lost[(c * 6 + row) * 4 + column] = float((block - block.mean()).square().sum())
    allowed, dropped = 1e-3 * float(heatmap.square().sum()), set()
    for number in sorted(lost, key=lost.get):
        allowed -= lost[number]
        if allowed < 0:
            break
        dropped.add(number)
    assert 0 < len(dropped) < 48
    _, numbers, *_ = MapCodec('float16', 1e-3).encode(value)[0]
    assert set(numbers.tolist()) == set(range(48)) - dropped


def test_images_with_different_numbers_of_blocks(tmp_path):
    value = maps(batch=4, size=(30, 41))
    single = [[[level[-1][i:i + 1]] for level in value] for i in range(4)]
    codec = MapCodec()
    counts = {len(codec.encode(one)[0][1]) for one in single}
    assert len(counts) > 1
    together = final_maps(back(codec, value, tmp_path))
    for i, one in enumerate(single):
        for ours, alone in zip(together, final_maps(back(codec, one, tmp_path)), strict=True):
            assert torch.equal(ours[i:i + 1], alone)


@pytest.mark.parametrize('level', [0.0, 0.3])
def test_a_heatmap_that_does_not_vary(level, tmp_path):
    flat, rest = torch.full((2, 3, 8, 8), level), torch.zeros(2, 2, 8, 8)
    for dtype in ('float16', 'float32'):
        value = [flat], [rest], [rest]
        found = final_maps(back(MapCodec(dtype), value, tmp_path))
        torch.testing.assert_close(found.heatmap, flat, rtol=0,
                                   atol=0.0 if dtype == 'float32' else 1e-4)
    assert len(MapCodec().encode(value)[0][1]) == 0


def test_the_last_stack_is_stored(tmp_path):
    first, last = maps(seed=0), maps(seed=1)
    stacks = [a + b for a, b in zip(first, last, strict=True)]
    found = back(MapCodec('float32'), stacks, tmp_path)
    assert torch.equal(final_maps(found).heatmap, final_maps(last).heatmap)


def test_the_name_says_what_is_stored():
    codecs = [MapCodec('float16'), MapCodec('float32'), MapCodec('float16', 1e-3)]
    assert len({codec.name for codec in codecs}) == 3
    assert MapCodec('float16').name == MapCodec().name


def test_it_is_smaller_than_dense_maps():
    """Where the background is smooth, as networks draw it."""
    coarse = torch.randn(1, 20, 8, 8, generator=torch.Generator().manual_seed(0))
    smooth = 0.002 * torch.nn.functional.interpolate(coarse, (128, 128), mode='bicubic').exp()
    value = maps(batch=1, classes=20, size=(128, 128), background=0.0)
    value[0][0] = torch.maximum(value[0][0], smooth)
    size = entry_bytes(MapCodec().encode(value)[0])
    dense = 2 * (20 + 2 + 2) * 128 * 128
    assert size < 0.65 * dense
    terms = [HeatmapLoss()(student_of(value)[0], heatmap) for heatmap in
             (value[0][0], MapCodec().decode([torch.as_tensor(a)[None] for a in
                                              MapCodec().encode(value)[0]])[0][0])]
    assert terms[1].item() == pytest.approx(terms[0].item(), rel=1e-3)


@pytest.mark.parametrize('seed', range(4))
@pytest.mark.parametrize('background', [0.001, 0.004, 0.02])
def test_terms_change_by_less_than_a_thousandth(seed, background, tmp_path):
    teacher = maps(classes=5, size=(48, 40), seed=seed, background=background)
    heatmap, wh, offset = student_of(teacher, seed + 100)
    whole, stored = final_maps(teacher), final_maps(back(MapCodec(), teacher, tmp_path))
    for name, terms in {
        'heatmap': [HeatmapLoss()(heatmap, m.heatmap) for m in (whole, stored)],
        'wh': [WidthHeightLoss()(wh, m.wh, m.heatmap) for m in (whole, stored)],
        'offset': [OffsetLoss()(offset, m.offset, m.heatmap) for m in (whole, stored)],
    }.items():
        assert terms[1].item() == pytest.approx(terms[0].item(), rel=1e-3), name
