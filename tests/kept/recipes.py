"""Tiny runs on drawn data, for the losses and checkpoints that are kept."""

import json
from pathlib import Path

import helpers
import kills.parts  # noqa: F401  registers a metric
import torch
from archives import write_cifar10
from dense_zoo import narrow
from mmengine.hooks import Hook

from mmkd.engine import launch
from mmkd.engine.config import load_config, override
from mmkd.engine.data_root import move_data
from mmkd.registry import HOOKS, MODELS

HERE = Path(__file__).parent
LOSSES = HERE / 'losses.txt'
STEPS = 20
RATE = 1e-3
"""Of learning: so small that a last digit stays one over all the steps."""


@HOOKS.register_module(force=True)
class KeptLosses(Hook):
    """Keeps the losses of every iteration."""

    def __init__(self):
        self.rows = []

    def after_train_iter(self, runner, batch_idx, data_batch=None, outputs=None):
        self.rows.append({name: value.item() for name, value in outputs.items()
                          if 'loss' in name})


class _Convolution(torch.nn.Sequential):
    def __init__(self, *behind):
        super().__init__(torch.nn.Conv2d(3, 8, 5, 4, 2, bias=False), torch.nn.BatchNorm2d(8),
                         torch.nn.ReLU(), *behind)


@MODELS.register_module(force=True)
class KeptBackbone(_Convolution):
    """A detector's backbone of stride 4 and a few hundred parameters."""

    def forward(self, images):
        return (super().forward(images), )


@MODELS.register_module(force=True)
class KeptNetwork(_Convolution):
    """A classifier's backbone of as many."""

    out_channels = 8

    def __init__(self):
        super().__init__(torch.nn.AdaptiveAvgPool2d(1), torch.nn.Flatten())


def first_losses(folder):
    """Return for each recipe the losses of its first iterations."""
    found = {}
    for name, recipe in dict(joint=_joint, pkd=_pkd, kd=_kd).items():
        (folder / name).mkdir()
        run = helpers.runner(recipe(folder / name))
        run.train()
        found[name] = next(hook for hook in run.hooks if isinstance(hook, KeptLosses)).rows
    return found


def _joint(folder):
    """The heatmaps, sizes, offsets and features of two teachers."""
    teachers = dict(
        resnet=helpers.save_teacher(folder, 'resnet', helpers.centernet(16, base_channels=8)),
        hourglass=helpers.save_teacher(folder, 'hourglass', helpers.centernet(stacks=2), seed=2))
    return _detector(folder, helpers.centernet(), teachers=teachers,
                     terms=helpers.centernet_terms(),
                     distill_weights=dict(heatmap=5, wh=1, offset=0.1, feature=2))


def _pkd(folder):
    teacher = narrow('RetinaNet')
    teacher.backbone.base_channels, teacher.neck.in_channels = 16, [16, 32, 64, 128]
    entry = helpers.save_teacher(folder, 'teacher', teacher)
    term = dict(tap='neck:*', match='stride', connector=dict(type='AlignConnector'),
                loss=dict(type='PKDLoss'))
    return _detector(folder, narrow('RetinaNet'), teachers=dict(teacher=entry),
                     terms=dict(pkd=term), distill_weights=dict(pkd=10))


