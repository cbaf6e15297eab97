"""Distillation between DETRs: what each family is asked, what the methods teach, what they refuse.
"""

import math
from itertools import permutations
from types import SimpleNamespace

import pytest
import torch
from dense_zoo import copied, distilled, gradients, refusal, samples, values
from detr_zoo import DETRS, QUERIES, build, saved, tiny
from helpers import CLASSES, distillation_hook, runner, train_config
from mmdet.models.dense_heads import DETRHead
from zoo import model

from mmkd.detection.detr_heads import (
    decoded,
    decoder_inputs,
    detection_loss,
    hungarian,
    queries_of,
    random_queries,
)
from mmkd.engine.distil import describe_methods, distil
from mmkd.errors import UserError
from mmkd.registry import MODELS, TERMS

METHODS = ('detrdistill', 'kd_detr')
TWO_STAGE = 'Deformable DETR that finds its queries'


def _config(name, **options):
    if name != TWO_STAGE:
        return tiny(name, **options)
    cfg = tiny('Deformable DETR', width=256, **options)  # which its code of positions is made for
    cfg.update(with_box_refine=True, as_two_stage=True)
    return cfg


def test_the_assignment_is_the_cheapest_of_all():
    costs = torch.rand(3, 5, 4, generator=torch.Generator().manual_seed(0))
    for cost, rows in zip(costs, hungarian(costs), strict=True):
        assert len(set(rows.tolist())) == 4
        best = min(sum(cost[rows[j], j].item() for j in range(4))
                   for rows in permutations(range(5), 4))
        assert sum(cost[rows[j], j].item() for j in range(4)) == pytest.approx(best)
    assert hungarian(torch.full((1, 2, 2), math.nan)).sort().values.tolist() == [[0, 1]]


# What a decoder is asked.

def _passed(network):
    """What a network gives for two images, one of them padded, and what its decoder starts from."""
    network.eval()
    inputs = torch.randn(2, 3, 64, 64, generator=torch.Generator().manual_seed(1))
    known, kept = samples(), {}
    handle = network.encoder.register_forward_hook(
        lambda module, args, output: kept.update(memory=output))
    with torch.no_grad():
        outputs = network(inputs, known, mode='tensor')
        handle.remove()
        features = network.extract_feat(inputs)
        return outputs[:2], decoder_inputs(network, features, known, kept['memory'])


@pytest.mark.parametrize('name', [*DETRS, TWO_STAGE])
def test_a_decoder_that_is_asked_its_own_queries_says_the_same_again(name):
    network = build(_config(name))
    outputs, inputs = _passed(network)
    with torch.no_grad():
        queries = queries_of(network, inputs)
        for one, other in zip(decoded(network, inputs, queries), outputs, strict=True):
            torch.testing.assert_close(one, other, rtol=1e-4, atol=1e-5)
        drawn = random_queries(queries, 4)
        classes, boxes = decoded(network, inputs, drawn)
    assert classes.shape[:3] == boxes.shape[:3] == (2, 2, 4)
    assert classes.isfinite().all() and (boxes > 0).all() and (boxes < 1).all()
    if drawn.boxes is not None:
        assert torch.equal(drawn.boxes[0], drawn.boxes[1])  # the same points in every image


# The labels, assigned by other predictions.

@pytest.mark.parametrize('name', DETRS)
def test_under_its_own_assignment_the_loss_is_mmdetections(name):
    network = build(tiny(name))
    (classes, boxes), _ = _passed(network)
    known = samples()
    ours = detection_loss(network.bbox_head, known)
    expected = DETRHead.loss_by_feat(network.bbox_head, classes, boxes,
                                     [one.gt_instances for one in known],
                                     [one.metainfo for one in known])
    found = sum(ours(cls, box, cls, box) for cls, box in zip(classes, boxes, strict=True))
    assert found.item() == pytest.approx(sum(expected.values()).item(), rel=1e-5)


