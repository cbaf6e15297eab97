"""A training step of a cohort of two against the sum of its members' own steps.

The runner of configs/online/train.py on random pixels, ResNet-20, batches of 64 images of 32x32
pixels; every method of configs/online/methods, and ``ce``, a cohort whose members never meet. A
cohort's step is that of the runner with all hooks; a member's is the ``train_step`` of a plain
classifier. So the ratio, above 1 if the cohort is cheaper, has in it the method's losses, heads and
mean teachers, and L-MCL's meta-optimisation with its share: it has its turn once in 50 iterations.

The note gives the memory at the peak of one step: what PyTorch's allocator hands out above what was
held before it (activations, gradients, temporaries; no weights, optimizer state or batch), of the
cohort and of the sum of its members; on a CPU from PyTorch's profiler, which does not see the
scratch pads of oneDNN.
"""

import tempfile
from collections.abc import Callable, Iterable
from dataclasses import replace
from itertools import accumulate
from pathlib import Path

import torch
from harness import Options, Result, result, time_calls
from mmengine.config import Config
from mmengine.optim import build_optim_wrapper
from mmengine.runner import Runner
from runs import started
from torch.profiler import ProfilerActivity, profile

from mmkd.distillation.teachers import build_model
from mmkd.engine.config import load_config
from mmkd.online import MetaOptimizeHook

ROOT = Path(__file__).parents[2]
PART = 'cohort'
BASELINE = 'sum of the members'


def measure(options: Options) -> Iterable[Result]:
    """Time and weigh the cohort of every method."""
    methods = sorted(path.stem for path in (ROOT / 'configs/online/methods').glob('*.py'))
    for method in ['l_mcl'] if options.quick else methods:
        with tempfile.TemporaryDirectory() as folder:
            yield cohort_row(method, folder, options)


def cohort_row(method: str, folder: str, options: Options) -> Result:
    """Return the row of one method."""
    runner = started(run_config(method, folder, options.quick))
    loop = runner.train_loop
    batch = next(iter(loop.dataloader))
    members = {name: member_step(runner, member, batch)
               for name, member in runner.cfg.model.members.items()}

    def step(iteration: int) -> None:
        loop._iter = iteration
        loop.run_iter(batch)

    calls = members | dict(cohort=lambda: step(0))
    metas = [hook for hook in runner.hooks if isinstance(hook, MetaOptimizeHook)]
    share = 0.0
    if metas:
        # Of every `interval` iterations all but the last are without the meta-optimisation.
        calls['meta'], share = lambda: step(metas[0].interval - 1), 1 / metas[0].interval
        options = replace(options, rounds=min(options.rounds, 5))
    seconds = time_calls(calls, options)
    total = [sum(times) for times in zip(*(seconds[name] for name in members), strict=True)]
    cohort = [(1 - share) * plain + share * meta for plain, meta in zip(
        seconds['cohort'], seconds.get('meta', seconds['cohort']), strict=True)]
    peak = {name: peak_bytes(call) / 1e6 for name, call in calls.items()}
    note = f'{peak["cohort"]:.1f} MB, members {sum(peak[name] for name in members):.1f} MB'
    if metas:
        note += f', in the meta step {peak["meta"]:.1f} MB'
    return result(PART, method, BASELINE, total, cohort, note)


def member_step(runner: Runner, member: dict, batch: dict) -> Callable[[], object]:
    """Return the step of a member by itself, as configs/classification/distill.py trains it."""
    preprocessor = {key: value for key, value in runner.cfg.model.data_preprocessor.items()
                    if key != 'views'}
    model = build_model(Config(dict(model=dict(member, data_preprocessor=preprocessor))))
    model = model.to(next(runner.model.parameters()).device).train()
    optimizer = build_optim_wrapper(model, runner.cfg.optim_wrapper)
    return lambda: model.train_step(batch, optimizer)


def peak_bytes(call: Callable[[], object]) -> int:
    """Return the most bytes that ``call`` holds at a time, above what was held before."""
    if torch.cuda.is_available():
        torch.cuda.reset_peak_memory_stats()
        before = torch.cuda.memory_allocated()
        call()
        return torch.cuda.max_memory_allocated() - before
    with profile(activities=[ProfilerActivity.CPU], profile_memory=True) as profiler:
        call()
    events = [event for event in profiler.profiler.kineto_results.events()
              if event.name() == '[memory]']
    events.sort(key=lambda event: event.start_ns())
    return max(accumulate(event.nbytes() for event in events))


def run_config(method: str, folder: str, quick: bool) -> Config:
    """Return the config of the run, with random pixels in place of the images."""
    choices = dict(method=method, members='resnet8,resnet8' if quick else 'resnet20,resnet20',
                   data='cifar100')
    cfg = load_config('online', arguments=choices)
    for name in ('val', 'test'):
        for part in ('dataloader', 'evaluator', 'cfg'):
            cfg.pop(f'{name}_{part}')
    cfg.train_dataloader.batch_size = 8 if quick else 64
    cfg.train_dataloader.dataset = dict(type='RandomPixels', images=200 if quick else 4096)
    cfg.optim_wrapper.optimizer.lr = 1e-3
    cfg.param_scheduler, cfg.work_dir = None, folder
    return cfg
