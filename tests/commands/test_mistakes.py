"""What people mistake, by the commands that they would give: one sentence each, no traceback."""

import re
import shutil
import warnings
from collections import OrderedDict

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
data_root = 'drawn'
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


TRAIN = 'train tiny.py --data-root drawn --epochs 1'


@pytest.mark.parametrize('line, told', [
    ('train tiny.py --data drawn --classes dsc,rnig',
     'one of the classes dsc, rnig: the classes in its files are disc, square, triangle'),
    (f'{TRAIN} --cfg-options model.bbox_head.num_classes=5',
     'num_classes is 5, but train_dataloader has 3 classes'),
    ('test classifier tiny.pth --data cifar10', "'tiny.pth': the weights do not fit ResNetC"),
    ('test demo/centernet_r50 tiny.pth', 'is of another architecture than the config'),
    (f'{TRAIN} --teacher tiny.pth=tiny.py', "config 'tiny.pth' is no Python file"),
    ('test tiny.pth tiny.py', "config 'tiny.pth' is no Python file: name a config"),
    ('predict tiny.pth drawn/JPEGImages', 'is a checkpoint of PyTorch: export it first'),
])
def test_a_mistake_is_one_sentence(line, told, here, given):
    status, _, errors = given(line)
    assert status == 1 and len(errors) == 1
    assert re.search(told, errors[0]), errors
