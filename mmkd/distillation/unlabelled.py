"""A student learns from its teachers on images without labels, as well or only.

``unlabelled = dict(data_root='photos/')`` of a config::

    mmkd.engine.unlabelled  finds the pipeline of these images and hands both to DistillationHook
    every iteration
      student(mode='loss')    the labelled batch: the student's own losses, and all terms
        student(mode='tensor')  the batch without labels, inside the hook: the terms alone
    with only=True there is no labelled batch, and the student runs as in the second line
"""

import logging
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from math import isfinite
from typing import Any

import numpy as np
import torch
from mmengine.config import Config
from mmengine.dist import all_gather_object, get_dist_info
from mmengine.logging import print_log
from mmengine.structures import BaseDataElement
from torch import Tensor, nn
from torch.utils.data import DataLoader

from mmkd.distillation.distillation import Distillation
from mmkd.distillation.dry_run import IMAGES, untouched
from mmkd.distillation.step import Step
from mmkd.distillation.term import Term
from mmkd.errors import UserError
from mmkd.options import read_options
from mmkd.random_state import undisturbed_random_state
from mmkd.teacher_cache.views import FixedViews

__all__ = ['SKIPPED', 'Unlabelled', 'UnlabelledOptions', 'check_without_labels',
           'run_without_losses', 'unlabelled_options', 'without_labels']

SKIPPED = 'skipped'
"""Entry of a sample's metainfo: by their paths the images that it takes the place of, and why."""
LABELS = ('gt_', 'ignored_')
"""How the names of a data sample's fields begin that are labels."""
TURNS = 1 << 40
"""More passes over a folder than any training makes."""


@dataclass(frozen=True)
class UnlabelledOptions:
    """``unlabelled = dict(...)`` of a config.

    Raises:
        UserError: an entry is out of its range.
    """

    data_root: str
    """A folder with images, at any depth."""
    ratio: float = 1.0
    """How many of them there are in a step for each labelled one."""
    weight: float = 1.0
    """Factor of all terms on them, beside each term's own weight."""
    only: bool = False
    """Train on them alone: the student has no loss of its own, and no label is read."""

    def __post_init__(self) -> None:
        wrong = None
        if not isinstance(self.data_root, str) or not self.data_root:
            wrong = f'data_root={self.data_root!r}: name a folder with images'
        elif not isinstance(self.only, bool):
            wrong = f'only={self.only!r}: give True or False'
        else:
            for name in ('ratio', 'weight'):
                value = getattr(self, name)
                number = isinstance(value, (int, float)) and not isinstance(value, bool)
                if not number or not isfinite(value) or value <= 0:
                    wrong = f'{name}={value!r}: give a number above 0'
                elif self.only and value != 1:
                    wrong = (f'{name}={value} and only=True, which has no labelled images beside: '
                             f'take {name} out')
        if wrong:
            raise UserError(f'unlabelled has {wrong}')


def unlabelled_options(cfg: Config) -> UnlabelledOptions | None:
    """Read ``unlabelled``; None if the config has none.

    Raises:
        UserError: it has unknown or wrong entries.
    """
    return read_options(cfg, 'unlabelled', UnlabelledOptions, "dict(data_root='photos/')")


class Unlabelled:
    """The images without labels of a run, as its :class:`DistillationHook` sees them.

    Of a second batch in every iteration, order and augmentation follow from the seed and the
    iteration alone, another order in each pass over the folder: a resumed run sees what an
    undisturbed one does, and the labelled images are drawn as if there were no others.

    Args:
        dataset: registry config of the data set.
        ratio: see :class:`UnlabelledOptions`.
        weight: see there.
        only: see there; the training data are this data set, then.
    """

    def __init__(self, dataset: Mapping[str, Any], ratio: float, weight: float, only: bool) -> None:
        self.dataset_config = dataset
        self.ratio, self.weight, self.only = ratio, weight, only
        self.skipped = SkippedImages()
        self._batches: Iterator[Any] | None = None
        self._batch: Any = None

    @property
    def beside(self) -> bool:
        """Whether there are labelled images, too."""
        return not self.only

    def prepare(self, loader: DataLoader, seed: int, distillation: Distillation) -> None:
        """Find the images, and try all terms on two of them.

        Args:
            loader: of the training data, whose workers and ``collate_fn`` are used.
            seed: of the run.
            distillation: prepared.

        Raises:
            UserError: none can be read, a tap is not passed, or a term asks for labels.
        """
        if self.beside:
            self.dataset = FixedViews(self.dataset_config, TURNS, seed)
            self.batch_size = max(1, round(loader.batch_sampler.batch_size * self.ratio))
            self.loader = loader
            print_log(f'{len(self.dataset)} images without labels, {self.batch_size} of them '
                      'beside each labelled batch', 'current')
        dataset = self.dataset if self.beside else loader.dataset
        batch = loader.collate_fn([dataset[i % len(dataset)] for i in range(IMAGES)])
        with undisturbed_random_state(), torch.no_grad(), untouched(distillation.student):
            step = self._step(distillation, batch)
            for term in distillation.terms:
                term.check_unlabelled(step)

    def start(self, iteration: int) -> None:
        """Begin with the batch of an iteration, counted from 0."""
        if self.beside:
            self._batches = iter(DataLoader(
                self.dataset, batch_sampler=_Places(self.dataset, self.batch_size, iteration),
                num_workers=self.loader.num_workers, collate_fn=self.loader.collate_fn,
                pin_memory=self.loader.pin_memory,
                generator=torch.Generator()))  # no number is drawn from the run's own

    def fetch(self, data_batch: Any, ended: bool) -> None:
        """Get what an iteration needs.

        Args:
            data_batch: the iteration's, as the loader gave it.
            ended: whether all terms have.
        """
        if self.beside:
            self._batch = None if ended else next(self._batches)
        self.skipped.look((self._batch if self.beside else data_batch) or {})

    def steps(self, distillation: Distillation) -> list[Step]:
        """Run student and teachers on this iteration's second batch, if there is one."""
        batch, self._batch = self._batch, None
        return [] if batch is None else [self._step(distillation, batch)]

    def _step(self, distillation: Distillation, batch: Any) -> Step:
        student = distillation.student
        data = student.data_preprocessor(batch, True)
        inputs, samples = data['inputs'], data['data_samples']
        with distillation.recording():
            run_without_losses(student, inputs, samples)
        try:
            return distillation.step(inputs, without_labels(samples), labelled=False)
        except UserError as error:
            raise UserError('on images without labels the student runs without its own losses, and '
                            f'{error}') from error

    def stop(self) -> None:
        """Let the workers go, and say which images could not be read."""
        self._batches = None
        self.skipped.tell()


