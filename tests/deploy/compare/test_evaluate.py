"""An exported model has the metrics of its checkpoint, also behind tools/test.py."""

import json
import re
import shutil
from dataclasses import replace
from pathlib import Path

import cv2
import numpy as np
import onnx
import pytest
import torch
from conftest import SIZE, config_of
from handmade_models import metadata as handmade_metadata
from handmade_models import save
from helpers import CLASSES
from larger_boxes import with_larger_boxes
from mmengine.config import Config
from reference import config_on, run_test_tool, write_voc

from mmkd.deploy.compare.evaluate import evaluate_onnx, onnx_runner
from mmkd.deploy.device.metadata import ModelMetadata
from mmkd.deploy.export import export_onnx, load_model
from mmkd.deploy.export.image_graph import with_preprocessing
from mmkd.engine import launch
from mmkd.errors import UserError

# A model made by hand that prepares images as the config does.
LIKE_CONFIG = handmade_metadata(
    classes=CLASSES, input_size=(SIZE, SIZE), resize_to=(SIZE, SIZE), channel_order='RGB',
    mean=(123.675, 116.28, 103.53), std=(58.395, 57.12, 57.375))


@pytest.fixture(scope='module')
def detector(exported, tmp_path_factory):
    """The exported detector, checkpoint and file, but with boxes that are no points."""
    return with_larger_boxes(exported, tmp_path_factory.mktemp('larger'))


@pytest.fixture(scope='module')
def detector_data(detector, images, tmp_path_factory):
    """A data set in VOC layout of which the tiny detector finds a part."""
    return write_voc(tmp_path_factory.mktemp('voc'), detector.model, images)


@pytest.fixture
def cfg(detector_config, detector_data, tmp_path):
    return config_on(detector_data, tmp_path / 'work', **config_of(detector_config).to_dict())


def with_metadata(path, out, proto=None, **values):
    """A copy of an exported model that says something else of itself."""
    proto = onnx.load(path) if proto is None else proto
    about = ModelMetadata.from_props(
        {prop.key: prop.value for prop in onnx.load(path).metadata_props}, path)
    onnx.helper.set_model_props(proto, replace(about, **values).to_props())
    onnx.save(proto, out)
    return out


def as_image_model(path, out):
    proto = onnx.load(path)
    about = ModelMetadata.from_props({p.key: p.value for p in proto.metadata_props}, path)
    return with_metadata(path, out, with_preprocessing(proto, about), input_kind='image', batch=1)


def test_a_detector_has_the_metrics_of_its_checkpoint(cfg, detector, tmp_path):
    expected = launch.test(cfg.copy(), str(detector.checkpoint))
    assert 0.1 < expected['pascal_voc/mAP_area'] < 0.9
    assert evaluate_onnx(cfg, detector.onnx) == pytest.approx(expected, abs=1e-6)
    # Five images in batches of two, each brought to four.
    fixed = with_metadata(detector.onnx, tmp_path / 'fixed.onnx', batch=4)
    assert evaluate_onnx(cfg, fixed) == pytest.approx(expected, abs=1e-6)
    image_model = as_image_model(detector.onnx, tmp_path / 'image.onnx')
    assert evaluate_onnx(cfg, image_model) == pytest.approx(expected, abs=0.02)
    # A hook for networks, such as a teacher's, is not asked for anything.
    cfg.custom_hooks = [dict(type='EMAHook')]
    assert evaluate_onnx(cfg, detector.onnx) == pytest.approx(expected, abs=1e-6)
    assert cfg.custom_hooks
    assert cfg.model.type == 'CenterNet'


def test_one_after_another_in_folders_that_go(cfg, detector, tmp_path):
    found = []
    for name in ('first', 'second'):
        cfg.work_dir = str(tmp_path / name)
        found.append(evaluate_onnx(cfg, detector.onnx))
        shutil.rmtree(cfg.work_dir)
    assert found[0] == found[1]


