"""Teachers weighed image by image: shares by hand, and a teacher of noise beside a good one."""

from types import SimpleNamespace

import pytest
import torch
from helpers import distillation_hook
from mmengine.structures import InstanceData
from test_terms import first_losses, hooks_of

from mmkd.detection import CenterNetHead
from mmkd.detection.teacher_maps import Maps
from mmkd.detection.teacher_shares import (
    certainty,
    drawn_targets,
    errors_of_teachers,
    errors_on_labels,
    feature_shares,
    image_shares,
)
from mmkd.detection.terms import MAPS
from mmkd.distillation.losses import PKDLoss, SoftFocalLoss, WidthHeightLoss
from mmkd.errors import UserError


def _sample(boxes, labels):
    from mmdet.structures import DetDataSample
    sample = DetDataSample(metainfo=dict(batch_input_shape=(64, 64)))
    sample.gt_instances = InstanceData(bboxes=torch.tensor(boxes).view(-1, 4),
                                       labels=torch.tensor(labels, dtype=torch.long))
    return sample


@pytest.fixture
def batch():
    """A student's head, two images with an object each, and what is drawn of them."""
    model = torch.nn.Module()
    model.bbox_head = CenterNetHead(4, 4, 2)
    samples = [_sample([8.0, 8.0, 40.0, 40.0], [0]), _sample([20.0, 4.0, 60.0, 28.0], [1])]
    return model, samples, *drawn_targets(model, samples, (2, 2, 16, 16))


def _noise(targets, seed=0):
    generator = torch.Generator().manual_seed(seed)
    return Maps(*(torch.rand(m.shape, generator=generator) * m.amax().clamp(min=1)
                  for m in targets))


def _good(targets):
    """A teacher that is nearly right: lower peaks, sizes 10 % off."""
    return Maps(targets.heatmap * 0.9 + 0.002, targets.wh * 1.1, targets.offset)


def _image_shares(errors):
    means = errors.mean(1)
    return image_shares([1.0, 1.0], means, errors / means[:, None])


def test_shares_by_hand():
    errors = torch.tensor([[0.5, 1.0], [1.0, 1.0]])
    # As good on average: 1 * 2^4 against 3 * 1, and 1 against 3.
    found = image_shares([1.0, 3.0], torch.tensor([0.7, 0.7]), errors / 0.7)
    torch.testing.assert_close(found, torch.tensor([[16 / 19, 0.25], [3 / 19, 0.75]]))
    # 1.25 times the error on average: 1.25^12 = 14.552 times the say where both are as good.
    means = torch.tensor([0.8, 1.0])
    found = image_shares([1.0, 1.0], means, errors / means[:, None])
    torch.testing.assert_close(found[:, 1], torch.tensor([14.552, 1]) / 15.552, rtol=1e-4, atol=0)
    torch.testing.assert_close(found[0, 0] / found[1, 0], torch.tensor(16 * 14.552),
                               rtol=1e-4, atol=0)


def test_the_error_of_one_object_by_hand():
    heatmap, size = torch.zeros(1, 1, 1, 3), torch.tensor([4.0, 8.0]).view(1, 2, 1, 1)
    heatmap[..., 0], heatmap[..., 1] = 1.0, 0.5
    centres = torch.tensor([1.0, 0.0, 0.0]).view(1, 1, 1, 3)
    targets = Maps(heatmap, size * centres, 0 * centres.repeat(1, 2, 1, 1))
    scores = torch.tensor([0.8, 0.3, 0.1]).view(1, 1, 1, 3)
    teacher = Maps(scores, (size + 3) * torch.ones(1, 2, 1, 3), targets.offset)
    scores = scores.flatten().double()
    focal = -((1 - scores[0]) ** 2 * scores[0].log() + 0.5 ** 4 * scores[1] ** 2
              * (1 - scores[1]).log() + scores[2] ** 2 * (1 - scores[2]).log())
    sizes = (3 + 3) / 6 / 2
    found = errors_on_labels(teacher, targets, centres)
    torch.testing.assert_close(found, (focal + sizes).float().view(1))


