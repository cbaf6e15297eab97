"""mmkd export from argument to exit status."""

import cv2
import numpy as np
import onnx
import pytest
import torch
from reference import ROOT, write_folders

from mmkd.deploy import Classifier, Detector
from mmkd.deploy.export import exporter
from mmkd.deploy.export.pt2 import load_pt2
from mmkd.registry import MODELS

TOOL = 'export.py'


@pytest.fixture
def made(exported, monkeypatch):
    """The same weights give the same graph: made once for all tests."""
    monkeypatch.setattr(exporter, 'to_onnx', lambda *args: onnx.load(exported.onnx))


def test_exports_checks_and_says_so(run, made, exported, images, tmp_path, capsys):
    run(exported.config, exported.checkpoint, '--out', tmp_path / 'a/student.onnx',
        '--images', images[0].parent, images[1])
    told = capsys.readouterr().out
    assert 'same as PyTorch on random inputs: 4 inputs' in told
    assert f'same as PyTorch on images: {len(images) + 1} inputs' in told
    assert [file.name for file in (tmp_path / 'a').iterdir()] == ['student.onnx']
    run(exported.config, exported.checkpoint, '--out', tmp_path / 'b.onnx', '--image-input')
    told = capsys.readouterr().out
    assert 'not checked on images' in told
    assert '1 grey levels in the prepared image' in told
    detector = Detector(tmp_path / 'b.onnx')
    assert detector.metadata.input_kind == 'image'
    assert len(detector(cv2.imread(str(images[1]))).scores) == 100


def test_size_precision_and_opset(run, exported, tmp_path):
    run(exported.config, exported.checkpoint, '--out', tmp_path / 'student.onnx',
        '--dynamic-size', '--half', '--opset', '19')
    metadata = Detector(tmp_path / 'student.onnx').metadata
    assert (metadata.dynamic_size, metadata.precision) == (True, 'float16')
    assert onnx.load(tmp_path / 'student.onnx').opset_import[0].version == 19


def test_pt2_with_a_fixed_batch(run, exported, tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    run(exported.config, exported.checkpoint, '--format', 'pt2', '--batch', '2')
    assert 'wrote student.pt2' in capsys.readouterr().out
    run_it, metadata = load_pt2('student.pt2')
    assert metadata.batch == 2
    boxes, _, _ = run_it(np.zeros((2, 3, 64, 64), np.float32))
    assert boxes.shape == (2, 100, 4)


def test_a_member_of_a_cohort_by_the_config_of_one(run, tmp_path, capsys, monkeypatch):
    """configs/classification/distill.py, chosen by environment variables, and `--data`."""
    write_folders(tmp_path, 'ab', [(40, 52)])
    for name, value in dict(DATA='cifar100', STUDENT='resnet8').items():
        monkeypatch.setenv(name, value)
    member = dict(type='Classifier', backbone=dict(type='resnet8'), num_classes=2)
    cohort = MODELS.build(dict(type='Cohort', members=dict(resnet8_1=member, resnet8_2=member)))
    torch.save(dict(state_dict=cohort.members.resnet8_2.state_dict()), tmp_path / 'resnet8_2.pth')
    run(ROOT / 'configs/classification/distill.py', tmp_path / 'resnet8_2.pth', '--out',
        tmp_path / 'student.onnx', '--data', '3', '--cfg-options', 'model.num_classes=2',
        'test_dataloader.dataset.type=ImageNetFolder', 'test_dataloader.dataset.image_size=28',
        f'test_dataloader.dataset.data_root={tmp_path}')
    assert 'same as PyTorch on images: 2 inputs' in capsys.readouterr().out
    classifier = Classifier(tmp_path / 'student.onnx')
    assert classifier.classes == ('0', '1')
    assert classifier.metadata.resize_to == (32, 32)


@pytest.mark.parametrize(('options', 'message'), [
    (['none.pth'], 'none.pth'),
    (['code.pth'], 'holds Python objects that could run code when loaded'),
    (['epoch_1.pth', '--images', 'none.jpg'], "'none.jpg' does not exist"),
    (['epoch_1.pth', '--images', 'broken.jpg'], "'broken.jpg' does not decode"),
    (['epoch_1.pth', '--format', 'pt2', '--image-input'], '--image-input is for ONNX'),
    (['epoch_1.pth', '--format', 'pt2', '--opset', '20'], '--opset is for ONNX'),
    (['epoch_1.pth', '--data', '-1'], '--data is -1'),
    (['epoch_1.pth', '--cfg-options', 'model.bbox_head.num_classes=4'], 'another architecture'),
])
def test_an_error_is_one_line(errors, made, exported, tmp_path, monkeypatch, options, message):
    monkeypatch.chdir(tmp_path)
    torch.save(dict(state_dict=tmp_path), 'code.pth')
    (tmp_path / 'epoch_1.pth').symlink_to(exported.checkpoint)
    (tmp_path / 'broken.jpg').write_bytes(b'no image')
    assert message in errors(exported.config, *options, '--out', 'student.onnx')[-1]
    assert not list(tmp_path.glob('*.onnx'))
    assert not list(tmp_path.glob('.*'))
