"""int8 models: what is quantised, how, how well, and what is refused."""

from dataclasses import replace

import cv2
import numpy as np
import onnx
import pytest
import torch
from handmade_models import HEAD, save
from handmade_models import metadata as handmade_metadata
from onnx import numpy_helper
from reference import detections, with_metadata

from mmkd.deploy import Classifier, Detector
from mmkd.deploy.export import quantize
from mmkd.deploy.export.quantize import list_layers, quantize_onnx
from mmkd.errors import UserError

LAST = [f'bbox_head.{branch}_head.2' for branch in ('heatmap', 'wh', 'offset')]


@pytest.fixture(scope='module')
def quantised(detector, images, tmp_path_factory):
    """The tiny detector in int8, and what was reported of it."""
    path = tmp_path_factory.mktemp('int8') / 'student_int8.onnx'
    return path, quantize_onnx(detector.onnx, path, images)


def constants(graph):
    return {value.name: numpy_helper.to_array(value) for value in graph.initializer}


def by_output(graph):
    return {name: node for node in graph.node for name in node.output}


def test_convolutions_are_int8_and_the_last_ones_float(detector, quantised):
    path, report = quantised
    convolutions = [name for name, module in detector.model.named_modules()
                    if isinstance(module, (torch.nn.Conv2d, torch.nn.ConvTranspose2d))]
    assert sorted((*report.layers, *report.kept)) == sorted(convolutions)
    assert sorted(report.kept) == sorted(LAST)
    layers = list_layers(detector.onnx)
    assert [layer.name for layer in layers if layer.kept] == list(report.kept)
    assert layers[0].shape == tuple(detector.model.backbone.conv1.weight.shape)

    graph = onnx.load(path).graph
    makers = by_output(graph)
    int8 = [node for node in graph.node if node.op_type == 'Conv'
            and makers.get(node.input[1]) is not None]
    assert len(int8) == len(report.layers)
    for node in int8:
        assert makers[node.input[0]].op_type == 'DequantizeLinear'
        # Nothing but the next QuantizeLinear follows: the ReLU is part of its limits.
        assert {user.op_type for user in graph.node if node.output[0] in user.input} == {
            'QuantizeLinear'}
    # Decoding, sums and pooling are as they were.
    types = [[node.op_type for node in onnx.load(file).graph.node]
             for file in (detector.onnx, path)]
    for kind in ('Add', 'MaxPool', 'TopK', 'Sigmoid', 'Where', 'GatherElements'):
        assert types[0].count(kind) == types[1].count(kind) > 0, kind
    # There are no transposed convolutions in int8.
    assert types[0].count('ConvTranspose') == types[1].count('DepthToSpace') > 0
    assert 'ConvTranspose' not in types[1]


def test_weights_are_rounded_by_the_formula(detector, quantised):
    """q = round(w / s), s = max |w| / 127 for each output channel; see Krishnamoorthi 2018."""
    before, after = (onnx.load(file).graph for file in (detector.onnx, quantised[0]))
    floats, makers, values = constants(before), by_output(after), constants(after)
    checked = 0
    for node in before.node:
        weight = node.input[1] if node.op_type == 'Conv' else ''
        if not weight or f'{weight}_quantized' not in values:
            continue
        scales = np.abs(floats[weight]).max(axis=(1, 2, 3)) / 127
        dequantise, = (n for n in makers.values() if n.input[0] == f'{weight}_quantized')
        np.testing.assert_allclose(values[dequantise.input[1]], scales, rtol=1e-5)
        assert not values[dequantise.input[2]].any()
        expected = np.round(floats[weight] / scales[:, None, None, None])
        found = values[f'{weight}_quantized']
        assert found.dtype == np.int8
        assert np.abs(found - expected).max() <= 1  # where it lies between two
        assert (found == expected).mean() > 0.99
        checked += 1
    transposed = [layer for layer in list_layers(detector.onnx) if layer.transposed]
    assert checked == len(quantised[1].layers) - len(transposed)


def test_features_cover_what_the_images_give(detector, images, quantised):
    """u8 of the first convolution's input: from the smallest to the largest prepared value."""
    graph = onnx.load(quantised[0]).graph
    values = constants(graph)
    node, = (node for node in graph.node if node.op_type == 'QuantizeLinear'
             and node.input[0] == 'image')
    scale, zero = (values[name] for name in node.input[1:])
    assert zero.dtype == np.uint8
    about = Detector(detector.onnx).metadata
    prepared = np.stack([about.prepare(cv2.imread(str(path)))[0] for path in images])
    low, high = min(prepared.min(), 0), max(prepared.max(), 0)
    assert scale == pytest.approx((high - low) / 255, rel=1e-5)
    assert zero == round(-low / scale)


def test_the_file_is_a_model_like_the_other(detector, images, quantised):
    path, report = quantised
    exact, int8 = Detector(detector.onnx), Detector(path)
    assert int8.metadata == replace(exact.metadata, precision='int8')
    assert (report.images, len(images)) == (5, 5)
    assert report.certain > 50
    assert report.agreeing > 0.8 * report.certain
    for file in images:
        a, b = (model(cv2.imread(str(file))) for model in (exact, int8))
        np.testing.assert_allclose(a.scores, b.scores, atol=0.1)
    assert [entry.name for entry in path.parent.iterdir()] == [path.name]


