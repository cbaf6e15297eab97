"""mmkd compare and what it is made of: one line for each model, errors in one sentence."""

import importlib.util
import json
import os
from functools import partial
from pathlib import Path

import numpy as np
import pytest
import torch
from torch import nn

from mmkd.deploy.compare import Entry, Row, Setup, models, parse_entry
from mmkd.deploy.compare.latency import Latency
from mmkd.deploy.compare.table import as_json, markdown
from mmkd.errors import UserError

TOOL = 'compare.py'


@pytest.mark.parametrize(('text', 'entry'), [
    ('a=x.py', Entry('a', 'x.py')),
    ('my net=c/x.py:w/epoch_1.pth', Entry('my net', 'c/x.py', 'w/epoch_1.pth')),
    ('a=w/x.onnx', Entry('a', onnx='w/x.onnx')),
    ('a=M=kd STUDENT=vgg8 x.py:e.pth',
     Entry('a', 'x.py', 'e.pth', variables=dict(M='kd', STUDENT='vgg8'))),
    ('a=classifier:e 1.pth --student vgg8 --data cifar10',
     Entry('a', 'classifier', 'e 1.pth', choices=('--student', 'vgg8', '--data', 'cifar10'))),
    ('a=mmkd::demo/centernet_r18.py:e.pth', Entry('a', 'mmkd::demo/centernet_r18.py', 'e.pth')),
])
def test_a_model_on_the_command_line(text, entry):
    assert parse_entry(text) == entry


@pytest.mark.parametrize('text', ['x.py', 'a=', '=x.py', 'a=x', 'a=x.pth', 'a=x.py:', 'a/b=x.py'])
def test_what_is_no_model(text):
    with pytest.raises(UserError, match=r'neither NAME=CONFIG\.py.* nor NAME=FILE\.onnx'):
        parse_entry(text)


@pytest.fixture
def rows():
    """A teacher, and a student as the source of the project claims it to be: -74.7 %, +70.5 %."""
    return [
        Row('teacher', 'random', (512, 512), parameters=32_000_000, flops=100_000_000_000,
            bytes=dict(torch=128_000_000), latency=dict(torch=Latency((341.,) * 20))),
        Row('student', 'epoch_1.pth', (512, 512), parameters=8_096_000, flops=25_000_000_000,
            bytes=dict(torch=32_000_000, onnx=31_000_000),
            latency=dict(torch=Latency((200.,) * 19 + (300.,)), onnx=Latency((50.,))),
            metrics=dict(torch={'pascal_voc/mAP': 0.51239, 'pascal_voc/AP/dog': 0.9}),
            failures=dict(compile='it is Tuesday')),
    ]


def cells(line):
    return [cell.strip() for cell in line.strip('|').split('|')]


class TestTable:
    def test_against_a_baseline(self, rows):
        table = markdown(rows, Setup(Path(), threads=2, rounds=20), 'teacher').splitlines()
        head, teacher, student = (cells(table[i]) for i in (0, 2, 3))
        assert dict(zip(head, teacher, strict=True)) == {
            'model': 'teacher (random weights)', 'input': '512x512', 'parameters, M': '32.00',
            'GFLOPs': '100.000', 'weights, MB': '128.0', 'ONNX, MB': '',
            'PyTorch, ms': '341.0 / 341.0', 'torch.compile, ms': '', 'ONNX Runtime, ms': '',
            'pascal_voc/mAP, PyTorch': ''}
        assert dict(zip(head, student, strict=True)) == {
            'model': 'student', 'input': '512x512', 'parameters, M': '8.10 (-74.7 %)',
            'GFLOPs': '25.000 (-75.0 %)', 'weights, MB': '32.0 (-75.0 %)', 'ONNX, MB': '31.0',
            # The 95th percentile of 20 lies between the two largest, at 0.05 of the way.
            'PyTorch, ms': '200.0 / 205.0 (+70.5 %)', 'torch.compile, ms': 'fails',
            'ONNX Runtime, ms': '50.0 / 50.0', 'pascal_voc/mAP, PyTorch': '0.5124'}
        notes = '\n'.join(table[4:])
        assert '20 runs' in notes
        assert '2 threads' in notes
        assert f'torch {torch.__version__}' in notes
        assert 'a multiply-add being two' in notes
        assert 'against teacher' in notes
        assert 'student fails in torch.compile: it is Tuesday.' in notes

    def test_without_a_baseline(self, rows):
        table = markdown(rows, Setup(Path(), threads=1))
        assert '%' not in table
        assert '1 thread,' in table

    def test_noise_for_calibration_is_told(self, rows):
        for row in rows:
            row.bytes['int8'] = 32
        assert 'for nothing else: teacher, student.' in markdown(rows, Setup(Path()))
        # Random weights have no images that they are made for.
        for setup in (Setup(Path(), images=['a.jpg']), Setup(Path(), evaluate=True)):
            assert 'for nothing else: teacher.' in markdown(rows, setup)

    def test_json(self, rows):
        found = json.loads(json.dumps(as_json(rows, Setup(Path(), threads=2, rounds=20))))
        assert found['threads'] == 2
        assert found['models'][1]['latency'] == dict(
            torch=dict(median=200., p95=pytest.approx(205)), onnx=dict(median=50., p95=50.))
        assert found['models'][1]['metrics']['torch']['pascal_voc/AP/dog'] == 0.9


