"""Classifiers: graph, metadata, checks and the tool."""

from types import SimpleNamespace

import cv2
import numpy as np
import onnx
import pytest
import torch
from mmengine.config import Config
from mmengine.registry import DefaultScope
from torch import nn

from mmkd.classification import Classifier
from mmkd.deploy import Classifier as Runtime
from mmkd.deploy.export import export_onnx, exporter, load_model, model_metadata
from mmkd.deploy.export.classifier_graph import classifier_metadata
from mmkd.deploy.export.image_graph import with_preprocessing
from mmkd.deploy.export.verify import check_images, dataset_images
from mmkd.errors import UserError
from mmkd.registry import MODELS

CLASSES = ('cat', 'dog', 'emu')


def config_of(**dataset):
    dataset = dict(type='CIFAR10', data_root='data', split='test') | dataset
    return Config(dict(
        default_scope='mmkd',
        model=dict(type='Classifier', backbone=dict(type='resnet8'), num_classes=3,
                   data_preprocessor=dict(type='BatchPreprocessor', mean=[125.3, 123.0, 113.9],
                                          std=[63.0, 62.1, 66.7])),
        test_dataloader=dict(dataset=dataset)))


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
    """Images of 40 x 48 pixels in folders of three classes."""
    root = tmp_path_factory.mktemp('folders')
    generator = np.random.default_rng(0)
    for split in ('train', 'test'):
        for name in CLASSES:
            (root / split / name).mkdir(parents=True)
            for number in range(2):
                image = cv2.resize(generator.integers(0, 256, (5, 6, 3), dtype=np.uint8), (48, 40))
                cv2.imwrite(str(root / split / name / f'{number}.png'), image)
    return root


@pytest.fixture(scope='module')
def classifier(folder, tmp_path_factory):
    """A classifier of folders, its files, and its export."""
    out = tmp_path_factory.mktemp('classifier')
    cfg = config_of(type='ImageFolderInMemory', data_root=str(folder), image_size=32)
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
    # The shorter side to 32 and the centre cut out, by Pillow as the data set does it.
    from PIL import Image
    path = folder / 'test/dog/1.png'
    image = np.array(Image.open(path).resize((38, 32), Image.BILINEAR))[:, 3:35]
    mean, std = (np.array(classifier.model.cfg.model.data_preprocessor[name])
                 for name in ('mean', 'std'))
    inputs = torch.tensor((image - mean) / std, dtype=torch.float32).permute(2, 0, 1)[None]
    with torch.no_grad():
        expected = classifier.model(inputs).exp()[0].numpy()
    scores, labels = runtime(cv2.imread(str(path)), topk=3)
    np.testing.assert_allclose(scores, (expected / expected.sum())[labels], atol=1e-4)
    assert (np.diff(scores) < 0).all()


def test_an_image_inside_the_graph(classifier, images, tmp_path):
    described = model_metadata(classifier.model, image_input=True)
    proto = with_preprocessing(onnx.load(classifier.onnx), described)
    onnx.helper.set_model_props(proto, described.to_props())
    onnx.save(proto, tmp_path / 'image.onnx')
    session = Runtime(tmp_path / 'image.onnx').session
    agreement = check_images(lambda image: session.run(None, {'image': image}), classifier.model,
                             described, images)
    assert agreement.inputs == len(images)
    assert agreement.pixel_difference <= 1.01
    assert agreement.score_difference < 1e-5


def test_metadata_of_data_sets():
    def scaling(**dataset):
        found = classifier_metadata(lively(config_of(**dataset)))
        return found.input_size, found.resize_mode, found.resize_to

    assert scaling() == ((32, 32), 'stretch', (32, 32))
    assert scaling(type='TinyImageNet') == ((64, 64), 'stretch', (64, 64))
    assert scaling(type='ImageNetFolder') == ((224, 224), 'crop', (256, 256))
    assert scaling(type='ImageNetFolder', image_size=112) == ((112, 112), 'crop', (128, 128))
    with pytest.raises(UserError, match='is a VOCDataset'):
        scaling(type='VOCDataset')


def test_images_of_one_unknown_size(folder):
    cfg = config_of(type='ImageFolderInMemory', data_root=str(folder))
    metadata = classifier_metadata(lively(cfg))
    assert (metadata.input_size, metadata.resize_to) == ((40, 48), (48, 40))
    assert (metadata.channel_order, metadata.mean) == ('RGB', pytest.approx((125.3, 123.0, 113.9)))
    found = dataset_images(cfg, 2)
    path = folder / 'test/cat/0.png'
    np.testing.assert_array_equal(found[0], cv2.imread(str(path)))
    assert len(dataset_images(cfg, 1000)) == 6


def test_names_of_classes():
    model = lively(config_of())
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
        dataset_images(config_of(type='ImageFolderInMemory', data_root=str(tmp_path)), 1)
