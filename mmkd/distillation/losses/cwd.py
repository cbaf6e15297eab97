"""Each channel's map as a distribution over the cells."""

import torch.nn.functional as F
from torch import Tensor, nn

from mmkd.distillation.losses._errors import InputError, check_temperature
from mmkd.distillation.losses._features import check_same_shape
from mmkd.distillation.losses._image_weights import mean_of_images
from mmkd.distillation.losses._precision import at_least_float32

__all__ = ['CWDLoss']


class CWDLoss(nn.Module):
    r"""Kullback-Leibler divergence of two maps, channel by channel.

    ``L = tau^2 / (B C) * sum_{bc} sum_i phi(t_bc)_i [log phi(t_bc)_i - log phi(s_bc)_i]``,
    ``phi(y)_i = exp(y_i / tau) / sum_j exp(y_j / tau)`` over the ``H W`` cells of a channel.

    The maps may be features or a dense head's class logits; it is the place of a channel's peaks
    that counts. ``L`` is 0 where student and teacher differ by a constant per image and channel.

    With ``standardise`` both maps first get the mean 0 and the variance 1 in each channel over
    ``(B, H, W)``, as by a batch norm without parameters or running averages. With
    ``connector=dict(type='ConvConnector')`` that is the "norm and CWD" of RTMDet, which puts a
    1x1 convolution without bias and such a batch norm behind the student and such a batch norm
    behind the teacher: centring cancels the bias, and standardising here keeps both sides in one
    place, without a connector for the teacher.

    Source: C. Shu, Y. Liu, J. Gao, Z. Yan, C. Shen, "Channel-wise Knowledge Distillation for
    Dense Prediction", ICCV 2021, arXiv 2011.13256; scale and defaults are those of mmrazor's
    code. Weights in use: 10 on all five outputs of an FPN
    (mmrazor), 1 with ``standardise`` on RTMDet's three neck outputs, without the last 20 of 300
    epochs (mmyolo). The paper aligns channels by a 1x1 convolution; that is a connector here.

    Args:
        tau: the temperature, above 0.
        standardise: whether to standardise the channels first.

    Raises:
        InputError: ``tau`` is not above 0.
    """

    def __init__(self, tau: float = 1.0, standardise: bool = False) -> None:
        super().__init__()
        check_temperature(tau, 'CWDLoss', 'tau')
        self.tau, self.standardise = tau, standardise

    def forward(self, student: Tensor, teacher: Tensor,
                image_weights: Tensor | None = None) -> Tensor:
        """Compute the loss, in float32 at least.

        Args:
            student: ``(B, C, H, W)``.
            teacher: the same shape; gets no gradient.
            image_weights: ``(B,)``, a factor for each image; None for 1.

        Returns:
            a scalar.

        Raises:
            InputError: the shapes differ or are not four-dimensional, or ``standardise`` has a
                single cell of a single image to work on.
        """
        check_same_shape(student, teacher, 'CWDLoss')
        student, teacher = at_least_float32(student), at_least_float32(teacher.detach())
        if self.standardise:
            student, teacher = _standardised(student), _standardised(teacher)
        ours, theirs = (F.log_softmax(maps.flatten(2) / self.tau, dim=2)
                        for maps in (student, teacher))
        divergences = (theirs.exp() * (theirs - ours)).sum(2)
        return self.tau ** 2 * mean_of_images(divergences.mean(1), image_weights)


def _standardised(maps: Tensor) -> Tensor:
    if maps[:, 0].numel() == 1:
        raise InputError(f'CWDLoss cannot standardise maps of shape {tuple(maps.shape)}, one cell '
                         'of one image: use a larger batch, or standardise=False')
    return F.batch_norm(maps, None, None, training=True)
