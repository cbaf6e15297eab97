"""A model and data that train in milliseconds, with dropout and augmentation that draw numbers.

Configs name this module in `custom_imports`, so that processes started by a test find it.
"""

from pathlib import Path

import numpy as np
import torch
from mmengine.evaluator import BaseMetric
from mmengine.model import BaseModel
from torch import nn
from torch.utils.data import Dataset

import mmkd  # noqa: F401
from mmkd.registry import DATASETS, METRICS, MODELS

ROOT = Path(__file__).parents[2]

CONFIG = """
_base_ = ['{root}/configs/_base_/default_runtime.py']
custom_imports = dict(imports=['mmkd', 'tiny_run'], allow_failed_imports=False)
model = dict(type='TinyModel')
train_dataloader = dict(
    batch_size=4, num_workers=0, dataset=dict(type='TinyData'),
    sampler=dict(type='DefaultSampler', shuffle=True))
test_dataloader = dict(
    batch_size=4, num_workers=0, dataset=dict(type='TinyData'),
    sampler=dict(type='DefaultSampler', shuffle=False))
test_cfg = dict(type='TestLoop')
test_evaluator = dict(type='TinyMetric')
train_cfg = dict(type='EpochBasedTrainLoop', max_epochs=4)
optim_wrapper = dict(type='OptimWrapper', optimizer=dict(type='Adam', lr=0.01))
param_scheduler = [dict(type='CosineAnnealingLR', T_max=4)]
default_hooks = dict(logger=dict(type='LoggerHook', interval=2))
visualizer = dict(_delete_=True, type='Visualizer', name='visualizer')
"""
VALIDATION = """
val_dataloader = test_dataloader
val_cfg = dict(type='ValLoop')
val_evaluator = dict(type='Listed', values=[0.25, 0.5, 0.375, 0.125])
"""
"""What a config gets that validates after each epoch."""


def write_config(folder, more=''):
    """Write a config of the tiny run to ``folder/tiny.py``; ``more`` is appended to it."""
    path = Path(folder) / 'tiny.py'
    path.write_text(CONFIG.format(root=ROOT) + more)
    return path


@MODELS.register_module(force=True)
class TinyModel(BaseModel):
    """Regression; its loss turns to ``bad`` in training step number ``bad_step``, from 1."""

    def __init__(self, bad_step=None, bad='nan', width=8):
        super().__init__()
        self.layers = nn.Sequential(nn.Linear(3, width), nn.BatchNorm1d(width), nn.Dropout(0.5),
                                    nn.Linear(width, 1))
        self.bad_step, self.bad, self.step = bad_step, float(bad), 0

    def forward(self, inputs, target, mode='tensor'):
        out = self.layers(torch.stack(list(inputs)).float())
        if mode != 'loss':
            return list(out)
        self.step += 1
        loss = (out[:, 0] - torch.as_tensor(target)).square().mean()
        other = loss * (self.bad if self.step == self.bad_step else 0.5)
        return dict(loss_square=loss, loss_other=other)


@DATASETS.register_module(force=True)
class TinyData(Dataset):
    """Eight points, jittered anew at each look."""

    METAINFO = {'classes': ('a', 'b')}  # noqa: RUF012

    @property
    def metainfo(self):
        return self.METAINFO

    def __len__(self):
        return 8

    def __getitem__(self, i):
        x = np.cos(np.arange(3) * (i + 1)) + 0.1 * np.random.randn(3)
        return dict(inputs=torch.tensor(x), target=float(i))


@METRICS.register_module(force=True)
class TinyMetric(BaseMetric):
    """The sum of all outputs; how many; how often it was asked."""

    asked = 0

    def process(self, data_batch, data_samples):
        self.results.extend(float(sample) for sample in data_samples)

    def compute_metrics(self, results):
        self.asked += 1
        return dict(total=sum(results), count=len(results), asked=self.asked)


@METRICS.register_module(force=True)
class Listed(TinyMetric):
    """Returns one value after the other."""

    def __init__(self, values):
        super().__init__()
        self.values = iter(values)

    def compute_metrics(self, results):
        return dict(score=next(self.values), other=1.0)
