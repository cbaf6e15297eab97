"""What a command chooses beside a config: classifiers' networks, detectors' teachers, folders."""

import argparse
import logging
from pathlib import Path

import pytest
from mmengine.logging import MMLogger

from mmkd.engine.arguments import CHOICES, add_choices
from mmkd.engine.choices import chosen_config
from mmkd.engine.config import load_config
from mmkd.errors import UserError


@pytest.fixture(autouse=True)
def _elsewhere(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    for name in ('DATA', 'METHOD', 'STUDENT', 'TEACHER', 'MEMBERS', 'TEACHER_CHECKPOINT',
                 'DATA_ROOT', 'BCCD_ROOT', 'DRAWN_ROOT'):
        monkeypatch.delenv(name, raising=False)


def chosen(line):
    """The config of a command line."""
    parser = argparse.ArgumentParser()
    parser.add_argument('config')
    parser.add_argument('--data-root')
    add_choices(parser)
    args = parser.parse_args(line.split())
    assert set(CHOICES) < set(vars(args))
    return chosen_config(args)


def test_a_classifier():
    cfg = chosen('classifier --data cifar10 --student vgg8 --teacher resnet14=a.pth '
                 '--teacher vgg13 --method dkd --data-root /images')
    assert cfg.model.backbone.type == 'vgg8' and cfg.model.num_classes == 10
    assert {name: entry.checkpoint for name, entry in cfg.teachers.items()} == {
        'resnet14': 'a.pth', 'vgg13': 'work_dirs/cifar10/ce_vgg13/epoch_240.pth'}
    assert cfg.terms.dkd.loss.beta == 6.0
    assert cfg.work_dir == 'work_dirs/cifar10/dkd_resnet14_vgg13_vgg8'
    for name in ('train', 'val', 'test'):
        dataset = cfg[f'{name}_dataloader'].dataset
        assert (dataset.type, dataset.data_root) == ('CIFAR10', '/images')


def test_one_network_and_a_cohort():
    cfg = chosen('selfdistill --data cifar10 --student resnet8 --method byot')
    assert cfg.work_dir == 'work_dirs/cifar10/byot_resnet8'
    cfg = chosen('online --data cifar10 --members resnet8,vgg8 --method dml')
    assert list(cfg.model.members) == ['resnet8_1', 'vgg8_2']


def test_the_config_that_a_run_leaves_needs_no_choice():
    cfg = chosen('classifier --data cifar10 --student vgg8 --teacher resnet14 --method kd')
    cfg.dump('dumped.py')
    again = chosen('dumped.py')
    for name in ('model', 'teachers', 'terms', 'train_dataloader', 'work_dir'):
        assert again[name] == cfg[name]
    assert (again.data, again.method, again.student) == ('cifar10', 'kd', 'vgg8')
    with pytest.raises(UserError, match=r"--student is for .* and not for 'dumped.py'"):
        chosen('dumped.py --student resnet8')
    with pytest.raises(UserError, match=r'--data is for the configs classifier, selfdistill and'):
        chosen('dumped.py --data cifar100')


@pytest.mark.parametrize('line, message', [
    ('classifier --members resnet8,vgg8 --data cifar10', "--members .* 'classifier' has no such"),
    ('selfdistill --teacher vgg13 --method scd', "--teacher .* 'selfdistill' has no such choice"),
    ('classifier --data cifar10 --classes a,b', '--classes was given, but'),
    ('classifier --teacher vgg13', '--teacher was given without --method and would do nothing'),
    ('classifier --data cifar1000', r"classification/cifar1000.py', which does not exist. Did"),
    ("classifier --student vgg8'", r'--student .* has a quote'),
    ('demo/centernet_r18 --student vgg8', "--student is for .*not for 'demo/centernet_r18'"),
    ('demo/centernet_r18 --members vgg8', '--members is for the config online, and not'),
    ('demo/centernet_r18 --method pkd', '--method was given without --teacher'),
    ('demo/centernet_r18 --classes a', '--classes was given without --data'),
    ('demo/centernet_r18 --data x --data-root y', 'both say where the data lie'),
    ('demo/centernet_r18 --teacher vgg13', "--teacher 'vgg13': give the folder of a run")])
def test_a_wrong_mix_is_one_sentence(line, message):
    with pytest.raises(UserError, match=message):
        chosen(line)


def test_a_detector_learns_from_another():
    cfg = chosen('demo/centernet_r18 --teacher mmkd::demo/centernet_r50=a.pth --method pkd')
    assert cfg.teachers == dict(centernet_r50=dict(config='mmkd::demo/centernet_r50',
                                                   checkpoint='a.pth'))


def test_the_data_lie_elsewhere(monkeypatch):
    cfg = chosen('centernet_r18_voc --data-root /voc')
    assert [one.data_root for one in cfg.train_dataloader.dataset.datasets] == ['/voc/'] * 2
    assert cfg.train_dataloader.dataset.datasets[1].ann_file.startswith('VOC2012/')
    assert cfg.data_root == '/voc/' == cfg.test_dataloader.dataset.data_root
    cfg = chosen('mmdet::retinanet/retinanet_r18_fpn_1x_coco --data-root coco/')
    assert cfg.val_evaluator.ann_file == 'coco/annotations/instances_val2017.json'
    assert cfg.val_dataloader.dataset.data_root == 'coco/'
    monkeypatch.setenv('BCCD_ROOT', '/cells/')  # silently, as ever
    assert chosen('gfl_r18').test_dataloader.dataset.data_root == '/cells/'
    assert chosen('gfl_r18 --data-root x').test_dataloader.dataset.data_root == 'x/'
    Path('none.py').write_text("model = dict(type='CenterNet')")
    with pytest.raises(UserError, match=r"--data-root: config .*none.py' has no data_root"):
        chosen('none.py --data-root x')


@pytest.fixture
def warnings(monkeypatch):
    found = []
    logger = MMLogger.get_instance('choices')
    monkeypatch.setattr(logger, 'handlers', [])
    handler = logging.Handler(logging.WARNING)
    handler.emit = lambda record: found.append(record.getMessage())
    logger.addHandler(handler)
    return found


def test_variables_of_old_choose_for_one_release(monkeypatch, warnings):
    for name, value in dict(DATA='cifar10', STUDENT='vgg8', TEACHER='resnet14', METHOD='kd',
                            TEACHER_CHECKPOINT='a.pth', DATA_ROOT='/images').items():
        monkeypatch.setenv(name, value)
    cfg = load_config('classifier')
    assert cfg.model.backbone.type == 'vgg8' and cfg.teachers.resnet14.checkpoint == 'a.pth'
    assert cfg.test_dataloader.dataset.data_root == '/images'
    [told] = warnings
    assert 'of the environment will not be read by the next release, give ' in told
    for option in ('--data cifar10', '--student vgg8', '--teacher resnet14=a.pth', '--method kd',
                   '--data-root /images'):
        assert option in told
    # An option comes before a variable, and says nothing of itself.
    warnings.clear()
    cfg = chosen('classifier --student resnet8')
    assert cfg.model.backbone.type == 'resnet8'
    assert '--student' not in warnings[0]
    warnings.clear()
    load_config('demo/centernet_r18')
    assert warnings == []


def test_one_checkpoint_for_several_teachers(monkeypatch):
    monkeypatch.setenv('TEACHER', 'resnet14,vgg13')
    monkeypatch.setenv('TEACHER_CHECKPOINT', 'a.pth')
    with pytest.raises(UserError, match='TEACHER_CHECKPOINT is the file of one teacher'):
        load_config('classifier')


@pytest.mark.parametrize('name', ['classifier', 'selfdistill', 'online'])
def test_no_config_reads_the_environment_by_itself(name, monkeypatch):
    monkeypatch.setenv('MMKD_DATA', 'svhn')
    assert load_config(name).data_root == 'data'
    assert load_config(name, arguments=dict(data='svhn')).train_dataloader.dataset.type == 'SVHN'
    assert load_config(name).train_dataloader.dataset.type == 'CIFAR100'
