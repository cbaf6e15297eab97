"""Batches of pairs and of balanced classes."""

from collections import Counter

import pytest
import torch
from mmengine.dataset import DefaultSampler
from mmengine.dataset import sampler as mmengine_sampler
from mmengine.runner import Runner

import mmkd  # noqa: F401  (before mmdet)
from mmkd.classification.data import ClassBalancedSampler, MemoryDataset, PairSampler
from mmkd.errors import UserError


def _dataset(labels):
    return MemoryDataset(torch.zeros(len(labels), 3, 1, 1, dtype=torch.uint8),
                         torch.tensor(labels), tuple(str(i) for i in range(max(labels) + 1)))


@pytest.fixture
def share(monkeypatch):
    """Build the sampler of one process of several."""
    def build(dataset, rank=0, world_size=1, seed=0, epoch=0):
        monkeypatch.setattr(mmengine_sampler, 'get_dist_info', lambda: (rank, world_size))
        sampler = DefaultSampler(dataset, shuffle=True, seed=seed)
        sampler.set_epoch(epoch)
        return sampler
    return build


LABELS = [0, 1, 2] * 7 + [3]  # class 3 has one member
of_both_kinds = pytest.mark.parametrize(('kind', 'options'), [
    (PairSampler, dict()), (ClassBalancedSampler, dict(samples_per_class=2))])


def test_pairs(share):
    dataset = _dataset(LABELS)
    sampler = PairSampler(share(dataset), batch_size=8)
    batches = list(sampler)
    assert len(batches) == len(sampler) == 6
    assert [len(batch) for batch in batches] == [8] * 5 + [4]
    firsts = []
    for batch in batches:
        half = len(batch) // 2
        for first, other in zip(batch[:half], batch[half:], strict=True):
            assert LABELS[first] == LABELS[other]
            assert (first == other) == (LABELS[first] == 3)
        firsts += batch[:half]
    assert sorted(firsts) == list(range(22))


def test_partners_are_uniform_among_the_others(share):
    dataset = _dataset([0, 1, 0, 0, 1, 0])
    seen = Counter()
    for epoch in range(1500):
        sampler = PairSampler(share(dataset, epoch=epoch), batch_size=12)
        [batch] = sampler
        seen.update(other for first, other in zip(batch[:6], batch[6:], strict=True) if first == 2)
    assert set(seen) == {0, 3, 5}
    assert all(abs(count - 500) < 80 for count in seen.values())


@of_both_kinds
def test_seed_and_epoch_decide(share, kind, options):
    dataset = _dataset(LABELS)

    def batches(**place):
        return list(kind(share(dataset, **place), batch_size=6, **options))

    assert batches(seed=1, epoch=2) == batches(seed=1, epoch=2)
    assert batches(seed=1, epoch=2) != batches(seed=1, epoch=3)
    assert batches(seed=1, epoch=2) != batches(seed=2, epoch=2)


@of_both_kinds
def test_two_processes_share_an_epoch(share, kind, options):
    dataset = _dataset([0, 1, 2, 3] * 16)
    halves = [list(kind(share(dataset, rank, 2), batch_size=8, **options)) for rank in (0, 1)]
    assert len(halves[0]) == len(halves[1])
    first = 4 if kind is PairSampler else 8
    own = [{i for batch in half for i in batch[:first]} for half in halves]
    assert not own[0] & own[1]
    if kind is PairSampler:
        assert own[0] | own[1] == set(range(64))


def test_balanced_classes(share):
    labels = [i % 5 for i in range(60)]
    sampler = ClassBalancedSampler(share(_dataset(labels)), batch_size=12, samples_per_class=4)
    batches = list(sampler)
    assert len(batches) == len(sampler) == 5
    seen = Counter()
    for batch in batches:
        classes = [labels[i] for i in batch]
        groups = [classes[i:i + 4] for i in range(0, 12, 4)]
        assert all(len(set(group)) == 1 for group in groups)
        assert len({group[0] for group in groups}) == 3
        assert len(set(batch)) == 12
        seen.update(batch)
    # 15 turns among 5 classes: each comes three times, with all its 12 images once.
    assert set(seen.values()) == {1} and len(seen) == 60


def test_small_classes_are_seen_as_often_as_large_ones(share):
    labels = [0] * 80 + [1] * 12 + [2] * 3 + [3]
    sampler = ClassBalancedSampler(share(_dataset(labels)), batch_size=8, samples_per_class=4)
    classes = Counter(labels[i] for batch in sampler for i in batch)
    assert classes == {0: 24, 1: 24, 2: 24, 3: 24}


def test_all_classes_in_every_batch(share):
    labels = [i % 3 for i in range(30)]
    for batch in ClassBalancedSampler(share(_dataset(labels)), 6, samples_per_class=2):
        assert Counter(labels[i] for i in batch) == {0: 2, 1: 2, 2: 2}


def test_fewer_images_than_a_batch_still_make_one(share):
    [batch] = ClassBalancedSampler(share(_dataset([0, 1])), 8, samples_per_class=4)
    assert Counter(batch) == {0: 4, 1: 4}


@of_both_kinds
def test_the_loader_of_a_config_changes_with_the_epoch(kind, options):
    loader = Runner.build_dataloader(dict(
        batch_size=6, num_workers=0, dataset=_dataset(LABELS),
        batch_sampler=dict(type=f'mmkd.{kind.__name__}', **options),
        sampler=dict(type='DefaultSampler', shuffle=True),
        collate_fn=dict(type='whole_batch')), seed=0)

    def indices(epoch):
        # As mmengine's DistSamplerSeedHook does.
        loader.batch_sampler.sampler.set_epoch(epoch)
        return [batch['data_samples'].indices.tolist() for batch in loader]

    assert len(indices(0)) == len(loader)
    assert indices(0) == indices(0) != indices(1)


def test_bad_options(share):
    sampler = share(_dataset(LABELS))
    for wrong in (0, 1, 7):
        with pytest.raises(UserError, match='even number'):
            PairSampler(sampler, wrong)
    for batch_size, samples in ((7, 2), (4, 0), (4, 8)):
        with pytest.raises(UserError, match='make the batch a multiple'):
            ClassBalancedSampler(sampler, batch_size, samples)
    with pytest.raises(UserError, match=r'needs 5 classes .* has 4'):
        list(ClassBalancedSampler(sampler, 10, 2))
    with pytest.raises(UserError, match='data set with `labels`, not DefaultSampler of list'):
        PairSampler(share([1, 2]), 2)
    with pytest.raises(UserError, match=r"needs sampler=dict\(type='DefaultSampler'\)"):
        PairSampler(torch.utils.data.SequentialSampler([1]), 2)
