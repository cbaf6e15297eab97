"""Transposed convolutions as convolutions, which onnxruntime can compute in int8."""

import numpy as np
import onnx
from onnx import helper, numpy_helper

__all__ = ['as_convolution', 'is_convolution', 'transposed_to_convolutions']


def as_convolution(weight: np.ndarray, stride: tuple[int, int], padding: tuple[int, int]
                   ) -> tuple[np.ndarray, list[int]]:
    """Return a convolution that computes each pixel of a transposed one's output as a channel.

    Along one axis a transposed convolution of stride s, padding p and weights W gives, for the
    phase r = 0 ... s - 1 of each input place i,

        y[s i + r] = sum_k x[i + d] W[k],    d = (r + p - k) / s,    over the k where d is whole

    which is a convolution of x for each r; moving channels to places (DepthToSpace) gives y. The
    weights that one phase uses and another does not are 0 in the other. A 4 x 4 kernel of stride 2
    becomes four 3 x 3 kernels, 2.25 times the multiplications.

    Args:
        weight: ``(C_in, C_out, K_h, K_w)``.
        stride: s of height and width.
        padding: p of height and width; K - 2 p must be s, or the output would not be s times as
            large as the input.

    Returns:
        weights ``(s_h s_w C_out, C_in, D_h, D_w)``, channels in the order phase of the row, phase
        of the column, C_out; and the padding top, left, bottom, right.
    """
    axes = [[(r, k, (r + p - k) // s) for r in range(s) for k in range(size)
             if (r + p - k) % s == 0]
            for size, s, p in zip(weight.shape[2:], stride, padding, strict=True)]
    lows, highs = zip(*((min(d for _, _, d in taps), max(d for _, _, d in taps)) for taps in axes),
                      strict=True)
    rows, columns = (high - low + 1 for low, high in zip(lows, highs, strict=True))
    inputs, outputs = weight.shape[:2]
    result = np.zeros((*stride, outputs, inputs, rows, columns), weight.dtype)
    for r_row, k_row, d_row in axes[0]:
        for r_column, k_column, d_column in axes[1]:
            result[r_row, r_column, :, :, d_row - lows[0], d_column - lows[1]] = \
                weight[:, :, k_row, k_column].T
    return result.reshape(-1, inputs, rows, columns), [-lows[0], -lows[1], highs[0], highs[1]]


def is_convolution(node: onnx.NodeProto, shape: tuple[int, ...]) -> bool:
    """Whether :func:`transposed_to_convolutions` can rewrite a node.

    Args:
        node: of any operator.
        shape: of its weight, if that is a constant; else empty.
    """
    if node.op_type != 'ConvTranspose' or len(shape) != 4:
        return False
    options = _options(node)
    (top, left, bottom, right), stride = options['pads'], options['strides']
    return (options['group'] == 1 and options['dilations'] == [1, 1]
            and options['auto_pad'] == 'NOTSET' and not any(options['output_padding'])
            and (top, left) == (bottom, right) and stride[0] == stride[1]
            and [shape[2] - 2 * top, shape[3] - 2 * left] == stride)


def _options(node: onnx.NodeProto) -> dict:
    found = dict(group=1, dilations=[1, 1], auto_pad='NOTSET', output_padding=[0, 0],
                 pads=[0, 0, 0, 0], strides=[1, 1])
    found.update((one.name, helper.get_attribute_value(one)) for one in node.attribute)
    if isinstance(found['auto_pad'], bytes):
        found['auto_pad'] = found['auto_pad'].decode()
    return found


def transposed_to_convolutions(model: onnx.ModelProto, nodes: set[str]) -> None:
    """Replace transposed convolutions by a convolution and DepthToSpace, in place.

    The convolution keeps the node's name. A ReLU after the node, if nothing else reads what the
    node returns, comes before DepthToSpace, where it is part of the convolution.

    Args:
        model: with constant weights.
        nodes: names of nodes for which :func:`is_convolution` holds.
    """
    graph = model.graph
    constants = {tensor.name: numpy_helper.to_array(tensor) for tensor in graph.initializer}
    places = {}  # what comes after a node
    for node in graph.node:
        if node.name not in nodes:
            continue
        [inner] = node.output
        readers = [other for other in graph.node if inner in other.input]
        last = readers[0] if [other.op_type for other in readers] == ['Relu'] else node
        [output] = last.output
        last.output[0] = f'{output}_phases'
        places[last.name] = helper.make_node(
            'DepthToSpace', [last.output[0]], [output], name=f'{node.name}_places',
            blocksize=_options(node)['strides'][0], mode='DCR')
        _rewrite(graph, node, [constants[name] for name in node.input[1:]])
        if last is not node:
            _forget_shape(graph, inner)
    nodes_in_order = [one for node in graph.node for one in (node, places.get(node.name)) if one]
    del graph.node[:]
    graph.node.extend(nodes_in_order)
    read = {name for node in graph.node for name in node.input}
    used = [tensor for tensor in graph.initializer if tensor.name in read]
    del graph.initializer[:]
    graph.initializer.extend(used)


def _rewrite(graph: onnx.GraphProto, node: onnx.NodeProto, weights: list[np.ndarray]) -> None:
    options = _options(node)
    kernel, pads = as_convolution(weights[0], options['strides'], options['pads'][:2])
    phases = options['strides'][0] ** 2
    for number, tensor in enumerate((kernel, *(np.tile(bias, phases) for bias in weights[1:]))):
        name = f'{node.name}.{("weight", "bias")[number]}'
        graph.initializer.append(numpy_helper.from_array(np.ascontiguousarray(tensor), name))
        node.input[1 + number] = name
    node.op_type = 'Conv'
    del node.attribute[:]
    node.attribute.extend([helper.make_attribute('kernel_shape', kernel.shape[2:]),
                           helper.make_attribute('pads', pads)])


def _forget_shape(graph: onnx.GraphProto, name: str) -> None:
    for number, info in enumerate(graph.value_info):
        if info.name == name:
            del graph.value_info[number]
            return
