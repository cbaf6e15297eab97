"""What people mistake, by the commands that they would give: one sentence each, no traceback."""

import re
import shutil
import warnings
from collections import OrderedDict
from pathlib import Path

import pytest
import torch

from mmkd.commands import main
from mmkd.detection.data.synthetic import draw_dataset
from mmkd.distillation import build_model

CONFIG = """
_base_ = ['mmkd::_base_/models/narrow_resnet18.py', 'mmkd::_base_/datasets/drawn.py',
          'mmkd::_base_/schedules/small_8e.py', 'mmkd::_base_/default_runtime.py']
model = dict(
    data_preprocessor=dict(pad_size_divisor=64),
    backbone=dict(base_channels=8),
    neck=dict(in_channels=64, num_deconv_filters=(16, 8)),
    bbox_head=dict(num_classes={{_base_.num_classes}}, in_channels=8, feat_channels=8))
image_size = 64
train_cfg = dict(max_epochs=8, val_interval=8)
train_dataloader = dict(batch_size=4, num_workers=0, persistent_workers=False)
val_dataloader = dict(batch_size=4, num_workers=0, persistent_workers=False)
"""


@pytest.fixture(scope='module')
def whole(tmp_path_factory):
    """A folder with drawn data, a config, and weights of its model."""
    folder = tmp_path_factory.mktemp('whole')
    draw_dataset(folder / 'drawn', splits=dict(train=4, val=2, test=2), image_size=64)
    (folder / 'tiny.py').write_text(CONFIG)
    model = build_model(folder / 'tiny.py')
    torch.save(dict(state_dict=model.state_dict()), folder / 'tiny.pth')
    return folder


@pytest.fixture
def here(whole, tmp_path, monkeypatch):
    """A copy of it, to be spoiled, in which commands are given."""
    shutil.copytree(whole, tmp_path / 'here')
    monkeypatch.chdir(tmp_path / 'here')
    return tmp_path / 'here'


@pytest.fixture
def given(monkeypatch, capsys):
    """Give a command; return its status, what was printed, and the lines of errors."""
    def give(line):
        from mmengine.logging import MessageHub, MMLogger
        for kind in (MessageHub, MMLogger):  # by name and second for the life of the process
            monkeypatch.setattr(kind, '_instance_dict', OrderedDict())
        capsys.readouterr()
        status = 0
        with warnings.catch_warnings():
            warnings.simplefilter('ignore')
            try:
                main(line.split())
            except SystemExit as end:
                status = end.code
        out, err = capsys.readouterr()
        return status, out, [text for text in err.splitlines() if text.startswith('error: ')]
    return give


def cut(path):
    path.write_bytes(path.read_bytes()[:path.stat().st_size // 2])


XML, JPG = 'drawn/Annotations/train_00001.xml', 'drawn/JPEGImages/train_00001.jpg'
RETINANET = """
_base_ = ['mmdet::retinanet/retinanet_r18_fpn_1x_coco.py', 'mmkd::_base_/distillation/joint.py']
teachers = dict(tiny=dict(config='tiny.py', checkpoint='tiny.pth'))
model = dict(backbone=dict(init_cfg=None))
"""
TRAIN = 'train tiny.py --data-root drawn --epochs 1'


@pytest.mark.parametrize('spoil, line, told', [
    (None, 'train tiny.py --data-root nowhere', r'split file nowhere/.*train.txt does not exist'),
    (None, 'train tiny.py --data drawn --classes dsc,rnig',
     'one of the classes dsc, rnig: the classes in its files are disc, square, triangle'),
    (None, f'{TRAIN} --cfg-options model.bbox_head.num_classes=5',
     'num_classes is 5, but train_dataloader has 3 classes'),
    (None, 'test classifier tiny.pth --data cifar10', "'tiny.pth': the weights do not fit ResNetC"),
    (None, 'test demo/centernet_r50 tiny.pth', 'is of another architecture than the config'),
    (None, f'{TRAIN} --teacher mmkd::demo/centernet_r50=tiny.pth',
     "teacher 'centernet_r50': checkpoint 'tiny.pth' is of another architecture"),
    (None, f'{TRAIN} --teacher tiny.pth=tiny.py', "config 'tiny.pth' is no Python file"),
    (None, 'test tiny.pth tiny.py', "config 'tiny.pth' is no Python file: name a config"),
    (None, 'predict tiny.pth drawn/JPEGImages', 'is a checkpoint of PyTorch: export it first'),
    (lambda: Path('mine.py').write_text(RETINANET),
     'train mine.py --data drawn --classes disc,square,triangle',
     "'heatmap' is a CenterNetTerm and the student no CenterNet .RetinaNet.*--method pkd"),
    (lambda: Path(JPG).unlink(), TRAIN, '1 images of .* do not exist .*train_00001'),
    (lambda: cut(Path(JPG)), TRAIN, 'train_00001.jpg is cut off: replace it'),
    (lambda: cut(Path(XML)), TRAIN, 'train_00001.xml is not valid: .*repair it'),
])
def test_a_mistake_is_one_sentence(spoil, line, told, here, given):
    if spoil is not None:
        spoil()
    status, _, errors = given(line)
    assert status == 1 and len(errors) == 1
    assert re.search(told, errors[0]), errors


def test_a_class_that_is_misspelt_is_found_by_check(here, given):
    Path('drawn/ImageSets/Main/trainval.txt').unlink()
    status, out, _ = given('check drawn --classes disc,squar,triangle')
    assert status == 1
    assert "ERROR no object of the class 'squar'. Did you mean 'square'?" in out
    assert out.endswith('1 errors\n')


def test_a_box_that_is_upside_down_is_named_and_left_out(here, given):
    text = Path(XML).read_text()
    low, high = (re.search(rf'<{name}>(.*?)</{name}>', text)[1] for name in ('xmin', 'xmax'))
    text = text.replace(f'<xmin>{low}<', f'<xmin>{high}<', 1)
    Path(XML).write_text(text.replace(f'<xmax>{high}<', f'<xmax>{low}<', 1))
    status, out, _ = given('check drawn')
    assert status == 1 and 'train_00001.xml' in out
    status, out, errors = given(f'{TRAIN} --work-dir work')
    assert status == 0, errors
    assert 'train.txt: skipped' in out


def test_images_of_many_sizes_are_trained_on(here, given):
    import cv2
    for number, path in enumerate(sorted(Path('drawn/JPEGImages').glob('*.jpg'))):
        cv2.imwrite(str(path), cv2.imread(str(path))[:64 - 5 * number])
    status, _, errors = given(
        f'{TRAIN} --work-dir work --cfg-options model.data_preprocessor.pad_size_divisor=32')
    assert status == 0, errors
    assert Path('work/last.pth').is_file()