def test_the_teacher_says_which_query_has_the_object():
    """By hand: focal loss, distances and overlaps of the query that only the teacher chooses."""
    head = build(tiny('Deformable DETR')).bbox_head
    [sample] = samples()[1:]
    height, width = sample.img_shape
    x1, y1, x2, y2 = sample.gt_instances.bboxes[0].tolist()
    truth = [(x1 + x2) / 2 / width, (y1 + y2) / 2 / height, (x2 - x1) / width, (y2 - y1) / height]
    right, wrong = truth, [0.9, 0.03, 0.1, 0.04]
    logits = torch.tensor([[[2.0, -1.0, 0.5], [-2.0, 0.3, 1.0]]])
    boxes = torch.tensor([[right, wrong]])
    theirs = torch.tensor([[wrong, right]])  # the teacher's second query has it
    found = detection_loss(head, [sample])(logits, boxes, logits.flip(1), theirs)
    label, expected = sample.gt_instances.labels[0].item(), 0.0
    for query, row in enumerate(logits[0].tolist()):
        for c, z in enumerate(row):
            p = 1 / (1 + math.exp(-z))
            is_there = query == 1 and c == label
            expected += -2 * (0.25 * (1 - p) ** 2 * math.log(p) if is_there else
                              0.75 * p ** 2 * math.log(1 - p))
    expected += 5 * sum(abs(a - b) for a, b in zip(wrong, truth, strict=True))
    corners = [[x - w / 2, y - h / 2, x + w / 2, y + h / 2] for x, y, w, h in (wrong, truth)]
    hull = math.prod(max(one[i + 2] for one in corners) - min(one[i] for one in corners)
                     for i in (0, 1))
    areas = sum(box[2] * box[3] for box in (wrong, truth))
    assert corners[0][0] > corners[1][2] or corners[0][3] < corners[1][1]  # they lie apart
    expected += 2 * (1 + (hull - areas) / hull)
    assert found.item() == pytest.approx(expected, rel=1e-4)


# In a run.

def _reached(run):
    """The parts of the student that get a gradient, of each term alone."""
    return {term: {name.partition('.')[0] for name, norm in found.items() if norm > 0}
            for term, found in gradients(run).items()}


@pytest.mark.parametrize('name', ['DETR', 'Deformable DETR', 'DINO'])
def test_two_iterations(name, tmp_path):
    cfg = tiny(name)
    run, reached = distilled(tmp_path, cfg, saved(tmp_path, cfg), METHODS, _reached)
    assert list(reached) == ['logits', 'features', 'queries', 'kd_detr']
    for term in reached:
        assert all(0 < value < float('inf') for value in values(run, term))
    whole = {'backbone', 'neck', 'encoder', 'decoder', 'bbox_head'}
    assert reached['logits'] >= whole | {'query_embedding'}
    assert reached['features'] == {'backbone', 'neck'}
    for term in ('queries', 'kd_detr'):  # the queries are the teacher's
        assert reached[term] >= whole and 'query_embedding' not in reached[term]
    state = torch.load(tmp_path / 'run' / 'iter_2.pth', weights_only=False)['state_dict']
    assert state.keys() == build(tiny(name)).state_dict().keys()


def test_a_student_that_equals_its_teacher_has_nothing_to_learn(tmp_path):
    """In training, too, DINO's queries are those of its teacher: without the denoising ones."""
    run = copied(tmp_path, tiny('DINO', layers=1, dropout=0.0), METHODS, saved)
    for term in ('logits', 'features', 'kd_detr'):
        assert values(run, term)[0] == pytest.approx(0, abs=1e-3)
    assert values(run, 'queries')[0] > 0.1  # it learns from labels


def test_what_is_not_initialised_before_a_run_may_be_anything(tmp_path):
    """The embedding of levels is, until weights are initialised: behind the dry run."""
    cfg = train_config(tmp_path / 'run', tiny('Deformable DETR', layers=1), iters=1, batch=2)
    distil(cfg, [saved(tmp_path, tiny('Deformable DETR', layers=1))], ['pkd'])
    run = runner(cfg)
    torch.nn.init.constant_(run.model.level_embed, math.nan)
    run.train()
    assert 0 < values(run, 'pkd')[0] < float('inf')


NAMES = ('other', CLASSES[2], CLASSES[0], 'more', CLASSES[1])


def test_another_family_of_another_size_with_more_classes(tmp_path):
    teacher = tiny('DINO', layers=3, queries=QUERIES + 4, num_classes=len(NAMES))
    run, reached = distilled(
        tmp_path, tiny('Deformable DETR'), saved(tmp_path, teacher, NAMES), ['setkd'], _reached)
    assert all(0 < value < float('inf') for value in values(run, 'setkd'))
    assert 'query_embedding' in reached['setkd']
    [term] = distillation_hook(run).terms
    logits = torch.arange(5.0)
    found = term.in_students_classes(SimpleNamespace(model=run.model), 'teacher', logits)
    assert found.tolist() == [2, 4, 1]


