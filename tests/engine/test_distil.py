"""A training config becomes one of distillation, and takes other data, by options alone."""

import json

import pytest
from mmengine.config import Config

from mmkd.config_files import config_path
from mmkd.engine.config import load_config
from mmkd.engine.data_root import use_data, use_number_of_classes
from mmkd.engine.distil import describe_methods, distil, family_of, methods
from mmkd.errors import UserError

RETINANET = 'mmdet::retinanet/retinanet_r18_fpn_1x_coco.py'
FASTER = 'mmdet::faster_rcnn/faster-rcnn_r18_fpn_8xb8-amp-lsj-200e_coco.py'
MASK2FORMER = 'mmdet::mask2former/mask2former_r50_8xb2-lsj-50e_coco.py'
CENTERNET = 'configs/centernet/centernet_r18_voc.py'
HOURGLASS = 'configs/centernet/centernet_hourglass104_voc.py'
VIT = 'timm:vit_small_patch14_dinov2=dino.safetensors'


def taught(student, *choices):
    """The config of a student, with the teachers and the methods chosen."""
    cfg = load_config(student)
    distil(cfg, *choices)
    return cfg


@pytest.mark.parametrize(('path', 'family'), [
    (RETINANET, 'dense'), (FASTER, 'two_stage'), (CENTERNET, 'centernet'),
    ('mmdet::fcos/fcos_r50-caffe_fpn_gn-head_1x_coco.py', 'fcos'),
    ('mmdet::dino/dino-4scale_r50_8xb2-12e_coco.py', 'detr'),
    (MASK2FORMER, 'detr')])
def test_families(path, family):
    assert family_of(Config.fromfile(config_path(path)).model) == family


def test_pkd_is_the_default_for_any_two_detectors():
    cfg = taught(RETINANET, [f'{FASTER}=faster.pth'])
    [(name, entry)] = cfg.teachers.items()
    assert entry == dict(config=FASTER, checkpoint='faster.pth')
    assert cfg.distill_weights == dict(pkd=10)
    assert cfg.terms.pkd.tap == 'neck:*' and cfg.terms.pkd.match == 'stride'
    assert 'teachers' not in cfg.terms.pkd, 'all teachers teach it'
    assert cfg.custom_hooks[-1] == dict(type='DistillationHook')
    assert name in cfg.pretty_text


def test_a_preset_has_the_settings_of_a_family():
    cfg = taught(FASTER, [f'{RETINANET}=retina.pth'], ['pkd', 'fgd'])
    assert cfg.distill_weights == dict(pkd=6, fgd=1)
    assert cfg.terms.fgd.loss.alpha == 5e-5


def test_centernets_learn_from_centernets_by_the_recommended_recipe():
    cfg = taught(CENTERNET, [f'{HOURGLASS}=a.pth', f'{CENTERNET}=b.pth'])
    recipe = Config.fromfile('configs/_base_/distillation/joint.py')
    assert cfg.terms == recipe.terms and cfg.distill_weights == recipe.distill_weights


def test_a_config_that_distils_already_takes_other_teachers():
    cfg = taught('configs/centernet_mt_r18.py', [f'{HOURGLASS}=a.pth'])
    assert cfg.custom_hooks == [dict(type='DistillationHook')]
    assert list(cfg.teachers) == ['centernet_hourglass104_voc']


def test_each_teacher_teaches_what_fits_it():
    cfg = taught(CENTERNET, [f'{HOURGLASS}=a.pth', f'{RETINANET}=b.pth'], ['joint', 'pkd'])
    hourglass, retinanet = cfg.teachers
    assert list(cfg.terms) == ['heatmap', 'wh', 'offset', 'feature', 'pkd']
    assert [term.teachers for term in cfg.terms.values()] == [[hourglass]] * 4 + [[retinanet]]


