"""Tiny data that is augmented at random, and tiny runs with cached teachers, for tests only.

Configs name this module in `custom_imports`, so that processes started by a test find it.
"""

import random

import numpy as np
import pytest
import torch
from helpers import (
    CLASSES,
    NoiseDetection,
    centernet,
    centernet_terms,
    distillation,
    save_teacher,
    train_config,
)
from mmengine.hooks import Hook
from mmengine.runner import Runner

from mmkd.registry import DATASETS, HOOKS
from mmkd.teacher_cache.options import fix_views
from mmkd.teacher_cache.shards import Shard

W = dict(heatmap=10.0, wh=1.0, offset=0.1, feature=20.0)
TERMS = tuple(W)


@DATASETS.register_module(force=True)
class ShakenDetection(NoiseDetection):
    """Images of noise that come shifted, mirrored and darkened, as three generators draw it.

    Args:
        strength: of the darkening.
        data_root: where the images would lie.
    """

    first_label = None  # of image 0, if somebody corrects the annotations
    inverted = False  # whether somebody put other images under the same names

    def __init__(self, length=8, size=64, classes=CLASSES, strength=0.5, data_root='/data'):
        super().__init__(length, size, classes)
        self.strength, self.data_root = strength, data_root

    def get_data_info(self, index):
        instances = self._plain(index)['data_samples'].gt_instances
        return dict(img_path=f'{self.data_root}/images/{index}.jpg', img_id=str(index),
                    width=100 + 60 * (index % 2), height=130, sample_idx=index,
                    instances=[dict(bbox=box, bbox_label=label, ignore_flag=0) for box, label in
                               zip(instances.bboxes.tolist(), instances.labels.tolist(),
                                   strict=True)])

    def _plain(self, index):
        item = super().__getitem__(index)
        if self.inverted:
            item['inputs'] = 255 - item['inputs']
        if index == 0 and self.first_label is not None:
            item['data_samples'].gt_instances.labels[0] = self.first_label
        return item

    def __getitem__(self, index):
        item = self._plain(index)
        shift = random.randrange(16), int(np.random.randint(16))
        image = item['inputs'].roll(shift, (1, 2))
        if torch.rand(()) < 0.5:
            image = image.flip(2)
        dark = 1 - self.strength * np.random.rand()
        item['inputs'] = (image * dark).to(torch.uint8)
        return item


@HOOKS.register_module(force=True)
class Losses(Hook):
    """Keeps the losses of every iteration."""

    def __init__(self):
        self.rows = []

    def after_train_iter(self, runner, batch_idx, data_batch=None, outputs=None):
        self.rows.append({key: value.item() for key, value in outputs.items() if 'loss' in key})


def save_teachers(folder):
    """Return the entries of two teachers of different channels, one a Hourglass."""
    entries = dict(resnet=save_teacher(folder, 'resnet', centernet(channels=16, base_channels=8)),
                   hourglass=save_teacher(folder, 'hourglass', centernet(stacks=2), seed=2))
    for entry in entries.values():  # whose maps vary from place to place
        checkpoint = torch.load(entry['checkpoint'])
        for name, value in checkpoint['state_dict'].items():
            if name.startswith('bbox_head') and name.endswith('weight'):
                value.mul_(0.3 / value.std())
            if name.endswith('heatmap_head.2.bias'):
                value.sub_(4.0)  # background is no object
        torch.save(checkpoint, entry['checkpoint'])
    return entries


def detection(work_dir, teachers, cache, epochs=2, terms=TERMS, batch=4, dataset=None, seed=0,
              workers=0, **extra):
    """Config of a CenterNet that learns from teachers; ``cache``: its ``teacher_cache``."""
    if cache is not None:
        extra['teacher_cache'] = cache
    config = train_config(
        work_dir, centernet(), [*distillation(), dict(type='Losses')], batch=batch,
        teachers=teachers, terms=centernet_terms(*terms, joint='each'),
        distill_weights={name: W[name] for name in terms}, **extra)
    config.train_dataloader.update(
        dataset=dict(type='ShakenDetection', **(dataset or {})), num_workers=workers,
        sampler=dict(type='DefaultSampler', shuffle=True))
    config.train_cfg = dict(by_epoch=True, max_epochs=epochs)
    config.optim_wrapper = dict(optimizer=dict(type='SGD', lr=0.001))
    config.default_hooks = dict(checkpoint=dict(type='CheckpointHook', interval=1))
    config.randomness = dict(seed=seed)
    return config


def build(config):
    """Build the runner, as mmkd.engine.launch does."""
    fix_views(config)
    config.experiment_name = f'test_{id(config)}_{random.random()}'
    return Runner.from_cfg(config)


def train(config):
    """Train; return the runner and the losses of every iteration."""
    run = build(config)
    run.train()
    return run, next(hook for hook in run.hooks if isinstance(hook, Losses)).rows


def assert_close(rows, expected, rel):
    """Losses of iterations are near others."""
    assert len(rows) == len(expected) > 0
    for number, (ours, theirs) in enumerate(zip(rows, expected, strict=True)):
        assert ours == pytest.approx(theirs, rel=rel), number


def assert_same_shards(ours, theirs):
    """Two folders hold the same shards, but for the last digit of float16.

    A sum of floats depends on where its array happens to lie in memory.
    """
    names = sorted(path.relative_to(theirs) for path in theirs.rglob('*.shard'))
    assert names and names == sorted(path.relative_to(ours) for path in ours.rglob('*.shard'))
    for name in names:
        first, second = Shard(ours / name), Shard(theirs / name)
        assert len(first) == len(second)
        for number in range(len(second)):
            for got, wanted in zip(first.read(number).arrays(), second.read(number).arrays(),
                                   strict=True):
                assert got.dtype == wanted.dtype
                np.testing.assert_allclose(got, wanted, rtol=2e-3, atol=1e-4, err_msg=str(name))
