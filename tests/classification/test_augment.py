"""The augmentations of a batch against a slow image at a time."""

import math
from collections import Counter
from itertools import product

import pytest
import torch

import mmkd  # noqa: F401  (before mmdet)
from mmkd.classification.data import BatchPreprocessor, ClassificationSample
from mmkd.classification.data.augment import crop_and_flip, cutmix, mixup
from mmkd.distillation.teachers import renormalisation
from mmkd.errors import UserError
from mmkd.registry import MODELS

MEAN, STD = [125.3, 123.0, 113.9], [63.0, 62.1, 66.7]


def _images(batch=5, height=6, width=7, seed=0):
    # No zeros, so that the padding can be told apart.
    return torch.randint(1, 256, (batch, 3, height, width), dtype=torch.uint8,
                         generator=torch.Generator().manual_seed(seed))


def _slow(image, top, left, mirrored, padding):
    """Pad, crop and mirror one image."""
    channels, height, width = image.shape
    padded = torch.zeros(channels, height + 2 * padding, width + 2 * padding, dtype=image.dtype)
    padded[:, padding:padding + height, padding:padding + width] = image
    crop = padded[:, top:top + height, left:left + width]
    return crop.flip(2) if mirrored else crop


def _all_draws(padding):
    """Every (top, left, mirrored), in this order."""
    return list(product(range(2 * padding + 1), range(2 * padding + 1), (False, True)))


def _draws_of(image, out, padding):
    """All draws whose slow result is `out`."""
    return [draw for draw in _all_draws(padding)
            if torch.equal(_slow(image, *draw, padding), out)]


@pytest.mark.parametrize('padding', [0, 1, 2])
@pytest.mark.parametrize('flip', [True, False])
def test_every_view_is_a_crop_of_its_own(padding, flip):
    count = (2 * padding + 1) ** 2 * (1 + flip)
    assert BatchPreprocessor(MEAN, STD, padding, flip).num_views == count
    images = _images(batch=count)
    out = crop_and_flip(images, padding, flip, torch.arange(count))
    assert out.dtype == torch.uint8 and out.shape == images.shape
    draws = [draw for draw in _all_draws(padding) if flip or not draw[-1]]
    for image, result, draw in zip(images, out, draws, strict=True):
        assert torch.equal(result, _slow(image, *draw, padding)), draw


def _training(preprocessor, images, **fields):
    """Which (top, left, mirrored) each image of a training batch is, one at a time by hand."""
    sample = ClassificationSample(labels=torch.zeros(len(images), dtype=torch.int64), **fields)
    out = preprocessor(dict(inputs=images, data_samples=sample), training=True)
    draws = [_draws_of(image, _bytes(result), preprocessor.crop_padding)
             for image, result in zip(images, out['inputs'], strict=True)]
    assert all(len(found) == 1 for found in draws)  # a draw explains it, and only one
    return [found[0] for found in draws], out['data_samples']


def test_draws_are_uniform():
    image = _images(batch=1, height=3, width=3)
    count, padding = 9000, 1
    torch.manual_seed(0)
    out = BatchPreprocessor(MEAN, STD, padding)(dict(inputs=image.repeat(count, 1, 1, 1)), True)
    keys = {_slow(image[0], *draw, padding).numpy().tobytes(): draw for draw in _all_draws(padding)}
    assert len(keys) == 18
    seen = Counter(keys[result.numpy().tobytes()] for result in _bytes(out['inputs']))
    # Chi-squared with 17 degrees of freedom: above 40.8 in one of a thousand seeds.
    assert sum((seen[key] - count / 18) ** 2 / (count / 18) for key in keys.values()) < 40.8


def test_a_batch_says_which_views_it_holds():
    preprocessor = BatchPreprocessor(MEAN, STD, crop_padding=2)
    torch.manual_seed(0)
    draws, sample = _training(preprocessor, _images(6), indices=torch.arange(6) + 100)
    assert len(set(draws)) > 3
    assert sample.views.dtype == 'int64' and sample.views[:, 0].tolist() == list(range(100, 106))
    assert sample.views[:, 1].tolist() == [(top * 5 + left) * 2 + mirrored
                                           for top, left, mirrored in draws]
    assert 'views' not in preprocessor(_batch())['data_samples'], 'a test image has no views'


