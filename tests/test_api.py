"""What the functions pass on, and what they refuse."""

import subprocess
import sys

import pytest
from photo_folders import voc_folder

import mmkd
from mmkd.commands.new import main as new
from mmkd.errors import UserError

SMALL = {'train_dataloader.batch_size': 2, 'model.backbone.base_channels': 4}


def test_names_are_there_without_torch():
    for code in (
            'import mmkd; assert "torch" not in sys.modules; '
            'assert {"train", "Detector"} <= set(dir(mmkd)); mmkd.train; mmkd.Detector; '
            'assert "torch" not in sys.modules',
            'import mmkd.undrawn; assert not {"torch", "mmengine", "numpy"} & sys.modules.keys()',
            'import mmkd.engine.cli; assert not {"torch", "mmengine"} & sys.modules.keys()'):
        subprocess.run([sys.executable, '-c', f'import sys\n{code}'], check=True)
    with pytest.raises(AttributeError, match='no attribute'):
        mmkd.trian  # noqa: B018


def test_arguments_reach_the_config(tmp_path, monkeypatch):
    """What is trained then: the first program of docs/python.md, in test_docs_blocks.py."""
    monkeypatch.chdir(tmp_path)
    new([str(voc_folder(tmp_path / 'photos', 8))])
    trained = []
    monkeypatch.setattr('mmkd.engine.launch.train', lambda *given: trained.append(given))
    monkeypatch.setattr('mmkd.report.runs.read_runs', lambda folders: folders)
    assert mmkd.distill('mine.py', teachers=['mine.py=some.pth'], method='pkd', work_dir='student',
                        epochs=3, resume=True, options=SMALL) == 'student'
    [(cfg, resume)] = trained
    assert cfg.teachers.mine.checkpoint == 'some.pth' and list(cfg.terms) == ['pkd']
    assert cfg.train_cfg.max_epochs == 3 and cfg.train_dataloader.batch_size == 2
    assert cfg.model.backbone.base_channels == 4 and resume == 'auto'


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
