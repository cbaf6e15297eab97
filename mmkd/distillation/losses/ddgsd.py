"""Two distorted views of the same images, made to say the same."""

from collections.abc import Sequence

from torch import Tensor, nn

from mmkd.distillation.losses._errors import InputError, check_temperature
from mmkd.distillation.losses._logits import kl_divergence, scaled_logits
from mmkd.distillation.losses._precision import at_least_float32

__all__ = ['DDGSDLoss']


class DDGSDLoss(nn.Module):
    r"""Mutual divergence of two views' class probabilities, and distance of their features' means.

    ``L = T^2 [ KL(p^b || p^a) + KL(p^a || p^b) ] + mmd_weight * || 1/B sum_i f^a_i -
    1/B sum_i f^b_i ||_2^2``

    with ``p = softmax(z / T)`` of the views ``a`` and ``b`` of the same ``B`` images, the KL's a
    mean over the images. In each of them the view in front is the target and a constant. The last
    term is the squared maximum mean discrepancy (MMD) with a linear kernel between the two groups
    of features, global features before the classifier; its gradient reaches both.

    Source: T.-B. Xu, C.-L. Liu, "Data-Distortion Guided Self-Distillation for Deep Neural
    Networks", AAAI 2019, doi 10.1609/aaai.v33i01.33015565. The paper adds up the cross-entropies of
    the two views, of which :class:`~mmkd.classification.Classifier` takes the mean: a weight of
    0.5 keeps the proportion. Constant targets, the temperature and ``mmd_weight`` are those of a
    public reimplementation (Self-KD-Lib).

    Args:
        temperature: ``T`` > 0.
        mmd_weight: factor of the MMD, at least 0.

    Raises:
        InputError: the temperature is not above 0.
    """

    multi_level = True

    def __init__(self, temperature: float = 4.0, mmd_weight: float = 5e-4) -> None:
        super().__init__()
        check_temperature(temperature, 'DDGSDLoss')
        self.temperature = temperature
        self.mmd_weight = mmd_weight

    def forward(self, student: Sequence[Tensor], labels: Tensor | None = None) -> Tensor:
        """Compute the loss, in float32 at least.

        Args:
            student: features ``(2 B, D)`` and logits ``(2 B, C)``, in each all of view ``a`` before
                all of view ``b``.
            labels: ``(B,)``, if known: their number tells views from other images.

        Returns:
            a scalar.

        Raises:
            InputError: these are not two such tensors.
        """
        shapes = [tuple(value.shape) for value in student]
        rows = {shape[0] for shape in shapes}
        wanted = {2 * (max(rows) // 2 if labels is None else len(labels))}
        if [len(shape) for shape in shapes] != [2, 2] or rows != wanted:
            raise InputError('DDGSDLoss needs embeddings (2 batch, dimensions) and logits (2 '
                             f'batch, classes) of two views, not {shapes}: tap '
                             "['backbone.embedding', 'head.fc'] and set data_preprocessor.views=2")
        features, logits = student
        difference = at_least_float32(features).unflatten(0, (2, -1)).mean(1).diff(dim=0)
        first, second = logits.chunk(2)
        divergence = kl_divergence(*scaled_logits(first, second, self.temperature)) + \
            kl_divergence(*scaled_logits(second, first, self.temperature))
        return self.temperature ** 2 * divergence + self.mmd_weight * difference.square().sum()
