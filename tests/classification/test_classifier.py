"""The classifier's losses and taps, its accuracy, and the accuracies that a run keeps."""

import json
from types import SimpleNamespace

import numpy as np
import pytest
import torch

import mmkd  # noqa: F401
from mmkd.classification import BestAndLastHook, Classifier, TopKAccuracy
from mmkd.classification.data import ClassificationSample
from mmkd.errors import UserError


def _classifier(**options):
    torch.manual_seed(0)
    return Classifier(dict(type='resnet8'), num_classes=5, **options)


def _cross_entropy(logits, labels, smoothing=0.0):
    logits = logits.detach().double().numpy()
    log_p = logits - np.log(np.exp(logits).sum(1, keepdims=True))
    target = np.full(logits.shape, smoothing / logits.shape[1])
    target[np.arange(len(labels)), labels] += 1 - smoothing
    return -(target * log_p).sum(1).mean()


@pytest.mark.parametrize(('weight', 'smoothing'), [(1.0, 0.0), (0.1, 0.2)])
def test_cross_entropy_by_hand(weight, smoothing):
    model = _classifier(ce_weight=weight, label_smoothing=smoothing).eval()
    images, labels = torch.randn(4, 3, 32, 32), torch.tensor([0, 4, 2, 2])
    logits = model(images)
    losses = model(images, ClassificationSample(labels=labels), mode='loss')
    expected = weight * _cross_entropy(logits, labels, smoothing)
    assert losses['loss_ce'].item() == pytest.approx(expected, rel=1e-5)
    assert losses['top1'].item() == pytest.approx(
        100 * np.mean(logits.detach().numpy().argmax(1) == labels.numpy()))


def test_a_mixed_batch_has_two_labels():
    model = _classifier().eval()
    images = torch.randn(3, 3, 32, 32)
    first, second = torch.tensor([0, 1, 2]), torch.tensor([3, 3, 4])
    sample = ClassificationSample(labels_a=first, labels_b=second, lam=torch.tensor(0.3))
    losses = model(images, sample, mode='loss')
    logits = model(images)
    expected = 0.3 * _cross_entropy(logits, first) + 0.7 * _cross_entropy(logits, second)
    assert losses['loss_ce'].item() == pytest.approx(expected, rel=1e-5)
    assert set(losses) == {'loss_ce'}, 'no accuracy where no image has one label'


def test_views_are_more_images_with_the_same_labels():
    model = _classifier().eval()
    views, labels = torch.randn(2, 3, 3, 32, 32), torch.tensor([0, 4, 2])
    losses = model(views, ClassificationSample(labels=labels), mode='loss')
    each = [model(view) for view in views]
    expected = np.mean([_cross_entropy(logits, labels) for logits in each])
    assert losses['loss_ce'].item() == pytest.approx(expected, rel=1e-5)
    right = np.mean([(logits.argmax(1) == labels).float().mean().item() for logits in each])
    assert losses['top1'].item() == pytest.approx(100 * right)
    torch.testing.assert_close(model(views), torch.cat(each))


def test_prediction_is_a_distribution_per_image():
    model = _classifier().eval()
    sample = ClassificationSample(labels=torch.zeros(2, dtype=torch.int64))
    [predicted] = model(torch.randn(2, 3, 32, 32), sample, mode='predict')
    torch.testing.assert_close(predicted.scores.sum(1), torch.ones(2))
    images = torch.randn(2, 3, 32, 32)
    [unlabelled] = model(images, mode='predict')  # nothing is known of these images
    torch.testing.assert_close(unlabelled.scores, model(images).softmax(1))


@pytest.mark.parametrize('bad', [dict(ce_weight=-1.0), dict(label_smoothing=1.0)])
def test_options_out_of_range(bad):
    with pytest.raises(UserError, match=r'give ce_weight of at least 0'):
        _classifier(**bad)


def test_top_k_accuracy():
    metric = TopKAccuracy(topk=(1, 2, 9))
    scores = torch.tensor([[0.1, 0.7, 0.2], [0.5, 0.1, 0.4], [0.3, 0.3001, 0.3999]])
    metric.process(None, [dict(scores=scores, labels=torch.tensor([1, 2, 0]))])
    metric.process(None, [dict(scores=scores[:1], labels=torch.tensor([2]))])
    result = metric.evaluate(4)
    assert result == {'accuracy/top1': 25.0, 'accuracy/top2': 75.0, 'accuracy/top9': 100.0}


def test_images_that_a_sampler_repeated_are_not_counted():
    metric = TopKAccuracy(topk=(1,))
    scores = torch.eye(3)
    metric.process(None, [dict(scores=scores, labels=torch.tensor([0, 1, 0]))])
    assert metric.evaluate(2) == {'accuracy/top1': 100.0}


def _runner(folder, epoch):
    lines = []
    return SimpleNamespace(work_dir=str(folder), epoch=epoch,
                           logger=SimpleNamespace(info=lines.append), lines=lines)


def test_best_and_last_epoch_also_after_a_resume(tmp_path):
    hook = BestAndLastHook()
    hook.before_train(_runner(tmp_path, 0))
    for epoch, top1 in ((1, 50.0), (2, 70.0), (3, 10.0)):
        hook.after_val_epoch(_runner(tmp_path, epoch), {'accuracy/top1': top1})
    resumed, runner = BestAndLastHook(), _runner(tmp_path, 2)  # the checkpoint of epoch 2
    resumed.before_train(runner)
    runner.epoch = 3
    resumed.after_val_epoch(runner, {'accuracy/top1': 60.0})
    resumed.after_train(runner)
    assert 'last 60.00 (epoch 3), best 70.00 (epoch 2' in runner.lines[0]
    kept = json.loads((tmp_path / 'accuracy.json').read_text())
    assert [kept[epoch]['accuracy/top1'] for epoch in '123'] == [50.0, 70.0, 60.0]
