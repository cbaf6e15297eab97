"""Distillation in a plain training loop, against what PyTorch's own parts give."""

import copy

import pytest
import torch
import torch.nn.functional as F
from torch import nn

import mmkd
from mmkd.distillation.gradients import INTERVAL
from mmkd.errors import UserError

TERMS = dict(features=dict(tap='1', loss=dict(type='FitNetLoss'), weight=3.0),
             logits=dict(tap='5', loss=dict(type='KDLoss', temperature=2.0), weight=0.5))


def network(width=4, seed=0):
    torch.manual_seed(seed)
    return nn.Sequential(nn.Conv2d(3, width, 3), nn.ReLU(), nn.AdaptiveAvgPool2d(2), nn.Flatten(),
                         nn.BatchNorm1d(4 * width), nn.Linear(4 * width, 5))


def images(seed=0):
    return torch.randn(6, 3, 8, 8, generator=torch.Generator().manual_seed(seed))


def prepared(terms=TERMS, teacher=None, **options):
    student = network()
    distillation = mmkd.Distillation(student, dict(big=teacher or network(seed=1)), terms,
                                     **options)
    distillation.prepare(images())
    return student, distillation


def step(student, distillation, batch, **options):
    with distillation.recording():
        student(batch)
    return distillation.losses(batch, **options)


def test_the_losses_are_those_of_the_tapped_tensors():
    teacher = network(seed=1)
    student, distillation = prepared(teacher=copy.deepcopy(teacher))
    losses = step(student, distillation, images(1))
    teacher.eval()
    with torch.no_grad():
        theirs = [teacher[:2](images(1)), teacher(images(1))]
    own = [student[:2](images(1)), student(images(1))]
    features = 3 * F.mse_loss(own[0], theirs[0])
    logits = 0.5 * 4 * F.kl_div((own[1] / 2).log_softmax(1), (theirs[1] / 2).softmax(1),
                                reduction='batchmean')
    torch.testing.assert_close(losses['features'], features)
    torch.testing.assert_close(losses['logits'], logits)
    own = torch.autograd.grad(features + logits, student.parameters(), allow_unused=True)
    sum(losses.values()).backward()
    for mine, parameter in zip(own, student.parameters(), strict=True):
        torch.testing.assert_close(parameter.grad, mine)
    assert all(p.grad is None for p in distillation.teachers[0].model.parameters())


def test_preparing_changes_neither_the_student_nor_the_random_state():
    student = network()
    before, state = copy.deepcopy(student.state_dict()), torch.get_rng_state()
    distillation = mmkd.Distillation(student, dict(big=network(8, seed=1)), dict(
        features=dict(tap='1', loss=dict(type='FitNetLoss'), connector=dict(type='ConvConnector'))))
    torch.set_rng_state(state)
    distillation.prepare(images())
    assert torch.equal(torch.get_rng_state(), state)
    torch.testing.assert_close(student.state_dict(), before, rtol=0, atol=0)
    assert not [name for module in student.modules() for name in vars(module) if name == 'forward']


def test_connectors_are_trained_saved_and_restored():
    terms = dict(features=dict(tap='1', loss=dict(type='FitNetLoss'), weight=1.0,
                               connector=dict(type='ConvConnector')))
    student, distillation = prepared(terms, network(8, seed=1))
    connector = distillation.parameters()
    assert {p.shape[0] for p in connector} == {8}, 'from the 4 channels of the student to 8'
    optimizer = torch.optim.Adam([*student.parameters(), *connector], lr=0.05)
    first = None
    for _ in range(30):
        loss = step(student, distillation, images())['features']
        first = first or loss.item()
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
    assert loss.item() < first / 2
    saved = copy.deepcopy(distillation.state_dict())
    again = prepared(terms, network(8, seed=1))[1]
    again.load_state_dict(saved)
    for one, other in zip(again.parameters(), connector, strict=True):
        assert torch.equal(one, other)
    with pytest.raises(UserError, match='connectors for'):
        prepared()[1].load_state_dict(saved)