def test_layers_stay_in_float_on_request(detector, images, tmp_path):
    report = quantize_onnx(detector.onnx, tmp_path / 'int8.onnx', images[:1],
                           ['backbone.conv1', 'neck', 'backbone.layer1.*.conv?'])
    assert sorted(report.kept) == sorted([
        'backbone.conv1', 'neck.deconv_layers.0.conv', 'neck.deconv_layers.1.conv',
        *(f'backbone.layer1.{block}.conv{number}' for block in (0, 1) for number in (1, 2)), *LAST])
    values = constants(onnx.load(tmp_path / 'int8.onnx').graph)
    for name in report.kept:
        assert f'model.{name}.weight' in values


@pytest.fixture
def classifier(tmp_path):
    """A linear classifier: the logits are the four quarters' means, of 8 x 8 pixels."""
    numbers = np.random.default_rng(0).standard_normal(147).round(3).tolist()
    weight, bias = (', '.join(map(str, part)) for part in (numbers[:144], numbers[144:]))
    graph = HEAD + f"""
net (float[n, 3, 8, 8] image) => (float[n, 3] scores)
    <float[3, 48] fc_weight = {{{weight}}}, float[3] fc_bias = {{{bias}}}> {{
    pooled = AveragePool <kernel_shape = [2, 2], strides = [2, 2]> (image)
    flat = Flatten (pooled)
    logits = Gemm <transB = 1> (flat, fc_weight, fc_bias)
    scores = Softmax <axis = 1> (logits)
}}"""
    about = handmade_metadata(task='classification', resize_mode='stretch')
    return save(tmp_path / 'classifier.onnx', about, graph)


def test_a_classifier_is_quantised_with_its_last_layer(classifier, tmp_path):
    generator = np.random.default_rng(1)
    pictures = list(generator.integers(0, 256, (30, 8, 8, 3), dtype=np.uint8))
    report = quantize_onnx(classifier, tmp_path / 'int8.onnx', pictures)
    assert (len(report.layers), report.kept) == (1, ())
    assert report.agreeing >= 0.9 * report.certain > 0
    exact, int8 = Classifier(classifier), Classifier(tmp_path / 'int8.onnx')
    for picture in pictures:
        a, b = exact(picture), int8(picture)
        np.testing.assert_allclose(a.scores[np.argsort(a.labels)], b.scores[np.argsort(b.labels)],
                                   atol=0.1)


def test_a_fixed_batch(detector, images, tmp_path):
    two = with_metadata(detector.onnx, tmp_path / 'two.onnx', batch=2)
    quantize_onnx(two, tmp_path / 'int8.onnx', images[:2])
    assert Detector(tmp_path / 'int8.onnx').metadata.batch == 2


def test_models_that_are_refused(images, quantised, tmp_path):
    out = tmp_path / 'out/int8.onnx'

    def refuses(model, message):
        with pytest.raises(UserError, match=message):
            quantize_onnx(model, out, images)

    refuses(quantised[0], 'is quantised already: give the float32 model')
    refuses(save(tmp_path / 'half.onnx', handmade_metadata(precision='float16')),
            'exported with --half .* again without it')
    refuses(save(tmp_path / 'image.onnx', handmade_metadata(input_kind='image', batch=1)),
            'exported with --image-input')
    refuses(save(tmp_path / 'no_layer.onnx', handmade_metadata()),
            'has no convolution and no linear layer')
    assert not out.parent.exists()


@pytest.mark.parametrize(('pictures', 'keep_float', 'message'), [
    ([], (), 'no images to calibrate on'),
    (['none.jpg'], (), 'none.jpg'),
    (['broken.jpg'], (), 'broken.jpg'),
    (None, ['backbone.conv7'], r"'backbone.conv7' names no layer.* Did you mean 'backbone.conv1'"),
    (None, ['backbone', 'neck', 'bbox_head'], 'all 18 layers would stay in float'),
])
def test_nothing_is_left_behind(detector, images, tmp_path, monkeypatch, pictures, keep_float,
                                message):
    monkeypatch.chdir(tmp_path)
    (tmp_path / 'broken.jpg').write_bytes(b'no image')
    (tmp_path / 'int8.onnx').write_bytes(b'earlier')
    with pytest.raises(UserError, match=message):
        quantize_onnx(detector.onnx, 'int8.onnx', images if pictures is None else pictures,
                      keep_float)
    assert (tmp_path / 'int8.onnx').read_bytes() == b'earlier'
    assert sorted(path.name for path in tmp_path.iterdir()) == ['broken.jpg', 'int8.onnx']


def test_a_model_that_lost_its_detections_is_not_written(detector, images, tmp_path, monkeypatch):
    monkeypatch.setattr(quantize, '_agreement', lambda *_: (10, 4))
    with pytest.raises(UserError, match='agrees with the float model in 4 of 10 results'):
        quantize_onnx(detector.onnx, tmp_path / 'int8.onnx', images)
    assert not list(tmp_path.iterdir())


def test_which_detections_are_found_again():
    expected = detections(*((0.9, label, 0, 0, 10, 10) for label in range(4)),
                          (0.9, 0, 50, 50, 60, 60))
    found = detections((0.5, 0, 0, 0, 10, 19), (0.5, 1, 0, 0, 10, 21), (0.1, 2, 0, 0, 10, 10),
                       (0.9, 0, 70, 70, 80, 80))
    # IoU 10/19; 10/21; too low a score; no such label; elsewhere.
    assert quantize._found_again(expected, found).tolist() == [True, False, False, False, False]


def test_where_it_cannot_be_written(detector, images, tmp_path):
    with pytest.raises(UserError, match='is the float model itself'):
        quantize_onnx(detector.onnx, detector.onnx, images)
    with pytest.raises(UserError, match='cannot write'):
        quantize_onnx(detector.onnx, tmp_path, images)
    assert Detector(detector.onnx).metadata.precision == 'float32'
