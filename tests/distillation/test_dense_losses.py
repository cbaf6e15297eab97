"""LD, BCKD and CrossKD: their formulas in loops, prior by prior, and what holds for all three."""

import math

import pytest
import torch
from formulas import randn, sigmoid, soft_kl
from overlaps import overlaps

import mmkd  # noqa: F401
from mmkd.distillation.losses import Assignment, BCKDLoss, CrossKDLoss, LDLoss, Priors

CLASSES, BINS = 3, 5
SIZES = [(2, 3), (1, 2)]
OBJECTS = [torch.tensor([[1.0, 0.0, 19.0, 9.0], [-2.0, -3.0, 9.0, 8.0]]), torch.zeros(0, 4)]


def _maps(channels, seed):
    return [randn(2, channels, *size, seed=seed + 7 * level) for level, size in enumerate(SIZES)]


def _sides(box, anchors=1):
    """Student and teacher: classes, boxes and centerness."""
    return [dict(cls=_maps(anchors * CLASSES, seed), box=_maps(anchors * box, seed + 1),
                 centerness=_maps(anchors, seed + 2)) for seed in (10, 50)]


def _assignment(anchors=1):
    """Objects at some priors of both levels of the first image; one prior is ignored."""
    labels = [torch.full((2, anchors * h * w), CLASSES) for h, w in SIZES]
    weights = [torch.ones(one.shape, dtype=torch.float64) for one in labels]
    labels[0][0, 1], labels[0][0, 4], labels[1][0, 0] = 2, 0, 1
    labels[0][1, 2] = 1
    weights[0][0, 2] = weights[0][1, 5] = 0
    weights[0][0, 4] = 0.5
    targets = [randn(*one.shape, 4) for one in labels]
    return Assignment(labels, weights, targets, CLASSES, torch.tensor(4.0), torch.tensor(1.7))


def _priors():
    """Anchors of 8 and 16 pixels around the cells' corners."""
    levels = []
    for stride, (height, width) in zip((8, 16), SIZES, strict=True):
        levels.append(torch.tensor([[x * stride - stride / 2, y * stride - stride / 2,
                                     x * stride + stride / 2, y * stride + stride / 2]
                                    for y in range(height) for x in range(width)],
                                   dtype=torch.float64))
    return Priors(levels, [8, 16])


def _decode(maps):
    """Boxes of whatever numbers: around (10, 10), their sides at softplus of them."""
    found = []
    for one in maps:
        flat = one.permute(0, 2, 3, 1).reshape(len(one), -1, 4)
        sides = torch.nn.functional.softplus(flat)
        found.append(torch.cat([10 - sides[..., :2], 10 + sides[..., 2:]], -1))
    return found


# The formulas in plain Python: one dict for each prior.

def _by_prior(side, assignment, anchors=1, box=4):
    found = []
    for level, (height, width) in enumerate(SIZES):
        for image in range(2):
            for cell in range(height * width):
                for anchor in range(anchors):
                    y, x = divmod(cell, width)
                    number = cell * anchors + anchor
                    found.append(dict(
                        level=level, image=image, number=number,
                        cls=side['cls'][level][image, anchor * CLASSES:(anchor + 1) * CLASSES, y, x
                                               ].tolist(),
                        box=side['box'][level][image, anchor * box:(anchor + 1) * box, y, x
                                               ].tolist(),
                        ctr=side['centerness'][level][image, anchor, y, x].item(),
                        decoded=(_decode([side['box'][level]])[0][image, number].tolist()
                                 if box == 4 else None),
                        label=assignment.labels[level][image, number].item(),
                        weight=assignment.label_weights[level][image, number].item()))
    return found


def _bce(z, target):
    return -target * math.log(sigmoid(z)) - (1 - target) * math.log(1 - sigmoid(z))


