"""mmkd predict from argument to exit status, without PyTorch."""

import json
import subprocess
import sys
from pathlib import Path

import cv2
import numpy as np
import pytest
from handmade_models import metadata, save
from reference import ROOT, write_video

from mmkd.deploy import Detector

TOOL = 'predict.py'
WITHOUT_TORCH = """
import runpy, sys
sys.argv = sys.argv[1:]
runpy.run_path(sys.argv[0], run_name='__main__')
assert not {'torch', 'mmengine', 'mmcv', 'mmdet'} & sys.modules.keys()
"""


@pytest.fixture
def photos(tmp_path):
    """Of 8 x 8, 16 x 16 and 8 x 8 pixels, each of one blue, green and red."""
    folder = tmp_path / 'photos'
    folder.mkdir()
    for name, color, size in (('a', (0, 100, 200), 8), ('b', (100, 50, 0), 16),
                              ('c', (30, 20, 10), 8)):
        cv2.imwrite(str(folder / f'{name}.png'), np.full((size, size, 3), color, np.uint8))
    return folder


@pytest.fixture
def detector(tmp_path):
    return save(tmp_path / 'detector.onnx', metadata())


@pytest.fixture
def classifier(tmp_path):
    return save(tmp_path / 'classifier.onnx',
                metadata(task='classification', resize_mode='stretch', batch=2))


def test_detections_as_json_and_pictures(run, detector, photos, tmp_path, capsys):
    run(detector, photos, '--json', tmp_path / 'new/found.json', '--out-dir', tmp_path / 'drawn',
        '--score-thr', '0.55', '--threads', '1')
    found = json.loads((tmp_path / 'new/found.json').read_text())
    assert found['task'] == 'detection'
    assert found['classes'] == ['blue', 'green', 'red']
    assert found['skipped'] == []
    assert [Path(one['file']).name for one in found['results']] == ['a.png', 'b.png', 'c.png']
    first, second, third = found['results']
    # Sigmoids of 2, 1, and of 1, 0.5.
    assert first == dict(file=str(photos / 'a.png'), frame=None, boxes=[[0, 0, 8, 8]] * 2,
                         scores=[0.880797, 0.731059], labels=[2, 1], names=['red', 'green'])
    assert second == dict(file=str(photos / 'b.png'), frame=None, boxes=[[0, 0, 16, 16]] * 2,
                          scores=[0.731059, 0.622459], labels=[0, 1], names=['blue', 'green'])
    assert third['names'] == ['blue']  # Sigmoid of 0.2 is 0.5498.
    assert sorted(path.name for path in (tmp_path / 'drawn').iterdir()) == [
        'a.png', 'b.png', 'c.png']
    assert (cv2.imread(str(tmp_path / 'drawn/b.png'))
            != cv2.imread(str(photos / 'b.png'))).any()
    told = capsys.readouterr()
    assert told.out == ''
    assert told.err == (f'3 pictures from 3 files, written to {tmp_path}/drawn and '
                        f'{tmp_path}/new/found.json\n')


def test_classes_are_printed(run, classifier, photos, capsys):
    run(classifier, photos / 'b.png', photos / 'a.png', '--topk', '2')
    # Softmax of 1, 0.5, 0 and of 0, 1, 2.
    assert capsys.readouterr().out.splitlines() == [
        f'{photos}/b.png: blue 0.51, green 0.31', f'{photos}/a.png: red 0.67, green 0.24']


def test_objects_are_counted_and_printed(run, detector, photos, capsys):
    run(detector, photos, '--score-thr', '0.6')
    assert capsys.readouterr().out.splitlines() == [
        f'{photos}/a.png: 1 red, 1 green', f'{photos}/b.png: 1 blue, 1 green',
        f'{photos}/c.png: nothing']


def test_pictures_without_a_box_say_which_score_would_draw_one(run, detector, photos, tmp_path,
                                                               capsys):
    # Best scores: sigmoids of 2, 1 and 0.3, that is 0.88, 0.73 and 0.574.
    run(detector, photos, '--out-dir', tmp_path / 'drawn', '--score-thr', '0.8')
    assert capsys.readouterr().err.splitlines()[0] == (
        'best score 0.73 is below 0.8: nothing drawn on 2 of 3 images, lower --score-thr')


def test_classes_as_json(run, classifier, photos, tmp_path):
    run(classifier, photos, '--json', tmp_path / 'found.json')
    found = json.loads((tmp_path / 'found.json').read_text())
    assert found['task'] == 'classification'
    assert found['results'][0] == dict(
        file=str(photos / 'a.png'), frame=None, scores=[0.665241, 0.244728, 0.090031],
        labels=[2, 1, 0], names=['red', 'green', 'blue'])


