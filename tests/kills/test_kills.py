"""A few kills of one training; docs/reliability.md has many of all."""

import os
import signal

import pytest
import torch

from kills.aims import Aim
from kills.equality import differences
from kills.run import run
from mmkd.files import leftovers, write_atomically


def test_a_killed_training_ends_as_if_it_had_not_been(tmp_path):
    lives = list(run(tmp_path, 2, 0, ['detector, live teachers'], ['checkpoint']))
    assert sum(life.kills for life in lives) == sum(life.resumed for life in lives) == 2
    assert not [line for life in lives for line in life.wrong]


@pytest.mark.parametrize('moment, there, beside', [
    (1, 'old', ['1234']), (2, 'old', ['12345678']), (3, '12345678', [])])
def test_the_moments_of_a_file(moment, there, beside, tmp_path):
    path = tmp_path / 'epoch_1.pth'
    path.write_text('old')
    child = os.fork()
    if child == 0:
        try:
            Aim('checkpoint', moment).take()
            write_atomically(tmp_path / 'results.csv', b'another kind of file')
            write_atomically(path, b'12345678')
        finally:
            os._exit(1)
    assert os.WTERMSIG(os.waitpid(child, 0)[1]) == signal.SIGKILL
    assert path.read_text() == there
    assert [file.read_text() for file in leftovers(tmp_path, path.name)] == beside


def test_what_differs_is_named(tmp_path):
    def write(name, weight, row, time):
        (tmp_path / name / 'work').mkdir(parents=True)
        torch.save(dict(state_dict=dict(weight=torch.tensor([weight])), meta=dict(time=time)),
                   tmp_path / name / 'work/epoch_1.pth')
        (tmp_path / name / 'work/results.csv').write_text(f'epoch,seconds,loss\n1,{time},{row}\n')
        (tmp_path / name / 'work/train.log').write_text(str(time))
        return tmp_path / name
    first, same = write('a', 0.1, '2.5', 1), write('b', 0.1, '2.5', 2)
    assert differences(first, same) == []
    nearly = torch.nextafter(torch.tensor(0.1), torch.tensor(1.0)).item()
    found = differences(write('c', nearly, '2.6', 3), first)
    assert [line.split(' is ')[0] for line in found] == [
        'work/epoch_1.pth: state_dict/weight', 'work/results.csv: row 0, loss']
    (same / 'work/epoch_2.pth.tmp').write_text('left')
    assert differences(first, same) == ['work/epoch_2.pth.tmp is there in one alone']
