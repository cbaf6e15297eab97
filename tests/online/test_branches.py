"""Gates, branches, attention and ensembles: what they compute, what trains them, bad taps."""

import math

import pytest
import torch

import mmkd  # noqa: F401
from mmkd.classification import Classifier
from mmkd.distillation.losses.okddip import OKDDipLoss
from mmkd.distillation.losses.one import ONELoss
from mmkd.distillation.losses.pcl import PCLLoss
from mmkd.distillation.taps import TapRecorder
from mmkd.errors import UserError
from mmkd.online.branches import CohortGate, ONEBranches, PeerAttention, PeerEnsemble

LABELS = torch.tensor([2, 0, 2, 1])
BATCH, CLASSES = 4, 5
SIZES = (16, 24, 16)
"""Of the members' embeddings."""


def _randn(*shape, seed=0):
    return torch.randn(*shape, generator=torch.Generator().manual_seed(seed))


def _channels(sizes=SIZES):
    return [*sizes, *[CLASSES] * len(sizes)]


def _values(sizes=SIZES, batch=BATCH):
    return [_randn(batch, size, seed=i).requires_grad_()
            for i, size in enumerate(_channels(sizes))]


def _built(cls, sizes=SIZES, **options):
    torch.manual_seed(0)
    return cls(student_channels=_channels(sizes), **options)


def _student(network='resnet8'):
    torch.manual_seed(0)
    return Classifier(dict(type=network), CLASSES)


def _tapped(model, images):
    recorder = TapRecorder(model, ['backbone.stage?', 'head.fc'])
    return list(recorder.record(lambda: model(images)).values())


def _branches(model, values, **options):
    return ONEBranches(model, [value.shape[1] for value in values], **options)


def _gated(gate, embedding):
    """Weights in loops over the samples."""
    linear, norm = gate[0], gate[1]
    scores = embedding @ linear.weight.t() + linear.bias
    mean, variance = scores.mean(0), scores.var(0, unbiased=False)
    scores = (scores - mean) / (variance + norm.eps).sqrt() * norm.weight + norm.bias
    rows = [[math.exp(max(score, 0.0)) for score in row] for row in scores.tolist()]
    return torch.tensor([[power / sum(row) for power in row] for row in rows])


@pytest.mark.parametrize(('network', 'number'), [('resnet8', 3), ('wrn_16_1', 2), ('vgg8', 3),
                                                 ('shufflenetv1', 2)])
def test_branches_continue_the_last_stage_but_one(network, number):
    model = _student(network)
    values = _tapped(model, _randn(BATCH, 3, 32, 32))
    branches = _branches(model, values, num_branches=number)
    logits, gate = branches(values)
    assert len(logits) == number and logits[0] is values[-1]
    shared = values[-3]
    assert torch.equal(shared, values[model.backbone.num_stages - 2])
    for tail, own in zip(branches.tails, logits[1:], strict=True):
        torch.testing.assert_close(own, tail(shared)[1])
        assert own.shape == values[-1].shape and not torch.allclose(own, values[-1])
    torch.testing.assert_close(gate, _gated(branches.gate, shared.detach().mean((2, 3))))
    torch.testing.assert_close(gate.sum(1), torch.ones(BATCH))


def test_one_trains_branches_gate_and_what_they_share():
    model = _student().train()
    before = set(model.state_dict())
    values = _tapped(model, _randn(BATCH, 3, 32, 32))
    branches = _branches(model, values)
    ONELoss(auxiliary_ce=True)(branches(values), LABELS).backward()
    for name, parameter in branches.named_parameters():
        assert parameter.grad.abs().sum() > 0, name
    assert model.backbone.stage1.blocks[0].conv1.weight.grad.abs().sum() > 0
    own = {id(p) for p in model.parameters()}
    assert not any(id(p) in own for p in branches.parameters())
    assert set(model.state_dict()) == before
    tails = [next(tail.parameters()) for tail in branches.tails]
    assert not torch.equal(*tails), 'branches of different weights'


def test_the_gate_of_a_cohort_sees_all_embeddings():
    connector, values = _built(CohortGate), _values()
    logits, gate = connector(values)
    assert all(own is value for own, value in zip(logits, values[3:], strict=True))
    torch.testing.assert_close(gate, _gated(connector.gate, torch.cat(values[:3], 1).detach()))
    ONELoss()((logits, gate), LABELS).backward()
    assert all(value.grad.abs().sum() > 0 for value in values)
    # The bias is what batch norm takes off again.
    assert connector.gate[0].weight.grad.abs().sum() > 0
    assert all(p.grad.abs().sum() > 0 for p in connector.gate[1].parameters())


