"""How features flow from one layer to the next, made alike."""

from collections.abc import Sequence
from itertools import pairwise

import torch
from torch import Tensor, nn

from mmkd.distillation.losses._errors import InputError
from mmkd.distillation.losses._features import at_smaller_size
from mmkd.distillation.losses._precision import at_least_float32

__all__ = ['FSPLoss']


class FSPLoss(nn.Module):
    r"""Square difference of the matrices of the flow of solution procedure (FSP).

    ``L = sum_{l=1}^{n-1} mean_{bij} (G^t_l - G^s_l)_{bij}^2`` over neighbours of ``n`` layers, with

    ``G_{l,bij} = 1/(H W) sum_{yx} F^l_{biyx} F^{l+1}_{bjyx}``,

    the inner products of the channels of two layers. Of two layers that differ in size the larger
    is average-pooled to the smaller. Student and teacher need the same channels, and not the same
    sizes.

    Source: J. Yim, D. Joo, J. Bae, J. Kim, "A Gift from Knowledge Distillation: Fast Optimization,
    Network Minimization and Transfer Learning", CVPR 2017, which sums over ``i`` and ``j``,
    max-pools, and first trains the student with this loss alone. Means and average pooling are
    RepDistiller's, to which the weight of 50 and 30 epochs of that first stage belong; here these
    are the first epochs of a single training, beside the cross-entropy (the term's ``until``).
    """

    multi_level = True

    def forward(self, student: Sequence[Tensor], teacher: Sequence[Tensor]) -> Tensor:
        """Compute the loss, in float32 at least.

        Args:
            student: of each layer, from the first to the last, ``(B, C_l, H_l, W_l)``.
            teacher: ``(B, C_l, H'_l, W'_l)``; get no gradient.

        Returns:
            a scalar.

        Raises:
            InputError: there are fewer than two layers, a feature is not four-dimensional, or
                student and teacher differ in channels or batch.
        """
        ours, theirs = ([tuple(f.shape) for f in features] for features in (student, teacher))
        if len(ours) < 2 or any(len(shape) != 4 for shape in (*ours, *theirs)):
            raise InputError('FSPLoss compares how maps (batch, channels, height, width) of two '
                             f'layers or more belong together, not features of shapes {ours}: '
                             "tap=['backbone.stem', 'backbone.stage?']")
        if [shape[:2] for shape in ours] != [shape[:2] for shape in theirs]:
            raise InputError(f'FSPLoss needs equal channels in both networks, and the student has '
                             f'features of shapes {ours}, the teacher {theirs}: choose networks of '
                             "one width, or give the term connector=dict(type='AlignConnector')")
        with torch.autocast(device_type=student[0].device.type, enabled=False):
            pairs = zip(_flows(student), _flows([f.detach() for f in teacher]), strict=True)
            return torch.stack([(t - s).square().mean() for s, t in pairs]).sum()


def _flows(features: Sequence[Tensor]) -> list[Tensor]:
    """Return ``G`` of each layer with the next, ``(B, C_l, C_{l+1})``."""
    flows = []
    for first, second in pairwise(features):
        first, second = at_smaller_size(at_least_float32(first), at_least_float32(second))
        first, second = first.flatten(2), second.flatten(2)
        flows.append(first @ second.mT / first.shape[2])
    return flows
