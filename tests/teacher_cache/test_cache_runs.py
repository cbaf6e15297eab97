"""A run that reads its teachers from the disk equals one whose teachers run."""

import pytest
import torch
from helpers import distillation_hook
from mmengine.registry import DefaultScope
from tiny_cache import TERMS, assert_close, assert_same_shards, build, detection, train

from mmkd.distillation.cached_teacher import CachedTeacher
from mmkd.distillation.student_teachers import MeanTeacher
from mmkd.distillation.teachers import Teacher

LOSSES = tuple(f'loss_distill_{term}' for term in TERMS)


@pytest.fixture(scope='module')
def live(tmp_path_factory, teachers):
    """Losses of every iteration of two epochs whose teachers run, on two fixed views."""
    folder = tmp_path_factory.mktemp('live')
    with DefaultScope.overwrite_default_scope('mmkd'):
        run, rows = train(detection(folder, teachers, dict(folder=str(folder / 'none'), views=2,
                                                           terms=[])))
    assert not (folder / 'none').exists()
    assert len(rows) == 4 and set(LOSSES) <= set(rows[0])
    return run.model.state_dict(), rows


@pytest.fixture(scope='module')
def built(tmp_path_factory, teachers):
    """A whole cache of two views, in float16; losses of the epoch in which it was built."""
    folder = tmp_path_factory.mktemp('cache')
    with DefaultScope.overwrite_default_scope('mmkd'):
        options = dict(folder=str(folder / 'c'), views=2)
        return folder / 'c', train(detection(folder / 'work', teachers, options, epochs=1))[1]


@pytest.fixture
def cache(built):
    return built[0]


@pytest.fixture
def stored(cache, no_teachers):
    """The `teacher_cache` of a run that reads the whole cache and may build no teacher."""
    no_teachers()
    return dict(folder=str(cache), views=2)


@pytest.fixture
def calls(monkeypatch):
    """Names of teachers, one for each image that they are run for."""
    seen = []
    plain = Teacher.__call__

    def counting(self, inputs, *args, **kwargs):
        seen.extend([self.name] * len(inputs))
        return plain(self, inputs, *args, **kwargs)
    monkeypatch.setattr(Teacher, '__call__', counting)
    return seen


def test_float32_equals_the_live_run(tmp_path, teachers, live, no_teachers, calls):
    options = dict(folder=str(tmp_path / 'c'), views=2, dtype='float32')
    run, rows = train(detection(tmp_path / 'a', teachers, options))
    assert_close(rows, live[1], 1e-5)
    for key, value in live[0].items():
        torch.testing.assert_close(run.model.state_dict()[key], value, rtol=1e-4, atol=1e-5)
    # A batch more for the estimate of the size.
    assert sorted(calls) == ['hourglass'] * 17 + ['resnet'] * 17

    no_teachers()
    again, rows_again = train(detection(tmp_path / 'b', teachers, options))
    assert rows_again == rows
    for key, value in run.model.state_dict().items():
        assert torch.equal(again.model.state_dict()[key], value), key


def test_float16_is_within_a_thousandth(tmp_path, teachers, live, built, stored):
    """And workers, who read for the run there, change nothing."""
    _, rows = train(detection(tmp_path / 'a', teachers, stored))
    assert_close(rows[:2], live[1][:2], 1e-3)
    assert_close(rows, live[1], 4e-3)  # the steps before have moved the student
    assert rows != live[1]
    assert rows[:2] == built[1], 'building leaves the generators as they were'
    assert train(detection(tmp_path / 'b', teachers, stored, workers=2))[1] == rows


def test_workers_draw_for_the_pass(tmp_path, teachers, cache):
    folder = tmp_path / 'c'
    train(detection(tmp_path / 'a', teachers, dict(folder=str(folder), views=2), workers=2,
                    epochs=1))
    assert len(list(cache.rglob('*.shard'))) == 4  # two teachers, two views
    assert_same_shards(folder, cache)


@pytest.mark.parametrize('terms', [['feature'], ['heatmap', 'wh', 'offset']])
@pytest.mark.parametrize('whole', [True, False])
def test_part_of_the_terms(terms, whole, tmp_path, teachers, live, cache, calls):
    """For the others the teachers run, also if the cache there is holds theirs, too."""
    options = dict(folder=str(cache if whole else tmp_path / 'c'), views=2, terms=terms)
    _, rows = train(detection(tmp_path / 'a', teachers, options))
    assert_close(rows[:2], live[1][:2], 1e-3)
    assert_close(rows, live[1], 4e-3)
    live_terms = [f'loss_distill_{term}' for term in TERMS if term not in terms]
    assert {name: rows[0][name] for name in live_terms} == pytest.approx(
        {name: live[1][0][name] for name in live_terms}, rel=1e-5)
    assert calls.count('resnet') == calls.count('hourglass') == 16 + (0 if whole else 17)


def test_fewer_terms_than_the_cache_has(tmp_path, teachers, live, stored):
    _, rows = train(detection(tmp_path, teachers, stored, terms=TERMS[:1], epochs=1))
    assert rows[0]['loss_distill_heatmap'] == pytest.approx(live[1][0]['loss_distill_heatmap'],
                                                            rel=1e-3)
    assert 'loss_distill_feature' not in rows[0]


