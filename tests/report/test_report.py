"""A page on a tiny detector with a teacher, and on a tiny classifier."""

import json
import shutil
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pytest
import torch
from helpers import DRAWN_DETECTOR
from mmengine.registry import DefaultScope

from mmkd.commands.report import main
from mmkd.detection.data.synthetic import draw_dataset
from mmkd.engine.config import load_config
from mmkd.engine.launch import train
from mmkd.errors import UserError
from mmkd.evaluation.voc_map import Detections, Objects
from mmkd.report import classifier, curves, detector
from mmkd.report.page import write_report
from mmkd.report.panels import Panel, panel

ROOT = Path(__file__).parents[2]
DETECTOR = DRAWN_DETECTOR.format(root=ROOT, width=8) + """
model['data_preprocessor'] = dict(pad_size_divisor=64)
train_cfg = dict(max_epochs=2, val_interval=1)
train_dataloader = dict(batch_size=4, dataset=dict(pipeline=[
    dict(type='LoadImage'), dict(type='LoadAnnotations', with_bbox=True),
    dict(type='Resize', scale=(64, 64), keep_ratio=True), dict(type='PackDetInputs')]))
"""
PANELS = ['models', 'losses', 'learning-rate', 'validation', 'quality']


@pytest.fixture(autouse=True)
def _one_round(monkeypatch):
    monkeypatch.setattr('mmkd.report.overview.ROUNDS', 1)


@pytest.fixture(scope='module')
def folder(tmp_path_factory):
    """Two runs of a detector: `alone`, and `taught` by the first."""
    folder = tmp_path_factory.mktemp('runs')
    draw_dataset(folder / 'drawn', splits=dict(train=8, val=6, test=2), image_size=64)
    teacher = folder / 'alone'
    (folder / 'alone.py').write_text(DETECTOR)
    (folder / 'taught.py').write_text(
        f"_base_ = ['alone.py', '{ROOT}/configs/_base_/distillation/joint.py']\n"
        f"teachers = dict(big=dict(config='{teacher}/config.py', "
        f"checkpoint='{teacher}/best.pth'))\n")
    with pytest.MonkeyPatch.context() as patch, DefaultScope.overwrite_default_scope('mmkd'):
        patch.setenv('DRAWN_ROOT', f'{folder / "drawn"}/')
        for name in ('alone', 'taught'):
            cfg = load_config(folder / f'{name}.py')
            cfg.work_dir, cfg.launcher, cfg.log_level = str(folder / name), 'none', 'ERROR'
            cfg.experiment_name = f'report_{name}_{folder.name}'
            train(cfg)
    return folder


def test_a_page_of_a_taught_detector(folder, page, capsys):
    main([str(folder / 'taught')])
    assert capsys.readouterr().out == f'written: {folder}/taught/report.html\n'
    found = page(folder / 'taught/report.html')
    assert list(found.panels) == ['head', *PANELS, 'pictures', 'heatmaps', 'check']
    assert 'Not shown' not in found.source
    head = found.text('head')
    assert 'CenterNet with ResNet-18, taught by big (CenterNet with ResNet-18)' in head
    assert 'in the terms heatmap, wh, offset, feature' in head and '2 epochs in' in head
    assert f'Next: mmkd test {folder}/taught' in head
    losses = found.text('losses')
    assert 'term feature (weight 2, ' in losses and '% of the gradient in the first step' in losses
    assert found.count('losses', 'svg') == 9  # the sum, three of its own, four terms, the norm
    for name in ('disc', 'square', 'triangle'):
        assert f'pascal_voc/AP/{name}' in found.text('validation')
    assert 'on 6 validation images' in found.text('quality')
    assert found.count('quality', 'svg') == 2
    assert found.count('pictures', 'img') == 1
    assert found.count('heatmaps', 'image') == 3 * 4  # image, student, teacher, difference
    assert found.text('heatmaps').count('big - student') == 3  # a title above each
    table = found.text('models')
    assert 'teacher big' in table and 'ms' in table and 'before training' in table
    assert 'feature' in found.text('check')


def test_two_runs_side_by_side_and_a_teacher_that_is_gone(folder, page, tmp_path):
    copy = tmp_path / 'copy'
    shutil.copytree(folder / 'taught', copy)
    text = (copy / 'config.py').read_text().replace('alone/best.pth', 'alone/gone.pth')
    (copy / 'config.py').write_text(text)
    write_report([copy, folder / 'alone'], tmp_path / 'two.html')
    found = page(tmp_path / 'two.html')
    assert found.count('losses', 'svg') == 9 and found.count('losses', 'i') == 2
    for text in ('alone: student', 'copy: student'):
        assert text in found.text('models')
    assert found.count('quality', 'svg') == 4
    for name in ('models', 'pictures', 'heatmaps'):
        assert 'left out' in found.text(name) and 'gone.pth' in found.text(name)
    assert found.count('pictures', 'img') == 1


