"""The demo's choices: what is exported, what is not run again, what the table says."""

import json
from pathlib import Path

from mmkd.commands import demo

ROOT = Path(__file__).parents[2]


def _run(tmp_path, model, seed, test, validation):
    run = demo.Run(model, tmp_path / f'seed{seed}' / model.name, seed)
    log = run.folder / '20260101' / 'vis_data/scalars.json'
    log.parent.mkdir(parents=True)
    rows = [dict(loss=1.0), *({'pascal_voc/mAP': value / 100} for value in (9, validation))]
    log.write_text('\n'.join(map(json.dumps, rows)))
    run.checkpoint.touch()
    run.metrics.write_text(json.dumps({'pascal_voc/mAP': test / 100}))
    return run


def test_the_exported_student_is_chosen_on_validation_images(tmp_path):
    one, *others = demo.DISTILLED
    runs = [_run(tmp_path, one, 0, test=70, validation=60),
            _run(tmp_path, others[0], 0, test=60, validation=65)]
    assert demo.best_distilled(runs) is runs[1]
    line = demo.export_line(runs[1], tmp_path / 'student.onnx')
    assert 'best on validation images, 65.0 mAP there' in line
    assert '60.0' not in line


def test_what_is_finished_is_not_run_again(tmp_path, monkeypatch, capsys):
    trained = []
    monkeypatch.setattr(demo, 'train_and_test', lambda run, folder: trained.append(run))
    done = _run(tmp_path, demo.ALONE, 0, 50, 50)
    half = _run(tmp_path, demo.ALONE, 1, 50, 50)
    half.metrics.unlink()
    monkeypatch.setattr(demo.Run, 'test_map', lambda run: 1.0)
    demo.run_all([done, half], tmp_path, 0.0)
    assert trained == [half]
    assert 'seed 1: 1.0 mAP on test images' in capsys.readouterr().out


def test_the_table_pairs_the_seeds(tmp_path, monkeypatch):
    monkeypatch.setattr(demo, 'measured', lambda runs, exported: (
        dict.fromkeys([*runs, exported], '1 ms'), dict.fromkeys(runs, '1 M')))
    teachers = [_run(tmp_path / 'teachers', model, 0, 80, 80)
                for model in demo.TEACHERS.values()]
    alone = [_run(tmp_path, demo.ALONE, seed, value, 0) for seed, value in
             enumerate((50.0, 40.0, 60.0))]
    both = demo.DISTILLED[-1]
    distilled = [_run(tmp_path, model, seed, value + (2 if model is both else 0), 0)
                 for model in demo.DISTILLED for seed, value in enumerate((51.0, 42.0, 63.0))]
    table = demo.table_of(teachers, alone, distilled, tmp_path / 'x').splitlines()
    row = next(line for line in table if line.startswith('student from both'))
    # Differences 3, 4, 5: mean 4, and 4.303 / sqrt(3) = 2.5 to either side.
    assert row.split()[-8:] == ['54.0', '53.0', '44.0', '65.0', '+4.0', '(+1.5', 'to', '+6.5)']


def test_teachers_checkpoints_are_those_that_the_configs_name():
    from mmengine.config import Config
    for model in demo.DISTILLED:
        cfg = Config.fromfile(ROOT / model.config)
        assert {name: entry.checkpoint for name, entry in cfg.teachers.items()} == {
            name: f'demo/{demo.TEACHERS[name].name}/epoch_{demo.TEACHERS[name].epochs}.pth'
            for name in model.teachers}
        assert cfg.train_cfg.max_epochs == model.epochs == cfg.teacher_cache.views
