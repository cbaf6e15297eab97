"""Turn an exported float model into an int8 one that onnxruntime runs faster on a CPU."""

import os
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from fnmatch import fnmatchcase
from pathlib import Path
from typing import Any

import numpy as np
import onnx
from onnxruntime.quantization import (
    CalibrationDataReader,
    CalibrationMethod,
    QuantFormat,
    QuantType,
    quantize_static,
)
from torch import nn

from mmkd.deploy.device.files import require_writable, with_hash, written_atomically
from mmkd.deploy.device.metadata import ModelMetadata
from mmkd.deploy.device.runtime import Classification, Detections, open_model
from mmkd.deploy.export.agreement import MismatchError
from mmkd.deploy.export.onnx_file import quiet_exporter
from mmkd.deploy.export.trained_int8 import (
    Steps,
    check_rounded,
    features,
    overrides,
    trained_ranges,
)
from mmkd.deploy.export.transposed import is_convolution, transposed_to_convolutions
from mmkd.deploy.export.verify import Image
from mmkd.errors import UserError, did_you_mean
from mmkd.images import load_image

__all__ = ['Layer', 'QuantizationReport', 'kept_layers', 'list_layers', 'quantize_onnx']

# Of the float model's results that are this certain, this share must be those of the int8 model,
# on so many of the images.
CERTAIN, REQUIRED_SHARE, COMPARED_IMAGES = 0.3, 0.5, 20
IOU = 0.5


@dataclass(frozen=True)
class Layer:
    """A convolution, transposed or not, or linear layer of an exported model.

    Args:
        name: Of the module in PyTorch, where the file still says it, else of the node.
        node: Name of the node in the graph.
        shape: Of the weight.
        kept: Whether it stays in float because boxes and scores come straight from it.
        transposed: Whether it is a transposed convolution.
    """

    name: str
    node: str
    shape: tuple[int, ...]
    kept: bool
    transposed: bool = False


@dataclass(frozen=True)
class QuantizationReport:
    """What :func:`quantize_onnx` did.

    Args:
        layers: Names of the layers in int8.
        kept: Names of the layers that stayed in float.
        images: Number of calibration images.
        certain: Results of the float model with a score of 0.3 or more, on at most 20 of them:
            objects, or images of a certain class.
        agreeing: How many of those the int8 model finds, too: an object with the same label and
            IoU 0.5 or more, the same class.
        steps: How far its features are from those of the student that was trained for int8; None
            if none was.
    """

    layers: tuple[str, ...]
    kept: tuple[str, ...]
    images: int
    certain: int
    agreeing: int
    steps: Steps | None = None


def list_layers(path: str | os.PathLike) -> list[Layer]:
    """List the layers that can be quantised, in the order in which they run.

    In a detector those whose output passes no other layer before it becomes boxes and scores
    stay in float: the last one of each branch of the head.

    Raises:
        UserError: If the file is not a float32 model exported by mmkd that takes tensors.
    """
    metadata = _float_metadata(path)
    graph = onnx.load(os.fspath(path)).graph
    shapes = {weight.name: tuple(weight.dims) for weight in graph.initializer}

    def shape(node: onnx.NodeProto) -> tuple[int, ...]:
        return shapes.get(node.input[1], ())

    leading_to_layer: set[str] = set()
    layers = []
    for node in reversed(graph.node):
        layer = node.op_type in ('Conv', 'Gemm') or (
            node.op_type == 'ConvTranspose' and is_convolution(node, shape(node)))
        kept = not leading_to_layer.intersection(node.output)
        if layer or not kept:
            leading_to_layer.update(node.input)
        if layer:
            layers.append((node, kept and metadata.task == 'detection'))
    if not layers:
        raise UserError(f"'{path}' has no convolution and no linear layer to quantise: use it as "
                        'it is')
    return [Layer(_layer_name(node), node.name, shape(node), kept, node.op_type == 'ConvTranspose')
            for node, kept in reversed(layers)]


def _float_metadata(path: str | os.PathLike) -> ModelMetadata:
    metadata = open_model(path).metadata
    if metadata.precision == 'int8':
        raise UserError(f"'{path}' is quantised already: give the float32 model that "
                        'mmkd export wrote')
    if metadata.precision != 'float32' or metadata.input_kind != 'tensor':
        option = '--half' if metadata.precision != 'float32' else '--image-input'
        raise UserError(f"'{path}' was exported with {option} and cannot be quantised: export the "
                        'checkpoint again without it')
    return metadata