def test_frames_of_a_video(run, detector, tmp_path, capsys):
    write_video(tmp_path / 'clip.avi', [50, 150, 250])
    run(detector, tmp_path / 'clip.avi', '--json', tmp_path / 'a.json', '--out-dir',
        tmp_path / 'drawn')
    results = json.loads((tmp_path / 'a.json').read_text())['results']
    assert [one['frame'] for one in results] == [0, 1, 2]
    np.testing.assert_allclose([one['scores'][0] for one in results],
                               1 / (1 + np.exp([-0.5, -1.5, -2.5])), atol=0.01)
    assert results[0]['boxes'][0] == [0, 0, 64, 64]
    assert [path.name for path in (tmp_path / 'drawn').iterdir()] == ['clip.mp4']
    run(detector, tmp_path / 'clip.avi')
    assert 'clip.avi frame 2: ' in capsys.readouterr().out


def test_what_is_skipped_is_named_and_counted(errors, detector, photos, tmp_path):
    (photos / 'b.png').write_bytes((photos / 'b.png').read_bytes()[:-20])
    (photos / 'clip.mp4').write_bytes(b'no video')
    cv2.imwrite(str(photos / 'narrow.png'), np.zeros((1, 1000, 3), np.uint8))
    *skipped, done, last = errors(detector, photos, '--json', tmp_path / 'a.json')
    assert done == f'2 pictures from 5 files, written to {tmp_path}/a.json'
    assert last == 'error: 3 of 5 files were skipped, as named above'
    names = ['b.png', 'clip.mp4', 'narrow.png']
    assert [Path(line.split("'")[1]).name for line in skipped] == names
    found = json.loads((tmp_path / 'a.json').read_text())
    assert [Path(one['file']).name for one in found['results']] == ['a.png', 'c.png']
    assert [Path(one['file']).name for one in found['skipped']] == names


@pytest.mark.parametrize(('options', 'message'), [
    (['none.onnx', 'photos'], "model 'none.onnx' does not exist"),
    (['half.onnx', 'photos'], "'half.onnx' is truncated"),
    (['a.pth', 'photos'], 'export it first, with mmkd export CONFIG a.pth'),
    (['detector.onnx', 'none.png'], "'none.png' does not exist"),
    (['detector.onnx', 'photos', '--topk', '2'], "is for detection: use --score-thr"),
    (['classifier.onnx', 'photos', '--score-thr', '0.2'], 'is for classification: use --topk'),
    (['detector.onnx', 'photos', '--input-size', '16', '16'], 'takes 8x8 pixels'),
    (['detector.onnx', 'photos', '--out-dir', 'photos'], 'would be replaced'),
    (['detector.onnx', 'photos', '--out-dir', 'half.onnx'], "cannot write 'half.onnx'"),
    (['detector.onnx', 'photos', '--json', 'photos'], "cannot write 'photos'"),
    (['detector.onnx', 'photos', '--json', 'half.onnx/a'], "cannot write 'half.onnx/a'"),
])
def test_an_error_is_one_line(errors, detector, classifier, photos, tmp_path, monkeypatch, options,
                              message):
    monkeypatch.chdir(tmp_path)
    Path('half.onnx').write_bytes(detector.read_bytes()[:200])
    Path('a.pth').touch()
    before = sorted(tmp_path.rglob('*'))
    line, = errors(*options)
    assert message in line
    assert sorted(tmp_path.rglob('*')) == before


def test_nothing_is_left_when_the_json_cannot_be_written(run, detector, photos, tmp_path,
                                                         monkeypatch):
    def full(*args, **kwargs):
        raise OSError(28, 'No space left on device')

    (tmp_path / 'a.json').write_text('an earlier one')
    monkeypatch.setattr(Path, 'write_text', full)
    with pytest.raises(SystemExit):
        run(detector, photos, '--json', tmp_path / 'a.json')
    assert (tmp_path / 'a.json').read_text() == 'an earlier one'
    assert not list(tmp_path.glob('.*'))


@pytest.mark.parametrize('argument', [('--threads', '0'), ('--topk', '-1'), ()])
def test_arguments_that_are_refused(run, detector, photos, argument):
    with pytest.raises(SystemExit) as ended:
        run(detector, *([photos] if argument else []), *argument)
    assert ended.value.code == 2


def test_it_imports_no_torch(exported, images, tmp_path):
    done = subprocess.run(
        [sys.executable, '-c', WITHOUT_TORCH, ROOT / 'tools' / TOOL, exported.onnx,
         images[0].parent, '--json', tmp_path / 'found.json', '--out-dir', tmp_path / 'drawn',
         '--score-thr', '0'],
        capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    results = json.loads((tmp_path / 'found.json').read_text())['results']
    assert len(results) == len(list((tmp_path / 'drawn').iterdir())) == len(images)
    detector = Detector(exported.onnx)
    for path, one in zip(images, results, strict=True):
        boxes, scores, labels = detector(cv2.imread(str(path)))
        assert one['names'] == [detector.classes[label] for label in labels]
        np.testing.assert_allclose(one['boxes'], boxes, atol=1e-3)
        np.testing.assert_allclose(one['scores'], scores, atol=1e-5)
