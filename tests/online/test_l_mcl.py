"""Layer-wise MCL: the meta-gradient, what the meta-optimisation touches, and runs."""

import copy
import random
from pathlib import Path

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from helpers import distillation_hook
from states import assert_equal
from torch import nn

import mmkd  # noqa: F401
from mmkd.classification.networks.base import ReluStage, TappedNetwork, conv_bn
from mmkd.distillation import load_checkpoint_safely
from mmkd.distillation.losses.l_mcl import LMCLLoss
from mmkd.distillation.losses.l_mcl_memory import LMCLMemoryLoss
from mmkd.engine import launch
from mmkd.engine.config import load_config
from mmkd.errors import UserError
from mmkd.online import Cohort
from mmkd.online.heads import LayerwiseHeads
from mmkd.online.meta import MetaOptimizeHook, _TappedCohort, meta_gradient
from mmkd.registry import MODELS

ROOT = Path(__file__).parents[2]
LABELS = torch.tensor([2, 0, 2, 1, 0, 2])
TAPS = [f'members.{name}.backbone.stage{number}' for name in 'ab' for number in (1, 2)]
TAPS += [f'members.{name}.{value}' for value in ('backbone.embedding', 'head.fc') for name in 'ab']


@MODELS.register_module()
class TinyNetwork(TappedNetwork):
    """Two stages of a few smooth channels, so that differences of losses are exact."""

    def __init__(self, channels):
        def stage(first, last):
            return ReluStage([nn.Sequential(*conv_bn(first, last, 3, stride=2))], torch.tanh)
        super().__init__(nn.Sequential(*conv_bn(3, 2, 3), nn.Tanh(), nn.Dropout(0.2)),
                         [stage(2, channels), stage(channels, channels)], channels)


def _tiny():
    """Cohort and heads in float64, with matching that is far from indifferent."""
    torch.manual_seed(0)
    cohort = Cohort({name: dict(type='Classifier', num_classes=3,
                                backbone=dict(type='TinyNetwork', channels=channels))
                     for name, channels in (('a', 3), ('b', 4))})
    heads = LayerwiseHeads(cohort, dim=5)
    for module in heads.modules():  # a kink would spoil the differences
        if isinstance(module, nn.Sequential):
            for name, child in module.named_children():
                if isinstance(child, nn.ReLU):
                    setattr(module, name, nn.Softplus())
    return _TappedCohort(cohort, heads, TAPS).double().train()


def _images():
    return torch.randn(6, 3, 8, 8, generator=torch.Generator().manual_seed(1)).double()


def _hook(tapped, loss, **options):
    hook = MetaOptimizeHook(**options)
    hook._cohort, hook._loss, hook._meta = tapped, loss, tapped.heads.matching
    return hook


def _losses():
    """Either loss, with what it compares the images with."""
    memory = LMCLMemoryLoss(_tiny().cohort, torch.arange(9) % 3, dim=5, num_negatives=4,
                            vcl=0.1, icl=0.1, temperature=0.1).double()
    return {'batch': (LMCLLoss(), LABELS),
            'memory': (memory, memory.compared_with(LABELS, torch.tensor([2, 0, 5, 1, 3, 8])))}


def _classification_after_descent(tapped, loss, compared, matching, lr, momentum, weight_decay):
    """The outer loss by torch's own SGD on a copy, as a function of the meta-network alone."""
    tapped = copy.deepcopy(tapped)
    tapped = _TappedCohort(tapped.cohort, tapped.heads, TAPS)
    tapped.heads.matching.load_state_dict(matching)
    optimizer = torch.optim.SGD([p for p in tapped.parameters() if p.requires_grad], lr,
                                momentum, weight_decay=weight_decay)

    def outputs():
        torch.manual_seed(3)
        return tapped(_images())

    def contrastive():
        return loss.layerwise(outputs(), compared)

    def classification():
        return sum(F.cross_entropy(z, LABELS) for member in outputs().logits for z in member)

    for step in (contrastive, contrastive, classification):
        optimizer.zero_grad()
        step().backward()
        for group in optimizer.param_groups:  # what has no part in a loss decays all the same
            for p in group['params']:
                p.grad = torch.zeros_like(p) if p.grad is None else p.grad
        optimizer.step()
    return classification().item()


@pytest.mark.parametrize(('kind', 'momentum', 'weight_decay'), [
    ('batch', 0.0, 0.0), ('batch', 0.9, 0.05), ('memory', 0.9, 0.05)])
