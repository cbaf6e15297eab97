"""Turn a trained student into a file that runs without its code: ONNX, or torch.export's .pt2."""

import copy
import math
import os
from collections.abc import Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import onnx
import torch
from mmengine.config import Config
from mmengine.registry import DefaultScope
from torch import Tensor, nn

from mmkd.checkpoints import load_weights
from mmkd.classification import Classifier
from mmkd.deploy.device.files import with_hash, written_atomically
from mmkd.deploy.device.metadata import ModelMetadata
from mmkd.deploy.device.runtime import open_model
from mmkd.deploy.export.agreement import Agreement, MismatchError
from mmkd.deploy.export.classifier_graph import ExportableClassifier, classifier_metadata
from mmkd.deploy.export.dense_adapters import dense_graph
from mmkd.deploy.export.dense_graph import ExportableDense
from mmkd.deploy.export.detector_graph import ExportableCenterNet, detector_metadata, largest_stride
from mmkd.deploy.export.detr_graph import detr_graph
from mmkd.deploy.export.folding import fold_batch_norms
from mmkd.deploy.export.image_graph import with_preprocessing
from mmkd.deploy.export.onnx_file import to_onnx
from mmkd.deploy.export.pt2 import load_pt2, to_pt2
from mmkd.deploy.export.rewriting import fix_padding, sample_plainly, to_half
from mmkd.deploy.export.two_stage_graph import ExportableTwoStage, two_stage_graph
from mmkd.deploy.export.verify import Image, Run, check_images, check_random
from mmkd.distillation.teachers import build_model
from mmkd.errors import UserError
from mmkd.int8.student import RANGES
from mmkd.registry import DATASETS

__all__ = ['ExportableCenterNet', 'ExportableClassifier', 'export_onnx', 'export_pt2',
           'exportable', 'load_model', 'model_metadata']


def load_model(cfg: Config, checkpoint: str | os.PathLike) -> nn.Module:
    """Build the model of a config and load its weights, without running what is in the file.

    Returns:
        the model on the CPU in evaluation mode, with ``cfg`` and ``dataset_meta`` set as
        ``mmdet.apis.init_detector`` sets them, and ``int8_ranges`` if it was trained for int8.

    Raises:
        UserError: If the checkpoint is missing, truncated, would run code, or belongs to another
            architecture, or no class names are to be found.
    """
    model = build_model(cfg)
    meta = load_weights(model, checkpoint)
    dataset_meta, model.int8_ranges = meta.get('dataset_meta'), meta.get(RANGES)
    with DefaultScope.overwrite_default_scope(cfg.get('default_scope', 'mmkd')):
        model.dataset_meta = dataset_meta or _config_metainfo(cfg)
    model.cfg = cfg
    return model.eval()


def _config_metainfo(cfg: Config) -> Mapping[str, Any]:
    """Class names of the config's test data set, or those that its type has by default."""
    dataset = cfg.test_dataloader.dataset
    while 'dataset' in dataset or 'datasets' in dataset:
        dataset = dataset['dataset'] if 'dataset' in dataset else dataset['datasets'][0]
    return dataset.get('metainfo') or getattr(DATASETS.get(dataset.type), 'METAINFO', {})


def exportable(model: nn.Module, stride: int | None = None) -> nn.Module:
    """Return a model as one function from the prepared image to what it finds.

    Args:
        model: A classifier or a detector.
        stride: Of a detector's maps, where the size of the input is to stay open.

    Raises:
        UserError: If the model is of a kind that cannot be exported.
    """
    if isinstance(model, Classifier):
        return ExportableClassifier(model)
    if hasattr(model, 'members'):
        raise UserError(f'the model is a cohort of {", ".join(model.members)}: export one of '
                        'them, with the config of a single classifier and its checkpoint NAME.pth')
    # What is none of these is refused by the last.
    return (dense_graph(model, dynamic=stride is not None) or detr_graph(model)
            or two_stage_graph(model) or ExportableCenterNet(model, stride))


def model_metadata(model: nn.Module, *, batch: int = 0, dynamic_size: bool = False,
                   image_input: bool = False, half: bool = False) -> ModelMetadata:
    """Collect what a runtime must know of a model exported with these options.

    Raises:
        UserError: If options exclude one another, or the model or its config does not serve.
    """
    if image_input and (batch > 1 or dynamic_size):
        raise UserError('a model with --image-input takes one image of any size: leave '
                        f"{'--dynamic-size' if dynamic_size else '--batch'} out")
    if batch < 0:
        raise UserError(f'--batch is {batch}: give a number above 0, or leave it out for any')
    if isinstance(model, Classifier):
        metadata, divisor = classifier_metadata(model), 1
    else:
        graph = exportable(model)
        metadata = detector_metadata(model, getattr(graph, 'nms', None))
        divisor = 1
        if 'sizes' in getattr(graph, 'input_names', ()):
            metadata = _sized_metadata(type(model).__name__, metadata, dynamic_size, half)
        else:
            divisor, _ = largest_stride(model, metadata.input_size)
        if any(side % divisor for side in metadata.input_size):
            if dynamic_size:
                raise UserError(f'inputs of other sizes would have to be multiples of {divisor}, '
                                f'which {metadata.input_size[0]} is not: leave --dynamic-size out')
            divisor = 1
    return replace(metadata, batch=1 if image_input else batch, dynamic_size=dynamic_size,
                   input_kind='image' if image_input else 'tensor', size_divisor=divisor,
                   precision='float16' if half else 'float32')


