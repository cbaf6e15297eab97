"""The presets between necks of any detectors, through whole steps."""

import pytest
import torch
from dense_zoo import narrow, one_more_step, saved, trained
from helpers import distillation_hook, train_config

from mmkd.distillation.connectors import ReviewConnector
from mmkd.engine.distil import distil
from mmkd.errors import UserError

METHODS = ('reviewkd', 'cwd_norm')


def _once_more(run):
    """Each term of one more step, its gradient, and both losses worked out of the maps."""
    batch, losses, reached = one_more_step(run)
    [teacher] = distillation_hook(run).teachers
    branches = {term.name: term.branches[teacher.name] for term in distillation_hook(run).terms}
    with torch.no_grad():
        own = run.model.extract_feat(batch['inputs'])
        theirs = [one.double() for one in teacher.model.extract_feat(batch['inputs'])]
        sizes = [tuple(one.shape[2:]) for one in theirs]
        adapted = dict(
            reviewkd=branches['reviewkd'].connectors[0](own, teacher_size=sizes),
            cwd_norm=[connector(one) for connector, one in
                      zip(branches['cwd_norm'].connectors, own, strict=True)])
    found = {}
    for name, formula in (('reviewkd', _hcl), ('cwd_norm', _cwd)):
        expected = sum(formula(s.double(), t) for s, t in zip(adapted[name], theirs, strict=True))
        found[name] = losses[name], expected.item(), reached[name]
    return found


def _hcl(student, teacher):
    """Squares of the maps and of their means over a 4x4, 2x2 and 1x1 grid; maps of powers of 2."""
    side, total, norm, share = student.shape[-1], 0.0, 0.0, 1.0
    for grid in (side, *(size for size in (4, 2, 1) if size < side)):
        cell = side // grid
        s, t = (one.unfold(2, cell, cell).unfold(3, cell, cell).mean((4, 5))
                for one in (student, teacher))
        total, norm, share = total + share * ((s - t) ** 2).mean(), norm + share, share / 2
    return total / norm


def _cwd(student, teacher):
    """KL of the softmax over cells of standardised channels, summed, over B C."""
    logs = []
    for one in (student, teacher):
        mean = one.mean((0, 2, 3), keepdim=True)
        one = (one - mean) / ((one - mean).pow(2).mean((0, 2, 3), keepdim=True) + 1e-5).sqrt()
        powers = one.flatten(2).exp()
        logs.append((powers / powers.sum(2, keepdim=True)).log())
    return (logs[1].exp() * (logs[1] - logs[0])).sum() / logs[0].shape[:2].numel()


def test_whole_steps_equal_the_formulas(tmp_path):
    cfg = train_config(tmp_path / 'run', narrow('RetinaNet'), iters=1, batch=2)
    cfg.optim_wrapper.optimizer.lr = 1e-6
    distil(cfg, [saved(tmp_path, narrow('RetinaNet'))], METHODS)
    assert cfg.terms.cwd_norm.until == 0.93
    cfg.terms.cwd_norm.until = None  # the probe comes after the end
    _, found = trained(cfg, _once_more)
    for value, expected, reached in found.values():
        assert value > 0 and value == pytest.approx(expected, rel=1e-3)
        assert reached['backbone.layer2.0.conv1.weight'] > 0


def test_review_kd_goes_from_the_finest_to_the_coarsest():
    connector = ReviewConnector([4, 4], [4, 4])
    maps = [torch.zeros(2, 4, side, side) for side in (2, 4)]
    with pytest.raises(UserError, match='taps of the student begin with the coarsest'):
        connector(maps, [(2, 2), (4, 4)])