def _soft_classes(ours, theirs, beta):
    return sum(abs(sigmoid(t) - sigmoid(s)) ** beta * _bce(s, sigmoid(t))
               for s, t in zip(ours, theirs, strict=True))


def vlr_loop(levels, objects, valid):
    """The weight of every prior, by level and number."""
    weights = {(level, n): 0.0 for level, boxes in enumerate(levels) for n in range(len(boxes))}
    for truth in objects:
        centre = [(truth[0] + truth[2]) / 2, (truth[1] + truth[3]) / 2]
        inside, nearest = {}, []
        for level, boxes in enumerate(levels):
            near = []
            for n, box in enumerate(boxes):
                if valid[level][n]:
                    distance = math.dist(centre, [(box[0] + box[2]) / 2, (box[1] + box[3]) / 2])
                    diagonal = math.dist([min(box[0], truth[0]), min(box[1], truth[1])],
                                         [max(box[2], truth[2]), max(box[3], truth[3])])
                    iou = overlaps(box, truth)[0]
                    inside[level, n] = iou, iou - distance ** 2 / diagonal ** 2
                    near.append((distance, iou))
            nearest += [iou for _, iou in sorted(near)[:9]]
        mean = sum(nearest) / len(nearest)
        threshold = mean + math.sqrt(sum((iou - mean) ** 2 for iou in nearest)
                                     / (len(nearest) - 1))
        for key, (iou, diou) in inside.items():
            if threshold / 4 <= diou < threshold:
                weights[key] = max(weights[key], iou)
    return weights


def ld_loop(loss, student, teacher, assignment, priors, objects):
    ours, theirs = (_by_prior(side, assignment, box=4 * BINS) for side in (student, teacher))
    regions = [vlr_loop([level.tolist() for level in priors.boxes], objects[image].tolist(),
                        [(level[image] > 0).tolist() for level in assignment.label_weights])
               for image in range(2)]
    main = vlr = 0.0
    classes = {0: [], 1: []}
    for s, t in zip(ours, theirs, strict=True):
        edges = sum(soft_kl(s['box'][BINS * e:BINS * e + BINS], t['box'][BINS * e:BINS * e + BINS],
                        loss.temperature) / BINS for e in range(4))
        vlr += regions[s['image']][s['level'], s['number']] * edges / 16
        if s['label'] < CLASSES:
            main += max(map(sigmoid, s['cls'])) * edges / 4
            classes[s['level']].append(
                s['weight'] * soft_kl(s['cls'], t['cls'], loss.class_temperature) / CLASSES)
    kd = sum(sum(one) / len(one) for one in classes.values())
    return loss.main_weight * main + loss.vlr_weight * vlr + loss.class_weight * kd


def bckd_loop(loss, student, teacher, assignment, anchors):
    total = 0.0
    for s, t in zip(*(_by_prior(side, assignment, anchors) for side in (student, teacher)),
                    strict=True):
        apart = max(abs(sigmoid(a) - sigmoid(b)) for a, b in
                    zip(s['cls'], t['cls'], strict=True))
        total += s['weight'] * (
            loss.class_weight * _soft_classes(s['cls'], t['cls'], loss.beta)
            + loss.box_weight * apart * (1 - overlaps(s['decoded'], t['decoded'])[1]))
    return total / 4


def crosskd_loop(loss, student, teacher, assignment, anchors, divisor):
    box = 4 * BINS if loss.box == 'distribution' else 4
    classes = boxes = centerness = weights = 0.0
    for s, t in zip(*(_by_prior(side, assignment, anchors, box) for side in (student, teacher)),
                    strict=True):
        classes += s['weight'] * _soft_classes(s['cls'], t['cls'], loss.beta)
        weight = max(map(sigmoid, t['cls'])) if s['weight'] else 0.0
        weights += weight
        if loss.box == 'distribution':
            boxes += weight * sum(soft_kl(s['box'][BINS * e:BINS * e + BINS],
                                      t['box'][BINS * e:BINS * e + BINS], 1.0) for e in range(4))
        else:
            iou, giou = overlaps(s['decoded'], t['decoded'])
            boxes += weight * (1 - giou if loss.box == 'giou' else -math.log(iou))
        if s['label'] < CLASSES:
            centerness += _bce(s['ctr'], sigmoid(t['ctr']))
    boxes /= 4 * weights if loss.box == 'distribution' else divisor
    return (loss.class_weight * classes / divisor + loss.box_weight * boxes
            + loss.centerness_weight * centerness / divisor)


