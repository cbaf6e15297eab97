"""Every detector of MMDetection as student and as teacher, by the same hook.

Slow, so it runs by itself: ``pytest -m matrix``; with ``MATRIX=docs/detectors.md`` it writes the
table of the docs. RetinaNet is in the ordinary run.
"""

import os
from pathlib import Path

import pytest
import torch
from helpers import runner, train_config
from zoo import CONFIGS, NEEDS_MASKS, NO_PREDICTION, model

from mmkd.engine.config import validate_config
from mmkd.engine.distil import distil
from mmkd.registry import MODELS

TABLE = os.environ.get('MATRIX')
QUICK = ('RetinaNet', )
ALL = [pytest.param(name, marks=() if name in QUICK else pytest.mark.matrix) for name in CONFIGS]
rows = {}


@pytest.fixture(scope='module', autouse=True)
def table():
    yield
    if TABLE:
        lines = ['| detector | student, from a RetinaNet | teacher, of a RetinaNet | predicts |',
                 '| --- | --- | --- | --- |']
        lines += [f'| {name} | {" | ".join(found.get(role, "") for role in ROLES)} |'
                  for name, found in rows.items()]
        path = Path(TABLE)
        head = path.read_text().partition('| detector |')[0] if path.is_file() else ''
        path.write_text(head + '\n'.join(lines) + '\n')


ROLES = ('student', 'teacher', 'predicts')


def saved(folder, name):
    """A teacher with random weights: its entry on the command line."""
    from mmengine.config import Config
    cfg = Config(dict(model=model(name), default_scope='mmkd'))
    cfg.dump(folder / 'teacher.py')
    torch.manual_seed(0)
    network = MODELS.build(cfg.model)  # some detectors write into their config
    network.init_weights()
    torch.save(dict(state_dict=network.state_dict()), folder / 'teacher.pth')
    return f'{folder / "teacher.py"}={folder / "teacher.pth"}'


def training(folder, student, size=128):
    """The config of two steps of ``student`` alone."""
    cfg = train_config(folder, model(student), iters=2, batch=2)
    cfg.train_dataloader.dataset.update(size=size, masks=student in NEEDS_MASKS)
    cfg.optim_wrapper.optimizer.lr = 1e-4
    return cfg


def distilled(folder, student, teacher):
    """Train ``student`` for two steps; return the runner and its backbone's gradient norms."""
    cfg = training(folder / 'run', student)
    distil(cfg, [saved(folder, teacher)], ['pkd'])
    validate_config(cfg)
    run = runner(cfg)
    norms = []
    for parameter in run.model.backbone.parameters():
        if parameter.requires_grad:
            parameter.register_hook(lambda gradient: norms.append(gradient.norm().item()))
    run.train()
    return run, norms


@pytest.mark.parametrize('name', ALL)
def test_as_a_student(name, tmp_path):
    run, norms = distilled(tmp_path, name, 'RetinaNet')
    assert max(norms) > 0 and all(norm < float('inf') for norm in norms)
    history = run.message_hub.log_scalars['train/loss_distill_pkd'].data[0]
    assert all(0 < value < float('inf') for value in history)
    keys = torch.load(tmp_path / 'run' / 'iter_2.pth', weights_only=False)['state_dict'].keys()
    assert keys == MODELS.build(model(name)).state_dict().keys()
    assert all('forward' not in vars(module) for module in run.model.modules())
    rows.setdefault(name, {})['student'] = 'yes'


@pytest.mark.parametrize('name', ALL)
def test_as_a_teacher(name, tmp_path):
    run, norms = distilled(tmp_path, 'RetinaNet', name)
    assert max(norms) > 0 and all(norm < float('inf') for norm in norms)
    assert all(0 < value < float('inf') for value in
               run.message_hub.log_scalars['train/loss_distill_pkd'].data[0])
    [hook] = [hook for hook in run.hooks if hasattr(hook, 'teachers')]
    assert all(p.grad is None for p in hook.teachers[0].model.parameters())
    rows.setdefault(name, {})['teacher'] = 'yes'


@pytest.mark.parametrize('weight', [0.0, 1e-30])
@pytest.mark.parametrize('name', [name if name in QUICK else
                                  pytest.param(name, marks=pytest.mark.matrix)
                                  for name in ('RetinaNet', 'Faster R-CNN', 'DINO')])
def test_a_term_without_weight_changes_nothing(name, weight, tmp_path):
    """Bit by bit. With 1e-30 the teacher, the dry run and the term are there all the same."""
    ends = []
    for folder in ('alone', 'run'):
        cfg = training(tmp_path / folder, name)
        if folder == 'run':
            distil(cfg, [saved(tmp_path, 'RetinaNet')], ['pkd'])
            cfg.distill_weights.pkd = weight
            validate_config(cfg)
        run = runner(cfg)
        run.train()
        ends.append(run.model.state_dict())
    assert ends[0].keys() == ends[1].keys()
    assert all(torch.equal(value, ends[1][key]) for key, value in ends[0].items())
    terms = run.message_hub.log_scalars.get('train/loss_distill_pkd')
    assert (terms is not None) == (weight > 0)


@pytest.mark.parametrize('name', ALL)
def test_predicts(name):
    if name in NO_PREDICTION:
        rows.setdefault(name, {})['predicts'] = f'no: {NO_PREDICTION[name]}'
        pytest.skip(NO_PREDICTION[name])
    from mmdet.structures import DetDataSample
    network = MODELS.build(model(name)).eval()
    sample = DetDataSample(metainfo=dict(
        img_shape=(128, 128), ori_shape=(128, 128), pad_shape=(128, 128), img_id=0,
        batch_input_shape=(128, 128), scale_factor=(1.0, 1.0), border=(0, 128, 0, 128)))
    with torch.no_grad():
        data = network.data_preprocessor(dict(inputs=[torch.randint(0, 256, (3, 128, 128))],
                                              data_samples=[sample]), False)
        [found] = network.predict(data['inputs'], data['data_samples'])
    assert found.pred_instances.scores.isfinite().all()
    rows.setdefault(name, {})['predicts'] = 'yes'
