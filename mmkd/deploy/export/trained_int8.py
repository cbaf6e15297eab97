"""An int8 model whose ranges were trained: into the file, and checked against PyTorch.

The file computes as :class:`mmkd.int8.Rounded` does, but for the order of sums in float32. Where
that order decides between two steps of a feature, all behind it differs by about as much. So each
feature is compared for itself: PyTorch computes it from what the file has before it, and it may
differ by one step.
"""

import os
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import onnx
import onnxruntime
import torch
from torch import Tensor, nn

from mmkd.deploy.device.metadata import ModelMetadata
from mmkd.deploy.export.agreement import Agreement, MismatchError
from mmkd.deploy.export.predictions import random_sizes, samples_of_sizes
from mmkd.deploy.export.verify import Image, check_images, check_random
from mmkd.errors import UserError
from mmkd.int8.hook import places_of
from mmkd.int8.places import Places
from mmkd.int8.rounding import rounded_feature, scale_and_zero
from mmkd.int8.student import Ranges, Rounded

__all__ = ['Steps', 'check_rounded', 'features', 'overrides', 'rounded_student', 'trained_ranges']

MOST_STEPS, MOST_OTHER = 1, 0.01
"""Of trained students 0.00002 of the values are another step; with another range most are."""
LIMITS = ('Relu', 'Clip')


@dataclass
class Steps:
    """How far features of a file are from PyTorch's.

    Args:
        values: How many numbers were compared.
        other: How many of them are not the same step.
        most: The largest difference in steps.
    """

    values: int = 0
    other: int = 0
    most: int = 0

    def __str__(self) -> str:
        return (f'{self.values} values in int8, {100 * self.other / max(self.values, 1):.4f} % '
                f'of them {self.most} step apart' if self.other else
                f'{self.values} values in int8, all the same')

    def add(self, difference: Tensor) -> None:
        """Take in differences in steps."""
        self.values += difference.numel()
        self.other += int((difference > 0).sum())
        self.most = max(self.most, int(difference.max()))


def trained_ranges(model: nn.Module) -> Mapping[str, Any] | None:
    """Return the int8 ranges that a model of ``load_model`` was trained with, None if with none."""
    return getattr(model, 'int8_ranges', None)


def rounded_student(model: nn.Module, metadata: ModelMetadata) -> tuple[Places, Ranges]:
    """Find where a student is rounded, and its trained ranges.

    Raises:
        UserError: The ranges are of another network.
    """
    size = metadata.input_size
    samples = None if metadata.task == 'classification' else samples_of_sizes(
        random_sizes(2, size, metadata), size)
    places = places_of(model, torch.zeros(2, 3, *size), samples)
    ranges = Ranges(places)
    ranges.load(trained_ranges(model))
    return places, ranges


def features(graph: onnx.GraphProto, layers: Sequence[tuple[str, str]]) -> dict[str, str]:
    """Return the tensor of each feature ``LAYER:CALL:input`` or ``output``, as ranges name them.

    Args:
        graph: Of the model.
        layers: Name and node of each layer, in their order.
    """
    nodes = {node.name: node for node in graph.node}
    calls: Counter[str] = Counter()
    found = {}
    for name, node in ((name, nodes[node]) for name, node in layers):
        call, output = f'{name}:{calls[name]}', node.output[0]
        calls[name] += 1
        readers = [other for other in graph.node if output in other.input]
        if len(readers) == 1 and readers[0].op_type in LIMITS:
            output = readers[0].output[0]
        found[f'{call}:input'], found[f'{call}:output'] = node.input[0], output
    return found


def overrides(ranges: Mapping[str, Any], tensors: Mapping[str, str]) -> dict[str, list[dict]]:
    """Return what onnxruntime's quantiser calls ``TensorQuantOverrides``.

    Args:
        ranges: Of the checkpoint.
        tensors: From :func:`features`; those that ``ranges`` does not name are passed over.

    Raises:
        UserError: Two ranges are of one tensor.
    """
    found: dict[str, tuple[float, float]] = {}
    for name, tensor in tensors.items():
        if name in ranges:
            low, high, _ = ranges[name]
            if found.setdefault(tensor, (low, high)) != (low, high):
                raise UserError(f"the exported model reads '{name}' where the student does not: "
                                'quantise its export by itself, with mmkd quantize CONFIG FILE')
    result = {}
    for tensor, limits in found.items():
        scale, zero = scale_and_zero(*map(torch.tensor, limits))
        result[tensor] = [dict(scale=scale.numpy(), zero_point=zero.numpy().astype(np.uint8))]
    return result


