"""What people mistake, by the commands that they would give: one sentence each, no traceback."""

import re
import shutil
from pathlib import Path

import pytest
import torch
from helpers import DRAWN_DETECTOR

from mmkd.detection.data.synthetic import draw_dataset
from mmkd.distillation import build_model

CONFIG = DRAWN_DETECTOR.format(root=Path(__file__).parents[2], width=8) + """
model['data_preprocessor'] = dict(pad_size_divisor=64)
image_size = 64
train_dataloader = val_dataloader = dict(batch_size=4, num_workers=0, persistent_workers=False)
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
    status, _, err = given(line)
    errors = [text for text in err.splitlines() if text.startswith('error: ')]
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
    status, out, err = given(f'{TRAIN} --work-dir work')
    assert status == 0, err
    assert 'train.txt: skipped' in out


def test_images_of_many_sizes_are_trained_on(here, given):
    import cv2
    for number, path in enumerate(sorted(Path('drawn/JPEGImages').glob('*.jpg'))):
        cv2.imwrite(str(path), cv2.imread(str(path))[:64 - 5 * number])
    status, _, err = given(
        f'{TRAIN} --work-dir work --cfg-options model.data_preprocessor.pad_size_divisor=32')
    assert status == 0, err
    assert Path('work/last.pth').is_file()
