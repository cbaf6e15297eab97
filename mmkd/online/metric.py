"""Accuracy of every member of a cohort and of their ensemble."""

from collections.abc import Sequence
from typing import Any

from mmengine.evaluator import BaseMetric

from mmkd.classification.accuracy import TopKAccuracy
from mmkd.registry import METRICS

__all__ = ['CohortAccuracy']

ENSEMBLE = 'ensemble'


@METRICS.register_module()
class CohortAccuracy(BaseMetric):
    """Top-k accuracy in percent: of every member, of the ensemble, and the members' mean.

    Gives, for every ``k``, ``accuracy/NAME/top<k>``, ``accuracy/ensemble/top<k>`` (of the mean of
    the members' probabilities) and ``accuracy/top<k>``, the mean of the members' accuracies: the
    number that the tables of DML, KDCL, PCL and MCL print for equal networks, and what
    ``BestAndLastHook`` and ``save_best='accuracy/top1'`` follow. Of mean members, see
    :class:`~mmkd.online.mean_members.MeanMembersHook`, it gives ``accuracy/NAME.TEACHER/top<k>``;
    they are in no mean. See :class:`TopKAccuracy`.

    Args:
        topk: the values of ``k``.
    """

    default_prefix = 'accuracy'

    def __init__(self, topk: Sequence[int] = (1, 5), collect_device: str = 'cpu') -> None:
        super().__init__(collect_device=collect_device)
        self._accuracy = TopKAccuracy(topk)
        self._names: list[str] = []
        self._members: list[str] = []

    def process(self, data_batch: Any, data_samples: Sequence[dict]) -> None:
        """Keep of every image at which rank its label is for each member and the ensemble.

        Args:
            data_batch: not used.
            data_samples: one dict per batch with ``member_scores`` (for each name ``(B, C)``),
                ``scores`` ``(B, C)``, ``labels`` ``(B,)`` and perhaps ``mean_scores``, by name.
        """
        for sample in data_samples:
            scores = {**sample['member_scores'], ENSEMBLE: sample['scores'],
                      **sample.get('mean_scores', {})}
            self._names, self._members = list(scores), list(sample['member_scores'])
            # One entry per image: mmengine cuts off what a sampler repeated by their number.
            self.results.extend(zip(*(self._ranks(s, sample['labels']) for s in scores.values()),
                                    strict=True))

    def _ranks(self, scores: Any, labels: Any) -> list[int]:
        self._accuracy.results = []
        self._accuracy.process(None, [dict(scores=scores, labels=labels)])
        return self._accuracy.results

    def compute_metrics(self, results: list[tuple[int, ...]]) -> dict[str, float]:
        """Return the shares in percent."""
        accuracies = {name: self._accuracy.compute_metrics(list(ranks))
                      for name, ranks in zip(self._names, zip(*results, strict=True), strict=True)}
        members = [accuracies[name] for name in self._members]
        mean = {top: sum(values[top] for values in members) / len(members) for top in members[0]}
        return mean | {f'{name}/{top}': value for name, values in accuracies.items()
                       for top, value in values.items()}
