"""What dense heads of MMDetection have in common, and how each family does it.

A head belongs to a family if it is of its class, or of a subclass that changes neither the targets
nor the forward pass (``LDHead`` is a GFL).
"""

from collections.abc import Mapping, Sequence
from typing import NamedTuple

import torch
from mmdet.models.dense_heads import ATSSHead, FCOSHead, GFLHead, RetinaHead
from mmdet.structures.bbox import get_box_tensor
from torch import Tensor, nn

from mmkd.distillation.losses import Assignment, Priors
from mmkd.distillation.losses._dense import rows
from mmkd.distillation.losses._distributed import sum_over_processes, world_size

__all__ = ['FAMILIES', 'TARGETS', 'Family', 'assigned', 'decoded', 'family_of', 'priors_of',
           'through_tail']

OWN = ('get_targets', '_get_targets_single', 'forward', 'forward_single')
TARGETS = 'bbox_head.get_targets()'


class Family(NamedTuple):
    """How one family of heads does it."""

    head: type
    targets: tuple[int, ...]
    """Where ``get_targets`` returns labels, their weights (if it does) and box targets."""
    predictors: tuple[str, ...]
    """The last convolutions: classes, boxes and, of some, centerness."""

    @property
    def gives_distributions(self) -> bool:
        """Whether the box maps hold logits of places."""
        return self.head is GFLHead

    @property
    def taps(self) -> list[str]:
        """Return the taps that :func:`assigned` reads."""
        return [f'{TARGETS}:{place}:*' for place in self.targets]


FAMILIES = (
    Family(GFLHead, (1, 2, 3), ('gfl_cls', 'gfl_reg')),
    Family(RetinaHead, (0, 1, 2), ('retina_cls', 'retina_reg')),
    Family(ATSSHead, (1, 2, 3), ('atss_cls', 'atss_reg', 'atss_centerness')),
    Family(FCOSHead, (0, 1), ('conv_cls', 'conv_reg', 'conv_centerness')))


def family_of(head: nn.Module | None) -> Family | None:
    """Return the family of a head, None if it belongs to none."""
    for family in FAMILIES:
        if isinstance(head, family.head) and head.use_sigmoid_cls and all(
                getattr(type(head), name) is getattr(family.head, name) for name in OWN):
            return family
    return None


def priors_of(head: nn.Module, sizes: Sequence[tuple[int, int]], device: torch.device) -> Priors:
    """Return anchors or points for maps of these heights and widths."""
    generator = head.prior_generator
    return Priors([get_box_tensor(level) for level in generator.grid_priors(sizes, device=device)],
                  [stride[0] for stride in generator.strides])


def assigned(head: nn.Module, family: Family, leaves: Mapping[str, Tensor], images: int
             ) -> Assignment:
    """Put together what ``get_targets`` returned.

    Args:
        head: the student's.
        family: its family.
        leaves: of the taps :attr:`Family.taps`.
        images: in the batch.
    """
    found = [[leaf.unflatten(0, (images, -1)) if family.head is FCOSHead else leaf
              for name, leaf in leaves.items() if name.startswith(f'{TARGETS}:{place}:')]
             for place in family.targets]
    labels, targets = found[0], found[-1]
    weights = found[1] if len(found) > 2 else [torch.ones_like(one[..., 0]) for one in targets]
    assignment = Assignment(labels, weights, targets, head.num_classes, targets[0].new_zeros(()))
    positive = assignment.is_positive()
    counts = torch.stack([level.sum(1) for level in positive]).sum(0)
    if family.head is not FCOSHead:
        counts = counts.clamp(min=1)  # as MMDetection's samplers count
        return assignment._replace(positives=_mean(counts.sum()).clamp(min=1))
    centerness = torch.stack([head.centerness_target(level[where]).sum()
                              for level, where in zip(targets, positive, strict=True)]).sum()
    return assignment._replace(positives=_mean(counts.sum()).clamp(min=1),
                               centerness=_mean(centerness).clamp(min=1e-6))


def _mean(value: Tensor) -> Tensor:
    return sum_over_processes(value.float()) / world_size()


def decoded(head: nn.Module, family: Family, maps: Sequence[Tensor], trains: bool
            ) -> list[Tensor]:
    """Return the boxes of each level, ``(B, N_l, 4)``: x1, y1, x2, y2 in pixels, with gradients.

    Args:
        head: whose anchors and coder are used.
        family: its family.
        maps: ``(B, K, H, W)`` as the head gives them for boxes, level by level.
        trains: whether it gave them in training mode, in which an FCOS may count in strides.
    """
    device = maps[0].device
    priors = priors_of(head, [tuple(one.shape[-2:]) for one in maps], device)
    with torch.autocast(device.type, enabled=False):  # pixels of a large image need float32
        return [_decoded(head, family, *level, trains)
                for level in zip(maps, priors.boxes, priors.strides, strict=True)]


def _decoded(head: nn.Module, family: Family, feature: Tensor, prior: Tensor, stride: int,
             trains: bool) -> Tensor:
    flat = rows(feature, len(prior)).flatten(0, 1)
    prior = prior.repeat(len(feature), 1).to(flat)
    if family.head is GFLHead:
        flat, prior = head.integral(flat) * stride, head.anchor_center(prior)
    elif family.head is FCOSHead and head.norm_on_bbox and trains:
        flat = flat * stride
    boxes = get_box_tensor(head.bbox_coder.decode(prior, flat))
    return boxes.unflatten(0, (len(feature), -1))


def through_tail(head: nn.Module, family: Family, classes: Tensor, boxes: Tensor, level: int,
                 start: int) -> list[Tensor]:
    """Return what a head makes of features behind its first convolutions, with gradients.

    Args:
        head: in eval mode.
        family: its family.
        classes: ``(B, C, H, W)``, what leaves convolution and norm number ``start`` (from 1) of
            the class branch, before the activation.
        boxes: likewise of the box branch.
        level: number of the level.
        start: as said.

    Returns:
        the maps of classes, boxes and, of some, centerness.
    """
    classes = _convolved(head.cls_convs, classes, start)
    boxes = _convolved(head.reg_convs, boxes, start)
    cls, box, *centerness = (getattr(head, name) for name in family.predictors)
    found = box(boxes)
    if family.head is not RetinaHead:
        found = head.scales[level](found).float()
    if family.head is FCOSHead:
        found = (found.clamp(min=0) * head.prior_generator.strides[level][0] if head.norm_on_bbox
                 else found.exp())
    on_boxes = family.head is not FCOSHead or head.centerness_on_reg
    return [cls(classes), found, *(one(boxes if on_boxes else classes) for one in centerness)]


def _convolved(convs: nn.ModuleList, feature: Tensor, start: int) -> Tensor:
    feature = convs[start - 1].activate(feature)
    for conv in convs[start:]:
        feature = conv(feature)
    return feature
