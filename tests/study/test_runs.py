"""The runs of a study: what is finished stays, what fails is named, teachers come once."""

import csv
import json
import os
import subprocess
import threading
from pathlib import Path

import pytest
from test_plan import study_file

from mmkd.errors import UserError
from mmkd.study import runs
from mmkd.study.command import run_study
from mmkd.study.plan import read_study

A_AND_B = "a=dict(config='{config}'), b=dict(config='{config}')"
TEACHERS = "teachers = dict(t=dict(config='{config}', checkpoint='{checkpoint}'))"


class Tools:
    """In place of the tools: leaves the files that they would, and notes what it was asked."""

    def __init__(self):
        self.trained, self.tested, self.environments, self.fail = [], [], [], ()
        self.epochs, self.validation, self.values, self.also = 4, {}, {}, {}

    def __call__(self, run, command, environment):
        self.environments.append(environment)
        name = f'{run.cell.name}{run.seed}'
        (run.folder / runs.LOG).write_text('a long story\nerror: the disk is full\n')
        if command[1] == 'test':
            self.tested.append((name, Path(command[3]).name))
            value = self.values.get((name, Path(command[3]).name), len(self.tested))
            Path(command[-1]).write_text(json.dumps({'tiny/mean': value} | self.also))
            return
        self.trained.append(name)
        if name in self.fail:
            raise subprocess.CalledProcessError(1, command)
        self.leave(run)

    def leave(self, run):
        import torch
        for step in {self.epochs, *self.validation}:
            best = step == max(self.validation, key=self.validation.get, default=None)
            for prefix in ('', 'best_tiny_mean_') if best else ('', ):
                torch.save(dict(state_dict={}), run.folder / f'{prefix}epoch_{step}.pth')
        (run.folder / 'last_checkpoint').write_text(str(run.folder / f'epoch_{self.epochs}.pth'))
        log = run.folder / '20260101' / 'vis_data' / 'scalars.json'
        log.parent.mkdir(parents=True)
        log.write_text('\n'.join(json.dumps({'tiny/mean': value, 'step': step})
                                 for step, value in self.validation.items()))


@pytest.fixture
def tools(monkeypatch):
    tools = Tools()
    monkeypatch.setattr(runs, '_call', tools)
    monkeypatch.setattr('mmkd.study.command.data_hash', lambda cfg, split: 'abc')
    return tools


@pytest.fixture
def run(tmp_path):
    """Write a study, one of a and b if nothing is said, and run it; ``more`` is appended to it."""
    def write_and_run(text=A_AND_B, more='', out=tmp_path / 'out', **options):
        run_study(study_file(tmp_path, text, more), out=out, **options)
    return write_and_run


@pytest.fixture
def teacher(tmp_path):
    """The checkpoint of a study's teacher, and the line that names both."""
    checkpoint = tmp_path / 'teacher/epoch_4.pth'
    return checkpoint, TEACHERS.format(config=tmp_path / 'tiny.py', checkpoint=checkpoint)


def rows(folder):
    """What the study in ``folder/out`` wrote."""
    with open(folder / 'out/results.csv', newline='') as file:
        return list(csv.DictReader(file))


def test_a_failed_cell_is_named_and_the_others_go_on(tools, run, tmp_path, capsys):
    table = tmp_path / 'out/table.md'
    tools.fail = ('a1', )
    with pytest.raises(UserError, match=r'1 failed: a, seed 1: error: the disk is full \(all of'):
        run()
    assert sorted(tools.trained) == ['a0', 'a1', 'b0', 'b1', 'baseline0', 'baseline1']
    assert '| b |' in table.read_text()
    assert '| a |' not in table.read_text()  # a mean of other seeds is no comparison
    assert len(rows(tmp_path)) == 5
    # The same command tries what failed, and nothing else.
    tools.trained, tools.fail = [], ()
    run()
    assert tools.trained == ['a1']
    assert len(rows(tmp_path)) == 6 and '| a |' in table.read_text()
    assert '[1/1]' in capsys.readouterr().out


def test_more_seeds_append(tools, run, tmp_path):
    run(seeds=[0], variants=['a'])
    run(seeds=[0, 1], variants=['a'])
    found = rows(tmp_path)
    assert [row['seed'] for row in found] == ['0', '0', '1', '1']
    assert {row['data'] for row in found} == {'abc'}
    assert 'randomness.seed=1' in found[-1]['command']


