"""The second format: what is loaded from a .pt2 file is the model."""

import io
import zipfile
from pathlib import Path

import numpy as np
import pytest
import torch
from reference import SIZE
from torch import nn

import mmkd
from mmkd.deploy import Detector
from mmkd.deploy.export import export_pt2, exporter
from mmkd.deploy.export.pt2 import load_pt2, to_pt2
from mmkd.errors import UserError


@pytest.fixture(scope='module')
def saved(exported, images, tmp_path_factory):
    path = tmp_path_factory.mktemp('pt2') / 'student.pt2'
    return path, export_pt2(exported.model, path, images, dynamic_size=True)


def test_equals_the_onnx_model(saved, exported):
    path, (on_random, on_images) = saved
    assert (on_random.inputs, on_images.inputs) == (1 + 3 + 1 + 3, 5)
    run, metadata = load_pt2(path)
    detector = Detector(exported.onnx)
    assert metadata.dynamic_size
    assert metadata.classes == detector.classes
    image = np.random.default_rng(0).standard_normal((2, 3, SIZE, SIZE), np.float32)
    found, expected = run(image), detector.session.run(None, {'image': image})
    assert [part.dtype for part in found] == [part.dtype for part in expected]
    assert found[0].shape == (2, 100, 4)
    np.testing.assert_allclose(found[1], expected[1], atol=1e-5)


def test_needs_no_code_of_mmkd(saved):
    program = torch.export.load(saved[0])
    boxes, scores, labels = program.module()(torch.zeros(1, 3, 16, 24))
    assert (boxes.shape, scores.shape, labels.dtype) == ((1, 100, 4), (1, 100), torch.int64)
    assert not any('batch_norm' in str(node.target) for node in program.graph.nodes)


def test_tells_nothing_of_the_machine(saved):
    with zipfile.ZipFile(saved[0]) as archive:
        content = b''.join(archive.read(name) for name in archive.namelist())
    assert str(Path(mmkd.__file__).parent).encode() not in content
    assert str(Path(torch.__file__).parent).encode() not in content


def test_a_file_that_fails_its_check_is_not_left(saved, exported, tmp_path, monkeypatch):
    content = saved[0].read_bytes()
    monkeypatch.setattr(exporter, 'to_pt2', lambda *args: content)
    other = exported.model.bbox_head.wh_head[-1].bias
    before = other.data.clone()
    try:
        other.data += 0.2
        with pytest.raises(UserError, match=r'student.pt2. was not written .* no such detection'):
            export_pt2(exported.model, tmp_path / 'student.pt2')
    finally:
        other.data = before
    assert list(tmp_path.iterdir()) == []


def test_files_that_are_no_such_model(saved, exported, tmp_path):
    content = saved[0].read_bytes()
    (tmp_path / 'half.pt2').write_bytes(content[:len(content) // 2])
    with pytest.raises(UserError, match=r'half\.pt2. is truncated'):
        load_pt2(tmp_path / 'half.pt2')
    with pytest.raises(UserError, match='does not exist'):
        load_pt2(tmp_path / 'none.pt2')
    foreign = io.BytesIO()
    torch.export.save(torch.export.export(nn.ReLU(), (torch.zeros(2),)), foreign)
    (tmp_path / 'foreign.pt2').write_bytes(foreign.getvalue())
    with pytest.raises(UserError, match='not exported by this version of mmkd'):
        load_pt2(tmp_path / 'foreign.pt2')


def test_a_model_that_cannot_be_traced(exported):
    class Data(nn.Module):
        def forward(self, image):
            return image if image.sum() > 0 else -image

    with pytest.raises(UserError, match='cannot trace this model') as error:
        to_pt2(Data(), torch.zeros(2, 3, 8, 8), {}, Detector(exported.onnx).metadata)
    assert '\n' not in str(error.value)
