"""A cache serves the run it was built for, and no other."""

import json
import shutil
from pathlib import Path

import cv2
import numpy as np
import pytest
import torch
from archives import write_cifar10, write_image
from helpers import centernet
from mmengine.config import Config
from mmengine.registry import DefaultScope
from tiny_cache import TERMS, ShakenDetection, build, detection, train

from mmkd.classification.data import CIFAR10, ImageNetFolder
from mmkd.detection.data import draw_dataset
from mmkd.engine.config import load_config
from mmkd.errors import UserError
from mmkd.registry import DATASETS
from mmkd.teacher_cache.identity import data_identity, difference, teacher_identity
from mmkd.teacher_cache.options import CacheOptions


@pytest.fixture(scope='module')
def cache(tmp_path_factory, teachers):
    """One view of the heatmap's term."""
    folder = tmp_path_factory.mktemp('cache')
    with DefaultScope.overwrite_default_scope('mmkd'):
        train(detection(folder / 'work', teachers, dict(folder=str(folder / 'c'), views=1),
                        terms=TERMS[:1], epochs=1))
    return str(folder / 'c')


def _config(tmp_path, teachers, cache, terms=TERMS[:1], options=(), **kwargs):
    return detection(tmp_path / 'work', teachers, dict(folder=cache, views=1, **dict(options)),
                     terms=terms, epochs=1, **kwargs)


def _with(teachers, name, **changes):
    """The teachers with one of another entry."""
    return dict(teachers, **{name: dict(teachers[name], **changes)})


@pytest.fixture
def accepted(monkeypatch):
    def check(config):
        monkeypatch.setattr('mmkd.distillation.entries.build_teacher', None)
        assert train(config)[1]
    return check


@pytest.fixture
def refused(cache):
    """Check that a run is refused by one line, and that what is stored stays as it is."""
    def check(config, *words):
        with pytest.raises(UserError) as caught:
            build(config).train()
        line = str(caught.value)
        assert cache in line and len(line) < 500
        for word in words:
            assert word in line
    return check


@pytest.fixture(scope='module', autouse=True)
def _cache_stays(cache):
    before = {path: path.read_bytes() for path in Path(cache).rglob('*') if path.is_file()}
    yield
    assert {path: path.read_bytes() for path in Path(cache).rglob('*') if path.is_file()} == before


# What has no influence


def test_other_folders_another_student_batch_seed_and_schedule(tmp_path, teachers, cache, accepted):
    shutil.copytree(cache, tmp_path / 'moved')
    config = _config(tmp_path, teachers, str(tmp_path / 'moved'), seed=9, batch=2,
                     dataset=dict(data_root='/mnt/elsewhere'))
    config.model.backbone.base_channels, config.model.neck.in_channels = 2, 16
    config.optim_wrapper.optimizer.lr = 0.002
    config.distill_weights = dict(heatmap=7)
    accepted(config)


def test_what_of_a_teacher_gives_no_outputs(tmp_path, teachers, cache, accepted):
    """Its decoding, its losses' settings, the places of its files, its share."""
    moved = {}
    for name, entry in teachers.items():
        model = Config.fromfile(entry['config']).model
        model.test_cfg.topk, model.init_cfg = 7, dict(type='Normal', layer='Conv2d')
        Config(dict(model=model, default_scope='mmkd')).dump(tmp_path / f'{name}_.py')
        checkpoint = torch.load(entry['checkpoint'])
        checkpoint['message_hub'] = dict(a=1)
        torch.save(checkpoint, tmp_path / f'{name}_.pth')
        moved[name] = dict(config=str(tmp_path / f'{name}_.py'), weight=3.0,
                           checkpoint=str(tmp_path / f'{name}_.pth'))
    accepted(_config(tmp_path, moved, cache))


def test_a_teacher_written_into_the_config(tmp_path, teachers, cache, accepted):
    inline = {name: dict(model=Config.fromfile(entry['config']).model,
                         checkpoint=entry['checkpoint']) for name, entry in teachers.items()}
    accepted(_config(tmp_path, inline, cache))


# What has


def test_another_label(tmp_path, teachers, cache, refused, monkeypatch):
    label = ShakenDetection().get_data_info(0)['instances'][0]['bbox_label']
    monkeypatch.setattr(ShakenDetection, 'first_label', (label + 1) % 3)
    refused(_config(tmp_path, teachers, cache), "its 'content' is", 'name another folder')


@pytest.mark.parametrize('changes, words', [
    (dict(dataset=dict(strength=0.25)),
     ["its 'dataset.strength' is null and that of the run 0.25"]),
    (dict(dataset=dict(length=7)), ["its 'images' is 8 and that of the run 7"]),
    (dict(options=dict(seed=1)), ["its 'seed' is 0 and that of the run 1"]),
    (dict(options=dict(dtype='float32')),
     ["it holds 'bbox_head:0:-1' as", 'float16', 'float32']),
    (dict(terms=TERMS), ["it holds bbox_head:0:-1, bbox_head:1:-1, bbox_head:2:-1 and not "
                         "'bbox_head:input:-1'"]),
], ids=['argument of the data', 'number of images', 'seed of the views', 'dtype', 'more terms'])
def test_other_data_and_options(changes, words, tmp_path, teachers, cache, refused):
    refused(_config(tmp_path, teachers, cache, **changes), *words)


