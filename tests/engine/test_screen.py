"""What one sees of a run, and what the file has."""

import math
import sys
from types import SimpleNamespace

import numpy as np
import pytest
from tiny_run import VALIDATION, Listed, write_config

from mmkd.checkpoints import load_checkpoint_safely
from mmkd.engine import screen
from mmkd.engine.config import load_config
from mmkd.engine.launch import train
from mmkd.engine.screen import TimedLoggerHook


@pytest.fixture
def run(tmp_path, capsys):
    """Train as the tool does and return the lines on the screen."""
    def call(resume=None, **options):
        options = {'default_hooks.logger.type': 'TimedLoggerHook'} | options
        cfg = load_config(write_config(tmp_path, VALIDATION), options)
        cfg.work_dir, cfg.launcher = str(tmp_path / 'work'), 'none'
        cfg.experiment_name = f'{tmp_path.name}_{resume}'
        train(cfg, resume)
        return capsys.readouterr().out.splitlines()
    return call


def test_the_first_loss_comes_soon_and_a_summary_last_and_the_file_has_the_rest(run, tmp_path):
    lines = run()
    first = next(i for i, line in enumerate(lines) if 'Epoch(train)' in line)
    assert first < 15
    text = '\n'.join(lines)
    work = tmp_path / 'work'
    log = (work / 'train.log').read_text()
    for part in ('System environment', 'Hooks will be executed', 'Config:', 'mmcv operators'):
        assert part not in text and part in log
    assert f'environment and this log: {work}' in lines[first - 1]
    assert (f'Finished: score 0.1250, the best 0.5000 after epoch 2. Best: {work}/best.pth. '
            f'Last: {work}/last.pth. Next: mmkd test {work}, or mmkd report {work}') in lines[-1]


@pytest.mark.parametrize('values, expected', [
    ([math.nan] * 4, 'score nan, the best nan after epoch 4'),
    ([math.nan, 0.5, math.nan, 0.25], 'score 0.2500, the best 0.5000 after epoch 2'),
    ([np.float64(0.5)] * 4, 'score 0.5000, the best 0.5000 after epoch 1'),
    ([[1, 2]] * 4, 'Finished. Last:')])
def test_metrics_that_are_nan_numpys_or_no_number(values, expected, run, tmp_path, monkeypatch):
    left = iter(values)
    monkeypatch.setattr(Listed, 'compute_metrics', lambda self, results: dict(score=next(left)))
    assert expected in run()[-1]
    load_checkpoint_safely(tmp_path / 'work/epoch_4.pth')


def test_a_resumed_run_remembers_the_best(run, tmp_path):
    run(**{'train_cfg.max_epochs': 3})
    [line] = [line for line in run('auto', **{'val_evaluator.values': [0.375]})
              if 'Finished' in line]
    assert 'score 0.3750, the best 0.5000 after epoch 2' in line
    load_checkpoint_safely(tmp_path / 'work/epoch_4.pth')


def test_iterations_are_counted_where_there_are_no_epochs(run):
    lines = run(**{'train_cfg': dict(_delete_=True, type='IterBasedTrainLoop', max_iters=4,
                                     val_interval=2),
                   'default_hooks.checkpoint.by_epoch': False,
                   'log_processor.by_epoch': False,
                   'param_scheduler.0.by_epoch': False})
    assert 'score 0.5000, the best 0.5000 after iteration 4' in lines[-1]


@pytest.mark.parametrize('seconds, expected', [(1, [5, 10]), (21, list(range(1, 11))),
                                               (11, [2, 4, 5, 7, 9, 10])])
def test_no_long_silence(seconds, expected, monkeypatch):
    clock = iter(range(0, 1000, seconds))
    monkeypatch.setattr(screen.time, 'monotonic', lambda: next(clock))
    logged = []
    loop = SimpleNamespace(dataloader=range(100))
    runner = SimpleNamespace(
        experiment_name='', iter=0, logger=SimpleNamespace(info=lambda text: None),
        train_dataloader=loop.dataloader,
        log_processor=SimpleNamespace(get_log_after_iter=lambda runner, i, mode: ({}, '')),
        visualizer=SimpleNamespace(add_scalars=lambda *_, **__: logged.append(step)))
    hook = TimedLoggerHook(interval=5)
    hook.json_log_path = None
    hook._told = screen.time.monotonic()
    for step in range(1, 11):
        hook.after_train_iter(runner, step - 1)
    assert logged == expected and hook.interval == 5


def test_a_terminal_shows_a_bar_for_each_epoch(run, tmp_path, monkeypatch):
    monkeypatch.setattr(sys.stdout, 'isatty', lambda: True)
    lines = '\n'.join(run()).replace('\r', '\n').splitlines()
    assert not [line for line in lines if 'Epoch(' in line]
    for epoch, score in enumerate((0.25, 0.5, 0.375, 0.125), 1):
        last = [line for line in lines if line.startswith(f'epoch {epoch}/4')][-1]
        assert '100%' in last and f'score {score:.4f}' in last
        assert 'loss ' in last and ' left' in last
    assert any('Finished: score' in line for line in lines)
    assert 'Epoch(train)' in (tmp_path / 'work/train.log').read_text()