def test_attention_in_loops():
    connector, values = _built(PeerAttention), _values()
    logits, attention = connector(values)
    peers = values[:2]
    maps = [[kind[str(h.shape[1])].weight for h in peers]
            for kind in (connector.queries, connector.keys)]
    assert all(weight.shape == (2, h.shape[1]) for kind in maps
               for weight, h in zip(kind, peers, strict=True)), 'the smaller size over 8'
    for b in range(BATCH):
        for a in range(2):
            query = maps[0][a] @ peers[a][b]
            powers = [math.exp((query @ (maps[1][f] @ peers[f][b])).item()) for f in range(2)]
            expected = [power / sum(powers) for power in powers]
            assert attention[b, a].tolist() == pytest.approx(expected, rel=1e-4)
    assert all(own is value for own, value in zip(logits, values[3:], strict=True))


def test_the_leader_takes_no_part_in_the_attention():
    connector, values = _built(PeerAttention, (16, 24, 32)), _values((16, 24, 32))
    assert set(connector.queries) == set(connector.keys) == {'16', '24'}
    OKDDipLoss()(connector(values)).backward()
    assert values[2].grad is None
    assert all(value.grad.abs().sum() > 0 for value in [*values[:2], *values[3:]])
    assert all(p.grad.abs().sum() > 0 for p in connector.parameters())


def test_peers_of_one_size_share_their_maps():
    connector = _built(PeerAttention, (16,) * 4)
    assert sum(p.numel() for p in connector.parameters()) == 2 * 16 * 2
    assert connector(_values((16,) * 4))[1].shape == (BATCH, 3, 3)


def test_ensemble_classifies_all_embeddings():
    connector, values = _built(PeerEnsemble), _values()
    logits, ensemble = connector(values)
    weight, bias = connector.fc.weight, connector.fc.bias
    parts = weight.split(SIZES, dim=1)
    expected = sum(h @ w.t() for h, w in zip(values[:3], parts, strict=True)) + bias
    torch.testing.assert_close(ensemble, expected)
    PCLLoss()((logits, ensemble), _randn(3, BATCH, CLASSES), LABELS).backward()
    assert all(value.grad.abs().sum() > 0 for value in [*values, *connector.parameters()])


@pytest.mark.parametrize('cls', [CohortGate, PeerAttention, PeerEnsemble])
@pytest.mark.parametrize('members', [2, 5])
def test_any_number_of_members(cls, members):
    sizes = (16, 8, 8, 24, 16)[:members]
    logits, joint = _built(cls, sizes)(_values(sizes))
    expected = {CohortGate: (BATCH, members), PeerAttention: (BATCH, members - 1, members - 1),
                PeerEnsemble: (BATCH, CLASSES)}[cls]
    assert len(logits) == members and joint.shape == expected


@pytest.mark.parametrize('cls', [CohortGate, PeerAttention, PeerEnsemble])
def test_bfloat16_autocast(cls):
    connector, values = _built(cls), _values()
    exact = connector(values)[1]
    with torch.autocast('cpu', torch.bfloat16):
        half = connector([value.bfloat16() for value in values])[1]
    torch.testing.assert_close(half.float(), exact, rtol=0.05, atol=0.05)
    assert cls is not PeerAttention or half.dtype == torch.float32


@pytest.mark.parametrize('cls', [CohortGate, PeerAttention, PeerEnsemble])
@pytest.mark.parametrize('layers', [2, 5])
def test_taps_that_are_not_those_of_a_cohort(cls, layers):
    with pytest.raises(UserError, match=f'{layers} layers are tapped') as error:
        cls(student_channels=[8] * layers)
    assert 'members.*.backbone.embedding' in str(error.value)


@pytest.mark.parametrize(('options', 'message'), [
    (dict(student_channels=[64, 5]), r"2 layers are tapped: write tap=\['backbone.stage\?'"),
    (dict(student_channels=[16, 32, 64, 5], num_branches=1), 'num_branches=1')])
def test_branches_that_cannot_be(options, message):
    with pytest.raises(UserError, match=message):
        ONEBranches(_student(), **options)


def test_a_batch_of_one_is_too_small_for_a_gate():
    values = _values(batch=1)
    connector = _built(CohortGate)
    with pytest.raises(UserError, match='batch of one sample'):
        connector(values)
    assert connector.eval()(values)[1].shape == (1, 3)
