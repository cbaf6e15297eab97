"""The cohort, its accuracies, and the members' own checkpoints."""

from types import SimpleNamespace

import numpy as np
import pytest
import torch
from torch import nn

import mmkd  # noqa: F401
from mmkd.classification import Classifier, TopKAccuracy
from mmkd.classification.data import ClassificationSample
from mmkd.distillation import load_checkpoint_safely, load_weights
from mmkd.distillation.tap_paths import endpoints
from mmkd.errors import UserError
from mmkd.online import Cohort, CohortAccuracy, MemberCheckpointHook

NETWORKS = dict(small='resnet8', wide='wrn_16_1', other='vgg8')
SCORES = dict(a=[[0.8, 0.15, 0.05], [0.1, 0.2, 0.7], [0.45, 0.35, 0.2], [0.8, 0.15, 0.05]],
              b=[[0.05, 0.5, 0.45], [0.2, 0.1, 0.7], [0.0, 0.6, 0.4], [0.15, 0.8, 0.05]])
LABELS = [0, 2, 1, 2]


def _member(network, classes=5):
    return dict(type='Classifier', backbone=dict(type=network), num_classes=classes)


def _cohort(**options):
    torch.manual_seed(0)
    return Cohort({name: _member(network) for name, network in NETWORKS.items()}, **options)


def _batch():
    generator = torch.Generator().manual_seed(1)
    return (torch.randn(4, 3, 32, 32, generator=generator),
            ClassificationSample(labels=torch.arange(4)))


def test_members_train_as_if_alone():
    """Losses, accuracies and gradients are those of each classifier by itself."""
    cohort = _cohort()
    alone = {name: Classifier(dict(type=network), 5) for name, network in NETWORKS.items()}
    for name, model in alone.items():
        model.load_state_dict(cohort.members[name].state_dict())
    images, sample = _batch()
    losses = cohort(images, sample, mode='loss')
    total, log = cohort.parse_losses(losses)
    total.backward()
    assert total.item() == pytest.approx(sum(log[f'{name}.loss_ce'].item() for name in NETWORKS))
    for name, model in alone.items():
        theirs = model(images, sample, mode='loss')
        theirs['loss_ce'].backward()
        assert theirs.keys() == {'loss_ce', 'top1'}
        for key, value in theirs.items():
            torch.testing.assert_close(losses[f'{name}.{key}'], value)
        own = dict(cohort.members[name].named_parameters())
        for key, parameter in model.named_parameters():
            torch.testing.assert_close(own[key].grad, parameter.grad, msg=key)
    assert len(losses) == 6


def test_the_ensemble_is_the_mean_of_the_probabilities():
    cohort = _cohort().eval()
    images, sample = _batch()
    logits = {name: z.detach().double().numpy() for name, z in cohort(images).items()}
    [predicted] = cohort(images, sample, mode='predict')
    probabilities = {name: np.exp(z) / np.exp(z).sum(1, keepdims=True)
                     for name, z in logits.items()}
    assert predicted.member_scores.keys() == NETWORKS.keys()
    for name, p in probabilities.items():
        np.testing.assert_allclose(predicted.member_scores[name].detach().numpy(), p, rtol=1e-5)
    np.testing.assert_allclose(predicted.scores.detach().numpy(),
                               sum(probabilities.values()) / 3, rtol=1e-5)


def test_member_i_sees_view_i():
    cohort = _cohort().eval()
    views = torch.randn(3, 2, 3, 32, 32)
    logits = cohort(views)
    for view, (name, member) in zip(views, cohort.members.items(), strict=True):
        torch.testing.assert_close(logits[name], member(view))
    with pytest.raises(UserError, match=r'3 members was given 2 views .*set views=3'):
        cohort(views[:2])


def test_a_wildcard_stands_for_the_members_in_order():
    assert endpoints(_cohort(), 'members.*.head.fc') == [
        f'members.{name}.head.fc' for name in NETWORKS]


@pytest.mark.parametrize(('members', 'message'), [
    (dict(a=_member('resnet8')), r'^a cohort has at least two members, and this one has a: name '
     r'another network, .*MEMBERS=resnet32,resnet32\)$'),
    ({}, r'at least two members, and this one has none'),
    (dict(a=_member('resnet8', 5), b=_member('resnet8', 7)), r'5 \(a\), 7 \(b\): give them one'),
    (dict(a=_member('resnet8'), b=dict(type='resnet8')), r"member 'b' .* is a ResNetCIFAR"),
    (dict(a=_member('resnet8'), b=_member('resnet9')), r'resnet9'),
    *((dict.fromkeys(['a', name], _member('resnet8')), r'cannot be the name of a member')
      for name in ('epoch_1', 'a.b', 'my_loss', 'ensemble', 'keys', '../a', '')),
])
def test_a_cohort_that_cannot_be(members, message):
    with pytest.raises((UserError, KeyError), match=message):
        Cohort(members)