def test_the_tool_takes_an_onnx_file(cfg, detector, tmp_path, monkeypatch, capsys):
    cfg.dump(tmp_path / 'config.py')
    metrics = {}
    for name in (detector.checkpoint, detector.onnx):
        run_test_tool(monkeypatch, tmp_path / 'config.py', name, '--work-dir', tmp_path / 'work',
                      '--out', tmp_path / 'metrics.json')
        metrics[name.suffix] = json.loads((tmp_path / 'metrics.json').read_text())
    assert metrics['.onnx'] == pytest.approx(metrics['.pth'], abs=1e-6)
    assert f"pascal_voc/mAP: {metrics['.onnx']['pascal_voc/mAP']}" in capsys.readouterr().out


def test_the_tool_draws(cfg, images, tmp_path, monkeypatch):
    cfg.dump(tmp_path / 'config.py')
    model = save(tmp_path / 'whole_image.onnx', LIKE_CONFIG)
    run_test_tool(monkeypatch, tmp_path / 'config.py', model, '--work-dir', tmp_path / 'work',
                  '--show-dir', tmp_path / 'shown')
    assert len(list((tmp_path / 'shown').iterdir())) == len(images)


@pytest.mark.parametrize(('name', 'message'), [
    ('none.onnx', 'none.onnx. does not exist'),
    ('half.onnx', 'half.onnx. is truncated or no ONNX model'),
    ('foreign.onnx', "has no valid 'classes' in its metadata"),
])
def test_files_that_the_tool_refuses(cfg, detector, tmp_path, monkeypatch, capsys, name, message):
    cfg.dump(tmp_path / 'config.py')
    (tmp_path / 'half.onnx').write_bytes(detector.onnx.read_bytes()[:2000])
    foreign = onnx.load(detector.onnx)
    del foreign.metadata_props[:]
    onnx.save(foreign, tmp_path / 'foreign.onnx')
    monkeypatch.chdir(tmp_path)
    with pytest.raises(SystemExit) as ended:
        run_test_tool(monkeypatch, 'config.py', name, '--out', 'metrics.json')
    assert ended.value.code == 1
    error = [line for line in capsys.readouterr().err.splitlines() if line.startswith('error: ')]
    assert len(error) == 1
    assert re.search(message, error[0])
    assert not Path('metrics.json').exists()


@pytest.mark.parametrize(('values', 'message'), [
    (dict(classes=('disc', 'star', 'ring')), r'classes 3 \(disc, star, ring\) but .* 3 \(disc, ri'),
    (dict(classes=('disc', 'ring')), r'classes 2 \(disc, ring\)'),
    (dict(input_size=(96, 96)), 'does not take images as its metadata says'),
    (dict(mean=(103.53, 116.28, 123.675)), 'prepares images otherwise .*mean 103.53'),
    (dict(std=(255., 255., 255.)), 'prepares images otherwise .*std 255 255'),
    (dict(channel_order='BGR'), 'prepares images otherwise .* BGR'),
    (dict(resize_to=(48, 48)), 'prepares images otherwise'),
])
def test_models_of_another_config(cfg, detector, tmp_path, values, message):
    model = with_metadata(detector.onnx, tmp_path / 'other.onnx', **values)
    with pytest.raises(UserError, match=message):
        evaluate_onnx(cfg, model)


def test_another_task_another_network_and_several_processes(cfg, detector, tmp_path):
    classifier = save(tmp_path / 'classifier.onnx',
                      handmade_metadata(task='classification', resize_mode='stretch'))
    with pytest.raises(UserError, match='for classification but the config is for detection'):
        evaluate_onnx(cfg, classifier)
    with pytest.raises(UserError, match='in several processes'):
        evaluate_onnx(Config(dict(cfg.to_dict(), launcher='pytorch')), detector.onnx)
    cfg.model = dict(type='Cohort', members={})
    with pytest.raises(UserError, match='whose model is a Cohort cannot evaluate'):
        evaluate_onnx(cfg, detector.onnx)


