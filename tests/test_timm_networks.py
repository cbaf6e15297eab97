"""Networks of timm by name: as classifiers, as backbones, with weights from a file."""

import sys

import pytest
import torch
from helpers import build, centernet

from mmkd.checkpoints import load_weights
from mmkd.classification import Classifier
from mmkd.classification.networks import Tail
from mmkd.distillation import list_taps
from mmkd.engine.config import validate_config
from mmkd.errors import UserError
from mmkd.registry import MODELS
from mmkd.timm_networks import check_name

SIZE = 224  # which timm's transformer insists on


@pytest.fixture
def images():
    return torch.randn(2, 3, SIZE, SIZE, generator=torch.Generator().manual_seed(0))


def backbone_of(**options):
    return MODELS.build(dict(type='TimmBackbone', name='resnet10t', **options))


def test_a_name_that_is_none(timm):
    with pytest.raises(UserError, match=r"no network 'resnet10'\. Did you mean 'resnet1"):
        check_name('resnet10')
    with pytest.raises(UserError, match=r"names weights, 'c3_in1k', and nothing is downloaded"):
        check_name('resnet10t.c3_in1k')


@pytest.mark.parametrize('error, told', [
    (ModuleNotFoundError("No module named 'timm'", name='timm'),
     r'the package timm, which is not installed: pip install mmkd\[timm\]'),
    (ModuleNotFoundError("No module named 'torchvision.ops'", name='torchvision.ops'),
     'the package torchvision, which is not installed: pip install torchv'),
    (RuntimeError('operator torchvision::nms does not exist'),
     r'nms does not exist\): install the torchvision that')], ids=str)
def test_what_cannot_be_imported_is_one_sentence(error, told, monkeypatch):
    def broken(name):
        raise error
    monkeypatch.setattr('mmkd.timm_networks.import_module', broken)
    with pytest.raises(UserError, match=told) as caught:
        MODELS.build(dict(type='timm:resnet10t'))
    assert 'class `' not in str(caught.value)


def test_a_classifier_is_tapped_like_mmkds_own(timm, images):
    model = Classifier(dict(type='timm:resnet10t'), num_classes=3).eval()
    taps = {row.name: row.leaves[0].shape for row in list_taps(model, images[:1])}
    sides = {name.removeprefix('backbone.'): shape[-1] for name, shape in taps.items()}
    assert [sides[name] for name in ('stem', 'stage1', 'stage2', 'stage3', 'stage4')] == [
        112, 56, 28, 14, 7]
    network = model.backbone.network
    assert torch.allclose(model.backbone(images), network(images), atol=1e-5)
    assert taps['backbone.embedding'][-1] == model.head.fc.in_features
    with pytest.raises(UserError, match='TimmNetwork has no stages that could be copied'):
        Tail(model, 1)


def test_weights_that_timm_publishes(timm, images, tmp_path):
    published = timm.create_model('resnet10t', pretrained=False, num_classes=5).eval()
    torch.save(published.state_dict(), tmp_path / 'timm.pth')
    # As a teacher, with its classifier.
    teacher = Classifier(dict(type='timm:resnet10t'), num_classes=5).eval()
    load_weights(teacher, tmp_path / 'timm.pth')
    assert torch.allclose(teacher(images), published(images), atol=1e-4)
    # As what a student or a backbone begins with.
    start = dict(checkpoint=str(tmp_path / 'timm.pth'))
    student = Classifier(dict(type='timm:resnet10t', **start), num_classes=3).eval()
    backbone = backbone_of(out_indices=[4], **start)
    student.init_weights()
    backbone.init_weights()
    last = published.forward_intermediates(images)[0]
    for found in (backbone.eval()(images)[0],
                  student.backbone.network.forward_intermediates(images)[0]):
        assert torch.allclose(found, last, atol=1e-4)


def test_a_file_of_another_network_is_refused(timm, tmp_path):
    torch.save({'layer9.weight': torch.zeros(3)}, tmp_path / 'other.pth')
    model = backbone_of(checkpoint=str(tmp_path / 'other.pth'))
    with pytest.raises(UserError, match=r"fits 0 of the \d+ .* the file's is 'layer9.weight'"):
        model.init_weights()


def test_safetensors_are_read(tmp_path):
    safetensors = pytest.importorskip('safetensors.torch')
    linear = torch.nn.Linear(2, 3)
    safetensors.save_file(linear.state_dict(), tmp_path / 'a.safetensors')
    other = torch.nn.Linear(2, 3)
    load_weights(other, tmp_path / 'a.safetensors')
    assert torch.equal(other.weight, linear.weight)
    (tmp_path / 'b.safetensors').write_bytes((tmp_path / 'a.safetensors').read_bytes()[:40])
    with pytest.raises(UserError, match=r"b\.safetensors' is truncated or no"):
        load_weights(other, tmp_path / 'b.safetensors')


def test_a_backbone_gives_the_maps_that_were_chosen(timm, images):
    backbone = backbone_of(out_indices=(1, 3))
    assert backbone.strides == [4, 16]
    assert [tuple(one.shape[1:]) for one in backbone.eval()(images)] == [
        (c, SIZE // s, SIZE // s) for c, s in zip(backbone.channels, (4, 16), strict=True)]
    with pytest.raises(UserError, match=r'gives no feature maps with out_indices=\[9\]'):
        backbone_of(out_indices=[9])


def test_a_detector_begins_with_it(timm, images):
    config = centernet()
    config.backbone = dict(type='TimmBackbone', name='resnet10t', out_indices=[4])
    config.neck.in_channels = MODELS.build(config.backbone).channels[0]
    model = build(config)
    model.init_weights()
    heat = model(images, mode='tensor')[0][0]
    assert heat.shape == (2, 3, SIZE // 4, SIZE // 4)


def test_a_misspelt_name_is_found_before_anything_is_built(timm):
    from mmengine.config import Config
    with pytest.raises(UserError, match='timm has no network'):
        validate_config(Config(dict(model=dict(type='Classifier', num_classes=3, backbone=dict(
            type='timm:resnet10')))))


def test_timm_is_not_imported_unless_it_is_named(monkeypatch):
    monkeypatch.setitem(sys.modules, 'timm', None)
    assert MODELS.get('resnet8x4') is not None
    with pytest.raises(UserError, match='the package timm'):
        MODELS.get('timm:resnet10t')
