"""The folder that a training leaves: results.csv, best.pth, last.pth, config.py."""

import csv
import os
import signal
import subprocess
import sys
from copy import deepcopy
from functools import partial

import pytest
from mmengine.config import Config
from mmengine.registry import LOOPS
from mmengine.runner import ValLoop
from tiny_run import VALIDATION, Listed, write_config

from mmkd.checkpoints import load_checkpoint_safely
from mmkd.engine import begin, launch, results
from mmkd.engine.begin import add_hooks
from mmkd.engine.checkpoint_hook import SafeCheckpointHook
from mmkd.engine.config import load_config
from mmkd.engine.launch import train
from mmkd.engine.results import ResultsHook, read_results
from mmkd.engine.run_folder import is_better, main_metric
from mmkd.errors import UserError

ITERATIONS = {'train_cfg': dict(_delete_=True, type='IterBasedTrainLoop', max_iters=5,
                                val_interval=3),
              'default_hooks.checkpoint.by_epoch': False, 'log_processor.by_epoch': False,
              'param_scheduler.0.by_epoch': False}


@pytest.fixture
def run(tmp_path):
    """Train as the tool does."""
    work = tmp_path / 'work'

    def call(resume=None, more=VALIDATION, **options):
        cfg = load_config(write_config(tmp_path, more), options)
        cfg.work_dir, cfg.launcher, cfg.log_level = str(work), 'none', 'ERROR'
        cfg.experiment_name = f'{tmp_path.name}_{resume}_{len(list(tmp_path.rglob("*")))}'
        train(cfg, resume)
        with open(work / 'results.csv', newline='') as file:
            return list(csv.DictReader(file))
    return call


def _epoch(path):
    return load_checkpoint_safely(path)['meta']['epoch']


def test_a_row_is_the_mean_of_its_epoch(run, monkeypatch):
    from tiny_run import TinyModel
    seen, original = [], TinyModel.train_step

    def train_step(self, *args, **kwargs):
        logged = original(self, *args, **kwargs)
        seen.append({key: value.item() for key, value in logged.items()})
        return logged
    monkeypatch.setattr(TinyModel, 'train_step', train_step)
    rows = run()
    assert [row['epoch'] for row in rows] == ['1', '2', '3', '4']
    assert [row['iterations'] for row in rows] == ['2', '4', '6', '8']
    assert list(rows[0])[:3] == ['epoch', 'iterations', 'seconds']
    assert list(rows[0])[-2:] == ['val/score', 'val/other']
    assert [row['val/score'] for row in rows] == ['0.25', '0.5', '0.375', '0.125']
    for name in ('loss', 'loss_square', 'loss_other'):
        for i, row in enumerate(rows):
            mean = (seen[2 * i][name] + seen[2 * i + 1][name]) / 2
            assert float(row[name]) == pytest.approx(mean, rel=1e-5)
    assert float(rows[0]['lr']) == pytest.approx(0.01)  # a cosine of four epochs begins there
    assert float(rows[2]['lr']) == pytest.approx(0.005)
    assert 'time' not in rows[0]


def test_the_best_and_the_last_are_kept(run, tmp_path):
    run(**{'default_hooks.checkpoint.max_keep_ckpts': 1})
    work = tmp_path / 'work'
    assert sorted(path.name for path in work.glob('*.pth')) == ['best.pth', 'epoch_4.pth',
                                                                'last.pth']
    assert (_epoch(work / 'best.pth'), _epoch(work / 'last.pth')) == (2, 4)
    for name in ('environment.txt', 'train.log', 'config.py'):
        assert (work / name).stat().st_size > 100
    assert not list(work.glob('*/*.log')) and not (work / 'tiny.py').exists()


@pytest.mark.parametrize('last', [2, 3])
def test_a_resume_goes_on_with_rows_and_best(last, run, tmp_path):
    whole = run()
    for path in (tmp_path / 'work').glob('*'):
        if path.is_file():
            path.unlink()
    run(**{'train_cfg.max_epochs': last})
    rows = run('auto', **{'val_evaluator.values': [0.375, 0.125][last - 2:]})
    assert [(row['epoch'], row['iterations'], row['val/score']) for row in rows] == [
        (row['epoch'], row['iterations'], row['val/score']) for row in whole]
    assert _epoch(tmp_path / 'work/best.pth') == 2


