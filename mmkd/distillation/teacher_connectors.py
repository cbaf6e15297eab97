"""What is done to a teacher's leaves before the student is compared with them.

A teacher connector is a module without parameters, called with a leaf and with height and width of
what the teacher was fed. It is nothing that a run trains or saves, and a cache stores what
comes before it.
"""

from collections.abc import Mapping, Sequence
from typing import Any

from torch import Tensor, nn

from mmkd.distillation.losses import InputError
from mmkd.errors import UserError
from mmkd.registry import MODELS

__all__ = ['TokensToMap', 'built_teacher_connector']


def built_teacher_connector(config: Mapping[str, Any]) -> nn.Module:
    """Build the connector that a term's ``teacher_connector`` describes.

    Raises:
        UserError: it has parameters.
    """
    module = MODELS.build(dict(config))
    if next(module.parameters(), None) is not None:
        raise UserError(f"teacher_connector={config['type']} has parameters, which nothing would "
                        'train: take one without, such as TokensToMap, or put it into `connector` '
                        'on the side of the student')
    return module


@MODELS.register_module()
class TokensToMap(nn.Module):
    """The patch tokens of a vision transformer as a map: ``(B, skip + h w, C) -> (B, C, h, w)``.

    The tokens stand row by row. Height and width follow from the input: ``h w`` is the number of
    patches of ``p`` pixels that fit into it, for some whole ``p``.

    Args:
        skip: tokens before those of patches, such as 1 class token, or 5 with four registers.

    Raises:
        UserError: ``skip`` is no number of tokens.
    """

    def __init__(self, skip: int = 0) -> None:
        super().__init__()
        if isinstance(skip, bool) or not isinstance(skip, int) or skip < 0:
            raise UserError(f'TokensToMap has skip={skip!r}: give the number of tokens before '
                            'those of patches, such as 1')
        self.skip = skip

    def forward(self, tokens: Tensor, input_size: Sequence[int]) -> Tensor:
        """Return the map.

        Args:
            tokens: ``(B, skip + h w, C)``.
            input_size: height and width of what the network was fed.

        Raises:
            InputError: these are no tokens, or they are no grid of patches.
        """
        if tokens.dim() != 3:
            raise InputError('TokensToMap takes tokens (batch, number, channels), not a tensor of '
                             f'shape {tuple(tokens.shape)}: tap what gives tokens, or take the '
                             'teacher_connector out')
        count = tokens.shape[1] - self.skip
        grid = _grid(count, *input_size)
        if grid is None:
            raise InputError(f'{tokens.shape[1]} tokens without the first {self.skip} are no grid '
                             f'of square patches of an input of {tuple(input_size)} pixels: '
                             "correct TokensToMap's `skip`")
        return tokens[:, self.skip:].transpose(1, 2).unflatten(2, grid)


def _grid(count: int, height: int, width: int) -> tuple[int, int] | None:
    """Return rows and columns of ``count`` square patches; the edges may be padded or cut off."""
    patches = range(1, max(height, width) + 1)
    grids = [(height // p, width // p) for p in patches]
    grids += [(-(-height // p), -(-width // p)) for p in patches]  # as after padding
    return next(((rows, columns) for rows, columns in grids if rows * columns == count), None)