def test_another_data_preprocessor(tmp_path, teachers, cache, refused):
    config = _config(tmp_path, teachers, cache)
    config.model.data_preprocessor.mean = [123.675, 116.28, 103.54]
    refused(config, "its 'data preprocessor of the student.mean[2]' is 103.53 and that of the run "
                    '103.54')


def test_another_teacher_network(tmp_path, teachers, cache, refused):
    model = Config.fromfile(teachers['resnet']['config']).model
    model.neck.num_deconv_filters = (8, 8, 8)
    Config(dict(model=model, default_scope='mmkd')).dump(tmp_path / 'other.py')
    other = _with(teachers, 'resnet', config=str(tmp_path / 'other.py'))
    refused(_config(tmp_path, other, cache), '/resnet',
            "its 'teacher.neck.num_deconv_filters[0]' is 16 and that of the run 8")


def test_another_precision(tmp_path, teachers, cache, refused):
    refused(_config(tmp_path, _with(teachers, 'hourglass', precision='bf16'), cache), '/hourglass',
            """its 'precision' is null and that of the run "bf16\"""")


def test_one_bit_of_the_weights(tmp_path, teachers, cache, refused):
    checkpoint = torch.load(teachers['hourglass']['checkpoint'])
    weight = checkpoint['state_dict']['bbox_head.wh_head.0.bias']
    weight.view(torch.int32)[0] ^= 1
    torch.save(checkpoint, tmp_path / 'other.pth')
    other = _with(teachers, 'hourglass', checkpoint=str(tmp_path / 'other.pth'))
    refused(_config(tmp_path, other, cache), '/hourglass', "its 'weights' is")


def test_teachers_that_change_places(tmp_path, teachers, cache, refused):
    swapped = dict(resnet=teachers['hourglass'], hourglass=teachers['resnet'])
    refused(_config(tmp_path, swapped, cache), "its 'teacher.")


@pytest.mark.parametrize('content', ['', '{', '[]', '{"made_from": {}}',
                                     '{"made_from": {}, "contents": {"a": 1}}'])
def test_a_description_that_cannot_be_read(content, tmp_path, teachers):
    folder = tmp_path / 'c'
    (folder / 'resnet').mkdir(parents=True)
    (folder / 'resnet/made_from.json').write_text(content)
    with pytest.raises(UserError, match=r'does not describe a cache.*to build it anew'):
        build(_config(tmp_path, teachers, str(folder))).train()


def test_the_description_is_plain_json(cache):
    for name in ('resnet', 'hourglass'):
        with open(f'{cache}/{name}/made_from.json', encoding='utf-8') as file:
            spec = json.load(file)
        assert spec['contents']['patterns'] == {
            leaf: [leaf] for leaf in ('bbox_head:0:-1', 'bbox_head:1:-1', 'bbox_head:2:-1')}
        assert spec['contents']['classes'] == ['disc', 'ring', 'star']
        assert '/data' not in json.dumps(spec['made_from'])


# Real data sets


@pytest.fixture
def drawn(tmp_path):
    draw_dataset(tmp_path / 'drawn', splits=dict(train=4, val=1, test=1), image_size=64)
    return tmp_path / 'drawn'


def _of(root, **changes):
    cfg = load_config('configs/demo/centernet_r18.py')
    cfg.train_dataloader.dataset.update(data_root=f'{root}/', **changes)
    return data_identity(DATASETS.build(cfg.train_dataloader.dataset), cfg, CacheOptions('c', 1))


def test_a_folder_of_voc(drawn, tmp_path, monkeypatch, request):
    monkeypatch.chdir(request.config.rootpath)
    before = _of(drawn)
    shutil.copytree(drawn, tmp_path / 'moved')
    assert difference(before, _of(tmp_path / 'moved')) is None
    annotation = sorted((tmp_path / 'moved/Annotations').glob('train*.xml'))[2]
    text = annotation.read_text()
    number = text.partition('<xmax>')[2].partition('</xmax>')[0]
    for old, new in ((f'<xmax>{number}', f'<xmax>{int(number) - 1}'),
                     ('<difficult>0', '<difficult>1')):
        assert old in text
        annotation.write_text(text.replace(old, new, 1))
        assert "its 'content' is" in difference(before, _of(tmp_path / 'moved'))
    annotation.write_text(text)
    assert difference(before, _of(tmp_path / 'moved')) is None
    pipeline = load_config('configs/demo/centernet_r18.py').train_dataloader.dataset.pipeline
    place = [step['type'] for step in pipeline].index('RandomFlip')
    pipeline[place].prob = 0.25
    assert f"its 'dataset.pipeline[{place}].prob' is 0.5 and that of the run 0.25" in difference(
        before, _of(drawn, pipeline=pipeline))


