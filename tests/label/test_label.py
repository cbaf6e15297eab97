"""Pseudo-labels: the threshold, the fusion, what is written, and a training on it."""

import json
import sys
from pathlib import Path
from types import SimpleNamespace
from xml.etree import ElementTree

import numpy as np
import pytest
import torch
from helpers import DRAWN_DETECTOR
from photo_folders import image

import mmkd.engine.hooks  # noqa: F401
from mmkd.detection.data import draw_dataset
from mmkd.detection.data.annotation import read_annotation
from mmkd.distillation import build_model
from mmkd.engine import launch
from mmkd.engine.config import load_config
from mmkd.errors import UserError
from mmkd.evaluation.voc_map import Detections, Objects
from mmkd.label import label_folder
from mmkd.label.command import _chosen
from mmkd.label.teachers import Teachers
from mmkd.label.threshold import best_threshold

ROOT = Path(__file__).parents[2]
BOTH = """
_base_ = './student.py'
train_dataloader = dict(batch_size=4, dataset=dict(
    _delete_=True, type='ConcatDataset', datasets=[
        dict(
            type='VOCLayoutDataset', data_root=root, ann_file='ImageSets/Main/train.txt',
            metainfo=dict(classes={{_base_.classes}}), filter_cfg=dict(filter_empty_gt=True),
            pipeline={{_base_.train_pipeline}})
        for root in ('DATA', 'labelled')]))
"""


def test_the_threshold_has_the_best_f1():
    # Two objects; hits at 0.9 and 0.6, misses at 0.5 and 0.3, so that F1 is 1 from 0.51 to 0.6.
    box, far = [0, 0, 9, 9], [50, 50, 59, 59]
    found = [Detections(np.array([box, far], float), np.array([0.9, 0.5]), np.array([0, 0])),
             Detections(np.array([box, box], float), np.array([0.6, 0.3]), np.array([1, 1]))]
    objects = [Objects(np.array([box], float), np.array([label]), np.array([False]))
               for label in (0, 1)]
    assert best_threshold(found, objects, 2) == (0.51, 1.0)
    # With a third object that nobody finds: 2 * 2 / (2 hits + 0 misses + 3 objects).
    objects[0] = Objects(np.array([box, [20, 20, 29, 29]], float), np.array([0, 0]),
                         np.array([False, False]))
    assert best_threshold(found, objects, 2) == (0.51, pytest.approx(0.8))


def member(classes, *boxes):
    found = [np.array(part) for part in zip(*boxes, strict=True)]
    one = SimpleNamespace(classes=classes)
    return type('Member', (), dict(classes=classes, __call__=lambda self, path: Detections(
        found[0].astype(float), found[1], found[2])))() if boxes else one


@pytest.fixture
def photo(tmp_path):
    image(tmp_path / 'photo.png', size=(200, 100))
    return tmp_path / 'photo.png'


def test_boxes_of_one_class_are_joined_by_their_names(photo):
    pytest.importorskip('ensemble_boxes')
    both = Teachers([member(('cat', 'dog'), ([10, 10, 50, 50], 0.8, 0), ([0, 0, 9, 9], 0.5, 1)),
                     member(('cow', 'cat'), ([14, 10, 54, 50], 0.4, 1))])
    assert both.classes == ('cat', )
    found, size = both(photo)
    assert size == (200, 100)
    # Weighted by 2 to 1: 10 + 4 / 3; the score is the mean.
    np.testing.assert_allclose(found.boxes, [[11.3333, 10, 51.3333, 50]], atol=1e-3)
    np.testing.assert_allclose(found.scores, [0.6], atol=1e-6)


def test_boxes_end_where_the_photograph_does(photo):
    seen = ([190, 60, 230, 120], 0.8, 0), ([20, 100, 60, 140], 0.9, 0), ([-9, 5, 9, 9], 0.7, 0)
    found, _ = Teachers([member(('cat', ), *seen)])(photo)
    np.testing.assert_allclose(found.boxes, [[190, 60, 200, 100], [0, 5, 9, 9]])
    np.testing.assert_allclose(found.scores, [0.8, 0.7])


@pytest.mark.filterwarnings('error:Zero area')
def test_several_teachers_that_see_something_beside_the_photograph(photo):
    pytest.importorskip('ensemble_boxes')
    one = member(('cat', ), ([20, 100, 60, 140], 0.9, 0), ([10, 10, 50, 50], 0.8, 0))
    found, _ = Teachers([one, one])(photo)
    np.testing.assert_allclose(found.boxes, [[10, 10, 50, 50]], atol=1e-3)


def test_no_class_in_common():
    with pytest.raises(UserError, match='no class in common: they know cat; cow'):
        Teachers([member(('cat', )), member(('cow', ))])


def test_several_teachers_without_the_package(monkeypatch):
    monkeypatch.setitem(sys.modules, 'ensemble_boxes', None)
    with pytest.raises(UserError, match=r'pip install mmkd\[label\], or name one teacher'):
        Teachers([member(('cat',)), member(('cat',))])


