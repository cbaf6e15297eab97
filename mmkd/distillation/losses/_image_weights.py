"""Images that count more than others."""

from torch import Tensor


def weighted(values: Tensor, image_weights: Tensor | None) -> Tensor:
    """Multiply values ``(B, ...)`` by their image's weight ``(B,)``, if there are weights."""
    if image_weights is None:
        return values
    weights = image_weights.detach().to(values).view(-1, *[1] * (values.dim() - 1))
    return values * weights


def mean_of_images(values: Tensor, image_weights: Tensor | None) -> Tensor:
    """Return ``1/B sum_b w_b v_b`` of values ``(B,)``, with weights 1 where there are none."""
    return weighted(values, image_weights).mean()
