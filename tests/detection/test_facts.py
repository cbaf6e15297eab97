"""What losses may ask by name of the batches of detectors."""

from types import SimpleNamespace

import pytest
import torch
from mmdet.structures import DetDataSample
from mmdet.structures.bbox import HorizontalBoxes
from mmengine.structures import InstanceData

import mmkd.detection  # noqa: F401
from mmkd.distillation import step as step_module
from mmkd.distillation.step import Step, facts_for, known_facts
from mmkd.errors import UserError

BOXES = [torch.tensor([[1.0, 2.0, 30.0, 40.0], [5.0, 6.0, 7.0, 8.0]]), torch.zeros(0, 4)]
LABELS = [torch.tensor([2, 0]), torch.zeros(0, dtype=torch.int64)]


def _sample(boxes, labels, shape):
    sample = DetDataSample(metainfo=dict(img_shape=shape, batch_input_shape=(64, 96)))
    sample.gt_instances = InstanceData(bboxes=boxes, labels=labels)
    return sample


def _samples():
    return [_sample(HorizontalBoxes(BOXES[0]), LABELS[0], (48, 90, 3)),
            _sample(BOXES[1], LABELS[1], (64, 96))]


def _step(samples, model=None):
    return Step({}, [], {}, samples, model, torch.zeros(2, 3, 64, 96))


def _facts(step, given=None, **wanted):
    return facts_for(wanted, step, given or {}, 'feature', 'SomeLoss')


def test_boxes_labels_and_sizes_of_every_image():
    model = torch.nn.Identity()
    found = _facts(_step(_samples(), model), boxes=True, labels=True, img_shapes=True,
                   input_size=True, student_model=True)
    assert all(type(boxes) is torch.Tensor for boxes in found['boxes'])
    for own, expected in zip([*found['boxes'], *found['labels']], [*BOXES, *LABELS], strict=True):
        assert torch.equal(own, expected)
    assert found['img_shapes'] == [(48, 90), (64, 96)]
    assert found['input_size'] == (64, 96) and found['student_model'] is model
    assert set(found) <= set(known_facts())


def test_a_classifiers_batch_is_one_sample():
    labels = torch.tensor([3, 1])
    found = _facts(_step(SimpleNamespace(labels=labels)), labels=True, boxes=False, indices=False)
    assert set(found) == {'labels'} and found['labels'] is labels


def test_what_a_term_gives_comes_first_and_none_is_nothing():
    given = dict(labels='own', teacher_model=None)
    found = _facts(_step(_samples()), given, labels=True, teacher_model=False, image_weights=False)
    assert found == dict(labels='own')


@pytest.mark.parametrize('samples', [
    None, [DetDataSample(), DetDataSample()], SimpleNamespace(labels=torch.tensor([1]))])
def test_a_batch_without_boxes(samples):
    assert _facts(_step(samples), boxes=False, img_shapes=False) == {}
    with pytest.raises(UserError, match=r"term 'feature': SomeLoss needs `boxes` of every batch, "
                                        r'and the training data does not give it') as caught:
        _facts(_step(samples), boxes=True)
    assert 'Did you mean' not in str(caught.value)


@pytest.mark.parametrize(('name', 'meant'), [('boxs', 'boxes'), ('image_shapes', 'img_shapes'),
                                             ('warm_up', 'warmup')])
def test_a_fact_that_nobody_knows(name, meant):
    with pytest.raises(UserError, match=f"SomeLoss needs `{name}` .* Did you mean '{meant}'") as e:
        _facts(_step(_samples()), dict(warmup=1.0), **{name: True})
    assert '\n' not in str(e.value)
    assert _facts(_step(_samples()), **{name: False}) == {}


def test_a_fact_is_worked_out_once_a_step(monkeypatch):
    calls = []
    monkeypatch.setitem(step_module._FACTS, 'counted', lambda step: calls.append(step) or 7)
    step = _step(None)
    assert [_facts(step, counted=True), _facts(step, counted=True)] == [dict(counted=7)] * 2
    assert calls == [step]
    _facts(_step(None), counted=True)
    assert len(calls) == 2
