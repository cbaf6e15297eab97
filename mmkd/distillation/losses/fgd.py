"""Features alike on objects, off objects, in attention and in their relations."""

from collections.abc import Sequence

import torch
from torch import Tensor, nn

from mmkd.distillation.losses._errors import InputError, check_temperature
from mmkd.distillation.losses._features import check_same_shape
from mmkd.distillation.losses._image_weights import mean_of_images
from mmkd.distillation.losses._precision import at_least_float32

__all__ = ['FGDLoss']


class FGDLoss(nn.Module):
    r"""Focal and global distillation: attended square errors, attentions, relations.

    ``L = alpha L_fg + beta L_bg + gamma L_at + lambda L_re``

    With the attentions of a feature ``F``, ``A^S = H W softmax_{yx}(mean_c |F| / T)`` over cells
    and ``A^C = C softmax_c(mean_{yx} |F| / T)`` over channels, both of the teacher ``t`` unless
    marked ``s``:

    * ``L_fg = 1/B sum_{bcyx} M_{byx} A^S_{byx} A^C_{bc} (t - s)^2_{bcyx}``, and ``L_bg`` with ``N``
      for ``M``;
    * ``L_at = 1/B (sum_{byx} |A^S_s - A^S_t| + sum_{bc} |A^C_s - A^C_t|)``;
    * ``L_re = 1/B sum_{bcyx} (R_t(t) - R_s(s))^2``,
      ``R(F) = F + W_2 ReLU(LN(W_1 sum_j softmax_j(w F_j) F_j))`` with the cells ``j``.

    A box of the ground truth, scaled from the image to the map, covers the cells from
    ``floor(x_0), floor(y_0)`` to ``ceil(x_1), ceil(y_1)``, both included. ``M`` is the greatest
    ``1 / (height * width)`` in cells of the boxes that cover a cell, ``N`` is one over the
    number of cells that no box covers, in those; each is 0 elsewhere. An image without boxes is
    all background. The relation modules ``R_s`` and ``R_t`` have weights of their own, that
    train with the student; ``W_2`` begins at 0, so that ``R(F) = F``. Then ``L`` is 0 where
    student and teacher are equal; later ``L_re`` is not.

    All parts are sums over channels and cells, as published: they grow with the map.

    Source: Z. Yang, Z. Li, X. Jiang, Y. Gong, Z. Yuan, D. Zhao, C. Yuan, "Focal and Global
    Knowledge Distillation for Detectors", CVPR 2022, arXiv 2111.11837, and its code. Its
    configs, with taps ``neck.fpn_convs.*.conv`` and students that begin with the teacher's neck
    and head:

    ==================================  ===  ======  ======  ======  ======  ======
    detector                            T    alpha   beta    gamma   lambda  levels
    ==================================  ===  ======  ======  ======  ======  ======
    RetinaNet, GFL (the defaults)       0.5  1e-3    5e-4    5e-4    5e-6    5
    RepPoints                           0.5  1.6e-3  8e-4    8e-4    8e-6    5
    FCOS                                0.8  1.6e-3  8e-4    8e-4    8e-6    5
    Faster, Cascade and Mask R-CNN      0.5  5e-5    2.5e-5  5e-5    5e-7    4
    ==================================  ===  ======  ======  ======  ======  ======

    The default ``gamma`` of the code's class, 1e-3, is that of none of these configs. From the
    code differ: a box that begins outside the map covers what lies inside (there negative indices
    count from the other end); channels are aligned by the term's ``ConvConnector``; ``w`` has no
    bias, which the softmax would cancel. As there, boxes are scaled by the image's own size and
    not by that of the padded input, so that under padding they lie too far out; hand in the
    padded size as ``img_shapes`` to have them where the objects are.

    Args:
        teacher_channels: ``C``.
        temperature: ``T`` > 0.
        alpha: weight of the foreground.
        beta: weight of the background.
        gamma: weight of the attention.
        lambda_: weight of the relations.

    Raises:
        InputError: the temperature is not above 0.
    """

    def __init__(self, teacher_channels: int, temperature: float = 0.5, alpha: float = 1e-3,
                 beta: float = 5e-4, gamma: float = 5e-4, lambda_: float = 5e-6) -> None:
        super().__init__()
        check_temperature(temperature, 'FGDLoss')
        self.temperature = temperature
        self.alpha, self.beta, self.gamma, self.lambda_ = alpha, beta, gamma, lambda_
        self.student_relation = _Relation(teacher_channels)
        self.teacher_relation = _Relation(teacher_channels)

    def forward(self, student: Tensor, teacher: Tensor, boxes: Sequence[Tensor],
                img_shapes: Sequence[tuple[int, int]],
                image_weights: Tensor | None = None) -> Tensor:
        """Compute the loss, in float32 at least.

        Args:
            student: ``(B, C, H, W)``, already with the teacher's channels.
            teacher: the same shape; gets no gradient.
            boxes: for each image ``(n, 4)``, ``x_0, y_0, x_1, y_1`` in pixels of the input;
                ``n`` may be 0.
            img_shapes: for each image its height and width in the input.
            image_weights: ``(B,)``, a factor for each image; None for 1.

        Returns:
            a scalar.

        Raises:
            InputError: the features' shapes differ or are not four-dimensional, or there are not
                boxes and a size for each image.
        """
        check_same_shape(student, teacher, 'FGDLoss')
        _check_boxes(boxes, img_shapes, len(student))
        student, teacher = at_least_float32(student), at_least_float32(teacher.detach())
        with torch.autocast(device_type=student.device.type, enabled=False):
            of_images = (self._focal(student, teacher, boxes, img_shapes)
                         + self.lambda_ * self._relations(student, teacher))
        return mean_of_images(of_images, image_weights)

    def _focal(self, student: Tensor, teacher: Tensor, boxes: Sequence[Tensor],
               img_shapes: Sequence[tuple[int, int]]) -> Tensor:
        """Return ``alpha L_fg + beta L_bg + gamma L_at`` of each image."""
        spatial, channel = _attentions(teacher, self.temperature)
        own_spatial, own_channel = _attentions(student, self.temperature)
        size = tuple(teacher.shape[2:])
        masks = torch.stack([self._mask(image_boxes.to(teacher), tuple(shape), size)
                             for image_boxes, shape in zip(boxes, img_shapes, strict=True)])
        of_cells = (masks * spatial).unsqueeze(1)
        of_channels = ((student - teacher).square() * of_cells).sum((2, 3))
        attention = ((own_spatial - spatial).abs().sum((1, 2))
                     + (own_channel - channel).abs().sum(1))
        return (of_channels * channel).sum(1) + self.gamma * attention

    def _mask(self, boxes: Tensor, img_shape: tuple[int, int], size: tuple[int, int]) -> Tensor:
        """Return ``alpha M + beta N`` of an image, ``(H, W)``."""
        objects = _foreground(boxes, img_shape, size)
        background = (objects == 0).to(objects)
        return self.alpha * objects + self.beta * background / background.sum().clamp(min=1)

    def _relations(self, student: Tensor, teacher: Tensor) -> Tensor:
        """Return ``L_re`` of each image."""
        difference = self.teacher_relation(teacher) - self.student_relation(student)
        return difference.square().flatten(1).sum(1)


