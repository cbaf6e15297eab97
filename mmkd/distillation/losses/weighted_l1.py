"""Widths and heights, and centre offsets, made alike where the teacher sees objects."""

from torch import Tensor, nn

from mmkd.distillation.losses._distributed import sum_over_processes, world_size
from mmkd.distillation.losses._image_weights import weighted
from mmkd.distillation.losses._peaks import peaks
from mmkd.distillation.losses._precision import at_least_float32

__all__ = ['OffsetLoss', 'PeakOffsetLoss', 'PeakWidthHeightLoss', 'WidthHeightLoss']


class _WeightedL1(nn.Module):
    """``sum m |student - teacher| / scale / norm`` over all cells of a batch.

    Args:
        min_score: cells whose weight would come from a lower score have none.
    """

    relative = False
    """Whether differences are divided by the object's size."""

    def __init__(self, min_score: float = 0.1) -> None:
        super().__init__()
        self.min_score = min_score

    def forward(self, student: Tensor, teacher: Tensor, heatmap: Tensor,
                image_weights: Tensor | None = None) -> Tensor:
        """Compute the loss, in float32 at least.

        Args:
            student: ``(B, 2, H, W)``, in cells of the map.
            teacher: the same shape; gets no gradient.
            heatmap: ``(B, C, H, W)``, the teacher's probabilities; gets no gradient.
            image_weights: ``(B,)``, a factor for each image; None for 1.

        Returns:
            a scalar; 0 if the teacher sees no object in any image.
        """
        teacher = at_least_float32(teacher.detach())
        weight = self._cells(at_least_float32(heatmap.detach()))
        difference = (at_least_float32(student) - teacher).abs()
        if self.relative:
            difference = difference / teacher.mean(1, keepdim=True).clamp(min=1)
        total = weighted(weight * difference, image_weights).sum()
        return total / self._norm(weight)

    def _cells(self, heatmap: Tensor) -> Tensor:
        """Return the weight ``(B, 1, H, W)`` of each cell."""
        score = heatmap.amax(1, keepdim=True)
        return score.square() * (score >= self.min_score)

    def _norm(self, weight: Tensor) -> Tensor:
        return 2 * sum_over_processes(weight.sum()).clamp(min=1) / world_size()


class WidthHeightLoss(_WeightedL1):
    r"""Relative difference of two width-height maps where the teacher sees objects.

    ``L = sum_{byx} m_{byx} |S^s_{byx} - S^t_{byx}|_1 / s_{byx} / (2 max(1, sum_{byx} m_{byx}))``
    with ``m = q^2 [q >= 0.1]``, ``q = max_c Y^t_c``, ``s = max(1, (w^t + h^t) / 2)``

    over the batch of all processes. A width is only meaningful near the centre of an object, and
    the teacher's heatmap says where that is; the threshold keeps the background out, which is
    nowhere quite 0 and large. An image without objects adds nothing, and a large
    object, whose sizes differ by more cells, has no more say than a small one.

    Source: the width-height term (w2) of Liu, Du, She, Yang, Systems Engineering and Electronics
    46(4), 2024, which gives its weight and not its formula; this formula is this project's, ``S``
    as in arXiv 1904.07850. :class:`PeakWidthHeightLoss` is the published code that is closest.

    Args:
        min_score: the threshold of ``q``.
    """

    relative = True


class OffsetLoss(_WeightedL1):
    r"""Difference of two centre-offset maps where the teacher sees objects.

    ``L = sum_{byx} m_{byx} |O^s_{byx} - O^t_{byx}|_1 / (2 max(1, sum_{byx} m_{byx}))``, in cells,
    over the batch of all processes, with ``m`` as in :class:`WidthHeightLoss`.

    Source: the offset term (w3) of Liu, Du, She, Yang, Systems Engineering and Electronics 46(4),
    2024, which gives its weight and not its formula; ``O`` as in arXiv 1904.07850.

    Args:
        min_score: the threshold of ``q``.
    """


class _PeakL1(_WeightedL1):
    """A :class:`_WeightedL1` at the maxima alone, divided by the sum of their scores."""

    def __init__(self) -> None:
        super().__init__(min_score=0.0)

    def _cells(self, heatmap: Tensor) -> Tensor:
        return peaks(heatmap).amax(1, keepdim=True)

    def _norm(self, weight: Tensor) -> Tensor:
        return weight.sum() + 1e-4


class PeakWidthHeightLoss(_PeakL1):
    r"""Relative difference of two width-height maps at the maxima of the teacher's heatmap.

    ``L = sum_{byx} m_{byx} |S^s_{byx} - S^t_{byx}|_1 / s_{byx} / sum_{byx} m_{byx}`` with
    ``m = max_c Y^t_c`` where ``Y^t_c`` is highest of its 3x3 cells and 0 elsewhere, and
    ``s = max(1, (w^t + h^t) / 2)``.

    Source: centerX, JDAI-CV, 2020 (github.com/JDAI-CV/centerX, ``CenterNet`` distilled from several
    teachers), whose weights (1000, 1, 0.1) for heatmap, sizes and offsets are those of the best
    row of Liu, Du, She, Yang, 2024. There ``s`` has no lower bound.
    """

    relative = True


class PeakOffsetLoss(_PeakL1):
    r"""Difference of two centre-offset maps at the maxima of the teacher's heatmap.

    ``L = sum_{byx} m_{byx} |O^s_{byx} - O^t_{byx}|_1 / sum_{byx} m_{byx}``, in cells, with ``m`` as
    in :class:`PeakWidthHeightLoss`.

    Source: that of :class:`PeakWidthHeightLoss`.
    """
