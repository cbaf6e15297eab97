"""CenterNet's head: MMDetection's, with every hourglass stack supervised and batched targets."""

from collections.abc import Sequence
from typing import Any

import torch
from mmdet.models.dense_heads import CenterNetHead as MMDetCenterNetHead
from mmdet.models.utils import multi_apply
from mmdet.utils import InstanceList, OptInstanceList, reduce_mean
from mmengine.dist import get_world_size
from mmengine.model import bias_init_with_prob, normal_init
from torch import Tensor, nn

from mmkd.errors import UserError
from mmkd.registry import MODELS

__all__ = ['CenterNetHead']

Maps = tuple[list[Tensor], list[Tensor], list[Tensor]]

# The value of CornerNet and MMDetection: a box whose corners move by the radius still overlaps the
# true one by at least this IoU. (The original CenterNet's code has 0.7, but other roots.)
MIN_OVERLAP = 0.3


@MODELS.register_module()
class CenterNetHead(MMDetCenterNetHead):
    """Predict centre heatmaps, box sizes and centre offsets at every stack of the backbone.

    Xingyi Zhou, Dequan Wang, Philipp Krähenbühl: Objects as Points, 2019, arXiv:1904.07850.

    It computes what MMDetection's head of the same name computes, and its one-stack
    checkpoints are interchangeable with MMDetection's. What it adds:

    - a backbone that returns one map per stack (Hourglass-104) is supervised at every stack, as
      the original is. Only the last stack, whose layers keep MMDetection's names
      ``heatmap_head``, ``wh_head`` and ``offset_head``, predicts; the layers of the earlier ones
      are in ``intermediate_heads`` and serve training alone;
    - targets are computed for all objects of a batch at once, on their device;
    - losses are divided by the number of objects averaged over the processes, so that two
      processes with two images each train as one process with four;
    - an image whose meta has no ``border`` has none, so that test images need no
      ``RandomCenterCropPad``.

    Args:
        in_channels: Channels of each incoming map.
        feat_channels: Channels between the two convolutions of each branch.
        num_classes: Number of categories, without background.
        num_stacks: Number of maps that the backbone or neck returns in training.
        **kwargs: What MMDetection's head takes: ``loss_center_heatmap``, ``loss_wh``,
            ``loss_offset``, ``train_cfg``, ``test_cfg``, ``init_cfg``.

    Raises:
        UserError: If ``num_stacks`` is less than 1.
    """

    def __init__(self, in_channels: int, feat_channels: int, num_classes: int,
                 num_stacks: int = 1, **kwargs: Any) -> None:
        if num_stacks < 1:
            raise UserError(f'bbox_head.num_stacks is {num_stacks}: give the number of maps '
                            'that the backbone returns, at least 1.')
        super().__init__(in_channels, feat_channels, num_classes, **kwargs)
        self.num_stacks = num_stacks
        self.intermediate_heads = nn.ModuleList(
            nn.ModuleDict({
                'heatmap_head': self._build_head(in_channels, feat_channels, num_classes),
                'wh_head': self._build_head(in_channels, feat_channels, 2),
                'offset_head': self._build_head(in_channels, feat_channels, 2),
            }) for _ in range(num_stacks - 1))

    def init_weights(self) -> None:
        """Initialise every stack as MMDetection does the only one: heatmaps start near 0.1."""
        super().init_weights()
        for heads in self.intermediate_heads:
            nn.init.constant_(heads['heatmap_head'][-1].bias, bias_init_with_prob(0.1))
            for name in ('wh_head', 'offset_head'):
                for module in heads[name].modules():
                    if isinstance(module, nn.Conv2d):
                        normal_init(module, std=0.001)

    def forward(self, x: Sequence[Tensor]) -> Maps:
        """Predict from every stack in training mode, and from the last one in evaluation mode.

        Args:
            x: One map per stack, each of shape (B, in_channels, H, W).

        Returns:
            Heatmaps after the sigmoid, (B, num_classes, H, W); widths and heights, (B, 2, H, W),
            and offsets (x, y), (B, 2, H, W), both in cells of the map: a list each, with one map
            per stack, the last one final. Heatmaps are never of less than single precision.

        Raises:
            UserError: If the number of maps in training is not ``num_stacks``.
        """
        if not self.training:
            return multi_apply(self.forward_single, x[-1:])
        if len(x) != self.num_stacks:
            raise UserError(
                f'bbox_head.num_stacks is {self.num_stacks} but the backbone or neck returns '
                f'{len(x)} maps: set bbox_head.num_stacks={len(x)}, or have it return as many.')
        stacks = [tuple(heads.values()) for heads in self.intermediate_heads]
        stacks.append((self.heatmap_head, self.wh_head, self.offset_head))
        return multi_apply(_predict_maps, x, stacks)

    def forward_single(self, x: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        """Predict from the last stack's map of shape (B, in_channels, H, W)."""
        return _predict_maps(x, (self.heatmap_head, self.wh_head, self.offset_head))

    def loss_by_feat(self, center_heatmap_preds: list[Tensor], wh_preds: list[Tensor],
                     offset_preds: list[Tensor], batch_gt_instances: InstanceList,
                     batch_img_metas: list[dict],
                     batch_gt_instances_ignore: OptInstanceList = None) -> dict[str, Tensor]:
        """Compute the three losses, each the mean over the stacks as in the original CenterNet.

        Args:
            center_heatmap_preds: Heatmaps of each stack, (B, num_classes, H, W).
            wh_preds: Widths and heights of each stack, (B, 2, H, W).
            offset_preds: Offsets of each stack, (B, 2, H, W).
            batch_gt_instances: ``bboxes`` (N, 4), in pixels, and ``labels`` (N,) of each image.
            batch_img_metas: Meta of each image, with ``batch_input_shape``.
            batch_gt_instances_ignore: Not used: CenterNet ignores nothing.

        Returns:
            The scalars ``loss_center_heatmap``, ``loss_wh`` and ``loss_offset``, weighted.
        """
        targets, avg_factor = self.get_targets(
            [instances.bboxes for instances in batch_gt_instances],
            [instances.labels for instances in batch_gt_instances],
            center_heatmap_preds[-1].shape, batch_img_metas[0]['batch_input_shape'])
        weight = targets['wh_offset_target_weight']
        # Sizes and offsets have two channels, hence twice the number of values.
        per_stack = [(
            self.loss_center_heatmap(
                heatmap, targets['center_heatmap_target'], avg_factor=avg_factor),
            self.loss_wh(wh, targets['wh_target'], weight, avg_factor=avg_factor * 2),
            self.loss_offset(offset, targets['offset_target'], weight, avg_factor=avg_factor * 2),
        ) for heatmap, wh, offset in zip(center_heatmap_preds, wh_preds, offset_preds, strict=True)]
        names = ('loss_center_heatmap', 'loss_wh', 'loss_offset')
        return {name: sum(losses) / len(losses)
                for name, losses in zip(names, zip(*per_stack, strict=True), strict=True)}

    @torch.no_grad()
    def get_targets(self, gt_bboxes: list[Tensor], gt_labels: list[Tensor],
                    feat_shape: Sequence[int],
                    img_shape: Sequence[int]) -> tuple[dict[str, Tensor], Tensor]:
        r"""Draw the heatmap, size and offset targets of a batch.

        An object of class c with centre p (in cells of the map) gives
        :math:`Y_{xyc} = \max(Y_{xyc}, \exp(-\|(x, y) - \lfloor p\rfloor\|^2 / 2\sigma^2))` in a
        window of radius r, with :math:`\sigma = (2r + 1) / 6`, and its size and
        :math:`p - \lfloor p\rfloor` at the cell :math:`\lfloor p\rfloor`, where the last of
        several objects wins. The values are MMDetection's, bit for bit on a CPU. An object whose
        centre is outside the map is left out.

        Args:
            gt_bboxes: Boxes of each image, (N, 4), as x1, y1, x2, y2 in pixels of the input.
            gt_labels: Classes of each image's boxes, (N,), int64.
            feat_shape: Shape (B, _, H, W) of the predicted maps.
            img_shape: Height and width of the network's input.

        Returns:
            ``center_heatmap_target`` (B, num_classes, H, W) and, each (B, 2, H, W),
            ``wh_target``, ``offset_target`` and ``wh_offset_target_weight``, which is 1 at centres
            and 0 elsewhere; and the factor that losses are divided by, a scalar: the number of
            centres of all processes, at least 1, over the number of processes.

        Raises:
            UserError: If a label is not below ``num_classes``.
        """
        batch_size, _, height, width = feat_shape
        counts = torch.tensor([len(boxes) for boxes in gt_bboxes])
        bboxes, labels = torch.cat(gt_bboxes), torch.cat(gt_labels)
        images = torch.repeat_interleave(torch.arange(batch_size), counts).to(bboxes.device)

        x_scale, y_scale = float(width / img_shape[1]), float(height / img_shape[0])
        x1, y1, x2, y2 = bboxes.unbind(1)
        center_x, center_y = (x1 + x2) * x_scale / 2, (y1 + y2) * y_scale / 2
        box_width, box_height = (x2 - x1) * x_scale, (y2 - y1) * y_scale
        cell_x, cell_y = center_x.long(), center_y.long()
        inside = (cell_x >= 0) & (cell_x < width) & (cell_y >= 0) & (cell_y < height)

        heatmaps = bboxes.new_zeros(batch_size, self.num_classes, height, width)
        if len(bboxes) > 0:
            radius = _gaussian_radius(box_height, box_width).long()
            # The only wait for the device.
            max_radius, max_label = torch.stack((radius.max(), labels.max())).tolist()
            if max_label >= self.num_classes:
                raise UserError(
                    f'An object has label {max_label} but bbox_head.num_classes is '
                    f'{self.num_classes}: set it to the number of classes of the data set.')
            maps = images * self.num_classes + labels
            _draw_gaussians(heatmaps.view(-1, height, width), maps, cell_x, cell_y, radius,
                            inside, max_radius)

        values = torch.stack(
            (box_width, box_height, center_x - cell_x, center_y - cell_y), dim=1)
        cells = (images * height + cell_y) * width + cell_x
        at_cells, weight = _last_of_each_cell(values, cells, inside, batch_size * height * width)
        at_cells = at_cells.view(batch_size, height, width, 4).permute(0, 3, 1, 2)
        weight = weight.view(batch_size, 1, height, width).repeat(1, 2, 1, 1)

        targets = dict(
            center_heatmap_target=heatmaps,
            wh_target=at_cells[:, :2].contiguous(),
            offset_target=at_cells[:, 2:].contiguous(),
            wh_offset_target_weight=weight)
        num_centers = reduce_mean(heatmaps.eq(1).count_nonzero().float())
        return targets, num_centers.clamp(min=1 / get_world_size())

    def predict_by_feat(self, center_heatmap_preds: list[Tensor], wh_preds: list[Tensor],
                        offset_preds: list[Tensor], batch_img_metas: list[dict],
                        rescale: bool = True, with_nms: bool = False) -> InstanceList:
        """Decode the last stack's maps into boxes.

        Args:
            center_heatmap_preds: Heatmaps of each stack, (B, num_classes, H, W).
            wh_preds: Widths and heights of each stack, (B, 2, H, W).
            offset_preds: Offsets of each stack, (B, 2, H, W).
            batch_img_metas: Meta of each image: ``batch_input_shape``, ``scale_factor`` if it was
                resized, and ``border`` (top, bottom, left, right, in pixels) if it was padded
                on the left or top.
            rescale: Whether to give boxes in pixels of the original image.
            with_nms: Whether to apply non-maximum suppression, which CenterNet does not need.

        Returns:
            ``bboxes`` (K, 4), ``scores`` (K,) and ``labels`` (K,) of each image, highest score
            first, with K = ``test_cfg.topk``.
        """
        # MMDetection takes a view of the heatmap, which a map in channels_last does not have.
        return super().predict_by_feat(
            [center_heatmap_preds[-1].contiguous()], wh_preds[-1:], offset_preds[-1:],
            [{'border': (0, 0, 0, 0), **meta} for meta in batch_img_metas], rescale, with_nms)


def _last_of_each_cell(values: Tensor, cells: Tensor, inside: Tensor,
                       num_cells: int) -> tuple[Tensor, Tensor]:
    """Return the values (num_cells, 4) of the last object in each cell, and 1 where there is one.

    Objects are numbered from 1 and each cell keeps its highest number, since colliding writes
    have no defined order on a GPU. Row 0 of the values is for cells without an object.
    """
    number = torch.arange(1, len(values) + 1, device=values.device) * inside
    owner = number.new_zeros(num_cells).scatter_reduce(0, cells * inside, number, 'amax')
    return torch.cat((values.new_zeros(1, 4), values))[owner], (owner > 0).to(values.dtype)


def _predict_maps(x: Tensor, branches: Sequence[nn.Module]) -> tuple[Tensor, Tensor, Tensor]:
    heatmap_head, wh_head, offset_head = branches
    logits = heatmap_head(x)
    # In half precision the sigmoid rounds to 0 and 1, whose logarithm makes the loss infinite.
    heatmap = logits.to(torch.promote_types(logits.dtype, torch.float32)).sigmoid()
    return heatmap, wh_head(x), offset_head(x)


def _gaussian_radius(height: Tensor, width: Tensor) -> Tensor:
    """Return how far both corners of each box may move at an IoU of at least MIN_OVERLAP.

    The least of three roots: both corners move in the same direction, inwards, or outwards. Hei
    Law, Jia Deng: CornerNet, ECCV 2018, arXiv:1808.01244, section 3.2. Operations are in the
    order of MMDetection's ``gaussian_radius``, so that roundings agree.
    """
    iou = MIN_OVERLAP
    half_perimeter = height + width
    shifted = width * height * (1 - iou) / (1 + iou)
    same = (half_perimeter - (half_perimeter**2 - 4 * shifted).sqrt()) / 2

    b, c = 2 * half_perimeter, (1 - iou) * width * height
    inwards = (b - (b**2 - 16 * c).sqrt()) / 8

    a, b, c = 4 * iou, -2 * iou * half_perimeter, (iou - 1) * width * height
    outwards = (b + (b**2 - 4 * a * c).sqrt()) / (2 * a)
    return torch.minimum(torch.minimum(same, inwards), outwards).clamp(min=0)


def _draw_gaussians(heatmaps: Tensor, maps: Tensor, cell_x: Tensor, cell_y: Tensor,
                    radius: Tensor, inside: Tensor, max_radius: int) -> None:
    """Raise ``heatmaps`` (M, H, W) in place to the Gaussian of each of N objects.

    All objects share a window of the largest radius; what is beyond an object's own radius or
    beyond the map counts as 0, which raises nothing.
    """
    _, height, width = heatmaps.shape
    step = torch.arange(-max_radius, max_radius + 1, device=heatmaps.device)
    distance = step[:, None]**2 + step**2
    diameter = (2 * radius + 1).double()
    # As MMDetection: sigma in double, the exponent in the precision of the heatmap.
    variance2 = (2 * (diameter / 6) * (diameter / 6)).to(heatmaps.dtype)
    gaussian = (-distance.to(heatmaps.dtype) / variance2[:, None, None]).exp()
    gaussian[gaussian < torch.finfo(gaussian.dtype).eps] = 0

    x = (cell_x[:, None] + step)[:, None, :]
    y = (cell_y[:, None] + step)[:, :, None]
    reach = step.abs() <= radius[:, None]
    drawn = (reach[:, None, :] & reach[:, :, None] & inside[:, None, None]
             & (x >= 0) & (x < width) & (y >= 0) & (y < height))
    index = (maps[:, None, None] * height + y) * width + x
    heatmaps.view(-1).scatter_reduce_(
        0, torch.where(drawn, index, 0).flatten(), (gaussian * drawn).flatten(), 'amax')