def test_who_finds_an_image_s_labels_teaches_that_image(batch):
    model, samples, targets, _ = batch
    good, noise = _good(targets), _noise(targets)
    # Each of the two is good on one image and noise on the other.
    first = Maps(*(torch.stack((g[0], n[1])) for g, n in zip(good, noise, strict=True)))
    second = Maps(*(torch.stack((n[0], g[1])) for g, n in zip(good, noise, strict=True)))
    errors = errors_of_teachers('labels', [first, second], model, samples)
    shares = _image_shares(errors)
    assert shares[0, 0] > 0.99
    assert shares[1, 1] > 0.99
    torch.testing.assert_close(shares.sum(0), torch.ones(2))


@pytest.mark.parametrize(('rule', 'most'), [('labels', 0.01), ('certainty', 0.1)])
def test_a_teacher_of_noise_changes_next_to_nothing(batch, rule, most):
    """Target, loss and gradient are nearly those of the good teacher alone."""
    model, samples, targets, _ = batch
    good, noise = _good(targets), _noise(targets)
    noise = noise._replace(heatmap=noise.heatmap * 0.3)  # haze: it is sure of nothing
    errors = errors_of_teachers(rule, [good, noise], model, samples)
    shares = _image_shares(errors)
    assert shares[1].max() < most
    student = torch.full_like(good.heatmap, 0.1).requires_grad_()
    loss = SoftFocalLoss()

    def gradient(pairs):
        value = sum(loss(student, maps.heatmap, image_weights=w) for maps, w in pairs)
        return torch.autograd.grad(value, student)[0]

    alone = gradient([(good, None)])
    both = gradient([(good, shares[0]), (noise, shares[1])])
    even = gradient([(good, shares[0] * 0 + 0.5), (noise, shares[0] * 0 + 0.5)])
    centres = targets.heatmap.eq(1)
    assert (both - alone)[centres].norm() < 0.1 * alone[centres].norm()
    assert (even - alone)[centres].norm() > 0.3 * alone[centres].norm(), 'as it is without'


def test_certainty_by_hand():
    heatmap = torch.tensor([[1.0, 0.0, 0.0, 1.0], [0.2, 0.2, 0.2, 0.2]]).view(2, 1, 2, 2)
    zeros = torch.zeros(2, 2, 2, 2)
    torch.testing.assert_close(certainty(Maps(heatmap, zeros, zeros)), torch.tensor([1.0, 0.2]))


def test_images_without_labels_name_the_other_rule(batch):
    with pytest.raises(UserError, match="joint='certainty'"):
        drawn_targets(batch[0], [], (1, 2, 16, 16))


