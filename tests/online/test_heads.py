"""Auxiliary heads of contrastive cohorts, and the meta-network that weighs their pairs."""

import math

import numpy as np
import pytest
import torch

import mmkd  # noqa: F401
from mmkd.errors import UserError
from mmkd.online import Cohort
from mmkd.online.heads import ContrastiveHead, ContrastiveHeads, LayerwiseHeads, StageAggregator
from mmkd.online.matching import LayerMatching

MEMBERS = dict(small='resnet8', mobile='mobilenetv2_half')
"""Of three and of more stages, the second with a last convolution behind them."""


def _cohort():
    torch.manual_seed(0)
    return Cohort({name: dict(type='Classifier', backbone=dict(type=network), num_classes=5)
                   for name, network in MEMBERS.items()})


def _taps(cohort, batch=2):
    """What the members' modules give, without tap machinery."""
    images = torch.randn(batch, 3, 32, 32, generator=torch.Generator().manual_seed(1))
    stages, embeddings, logits = [], [], []
    for member in cohort.members.values():
        backbone = member.backbone
        feature = backbone.stem(images)
        for number in range(1, backbone.num_stages + 1):
            feature = getattr(backbone, f'stage{number}')(feature)
            stages.append(feature)
        if backbone.final is not None:
            feature = backbone.final(feature)
        embeddings.append(backbone.embedding(feature))
        logits.append(member.head(embeddings[-1]))
    return [*stages, *embeddings, *logits]


def _numpy(module):
    return [p.detach().double().numpy() for p in module.parameters()]


def test_a_contrastive_head_is_two_layers_on_the_sphere():
    head = ContrastiveHead(6, 4)
    feature = torch.randn(3, 6)
    w1, b1, w2, b2 = _numpy(head)
    hidden = np.maximum(feature.double().numpy() @ w1.T + b1, 0) @ w2.T + b2
    expected = hidden / np.sqrt((hidden ** 2).sum(1, keepdims=True))
    np.testing.assert_allclose(head(feature).detach().numpy(), expected, atol=1e-6)
    with torch.autocast('cpu', torch.bfloat16):
        embedding = head(feature)
    assert embedding.dtype == torch.float32
    torch.testing.assert_close(embedding.norm(dim=1), torch.ones(3))


def test_heads_bring_members_of_any_width_together():
    heads = ContrastiveHeads([6, 9], dim=4)
    embeddings = heads([torch.randn(3, 6), torch.randn(3, 9)])
    assert [e.shape for e in embeddings] == [(3, 4)] * 2
    with pytest.raises(UserError, match=r'\(3, 6, 2, 2\): tap embeddings'):
        heads([torch.randn(3, 6, 2, 2), torch.randn(3, 9)])


def test_an_aggregator_mixes_the_logits_of_each_image():
    aggregator = StageAggregator(4, 3)
    embeddings, logits = torch.randn(3, 2, 4), torch.randn(3, 2, 5)
    w1, b1, w2, b2 = _numpy(aggregator)
    joined = aggregator(list(embeddings), list(logits)).detach().numpy()
    for image in range(2):
        h = np.concatenate(embeddings[:, image].double().numpy())
        powers = np.exp(np.maximum(h @ w1.T + b1, 0) @ w2.T + b2)
        expected = sum(p * z for p, z in zip(powers / powers.sum(), logits[:, image].numpy(),
                                             strict=True))
        np.testing.assert_allclose(joined[image], expected, atol=1e-6)


def test_the_weights_of_pairs_of_stages():
    matching = LayerMatching([4, 6, 5], dim=7)
    embeddings = [torch.randn(2, width) for width in (4, 6, 5)]
    weights = matching(embeddings)
    assert weights.shape == (3, 3, 2)
    for n, m, image in np.ndindex(3, 3, 2):
        a, b = (matching.projections[k](embeddings[k][image]).tolist() for k in (n, m))
        cosine = (sum(x * y for x, y in zip(a, b, strict=True))
                  / math.hypot(*a) / math.hypot(*b))
        assert weights[n, m, image].item() == pytest.approx(1 / (1 + math.exp(-cosine)), rel=1e-5)
    with torch.autocast('cpu', torch.bfloat16):
        torch.testing.assert_close(matching(embeddings), weights, rtol=1e-6, atol=0)


def test_stages_are_continued_by_heads_of_their_own():
    cohort = _cohort().eval()
    heads = LayerwiseHeads(cohort, dim=8).eval()
    taps = _taps(cohort)
    outputs = heads(taps)
    counts = [member.backbone.num_stages for member in cohort.members.values()]
    assert counts[0] == 3 and len(taps) == sum(counts) + 4
    for member, count, own in zip(range(2), counts, taps[-2:], strict=True):
        assert [z.shape for z in outputs.logits[member]] == [(2, 5)] * count
        assert [e.shape for e in outputs.embeddings[member]] == [(2, 8)] * count
        assert outputs.logits[member][-1] is own
        assert outputs.aggregated[member].shape == (2, 5)
    tail = heads.tails[1][0]
    torch.testing.assert_close(outputs.logits[1][0], tail(taps[counts[0]])[1])
    assert outputs.weights.shape == (sum(counts), sum(counts), 2)
    theirs = {p.data_ptr() for p in cohort.parameters()}
    assert not theirs & {p.data_ptr() for p in heads.parameters()}
    assert not set(cohort.modules()) & set(heads.modules())


def test_only_meta_optimisation_reaches_the_matching():
    cohort = _cohort()
    heads = LayerwiseHeads(cohort, dim=8)
    assert not any(p.requires_grad for p in heads.matching.parameters())
    assert {name.partition('.')[0] for name, p in heads.named_parameters()
            if p.requires_grad} == {'tails', 'heads', 'aggregators'}
    taps = _taps(cohort)
    assert not heads(taps).weights.requires_grad
    assert heads(taps, learn_matching=True).weights.requires_grad
    with torch.no_grad():
        assert not heads(taps, learn_matching=True).weights.requires_grad


def test_wrong_students_and_taps():
    cohort = _cohort()
    with pytest.raises(UserError, match='needs a Cohort, not a Classifier'):
        LayerwiseHeads(cohort.members['small'])
    with pytest.raises(UserError, match=r"got 3 taps of 2 members .* give tap=\['members"):
        LayerwiseHeads(cohort, dim=8)(_taps(cohort)[:3])
