"""The least score that is drawn, and what to say where no score reaches it."""

import math
from collections.abc import Sequence

__all__ = ['DRAWN_FROM', 'undrawn_sentence']

DRAWN_FROM = 0.2
"""The least score of what is drawn, unless another is given. Scores of CenterNets are low: on
validation images F1 was best from 0.27 on (one, on VOC) and from 0.23 on (two joined, on BCCD)."""


def undrawn_sentence(best_scores: Sequence[float], threshold: float) -> str | None:
    """Return what to tell someone who will find images without a box, or None.

    Args:
        best_scores: the highest score in each image, 0 where there is no object at all.
        threshold: objects below it were not drawn.
    """
    undrawn = [score for score in best_scores if score < threshold]
    best = max(undrawn, default=0)
    if not best:
        return None
    # Rounded down: 0.299 is no 0.3.
    return (f'best score {math.floor(100 * best) / 100:.2f} is below {threshold:g}: nothing drawn '
            f'on {len(undrawn)} of {len(best_scores)} images, lower --score-thr')
