"""The exported graph, its metadata, and what is refused."""

import hashlib
import json
import os
from pathlib import Path

import numpy as np
import onnx
import onnxruntime
import pytest
import torch
from helpers import CLASSES, MEAN, STD, build, centernet
from mmengine.config import ConfigDict
from reference import SIZE, config_of, lively, with_bias
from torch import nn

import mmkd
from mmkd.deploy import Detector
from mmkd.deploy.export import export_onnx, exporter, load_model, onnx_file
from mmkd.deploy.export.detector_graph import ExportableCenterNet, detector_metadata
from mmkd.errors import UserError


def decode_by_loops(model, image, topk=100):
    """Objects as Points, section 4: a cell not less than its 8 neighbours is an object."""
    with torch.no_grad():
        heatmap, size, offset = (maps[-1][0].numpy().astype(np.float64)
                                 for maps in model.bbox_head(model.extract_feat(image)))
    classes, height, width = heatmap.shape
    stride = image.shape[-1] / width
    found = []
    for c, y, x in np.ndindex(classes, height, width):
        window = heatmap[c, max(y - 1, 0):y + 2, max(x - 1, 0):x + 2]
        if heatmap[c, y, x] < window.max():
            continue
        centre_x, centre_y = x + offset[0, y, x], y + offset[1, y, x]
        w, h = size[:, y, x]
        found.append((heatmap[c, y, x], c, (centre_x - w / 2) * stride,
                      (centre_y - h / 2) * stride, (centre_x + w / 2) * stride,
                      (centre_y + h / 2) * stride))
    found.sort(reverse=True)
    return np.array(found[:topk])


def by_box(detections):
    """Rows (score, label, box) in an order that ties in the score do not change."""
    return detections[np.lexsort(detections[:, ::-1].round(3).T)]


def matches_loops(outputs, model, images, at_least=3):
    """Assert that the outputs for a batch are the objects that plain loops find."""
    for boxes, scores, labels, image in zip(*outputs, images, strict=True):
        expected = decode_by_loops(model, image[None])
        count = min(100, len(expected))
        assert count >= at_least
        assert (scores[count:] == 0).all()  # beyond the last peak
        rows = np.column_stack((scores, labels, boxes))[:count].astype(np.float64)
        np.testing.assert_allclose(by_box(rows)[:, 1:], by_box(expected)[:, 1:], atol=1e-3)
        np.testing.assert_allclose(rows[:, 0], expected[:, 0], atol=1e-5)


@pytest.mark.parametrize('batch', [1, 3])
def test_graph_equals_decoding_in_float64(exported, batch):
    images = torch.randn(batch, 3, SIZE, SIZE, generator=torch.Generator().manual_seed(batch))
    session = onnxruntime.InferenceSession(exported.onnx)
    boxes, scores, labels = session.run(None, {'image': images.numpy()})
    assert (boxes.shape, scores.shape, labels.shape) == ((batch, 100, 4), (batch, 100),
                                                         (batch, 100))
    assert (boxes.dtype, scores.dtype, labels.dtype) == (np.float32, np.float32, np.int64)
    assert (np.diff(scores) <= 0).all()
    matches_loops((boxes, scores, labels), exported.model, images, at_least=20)


def test_reports_what_was_checked(exported, images):
    on_random, on_images = exported.checks
    assert (on_random.inputs, on_images.inputs) == (4, len(images))
    assert on_random.boxes > 100
    assert 0 < on_images.box_difference < 1e-2
    assert 0 < on_images.score_difference < 1e-4


@pytest.mark.slow
@pytest.mark.parametrize(('stacks', 'backbone', 'neck'), [
    pytest.param(0, None, dict(use_dcn=True), id='dcn'),
    pytest.param(2, None, None, id='hourglass'),
    pytest.param(0, dict(type='EfficientNet', arch='b0', out_indices=(5,)),
                 dict(in_channels=320), id='efficientnet'),
    pytest.param(0, dict(type='MobileNetV2', widen_factor=0.1, out_indices=(6,)),
                 dict(in_channels=32), id='mobilenetv2', marks=pytest.mark.matrix)])
def test_every_kind_of_network(stacks, backbone, neck, detector_config, tmp_path):
    config = centernet(stacks=stacks)
    config.test_cfg = detector_config.test_cfg
    config.backbone = ConfigDict(backbone or config.backbone)
    if neck:
        config.neck.update(neck)
    model = lively(config)
    export_onnx(model, tmp_path / 'student.onnx')
    image = torch.randn(1, 3, SIZE, SIZE, generator=torch.Generator().manual_seed(0))
    session = onnxruntime.InferenceSession(tmp_path / 'student.onnx')
    matches_loops(session.run(None, {'image': image.numpy()}), model, image, at_least=10)