def test_a_teacher_without_a_neck_is_tapped_before_its_head():
    cfg = taught(CENTERNET, [f'{HOURGLASS}=a.pth', f'{CENTERNET}=b.pth'], ['pkd'])
    assert cfg.terms.pkd.teacher_tap == 'bbox_head:input:-1'
    assert cfg.terms.pkd_2.tap == 'neck:*' and 'teacher_tap' not in cfg.terms.pkd_2
    assert cfg.terms.pkd.teachers + cfg.terms.pkd_2.teachers == list(cfg.teachers)


@pytest.mark.parametrize(('teachers', 'names', 'message'), [
    ([f'{FASTER}=a.pth'], ['pkdd'], r"--method 'pkdd' is none of .*Did you mean 'pkd'\?"),
    ([f'{FASTER}=a.pth'], ['joint'], '--method joint is for a CenterNet that learns from CenterN'),
    ([FASTER], None, 'or CONFIG=CHECKPOINT'),
    (['configs/none.py=a.pth'], None, "the config 'configs/none.py' does not exist"),
    ([VIT], ['pkd'], 'is a backbone alone: take foundation, foundation_pkd or foundation_l2'),
    ([f'{RETINANET}=a.pth'], ['foundation'], 'is for teachers that are a backbone alone'),
    (['timm:resnet10t'], ['foundation'],
     'nothing is downloaded, so give the file of its weights'),
    (['hf:nowhere'], ['foundation'], "there is no folder 'nowhere' with a config.json")])
def test_what_does_not_fit_is_one_sentence(teachers, names, message):
    with pytest.raises(UserError, match=message):
        taught(RETINANET, teachers, names)


def test_every_method_is_described():
    lines = describe_methods().splitlines()
    assert [line.split()[0] for line in lines[1:]] == list(methods())
    [fgd] = [line for line in lines if line.startswith('fgd')]
    assert 'boxes, img_shapes' in fgd
    assert all(len(line) > 40 for line in lines[1:]), 'each preset says what it is'


def _voc(root, splits=('train', 'val')):
    (root / 'ImageSets' / 'Main').mkdir(parents=True)
    for split in splits:
        (root / 'ImageSets' / 'Main' / f'{split}.txt').write_text('1\n')
    return root


def test_a_folder_in_voc_layout_takes_the_place_of_the_data(tmp_path):
    cfg = load_config('mmdet::cascade_rcnn/cascade-rcnn_r18_fpn_8xb8-amp-lsj-200e_coco.py')
    pipeline = cfg.train_dataloader.dataset
    while 'pipeline' not in pipeline:
        pipeline = pipeline.dataset
    use_data(cfg, _voc(tmp_path), ['cat', 'dog'])
    assert [head.num_classes for head in cfg.model.roi_head.bbox_head] == [2, 2, 2]
    train, test = cfg.train_dataloader.dataset, cfg.test_dataloader.dataset
    assert train.type == 'VOCLayoutDataset' and train.metainfo.classes == ('cat', 'dog')
    assert test.ann_file == 'ImageSets/Main/val.txt', 'there is no test split'
    assert cfg.test_evaluator.type == 'VOCMeanAPMetric'
    assert train.pipeline[-1].type == 'PackDetInputs'


def test_a_folder_in_coco_layout_names_its_classes(tmp_path):
    (tmp_path / 'annotations').mkdir()
    (tmp_path / 'train').mkdir()
    (tmp_path / 'val2017').mkdir()
    spec = dict(categories=[dict(id=7, name='dog'), dict(id=3, name='cat')])
    for name in ('instances_train.json', 'instances_val2017.json'):
        (tmp_path / 'annotations' / name).write_text(json.dumps(spec))
    cfg = load_config('mmdet::dino/dino-4scale_r50_8xb2-12e_coco.py')
    use_data(cfg, tmp_path)
    assert cfg.model.bbox_head.num_classes == 2
    assert cfg.train_dataloader.dataset.metainfo.classes == ('cat', 'dog')
    assert cfg.train_dataloader.dataset.data_prefix.img == 'train/'
    assert cfg.val_dataloader.dataset.data_prefix.img == 'val2017/'
    assert cfg.val_evaluator.ann_file == str(tmp_path / 'annotations/instances_val2017.json')


