"""DKD on proposals: the teacher's second stage on the student's regions."""

from types import SimpleNamespace

import pytest
import torch
from dense_zoo import build, copied, distilled, one_more_step, refusal, saved, values
from formulas import dkd
from helpers import CLASSES, distillation_hook
from zoo import model

from mmkd.detection.proposal_term import LABELS, LOGITS, ROIS, ProposalTerm
from mmkd.distillation.step import Step
from mmkd.distillation.teachers import Teacher
from mmkd.errors import UserError
from mmkd.registry import MODELS


def _faster(num_classes=3, **roi):
    """A Faster R-CNN of few channels and few proposals."""
    cfg = model('Faster R-CNN')
    cfg.backbone.update(base_channels=8)
    cfg.neck.update(in_channels=[8, 16, 32, 64], out_channels=16)
    cfg.rpn_head.update(in_channels=16, feat_channels=16)
    cfg.roi_head.bbox_roi_extractor.update(out_channels=16)
    cfg.roi_head.bbox_head.update(in_channels=16, fc_out_channels=16, num_classes=num_classes,
                                  **roi)
    cfg.train_cfg.rcnn.sampler.num = 12
    for part in (cfg.train_cfg.rpn_proposal, cfg.test_cfg.rpn):
        part.update(nms_pre=20, max_per_img=20)
    return cfg


def _labels(rois, samples):
    """The class of the box that a proposal covers by half, or 3 for background."""
    found = []
    for image, *roi in rois.tolist():
        truth = samples[int(image)].gt_instances
        overlaps = [_iou(roi, box) for box in truth.bboxes.tolist()]
        best = max(range(len(overlaps)), key=overlaps.__getitem__)
        found.append(truth.labels[best].item() if overlaps[best] >= 0.5 else 3)
    return found


def _iou(a, b):
    width = min(a[2], b[2]) - max(a[0], b[0])
    height = min(a[3], b[3]) - max(a[1], b[1])
    common = max(width, 0) * max(height, 0)
    return common / (sum((x[2] - x[0]) * (x[3] - x[1]) for x in (a, b)) - common)


def _once_more(run):
    """One more step: the term, its gradients, and the same worked out from the models alone."""
    student, seen = run.model, {}
    handles = [
        student.roi_head.bbox_roi_extractor.register_forward_pre_hook(
            lambda _, given: seen.update(rois=given[1])),
        student.roi_head.bbox_head.register_forward_hook(
            lambda _, given, out: seen.update(logits=out[0]))]
    batch, losses, reached = one_more_step(run)
    for handle in handles:
        handle.remove()
    [teacher] = distillation_hook(run).teachers
    head = teacher.model.roi_head
    with torch.no_grad():
        maps = teacher.model.extract_feat(batch['inputs'])
        logits = head.bbox_head(head.bbox_roi_extractor(maps[:4], seen['rois']))[0]
    labels = _labels(seen['rois'], batch['data_samples'])
    expected = dkd(seen['logits'].double().tolist(), logits.double().tolist(), labels, beta=0.25)
    return losses['dkd'], expected, labels, reached['dkd']


def test_a_whole_step_equals_the_formula(tmp_path):
    _, (value, expected, labels, found) = distilled(
        tmp_path, _faster(), saved(tmp_path, _faster()), ['dkd'], _once_more, iters=1)
    assert value > 0 and value == pytest.approx(expected, rel=1e-4)
    assert 3 in labels and min(labels) < 3, 'background and objects'
    for name in ('backbone.layer3.0.conv1.weight', 'neck.fpn_convs.0.conv.weight',
                 'roi_head.bbox_head.fc_cls.weight', 'roi_head.bbox_head.shared_fcs.0.weight'):
        assert found[name] > 0
    assert not found.get('roi_head.bbox_head.fc_reg.weight'), 'boxes are left out'
    assert not found.get('rpn_head.rpn_conv.weight')


