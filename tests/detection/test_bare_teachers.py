"""Teachers of a detector that are a backbone alone, or a vision transformer."""

import pytest
import torch
import torch.nn.functional as F
from dense_zoo import gradients, narrow, trained, values
from helpers import distillation, distillation_hook, train_config
from mmengine.model import ImgDataPreprocessor
from torch import nn

from mmkd.distillation.losses import InputError
from mmkd.distillation.renormalisation import renormalisation
from mmkd.distillation.step import Step
from mmkd.distillation.taps import flat
from mmkd.distillation.teacher_connectors import TokensToMap
from mmkd.distillation.teachers import Teacher
from mmkd.distillation.term import Term
from mmkd.errors import UserError
from mmkd.registry import MODELS
from mmkd.teacher_cache.options import fix_views

IMAGENET = dict(mean=[123.675, 116.28, 103.53], std=[58.395, 57.12, 57.375], bgr_to_rgb=True)
PATCH = 14
RESNET = dict(type='ResNet', depth=18, base_channels=8)
TOKENS = dict(type='TokensToMap', skip=1)


class TinyViT(nn.Module):
    """A class token and one token for each patch of 14 px, through one block."""

    def __init__(self, channels=16):
        super().__init__()
        self.embed = nn.Conv2d(3, channels, PATCH, stride=PATCH)
        self.token = nn.Parameter(torch.ones(1, 1, channels))
        self.block = nn.TransformerEncoderLayer(channels, 2, 2 * channels, batch_first=True)
        self.norm = nn.LayerNorm(channels)

    def forward(self, images):
        patches = self.embed(images).flatten(2).transpose(1, 2)
        tokens = torch.cat([self.token.expand(len(images), -1, -1), patches], 1)
        return self.norm(self.block(tokens))


class MeanColours(nn.Module):
    """The mean colour of each patch as its token, behind a token of nothing."""

    def __init__(self):
        super().__init__()
        self.tokens = nn.Identity()

    def forward(self, images):
        means = F.avg_pool2d(images, PATCH).flatten(2).transpose(1, 2)
        return self.tokens(torch.cat([torch.full_like(means[:, :1], 99.0), means], 1))


def _vit(folder, **options):
    torch.manual_seed(1)
    torch.save(TinyViT().state_dict(), folder / 'vit.pth')
    return dict(model=dict(type='test_bare_teachers.TinyViT'), checkpoint=str(folder / 'vit.pth'),
                **options)


def _resnet(folder, **options):
    """The backbone of a detector's checkpoint."""
    torch.manual_seed(1)
    state = MODELS.build(RESNET).state_dict()
    torch.save(dict(state_dict={f'backbone.{name}': value for name, value in state.items()}),
               folder / 'resnet.pth')
    return dict(model=RESNET, checkpoint=str(folder / 'resnet.pth'), prefix='backbone.', **options)


TEACHERS = {'ViT': (_vit, dict(multiple_of=PATCH), dict(teacher_tap='norm',
                                                        teacher_connector=TOKENS)),
            'ResNet': (_resnet, {}, dict(teacher_tap='layer3'))}


def _run(folder, name, loss='PKDLoss', preprocessor=IMAGENET, iters=2, connector=None, **changes):
    build, options, taps = TEACHERS[name]
    if preprocessor is not None:
        options = dict(options, preprocessor=preprocessor)
    term = dict(tap='neck:0', size='student', connector=dict(type='ConvConnector'),
                loss=dict(type=loss), **taps)
    if connector is not None:
        term['teacher_connector'] = connector
    cfg = train_config(folder / 'run', narrow('RetinaNet'), distillation(
        dict(big=build(folder, **options)), dict(mine=term)), iters=iters, batch=2, **changes)
    fix_views(cfg)
    return trained(cfg, gradients)


@pytest.mark.parametrize(('name', 'loss'), [('ViT', 'PKDLoss'), ('ResNet', 'CosineLoss')])
def test_it_teaches_a_retinanet(name, loss, tmp_path):
    run, found = _run(tmp_path, name, loss)
    assert all(0 < value < float('inf') for value in values(run, 'mine'))
    assert found['mine']['backbone.layer2.0.conv1.weight'] > 0
    assert 'bbox_head.retina_cls.weight' not in found['mine']
    assert not any('big' in key or 'connector' in key for key in run.model.state_dict())


@pytest.mark.parametrize('name', TEACHERS)
def test_a_cache_holds_what_the_tap_gives(name, tmp_path, cache):
    live, _ = _run(tmp_path, name, iters=1)
    run, _ = _run(tmp_path, name, iters=1, teacher_cache=cache)
    [teacher] = distillation_hook(run).teachers
    assert type(teacher).__name__ == 'CachedTeacher' and teacher.model is None
    # stored in float16
    assert values(run, 'mine')[0] == pytest.approx(values(live, 'mine')[0], rel=1e-3)
    stored = teacher.tap([TEACHERS[name][2]['teacher_tap']], torch.zeros(1, 3, 64, 64))
    [leaf] = flat(stored).values()
    assert leaf.shape == ((1, 1 + 25, 16) if name == 'ViT' else (1, 32, 4, 4))