def test_what_is_missing_is_a_sentence(folder, page, tmp_path):
    bare = tmp_path / 'bare'
    bare.mkdir()
    for name in ('config.py', 'last.pth'):
        shutil.copy(folder / 'alone' / name, bare)
    (bare / 'check.json').write_text('{half')
    text = (bare / 'config.py').read_text().replace(str(folder / 'drawn'), str(tmp_path / 'gone'))
    (bare / 'config.py').write_text(text)
    write_report([bare], tmp_path / 'page.html')
    found = page(tmp_path / 'page.html')
    assert list(found.panels) == ['head', *PANELS, 'pictures', 'heatmaps', 'check']
    assert 'results.csv has no such numbers' in found.text('losses')
    assert 'there was no validation' in found.text('validation')
    for name in ('quality', 'pictures', 'heatmaps'):
        assert 'Not shown' in found.text(name) and 'gone' in found.text(name)
    assert 'nothing was checked' in found.text('check')
    assert '0.0' in found.text('models')  # its parameters are known all the same
    (bare / 'last.pth').unlink()
    write_report([bare], tmp_path / 'page.html')
    assert 'neither best.pth nor last.pth' in page(tmp_path / 'page.html').text('head')


def test_a_page_of_a_classifier(cifar_config, page, tmp_path):
    train(cifar_config('configs/classification/distill.py', tmp_path / 'run', STUDENT='resnet8'))
    write_report([tmp_path / 'run'], tmp_path / 'page.html')
    found = page(tmp_path / 'page.html')
    assert list(found.panels) == ['head', *PANELS, 'embeddings', 'check']
    assert 'Classifier with resnet8, trained without a teacher' in found.text('head')
    assert 'on 4 validation images: top-1' in found.text('quality')
    assert found.count('quality', 'svg') == 1
    assert 'there are 4 validation images and t-SNE needs 10' in found.text('embeddings')
    assert 'ms' in found.text('models')


def test_folders_that_are_no_runs(folder, tmp_path):
    with pytest.raises(UserError, match='is no folder of a training'):
        write_report([tmp_path], tmp_path / 'page.html')
    with pytest.raises(SystemExit):
        main([str(tmp_path)])
    with pytest.raises(UserError, match='cannot write'):
        write_report([folder / 'alone'], '/proc/page.html')


def test_a_panel_that_fails_is_a_sentence():
    def fail(made):
        raise ZeroDivisionError('first\nsecond')
    assert panel('a', 'A', fail).sentences == ['Not shown: ZeroDivisionError: first.']


def test_which_object_was_taken_for_what():
    objects = Objects(
        np.array([[0, 0, 10, 10], [20, 0, 30, 10], [40, 0, 50, 10], [60, 0, 70, 10]], float),
        np.array([0, 1, 1, 0]), np.array([False, False, False, True]))
    found = Detections(
        np.array([[0, 0, 10, 10], [21, 0, 30, 10], [80, 0, 90, 10], [40, 0, 50, 10],
                  [60, 0, 70, 10]], float),
        np.array([0.9, 0.5, 0.6, 0.2, 0.9]), np.array([0, 0, 1, 1, 1]))
    # Found; taken for class 0; nothing there; too unsure, hence missed; difficult: not counted.
    assert detector.class_confusion([(found, objects)], 2).tolist() == [
        [1, 0, 0], [1, 0, 1], [0, 1, 0]]
    empty = Detections(np.zeros((0, 4)), np.zeros(0), np.zeros(0, int))
    assert detector.class_confusion([(empty, objects)], 2).tolist() == [
        [0, 0, 1], [0, 0, 2], [0, 0, 0]]


def test_which_class_was_taken_for_which():
    labels, predicted = torch.tensor([0, 0, 1, 2]), torch.tensor([0, 1, 1, 0])
    assert classifier.class_confusion(labels, predicted, 3).tolist() == [
        [1, 1, 0], [0, 1, 0], [1, 0, 0]]


def _validated(*rows):
    made, metric = Panel('validation', 'Validation'), 'val/coco/bbox_mAP'
    runs = [SimpleNamespace(name=name, metric=metric, rows=of_run)
            for name, of_run in zip('ab', rows, strict=False)]
    curves.validation(runs, made)
    return made


def test_metrics_of_one_validation_are_a_table_and_those_of_nothing_are_named():
    one = {'epoch': 2, 'val/coco/bbox_mAP': 0.25, 'val/coco/bbox_mAP_s': -1}
    other = {'epoch': 4, 'val/coco/bbox_mAP': 0.5, 'val/x/AP/owl': float('nan')}
    made = _validated([{'epoch': 1}, one], [other])
    [table] = made.tables
    assert (*table.header, *table.rows) == ('metric', 'a, epoch 2', 'b, epoch 4',
                                            ('coco/bbox_mAP', '0.2500', '0.5000'))
    assert not made.figures
    assert made.sentences == ['Left out, since no validation image has such objects: '
                              'coco/bbox_mAP_s, x/AP/owl.']
    made = _validated([one, other])
    assert not made.tables and [figure.caption for figure in made.figures] == ['coco/bbox_mAP']


def test_images_are_evenly_spaced():
    assert detector.evenly(10, 3) == [1, 5, 8]
    assert detector.evenly(2, 5) == [0, 1]


def test_the_check_is_kept(folder):
    found = json.loads((folder / 'taught/check.json').read_text())
    assert [one['name'] for one in found['terms']] == ['heatmap', 'wh', 'offset', 'feature']
    assert found['terms'][3]['weight'] == 2 and found['terms'][3]['loss'] > 0
    assert [(one['name'], one['images']) for one in found['teachers']] == [('big', 6)]
    assert not (folder / 'alone/check.json').exists()
