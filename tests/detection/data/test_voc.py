"""The VOC-layout data set: what it reads, skips and refuses."""

import logging
import re

import pytest
from voc_layout import CAT, annotation, layout

from mmkd.detection.data import VOCLayoutDataset, voc
from mmkd.errors import UserError
from mmkd.registry import DATASETS

CLASSES = ('cat', 'dog')


def dataset(root, split='train', **kwargs):
    config = dict(type='VOCLayoutDataset', data_root=str(root),
                  ann_file=f'ImageSets/Main/{split}.txt', metainfo=dict(classes=CLASSES))
    return DATASETS.build({**config, **kwargs})


@pytest.fixture
def warnings(monkeypatch):
    """What is logged, as (message, level)."""
    seen = []
    monkeypatch.setattr(voc, 'print_log',
                        lambda message, logger, level: seen.append((message, level)))
    return seen


def test_boxes_lose_one_pixel_and_difficult_is_ignored(tmp_path, warnings):
    root = layout(tmp_path, {'a': annotation(('dog', (1, 2, 64, 48), 0), ('cat', (5, 6, 7, 9), 1))})
    info = dataset(root)[0]
    assert info['instances'] == [dict(bbox=[0, 1, 63, 47], bbox_label=1, ignore_flag=0),
                                 dict(bbox=[4, 5, 6, 8], bbox_label=0, ignore_flag=1)]
    assert (info['width'], info['height'], info['img_id']) == (64, 48, 'a')
    assert info['img_path'] == str(root / 'JPEGImages/a.jpg')
    assert warnings == []


def test_good_files_read_as_mmdetections_own_class_reads_them(tmp_path):
    from mmdet.datasets import VOCDataset
    layout(tmp_path / 'VOC2007', {
        'a': annotation(CAT, ('dog', (3.7, 4.2, 33.9, 40), 1)),
        'b': annotation(('person', (2, 2, 60, 40), 0), CAT, size=None)})
    common = dict(data_root=str(tmp_path), ann_file='VOC2007/ImageSets/Main/train.txt',
                  data_prefix=dict(sub_data_root='VOC2007/'))
    ours, theirs = VOCLayoutDataset(**common), VOCDataset(**common)
    assert ours.metainfo == theirs.metainfo
    assert ours.metainfo['dataset_type'] == 'VOC2007'
    assert len(ours) == len(theirs) == 2
    for index in range(2):
        assert ours[index] == theirs[index]
    assert ours[1]['width'] == 64  # from the image, as b.xml gives no size


def test_boxes_are_clipped_to_an_image_of_any_suffix(tmp_path):
    root = layout(tmp_path, {'a': annotation(('cat', (-3, 0, 70, 99), 0))}, '.JPG')
    [info] = dataset(root)
    assert info['instances'][0]['bbox'] == [0, 0, 63, 47]
    assert info['img_path'] == str(root / 'JPEGImages/a.JPG')


DIRTY = {
    'a': annotation(CAT),
    'b': annotation(CAT, ('cow', (1, 1, 9, 9), 0), ('dog', (5, 5, 5, 9), 0)),
    'c': annotation(('cow', (1, 1, 9, 9), 0), ('sheep', (1, 1, 9, 9), 0)),
    'd': annotation(('dog', (9, 5, 7, 9), 0), ('dog', (70, 5, 80, 9), 0)),
}


def test_dirt_is_skipped_with_one_counted_warning_in_training(tmp_path, warnings):
    data = dataset(layout(tmp_path, DIRTY), filter_cfg=dict(filter_empty_gt=True))
    assert [(info['img_id'], len(info['instances'])) for info in data] == [('a', 1), ('b', 1)]
    (message, level), = warnings
    assert level == logging.WARNING
    assert message == (
        f'{tmp_path}/ImageSets/Main/train.txt: skipped 3 boxes of zero or negative size (dog 3) '
        f'and 3 objects of unknown classes (cow 2, sheep 1), first in {tmp_path}/Annotations/b.xml')


def test_a_class_that_is_misspelt_is_told_apart_from_one_that_is_rare(tmp_path, warnings):
    dataset(layout(tmp_path, DIRTY), metainfo=dict(classes=('cat', 'shep', 'dog')))
    [(_, _), (message, _)] = warnings
    assert message == (f"{tmp_path}/ImageSets/Main/train.txt: no object of the class 'shep'. "
                       "Did you mean 'sheep'?")


