"""Preprocessing inside the graph is that of the metadata."""

import cv2
import numpy as np
import onnx
import onnxruntime
import pytest
from helpers import MEAN, STD
from reference import with_metadata

from mmkd.deploy import Detector
from mmkd.deploy.device.metadata import ModelMetadata
from mmkd.deploy.export.image_graph import preprocessing_model
from mmkd.errors import UserError

SIZES = [(48, 64), (100, 33), (64, 64), (128, 128), (20, 127), (5, 3), (301, 225)]


def metadata(**values):
    return ModelMetadata(**(dict(
        classes=('a',), input_size=(64, 64), resize_to=(64, 64), channel_order='RGB',
        mean=tuple(MEAN), std=tuple(STD)) | values))


@pytest.mark.parametrize('values', [
    dict(),
    dict(channel_order='BGR', pad_value=3.5, input_size=(64, 96), resize_to=(96, 48)),
    dict(resize_dtype='float32'),
    dict(precision='float16'),
    dict(task='classification', resize_mode='crop', input_size=(28, 28), resize_to=(32, 32)),
    dict(task='classification', resize_mode='crop', input_size=(31, 31), resize_to=(31, 31)),
    dict(task='classification', resize_mode='stretch', input_size=(32, 32), resize_to=(32, 32)),
], ids=str)
def test_pixels_within_a_grey_level(values):
    described = metadata(**values)
    session = onnxruntime.InferenceSession(
        preprocessing_model(described, 18, 10).SerializeToString())
    generator = np.random.default_rng(0)
    for size in SIZES:
        image = generator.integers(0, 256, (*size, 3), dtype=np.uint8)
        found, factors = session.run(None, {'image': image})
        expected, expected_factors = described.prepare(image)
        np.testing.assert_array_equal(factors, np.tile(expected_factors, 2))
        assert found.shape == (1, *expected.shape)
        assert found.dtype == (np.float16 if described.precision == 'float16' else np.float32)
        grey = np.abs(found[0].astype(np.float32) - expected) * np.array(STD)[:, None, None]
        allowed = {'float32': 0.05}.get(described.resize_dtype, 1.001)
        assert grey.max() <= allowed + (0.1 if described.precision == 'float16' else 0)
        assert grey.mean() < 0.25


def test_an_old_opset_cannot_average():
    old = metadata(task='classification', resize_mode='stretch')
    with pytest.raises(UserError, match=r'opset 17 .*--opset 18'):
        preprocessing_model(old, 17, 10)
    assert preprocessing_model(metadata(), 17, 10).opset_import[0].version == 17


def test_boxes_in_pixels_of_the_image(exported, images, tmp_path):
    made = with_metadata(exported.onnx, tmp_path / 'image.onnx', input_kind='image', batch=1)
    onnx.checker.check_model(onnx.load(made), full_check=True)
    outside, inside = Detector(exported.onnx), Detector(made)
    # An image that needs no scaling has the same pixels in both ways, and so the same boxes.
    image = cv2.imread(str(images[3]))
    assert image.shape[:2] == inside.metadata.input_size
    for found, expected in zip(inside(image), outside(image), strict=True):
        np.testing.assert_allclose(found, expected, atol=1e-4)
    # Twice as large, every pixel four times: the same pixels again, and boxes twice as large.
    large = inside(image.repeat(2, axis=0).repeat(2, axis=1))
    np.testing.assert_allclose(large.boxes, 2 * outside(image).boxes, atol=2e-4)