def test_view_seeds_settle_the_draw():
    preprocessor = BatchPreprocessor(MEAN, STD, crop_padding=2)
    seeds = torch.tensor([0, 49, 50, 12345678901234, 2 ** 63 - 1, 7]).numpy()
    for _ in range(2):
        before = torch.get_rng_state()
        draws, _ = _training(preprocessor, _images(6), view_seeds=seeds)
        assert torch.equal(torch.get_rng_state(), before), 'and nothing is drawn'
        assert [(top * 5 + left) * 2 + mirrored for top, left, mirrored in draws] == [
            seed % 50 for seed in seeds.tolist()]


@pytest.mark.parametrize('options', [dict(mixup=0.2), dict(cutmix=1.0), dict(views=2),
                                     dict(pairs=True)])
def test_mixed_images_have_no_view(options):
    preprocessor = BatchPreprocessor(MEAN, STD, crop_padding=1, **options)
    batch = _batch(6)
    batch['data_samples'].labels = torch.tensor([4, 1, 4, 4, 1, 4])
    assert 'views' not in preprocessor(batch, training=True)['data_samples']
    batch['data_samples'].view_seeds = torch.arange(6).numpy()
    with pytest.raises(UserError, match='cannot mix, repeat or pair fixed views'):
        preprocessor(batch, training=True)
    preprocessor(batch)


def test_without_padding_or_flip():
    images = _images(batch=12)
    torch.manual_seed(0)
    plain, _ = _training(BatchPreprocessor(MEAN, STD, 0, flip=False), images)
    assert plain == [(0, 0, False)] * 12
    only_mirrored, _ = _training(BatchPreprocessor(MEAN, STD, 0), images)
    assert set(only_mirrored) == {(0, 0, False), (0, 0, True)}
    only_moved, _ = _training(BatchPreprocessor(MEAN, STD, 1, flip=False), images)
    assert not any(mirrored for *_, mirrored in only_moved) and len(set(only_moved)) > 1


def _batch(batch=5, **kwargs):
    return dict(inputs=_images(batch, **kwargs), data_samples=ClassificationSample(
        labels=torch.arange(batch), indices=torch.arange(batch) + 100))


def _normalised(images):
    mean, std = (torch.tensor(v, dtype=torch.float64).view(3, 1, 1) for v in (MEAN, STD))
    return ((images.double() - mean) / std).float()


def test_a_test_batch_is_only_normalised():
    preprocessor = MODELS.build(dict(type='mmkd.BatchPreprocessor', mean=MEAN, std=STD, mixup=1.0))
    batch = _batch()
    before = batch['inputs'].clone()
    out = preprocessor(batch)
    torch.testing.assert_close(out['inputs'], _normalised(before))
    assert out['inputs'].dtype == torch.float32
    assert torch.equal(batch['inputs'], before)
    assert 'lam' not in out['data_samples']
    only_images = preprocessor(dict(inputs=before.float()))
    torch.testing.assert_close(only_images['inputs'], out['inputs'])
    assert only_images['data_samples'] is None


def test_a_training_batch_depends_on_the_generator_alone():
    preprocessor = BatchPreprocessor(MEAN, STD)
    batch = _batch()
    torch.manual_seed(1)
    first = preprocessor(batch, training=True)['inputs']
    second = preprocessor(batch, training=True)['inputs']
    torch.manual_seed(1)
    assert torch.equal(first, preprocessor(batch, training=True)['inputs'])
    assert not torch.equal(first, second)
    # The border is black before normalisation, as in the literature.
    torch.manual_seed(1)
    (draw, *_), sample = _training(preprocessor, batch['inputs'], indices=torch.arange(5))
    crops = crop_and_flip(batch['inputs'], 4, True, torch.from_numpy(sample.views[:, 1]))
    torch.testing.assert_close(first, _normalised(crops))
    assert torch.equal(crops[0], _slow(batch['inputs'][0], *draw, 4))


