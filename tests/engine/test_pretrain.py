"""`mmkd pretrain`: a backbone learns on images alone, and what it leaves is loaded elsewhere."""

import cv2
import numpy as np
import pytest
import torch
from mmengine.config import Config

from mmkd.checkpoints import load_checkpoint_safely
from mmkd.commands.pretrain import main
from mmkd.engine.pretrain import pretraining
from mmkd.errors import UserError
from mmkd.registry import MODELS

CLASSIFIER = dict(type='Classifier', backbone=dict(type='resnet8'), num_classes=3,
                  data_preprocessor=dict(type='BatchPreprocessor', mean=[120.0] * 3,
                                         std=[60.0] * 3))
RETINANET = 'mmdet::retinanet/retinanet_r18_fpn_1x_coco.py'
QUICK = ['--size', '32', '--batch-size', '4', '--cfg-options', 'train_dataloader.num_workers=0',
         'train_dataloader.persistent_workers=False', 'log_level=WARNING']


@pytest.fixture
def photos(tmp_path):
    """Eight pictures of noise, none of the size that the backbone sees."""
    folder = tmp_path / 'photos' / 'below'
    folder.mkdir(parents=True)
    draws = np.random.default_rng(0)
    for i in range(8):
        cv2.imwrite(str(folder / f'{i}.png'), draws.integers(0, 255, (40, 50, 3), dtype=np.uint8))
    return folder.parent


@pytest.fixture
def classifier(tmp_path):
    """A teacher, as --teacher says it."""
    torch.manual_seed(1)
    Config(dict(model=CLASSIFIER, default_scope='mmkd')).dump(tmp_path / 'big.py')
    torch.save(dict(state_dict=MODELS.build(CLASSIFIER).state_dict()), tmp_path / 'big.pth')
    return f'{tmp_path / "big.py"}={tmp_path / "big.pth"}'


def _run(backbone, teachers, photos, *more):
    folder = photos.parent / 'run'
    main([backbone, *(word for one in teachers for word in ('--teacher', one)),
          '--data', str(photos), '--work-dir', str(folder), *more, *QUICK])
    return folder, load_checkpoint_safely(folder / 'backbone.pth')


def test_a_network_of_mmkd_and_a_classifier_that_begins_with_it(classifier, photos):
    folder, weights = _run('resnet8', [classifier], photos, '--epochs', '2')
    rows = (folder / 'results.csv').read_text().splitlines()
    assert rows[0].startswith('epoch,iterations') and len(rows) == 3
    last = load_checkpoint_safely(folder / 'last.pth')['state_dict']
    assert {f'backbone.{name}' for name in weights} == set(last)
    start = dict(type='Pretrained', checkpoint=str(folder / 'backbone.pth'))
    student = MODELS.build(dict(CLASSIFIER, backbone=dict(type='resnet8', init_cfg=start)))
    student.init_weights()
    for name, value in student.backbone.state_dict().items():
        assert torch.equal(value, weights[name])
    # Without its end the run goes on where it was.
    (folder / 'epoch_2.pth').unlink()
    (folder / 'last_checkpoint').unlink()
    _, again = _run('resnet8', [classifier], photos, '--epochs', '2', '--resume')
    for name, value in weights.items():
        assert torch.equal(value, again[name]), name


def test_a_network_of_timm_from_two_teachers(timm, classifier, photos, tmp_path):
    torch.save(timm.create_model('vit_tiny_patch16_224', pretrained=False).state_dict(),
               tmp_path / 'vit.pth')
    vit = f'timm:vit_tiny_patch16_224={tmp_path / "vit.pth"}'
    folder, weights = _run('timm:resnet10t', [vit, classifier], photos, '--epochs', '1')
    cfg = Config.fromfile(folder / 'config.py')
    assert [(term.tap, term.teacher_tap, term.teachers, term.weight)
            for term in cfg.terms.values()] == [
        ('backbone.stage4', 'features', ['vit_tiny_patch16_224'], 0.5),
        ('backbone.stage4', 'backbone.stage3', ['big'], 0.5)]
    network = timm.create_model('resnet10t', pretrained=False, num_classes=0)
    network.load_state_dict(weights, strict=True)
    backbone = MODELS.build(dict(type='TimmBackbone', name='resnet10t',
                                 checkpoint=str(folder / 'backbone.pth')))
    backbone.init_weights()
    first = 'conv1.weight' if 'conv1.weight' in weights else 'conv1.0.weight'
    assert torch.equal(backbone.network.model.state_dict()[first], weights[first])


@pytest.mark.parametrize(('text', 'expected'), [
    ('resnet34', dict(type='ResNet', depth=34, norm_eval=False)),
    ('resnet20', dict(type='resnet20')),
    (RETINANET, dict(type='ResNet', depth=18, frozen_stages=-1, norm_eval=False, init_cfg=None))])
def test_backbones(text, expected, classifier, photos):
    cfg = pretraining(text, [classifier], photos, epochs=7, size=64, batch_size=4)
    found = cfg.model.backbone.to_dict()
    assert {key: found[key] for key in expected} == expected
    tap = 'backbone.stage3' if text == 'resnet20' else 'backbone:-1'
    assert cfg.terms.foundation.tap == tap and 'gradient_share' not in cfg.terms.foundation
    assert (cfg.train_cfg.max_epochs, cfg.param_scheduler[0].T_max) == (7, 7)
    assert cfg.train_dataloader.batch_size == 4
    assert cfg.train_dataloader.dataset.pipeline[2].scale == (64, 64)


def test_a_detector_teaches_by_its_backbone(photos):
    cfg = pretraining('resnet18', [f'{RETINANET}=r18.pth'], photos, 'foundation_l2', batch_size=4)
    assert cfg.terms.foundation_l2.teacher_tap == 'backbone:-1'
    assert cfg.terms.foundation_l2.loss.type == 'FitNetLoss'


@pytest.mark.parametrize(('backbone', 'options', 'sentence'), [
    ('resnet19', {}, "'resnet19' is no backbone: give resnet18, timm:NAME"),
    ('none.py', {}, "config 'none.py' does not exist"),
    ('resnet18', dict(method='pkd'), '--method pkd is no method of pretraining'),
    ('resnet18', dict(method='foundaton'),
     "--method 'foundaton' is none of .*Did you mean 'foundation'"),
    ('resnet18', {}, 'holds 8 images, fewer than a step takes: give a --batch-size of at most 8'),
    ('resnet18', dict(batch_size=1), '--size 224 and --batch-size 1: give at least'),
    ('resnet18', dict(batch_size=4, size=0), '--size 0 and --batch-size 4: give at least')])
def test_mistakes(backbone, options, sentence, classifier, photos):
    with pytest.raises(UserError, match=sentence):
        pretraining(backbone, [classifier], photos, **options)


def test_a_folder_that_is_not_there(classifier, photos):
    with pytest.raises(UserError, match='there is no folder'):
        pretraining('resnet18', [classifier], photos / 'none')
