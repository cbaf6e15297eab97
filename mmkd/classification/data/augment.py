"""Augment and normalise a whole batch on the device."""

import math
from collections.abc import Sequence
from typing import Any

import torch
import torch.nn.functional as F
from mmengine.model import ImgDataPreprocessor
from torch import Tensor

from mmkd.classification.data.structures import ClassificationSample
from mmkd.errors import UserError
from mmkd.registry import MODELS

__all__ = ['BatchPreprocessor', 'crop_and_flip', 'cutmix', 'mixup']


@MODELS.register_module()
class BatchPreprocessor(ImgDataPreprocessor):
    """Bring a batch to the device; in training crop, flip and mix it there; normalise it.

    Random numbers come from PyTorch's generators alone. A training image has :attr:`num_views`
    views, numbered ``((top * (2 p + 1)) + left) * 2 + mirrored`` with ``p`` the padding; which ones
    a batch shows is drawn on the CPU, and said in its sample as ``views`` unless images are mixed,
    repeated or paired. A sample that comes with ``view_seeds`` settles the draw: view
    ``view_seeds % num_views``.

    Args:
        mean: of R, G and B, in 0 .. 255.
        std: of R, G and B, in 0 .. 255.
        crop_padding: black pixels put around a training image before a part of the original size
            is cut out at random; 0 for none.
        flip: mirror training images with probability 1/2.
        mixup: ``alpha`` of :func:`mixup`; 0 for none.
        cutmix: ``alpha`` of :func:`cutmix`; 0 for none.
        views: how many times a training image comes in a batch, each time augmented anew.
        pairs: whether the second half of a training batch are partners of the first, as
            :class:`~mmkd.classification.data.PairSampler` makes them.

    Raises:
        UserError: an argument is out of its range, or two of mixup, cutmix, views and pairs are
            asked for.
    """

    takes_rgb = True

    def __init__(self, mean: Sequence[float], std: Sequence[float], crop_padding: int = 4,
                 flip: bool = True, mixup: float = 0.0, cutmix: float = 0.0, views: int = 1,
                 pairs: bool = False) -> None:
        if len(mean) != 3 or len(std) != 3 or min(std) <= 0:
            raise UserError(f'BatchPreprocessor has mean {mean} and std {std}: give three numbers '
                            'each, in 0 .. 255, those of std above 0')
        if crop_padding < 0 or mixup < 0 or cutmix < 0:
            raise UserError(f'BatchPreprocessor has crop_padding {crop_padding}, mixup {mixup} and '
                            f'cutmix {cutmix}: give numbers of at least 0')
        if not isinstance(views, int) or views < 1:
            raise UserError(f'BatchPreprocessor has views {views!r}: give a number of at least 1')
        asked = [name for name, wanted in dict(mixup=mixup, cutmix=cutmix, views=views > 1,
                                               pairs=pairs).items() if wanted]
        if len(asked) > 1:
            raise UserError(f'BatchPreprocessor has both {asked[0]} and {asked[1]}: give one of '
                            'them')
        super().__init__([float(v) for v in mean], [float(v) for v in std], non_blocking=True)
        self.crop_padding = crop_padding
        self.flip = flip
        self.mixup = mixup
        self.cutmix = cutmix
        self.views = views
        self.pairs = pairs

    @property
    def num_views(self) -> int:
        """How many crops of a training image there are, the mirrored ones included."""
        return (2 * self.crop_padding + 1) ** 2 * (2 if self.flip else 1)

    def _draw_views(self, data: dict[str, Any]) -> Tensor:
        """Draw a view for each image, or take those that are asked for; say so in the sample."""
        sample, size = data.get('data_samples'), len(data['inputs'])
        mixed = bool(self.mixup or self.cutmix or self.views > 1 or self.pairs)
        if sample is not None and 'view_seeds' in sample:
            if mixed:
                raise UserError('BatchPreprocessor cannot mix, repeat or pair fixed views: take '
                                'mixup, cutmix, views and pairs out of it, or teacher_cache out of '
                                'the config')
            return torch.from_numpy(sample.view_seeds % self.num_views)
        drawn = torch.randint(self.num_views, (self.views * size,))
        if sample is not None and 'indices' in sample and not mixed:
            sample.views = torch.stack([sample.indices, drawn], 1).numpy()
        return drawn

    def forward(self, data: dict[str, Any], training: bool = False) -> dict[str, Any]:
        """Prepare a batch for the network.

        Args:
            data: ``inputs``, ``(B, 3, H, W)`` uint8 in RGB, and, unless only a prediction is
                wanted, ``data_samples``, a :class:`ClassificationSample`.
            training: whether to augment.

        Returns:
            the same with float32 ``inputs``; mixed batches have ``labels_a``, ``labels_b`` and
            ``lam`` in their sample in place of ``labels``. With several views the ``inputs`` are
            ``(views, B, 3, H, W)``, with pairs they and their labels and indices are the first half
            of the batch, and the sample has the other half as ``partners``.

        Raises:
            UserError: ``inputs`` is no such tensor, or there are no pairs in the batch.
        """
        if training and self.pairs:
            _check_pairs(data)
        views = self._draw_views(data) if training else None
        data = self.cast_data(data)
        images, sample = data['inputs'], data.get('data_samples')
        if not isinstance(images, Tensor) or images.ndim != 4:
            raise UserError('BatchPreprocessor needs a batch as one tensor (B, 3, H, W): put '
                            "collate_fn=dict(type='whole_batch') into the data loader")
        if training and self.views > 1:
            images = images.repeat(self.views, 1, 1, 1)
        if views is not None and self.num_views > 1:
            views = views.to(images.device, non_blocking=True)
            images = crop_and_flip(images, self.crop_padding, self.flip, views)
        inputs = torch.sub(images, self.mean).div_(self.std)
        if training and self.mixup:
            inputs = mixup(inputs, sample, self.mixup)
        elif training and self.cutmix:
            inputs = cutmix(inputs, sample, self.cutmix)
        elif training and self.views > 1:
            inputs = inputs.unflatten(0, (self.views, -1))
        elif training and self.pairs:
            inputs = _split_pairs(inputs, sample)
        return dict(data, inputs=inputs, data_samples=sample)