def test_mixup():
    preprocessor = BatchPreprocessor(MEAN, STD, crop_padding=0, flip=False, mixup=1.0)
    torch.manual_seed(0)
    batch = _batch()
    plain = _normalised(batch['inputs'])
    out = preprocessor(batch, training=True)
    sample = out['data_samples']
    lam = sample.lam.item()
    assert 0 < lam < 1 and sample.lam.dtype == torch.float32 and sample.lam.shape == ()
    assert sample.labels_a.tolist() == [0, 1, 2, 3, 4]
    assert 'labels' not in sample, 'no loss may take one of two labels for the label'
    assert sorted(sample.labels_b.tolist()) == [0, 1, 2, 3, 4]
    for i, j in enumerate(sample.labels_b.tolist()):
        torch.testing.assert_close(out['inputs'][i], lam * plain[i] + (1 - lam) * plain[j],
                                   rtol=1e-5, atol=1e-5)
    assert 'lam' not in batch['data_samples']


def test_cutmix():
    preprocessor = BatchPreprocessor(MEAN, STD, crop_padding=0, flip=False, cutmix=1.0)
    cut = 0
    for seed in range(20):
        torch.manual_seed(seed)
        batch = _batch(height=9, width=12)
        plain = _normalised(batch['inputs'])
        out = preprocessor(batch, training=True)
        sample = out['data_samples']
        for i, j in enumerate(sample.labels_b.tolist()):
            own, other = ((out['inputs'][i] - plain[k]).abs().amax(0) < 1e-5 for k in (i, j))
            assert bool((own | other).all())
            if i == j:
                continue
            assert own.float().mean().item() == pytest.approx(sample.lam.item(), abs=1e-6)
            rows, columns = (~own).nonzero().unbind(1)
            if len(rows):  # what is not its own is one full rectangle
                sides = [int(v.max() - v.min()) + 1 for v in (rows, columns)]
                assert math.prod(sides) == len(rows)
                cut += 1
    assert cut > 40


@pytest.mark.parametrize('alpha', [0.2, 1.0])
def test_shares_follow_the_beta_distribution(alpha):
    torch.manual_seed(0)
    shares = []
    for _ in range(2000):
        sample = ClassificationSample(labels=torch.zeros(1, dtype=torch.int64))
        mixup(torch.zeros(1, 1, 1, 1), sample, alpha)
        shares.append(sample.lam.item())
    shares = torch.tensor(shares)
    assert shares.mean().item() == pytest.approx(0.5, abs=0.03)
    # The variance of Beta(a, a) is 1 / (4 (2a + 1)).
    assert shares.var().item() == pytest.approx(1 / (4 * (2 * alpha + 1)), rel=0.08)


def test_the_area_that_cutmix_takes():
    # With alpha = 1 the rectangle's share is u = 1 - lam, uniform; along each side a fraction
    # E[clipped] = s (1 - s / 4) of s = sqrt(u) stays inside, so E[area] = E[u (1 - sqrt(u)/4)^2].
    expected = 1 / 2 - 2 / 4 / 2.5 + 1 / 16 / 3
    torch.manual_seed(0)
    kept = []
    for _ in range(2000):
        sample = ClassificationSample(labels=torch.zeros(1, dtype=torch.int64))
        cutmix(torch.zeros(1, 1, 64, 64), sample, 1.0)
        kept.append(sample.lam.item())
    assert 1 - sum(kept) / len(kept) == pytest.approx(expected, abs=0.03)


def test_views_are_augmented_independently():
    preprocessor = BatchPreprocessor(MEAN, STD, crop_padding=2, views=3)
    batch = _batch()
    torch.manual_seed(0)
    out = preprocessor(batch, training=True)
    assert out['inputs'].shape == (3, 5, 3, 6, 7)
    assert out['data_samples'].labels.tolist() == [0, 1, 2, 3, 4]
    for view in out['inputs']:
        for image, result in zip(batch['inputs'], view, strict=True):
            assert _draws_of(image, _bytes(result), 2)
    first, second, third = out['inputs']
    assert not torch.equal(first, second) and not torch.equal(second, third)
    assert preprocessor(batch)['inputs'].shape == (5, 3, 6, 7), 'a test image comes once'


