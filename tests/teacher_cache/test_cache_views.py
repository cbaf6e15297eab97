"""Fixed views: the same whenever, wherever and in whatever order they are asked for."""

import copy
import pickle
import random
from collections import Counter
from itertools import islice

import numpy as np
import pytest
import torch
from mmengine.dataset import pseudo_collate
from mmengine.runner import Runner
from tiny_cache import ShakenDetection
from torch.utils.data import DataLoader

from mmkd.classification.data.memory import MemoryDataset, whole_batch
from mmkd.detection.data import draw_dataset
from mmkd.engine.config import load_config
from mmkd.registry import DATA_SAMPLERS, DATASETS
from mmkd.teacher_cache.views import FixedViews, fingerprint, view_seeds


def _content(sample):
    boxes = sample['data_samples'].gt_instances
    corners = getattr(boxes.bboxes, 'tensor', boxes.bboxes)
    return (sample['inputs'].numpy().tobytes(), corners.numpy().tobytes(),
            boxes.labels.numpy().tobytes())


def _drawn_photographs(folder):
    """MMDetection's own pipeline of CenterNet, with all that it draws."""
    draw_dataset(folder / 'drawn', splits=dict(train=4, val=1, test=1), image_size=64)
    cfg = load_config('configs/demo/centernet_r18.py')
    dataset = cfg.train_dataloader.dataset
    dataset.data_root = f'{folder}/drawn/'
    dataset.pipeline = [
        dict(type='LoadImageFromFile'), dict(type='LoadAnnotations', with_bbox=True),
        dict(type='PhotoMetricDistortion'),
        dict(type='RandomCenterCropPad', crop_size=(64, 64), ratios=(0.6, 0.8, 1.0, 1.2),
             mean=[123.675, 116.28, 103.53], std=[58.395, 57.12, 57.375], to_rgb=True,
             test_pad_mode=None),
        dict(type='Resize', scale=(64, 64), keep_ratio=True), dict(type='RandomFlip', prob=0.5),
        dict(type='PackDetInputs')]
    return DATASETS.build(dataset)


@pytest.fixture(params=['noise', 'drawn'])
def dataset(request, tmp_path, monkeypatch):
    if request.param == 'noise':
        return ShakenDetection(6)
    monkeypatch.chdir(request.config.rootpath)
    return _drawn_photographs(tmp_path)


def test_a_view_is_the_same_in_any_order_and_process(dataset):
    views = FixedViews(dataset, 3, seed=7)
    count = 3 * len(dataset)
    first = [_content(views[number]) for number in range(count)]
    assert len({content[0] for content in first}) == count, 'and no two are alike'
    order = np.random.default_rng(0).permutation(count).tolist()
    torch.manual_seed(9)
    random.seed(9)
    for number in order:
        np.random.rand()
        assert _content(views[number]) == first[number]
    assert [_content(sample) for sample in views.__getitems__(order)] == [first[n] for n in order]
    again = FixedViews(copy.deepcopy(dataset), 5, seed=7)
    assert _content(again[count - 1]) == first[-1], 'more views do not change the first ones'
    loader = DataLoader(views, batch_size=5, sampler=order, num_workers=2,
                        collate_fn=lambda samples: samples)
    found = [_content(sample) for batch in loader for sample in batch]
    assert found == [first[number] for number in order]


def test_other_seeds_give_other_views():
    dataset = ShakenDetection(6)
    seen = {_content(FixedViews(dataset, 3, seed)[number])[0]
            for seed in range(5) for number in range(18)}
    assert len(seen) == 5 * 18
    assert _content(dataset[0]) != _content(dataset[0]), 'without fixed views'


def _states():
    return random.getstate(), np.random.get_state()[1].tolist(), torch.get_rng_state().tolist()


def test_the_generators_stay_as_they_were():
    views = FixedViews(ShakenDetection(4), 2, seed=0)
    before = _states()
    views[3], views.__getitems__([1, 7])
    assert _states() == before
    with pytest.raises(KeyError):
        FixedViews(_Broken(), 2, seed=0)[0]
    assert _states() == before, 'also when an image cannot be read'


class _Broken(ShakenDetection):
    def __getitem__(self, index):
        random.random(), np.random.rand(), torch.rand(())
        raise KeyError(index)


def test_what_is_drawn_spreads():
    """Shifts, mirroring and darkness of many views are as free as the generators make them."""
    class Draws(ShakenDetection):
        def __getitem__(self, index):
            return dict(inputs=torch.zeros(3, 4, 4), drawn=(
                random.randrange(16), int(np.random.randint(16)), int(torch.randint(16, ()))))

    views = FixedViews(Draws(100), 64, seed=0)
    drawn = np.array([views[number]['drawn'] for number in range(6400)])
    for column in drawn.T:
        assert _chi_squared(column, 16) < 37.7  # 15 degrees of freedom: one seed in a thousand
    pairs = drawn[:, 0] * 16 + drawn[:, 1]
    assert _chi_squared(pairs, 256) < 330.5  # 255 degrees of freedom


