"""Batches of images that belong together.

Both are batch samplers: they take the images of this process from the data loader's ``sampler``,
and with them its seed, its epoch and its share of a distributed run::

    train_dataloader = dict(
        batch_size=128, dataset=dict(type='CIFAR100', data_root='data'),
        sampler=dict(type='DefaultSampler', shuffle=True),
        batch_sampler=dict(type='PairSampler'), drop_last=False,
        collate_fn=dict(type='whole_batch'))

PyTorch wants no ``drop_last=True`` beside a batch sampler.
"""

from collections.abc import Iterator
from itertools import cycle, islice

import numpy as np
import torch
from mmengine.dataset import DefaultSampler
from torch import Tensor
from torch.utils.data import Sampler

from mmkd.errors import UserError
from mmkd.registry import DATA_SAMPLERS

__all__ = ['ClassBalancedSampler', 'PairSampler']


class _BatchSampler(Sampler):
    """A batch sampler over ``sampler``, whose ``set_epoch`` mmengine calls every epoch."""

    def __init__(self, sampler: DefaultSampler, batch_size: int) -> None:
        name = type(self).__name__
        labels = getattr(getattr(sampler, 'dataset', None), 'labels', None)
        if not isinstance(sampler, DefaultSampler) or not isinstance(labels, Tensor):
            raise UserError(f"{name} needs sampler=dict(type='DefaultSampler') and a data set with "
                            f'`labels`, not {type(sampler).__name__} of '
                            f'{type(getattr(sampler, "dataset", None)).__name__}')
        self.sampler = sampler
        self.batch_size = batch_size
        self.labels = labels

    def _generator(self) -> torch.Generator:
        """A generator that depends on seed, epoch and rank alone."""
        numbers = (self.sampler.seed, self.sampler.epoch, self.sampler.rank)
        seed = np.random.SeedSequence(numbers).generate_state(1)[0]
        return torch.Generator().manual_seed(int(seed))


@DATA_SAMPLERS.register_module()
class PairSampler(_BatchSampler):
    """Batches of ``b/2`` images followed by, in the same order, another image of each one's class.

    The first halves of all batches are the images of ``sampler``, so an epoch has twice the
    batches that it has without pairs. The partner is drawn uniformly from all other images of the
    class; a class with one member pairs with itself. What CS-KD needs (S. Yun et al., CVPR 2020,
    arXiv 2003.13964). Use it as ``batch_sampler=dict(type='PairSampler')``.

    Args:
        sampler: mmengine's DefaultSampler over a data set with ``labels``.
        batch_size: ``b``, even; the last batch of an epoch may be smaller.

    Raises:
        UserError: ``batch_size`` is odd or below 2, or ``sampler`` is none of these.
    """

    def __init__(self, sampler: DefaultSampler, batch_size: int) -> None:
        super().__init__(sampler, batch_size)
        if batch_size < 2 or batch_size % 2:
            raise UserError(f'PairSampler has batch_size {batch_size}: give an even number')
        self._by_class = torch.argsort(self.labels, stable=True)
        self._place = torch.argsort(self._by_class)
        self._size = torch.bincount(self.labels)
        self._start = self._size.cumsum(0) - self._size

    def __len__(self) -> int:
        """The number of batches of this process in an epoch."""
        return -(-len(self.sampler) // (self.batch_size // 2))

    def __iter__(self) -> Iterator[list[int]]:
        generator = self._generator()
        images = iter(self.sampler)
        while half := list(islice(images, self.batch_size // 2)):
            yield half + self._partners(torch.tensor(half), generator).tolist()

    def _partners(self, images: Tensor, generator: torch.Generator) -> Tensor:
        label = self.labels[images]
        start, size = self._start[label], self._size[label]
        # 1 .. size - 1 places on from the image in the ring of its class; 0 if it is alone.
        draw = torch.rand(len(images), generator=generator, dtype=torch.float64)
        step = (1 + (draw * (size - 1)).long()).clamp(max=size - 1)
        return self._by_class[start + (self._place[images] - start + step) % size]


@DATA_SAMPLERS.register_module()
class ClassBalancedSampler(_BatchSampler):
    """Batches of ``P`` different classes with ``K`` images each, class by class.

    The classes come in turns, in random order, and within each its images that ``sampler`` gives
    this process in turns, so classes are seen equally often however large they are; a class with
    fewer than ``K`` images repeats them. An epoch has ``len(sampler) // batch_size`` batches, at
    least one, the same number on every process. Use it as
    ``batch_sampler=dict(type='ClassBalancedSampler', samples_per_class=K)``.

    Args:
        sampler: mmengine's DefaultSampler over a data set with ``labels``.
        batch_size: ``P * K``.
        samples_per_class: ``K``.

    Raises:
        UserError: ``batch_size`` is no multiple of ``samples_per_class``, or ``sampler`` is none
            of these; when iterated: there are fewer than ``P`` classes.
    """

    def __init__(self, sampler: DefaultSampler, batch_size: int, samples_per_class: int) -> None:
        super().__init__(sampler, batch_size)
        if samples_per_class < 1 or batch_size < 1 or batch_size % samples_per_class:
            raise UserError(f'ClassBalancedSampler has batch_size {batch_size} and '
                            f'samples_per_class {samples_per_class}: make the batch a multiple')
        self.samples_per_class = samples_per_class

    def __len__(self) -> int:
        """The number of batches of this process in an epoch."""
        return max(1, len(self.sampler) // self.batch_size)

    def __iter__(self) -> Iterator[list[int]]:
        members: dict[int, list[int]] = {}
        for image in self.sampler:
            members.setdefault(int(self.labels[image]), []).append(image)
        per_batch = self.batch_size // self.samples_per_class
        if per_batch > len(members):
            raise UserError(f'ClassBalancedSampler needs {per_batch} classes for a batch and this '
                            f'process has {len(members)}: lower batch_size or raise '
                            'samples_per_class')
        turns = {label: cycle(images) for label, images in members.items()}
        classes = self._turns_of_classes(sorted(members), per_batch)
        for _ in range(len(self)):
            yield [image for label in islice(classes, per_batch)
                   for image in islice(turns[label], self.samples_per_class)]

    def _turns_of_classes(self, classes: list[int], per_batch: int) -> Iterator[int]:
        """Deal the classes in random order again and again, no class twice within a batch."""
        generator = self._generator()
        hand: list[int] = []
        while True:
            if len(hand) < per_batch:
                deck = [classes[i] for i in torch.randperm(len(classes), generator=generator)]
                # Those still in the hand go below, so that they do not come twice in this batch.
                hand += sorted(deck, key=set(hand).__contains__)
            yield from hand[:per_batch]
            del hand[:per_batch]
