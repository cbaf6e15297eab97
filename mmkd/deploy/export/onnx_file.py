"""From a PyTorch module to an ONNX model."""

import logging
import warnings
from collections.abc import Iterator
from contextlib import contextmanager, redirect_stderr, redirect_stdout
from io import StringIO

import onnx
import torch
from torch import Tensor, nn

from mmkd.deploy.export.onnx_operators import translations
from mmkd.errors import UserError

__all__ = ['first_line', 'input_shapes', 'quiet_exporter', 'to_onnx']


def to_onnx(graph: nn.Module, example: Tensor, dynamic_shape: dict, opset: int
            ) -> onnx.ModelProto:
    """Export a module whose argument is ``image``, and ``sizes`` where it takes them.

    Args:
        graph: In evaluation mode; its ``output_names`` are those of the outputs, and its
            ``input_names``, if it has any, those of the inputs.
        example: An input ``image``. A side of 1 would be taken for a constant, even if it is
            dynamic.
        dynamic_shape: Number of each dimension that stays open to its ``torch.export.Dim``.
        opset: Version of the ONNX operators, 17 to 20. 17 is reached by a conversion that cannot
            express every model.

    Raises:
        UserError: If PyTorch is too old, or an operation has no equivalent.
    """
    if torch.__version__ < '2.6':
        raise UserError(f'export needs torch 2.6 or newer but this is {torch.__version__}: '
                        'upgrade torch; training and testing need not change')
    inputs, shapes = input_shapes(graph, example, dynamic_shape)
    with quiet_exporter():
        try:
            program = torch.onnx.export(
                graph, inputs, dynamo=True, opset_version=opset, input_names=list(shapes),
                output_names=list(graph.output_names), verbose=False, dynamic_shapes=shapes,
                custom_translation_table=translations())
        except torch.onnx.errors.OnnxExporterError as error:
            raise UserError(f'PyTorch cannot export this model to ONNX opset {opset}: '
                            f'{first_line(error)}; try another --opset or replace that '
                            'operation') from error
    proto = program.model_proto
    _check_opset(proto, opset)
    _check_open(proto, shapes)
    assert not any(node.op_type == 'BatchNormalization' for node in proto.graph.node)
    # The exporter's notes hold stack traces with the paths of this machine.
    for part in (*proto.graph.node, *proto.graph.value_info, *proto.graph.input,
                 *proto.graph.output, *proto.graph.initializer, proto.graph):
        del part.metadata_props[:]
    return proto


def input_shapes(graph: nn.Module, example: Tensor, dynamic_shape: dict
                 ) -> tuple[tuple[Tensor, ...], dict[str, dict]]:
    """All inputs of a graph, and by their names the dimensions that stay open."""
    if 'sizes' not in getattr(graph, 'input_names', ()):
        return (example,), {'image': dynamic_shape}
    sizes = torch.tensor([example.shape[2:]] * len(example))
    return (example, sizes), {'image': dynamic_shape,
                              'sizes': {axis: dim for axis, dim in dynamic_shape.items()
                                        if axis == 0}}


def _check_opset(proto: onnx.ModelProto, opset: int) -> None:
    # The exporter keeps its own opset, or leaves operators of another, where it cannot convert.
    versions = {entry.domain: entry.version for entry in proto.opset_import}
    try:
        onnx.checker.check_model(proto)
    except onnx.checker.ValidationError as error:
        raise UserError(f'this model cannot be expressed in ONNX opset {opset} '
                        f'({first_line(error)}): use another --opset') from error
    if versions[''] != opset:
        raise UserError(f'this model cannot be expressed in ONNX opset {opset}: use --opset '
                        f"{versions['']}")


def _check_open(proto: onnx.ModelProto, shapes: dict[str, dict]) -> None:
    # The exporter fixes a dimension without a word where it cannot follow it.
    for value in proto.graph.input:
        for axis in shapes[value.name]:
            size = value.type.tensor_type.shape.dim[axis].dim_value
            if size:
                remedy = f'--batch {size}' if axis == 0 else 'no --dynamic-size'
                raise UserError('PyTorch cannot export this model for any '
                                f"{'number of images' if axis == 0 else 'size'}: use {remedy}")


def first_line(error: BaseException) -> str:
    """Return what the innermost cause of ``error`` says first."""
    while error.__cause__ is not None:
        error = error.__cause__
    line = (str(error).strip().splitlines() or [type(error).__name__])[0]
    return line.partition('. Failure message')[0].rstrip('.')


@contextmanager
def quiet_exporter() -> Iterator[None]:
    """Hide the exporter's remarks on opsets, absent packages and graphs: none is the user's."""
    previous = logging.root.manager.disable
    logging.disable(logging.CRITICAL)
    try:
        # Graphs that fail are printed, too.
        with warnings.catch_warnings(), redirect_stdout(StringIO()), redirect_stderr(StringIO()):
            warnings.simplefilter('ignore')
            yield
    finally:
        logging.disable(previous)
