"""Two processes meta-optimise as one: the mean of their gradients, the same meta-network."""

import os
from pathlib import Path

import pytest
import torch
import torch.distributed as dist
from archives import write_cifar10
from helpers import leave_process_group

import mmkd  # noqa: F401
from mmkd.engine.config import load_config, override
from mmkd.engine.data_root import move_data
from mmkd.online.meta import MetaOptimizeHook

ROOT = Path(__file__).parents[2]


def _worker(rank, folder, port):
    os.environ.update(RANK=str(rank), LOCAL_RANK=str(rank), WORLD_SIZE='2',
                      MASTER_ADDR='127.0.0.1', MASTER_PORT=str(port))
    os.chdir(ROOT)
    torch.set_num_threads(1)
    from mmengine.runner import Runner
    dist.init_process_group('gloo')
    cfg = load_config('configs/online/train.py', arguments=dict(
        data='cifar10', method='l_mcl', members='resnet8,resnet8'))
    move_data(cfg, folder)
    override(cfg, {
        'train_dataloader.batch_size': 8, 'train_cfg.max_epochs': 1, 'train_cfg.val_interval': 9,
        'log_level': 'WARNING', 'work_dir': str(folder / 'run'), 'launcher': 'pytorch'})
    cfg.custom_hooks[-1].interval = 1
    cfg.model_wrapper_cfg = dict(type='MMDistributedDataParallel', device_ids=None,
                                 broadcast_buffers=False)
    own, original = [], MetaOptimizeHook._gradients

    def spy(self, *args):
        before = {name: value.clone() for name, value in self._meta.state_dict().items()}
        gradients = original(self, *args)
        own.append((before, {name: value.clone() for name, value in gradients.items()}))
        return gradients

    MetaOptimizeHook._gradients = spy
    runner = Runner.from_cfg(cfg)
    runner.train()
    hook = next(h for h in runner.hooks if isinstance(h, MetaOptimizeHook))
    torch.save((own, hook._meta.state_dict(), hook.optimizer.state_dict()['state'],
                runner.model.module.state_dict()), folder / f'{rank}.pt')
    leave_process_group()


@pytest.mark.dist
def test_two_processes_share_one_meta_network(tmp_path):
    write_cifar10(tmp_path, per_batch=4)
    port = 28000 + hash(str(tmp_path)) % 1000
    torch.multiprocessing.spawn(_worker, (tmp_path, port), nprocs=2)
    (own, meta, state, members), (other, *rest) = (
        torch.load(tmp_path / f'{rank}.pt') for rank in range(2))
    assert len(own) == len(other) == 1
    for number, (name, start) in enumerate(own[0][0].items()):
        torch.testing.assert_close(start, other[0][0][name], rtol=0, atol=0)
        ours, theirs = own[0][1][name], other[0][1][name]
        assert not torch.equal(ours, theirs)
        expected = (ours + theirs) / 2 + 5e-4 * start
        torch.testing.assert_close(state[number]['momentum_buffer'], expected)
        torch.testing.assert_close(rest[1][number]['momentum_buffer'], expected)
        assert torch.equal(meta[name], rest[0][name])
    for name, value in members.items():
        if 'running' not in name:  # each process has its own statistics
            assert torch.equal(value, rest[2][name]), name