def test_one_of_the_teachers(tmp_path, teachers, stored):
    config = detection(tmp_path, dict(resnet=teachers['resnet']), stored, epochs=1)
    assert len(train(config)[1]) == 2


def test_another_student_seed_shares_the_cache(tmp_path, teachers, built, stored):
    assert train(detection(tmp_path, teachers, stored, seed=1, epochs=1))[1] != built[1]


def test_more_views_later(tmp_path, teachers, cache, calls):
    """Only those that are missing are built, and the first ones stay as they were."""
    folder = tmp_path / 'c'
    options = dict(folder=str(folder))
    train(detection(tmp_path / 'a', teachers, dict(options, views=1), epochs=1))
    assert calls.count('resnet') == 9
    before = {path: path.stat().st_mtime_ns for path in folder.rglob('*.shard')}
    calls.clear()
    train(detection(tmp_path / 'b', teachers, dict(options, views=2), epochs=2))
    assert calls.count('resnet') == 9
    assert {path: path.stat().st_mtime_ns for path in before} == before
    assert len(list(folder.rglob('*.shard'))) == 4
    assert_same_shards(folder, cache)


def test_a_second_teacher_later(tmp_path, teachers, calls):
    options = dict(folder=str(tmp_path / 'c'), views=1)
    train(detection(tmp_path / 'a', dict(resnet=teachers['resnet']), options, epochs=1))
    calls.clear()
    train(detection(tmp_path / 'b', teachers, options, epochs=1))
    assert calls == ['hourglass'] * 9


def test_resume_goes_on_with_the_next_views(tmp_path, teachers, stored):
    whole, rows = train(detection(tmp_path / 'whole', teachers, stored, epochs=4))
    train(detection(tmp_path / 'part', teachers, stored, epochs=1))
    resumed, later = train(detection(tmp_path / 'part', teachers, stored, epochs=4, resume=True))
    assert later == rows[2:]
    for key, value in whole.model.state_dict().items():
        assert torch.equal(resumed.model.state_dict()[key], value), key


def test_resume_by_iterations(tmp_path, teachers, stored):
    def run(name, iters, resume=False):
        config = detection(tmp_path / name, teachers, stored, resume=resume)
        config.train_cfg = dict(type='IterBasedTrainLoop', max_iters=iters)
        config.train_dataloader.sampler = dict(type='InfiniteSampler', shuffle=True)
        config.default_hooks = dict(checkpoint=dict(type='CheckpointHook', by_epoch=False,
                                                    interval=1))
        return train(config)[1]

    rows = run('whole', 7)
    run('part', 3)
    assert run('part', 7, resume=True) == rows[3:]


def test_accumulated_gradients_and_mixed_precision(tmp_path, teachers, stored):
    for wrapper in (dict(type='CPUAmpOptimWrapper'), dict(accumulative_counts=2)):
        config = detection(tmp_path, teachers, stored, epochs=1)
        config.optim_wrapper.update(wrapper)
        rows = train(config)[1]
        assert all(0 < row[name] < float('inf') for row in rows for name in LOSSES)


def test_a_teacher_that_is_the_student_runs(tmp_path, teachers, calls):
    """Its outputs change: a mean teacher is never stored."""
    mixed = dict(resnet=teachers['resnet'], mean=dict(ema=0.9))
    options = dict(folder=str(tmp_path / 'c'), views=2, dtype='float32')
    run, rows = train(detection(tmp_path / 'a', mixed, options, terms=TERMS[:3]))
    kinds = [type(teacher) for teacher in distillation_hook(run).teachers]
    assert kinds == [CachedTeacher, MeanTeacher]
    assert calls.count('resnet') == 17 and calls.count('mean') == 16
    assert [path.name for path in (tmp_path / 'c').iterdir() if path.is_dir()] == ['resnet']
    live = detection(tmp_path / 'b', mixed, dict(options, terms=[]), terms=TERMS[:3])
    assert_close(rows, train(live)[1], 1e-5)


def test_the_plain_run_is_left_alone(tmp_path, teachers):
    run = build(detection(tmp_path, teachers, None, epochs=1))
    assert type(run.train_dataloader.dataset).__name__ == 'ShakenDetection'
    assert type(run.train_dataloader.sampler).__name__ == 'DefaultSampler'


def test_sizes_are_told_before_building(tmp_path, teachers, capsys):
    config = detection(tmp_path / 'a', teachers, dict(folder=str(tmp_path / 'c'), views=3),
                       epochs=1)
    config.log_level = 'INFO'
    train(config)
    out = capsys.readouterr()
    text = out.out + out.err
    told = [line for line in text.splitlines() if 'Cache of teacher' in line]
    assert len(told) == 2 and 'bbox_head:input:-1' in told[0]
    assert '24 views are missing in the cache' in text
    total = sum(path.stat().st_size for path in (tmp_path / 'c').rglob('*.shard'))
    [line] = [line for line in text.splitlines() if 'are missing in the cache' in line]
    number, unit = line.partition('about ')[2].split(',')[0].split()
    said = float(number) * {'KB': 1e3, 'MB': 1e6}[unit]
    assert said == pytest.approx(total, rel=0.2)