def test_a_folder_that_cannot_be_used_says_why(tmp_path):
    cfg = load_config(RETINANET)
    with pytest.raises(UserError, match=r'has neither ImageSets/Main .* nor annotations'):
        use_data(cfg, tmp_path, ['cat'])
    with pytest.raises(UserError, match='add --classes a,b,c'):
        use_data(cfg, _voc(tmp_path / 'a'))
    with pytest.raises(UserError, match='has no val split: none of ImageSets/Main/val'):
        use_data(cfg, _voc(tmp_path / 'b', ['train']), ['cat'])


@pytest.mark.parametrize('text', ['', '[]', '{"categories": [{"id": 1}]}', '{"categories": []}',
                                  '{"categories": [{"id": 1, "name": 2}]}', '[' * 100_000])
def test_coco_json_without_categories(tmp_path, text):
    for split in ('train', 'val'):
        (tmp_path / 'annotations').mkdir(exist_ok=True)
        (tmp_path / f'annotations/instances_{split}.json').write_text(text)
    with pytest.raises(UserError, match=r"instances_train\.json' is no COCO JSON with categories"):
        use_data(Config(dict(model=dict())), tmp_path)


def test_a_pyramid_meets_a_single_map_with_its_finest_level():
    cfg = taught(CENTERNET, [f'{RETINANET}=a.pth'])
    pkd = cfg.terms.pkd
    assert (pkd.tap, pkd.teacher_tap, pkd.match, pkd['size']) == (
        'neck:*', 'neck:0', 'order', 'student')
    cfg = taught(CENTERNET, [f'{RETINANET}=a.pth'], ['score_l2'])
    assert cfg.terms.score_l2['size'] == 'teacher', 'whose cells have the scores'
    cfg = taught(RETINANET, [f'{HOURGLASS}=a.pth'])
    assert (cfg.terms.pkd.tap, cfg.terms.pkd.teacher_tap) == ('neck:0', 'bbox_head:input:-1')


def test_a_detector_without_a_neck_and_a_bbox_head_is_tapped_behind_its_backbone():
    cfg = taught(MASK2FORMER, [f'{RETINANET}=a.pth', f'{HOURGLASS}=b.pth'])
    pyramid, single = cfg.terms.pkd, cfg.terms.pkd_2
    assert (pyramid.tap, pyramid.teacher_tap) == ('backbone:*', 'neck:*')
    assert (single.tap, single.teacher_tap) == ('backbone:0', 'bbox_head:input:-1')


def test_the_weights_of_classes_become_as_many():
    cfg = load_config(MASK2FORMER)
    use_number_of_classes(cfg.model, 2)
    head = cfg.model.panoptic_head
    assert head.num_things_classes == 2
    assert head.loss_cls.class_weight == [1.0, 1.0, 0.1], 'the last is of no object'


def test_a_backbone_alone_teaches_by_its_own_methods():
    cfg = taught(RETINANET, [VIT])
    assert cfg.teachers.to_dict() == dict(vit_small_patch14_dinov2=dict(
        model=dict(type='TimmModel', name='vit_small_patch14_dinov2'),
        checkpoint='dino.safetensors'))
    [(name, term)] = cfg.terms.items()
    assert (name, term.tap, term.teacher_tap) == ('foundation', 'backbone:-1', 'features')
    assert 0 < term.gradient_share < 1 and 'teachers' not in term


@pytest.mark.parametrize(('student', 'method'), [(CENTERNET, 'heatmap'), (RETINANET, 'pkd')])
def test_a_backbone_alone_beside_a_detector(student, method):
    cfg = taught(student, [f'{student}=a.pth', VIT])
    assert cfg.terms[method].teachers == [next(iter(cfg.teachers))]
    assert cfg.terms.foundation.teachers == ['vit_small_patch14_dinov2']