@pytest.mark.parametrize('name', TEACHERS)
def test_without_its_normalisation_it_is_refused(name, tmp_path):
    with pytest.raises(UserError, match=r"teacher 'big' \(.*\) does not say how its inputs are"):
        _run(tmp_path, name, preprocessor=None)


@pytest.mark.parametrize(('options', 'grid'), [
    ({}, (2, 3)), (dict(size=(56, 28)), (4, 2)), (dict(size=(43, 30), multiple_of=14), (4, 3))])
def test_the_map_is_that_of_what_the_teacher_was_fed(options, grid):
    """Each cell holds the mean colour of its patch of the teacher's own, resized, input."""
    inputs = torch.randn(2, 3, 28, 42, generator=torch.Generator().manual_seed(0))
    same = ImgDataPreprocessor()
    teacher = Teacher('t', MeanColours(), renormalise=renormalisation(same, same, **options))
    own = dict(map=torch.zeros(2, 3, 2, 3))
    term = Term(dict(type='FitNetLoss'), tap='map', teacher_tap='tokens', size='teacher',
                teacher_connector=TOKENS)
    found = teacher.tap(['tokens'], inputs)
    step = Step(own, [teacher], dict(t=flat(found)), None, inputs=inputs)
    term.pair(dict(map=own), dict(t=found), step)
    term.prepare(step, None)
    fed = F.interpolate(inputs, tuple(14 * side for side in grid), mode='bilinear',
                        align_corners=False) if options else inputs
    expected = torch.stack([fed[..., 14 * y:14 * y + 14, 14 * x:14 * x + 14].mean((2, 3))
                            for y in range(grid[0]) for x in range(grid[1])], 2)
    [_], [seen] = term.features(step, 't')
    torch.testing.assert_close(seen, expected.view(2, 3, *grid))
    assert term.compute(step).item() == pytest.approx(expected.square().mean().item(), rel=1e-5)


def test_a_vit_meets_the_level_of_its_stride():
    """A map of tokens has a stride, so that match='stride' finds the level for it."""
    inputs = torch.zeros(1, 3, 56, 56)
    own = {f'neck:{i}': torch.zeros(1, 3, side, side) for i, side in enumerate((8, 4, 2))}
    teacher = Teacher('t', MeanColours())
    found = teacher.tap(['tokens'], inputs)
    step = Step(own, [teacher], dict(t=flat(found)), None, inputs=inputs)
    term = Term(dict(type='FitNetLoss'), tap='neck:*', teacher_tap='tokens', match='stride',
                teacher_connector=TOKENS)
    term.pair({'neck:*': own}, dict(t=found), step)
    assert term.pairs['t'] == (['neck:1'], ['tokens'])


def test_tokens_stand_row_by_row():
    tokens = torch.tensor([[[9.0, 9.0], [0, 10], [1, 11], [2, 12], [3, 13], [4, 14], [5, 15]]])
    found = TokensToMap(skip=1)(tokens, (33, 50))
    assert found.tolist() == [[[[0, 1, 2], [3, 4, 5]], [[10, 11, 12], [13, 14, 15]]]]
    assert TokensToMap()(torch.zeros(1, 12, 1), (33, 49)).shape == (1, 1, 3, 4)  # padded, p = 16


@pytest.mark.parametrize(('skip', 'shape', 'message'), [
    (0, (1, 17, 4), r'17 tokens without the first 0 are no grid.*\(64, 64\) pixels.*`skip`'),
    (17, (1, 17, 4), 'are no grid'), (30, (1, 17, 4), 'are no grid'),
    (1, (1, 4, 8, 8), r'takes tokens \(batch, number, channels\), not .*\(1, 4, 8, 8\)')])
def test_what_is_no_grid_of_patches(skip, shape, message):
    with pytest.raises(InputError, match=message):
        TokensToMap(skip)(torch.zeros(shape), (64, 64))


def test_a_wrong_number_of_other_tokens_names_the_term(tmp_path):
    with pytest.raises(UserError, match=r"term 'mine', teacher 'big': 26 tokens without the first"):
        _run(tmp_path, 'ViT', connector=dict(type='TokensToMap'))


def test_what_cannot_be_a_teacher_connector():
    with pytest.raises(UserError, match='ConvConnector has parameters, which nothing would train'):
        Term(dict(type='PKDLoss'), tap='x', teacher_connector=dict(
            type='ConvConnector', student_channels=1, teacher_channels=1))
    with pytest.raises(UserError, match='groups of taps, which go to the loss as they are'):
        Term(dict(type='PKDLoss'), tap=dict(a='x'), teacher_connector=TOKENS)
    for skip in (-1, True, 1.5):
        with pytest.raises(UserError, match='number of tokens before'):
            TokensToMap(skip)