def test_in_a_softmax_the_classes_that_the_student_lacks_are_no_object():
    term = _term('setkd')
    term._index = dict(big=[2, 4, 1])
    logits = torch.tensor([0.5, -1.0, 2.0, 0.1, 1.0, -0.3])
    step = SimpleNamespace(model=SimpleNamespace(bbox_head=SimpleNamespace(
        loss_cls=SimpleNamespace(use_sigmoid=False))))
    p = logits.softmax(-1)
    torch.testing.assert_close(term.in_students_classes(step, 'big', logits).softmax(-1),
                               torch.stack((p[2], p[4], p[1], p[0] + p[3] + p[5])))


# What is refused, in one sentence, before anything runs.

def _term(method, **changes):
    types = dict(setkd=('DETRTerm', 'SetKDLoss'), features=('DETRFeatureTerm', 'TargetAwareLoss'),
                 queries=('DETRQueryTerm', 'QueryPriorLoss'), kd_detr=('KDDETRTerm', 'KDDETRLoss'))
    kind, loss = types[method]
    term = TERMS.build(dict(type=kind, loss=dict(type=loss), **changes))
    term.name = method
    return term


METHODS_OF_TERMS = ('setkd', 'features', 'queries', 'kd_detr')
ANY = pytest.mark.parametrize('method', METHODS_OF_TERMS)
SAME = pytest.mark.parametrize('method', ['queries', 'kd_detr'])


@pytest.mark.parametrize('name', ['RetinaNet', 'DDQ'])
def test_other_detectors_are_named(name):
    detr, other = build(tiny('Deformable DETR')), MODELS.build(model(name))
    kind = type(other).__name__
    for method in METHODS_OF_TERMS:
        message = refusal(_term(method), other, detr)
        assert 'is for DETR, ConditionalDETR, DABDETR, DeformableDETR, DINO, and the ' in message
        assert f'the student is a {kind}: take one of these' in message
        assert f"teacher 'big' is a {kind}" in refusal(_term(method), detr, other)


@ANY
def test_a_softmax_and_sigmoids(method):
    assert _term(method).needs_model, 'no cache can serve it'
    message = refusal(_term(method), build(tiny('DETR')), build(tiny('DINO')))
    assert 'the student has a softmax with a class for no object' in message
    assert "teacher 'big' a sigmoid for each" in message


@SAME
def test_queries_of_another_kind(method):
    deformable = build(tiny('Deformable DETR'))
    message = refusal(_term(method), deformable, build(tiny('DINO')))
    assert ('the student is a DeformableDETR with embeddings of 32 numbers, the teacher a DINO '
            'with embeddings of 16 numbers and as_two_stage: take two of the same kind' in message)
    wide = build(tiny('Deformable DETR', width=32))
    assert 'embeddings of 64 numbers' in refusal(_term(method), deformable, wide)
    _term('setkd').meet(deformable, [SimpleNamespace(name='big', model=wide)])


@SAME
def test_queries_with_patterns(method):
    cfg = tiny('DAB-DETR')
    cfg.num_patterns = 2
    assert 'has num_patterns=2' in refusal(_term(method), build(cfg), build(tiny('DAB-DETR')))


def test_a_teacher_with_other_classes_without_names():
    student, other = (SimpleNamespace(bbox_head=SimpleNamespace(num_classes=n)) for n in (3, 5))
    teacher = SimpleNamespace(name='big', model=other, classes=None, weight=1.0)
    step = SimpleNamespace(model=student, teachers=[teacher])
    data = SimpleNamespace(metainfo=dict(classes=CLASSES))
    with pytest.raises(UserError, match=r"'big' has 5 classes .*3, .*does not name"):
        _term('setkd').prepare(step, data)


def test_a_number_of_points():
    with pytest.raises(UserError, match='points=-1: give a number of at least 0'):
        _term('kd_detr', points=-1)


def test_the_methods_are_listed():
    lines = {line.split()[0]: line for line in describe_methods().splitlines()}
    for method in ('setkd', *METHODS):
        assert ' DETRs ' in lines[method]
    assert 'boxes' in lines['detrdistill'] and ' - ' in lines['kd_detr']