def _sized_metadata(name: str, metadata: ModelMetadata, dynamic_size: bool, half: bool
                    ) -> ModelMetadata:
    """Those of a model that must know how large each image is within its input."""
    if dynamic_size or half:
        raise UserError(f'a {name} is exported for one size of the input and in float32 alone: '
                        f"leave {'--dynamic-size' if dynamic_size else '--half'} out")
    if isinstance(metadata.pad_value, tuple):
        raise UserError(f'the test pipeline of a {name} must not pad images to be exported: leave '
                        'Pad out, and set model.data_preprocessor.pad_size_divisor to '
                        f'{max(metadata.input_size)}')
    return replace(metadata, takes_sizes=True)


def export_onnx(model: nn.Module, path: str | os.PathLike, images: Sequence[Image] = (),
                opset: int = 18, *, batch: int = 0, dynamic_size: bool = False,
                image_input: bool = False, half: bool = False) -> tuple[Agreement, Agreement]:
    """Write a model as one ONNX file, after checking it against PyTorch.

    The file has the input ``image`` (a DETR's ``sizes`` besides), the outputs of what
    :func:`exportable` returns (``boxes``, ``scores``, ``labels`` of a detector, ``scores`` of a
    classifier), and :class:`ModelMetadata` in its ``metadata_props``. Batch norms are folded into
    the layers before them. It appears at ``path`` whole and checked, or not at all. The model is
    left as it was.

    Args:
        model: What :func:`load_model` or ``mmdet.apis.init_detector`` returns.
        path: Where the ``.onnx`` file goes.
        images: Images for the check, beside random inputs: files, or for a classifier arrays,
            ``(h, w, 3)`` uint8 in BGR order.
        opset: Version of the ONNX operators, 17 to 20. 17 is reached by a conversion that cannot
            express every model.
        batch: How many images the input holds; 0 for any number.
        dynamic_size: Let height and width vary; those of a detector's input in multiples of its
            largest stride.
        image_input: Take one uint8 image of any size, prepared inside the graph; boxes are then
            in its pixels.
        half: Weights and features in float16, and the input with them unless it is an image; boxes
            and scores are computed from the head's maps in float32.

    Returns:
        the agreement with PyTorch on random inputs and on ``images``.

    Raises:
        UserError: If the model cannot be exported, options exclude one another, the exported
            model differs from PyTorch or the file cannot be written.
    """
    model = copy.deepcopy(model).cpu().eval()
    metadata = model_metadata(model, batch=batch, dynamic_size=dynamic_size,
                              image_input=image_input, half=half)
    proto = to_onnx(*_traceable(model, metadata), opset)
    if image_input:
        proto = with_preprocessing(proto, metadata)
    onnx.helper.set_model_props(proto, metadata.to_props())
    with written_atomically(Path(path)) as temporary:
        temporary.write_bytes(with_hash(proto.SerializeToString()))
        exported = open_model(temporary)

        def run(image: Any, sizes: Any = None) -> Sequence[Any]:
            return exported.session.run(None, exported.metadata.feed(image, sizes))

        return _checked(run, model, exported.metadata, images, path)


def export_pt2(model: nn.Module, path: str | os.PathLike, images: Sequence[Image] = (), *,
               batch: int = 0, dynamic_size: bool = False, half: bool = False
               ) -> tuple[Agreement, Agreement]:
    """Write a model as one ``.pt2`` file of torch.export, after checking what is loaded from it.

    ``torch.export.load(path).module()(image)`` returns a tuple of what :func:`export_onnx`'s
    model has as outputs; the extra file ``metadata.json`` holds its metadata, see
    :func:`~mmkd.deploy.export.pt2.load_pt2`. Arguments, result and errors are those of
    :func:`export_onnx`.
    """
    model = copy.deepcopy(model).cpu().eval()
    metadata = model_metadata(model, batch=batch, dynamic_size=dynamic_size, half=half)
    if isinstance(exportable(model), ExportableTwoStage):
        raise UserError('a two-stage detector needs operators that PyTorch alone has not, so it '
                        'cannot be a .pt2 file: leave --format pt2 out')
    content = to_pt2(*_traceable(model, metadata), metadata)
    with written_atomically(Path(path)) as temporary:
        temporary.write_bytes(content)
        run, metadata = load_pt2(temporary)
        return _checked(run, model, metadata, images, path)


def _checked(run: Run, model: nn.Module, metadata: ModelMetadata, images: Sequence[Image],
             path: str | os.PathLike) -> tuple[Agreement, Agreement]:
    try:
        return (check_random(run, model, metadata), check_images(run, model, metadata, images))
    except MismatchError as error:
        raise UserError(f"'{path}' was not written because the exported model failed its "
                        f'check against PyTorch: {error}') from error


def _traceable(model: nn.Module, metadata: ModelMetadata) -> tuple[nn.Module, Tensor, dict]:
    """A copy of the model as one function, an input, and which dimensions stay open."""
    size = metadata.input_size
    dynamic = metadata.dynamic_size
    stride = largest_stride(model, size)[1] if dynamic and metadata.task == 'detection' else None
    graph = exportable(copy.deepcopy(model), stride).eval()
    sample_plainly(graph)
    fold_batch_norms(graph, torch.zeros(1, 3, *size))
    # A batch or a side of one would be taken for a constant, in the maps of a dense head, too.
    least = 2 * graph.coarsest if dynamic and isinstance(graph, ExportableDense) else 1
    least = math.ceil(least / metadata.size_divisor) * metadata.size_divisor
    example = torch.zeros(metadata.batch or 2, 3, *(max(side, least) for side in size))
    if metadata.precision == 'float16':
        to_half(graph)
        example = example.half()
    open_dims = {} if metadata.batch else {0: torch.export.Dim('batch')}
    if dynamic:
        fix_padding(graph)
        step = metadata.size_divisor
        open_dims |= {2: step * torch.export.Dim('rows'), 3: step * torch.export.Dim('columns')}
    return graph, example, open_dims
