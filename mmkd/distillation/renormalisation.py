"""Turn the student's inputs into a teacher's."""

from collections.abc import Sequence
from dataclasses import dataclass
from functools import lru_cache

import torch
import torch.nn.functional as F
from torch import Tensor, nn

__all__ = ['Renormalisation', 'fed_size', 'renormalisation']


@dataclass(frozen=True)
class Renormalisation:
    """``x_t = x_s * scale + shift``, padding set to the teacher's own normalised zero.

    Two of the same numbers are equal: what one computed serves the other.

    Args:
        scale: a number for each channel.
        shift: likewise.
        flip: whether the channels are reversed first.
        size: height and width that the teacher takes; None to keep the student's.
        multiple_of: number that height and width must be multiples of, as the patches of a vision
            transformer; they are rounded up.
    """

    scale: tuple[float, ...]
    shift: tuple[float, ...]
    flip: bool
    size: tuple[int, int] | None = None
    multiple_of: int | None = None

    def __call__(self, inputs: Tensor, data_samples: Sequence | None) -> Tensor:
        """Return the teacher's inputs for the student's, ``(..., 3, H, W)``."""
        outputs = inputs.flip(-3) if self.flip else inputs
        scale, shift = (_column(numbers, inputs.dtype, inputs.device)
                        for numbers in (self.scale, self.shift))
        outputs = torch.addcmul(shift, outputs, scale)
        # A list has a sample per image; images of one size come with one sample for all.
        for i, sample in enumerate(data_samples if isinstance(data_samples, (list, tuple)) else ()):
            height, width = getattr(sample, 'img_shape', inputs.shape[-2:])[:2]
            outputs[i, :, height:] = 0
            outputs[i, :, :, width:] = 0
        return self._resized(outputs)

    def _resized(self, outputs: Tensor) -> Tensor:
        size = fed_size(outputs.shape[-2:], self.size, self.multiple_of)
        if tuple(outputs.shape[-2:]) == size:
            return outputs
        return F.interpolate(outputs, size, mode='bilinear', align_corners=False)


def fed_size(own: Sequence[int], size: Sequence[int] | None = None,
             multiple_of: int | None = None) -> tuple[int, int]:
    """Return height and width of a teacher's inputs.

    Args:
        own: those of the student's.
        size: those that the teacher takes; None for the student's.
        multiple_of: number that both are rounded up to multiples of.
    """
    height, width = size or own
    if multiple_of:
        height, width = (-(-side // multiple_of) * multiple_of for side in (height, width))
    return height, width


@lru_cache(maxsize=32)  # A copy to a GPU waits for all that it has to do.
def _column(numbers: tuple[float, ...], dtype: torch.dtype, device: torch.device) -> Tensor:
    return torch.tensor(numbers, dtype=dtype, device=device).view(-1, 1, 1)


def renormalisation(student: nn.Module, teacher: nn.Module, size: tuple[int, int] | None = None,
                    multiple_of: int | None = None) -> Renormalisation | None:
    """How to turn the student's inputs into the teacher's, from their data preprocessors.

    ``x_t = (x_s * std_s + mean_s - mean_t) / std_t``, channels reversed where one network takes
    RGB and the other BGR, padding set to the teacher's own normalised zero; then resized to
    ``size`` or to multiples of ``multiple_of``.

    Returns:
        a function of ``(inputs, data_samples)``, or None if both agree.
    """
    flip = _gives_rgb(student) != _gives_rgb(teacher)
    (mean_s, std_s), (mean_t, std_t) = _constants(student), _constants(teacher)
    if flip:
        mean_s, std_s = mean_s.flip(0), std_s.flip(0)
    elif (torch.equal(mean_s, mean_t) and torch.equal(std_s, std_t)
          and size is None and multiple_of is None):
        return None
    return Renormalisation(tuple((std_s / std_t).tolist()),
                           tuple(((mean_s - mean_t) / std_t).tolist()), flip,
                           None if size is None else tuple(size), multiple_of)


def _constants(preprocessor: nn.Module) -> tuple[Tensor, Tensor]:
    if getattr(preprocessor, '_enable_normalize', False):
        return preprocessor.mean.flatten().cpu().double(), preprocessor.std.flatten().cpu().double()
    return torch.zeros(3).double(), torch.ones(3).double()


def _gives_rgb(preprocessor: nn.Module) -> bool:
    # Images of classifiers are RGB when they come, those of detectors BGR.
    return bool(getattr(preprocessor, '_channel_conversion', False)
                or getattr(preprocessor, 'takes_rgb', False))