def test_sizes_that_vary(exported, images, tmp_path):
    on_random, on_images = export_onnx(exported.model, tmp_path / 'student.onnx', images, 20,
                                       dynamic_size=True)
    assert (on_random.inputs, on_images.inputs) == (1 + 3 + 1 + 3, len(images))
    proto = onnx.load(tmp_path / 'student.onnx')
    assert proto.opset_import[0].version == 20
    detector = Detector(tmp_path / 'student.onnx')
    assert (detector.metadata.dynamic_size, detector.metadata.size_divisor) == (True, 8)
    # The least size has fewer cells than there are objects to return.
    for shape in ((2, 3, 8, 8), (1, 3, 40, 96)):
        batch = torch.randn(shape, generator=torch.Generator().manual_seed(0))
        outputs = detector.session.run(None, {'image': batch.numpy()})
        assert outputs[0].shape == (len(batch), 100, 4)
        matches_loops(outputs, exported.model, batch)


def test_one_batch_in_float16(exported, images, tmp_path):
    on_random, on_images = export_onnx(exported.model, tmp_path / 'student.onnx', images,
                                       batch=2, half=True)
    assert (on_random.inputs, on_images.inputs) == (2, len(images))
    assert 1e-5 < on_random.score_difference < 1e-3
    assert 1e-4 < on_random.box_difference < 0.05
    detector = Detector(tmp_path / 'student.onnx')
    image, = detector.session.get_inputs()
    assert (image.type, image.shape) == ('tensor(float16)', [2, 3, SIZE, SIZE])
    assert {output.type for output in detector.session.get_outputs()} == {'tensor(float)',
                                                                        'tensor(int64)'}
    assert (detector.metadata.batch, detector.metadata.precision) == (2, 'float16')
    weights = [weight for weight in onnx.load(tmp_path / 'student.onnx').graph.initializer
               if len(weight.dims) == 4]
    assert {weight.data_type for weight in weights} == {onnx.TensorProto.FLOAT16}
    assert len(weights) > 10


def test_no_batch_norm_is_left(exported):
    assert any(isinstance(module, nn.BatchNorm2d) for module in exported.model.modules())
    operators = {node.op_type for node in onnx.load(exported.onnx).graph.node}
    assert 'Conv' in operators
    assert 'BatchNormalization' not in operators


@pytest.mark.parametrize(('options', 'message'), [
    (dict(image_input=True, dynamic_size=True), 'leave --dynamic-size out'),
    (dict(image_input=True, batch=2), 'leave --batch out'),
    (dict(batch=-1), '--batch is -1'),
])
def test_options_that_exclude_one_another(exported, tmp_path, options, message):
    with pytest.raises(UserError, match=message):
        export_onnx(exported.model, tmp_path / 'student.onnx', **options)
    assert list(tmp_path.iterdir()) == []


def test_metadata(exported):
    props = {prop.key: json.loads(prop.value)
             for prop in onnx.load(exported.onnx).metadata_props}
    # Of all before the last entry: its tag and length, those of key and value, and these.
    before = exported.onnx.read_bytes()[:-2 - 8 - 2 - 66]
    assert props.pop('sha256') == hashlib.sha256(before).hexdigest()
    assert props == dict(
        mmkd_version=mmkd.__version__, classes=list(CLASSES), input_size=[SIZE, SIZE],
        channel_order='RGB', mean=pytest.approx(MEAN), std=pytest.approx(STD),
        resize_to=[SIZE, SIZE], resize_dtype='uint8', pad_value=0, task='detection',
        input_kind='tensor', precision='float32', dynamic_size=False, size_divisor=8, batch=0,
        resize_mode='letterbox')


def test_file_tells_nothing_of_the_machine(exported):
    package = Path(mmkd.__file__).parent
    content = exported.onnx.read_bytes()
    assert os.fsencode(package) not in content
    assert os.fsencode(Path(torch.__file__).parent) not in content


def test_a_file_that_fails_its_check_is_not_left(exported, tmp_path, monkeypatch):
    """The exporter writes a wrong number: every box is 0.2 cells wider than PyTorch's."""
    proto = with_bias(exported.onnx, 'wh_head.2.bias', [0.2, 0])
    monkeypatch.setattr(exporter, 'to_onnx', lambda *args: proto)
    with pytest.raises(UserError, match=r'student.onnx. was not written .* no such detection'):
        export_onnx(exported.model, tmp_path / 'student.onnx')
    assert list(tmp_path.iterdir()) == []

    (tmp_path / 'student.onnx').write_bytes(b'an earlier export')
    with pytest.raises(UserError, match='was not written'):
        export_onnx(exported.model, tmp_path / 'student.onnx')
    assert [file.read_bytes() for file in tmp_path.iterdir()] == [b'an earlier export']