def test_a_student_that_equals_its_teacher_has_nothing_to_learn(tmp_path):
    cfg = _faster()
    cfg.neck.pop('norm_cfg', None)
    run = copied(tmp_path, cfg, ['dkd'])
    assert values(run, 'dkd')[0] == pytest.approx(0, abs=1e-5)


def _step(teacher, size=(64, 64)):
    rois = torch.tensor([[0.0, 4, 8, 30, 40], [1, 0, 0, 60, 62]])
    student = {LOGITS: torch.zeros(2, 4), ROIS: rois, LABELS: torch.tensor([3, 0])}
    maps = [torch.randn(2, 16, 64 // s, 64 // s, generator=torch.Generator().manual_seed(s))
            for s in (4, 8, 16, 32)]
    step = Step(student, [teacher], dict(t={f'map:{i}': one for i, one in enumerate(maps)}), [],
                SimpleNamespace(roi_head=SimpleNamespace(bbox_head=SimpleNamespace(num_classes=3))),
                torch.zeros(2, 3, *size))
    term = ProposalTerm(dict(type='DKDLoss'))
    term.pairs['t'] = [LOGITS], list(step.taps['t'])
    return term, step, rois, maps


def test_classes_are_found_by_name_and_background_comes_last():
    detector = build(_faster(num_classes=5)).eval()
    names = ('other', CLASSES[2], CLASSES[0], 'more', CLASSES[1])
    term, step, rois, maps = _step(Teacher('t', detector, classes=names))
    term.prepare(step, SimpleNamespace(metainfo=dict(classes=CLASSES)))
    with torch.no_grad():
        logits = detector.roi_head._bbox_forward(maps, rois)['cls_score']
    [_], [found] = term.features(step, 't')
    torch.testing.assert_close(found, torch.stack([logits[:, i] for i in (2, 4, 1, 5)], 1))


def test_proposals_lie_where_the_teacher_sees_them():
    """A teacher that is fed half as high and twice as wide gets its regions so."""
    detector = build(_faster()).eval()
    term, step, _, maps = _step(Teacher('t', detector, classes=CLASSES), size=(128, 32))
    step.teachers[0].input_size = lambda own: (own[0] // 2, own[1] * 2)
    term.prepare(step, SimpleNamespace(metainfo=dict(classes=CLASSES)))
    scaled = torch.tensor([[0.0, 8, 4, 60, 20], [1, 0, 0, 120, 31]])
    with torch.no_grad():
        expected = detector.roi_head._bbox_forward(maps, scaled)['cls_score']
    torch.testing.assert_close(term.features(step, 't')[1][0], expected)


def test_classes_that_are_not_named_and_not_as_many():
    term, step, *_ = _step(Teacher('t', build(_faster(num_classes=5))))
    with pytest.raises(UserError, match=r"teacher 't' has 5 classes and the student 3.*meta"):
        term.prepare(step, SimpleNamespace())


@pytest.mark.parametrize(('name', 'kind'), [
    ('Cascade R-CNN', 'the head CascadeRoIHead'), ('Sparse R-CNN', 'the head SparseRoIHead'),
    ('RetinaNet', 'no roi_head')])
def test_other_detectors_are_named(name, kind):
    term = ProposalTerm(dict(type='DKDLoss'))
    term.name = 'dkd'
    faster, other = build(_faster()), MODELS.build(model(name))
    for student, teacher, who in ((other, faster, 'the student'), (faster, other, "teacher 'big'")):
        message = refusal(term, student, teacher)
        assert f'and {who} ({type(other).__name__}) has {kind}: take one ' in message
        assert ' pkd' in message


def test_sigmoid_classes_are_refused():
    sigmoid = build(_faster(loss_cls=dict(type='CrossEntropyLoss', use_sigmoid=True)))
    term = ProposalTerm(dict(type='DKDLoss'))
    assert term.needs_model, 'no cache can serve it'
    assert 'has classes that are no softmax' in refusal(term, sigmoid)