def test_rows_and_best_behind_the_resumed_checkpoint_are_of_another_run(run, tmp_path):
    run(**{'val_evaluator.values': [0.1234564, 0.12, 0.9, 0.8]})
    work = tmp_path / 'work'
    assert _epoch(work / 'best.pth') == 3
    rows = run(str(work / 'epoch_2.pth'), **{'val_evaluator.values': [0.1234561, 0.1234567]})
    # It judges by what is written, with all its digits.
    assert [row['val/score'] for row in rows] == ['0.1234564', '0.12', '0.1234561', '0.1234567']
    assert _epoch(work / 'best.pth') == 4


def _kill_before_the_best_is_linked(patch):
    def kill(self, runner):
        if runner.epoch == 2:
            os.kill(os.getpid(), signal.SIGKILL)
    patch.setattr(SafeCheckpointHook, '_keep_best', kill)


def _kill_before_validation(patch, number):
    """Let the process die when it is to validate for the time `number`, from 1."""
    def run(self, calls=[]):  # noqa: B006
        calls.append(0)
        if len(calls) == number:
            os.kill(os.getpid(), signal.SIGKILL)
        return ValLoop.run(self)
    patch.setitem(LOOPS._module_dict, 'ValLoop', type('ValLoop', (ValLoop, ), dict(run=run)))


@pytest.mark.parametrize('kill, number, values', [
    (_kill_before_the_best_is_linked, 2, [0.375, 0.125]),
    (partial(_kill_before_validation, number=2), 2, [0.5, 0.375, 0.125]),
    (partial(_kill_before_validation, number=4), 4, [0.125])],
    ids=['before the best is linked', 'before validation 2', 'before validation 4'])
def test_a_kill(kill, number, values, run, tmp_path, monkeypatch, killed):
    with monkeypatch.context() as patch:
        kill(patch)
        killed(run)
    assert (tmp_path / f'work/epoch_{number}.pth').exists()
    assert (tmp_path / 'work/best.pth').exists() is (
        kill is not _kill_before_the_best_is_linked)
    rows = run('auto', **{'val_evaluator.values': values})
    assert [row['val/score'] for row in rows] == ['0.25', '0.5', '0.375', '0.125']
    best = load_checkpoint_safely(tmp_path / 'work/best.pth')
    assert best['meta']['epoch'] == 2 and 'optimizer' in best


def test_iterations_where_there_are_no_epochs_and_a_kill_within_a_row(
        run, tmp_path, monkeypatch, killed):
    whole = run(**deepcopy(ITERATIONS))
    # A pass is two iterations; validated after 3 and 5.
    assert [(row['epoch'], row['iterations'], row['val/score']) for row in whole] == [
        ('1', '2', ''), ('1.5', '3', '0.25'), ('2', '4', ''), ('2.5', '5', '0.5')]
    assert load_checkpoint_safely(tmp_path / 'work/best.pth')['meta']['iter'] == 5
    with monkeypatch.context() as patch:
        _kill_before_validation(patch, 1)
        killed(lambda: run(**deepcopy(ITERATIONS)))
    assert (tmp_path / 'work/iter_3.pth').exists()
    rows = run('auto', **deepcopy(ITERATIONS))
    assert [row['val/score'] for row in rows] == ['', '0.25', '', '0.5']
    # The row that ends with the third iteration has its loss, which was seen before the kill.
    for row in (rows[1], whole[1]):
        del row['seconds']
    assert rows[1] == whole[1]


def test_a_rate_that_follows_the_validations(run, tmp_path):
    plateau = {'param_scheduler': [dict(type='ReduceOnPlateauLR', monitor='score', rule='greater',
                                        patience=1, factor=0.1)]}
    # Not better than 0.5 for two epochs: the rate falls behind the third.
    rows = run(more=VALIDATION.replace('0.25, 0.5, 0.375', '0.5, 0.25, 0.375'), **plateau)
    assert [row['lr'] for row in rows] == ['0.01', '0.01', '0.01', '0.001']
    rows = run(str(tmp_path / 'work/epoch_2.pth'), **plateau,
               **{'val_evaluator.values': [0.25, 0.375, 0.125]})
    assert [row['lr'] for row in rows] == ['0.01', '0.01', '0.01', '0.001']


