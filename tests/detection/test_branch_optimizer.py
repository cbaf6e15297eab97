"""Connectors in the optimizer: a group of their own, clipped apart, scheduled as the student."""

import pytest
import torch
from helpers import (
    centernet,
    centernet_terms,
    distillation,
    distillation_hook,
    runner,
    train_config,
)
from mmengine.hooks import Hook

from mmkd.errors import UserError

HOOKS = distillation(terms=centernet_terms('feature', joint='each'))


def _config(tmp_path, one_teacher, iters=3, **extra):
    return train_config(tmp_path, centernet(), HOOKS, iters=iters, teachers=one_teacher, **extra)


def _connectors(run):
    return [p for term in distillation_hook(run).terms for b in term.branches.values()
            for p in b.parameters()]


def test_the_group_has_the_optimizers_own_settings(tmp_path, one_teacher):
    config = _config(tmp_path, one_teacher, auto_scale_lr=dict(enable=True, base_batch_size=8))
    config.optim_wrapper = dict(
        optimizer=dict(type='SGD', lr=0.02, momentum=0.9, weight_decay=0.01),
        paramwise_cfg=dict(bias_lr_mult=2.0, norm_decay_mult=0.0))
    run = runner(config)
    run.train()
    group = run.optim_wrapper.optimizer.param_groups[-1]
    assert {id(p) for p in group['params']} == {id(p) for p in _connectors(run)}
    assert group['lr'] == pytest.approx(0.02 * 4 / 8), 'scaled to the batch size'
    assert group['weight_decay'] == 0.01
    student = run.optim_wrapper.optimizer.param_groups[:-1]
    assert max(g['lr'] for g in student) == pytest.approx(0.02), 'biases at twice the rate'


class _Rates(Hook):
    priority = 'LOWEST'

    def __init__(self):
        self.found = []

    def before_train_iter(self, runner, batch_idx, data_batch=None):
        groups = runner.optim_wrapper.optimizer.param_groups
        self.found.append((groups[0]['lr'], groups[-1]['lr']))


@pytest.mark.parametrize('paramwise', [None, dict(bias_lr_mult=2.0)])
def test_the_rate_follows_the_schedule(tmp_path, one_teacher, paramwise):
    config = _config(tmp_path, one_teacher, iters=3, param_scheduler=[
        dict(type='LinearLR', start_factor=0.25, by_epoch=False, begin=0, end=4)])
    config.optim_wrapper.paramwise_cfg = paramwise
    run, rates = runner(config), _Rates()
    run.register_hook(rates)
    run.train()
    # 0.01 times 1/4, 1/2, 3/4: the factor of step i is 0.25 + 0.75 i / (4 - 1).
    for student, own in rates.found:
        assert own == pytest.approx(student)
    assert [own for _, own in rates.found] == pytest.approx([0.0025, 0.005, 0.0075])


def test_large_gradients_of_connectors_leave_the_students_alone(tmp_path, one_teacher):
    config = _config(tmp_path, one_teacher, iters=1)
    config.optim_wrapper.clip_grad = dict(max_norm=35)
    run = runner(config)
    run.train()
    connectors = _connectors(run)
    others = [p for g in run.optim_wrapper.param_groups[:-1] for p in g['params']]
    for p in others:
        p.grad = torch.zeros_like(p)
    others[0].grad.view(-1)[0] = 1.0
    for p in connectors:
        p.grad = torch.zeros_like(p)
    connectors[0].grad.view(-1)[0] = 100.0
    run.optim_wrapper._clip_grad()
    assert others[0].grad.norm() == pytest.approx(1.0)
    assert connectors[0].grad.norm() == pytest.approx(35.0, rel=1e-4)
    assert run.message_hub.get_scalar('train/grad_norm').current() == pytest.approx(1.0)


def test_a_frozen_tap_is_refused_at_the_first_step(tmp_path, one_teacher):
    hooks = distillation(terms=dict(early=dict(tap='backbone.layer1',
                                               loss=dict(type='AttentionTransferLoss'))))
    model = centernet()
    model.backbone.update(frozen_stages=1)
    config = train_config(tmp_path, model, hooks, iters=1, teachers=one_teacher)
    with pytest.raises(UserError, match=r"'early' would teach nothing: .*'backbone.layer1'"):
        runner(config).train()