@pytest.mark.parametrize('part', ['main_weight', 'vlr_weight', 'class_weight', None])
def test_ld_equals_its_formula_in_loops(part):
    loss = LDLoss() if part is None else LDLoss(**{name: 0.7 * (name == part) for name in (
        'main_weight', 'vlr_weight', 'class_weight')})
    student, teacher = _sides(4 * BINS)
    expected = ld_loop(loss, student, teacher, _assignment(), _priors(), OBJECTS)
    assert expected > 0
    assert loss(student, teacher, _assignment(), _priors(), OBJECTS).item() == pytest.approx(
        expected, rel=1e-9)


@pytest.mark.parametrize('options', [dict(), dict(class_weight=0.0), dict(box_weight=0.0),
                                     dict(beta=2.0)])
def test_bckd_equals_its_formula_in_loops(options):
    loss, assignment = BCKDLoss(**options), _assignment(2)
    student, teacher = _sides(4, anchors=2)
    value = loss(student, teacher, assignment, _decode, _decode)
    assert value.item() == pytest.approx(
        bckd_loop(loss, student, teacher, assignment, 2), rel=1e-9)


def test_bckd_may_leave_out_levels_without_positives():
    student, teacher = _sides(4)
    assignment = _assignment()
    assignment.labels[1][:] = CLASSES
    left_out = assignment._replace(label_weights=[assignment.label_weights[0],
                                                  0 * assignment.label_weights[1]])
    value = BCKDLoss(every_level=False)(student, teacher, assignment, _decode, _decode)
    assert value == BCKDLoss()(student, teacher, left_out, _decode, _decode)
    assert value < BCKDLoss()(student, teacher, assignment, _decode, _decode)


@pytest.mark.parametrize('options', [
    dict(), dict(box='iou', class_weight=0.4, box_weight=0.75, per='centerness'),
    dict(box='distribution', box_weight=4.0), dict(centerness_weight=1.0, beta=2.0)])
def test_crosskd_equals_its_formula_in_loops(options):
    loss, assignment = CrossKDLoss(**options), _assignment(2)
    student, teacher = _sides(4 * BINS if loss.box == 'distribution' else 4, anchors=2)
    value = loss(student, teacher, assignment, _decode)
    divisor = 1.7 if loss.per == 'centerness' else 4.0
    assert value.item() == pytest.approx(
        crosskd_loop(loss, student, teacher, assignment, 2, divisor), rel=1e-6)


# What holds for all.

CASES = {
    'LD': (LDLoss(), 4 * BINS, dict(priors=_priors(), boxes=OBJECTS)),
    'BCKD': (BCKDLoss(), 4, dict(decode_student=_decode, decode_teacher=_decode)),
    'CrossKD': (CrossKDLoss(centerness_weight=1.0), 4, dict(decode_teacher=_decode)),
    'CrossKD, FCOS': (CrossKDLoss('iou', per='centerness'), 4, dict(decode_teacher=_decode)),
    'CrossKD, GFL': (CrossKDLoss('distribution'), 4 * BINS, dict(decode_teacher=_decode)),
}
every_loss = pytest.mark.parametrize('name', CASES)


def _leaves(side):
    return [one for group in side.values() for one in group]


def _each(function, side):
    return {group: [function(one) for one in levels] for group, levels in side.items()}