class _Places:
    """Numbers of the views that this process sees in each iteration; without an end."""

    def __init__(self, dataset: FixedViews, batch_size: int, iteration: int) -> None:
        self.dataset, self.batch_size, self.iteration = dataset, batch_size, iteration
        self._order: tuple[int, np.ndarray] = -1, np.empty(0)

    def __iter__(self) -> Iterator[list[int]]:
        rank, processes = get_dist_info()
        first = (self.iteration * processes + rank) * self.batch_size
        while True:
            yield [self._number(place) for place in range(first, first + self.batch_size)]
            first += processes * self.batch_size

    def _number(self, place: int) -> int:
        turn, place = divmod(place, len(self.dataset))
        if self._order[0] != turn:
            draws = np.random.default_rng((self.dataset.seed, turn))
            self._order = turn, draws.permutation(len(self.dataset))
        return self.dataset.number(int(self._order[1][place]), turn)


def check_without_labels(terms: Sequence[Term], only: bool) -> None:
    """Check that terms can teach on images without labels.

    Raises:
        UserError: one asks for labels; or, where there are no others, has nothing that its weight
            could be measured against, or all end before the run does.
    """
    for term in terms:
        if term.needs_labels:
            raise UserError(
                f"term '{term.name}' ({term.loss_config['type']}) needs "
                f"{' and '.join(term.needs_labels)}, and images without labels (unlabelled) have "
                'none: take the term out, or a method that needs none (`mmkd methods` says what '
                'each needs)')
        if only and term.gradient_share is not None:
            raise UserError(f"term '{term.name}' has a gradient_share, which is measured against "
                            "the student's own loss, and with unlabelled.only it has none: give "
                            'the term a weight')
    if only and all(term.until is not None for term in terms):
        raise UserError('all terms end before the run does (until), and with unlabelled.only the '
                        'student learns from nothing else: take `until` out of one of them')


def run_without_losses(student: nn.Module, inputs: Tensor, samples: Any) -> None:
    """Run a student as on images without labels.

    Raises:
        UserError: it cannot be run so: MMDetection's DINO hands its head what only losses take.
    """
    try:
        student(inputs, samples, mode='tensor')
    except (TypeError, AttributeError, KeyError) as error:
        raise UserError(f"a {type(student).__name__} cannot be trained on images without labels: "
                        f'without its losses it does not run in training ({error}): take another '
                        'student, or take unlabelled out') from error


def without_labels(samples: Sequence[BaseDataElement]) -> list[BaseDataElement]:
    """Return data samples without what the pipeline of labelled images puts into them."""
    found = []
    for sample in samples:
        bare = sample.new()
        for name in bare.keys():  # noqa: SIM118 (iterating over a sample is something else)
            if name.startswith(LABELS):
                delattr(bare, name)
        found.append(bare)
    return found


class SkippedImages:
    """Which images of the folder could not be read; each is named when it is met first."""

    def __init__(self) -> None:
        self.reasons: dict[str, str] = {}

    def look(self, batch: Mapping[str, Any]) -> None:
        """Log each unreadable image that the loader replaced in this batch, the first time only."""
        for sample in batch.get('data_samples') or ():
            for path, reason in sample.metainfo.get(SKIPPED, {}).items():
                if path not in self.reasons:
                    self.reasons[path] = reason
                    print_log(f'{reason.rstrip(".")} (another image without labels takes its '
                              'place)', 'current', logging.WARNING)

    def tell(self) -> None:
        """Log how many images were unreadable, over all processes."""
        paths = sorted(set().union(*all_gather_object(list(self.reasons))))
        if paths:
            print_log(f'{len(paths)} images without labels could not be read and were skipped, '
                      f'the first is {paths[0]}', 'current', logging.WARNING)