def test_shares_reach_every_term_of_a_run(tmp_path, teachers):
    """Against the formula, with the shares taken from the maps that the terms saw."""
    got, model, batch, run = first_losses(
        tmp_path, hooks_of(teachers, joint='labels'), distill_weights=(1, 1, 1, 1))
    hook = distillation_hook(run)
    feature = model.extract_feat(batch['inputs'])
    heat, wh, _ = (m[-1] for m in model.bbox_head(feature))
    taps = {t.name: t(batch['inputs'], batch['data_samples'], {}) for t in hook.teachers}
    maps = [Maps(*(taps[t.name][leaf] for leaf in MAPS)) for t in hook.teachers]
    errors = errors_of_teachers('labels', maps, model, batch['data_samples'])
    means = errors.mean(1, keepdim=True)
    shares = means ** -16 * (errors / means) ** -4
    shares = shares / shares.sum(0)
    term = hook.terms[3]
    expected = dict(heatmap=0.0, wh=0.0)
    adapted, theirs = [], []
    for teacher, own, share in zip(hook.teachers, maps, shares, strict=True):
        expected['heatmap'] += SoftFocalLoss()(heat, own.heatmap, share)
        expected['wh'] += WidthHeightLoss()(wh, own.wh, own.heatmap, share)
        connectors = term.branches[teacher.name].connectors
        adapted.append(connectors[0](feature[-1]) if connectors else feature[-1])
        theirs.append(taps[teacher.name]['bbox_head:input:-1'])
    # On features, each teacher as a whole: its mean error^-16 times its feature loss^-4.
    losses = [PKDLoss()(*pair) for pair in zip(adapted, theirs, strict=True)]
    near = torch.stack([error ** -16 * loss.detach() ** -4
                        for error, loss in zip(errors.mean(1), losses, strict=True)])
    near = near / near.sum()
    expected['feature'] = sum(share * loss for share, loss in zip(near, losses, strict=True))
    for name, value in expected.items():
        torch.testing.assert_close(got[f'loss_distill_{name}'], value, rtol=1e-4, atol=1e-6)
    # A connector learns at the full rate, however small its teacher's share is.
    connector = list(term.branches['resnet'].parameters())
    whole = expected['feature'] + PKDLoss()(term.branches['resnet'].connectors[0](
        feature[-1].detach()), theirs[0])
    torch.testing.assert_close(torch.autograd.grad(got['loss_distill_feature'], connector),
                               torch.autograd.grad(whole, connector), rtol=1e-3, atol=1e-6)


def test_feature_shares_by_hand():
    # As good, and twice as far: 1 to 16. Five times as good, whatever the distance.
    torch.testing.assert_close(
        feature_shares([1.0, 1.0], torch.tensor([0.3, 0.3]), torch.tensor([0.1, 0.2])),
        torch.tensor([16 / 17, 1 / 17]))
    torch.testing.assert_close(
        feature_shares([1.0, 3.0], torch.tensor([1.0, 1.25]), torch.tensor([0.2, 0.2])),
        torch.tensor([35.527 / 38.527, 3 / 38.527]), rtol=1e-4, atol=1e-5)
    near_and_bad = feature_shares([1.0, 1.0], torch.tensor([0.2, 1.0]), torch.tensor([0.9, 0.1]))
    assert near_and_bad[0] > 0.999


def test_errors_are_averaged_over_steps(tmp_path, teachers):
    """By 1/n, in the end by 1/100; the mean is saved with the connectors."""
    *_, run = first_losses(tmp_path, hooks_of(teachers, joint='labels'),
                            distill_weights=(1, 1, 1, 1))
    term = distillation_hook(run).terms[3]
    for branch in term.branches.values():
        branch.load_state_dict(branch.state_dict() | dict(mean_error=torch.tensor(0.0),
                                                          steps=torch.tensor(0.0)))
    step = SimpleNamespace(teachers=distillation_hook(run).teachers)

    def seen(*errors, labelled=True):
        step.labelled = labelled
        rule = 'labels' if labelled else 'certainty'
        step.found = {(rule, *(one.name for one in step.teachers)): torch.tensor(errors)}
        return [means.tolist() for means in term.means(step)]

    assert seen([1.0, 3.0], [4.0, 4.0]) == [[2, 4], [2, 4]]
    assert seen([3.0, 3.0], [1.0, 1.0]) == [[2.5, 2.5], [2.5, 2.5]]
    # How unsure they are says nothing of the teachers beside labels, only of the images.
    assert seen([1.0, 1.0], [7.0, 5.0], labelled=False) == [[2.5, 2.5], [1, 6]]
    with torch.no_grad():
        assert seen([9.0, 9.0], [9.0, 9.0])[0] == [9, 9], 'a trial'
    for branch in term.branches.values():
        branch.steps.fill_(1000)
    assert seen([3.5, 3.5], [1.5, 1.5])[0] == pytest.approx([2.51, 2.49])
