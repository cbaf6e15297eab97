"""Pictures of embeddings: which images, which values, what is drawn."""

import re

import numpy as np
import pytest
import torch
from torch.utils.data import DataLoader, Subset

from mmkd.classification.data import MemoryDataset, whole_batch
from mmkd.errors import UserError
from mmkd.registry import MODELS
from mmkd.visualization.embeddings import Panel, choose_images, draw_panels, embed, project

MEAN, STD = [100.0, 110.0, 120.0], [50.0, 60.0, 70.0]


def dataset(per_class=6, classes=4):
    generator = torch.Generator().manual_seed(0)
    images = torch.randint(0, 256, (per_class * classes, 3, 8, 8), dtype=torch.uint8,
                           generator=generator)
    labels = torch.arange(classes).repeat(per_class)
    return MemoryDataset(images, labels, [f'class{i}' for i in range(classes)])


def classifier():
    torch.manual_seed(0)
    return MODELS.build(dict(
        type='Classifier', backbone=dict(type='resnet8'), num_classes=4,
        data_preprocessor=dict(type='BatchPreprocessor', mean=MEAN, std=STD))).eval()


def test_images_are_spread_over_the_first_classes():
    chosen = choose_images(dataset(), classes=3, images=12)
    assert isinstance(chosen, Subset)
    labels = chosen.dataset.labels[chosen.indices]
    assert labels.bincount().tolist() == [4, 4, 4]
    assert len(choose_images(dataset(), classes=10, images=1000)) == 24


@pytest.mark.parametrize('classes, images, sentence', [
    (0, 100, '--classes is 0'), (1, 100, 'leave 6 images'), (4, 9, 'leave 9 images')])
def test_too_few_images_are_refused(classes, images, sentence):
    with pytest.raises(UserError, match=sentence):
        choose_images(dataset(), classes, images)


def test_a_data_set_without_classes_is_refused():
    with pytest.raises(UserError, match='list does not tell the classes'):
        choose_images([1, 2], 1, 10)


def test_embeddings_are_pooled_maps_and_predictions_their_linear_images():
    data, model = dataset(), classifier()
    loader = DataLoader(data, batch_size=7, collate_fn=whole_batch)
    features, predicted, labels = embed(model, loader)
    images = (data.images.double() - torch.tensor(MEAN)[:, None, None]) / torch.tensor(
        STD)[:, None, None]
    model = model.double()
    with torch.no_grad():
        maps = model.backbone.stem(images)
        for stage in (model.backbone.stage1, model.backbone.stage2, model.backbone.stage3):
            maps = stage(maps)
        pooled = maps.mean((2, 3))
        logits = pooled @ model.head.fc.weight.T + model.head.fc.bias
    torch.testing.assert_close(features.double(), pooled, atol=1e-4, rtol=1e-4)
    assert torch.equal(predicted, logits.argmax(1))
    assert torch.equal(labels, data.labels)
    assert not any(module._forward_hooks for module in model.modules())


def test_tsne_keeps_clusters_together_and_repeats():
    pytest.importorskip('sklearn')
    generator = torch.Generator().manual_seed(0)
    labels = torch.arange(3).repeat(8)
    features = torch.randn(24, 16, generator=generator) + 20 * torch.eye(3, 16)[labels]
    points = project(features, seed=3)
    assert points.shape == (24, 2)
    distances = np.linalg.norm(points[:, None] - points[None], axis=2) + 1e9 * np.eye(24)
    assert np.array_equal(labels[distances.argmin(1)], labels)
    assert np.array_equal(points, project(features, seed=3))


def test_every_image_is_a_point_of_every_panel(tmp_path):
    pytest.importorskip('matplotlib')
    labels = torch.arange(4).repeat(5)
    rng = np.random.default_rng(0)
    panels = [Panel(f'network{i}\ntop-1 {50 + i}.0', rng.normal(size=(20, 2))) for i in range(3)]
    draw_panels(panels, labels, ['cat', 'dog', 'owl', 'ant'], tmp_path / 'new/picture.svg')
    drawn = (tmp_path / 'new/picture.svg').read_text()
    assert drawn.count('<use ') >= 60
    assert len(re.findall('id="axes_', drawn)) == 3
    for text in ('network0', 'network2', 'top-1 52.0', 'cat', 'ant'):
        assert f'<!-- {text} -->' in drawn


def draw_four_points(path):
    pytest.importorskip('matplotlib')
    draw_panels([Panel('a', np.zeros((4, 2)))], torch.zeros(4, dtype=torch.int64), ['cat'], path)


@pytest.mark.parametrize('suffix, head', [('.png', b'\x89PNG'), ('.JPG', b'\xff\xd8'),
                                          ('.pdf', b'%PDF')])
def test_the_suffix_is_the_format(suffix, head, tmp_path):
    draw_four_points(tmp_path / f'picture{suffix}')
    assert (tmp_path / f'picture{suffix}').read_bytes().startswith(head)


def test_a_picture_that_cannot_be_written_is_the_user_s(tmp_path):
    (tmp_path / 'file').write_text('')
    with pytest.raises(UserError, match='cannot write'):
        draw_four_points(tmp_path / 'file/picture.png')
