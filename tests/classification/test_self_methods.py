"""Every method of configs/selfdistill/methods trains by the one config, on a tiny archive."""

import functools
from pathlib import Path
from types import SimpleNamespace

import pytest
import torch
from helpers import assert_plain_student
from torch.utils.flop_counter import FlopCounterMode

import mmkd  # noqa: F401
from mmkd.classification import AuxiliaryClassifiers, Classifier
from mmkd.classification.data import BatchPreprocessor, ClassificationSample
from mmkd.distillation import load_checkpoint_safely
from mmkd.distillation.losses import BYOTLoss, DDGSDLoss, KDLoss, SCDLoss
from mmkd.engine import launch
from mmkd.errors import UserError
from mmkd.registry import MODELS

ROOT = Path(__file__).parents[2]
CONFIG = 'configs/selfdistill/train.py'
METHODS = sorted(path.stem for path in (ROOT / 'configs/selfdistill/methods').glob('*.py'))


@pytest.fixture
def steps(monkeypatch):
    """What the training steps of a run gave, and the network that gave it."""
    steps, parse = SimpleNamespace(losses=[], network=None), Classifier.parse_losses

    def record(self, values):
        steps.losses.append({name: value.item() for name, value in values.items()})
        steps.network = self
        return parse(self, values)

    monkeypatch.setattr(Classifier, 'parse_losses', record)
    return steps


def _flops(model):
    sample = ClassificationSample(labels=torch.zeros(1, dtype=torch.int64))
    with FlopCounterMode(display=False) as counter, torch.no_grad():
        model.eval()(torch.randn(1, 3, 32, 32), sample, mode='predict')
    return counter.get_total_flops()


@pytest.mark.parametrize('method', METHODS)
def test_every_method_trains_and_leaves_a_plain_student(method, tmp_path, cifar_config, steps):
    """Plain also within the run, where hooks still hang on it: validation is as fast."""
    cfg = cifar_config(CONFIG, tmp_path, method=method, student='resnet8')
    launch.train(cfg)
    assert_plain_student(cfg, tmp_path)
    # 20 images: 2 batches of 8, or 5 of 4 images with 4 partners.
    assert len(steps.losses) == (5 if method == 'cs_kd' else 2)
    terms = set(steps.losses[0]) - {'loss_ce', 'top1'}
    assert terms == (set() if method == 'ce' else {f'loss_distill_{method}'})
    assert all(step[term] > 0 for step in steps.losses for term in terms)
    plain = MODELS.build(cfg.model)
    assert _flops(steps.network) == _flops(plain) > 1e7
    assert [name for name, _ in steps.network.named_modules()] == [
        name for name, _ in plain.named_modules()]
    assert not any('forward' in vars(module) for module in steps.network.modules())


@pytest.mark.parametrize(('student', 'method'), [
    ('wrn_16_1', 'scd'), ('vgg8', 'sad'), ('mobilenetv2_half', 'scd'), ('shufflenetv1', 'byot')])
def test_methods_on_layers_train_other_families(method, student, tmp_path, cifar_config):
    launch.train(cifar_config(CONFIG, tmp_path, method=method, student=student))
    assert (tmp_path / 'epoch_1.pth').is_file()


@pytest.mark.parametrize('method', ['scd', 'byot', 'ddgsd', 'cs_kd'])
def test_the_first_step_by_hand(method, tmp_path, cifar_config, monkeypatch, steps):
    """The terms of the config are the losses of what the network says of the batch."""
    cfg = cifar_config(CONFIG, tmp_path, {'optim_wrapper.optimizer.lr': 0.0}, method=method,
                       student='resnet8')
    batches, forward = [], BatchPreprocessor.forward

    def record(self, data, training=False):
        out = forward(self, data, training)
        if training:
            batches.append(out)
        return out

    monkeypatch.setattr(BatchPreprocessor, 'forward', record)
    launch.train(cfg)
    model = MODELS.build(cfg.model)
    model.load_state_dict(load_checkpoint_safely(tmp_path / 'epoch_1.pth')['state_dict'])
    batch = batches[-len(steps.losses)]  # behind that of the dry run
    expected = BY_HAND[method](model.train(), batch, tmp_path / 'epoch_1.pth')
    [term] = [value for name, value in steps.losses[0].items() if name not in ('loss_ce', 'top1')]
    assert term == pytest.approx(expected.item(), rel=1e-4)