def _chi_squared(numbers, count):
    expected = len(numbers) / count
    return float(((np.bincount(numbers, minlength=count) - expected) ** 2 / expected).sum())


def test_it_looks_like_the_data_set():
    dataset = ShakenDetection(6)
    views = DATASETS.build(dict(type='FixedViews', views=3, seed=1,
                                dataset=dict(type='ShakenDetection', length=6)))
    assert len(views) == 6 and views.metainfo == dataset.metainfo and views.size == 64
    assert [views.get_data_info(number)['img_id'] for number in (0, 5, 6, 17)] == list('0505')
    assert not hasattr(views, 'labels') and not hasattr(views, '__getstate_of_nothing__')
    for twin in (pickle.loads(pickle.dumps(views)), copy.deepcopy(views), copy.copy(views)):
        assert _content(twin[17]) == _content(views[17])


def _memory(count=10):
    images = torch.randint(0, 256, (count, 3, 8, 8), dtype=torch.uint8,
                           generator=torch.Generator().manual_seed(0))
    return MemoryDataset(images, torch.arange(count) % 3, ('a', 'b', 'c'))


def test_data_in_memory_says_what_settles_its_views():
    views = FixedViews(_memory(), 4, seed=3)
    numbers = [33, 5, 10, 29]
    batch = views.__getitems__(numbers)
    assert torch.equal(batch['inputs'], _memory().images[[3, 5, 0, 9]])
    sample = batch['data_samples']
    assert sample.indices.tolist() == [3, 5, 0, 9]
    assert sample.views.tolist() == [[3, 3], [5, 0], [0, 1], [9, 2]]
    assert sample.view_seeds.tolist() == [
        view_seeds(3, view, len(views))[image] for image, view in sample.views.tolist()]
    joined = whole_batch([views[number] for number in numbers])
    assert torch.equal(joined['inputs'], batch['inputs'])
    for name, value in sample.items():
        assert (getattr(joined['data_samples'], name) == value).all(), name
    by_number = FixedViews(_memory(), 50, None).__getitems__([33, 499])
    assert by_number['data_samples'].view_seeds.tolist() == [3, 49]


# Samplers


def _epochs(sampler, count):
    found = []
    for epoch in range(count):
        sampler.set_epoch(epoch)
        found.append([divmod(number, len(sampler.dataset)) for number in sampler])
    return found


def _sampler(images=10, views=4, kind='DefaultSampler', seed=5, **options):
    return DATA_SAMPLERS.build(
        dict(type='ViewSampler', sampler=dict(type=kind, **options)),
        default_args=dict(dataset=FixedViews(ShakenDetection(images), views, 0), seed=seed))


@pytest.mark.parametrize('images, views', [(10, 4), (7, 3), (64, 2), (9, 1), (3, 8)])
@pytest.mark.parametrize('shuffle', [True, False])
def test_every_view_of_every_image_once(images, views, shuffle):
    sampler = _sampler(images, views, shuffle=shuffle)
    assert len(sampler) == images
    epochs = _epochs(sampler, 2 * views)
    for epoch in epochs:
        assert sorted(image for _, image in epoch) == list(range(images))
        if images >= 10:
            assert len({view for view, _ in epoch}) > 1, 'an epoch mixes views'
    for cycle in (epochs[:views], epochs[views:]):
        assert Counter(pair for epoch in cycle for pair in epoch) == Counter(
            {(view, image): 1 for view in range(views) for image in range(images)})
    if images >= 10:
        assert [set(epoch) for epoch in epochs[:views]] != [set(e) for e in epochs[views:]]
    assert _epochs(_sampler(images, views, shuffle=shuffle), 2 * views) == epochs


def test_the_order_of_images_is_that_of_the_other_sampler():
    from mmengine.dataset import DefaultSampler
    plain = DefaultSampler(ShakenDetection(10), shuffle=True, seed=5)
    for number, epoch in enumerate(_epochs(_sampler(), 4)):
        plain.set_epoch(number)
        assert [image for _, image in epoch] == list(plain)


