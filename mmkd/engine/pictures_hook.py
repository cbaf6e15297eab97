"""Draw the detections of a test, and say where the score threshold left images without a box."""

import warnings
from collections.abc import Sequence
from itertools import chain
from typing import Any

from mmengine.dist import all_gather_object, is_main_process
from mmengine.runner import Runner

from mmkd.detection._imports import mmdet
from mmkd.registry import HOOKS
from mmkd.undrawn import DRAWN_FROM, undrawn_sentence

__all__ = ['PicturesHook']


@HOOKS.register_module()
class PicturesHook(mmdet.engine.hooks.DetVisualizationHook):
    """MMDetection's ``DetVisualizationHook``, whose arguments it takes, with a lower ``score_thr``.

    It leaves out boxes without an area, which a CenterNet gives early in training and at low
    scores, and at which MMDetection's drawing would end. After a test it prints one line if nothing
    was drawn on some images, whose scores all are below ``score_thr``.
    """

    def __init__(self, *args: Any, score_thr: float = DRAWN_FROM, **kwargs: Any) -> None:
        super().__init__(*args, score_thr=score_thr, **kwargs)
        self._best_scores: list[float] = []
        self._labelled = False

    def after_test_iter(self, runner: Runner, batch_idx: int, data_batch: dict,
                        outputs: Sequence[Any]) -> None:
        """Draw a batch and note the best score of each image."""
        drawable = []
        for sample in outputs:
            found = sample.pred_instances
            left, top, right, bottom = found.bboxes.unbind(-1)
            copy = sample.clone()
            copy.pred_instances = found[(right > left) & (bottom > top)]
            drawable.append(copy)
            self._labelled = self._labelled or 'gt_instances' in sample
            self._best_scores.append(max(copy.pred_instances.scores.tolist(), default=0))
        with warnings.catch_warnings():  # a box may reach beyond its image
            warnings.filterwarnings('ignore', '.* is out of bounds')
            super().after_test_iter(runner, batch_idx, data_batch, drawable)

    def after_test_epoch(self, runner: Runner, metrics: dict[str, float] | None = None) -> None:
        """Sum up, over all processes."""
        scores = list(chain.from_iterable(all_gather_object(self._best_scores)))
        sentence = undrawn_sentence(scores, self.score_thr)
        if not (self.draw and is_main_process()):
            return
        sides = 'left the labels, right' if self._labelled else 'with'
        print(f'{len(scores)} pictures in {self.test_out_dir}: {sides} what was found with a score '
              f'of at least {self.score_thr:g}')
        if sentence:
            print(sentence)
