"""The file of a student that was trained for int8 is the rounded student."""

import copy

import pytest
import torch

from mmkd.deploy.export import trained_int8
from mmkd.deploy.export.quantize import quantize_onnx
from mmkd.errors import UserError
from mmkd.int8.hook import places_of
from mmkd.int8.student import Ranges, Rounded


@pytest.fixture(scope='module')
def student(detector):
    model = copy.deepcopy(detector.model)
    places = places_of(model, torch.zeros(2, 3, 64, 64))
    ranges = Ranges(places)
    with torch.no_grad(), Rounded(model, places, ranges, lambda: True):
        model(torch.randn(4, 3, 64, 64), mode='tensor')
    model.int8_ranges = ranges.saved()
    return model


def test_within_one_step_of_the_rounded_student(detector, student, images, tmp_path):
    report = quantize_onnx(detector.onnx, tmp_path / 'int8.onnx', images, student=student)
    assert len(report.layers) == 15
    assert report.steps.most <= 1
    assert report.steps.values > 10000
    assert report.steps.other < 0.01 * report.steps.values


def test_another_range_is_found_out(detector, student, images, tmp_path, monkeypatch):
    low, high, batches = student.int8_ranges['backbone.conv1:0:output']
    right = trained_int8.overrides

    def wrong(ranges, tensors):
        return right({**ranges, **{name: (low, high * 1.1, batches) for name, value
                                   in ranges.items() if value == (low, high, batches)}}, tensors)

    monkeypatch.setattr('mmkd.deploy.export.quantize.overrides', wrong)
    with pytest.raises(UserError, match='failed its check against the student that was trained'):
        quantize_onnx(detector.onnx, tmp_path / 'int8.onnx', images, student=student)
    assert not list(tmp_path.iterdir())


def test_layers_are_those_of_the_training(detector, student, images, tmp_path):
    with pytest.raises(UserError, match='leave --keep-float out'):
        quantize_onnx(detector.onnx, tmp_path / 'int8.onnx', images, ['neck'], student)
