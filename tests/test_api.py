"""From photographs to an exported detector, in Python."""

import numpy as np
import pytest
from photo_folders import voc_folder

import mmkd
from mmkd.commands import main as mmkd_command
from mmkd.commands.new import main as new
from mmkd.errors import UserError

SMALL = {'train_dataloader.batch_size': 2, 'amp': None, 'model.backbone.base_channels': 4,
         'model.neck.in_channels': 32, 'param_scheduler': None}


def test_names_are_there_without_torch():
    import subprocess
    import sys
    subprocess.run([sys.executable, '-c', 'import mmkd, sys; assert "torch" not in sys.modules; '
                    'assert {"train", "Detector"} <= set(dir(mmkd)); mmkd.train; mmkd.Detector; '
                    'assert "torch" not in sys.modules'], check=True)
    with pytest.raises(AttributeError, match='no attribute'):
        mmkd.trian  # noqa: B018


def test_train_distil_evaluate_export_detect(tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    new([str(voc_folder(tmp_path / 'photos', 8))])
    teacher = mmkd.train('mine.py', work_dir='teacher', epochs=1, options=SMALL)
    assert teacher.rows[-1]['epoch'] == 1 and teacher.weights.name == 'best.pth'
    student = mmkd.distill('mine.py', teachers=[teacher], method='pkd', work_dir='student',
                           epochs=1, options=SMALL)
    assert [*student.cfg.teachers] == ['teacher'] and student.cfg.terms
    assert any('distill' in name for name in student.rows[0])
    mmkd_command(['test', 'student'])
    [said] = [line for line in capsys.readouterr().out.splitlines()
              if line.startswith('coco/bbox_mAP:')]
    file = mmkd.export('student/last.pth', out='student.onnx')  # the only epoch's, as best.pth
    metrics = mmkd.evaluate(file, config=student)
    assert metrics['coco/bbox_mAP'] == pytest.approx(float(said.split()[1]), abs=1e-3)
    found = mmkd.Detector(file)(np.zeros((40, 30, 3), np.uint8))
    assert found.boxes.shape == (len(found.scores), 4)


@pytest.mark.parametrize(('call', 'says'), [
    (lambda: mmkd.distill('mine.py', teachers=[]), 'no teachers'),
    (lambda: mmkd.evaluate('nothing'), 'neither the folder of a run'),
    (lambda: mmkd.evaluate('empty'), 'no checkpoint was saved'),
    (lambda: mmkd.evaluate('lone.pth'), 'no config.py beside'),
    (lambda: mmkd.evaluate('mine.py'), 'give its checkpoint'),
    (lambda: mmkd.train('mine.py'), "'mine.py' does not exist")])
def test_mistakes(tmp_path, monkeypatch, call, says):
    monkeypatch.chdir(tmp_path)
    (tmp_path / 'empty').mkdir()
    (tmp_path / 'lone.pth').write_bytes(b'')
    with pytest.raises(UserError, match=says):
        call()