def test_a_checkpoint_of_another_folder_is_not_validated(run, tmp_path):
    run(**{'train_cfg.max_epochs': 2})
    (tmp_path / 'work').rename(tmp_path / 'other')
    rows = run(str(tmp_path / 'other/epoch_2.pth'), **{'val_evaluator.values': [0.375, 0.125]})
    assert [(row['epoch'], row['val/score']) for row in rows] == [('3', '0.375'), ('4', '0.125')]


def test_another_run_in_the_same_folder(run, tmp_path):
    run()
    old = (tmp_path / 'work/results.csv').read_text()
    rows = run(more='', **{'train_cfg.max_epochs': 1})
    assert len(rows) == 1 and 'val/score' not in rows[0]
    [earlier] = (tmp_path / 'work').glob('earlier_*')
    assert (earlier / 'results.csv').read_text() == old
    assert _epoch(earlier / 'best.pth') == 2
    assert not (tmp_path / 'work/best.pth').exists()


@pytest.mark.parametrize('fails_in', ['build', 'before_train'])
def test_a_start_that_fails_leaves_the_earlier_run_where_it_was(
        run, tmp_path, monkeypatch, fails_in):
    run()
    kept = ['results.csv', 'best.pth', 'last.pth', 'config.py', 'environment.txt', 'train.log']
    old = {name: (tmp_path / 'work' / name).read_bytes() for name in kept}
    (tmp_path / 'work/check.json').unlink(missing_ok=True)

    def fail(*_):
        (tmp_path / 'work/check.json').write_text('{}')
        raise UserError('no such teacher')
    with monkeypatch.context() as patched:
        if fails_in == 'build':
            patched.setattr(launch.TrainingRunner, 'from_cfg', fail)
        else:
            patched.setattr(ResultsHook, 'before_train', fail)
        with pytest.raises(UserError, match='no such teacher'):
            run(**{'optim_wrapper.optimizer.lr': 0.5})
    assert {name: (tmp_path / 'work' / name).read_bytes() for name in kept} == old
    assert not (tmp_path / 'work/check.json').exists()
    assert not list((tmp_path / 'work').glob('earlier_*'))


def test_a_run_that_fails_later_keeps_what_it_wrote(run, tmp_path):
    run()
    with pytest.raises(UserError, match=r'NaN|nan'):
        run(**{'model.bad_step': 2})
    [earlier] = (tmp_path / 'work').glob('earlier_*')
    assert (earlier / 'results.csv').is_file() and not (tmp_path / 'work/best.pth').exists()


def test_a_second_training_in_a_folder_is_refused(run, tmp_path):
    run()
    old = (tmp_path / 'work/results.csv').read_bytes()
    held = ('import sys; from mmkd.engine.earlier_run import alone_in\n'
            'with alone_in(sys.argv[1]): print(flush=True); input()')
    with subprocess.Popen([sys.executable, '-c', held, tmp_path / 'work'], stdin=subprocess.PIPE,
                          stdout=subprocess.PIPE) as other:
        other.stdout.readline()
        with pytest.raises(UserError, match='another training is at work') as told:
            run()
        assert str(tmp_path / 'work') in str(told.value)
        assert (tmp_path / 'work/results.csv').read_bytes() == old
        other.communicate(b'\n')
    run()


def test_validation_without_a_checkpoint_of_that_epoch(run, tmp_path):
    run(**{'default_hooks.checkpoint.interval': 3})
    checkpoint = load_checkpoint_safely(tmp_path / 'work/best.pth')
    assert checkpoint['meta']['epoch'] == 2 and 'optimizer' not in checkpoint


