"""Losses that look at the batches of all processes: two with a part each are one with all."""

import os
from itertools import product
from types import SimpleNamespace

import pytest
import torch
import torch.distributed as dist
from formulas import randn
from helpers import leave_process_group
from torch.nn.parallel import DistributedDataParallel

import mmkd  # noqa: F401
from mmkd.distillation.losses._features import unit
from mmkd.distillation.losses.crd import CRDLoss
from mmkd.distillation.losses.fsecd import FSECDLoss
from mmkd.distillation.losses.l_mcl import StageOutputs
from mmkd.distillation.losses.l_mcl_memory import LMCLMemoryLoss
from mmkd.distillation.losses.ofd import OFDLoss
from mmkd.distillation.losses.soft_focal import SoftFocalLoss
from mmkd.distillation.losses.weighted_l1 import OffsetLoss, WidthHeightLoss

POLICIES = ('instance', 'class')
CUTS = {64: (32, 40), 4: (2, 3)}
"""Where a batch of this size is cut in two: in the middle, and elsewhere."""
LABELS = torch.tensor([1, 0, 1, 2, 0, 1, 2])


def _fsecd(policy, own, wrap):
    """Return loss and gradients of a student that sees the samples ``own``."""
    torch.manual_seed(3)
    network = wrap(torch.nn.Linear(6, 4).double())
    labels = torch.arange(64) * 7 % 5
    value = FSECDLoss(policy)(network(randn(64, 6)[own]), randn(64, 4, seed=1)[own],
                              labels[own])
    value.backward()
    return [value.detach(), *(p.grad for p in network.parameters())]


def _negatives(indices):
    """Follow from the sample, so that every split of a batch has the same."""
    others = [[n for n in range(len(LABELS)) if LABELS[n] != LABELS[i]] for i in indices]
    return torch.tensor([(row * 6)[:6] for row in others])


def _crd(own, wrap):
    """Return loss, memories, Z and gradients of the second step, which meets the first's memory."""
    torch.manual_seed(0)
    loss = CRDLoss(3, 4, LABELS, dim=5, num_negatives=6).double()
    loss._negatives = _negatives
    model = wrap(loss)
    for seed in range(2):
        loss.zero_grad()
        value = model(randn(4, 3, seed=seed)[own], randn(4, 4, seed=seed + 5)[own],
                      torch.tensor([6, 0, 3, 2])[own])
        value.backward()
    return [value.detach(), loss.student_memory, loss.teacher_memory, loss.partition,
            *(p.grad for p in loss.parameters())]


def _ofd(own):
    loss, feature = OFDLoss([2]), randn(4, 2, 3, 3)[own]
    loss([feature], [feature])
    return loss.margins()


def _banks(own):
    """Return the memory banks of two members behind a batch."""
    loss = LMCLMemoryLoss(SimpleNamespace(members='ab'), LABELS, dim=5, num_negatives=2)
    indices = torch.tensor([6, 0, 3, 2])[own]
    rows = [unit(randn(4, 5, seed=seed)[own], dim=1) for seed in range(2)]
    logits = [randn(4, 3, seed=seed)[own] for seed in range(2)]
    loss(StageOutputs([[row] for row in rows], [[z] for z in logits], logits,
                      torch.ones(2, 2, len(indices))), LABELS[indices], indices)
    return [*loss.banks]


def _maps(own):
    """Return the losses on a head's maps; an image without objects changes no mean."""
    heat, sizes = randn(4, 2, 5, 5)[own].sigmoid(), randn(4, 2, 5, 5, seed=1)[own].exp()
    teacher = torch.cat((randn(3, 2, 5, 5, seed=2).sigmoid(), torch.zeros(1, 2, 5, 5)))[own]
    other = randn(4, 2, 5, 5, seed=3)[own].exp()
    return [torch.stack([SoftFocalLoss()(heat, teacher),
                         WidthHeightLoss()(sizes, other, teacher),
                         OffsetLoss()(sizes, other, teacher)])]


def _all(parts, wrap):
    """Return what every loss gives for ``parts(batch size)``, by name."""
    results = {('fsecd', policy, cut): _fsecd(policy, own, wrap)
               for policy, (cut, own) in product(POLICIES, parts(64))}
    results |= {('crd', cut): _crd(own, wrap) for cut, own in parts(4)}
    results |= {('maps', cut): _maps(own) for cut, own in parts(4)}
    results |= {('banks', cut): _banks(own) for cut, own in parts(4)}
    return results | {('ofd', cut): _ofd(own) for cut, own in parts(4)}


def _wrap(module):
    return DistributedDataParallel(module, broadcast_buffers=False)


def _worker(rank, folder, port):
    os.environ.update(RANK=str(rank), WORLD_SIZE='2', MASTER_ADDR='127.0.0.1',
                      MASTER_PORT=str(port))
    torch.set_num_threads(1)
    dist.init_process_group('gloo')
    results = _all(lambda size: [(cut, slice(cut, size) if rank else slice(0, cut))
                                 for cut in CUTS[size]], _wrap)
    for (name, *_), values in results.items():
        if name not in ('ofd', 'banks'):
            dist.all_reduce(values[0])  # the logged loss is the mean of the processes'
            values[0] /= 2
    torch.save(results, folder / f'{rank}.pt')
    leave_process_group()


@pytest.mark.dist
def test_two_processes_are_one_with_the_whole_batch(tmp_path):
    port = 30000 + hash(str(tmp_path)) % 1000
    torch.multiprocessing.spawn(_worker, (tmp_path, port), nprocs=2)
    expected = _all(lambda size: [(cut, slice(0, size)) for cut in CUTS[size]], lambda m: m)
    for rank in range(2):
        results = torch.load(tmp_path / f'{rank}.pt')
        assert set(results) == set(expected)
        for case, values in expected.items():
            torch.testing.assert_close(results[case], values, msg=lambda m, c=case: f'{c}: {m}')
