"""An exported model has the metrics of its checkpoint, also behind tools/test.py."""

import json
import re
import shutil
from dataclasses import replace
from pathlib import Path

import pytest
import torch
from handmade_models import metadata as handmade_metadata
from handmade_models import save
from helpers import CLASSES
from mmengine.config import Config
from reference import (
    SIZE,
    classifier_config,
    config_of,
    config_on,
    run_test_tool,
    with_metadata,
    write_folders,
    write_voc,
)

from mmkd.deploy.compare.evaluate import evaluate_onnx, onnx_runner
from mmkd.deploy.export import export_onnx, load_model
from mmkd.engine import launch
from mmkd.errors import UserError

# A model made by hand that prepares images as the config does.
LIKE_CONFIG = handmade_metadata(
    classes=CLASSES, input_size=(SIZE, SIZE), resize_to=(SIZE, SIZE), channel_order='RGB',
    mean=(123.675, 116.28, 103.53), std=(58.395, 57.12, 57.375))


@pytest.fixture(scope='module')
def detector_data(detector, images, tmp_path_factory):
    """A data set in VOC layout of which the tiny detector finds a part."""
    return write_voc(tmp_path_factory.mktemp('voc'), detector.model, images)


@pytest.fixture
def cfg(detector_config, detector_data, tmp_path):
    return config_on(detector_data, tmp_path / 'work', **config_of(detector_config).to_dict())


def test_a_detector_has_the_metrics_of_its_checkpoint(cfg, detector, images, tmp_path,
                                                      monkeypatch, capsys):
    expected = launch.test(cfg.copy(), str(detector.checkpoint))
    assert 0.1 < expected['pascal_voc/mAP_area'] < 0.9
    # Five images in batches of two, each brought to four.
    fixed = with_metadata(detector.onnx, tmp_path / 'fixed.onnx', batch=4)
    for name, model in (('any', detector.onnx), ('four', fixed)):
        cfg.work_dir = str(tmp_path / name)
        assert evaluate_onnx(cfg, model) == pytest.approx(expected, abs=1e-6)
        shutil.rmtree(cfg.work_dir)  # as a folder that goes before the next evaluation
    image_model = with_metadata(detector.onnx, tmp_path / 'image.onnx', input_kind='image', batch=1)
    assert evaluate_onnx(cfg, image_model) == pytest.approx(expected, abs=0.02)
    # A hook for networks, such as a teacher's, is not asked for anything.
    cfg.custom_hooks = [dict(type='EMAHook')]
    assert evaluate_onnx(cfg, detector.onnx) == pytest.approx(expected, abs=1e-6)
    assert cfg.custom_hooks
    assert cfg.model.type == 'CenterNet'

    cfg.dump(tmp_path / 'config.py')
    run_test_tool(monkeypatch, tmp_path / 'config.py', detector.onnx, '--work-dir',
                  tmp_path / 'work', '--out', tmp_path / 'metrics.json', '--show-dir',
                  tmp_path / 'shown')
    metrics = json.loads((tmp_path / 'metrics.json').read_text())
    assert metrics == pytest.approx(expected, abs=1e-6)
    assert f"pascal_voc/mAP: {metrics['pascal_voc/mAP']}" in capsys.readouterr().out
    assert len(list((tmp_path / 'shown').iterdir())) == len(images)


@pytest.mark.parametrize(('name', 'message'), [
    ('none.onnx', 'none.onnx. does not exist'),
    ('half.onnx', 'half.onnx. is truncated or no ONNX model'),
])
def test_files_that_the_tool_refuses(cfg, detector, tmp_path, monkeypatch, capsys, name, message):
    cfg.dump(tmp_path / 'config.py')
    (tmp_path / 'half.onnx').write_bytes(detector.onnx.read_bytes()[:2000])
    monkeypatch.chdir(tmp_path)
    with pytest.raises(SystemExit) as ended:
        run_test_tool(monkeypatch, 'config.py', name, '--out', 'metrics.json')
    assert ended.value.code == 1
    error, = [line for line in capsys.readouterr().err.splitlines() if line.startswith('error: ')]
    assert re.search(message, error)
    assert not Path('metrics.json').exists()


@pytest.mark.parametrize(('values', 'message'), [
    (dict(classes=('disc', 'star', 'ring')), r'classes 3 \(disc, star, ring\) but .* 3 \(disc, ri'),
    (dict(classes=('disc', 'ring')), r'classes 2 \(disc, ring\)'),
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
    """21 images of three classes to test, in the layout of ImageNet."""
    sizes = [(50, 32 + 3 * number) for number in range(7)]
    return write_folders(tmp_path_factory.mktemp('photos'), 'abc', sizes, block=6)


def test_a_classifier_has_the_scores_of_its_checkpoint(photos, tmp_path):
    data = dict(data_root=str(photos), image_size=32)
    cfg = classifier_config(tmp_path / 'work', type='ImageNetFolder', **data)
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
    assert ours.std(0).max() > 0.01  # Each image has scores of its own.

    as_image = dict(input_kind='image', batch=1)
    runner = onnx_runner(cfg, with_metadata(exported, tmp_path / 'image.onnx', **as_image))
    ours = runner.model.test_step(next(iter(runner.test_dataloader)))[0].scores
    # Pixels are rounded elsewhere.
    torch.testing.assert_close(ours, theirs, atol=0.05, rtol=0)

    # A data set that holds its images has no files to read.
    held = classifier_config(tmp_path / 'work', type='ImageFolderInMemory', **data)
    runners = [onnx_runner(held, with_metadata(exported, tmp_path / 'memory.onnx',
                                               resize_to=(32, 32), **values))
               for values in (as_image, dict())]
    ours, theirs = (runner.model.test_step(next(iter(runner.test_dataloader)))[0].scores
                    for runner in runners)
    torch.testing.assert_close(ours, theirs, atol=1e-4, rtol=0)