def _samples(scores, labels):
    scores = {name: torch.tensor(values) for name, values in scores.items()}
    mean = torch.stack(list(scores.values())).mean(0)
    return dict(member_scores=scores, scores=mean, labels=torch.tensor(labels))


def test_accuracies_by_hand():
    """Of four images a gets the first two right, b the second and third, both together three."""
    metric = CohortAccuracy(topk=(1, 2))
    for part in (slice(0, 3), slice(3, 4)):
        metric.process(None, [_samples({name: values[part] for name, values in SCORES.items()},
                                       LABELS[part])])
    assert metric.evaluate(4) == {
        'accuracy/a/top1': 50.0, 'accuracy/a/top2': 75.0,
        'accuracy/b/top1': 50.0, 'accuracy/b/top2': 50.0,
        'accuracy/ensemble/top1': 75.0, 'accuracy/ensemble/top2': 75.0,
        'accuracy/top1': 50.0, 'accuracy/top2': 62.5}


def test_mean_members_are_counted_and_in_no_mean():
    plain = _samples(SCORES, LABELS)
    means = {'a.mean': plain['member_scores']['b'], 'b.mean': torch.eye(3)[LABELS]}
    metric = CohortAccuracy(topk=(1, 2))
    metric.process(None, [plain | dict(mean_scores=means)])
    without = CohortAccuracy(topk=(1, 2))
    without.process(None, [plain])
    assert metric.evaluate(4) == without.evaluate(4) | {
        'accuracy/a.mean/top1': 50.0, 'accuracy/a.mean/top2': 50.0,
        'accuracy/b.mean/top1': 100.0, 'accuracy/b.mean/top2': 100.0}


def test_every_member_is_counted_as_a_classifier_is():
    generator = torch.Generator().manual_seed(0)
    scores = {name: torch.rand(50, 7, generator=generator).tolist() for name in 'abc'}
    labels = torch.randint(7, (50,), generator=generator).tolist()
    metric = CohortAccuracy()
    metric.process(None, [_samples(scores, labels)])
    found = metric.evaluate(40)  # a sampler repeated ten images
    for name, values in scores.items():
        alone = TopKAccuracy()
        alone.process(None, [dict(scores=torch.tensor(values), labels=torch.tensor(labels))])
        for key, value in alone.evaluate(40).items():
            assert found[key.replace('/', f'/{name}/')] == value


def _saved(cohort, work_dir, **meta):
    hook = MemberCheckpointHook()
    runner = SimpleNamespace(model=cohort, work_dir=str(work_dir))
    hook.before_run(runner)
    hook.before_save_checkpoint(runner, dict(state_dict=cohort.state_dict(), meta=meta,
                                             optimizer={}, distillation={}))


def test_every_member_is_a_plain_checkpoint(tmp_path):
    cohort = _cohort(data_preprocessor=dict(type='BatchPreprocessor', mean=[0.0] * 3,
                                            std=[1.0] * 3))
    _saved(cohort, tmp_path, epoch=7, iter=70, seed=1, dataset_meta=dict(classes=('x', 'y')))
    assert sorted(path.name for path in tmp_path.iterdir()) == [
        'other.pth', 'small.pth', 'wide.pth']
    images, _ = _batch()
    for name, network in NETWORKS.items():
        plain = Classifier(dict(type=network), 5)
        meta = load_weights(plain, tmp_path / f'{name}.pth')
        assert len(bytes.fromhex(meta.pop('weights_sha256'))) == 32
        assert meta == dict(epoch=7, iter=70, dataset_meta=dict(classes=('x', 'y')))
        torch.testing.assert_close(plain.eval()(images), cohort.eval()(images)[name])
        assert load_checkpoint_safely(tmp_path / f'{name}.pth').keys() == {'meta', 'state_dict'}


def test_a_write_that_fails_leaves_the_old_file(tmp_path, monkeypatch):
    cohort = _cohort()
    _saved(cohort, tmp_path, epoch=1)
    before = (tmp_path / 'small.pth').read_bytes()
    nn.init.zeros_(cohort.members['small'].head.fc.weight)

    def full(descriptor):
        raise OSError(28, 'No space left on device')

    monkeypatch.setattr('os.fsync', full)
    with pytest.raises(OSError, match='No space'):
        _saved(cohort, tmp_path, epoch=2)
    assert (tmp_path / 'small.pth').read_bytes() == before


def test_the_hook_is_for_cohorts():
    runner = SimpleNamespace(model=Classifier(dict(type='resnet8'), 5))
    with pytest.raises(UserError, match=r'the model is a Classifier: take the hook out'):
        MemberCheckpointHook().before_run(runner)