def crop_and_flip(images: Tensor, padding: int, flip: bool, views: Tensor) -> Tensor:
    """Pad with zeros, cut a part of the original size out, mirror it or not: one gather.

    Args:
        images: ``(B, C, H, W)``, of any dtype.
        padding: ``p``, pixels on each side.
        flip: whether views come mirrored, too.
        views: ``(B,)`` int64, which view of each image: ``top * (2 p + 1) + left``, or, with
            ``flip``, twice that, and 1 more for the mirrored one.

    Returns:
        the shape and dtype of ``images``.
    """
    batch, channels, height, width = images.shape
    device = images.device
    padded = F.pad(images, (padding,) * 4)
    columns = torch.arange(width, device=device).expand(batch, width)
    if flip:
        mirrored = (views % 2 == 1).view(batch, 1)
        columns = torch.where(mirrored, width - 1 - columns, columns)
        views = views // 2
    side = 2 * padding + 1
    rows = torch.arange(height, device=device) + (views // side).view(batch, 1)
    columns = columns + (views % side).view(batch, 1)
    places = rows[:, :, None] * (width + 2 * padding) + columns[:, None, :]
    places = places.view(batch, 1, -1).expand(-1, channels, -1)
    return padded.flatten(2).gather(2, places).view_as(images)


def mixup(inputs: Tensor, sample: ClassificationSample, alpha: float) -> Tensor:
    """Blend every image with another one of the batch, ``lam x_i + (1 - lam) x_j``.

    ``lam ~ Beta(alpha, alpha)``, one draw for the batch, and ``j`` a random permutation. ``sample``
    gets ``labels_a``, its ``labels``, ``labels_b``, those of ``j``, and ``lam``.

    Source: H. Zhang, M. Cisse, Y. Dauphin, D. Lopez-Paz, mixup: Beyond Empirical Risk
    Minimization, ICLR 2018, arXiv 1710.09412.

    Args:
        inputs: ``(B, C, H, W)``, float.
        sample: has ``labels``.
        alpha: > 0.

    Returns:
        the blended images.
    """
    share = _draw_share(alpha)
    partner = torch.randperm(len(inputs), device=inputs.device)
    _mix_labels(sample, partner, share)
    return torch.lerp(inputs[partner], inputs, share)


def cutmix(inputs: Tensor, sample: ClassificationSample, alpha: float) -> Tensor:
    """Paste a rectangle of another image of the batch into every image.

    With ``lam ~ Beta(alpha, alpha)``, one draw for the batch, the rectangle has sides
    ``sqrt(1 - lam)`` of the image's, a uniformly drawn centre, and ends at the border. ``sample``
    gets ``labels_a``, ``labels_b`` and ``lam``, which is the share of pixels that were kept.

    Source: S. Yun et al., CutMix: Regularization Strategy to Train Strong Classifiers with
    Localizable Features, ICCV 2019, arXiv 1905.04899. Arguments: see :func:`mixup`.
    """
    height, width = inputs.shape[2:]
    side = math.sqrt(1 - _draw_share(alpha))
    top, bottom = _span(height, side)
    left, right = _span(width, side)
    partner = torch.randperm(len(inputs), device=inputs.device)
    mixed = inputs.clone()
    mixed[..., top:bottom, left:right] = inputs[partner, :, top:bottom, left:right]
    _mix_labels(sample, partner, 1 - (bottom - top) * (right - left) / (height * width))
    return mixed


def _draw_share(alpha: float) -> float:
    # On the CPU, also for a batch on a GPU: nothing has to wait for the number.
    concentration = torch.tensor(alpha, dtype=torch.float64)
    return torch.distributions.Beta(concentration, concentration).sample().item()


def _span(length: int, side: float) -> tuple[int, int]:
    """Place ``side * length`` pixels around a random centre; return begin and end."""
    cut = int(length * side)
    begin = int(torch.randint(length, ())) - cut // 2
    return max(begin, 0), min(begin + cut, length)


def _mix_labels(sample: ClassificationSample, partner: Tensor, share: float) -> None:
    # No `labels` any more: a loss that needs one class per image must not take the first of two.
    sample.labels_a, sample.labels_b = sample.labels, sample.labels[partner]
    del sample.labels
    sample.lam = torch.full((), share, device=partner.device)


def _check_pairs(data: dict[str, Any]) -> None:
    # Before the batch goes to the device, so that nothing has to wait for it.
    labels = data['data_samples'].labels
    if len(labels) % 2 or not torch.equal(*labels.chunk(2)):
        raise UserError('BatchPreprocessor has pairs=True and got a batch whose halves are of '
                        "different classes: put batch_sampler=dict(type='PairSampler') and "
                        'drop_last=False into train_dataloader')


def _split_pairs(inputs: Tensor, sample: ClassificationSample) -> Tensor:
    first, sample.partners = inputs.chunk(2)
    for name in ('labels', 'indices'):
        if name in sample:
            setattr(sample, name, getattr(sample, name).chunk(2)[0])
    return first
