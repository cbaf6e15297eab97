"""Teachers of a run whose config has a ``teacher_cache``: check, complete and open their stores."""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from mmengine.config import Config
from mmengine.logging import print_log
from torch import nn
from torch.utils.data import DataLoader

from mmkd.distillation.cache_build import Job, build
from mmkd.distillation.cached_teacher import CachedTeacher
from mmkd.distillation.taps import flat
from mmkd.distillation.teachers import Teacher
from mmkd.distillation.term import Term
from mmkd.errors import UserError, did_you_mean
from mmkd.teacher_cache.codecs import Codec, check_first_axis
from mmkd.teacher_cache.identity import data_identity, teacher_identity
from mmkd.teacher_cache.options import CacheOptions
from mmkd.teacher_cache.store import Contents, TeacherStore
from mmkd.teacher_cache.views import FixedViews

__all__ = ['CachePlan']

IMAGES_PER_SHARD = 128
IMAGES_PER_SHARD_IN_MEMORY = 8192


@dataclass
class CachePlan:
    """What a run needs of its cache.

    Args:
        options: ``teacher_cache`` of the config.
        cfg: of the run, after :func:`fix_views`.
        terms: of the run.
        loader: of the training data.
        student: the model.
        build_teacher: builds a teacher by its name and entry.
        other_images: whether the teachers also see images that are not cached.

    Raises:
        UserError: ``options`` do not fit the run.
    """

    options: CacheOptions
    cfg: Config
    terms: Sequence[Term]
    loader: DataLoader
    student: nn.Module
    build_teacher: Callable[[str, Mapping[str, Any]], Teacher]
    other_images: bool = False

    def __post_init__(self) -> None:
        self.preprocessor = self.student.data_preprocessor
        taught = [term for term in self.terms if term.needs_teachers]
        names = [term.name for term in taught]
        for name in self.options.terms or ():
            if name not in names:
                raise UserError(f"teacher_cache.terms names '{name}', which is no term of this run "
                                f"({', '.join(names)}).{did_you_mean(name, names)}")
        self.cached = [term for term in taught
                       if self.options.terms is None or term.name in self.options.terms]
        for term in self.cached:
            if term.needs_model:
                raise UserError(f"term '{term.name}' needs its teachers in every step, and a "
                                'cache cannot stand for them there: leave this term out of '
                                'teacher_cache.terms, and list the others there')
        self.live = [term for term in taught if term not in self.cached]
        self.dataset = self._views()
        if getattr(self.preprocessor, 'batch_augments', None):
            raise UserError('teacher_cache cannot be used with batch_augments of the '
                            'data_preprocessor, which draws anew for every batch: take it out')

    def _views(self) -> FixedViews:
        """Return the data set of all views, for the pass of the teachers."""
        found = self.loader.dataset
        while not isinstance(found, FixedViews) and hasattr(found, '_dataset'):
            found = found._dataset  # mmengine's num_batch_per_epoch wraps the data set
        if self.options.views == 'all':
            count = getattr(self.preprocessor, 'num_views', None)
            if count is None or getattr(found, 'augments', True):
                raise UserError("teacher_cache.views='all' needs data in memory and a "
                                'data_preprocessor that draws from few views (BatchPreprocessor): '
                                'give a number of views')
            return FixedViews(found, count, None)
        if not isinstance(found, FixedViews):
            raise UserError('teacher_cache needs fixed views of the training data: start the run '
                            'by mmkd train, or call mmkd.teacher_cache.fix_views(cfg) '
                            'before the runner is built')
        return found

    def teachers(self, entries: Mapping[str, Mapping[str, Any]],
                 device: torch.device) -> list[Teacher]:
        """Return the teachers of the run, after what is missing of the cache was built.

        Raises:
            UserError: a store is stale, or cannot be written.
        """
        if not self.cached:
            return [self.build_teacher(name, entry) for name, entry in entries.items()]
        stores = self.complete(entries)
        found = []
        for name, entry in entries.items():
            if name not in stores:
                found.append(self.build_teacher(name, entry))
                continue
            live = [term for term in self.live if term.learns_from(name)]
            needs_live = self.other_images or any(term.needs_model for term in live) or any(
                tap not in self._codecs(name) for term in live
                for tap in term.stored_as(self.options.dtype))
            found.append(CachedTeacher(
                stores[name], self._expanded(name, stores[name].contents.patterns),
                entry.get('weight', 1.0), device,
                self.build_teacher(name, entry) if needs_live else None,
                entry.get('size'), entry.get('multiple_of'), self.other_images))
        if self.dataset.augments:
            self.dataset.stores = stores
        return found

    def complete(self, entries: Mapping[str, Mapping[str, Any]]) -> dict[str, TeacherStore]:
        """Open the store of every teacher that has one; build what is missing.

        Raises:
            UserError: a store is stale, or cannot be written.
        """
        stores = self._opened({name: entry for name, entry in entries.items()
                               if 'checkpoint' in entry})
        incomplete = {name: store for name, store in stores.items() if store.contents is None
                      or store.missing(store.units(self.dataset.views))[0]}
        if incomplete:
            job = self._job(entries, incomplete)
            build(job, Path(self.options.folder), self.loader.batch_sampler.batch_size)
        return stores

    def _opened(self, entries: Mapping[str, Mapping[str, Any]]) -> dict[str, TeacherStore]:
        data = data_identity(self.dataset.dataset, self.cfg, self.options)
        stores = {}
        for name, entry in entries.items():
            if not self._codecs(name):
                continue
            store = TeacherStore(
                Path(self.options.folder, name), data | teacher_identity(entry),
                len(self.dataset),
                IMAGES_PER_SHARD if self.dataset.augments else IMAGES_PER_SHARD_IN_MEMORY)
            store.load()
            lacking = store.contents and store.covers(
                {tap: codec.name for tap, codec in self._codecs(name).items()})
            if lacking:
                raise UserError(f"the cache '{store.folder}' does not serve this run: {lacking}; "
                                'name another folder in teacher_cache, or delete this one to '
                                'build it anew')
            stores[name] = store
        return stores

    def _codecs(self, teacher: str) -> dict[str, Codec]:
        """For each tap that a cached term has of a teacher how its leaves are stored."""
        found: dict[str, Codec] = {}
        for term in (term for term in self.cached if term.learns_from(teacher)):
            for tap, codec in term.stored_as(self.options.dtype).items():
                if found.setdefault(tap, codec).name != codec.name:
                    raise UserError(f"teacher_cache: '{tap}' is stored in another way for term "
                                    f"'{term.name}' than for the others: list the terms to cache, "
                                    'teacher_cache.terms=[...]')
        return found

    def _expanded(self, teacher: str, patterns: Mapping[str, Sequence[str]]) -> dict[str, Codec]:
        return {leaf: codec for pattern, codec in self._codecs(teacher).items()
                for leaf in patterns[pattern]}

    def _job(self, entries: Mapping[str, Mapping[str, Any]],
             stores: Mapping[str, TeacherStore]) -> Job:
        """Build the teachers that have to run, and describe what they store."""
        print_log(f"Teachers {', '.join(stores)}: their outputs for {self.dataset.views} views of "
                  f'{len(self.dataset)} images go to {self.options.folder}', 'current')
        first = self.loader.collate_fn(self.dataset.__getitems__([0]))
        data = self.preprocessor(first, True)
        inputs = data['inputs']
        pairs, codecs = [], {}
        for name, store in stores.items():
            teacher = self.build_teacher(name, entries[name])
            for term in self.cached:
                if term.learns_from(name):
                    term.meet(self.student, [teacher])
            tapped = teacher.tap(self._codecs(name), inputs, data.get('data_samples'))
            patterns = {pattern: list(leaves) for pattern, leaves in tapped.items()}
            codecs[name] = self._expanded(name, patterns)
            values = flat(tapped)
            for leaf, value in values.items():
                check_first_axis(value, len(inputs), leaf, name)
            arrays = {leaf: codec.encode(values[leaf])[0] for leaf, codec in codecs[name].items()}
            store.create(Contents(
                taps={leaf: codec.name for leaf, codec in codecs[name].items()},
                arrays={leaf: len(own) for leaf, own in arrays.items()}, patterns=patterns,
                classes=teacher.classes and list(teacher.classes),
                input_size=list(inputs.shape[-2:])))
            pairs.append((teacher, store))
        return Job(pairs, codecs, self.dataset, self.dataset.views,
                   lambda batch: self.preprocessor(batch, True), self.loader)