def test_a_result_of_another_command_is_not_taken_for_this_one(tools, run):
    run(seeds=[0])
    with pytest.raises(UserError, match=r"seed0' holds the result of .*another name"):
        run("a=dict(config='{config}', options={{'distill_weights': dict(x=2.0)}})", seeds=[0])


def interrupted(*_):
    raise KeyboardInterrupt


def test_a_kill_between_a_result_and_its_row(tools, run, tmp_path, monkeypatch):
    with monkeypatch.context() as patch, pytest.raises(KeyboardInterrupt):
        patch.setattr('mmkd.study.command.append_row', interrupted)
        run(seeds=[0], jobs=1)
    tools.trained.clear()
    run(seeds=[0], jobs=1)
    assert len(rows(tmp_path)) == 3 and 'baseline0' not in tools.trained


def test_the_best_epoch_is_chosen_on_validation_images(tools, run, tmp_path, monkeypatch):
    monkeypatch.setattr('mmkd.study.command.runs_of', lambda study, folder, seeds, validates:
                        runs.runs_of(study, folder, seeds, True))
    tools.validation = {2: 0.7, 4: 0.6}
    tools.values = {('a0', 'epoch_4.pth'): 0.5, ('a0', 'best_tiny_mean_epoch_2.pth'): 0.4}
    run(seeds=[0], variants=['a'])
    [row] = [row for row in rows(tmp_path) if row['cell'] == 'a']
    assert (row['last'], row['last_step'], row['best'], row['best_step']) == ('0.5', '4', '0.4',
                                                                              '2')


def test_judged_on_validation_images_nothing_is_tested(tools, run, tmp_path, monkeypatch):
    monkeypatch.setattr('mmkd.study.command.settled', _with_validation)
    tools.validation = {2: 0.7, 4: 0.6}
    run(more="split = 'val'", seeds=[0], variants=['a'])
    assert tools.tested == []
    assert [(row['last'], row['best']) for row in rows(tmp_path)] == [('0.6', '0.7')] * 2


def _with_validation(cell):
    from mmkd.study.plan import settled
    cfg = settled(cell)
    cfg.val_dataloader = cfg.test_dataloader
    return cfg


def test_jobs_run_side_by_side_and_share_the_threads(tools, run, monkeypatch):
    monkeypatch.delenv('OMP_NUM_THREADS', raising=False)
    monkeypatch.setattr('os.cpu_count', lambda: 8)
    together = threading.Barrier(2, timeout=30)
    leave = tools.leave
    monkeypatch.setattr(tools, 'leave', lambda run: (together.wait(), leave(run)))
    run(seeds=[0, 1], variants=['a'], jobs=2)
    assert {found['OMP_NUM_THREADS'] for found in tools.environments} == {'4'}


@pytest.mark.parametrize('there', [False, True])
def test_a_teacher_is_trained_once_and_only_if_it_is_not_there(tools, run, teacher, tmp_path,
                                                               there):
    checkpoint, line = teacher
    if there:
        checkpoint.parent.mkdir()
        checkpoint.touch()
    for seed in (0, 1):
        run(more=line, seeds=[seed])
    assert tools.trained.count('t0') == (not there) and tools.tested.count(
        ('t0', 'epoch_4.pth')) == 1
    assert '| teacher t |' in (tmp_path / 'out/table.md').read_text()


def test_without_a_teacher_its_students_are_left_out_and_the_others_go_on(tools, run, tmp_path):
    taught = ("a=dict(config='{config}', options={{'teachers.t.checkpoint': '%s'}}), "
              "b=dict(config='{config}')")
    checkpoint = tmp_path / 'teacher/epoch_9.pth'
    with pytest.raises(UserError, match=r"1 failed: teacher t: the training left no '.*epoch_9.pth'"
                                        r'.*; 2 runs that learn from it were not begun'):
        run(taught % checkpoint,
            TEACHERS.format(config=tmp_path / 'tiny.py', checkpoint=checkpoint))
    assert sorted(tools.trained) == ['b0', 'b1', 'baseline0', 'baseline1', 't0']
    assert '| b |' in (tmp_path / 'out/table.md').read_text()


def test_an_interrupted_study_begins_nothing_more(tools, run, monkeypatch):
    released, leave = threading.Event(), tools.leave

    def slow(run):
        if len(tools.trained) == 2:
            released.wait(30)
        leave(run)

    monkeypatch.setattr(tools, 'leave', slow)
    monkeypatch.setattr('mmkd.study.command.append_row', interrupted)
    with pytest.raises(KeyboardInterrupt):
        run(jobs=1)
    released.set()
    for thread in threading.enumerate():
        if thread.name.startswith('ThreadPoolExecutor'):
            thread.join(30)
    assert len(tools.trained) == 2  # of six