class _Relation(nn.Module):
    """The global context block ``R``: every cell gets a function of a weighted mean of all."""

    def __init__(self, channels: int) -> None:
        super().__init__()
        hidden = max(channels // 2, 1)
        self.attend = nn.Conv2d(channels, 1, 1, bias=False)
        self.transform = nn.Sequential(nn.Linear(channels, hidden), nn.LayerNorm(hidden),
                                       nn.ReLU(), nn.Linear(hidden, channels))
        nn.init.kaiming_normal_(self.attend.weight, mode='fan_in', nonlinearity='relu')
        nn.init.zeros_(self.transform[-1].weight)
        nn.init.zeros_(self.transform[-1].bias)

    def forward(self, feature: Tensor) -> Tensor:
        shares = self.attend(feature).flatten(2).softmax(2)
        context = (feature.flatten(2) * shares).sum(2)
        return feature + self.transform(context)[:, :, None, None]


def _attentions(feature: Tensor, temperature: float) -> tuple[Tensor, Tensor]:
    """Return ``A^S``, ``(B, H, W)``, and ``A^C``, ``(B, C)``."""
    batch, channels, height, width = feature.shape
    magnitude = feature.abs()
    spatial = torch.softmax(magnitude.mean(1).flatten(1) / temperature, dim=1)
    channel = torch.softmax(magnitude.mean((2, 3)) / temperature, dim=1)
    return height * width * spatial.view(batch, height, width), channels * channel


def _foreground(boxes: Tensor, img_shape: tuple[int, int], size: tuple[int, int]) -> Tensor:
    """Return ``M`` of an image, ``(H, W)``."""
    height, width = size
    if len(boxes) == 0:
        return boxes.new_zeros(height, width)
    # First divided, then multiplied: the far edge of the image is the far edge of the map, exactly.
    scaled = boxes / boxes.new_tensor(img_shape[::-1] * 2) * boxes.new_tensor([width, height] * 2)
    x0, y0, x1, y1 = scaled.unsqueeze(2).unbind(1)
    x0, y0, x1, y1 = x0.floor(), y0.floor(), x1.ceil(), y1.ceil()
    columns = torch.arange(width, device=boxes.device)
    rows = torch.arange(height, device=boxes.device)
    covered = (((y0 <= rows) & (rows <= y1)).unsqueeze(2)
               & ((x0 <= columns) & (columns <= x1)).unsqueeze(1))
    # The extent of the whole box, also where part of it lies outside the map.
    density = 1 / ((y1 - y0 + 1) * (x1 - x0 + 1))
    return (covered * density.unsqueeze(2)).amax(0)


def _check_boxes(boxes: Sequence[Tensor], img_shapes: Sequence[tuple[int, int]],
                 batch: int) -> None:
    if len(boxes) != batch or len(img_shapes) != batch:
        raise InputError(f'FGDLoss needs boxes and a size for each of {batch} images, and got '
                         f'{len(boxes)} sets of boxes and {len(img_shapes)} sizes')
    for image_boxes in boxes:
        if image_boxes.dim() != 2 or image_boxes.shape[1] != 4:
            raise InputError('FGDLoss needs the boxes of an image as (n, 4), x0 y0 x1 y1, and '
                             f'got {tuple(image_boxes.shape)}')
