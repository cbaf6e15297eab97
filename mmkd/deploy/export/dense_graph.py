"""A one-stage detector with priors as one function from image to candidates for NMS.

This is what RetinaNet, FCOS, ATSS and other heads do that predict by ``BaseDenseHead``'s methods;
what others do in their own way is in :mod:`mmkd.deploy.export.dense_adapters`.
"""

from collections.abc import Mapping, Sequence

import numpy as np
import torch
import torch.nn.functional as F
from mmdet.models.task_modules.coders import (
    DeltaXYWHBBoxCoder,
    DistancePointBBoxCoder,
    TBLRBBoxCoder,
)
from mmdet.structures.bbox import get_box_tensor
from torch import Tensor, nn

from mmkd.deploy.device.nms import Nms
from mmkd.errors import UserError

__all__ = ['Candidates', 'ExportableDense', 'nms_of', 'rows_of']

_CODERS = (DeltaXYWHBBoxCoder, DistancePointBBoxCoder, TBLRBBoxCoder)

# Boxes (N, k, 4), scores and labels (N, k).
Candidates = tuple[Tensor, Tensor, Tensor]


class ExportableDense(nn.Module):
    """A dense detector from the normalised image to decoded boxes before NMS, in plain tensors.

    The class scores of each level above ``test_cfg.score_thr``, at most ``test_cfg.nms_pre`` of
    them, become candidates, as in ``BaseDenseHead``. The parts, coder and prior generator among
    them, are the detector's own, shared and not copied; it must be in evaluation mode.

    Args:
        model: An MMDetection one-stage detector.
        dynamic: Whether the size of the input is to stay open in an exported graph.

    Attributes:
        nms: What makes detections of the candidates, on images that nothing pads but the model's
            data preprocessor.
        coarsest: Pixels of the input for each cell of the coarsest level.

    Raises:
        UserError: If the head's ``test_cfg``, coder or loss is of a kind that is not exported.
    """

    input_names = ('image',)
    output_names = ('boxes', 'scores', 'labels')

    def __init__(self, model: nn.Module, dynamic: bool = False) -> None:
        super().__init__()
        head = model.bbox_head
        self.model, self.dynamic = model, dynamic
        self.nms = self._nms(head)
        self.limit = int(head.test_cfg.get('nms_pre', 0))
        self.coarsest = int(np.max(head.prior_generator.strides))
        self._check(head)

    def forward(self, image: Tensor) -> Candidates:
        """Find candidates.

        Args:
            image: ``(N, 3, H, W)``, as the model's data preprocessor returns it, in the precision
                of the weights.

        Returns:
            boxes ``(N, K, 4)`` float32, ``(x1, y1, x2, y2)`` in pixels of the input and, where the
            head's coder clips, within it; scores ``(N, K)`` float32, 0 where a level has fewer
            candidates than its share of K; labels ``(N, K)`` int64.
        """
        head = self.model.bbox_head
        # From here on in float32, whatever the network computes in.
        maps = [[level.float() for level in levels]
                for levels in head(self.model.extract_feat(image))]
        priors = self._priors([level.shape[-2:] for level in maps[0]], image.device)
        found = [self._level(number, own, *level)
                 for number, (own, *level) in enumerate(zip(priors, *maps, strict=True))]
        boxes, scores, labels = (torch.cat(part, 1) for part in zip(*found, strict=True))
        if self.nms.clip:
            height, width = image.shape[-2:]
            boxes = torch.stack((boxes[..., 0::2].clamp(0, width),
                                 boxes[..., 1::2].clamp(0, height)), -1).flatten(-2)
        return boxes, scores, labels

    def _nms(self, head: nn.Module) -> Nms:
        cfg = head.test_cfg or {}
        return nms_of(cfg, max_per_img=cfg.get('max_per_img', 0),
                      score_thr=cfg.get('score_thr', 0), min_size=cfg.get('min_bbox_size', -1),
                      clip=getattr(head.bbox_coder, 'clip_border', True))

    def _check(self, head: nn.Module) -> None:
        if type(head.bbox_coder) not in _CODERS:
            raise UserError(f'the head codes its boxes by a {type(head.bbox_coder).__name__}, '
                            'which cannot be exported: use one of '
                            f"{', '.join(coder.__name__ for coder in _CODERS)}")
        loss = getattr(head, 'loss_cls', None)
        if loss is None or getattr(loss, 'custom_cls_channels', False):
            raise UserError(f'the {type(head).__name__} computes scores in a way of its own '
                            f'({type(loss).__name__ if loss else "it has no loss_cls"}), which '
                            'cannot be exported: use a head with a sigmoid or softmax loss_cls')
        self._check_limits()

    def _check_limits(self) -> None:
        if self.limit < 1 or self.nms.max_per_img < 1:
            raise UserError('test_cfg of the head must limit the candidates to be exported: set '
                            'nms_pre, such as 1000, and max_per_img, such as 100')

    def _priors(self, sizes: Sequence[Sequence[int]], device: torch.device) -> list[Tensor]:
        generator = self.model.bbox_head.prior_generator
        return [get_box_tensor(level) for level in
                generator.grid_priors(sizes, dtype=torch.float32, device=device)]

    def _level(self, number: int, priors: Tensor, scores: Tensor, boxes: Tensor,
               factors: Tensor | None = None) -> Candidates:
        """Candidates of one level, from its priors ``(P, 2 or 4)`` and maps ``(N, C, H, W)``."""
        head = self.model.bbox_head
        scores, chosen, labels = self._best(self._scores(rows_of(scores, head.cls_out_channels)))
        boxes = self._gather(rows_of(boxes, self._numbers(head)), chosen)
        priors = F.pad(priors, (0, 0, 0, self.limit)) if self.dynamic else priors
        # MMDetection's coders take the boxes of one image.
        decoded = self._decode(number, priors[chosen.flatten()], boxes.flatten(0, 1))
        if factors is not None:
            scores = scores * self._gather(rows_of(factors, 1), chosen)[..., 0].sigmoid()
        return get_box_tensor(decoded).view(-1, scores.shape[1], 4), scores, labels

    def _scores(self, scores: Tensor) -> Tensor:
        """Probabilities ``(N, P, classes)`` of what the head predicts."""
        sigmoid = self.model.bbox_head.use_sigmoid_cls
        return scores.sigmoid() if sigmoid else scores.softmax(-1)[..., :-1]

    def _numbers(self, head: nn.Module) -> int:
        """How many numbers the head predicts for one box."""
        return 4

    def _best(self, scores: Tensor) -> Candidates:
        """The best scores of ``(N, P, C)``, the priors and the classes they belong to."""
        classes = scores.shape[2]
        scores = torch.where(scores > self.nms.score_thr, scores, 0.0).flatten(1)
        if self.dynamic:
            # There may be fewer than the limit.
            scores = F.pad(scores, (0, self.limit))
        scores, index = scores.topk(self.limit if self.dynamic
                                    else min(self.limit, scores.shape[1]))
        return scores, torch.div(index, classes, rounding_mode='floor'), index % classes

    def _gather(self, rows: Tensor, chosen: Tensor) -> Tensor:
        if self.dynamic:
            rows = F.pad(rows, (0, 0, 0, self.limit))
        return rows.gather(1, chosen[..., None].expand(-1, -1, rows.shape[2]))

    def _decode(self, number: int, priors: Tensor, boxes: Tensor) -> Tensor:
        """Boxes in pixels of what the head predicts at as many priors, not clipped."""
        return self.model.bbox_head.bbox_coder.decode(priors, boxes)


def rows_of(maps: Tensor, channels: int) -> Tensor:
    """``(N, A * channels, H, W)`` as ``(N, H * W * A, channels)``."""
    return maps.permute(0, 2, 3, 1).flatten(1).unflatten(1, (-1, channels))


def nms_of(cfg: Mapping, *, max_per_img: int, score_thr: float, min_size: float,
           clip: bool) -> Nms:
    """What ``test_cfg`` says of NMS.

    Raises:
        UserError: If it is of a kind that an exported model cannot do.
    """
    nms = dict(cfg.get('nms') or {})
    kind, threshold = nms.pop('type', 'nms'), nms.pop('iou_threshold', None)
    agnostic, split = nms.pop('class_agnostic', False), nms.pop('split_thr', 10000)
    if kind != 'nms' or threshold is None or nms:
        raise UserError(f"test_cfg.nms is {cfg.get('nms')}, which an exported model cannot do: set "
                        "it to dict(type='nms', iou_threshold=...), with class_agnostic or "
                        'split_thr besides')
    return Nms(float(threshold), not agnostic, int(max_per_img), float(score_thr), float(min_size),
               bool(clip), int(split))