@pytest.fixture
def drawn(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    draw_dataset('data/drawn', splits=dict(train=6, val=3, test=1), image_size=64)
    Path('student.py').write_text(DRAWN_DETECTOR.format(root=ROOT, width=8))
    torch.manual_seed(0)
    cfg = load_config('student.py')
    weights = build_model(cfg).state_dict()
    for name in weights:
        if 'wh_head' in name and name.endswith('bias'):
            weights[name].fill_(5)  # boxes of some size without a training
    torch.save(dict(state_dict=weights, meta=dict(
        dataset_meta=dict(classes=tuple(cfg.classes)))), 'teacher.pth')
    for i, path in enumerate(sorted(Path('data/drawn/JPEGImages').iterdir())[:4]):
        copy = Path(f'photos/{"deep/" if i else ""}{i}{path.suffix}')
        copy.parent.mkdir(parents=True, exist_ok=True)
        copy.write_bytes(path.read_bytes())
    Path('photos/damaged.jpg').write_bytes(b'no image')
    return cfg


def test_what_is_written_trains_beside_labelled_data(drawn, capsys):
    label_folder('photos', ['student.py=teacher.pth'], 'labelled', 0.02)
    said = capsys.readouterr()
    assert '4 images labelled, 1 skipped: labelled' in said.out and 'damaged.jpg' in said.err
    names = Path('labelled/ImageSets/Main/train.txt').read_text().split()
    assert names == ['0', 'deep__1', 'deep__2', 'deep__3']
    nodes = [node for name in names for node in ElementTree.parse(
        f'labelled/Annotations/{name}.xml').iter('object')]
    coco = json.loads(Path('labelled/annotations.json').read_text())
    assert nodes and len(nodes) == len(coco['annotations'])
    assert [one['file_name'].partition('.')[0] for one in coco['images']] == names
    for node, one in zip(nodes, coco['annotations'], strict=True):
        assert int(node.findtext('bndbox/xmin')) == one['bbox'][0] + 1
        assert float(node.findtext('score')) == one['score'] >= 0.02

    before = Path('labelled/Annotations/0.xml').stat().st_mtime_ns
    Path('labelled/Annotations/deep__1.xml').unlink()  # as if it had been killed there
    label_folder('photos', ['student.py=teacher.pth'], 'labelled', 0.02)
    assert Path('labelled/Annotations/0.xml').stat().st_mtime_ns == before
    assert json.loads(Path('labelled/annotations.json').read_text()) == coco
    with pytest.raises(UserError, match=r'other teachers or of another --score-thr: name another'):
        label_folder('photos', ['student.py=teacher.pth'], 'labelled', 0.5)

    Path('labelled/label.json').write_text('{"threshold"')
    with pytest.raises(UserError, match=r"label.json' is damaged .* label anew"):
        label_folder('photos', ['student.py=teacher.pth'], 'labelled', 0.02)

    Path('both.py').write_text(BOTH.replace('DATA', str(drawn.data_root)))
    cfg = load_config('both.py')
    cfg.train_dataloader |= dict(num_workers=0, persistent_workers=False)
    cfg.train_cfg = dict(type='IterBasedTrainLoop', max_iters=2)
    cfg.pop('val_dataloader'), cfg.pop('val_evaluator'), cfg.pop('val_cfg')
    cfg.param_scheduler, cfg.work_dir, cfg.launcher = None, 'run', 'none'
    launch.train(cfg)
    assert Path('run/last.pth').exists()


class Knowing:
    """Finds every object with 0.7, and one that is none with 0.3."""

    classes = ('nothing', 'disc')

    def __call__(self, path):
        there = read_annotation(path.replace('JPEGImages', 'Annotations').rpartition('.')[0]
                                + '.xml').objects
        boxes = [[corner - 1 for corner in one.box] for one in there if one.name == 'disc']
        boxes.append([0, 0, 1, 1])
        return Detections(np.array(boxes, float), np.array([0.7] * (len(boxes) - 1) + [0.3]),
                          np.ones(len(boxes), int)), (64, 64)


def test_the_threshold_is_chosen_on_validation_images(drawn):
    assert _chosen(Knowing(), SimpleNamespace(cfg=drawn)) == (0.31, 1.0)
    with pytest.raises(UserError, match=r'no validation images .* give --score-thr'):
        _chosen(Knowing(), SimpleNamespace(cfg=type(drawn)(dict(model={}))))


@pytest.mark.parametrize('folder, out, message', [
    ('nowhere', None, "no folder 'nowhere'"), ('empty', None, "'empty' holds no image"),
    ('photos', 'photos/out', 'whose images it would label')])
def test_folders_that_do_not_serve(tmp_path, monkeypatch, photo, folder, out, message):
    monkeypatch.chdir(tmp_path)
    Path('empty').mkdir()
    Path('photos').mkdir()
    with pytest.raises(UserError, match=message):
        label_folder(folder, ['x.py=x.pth'], out)
