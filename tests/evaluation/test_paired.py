"""The interval of a paired difference against the table of Student's t."""

import pytest

from mmkd.evaluation.paired import paired_difference


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
