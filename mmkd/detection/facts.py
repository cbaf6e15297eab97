"""What the batch of a detector tells a loss that asks for it by name."""

from typing import Any

from torch import Tensor

from mmkd.distillation.step import Step, fact

__all__: list[str] = []


def _labelled(step: Step) -> list[Any] | None:
    samples = step.samples
    if not isinstance(samples, (list, tuple)) or any('gt_instances' not in s for s in samples):
        return None
    return [sample.gt_instances for sample in samples]


@fact('boxes')
def _boxes(step: Step) -> list[Tensor] | None:
    """The true boxes of each image, ``(n, 4)`` as x1, y1, x2, y2 in pixels of the input."""
    found = _labelled(step)
    return found and [getattr(one.bboxes, 'tensor', one.bboxes) for one in found]


@fact('labels')
def _labels(step: Step) -> list[Tensor] | None:
    """The true classes of each image, ``(n,)``."""
    found = _labelled(step)
    return found and [one.labels for one in found]


@fact('img_shapes')
def _img_shapes(step: Step) -> list[tuple[int, int]] | None:
    """Height and width in pixels of each image in its input; what lies beyond is padding."""
    samples = step.samples
    if not isinstance(samples, (list, tuple)) or any('img_shape' not in s for s in samples):
        return None
    return [tuple(sample.img_shape[:2]) for sample in samples]
