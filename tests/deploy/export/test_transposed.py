"""Transposed convolutions as convolutions, against PyTorch's and onnxruntime's own."""

import numpy as np
import onnx
import onnxruntime
import pytest
import torch
import torch.nn.functional as F
from onnx import helper, numpy_helper

from mmkd.deploy.export.transposed import as_convolution, is_convolution, transposed_to_convolutions


@pytest.mark.parametrize(('kernel', 'stride', 'padding'), [
    ((4, 4), (2, 2), (1, 1)), ((2, 2), (2, 2), (0, 0)), ((6, 6), (2, 2), (2, 2)),
    ((3, 3), (1, 1), (1, 1)), ((5, 5), (3, 3), (1, 1)), ((4, 2), (2, 2), (1, 0))])
def test_each_phase_is_a_convolution(kernel, stride, padding):
    generator = torch.Generator().manual_seed(0)
    x, weight = (torch.randn(shape, generator=generator, dtype=torch.float64)
                 for shape in ((2, 5, 6, 7), (5, 3, *kernel)))
    expected = F.conv_transpose2d(x, weight, stride=stride, padding=padding)
    rows, pads = as_convolution(weight.numpy(), stride, padding)
    top, left, bottom, right = pads
    phases = F.conv2d(F.pad(x, (left, right, top, bottom)), torch.from_numpy(rows))
    assert phases.shape[2:] == x.shape[2:]
    found = torch.empty_like(expected)
    for number, part in enumerate(phases.chunk(stride[0] * stride[1], dim=1)):
        row, column = divmod(number, stride[1])
        found[:, :, row::stride[0], column::stride[1]] = part
    torch.testing.assert_close(found, expected, rtol=1e-12, atol=1e-12)


def test_the_usual_kernel_by_hand():
    """4 x 4, stride 2, padding 1: the even outputs of a row are x[i] W[1] + x[i - 1] W[3]."""
    weight = np.zeros((1, 1, 4, 4))
    weight[0, 0, 1] = 1, 2, 3, 4  # one row of weights, which meets even rows of the output alone
    rows, pads = as_convolution(weight, (2, 2), (1, 1))
    assert pads == [1, 1, 1, 1] and rows.shape == (4, 1, 3, 3)
    assert rows[0, 0].tolist() == [[0, 0, 0], [4, 2, 0], [0, 0, 0]]
    assert rows[1, 0].tolist() == [[0, 0, 0], [0, 3, 1], [0, 0, 0]]
    assert not rows[2:].any()


def transposed_node(output='y', **options):
    return helper.make_node('ConvTranspose', ['x', 'w', 'b'], [output], name='up', **(
        dict(kernel_shape=[4, 4], strides=[2, 2], pads=[1, 1, 1, 1]) | options))


def model(nodes):
    generator = np.random.default_rng(0)
    return helper.make_model(helper.make_graph(
        nodes, 'g', [helper.make_tensor_value_info('x', 1, ['batch', 5, 6, 7])],
        [helper.make_tensor_value_info('z', 1, ['batch', 3, 12, 14])],
        [numpy_helper.from_array(generator.normal(size=shape).astype(np.float32), name)
         for name, shape in (('w', (5, 3, 4, 4)), ('b', (3,)))],
        value_info=[helper.make_tensor_value_info('y', 1, ['batch', 3, 12, 14])]),
        opset_imports=[helper.make_opsetid('', 18)], ir_version=10)


@pytest.mark.parametrize(('nodes', 'order'), [
    ([transposed_node('z')], ['Conv', 'DepthToSpace']),
    ([transposed_node(), helper.make_node('Relu', ['y'], ['z'], name='relu')],
     ['Conv', 'Relu', 'DepthToSpace']),
    # The sum reads what comes before the ReLU, too.
    ([transposed_node(), helper.make_node('Relu', ['y'], ['r'], name='relu'),
      helper.make_node('Add', ['y', 'r'], ['z'], name='sum')],
     ['Conv', 'DepthToSpace', 'Relu', 'Add'])])
def test_a_model_computes_what_it_did(nodes, order):
    before = model(nodes)
    after = onnx.ModelProto()
    after.CopyFrom(before)
    transposed_to_convolutions(after, {'up'})
    onnx.checker.check_model(after, full_check=True)
    assert [node.op_type for node in after.graph.node] == order
    assert [node.name for node in after.graph.node if node.op_type == 'Conv'] == ['up']
    assert {tensor.name for tensor in after.graph.initializer} == {'up.weight', 'up.bias'}
    x = np.random.default_rng(1).normal(size=(2, 5, 6, 7)).astype(np.float32)
    found, expected = (onnxruntime.InferenceSession(one.SerializeToString()).run(None, {'x': x})[0]
                       for one in (after, before))
    np.testing.assert_allclose(found, expected, rtol=1e-4, atol=1e-4)


@pytest.mark.parametrize('options', [
    dict(group=5), dict(dilations=[2, 2]), dict(output_padding=[1, 1]), dict(auto_pad='SAME_UPPER'),
    dict(pads=[0, 0, 0, 0]), dict(pads=[2, 1, 0, 1]), dict(strides=[2, 1], pads=[1, 1, 1, 1])])
def test_what_stays(options):
    assert is_convolution(transposed_node(), (5, 3, 4, 4))
    assert not is_convolution(transposed_node(**options), (5, 3, 4, 4))
    assert not is_convolution(transposed_node(), ())  # its weight is computed
