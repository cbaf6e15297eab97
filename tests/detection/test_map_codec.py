"""Stored CenterNet heatmaps: what comes back, and what that does to the terms."""

import math

import pytest
import torch
from helpers import through_a_shard as back

from mmkd.detection.map_codec import HeatmapCodec
from mmkd.detection.teacher_maps import Maps
from mmkd.detection.terms import MAPS, stored_maps
from mmkd.distillation.losses import HeatmapLoss, OffsetLoss, WidthHeightLoss
from mmkd.teacher_cache.shards import entry_bytes

SIZES = ((32, 32), (30, 41), (5, 3), (1, 7))


def _gaussian(y, x, centre, sigma):
    return torch.exp(-((y - centre[0]) ** 2 + (x - centre[1]) ** 2) / (2 * sigma ** 2))


def maps(batch=2, classes=3, size=(32, 32), seed=0, objects=6, background=0.004):
    """Maps of `objects` peaks, high and low, over a low noisy background.

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
    return Maps(heatmap.clamp(1e-4, 1 - 1e-4), wh, draw(batch, 2, *size))


def student_of(teacher, seed=1):
    """Peaks moved by a cell, lower, noisier; sizes and offsets a little off."""
    heatmap, wh, offset = teacher
    generator = torch.Generator().manual_seed(seed)

    def noise(like):
        return torch.randn(like.shape, generator=generator)

    moved = 0.6 * heatmap + 0.3 * heatmap.roll(1, -1)
    return ((moved * torch.exp(0.3 * noise(moved))).clamp(1e-4, 1 - 1e-4),
            wh + 0.5 * noise(wh), offset + 0.1 * noise(offset))


@pytest.mark.parametrize('size', SIZES)
def test_float32_is_exact(size, tmp_path):
    heatmap = maps(size=size).heatmap
    found = back(HeatmapCodec('float32'), heatmap, tmp_path)
    assert found.dtype == torch.float32 and torch.equal(found, heatmap)


@pytest.mark.parametrize('size', SIZES)
@pytest.mark.parametrize('tolerance', [1e-4, 1e-2, 0.0])
def test_float16_loses_no_more_energy_than_stated(size, tolerance, tmp_path):
    heatmap = maps(size=size).heatmap
    found = back(HeatmapCodec('float16', tolerance), heatmap, tmp_path)
    for ours, theirs in zip(found.double(), heatmap.double(), strict=True):
        rounding = theirs.abs() * 2 ** -11 + 2 ** -25  # of each number, half a step at most
        bound = math.sqrt(tolerance * theirs.square().sum()) + rounding.norm()
        assert (ours - theirs).norm() <= bound
        # A mean in place of the cells keeps the sum of whole blocks.
        if size[0] % 4 == size[1] % 4 == 0:
            assert abs(ours.sum() - theirs.sum()) <= rounding.sum()


def test_a_block_is_stored_as_cells_or_as_its_mean(tmp_path):
    """By hand: three blocks in a row, of which one varies."""
    heatmap = torch.zeros(1, 1, 4, 12)
    heatmap[..., 4:8] = 0.25
    heatmap[0, 0, 1, 9] = 0.5
    size, means, numbers, cells = HeatmapCodec().encode(heatmap)[0]
    assert size.tolist() == [4, 12]
    assert means.tolist() == [0.0, 0.25, 0.03125]
    assert numbers.tolist() == [2]
    assert cells.tolist() == [[0.0] * 5 + [0.5] + [0.0] * 10]
    assert torch.equal(back(HeatmapCodec(), heatmap, tmp_path), heatmap)


def test_which_blocks_are_stored_as_means():
    """Those that vary least, as many as together lose no more than the tolerance allows."""
    value = maps(batch=1, size=(24, 16), classes=2).heatmap
    heatmap = value[0].double()
    blocks = heatmap.unfold(1, 4, 4).unfold(2, 4, 4).flatten(0, 2)  # 2 x 6 x 4 of 4 x 4 cells
    lost = {number: float((block - block.mean()).square().sum())
            for number, block in enumerate(blocks)}
    allowed, dropped = 1e-3 * float(heatmap.square().sum()), set()
    for number in sorted(lost, key=lost.get):
        allowed -= lost[number]
        if allowed < 0:
            break
        dropped.add(number)
    assert 0 < len(dropped) < 48
    _, _, numbers, _ = HeatmapCodec('float16', 1e-3).encode(value)[0]
    assert set(numbers.tolist()) == set(range(48)) - dropped


def test_images_with_different_numbers_of_blocks(tmp_path):
    heatmap = maps(batch=4, size=(30, 41)).heatmap
    codec = HeatmapCodec()
    counts = {len(numbers) for _, _, numbers, _ in codec.encode(heatmap)}
    assert len(counts) > 1
    together = back(codec, heatmap, tmp_path)
    for i in range(4):
        assert torch.equal(together[i:i + 1], back(codec, heatmap[i:i + 1], tmp_path))


@pytest.mark.parametrize('level', [0.0, 0.3])
def test_a_heatmap_that_does_not_vary(level, tmp_path):
    flat = torch.full((2, 3, 8, 8), level)
    for dtype in ('float16', 'float32'):
        torch.testing.assert_close(back(HeatmapCodec(dtype), flat, tmp_path), flat, rtol=0,
                                   atol=0.0 if dtype == 'float32' else 1e-4)
    assert len(HeatmapCodec().encode(flat)[0][2]) == 0


def test_the_name_says_what_is_stored():
    codecs = [HeatmapCodec('float16'), HeatmapCodec('float32'), HeatmapCodec('float16', 1e-3)]
    assert len({codec.name for codec in codecs}) == 3
    assert HeatmapCodec('float16').name == HeatmapCodec().name


def test_it_is_smaller_than_dense_maps():
    """Where the background is smooth, as networks draw it."""
    coarse = torch.randn(1, 20, 8, 8, generator=torch.Generator().manual_seed(0))
    smooth = 0.002 * torch.nn.functional.interpolate(coarse, (128, 128), mode='bicubic').exp()
    value = maps(batch=1, classes=20, size=(128, 128), background=0.0)
    value = value._replace(heatmap=torch.maximum(value.heatmap, smooth))
    codec = HeatmapCodec()
    arrays = codec.encode(value.heatmap)[0]
    assert entry_bytes(arrays) < 0.58 * 2 * 20 * 128 * 128
    stored = codec.decode([torch.as_tensor(array)[None] for array in arrays])
    terms = [HeatmapLoss()(student_of(value)[0], heatmap) for heatmap in (value.heatmap, stored)]
    assert terms[1].item() == pytest.approx(terms[0].item(), rel=1e-3)


@pytest.mark.parametrize('seed', range(4))
@pytest.mark.parametrize('background', [0.001, 0.004, 0.02])
def test_terms_change_by_less_than_a_thousandth(seed, background, tmp_path):
    teacher = maps(classes=5, size=(48, 40), seed=seed, background=background)
    codecs = stored_maps('float16')
    stored = Maps(*(back(codecs[leaf], value, tmp_path)
                    for leaf, value in zip(MAPS, teacher, strict=True)))
    heatmap, wh, offset = student_of(teacher, seed + 100)
    expected, found = ([HeatmapLoss()(heatmap, m.heatmap).item(),
                        WidthHeightLoss()(wh, m.wh, m.heatmap).item(),
                        OffsetLoss()(offset, m.offset, m.heatmap).item()]
                       for m in (teacher, stored))
    assert found == pytest.approx(expected, rel=1e-3)
