"""MMDetection's COCO metric, for classes in any order."""

from collections.abc import Sequence
from contextlib import redirect_stdout
from io import StringIO
from typing import Any

from mmdet.evaluation import CocoMetric as MMDetectionCocoMetric

from mmkd.registry import METRICS

__all__ = ['CocoMetric']


@METRICS.register_module()
class CocoMetric(MMDetectionCocoMetric):
    """MMDetection's ``CocoMetric``; it takes the same arguments.

    A label is the place of a category's name in the classes, as in mmkd's ``CocoDataset``, which
    reads the same file and refuses one that lacks a class. MMDetection counts the categories of the
    file.
    """

    def __init__(self, *args: Any, **kwargs: Any) -> None:
        with redirect_stdout(StringIO()):  # pycocotools tells of every step
            super().__init__(*args, **kwargs)

    def compute_metrics(self, results: Sequence[Any]) -> dict[str, float]:
        """Return the metrics by name; of what pycocotools prints, the table is left."""
        said = StringIO()
        with redirect_stdout(said):
            metrics = super().compute_metrics(results)
        for line in said.getvalue().splitlines():
            if line.startswith(' Average'):
                print(line)
        return metrics

    def results2json(self, results: Sequence[dict], outfile_prefix: str) -> dict[str, str]:
        """Write what was found as COCO's JSON; return the files' names."""
        numbers = {one['name']: number for number, one in self._coco_api.cats.items()}
        self.cat_ids = [numbers[name] for name in self.dataset_meta['classes'] if name in numbers]
        written = super().results2json(results, outfile_prefix)
        self.cat_ids.sort()  # as pycocotools has them, where it tells of each class
        return written
