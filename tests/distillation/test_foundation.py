"""Teachers that are a backbone alone: of timm, and of Hugging Face's transformers."""

import json
import sys

import pytest
import torch
from helpers import (
    AtTheEnd,
    NoiseDetection,
    centernet,
    distillation,
    distillation_hook,
    runner,
    save_teacher,
    train_config,
)
from mmengine.model import ImgDataPreprocessor
from torch import nn

from mmkd.distillation.entries import build_entry, checked_entries
from mmkd.engine.distil import preset_of
from mmkd.errors import UserError
from mmkd.teacher_cache.options import fix_views

VITS = ('dinov2_with_registers', 'clip')
SMALL = dict(hidden_size=16, num_hidden_layers=2, num_attention_heads=2, intermediate_size=32)
SIDES = 30, 43  # no multiples of a patch
NORMALISED = dict(do_normalize=True, do_rescale=True, rescale_factor=1 / 255,
                  image_mean=[0.5, 0.4, 0.3], image_std=[0.5, 0.2, 0.1])


class Student(nn.Module):
    """Takes pixels as they come."""

    def __init__(self):
        super().__init__()
        self.data_preprocessor = ImgDataPreprocessor(bgr_to_rgb=True)


@pytest.fixture
def images():
    return 255 * torch.rand(2, 3, *SIDES, generator=torch.Generator().manual_seed(0))


@pytest.fixture(params=['stub', 'real'])
def transformers(request):
    return request.getfixturevalue(f'{request.param}_transformers')


@pytest.fixture
def real_timm():
    return pytest.importorskip('timm', reason='timm cannot be imported',
                               exc_type=(ImportError, RuntimeError))


@pytest.fixture
def stub_transformers(monkeypatch):
    import transformers_stub
    monkeypatch.setitem(sys.modules, 'transformers', transformers_stub)
    return transformers_stub


@pytest.fixture
def real_transformers():
    return pytest.importorskip('transformers', reason='transformers is not installed',
                               exc_type=ImportError)


def built(entry):
    [entry] = checked_entries(dict(t=entry)).values()
    return build_entry('t', entry, Student(), torch.device('cpu'))


def features(teacher, images):
    teacher.tap(['features'], images)
    return teacher(images)['features']


def weights_of_timm(timm, folder, name='vit_tiny_patch16_224', **options):
    torch.manual_seed(1)
    network = timm.create_model(name, pretrained=False, **options).eval()
    torch.save(network.state_dict(), folder / f'{name}.pth')
    return network, dict(model=f'timm:{name}', checkpoint=str(folder / f'{name}.pth'))


def saved_by_transformers(transformers, folder, kind=VITS[0]):
    """A small model in a folder, and an entry that names it; weights beside it."""
    torch.manual_seed(1)
    name = dict(dinov2_with_registers='Dinov2WithRegistersModel', clip='CLIPVisionModel')[kind]
    cls = getattr(transformers, name)
    more = dict(num_register_tokens=4) if kind == VITS[0] else {}
    model = cls(cls.config_class(**SMALL, **more, patch_size=14, image_size=28)).eval()
    model.save_pretrained(folder / kind)
    (folder / kind / 'preprocessor_config.json').write_text(json.dumps(NORMALISED))
    torch.save(model.state_dict(), folder / f'{kind}.pth')
    return model, dict(model=f'hf:{folder / kind}', checkpoint=str(folder / f'{kind}.pth'))


def laid_out(tokens, rows, columns):
    """The last tokens as a map, row by row."""
    patches = tokens[:, -rows * columns:]
    return torch.stack([patches[:, row * columns:(row + 1) * columns] for row in range(rows)],
                       1).permute(0, 3, 1, 2)


# ---------------------------------------------------------------------------- timm


def test_a_transformer_of_timm_gives_the_map_of_its_patches(timm, tmp_path, images):
    network, entry = weights_of_timm(timm, tmp_path)
    teacher = built(entry)
    found = features(teacher, images)
    assert teacher.input_size(SIDES) == (32, 48)
    inputs = teacher._own_inputs(images, None, {})
    assert inputs.shape == (2, 3, 32, 48)
    if 'stub' not in timm.__name__:  # whose own positions are those of 224 px
        network = timm.create_model('vit_tiny_patch16_224', dynamic_img_size=True).eval()
        network.load_state_dict(torch.load(entry['checkpoint'], weights_only=True))
    with torch.no_grad():
        torch.testing.assert_close(found, laid_out(network.forward_features(inputs), 2, 3))


