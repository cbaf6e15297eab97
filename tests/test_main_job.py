"""The main job by its own commands, as small as it gets."""

import json
import os
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
import torch

ROOT = Path(__file__).parents[1]
TINY = ['train_cfg.max_epochs=1', 'train_cfg.val_interval=1', 'train_dataloader.batch_size=2']


@pytest.fixture(scope='module')
def job(tmp_path_factory):
    """Random teachers, a student trained for four steps and exported.

    That a teacher trains and that a checkpoint is tested is in tools/test_train_and_test.py.
    """
    from mmkd.detection.data import DRAWN_CLASSES, draw_dataset
    from mmkd.distillation.teachers import build_model
    folder = tmp_path_factory.mktemp('job')
    draw_dataset(folder / 'data', splits=dict(train=8, val=2, test=5))
    environment = os.environ | {'DRAWN_ROOT': f'{folder}/data/', 'OMP_NUM_THREADS': '1'}

    def tool(name, *arguments):
        done = subprocess.run([sys.executable, f'tools/{name}.py', *map(str, arguments)], cwd=ROOT,
                              env=environment, capture_output=True, text=True)
        assert done.returncode == 0, done.stderr[-2000:]
        return done.stdout

    options = []
    for name in ('r50', 'hourglass'):
        teacher = build_model(ROOT / f'configs/demo/centernet_{name}.py')
        meta = dict(dataset_meta=dict(classes=DRAWN_CLASSES))
        torch.save(dict(state_dict=teacher.state_dict(), meta=meta), folder / f'{name}.pth')
        key = 'resnet50' if name == 'r50' else name
        options.append(f'teachers.{key}.checkpoint={folder / name}.pth')
    options.append(f'teacher_cache.folder={folder / "cache"}')
    config = 'configs/demo/centernet_mt_r18.py'
    tool('train', config, '--work-dir', folder / 'student', '--cfg-options', *TINY, *options)
    checkpoint = folder / 'student/epoch_1.pth'
    tool('export', config, checkpoint, '--out', folder / 'student.onnx', '--images',
         folder / 'data/JPEGImages')
    return folder


@pytest.fixture
def detector(job):
    """The student, as MMDetection alone loads it."""
    from mmdet.apis import init_detector
    return init_detector(str(ROOT / 'configs/demo/centernet_r18.py'),
                         str(job / 'student/epoch_1.pth'), device='cpu')


@pytest.mark.slow
def test_a_saved_student_is_a_plain_mmdet_detector(job, detector):
    checkpoint = torch.load(job / 'student/epoch_1.pth', weights_only=False)
    assert set(checkpoint['state_dict']) == set(detector.state_dict())
    for key, value in detector.state_dict().items():
        assert torch.equal(value, checkpoint['state_dict'][key]), key
    assert detector.dataset_meta['classes'] == ('disc', 'square', 'triangle')


@pytest.mark.slow
def test_every_term_was_logged(job):
    log = next((job / 'student').glob('*/vis_data/scalars.json')).read_text()
    rows = [json.loads(line) for line in log.splitlines()]
    terms = {key for row in rows for key in row if key.startswith('loss_distill')}
    assert terms == {'loss_distill_heatmap', 'loss_distill_wh', 'loss_distill_offset',
                     'loss_distill_feature'}


@pytest.mark.slow
def test_the_exported_student_sees_what_mmdet_sees(job, detector):
    from mmdet.apis import inference_detector
    path = str(job / 'data/JPEGImages/test_00001.jpg')
    expected = inference_detector(detector, path).pred_instances
    assert expected.bboxes.shape == (100, 4)
    code = ("import sys; sys.modules['torch'] = None\n"
            'import cv2, numpy as np\n'
            'from mmkd.deploy import Detector\n'
            f"result = Detector({str(job / 'student.onnx')!r})(cv2.imread({path!r}))\n"
            f"np.savez({str(job / 'found.npz')!r}, scores=result.scores, boxes=result.boxes)\n")
    subprocess.run([sys.executable, '-c', code], check=True)
    found = np.load(job / 'found.npz')
    np.testing.assert_allclose(found['scores'][:20], expected.scores[:20].numpy(), atol=1e-4)
