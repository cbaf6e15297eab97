"""What distillation leaves alone in a run, and what it counts. A student of three layers."""

import random

import numpy as np
import pytest
import torch
from helpers import distillation, distillation_hook, runner, train_config
from three_layers import ThreeLayers

from mmkd.distillation import Term, load_checkpoint_safely
from mmkd.distillation.student_teachers import MeanTeacher

HINT = dict(tap='last', loss=dict(type='MeanSquare'), connector=dict(type='ConvConnector'),
            weight=1.0)
OWN = dict(type='SelfTerm', tap=['norm', 'last'], loss=dict(type='MeanSquare'), weight=1.0)


def _run(folder, terms, teachers=None, iters=3, counts=1):
    student = dict(type='ThreeLayers', dropout=0.5)
    cfg = train_config(folder, student, distillation(teachers, terms), iters)
    cfg.optim_wrapper.accumulative_counts = counts
    return runner(cfg)


def _draws():
    return random.random(), np.random.rand(), torch.rand(1).item()


def _seeds():
    random.seed(0)
    np.random.seed(0)
    torch.manual_seed(0)


def test_the_dry_run_leaves_everything_as_it_was(tmp_path):
    run = _run(tmp_path, dict(hint=HINT, own=OWN), dict(mean=dict(ema=0.9)))
    run._train_loop = run.build_train_loop(run._train_loop)
    run.optim_wrapper = run.build_optim_wrapper(run.optim_wrapper)
    model, hook = run.model, distillation_hook(run)
    model.train()
    model.drop.eval()
    state = {name: value.clone() for name, value in model.state_dict().items()}
    modes = [module.training for module in model.modules()]
    _seeds()
    expected = _draws()
    _seeds()
    hook.before_run(run)
    assert _draws() == expected
    [(mode, training, inputs)] = model.passes  # one, as in training
    assert (mode, training, len(inputs)) == ('loss', True, 2)
    assert [module.training for module in model.modules()] == modes
    after = model.state_dict()
    assert after.keys() == state.keys()
    assert all(torch.equal(after[name], value) for name, value in state.items())
    assert all(p.grad is None for p in model.parameters())
    assert not any('forward' in vars(module) for module in model.modules())
    assert [set(term.branches) for term in hook.terms] == [{'mean'}, {'student'}]
    hook.after_run(run)
    assert not model._forward_hooks and not model._forward_pre_hooks


def test_the_warm_up_counts_passes_over_the_data_in_a_loop_of_iterations(tmp_path, monkeypatch):
    factors, compute = [], Term.compute
    monkeypatch.setattr(Term, 'compute',
                        lambda self, step: factors.append(self.factor) or compute(self, step))
    _run(tmp_path, dict(own=dict(OWN, warmup_epochs=3)), iters=7).train()
    # 8 images in batches of 4
    assert factors == pytest.approx([1 / 3, 1 / 3, 2 / 3, 2 / 3, 1, 1, 1])


def test_a_term_ends_and_its_teacher_is_asked_no_more(tmp_path):
    run = _run(tmp_path, dict(hint=dict(HINT, until=2), own=OWN), dict(mean=dict(ema=0.5)), iters=7)
    run.train()
    # 8 images in batches of 4: two epochs are four iterations
    logged = {name: run.message_hub.log_scalars[f'train/loss_distill_{name}'].data[0]
              for name in ('hint', 'own')}
    assert [value > 0 for value in logged['hint']] == [True] * 4 + [False] * 3
    assert logged['hint'][4:].tolist() == [0, 0, 0] and (logged['own'] > 0).all()
    [teacher] = distillation_hook(run).teachers
    passes = [mode for mode, *_ in teacher.model.passes if mode == 'tensor']
    assert len(passes) == 1 + 4, 'the dry run, and the two epochs'


def test_a_mean_teacher_moves_with_every_step_of_the_optimizer(tmp_path, monkeypatch):
    seen, update = [], MeanTeacher.update

    def watched(self, student):
        seen.append(student.conv.weight.detach().clone())
        update(self, student)

    monkeypatch.setattr(MeanTeacher, 'update', watched)
    run = _run(tmp_path, dict(hint=HINT), dict(mean=dict(ema=0.5)), iters=5, counts=2)
    run.train()
    assert len(seen) == 3, 'after iterations 2, 4 and, the last one, 5'
    assert not torch.equal(seen[0], seen[1]) and not torch.equal(seen[1], seen[2])
    # 1, then halves: min(1 - 1 / (t + 1), 0.5) is 0, 0.5, 0.5
    expected = seen[0] / 4 + seen[1] / 4 + seen[2] / 2
    [teacher] = distillation_hook(run).teachers
    torch.testing.assert_close(teacher.model.conv.weight, expected)
    saved = load_checkpoint_safely(tmp_path / 'iter_5.pth')
    assert set(saved['state_dict']) == set(ThreeLayers().state_dict())
    assert set(saved['distillation']) == {'hint'}
    assert set(saved['distillation']['hint']['mean']) == {
        'connectors.0.conv.weight', 'connectors.0.conv.bias'}
    assert 'train/loss_distill_hint' in run.message_hub.log_scalars
