"""Every method of configs/classification/methods trains by the one config, on a tiny archive."""

from pathlib import Path

import numpy as np
import pytest
import torch
from helpers import assert_plain_student

import mmkd  # noqa: F401
from mmkd.distillation import load_checkpoint_safely
from mmkd.engine import launch
from mmkd.engine.config import load_config
from mmkd.errors import UserError
from mmkd.registry import MODELS

ROOT = Path(__file__).parents[2]
CONFIG = 'configs/classification/distill.py'
METHODS = sorted(path.stem for path in (ROOT / 'configs/classification/methods').glob('*.py'))


def _teacher(folder, name='resnet14', seed=3):
    torch.manual_seed(seed)
    model = MODELS.build(dict(type='Classifier', backbone=dict(type=name), num_classes=10))
    path = folder / f'{name}.pth'
    torch.save(model.state_dict(), path)
    return path


@pytest.fixture
def config(cifar_config, tmp_path):
    """``config(method, folder, options, student=...)``, with a new teacher's checkpoint."""
    def read(method, folder='run', options=None, student='resnet8', teacher='resnet14'):
        return cifar_config(CONFIG, tmp_path / folder, options, method=method, student=student,
                            teacher=teacher, checkpoint=_teacher(tmp_path, teacher))
    return read


@pytest.mark.parametrize('method', METHODS)
def test_every_method_trains_and_leaves_a_plain_student(method, tmp_path, config):
    cfg = config(method)
    launch.train(cfg)
    assert_plain_student(cfg, tmp_path / 'run')


# ReviewKD taps what there is: three or four stages, equal in student and teacher.
@pytest.mark.parametrize(('method', 'student', 'teacher'), [
    *((method, *networks) for method in ('review_kd', 'ofd') for networks in (
        ('wrn_16_1', 'resnet8'), ('vgg8', 'vgg8'), ('mobilenetv2_half', 'vgg8'),
        ('shufflenetv1', 'resnet8'))),
    *((method, 'shufflenetv1', 'resnet8') for method in ('ab', 'ft', 'cc'))])
def test_methods_with_connectors_join_other_families(method, student, teacher, tmp_path, config):
    launch.train(config(method, student=student, teacher=teacher))
    assert (tmp_path / 'run/epoch_1.pth').is_file()


def test_several_teachers(tmp_path, cifar_config):
    paths = {name: _teacher(tmp_path, name) for name in ('resnet8', 'resnet14')}
    cfg = cifar_config(CONFIG, tmp_path / 'run', method='kd', student='resnet8',
                       teacher='resnet8,resnet14')
    assert set(cfg.teachers) == set(paths)
    for name, path in paths.items():
        cfg.teachers[name].checkpoint = str(path)
    launch.train(cfg)


def test_a_killed_crd_run_ends_as_an_undisturbed_one(tmp_path, config):
    """Memory banks, embeddings and optimizer are all in the checkpoint."""
    def run(name, epochs, resume=None):
        launch.train(config('crd', name, {'train_cfg.max_epochs': epochs}), resume)

    run('whole', 3)
    run('part', 1)
    run('part', 3, 'auto')
    states = [load_checkpoint_safely(tmp_path / name / 'epoch_3.pth') for name in ('whole', 'part')]
    for key, value in states[0]['state_dict'].items():
        assert torch.equal(value, states[1]['state_dict'][key]), key
    banks = [state['distillation']['crd']['resnet14'] for state in states]
    assert sum(np.prod(bank.shape) for bank in banks[0].values()) > 0
    for key, value in banks[0].items():
        assert torch.equal(value, banks[1][key]), key


@pytest.mark.parametrize(('option', 'value', 'message'), [
    ('train_dataloader.batch_size', 24,
     r'20 training images do not fill a batch of 24: lower .*batch_size'),
    ('model.num_classes', 2,
     r'has 3 classes and the classifier 2 outputs: set num_classes to 3')])
def test_data_that_cannot_train_the_classifier(option, value, message, tmp_path, cifar_config):
    with pytest.raises(UserError, match=message):
        launch.train(cifar_config(CONFIG, tmp_path, {option: value}, student='resnet8'))
    assert not (tmp_path / 'epoch_1.pth').exists()


