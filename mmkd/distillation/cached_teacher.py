"""A teacher whose outputs are read from the disk."""

from collections.abc import Iterable, Mapping, Sequence
from typing import Any

import torch
from torch import Tensor

from mmkd.distillation.renormalisation import fed_size
from mmkd.distillation.taps import Tapped
from mmkd.distillation.teachers import Teacher
from mmkd.errors import UserError
from mmkd.teacher_cache.codecs import Codec
from mmkd.teacher_cache.outputs import columns
from mmkd.teacher_cache.shards import Entry
from mmkd.teacher_cache.store import TeacherStore

__all__ = ['CachedTeacher']


class CachedTeacher(Teacher):
    """Gives a teacher's taps from its :class:`TeacherStore`, and from itself what is not there.

    Args:
        store: complete.
        codecs: for each stored leaf how it is stored.
        weight: share of this teacher among its peers, > 0.
        device: where the taps are wanted.
        live: the network, for taps that are not stored; None if there are none.
        size: of its inputs, see :func:`~mmkd.distillation.teachers.build_teacher`.
        multiple_of: see there.
        other_images: whether ``live`` answers alone for images that are not of the store.
    """

    def __init__(self, store: TeacherStore, codecs: Mapping[str, Codec], weight: float,
                 device: torch.device, live: Teacher | None = None,
                 size: Sequence[int] | None = None, multiple_of: int | None = None,
                 other_images: bool = False) -> None:
        assert store.contents is not None
        self.name = store.folder.name
        self.weight = weight
        self.store = store
        self.codecs = codecs
        self.device = device
        self.model = None if live is None else live.model
        """The network itself, if a term that is not cached needs it."""
        self._live = live
        self._other_images = other_images
        self._lives_beside = live is not None
        self._size, self._multiple_of = size, multiple_of
        self._stored: set[str] = set()
        self.classes = store.contents.classes and tuple(store.contents.classes)

    def tap(self, taps: Iterable[str], inputs: Tensor, data_samples: Any = None) -> Tapped:
        """Choose what to give; return it for the first view of as many images."""
        assert self.store.contents is not None
        patterns = self.store.contents.patterns
        wanted = list(dict.fromkeys(taps))
        # The store may hold more than this run's cached terms have codecs for.
        stored = {tap: patterns[tap] for tap in wanted
                  if tap in patterns and self.codecs.keys() >= set(patterns[tap])}
        self._stored = {leaf for leaves in stored.values() for leaf in leaves}
        values = self._decoded([self.store.read(i % self.store.images, 0)
                                for i in range(len(inputs))])
        found = {tap: {leaf: values[leaf] for leaf in leaves} for tap, leaves in stored.items()}
        others = [tap for tap in wanted if tap not in stored]
        if self._live is None:
            return found
        self._lives_beside = bool(others) or not self._other_images
        return self._live.tap(wanted if self._other_images else others, inputs,
                              data_samples) | found

    def __call__(self, inputs: Tensor, data_samples: Any = None,
                 shared: dict[Any, Tensor] | None = None) -> dict[str, Tensor]:
        """Return the taps for a batch.

        Args:
            inputs: ``(B, 3, H, W)``, for taps that are not stored.
            data_samples: come from :class:`FixedViews`, or say which views a data preprocessor
                made.
            shared: of the teachers that run, see :class:`Teacher`.

        Raises:
            UserError: they do not, the batch is of another size, or the store is damaged.
        """
        if self._other_images and not _is_stored(data_samples):
            return self._live(inputs, data_samples, shared)
        self.store.check_size(*inputs.shape[-2:])
        found = self._decoded(self._entries(data_samples))
        if not self._lives_beside:
            return found
        return self._live(inputs, data_samples, shared) | found

    def input_size(self, own: Sequence[int]) -> tuple[int, int]:
        """Return height and width of what it was fed; see the base class."""
        return fed_size(own, self._size, self._multiple_of)

    def _entries(self, samples: Any) -> list[Entry]:
        several = list(samples) if isinstance(samples, (list, tuple)) else [samples]
        if all('stored' in sample for sample in several):
            return [entry for sample in several for entry in sample.stored.entries[self.name]]
        if 'views' not in several[0]:
            raise UserError(f"teacher '{self.name}' is cached, and this batch does not say which "
                            'views it holds: take mixup, cutmix, views and pairs out of the '
                            'data_preprocessor, or teacher_cache out of the config')
        return [self.store.read(image, view) for image, view in several[0].views.tolist()]

    def _decoded(self, entries: Sequence[Entry]) -> dict[str, Tensor]:
        assert self.store.contents is not None
        counts = self.store.contents.arrays
        arrays = columns(entries, self.device)
        found, start = {}, len(arrays) - sum(counts.values())  # a fingerprint may come first
        for tap, count in counts.items():
            if tap in self._stored:
                found[tap] = self.codecs[tap].decode(arrays[start:start + count])
            start += count
        return found


def _is_stored(samples: Any) -> bool:
    return all('stored' in sample for sample in samples)
