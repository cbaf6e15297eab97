"""The table of int8, of several seeds: means, and what int8 changes seed by seed."""

from types import SimpleNamespace

import pytest

from mmkd.deploy.compare import evaluate, latency
from mmkd.deploy.export import calibration, quantize
from mmkd.engine import config, run_folder

POINTS = {  # of each run: alone, distilled, static, trained in float and in int8
    'a': (0.50, 0.60, 0.58, 0.62, 0.61), 'b': (0.52, 0.64, 0.65, 0.65, 0.64),
    'c': (0.4, 0.5, 0.5, 0.5, 0.5)}


@pytest.fixture
def fakes(monkeypatch):
    """Files that say which run they are of in place of networks."""
    def export(student, path):
        path.write_text(student.run)

    def quantise(source, path, images, student=None):
        path.write_text(source.read_text())
        return SimpleNamespace(steps='')
    monkeypatch.setattr('mmkd.deploy.export.export_onnx', export)
    monkeypatch.setattr(
        'mmkd.deploy.export.load_model',
        lambda cfg, path: SimpleNamespace(run=path, cfg=cfg,
                                          int8_ranges=None if path == 'float' else {}))
    monkeypatch.setattr(quantize, 'quantize_onnx', quantise)
    monkeypatch.setattr(calibration, 'calibration_images', lambda cfg, count: [])
    monkeypatch.setattr(config, 'load_config', lambda path: SimpleNamespace())
    monkeypatch.setattr(run_folder, 'run_files', lambda run: (run, run))
    monkeypatch.setattr(latency, 'onnx_call', lambda file, threads: None)
    monkeypatch.setattr(latency, 'measure', lambda calls, rounds: {
        row: SimpleNamespace(median=number) for number, row in enumerate(calls, 1)})
    order = ['float_0.onnx', 'float_1.onnx', 'static.onnx', 'float_2.onnx', 'aware.onnx']
    monkeypatch.setattr(evaluate, 'evaluate_onnx', lambda cfg, file: {
        'mAP': POINTS[file.read_text()][order.index(file.name)]})


def test_seeds_are_joined_and_compared_one_by_one(fakes, tool, tmp_path):
    out = tmp_path / 'table.md'
    status, printed, _ = tool('int8_table.py', 'R=a,a,a', 'R=b,b,b', 'M=c,c,c', '--out', out)
    assert status == 0 and out.read_text() in printed
    lines = out.read_text().splitlines()
    assert lines[2:7] == [
        '| R | alone | 51.00 | 50.00, 52.00 | 1.00 | 0.00 |',
        '| R | distilled | 62.00 | 60.00, 64.00 | 2.00 | 0.00 |',
        '| R | distilled, static int8 | 61.50 | 58.00, 65.00 | 3.00 | 0.00 |',
        '| R | trained for int8, in float | 63.50 | 62.00, 65.00 | 4.00 | 0.00 |',
        '| R | trained for int8 | 62.50 | 61.00, 64.00 | 5.00 | 0.00 |']
    # Differences -2 and 1: mean -0.5, standard error 1.5, t(0.975, 1) = 12.706.
    assert lines[13] == 'R, static int8 against float: -0.50 (-19.56 to +18.56)'
    assert lines[14] == ('R, trained for int8 against the same weights in float: '
                         '-1.00 (-1.00 to -1.00)')
    assert lines[15] == 'R, trained for int8 against float before that: +0.50 (-5.85 to +6.85)'
    assert lines[16] == 'M, static int8 against float: +0.00 (-inf to +inf)'


def test_what_is_refused(fakes, tool):
    assert 'three folders' in tool('int8_table.py', 'R=a,b')[2]
    assert 'not trained with --int8-aware' in tool('int8_table.py', 'R=a,a,float')[2]
