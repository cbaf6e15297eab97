"""Losses between sets of predictions: their formulas in loops, and what holds for all of them."""

from itertools import permutations

import pytest
import torch
from formulas import dot, kl, randn, sigmoid, softmax, unit
from overlaps import overlaps

import mmkd  # noqa: F401
from mmkd.distillation.losses import (
    InputError,
    KDDETRLoss,
    QueryPriorLoss,
    SetKDLoss,
    TargetAwareLoss,
)
from mmkd.distillation.losses._sets import paired_layers

IMAGES, CLASSES = 2, 3
KINDS = pytest.mark.parametrize('has_background', [False, True])


def _side(seed, layers, queries):
    """Classes and boxes of every layer, boxes anywhere in the image and beyond its border."""
    return dict(cls=[2 * randn(IMAGES, queries, CLASSES, seed=seed + i) for i in range(layers)],
                box=[randn(IMAGES, queries, 4, seed=seed + 50 + i).sigmoid()
                     for i in range(layers)])


def _brute_force(costs):
    """The cheapest assignment of all."""
    found = []
    for cost in costs.tolist():
        columns = range(len(cost[0]))
        best = min(permutations(range(len(cost)), len(columns)),
                   key=lambda rows, cost=cost: sum(cost[rows[j]][j] for j in range(len(rows))))
        found.append(best)
    return torch.tensor(found)


def _probabilities(logits, has_background):
    return softmax(logits) if has_background else [sigmoid(z) for z in logits]


def _kl(student, teacher, has_background):
    """Of one query: of the softmax, or summed over yes and no of every class."""
    sides = [_probabilities(logits, has_background) for logits in (teacher, student)]
    if has_background:
        return kl(*sides)
    return sum(kl([t, 1 - t], [s, 1 - s]) for t, s in zip(*sides, strict=True))


def _corners(box):
    x, y, width, height = box
    return x - width / 2, y - height / 2, x + width / 2, y + height / 2


def _box_terms(student, teacher):
    return (sum(abs(s - t) for s, t in zip(student, teacher, strict=True)),
            1 - overlaps(_corners(student), _corners(teacher))[1])


@pytest.mark.parametrize(('student', 'teacher', 'pairs'), [
    (3, 3, [0, 1, 2]), (3, 6, [1, 3, 5]), (6, 3, [0, 0, 1, 1, 2, 2]), (1, 4, [3]), (2, 3, [1, 2])])
def test_the_last_layers_meet(student, teacher, pairs):
    assert paired_layers(student, teacher) == pairs


# Set matching.

def _set_loss(student, teacher, pairs, has_background, weights):
    """The cheapest pairing of all is the loss: the assignment's cost is what is paid."""
    total = 0.0
    for layer, other in enumerate(pairs):
        for image in range(IMAGES):
            ours = student['cls'][layer][image].tolist(), student['box'][layer][image].tolist()
            theirs = teacher['cls'][other][image].tolist(), teacher['box'][other][image].tolist()
            count = len(theirs[0])
            if count > len(ours[0]):
                count = len(ours[0])
                surest = sorted(range(len(theirs[0])), key=lambda j, t=theirs: -max(
                    _probabilities(t[0][j], has_background)[:CLASSES - has_background]))[:count]
                theirs = [[side[j] for j in surest] for side in theirs]
            costs = []
            for cls, box in zip(*ours, strict=True):
                costs.append([])
                for soft, place in zip(*theirs, strict=True):
                    distance, apart = _box_terms(box, place)
                    costs[-1].append(weights[0] * _kl(cls, soft, has_background)
                                     + weights[1] * distance + weights[2] * apart)
            total += min(sum(costs[rows[j]][j] for j in range(count))
                         for rows in permutations(range(len(costs)), count)) / (IMAGES * count)
    return total


@KINDS
@pytest.mark.parametrize(('layers', 'queries', 'pairs'), [
    ((2, 2), (5, 5), [0, 1]), ((2, 3), (5, 3), [1, 2]), ((2, 1), (3, 5), [0, 0])])
def test_set_matching_pays_the_cheapest_pairing(layers, queries, pairs, has_background):
    student, teacher = (_side(seed, *numbers) for seed, numbers in
                        zip((1, 201), zip(layers, queries, strict=True), strict=True))
    weights = 0.7, 5.0, 2.0
    found = SetKDLoss(*weights)(student, teacher, has_background, _brute_force)
    expected = _set_loss(student, teacher, pairs, has_background, weights)
    assert found.item() == pytest.approx(expected, rel=1e-9)


