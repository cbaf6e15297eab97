"""What the runner adds to an iteration, hook by hook.

The model is one tiny linear layer that logs three numbers, so that the bare ``train_step`` is next
to nothing. The hooks are those of classification (configs/_base_/classification/data.py). The note
says how much time the runner with all hooks adds to ``train_step``, and how much each hook takes by
itself in an iteration; what the logger writes in one of 100 is in it with its share.

``iteration 187000``: with a history of logged numbers as long as after 240 epochs of CIFAR, under
mmengine's own limit of a million and under that of ShortHistoryHook.
"""

import itertools
import tempfile
from collections.abc import Callable, Iterable
from dataclasses import replace
from pathlib import Path

import numpy as np
import torch
from harness import Options, Result, compare
from mmengine.hooks import Hook
from mmengine.logging import HistoryBuffer
from mmengine.model import BaseModel
from mmengine.runner import Runner
from runs import classifier_run, started
from torch import Tensor, nn

from mmkd.engine.config import load_config
from mmkd.engine.hooks import ShortHistoryHook
from mmkd.registry import MODELS

CONFIG = Path(__file__).parents[2] / 'configs/_base_/classification/data.py'
PART = 'runner_overhead'
ITERATIONS = 187_000
STEP = 'train_step alone'


@MODELS.register_module(force=True)
class OneLayer(BaseModel):
    """Next to no computation, and as many logged numbers as a distilled classifier has."""

    def __init__(self) -> None:
        super().__init__()
        self.layer = nn.Linear(8, 1)

    def forward(self, inputs: Tensor, data_samples: object, mode: str) -> dict[str, Tensor]:
        """Return two losses and an accuracy."""
        out = self.layer(inputs).mean()
        return dict(loss_ce=out, loss_distill=out.square(), top1=out.detach())


def measure(options: Options) -> Iterable[Result]:
    """Time the runner with all hooks, each hook by itself, and both early and late in a run."""
    inner = 5 if options.quick else 500
    with tempfile.TemporaryDirectory() as folder:
        runner = overhead_runner(folder)
        batch = dict(inputs=torch.ones(4, 8), data_samples=None)
        outputs = runner.model.train_step(batch, runner.optim_wrapper)
        numbers = itertools.count()

        def hook_alone(hook: Hook) -> Callable[[], object]:
            def call() -> None:
                where = dict(batch_idx=next(numbers), data_batch=batch)
                hook.before_train_iter(runner, **where)
                hook.after_train_iter(runner, **where, outputs=outputs)
            return call

        for row in compare(PART, {
            STEP: lambda: runner.model.train_step(batch, runner.optim_wrapper),
            'runner, train_step with all hooks': lambda: runner.train_loop.run_iter(batch),
        } | {type(hook).__name__: hook_alone(hook) for hook in runner.hooks},
                STEP, options, inner=inner):
            taken = row.ms - (row.baseline_ms if row.name.startswith('runner') else 0)
            yield replace(row, note=f'{1e3 * taken:.1f} us an iteration')
        yield from late(runner, batch, options)


def late(runner: Runner, batch: dict, options: Options) -> Iterable[Result]:
    """Time iterations with a long history of logged numbers."""
    [hook] = [hook for hook in runner.hooks if isinstance(hook, ShortHistoryHook)]
    scalars = runner.message_hub.log_scalars

    def after(iterations: int, limit: int) -> Callable[[], object]:
        length = min(iterations, limit)
        history = {name: HistoryBuffer(np.zeros(length), np.ones(length), limit)
                   for name in scalars}

        def call() -> None:
            hook.length = limit
            scalars.update(history)
            runner.train_loop.run_iter(batch)
        return call

    iterations = 1000 if options.quick else ITERATIONS
    full = f'iteration {iterations}, all history'
    yield from compare(PART, {
        full: after(iterations, 10 ** 6),  # mmengine's own limit
        f'iteration {iterations}, ShortHistoryHook': after(iterations, ShortHistoryHook().length),
    }, full, options, inner=2 if options.quick else 20)


def overhead_runner(folder: str) -> Runner:
    """Return a runner with the hooks of classification around the tiny model."""
    base = load_config(CONFIG)
    cfg = classifier_run(folder, dict(type='OneLayer'), 4, images=200)
    cfg.default_hooks, cfg.log_processor = base.default_hooks, base.log_processor
    cfg.visualizer = base.visualizer
    return started(cfg)