@pytest.mark.skipif(os.name != 'posix', reason='locks of POSIX')
def test_a_training_that_outlives_its_study_is_not_begun_twice(tmp_path):
    import fcntl
    study = read_study(study_file(tmp_path, A_AND_B))
    run = runs.runs_of(study, tmp_path / 'out', [0], False)[0]
    run.folder.mkdir(parents=True)
    with open(run.folder / runs.LOG, 'a') as log:  # as the training has it
        fcntl.flock(log, fcntl.LOCK_EX)
        with pytest.raises(UserError, match=r"baseline/seed0' is still being trained"):
            runs._call(run, ['platform'], dict(os.environ))
    runs._call(run, ['platform'], dict(os.environ))
    assert (run.folder / runs.LOG).read_text()


@pytest.mark.parametrize(('visible', 'present', 'expected'), [
    (None, 2, ['0', '1', '0']), ('3,5', 2, ['3', '5', '3']), (None, 0, [None] * 3)])
def test_jobs_take_gpus_in_turn(visible, present, expected, monkeypatch):
    monkeypatch.delenv('CUDA_VISIBLE_DEVICES', raising=False)
    if visible:
        monkeypatch.setenv('CUDA_VISIBLE_DEVICES', visible)
    monkeypatch.setattr('torch.cuda.device_count', lambda: present)
    assert [runs._environment(slot, 3).get('CUDA_VISIBLE_DEVICES')
            for slot in range(3)] == expected


def test_the_epochs_of_a_cell_reach_the_command(tools, run, tmp_path):
    short = f"baseline = dict(config='{tmp_path}/tiny.py', epochs=2)\nvariants = dict(a=baseline)"
    run(more=short, seeds=[0])
    assert all(' --resume --epochs 2 --cfg-options ' in row['command'] for row in rows(tmp_path))


def test_a_metric_that_nobody_measures(tools, run):
    with pytest.raises(UserError, match=r"is judged by tiny/mean and not by 'map'"):
        run(more="metric = 'map'", seeds=[0], variants=['a'])


def test_an_unknown_variant(tools, run):
    with pytest.raises(UserError, match="'c' is none of a, b"):
        run(variants=['c'])


@pytest.mark.slow
def test_with_the_tools_themselves(run, tmp_path, monkeypatch):
    tests = Path(__file__).parents[1]
    monkeypatch.setenv('PYTHONPATH', os.pathsep.join([str(tests.parent), str(tests / 'engine')]))
    monkeypatch.setattr('mmkd.study.command.data_hash', lambda cfg, split: 'abc')
    run("twice=dict(config='{config}', options={{'optim_wrapper.optimizer.lr': 0.02}})",
        "may_differ = ['optimizer']\nmetric = 'total'", seeds=[3])
    found = rows(tmp_path)
    assert {row['cell'] for row in found} == {'baseline', 'twice'}
    assert len({row['last'] for row in found}) == 2
    assert (tmp_path / 'out' / 'points.png').read_bytes().startswith(b'\x89PNG')


def test_a_teacher_has_a_result_of_each_metric(tools, run, teacher, tmp_path):
    tools.values, tools.also = {('t0', 'epoch_4.pth'): 0.5}, {'tiny/other': 0.25}
    for metric, value in (('tiny/mean', '0.5'), ('tiny/other', '0.2'), ('tiny/mean', '0.5')):
        out = tmp_path / metric.replace('/', '_')
        run(more=f"{teacher[1]}\nmetric = '{metric}'", seeds=[0], variants=['a'], out=out)
        assert f'| teacher t | {value} |' in (out / 'table.md').read_text()
    assert tools.trained.count('t0') == 1 and tools.tested.count(('t0', 'epoch_4.pth')) == 1


def test_a_teacher_has_a_result_of_each_split(tools, run, teacher, tmp_path, monkeypatch):
    monkeypatch.setattr('mmkd.study.command.settled', _with_validation)
    tools.validation, tools.values = {2: 0.7, 4: 0.6}, {('t0', 'epoch_4.pth'): 0.5}
    for split, value in (('test', '0.5'), ('val', '0.6')):
        out = tmp_path / split
        run(more=f"{teacher[1]}\nsplit = '{split}'", seeds=[0], variants=['a'], out=out)
        assert f'| teacher t | {value} |' in (out / 'table.md').read_text()
    assert tools.trained.count('t0') == 1
