"""Every part of the benchmark runs and keeps its contract; the table and the file of results."""

import csv
import importlib
import sys
import types
from pathlib import Path

import pytest
import torch

FOLDER = Path(__file__).parents[2] / 'benchmarks'
sys.path.insert(0, str(FOLDER))

import run  # noqa: E402
from harness import Options, Result, compare, result  # noqa: E402


@pytest.fixture(autouse=True)
def _threads():
    threads = torch.get_num_threads()
    yield
    torch.set_num_threads(threads)


@pytest.mark.parametrize('name', [
    pytest.param(name, marks=pytest.mark.matrix) if name == 'teacher_cache' else name
    for name in run.part_names()])
def test_part_runs(name):
    part = importlib.import_module(f'parts.{name}')
    assert len(part.__doc__) > 100
    results = list(part.measure(Options(rounds=1, quick=True)))
    assert results
    for row in results:
        assert row.part == name
        assert row.rounds == 1
        assert 0 < row.low <= row.ratio <= row.high
        assert row.ms > 0 and row.baseline_ms > 0 and row.name != row.baseline
    assert len({(row.name, row.baseline) for row in results}) == len(results)


def test_ratio_is_of_each_round():
    # In the second round the machine is ten times slower for both.
    row = result('p', 'new', 'old', [2.0, 30.0, 4.0], [1.0, 10.0, 4.0])
    assert (row.ratio, row.baseline_ms, row.ms, row.rounds) == (2.0, 4000.0, 4000.0, 3)
    assert (row.low, row.high) == (1.5, 2.5)
    assert result('p', 'new', 'old', [1.0], [4.0]).high == 0.25


def test_calls_take_turns():
    order = []
    calls = {name: lambda name=name: order.append(name) for name in 'abc'}
    rows = compare('p', calls, 'b', Options(rounds=2), inner=2)
    assert ''.join(order) == 'aabbcc' + 'aabbcc' + 'ccbbaa'
    assert [(row.name, row.baseline) for row in rows] == [('a', 'b'), ('c', 'b')]


@pytest.fixture
def parts(monkeypatch):
    """Two parts, of which one fails."""
    def fail(options):
        yield Result('bad', 'new', 'old', 1.0, 1.0, 1.0, 1.0, 1.0, 1)
        raise KeyError('it broke')

    for name, measure in dict(
            bad=fail, good=lambda options: [Result('good', 'new', 'old', 12.34567, 24.7, 0.5, 0.4,
                                                   0.6, options.rounds, 'a, b')]).items():
        module = types.ModuleType(f'parts.{name}')
        module.measure = measure
        monkeypatch.setitem(sys.modules, f'parts.{name}', module)
    monkeypatch.setattr(run, 'part_names', lambda: ['bad', 'good'])


def test_one_part_that_fails_does_not_stop_the_others(parts, tmp_path, capsys):
    out = tmp_path / 'folder/results.csv'
    assert run.main(['--rounds', '3', '--threads', '1', '--out', str(out)]) == 1
    assert run.main(['good', '--threads', '1', '--out', str(out)]) == 0
    text, errors = capsys.readouterr()
    assert "failed: bad (KeyError: 'it broke')" in errors
    assert '| new | 24.7 | old | 12.35 | 0.50 (0.40 ... 0.60) | a, b |' in text  # slower, and shown
    assert str(tmp_path) not in out.read_text() and str(FOLDER) not in out.read_text() + text
    with open(out, newline='') as file:
        rows = list(csv.DictReader(file))
    assert [(row['part'], row['rounds'], row['ratio'], row['note']) for row in rows] == [
        ('bad', '1', '1', ''),  # what was measured before it failed stays
        ('good', '3', '0.5', 'a, b'), ('good', '15', '0.5', 'a, b')]
    assert rows[0]['torch'] == torch.__version__ and rows[0]['threads'] == '1'
    assert set(rows[0]) >= {'device', 'cpu', 'commit', 'date', 'baseline_ms', 'low', 'high'}


@pytest.mark.parametrize('arguments, message', [
    (['godo'], "there is no part 'godo': choose of bad, good"),
    (['--rounds', '0'], 'at least 1')])
def test_what_it_refuses(arguments, message, parts, capsys):
    with pytest.raises(SystemExit):
        run.main(arguments)
    assert message in capsys.readouterr().err
