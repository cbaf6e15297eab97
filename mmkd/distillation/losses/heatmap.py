"""Centre heatmaps of student and teacher made alike."""

from torch import Tensor, nn

from mmkd.distillation.losses._image_weights import mean_of_images
from mmkd.distillation.losses._precision import at_least_float32

__all__ = ['HeatmapLoss']


class HeatmapLoss(nn.Module):
    r"""Mean square difference of two centre heatmaps.

    ``L = 1 / (B C H W) * sum_{bcyx} (Y^s_{bcyx} - Y^t_{bcyx})^2``

    Source: the heatmap term (w1) of Liu, Du, She, Yang, multi-teacher joint distillation on
    CenterNet, Systems Engineering and Electronics 46(4), 2024, which gives its weight and not its
    formula; heatmaps are those of X. Zhou, D. Wang, P. Krähenbühl, "Objects as Points", 2019,
    arXiv 1904.07850. It is a mean over cells that are background nearly everywhere, so that its
    weight has to grow with the number of classes and cells per object: centerX (JDAI-CV, 2020)
    has 1000 for one class and 500 000 for 80. :class:`SoftFocalLoss` needs no such care.
    """

    def forward(self, student: Tensor, teacher: Tensor,
                image_weights: Tensor | None = None) -> Tensor:
        """Compute the loss, in float32 at least.

        Args:
            student: ``(B, C, H, W)``, probabilities.
            teacher: the same shape; gets no gradient.
            image_weights: ``(B,)``, a factor for each image; None for 1.

        Returns:
            a scalar.
        """
        difference = at_least_float32(student) - at_least_float32(teacher.detach())
        return mean_of_images(difference.square().flatten(1).mean(1), image_weights)
