"""The metrics of an exported model, on a config's test data and by its evaluator."""

import copy
import os
from collections.abc import Sequence
from itertools import count
from typing import Any

import numpy as np
import torch
from mmdet.models.detectors import BaseDetector
from mmengine.config import Config
from mmengine.dataset import pseudo_collate
from mmengine.model import BaseModel
from mmengine.registry import DefaultScope
from mmengine.runner import Runner
from mmengine.structures import InstanceData
from torch import Tensor
from torch.utils.data import Dataset

from mmkd.classification.classifier import Classifier
from mmkd.classification.data import ClassificationSample
from mmkd.deploy.device.metadata import ModelMetadata
from mmkd.deploy.device.runtime import open_session, read_metadata
from mmkd.errors import UserError
from mmkd.images import read_image
from mmkd.registry import MODELS

__all__ = ['OnnxModel', 'evaluate_onnx', 'onnx_runner']

OUTPUTS = dict(detection=['boxes', 'scores', 'labels'], classification=['scores'])
# Mean difference between two preparations of one image, in levels of 0 to 255: rounding leaves
# less, another mean, std, order of the channels or size more.
PREPARATION_TOLERANCE = 0.5
_RUNNERS = count()


@MODELS.register_module()
class OnnxModel(BaseModel):
    """An exported model in the place of the network that it came from, for testing alone.

    Images reach a model of ``input_kind`` 'tensor' through the config's own test pipeline and data
    preprocessor, and one of ``input_kind`` 'image' as they are read from their files.

    Args:
        path: The ``.onnx`` file.
        data_preprocessor: Registry config of the network's.

    Attributes:
        metadata: What the file says about itself.
        paths: Files of the images of a classification data set, by number; None where the data
            set holds the images themselves.

    Raises:
        UserError: If the file is missing, truncated, no ONNX model or not exported by mmkd.
    """

    def __init__(self, path: str, data_preprocessor: dict | None = None) -> None:
        super().__init__(data_preprocessor)
        self.session = open_session(path)
        self.metadata = read_metadata(path, self.session)
        self.paths: Sequence[str] | None = None

    def test_step(self, data: dict[str, Any]) -> list:
        """Predict for a batch as the data loader gives it."""
        if self.metadata.input_kind == 'tensor':
            return super().test_step(data)
        outputs = [self._run(image) for image in self._images(data)]
        # The data preprocessor brings the samples into the evaluator's form, too.
        samples = self.data_preprocessor(data, False)['data_samples']
        return self._results([np.concatenate(one) for one in zip(*outputs, strict=True)], samples)

    def forward(self, inputs: Tensor, data_samples: Any = None, mode: str = 'predict') -> list:
        """Predict.

        Args:
            inputs: ``(N, 3, H, W)`` float32, as the data preprocessor returns it.
            data_samples: a list of N samples for a detector, a ``ClassificationSample`` for a
                classifier.
            mode: 'predict' alone.

        Returns:
            the samples, with boxes in image pixels as ``pred_instances``, or with ``scores``.
        """
        assert mode == 'predict'
        images = inputs.cpu().numpy()
        size = self.metadata.batch or len(images)
        outputs = []
        for start in range(0, len(images), size):
            part = images[start:start + size]
            filled = np.concatenate((part, part[-1:].repeat(size - len(part), axis=0)))
            sizes = ([sample.img_shape for sample in data_samples[start:start + size]]
                     if self.metadata.takes_sizes else [images.shape[2:]])
            sizes += sizes[-1:] * (size - len(sizes))
            outputs.append([output[:len(part)] for output in self._run(filled, sizes)])
        return self._results([np.concatenate(one) for one in zip(*outputs, strict=True)],
                             data_samples, rescale=True)

    def _run(self, images: np.ndarray,
             sizes: Sequence[tuple[int, int]] | None = None) -> list[np.ndarray]:
        if self.session.get_inputs()[0].type == 'tensor(float16)':
            images = images.astype(np.float16)
        return self.session.run(OUTPUTS[self.metadata.task], self.metadata.feed(images, sizes))

    def _images(self, data: dict[str, Any]) -> list[np.ndarray]:
        """The images of a batch before any preparation, ``(h, w, 3)`` uint8 in BGR order."""
        samples = data['data_samples']
        if not isinstance(samples, ClassificationSample):
            return [read_image(sample.img_path) for sample in samples]
        if self.paths is not None:
            return [read_image(str(self.paths[index])) for index in samples.indices.tolist()]
        return list(data['inputs'].numpy()[:, ::-1].transpose(0, 2, 3, 1).copy())

    def _results(self, outputs: Sequence[np.ndarray], samples: Any, rescale: bool = False) -> list:
        outputs = [output.astype(np.float32) if output.dtype == np.float16 else output
                   for output in outputs]
        if self.metadata.task == 'classification':
            samples.scores = torch.from_numpy(outputs[0]).to(samples.labels.device)
            return [samples]
        for sample, *found in zip(samples, *outputs, strict=True):
            if rescale:
                found[0] = found[0] / np.tile(np.float32(sample.scale_factor), 2)
            if self.metadata.nms is not None:
                found = self.metadata.nms.detections(*found, sample.ori_shape)
            boxes, scores, labels = map(torch.from_numpy, found)
            sample.pred_instances = InstanceData(bboxes=boxes, scores=scores, labels=labels)
        return samples


