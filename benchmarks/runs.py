"""Runs whose single steps are timed: set up as tools/train.py does it, on data in memory."""

import itertools
import shutil
from typing import Any

import torch
from mmengine.config import Config
from mmengine.runner import IterBasedTrainLoop, Runner

import mmkd  # noqa: F401
from mmkd.classification.data import MemoryDataset
from mmkd.engine.runner import StudentRunner
from mmkd.engine.student_options import use_mixed_precision
from mmkd.registry import DATASETS, LOOPS

__all__ = ['RandomPixels', 'classifier', 'classifier_run', 'has_compiler', 'started',
           'without_validation']

CLASSES = 100
_numbers = itertools.count()


@DATASETS.register_module(force=True)
class RandomPixels(MemoryDataset):
    """Images of noise with the classes in turn."""

    def __init__(self, images: int = 4096, size: int = 32) -> None:
        generator = torch.Generator().manual_seed(0)
        pixels = torch.randint(0, 256, (images, 3, size, size), dtype=torch.uint8,
                               generator=generator)
        super().__init__(pixels, torch.arange(images) % CLASSES, [str(i) for i in range(CLASSES)])


@LOOPS.register_module(force=True)
class SteppedLoop(IterBasedTrainLoop):
    """A training loop that begins and then waits for calls of ``run_iter(batch)``."""

    def run(self) -> torch.nn.Module:
        """Let the hooks begin."""
        self.runner.call_hook('before_train')
        self.runner.call_hook('before_train_epoch')
        return self.runner.model.train()


class SteppedRunner(StudentRunner):
    """A runner whose run never ends: distillation takes its hooks off the student after one."""

    def call_hook(self, fn_name: str, **kwargs: Any) -> None:
        """Call all hooks."""
        if fn_name != 'after_run':
            super().call_hook(fn_name, **kwargs)


def started(cfg: Config) -> Runner:
    """Return the runner of a config, whose ``train_loop.run_iter(batch)`` is a step with all hooks.

    Its hooks hold for as long as it is used; it saves nothing.
    """
    cfg.train_cfg = dict(type='SteppedLoop', max_iters=10 ** 9)
    cfg.launcher, cfg.log_level = 'none', 'ERROR'
    cfg.experiment_name = f'benchmark_{next(_numbers)}'
    if 'visualizer' in cfg:
        cfg.visualizer.name = cfg.experiment_name  # mmengine keeps them by name
    use_mixed_precision(cfg)
    runner = SteppedRunner.from_cfg(cfg)
    runner.train()
    return runner


def without_validation(cfg: Config) -> None:
    """Leave out of a training config what :func:`started` has no use for."""
    for name in ('val_dataloader', 'val_evaluator', 'val_cfg', 'test_dataloader', 'test_evaluator',
                 'test_cfg', 'param_scheduler', 'visualizer'):
        cfg.pop(name, None)
    cfg.default_hooks = dict(logger=None, checkpoint=None)


def classifier(network: str) -> dict[str, Any]:
    """Return the config of a classifier for 100 classes."""
    return dict(type='Classifier', backbone=dict(type=network), num_classes=CLASSES,
                data_preprocessor=dict(type='BatchPreprocessor', mean=[128.0] * 3, std=[64.0] * 3))


def classifier_run(folder: str, model: dict, batch_size: int, images: int = 4096,
                   **entries: Any) -> Config:
    """Return the config of a run on random pixels under the recipe of CIFAR, at a low rate."""
    return Config(dict(
        model=model, work_dir=folder, default_scope='mmkd', randomness=dict(seed=0),
        train_dataloader=dict(
            batch_size=batch_size, num_workers=0, drop_last=True,
            collate_fn=dict(type='whole_batch'), dataset=dict(type='RandomPixels', images=images),
            sampler=dict(type='DefaultSampler', shuffle=True)),
        optim_wrapper=dict(type='OptimWrapper', optimizer=dict(
            type='SGD', lr=1e-3, momentum=0.9, weight_decay=5e-4))) | entries)


def has_compiler() -> bool:
    """Whether ``torch.compile`` can be used: on a CPU it needs a C++ compiler."""
    return torch.cuda.is_available() or any(map(shutil.which, ('c++', 'g++', 'clang++')))
