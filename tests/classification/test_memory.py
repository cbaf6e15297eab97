"""A data set in memory, from the config to the batch."""

import pytest
import torch
from archives import write_cifar10
from mmengine.runner import Runner

import mmkd  # noqa: F401  (before mmdet)
from mmkd.classification.data import ClassificationSample, MemoryDataset, whole_batch
from mmkd.classification.data.memory import balanced_first
from mmkd.errors import UserError


def _dataset(labels, **options):
    images = torch.arange(len(labels), dtype=torch.uint8).view(-1, 1, 1, 1).repeat(1, 3, 2, 2)
    return MemoryDataset(images, torch.tensor(labels, dtype=torch.int64), tuple('abc'), **options)


@pytest.mark.parametrize('extra', [dict(), dict(num_batch_per_epoch=2)])
def test_the_loader_of_a_config(tmp_path, extra):
    rows = write_cifar10(tmp_path)
    config = dict(batch_size=8, num_workers=0, collate_fn=dict(type='whole_batch'),
                  sampler=dict(type='DefaultSampler', shuffle=True),
                  dataset=dict(type='mmkd.CIFAR10', data_root=str(tmp_path)), **extra)
    with pytest.warns(UserWarning, match='differ from the published'):
        loader = Runner.build_dataloader(config, seed=3)
    data = torch.cat([torch.from_numpy(rows[f'data_batch_{i}'][0]) for i in range(1, 6)])
    labels = torch.tensor([label for i in range(1, 6) for label in rows[f'data_batch_{i}'][1]])
    seen = []
    for batch in loader:
        sample = batch['data_samples']
        assert isinstance(sample, ClassificationSample)
        assert torch.equal(batch['inputs'].flatten(1), data[sample.indices])
        assert torch.equal(sample.labels, labels[sample.indices])
        seen += sample.indices.tolist()
    assert len(batch['inputs']) == (8 if extra else 4)
    assert sorted(seen) == list(range(16 if extra else 20))


def test_a_list_of_single_batches_is_joined():
    dataset = _dataset([0, 1, 2, 1])
    one = whole_batch(dataset.__getitems__([2, 0, 3]))
    other = whole_batch([dataset[i] for i in (2, 0, 3)])
    assert torch.equal(one['inputs'], other['inputs'])
    assert one['data_samples'].labels.tolist() == other['data_samples'].labels.tolist() == [2, 0, 1]
    assert other['data_samples'].indices.tolist() == [2, 0, 3]


def test_the_sample_moves_as_one():
    sample = ClassificationSample(labels=torch.tensor([1]), indices=torch.tensor([7]))
    moved = sample.to('meta')
    assert moved.labels.device.type == moved.indices.device.type == 'meta'
    assert isinstance(moved, ClassificationSample) and sample.labels.device.type == 'cpu'
    assert 'scores' not in sample


@pytest.mark.parametrize(('labels', 'count', 'expected'), [
    ([0, 0, 0, 1, 1, 2], 3, [0, 3, 5]),
    ([0, 0, 0, 1, 1, 2], 4, [0, 1, 3, 5]),
    ([0, 0, 0, 1, 1, 2], 5, [0, 1, 3, 4, 5]),
    ([2, 2, 1, 2, 0], 2, [0, 2]),
    ([2, 2, 1, 2, 0], None, [0, 1, 2, 3, 4]),
    ([2, 2, 1, 2, 0], 99, [0, 1, 2, 3, 4]),
])
def test_the_first_samples_take_turns_among_the_classes(labels, count, expected):
    assert balanced_first(torch.tensor(labels), count).tolist() == expected
    dataset = _dataset(labels, max_samples=count)
    assert dataset.images[:, 0, 0, 0].tolist() == expected
    assert dataset.labels.tolist() == [labels[i] for i in expected]


def test_bad_data_is_refused():
    for wrong in (0, -1, 2.5):
        with pytest.raises(UserError, match='max_samples'):
            _dataset([0, 1], max_samples=wrong)
    with pytest.raises(UserError, match='labels from 0 to 3'):
        _dataset([0, 3])
    with pytest.raises(UserError, match='no image'):
        _dataset([])
