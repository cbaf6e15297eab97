"""Where the activation is, made alike."""

from torch import Tensor, nn

from mmkd.distillation.losses._features import at_smaller_size, unit
from mmkd.distillation.losses._precision import at_least_float32

__all__ = ['AttentionTransferLoss']


class AttentionTransferLoss(nn.Module):
    r"""Mean square difference of two spatial attention maps.

    ``L = 1 / (B H W) * sum_b || Q^s_b / ||Q^s_b||_2 - Q^t_b / ||Q^t_b||_2 ||_2^2`` with the
    flattened map ``Q_b = vec(1/C sum_c |A_{bc}|^p)``. Channels need not agree; of two sizes the
    larger feature is average-pooled to the smaller. A feature that is zero everywhere has the
    attention 0 and gets no gradient.

    Source: S. Zagoruyko, N. Komodakis, "Paying More Attention to Attention: Improving the
    Performance of Convolutional Neural Networks via Attention Transfer", ICLR 2017,
    arXiv 1612.03928. The paper sums the norms over layers, with a weight beta / 2; the mean of the
    squares is its authors' and RepDistiller's code, to which the weight of 1000 belongs.

    Args:
        p: power of the activations, >= 1.
    """

    def __init__(self, p: float = 2) -> None:
        super().__init__()
        self.p = p

    def forward(self, student: Tensor, teacher: Tensor) -> Tensor:
        """Compute the loss, in float32 at least.

        Args:
            student: ``(B, C_s, H_s, W_s)``.
            teacher: ``(B, C_t, H_t, W_t)``; gets no gradient.

        Returns:
            a scalar.

        Raises:
            InputError: a feature is not four-dimensional or the batches differ.
        """
        student, teacher = at_smaller_size(at_least_float32(student),
                                           at_least_float32(teacher.detach()))
        return (self._attention(student) - self._attention(teacher)).square().mean()

    def _attention(self, feature: Tensor) -> Tensor:
        return unit(feature.abs().pow(self.p).mean(1).flatten(1), dim=1)