def _layer_name(node: onnx.NodeProto) -> str:
    weight = node.input[1]
    return weight[:-len('.weight')].removeprefix('model.') if weight.endswith('.weight') \
        else node.name


def quantize_onnx(float_path: str | os.PathLike, int8_path: str | os.PathLike,
                  images: Sequence[Image], keep_float: Sequence[str] = (),
                  student: nn.Module | None = None) -> QuantizationReport:
    """Write an int8 version of an exported model.

    Convolutions, with the ReLU after them, and linear layers compute in int8: weights in int8 with
    a scale for each output channel, features in uint8 with a scale and a zero point for each
    tensor, from the smallest and largest value that the images give. Transposed convolutions,
    which onnxruntime has in float alone, become convolutions first, see
    :func:`~mmkd.deploy.export.transposed.as_convolution`. All else stays in float, and so do the
    layers that :func:`list_layers` marks. The file's input and outputs are those of ``float_path``;
    it appears whole and checked, or not at all.

    Source: B. Jacob et al., Quantization and Training of Neural Networks for Efficient
    Integer-Arithmetic-Only Inference, CVPR 2018, arXiv 1712.05877; R. Krishnamoorthi, Quantizing
    deep convolutional networks for efficient inference: A whitepaper, 2018, arXiv 1806.08342.

    Args:
        float_path: What :func:`~mmkd.deploy.export.export_onnx` wrote.
        int8_path: Where the ``.onnx`` file goes.
        images: Image files, or ``(h, w, 3)`` uint8 images in BGR order: a hundred of those that
            the model is made for.
        keep_float: Layers or nodes to leave in float besides, or modules that hold them; ``*``
            and ``?`` stand for any characters.
        student: What ``load_model`` returned of the checkpoint that ``float_path`` is of. If it was
            trained for int8, it has the ranges, the layers are those that were trained so, and the
            file is checked against it, rounded in PyTorch.

    Raises:
        UserError: If the float model does not serve, there are no images or one does not decode,
            a name fits no layer, the int8 model finds less than half of what the float model
            does, or the file cannot be written.
    """
    metadata = _float_metadata(float_path)
    ranges = None if student is None else trained_ranges(student)
    layers = list_layers(float_path)
    kept = kept_layers(layers, keep_float) if ranges is None else [
        layer for layer in layers if f'{layer.name}:0:output' not in ranges]
    if ranges is not None and keep_float:
        raise UserError('the student was trained for int8 in all its layers but the last: leave '
                        '--keep-float out')
    if not len(images):
        raise UserError('there are no images to calibrate on: give some with --images, or a '
                        'config with training data and a --calibration above 0')
    float_path, int8_path = Path(float_path), Path(int8_path)
    if float_path.resolve() == int8_path.resolve():
        raise UserError(f"'{int8_path}' is the float model itself: name another file with --out")
    require_writable(int8_path)
    model = onnx.load(float_path)
    transposed_to_convolutions(model, {layer.node for layer in layers
                                       if layer.transposed and layer not in kept})
    tensors = features(model.graph, [(layer.name, layer.node) for layer in layers])
    trained = {} if ranges is None else overrides(ranges, tensors)
    with written_atomically(int8_path) as temporary:
        # It advises to fold batch norms, which the exporter has done.
        with quiet_exporter():
            quantize_static(
                model, temporary, _Calibration(images if ranges is None else images[:1], metadata),
                quant_format=QuantFormat.QDQ, calibrate_method=CalibrationMethod.MinMax,
                activation_type=QuantType.QUInt8, weight_type=QuantType.QInt8, per_channel=True,
                # Relu and Clip (ReLU6) count for their place alone: behind a layer in int8 they
                # become the limits of its output.
                op_types_to_quantize=['Conv', 'Gemm', 'Relu', 'Clip'],
                nodes_to_exclude=[layer.node for layer in kept],
                extra_options=dict(TensorQuantOverrides=trained))
        proto = onnx.load(temporary)
        onnx.helper.set_model_props(proto, replace(metadata, precision='int8').to_props())
        temporary.write_bytes(with_hash(proto.SerializeToString()))
        steps = None if ranges is None else _checked(int8_path, temporary, student, tensors,
                                                     images[:COMPARED_IMAGES])
        certain, agreeing = _agreement(float_path, temporary, images[:COMPARED_IMAGES])
        if agreeing < REQUIRED_SHARE * certain:
            raise UserError(
                f"'{int8_path}' was not written because the int8 model agrees with the float model "
                f'in {agreeing} of {certain} results only: keep the first or the last layers in '
                'float with --keep-float, or calibrate on images like those it is made for')
    return QuantizationReport(
        tuple(layer.name for layer in layers if layer not in kept),
        tuple(layer.name for layer in kept), len(images), certain, agreeing, steps)


