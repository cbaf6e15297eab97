"""The drawn data set: the same bytes, whole or not at all, boxes that fit."""

import os
import subprocess
import sys
from xml.etree import ElementTree

import cv2
import pytest

from mmkd.detection.data import synthetic
from mmkd.detection.data.synthetic import DRAWN_CLASSES, draw_dataset
from mmkd.errors import UserError


def files_of(root):
    return {str(path.relative_to(root)): path.read_bytes()
            for path in root.rglob('*') if path.is_file()}


SETTINGS = dict(seed=3, splits=dict(train=12, val=3, test=2), image_size=64)


@pytest.fixture(scope='module')
def drawn(tmp_path_factory):
    return draw_dataset(tmp_path_factory.mktemp('drawn') / 'set', **SETTINGS)


def test_the_same_seed_gives_the_same_bytes_in_another_process(drawn, tmp_path):
    code = ('import mmkd; from mmkd.detection.data import draw_dataset; '
            f'draw_dataset({str(tmp_path / "again")!r}, **{SETTINGS})')
    done = subprocess.run([sys.executable, '-c', code], check=True, text=True,
                          env=dict(os.environ, PYTHONHASHSEED='77'), capture_output=True)
    assert (done.stdout, done.stderr) == ('', ''), 'importing MMDetection says nothing'
    assert files_of(tmp_path / 'again') == files_of(drawn)


def test_another_seed_gives_other_images(drawn, tmp_path):
    other = files_of(draw_dataset(tmp_path / 'other', seed=4, splits=dict(train=2), image_size=64))
    ours = files_of(drawn)
    for name in ('JPEGImages/train_00000.jpg', 'JPEGImages/train_00001.jpg'):
        assert other[name] != ours[name]


def test_an_image_does_not_depend_on_the_size_of_the_splits(drawn, tmp_path):
    fewer = draw_dataset(tmp_path / 'fewer', seed=3, splits=dict(test=2, train=3), image_size=64)
    ours = files_of(drawn)
    images = {name: data for name, data in files_of(fewer).items() if 'ImageSets' not in name
              and name != 'drawn.json'}
    assert len(images) == 10
    assert images == {name: ours[name] for name in images}


def test_the_layout_is_vocs(drawn):
    lists = drawn / 'ImageSets' / 'Main'
    ids = {path.stem: path.read_text().split() for path in lists.iterdir()}
    assert {split: len(names) for split, names in ids.items()} == dict(
        train=12, val=3, trainval=15, test=2)
    assert ids['trainval'] == ids['train'] + ids['val']
    assert len(set(ids['trainval'] + ids['test'])) == 17
    for name in ids['trainval'] + ids['test']:
        image = cv2.imread(str(drawn / 'JPEGImages' / f'{name}.jpg'))
        root = ElementTree.parse(drawn / 'Annotations' / f'{name}.xml').getroot()
        assert image.shape == (64, 64, 3)
        assert [root.findtext(f'size/{tag}') for tag in ('width', 'height')] == ['64', '64']
        objects = root.findall('object')
        assert 1 <= len(objects) <= 6
        for node in objects:
            assert node.findtext('name') in DRAWN_CLASSES
            xmin, ymin, xmax, ymax = (int(node.findtext(f'bndbox/{tag}'))
                                      for tag in ('xmin', 'ymin', 'xmax', 'ymax'))
            assert 1 <= xmin <= xmax <= 64
            assert 1 <= ymin <= ymax <= 64


def test_a_finished_set_is_reused(drawn):
    before = {path: path.stat().st_mtime_ns for path in drawn.rglob('*')}
    draw_dataset(drawn, **SETTINGS)
    assert {path: path.stat().st_mtime_ns for path in drawn.rglob('*')} == before


def test_a_set_with_other_parameters_is_kept(drawn):
    with pytest.raises(UserError, match=r'was drawn with .*seed.: 3.* not with .*seed.: 4.*remove'):
        draw_dataset(drawn, **(SETTINGS | dict(seed=4)))
    assert (drawn / 'drawn.json').is_file()


def test_a_strange_folder_is_kept(tmp_path):
    (tmp_path / 'photo.jpg').write_bytes(b'mine')
    with pytest.raises(UserError, match='is no drawn data set: name another folder'):
        draw_dataset(tmp_path, splits=dict(train=1), image_size=32)
    assert [path.name for path in tmp_path.iterdir()] == ['photo.jpg']


def test_an_interrupted_run_leaves_nothing_that_looks_whole(tmp_path, monkeypatch):
    root = tmp_path / 'set'
    draw, calls = synthetic.draw_image, []

    def die_at_the_third(rng, size):
        calls.append(root.exists())
        if len(calls) == 3:
            raise KeyboardInterrupt
        return draw(rng, size)

    monkeypatch.setattr(synthetic, 'draw_image', die_at_the_third)
    with pytest.raises(KeyboardInterrupt):
        draw_dataset(root, splits=dict(train=5), image_size=32)
    assert calls == [False] * 3, 'the folder appeared before it was whole'
    assert list(tmp_path.iterdir()) == []
    draw_dataset(root, splits=dict(train=5), image_size=32)
    assert len(list((root / 'JPEGImages').iterdir())) == 5


def test_losing_a_race_against_the_same_set_is_no_error(tmp_path, monkeypatch):
    root, rename = tmp_path / 'set', os.replace

    def other_process_first(source, target):
        monkeypatch.setattr(os, 'replace', rename)
        late = source.rename(tmp_path / 'late')  # the other process has a folder of its own
        draw_dataset(root, splits=dict(train=1), image_size=32)
        rename(late, target)  # fails: the target is there and not empty

    monkeypatch.setattr(os, 'replace', other_process_first)
    assert draw_dataset(tmp_path / 'set', splits=dict(train=1), image_size=32) == root
    assert (root / 'JPEGImages' / 'train_00000.jpg').is_file()


@pytest.mark.parametrize('wrong, words', [
    (dict(splits=dict(train=0)), 'train=0'),
    (dict(splits=dict(extra=3)), 'extra=3'),
    (dict(splits={}), 'at least one image'),
    (dict(image_size=8), 'from 32'),
    (dict(seed=-1), 'from 0'),
])
def test_impossible_parameters(tmp_path, wrong, words):
    with pytest.raises(UserError, match=words):
        draw_dataset(tmp_path / 'set', **wrong)
    assert list(tmp_path.iterdir()) == []
