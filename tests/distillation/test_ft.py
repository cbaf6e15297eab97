"""Factor transfer against its formula, its two trainings kept apart."""

import pytest
import torch
import torch.nn.functional as F
from formulas import randn

import mmkd  # noqa: F401
from mmkd.distillation.losses.ft import FTLoss


def _loss(student=2, teacher=4, **kwargs):
    torch.manual_seed(0)
    return FTLoss(student, teacher, **kwargs)


def _run(layers, feature, convolution):
    for layer in layers[::2]:
        feature = convolution(feature, layer.weight.double(), layer.bias.double(), padding=1)
        feature = torch.where(feature > 0, feature, 0.1 * feature)
    return feature


def _parts(loss, student, teacher):
    """``(reconstruction, transfer)`` from the layers' weights; maps of one size."""
    factor = _run(loss.encoder, teacher, F.conv2d)
    rebuilt = _run(loss.decoder, factor, F.conv_transpose2d)
    own = _run(loss.translator, student, F.conv2d)
    reconstruction = ((rebuilt - teacher) ** 2).sum() / teacher.numel()
    transfer = 0.0
    for a, b in zip(own.flatten(1), factor.flatten(1), strict=True):
        transfer += (a / (a * a).sum().sqrt() - b / (b * b).sum().sqrt()).abs().sum()
    return reconstruction, transfer / own.numel()


def test_equals_the_formula():
    loss = _loss(transfer_weight=30.0).double()
    student, teacher = randn(2, 2, 3, 4).requires_grad_(), randn(2, 4, 3, 4, seed=1)
    teacher.requires_grad_()
    reconstruction, transfer = _parts(loss, student, teacher)
    value = loss(student, teacher, warmup=0.25)
    assert value.shape == () and value.dtype == torch.float64
    assert value.item() == pytest.approx((reconstruction + 0.25 * 30 * transfer).item())
    assert loss(student, teacher).item() == pytest.approx((reconstruction + 30 * transfer).item())


def test_the_paraphraser_learns_from_the_teacher_alone():
    loss = _loss().double()
    student, teacher = randn(2, 2, 3, 4).requires_grad_(), randn(2, 4, 3, 4, seed=1)
    teacher.requires_grad_()
    reconstruction, transfer = _parts(loss, student, teacher.detach())
    paraphraser = [*loss.encoder.parameters(), *loss.decoder.parameters()]
    expected = torch.autograd.grad(reconstruction, paraphraser)
    own = [student, *loss.translator.parameters()]
    translated = torch.autograd.grad(200 * transfer, own)
    loss(student, teacher).backward()
    assert teacher.grad is None
    for parameter, gradient in zip([*paraphraser, *own], [*expected, *translated], strict=True):
        torch.testing.assert_close(parameter.grad, gradient)
        assert gradient.abs().sum() > 0


def test_factors_of_half_the_teachers_channels_by_three_layers():
    loss = FTLoss(3, 8)
    channels = {name: [(layer.in_channels, layer.out_channels) for layer in part[::2]]
                for name, part in loss.named_children()}
    assert channels == dict(encoder=[(8, 8), (8, 4), (4, 4)], decoder=[(4, 4), (4, 8), (8, 8)],
                            translator=[(3, 3), (3, 4), (4, 4)])


def test_a_perfect_translation_has_no_transfer_loss():
    loss = _loss(4, 4).double()
    loss.translator.load_state_dict(loss.encoder.state_dict())
    feature = randn(2, 4, 3, 3)
    reconstruction, _ = _parts(loss, feature, feature)
    assert loss(feature, feature).item() == pytest.approx(reconstruction.item())


@pytest.mark.parametrize(('ours', 'theirs'), [(4, 2), (2, 4)])
def test_the_larger_factor_is_pooled(ours, theirs):
    loss = _loss().double()
    student, teacher = randn(2, 2, ours, ours), randn(2, 4, theirs, theirs, seed=1)
    factors = [F.adaptive_avg_pool2d(f, 2).flatten(1) for f in (
        _run(loss.translator, student, F.conv2d), _run(loss.encoder, teacher, F.conv2d))]
    a, b = (f / f.norm(dim=1, keepdim=True) for f in factors)
    transfer = loss(student, teacher) - loss(student, teacher, warmup=0.0)
    torch.testing.assert_close(transfer, 200 * (a - b).abs().mean())


def test_under_autocast_and_at_zero():
    loss = _loss()
    student, teacher = randn(2, 2, 4, 4).bfloat16(), randn(2, 4, 4, 4, seed=1).bfloat16()
    with torch.autocast('cpu', dtype=torch.bfloat16):
        value = loss(student, teacher)
    reconstruction, transfer = _parts(loss, student.double(), teacher.double())
    assert value.dtype == torch.float32
    assert value.item() == pytest.approx((reconstruction + 200 * transfer).item(), rel=1e-4)
    zero = torch.zeros(1, 2, 2, 2, requires_grad=True)
    loss(zero, torch.zeros(1, 4, 2, 2)).backward()
    assert zero.grad.isfinite().all()


def test_what_it_refuses():
    with pytest.raises(ValueError, match=r'rate 0\.1, which leaves no channel of the teacher'):
        FTLoss(2, 4, rate=0.1)
    with pytest.raises(ValueError, match=r'\(2, 2\).*tap maps'):
        _loss()(torch.ones(2, 2), torch.ones(2, 4))
