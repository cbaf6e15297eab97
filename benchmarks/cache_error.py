"""How far each term of a config moves because its teachers' outputs are stored.

    python benchmarks/cache_error.py configs/centernet_mt_r18.py [CHECKPOINT] [--batches 20]
        [--cfg-options ...]

The student (CHECKPOINT, or its initial weights without one) and the teachers see batches of the
training data. Every term is computed twice, from what the teachers say and from what remains of it
once it is stored as float16 and read again. Printed are the relative difference of the term, mean
and largest over the batches, and the bytes of an image for each teacher and leaf.
"""

import argparse
import statistics
import tempfile
from collections import defaultdict
from collections.abc import Iterable, Iterator, Mapping, Sequence
from functools import partial
from itertools import islice

import numpy as np
import torch
from mmengine.config import DictAction
from mmengine.runner import Runner
from runs import started, without_validation
from torch import Tensor

from mmkd.distillation import DistillationHook, Step, Teacher, Term, load_weights
from mmkd.distillation.taps import TapRecorder, forward_for_taps
from mmkd.engine.cli import user_errors
from mmkd.engine.config import load_config
from mmkd.teacher_cache.codecs import Codec
from mmkd.teacher_cache.shards import entry_bytes

Bytes = dict[tuple[str, str], list[int]]


@torch.no_grad()
def losses(runner: Runner, batches: int, sizes: Bytes) -> Iterator[tuple[str, float, float]]:
    """Yield for each term and batch its name and value without and with storing."""
    [hook] = [hook for hook in runner.hooks if isinstance(hook, DistillationHook)]
    terms = [term for term in hook.terms if term.needs_teachers]
    recorder = TapRecorder(runner.model, [tap for term in terms
                                          for tap in term.student_patterns()])
    codecs: dict[str, dict[str, Codec]] = {}
    for batch in islice(runner.train_dataloader, batches):
        data = runner.model.data_preprocessor(batch, True)
        inputs, samples = data['inputs'], data['data_samples']
        own = recorder.record(partial(forward_for_taps, runner.model, inputs, samples))
        live, stored = {}, {}
        for teacher in hook.teachers:
            if teacher.name not in codecs:
                codecs[teacher.name] = codecs_of(teacher, terms, inputs, samples)
            live[teacher.name] = teacher(inputs, samples)
            stored[teacher.name] = {
                leaf: through_storage(codec, live[teacher.name][leaf], sizes[teacher.name, leaf])
                for leaf, codec in codecs[teacher.name].items()}
        for term in terms:
            first, second = (
                float(term.compute(Step(own, hook.teachers, taps, samples, runner.model, inputs)))
                for taps in (live, stored))
            yield term.name, first, second


def codecs_of(teacher: Teacher, terms: Iterable[Term], inputs: Tensor,
              samples: object) -> dict[str, Codec]:
    """Return how each leaf is stored that some terms have of a teacher."""
    codecs = {tap: codec for term in terms if term.learns_from(teacher.name)
              for tap, codec in term.stored_as('float16').items()}
    return {leaf: codecs[tap] for tap, leaves in teacher.tap(codecs, inputs, samples).items()
            for leaf in leaves}


def through_storage(codec: Codec, leaf: Tensor, sizes: list[int]) -> Tensor:
    """Encode and decode a leaf."""
    images: Sequence[Sequence[np.ndarray]] = codec.encode(leaf)
    sizes += map(entry_bytes, images)
    return codec.decode([[torch.from_numpy(array) for array in column]
                         for column in zip(*images, strict=True)])


def report(found: Mapping[str, list[float]], sizes: Bytes) -> str:
    """Return both tables."""
    lines = ['| term | relative difference, mean | largest |', '| --- | --- | --- |']
    lines += [f'| {name} | {statistics.mean(values):.1e} | {max(map(abs, values)):.1e} |'
              for name, values in found.items()]
    lines += ['', '| teacher | leaf | KB an image |', '| --- | --- | --- |']
    lines += [f'| {teacher} | {leaf} | {statistics.mean(values) / 1000:.1f} |'
              for (teacher, leaf), values in sizes.items()]
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
