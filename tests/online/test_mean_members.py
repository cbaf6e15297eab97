"""A cohort's moving averages predict beside its members."""

from types import SimpleNamespace

import torch

import mmkd  # noqa: F401
from mmkd.classification import Classifier
from mmkd.classification.data import ClassificationSample
from mmkd.distillation import DistillationHook
from mmkd.distillation.student_teachers import MeanTeacher
from mmkd.online import Cohort, MeanMembersHook

NETWORKS = dict(small='resnet8', wide='wrn_16_1')


def _predicted(cohort, images):
    return cohort(images, ClassificationSample(labels=torch.arange(len(images))), 'predict')[0]


def _moved(cohort):
    """Other weights for every parameter."""
    with torch.no_grad():
        for parameter in cohort.parameters():
            parameter += 0.05 * torch.randn(parameter.shape)


def _halfway(one, other):
    return {key: value if value.dtype == torch.int64 else (value + other[key]) / 2
            for key, value in one.items()}


def test_mean_members_predict_as_classifiers_of_the_mean_weights():
    torch.manual_seed(0)
    cohort = Cohort({name: dict(type='Classifier', backbone=dict(type=network), num_classes=5)
                     for name, network in NETWORKS.items()}).eval()
    teacher = MeanTeacher('mean', cohort, decay=0.999)
    states = []
    for _ in range(2):  # the first step takes the weights over, the second is half of the mean
        _moved(cohort)
        teacher.update(cohort)
        states.append({name: {key: value.clone() for key, value in member.state_dict().items()}
                       for name, member in cohort.members.items()})
    distillation, hook = DistillationHook(), MeanMembersHook()
    distillation.distillation = SimpleNamespace(teachers=[teacher])
    images = torch.randn(3, 3, 32, 32)
    before = _predicted(cohort, images)
    hook.before_run(SimpleNamespace(model=cohort, hooks=[distillation, hook]))
    found = _predicted(cohort, images)
    assert found.mean_scores.keys() == {'small.mean', 'wide.mean'}
    for name, network in NETWORKS.items():
        plain = Classifier(dict(type=network), 5).eval()
        plain.load_state_dict(_halfway(*(state[name] for state in states)))
        scores = plain(images).softmax(1)
        torch.testing.assert_close(found.mean_scores[f'{name}.mean'], scores, rtol=1e-4, atol=1e-5)
        torch.testing.assert_close(found.member_scores[name], before.member_scores[name])
        assert (scores - found.member_scores[name]).abs().max() > 1e-3
        assert not found.mean_scores[f'{name}.mean'].requires_grad
    torch.testing.assert_close(found.scores, before.scores)
    hook.after_run(None)
    assert not hasattr(_predicted(cohort, images), 'mean_scores')


def test_a_run_without_a_mean_teacher_is_left_as_it_is():
    cohort = Cohort({name: dict(type='Classifier', backbone=dict(type='resnet8'), num_classes=5)
                     for name in 'ab'}).eval()
    hook = MeanMembersHook()
    hook.before_run(SimpleNamespace(model=cohort, hooks=[DistillationHook(), hook]))
    assert not hasattr(_predicted(cohort, torch.zeros(2, 3, 32, 32)), 'mean_scores')
    hook.after_run(None)
