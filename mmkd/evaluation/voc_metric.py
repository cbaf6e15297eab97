"""PASCAL VOC mean average precision as a metric of a run."""

from collections.abc import Sequence
from typing import Any

import numpy as np
from mmengine.evaluator import BaseMetric
from mmengine.logging import print_log
from torch import Tensor

from mmkd.errors import UserError, did_you_mean
from mmkd.evaluation.voc_map import (
    ClassResult,
    Detections,
    Objects,
    mean_average_precision,
    voc_average_precision,
)
from mmkd.registry import METRICS

__all__ = ['VOCMeanAPMetric']

EVAL_MODES = {'11points': 'ap_11points', 'area': 'ap_area'}


@METRICS.register_module()
class VOCMeanAPMetric(BaseMetric):
    """PASCAL VOC mAP by the development kit's rules (see :mod:`mmkd.evaluation.voc_map`).

    Reports floats from 0 to 1, not rounded: ``mAP``, ``mAP_11points``, ``mAP_area`` and
    ``AP/<class>``, with ``mAP`` and ``AP/<class>`` by ``eval_mode``. The AP of a class without
    objects is nan and left out of the means. The result does not depend on the number of processes.

    Ground truth comes from ``gt_instances``; ``ignored_instances`` are the `difficult` objects.
    Both must be in pixels of the original image, as the predictions are. The test pipeline must
    therefore place ``LoadAnnotations`` *after* every transform that changes the image's geometry
    (``Resize``, ``RandomCenterCropPad``): annotations loaded before it are scaled along, and the
    mAP is wrong without an error.

    Where a `difficult` and an ordinary object overlap a detection equally, the ordinary one counts:
    their order in the annotation file is lost on the way.

    Args:
        iou_thr: the least intersection over union of a hit.
        eval_mode: ``'11points'`` (VOC2007) or ``'area'`` (VOC2010 and later).
        collect_device: how processes exchange results. The default, ``'gpu'``, gathers them through
            the process group, on CPU too, and across machines; ``'cpu'`` needs a folder that all
            machines share.
        prefix: goes before the reported names.

    Raises:
        UserError: an argument is not of the values above.
    """

    default_prefix = 'pascal_voc'

    def __init__(self, iou_thr: float = 0.5, eval_mode: str = '11points',
                 collect_device: str = 'gpu', prefix: str | None = None) -> None:
        super().__init__(collect_device=collect_device, prefix=prefix)
        if eval_mode not in EVAL_MODES:
            raise UserError(f"The eval_mode of VOCMeanAPMetric is '{eval_mode}', use one of "
                            f'{", ".join(EVAL_MODES)}.{did_you_mean(eval_mode, EVAL_MODES)}')
        if not isinstance(iou_thr, float | int) or not 0 < iou_thr <= 1:
            raise UserError(f'The iou_thr of VOCMeanAPMetric is {iou_thr!r}, give one number above '
                            '0 and at most 1.')
        self.iou_thr = iou_thr
        self.eval_mode = eval_mode

    def process(self, data_batch: Any, data_samples: Sequence[dict]) -> None:
        """Keep boxes, scores and labels of a batch, as NumPy arrays.

        Args:
            data_batch: not used.
            data_samples: one dict for each image, with ``gt_instances``, ``pred_instances`` and,
                if there are `difficult` objects, ``ignored_instances``.

        Raises:
            UserError: a sample has no annotations, or a predicted label is not of the data set.
        """
        for sample in data_samples:
            pred = sample['pred_instances']
            detections = Detections(_floats(pred['bboxes']), _floats(pred['scores']),
                                    pred['labels'].cpu().numpy())
            self._check(sample, detections.labels)
            self.results.append((detections, _objects(sample)))

    def compute_metrics(self, results: list[tuple[Detections, Objects]]) -> dict[str, float]:
        """Compute and log the average precision of all classes.

        Args:
            results: one pair for each image.

        Returns:
            The numbers listed above, without the prefix.
        """
        classes = self.dataset_meta['classes']
        per_class = voc_average_precision([detections for detections, _ in results],
                                          [objects for _, objects in results],
                                          len(classes), self.iou_thr)
        means = {mode: mean_average_precision(getattr(result, name) for result in per_class)
                 for mode, name in EVAL_MODES.items()}
        aps = [getattr(result, EVAL_MODES[self.eval_mode]) for result in per_class]
        print_log(self._table(classes, per_class, aps, means), logger='current')
        return {
            'mAP': means[self.eval_mode],
            **{f'mAP_{mode}': value for mode, value in means.items()},
            **{f'AP/{name}': ap for name, ap in zip(classes, aps, strict=True)},
        }

    def _check(self, sample: dict, labels: np.ndarray) -> None:
        image = sample.get('img_path', sample.get('img_id', 'a test image'))
        if 'bboxes' not in sample.get('gt_instances', {}):
            raise UserError(f'VOCMeanAPMetric found no annotations with {image}, put '
                            "dict(type='LoadAnnotations', with_bbox=True) before PackDetInputs and "
                            'after Resize in the test pipeline.')
        num_classes = len(self.dataset_meta['classes'])
        if labels.max(initial=0) >= num_classes:
            raise UserError(f'The model predicted label {labels.max()} for {image} but the data '
                            f'set has {num_classes} classes (the first label is 0), set '
                            f"num_classes={num_classes} in the model's bbox_head.")

    def _table(self, classes: Sequence[str], per_class: Sequence[ClassResult],
               aps: Sequence[float], means: dict[str, float]) -> str:
        width = max(len('class'), *map(len, classes))
        lines = [f'VOC average precision, {self.eval_mode}, IoU >= {self.iou_thr:g}',
                 f'{"class":{width}}  objects  detections  recall      AP']
        for name, result, ap in zip(classes, per_class, aps, strict=True):
            recall = result.recall[-1] if result.num_detections else 0.0
            lines.append(f'{name:{width}}  {result.num_objects:7}  {result.num_detections:10}'
                         f'  {recall:6.3f}  {ap:6.3f}')
        lines.append(', '.join(f'mAP ({mode}) {value:.4f}' for mode, value in means.items()))
        return '\n'.join(lines)


def _objects(sample: dict) -> Objects:
    # A pipeline that knows of no `difficult` objects leaves the ignored instances empty.
    parts = [part for part in (sample['gt_instances'], sample.get('ignored_instances', {}))
             if 'bboxes' in part]
    counts = [len(part['labels']) for part in parts]
    return Objects(np.concatenate([_floats(part['bboxes']).reshape(-1, 4) for part in parts]),
                   np.concatenate([part['labels'].cpu().numpy() for part in parts]),
                   np.arange(sum(counts)) >= counts[0])


def _floats(tensor: Tensor) -> np.ndarray:
    # NumPy has no bfloat16, which a run with mixed precision may predict.
    return tensor.detach().float().cpu().numpy()
