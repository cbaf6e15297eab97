"""Say that nothing was drawn because no score reaches the threshold; imports nothing."""

import math
from collections.abc import Sequence

__all__ = ['undrawn_sentence']


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