def normalised(said, pixels=(10, 100, 200)):
    """What a network gets of these pixels, as its entry in timm says."""
    return [(pixel / 255 - mean) / std for pixel, mean, std in
            zip(pixels, said['mean'], said['std'], strict=True)]


def test_a_convolutional_network_gives_its_last_stage_of_normalised_images(timm, tmp_path, images):
    network, entry = weights_of_timm(timm, tmp_path, 'resnet10t', num_classes=7)
    teacher = built(entry)
    found = features(teacher, images)
    assert teacher.input_size(SIDES) == SIDES
    with torch.no_grad():
        expected = network.forward_features(teacher._own_inputs(images, None, {}))
    torch.testing.assert_close(found, expected)
    assert not any(p.requires_grad for p in teacher.model.parameters())
    pixels = torch.tensor([10.0, 100.0, 200.0]).view(1, 3, 1, 1).expand(1, 3, 32, 32)
    own = teacher._own_inputs(pixels, None, {})[0, :, 3, 5]
    torch.testing.assert_close(own, torch.tensor(normalised(network.pretrained_cfg)))


def test_weights_of_another_network_of_timm(timm, tmp_path):
    _, entry = weights_of_timm(timm, tmp_path, 'resnet10t')
    with pytest.raises(UserError, match=r"teacher 't': checkpoint .* is of another architecture"):
        built(dict(entry, model='timm:vit_tiny_patch16_224'))


def test_a_dinov2_of_timm_drops_its_registers(real_timm, images, tmp_path):
    torch.manual_seed(1)
    options = dict(embed_dim=16, depth=2, num_heads=2, img_size=28, num_classes=0)
    name = 'vit_small_patch14_reg4_dinov2'
    network = real_timm.create_model(name, dynamic_img_size=True, **options).eval()
    torch.save(network.state_dict(), tmp_path / 'dino.pth')
    options.pop('num_classes')
    teacher = built(dict(model=dict(type='TimmModel', name=name, **options),
                         checkpoint=str(tmp_path / 'dino.pth')))
    found = features(teacher, images)
    with torch.no_grad():
        tokens = network.forward_features(teacher._own_inputs(images, None, {}))
    assert tokens.shape[1] == 1 + 4 + 3 * 4
    torch.testing.assert_close(found, laid_out(tokens, 3, 4))


def test_weights_by_name_have_their_own_normalisation(real_timm, tmp_path):
    _, entry = weights_of_timm(real_timm, tmp_path, 'resnet18')
    mean = built(dict(entry, model='timm:resnet18.a1_in1k')).model.data_preprocessor.mean
    assert mean.flatten().tolist() == pytest.approx([123.675, 116.28, 103.53])
    with pytest.raises(UserError, match=r"cannot build 'resnet18\.none' .*Invalid pretrained tag"):
        built(dict(entry, model='timm:resnet18.none'))


# --------------------------------------------------------------------- Hugging Face


@pytest.mark.parametrize('kind', VITS)
def test_a_folder_of_hugging_face(kind, transformers, tmp_path, images):
    model, entry = saved_by_transformers(transformers, tmp_path, kind)
    teacher = built(entry)
    found = features(teacher, images)
    assert teacher.input_size(SIDES) == (42, 56)
    inputs = teacher._own_inputs(images, None, {})
    options = dict(interpolate_pos_encoding=True) if (
        kind == 'clip' or 'stub' in transformers.__name__) else {}
    with torch.no_grad():
        tokens = model(inputs, **options).last_hidden_state
    assert tokens.shape[1] == 12 + (5 if kind == VITS[0] else 1)
    torch.testing.assert_close(found, laid_out(tokens, 3, 4))


def test_its_inputs_are_normalised_as_the_folder_says(transformers, tmp_path):
    _, entry = saved_by_transformers(transformers, tmp_path)
    pixels = torch.tensor([51.0, 102.0, 153.0]).view(1, 3, 1, 1).expand(1, 3, 28, 28)
    own = built(entry)._own_inputs(pixels, None, {})
    torch.testing.assert_close(own[0, :, 3, 5], torch.tensor([-0.6, 0.0, 3.0]))


def test_weights_lie_in_the_folder(real_transformers, tmp_path, images):
    _, entry = saved_by_transformers(real_transformers, tmp_path)
    torch.testing.assert_close(features(built(dict(model=entry['model'])), images),
                               features(built(entry), images))


