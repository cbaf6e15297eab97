"""mmkd's augmentation against MMDetection's: same seed, same boxes, same image to rounding."""

import copy
from itertools import combinations, product
from pathlib import Path

import cv2
import numpy as np
import pytest
import torch
from mmdet.datasets.transforms import PhotoMetricDistortion, RandomCenterCropPad
from mmengine.config import Config
from mmengine.dataset import Compose

from mmkd.detection.data import (
    FastPhotoMetricDistortion,
    FastRandomCenterCropPad,
    plain_augment,
)
from mmkd.errors import UserError
from mmkd.registry import TRANSFORMS

MEAN = [123.675, 116.28, 103.53]
CROP = dict(crop_size=(96, 96), ratios=(0.6, 0.9, 1.0, 1.3), border=32, mean=MEAN,
            std=[58.395, 57.12, 57.375], to_rgb=True, test_pad_mode=None)
NAMES = ('PhotoMetricDistortion', 'RandomCenterCropPad', 'RandomFlip', 'PackDetInputs')
# In float32's rounding, through HSV; a grey level is 1.
CLOSE = 2e-3


def picture(height, width, seed=0):
    """Smooth colours with edges and with places as dark and as bright as they can be."""
    rng = np.random.default_rng(seed)
    image = cv2.resize(rng.uniform(-90, 345, (5, 7, 3)), (width, height))
    image[height // 3:height // 2, width // 4:] = rng.uniform(0, 255, 3)
    return image.clip(0, 255).astype(np.uint8)


def grey(height, width):
    return np.repeat(picture(height, width)[:, :, :1], 3, axis=2)


def sample(image, boxes):
    height, width = image.shape[:2]
    instances = [dict(bbox=box, bbox_label=index, ignore_flag=index % 3 == 2)
                 for index, box in enumerate(boxes)]
    return dict(img=image, img_shape=(height, width), ori_shape=(height, width), img_id=1,
                img_path='x', instances=instances)


SAMPLES = {
    'several': sample(picture(75, 100), [[5, 5, 40, 50], [60, 20, 99, 74], [30, 30, 60, 60]]),
    'grey': sample(grey(100, 75), [[10, 40, 40, 60], [0, 0, 75, 100]]),
    'tiny': sample(picture(9, 12), [[3, 3, 8, 8]]),
    'wide': sample(picture(16, 300), [[2, 2, 20, 12], [280, 1, 300, 15]]),
    'corner': sample(picture(90, 90), [[0, 0, 5, 4]]),  # most crops lose it and are drawn again
    'empty': sample(picture(80, 60), []),
    'dark': sample(picture(80, 60) // 8, [[10, 10, 30, 30]]),
}


def pipeline(*, fast=(), fused=False):
    """The pipeline for VOC, small, with mmkd's transforms in some places."""
    kind = {name: f'Fast{name}' if name in fast else name for name in NAMES}
    distortion = [dict(type=kind['PhotoMetricDistortion'])]
    crop = dict(type=kind['RandomCenterCropPad'], **CROP)
    if fused:
        distortion, crop['distortion'] = [], {}
    resize = dict(type='Resize', scale=(96, 96), keep_ratio=True)
    steps = [dict(type='LoadAnnotations', with_bbox=True), resize, *distortion, crop, resize,
             dict(type=kind['RandomFlip'], prob=[0.3, 0.2, 0.2],
                  direction=['horizontal', 'vertical', 'diagonal']),
             dict(type=kind['PackDetInputs'])]
    return Compose([TRANSFORMS.build(step) for step in steps])


def run(steps, data, seed):
    np.random.seed(seed)
    return steps(copy.deepcopy(data)), np.random.random()


def check_equal(ours, theirs):
    """Compare packed samples and the number that was drawn after them."""
    assert ours[1] == theirs[1]
    ours, theirs = ours[0], theirs[0]
    assert ours['inputs'].is_contiguous()
    assert ours['inputs'].dtype == theirs['inputs'].dtype == torch.float32
    torch.testing.assert_close(ours['inputs'], theirs['inputs'], rtol=0, atol=CLOSE)
    ours, theirs = ours['data_samples'], theirs['data_samples']
    assert ours.metainfo == theirs.metainfo
    for kind in ('gt_instances', 'ignored_instances'):
        own, other = getattr(ours, kind), getattr(theirs, kind)
        assert torch.equal(own.bboxes.tensor, other.bboxes.tensor)
        assert own.bboxes.tensor.dtype == torch.float32
        assert torch.equal(own.labels, other.labels)


@pytest.mark.parametrize('name', SAMPLES)
def test_a_seed_gives_what_mmdetection_gives(name):
    theirs, ours, fused = pipeline(), pipeline(fast=NAMES), pipeline(fast=NAMES, fused=True)
    for seed in range(100):
        expected = run(theirs, SAMPLES[name], seed)
        check_equal(run(ours, SAMPLES[name], seed), expected)
        check_equal(run(fused, SAMPLES[name], seed), expected)


@pytest.mark.parametrize('fast', [names for count in (1, 2, 3)
                                  for names in combinations(NAMES, count)], ids='+'.join)
def test_they_mix_with_mmdetections_own(fast):
    theirs, ours = pipeline(), pipeline(fast=fast)
    for seed in range(8):
        check_equal(run(ours, SAMPLES['several'], seed), run(theirs, SAMPLES['several'], seed))


@pytest.mark.parametrize('image', [
    picture(70, 50), grey(20, 30), picture(40, 40) // 16, np.zeros((8, 8, 3), np.uint8),
    np.full((8, 8, 3), 255, np.uint8), picture(50, 70)[:, ::-1],
    picture(30, 30).astype(np.float32), picture(30, 30) * np.float32(1.4) - 60,
], ids=['colours', 'grey', 'dark', 'black', 'white', 'mirrored', 'float', 'out of range'])
def test_every_distortion_is_mmdetections(image):
    before = image.copy()
    for flags in product((0, 1), repeat=6):
        for values in ((-32, 0.5, 0.5, -18), (32, 1.5, 1.5, 18), (-7.5, 1.2, 0.8, 5)):
            drawn = (*flags, *values, np.array([2, 0, 1]))
            images = []
            for cls in (PhotoMetricDistortion, FastPhotoMetricDistortion):
                distort = cls()
                distort._random_flags = lambda drawn=drawn: drawn
                images.append(distort(dict(img=image))['img'])
            theirs, ours = images
            assert ours.dtype == np.float32
            np.testing.assert_allclose(ours, theirs, rtol=0, atol=CLOSE)
    np.testing.assert_array_equal(image, before)


def test_contrast_below_zero_is_mmdetections():
    # Colours turned negative: the wrong way round through HSV, and so in both.
    arguments = dict(contrast_range=(-1.5, -0.5))
    for seed in range(30):
        theirs, ours = (run(cls(**arguments), dict(img=picture(20, 20)), seed)[0]['img']
                        for cls in (PhotoMetricDistortion, FastPhotoMetricDistortion))
        np.testing.assert_allclose(ours, theirs, rtol=0, atol=CLOSE)


def test_padding_is_the_mean_and_nothing_else():
    crop = FastRandomCenterCropPad(distortion={}, **CROP)
    white = sample(np.full((40, 40, 3), 255, np.uint8), [])
    steps = Compose([TRANSFORMS.build(dict(type='LoadAnnotations', with_bbox=True)), crop])
    for seed in range(20):
        image = run(steps, white, seed)[0]['img']
        padding = (image == np.float32(MEAN[::-1])).all(2)
        assert padding.sum() >= image.shape[0] * image.shape[1] - 1600
        assert padding.any()


@pytest.mark.parametrize('dtype', [np.uint8, np.float32])
@pytest.mark.parametrize('channels', [1, 3, 4])
def test_cropping_without_distortion(dtype, channels):
    arguments = {**CROP, 'mean': [1.5, 2.25, 3.1, 4][:channels], 'std': [1] * channels}
    image = np.random.default_rng(1).integers(0, 256, (50, 60, channels)).astype(dtype)
    boxes = np.float32([[-20, -10, 15, 20], [10, 10, 90, 70]])
    for clip, seed in product((True, False), range(20)):
        images = []
        for cls in (RandomCenterCropPad, FastRandomCenterCropPad):
            theirs = cls is RandomCenterCropPad
            data = dict(img=image.astype(np.float32) if theirs else image, gt_bboxes=boxes.copy(),
                        gt_bboxes_labels=np.arange(2))
            images.append(run(cls(bbox_clip_border=clip, **arguments), data, seed)[0])
        for key in ('img', 'gt_bboxes', 'gt_bboxes_labels', 'img_shape'):
            np.testing.assert_array_equal(images[0][key], images[1][key])
        assert images[1]['img'].dtype == np.float32


def test_the_padding_of_a_test_image():
    arguments = dict(crop_size=None, ratios=None, border=None, mean=MEAN, std=MEAN, to_rgb=True,
                     test_mode=True, test_pad_mode=('logical_or', 31), test_pad_add_pix=1)
    image = picture(45, 61)
    theirs = RandomCenterCropPad(**arguments)(dict(img=image.astype(np.float32)))
    ours = FastRandomCenterCropPad(**arguments)(dict(img=image))
    for key in ('img', 'border', 'img_shape'):
        np.testing.assert_array_equal(ours[key], theirs[key])
    with pytest.raises(UserError, match='test_mode and a distortion: leave one'):
        FastRandomCenterCropPad(distortion={}, **arguments)


def test_masks_are_refused_as_they_are_there():
    crop = FastRandomCenterCropPad(**CROP)
    data = dict(img=picture(50, 50), gt_bboxes=np.float32([[5, 5, 45, 45]]), gt_masks=[])
    with pytest.raises(NotImplementedError, match='only supports bbox'):
        crop(data)


@pytest.mark.parametrize('direction', ['horizontal', 'vertical', 'diagonal'])
@pytest.mark.parametrize('channels', [1, 3])
def test_flipping_and_packing_of_bytes(direction, channels):
    image = picture(7, 9)[:, :, :channels]
    packed = []
    for prefix in ('', 'Fast'):
        steps = Compose([TRANSFORMS.build(step) for step in (
            dict(type=f'{prefix}RandomFlip', prob=1.0, direction=direction),
            dict(type=f'{prefix}PackDetInputs'))])
        packed.append(steps(dict(img=image, img_shape=(7, 9)))['inputs'])
    assert packed[1].dtype == torch.uint8
    assert torch.equal(*packed)


def test_packing_of_an_image_without_channels():
    pack = TRANSFORMS.build(dict(type='FastPackDetInputs'))
    assert pack(dict(img=picture(7, 9)[:, :, 0]))['inputs'].shape == (1, 7, 9)
    assert 'inputs' not in pack({})


def test_what_cannot_be_augmented_is_refused():
    with pytest.raises(UserError, match=r'shape \(7, 9, 1\) cannot be distorted'):
        FastPhotoMetricDistortion()(dict(img=picture(7, 9)[:, :, :1]))
    with pytest.raises(UserError, match=r'mean of 3 numbers and got an image of shape \(7, 9\)'):
        FastRandomCenterCropPad(**CROP)(dict(img=picture(7, 9)[:, :, 0]))


def test_the_config_for_voc_augments_as_with_mmdetections_transforms():
    path = Path(__file__).parents[2] / 'configs' / '_base_' / 'datasets' / 'voc0712.py'
    fast = Config.fromfile(path).train_pipeline[1:]
    slow = []
    for step in copy.deepcopy(fast):
        step.type = step.type.removeprefix('Fast')
        if 'distortion' in step:
            slow.append(dict(type='PhotoMetricDistortion', **step.pop('distortion')))
        slow.append(step)
    assert fast != slow
    fast, slow = (Compose([TRANSFORMS.build(step) for step in steps]) for steps in (fast, slow))
    data = sample(picture(375, 500), [[50, 60, 300, 200], [400, 300, 500, 375]])
    for seed in range(12):
        check_equal(run(fast, data, seed), run(slow, data, seed))


@pytest.fixture
def another_mmdetection(monkeypatch):
    """As where RandomCenterCropPad has lost a private method."""
    monkeypatch.setitem(plain_augment.PRIVATE, RandomCenterCropPad, ('_gone', ))
    fast = {name: TRANSFORMS.get(name) for name in
            ('FastPhotoMetricDistortion', 'FastRandomCenterCropPad')}
    plain_augment.use_plain_transforms()
    yield
    for name, kind in fast.items():
        TRANSFORMS.register_module(name=name, module=kind, force=True)


def test_no_private_method_is_lacking():
    assert plain_augment.lacking() == []


@pytest.mark.parametrize('fused', [False, True])
def test_where_a_private_method_is_lacking_it_is_mmdetections_own(another_mmdetection, fused):
    assert plain_augment.lacking() == ['RandomCenterCropPad._gone']
    theirs, ours = pipeline(), pipeline(fast=NAMES, fused=fused)
    assert {type(step).__name__ for step in ours.transforms} & {
        'FastPhotoMetricDistortion', 'FastRandomCenterCropPad'} == set()
    for seed in range(8):
        expected, found = run(theirs, SAMPLES['several'], seed), run(ours, SAMPLES['several'], seed)
        check_equal(found, expected)
        assert torch.equal(found[0]['inputs'], expected[0]['inputs'])
