"""What CenterNets' terms do with images that have no labels."""

from types import SimpleNamespace

import pytest
import torch

from mmkd.detection.terms import MAPS
from mmkd.distillation.entries import built_terms
from mmkd.distillation.step import Step
from mmkd.errors import UserError

LOSS = dict(type='SoftFocalLoss')


def _step(heatmaps, labelled):
    """Two teachers of weight 1 and 3 with one class and one row of cells."""
    teachers = [SimpleNamespace(name=name, weight=weight, model=None)
                for name, weight in (('a', 1.0), ('b', 3.0))]
    taps = {one.name: dict(zip(MAPS, (heatmap.view(-1, 1, 1, 4), torch.ones(2, 2, 1, 4),
                                      torch.ones(2, 2, 1, 4)), strict=True))
            for one, heatmap in zip(teachers, heatmaps, strict=True)}
    return Step({MAPS.heatmap: torch.zeros(2, 1, 1, 4)}, teachers, taps, [], labelled=labelled)


def _term(joint):
    [term] = built_terms(dict(heatmap=dict(type='CenterNetTerm', map='heatmap', loss=LOSS,
                                           joint=joint)), None)
    term._index, term._labelled = dict(a=None, b=None), False
    for name in 'ab':
        term.branches[name] = branch = torch.nn.Module()
        branch.mean_error, branch.steps = torch.zeros(()), torch.zeros(())
    return term


@pytest.mark.parametrize('joint', ['labels', 'certainty'])
def test_teachers_are_weighed_by_how_sure_they_are(joint):
    sure = torch.tensor([[0.9, 0.1, 0.0, 0.0], [0.5, 0.5, 0.0, 0.0]])
    hazy = torch.tensor([[0.5, 0.5, 0.5, 0.5], [0.8, 0.0, 0.0, 0.0]])
    (first, a), (second, b) = _term(joint).sources(_step([sure, hazy], labelled=False))
    assert (first, second) == ('a', 'b')
    # sum Y^2 / sum Y: 0.82 against 0.5, then 0.5 against 0.8; to the fourth power, times 1 and 3
    ours, theirs = torch.tensor([0.82, 0.5]) ** 4, 3 * torch.tensor([0.5, 0.8]) ** 4
    # and times the mean of 1 over these to the power of -12
    ours = ours * ((1 / 0.82 + 1 / 0.5) / 2) ** -12
    theirs = theirs * ((1 / 0.5 + 1 / 0.8) / 2) ** -12
    torch.testing.assert_close(a, ours / (ours + theirs), rtol=1e-4, atol=0)
    torch.testing.assert_close(b, theirs / (ours + theirs), rtol=1e-4, atol=0)


def test_labels_that_should_be_there_are_asked_for():
    maps = [torch.full((2, 4), 0.5)] * 2
    with pytest.raises(UserError, match="joint='labels' needs a CenterNet and labelled images"):
        _term('labels').sources(_step(maps, labelled=True))


@pytest.mark.parametrize('joint', ['each', 'mean'])
def test_other_rules_need_no_labels(joint):
    maps = [torch.full((2, 4), 0.5)] * 2
    term = _term(joint)
    assert term.sources(_step(maps, True)) == term.sources(_step(maps, False))
