"""What `unlabelled` of a config becomes before a run is built."""

import pytest
from mmengine.config import Config

from mmkd.commands.train import arguments
from mmkd.engine.launch import config_from_arguments
from mmkd.engine.unlabelled import use_unlabelled
from mmkd.errors import UserError

LOAD = [dict(type='LoadImageFromFile', ignore_empty=True),
        dict(type='LoadAnnotations', with_bbox=True, with_seg=True)]
PIPELINE = [*LOAD, dict(type='Resize', scale=(64, 64)),
            dict(type='RandomChoice', transforms=[[dict(type='RandomCrop', crop_size=(8, 8))],
                                                  [dict(type='FilterAnnotations')]]),
            dict(type='FilterAnnotations', min_gt_bbox_wh=(1, 1)), dict(type='PackDetInputs')]
VOC = dict(type='VOCLayoutDataset', data_root='data/mine', ann_file='train.txt',
           metainfo=dict(classes=('cat', 'dog')), pipeline=PIPELINE)


def _config(dataset=VOC, hooks=(dict(type='DistillationHook'), ), model='CenterNet', **unlabelled):
    return Config(dict(
        model=dict(type=model), custom_hooks=list(hooks),
        train_dataloader=dict(batch_size=4, dataset=dataset,
                              batch_sampler=dict(type='AspectRatioBatchSampler')),
        unlabelled=dict(data_root='photos') | unlabelled))


@pytest.mark.parametrize('wrapped', [
    VOC, dict(type='RepeatDataset', times=3, dataset=VOC),
    dict(type='ConcatDataset', datasets=[VOC, dict(VOC, pipeline=[])])])
def test_the_training_pipeline_without_what_needs_objects(wrapped):
    cfg = _config(wrapped, ratio=2, weight=0.5)
    use_unlabelled(cfg)
    given = cfg.custom_hooks[0].unlabelled
    assert (given.ratio, given.weight, given.only) == (2, 0.5, False)
    assert given.dataset.to_dict() == dict(
        type='UnlabelledImages', data_root='photos', metainfo=dict(classes=('cat', 'dog')),
        pipeline=[dict(type='LoadImage'),
                  dict(type='LoadAnnotations', with_bbox=True, with_seg=False),
                  dict(type='Resize', scale=(64, 64)),
                  dict(type='RandomChoice', transforms=[
                      [dict(type='RandomCrop', crop_size=(8, 8), allow_negative_crop=True)], []]),
                  dict(type='PackDetInputs')])
    assert cfg.train_dataloader.dataset == wrapped, 'the labelled images stay'


def test_only_takes_the_place_of_the_training_data():
    cfg = _config(only=True)
    use_unlabelled(cfg)
    assert cfg.train_dataloader.dataset == cfg.custom_hooks[0].unlabelled.dataset
    assert 'batch_sampler' not in cfg.train_dataloader and cfg.find_unused_parameters


@pytest.mark.parametrize(('change', 'sentence'), [
    (dict(data_root=''), "unlabelled has data_root='': name a folder"),
    (dict(ratio=0), 'unlabelled has ratio=0: give a number above 0'),
    (dict(weight=float('nan')), 'unlabelled has weight=nan: give a number above 0'),
    (dict(only='yes'), "unlabelled has only='yes': give True or False"),
    (dict(only=True, weight=2), 'unlabelled has weight=2 and only=True'),
    (dict(rato=2), r"unknown entry 'rato'. Did you mean 'ratio'"),
    (dict(hooks=()), 'teach nothing without teachers'),
    (dict(model='Classifier'), 'unlabelled is for detectors'),
    (dict(dataset=dict(type='MultiImageMixDataset', dataset=VOC)), 'that mix several images'),
    (dict(dataset=dict(VOC, pipeline=[])), 'VOCLayoutDataset has none')])
def test_mistakes(change, sentence):
    with pytest.raises(UserError, match=sentence):
        use_unlabelled(_config(**change))


def test_nothing_changes_without_the_entry():
    cfg = _config()
    cfg.pop('unlabelled')
    before = cfg.to_dict()
    use_unlabelled(cfg)
    assert cfg.to_dict() == before


def test_the_option_of_the_command():
    args = arguments('mmkd train').parse_args([
        'configs/centernet_mt_r18.py', '--unlabelled', 'photos/', '--cfg-options',
        'unlabelled.weight=2'])
    assert config_from_arguments(args).unlabelled == dict(data_root='photos/', weight=2)