# Target-aware features.

def _features(seed, channels=4, sizes=((2, 3), (1, 2))):
    return [randn(IMAGES, channels, *size, seed=seed + i) for i, size in enumerate(sizes)]


TRUTHS = [torch.tensor([[2.0, 1.0, 30.0, 20.0], [10.0, 10.0, 39.0, 47.0]]), torch.zeros(0, 4)]
SHAPES = [(48, 40), (32, 64)]


def _quality(cls, box, image, count, has_background):
    """Query and weight of the surest predictions."""
    scores = [(score, i) for i, logits in enumerate(cls.tolist()) for score in
              _probabilities(logits, has_background)[:CLASSES - has_background]]
    found = []
    for score, i in sorted(scores, reverse=True)[:count]:
        height, width = SHAPES[image]
        corners = [x * size for x, size in zip(_corners(box[i].tolist()),
                                               (width, height) * 2, strict=True)]
        ious = [overlaps(corners, truth)[0] for truth in TRUTHS[image].tolist()]
        found.append((i, score * max(ious, default=1.0)))
    return found


@KINDS
def test_target_aware_features_cell_by_cell(has_background):
    layers, count, floor = 2, 4, 0.05
    teacher = dict(_side(1, layers, 5), feature=_features(30),
                   query=[randn(IMAGES, 5, 4, seed=80 + i) for i in range(layers)])
    student = dict(feature=_features(60))
    expected = 0.0
    for own, other in zip(student['feature'], teacher['feature'], strict=True):
        _, channels, height, width = own.shape
        for layer in range(layers):
            total = 0.0
            for image in range(IMAGES):
                picked = _quality(teacher['cls'][layer][image], teacher['box'][layer][image],
                                  image, count, has_background)
                cells = [(y, x) for y in range(height) for x in range(width)]
                queries = [unit(query) for query in teacher['query'][layer][image].tolist()]
                mask = {(y, x): max(floor, sum(
                    weight * dot(queries[i], unit(other[image, :, y, x].tolist()))
                    for i, weight in picked)) for y, x in cells}
                top = max(mask.values())
                total += sum((mask[y, x] / top * (own[image, c, y, x] - other[image, c, y, x])
                              .item()) ** 2 for y, x in cells for c in range(channels))
            expected += total / own.numel()
    found = TargetAwareLoss(count, floor)(student, teacher, TRUTHS, SHAPES, has_background)
    assert found.item() == pytest.approx(expected, rel=1e-9)


# KD-DETR.

@KINDS
def test_kd_detr_point_by_point(has_background):
    counts, layers, weights, temperature = (3, 5), (2, 3), (8.0, 5.0, 2.0), 4.0
    sides = []
    for seed, depth in zip((1, 301), layers, strict=True):
        points = [_side(seed + 10 * n, depth, count) for n, count in enumerate(counts)]
        sides.append({name: [torch.stack(one[name]) for one in points] for name in ('cls', 'box')})
    student, teacher = sides
    expected = 0.0
    for number, count in enumerate(counts):
        every = [(image, i) for image in range(IMAGES) for i in range(count)]
        soft, place = (teacher[name][number][-1].tolist() for name in ('cls', 'box'))
        score = {(image, i): max(_probabilities(soft[image][i], has_background)
                                 [:CLASSES - has_background]) for image, i in every}
        for layer in range(layers[0]):
            cls, box = (student[name][number][layer].tolist() for name in ('cls', 'box'))
            for image, i in every:
                cooled = [[z / temperature for z in side[image][i]] for side in (cls, soft)]
                distance, apart = _box_terms(box[image][i], place[image][i])
                expected += score[image, i] * (
                    weights[0] * temperature ** 2 * _kl(*cooled, True) / CLASSES / IMAGES
                    + (weights[1] * distance / 4 + weights[2] * apart) / sum(score.values()))
    found = KDDETRLoss(*weights, temperature)(student, teacher, has_background)
    assert found.item() == pytest.approx(expected, rel=1e-9)


# The teacher's queries.