@pytest.mark.parametrize('images, views, count', [(10, 4, 2), (9, 4, 2), (10, 3, 3)])
def test_processes_share_the_views(images, views, count, processes):
    alone = _epochs(_sampler(images, views), views)
    shares = []
    for rank in range(count):
        processes(rank, count)
        shares.append(_epochs(_sampler(images, views), views))
    for epoch, whole in enumerate(alone):
        found = [pair for i in range(-(-images // count)) for pair in
                 (share[epoch][i] for share in shares)]
        assert found[:images] == whole, 'the same pairs, dealt out one by one'
        assert len(found) < images + count


@pytest.mark.parametrize('images', [10, 9])
@pytest.mark.parametrize('count', [1, 2, 3])
def test_a_sampler_without_an_end(images, count, processes):
    views, length = 4, images * 12  # a multiple of every number of processes
    shares = []
    for rank in range(count):
        processes(rank, count)
        sampler = _sampler(images, views, 'InfiniteSampler', shuffle=True)
        shares.append([divmod(n, images) for n in islice(sampler, length // count)])
    found = [pair for dealt in zip(*shares, strict=True) for pair in dealt]
    for start in range(0, length, images * views):
        assert len(set(found[start:start + images * views])) == images * views
    for start in range(0, length, images):
        assert len({image for _, image in found[start:start + images]}) == images


def test_images_grouped_by_their_shape():
    """MMDetection's batch sampler asks the data set for each image's width and height."""
    sampler = _sampler(12, 3, shuffle=True)
    batches = DATA_SAMPLERS.build(dict(type='AspectRatioBatchSampler', sampler=sampler,
                                       batch_size=2))
    for epoch in range(3):
        sampler.set_epoch(epoch)
        found = list(batches)
        assert len(found) == 6
        for batch in found:
            assert len({number % 12 % 2 for number in batch}) == 1, 'odd images are wider'
        assert {number // 12 for batch in found for number in batch} == {0, 1, 2}


def test_part_of_the_data_in_an_epoch():
    """mmengine's `num_batch_per_epoch` puts a data set of its own around."""
    loader = Runner.build_dataloader(dict(
        dataset=dict(type='FixedViews', views=3, seed=0, dataset=dict(type='ShakenDetection')),
        sampler=dict(type='ViewSampler', sampler=dict(type='DefaultSampler', shuffle=True)),
        batch_size=2, num_batch_per_epoch=2, collate_fn=dict(type='pseudo_collate')), seed=0)
    seen = Counter()
    for epoch in range(3):
        loader.sampler.set_epoch(epoch)
        seen.update(divmod(number, 8) for number in loader.sampler)
    assert seen == Counter({(view, image): 1 for view in range(3) for image in range(4)})
    whole = FixedViews(ShakenDetection(), 3, 0)
    loader.sampler.set_epoch(0)
    expected = [whole[number]['inputs'] for number in loader.sampler]
    assert all(map(torch.equal, [i for batch in loader for i in batch['inputs']], expected))


# The hash


def test_no_two_of_a_million_seeds_are_alike():
    found = np.concatenate([view_seeds(seed, view, 2000) for seed in range(10)
                            for view in range(50)])
    assert found.dtype == np.int64 and found.min() >= 0
    assert len(np.unique(found)) == 10 ** 6
    # Of 10^6 of 2^32 numbers 116 pairs are expected to be alike: NumPy's seeds.
    assert len(np.unique(found % 2 ** 32)) > 10 ** 6 - 200


def test_images_that_are_added_change_no_other():
    for seed, view in ((0, 0), (3, 7), (2 ** 62, 1)):
        assert (view_seeds(seed, view, 100)[:10] == view_seeds(seed, view, 10)).all()


# Fingerprints


def test_fingerprints_tell_views_apart():
    views = FixedViews(ShakenDetection(6, size=128), 4, seed=0)
    marks = [fingerprint(views[number]['inputs']) for number in range(24)]
    assert all(mark.shape == (3, 4, 4) and mark.dtype == np.float32 for mark in marks)
    gaps = [np.abs(a - b).max() for i, a in enumerate(marks) for b in marks[:i]]
    assert min(gaps) > 1.0


def test_fingerprints_are_means():
    image = torch.arange(3 * 8 * 8, dtype=torch.float32).view(3, 8, 8)
    expected = image.view(3, 4, 2, 4, 2).mean((2, 4)).numpy()
    assert np.array_equal(fingerprint(image), expected)
    assert np.array_equal(fingerprint(image[None]), expected)
    large = image.repeat_interleave(8, 1).repeat_interleave(8, 2)
    assert np.array_equal(fingerprint(large), expected)
    assert fingerprint(torch.zeros(3, 2, 9, dtype=torch.uint8)).shape == (3, 4, 4)


def test_a_batch_keeps_its_form():
    views = FixedViews(ShakenDetection(4), 2, seed=0)
    batch = pseudo_collate(views.__getitems__([0, 5]))
    assert len(batch['inputs']) == 2
    assert 'stored' not in batch['data_samples'][0]