def test_the_model_is_left_as_it_was(detector_config, tmp_path, monkeypatch):
    model = lively(detector_config).train()
    before = {key: value.clone() for key, value in model.state_dict().items()}
    monkeypatch.setattr(exporter, 'to_onnx', lambda *args: onnx.ModelProto())
    with pytest.raises(UserError):
        export_onnx(model, tmp_path / 'student.onnx')
    assert model.training
    assert all(torch.equal(before[key], value) for key, value in model.state_dict().items())
    assert list(tmp_path.iterdir()) == []


def test_a_folder_that_cannot_be_written(exported, tmp_path, monkeypatch):
    monkeypatch.setattr(exporter, 'to_onnx', lambda *args: onnx.ModelProto())
    (tmp_path / 'file').write_text('')
    with pytest.raises(UserError, match='cannot write'):
        export_onnx(exported.model, tmp_path / 'file' / 'student.onnx')


class Operation(nn.Module):
    output_names = ('result',)

    def __init__(self, operation):
        super().__init__()
        self.operation = operation

    def forward(self, image):
        return self.operation(image)


def test_an_opset_that_cannot_express_the_model():
    # Opset 18 gave Split an attribute that 17 does not know.
    with pytest.raises(UserError, match=r'cannot be expressed in ONNX opset 17.*--opset'):
        onnx_file.to_onnx(Operation(lambda image: image.cos().chunk(3, dim=1)[0]),
                          torch.zeros(2, 3, 8, 8), {}, 17)


@pytest.mark.parametrize(('operation', 'named'), [
    (torch.linalg.eigvals, 'linalg_eig'),
    (lambda image: image if image.sum() > 0 else -image, 'data-dependent'),
])
def test_an_operation_that_cannot_be_exported(operation, named, capfd):
    with pytest.raises(UserError, match=f'cannot export this model.*{named}') as error:
        onnx_file.to_onnx(Operation(operation), torch.zeros(2, 3, 8, 8), {}, 18)
    assert '\n' not in str(error.value)
    assert capfd.readouterr() == ('', '')


def test_a_torch_without_the_exporter(monkeypatch):
    monkeypatch.setattr(torch, '__version__', torch.torch_version.TorchVersion('2.4.1'))
    with pytest.raises(UserError, match=r'torch 2\.6 or newer but this is 2\.4\.1'):
        onnx_file.to_onnx(nn.Identity(), torch.zeros(2, 3, 8, 8), {}, 18)


@pytest.fixture
def untrained(detector_config):
    model = build(detector_config)
    model.cfg, model.dataset_meta = config_of(detector_config), dict(classes=CLASSES)
    return model


def test_a_size_between_the_strides(untrained):
    untrained.data_preprocessor.pad_size_divisor = 68
    assert exporter.model_metadata(untrained).size_divisor == 1
    with pytest.raises(UserError, match=r'multiples of 8, which 68 is not'):
        exporter.model_metadata(untrained, dynamic_size=True)


def test_metadata_of_bgr_images_that_are_not_normalised_and_scaled_as_float32(untrained):
    preprocessor = type(untrained.data_preprocessor)
    untrained.data_preprocessor = preprocessor(pad_size_divisor=96, pad_value=7)
    pipeline = untrained.cfg.test_dataloader.dataset.pipeline
    pipeline[0].to_float32 = True
    pipeline[1].scale = (64, 48)
    metadata = detector_metadata(untrained)
    assert (metadata.mean, metadata.std) == ((0, 0, 0), (1, 1, 1))
    assert (metadata.channel_order, metadata.pad_value) == ('BGR', 7)
    assert (metadata.input_size, metadata.resize_to) == ((96, 96), (64, 48))
    assert metadata.resize_dtype == 'float32'


def test_what_of_a_config_is_refused(untrained):
    """A size that depends on the image, images that are stretched, and too few names."""
    untrained.data_preprocessor.pad_size_divisor = 32
    with pytest.raises(UserError, match=r'pad_size_divisor is 32.* set it to 64'):
        detector_metadata(untrained)
    untrained.cfg.test_dataloader.dataset.pipeline[1].keep_ratio = False
    with pytest.raises(UserError, match='keep_ratio=True'):
        detector_metadata(untrained)
    untrained.dataset_meta = dict(classes=('a', 'b'))
    with pytest.raises(UserError, match='3 classes but its checkpoint or config names 2'):
        detector_metadata(untrained)


def test_names_from_the_config(detector_config, exported, tmp_path):
    torch.save(torch.load(exported.checkpoint)['state_dict'], tmp_path / 'weights.pth')
    wrapped = config_of(detector_config, ('x', 'y', 'z'))
    wrapped.test_dataloader.dataset = dict(
        type='ConcatDataset', datasets=[wrapped.test_dataloader.dataset])
    model = load_model(wrapped, tmp_path / 'weights.pth')
    assert model.dataset_meta['classes'] == ('x', 'y', 'z')


def test_another_kind_of_model():
    with pytest.raises(UserError, match='one-stage detectors with a CenterNetHead'):
        ExportableCenterNet(nn.Linear(1, 1))
