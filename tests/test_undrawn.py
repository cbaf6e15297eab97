"""The line about images on which nothing was drawn."""

import pytest

from mmkd.undrawn import undrawn_sentence


@pytest.mark.parametrize(('best_scores', 'told'), [
    ([0.25, 0.299, 0.31], 'best score 0.29 is below 0.3: nothing drawn on 2 of 3 images'),
    ([0.3, 0.9], None),
    ([0, 0.9], None),  # no threshold would draw an object that was not found
    ([], None),
])
def test_the_best_of_the_scores_that_are_too_low(best_scores, told):
    sentence = undrawn_sentence(best_scores, 0.3)
    assert sentence == (told and f'{told}, lower --score-thr')
