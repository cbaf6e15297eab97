"""How much each of several teachers has to say about each image."""

from collections.abc import Sequence

import torch
from torch import Tensor, nn

from mmkd.detection.teacher_maps import Maps
from mmkd.errors import UserError

__all__ = ['SHARE_RULES', 'certainty', 'drawn_targets', 'errors_of_teachers', 'errors_on_labels',
           'feature_shares', 'image_shares']

SHARE_RULES = ('labels', 'certainty')
OF_THE_TEACHER = 16
"""A teacher that gets a tenth more wrong has a fifth of the say; one with twice as much, none."""
OF_THE_IMAGE = 4
"""A teacher that gets twice as much wrong on an image as it does beside the others elsewhere has a
sixteenth of its say there."""
OF_THE_FEATURE = 4
"""Features that are twice as far away have a sixteenth of the say."""


def errors_of_teachers(rule: str, maps: Sequence[Maps], model: nn.Module, samples: Sequence
                       ) -> Tensor:
    """Return what each of ``K`` teachers gets wrong on each of ``B`` images, ``(K, B)``.

    Args:
        rule: ``'labels'``, :func:`errors_on_labels`, or ``'certainty'``, 1 over :func:`certainty`.
        maps: the teachers', in the student's classes and stride.
        model: the student, whose head draws the targets.
        samples: the batch's.

    Raises:
        UserError: the rule is ``'labels'`` and there are none.
    """
    with torch.no_grad():
        if rule == 'certainty':
            return torch.stack([1 / certainty(one).clamp(min=1e-6) for one in maps])
        targets, centres = drawn_targets(model, samples, maps[0].heatmap.shape)
        errors = [errors_on_labels(one, targets, centres) for one in maps]
        return torch.stack(errors).clamp(min=1e-6)


def image_shares(weights: Sequence[float], means: Tensor, relative: Tensor) -> Tensor:
    """Return each teacher's share of each image, ``a_k E_k^-16 (E_kb / E_k)^-4``, normalised.

    The teacher counts more than the image: a teacher that is worse as a whole is followed on few
    images, which keeps what the student is taught of one piece.

    Args:
        weights: ``a_k`` of ``K`` teachers.
        means: ``E_k``, ``(K,)``, positive: what teacher ``k`` gets wrong on average.
        relative: ``E_kb / E_k``, ``(K, B)``: what it gets wrong on image ``b``, beside its average.

    Returns:
        ``(K, B)``, each column of sum 1.
    """
    image = OF_THE_IMAGE * relative.log()
    return (_of_the_teachers(weights, means)[:, None] - image).softmax(0)


def feature_shares(weights: Sequence[float], means: Tensor, losses: Tensor) -> Tensor:
    """Return each teacher's share of the features, ``a_k E_k^-16 l_k^-4``, normalised.

    One share for all images: a narrow student cannot hold the features of two teachers, so it
    follows the one that is better as a whole and whose features are in its reach.

    Args:
        weights: ``a_k`` of ``K`` teachers.
        means: ``E_k``, ``(K,)``, positive: what teacher ``k`` gets wrong on average.
        losses: ``l_k``, ``(K,)``, not negative: the student's feature loss against each teacher, on
            one scale for all, as PKD's is (1 less the correlation).

    Returns:
        ``(K,)`` of sum 1.
    """
    distance = OF_THE_FEATURE * losses.detach().float().clamp(min=1e-6).log()
    return (_of_the_teachers(weights, means) - distance).softmax(0)


def _of_the_teachers(weights: Sequence[float], means: Tensor) -> Tensor:
    return means.new_tensor(weights).log() - OF_THE_TEACHER * means.log()


def errors_on_labels(teacher: Maps, targets: Maps, centres: Tensor) -> Tensor:
    r"""Return what a teacher gets wrong on each image: CenterNet's own losses, image by image.

    ``E_b = [focal_b + sum_{yx} 1_{byx} |S^t - S|_1 / (2 s)] / max(1, n_b)``

    with the focal loss of arXiv 1904.07850 (alpha 2, beta 4) against the heatmap drawn from the
    labels, the relative error of the sizes at the ``n_b`` true centres, and
    ``s = max(1, (w + h) / 2)``.

    Source: the idea of weighing teachers by their loss on the labels, sample by sample, is that
    of H. Zhang, D. Chen, C. Wang, "Confidence-Aware Multi-Teacher Knowledge Distillation" (CA-MKD),
    ICASSP 2022, arXiv 2201.00007, there for class probabilities and with a share of
    ``(1 - softmax(loss)) / (K - 1)``, which never falls below a half for the worse of
    two.

    Args:
        teacher: its maps, ``(B, C, H, W)`` and twice ``(B, 2, H, W)``.
        targets: drawn from the labels, of the same shapes.
        centres: ``(B, 1, H, W)``, 1 where an object has its centre.

    Returns:
        ``(B,)``.
    """
    p, target = teacher.heatmap.float().clamp(1e-6, 1 - 1e-6), targets.heatmap
    focal = -torch.where(target.eq(1), (1 - p).square() * p.log(),
                         (1 - target).pow(4) * p.square() * (1 - p).log())
    scale = targets.wh.mean(1, keepdim=True).clamp(min=1)
    sizes = centres * (teacher.wh.float() - targets.wh).abs() / scale / 2
    total = focal.flatten(1).sum(1) + sizes.flatten(1).sum(1)
    return total / centres.flatten(1).sum(1).clamp(min=1)


def certainty(teacher: Maps) -> Tensor:
    """Return how sure a teacher is of each image, without labels.

    ``c_b = sum Y^2 / sum Y`` over all cells: the mean score, weighted by itself. Near 1 if
    centres are near 1 and the background is near 0; low if the heatmap is a haze. A
    teacher that is sure of what is wrong is not found out: labels find it.

    Returns:
        ``(B,)``, in ``(0, 1]``.
    """
    heatmap = teacher.heatmap.float().flatten(1)
    return heatmap.square().sum(1) / heatmap.sum(1).clamp(min=1e-6)


def drawn_targets(model: nn.Module, samples: Sequence, shape: Sequence[int]) -> tuple[Maps, Tensor]:
    """Draw what the student's head is trained on, and where the centres are.

    Args:
        model: the student, whose head draws.
        samples: the batch's, with ``gt_instances``.
        shape: ``(B, C, H, W)`` of the heatmap.

    Raises:
        UserError: the head draws no targets, or the samples have no labels.
    """
    draw = getattr(getattr(model, 'bbox_head', None), 'get_targets', None)
    if draw is None or not samples or any('gt_instances' not in sample for sample in samples):
        raise UserError("joint='labels' needs a CenterNet and labelled images: take "
                        "joint='certainty', which needs no labels")
    instances = [sample.gt_instances for sample in samples]
    targets, _ = draw([found.bboxes for found in instances], [found.labels for found in instances],
                      shape, samples[0].metainfo['batch_input_shape'])
    maps = Maps(targets['center_heatmap_target'], targets['wh_target'], targets['offset_target'])
    return maps, targets['wh_offset_target_weight'][:, :1]