@every_loss
def test_gradient_reaches_the_student_alone(name):
    loss, box, facts = CASES[name]
    student, teacher = _sides(box)
    for one in _leaves(student) + _leaves(teacher):
        one.requires_grad_()
    value = loss(student, teacher, _assignment(), **facts)
    assert value.shape == () and value.dtype == torch.float64
    value.backward()
    assert all(one.grad.abs().sum() > 0 for group in ('cls', 'box') for one in student[group])
    assert all(one.grad is None for one in _leaves(teacher))


@every_loss
def test_smallest_where_student_and_teacher_agree(name):
    loss, box, facts = CASES[name]
    _, teacher = _sides(box)
    student = _each(lambda one: one.clone().requires_grad_(), teacher)
    value = loss(student, teacher, _assignment(), **facts)
    value.backward()
    if name != 'CrossKD':  # whose centerness keeps its entropy
        assert value.item() == pytest.approx(0, abs=1e-12)
    gradients = [one.grad for group in ('cls', 'centerness') for one in student[group]
                 if one.grad is not None]
    assert all(gradient.abs().max() < 1e-12 for gradient in gradients)
    worse = _each(lambda one: one.detach() + 0.1 * randn(*one.shape, seed=3), student)
    assert loss(worse, teacher, _assignment(), **facts) > value


@every_loss
def test_bfloat16_is_computed_in_float32(name):
    loss, box, facts = CASES[name]
    student, teacher = (_each(torch.Tensor.bfloat16, side) for side in _sides(box))
    exact = [_each(torch.Tensor.float, side) for side in (student, teacher)]

    def decode(maps):
        return _decode([one.float() for one in maps])

    facts = {key: decode if callable(value) else value for key, value in facts.items()}
    torch.testing.assert_close(loss(student, teacher, _assignment(), **facts),
                               loss(*exact, _assignment(), **facts))


@every_loss
def test_a_batch_without_objects_is_finite(name):
    loss, box, facts = CASES[name]
    student, teacher = _sides(box)
    assignment = _assignment()
    for labels in assignment.labels:
        labels[:] = CLASSES
    if 'boxes' in facts:
        facts = facts | dict(boxes=[torch.zeros(0, 4)] * 2)
    for one in _leaves(student):
        one.requires_grad_()
    value = loss(student, teacher, assignment._replace(positives=torch.tensor(2.0)), **facts)
    value.backward()
    assert value.isfinite() and all(one.grad is None or one.grad.isfinite().all()
                                    for one in _leaves(student))


@every_loss
def test_heads_that_do_not_fit_are_named(name):
    loss, box, facts = CASES[name]
    student, teacher = _sides(box)
    other = teacher | dict(cls=_maps(CLASSES + 1, 0))
    with pytest.raises(ValueError, match='same levels, anchors and classes'):
        loss(student, other, _assignment(), **facts)
    with pytest.raises(ValueError, match="group 'cls'"):
        loss(student, dict(box=teacher['box']), _assignment(), **facts)
    with pytest.raises(ValueError, match='same levels'):
        loss(student, teacher, _assignment(2)._replace(labels=[torch.zeros(2, 5)] * 2), **facts)


def test_what_else_does_not_fit_is_named():
    student, teacher = _sides(4)
    with pytest.raises(ValueError, match='take a GFL'):
        LDLoss()(student, teacher, _assignment(), _priors(), OBJECTS)
    with pytest.raises(ValueError, match=r'beta=0\.5'):
        BCKDLoss(beta=0.5)
    with pytest.raises(ValueError, match=r'beta=0\.5'):
        CrossKDLoss(beta=0.5)
    with pytest.raises(ValueError, match=r"box='ciou'.*giou"):
        CrossKDLoss('ciou')
    with pytest.raises(ValueError, match="per='centerness'"):
        CrossKDLoss(per='centerness')(student, teacher, _assignment()._replace(centerness=None),
                                      _decode)
