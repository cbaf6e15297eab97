"""How far each term of a config moves because its teachers' outputs are stored.

    python benchmarks/cache_error.py configs/centernet_mt_r18.py [CHECKPOINT] [--batches 20]
        [--cfg-options ...]

The student (CHECKPOINT, or its initial weights without one) and the teachers see batches of the
training data. Every term is computed twice, from what the teachers say and from what remains of it
once it is stored as float16 and read again. Printed are the relative difference of the term, mean
and largest over the batches, and the bytes of an image for each teacher and tap.
"""

import argparse
import statistics
import tempfile
from collections import defaultdict
from collections.abc import Iterator, Mapping, Sequence
from itertools import islice
from typing import Any

import numpy as np
import torch
from mmengine.config import DictAction
from mmengine.runner import Runner
from runs import started, without_validation

from mmkd.distillation import TeacherHook, load_weights
from mmkd.distillation.cache.codecs import Codec
from mmkd.distillation.cache.shards import entry_bytes
from mmkd.distillation.distill_hook import Step
from mmkd.distillation.taps import TapRecorder, forward_for_taps
from mmkd.engine.cli import user_errors
from mmkd.engine.config import load_config

Bytes = dict[tuple[str, str], list[int]]


@torch.no_grad()
def losses(runner: Runner, batches: int, sizes: Bytes) -> Iterator[tuple[str, float, float]]:
    """Yield for each term and batch its name and value without and with storing."""
    [hook] = [hook for hook in runner.hooks if isinstance(hook, TeacherHook)]
    terms = [term for term in hook.terms if term.needs_teachers]
    recorder = TapRecorder(runner.model, [tap for term in terms for tap in term.student_taps()])
    for batch in islice(runner.train_dataloader, batches):
        data = runner.model.data_preprocessor(batch, True)
        inputs, samples = data['inputs'], data['data_samples']
        recorder.start()
        forward_for_taps(runner.model, inputs)
        own = recorder.take()
        live, stored = {}, {}
        for teacher in hook.teachers:
            live[teacher.name] = teacher(inputs, samples)
            stored[teacher.name] = {
                tap: through_storage(term.stored_as('float16'), live[teacher.name][tap],
                                     sizes[teacher.name, tap])
                for term in terms for tap in term.teacher_taps[teacher.name]}
        for term in terms:
            first, second = (
                float(term.compute(Step(own, hook.teachers, taps, samples, runner.model)))
                for taps in (live, stored))
            yield term.name, first, second


def through_storage(codec: Codec, value: Any, sizes: list[int]) -> Any:
    """Encode and decode the value of a tap."""
    images: Sequence[Sequence[np.ndarray]] = codec.encode(value)
    sizes += map(entry_bytes, images)
    return codec.decode([[torch.from_numpy(array) for array in column]
                         for column in zip(*images, strict=True)])


def report(found: Mapping[str, list[float]], sizes: Bytes) -> str:
    """Return both tables."""
    lines = ['| term | relative difference, mean | largest |', '| --- | --- | --- |']
    lines += [f'| {name} | {statistics.mean(values):.1e} | {max(map(abs, values)):.1e} |'
              for name, values in found.items()]
    lines += ['', '| teacher | tap | KB an image |', '| --- | --- | --- |']
    lines += [f'| {teacher} | {tap} | {statistics.mean(values) / 1000:.1f} |'
              for (teacher, tap), values in sizes.items()]
    return '\n'.join(lines)


@user_errors()
def main() -> None:
    """Measure and print."""
    parser = argparse.ArgumentParser(description=__doc__,
                                     formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument('config')
    parser.add_argument('checkpoint', nargs='?')
    parser.add_argument('--batches', type=int, default=20)
    parser.add_argument('--cfg-options', nargs='+', action=DictAction)
    args = parser.parse_args()
    cfg = load_config(args.config, args.cfg_options)
    cfg.pop('teacher_cache', None)
    without_validation(cfg)
    with tempfile.TemporaryDirectory() as folder:
        cfg.work_dir = folder
        runner = started(cfg)
        if args.checkpoint:
            load_weights(runner.model, args.checkpoint)
        found, sizes = defaultdict(list), defaultdict(list)
        for name, first, second in losses(runner, args.batches, sizes):
            found[name].append(second / first - 1)
    print(report(found, sizes))


if __name__ == '__main__':
    main()
