"""The interval of a paired difference against the table of Student's t."""

import pytest
from scipy import stats

from mmkd.evaluation.paired import paired_difference, verdict


def test_three_seeds_by_hand():
    # Differences 1, 2, 3: mean 2, deviation 1; t of two degrees of freedom is 4.303.
    found = paired_difference([51.0, 42.0, 63.0], [50.0, 40.0, 60.0])
    assert found.mean == pytest.approx(2.0)
    assert found.high - found.mean == pytest.approx(4.303 / 3 ** 0.5, rel=1e-3)
    assert found.mean - found.low == pytest.approx(4.303 / 3 ** 0.5, rel=1e-3)


def test_what_the_seeds_share_cancels():
    assert paired_difference([11.0, 91.0], [10.0, 90.0])[:2] == pytest.approx((1.0, 1.0))


def test_one_seed_shows_nothing():
    found = paired_difference([3.0], [1.0])
    assert found == (2.0, -float('inf'), float('inf'))


@pytest.mark.parametrize(('values', 'baseline'), [([1.0], [1.0, 2.0]), ([], [])])
def test_other_seeds_are_refused(values, baseline):
    with pytest.raises(ValueError, match='the same seeds'):
        paired_difference(values, baseline)


@pytest.mark.parametrize(('differences', 'threshold', 'expected'), [
    ([3.0, 4.0, 5.0], 3.0, 'GO'),           # 4 -+ 2.5
    ([3.0, 4.0, 5.0], 8.0, 'NO-GO'),        # the whole interval is below
    ([0.0, 1.0, 2.0], 3.0, 'NO-GO'),        # 1 -+ 2.5
    ([-3.0, -4.0, -5.0], 1.0, 'NO-GO'),
    ([4.0], 1.0, 'MORE SEEDS (at least 2)'),
    ([1.0, 5.0], 2.0, 'MORE SEEDS (6 in all)'),       # 3 -+ 25: t s / sqrt(6) = 2.97
    ([3.0, 4.0, 5.0], 4.5, 'MORE SEEDS (18 in all)'),  # until it excludes 4.5
    ([0.0, 100.0], 2.0, 'MORE SEEDS (11 in all)'),
    ([-99.0, 105.0], 2.0, 'MORE SEEDS (above 100 in all)')])
def test_verdicts_by_hand(differences, threshold, expected):
    assert verdict(differences, [0.0] * len(differences), threshold) == expected


def test_the_interval_is_scipys():
    values, baseline = [51.0, 42.0, 63.0, 50.5], [50.0, 40.0, 60.0, 51.0]
    expected = stats.ttest_rel(values, baseline).confidence_interval(0.95)
    assert paired_difference(values, baseline)[1:] == pytest.approx((expected.low, expected.high))