def test_half_precision_inputs_and_outputs(cfg, tmp_path):
    float32, float16 = (
        onnx_runner(cfg, save(tmp_path / f'{precision}.onnx',
                              replace(LIKE_CONFIG, precision=precision)))
        for precision in ('float32', 'float16'))
    batch = next(iter(float32.test_dataloader))
    for expected, found in zip(float32.model.test_step(batch), float16.model.test_step(batch),
                               strict=True):
        expected, found = expected.pred_instances, found.pred_instances
        torch.testing.assert_close(found.bboxes, expected.bboxes, atol=1e-3, rtol=0)
        torch.testing.assert_close(found.scores, expected.scores, atol=1e-3, rtol=0)


@pytest.fixture(scope='module')
def photos(tmp_path_factory):
    """Forty images of three classes, in the layout of ImageNet."""
    root = tmp_path_factory.mktemp('photos')
    generator = np.random.default_rng(0)
    for split in ('train', 'val'):
        for number in range(20):
            folder = root / split / 'abc'[number % 3]
            folder.mkdir(parents=True, exist_ok=True)
            coarse = generator.integers(0, 256, (9, 9, 3), dtype=np.uint8)
            cv2.imwrite(str(folder / f'{number}.png'),
                        cv2.resize(coarse, (32 + number, 50), interpolation=cv2.INTER_NEAREST))
    return root


def classifier_config(photos, work_dir, **dataset):
    return Config(dict(
        default_scope='mmkd', work_dir=str(work_dir), launcher='none',
        custom_imports=dict(imports=['mmkd']),
        model=dict(type='Classifier', backbone=dict(type='resnet8'), num_classes=3,
                   data_preprocessor=dict(type='BatchPreprocessor', mean=[120., 110., 100.],
                                          std=[60., 50., 40.])),
        test_cfg=dict(type='TestLoop'), test_evaluator=dict(type='TopKAccuracy', topk=(1, 2)),
        test_dataloader=dict(
            batch_size=8, num_workers=0, sampler=dict(type='DefaultSampler', shuffle=False),
            collate_fn=dict(type='whole_batch'),
            dataset=dict(data_root=str(photos), split='test', image_size=32, **dataset))))


def test_a_classifier_has_the_scores_of_its_checkpoint(photos, tmp_path):
    cfg = classifier_config(photos, tmp_path / 'work', type='ImageNetFolder')
    torch.manual_seed(0)
    from mmkd.distillation import build_model
    network = build_model(cfg)
    with torch.no_grad():
        network.head.fc.weight.mul_(20)  # Else all images get the scores of one.
    torch.save(dict(state_dict=network.state_dict()), tmp_path / 'epoch_1.pth')
    expected = launch.test(cfg.copy(), str(tmp_path / 'epoch_1.pth'))
    assert 0 < expected['accuracy/top1'] < expected['accuracy/top2'] < 100

    exported = tmp_path / 'student.onnx'
    export_onnx(load_model(cfg, tmp_path / 'epoch_1.pth'), exported)
    assert evaluate_onnx(cfg, exported) == expected
    runner = onnx_runner(cfg, exported)
    batch = next(iter(runner.test_dataloader))
    ours = runner.model.test_step(batch)[0].scores
    theirs = network.eval().test_step(next(iter(runner.test_dataloader)))[0].scores
    torch.testing.assert_close(ours, theirs, atol=1e-5, rtol=0)

    image_model = as_image_model(exported, tmp_path / 'image.onnx')
    runner = onnx_runner(cfg, image_model)
    ours = runner.model.test_step(next(iter(runner.test_dataloader)))[0].scores
    # Pixels are rounded elsewhere.
    torch.testing.assert_close(ours, theirs, atol=0.05, rtol=0)

    # A data set that holds its images has no files to read.
    held = classifier_config(photos, tmp_path / 'work', type='ImageFolderInMemory')
    cropped = with_metadata(exported, tmp_path / 'memory.onnx', resize_to=(32, 32))
    ours, theirs = (runner.model.test_step(next(iter(runner.test_dataloader)))[0].scores
                    for runner in (onnx_runner(held, as_image_model(cropped, image_model)),
                                   onnx_runner(held, cropped)))
    torch.testing.assert_close(ours, theirs, atol=1e-4, rtol=0)
    with pytest.raises(UserError, match='for classification but the config is for det'):
        evaluate_onnx(Config(dict(cfg.to_dict(), model=dict(type='CenterNet'))), exported)
