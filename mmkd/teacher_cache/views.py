"""Fixed augmented views: what is drawn for an image depends on (seed, image, view) alone."""

import random
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from functools import lru_cache
from typing import Any

import numpy as np
import torch
from mmengine.dist import get_dist_info
from torch import Tensor
from torch.utils.data import Dataset, Sampler

from mmkd.registry import DATA_SAMPLERS, DATASETS
from mmkd.teacher_cache.outputs import StoredOutputs
from mmkd.teacher_cache.store import TeacherStore

__all__ = ['FixedViews', 'ViewSampler', 'fingerprint', 'view_seeds']


@DATASETS.register_module()
class FixedViews(Dataset):
    """A data set with ``views`` fixed views of every image.

    View ``v`` of image ``i`` is what the data set gives for ``i`` when Python's, NumPy's and
    PyTorch's generators start from :func:`view_seeds` ``(seed, v)[i]``; they are put back
    afterwards. It has the number ``v * len(self) + i``. Batches that a data preprocessor augments
    carry it as ``view_seeds``; data sets that draw nothing themselves say so by
    ``augments = False``.

    Args:
        dataset: a data set, or its registry config.
        views: how many there are of each image.
        seed: of the views; None if the view's own number is to settle the draw.
    """

    def __init__(self, dataset: Mapping[str, Any] | Dataset, views: int, seed: int | None) -> None:
        self.dataset = DATASETS.build(dataset) if isinstance(dataset, Mapping) else dataset
        self.views = views
        self.seed = seed
        self.augments = getattr(self.dataset, 'augments', True)
        self.stores: dict[str, TeacherStore] = {}
        """Of the teachers whose stored outputs come with each image; filled when a run begins."""

    def __getattr__(self, name: str) -> Any:  # metainfo, labels and what else there is
        if name.startswith('__') or name == 'dataset':
            raise AttributeError(name)
        return getattr(self.dataset, name)

    def __len__(self) -> int:
        return len(self.dataset)

    def number(self, image: int, view: int) -> int:
        """Return the number under which a view is asked for."""
        return view * len(self) + image

    def get_data_info(self, number: int) -> dict:
        """Return what is known of a view's image, for samplers that group by size."""
        return self.dataset.get_data_info(number % len(self))

    def __getitems__(self, numbers: Sequence[int]) -> Any:
        """Return several views: a list, or a batch if the data set makes batches by itself."""
        if self.augments:
            return [self[number] for number in numbers]
        images, views = np.array(numbers) % len(self), np.array(numbers) // len(self)
        batch = self.dataset.__getitems__(images.tolist())
        return self._described(batch, images, views)

    def __getitem__(self, number: int) -> Any:
        """Return a view."""
        view, image = divmod(int(number), len(self))
        with _generators(int(self._seeds(np.array([image]), np.array([view]))[0])):
            sample = self.dataset[image]
        if sample['inputs'].ndim == 4:  # a batch of one
            sample = self._described(sample, np.array([image]), np.array([view]))
        if self.stores:
            stored = StoredOutputs({name: [store.read(image, view)]
                                    for name, store in self.stores.items()})
            stored.check_view(fingerprint(sample['inputs']), image, view)
            sample['data_samples'].set_field(stored, 'stored')
        return sample

    def _described(self, batch: Any, images: np.ndarray, views: np.ndarray) -> Any:
        """Say in a batch's sample which views it holds, for the data preprocessor to make them."""
        batch['data_samples'].view_seeds = self._seeds(images, views)
        batch['data_samples'].views = np.stack([images, views], 1)
        return batch

    def _seeds(self, images: np.ndarray, views: np.ndarray) -> np.ndarray:
        if self.seed is None:
            return views
        return np.array([view_seeds(self.seed, view, len(self))[image]
                         for image, view in zip(images.tolist(), views.tolist(), strict=True)])


@DATA_SAMPLERS.register_module()
class ViewSampler(Sampler):
    """Draws images as another sampler does, and of each the view of this epoch.

    In every ``views`` epochs an image shows each of its views once, beginning with one that depends
    on the image: an epoch mixes all views.

    Args:
        dataset: has :class:`FixedViews`' ``views``, ``seed`` and ``number``.
        sampler: registry config of the other sampler.
        seed: of the other sampler.
    """

    def __init__(self, dataset: FixedViews, sampler: Mapping[str, Any],
                 seed: int | None = None) -> None:
        self.dataset = dataset
        self.sampler = DATA_SAMPLERS.build(dict(sampler),
                                           default_args=dict(dataset=dataset, seed=seed))
        self.epoch = 0

    def __len__(self) -> int:
        return len(self.sampler)

    def set_epoch(self, epoch: int) -> None:
        """Choose the views, and the order of the images, of an epoch."""
        self.epoch = epoch
        if hasattr(self.sampler, 'set_epoch'):
            self.sampler.set_epoch(epoch)

    def __iter__(self) -> Iterator[int]:
        views, images = self.dataset.views, len(self.dataset)
        cycle, first = -1, np.empty(0)
        rank, processes = get_dist_info()
        for drawn, image in enumerate(self.sampler):
            # A sampler without an end goes on to the next epoch by itself.
            epoch = self.epoch + (drawn * processes + rank) // images
            if cycle != epoch // views:
                cycle = epoch // views
                # Three numbers: no view has the generator of this one.
                first = np.random.default_rng((self.dataset.seed, cycle, 1)).integers(
                    views, size=images)
            yield self.dataset.number(image, (int(first[image]) + epoch) % views)


@lru_cache(maxsize=64)
def view_seeds(seed: int, view: int, images: int) -> np.ndarray:
    """Return what the generators of each image's view start from, ``(images,)`` int64.

    That of image ``i`` is the ``i``-th number of NumPy's generator of ``(seed, view)``, so that
    images that are added behind the others change none of them.
    """
    return np.random.default_rng((seed, view)).integers(2 ** 63, size=images)


def fingerprint(inputs: Tensor) -> np.ndarray:
    """Return 4 x 4 mean values of each channel of an image, ``(C, 4, 4)`` float32.

    They tell views apart, and do not mind another machine's last bit. Of every fourth row and
    column alone: that takes a sixteenth of the time.

    Args:
        inputs: ``(C, H, W)``, or ``(1, C, H, W)``.
    """
    image = inputs[0] if inputs.ndim == 4 else inputs
    step = 4 if min(image.shape[-2:]) >= 64 else 1
    return torch.nn.functional.adaptive_avg_pool2d(
        image[:, ::step, ::step].float(), 4).numpy()


@contextmanager
def _generators(seed: int) -> Iterator[None]:
    """Let every generator on the CPU start from ``seed``; put them back at the end."""
    states = random.getstate(), np.random.get_state(), torch.get_rng_state()
    random.seed(seed)
    np.random.seed(seed % 2 ** 32)
    torch.default_generator.manual_seed(seed)
    try:
        yield
    finally:
        random.setstate(states[0])
        np.random.set_state(states[1])
        torch.set_rng_state(states[2])
