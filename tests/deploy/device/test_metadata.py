"""What a file must say, and that images are prepared as the data sets prepare them."""

import json
from dataclasses import asdict

import cv2
import numpy as np
import pytest
import torch
from handmade_models import metadata
from helpers import MEAN, STD
from reference import write_folders

from mmkd.classification.data import BatchPreprocessor, ImageFolderInMemory, ImageNetFolder
from mmkd.deploy.device.metadata import ModelMetadata
from mmkd.deploy.device.nms import Nms
from mmkd.errors import UserError

NMS = Nms(iou_threshold=0.5, class_aware=True, max_per_img=100, score_thr=0.05)


def classifier_metadata(**values):
    return metadata(**(dict(task='classification', channel_order='RGB', mean=tuple(MEAN),
                            std=tuple(STD)) | values))


@pytest.mark.parametrize(('data_set', 'shorter_side', 'side'), [
    (ImageNetFolder, 64, 56), (ImageFolderInMemory, 32, 32)])
def test_crop_is_that_of_the_data_set(tmp_path, data_set, shorter_side, side):
    """Of noise: landscape, portrait, tiny, odd, exact."""
    write_folders(tmp_path, ['noise'], [(75, 100), (101, 37), (9, 11), (33, 47), (64, 64)])
    batch = data_set(tmp_path, 'test', image_size=side).__getitems__(range(5))
    expected = BatchPreprocessor(MEAN, STD)(batch)['inputs'].numpy()
    about = classifier_metadata(input_size=(side, side), resize_to=(shorter_side, shorter_side),
                                resize_mode='crop')
    for path, theirs in zip(sorted(tmp_path.glob('val/noise/*')), expected, strict=True):
        levels = about.prepare(cv2.imread(str(path)))[0] - theirs
        # The same grey levels; the normalisation rounds.
        assert np.abs(levels * np.array(STD)[:, None, None]).max() < 1e-3


def test_stretch_leaves_images_of_the_right_size_alone():
    image = np.random.default_rng(0).integers(0, 256, (32, 32, 3), dtype=np.uint8)
    batch = dict(inputs=torch.from_numpy(image[None, ..., ::-1].transpose(0, 3, 1, 2).copy()))
    expected = BatchPreprocessor(MEAN, STD)(batch)['inputs'].numpy()[0]
    about = classifier_metadata(input_size=(32, 32), resize_mode='stretch')
    prepared, factors = about.prepare(image)
    np.testing.assert_array_equal(prepared, expected)
    assert factors.tolist() == [1, 1]
    prepared, factors = about.prepare(np.full((64, 16, 3), 200, np.uint8))
    assert prepared.shape == (3, 32, 32)
    assert np.ptp(prepared, axis=(1, 2)).max() == 0
    assert factors.tolist() == [2, 0.5]


@pytest.mark.parametrize(('mode', 'resize_to', 'size', 'expected'), [
    # As long as 640 and as short as 480, whichever way round.
    ('letterbox', (640, 480), (100, 200), (320, 640)),
    ('letterbox', (640, 480), (200, 100), (640, 320)),
    ('letterbox', (640, 480), (300, 301), (480, 482)),  # 481.6
    ('crop', (256, 256), (300, 500), (256, 426)),  # 426.7: down, as the data sets do
    ('crop', (256, 256), (500, 300), (426, 256)),
    ('stretch', (256, 256), (300, 500), (640, 640)),
])
def test_scaled_size(mode, resize_to, size, expected):
    about = metadata(input_size=(640, 640), resize_to=resize_to, resize_mode=mode)
    assert about.scaled_size(*size) == expected


def test_another_input_size():
    about = metadata(input_size=(512, 512), resize_to=(512, 512), dynamic_size=True,
                     size_divisor=32)
    wide = about.with_input_size((320, 640))
    assert (wide.input_size, wide.resize_to) == ((320, 640), (640, 320))
    assert wide.scaled_size(100, 200) == (320, 640)
    assert wide.scaled_size(200, 100) == (320, 160)  # Upright images fit in, too.
    assert about.with_input_size((512, 512)) is about
    for size, advice in {(500, 640): '512x640', (0, 64): '32x64', (-32, 32): '32x32'}.items():
        with pytest.raises(UserError, match=f'multiples of 32 .*: give {advice}'):
            about.with_input_size(size)
    with pytest.raises(UserError, match='without --image-input'):
        metadata(dynamic_size=True, input_kind='image').with_input_size((16, 16))

    about = classifier_metadata(input_size=(224, 224), resize_to=(256, 256), resize_mode='crop',
                                dynamic_size=True)
    larger = about.with_input_size((448, 448))
    assert larger.resize_to == (512, 512)
    assert larger.prepare(np.zeros((30, 50, 3), np.uint8))[0].shape == (3, 448, 448)


@pytest.mark.parametrize('about', [
    classifier_metadata(batch=4, size_divisor=2, dynamic_size=True, precision='int8',
                        classes=('Ärger', 'b'), pad_value=0.5, resize_mode='crop'),
    metadata(nms=NMS, takes_sizes=True, pad_value=(0.5, 0., -1.)), metadata()])
def test_metadata_survives_the_file(about):
    props = about.to_props()
    assert all(isinstance(json.dumps(json.loads(value)), str) for value in props.values())
    assert ModelMetadata.from_props(props, 'a.onnx') == about


@pytest.mark.parametrize(('name', 'value'), [
    ('task', 'segmentation'), ('input_kind', 3), ('precision', ['float32']),
    ('resize_mode', 'pad'), ('channel_order', 'GRAY'), ('resize_dtype', 'int8'),
    ('dynamic_size', 1), ('classes', []), ('classes', 'dog'), ('classes', [1]),
    ('mean', [1, 2]), ('std', [1, 2, 0]), ('std', 1), ('input_size', [512]),
    ('input_size', [0, 512]), ('resize_to', ['a', 'b']), ('size_divisor', 0), ('batch', -1),
    ('std', [1, 2, float('nan')]), ('mean', [1e30, 0, 0]), ('mean', [True, True, True]),
    ('input_size', [True, 512]), ('input_size', [2**40, 512]), ('resize_to', [10**9, 10**9]),
    ('size_divisor', True), ('batch', False), ('batch', 10**12), ('pad_value', True),
    ('pad_value', [0, 0, float('inf')]), ('batch', 'any'), ('pad_value', 'black'),
    ('mmkd_version', 1), ('mean', None), ('nms', None), ('nms', ['iou_threshold']),
    *(('nms', asdict(NMS) | change) for change in (
        dict(iou_threshold='half'), dict(class_aware=1), dict(max_per_img=1.5),
        dict(score_thr=True), dict(more=1))),
])
def test_entries_that_are_refused(name, value):
    props = metadata().to_props() | {name: json.dumps(value)}
    with pytest.raises(UserError, match=rf"'a.onnx' has no valid '{name}'"):
        ModelMetadata.from_props(props, 'a.onnx')


def test_deep_json_is_refused():
    props = metadata().to_props() | dict(mean='[' * 100_000 + ']' * 100_000)
    with pytest.raises(UserError, match="no valid 'mean'"):
        ModelMetadata.from_props(props, 'a.onnx')