def test_every_model_is_compiled(monkeypatch):
    compiled = []

    def backend(graph, inputs):
        compiled.append(graph)
        return graph.forward

    monkeypatch.setattr(torch, 'compile', partial(torch.compile, backend=backend))
    calls = [models._compiled(nn.Linear(4, width), f'network {width}') for width in range(1, 13)]
    for _ in range(2):
        for call in calls:
            call(torch.zeros(1, 4))
    assert len(compiled) == len(calls)


CLASSIFIER = """
default_scope = 'mmkd'
model = dict(
    type='Classifier', backbone=dict(type='{{$NETWORK:resnet20}}'), num_classes=100,
    data_preprocessor=dict(type='BatchPreprocessor', mean=[129.3, 124.1, 112.4],
                           std=[68.2, 65.4, 70.4]))
test_dataloader = dict(dataset=dict(type='CIFAR100', data_root='none', split='test'))
"""


@pytest.fixture
def calibrated(exported, monkeypatch):
    """The same weights give the same file: made once for all tests, and in place of int8, too.

    The images of each calibration.
    """
    def export(model, path, images):
        Path(path).write_bytes(exported.onnx.read_bytes())
        return exported.checks

    def quantize(float_path, int8_path, images, keep_float=()):
        found.append(images)
        Path(int8_path).write_bytes(Path(float_path).read_bytes())

    found = []
    monkeypatch.setattr(models, 'export_onnx', export)
    monkeypatch.setattr(models, 'quantize_onnx', quantize)
    return found


def read_table(text):
    lines = [line for line in text.splitlines() if line.startswith('|')]
    return {row[0]: dict(zip(cells(lines[0]), row, strict=True)) for row in map(cells, lines[2:])}


def test_detectors_classifiers_and_files(run, exported, tmp_path, monkeypatch, capsys):
    def fails(*_, **__):
        raise RuntimeError('no compiler\nand more')

    monkeypatch.setattr(torch, 'compile', lambda *_, **__: fails)
    (tmp_path / 'classifier.py').write_text(CLASSIFIER)
    run(f'detector={exported.config}:{exported.checkpoint}', f'file={exported.onnx}',
        f'random={exported.config}', f"small=NETWORK=resnet8 {tmp_path / 'classifier.py'}",
        '--baseline', 'detector', '--backends', 'torch', 'compile', 'onnx', '--rounds', 2,
        '--threads', 1, '--out', tmp_path / 'a/table.md', '--json', tmp_path / 'all.json')
    assert 'NETWORK' not in os.environ
    table = read_table((tmp_path / 'a/table.md').read_text())
    assert list(table) == ['detector', 'file', 'random (random weights)', 'small (random weights)']
    assert table['detector']['torch.compile, ms'] == 'fails'
    assert table['file']['parameters, M'] == table['file']['PyTorch, ms'] == ''
    assert '(+0.0 %)' in table['random (random weights)']['parameters, M']
    assert '%' in table['file']['ONNX Runtime, ms']
    told = capsys.readouterr()
    assert read_table(told.out) == table
    assert 'detector fails in torch.compile: RuntimeError: no compiler.' in told.out
    assert 'detector: exporting' in told.err

    by_name = {model['name']: model for model in json.loads(
        (tmp_path / 'all.json').read_text())['models']}
    size = Path(exported.onnx).stat().st_size
    assert by_name['file']['bytes'] == dict(onnx=size)
    assert by_name['detector']['bytes']['onnx'] == pytest.approx(size, rel=0.02)
    # RepDistiller's ResNet-8 for CIFAR-100 has 0.08 M parameters.
    assert by_name['small']['parameters'] == pytest.approx(80_000, rel=0.05)
    assert by_name['small']['input_size'] == [32, 32]
    for model in by_name.values():
        assert 0 < model['latency']['onnx']['median'] <= model['latency']['onnx']['p95']
    assert by_name['detector']['agreement']['boxes'] > 0
    assert sorted(path.name for path in tmp_path.iterdir()) == ['a', 'all.json', 'classifier.py']