def test_the_meta_gradient_equals_finite_differences(kind, momentum, weight_decay):
    loss, compared = _losses()[kind]
    tapped, lr, step = _tiny(), 0.02, 1e-5
    hook = _hook(tapped, loss, momentum=momentum, weight_decay=weight_decay)
    torch.manual_seed(3)
    gradient = hook._gradients(_images(), LABELS, compared, lr)
    matching = {name: value.clone() for name, value in tapped.heads.matching.state_dict().items()}
    assert gradient.keys() == matching.keys()

    def outer(change):
        moved = {name: value + change.get(name, 0) for name, value in matching.items()}
        return _classification_after_descent(tapped, loss, compared, moved, lr, momentum,
                                             weight_decay)

    def difference(direction):
        return (outer({k: step * v for k, v in direction.items()})
                - outer({k: -step * v for k, v in direction.items()})) / (2 * step)

    generator = torch.Generator().manual_seed(2)
    for name, value in gradient.items():  # along the steepest entry of each, and along a mixture
        entry = torch.zeros_like(value)
        entry.view(-1)[value.abs().argmax()] = 1
        assert difference({name: entry}) == pytest.approx(value.abs().max().item() * value[
            entry.bool()].sign().item(), rel=1e-4)
    mixture = {name: torch.randn(value.shape, generator=generator, dtype=value.dtype)
               for name, value in gradient.items()}
    expected = sum((mixture[name] * value).sum().item() for name, value in gradient.items())
    assert abs(expected) > 1e-6
    assert difference(mixture) == pytest.approx(expected, rel=1e-4)


def test_a_meta_gradient_by_hand():
    """theta_1 = theta - eta phi, so d/dphi |theta_1|^2 / 2 = -eta (theta - eta phi)."""
    theta, phi = (torch.tensor(values, dtype=torch.float64) for values in ([1., 2.], [3., -1.]))
    weights, meta = dict(w=theta, unused=torch.ones(2)), dict(m=phi, unused=torch.ones(1))
    gradient = meta_gradient([lambda w, m: dict(w=m['m'], unused=torch.zeros(2))],
                             lambda w: w['w'].square().sum() / 2, weights, meta, lr=0.1)
    torch.testing.assert_close(gradient['m'], -0.1 * (theta - 0.1 * phi))
    assert gradient['unused'].tolist() == [0] and weights['w'].tolist() == [1, 2]
    without = meta_gradient([], lambda w: w['w'].sum(), weights, meta, lr=0.1)
    assert without['m'].tolist() == [0, 0]


@pytest.fixture
def train(cifar_config, tmp_path):
    """Train tiny cohorts by the one config: 20 images in batches of 8."""
    def run(folder='run', epochs=1, resume=None, method='l_mcl', members='resnet8,resnet8',
            amp=False, interval=1, memory=False, **options):
        cfg = cifar_config('configs/online/train.py', tmp_path / folder, {
            'train_cfg.max_epochs': epochs, 'train_cfg.val_interval': 9, **options},
            method=method, members=members)
        if method == 'l_mcl':
            cfg.custom_hooks[-1].interval = interval
        if memory:
            cfg.terms.l_mcl.loss = dict(type='LMCLMemoryLoss', num_negatives=6)
        cfg.amp = amp
        launch.train(cfg, resume)
        return load_checkpoint_safely(tmp_path / folder / f'epoch_{epochs}.pth')
    return run


def _flat(state, prefix=''):
    """Tensors of nested dicts and lists by path."""
    if isinstance(state, torch.Tensor):
        return {prefix: state.clone()}
    items = (state.items() if isinstance(state, dict) else
             enumerate(state) if isinstance(state, list) else ())
    return {k: v for key, value in items for k, v in _flat(value, f'{prefix}/{key}').items()}


@pytest.mark.parametrize('memory', [False, True])
def test_the_meta_step_changes_nothing_but_the_meta_network(memory, train, monkeypatch):
    original, seen = MetaOptimizeHook.after_train_iter, []

    def everything(runner):
        [term] = distillation_hook(runner).terms
        branch = term.branches['student']
        state = _flat(dict(model=runner.model.state_dict(), branch=branch.state_dict(),
                           optimizer=runner.optim_wrapper.optimizer.state_dict()))
        gradients = {f'grad/{name}': p.grad.clone() for module in (runner.model, branch)
                     for name, p in module.named_parameters() if p.grad is not None}
        return state | gradients, (random.getstate(), torch.get_rng_state().tolist(),
                                   str(np.random.get_state()))

    def watched(self, runner, *args, **kwargs):
        before, generators = everything(runner)
        original(self, runner, *args, **kwargs)
        after, generators_after = everything(runner)
        meta = {key for key in before if '.matching.' in key}
        assert meta and all(not torch.equal(before[key], after[key]) for key in meta)
        assert_equal({k: v for k, v in before.items() if k not in meta},
                     {k: v for k, v in after.items() if k not in meta})
        assert generators == generators_after
        assert all(p.grad is None for p in self._meta.parameters())
        seen.append(runner.iter)

    monkeypatch.setattr(MetaOptimizeHook, 'after_train_iter', watched)
    train(memory=memory)
    assert seen == [0, 1]