def _stages(model, images):
    features = [model.backbone.stem(images)]
    for name in ('stage1', 'stage2', 'stage3'):
        features.append(getattr(model.backbone, name)(features[-1]))
    return features[1:]


def _scd_by_hand(model, batch, _):
    first, second, third = _stages(model, batch['inputs'])
    return 300 * (SCDLoss()(first, second) + SCDLoss()(second, third))


def _ddgsd_by_hand(model, batch, _):
    assert batch['inputs'].shape[:2] == (2, 8)
    embedding = model.backbone(batch['inputs'].flatten(0, 1))
    return 0.5 * DDGSDLoss()([embedding, model.head(embedding)])


def _cs_kd_by_hand(model, batch, _):
    partners = batch['data_samples'].partners
    assert batch['inputs'].shape[0] == len(partners) == 4
    return KDLoss(4.0)(model(batch['inputs']), model(partners))


def _byot_by_hand(model, batch, checkpoint):
    stages = _stages(model, batch['inputs'])
    embedding = model.backbone.embedding(stages[-1])
    heads = AuxiliaryClassifiers([16, 32, 64, 64, 10], [(32, 32), (16, 16), (8, 8), (), ()])
    saved = load_checkpoint_safely(checkpoint)['distillation']['byot']['student']
    heads.load_state_dict({key.removeprefix('connectors.0.'): v for key, v in saved.items()})
    return BYOTLoss()(heads(stages), [embedding, model.head(embedding)],
                      batch['data_samples'].labels)


BY_HAND = dict(scd=_scd_by_hand, ddgsd=_ddgsd_by_hand, cs_kd=_cs_kd_by_hand, byot=_byot_by_hand)


def test_a_killed_byot_run_ends_as_an_undisturbed_one(tmp_path, cifar_config):
    """The auxiliary classifiers are in the checkpoint, beside the student."""
    def run(name, epochs, resume=None):
        cfg = cifar_config(CONFIG, tmp_path / name, method='byot', student='resnet8')
        cfg.train_cfg.max_epochs = epochs
        launch.train(cfg, resume)

    run('whole', 3)
    run('part', 1)
    start = load_checkpoint_safely(tmp_path / 'part' / 'epoch_1.pth')['distillation']
    run('part', 3, 'auto')
    states = [load_checkpoint_safely(tmp_path / name / 'epoch_3.pth') for name in ('whole', 'part')]
    for key, value in states[0]['state_dict'].items():
        assert torch.equal(value, states[1]['state_dict'][key]), key
    heads = [state['distillation']['byot']['student'] for state in states]
    assert {key.split('.')[2] for key in heads[0]} == {'bottlenecks', 'classifiers'}
    for key, value in heads[0].items():
        assert torch.equal(value, heads[1][key]), key
        assert not torch.equal(value, start['byot']['student'][key]), 'it was trained'


@pytest.mark.parametrize(('method', 'place', 'value', 'message'), [
    ('scd', 'terms.scd.tap', 'backbone.stage7', r"tap 'backbone\.stage7' does not exist.*stage"),
    ('byot', 'terms.byot.tap', ['backbone.stages?', 'head.fc'],
     r"tap 'backbone\.stages\?' matches no"),
    ('byot', 'terms.byot.tap', 'backbone.stage?',
     r"AuxiliaryClassifiers needs .*'backbone\.embedding'"),
    ('scd', 'terms.scd.tap', 'head.fc', r"taps 'head\.fc' alone"),
    ('sad', 'terms.sad.tap', ['backbone.stage3', 'head.fc'], r'tap maps'),
    ('ddgsd', 'model.data_preprocessor.views', 1, r'two views.*views=2'),
    ('cs_kd', 'model.data_preprocessor.pairs', False, 'pairs=True'),
    ('cs_kd', 'train_dataloader.batch_sampler', None, 'PairSampler'),
])
def test_what_does_not_serve_is_one_line(method, place, value, message, tmp_path, cifar_config):
    cfg = cifar_config(CONFIG, tmp_path, method=method, student='resnet8')
    *sections, key = place.split('.')
    functools.reduce(getattr, sections, cfg)[key] = value
    with pytest.raises(UserError, match=message):
        launch.train(cfg)
