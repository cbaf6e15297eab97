"""Time and memory of a cohort's training step against the sum of its members' own steps.

    python benchmarks/cohort_step.py [--method dml] [--members resnet20,resnet20]
        [--batch-size 64] [--steps 5] [--repeats 9]

A runner is set up by configs/online/train.py, on random pixels held in memory. Its training loop
is replaced by one that times, in turn and again and again:

    NAME       `train_step` of a plain classifier like the member, without hooks: crop, flip and
               normalise, forward, loss, backward, update
    cohort     `train_step` of the runner's cohort with the method's hooks, and what these do
               before and after it
    meta step  the same in an iteration where MetaOptimizeHook has its turn (layer-wise MCL), which
               counts with its share of the iterations

The overhead is cohort / (sum of the members) - 1, of one repeat, so that what else the machine
does touches all alike; medians over the repeats. It contains the method's loss, heads and teachers.
Members alone and the cohort each preprocess a batch that is there.

Memory is the highest sum of what PyTorch's allocator hands out during one step (activations,
gradients, what operators need for themselves) above what was held when the step began (weights,
optimizer state, the batch): from PyTorch's profiler on a CPU, which does not see the scratch pads
of oneDNN, and from the allocator itself on a GPU. On a CPU set the variables in README.md.
"""

import argparse
import os
import statistics
import tempfile
from collections.abc import Callable
from itertools import accumulate
from pathlib import Path

import torch
from classification_step import TimingLoop
from mmengine.config import Config
from mmengine.optim import build_optim_wrapper
from mmengine.runner import Runner
from torch.profiler import ProfilerActivity, profile

from mmkd.distillation.teachers import build_model
from mmkd.engine.config import load_config
from mmkd.online import MetaOptimizeHook
from mmkd.registry import LOOPS

ROOT = Path(__file__).parents[1]
COHORT, META = 'cohort', 'meta step'


@LOOPS.register_module()
class CohortTimingLoop(TimingLoop):
    """Times and weighs the steps of a cohort and of its members."""

    def run(self) -> None:
        """Time every part ``repeats`` times in turn, then take the peak memory of each."""
        super().run()
        self.bytes = {name: peak_bytes(call) for name, call in self.calls.items()}

    def _parts(self) -> dict[str, Callable[[], object]]:
        runner = self.runner
        cohort = runner.model.train()
        batch = next(iter(self.dataloader))
        own = {hook['type'] for hook in runner.cfg.custom_hooks}
        hooks = [hook for hook in runner.hooks if type(hook).__name__ in own]
        metas = [hook for hook in hooks if isinstance(hook, MetaOptimizeHook)]

        def step(iteration: int) -> None:
            self.iter = iteration
            for hook in hooks:
                hook.before_train_iter(runner, 0, batch)
            cohort.train_step(batch, runner.optim_wrapper)
            for hook in hooks:
                hook.after_train_iter(runner, 0, batch)

        calls = {name: self._alone(member, batch)
                 for name, member in runner.cfg.model.members.items()}
        # Of every `interval` iterations all but the last are without MetaOptimizeHook's turn.
        self.calls = calls | {COHORT: lambda: step(0)}
        if metas:
            self.interval = metas[0].interval
            self.calls[META] = lambda: step(self.interval - 1)
        return self.calls

    def _alone(self, member: dict, batch: dict) -> Callable[[], object]:
        """Return the step of a member by itself, as configs/classification/distill.py trains it."""
        preprocessor = {key: value for key, value in self.runner.cfg.model.data_preprocessor.items()
                        if key != 'views'}
        model = build_model(Config(dict(model=dict(member, data_preprocessor=preprocessor))))
        model = model.to(next(self.runner.model.parameters()).device).train()
        optimizer = build_optim_wrapper(model, self.runner.cfg.optim_wrapper)
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


def run_config(args: argparse.Namespace, folder: str) -> Config:
    """Return the config of the run, with random pixels in place of the images."""
    os.environ.update(METHOD=args.method, MEMBERS=args.members, DATA='cifar100')
    cfg = load_config(ROOT / 'configs/online/train.py')
    for name in ('val', 'test'):
        for part in ('dataloader', 'evaluator', 'cfg'):
            cfg.pop(f'{name}_{part}')
    cfg.train_cfg = dict(type='CohortTimingLoop', steps=args.steps, repeats=args.repeats)
    cfg.train_dataloader.batch_size = args.batch_size
    cfg.train_dataloader.dataset = dict(type='RandomPixels', size=args.size)
    cfg.optim_wrapper.optimizer.lr = 1e-3
    cfg.work_dir, cfg.log_level = folder, 'WARNING'
    return cfg


def report(loop: CohortTimingLoop) -> str:
    """Return the table and the overheads."""
    lines = ['| step | ms | MB at the peak |', '| --- | --- | --- |']
    lines += [f'| {name} | {1e3 * statistics.median(times):.1f} | {loop.bytes[name] / 1e6:.1f} |'
              for name, times in loop.seconds.items()]
    members = [name for name in loop.seconds if name not in (COHORT, META)]
    seconds = {name: torch.tensor(times) for name, times in loop.seconds.items()}
    total, cohort = sum(seconds[name] for name in members), seconds[COHORT]
    if META in seconds:
        cohort = cohort + (seconds[META] - cohort) / loop.interval
    shares = (100 * (cohort / total - 1)).tolist()
    low, median, high = statistics.quantiles(shares, n=4)
    memory = 100 * (loop.bytes[COHORT] / sum(loop.bytes[name] for name in members) - 1)
    lines += [f'\ntime of the cohort above the sum of its members: {median:.1f} % '
              f'(quartiles {low:.1f} ... {high:.1f})', f'memory: {memory:.1f} %']
    if META in seconds:
        lines.append(f'the meta step is one of {loop.interval}, and counts as such in the time')
    return '\n'.join(lines)


def main() -> None:
    """Measure and print."""
    methods = sorted(path.stem for path in (ROOT / 'configs/online/methods').glob('*.py'))
    parser = argparse.ArgumentParser(description=__doc__.split('\n')[0])
    parser.add_argument('--method', default='dml', choices=methods)
    parser.add_argument('--members', default='resnet20,resnet20', help='networks of the registry')
    parser.add_argument('--batch-size', type=int, default=64)
    parser.add_argument('--size', type=int, default=32, help='side of the images in pixels')
    parser.add_argument('--steps', type=int, default=5, help='calls that one time is the mean of')
    parser.add_argument('--repeats', type=int, default=9)
    args = parser.parse_args()
    with tempfile.TemporaryDirectory() as folder:
        runner = Runner.from_cfg(run_config(args, folder))
        runner.train()
    print(f'{args.members}, {args.method}, batch {args.batch_size}, {args.size} px, '
          f'{next(runner.model.parameters()).device}, {torch.get_num_threads()} threads, '
          f'torch {torch.__version__}\n')
    print(report(runner.train_loop))


if __name__ == '__main__':
    main()