def test_query_prior_asks_for_the_loss_of_every_layer():
    """Each of the student's layers is assigned by the layer of the teacher that it meets."""
    student, teacher = _side(1, 2, 3), _side(201, 4, 3)
    asked = []

    def detection_loss(classes, boxes, theirs, places):
        asked.append([one.sum().item() for one in (classes, boxes, theirs, places)])
        assert not theirs.requires_grad and not places.requires_grad
        return classes.sum() + boxes.sum()

    teacher = {name: [one.requires_grad_() for one in group] for name, group in teacher.items()}
    found = QueryPriorLoss()(student, teacher, detection_loss)
    expected = [[side[name][layer].sum().item() for side, layer in
                 ((student, own), (teacher, other)) for name in ('cls', 'box')]
                for own, other in ((0, 1), (1, 3))]
    assert asked == [pytest.approx(one) for one in expected]
    assert found.item() == pytest.approx(sum(one[0] + one[1] for one in expected))


# What holds for all of them.

def _stacked(side):
    return {name: [torch.stack(side[name])] for name in ('cls', 'box')}


def _call(name, student, teacher, has_background):
    if name == 'set':
        return SetKDLoss()(student, teacher, has_background, _brute_force)
    if name == 'kd':
        return KDDETRLoss()(_stacked(student), _stacked(teacher), has_background)
    return TargetAwareLoss(4)(student, teacher, TRUTHS, SHAPES, has_background)


def _pair(seeds, dtype=torch.float64):
    sides = [dict(_side(seed, 2, 4), feature=_features(seed + 30),
                  query=[randn(IMAGES, 4, 4, seed=seed + 80 + i) for i in range(2)])
             for seed in seeds]
    return [{name: [one.to(dtype).requires_grad_() for one in group]
             for name, group in side.items()} for side in sides]


NAMES = pytest.mark.parametrize('name', ['set', 'features', 'kd'])


@NAMES
@KINDS
def test_gradients_reach_the_student_alone(name, has_background):
    student, teacher = _pair((1, 201))
    _call(name, student, teacher, has_background).backward()
    taught = ('feature', ) if name == 'features' else ('cls', 'box')
    for group, tensors in student.items():
        for tensor in tensors:
            assert (tensor.grad is not None and tensor.grad.norm() > 0) == (group in taught)
    assert all(one.grad is None for group in teacher.values() for one in group)


@NAMES
@KINDS
def test_smallest_where_both_are_equal(name, has_background):
    """0, with no gradient, but for KD-DETR's lower layers, whose teacher is the last one."""
    student, teacher = _pair((1, 1))
    if name == 'kd':
        student, teacher = ({key: group[-1:] for key, group in side.items()}
                            for side in (student, teacher))
    loss = _call(name, student, teacher, has_background)
    assert loss.item() == pytest.approx(0, abs=1e-9)
    loss.backward()
    group = 'feature' if name == 'features' else 'cls'
    assert all(one.grad.abs().max() < 1e-9 for one in student[group])


@NAMES
@KINDS
def test_the_same_under_autocast(name, has_background):
    student, teacher = _pair((1, 201), torch.float32)
    plain = _call(name, student, teacher, has_background)
    with torch.autocast('cpu', torch.bfloat16):
        mixed = _call(name, student, teacher, has_background)
    assert mixed.dtype == torch.float32
    assert mixed.item() == pytest.approx(plain.item(), rel=1e-5)


def test_what_does_not_fit_is_said():
    student, teacher = _side(1, 2, 4), _side(201, 2, 4)
    fewer = dict(teacher, cls=[one[..., :2] for one in teacher['cls']])
    with pytest.raises(InputError, match='student and teacher have 3 and 2 outputs for a query'):
        SetKDLoss()(student, fewer, False, _brute_force)
    with pytest.raises(InputError, match=r"needs the groups cls and box.*type='DETRTerm'"):
        SetKDLoss()(dict(cls=student['cls']), teacher, False, _brute_force)
    with pytest.raises(InputError, match='do not go together'):
        QueryPriorLoss()(dict(student, box=student['box'][:1]), teacher, None)
    with pytest.raises(InputError, match='compares point by point'):
        KDDETRLoss()(_stacked(student), _stacked(_side(201, 2, 3)), False)
    with pytest.raises(InputError, match='whose necks give the same levels and channels'):
        TargetAwareLoss()(dict(feature=_features(1, 3)), dict(teacher, feature=_features(1)),
                          TRUTHS, SHAPES, False)
    with pytest.raises(InputError, match='floor=0'):
        TargetAwareLoss(floor=0)
