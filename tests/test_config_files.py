"""Configs and studies by path, by name and as PACKAGE::NAME, from any folder."""

import os
from pathlib import Path

import pytest

from mmkd.config_files import config_path, read_config, study_path
from mmkd.errors import UserError

CONFIGS = Path(__file__).parents[1] / 'configs'


@pytest.fixture(autouse=True)
def _elsewhere(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)


@pytest.mark.parametrize('name, place', [
    ('centernet_mt_r18', 'centernet_mt_r18.py'),
    ('centernet_mt_r18.py', 'centernet_mt_r18.py'),
    ('mmkd::centernet_mt_r18.py', 'centernet_mt_r18.py'),
    ('centernet_r18_voc', 'centernet/centernet_r18_voc.py'),
    ('demo/centernet_r18', 'demo/centernet_r18.py'),
    ('mmkd::demo/centernet_r18', 'demo/centernet_r18.py'),
    ('configs/demo/centernet_r18.py', 'demo/centernet_r18.py'),
    ('classifier', 'classification/distill.py'),
    ('selfdistill', 'selfdistill/train.py'),
    ('online', 'online/train.py')])
def test_by_name(name, place):
    assert config_path(name) == CONFIGS / place


def test_a_file_of_that_name_comes_first(tmp_path):
    for name in ('classifier', 'configs/demo/centernet_r18.py'):
        path = tmp_path / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.touch()
        assert config_path(name).resolve() == path


@pytest.mark.parametrize('name, message', [
    ('centernet_r18', 'may be bccd_small/centernet_r18 or demo/centernet_r18 or voc_animals'),
    ('clasifier', "neither a file here nor one of mmkd's configs. Did you mean 'classifier'"),
    ('joint', 'is neither a file here'),
    ('mmkd::demo/centernet_r1', r"installed mmkd. Did you mean 'demo/centernet_r"),
    ('mmdet::retinanet/retinanet_r18_fpn_1x_cocoo.py',
     r'in the installed mmdet.*retinanet_r18_fpn_1x'),
    ('mmdett::a.py', "the package 'mmdett' is not installed")])
def test_what_is_no_name(name, message):
    with pytest.raises(UserError, match=message):
        config_path(name)


def test_a_path_of_which_nothing_exists_is_left_to_the_reader():
    for path in ('nowhere/x.py', '/nowhere/centernet_mt_r18.py'):
        assert config_path(path) == Path(path)


def test_studies():
    assert study_path('drawn_r18') == study_path('studies/drawn_r18.py')
    assert study_path('drawn_r18') == CONFIGS.parent / 'studies/drawn_r18.py'
    with pytest.raises(UserError, match=r"one of mmkd's studies. Did you mean 'drawn_r18'"):
        study_path('drawn_r81')


def test_bases_and_variables(monkeypatch):
    monkeypatch.setenv('MMKD_DEPTH', '9')  # an argument is no environment variable
    Path('mine.py').write_text("_base_ = ['mmkd::centernet_mt_r18.py']\n"
                               "depth, width = '{{$MMKD_DEPTH:1}}', '{{$MMKD_WIDTH:2}}'\n")
    cfg = read_config('mine.py', dict(width='3', unused='4'))
    assert (cfg.depth, cfg.width) == ('1', '3')
    assert cfg.env_variables == {'MMKD_WIDTH': '3'}
    assert list(cfg.teachers) == ['resnet50', 'hourglass']
    assert all(config_path(teacher.config).is_file() for teacher in cfg.teachers.values())
    assert os.environ['MMKD_DEPTH'] == '9' and 'MMKD_WIDTH' not in os.environ
    Path('mine.py').write_text("_base_ = 'mmkd::centernet_mt_r81.py'\n")
    with pytest.raises(UserError, match="Did you mean 'centernet_mt_r18"):
        read_config('mine.py')


def test_a_base_of_mmdetection_is_as_the_config_alone():
    """mmengine would tie it to MMDetection's registries, in which mmkd's hooks are not."""
    name = 'mmdet::retinanet/retinanet_r18_fpn_1x_coco.py'
    Path('mine.py').write_text(f"_base_ = '{name}'\n")
    assert read_config('mine.py').to_dict() == read_config(name).to_dict()
    assert config_path(name.removesuffix('.py')) == config_path(name)
    Path('mine.py').write_text("_base_ = 'mmdet::retinanet/retinanet_r81_fpn_1x_coco.py'\n")
    with pytest.raises(UserError, match="Did you mean 'retinanet/retinanet_r18_fpn_1x_coco'"):
        read_config('mine.py')
