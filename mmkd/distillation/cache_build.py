"""The one pass in which the teachers see every view."""

import shutil
from collections import deque
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from mmengine.logging import print_log
from torch.utils.data import DataLoader

from mmkd.distillation.teachers import Teacher
from mmkd.errors import UserError
from mmkd.files import leftovers
from mmkd.teacher_cache.claims import Claims, Progress, Unit, claims_of, disk_errors
from mmkd.teacher_cache.codecs import Codec
from mmkd.teacher_cache.shards import entry_bytes, written_shard
from mmkd.teacher_cache.store import TeacherStore
from mmkd.teacher_cache.views import FixedViews, fingerprint

__all__ = ['Job', 'build']


@dataclass
class Job:
    """What is built: the outputs of some teachers for ``views`` views of a data set."""

    teachers: Sequence[tuple[Teacher, TeacherStore]]
    """Tapped."""
    codecs: Mapping[str, Mapping[str, Codec]]
    """For each teacher's name those of its taps."""
    dataset: FixedViews
    views: int
    prepare: Callable[[Any], dict[str, Any]]
    """Makes what the teachers get of a batch: the student's data preprocessor, in training."""
    loader: DataLoader
    """The training data's, whose ``collate_fn`` and workers are used."""

    def run(self, batch: Any) -> dict[str, list[list[np.ndarray]]]:
        """Return for each teacher's name the arrays of each image of a batch."""
        marks = [[fingerprint(image)] if self.dataset.augments else []
                 for image in batch['inputs']]
        data = self.prepare(batch)
        self.teachers[0][1].check_size(*data['inputs'].shape[-2:])
        found = {}
        for teacher, _ in self.teachers:
            taps = teacher(data['inputs'], data.get('data_samples'))
            per_tap = [codec.encode(taps[tap]) for tap, codec in self.codecs[teacher.name].items()]
            found[teacher.name] = [[array for arrays in image for array in arrays]
                                   for image in zip(marks, *per_tap, strict=True)]
        return found


def build(job: Job, folder: Path, batch_size: int) -> None:
    """Store what is missing, alone or beside other processes and machines that do the same.

    Each shard is claimed by a lock of the file system, which a process that dies gives back.

    Args:
        job: what is to be there in the end.
        folder: of the cache, where the lock file is.
        batch_size: images that the teachers see at a time.

    Raises:
        UserError: the disk is full, or would be; what is finished stays.
    """
    todo, broken = _missing(job, job.teachers[0][1].units(job.views))
    for reason in broken:
        print_log(f'{reason}: it is built anew', 'current', level=30)
    if not todo:
        return
    _check_room(job, todo)
    progress = Progress(len(todo))
    with claims_of(folder) as claims:
        while todo:
            _pass(job, todo, claims, batch_size, progress)
            todo, _ = _missing(job, todo)
            if todo:  # others are at it
                progress.wait(len(todo))
    for _, store in job.teachers:  # a killed process may have left a part of the description
        for leftover in leftovers(store.folder):
            leftover.unlink(missing_ok=True)
    print_log(f'Cache complete: {folder}', 'current')


def _missing(job: Job, units: Sequence[Unit]) -> tuple[list[Unit], list[str]]:
    absent: set[Unit] = set()
    reasons: list[str] = []
    for _, store in job.teachers:
        found, why = store.missing(units)
        absent.update(found)
        reasons += why
    return sorted(absent), reasons


def _pass(job: Job, todo: Sequence[Unit], claims: Claims, batch_size: int,
          progress: Progress) -> None:
    """Build every unit that nobody else is building."""
    store = job.teachers[0][1]
    asked: deque[tuple[Unit, int]] = deque()

    def batches() -> Iterator[list[int]]:
        for unit in todo:
            if not claims.take(unit):
                continue
            if not _missing(job, [unit])[0]:  # somebody else was faster
                claims.leave(unit)
                continue
            first = unit[1] * store.shard_size
            numbers = [job.dataset.number(image, unit[0])
                       for image in range(first, first + store.size_of(unit[1]))]
            for start in range(0, len(numbers), batch_size):
                part = numbers[start:start + batch_size]
                asked.append((unit, len(numbers) - start - len(part)))
                yield part

    loader = DataLoader(job.dataset, batch_sampler=batches(),
                        num_workers=job.loader.num_workers, collate_fn=job.loader.collate_fn)
    # Around it all: a file that the disk has no room for fails once more when it is closed.
    with disk_errors(store.folder), ExitStack() as stack:
        writers: dict[str, Any] = {}
        for batch in loader:
            unit, left = asked.popleft()
            if not writers:
                writers = {store.folder.name: stack.enter_context(_shard(store, unit, claims.held))
                           for _, store in job.teachers}
            for name, images in job.run(batch).items():
                for arrays in images:
                    writers[name].add(arrays)
            progress.images(len(images))
            if not left:
                stack.close()
                writers = {}
                claims.leave(unit)
                progress.unit()


@contextmanager
def _shard(store: TeacherStore, unit: Unit, locked: bool) -> Iterator[Any]:
    path = store.path(*unit)
    path.parent.mkdir(parents=True, exist_ok=True)
    # Whoever held the lock before and left something unfinished is dead.
    for leftover in leftovers(path.parent, path.name) if locked else ():
        leftover.unlink(missing_ok=True)
    with written_shard(path, store.owner(*unit)) as writer:
        yield writer


def _check_room(job: Job, todo: Sequence[Unit]) -> None:
    """Say what the cache will take; refuse if the disk has not that much."""
    store = job.teachers[0][1]
    views = sum(store.size_of(shard) for _, shard in todo)
    sample = job.run(job.loader.collate_fn(job.dataset.__getitems__([0])))
    for teacher, own in job.teachers:
        arrays, *_ = sample[teacher.name]
        taps, end = [], len(arrays)
        for tap, count in reversed(own.contents.arrays.items()):
            taps.append(f'{tap} {_readable(entry_bytes(arrays[end - count:end]))}')
            end -= count
        print_log(f"Cache of teacher '{teacher.name}': about {_readable(entry_bytes(arrays))} for "
                  f"a view ({', '.join(taps[::-1])})", 'current')
    total = views * sum(entry_bytes(arrays) for arrays, *_ in sample.values())
    free = shutil.disk_usage(store.folder).free
    print_log(f'{views} views are missing in the cache: about {_readable(total)}, and the disk '
              f'has {_readable(free)}', 'current')
    if total > free:
        raise UserError(f"the cache would take about {_readable(total)} and the disk of "
                        f"'{store.folder}' has {_readable(free)}: free some space, take fewer "
                        'views, or cache fewer terms (teacher_cache.terms)')


def _readable(size: float) -> str:
    for unit in ('B', 'KB', 'MB', 'GB'):
        if size < 1000:
            return f'{size:.3g} {unit}'
        size /= 1000
    return f'{size:.3g} TB'
