"""Teachers one after another, and weights that set themselves."""

import pytest
import torch
from helpers import (
    centernet,
    centernet_terms,
    distillation,
    distillation_hook,
    runner,
    save_teacher,
    train_config,
)

from mmkd.distillation import Distillation, DistillationHook
from mmkd.distillation.entries import built_terms
from mmkd.distillation.gradients import BalancedWeight, gradient_norm
from mmkd.errors import UserError


def test_progressive_teachers_follow_each_other(tmp_path):
    teachers = {name: save_teacher(tmp_path, name, centernet(16, base_channels=8), seed=seed)
                for seed, name in enumerate(('weak', 'middle', 'strong'))}
    hooks = distillation(terms=centernet_terms('heatmap', 'feature'), schedule='progressive')
    run = runner(train_config(tmp_path, centernet(), hooks, iters=7, teachers=teachers))
    seen = []
    hook = distillation_hook(run)
    losses = hook._losses
    hook._losses = lambda *args: (
        seen.append([t.name for t in hook.distillation.active]), losses(*args))[1]
    run.train()
    # Stage floor(3 i / 7) of iterations 0 to 6.
    names = ('weak', 'weak', 'weak', 'middle', 'middle', 'strong', 'strong')
    assert seen == [[name] for name in names]


def test_an_unknown_schedule_is_refused():
    with pytest.raises(UserError, match=r"schedule='progresive'.*progressive"):
        DistillationHook(schedule='progresive')


def test_a_gradient_s_norm_by_hand():
    feature = torch.tensor([3.0, 4.0], requires_grad=True)
    parameter = torch.ones(1, requires_grad=True)
    loss = (feature.square().sum() * parameter).sum()
    assert gradient_norm(loss, [feature]) == pytest.approx(10.0)  # |2 (3, 4)|
    assert parameter.grad is None
    assert gradient_norm(parameter.sum(), [feature]) == 0.0


def test_a_balanced_weight_by_hand():
    weight = BalancedWeight(0.2)
    weight.update(own=8.0, term=4.0)
    assert weight.value == pytest.approx(0.25 * 2)
    weight.update(own=8.0, term=0.0)
    assert weight.value == pytest.approx(0.5), 'a term without gradient tells nothing'
    weight.update(own=8.0, term=1.0)
    assert weight.value == pytest.approx(0.9 * 0.5 + 0.1 * 2.0)


def test_the_weight_sets_itself_is_logged_saved_and_resumed(tmp_path, one_teacher):
    hooks = distillation(terms=centernet_terms('feature', weight=123.0, gradient_share=0.3))
    run = runner(train_config(tmp_path, centernet(), hooks, iters=2, teachers=one_teacher))
    run.train()
    value = distillation_hook(run).distillation.balanced['feature'].value
    assert value not in (None, 123.0)
    log = run.message_hub.get_scalar('train/weight_feature')
    assert log.current() == pytest.approx(value)
    saved = torch.load(f'{run.work_dir}/iter_2.pth', weights_only=False)
    assert saved['distillation_weights'] == {'feature': value}
    resumed = runner(train_config(tmp_path, centernet(), hooks, iters=3, teachers=one_teacher,
                                  resume=True))
    resumed.train()
    assert distillation_hook(resumed).distillation.balanced['feature'].value == pytest.approx(value)


def test_the_share_holds_in_the_first_step(tmp_path, one_teacher, monkeypatch):
    """|w dL_term| / (|dL_own| + |w dL_term|) at the tap is what was asked for."""
    hooks = distillation(terms=centernet_terms('feature', gradient_share=0.25))
    config = train_config(tmp_path, centernet(), hooks, iters=1, teachers=one_teacher)
    config.optim_wrapper.optimizer = dict(type='SGD', lr=0.0)
    run = runner(config)
    norms = []
    weighted = Distillation.weighted

    def spy(self, raw, step, own):
        losses = weighted(self, raw, step, own)
        feature = step.student['bbox_head:input:-1']
        total = sum(value for name, value in own.items() if 'loss' in name)
        norms.extend(torch.autograd.grad(value, feature, retain_graph=True)[0].norm().item()
                     for value in (total, losses['feature']))
        return losses

    monkeypatch.setattr(Distillation, 'weighted', spy)
    run.train()
    own, term = norms
    assert term / (own + term) == pytest.approx(0.25, rel=1e-4)


@pytest.mark.parametrize('share', [0, 1.0, -0.1, '0.3'])
def test_a_share_out_of_range(share):
    with pytest.raises(UserError, match='gradient_share'):
        built_terms(centernet_terms('feature', gradient_share=share), None)