def test_a_new_column_stands_in_the_header(tmp_path):
    first = dict(epoch=1, iterations=2, seconds=0.5, loss=1.5)
    rows = [first, dict(first, epoch=2, iterations=4, loss_new=0.25, **{'val/mAP': 0.5}),
            dict(first, epoch=3, iterations=6)]
    path = tmp_path / 'results.csv'
    path.write_bytes(results._as_csv(rows))
    assert path.read_text().splitlines() == [
        'epoch,iterations,seconds,loss,loss_new,val/mAP', '1,2,0.5,1.5,,', '2,4,0.5,1.5,0.25,0.5',
        '3,6,0.5,1.5,,']
    path.write_text(path.read_text() + '4,half a row')
    assert read_results(path) == rows


def test_a_full_disk_does_not_end_a_run(run, monkeypatch):
    real, calls = results.write_atomically, []

    def full(path, content):
        calls.append(path)
        if len(calls) == 2:
            raise OSError(28, 'No space left on device')
        real(path, content)
    monkeypatch.setattr(results, 'write_atomically', full)
    assert len(run()) == 4


def test_which_metric_and_which_direction():
    assert main_metric({'a': 0.5, 'b': 1}) == ('a', 0.5)
    assert main_metric({'a': [1]}) is main_metric({}) is main_metric(None) is None
    assert is_better('coco/bbox_mAP', 0.6, 0.5) and not is_better('coco/bbox_mAP', 0.5, 0.5)
    assert is_better('val_loss', 0.4, 0.5) and not is_better('top1_error', 0.6, 0.5)
    assert is_better('mAP', 0.0, float('nan')) and not is_better('mAP', float('nan'), 0.0)


def test_less_is_better_of_an_error(run, tmp_path, monkeypatch):
    monkeypatch.setattr(Listed, 'compute_metrics',
                        lambda self, found: dict(error=next(self.values)))
    run()
    assert _epoch(tmp_path / 'work/best.pth') == 4


def test_config_is_what_was_asked_for(run, tmp_path):
    run(**{'train_cfg.max_epochs': 2, 'optim_wrapper.optimizer.lr': 0.125})
    run('auto', **{'train_cfg.max_epochs': 2, 'optim_wrapper.optimizer.lr': 0.125})
    written = load_config(tmp_path / 'work/config.py')
    asked = load_config(write_config(tmp_path, VALIDATION),
                        {'train_cfg.max_epochs': 2, 'optim_wrapper.optimizer.lr': 0.125})
    assert not written.resume and written.load_from is None
    for key in asked:
        assert written[key] == asked[key] or key == 'log_level', key


def test_config_keeps_the_order_and_what_python_does_not_write(tmp_path, monkeypatch):
    monkeypatch.setattr(begin, 'FormatCode', begin.FormatCode.__wrapped__)  # see conftest.py
    cfg = Config(dict(terms=dict(z=1, a=dict(type='T', x=(1,))), m={'a b': None, 1: [True, 'q\'']},
                      long=[*range(99)], b=float('inf'), c={'class': -1.5}))
    (tmp_path / 'config.py').write_text(begin._config_text(cfg))
    assert max(map(len, (tmp_path / 'config.py').read_text().splitlines())) <= 100
    again = Config.fromfile(tmp_path / 'config.py')
    assert again.to_dict() == cfg.to_dict()
    assert list(again) == ['terms', 'm', 'long', 'b', 'c'] and list(again.terms) == ['z', 'a']


def test_config_trains_again(run, tmp_path, capsys):
    rows = run(more='', **{'train_cfg.max_epochs': 1})
    again = load_config(tmp_path / 'work/config.py', {'log_level': 'INFO'})
    again.work_dir, again.experiment_name = str(tmp_path / 'again'), f'{tmp_path.name}_again'
    train(again)
    [row] = read_results(tmp_path / 'again/results.csv')
    assert row['loss'] == float(rows[0]['loss'])
    for text in (capsys.readouterr().out, (tmp_path / 'again/train.log').read_text()):
        assert f'Finished. Last: {tmp_path}/again/last.pth (no best.pth: there was no val' in text


def test_mmdetections_own_hooks_get_what_every_run_has(tmp_path):
    cfg = load_config(write_config(tmp_path))
    cfg.default_hooks.checkpoint = dict(type='CheckpointHook', interval=2)
    add_hooks(cfg)
    assert cfg.default_hooks.checkpoint == dict(type='SafeCheckpointHook', interval=2)
    assert cfg.default_hooks.results.type == ResultsHook.__name__