def test_the_image_tower_of_a_whole_clip(real_transformers, tmp_path, images):
    torch.manual_seed(1)
    vision = real_transformers.CLIPVisionConfig(**SMALL, patch_size=14, image_size=28)
    text = dict(SMALL, vocab_size=99, bos_token_id=1, eos_token_id=2)
    clip = real_transformers.CLIPModel(real_transformers.CLIPConfig(
        text_config=text, vision_config=vision.to_dict())).eval()
    clip.save_pretrained(tmp_path / 'whole')
    teacher = built(dict(model=f'hf:{tmp_path / "whole"}', preprocessor='none'))
    found = features(teacher, images)
    with torch.no_grad():
        tokens = clip.vision_model(teacher._own_inputs(images, None, {}),
                                   interpolate_pos_encoding=True).last_hidden_state
    torch.testing.assert_close(found, laid_out(tokens, 3, 4))


def test_a_class_of_transformers_with_a_config(transformers, tmp_path, images):
    _, entry = saved_by_transformers(transformers, tmp_path)
    config = dict(SMALL, num_register_tokens=4, patch_size=14, image_size=28)
    model = dict(type='HuggingFaceModel', name='Dinov2WithRegistersModel', config=config)
    same = built(dict(entry, model=model, preprocessor=dict(
        mean=[127.5, 102.0, 76.5], std=[127.5, 51.0, 25.5], bgr_to_rgb=True)))
    torch.testing.assert_close(features(same, images), features(built(entry), images))
    with pytest.raises(UserError, match=r'no model class .* mean .Dinov2WithRegistersModel'):
        built(dict(entry, model=dict(model, name='Dinov2WithRegisterModel')))
    wider = dict(model, config=dict(config, hidden_size=24))
    with pytest.raises(UserError, match=r"teacher 't': checkpoint .*: .* is of shape .* there and"):
        built(dict(entry, model=wider, preprocessor='none'))


def test_what_cannot_be_taken_from_hugging_face(transformers, tmp_path):
    with pytest.raises(UserError, match=r"no folder 'facebook/dinov2-small' .* `hf download OWNER"):
        built(dict(model='hf:facebook/dinov2-small'))
    _, entry = saved_by_transformers(transformers, tmp_path)
    folder = tmp_path / VITS[0]
    torch.save({'some.weight': torch.zeros(2)}, tmp_path / 'other.pth')
    with pytest.raises(UserError, match=r'is of another architecture'):
        built(dict(entry, checkpoint=str(tmp_path / 'other.pth')))
    (folder / 'model.safetensors').unlink(missing_ok=True)
    (folder / 'pytorch_model.bin').write_bytes(b'x')
    with pytest.raises(UserError, match=r'has no model.safetensors: fetch that file, too'):
        built(dict(model=entry['model']))
    statistics = folder / 'preprocessor_config.json'
    for text in ('{', '[]', '{"do_normalize": true}', json.dumps(dict(NORMALISED, image_std=[0]))):
        statistics.write_text(text)
        with pytest.raises(UserError, match=r'does not say how images are normalised'):
            built(entry)
    statistics.unlink()
    with pytest.raises(UserError, match=r"teacher 't' \(HuggingFaceModel\) does not say how"):
        built(entry)
    (folder / 'config.json').write_text('{"model_type": "none of these"}')
    with pytest.raises(UserError, match=r'transformers cannot build .*give a folder with the conf'):
        built(entry)
    transformers.BertModel(transformers.BertConfig(**SMALL)).save_pretrained(tmp_path / 'bert')
    with pytest.raises(UserError, match=r'is a BertModel, which takes no images'):
        built(dict(model=f'hf:{tmp_path / "bert"}', checkpoint='x.pth'))


def test_transformers_is_imported_when_it_is_named(monkeypatch, tmp_path):
    monkeypatch.setitem(sys.modules, 'transformers', None)
    (tmp_path / 'config.json').write_text('{}')
    with pytest.raises(UserError, match=r'package transformers.*pip install mmkd\[transformers\]'):
        built(dict(model=f'hf:{tmp_path}', checkpoint='x.pth'))


def test_a_size_that_the_model_does_not_take(stub_transformers, tmp_path, images):
    _, entry = saved_by_transformers(stub_transformers, tmp_path)
    teacher = built(entry)
    teacher.model._options = {}  # as of a model without such an option
    with pytest.raises(UserError, match=r'does not take images of 42 x 56 px .* size=\(H, W\)'):
        features(teacher, images)
    fixed = built(dict(entry, size=(28, 28)))
    fixed.model._options = {}
    assert features(fixed, images).shape == (2, 16, 2, 2)


def test_names_that_are_none():
    for model in ('resnet18', 'timm:', 'hf:'):
        with pytest.raises(UserError, match=f"model='{model}': give 'timm:NAME', 'hf:FOLDER'"):
            checked_entries(dict(t=dict(model=model, checkpoint='x.pth')))
    with pytest.raises(UserError, match=r'nothing is downloaded, so give the file'):
        checked_entries(dict(t=dict(model='timm:resnet10t')))