def _bytes(normalised):
    mean, std = (torch.tensor(v).view(3, 1, 1) for v in (MEAN, STD))
    return (normalised * std + mean).round().to(torch.uint8)


def test_pairs_come_apart():
    preprocessor = BatchPreprocessor(MEAN, STD, crop_padding=0, flip=False, pairs=True)
    batch = _batch(6)
    batch['data_samples'].labels = torch.tensor([4, 1, 4, 4, 1, 4])
    plain = _normalised(batch['inputs'])
    out = preprocessor(batch, training=True)
    sample = out['data_samples']
    torch.testing.assert_close(out['inputs'], plain[:3])
    torch.testing.assert_close(sample.partners, plain[3:])
    assert sample.labels.tolist() == [4, 1, 4] and sample.indices.tolist() == [100, 101, 102]
    assert len(batch['data_samples'].labels) == 6, 'the batch of the loader stays as it was'
    assert 'partners' not in preprocessor(batch)['data_samples']


@pytest.mark.parametrize('labels', [[4, 1, 4, 1, 4, 4], [4, 1, 4, 4, 1]])
def test_halves_that_are_no_pairs(labels):
    batch = dict(inputs=_images(len(labels)),
                 data_samples=ClassificationSample(labels=torch.tensor(labels)))
    with pytest.raises(UserError, match=r"batch_sampler=dict\(type='PairSampler'\)"):
        BatchPreprocessor(MEAN, STD, pairs=True)(batch, training=True)


def test_a_teacher_gets_its_own_normalisation():
    student, teacher = BatchPreprocessor(MEAN, STD), BatchPreprocessor([0, 0, 0], [255, 255, 255])
    images = _images()
    inputs = student(dict(inputs=images))['inputs']
    torch.testing.assert_close(renormalisation(student, teacher)(inputs, None),
                               teacher(dict(inputs=images))['inputs'], rtol=1e-5, atol=1e-5)
    assert renormalisation(student, BatchPreprocessor(MEAN, STD)) is None


@pytest.mark.parametrize(('options', 'message'), [
    (dict(mixup=0.2, cutmix=1.0), 'both mixup and cutmix'), (dict(crop_padding=-1), 'at least 0'),
    (dict(mixup=-1.0), 'at least 0'), (dict(std=[1, 1, 0]), 'those of std above 0'),
    (dict(mean=[0.5]), 'three numbers'), (dict(views=0), 'at least 1'),
    (dict(views=1.5), 'at least 1'), (dict(views=2, mixup=0.2), 'both mixup and views'),
    (dict(pairs=True, views=2), 'both views and pairs'),
    (dict(pairs=True, cutmix=1.0), 'both cutmix and pairs')])
def test_bad_options(options, message):
    with pytest.raises(UserError, match=message):
        BatchPreprocessor(**{**dict(mean=MEAN, std=STD), **options})


def test_a_list_of_images_is_refused():
    with pytest.raises(UserError, match='whole_batch'):
        BatchPreprocessor(MEAN, STD)(dict(inputs=list(_images())))


@pytest.mark.gpu
@pytest.mark.skipif(not torch.cuda.is_available(), reason='no GPU')
def test_on_a_gpu():
    preprocessor = BatchPreprocessor(MEAN, STD, cutmix=1.0).cuda()
    torch.manual_seed(0)
    out = preprocessor(_batch(64, height=32, width=32), training=True)
    assert out['inputs'].is_cuda and out['data_samples'].labels_b.is_cuda
    torch.manual_seed(0)
    again = preprocessor(_batch(64, height=32, width=32), training=True)
    assert torch.equal(out['inputs'], again['inputs'])
    torch.testing.assert_close(preprocessor(_batch())['inputs'].cpu(),
                               _normalised(_batch()['inputs']))