def test_dirt_is_skipped_silently_but_counted_in_testing(tmp_path, warnings):
    data = dataset(layout(tmp_path, DIRTY), test_mode=True)
    assert [len(info['instances']) for info in data] == [1, 1, 0, 0]
    assert data.skipped.empty_boxes == dict(dog=3)
    assert data.skipped.unknown_classes == dict(cow=2, sheep=1)
    assert warnings == []


@pytest.mark.parametrize('break_it, words', [
    (lambda root: (root / 'ImageSets/Main/train.txt').unlink(),
     r'The split file .*train\.txt does not exist: check data_root'),
    (lambda root: (root / 'ImageSets/Main/train.txt').write_text('\n  \n'),
     r'The split file .*train\.txt lists no image: write'),
    (lambda root: (root / 'Annotations/b.xml').unlink(),
     r'The annotation .*Annotations/b\.xml of .*train\.txt does not exist'),
    (lambda root: (root / 'JPEGImages/b.jpg').unlink(),
     r'1 images of .*train\.txt do not exist as .*, the first is .*JPEGImages/b\.jpg'),
    (lambda root: (root / 'Annotations/b.xml').write_text('<annotation><obj'),
     r'The annotation .*Annotations/b\.xml is not valid'),
    (lambda root: (root / 'JPEGImages').rename(root / 'images'),
     r'2 images of .*JPEGImages/a\.jpg'),
])
@pytest.mark.parametrize('test_mode', [False, True])
def test_broken_data_is_named_in_one_line(tmp_path, break_it, words, test_mode):
    root = layout(tmp_path, {'a': annotation(CAT), 'b': annotation(CAT)})
    break_it(root)
    with pytest.raises(UserError) as caught:
        dataset(root, test_mode=test_mode)
    assert re.search(words, str(caught.value))
    assert '\n' not in str(caught.value)


def test_a_training_split_of_other_classes_is_refused(tmp_path):
    root = layout(tmp_path, {'a': annotation(('Kitten', (1, 1, 9, 9), 0)),
                             'b': annotation(('Cow', (1, 1, 9, 9), 0))})
    with pytest.raises(UserError, match=r'has one of the classes cat, dog: the classes in its '
                                        r'files are Cow, Kitten; set metainfo'):
        dataset(root)
    assert len(dataset(root, test_mode=True)) == 2


def test_a_forgotten_comma_in_classes(tmp_path):
    root = layout(tmp_path, {'a': annotation(CAT)})
    with pytest.raises(UserError, match=r"are the text 'cat': write a tuple, classes=\('cat', \)"):
        dataset(root, metainfo=dict(classes=('cat')))


def test_classes_of_ones_own_do_not_take_vocs_colours(tmp_path):
    root = layout(tmp_path, {'a': annotation(CAT)})
    assert dataset(root).metainfo['palette'] == 'random'
    coloured = dict(classes=CLASSES, palette=[(1, 2, 3), (4, 5, 6)])
    assert dataset(root, metainfo=coloured).metainfo['palette'] == [(1, 2, 3), (4, 5, 6)]


def test_metainfo_needs_no_files(tmp_path):
    # MMDetection's init_detector asks for it where no data are.
    data = dataset(tmp_path / 'none', lazy_init=True)
    assert data.metainfo['classes'] == CLASSES
    assert data.metainfo['dataset_type'] is None


def test_two_years_concatenate(tmp_path):
    for year in ('VOC2007', 'VOC2012'):
        layout(tmp_path / year, {'a': annotation(CAT)})
    parts = [dict(type='VOCLayoutDataset', data_root=str(tmp_path),
                  data_prefix=dict(sub_data_root=f'{year}/'),
                  ann_file=f'{year}/ImageSets/Main/train.txt') for year in ('VOC2007', 'VOC2012')]
    both = DATASETS.build(dict(type='ConcatDataset', datasets=parts,
                               ignore_keys=['dataset_type']))
    assert [info['img_path'] for info in both] == [
        str(tmp_path / year / 'JPEGImages/a.jpg') for year in ('VOC2007', 'VOC2012')]


def test_no_image_is_opened_whose_size_is_known(tmp_path):
    root = layout(tmp_path, {'a': annotation(CAT)})
    (root / 'JPEGImages/a.jpg').write_bytes(b'no image')
    assert len(dataset(root)) == 1
    (root / 'Annotations/a.xml').write_text(annotation(CAT, size=None))
    with pytest.raises(UserError, match=r'JPEGImages/a\.jpg does not decode'):
        dataset(root)