def _detector(folder, model, **distillation):
    config = helpers.train_config(
        folder, model, [*helpers.distillation(), dict(type='KeptLosses')], **distillation)
    config.train_cfg = dict(type='EpochBasedTrainLoop', max_epochs=STEPS // 2)  # of eight images
    config.optim_wrapper.optimizer.lr = RATE
    config.default_hooks = {}
    return config


def _kd(folder):
    """A classifier with its published recipe, which crops and mirrors."""
    torch.manual_seed(1)
    teacher = MODELS.build(dict(type='mmkd.Classifier', num_classes=10,
                                backbone=dict(type='mmkd.resnet14')))
    torch.save(teacher.state_dict(), folder / 'teacher.pth')
    return _classifier(folder, student='resnet8', method='kd',
                       teacher=f'resnet14={folder / "teacher.pth"}', epochs=STEPS // 2)


def _classifier(folder, epochs, **choices):
    write_cifar10(folder / 'images')
    cfg = load_config('mmkd::classification/distill.py', arguments=dict(data='cifar10') | choices)
    move_data(cfg, folder / 'images')
    override(cfg, {'train_dataloader.batch_size': 8, 'train_cfg.max_epochs': epochs,
                   'optim_wrapper.optimizer.lr': RATE, 'log_level': 'WARNING',
                   'default_hooks.checkpoint.interval': 1})
    cfg.custom_hooks.append(dict(type='KeptLosses'))
    cfg.work_dir, cfg.launcher = str(folder / 'work'), 'none'
    return cfg


def written(losses):
    """Return the losses as text, a line for each iteration."""
    return ''.join(f'{recipe} {step}  ' + '  '.join(f'{name} {value:.6g}'
                                                   for name, value in row.items()) + '\n'
                   for recipe, rows in losses.items() for step, row in enumerate(rows, 1))


def read(text):
    """Return what `written` wrote, for each recipe and step."""
    found = {}
    for line in text.splitlines():
        recipe, step, *rest = line.split()
        found[recipe, int(step)] = dict(zip(rest[::2], map(float, rest[1::2]), strict=True))
    return found


DETECTOR = """
_base_ = 'mmkd::_base_/default_runtime.py'
model = {model}
train_dataloader = dict(batch_size=2, num_workers=0, dataset=dict(type='NoiseDetection', length=4),
                        sampler=dict(type='DefaultSampler', shuffle=True))
val_dataloader = dict(batch_size=2, num_workers=0, dataset=dict(type='NoiseDetection', length=4),
                      sampler=dict(type='DefaultSampler', shuffle=False))
test_dataloader = val_dataloader
train_cfg = dict(type='EpochBasedTrainLoop', max_epochs=2)
val_cfg = dict(type='ValLoop')
test_cfg = dict(type='TestLoop')
val_evaluator = dict(type='MeanScore')
test_evaluator = val_evaluator
optim_wrapper = dict(type='OptimWrapper', optimizer=dict(type='SGD', lr=1e-3, momentum=0.9))
param_scheduler = [dict(type='MultiStepLR', milestones=[1], by_epoch=True)]
teachers = dict(mean=dict(ema=0.9))
terms = dict(feature=dict(tap='backbone:0', loss=dict(type='AttentionLoss'),
                          connector=dict(type='ConvConnector')))
distill_weights = dict(feature=1.0)
custom_hooks = [dict(type='DistillationHook')]
"""


def kept_runs(folder):
    """Return configs of the two runs whose checkpoints are kept, of two epochs."""
    model = helpers.centernet().to_dict() | dict(backbone=dict(type='KeptBackbone'), neck=None)
    (folder / 'detector.py').write_text(DETECTOR.format(model=model))
    detector = load_config(folder / 'detector.py')
    detector.work_dir, detector.launcher = str(folder / 'detector'), 'none'
    (folder / 'classifier').mkdir()
    classifier = _classifier(folder / 'classifier', student='resnet8', method='ce', epochs=2)
    classifier.model.backbone = dict(type='KeptNetwork')
    return dict(detector=detector, classifier=classifier)


def go_on(folder, kept, name):
    """Test a kept checkpoint, and train the second epoch; return the metrics of the test."""
    cfg = load_config(kept / f'{name}.py')
    cfg.work_dir, cfg.launcher = str(folder / name), 'none'
    if name == 'classifier':
        write_cifar10(folder / 'images')
        move_data(cfg, folder / 'images')
    metrics = launch.test(cfg.copy(), str(kept / f'{name}.pth'))
    launch.train(cfg, str(kept / f'{name}.pth'))
    return metrics


def metrics_of(kept):
    """Return the metrics that a release had for its checkpoints."""
    return json.loads((kept / 'metrics.json').read_text())