class _Compared(Rounded):
    """A rounded student whose features are compared with a file's, and replaced by them."""

    def __init__(self, model: nn.Module, places: Places, ranges: Ranges) -> None:
        super().__init__(model, places, ranges)
        self.theirs: dict[int, Tensor] = {}
        self.steps = Steps()

    def round(self, number: int, x: Tensor) -> Tensor:
        """Round, compare, and go on with the file's."""
        low, high = self.ranges.low[number], self.ranges.high[number]
        rounded = rounded_feature(x, low, high)
        other = self.theirs.get(number, x[:0])[:len(x)]
        if other.shape == x.shape:  # and not padded, as an image may be here
            self.steps.add(((other - rounded).abs() / scale_and_zero(low, high)[0]).round())
            rounded = other
        rounded.feature = number
        return rounded


def check_rounded(path: str | os.PathLike, model: nn.Module, tensors: Mapping[str, str],
                  images: Sequence[Image]) -> tuple[Agreement, Steps]:
    """Compare an int8 file with the student that was trained for it, rounded in PyTorch.

    On random inputs and on images: each feature may differ by one step, and boxes and scores
    computed from the same features as those of a float model may.

    Args:
        path: The file.
        model: What ``load_model`` returned.
        tensors: From :func:`features`.
        images: As of :func:`~mmkd.deploy.export.verify.check_images`.

    Raises:
        MismatchError: They differ by more.
    """
    proto = onnx.load(os.fspath(path))
    metadata = ModelMetadata.from_props({one.key: one.value for one in proto.metadata_props}, path)
    places, ranges = rounded_student(model, metadata)
    compared = _Compared(model, places, ranges)
    outputs = len(proto.graph.output)
    shown = _show(proto.graph, tensors, places)
    session = onnxruntime.InferenceSession(proto.SerializeToString(),
                                           providers=['CPUExecutionProvider'])

    def run(image: Any, sizes: Any = None) -> Sequence[np.ndarray]:
        found = session.run(None, metadata.feed(image, sizes))
        compared.theirs = {number: _as_made(value, places, number, model)
                           for number, value in zip(shown, found[outputs:], strict=True)}
        compared.start_pass()
        return found[:outputs]

    agreement = Agreement()
    with compared:
        agreement.add(check_random(run, model, metadata))
        agreement.add(check_images(run, model, metadata, images))
    steps = compared.steps
    if steps.most > MOST_STEPS or steps.other > MOST_OTHER * steps.values:
        raise MismatchError(f'of {steps.values} values of its features {steps.other} differ from '
                            f"the student's in PyTorch, by up to {steps.most} steps of int8")
    return agreement, compared.steps


def _show(graph: onnx.GraphProto, tensors: Mapping[str, str], places: Places) -> list[int]:
    """Let a model return the features behind its layers, too; by their numbers."""
    rounded = {node.input[0]: node for node in graph.node if node.op_type == 'QuantizeLinear'}
    dequantised = {node.input[0]: node.output[0] for node in graph.node
                   if node.op_type == 'DequantizeLinear'}
    numbers: dict[int, str] = {}
    for name, number in places.named().items():
        node = rounded.get(tensors.get(name))
        if node is not None and name.endswith(':output'):
            numbers[number] = dequantised[node.output[0]]
    for name, number in places.named().items():
        node = rounded.get(tensors.get(name))
        if node is not None:
            numbers.setdefault(number, dequantised[node.output[0]])
    graph.output.extend(onnx.helper.make_tensor_value_info(name, onnx.TensorProto.FLOAT, None)
                        for name in numbers.values())
    return list(numbers)


def _as_made(value: np.ndarray, places: Places, number: int, model: nn.Module) -> Tensor:
    """What the file gives, in the student's shape: phases of a transposed one become places."""
    call = next((call for call, output in places.outputs.items() if output == number), None)
    layer = model.get_submodule(call.layer) if call is not None else None
    tensor = torch.from_numpy(value)
    if not isinstance(layer, nn.ConvTranspose2d):
        return tensor
    batch, _, rows, columns = tensor.shape
    step = layer.stride[0]
    phases = tensor.reshape(batch, step, step, -1, rows, columns)
    return phases.permute(0, 3, 4, 1, 5, 2).reshape(batch, -1, rows * step, columns * step)