def test_data_in_memory(tmp_path):
    write_cifar10(tmp_path)
    with pytest.warns(UserWarning, match='differ from the published'):
        one, two = CIFAR10(str(tmp_path)), CIFAR10(str(tmp_path))
    assert one.identity() == two.identity()
    two.images = two.images.clone()
    two.images[3, 1, 4, 5] ^= 1
    assert one.identity() != two.identity()
    two.images = one.images.to(memory_format=torch.channels_last)
    assert one.identity() == two.identity(), 'of another layout'
    two.labels = one.labels.roll(1)
    assert one.identity() != two.identity()


def test_a_folder_for_each_class(tmp_path):
    for split in ('train', 'val'):
        for name in ('cat', 'dog'):
            for i in range(2):
                write_image(tmp_path / 'a' / split / name / f'{i}.png',
                            np.random.default_rng(i).integers(0, 256, (9, 9, 3), dtype=np.uint8))
    shutil.copytree(tmp_path / 'a', tmp_path / 'b')
    one = ImageNetFolder(str(tmp_path / 'a')).identity()
    assert one == ImageNetFolder(str(tmp_path / 'b')).identity()
    image = tmp_path / 'b/train/dog/1.png'
    cv2.imwrite(str(image), cv2.imread(str(image))[:8])
    assert one != ImageNetFolder(str(tmp_path / 'b')).identity()
    shutil.rmtree(tmp_path / 'b')
    shutil.copytree(tmp_path / 'a', tmp_path / 'b')
    (tmp_path / 'b/train/dog/1.png').rename(tmp_path / 'b/train/cat/2.png')
    assert one != ImageNetFolder(str(tmp_path / 'b')).identity()


def test_data_that_cannot_be_told_apart(tmp_path, teachers):
    config = _config(tmp_path, teachers, str(tmp_path / 'c'))
    config.train_dataloader.dataset = dict(type='NoiseDetection')
    with pytest.raises(UserError, match=r'NoiseDetection cannot be told apart.*identity\(\)'):
        build(config).train()
    assert not (tmp_path / 'c').exists()


# Descriptions


def _entry(tmp_path, model, state):
    torch.save(state, tmp_path / 't.pth')
    return teacher_identity(dict(model=model, checkpoint=str(tmp_path / 't.pth')))


def test_weights_are_hashed_whatever_holds_them(tmp_path):
    state = dict(b=torch.arange(6.).view(2, 3), a=torch.tensor(3), c=torch.zeros(0),
                 d=torch.ones(2, dtype=torch.bfloat16), e=torch.tensor([True, False]))
    model = centernet()
    plain = _entry(tmp_path, model, state)
    for same in (dict(state_dict=state), dict(state_dict=state, meta=dict(epoch=3)),
                 dict(model=state), {f'module.{name}': value for name, value in state.items()},
                 dict(reversed(list(state.items()))), dict(state, b=state['b'].T.clone().T)):
        assert _entry(tmp_path, model, same) == plain
    for other in (dict(state, b=state['b'].T), dict(state, b=-state['b']),
                  dict(state, f=state['a']), dict(state, a=torch.tensor(3.0)),
                  dict(state, c=torch.zeros(0, 1)),
                  dict(state, b=state['b'].view(3, 2)), dict(state, a=state['c'], c=state['a'])):
        assert difference(_entry(tmp_path, model, other), plain).startswith("its 'weights' is")


def test_a_teacher_whose_files_are_no_good(tmp_path, teachers):
    (tmp_path / 'empty.py').write_text('a = 1')
    (tmp_path / 'cut.pth').write_bytes(b'PK')
    for change, words in ((dict(config='gone.py'), "'gone.py' does not exist"),
                          (dict(config=str(tmp_path / 'empty.py')), 'has no `model`'),
                          (dict(checkpoint='gone.pth'), "'gone.pth' does not exist"),
                          (dict(checkpoint=str(tmp_path / 'cut.pth')), 'cut.pth')):
        with pytest.raises(UserError, match=words):
            teacher_identity(dict(teachers['resnet'], **change))


@pytest.mark.parametrize('theirs, ours, expected', [
    (dict(a=1, b=[1, 2]), dict(b=[1, 2], a=1), None), (dict(a=None), {}, None),
    (dict(a=1), dict(a=2), "its 'a' is 1 and that of the run 2"),
    (dict(a=dict(b=[0, dict(c=1)])), dict(a=dict(b=[0, dict(c='1')])),
     """its 'a.b[1].c' is 1 and that of the run "1\""""),
    (dict(a=[1]), dict(a=[1, 2]), "its 'a' is [1] and that of the run [1, 2]"),
    (dict(a=1, b=1), dict(b=1), "its 'a' is 1 and that of the run null"),
    (dict(a=dict(b=1)), dict(a=3), """its 'a' is {"b": 1} and that of the run 3""")])
def test_where_two_descriptions_differ(theirs, ours, expected):
    assert difference(theirs, ours) == expected


def test_long_values_are_cut():
    line = difference(dict(a='x' * 1000), dict(a='y' * 1000))
    assert len(line) < 200 and line.endswith('...')
