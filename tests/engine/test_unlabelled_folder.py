"""`mmkd train` with a folder without labels: killed, cached, and with no annotation at all."""

import os
import signal
import threading

import pytest
import torch
from helpers import NoiseDetection, centernet, centernet_terms, save_teacher
from mmengine.config import Config
from mmengine.hooks import Hook
from photo_folders import image, xml

from mmkd.distillation import load_checkpoint_safely
from mmkd.engine import launch
from mmkd.registry import HOOKS

CLASSES = NoiseDetection().metainfo['classes']
PIPELINE = [dict(type='LoadImage'), dict(type='LoadAnnotations', with_bbox=True),
            dict(type='Resize', scale=(64, 64), keep_ratio=True), dict(type='RandomFlip', prob=0.5),
            dict(type='PackDetInputs')]


@HOOKS.register_module(force=True)
class _Watch(Hook):
    """Keeps what every iteration logs, and kills the process in one of them."""

    logged: list = []  # noqa: RUF012

    def __init__(self, kill_at=None):
        self.kill_at = kill_at
        _Watch.logged = []

    def after_train_iter(self, runner, batch_idx, data_batch=None, outputs=None):
        _Watch.logged.append({name: torch.as_tensor(value).item()
                              for name, value in outputs.items()})
        if runner.iter == self.kill_at:
            os.kill(os.getpid(), signal.SIGKILL)
            threading.Event().wait()


@pytest.fixture
def config(tmp_path):
    """Return a config of two iterations an epoch, for a folder's name."""
    for i in range(5):
        image(tmp_path / f'photos/{i}.png', size=(64, 64))
        image(tmp_path / f'labelled/JPEGImages/{i}.png', size=(64, 64))
    teachers = dict(a=save_teacher(tmp_path, 'a', centernet()),
                    b=save_teacher(tmp_path, 'b', centernet(), seed=2))
    lists = tmp_path / 'labelled/ImageSets/Main'
    lists.mkdir(parents=True)
    (lists / 'train.txt').write_text('0\n1\n2\n3\n')
    for i in range(4):
        xml(tmp_path / f'labelled/Annotations/{i}.xml', ('disc', 9 + i, 9, 40, 50), size=(64, 64))

    def build(name, epochs=2, kill_at=None, unlabelled=None, **more):
        dataset = dict(type='VOCLayoutDataset', data_root=str(tmp_path / 'labelled'),
                       ann_file='ImageSets/Main/train.txt', metainfo=dict(classes=CLASSES),
                       pipeline=PIPELINE)
        return Config(dict(
            default_scope='mmkd', model=centernet(), work_dir=str(tmp_path / name),
            launcher='none', log_level='ERROR', randomness=dict(seed=0),
            experiment_name=f'{tmp_path.name}-{name}-{epochs}-{kill_at}',
            train_dataloader=dict(batch_size=2, num_workers=0, dataset=dataset,
                                  sampler=dict(type='DefaultSampler', shuffle=True)),
            train_cfg=dict(type='EpochBasedTrainLoop', max_epochs=epochs),
            optim_wrapper=dict(type='OptimWrapper', optimizer=dict(type='SGD', lr=0.01)),
            teachers=teachers, terms=centernet_terms(),
            distill_weights=dict(heatmap=5, wh=1, offset=0.1, feature=2),
            custom_hooks=[dict(type='DistillationHook', check_teachers=False),
                          dict(type='EpochSeedHook'), dict(type='_Watch', kill_at=kill_at)],
            unlabelled=dict(data_root=str(tmp_path / 'photos')) | (unlabelled or {}), **more))
    return build


def _trained(cfg, resume=None):
    launch.train(cfg, resume)
    state = load_checkpoint_safely(f'{cfg.work_dir}/last.pth')['state_dict']
    return _Watch.logged, state


def test_killed_and_resumed_is_undisturbed(config, killed):
    logged, whole = _trained(config('whole', unlabelled=dict(ratio=1.5)))
    assert all(f'loss_distill_{term}_unlabelled' in logged[0]
               for term in ('heatmap', 'wh', 'offset', 'feature'))
    killed(lambda: _trained(config('parts', kill_at=2, unlabelled=dict(ratio=1.5))))
    rest, parts = _trained(config('parts', unlabelled=dict(ratio=1.5)), resume='auto')
    assert rest == logged[2:]
    assert all(torch.equal(value, parts[name]) for name, value in whole.items())


def test_a_cache_is_of_the_labelled_images_alone(config, tmp_path):
    cache = dict(folder=str(tmp_path / 'cache'), views=1, dtype='float32')
    cached, _ = _trained(config('cached', 1, teacher_cache=cache))
    live, _ = _trained(config('live', 1))
    name = 'loss_distill_feature_unlabelled'
    # Errors on the labelled images weigh the teachers here, too, and a cache leaves out low scores.
    assert cached[0][name] == pytest.approx(live[0][name], rel=1e-4)
    shards = list((tmp_path / 'cache/a').rglob('*.shard'))
    assert len(shards) == 1, 'one view of four labelled images'


def test_no_annotation_anywhere(config, tmp_path):
    for part in ('ImageSets', 'Annotations', 'JPEGImages'):
        (tmp_path / 'labelled' / part).rename(tmp_path / f'gone {part}')
    cfg = config('only', 3, unlabelled=dict(only=True))
    logged, _ = _trained(cfg)
    assert len(logged) == 3 * 3, 'an epoch is a pass over the five photographs'
    names = {'loss', *(f'loss_distill_{term}' for term in ('heatmap', 'wh', 'offset', 'feature'))}
    assert all(set(one) == names for one in logged)
    assert sum(one['loss'] for one in logged[-3:]) < sum(one['loss'] for one in logged[:3])
    meta = load_checkpoint_safely(f'{cfg.work_dir}/last.pth')['meta']
    assert tuple(meta['dataset_meta']['classes']) == CLASSES
