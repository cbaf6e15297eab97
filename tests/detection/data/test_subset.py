"""A subset of VOC: which images, how large, where the boxes go."""

import xml.etree.ElementTree as ElementTree

import cv2
import pytest
from photo_folders import image
from voc_layout import annotation

from mmkd.detection.data.subset import cut_subset, keep_labels
from mmkd.errors import UserError


@pytest.fixture
def voc(tmp_path):
    folder, lists = tmp_path / 'VOC2012', tmp_path / 'lists'
    for part in (folder / 'Annotations', lists):
        part.mkdir(parents=True)
    for name, (width, height) in dict(a=(500, 400), b=(375, 500), c=(80, 100), d=(90, 90)).items():
        image(folder / f'JPEGImages/{name}.jpg', size=(width, height))
        text = annotation(('cat', (51, 100, 400, 302), 1), size=(width, height))
        (folder / f'Annotations/{name}.xml').write_text(
            text.replace('<bndbox>', '<truncated>1</truncated><bndbox>'))
    for split, names in dict(train='a\n', val='b\n', test='c\n').items():
        (lists / f'{split}.txt').write_text(names)
    return folder, lists, tmp_path / 'out'


def test_listed_images_reduced_with_their_boxes(voc):
    folder, lists, out = voc
    assert cut_subset(folder, lists, out, longer_side=250) == dict(train=1, val=1, test=1)
    assert sorted(path.stem for path in (out / 'JPEGImages').iterdir()) == ['a', 'b', 'c']
    shapes = [cv2.imread(str(out / f'JPEGImages/{name}.jpg')).shape[:2] for name in 'abc']
    assert shapes == [(200, 250), (250, 188), (100, 80)]
    box = ElementTree.parse(out / 'Annotations/a.xml').find('object/bndbox')
    assert [int(box.find(tag).text) for tag in ('xmin', 'ymin', 'xmax', 'ymax')] == [
        26, 50, 200, 151]  # half of each; 25.5 is rounded to the even number
    root = ElementTree.parse(out / 'Annotations/b.xml')
    assert root.find('size/width').text == '188'
    assert root.find('object/difficult').text == root.find('object/truncated').text == '0'
    assert (out / 'ImageSets/Main/trainval.txt').read_text() == 'a\nb\n'


@pytest.mark.parametrize(('lost', 'message'), [
    ('VOC2012/JPEGImages/b.jpg', r'b\.jpg. is missing: name the folder of VOC 2012'),
    ('lists/test.txt', r'test\.txt. is missing')])
def test_a_missing_file_is_named_before_anything_is_written(voc, tmp_path, lost, message):
    folder, lists, out = voc
    (tmp_path / lost).unlink()
    with pytest.raises(UserError, match=message):
        cut_subset(folder, lists, out)
    assert not out.exists()


def test_what_is_there_is_not_made_again(voc):
    folder, lists, out = voc
    cut_subset(folder, lists, out)
    (out / 'JPEGImages/a.jpg').write_bytes(b'mine')
    cut_subset(folder, lists, out)
    assert (out / 'JPEGImages/a.jpg').read_bytes() == b'mine'


def _names(path):
    return set(path.read_text().split())


def test_a_share_keeps_its_labels_and_the_others_lose_theirs(tmp_path):
    names = {f'{i:03}' for i in range(40)}
    for folder in ('JPEGImages', 'ImageSets/Main'):
        (tmp_path / folder).mkdir(parents=True)
    for name in names | {'of_test'}:
        (tmp_path / f'JPEGImages/{name}.jpg').write_text(name)
    (tmp_path / 'ImageSets/Main/train.txt').write_text('\n'.join(names))
    chosen, folder = keep_labels(tmp_path, 0.25, seed=3)
    assert (chosen.name, folder.name) == ('train_25.txt', 'unlabelled_25')
    others = {path.stem: path.read_text() for path in folder.iterdir()}
    assert len(_names(chosen)) == 10 and all(name == text for name, text in others.items())
    assert _names(chosen) | others.keys() == names and not _names(chosen) & others.keys()
    first = _names(chosen)
    with pytest.raises(UserError, match=r'train_25\.txt is there already'):
        keep_labels(tmp_path, 0.25)
    chosen.unlink()
    folder.rename(tmp_path / 'kept')
    assert _names(keep_labels(tmp_path, 0.25, seed=3)[0]) == first
    assert _names(keep_labels(tmp_path, 0.5, seed=3)[0]) > first, 'a larger share has the smaller'
    chosen.unlink()
    (tmp_path / 'unlabelled_25').rename(tmp_path / 'kept too')
    assert _names(keep_labels(tmp_path, 0.25, seed=4)[0]) != first


@pytest.mark.parametrize('share', [0, 1, -0.1, float('nan')])
def test_a_share_that_is_none(tmp_path, share):
    with pytest.raises(UserError, match='above 0 and below 1'):
        keep_labels(tmp_path, share)