def _checked(path: Path, temporary: Path, student: nn.Module, tensors: Mapping[str, str],
             images: Sequence[Image]) -> Steps:
    try:
        return check_rounded(temporary, student, tensors, images)[1]
    except MismatchError as error:
        raise UserError(f"'{path}' was not written because it failed its check against the student "
                        f'that was trained for int8: {error}') from error


def kept_layers(layers: Sequence[Layer], patterns: Sequence[str]) -> list[Layer]:
    """Return the layers that stay in float, by default or because a pattern names them.

    Args:
        layers: From :func:`list_layers`.
        patterns: ``keep_float`` of :func:`quantize_onnx`.

    Raises:
        UserError: If a pattern names no layer, or no layer is left to quantise.
    """
    def fits(layer: Layer, pattern: str) -> bool:
        return any(fnmatchcase(name, pattern) or fnmatchcase(name, f'{pattern}.*')
                   for name in (layer.name, layer.node))

    for pattern in patterns:
        if not any(fits(layer, pattern) for layer in layers):
            names = [layer.name for layer in layers]
            raise UserError(f"--keep-float '{pattern}' names no layer: see --list-layers."
                            f'{did_you_mean(pattern, names)}')
    kept = [layer for layer in layers
            if layer.kept or any(fits(layer, pattern) for pattern in patterns)]
    if len(kept) == len(layers):
        raise UserError(f'all {len(layers)} layers would stay in float: name fewer with '
                        '--keep-float')
    return kept


class _Calibration(CalibrationDataReader):
    """Prepares the images one after the other, as the quantiser asks for them."""

    def __init__(self, images: Sequence[Image], metadata: ModelMetadata) -> None:
        self.inputs = self._inputs(images, metadata)

    @staticmethod
    def _inputs(images: Sequence[Image], metadata: ModelMetadata) -> Iterator[dict[str, Any]]:
        for image in images:
            pixels = _pixels(image)
            prepared = metadata.prepare(pixels)[0][None].repeat(metadata.batch or 1, axis=0)
            size = metadata.scaled_size(*pixels.shape[:2])
            yield metadata.feed(prepared, [size] * len(prepared))

    def get_next(self) -> dict[str, Any] | None:
        return next(self.inputs, None)


def _pixels(image: Image) -> np.ndarray:
    return image if isinstance(image, np.ndarray) else load_image(image)


def _agreement(float_path: Path, int8_path: Path, images: Sequence[Image]) -> tuple[int, int]:
    """Count the certain results of the float model, and those of them that int8 shares."""
    exact, quantised = open_model(float_path), open_model(int8_path)
    certain = agreeing = 0
    for image in map(_pixels, images):
        expected, found = exact(image), quantised(image)
        if isinstance(expected, Classification):
            sure = expected.scores[:1] >= CERTAIN
            hits = expected.labels[:1] == found.labels[:1]
        else:
            sizes = expected.boxes[:, 2:] - expected.boxes[:, :2]
            sure = (expected.scores >= CERTAIN) & (sizes > 0).all(1)
            hits = _found_again(expected, found)
        certain += int(sure.sum())
        agreeing += int((hits & sure).sum())
    return certain, agreeing


def _found_again(expected: Detections, found: Detections) -> np.ndarray:
    """Whether each expected box has one of the same label with IoU 0.5 or more, ``(K,)``."""
    a, b = expected.boxes[:, None], found.boxes[None]
    sides = np.minimum(a[..., 2:], b[..., 2:]) - np.maximum(a[..., :2], b[..., :2])
    common = sides.clip(min=0).prod(-1)
    union = sum((box[..., 2:] - box[..., :2]).clip(min=0).prod(-1) for box in (a, b)) - common
    same = expected.labels[:, None] == found.labels[None]
    return (same & (common >= IOU * union) & (found.scores >= CERTAIN / 2)).any(1)
