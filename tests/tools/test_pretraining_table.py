"""The table of pretraining: which commands it runs, that it runs none twice, and its numbers."""

import json
import subprocess
from pathlib import Path

import pytest

TOP1 = dict(teacher=50.0, scratch_seed_0=10.0, scratch_seed_1=12.0, pretrained_seed_0=20.0,
            pretrained_seed_1=24.0)


@pytest.fixture
def commands(monkeypatch):
    """Write what a command leaves, and keep its words, in place of running it."""
    said = []

    def run(words, check):
        words = list(map(str, words[3:]))
        said.append(words)
        folder = Path(words[words.index('--work-dir') + 1])
        folder.mkdir(parents=True, exist_ok=True)
        if words[0] == 'pretrain':
            (folder / 'backbone.pth').write_text('')
        if words[0] == 'test':
            Path(words[words.index('--out') + 1]).write_text(
                json.dumps({'accuracy/top1': TOP1[folder.name]}))
    monkeypatch.setattr(subprocess, 'run', run)
    return said


def test_what_runs_and_what_it_says(commands, tool, tmp_path):
    arguments = ['pretraining_table.py', '--out', tmp_path, '--seeds', 0, 1]
    status, printed, _ = tool(*arguments)
    assert status == 0
    assert [words[0] for words in commands] == (
        ['train', 'test'] + 2 * ['pretrain', 'train', 'test', 'train', 'test'])
    pretraining = next(words for words in commands if words[0] == 'pretrain')
    teacher = tmp_path / 'teacher'
    assert pretraining[pretraining.index('--teacher') + 1] == (
        f'{teacher}/config.py={teacher}/last.pth')
    scratch, pretrained = (
        next(words for words in commands if str(tmp_path / f'{kind}_seed_1') in words)
        for kind in ('scratch', 'pretrained'))
    start = tmp_path / 'pretrain_seed_1/backbone.pth'
    assert [word for word in pretrained if word not in scratch] == [
        str(tmp_path / 'pretrained_seed_1'), 'model.backbone.init_cfg.type=Pretrained',
        f'model.backbone.init_cfg.checkpoint={start}']
    assert 'randomness.seed=1' in scratch
    assert 'train_dataloader.dataset.max_samples=5000' in scratch
    # Differences 10 and 12: mean 11, standard error 1, t(0.975, 1) = 12.706.
    assert 'gain +11.00 (-1.71 to +23.71); the teacher, all labels: 50.00' in printed
    assert '| pretrained | 22.00 | 20.00, 24.00 |' in printed
    commands.clear()
    assert printed.endswith(tool(*arguments)[1]) and not commands
