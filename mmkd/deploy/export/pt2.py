"""The second format: a program of torch.export, run by PyTorch alone."""

import io
import json
import os
from collections.abc import Callable
from pathlib import Path

import numpy as np
import torch
from torch import Tensor, nn
from torch.export import ExportedProgram

from mmkd.deploy.device.metadata import ModelMetadata
from mmkd.deploy.export.onnx_file import first_line, input_shapes, quiet_exporter
from mmkd.errors import UserError

__all__ = ['METADATA', 'load_pt2', 'to_pt2']

# The extra file inside the .pt2 file.
METADATA = 'metadata.json'


def to_pt2(graph: nn.Module, example: Tensor, dynamic_shape: dict,
           metadata: ModelMetadata) -> bytes:
    """Return the content of a ``.pt2`` file, for :func:`torch.export.load`.

    The extra file ``metadata.json`` in it holds the entries that an ONNX file has in its
    ``metadata_props``.

    Args:
        graph: In evaluation mode; its arguments are as for
            :func:`~mmkd.deploy.export.onnx_file.to_onnx`.
        example: An input ``image``. A side of 1 would be taken for a constant, even if it is
            dynamic.
        dynamic_shape: Number of each dimension that stays open to its ``torch.export.Dim``.
        metadata: What a runtime must know.

    Raises:
        UserError: If PyTorch cannot trace the model.
    """
    inputs, shapes = input_shapes(graph, example, dynamic_shape)
    with quiet_exporter():
        try:
            program = torch.export.export(graph, inputs, strict=False, dynamic_shapes=shapes)
        # What is raised depends on what the model does.
        except Exception as error:
            raise UserError('PyTorch cannot trace this model by torch.export: '
                            f'{first_line(error)}; replace that operation') from error
        _forget_source(program)
        content = io.BytesIO()
        torch.export.save(program, content,
                          extra_files={METADATA: json.dumps(metadata.to_props())})
    return content.getvalue()


def _forget_source(program: ExportedProgram) -> None:
    """Drop the notes on where each operation comes from: they hold the paths of this machine."""
    for module in program.graph_module.modules():
        if isinstance(module, torch.fx.GraphModule):
            for node in module.graph.nodes:
                for note in ('stack_trace', 'nn_module_stack', 'source_fn_stack', 'from_node'):
                    node.meta.pop(note, None)


def load_pt2(path: str | os.PathLike
             ) -> tuple[Callable[..., list[np.ndarray]], ModelMetadata]:
    """Load a ``.pt2`` file that mmkd exported.

    ``torch.export.load`` unpickles, so a file may run code: load what you trust.

    Returns:
        a function from ``image``, an array, and ``sizes`` where the model takes them, to the
        outputs in the order of the ONNX model's, and the metadata.

    Raises:
        UserError: If the file is missing, truncated or not from mmkd.
    """
    if not Path(path).is_file():
        raise UserError(f"model '{path}' does not exist: export it with mmkd export or "
                        'correct the path')
    extra = {METADATA: ''}
    try:
        with open(path, 'rb') as file, quiet_exporter():
            module = torch.export.load(file, extra_files=extra).module()
    # A damaged file can fail in any way there is.
    except Exception as error:
        raise UserError(f"model '{path}' is truncated or no .pt2 model: export or copy it "
                        'again') from error
    metadata = ModelMetadata.from_props(json.loads(extra[METADATA] or '{}'), os.fspath(path))

    def run(image: np.ndarray, sizes: np.ndarray | None = None) -> list[np.ndarray]:
        inputs = metadata.feed(image, sizes).values()
        with torch.no_grad():
            return [output.numpy() for output in module(*map(torch.from_numpy, inputs))]

    return run, metadata
