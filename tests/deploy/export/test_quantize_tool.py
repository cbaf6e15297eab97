"""mmkd quantize from argument to exit status."""

import copy
import re
from pathlib import Path

import pytest
from reference import config_of, config_on

from mmkd.commands import quantize
from mmkd.deploy import Detector
from mmkd.deploy.compare.evaluate import evaluate_onnx
from mmkd.detection.data.synthetic import draw_dataset

TOOL = 'quantize.py'


@pytest.fixture
def config(detector_config, tmp_path, monkeypatch):
    """A config with training and test data, in the current folder."""
    monkeypatch.chdir(tmp_path)
    draw_dataset(tmp_path / 'drawn', splits=dict(train=6, val=1, test=4), image_size=64)
    cfg = config_on(tmp_path / 'drawn', tmp_path / 'work', **config_of(detector_config).to_dict(),
                    train_cfg=dict(type='EpochBasedTrainLoop', max_epochs=1),
                    optim_wrapper=dict(optimizer=dict(type='SGD', lr=0.1)))
    cfg.train_dataloader = copy.deepcopy(cfg.test_dataloader)
    cfg.train_dataloader.dataset.ann_file = 'ImageSets/Main/train.txt'
    cfg.dump('config.py')
    return cfg


def test_quantises_and_evaluates_both(run, config, detector, capsys):
    run('config.py', detector.onnx, '--out', 'a/int8.onnx', '--calibration', 4)
    told = capsys.readouterr().out
    assert 'calibrated on 4 images' in told
    assert '15 layers in int8, 3 in float: bbox_head.heatmap_head.2, bbox_head.wh_head.2' in told
    assert 'int8 agrees with float in ' in told
    assert [entry.name for entry in Path('a').iterdir()] == ['int8.onnx']
    assert Detector('a/int8.onnx').metadata.precision == 'int8'
    line, = (line.split() for line in told.splitlines() if line.startswith('pascal_voc/mAP '))
    for value, model in zip(line[1:3], (detector.onnx, 'a/int8.onnx'), strict=True):
        assert float(value) == pytest.approx(evaluate_onnx(config, model)['pascal_voc/mAP'],
                                             abs=1e-4)
    assert float(line[3]) == pytest.approx(float(line[2]) - float(line[1]), abs=2e-4)


@pytest.mark.parametrize(('name', 'exact', 'int8', 'lost'), [
    ('pascal_voc/mAP', 0.625, 0.593, '3.2'), ('pascal_voc/mAP', 0.6, 0.595, None),
    ('pascal_voc/mAP', 0.5, 0.7, None), ('accuracy/top1', 70.0, 68.5, '1.5'),
    ('accuracy/top1', 70.0, 69.5, None)])
def test_a_loss_of_more_than_a_point_comes_with_advice(name, exact, int8, lost, capsys):
    advice = quantize.advice({name: exact, 'other': 0.9}, {name: int8, 'other': 0.1}, 100)
    if lost is None:
        assert advice is None
        return
    assert advice.startswith(f'int8 loses {lost} points of {name}: ')
    with pytest.raises(SystemExit):
        quantize.main(['--help'])
    options = re.findall(r'--[a-z-]+', advice)
    assert len(options) == 4
    told = capsys.readouterr().out
    assert all(option in told for option in options)


def test_on_images_without_evaluation(run, config, detector, images, capsys):
    run('config.py', detector.onnx, '--images', images[0].parent, images[0], '--no-eval',
        '--keep-float', 'backbone.conv1', '--out', 'int8.onnx')
    told = capsys.readouterr().out
    assert f'calibrated on {len(images) + 1} images' in told
    assert '14 layers in int8, 4 in float: backbone.conv1' in told
    assert 'mAP' not in told
    assert not Path('work').exists()


def test_the_layers_are_listed(run, config, detector, capsys):
    run('config.py', detector.onnx, '--list-layers')
    lines = [line.split('  ') for line in capsys.readouterr().out.splitlines()]
    assert ['backbone.conv1', '4x3x7x7'] in lines
    assert ['bbox_head.wh_head.2', '2x8x1x1', 'stays in float'] in lines
    assert len(lines) == 18


@pytest.mark.parametrize(('args', 'message'), [
    (['float.onnx', '--images', 'empty'], "folder 'empty' holds no image"),
    (['float.onnx', '--keep-float', 'neck.conv'], "--keep-float 'neck.conv' names no layer"),
    (['float.onnx', '--cfg-options', 'train_dataloader.dataset.ann_file=no.txt'], 'no.txt does'),
    (['float.onnx', '--cfg-options', 'model.type=Classifier'], 'is a model for detection but'),
    (['cut.onnx'], "'cut.onnx' is truncated or no ONNX model"),
    (['cut.onnx', '--list-layers'], "'cut.onnx' is truncated or no ONNX model"),
    (['none.onnx'], "'none.onnx' does not exist"),
])
def test_an_error_is_one_line(errors, config, detector, args, message):
    Path('float.onnx').symlink_to(detector.onnx)
    Path('cut.onnx').write_bytes(detector.onnx.read_bytes()[:9000])
    Path('empty').mkdir()
    assert message in errors('config.py', *args, '--out', 'out.onnx')[-1]
    assert not list(Path().glob('*out.onnx*'))
    assert not list(Path().glob('.*'))