def test_a_mean_teacher_follows_the_student():
    student = network()
    distillation = mmkd.Distillation(student, dict(mean=dict(ema=0.75)), dict(
        logits=dict(tap='5', loss=dict(type='KDLoss', temperature=1.0))))
    distillation.prepare(images())
    [teacher], before = distillation.teachers, student[0].weight.clone()
    distillation.after_step()  # t = 0: the average is the student
    with torch.no_grad():
        student[0].weight += 1
    distillation.after_step()  # a = min(1 - 1 / 2, 0.75)
    torch.testing.assert_close(teacher.model[0].weight, before + 0.5)


def test_teachers_take_turns_and_terms_end():
    terms = dict(one=dict(TERMS['logits'], until=0.5), two=dict(TERMS['features'], until=2))
    distillation = mmkd.Distillation(network(), {name: network(seed=i) for i, name in
                                                 enumerate('abc')}, terms, schedule='progressive')
    distillation.prepare(images())
    seen = []
    for iteration in range(6):
        distillation.advance(iteration, 6, epoch=iteration)
        losses = step(distillation.student, distillation, images())
        seen.append((distillation.active[0].name, *(loss.item() > 0 for loss in losses.values())))
    # Teacher a is the student's twin, and only differs where batch statistics count: the logits.
    assert seen == [('a', True, False), ('a', True, False), ('b', True, False),
                    ('b', False, False), ('c', False, False), ('c', False, False)]


def test_a_weight_that_sets_itself_needs_the_own_loss():
    terms = dict(logits=dict(tap='5', loss=dict(type='KDLoss', temperature=2.0),
                             gradient_share=0.25))
    student, distillation = prepared(terms)
    with pytest.raises(UserError, match='own=loss'):
        step(student, distillation, images())
    with distillation.recording():
        logits = student(images())
    labels = torch.arange(6) % 5
    own = F.cross_entropy(logits, labels)
    distillation.advance(INTERVAL, 100)
    loss = distillation.losses(images(), own=own)['logits']
    ours, theirs = (torch.autograd.grad(value, logits, retain_graph=True)[0].norm()
                    for value in (loss, own))
    torch.testing.assert_close(ours / (ours + theirs), torch.tensor(0.25), rtol=1e-4, atol=0)


def test_labels_reach_a_loss_that_asks_for_them():
    terms = dict(logits=dict(tap='5', loss=dict(type='DKDLoss'), weight=1.0))
    student = network()
    distillation = mmkd.Distillation(student, dict(big=network(seed=1)), terms)
    labels = torch.arange(6) % 5
    distillation.prepare(images(), dict(labels=labels))
    losses = [step(student, distillation, images(), samples=dict(labels=one))['logits'].item()
              for one in (labels, labels.flip(0))]
    assert losses[0] != losses[1]
    with pytest.raises(UserError, match='needs `labels`'):
        step(student, distillation, images())


def test_each_batch_is_recorded_anew():
    student, distillation = prepared()
    with pytest.raises(UserError, match='was not recorded'):
        distillation.losses(images())
    step(student, distillation, images())
    with pytest.raises(UserError, match='was not recorded'):
        distillation.losses(images())
    with pytest.raises(RuntimeError), distillation.recording():
        student(torch.zeros(2, 4, 8, 8))
    with pytest.raises(UserError, match='was not recorded'):
        distillation.losses(images())


@pytest.mark.parametrize(('teachers', 'terms', 'says'), [
    ({}, TERMS, 'learns from'),
    (dict(big=dict(config='a.py', checkpoint='a.pth')), TERMS, 'give the network itself'),
    (dict(big=dict(checkpoint='a.pth')), TERMS, 'has the keys'),
    (dict(big=network()), dict(one=dict(tap='1', loss=dict(type='KDLoss'), teachers=['bug'])),
     "Did you mean 'big'")])
def test_what_cannot_be_built_is_said(teachers, terms, says):
    with pytest.raises(UserError, match=says):
        mmkd.Distillation(network(), teachers, terms)
