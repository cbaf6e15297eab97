"""Splits that exist are kept; those that are made stay when photographs are added."""

from collections import Counter
from pathlib import Path

import pytest

from mmkd.errors import UserError
from mmkd.own_data.photos import Complaints, Found, Photo
from mmkd.own_data.splits import assign_splits


def photos(count, split=None, label=None, name='{}.jpg'):
    return [Photo(Path(name.format(i)), split=split, label=label) for i in range(count)]


def assigned(*found, seed=0):
    found, complaints = Found('', [photo for some in found for photo in some]), Complaints()
    made = assign_splits(found, complaints, seed)
    return made, {str(photo.path): photo.split for photo in found.photos}, complaints


def test_a_tenth_each_and_stable_when_images_are_added():
    made, before, _ = assigned(photos(1000))
    assert made == ['train', 'val', 'test']
    counts = Counter(before.values())
    assert all(70 <= counts[split] <= 130 for split in ('val', 'test'))
    _, after, _ = assigned(photos(1100))
    assert {name: after[name] for name in before} == before
    assert assigned(photos(1000), seed=1)[1] != before


def test_the_folder_does_not_matter():
    _, one, _ = assigned(photos(50, name='a/{}.jpg'))
    _, other, _ = assigned(photos(50, name='b/c/{}.jpg'))
    assert list(one.values()) == list(other.values())


def test_existing_splits_are_kept_and_missing_ones_made():
    made, splits, complaints = assigned(photos(200, 'train', name='t{}.jpg'), photos(20, 'val'),
                                        photos(2, name='out{}.jpg'))
    assert made == ['test']
    assert complaints.counts == {'images in no split, left out': 2}
    assert Counter(splits.values())['val'] == 20
    assert {name[0] for name, split in splits.items() if split == 'test'} == {'t'}


def test_what_is_beside_a_test_folder_is_for_training():
    made, splits, complaints = assigned(photos(30, name='t{}.jpg'), photos(5, 'test'))
    assert made == ['val']
    assert Counter(splits.values())['test'] == 5 and not complaints.counts
    assert assigned(photos(30, 'val'))[0] == ['train', 'val', 'test']


@pytest.mark.parametrize('count', [3, 4, 7])
def test_no_split_stays_empty(count):
    _, splits, _ = assigned(photos(count))
    assert set(splits.values()) == {'train', 'val', 'test'}


def test_every_class_of_a_classifier_is_in_every_split():
    found = [photos(4, label=name, name=name + '{}.jpg') for name in 'abc']
    _, splits, _ = assigned(*found)
    assert {(name[0], split) for name, split in splits.items()} == {
        (name, split) for name in 'abc' for split in ('train', 'val', 'test')}


def test_too_few():
    with pytest.raises(UserError, match='2 usable images are too few for train, val, test'):
        assigned(photos(2))
    with pytest.raises(UserError, match="2 usable images of class 'b' are too few"):
        assigned(photos(9, label='a'), photos(2, label='b', name='b{}.jpg'))
