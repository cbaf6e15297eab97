"""Classifiers whose teachers are cached: logits, features and CRD's embeddings."""

from pathlib import Path

import pytest
import torch
from tiny_cache import assert_close, train

from mmkd.engine import launch
from mmkd.errors import UserError
from mmkd.registry import MODELS

ROOT = Path(__file__).parents[2]
CONFIG = 'configs/classification/distill.py'


@pytest.fixture(scope='module')
def teacher(tmp_path_factory):
    torch.manual_seed(3)
    model = MODELS.build(dict(type='mmkd.Classifier', backbone=dict(type='mmkd.resnet14'),
                              num_classes=10))
    path = tmp_path_factory.mktemp('teacher') / 'resnet14.pth'
    torch.save(model.state_dict(), path)
    return path


@pytest.fixture
def run(cifar_config, teacher, tmp_path):
    """Train two epochs; return the losses of every iteration."""
    def train_method(method, name, cache=None, **preprocessor):
        cfg = cifar_config(CONFIG, tmp_path / name, method=method, student='resnet8',
                           teacher=f'resnet14={teacher}')
        cfg.train_cfg.max_epochs = 2
        cfg.model.data_preprocessor.update(preprocessor)
        if cache is not None:
            cfg.teacher_cache = cache
        cfg.custom_hooks.append(dict(type='Losses'))
        return train(cfg)[1]
    return train_method


@pytest.mark.parametrize(('method', 'dtype', 'rel'), [
    *((method, 'float32', 1e-5) for method in ('at', 'crd', 'review_kd')),  # kd: below
    ('review_kd', 'float16', 2e-3)])
def test_the_cached_run_equals_the_live_one(run, method, dtype, rel, tmp_path, no_teachers):
    options = dict(folder=str(tmp_path / 'c'), views=2, dtype=dtype)
    live = run(method, 'live', dict(options, terms=[]))
    assert not (tmp_path / 'c').exists()
    assert_close(run(method, 'built', options), live, rel)
    no_teachers()
    assert_close(run(method, 'read', options), live, rel)


def test_all_views_change_nothing_about_the_run(run, tmp_path, no_teachers):
    """162 views of padding 4 are many for a test: padding 1 has 18."""
    plain = run('kd', 'plain', crop_padding=1)
    options = dict(folder=str(tmp_path / 'c'), views='all', dtype='float32')
    assert_close(run('kd', 'built', options, crop_padding=1), plain, 1e-5)
    no_teachers()
    assert_close(run('kd', 'read', options, crop_padding=1), plain, 1e-5)
    views = {path.parent.name for path in (tmp_path / 'c').rglob('*.shard')}
    assert len(views) == 18
    with pytest.raises(UserError, match=r"is not of this run: its 'data preprocessor of the "
                                        r"student.crop_padding' is 1 and that of the run 0"):
        run('kd', 'other crops', options, crop_padding=0)


@pytest.mark.parametrize('mixing', [dict(mixup=0.2), dict(cutmix=1.0), dict(views=2)])
def test_images_that_are_mixed_are_refused(run, mixing, tmp_path):
    with pytest.raises(UserError, match='cannot mix, repeat or pair fixed views'):
        run('kd', 'a', dict(folder=str(tmp_path / 'c'), views=2), **mixing)
    assert not list((tmp_path / 'c').rglob('*.shard'))


def test_the_tool_builds_what_training_reads(run, cifar_archive, teacher, tmp_path, no_teachers,
                                             load_tool):
    folder = tmp_path / 'c'
    load_tool(ROOT / 'tools/cache_teachers.py')(
        CONFIG, '--data', 'cifar10', '--method', 'kd', '--student', 'resnet8', '--teacher',
        f'resnet14={teacher}', '--data-root', cifar_archive, '--work-dir', tmp_path / 'tool',
        '--cfg-options', f'teacher_cache.folder={folder}',
        'teacher_cache.views=2', 'train_dataloader.batch_size=8')
    assert list(folder.rglob('*.shard')) and not list((tmp_path / 'tool').rglob('*.pth'))
    live = run('kd', 'live', dict(folder=str(tmp_path / 'none'), views=2, terms=[]))
    no_teachers()
    assert_close(run('kd', 'read', dict(folder=str(folder), views=2)), live, 2e-3)


@pytest.mark.parametrize(('changes', 'message'), [
    (dict(method='ce'), 'has no teachers to cache'),
    (dict(method='kd'), 'has no teacher_cache: add the line')])
def test_there_must_be_something_to_cache(changes, message, cifar_config, teacher, tmp_path):
    cfg = cifar_config(CONFIG, tmp_path, student='resnet8', teacher='resnet14',
                       checkpoint=teacher, **changes)
    with pytest.raises(UserError, match=message):
        launch.cache_teachers(cfg)
