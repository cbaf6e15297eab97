"""Time a distillation step of classifiers and its parts, side by side in one process.

    python benchmarks/classification_step.py [--method kd] [--teacher resnet32x4]
        [--student resnet8x4] [--batch-size 64] [--steps 5] [--repeats 9]

A runner is set up as tools/train.py does it, on random pixels held in memory. Its training loop is
replaced by one that times, in turn and again and again:

    data     loader and BatchPreprocessor (crop, flip, normalise)
    student  `train_step` of a second student without hooks: forward, loss, backward, update
    teacher  forward of the bare teacher on a preprocessed batch
    by hand  the second student's step with the teacher's forward in its middle, no other loss
    step     `train_step` of the runner's student with the hooks of the method

Times are medians over the repeats. The framework's overhead is step - student - teacher, and
step - by hand, of one repeat, so that what else the machine does touches all alike; it contains the
method's own loss. The data path is no part of it: a step takes a batch that is there, and
preprocesses it. On a CPU set the variables for glibc's malloc in README.md, or a good part of the
step is spent on handing memory back to the system and fetching it again.
"""

import argparse
import statistics
import tempfile
import time
from collections.abc import Callable
from itertools import cycle
from pathlib import Path

import torch
from mmengine.config import Config
from mmengine.optim import build_optim_wrapper
from mmengine.runner import BaseLoop, Runner

import mmkd  # noqa: F401
from mmkd.classification.data import MemoryDataset
from mmkd.distillation import TeacherHook
from mmkd.distillation.teachers import build_model
from mmkd.engine.config import load_config
from mmkd.registry import DATASETS, LOOPS

METHODS = Path(__file__).parents[1] / 'configs/classification/methods'
CLASSES = 100
IMAGES = 4096
WARMUP = 2


@DATASETS.register_module()
class RandomPixels(MemoryDataset):
    """Images of noise with the classes in turn."""

    def __init__(self, size: int) -> None:
        images = torch.randint(0, 256, (IMAGES, 3, size, size), dtype=torch.uint8)
        super().__init__(images, torch.arange(IMAGES) % CLASSES, [str(i) for i in range(CLASSES)])


@LOOPS.register_module()
class TimingLoop(BaseLoop):
    """Times the parts of a step where a runner would train."""

    def __init__(self, runner: Runner, dataloader: dict, steps: int, repeats: int) -> None:
        super().__init__(runner, dataloader)
        self.steps, self.repeats = steps, repeats
        self.iter = self.epoch = 0
        self.max_iters = self.max_epochs = 1
        self.seconds: dict[str, list[float]] = {}

    def run(self) -> None:
        """Time every part ``repeats`` times in turn."""
        self.runner.call_hook('before_train')
        self.runner.call_hook('before_train_epoch')
        self.runner.call_hook('before_train_iter', batch_idx=0, data_batch=None)
        parts = self._parts()
        for call in parts.values():
            _seconds(call, WARMUP)
        for _ in range(self.repeats):
            for name, call in parts.items():
                self.seconds.setdefault(name, []).append(_seconds(call, self.steps))

    def _parts(self) -> dict[str, Callable[[], object]]:
        runner = self.runner
        student = runner.model.train()
        alone = build_model(runner.cfg).to(next(student.parameters()).device).train()
        optimizer = build_optim_wrapper(alone, runner.cfg.optim_wrapper)
        [hook] = [hook for hook in runner.hooks if isinstance(hook, TeacherHook)]
        teacher = hook.teachers[0].model
        batches = (batch for _ in cycle([None]) for batch in self.dataloader)
        batch = next(batches)
        inputs = student.data_preprocessor(batch, False)['inputs']

        @torch.no_grad()
        def forward() -> torch.Tensor:
            return teacher(inputs, mode='tensor')

        def by_hand() -> None:
            data = alone.data_preprocessor(batch, True)
            losses = alone(**data, mode='loss')
            with torch.no_grad():
                teacher(data['inputs'], mode='tensor')
            optimizer.update_params(alone.parse_losses(losses)[0])

        return dict(
            data=lambda: student.data_preprocessor(next(batches), True),
            student=lambda: alone.train_step(batch, optimizer),
            teacher=forward,
            by_hand=by_hand,
            step=lambda: student.train_step(batch, runner.optim_wrapper))