# From mdistiller's configs, and for OFD and DIST from their authors' code. What a cell does not
# name is as everywhere.
@pytest.mark.parametrize(('cell', 'published'), [
    ('cifar100 kd resnet32x4 resnet8x4', dict(ce=0.1, weight=0.9, temperature=4.0)),
    ('imagenet kd imagenet_resnet34 imagenet_resnet18',
     dict(ce=0.5, weight=0.5, temperature=1.0)),
    ('cifar100 ofd resnet32x4 resnet8x4', dict(weight=1e-3)),
    ('imagenet ofd imagenet_resnet50 imagenet_mobilenetv1', dict(weight=1e-4)),
    ('imagenet dkd imagenet_resnet34 imagenet_resnet18',
     dict(beta=0.5, temperature=1.0, warmup=0)),
    ('imagenet dkd imagenet_resnet50 imagenet_mobilenetv1',
     dict(beta=2.0, temperature=1.0, warmup=0)),
    ('cifar100 review_kd resnet32x4 resnet8x4', dict(weight=5.0, warmup=20, tap='stage?')),
    ('imagenet review_kd imagenet_resnet34 imagenet_resnet18',
     dict(weight=1.0, warmup=0, tap='stage?.preact')),
    ('imagenet review_kd imagenet_resnet50 imagenet_mobilenetv1',
     dict(weight=8.0, warmup=0, tap='stage?.preact')),
    ('cifar100 dist resnet32x4 resnet8x4', dict(beta=2.0, gamma=2.0, temperature=4.0)),
    ('imagenet dist imagenet_resnet34 imagenet_resnet18',
     dict(beta=2.0, gamma=2.0, temperature=1.0)),
    *((f'cifar100 dkd {pair}', dict(beta=beta, temperature=4.0, warmup=20)) for pair, beta in {
        'resnet56 resnet20': 2.0, 'resnet110 resnet32': 2.0, 'resnet32x4 resnet8x4': 8.0,
        'wrn_40_2 wrn_16_2': 6.0, 'wrn_40_2 wrn_40_1': 6.0, 'vgg13 vgg8': 6.0,
        'resnet32x4 shufflenetv1': 8.0, 'wrn_40_2 shufflenetv1': 8.0,
        'vgg13 mobilenetv2_half': 6.0, 'resnet50_cifar mobilenetv2_half': 8.0,
        'resnet32x4 shufflenetv2_1x': 8.0}.items()),
])
def test_a_cell_has_the_published_hyper_parameters(cell, published):
    names = ('data', 'method', 'teacher', 'student')
    cfg = load_config(ROOT / CONFIG, arguments=dict(zip(names, cell.split(), strict=True)))
    [term] = cfg.terms.values()
    tap = term.tap if isinstance(term.tap, str) else term.tap[0]
    found = dict(term.loss, ce=cfg.model.get('ce_weight', 1.0), weight=term.weight,
                 warmup=term.get('warmup_epochs', 0),
                 tap=tap.removeprefix('backbone.'))
    expected = dict(ce=1.0) | published
    assert {name: found[name] for name in expected} == expected


@pytest.mark.parametrize(('choices', 'message'), [
    (dict(method='kdd'), r"builds on '.*methods/kdd.py', which does not exist. Did you mean 'kd'"),
    (dict(method='kd', teacher='resnet15'), r"unknown type 'resnet15' at teachers.* Did you mean"),
    (dict(method='at', teacher='vgg8'), r'joins 3 taps of the student .* to 4 of teacher'),
    (dict(method='kd', teacher='resnet56'), r"resnet56.* of another architecture"),
    (dict(method='fsp', student='resnet8x4'),
     r"^term 'fsp': FSPLoss needs equal channels in both networks.*AlignConnector"),
    (dict(method='kd', options={'terms.kd.loss.temperature': 0}),
     r"^term 'kd': KDLoss needs a temperature above 0, not 0$"),
])
def test_a_cell_that_cannot_run(choices, message, tmp_path, cifar_config):
    path = _teacher(tmp_path, 'vgg8' if choices.get('teacher') == 'vgg8' else 'resnet14')
    with pytest.raises(UserError, match=message):
        launch.train(cifar_config(CONFIG, tmp_path / 'run', **(dict(
            student='resnet8', teacher='resnet14', checkpoint=path) | choices)))