# -------------------------------------------------------------------------- in runs


def _terms(*methods, **changes):
    return {name: dict(term.to_dict(), **changes) for method in methods
            for name, term in preset_of(method).terms.items()}


def _gradients(run):
    batch = run.model.data_preprocessor(next(iter(run.train_dataloader)), True)
    losses = run.model(**batch, mode='loss')
    first = run.model.backbone.layer2[0].conv1.weight
    return {name: torch.autograd.grad(value, first, retain_graph=True)[0].norm().item()
            for name, value in losses.items() if name.startswith('loss_distill')}


def test_every_method_teaches_a_detector_beside_another_detector(timm, tmp_path):
    _, entry = weights_of_timm(timm, tmp_path)
    methods = 'foundation', 'foundation_pkd', 'foundation_l2'
    terms = _terms(*methods, teachers=['vit']) | dict(heatmap=dict(
        type='CenterNetTerm', map='heatmap', loss=dict(type='SoftFocalLoss'), teachers=['big']))
    run = runner(train_config(tmp_path / 'run', centernet(), distillation(
        dict(big=save_teacher(tmp_path, 'big', centernet()), vit=entry), terms), iters=2, batch=2))
    probe = AtTheEnd(_gradients)
    run.register_hook(probe)
    run.train()
    assert set(probe.found) == {f'loss_distill_{name}' for name in (*methods, 'heatmap')}
    assert all(0 < gradient < float('inf') for gradient in probe.found.values())
    logged = run.message_hub.log_scalars
    assert all(logged[f'train/{name}'].data[0].min() > 0 for name in probe.found)
    assert all(0 < logged[f'train/weight_{method}'].current() != 1 for method in methods)
    teachers = distillation_hook(run).teachers
    assert all(p.grad is None for teacher in teachers for p in teacher.model.parameters())
    assert not any('vit' in key or 'connector' in key for key in run.model.state_dict())


def _assert_cached_and_live_are_equal(entry, tmp_path, monkeypatch):
    monkeypatch.setattr(NoiseDetection, 'identity', lambda self: 'noise', raising=False)
    losses = []
    for cache in (None, dict(folder=str(tmp_path / 'cache'), views=1, dtype='float32')):
        cfg = train_config(tmp_path / 'run', centernet(), distillation(
            dict(vit=entry), _terms('foundation', gradient_share=None)), iters=1, batch=2,
            **({} if cache is None else dict(teacher_cache=cache)))
        fix_views(cfg)
        run = runner(cfg)
        run.train()
        losses.append(run.message_hub.log_scalars['train/loss_distill_foundation'].current())
    [teacher] = distillation_hook(run).teachers
    assert type(teacher).__name__ == 'CachedTeacher' and teacher.model is None
    live, cached = losses
    assert cached == pytest.approx(live, rel=1e-6)


def test_cached_and_live_are_equal_of_timm(timm, tmp_path, monkeypatch):
    _, entry = weights_of_timm(timm, tmp_path)
    _assert_cached_and_live_are_equal(entry, tmp_path, monkeypatch)


def test_cached_and_live_are_equal_of_transformers(transformers, tmp_path, monkeypatch):
    _, entry = saved_by_transformers(transformers, tmp_path)
    _assert_cached_and_live_are_equal(entry, tmp_path, monkeypatch)


def test_a_classifier_learns_from_one(timm, tmp_path, cifar_config):
    """Both take RGB: of a picture that is one colour each pixel comes as the teacher wants it."""
    _, entry = weights_of_timm(timm, tmp_path)
    cfg = cifar_config('configs/classification/distill.py', tmp_path / 'run', student='resnet8',
                       method='foundation', teacher=f"{entry['model']}={entry['checkpoint']}")
    [(name, found)] = cfg.teachers.items()
    assert name.isidentifier() and found == dict(entry)
    run = runner(cfg)
    run.train()
    assert run.message_hub.log_scalars['train/loss_distill_foundation'].data[0].min() > 0
    [teacher] = distillation_hook(run).teachers
    student = run.model.data_preprocessor
    pixels = torch.tensor([10.0, 100.0, 200.0]).view(1, 3, 1, 1)
    own = teacher._own_inputs(((pixels - student.mean) / student.std).expand(1, 3, 32, 32), None,
                              {})
    assert own[0, :, 0, 0].tolist() == pytest.approx(
        normalised(teacher.model.network.pretrained_cfg), abs=1e-4)