def evaluate_onnx(cfg: Config, path: str | os.PathLike) -> dict[str, float]:
    """Evaluate an exported model on the test data of ``cfg``, by its evaluator.

    Args:
        cfg: A config with a ``work_dir``, ``test_dataloader`` and ``test_evaluator``; left as
            it is.
        path: The ``.onnx`` file.

    Returns:
        the metrics by name, those of the checkpoint but for rounding.

    Raises:
        UserError: from :func:`onnx_runner`.
    """
    return onnx_runner(cfg, path).test()


def onnx_runner(cfg: Config, path: str | os.PathLike, runner: type[Runner] = Runner) -> Runner:
    """Build the runner of ``cfg`` with an exported model in place of the network.

    What hooks of the config would do to the network or ask of it is left out.

    Raises:
        UserError: If the file is no model that mmkd exported, or its task, its classes or the
            way it prepares images are not those of the config; or if the run is distributed.
    """
    if cfg.get('launcher', 'none') != 'none':
        raise UserError(f"'{path}' cannot be evaluated in several processes: leave out "
                        '--launcher, or use mmkd test instead of tools/dist_test.sh')
    network, cfg = cfg.model, copy.deepcopy(cfg)
    cfg.model = dict(type='OnnxModel', path=os.fspath(path))
    if 'data_preprocessor' in network:
        cfg.model.data_preprocessor = network.data_preprocessor
    cfg.custom_hooks, cfg.load_from, cfg.resume = [], None, False
    if cfg.get('visualizer'):
        # mmengine keeps the first of a name, which another runner of this process may have built.
        cfg.visualizer.name = f'onnx_{next(_RUNNERS)}'
    with DefaultScope.overwrite_default_scope(cfg.get('default_scope', 'mmkd')):
        _check_task(OnnxModel(cfg.model.path).metadata, network, path)
        built = runner.from_cfg(cfg)
        dataset = built.test_dataloader.dataset
        built.model.paths = getattr(dataset, 'paths', None)
        _check_classes(built.model.metadata, dataset, path)
        _check_preparation(built.model, dataset, path)
    return built


def _check_task(metadata: ModelMetadata, network: dict, path: str | os.PathLike) -> None:
    kind = MODELS.get(network['type'])
    for task, base in dict(detection=BaseDetector, classification=Classifier).items():
        if isinstance(kind, type) and issubclass(kind, base):
            if metadata.task != task:
                raise UserError(f"'{path}' is a model for {metadata.task} but the config is for "
                                f'{task}: give the config that it was exported with')
            return
    raise UserError(f"a config whose model is a {network['type']} cannot evaluate '{path}': give "
                    'the config that it was exported with')


def _check_classes(metadata: ModelMetadata, dataset: Dataset, path: str | os.PathLike) -> None:
    classes = tuple(getattr(dataset, 'metainfo', {}).get('classes', ()))
    numbered = tuple(map(str, range(len(classes))))  # Of a checkpoint that names no classes.
    if metadata.classes not in (classes, numbered):
        raise UserError(f"'{path}' has the classes {_shortened(metadata.classes)} but the test "
                        f'data has {_shortened(classes)}: give the config that it was exported '
                        'with')


def _shortened(names: Sequence[str]) -> str:
    return f"{len(names)} ({', '.join(names[:5])}{', ...' if len(names) > 5 else ''})"


def _check_preparation(model: OnnxModel, dataset: Dataset, path: str | os.PathLike) -> None:
    """Prepare the first test image as the config does and as the metadata says."""
    batch = dataset[0]
    if not isinstance(batch['data_samples'], ClassificationSample):
        batch = pseudo_collate([batch])
    image = model._images(batch)[0]
    theirs = model.data_preprocessor(copy.deepcopy(batch), False)['inputs'][0].cpu().numpy()
    metadata, size = model.metadata, theirs.shape[1:]
    if size != metadata.input_size and not metadata.dynamic_size:
        raise UserError(f"'{path}' takes images of {_by(metadata.input_size)} pixels (height x "
                        f'width) but the test data of the config gives {_by(size)}: give the '
                        'config that it was exported with')
    metadata = metadata.with_input_size(size) if metadata.input_kind == 'tensor' else metadata
    ours, _ = metadata.prepare(image)
    levels = np.abs(ours - theirs) * np.abs(np.array(metadata.std, np.float32))[:, None, None]
    if levels.mean() > PREPARATION_TOLERANCE:
        raise UserError(
            f"'{path}' prepares images otherwise than the test data of the config (mean "
            f'{_rounded(metadata.mean)}, std {_rounded(metadata.std)}, {metadata.channel_order}, '
            f'{metadata.resize_mode}; {levels.mean():.1f} of 255 levels apart on the first '
            'image): give the config that it was exported with')


def _by(size: Sequence[int]) -> str:
    return 'x'.join(map(str, size))


def _rounded(values: Sequence[float]) -> str:
    return ' '.join(f'{value:g}' for value in values)
