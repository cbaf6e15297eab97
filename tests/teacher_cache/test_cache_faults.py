"""Other photographs, a damaged cache, a full disk, a kill, two builders at once."""

import multiprocessing
import os
import resource
import shutil
import signal
import time
from types import SimpleNamespace

import pytest
import torch
from tiny_cache import assert_same_shards, build, detection, train

import mmkd  # noqa: F401
from mmkd.distillation import cache_plan
from mmkd.errors import UserError


@pytest.fixture(autouse=True)
def _small_shards(monkeypatch):
    monkeypatch.setattr(cache_plan, 'IMAGES_PER_SHARD', 3)


@pytest.fixture
def cache(tmp_path, teachers):
    """A finished cache of two views."""
    options = dict(folder=str(tmp_path / 'cache'), views=2)
    train(detection(tmp_path / 'first', teachers, options, epochs=1))
    return options


def refused(config, message):
    with pytest.raises(UserError, match=message):
        train(config)


def cut_off(path):
    path.write_bytes(path.read_bytes()[:-20])


def exchange(path, other):
    content = path.read_bytes()
    path.write_bytes(other.read_bytes())
    other.write_bytes(content)


def test_pixels_that_changed_behind_the_same_description(tmp_path, teachers, cache):
    """As if a photograph had been replaced under its name: the mark of the view tells."""
    config = detection(tmp_path / 'run', teachers, cache)
    run = build(config)
    run.train_loop.dataloader.dataset.dataset.inverted = True
    with pytest.raises(UserError, match=r'is not what teacher .* saw when its cache was built'):
        run.train()


@pytest.mark.parametrize('spoil, shards', [
    (cut_off, ['resnet/view-0001/00001']),
    (exchange, ['resnet/view-0000/00001', 'resnet/view-0001/00001']),
    (exchange, ['resnet/view-0000/00001', 'resnet/view-0000/00000']),
    (exchange, ['resnet/view-0000/00001', 'hourglass/view-0000/00001']),
], ids=['cut off', 'of another view', 'of another place', 'of another teacher'])
def test_a_shard_that_is_not_the_one_it_should_be_is_built_again(
        tmp_path, teachers, cache, spoil, shards):
    """One that changed its place is whole, and of as many images: it says itself whose it is."""
    shutil.copytree(tmp_path / 'cache', tmp_path / 'whole')
    spoil(*(tmp_path / f'cache/{shard}.shard' for shard in shards))
    train(detection(tmp_path / 'run', teachers, cache, epochs=1))
    assert_same_shards(tmp_path / 'cache', tmp_path / 'whole')


def test_a_damaged_number_is_never_read(tmp_path, teachers, cache):
    path = tmp_path / 'cache/resnet/view-0000/00000.shard'
    content = bytearray(path.read_bytes())
    content[1000] ^= 1
    path.write_bytes(bytes(content))
    refused(detection(tmp_path / 'run', teachers, cache),
            r'entry 0 of .*00000\.shard is damaged.*delete .*00000\.shard and start again')


def test_a_full_disk(tmp_path, teachers, monkeypatch):
    monkeypatch.setattr(shutil, 'disk_usage', lambda _: SimpleNamespace(free=1000))
    refused(detection(tmp_path / 'run', teachers, dict(folder=str(tmp_path / 'cache'), views=2)),
            r'the cache would take about .* and the disk of .* has 1 KB')
    assert not list((tmp_path / 'cache').rglob('*.shard*'))


@pytest.mark.parametrize(('options', 'message'), [
    (dict(views=0), r'teacher_cache has views=0: give a number of at least 1'),
    (dict(veiws=2), r"unknown entry 'veiws'. Did you mean 'views'"),
    (dict(views='all'), r"views='all' needs data in memory"),
    (dict(terms=['heatmpa']), r"'heatmpa', which is no term .* Did you mean"),
    (dict(terms='wh'), r'give a list of names'),
    (dict(dtype='int8'), r"dtype='int8': give 'float16' or 'float32'"),
    (dict(seed=-1), r'seed=-1'),
])
def test_a_line_of_the_config_that_does_not_serve(options, message, tmp_path, teachers):
    refused(detection(tmp_path / 'run', teachers,
                      dict(folder=str(tmp_path / 'cache'), views=2) | options), message)


def _build_in_a_process(folder, work_dir, teachers, limit=None):
    torch.set_num_threads(1)
    cache_plan.IMAGES_PER_SHARD = 3
    if limit is not None:
        resource.setrlimit(resource.RLIMIT_FSIZE, (limit, limit))
    try:
        train(detection(work_dir, teachers, dict(folder=str(folder), views=6), epochs=1))
    except UserError as error:
        (folder / 'error.txt').write_text(str(error))
        os._exit(3)
    os._exit(0)


def _started(*args):
    process = multiprocessing.get_context('fork').Process(target=_build_in_a_process, args=args)
    process.start()
    return process


@pytest.mark.dist
def test_two_builders_and_one_that_was_killed(tmp_path, teachers):
    """The result is that of one who was never disturbed."""
    alone = _started(tmp_path / 'alone', tmp_path / 'a', teachers)
    alone.join()
    assert alone.exitcode == 0
    folder = tmp_path / 'cache'
    killed = _started(folder, tmp_path / 'b', teachers)
    while not list(folder.rglob('*.shard')):
        time.sleep(0.01)
    os.kill(killed.pid, signal.SIGKILL)
    killed.join()
    (folder / 'resnet' / '.made_from.json.HOST.1.tmp.json').write_text('{')  # one more, earlier
    both = [_started(folder, tmp_path / name, teachers) for name in 'cd']
    for process in both:
        process.join()
    assert [process.exitcode for process in both] == [0, 0]
    assert_same_shards(folder, tmp_path / 'alone')
    assert not list(folder.rglob('.*.tmp*'))


@pytest.mark.dist
def test_a_disk_that_takes_no_more(tmp_path, teachers):
    """The system's own limit on a file's size stands for it."""
    folder = tmp_path / 'cache'
    process = _started(folder, tmp_path / 'a', teachers, 20_000)
    process.join()
    assert process.exitcode == 3
    text = (folder / 'error.txt').read_text()
    assert 'cannot be written (File too large)' in text
    assert not list(folder.rglob('.*.tmp*'))


def test_batches_of_other_sizes(tmp_path, teachers, cache):
    """Padding reaches into an image's maps, so a cached one is of one size only."""
    run = build(detection(tmp_path / 'run', teachers, cache))
    run.model.data_preprocessor.pad_size_divisor = 96
    with pytest.raises(UserError, match='needs batches of one size, and here are 64 x 64 and '
                                        '96 x 96 px: let the pipeline bring all images'):
        run.train()