@pytest.mark.parametrize('method', ['mcl', 'l_mcl'])
def test_two_images_of_every_class_where_there_are_classes_enough(method, monkeypatch):
    monkeypatch.chdir(ROOT)
    for data, pairs in (('cifar100', True), ('tiny_imagenet100', True), ('cifar10', False),
                        ('imagenet', method == 'mcl')):  # L-MCL has a memory there
        loader = load_config('configs/online/train.py', arguments=dict(
            data=data, method=method)).train_dataloader
        assert loader.batch_size == (256 if data == 'imagenet' else 128)
        assert loader.sampler.shuffle
        assert loader.get('batch_sampler') == (
            dict(type='ClassBalancedSampler', samples_per_class=2) if pairs else None)
        assert loader.drop_last is not pairs


def test_every_interval_iterations_at_the_rate_of_the_members(train, monkeypatch):
    original, rates = MetaOptimizeHook._gradients, []

    def spy(self, *args):
        rates.append(args[-1])
        return original(self, *args)

    monkeypatch.setattr(MetaOptimizeHook, '_gradients', spy)
    saved = train(epochs=3, interval=2, param_scheduler=[
        dict(type='MultiStepLR', milestones=[1, 2], gamma=0.1, by_epoch=True)])
    assert rates == pytest.approx([0.1, 0.01, 0.001])  # two iterations an epoch
    assert saved['meta_optimizer']['param_groups'][0]['lr'] == pytest.approx(0.001)


@pytest.mark.parametrize('memory', [pytest.param(False, marks=pytest.mark.matrix), True])
def test_a_killed_run_ends_as_an_undisturbed_one(memory, train, monkeypatch):
    def killed(self, runner, *args, original=MetaOptimizeHook.after_train_iter, **kwargs):
        original(self, runner, *args, **kwargs)
        if runner.iter == 2:  # within the second epoch
            raise KeyboardInterrupt

    whole = train('whole', 2, memory=memory)
    with monkeypatch.context() as patch, pytest.raises(KeyboardInterrupt):
        patch.setattr(MetaOptimizeHook, 'after_train_iter', killed)
        train('part', 2, memory=memory)
    part = train('part', 2, 'auto', memory=memory)
    assert ('/l_mcl/student/losses.0.banks' in _flat(whole['distillation'])) is memory
    for key in ('state_dict', 'distillation', 'meta_optimizer'):
        assert _flat(whole[key])
        assert_equal(_flat(whole[key]), _flat(part[key]))


@pytest.mark.parametrize('choices', [
    dict(method='mcl', amp=True), dict(method='l_mcl', amp=True),
    dict(method='dml', amp='bf16', members='resnet8,wrn_16_1,resnet8')], ids=str)
def test_under_mixed_precision_with_accumulation(choices, train):
    saved = train(**choices, **{'optim_wrapper.accumulative_counts': 2})
    states = _flat({key: saved.get(key) for key in ('state_dict', 'distillation')})
    assert all(value.isfinite().all() for value in states.values())
    assert all(value.dtype in (torch.float32, torch.int64) for value in states.values())


@pytest.mark.parametrize(('options', 'message'), [
    (dict(interval=0), 'interval 0'), (dict(inner_steps=0), 'inner_steps 0')])
def test_arguments_out_of_range(options, message):
    with pytest.raises(UserError, match=message):
        MetaOptimizeHook(**options)


def test_a_run_without_what_the_hook_needs(train, tmp_path):
    with pytest.raises(UserError, match='finds no term'):
        train(**{'terms.l_mcl.weight': 0.0})
    train('part')
    file = tmp_path / 'part/epoch_1.pth'
    saved = torch.load(file)
    del saved['meta_optimizer']
    torch.save(saved, file)
    with pytest.raises(UserError, match='written without MetaOptimizeHook'):
        train('part', 2, 'auto')
