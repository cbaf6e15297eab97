"""Classifiers: graph, metadata, checks and the tool."""

from types import SimpleNamespace

import cv2
import numpy as np
import pytest
import torch
from mmengine.config import Config
from mmengine.registry import DefaultScope
from reference import classifier_config, with_metadata, write_folders
from torch import nn

from mmkd.classification import Classifier
from mmkd.deploy import Classifier as Runtime
from mmkd.deploy.export import export_onnx, exporter, load_model
from mmkd.deploy.export.classifier_graph import classifier_metadata
from mmkd.deploy.export.verify import check_images, dataset_images
from mmkd.errors import UserError
from mmkd.registry import DATASETS, MODELS

CLASSES = ('cat', 'dog', 'emu')


def lively(cfg):
    """A classifier whose probabilities differ from image to image."""
    torch.manual_seed(0)
    with DefaultScope.overwrite_default_scope('mmkd'):  # for fixtures of a module
        model = MODELS.build(cfg.model)
    for module in model.modules():
        if isinstance(module, nn.BatchNorm2d):
            nn.init.uniform_(module.running_mean, -0.1, 0.1)
            nn.init.uniform_(module.weight, 0.5, 1.5)
    nn.init.normal_(model.head.fc.weight)
    model.cfg, model.dataset_meta = cfg, dict(classes=CLASSES)
    return model.eval()


@pytest.fixture(scope='module')
def folder(tmp_path_factory):
    """Images of several shapes in folders of three classes."""
    return write_folders(tmp_path_factory.mktemp('folders'), CLASSES,
                         [(40, 48), (32, 32), (48, 96), (90, 45), (8, 12)])


@pytest.fixture(scope='module')
def classifier(folder, tmp_path_factory):
    """A classifier of folders, its files, and its export."""
    out = tmp_path_factory.mktemp('classifier')
    cfg = classifier_config(type='ImageFolderInMemory', data_root=str(folder), image_size=32)
    cfg.dump(out / 'config.py')
    torch.save(dict(state_dict=lively(cfg).state_dict(),
                    meta=dict(dataset_meta=dict(classes=CLASSES))), out / 'resnet8_1.pth')
    model = load_model(Config.fromfile(out / 'config.py'), out / 'resnet8_1.pth')
    checks = export_onnx(model, out / 'student.onnx', dataset_images(model.cfg, 4),
                         dynamic_size=True)
    return SimpleNamespace(model=model, onnx=out / 'student.onnx', checks=checks,
                           config=out / 'config.py', checkpoint=out / 'resnet8_1.pth')


def test_probabilities_are_those_of_pytorch(classifier, folder):
    on_random, on_images = classifier.checks
    assert (on_random.inputs, on_images.inputs) == (1 + 3 + 1 + 3, 4)
    assert 0 < on_images.score_difference < 1e-5
    runtime = Runtime(classifier.onnx)
    assert runtime.classes == CLASSES
    dataset = DATASETS.build(classifier.model.cfg.test_dataloader.dataset)
    batch = dataset.__getitems__(range(15))
    # The shorter side to 32 and the centre cut out, by Pillow as the data set does it.
    from PIL import Image
    image = np.array(Image.open(folder / 'val/cat/0.png').resize((38, 32), Image.BILINEAR))
    np.testing.assert_array_equal(batch['inputs'][0].permute(1, 2, 0), image[:, 3:35])
    with torch.no_grad():
        expected = classifier.model.test_step(batch)[0].scores.numpy()
    assert np.ptp(expected, axis=0).max() > 0.01
    found = runtime([cv2.imread(str(path)) for path in sorted(folder.glob('val/*/*.png'))])
    for (scores, labels), row in zip(found, expected, strict=True):
        np.testing.assert_array_equal(labels, np.argsort(-row))
        np.testing.assert_allclose(scores, -np.sort(-row), atol=1e-5)


def test_an_image_inside_the_graph(classifier, images, tmp_path):
    runtime = Runtime(with_metadata(classifier.onnx, tmp_path / 'image.onnx', dynamic_size=False,
                                    input_kind='image', batch=1))
    agreement = check_images(lambda image: runtime.session.run(None, {'image': image}),
                             classifier.model, runtime.metadata, images)
    assert agreement.inputs == len(images)
    assert agreement.pixel_difference <= 1.01
    assert agreement.score_difference < 1e-5


def test_metadata_of_data_sets():
    def scaling(**dataset):
        found = classifier_metadata(lively(classifier_config(**dataset)))
        return found.input_size, found.resize_mode, found.resize_to

    assert scaling() == ((32, 32), 'stretch', (32, 32))
    assert scaling(type='TinyImageNet') == ((64, 64), 'stretch', (64, 64))
    assert scaling(type='ImageNetFolder') == ((224, 224), 'crop', (256, 256))
    assert scaling(type='ImageNetFolder', image_size=112) == ((112, 112), 'crop', (128, 128))
    with pytest.raises(UserError, match='is a VOCDataset'):
        scaling(type='VOCDataset')


def test_images_of_one_unknown_size(tmp_path):
    write_folders(tmp_path, CLASSES, [(40, 48), (40, 48)])
    cfg = classifier_config(type='ImageFolderInMemory', data_root=str(tmp_path))
    metadata = classifier_metadata(lively(cfg))
    assert (metadata.input_size, metadata.resize_to) == ((40, 48), (48, 40))
    assert (metadata.channel_order, metadata.mean) == ('RGB', pytest.approx((125.3, 123.0, 113.9)))
    found = dataset_images(cfg, 2)
    np.testing.assert_array_equal(found[0], cv2.imread(str(tmp_path / 'val/cat/0.png')))
    assert len(dataset_images(cfg, 1000)) == 6


def test_names_of_classes():
    model = lively(classifier_config())
    model.dataset_meta = {}
    assert classifier_metadata(model).classes == ('0', '1', '2')
    model.dataset_meta = dict(classes=('a', 'b'))
    with pytest.raises(UserError, match='3 classes but its checkpoint names 2'):
        classifier_metadata(model)


def test_a_cohort_is_exported_member_by_member():
    member = dict(type='Classifier', backbone=dict(type='resnet8'), num_classes=3)
    cohort = MODELS.build(dict(type='Cohort', members=dict(resnet8_1=member, resnet8_2=member)))
    with pytest.raises(UserError, match='cohort of resnet8_1, resnet8_2: export one'):
        exporter.exportable(cohort)
    assert isinstance(cohort.members.resnet8_1, Classifier)


def test_a_missing_data_set(tmp_path):
    with pytest.raises(UserError, match='is missing'):
        dataset_images(classifier_config(type='ImageFolderInMemory', data_root=str(tmp_path)), 1)