def test_int8(run, calibrated, exported, images, monkeypatch, capsys):
    def fails(float_path, int8_path, images):
        calibrated.append(images)
        raise UserError('it cannot be quantised')

    model = f'{exported.config}:{exported.checkpoint}'
    arguments = ['--backends', 'onnx', 'int8', '--rounds', 1]
    run(f'a={model}', *arguments, '--images', *images[:2])
    line = read_table(capsys.readouterr().out)['a']
    assert line['ONNX int8, MB'] == line['ONNX, MB']
    assert ' / ' in line['ONNX Runtime int8, ms']
    assert calibrated == [images[:2]]

    monkeypatch.setattr(models, 'quantize_onnx', fails)
    run(f'a={model}', *arguments)
    assert {image.dtype for image in calibrated[1]} == {np.dtype(np.uint8)}
    told = capsys.readouterr().out
    line = read_table(told)['a']
    assert line['ONNX Runtime int8, ms'] == 'fails'
    assert ' / ' in line['ONNX Runtime, ms']
    assert 'a fails in ONNX Runtime int8: it cannot be quantised.' in told


def test_metrics(run, calibrated, exported, tmp_path, monkeypatch, capsys):
    evaluated = []

    def test(cfg, checkpoint):
        evaluated.append((cfg.model.type, checkpoint))
        cfg.model = None
        return {'pascal_voc/mAP': 0.5}

    def evaluate_onnx(cfg, path):
        assert path.is_file()
        evaluated.append((cfg.model.type, path.name))
        return {'pascal_voc/mAP': 0.25}

    monkeypatch.setattr(models.launch, 'test', test)
    monkeypatch.setattr(models, 'evaluate_onnx', evaluate_onnx)
    monkeypatch.setattr(models, 'validate_config', lambda cfg: None)
    monkeypatch.setattr(models, 'calibration_images', lambda cfg: ['a training image'])
    (tmp_path / 'metrics.json').write_text('{"pascal_voc/mAP": 0.75, "pascal_voc/AP/disc": 1}')
    run(f'trained={exported.config}:{exported.checkpoint}', f'file={exported.onnx}',
        f'random={exported.config}', '--backends', 'onnx', 'int8', '--rounds', 1, '--eval',
        '--metrics', f"file={tmp_path / 'metrics.json'}")
    table = read_table(capsys.readouterr().out)
    assert [(line['pascal_voc/mAP, PyTorch'], line['pascal_voc/mAP, ONNX Runtime'])
            for line in table.values()] == [('0.5000', '0.2500'), ('0.7500', ''), ('', '')]
    assert evaluated == [('CenterNet', str(exported.checkpoint)), ('CenterNet', 'trained.onnx'),
                         ('CenterNet', 'trained_int8.onnx')]
    # Its own training images for the first, noise for random weights.
    assert [len(images) for images in calibrated] == [1, 8]


@pytest.mark.parametrize(('arguments', 'message'), [
    (['a=config.py', 'a=config.py'], "two models are called 'a'"),
    (['a=config.py', '--baseline', 'b'], "--baseline names 'b'"),
    (['teacher=config.py', '--baseline', 'teachr'], "Did you mean 'teacher'?"),
    (['a=config.py', '--metrics', 'b=x.json'], "--metrics names 'b'"),
    (['a=config.py', '--metrics', 'a=none.json'], "'none.json' of --metrics a does not hold"),
    (['a=config.py', '--metrics', 'a=list.json'], "'list.json' of --metrics a does not hold"),
    (['a=config.py', '--threads', '0'], '--threads is 0'),
    (['a=config.py', '--rounds', '0'], '--rounds is 0'),
    (['a=config.py', '--images', 'none'], "'none' does not exist"),
    (['a=config.py', '--out', 'list.json/table.md'], "cannot write 'list.json/table.md'"),
    (['a=none.py'], "'none.py' does not exist"),
    (['a=config.py:none.pth'], "'none.pth' of a does not exist"),
    (['b=config.py', 'a=none.onnx'], "'none.onnx' of a does not exist"),
    (['a=half.onnx'], 'half.onnx'),
])
@pytest.mark.usefixtures('calibrated')
def test_an_error_is_one_line(errors, exported, tmp_path, monkeypatch, arguments, message):
    monkeypatch.chdir(tmp_path)
    (tmp_path / 'config.py').symlink_to(exported.config)
    (tmp_path / 'list.json').write_text('[1]')
    content = exported.onnx.read_bytes()
    (tmp_path / 'half.onnx').write_bytes(content[:len(content) // 2])
    before = sorted(tmp_path.iterdir())
    assert message in errors(*arguments)[-1]
    assert sorted(tmp_path.iterdir()) == before


def test_a_package_that_is_absent(errors, monkeypatch):
    found = importlib.util.find_spec
    monkeypatch.setattr(importlib.util, 'find_spec',
                        lambda name: None if name == 'onnxscript' else found(name))
    assert errors('a=config.py') == ['error: comparing needs onnxscript: pip install onnxscript']