def _seconds(call: Callable[[], object], steps: int) -> float:
    """Return the mean time of ``steps`` calls."""
    _wait()
    start = time.perf_counter()
    for _ in range(steps):
        call()
    _wait()
    return (time.perf_counter() - start) / steps


def _wait() -> None:
    if torch.cuda.is_available():
        torch.cuda.synchronize()


def run_config(args: argparse.Namespace, folder: str) -> Config:
    """Return the config of a run, with a teacher of random weights in ``folder``."""
    method = load_config(METHODS / f'{args.method}.py')

    def network(name: str) -> dict:
        return dict(type='Classifier', backbone=dict(type=name), num_classes=CLASSES,
                    data_preprocessor=dict(type='BatchPreprocessor', mean=[128.0] * 3,
                                           std=[64.0] * 3))

    teacher = dict(model=network(args.teacher), checkpoint=f'{folder}/teacher.pth')
    torch.save(build_model(Config(dict(model=teacher['model']))).state_dict(),
               teacher['checkpoint'])
    return Config(dict(
        model=dict(network(args.student), **method.get('model', {})),
        teachers=dict(teacher=teacher), custom_hooks=method.custom_hooks,
        train_cfg=dict(type='TimingLoop', steps=args.steps, repeats=args.repeats),
        train_dataloader=dict(
            batch_size=args.batch_size, num_workers=0, drop_last=True,
            collate_fn=dict(type='whole_batch'), dataset=dict(type='RandomPixels', size=args.size),
            sampler=dict(type='DefaultSampler', shuffle=True)),
        optim_wrapper=dict(type='OptimWrapper', optimizer=dict(
            type='SGD', lr=1e-3, momentum=0.9, weight_decay=5e-4)),
        work_dir=folder, default_scope='mmkd', randomness=dict(seed=0), log_level='WARNING'))


def report(seconds: dict[str, list[float]], batch_size: int) -> str:
    """Return the table and the overhead in percent of a step."""
    names = dict(data='data path alone', student='student step alone', teacher='teacher forward',
                 by_hand='both by hand', step='distillation step')
    lines = ['| part | ms a batch | images/s |', '| --- | --- | --- |']
    for part, name in names.items():
        median = statistics.median(seconds[part])
        lines.append(f'| {name} | {1e3 * median:.1f} | {batch_size / median:.0f} |')
    parts = {name: torch.tensor(values) for name, values in seconds.items()}
    for text, others in (('student - teacher', parts['student'] + parts['teacher']),
                         ('by hand', parts['by_hand'])):
        shares = (100 * (parts['step'] - others) / parts['step']).tolist()
        low, median, high = statistics.quantiles(shares, n=4)
        lines.append(f'\noverhead, step - {text}: {median:.1f} % of the step '
                     f'(quartiles {low:.1f} ... {high:.1f})')
    return '\n'.join(lines)


def main() -> None:
    """Measure and print."""
    parser = argparse.ArgumentParser(description=__doc__.split('\n')[0])
    parser.add_argument('--method', default='kd', choices=sorted(
        path.stem for path in METHODS.glob('*.py') if path.stem != 'ce'))
    parser.add_argument('--teacher', default='resnet32x4', help='a network of the registry')
    parser.add_argument('--student', default='resnet8x4', help='a network of the registry')
    parser.add_argument('--batch-size', type=int, default=64)
    parser.add_argument('--size', type=int, default=32, help='side of the images in pixels')
    parser.add_argument('--steps', type=int, default=5, help='calls that one time is the mean of')
    parser.add_argument('--repeats', type=int, default=9)
    args = parser.parse_args()
    with tempfile.TemporaryDirectory() as folder:
        runner = Runner.from_cfg(run_config(args, folder))
        runner.train()
    print(f'{args.teacher} -> {args.student}, {args.method}, batch {args.batch_size}, '
          f'{args.size} px, {next(runner.model.parameters()).device}, '
          f'{torch.get_num_threads()} threads, torch {torch.__version__}\n')
    print(report(runner.train_loop.seconds, args.batch_size))


if __name__ == '__main__':
    main()
