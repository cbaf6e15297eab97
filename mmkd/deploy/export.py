"""Turn a CenterNet student into an ONNX model that decodes its own boxes."""

import copy
import logging
import os
import warnings
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import onnx
import torch
import torch.nn.functional as F
from mmdet.models.dense_heads import CenterNetHead
from mmdet.utils import get_test_pipeline_cfg
from mmengine.config import Config
from mmengine.registry import DefaultScope
from torch import Tensor, nn

from mmkd.deploy.metadata import ModelMetadata
from mmkd.deploy.runtime import Detector
from mmkd.deploy.verify import Agreement, MismatchError, check_images, check_random
from mmkd.distillation.checkpoints import load_weights
from mmkd.distillation.teachers import build_model
from mmkd.errors import UserError
from mmkd.registry import DATASETS

__all__ = ['ExportableCenterNet', 'detector_metadata', 'export_onnx', 'load_detector']


class ExportableCenterNet(nn.Module):
    """A CenterNet detector from the normalised image to decoded boxes, in plain tensors.

    ``K`` is the head's ``test_cfg.topk``. The parts are the detector's own, shared and not
    copied; it must be in evaluation mode.

    Source: X. Zhou, D. Wang, P. Krähenbühl, "Objects as Points", 2019, arXiv 1904.07850.

    Args:
        model: An MMDetection ``CenterNet`` whose head is a ``CenterNetHead``.

    Raises:
        UserError: If the model is another kind of detector.
    """

    def __init__(self, model: nn.Module) -> None:
        super().__init__()
        head = getattr(model, 'bbox_head', None)
        if not isinstance(head, CenterNetHead):
            raise UserError(f'the model is a {type(model).__name__} with a {type(head).__name__} '
                            'but only detectors with a CenterNetHead can be exported: give the '
                            "student's config")
        self.model = model
        self.topk = head.test_cfg.topk
        self.kernel = head.test_cfg.local_maximum_kernel

    def forward(self, image: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        """Detect.

        Args:
            image: ``(N, 3, H, W)`` float32, as the model's data preprocessor returns it.

        Returns:
            boxes ``(N, K, 4)`` float32, ``(x1, y1, x2, y2)`` in pixels of the input; scores
            ``(N, K)`` float32, descending; labels ``(N, K)`` int64. Where an image has fewer than
            K peaks, the rest has score 0.
        """
        heatmap, size, offset = (maps[-1] for maps in
                                 self.model.bbox_head(self.model.extract_feat(image)))
        scores, cells, labels = self._top_peaks(heatmap)
        return self._boxes(size, offset, cells, image.shape[-2:]), scores, labels

    def _top_peaks(self, heatmap: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        """Scores, indices into the H * W cells, and labels of the best peaks, each ``(N, K)``."""
        highest = F.max_pool2d(heatmap, self.kernel, stride=1, padding=self.kernel // 2)
        peaks = torch.where(heatmap == highest, heatmap, torch.zeros_like(heatmap)).flatten(2)
        # First within each class: then the label is a division by a constant, not by H * W.
        per_class = min(self.topk, peaks.shape[2])
        scores, cells = peaks.topk(per_class)
        scores, index = scores.flatten(1).topk(self.topk)
        labels = torch.div(index, per_class, rounding_mode='floor')
        return scores, cells.flatten(1).gather(1, index), labels

    @staticmethod
    def _boxes(size: Tensor, offset: Tensor, cells: Tensor,
               input_size: Sequence[int]) -> Tensor:
        """Boxes ``(N, K, 4)`` of the chosen cells.

        Every cell's box is computed, which costs next to nothing, so that no row or column
        has to be recovered from an index.
        """
        height, width = size.shape[-2:]
        columns = torch.arange(width, dtype=size.dtype, device=size.device)
        rows = torch.arange(height, dtype=size.dtype, device=size.device)[:, None]
        x, y = offset[:, 0] + columns, offset[:, 1] + rows
        half_width, half_height = size[:, 0] / 2, size[:, 1] / 2
        stride_x, stride_y = input_size[1] / width, input_size[0] / height
        boxes = torch.stack(((x - half_width) * stride_x, (y - half_height) * stride_y,
                             (x + half_width) * stride_x, (y + half_height) * stride_y), dim=-1)
        return boxes.flatten(1, 2).gather(1, cells.unsqueeze(-1).expand(-1, -1, 4))


def load_detector(cfg: Config, checkpoint: str | os.PathLike) -> nn.Module:
    """Build the detector of a config and load its weights, without running what is in the file.

    Returns:
        the model on the CPU in evaluation mode, with ``cfg`` and ``dataset_meta`` set as
        ``mmdet.apis.init_detector`` sets them.

    Raises:
        UserError: If the checkpoint is missing, truncated, would run code, or belongs to another
            architecture, or no class names are to be found.
    """
    model = build_model(cfg)
    dataset_meta = load_weights(model, checkpoint).get('dataset_meta')
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


def detector_metadata(model: nn.Module) -> ModelMetadata:
    """Collect what a runtime must know from ``model.cfg`` and the data preprocessor.

    Raises:
        UserError: If the class names do not fit the head, or the test pipeline gives inputs of
            different sizes.
    """
    classes = tuple(model.dataset_meta.get('classes', ()))
    if len(classes) != model.bbox_head.num_classes:
        raise UserError(f'the model has {model.bbox_head.num_classes} classes but its checkpoint '
                        f'or config names {len(classes)}: set metainfo=dict(classes=(...)) of '
                        "the config's test data set")
    resize, to_float32 = _test_transforms(model.cfg)
    scale = resize['scale']
    scale = (scale, scale) if isinstance(scale, int) else tuple(scale)
    preprocessor = model.data_preprocessor
    size = preprocessor.pad_size_divisor
    if size < max(scale):
        raise UserError(
            f'model.data_preprocessor.pad_size_divisor is {size}, so the size of the input '
            f'depends on the image, but an exported model has one: set it to {max(scale)}')
    mean, std = _normalisation(preprocessor)
    return ModelMetadata(
        classes=classes, input_size=(size, size),
        channel_order='RGB' if preprocessor._channel_conversion else 'BGR', mean=mean, std=std,
        resize_to=scale, resize_dtype='float32' if to_float32 else 'uint8',
        pad_value=preprocessor.pad_value)


def _normalisation(preprocessor: nn.Module) -> tuple[tuple[float, ...], tuple[float, ...]]:
    """Mean and std of the three channels; the preprocessor may have none, or one for all."""
    if not preprocessor._enable_normalize:
        return (0.0,) * 3, (1.0,) * 3
    mean, std = (values.flatten().expand(3) for values in (preprocessor.mean, preprocessor.std))
    return tuple(mean.tolist()), tuple(std.tolist())


def _test_transforms(cfg: Config) -> tuple[Mapping[str, Any], bool]:
    """The Resize of the test pipeline, and whether images are loaded as float32."""
    pipeline = get_test_pipeline_cfg(cfg)
    resizes = [step for step in pipeline if step['type'].split('.')[-1] == 'Resize']
    if (len(resizes) != 1 or not resizes[0].get('keep_ratio') or 'scale' not in resizes[0]
            or resizes[0].get('interpolation', 'bilinear') != 'bilinear'):
        raise UserError(
            'the test pipeline must hold one Resize with a scale, keep_ratio=True and bilinear '
            f"interpolation to be exported, but has {resizes or 'none'}: change the pipeline of "
            'test_dataloader.dataset')
    return resizes[0], any(step.get('to_float32', False) for step in pipeline)


def export_onnx(model: nn.Module, path: str | os.PathLike,
                images: Sequence[str | os.PathLike] = (), opset: int = 18,
                ) -> tuple[Agreement, Agreement]:
    """Write a detector as one ONNX file, after checking it against the model.

    The file has the input ``image`` and the outputs ``boxes``, ``scores`` and ``labels`` of
    :class:`ExportableCenterNet` with any batch size, and :class:`ModelMetadata` in its
    ``metadata_props``. It appears at ``path`` whole and checked, or not at all. The model is left
    as it was.

    Args:
        model: What :func:`load_detector` or ``mmdet.apis.init_detector`` returns.
        path: Where the ``.onnx`` file goes.
        images: Image files for the check, beside random inputs.
        opset: Version of the ONNX operators, 17 to 20. 17 is reached by a conversion that cannot
            express every model.

    Returns:
        the agreement with PyTorch on random inputs and on ``images``.

    Raises:
        UserError: If the model cannot be exported, the exported model differs from PyTorch or
            the file cannot be written.
    """
    model = copy.deepcopy(model).cpu().eval()
    wrapper = ExportableCenterNet(model).eval()
    metadata = detector_metadata(model)
    proto = _to_onnx(wrapper, metadata.input_size, opset)
    onnx.helper.set_model_props(proto, metadata.to_props())
    with _written_atomically(Path(path)) as temporary:
        temporary.write_bytes(proto.SerializeToString())
        try:
            detector = Detector(temporary)
            return check_random(detector, model), check_images(detector, model, images)
        except MismatchError as error:
            raise UserError(f"'{path}' was not written because the exported model failed its "
                            f'check against PyTorch: {error}') from error


def _to_onnx(wrapper: nn.Module, input_size: tuple[int, int], opset: int) -> onnx.ModelProto:
    if torch.__version__ < '2.6':
        raise UserError(f'export needs torch 2.6 or newer but this is {torch.__version__}: '
                        'upgrade torch; training and testing need not change')
    # A batch of one would be taken for a constant.
    example = torch.zeros(2, 3, *input_size)
    with _quiet_exporter():
        try:
            program = torch.onnx.export(
                wrapper, (example,), dynamo=True, opset_version=opset, input_names=['image'],
                output_names=['boxes', 'scores', 'labels'], verbose=False,
                dynamic_shapes={'image': {0: torch.export.Dim('batch')}})
        except torch.onnx.errors.OnnxExporterError as error:
            raise UserError(f'PyTorch cannot export this model to ONNX opset {opset}, try '
                            f'another --opset: {_first_line(error)}') from error
    proto = program.model_proto
    _check_opset(proto, opset)
    # The exporter's notes hold stack traces with the paths of this machine.
    for part in (*proto.graph.node, *proto.graph.value_info, *proto.graph.input,
                 *proto.graph.output, *proto.graph.initializer, proto.graph):
        del part.metadata_props[:]
    return proto


def _check_opset(proto: onnx.ModelProto, opset: int) -> None:
    # The exporter keeps its own opset, or leaves operators of another, where it cannot convert.
    versions = {entry.domain: entry.version for entry in proto.opset_import}
    try:
        onnx.checker.check_model(proto)
    except onnx.checker.ValidationError as error:
        raise UserError(f'this model cannot be expressed in ONNX opset {opset} '
                        f'({_first_line(error)}): use another --opset') from error
    if versions[''] != opset:
        raise UserError(f'this model cannot be expressed in ONNX opset {opset}: use --opset '
                        f"{versions['']}")


def _first_line(error: BaseException) -> str:
    cause = error.__cause__ or error
    return (str(cause).strip().splitlines() or [type(cause).__name__])[0]


@contextmanager
def _quiet_exporter() -> Iterator[None]:
    """Hide the exporter's remarks on opsets and absent packages, none of which is the user's."""
    levels = {logging.getLogger(name): logging.getLogger(name).level
              for name in ('torch.onnx', 'onnxscript')}
    for logger in levels:
        logger.setLevel(logging.ERROR)
    try:
        with warnings.catch_warnings():
            warnings.simplefilter('ignore')
            yield
    finally:
        for logger, level in levels.items():
            logger.setLevel(level)


@contextmanager
def _written_atomically(path: Path) -> Iterator[Path]:
    """Give a temporary file beside ``path`` that takes its place if nothing is raised."""
    temporary = path.with_name(f'.{path.name}.{os.getpid()}.tmp')
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        try:
            yield temporary
            os.replace(temporary, path)
        finally:
            temporary.unlink(missing_ok=True)
    except OSError as error:
        raise UserError(f"cannot write '{path}': {error.strerror}: free some space or name "
                        'another place') from error
