"""The table of a study by hand."""

import json

from mmkd.study.plan import Cell, Study
from mmkd.study.runs import runs_of, teachers_of
from mmkd.study.tables import table

CELLS = (Cell('baseline', 'a.py', 'alone'), Cell('two', 'b.py', 'from two'),
         Cell('open', 'c.py', 'open'))
STUDY = Study('mine', CELLS, (), (0, 1, 2), 'map', 1.0, 100.0, 'test', (), None)


def _finished(runs, values):
    for run in runs:
        if run.cell.name in values:
            run.folder.mkdir(parents=True)
            run.file.write_text(json.dumps(dict(
                last=values[run.cell.name][run.seed], best=0.5, last_step=8, best_step=4,
                command='train')))


def test_means_gains_and_verdicts(tmp_path):
    runs = runs_of(STUDY, tmp_path, STUDY.seeds, True)
    _finished(runs, dict(baseline=[0.50, 0.40, 0.60], two=[0.53, 0.44, 0.65]))
    lines = table(STUDY, teachers_of(STUDY), runs).splitlines()
    assert lines[2] == '| alone | 50.0 | 10.0 | 50.0, 40.0, 60.0 |  | 50.0 |  |'
    # Differences 3, 4, 5: mean 4, deviation 1, and 4.303 / sqrt(3) = 2.5 to either side. A cell
    # whose seeds are not all finished has no line.
    assert lines[3:] == [
        '| from two | 54.0 | 10.5 | 53.0, 44.0, 65.0 | +4.0 (+1.5 to +6.5) | 50.0 | GO |']


def test_one_seed_has_a_gain_without_an_interval(tmp_path):
    runs = runs_of(STUDY, tmp_path, [0], True)
    _finished(runs, dict(baseline=[0.50], two=[0.53]))
    assert table(STUDY, [], runs).splitlines()[3] == (
        '| from two | 53.0 |  | 53.0 | +3.0 | 50.0 | MORE SEEDS (at least 2) |')
