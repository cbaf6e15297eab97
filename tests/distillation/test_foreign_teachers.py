"""Teachers that are no mmengine models: any nn.Module, by its dotted name."""

import pytest
import torch
from helpers import centernet, distillation, distillation_hook, runner, train_config
from mmengine.config import Config
from torch import nn

from mmkd.distillation.renormalisation import renormalisation
from mmkd.distillation.teachers import build_teacher
from mmkd.errors import UserError
from mmkd.teacher_cache.identity import teacher_identity

IMAGENET = dict(mean=[123.675, 116.28, 103.53], std=[58.395, 57.12, 57.375], bgr_to_rgb=True)


class Patches(nn.Module):
    """A network of patches of 14 px, as a vision transformer's first layer; notes its inputs."""

    def __init__(self, channels=8):
        super().__init__()
        self.embed = nn.Conv2d(3, channels, 14, stride=14)
        self.seen = []

    def forward(self, images):
        self.seen.append(images.shape[-2:])
        return self.embed(images)


def _entry(tmp_path, below='', **options):
    torch.manual_seed(0)
    network = Patches()
    torch.save({below + name: value for name, value in network.state_dict().items()},
               tmp_path / 'patches.pth')
    return dict(model=dict(type='test_foreign_teachers.Patches'),
                checkpoint=str(tmp_path / 'patches.pth'), **options)


def _built(tmp_path, entry):
    from mmengine.model import ImgDataPreprocessor
    options = {key: value for key, value in entry.items() if key not in ('model', 'checkpoint')}
    return build_teacher('patches', Config(dict(model=entry['model'])), entry['checkpoint'],
                         ImgDataPreprocessor(**IMAGENET), torch.device('cpu'), **options)


def test_it_teaches_a_detector(tmp_path):
    entry = _entry(tmp_path, 'backbone.', prefix='backbone.', preprocessor=IMAGENET, multiple_of=14)
    term = dict(tap='neck', teacher_tap='embed', size='student', loss=dict(type='PKDLoss'))
    hooks = distillation(dict(patches=entry), dict(pkd=term))
    run = runner(train_config(tmp_path, centernet(), hooks, iters=2))
    run.train()
    assert run.message_hub.log_scalars['train/loss_distill_pkd'].data[0].min() > 0
    model = distillation_hook(run).teachers[0].model
    assert {tuple(size) for size in model.seen} == {(70, 70)}, '64 px, rounded up to patches'
    assert all(p.grad is None for p in model.parameters())


def test_without_its_normalisation_it_is_refused(tmp_path):
    with pytest.raises(UserError, match=r"teacher 'patches' \(Patches\) does not say how"):
        _built(tmp_path, _entry(tmp_path))
    assert _built(tmp_path, _entry(tmp_path, preprocessor='none')) is not None


def test_a_prefix_that_nothing_has(tmp_path):
    with pytest.raises(UserError, match=r"has no entry below 'body\.', only below embed\."):
        _built(tmp_path, _entry(tmp_path, preprocessor=IMAGENET, prefix='body.'))


def test_pixels_are_those_that_the_teacher_wants():
    from mmengine.model import ImgDataPreprocessor
    student = ImgDataPreprocessor(mean=[10.0] * 3, std=[2.0] * 3, bgr_to_rgb=True)
    teacher = ImgDataPreprocessor(mean=[0.0] * 3, std=[4.0] * 3, bgr_to_rgb=True)
    inputs = torch.full((1, 3, 4, 6), 3.0)  # pixels of 16
    for options, size in ((dict(), (4, 6)), (dict(size=(8, 8)), (8, 8)),
                          (dict(multiple_of=5), (5, 10))):
        found = renormalisation(student, teacher, **options)(inputs, None)
        torch.testing.assert_close(found, torch.full((1, 3, *size), 4.0))
    assert renormalisation(student, student) is None
    torch.testing.assert_close(renormalisation(student, student, multiple_of=2)(inputs, None),
                               inputs)


@pytest.mark.parametrize('changed', [dict(size=(28, 28)), dict(multiple_of=14),
                                     dict(preprocessor='none')])
def test_a_cache_knows_how_its_teacher_was_fed(tmp_path, changed):
    entry = _entry(tmp_path, preprocessor=IMAGENET)
    assert teacher_identity(entry) == teacher_identity(dict(entry))
    assert teacher_identity(entry) != teacher_identity(entry | changed)


@pytest.mark.parametrize('teachers', [['patchs'], []])
def test_a_term_of_teachers_that_are_not_there(tmp_path, teachers):
    term = dict(tap='neck', teacher_tap='embed', loss=dict(type='PKDLoss'), teachers=teachers)
    hooks = distillation(dict(patches=_entry(tmp_path, preprocessor=IMAGENET)), dict(pkd=term))
    run = runner(train_config(tmp_path, centernet(), hooks, iters=1))
    with pytest.raises(UserError, match=r"term 'pkd' learns from teachers=.* this run has patches"):
        run.train()
