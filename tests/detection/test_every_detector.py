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


def distilled(folder, student, teacher, size=128):
    """Train ``student`` for two steps; return the runner and its backbone's gradient norms."""
    cfg = train_config(folder / 'run', model(student), iters=2, batch=2)
    data = cfg.train_dataloader.dataset
    data.update(type='NoiseDetection', size=size, masks=student in NEEDS_MASKS)
    cfg.optim_wrapper.optimizer.lr = 1e-4
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
