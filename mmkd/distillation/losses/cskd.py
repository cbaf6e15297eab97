"""What a network says of one image, made like what it says of another of the same class."""

from mmkd.distillation.losses.kd import KDLoss

__all__ = ['CSKDLoss']


class CSKDLoss(KDLoss):
    r"""Class-wise regularisation: divergence of softened probabilities of two images of one class.

    ``L = T^2 / B * sum_b KL(p(x'_b) || p(x_b))`` with ``p = softmax(z / T)``, where ``x'_b`` is
    another image of the class of ``x_b`` and what the network says of it is a constant: the
    formula of :class:`~mmkd.distillation.losses.KDLoss`, ``student`` being the logits of ``x`` and
    ``teacher`` those of ``x'``. The pairs come from
    :class:`~mmkd.classification.data.PairSampler`; the cross-entropy is that of ``x`` alone.

    Source: S. Yun, J. Park, K. Lee, J. Shin, "Regularizing Class-wise Predictions via
    Self-knowledge Distillation", CVPR 2020, arXiv 2003.13964. ``T = 4`` and the weight 1 are the
    defaults of its authors' code.

    Args:
        temperature: ``T`` > 0.

    Raises:
        InputError: the temperature is not above 0.
    """
