"""How sure a gain is: runs that differ in one thing, compared seed by seed."""

from collections.abc import Sequence
from typing import NamedTuple

import numpy as np
from scipy import stats

__all__ = ['PairedDifference', 'paired_difference', 'verdict']

MOST_SEEDS = 100


class PairedDifference(NamedTuple):
    """A mean difference and its 95 % interval; without one, both ends are infinite."""

    mean: float
    low: float
    high: float


def paired_difference(values: Sequence[float], baseline: Sequence[float]) -> PairedDifference:
    """Return the mean of ``values - baseline`` with the 95 % interval of Student's t.

    ``mean -+ t_{0.975, n - 1} s / sqrt(n)`` with the standard deviation ``s`` of the ``n``
    differences: what the gain may be if seeds differ as these did. An interval that holds 0 does
    not show a gain.

    Args:
        values: one result for each seed.
        baseline: of the same seeds in the same order.

    Raises:
        ValueError: they differ in number, or there are none.
    """
    if len(values) != len(baseline) or not len(values):
        raise ValueError(f'{len(values)} results cannot be paired with {len(baseline)}: run both '
                         'with the same seeds')
    differences = np.subtract(values, baseline)
    mean = float(differences.mean())
    if len(differences) == 1:
        return PairedDifference(mean, -float('inf'), float('inf'))
    error = differences.std(ddof=1) / len(differences) ** 0.5
    reach = float(stats.t.ppf(0.975, len(differences) - 1) * error)
    return PairedDifference(mean, mean - reach, mean + reach)


def verdict(values: Sequence[float], baseline: Sequence[float], threshold: float) -> str:
    """Judge a gain by a threshold that was set before anything ran.

    ``GO``: the mean reaches the threshold and the interval excludes 0. ``NO-GO``: the mean is below
    the threshold, and the interval holds 0 or is below the threshold as a whole. Otherwise ``MORE
    SEEDS``, with the number that would narrow the interval enough if further seeds spread as these
    did: until it excludes 0 if the mean reaches the threshold, else until it excludes the
    threshold.

    Args:
        values: one result for each seed.
        baseline: of the same seeds in the same order.
        threshold: the smallest gain that matters, above 0.

    Raises:
        ValueError: as :func:`paired_difference`.
    """
    mean, low, high = paired_difference(values, baseline)
    if len(values) == 1:
        return 'MORE SEEDS (at least 2)'
    if mean >= threshold and low > 0:
        return 'GO'
    if mean < threshold and (low <= 0 or high < threshold):
        return 'NO-GO'
    room = mean if mean >= threshold else threshold - mean
    spread = float(np.subtract(values, baseline).std(ddof=1))
    needed = next((count for count in range(len(values) + 1, MOST_SEEDS + 1) if
                   stats.t.ppf(0.975, count - 1) * spread / count ** 0.5 < room), None)
    return f'MORE SEEDS ({needed or f"above {MOST_SEEDS}"} in all)'
