"""Two processes of one run: they build one cache together, and learn from it as from teachers."""

import os

import pytest
import torch
import torch.distributed as dist
from helpers import leave_process_group
from tiny_cache import assert_same_shards, detection, save_teachers, train


def _worker(rank, folder, teachers, port):
    os.environ.update(RANK=str(rank), LOCAL_RANK=str(rank), WORLD_SIZE='2',
                      MASTER_ADDR='127.0.0.1', MASTER_PORT=str(port))
    torch.set_num_threads(1)
    from mmengine.registry import DefaultScope
    dist.init_process_group('gloo')
    options = dict(folder=str(folder / 'cache'), views=2, dtype='float32')
    with DefaultScope.overwrite_default_scope('mmkd'):
        rows = {name: train(_config(folder / name, teachers, dict(options, **extra)))[1]
                for name, extra in (('live', dict(terms=[])), ('built', {}), ('read', {}))}
    torch.save(rows, folder / f'{rank}.pt')
    leave_process_group()


def _config(work_dir, teachers, options):
    config = detection(work_dir, teachers, options, batch=2)
    config.launcher = 'pytorch'
    config.model_wrapper_cfg = dict(type='MMDistributedDataParallel', device_ids=None,
                                    broadcast_buffers=False)
    return config


@pytest.mark.dist
def test_two_processes_build_and_read_one_cache(tmp_path):
    port = 29000 + hash(str(tmp_path)) % 1000
    teachers = save_teachers(tmp_path)
    torch.multiprocessing.spawn(_worker, (tmp_path, teachers, port), nprocs=2)
    for rank in range(2):
        rows = torch.load(tmp_path / f'{rank}.pt')
        assert len(rows['live']) == 4  # two epochs of 8 images, 2 at a time in each process
        for name in ('built', 'read'):
            for ours, theirs in zip(rows[name], rows['live'], strict=True):
                assert ours == pytest.approx(theirs, rel=1e-5)
    train(detection(tmp_path / 'one', teachers,
                    dict(folder=str(tmp_path / 'alone'), views=2, dtype='float32'), epochs=1))
    assert_same_shards(tmp_path / 'cache', tmp_path / 'alone')
