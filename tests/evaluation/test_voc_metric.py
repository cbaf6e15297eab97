"""The metric as a run uses it: names, ground truth from samples, processes."""

import json
import math

import numpy as np
import pytest
import torch
import torch.distributed as dist
import torch.multiprocessing as mp
from helpers import leave_process_group
from mmengine.dataset import DefaultSampler
from mmengine.evaluator import Evaluator
from mmengine.logging import MMLogger
from mmengine.structures import InstanceData
from voc_devkit import devkit, draw

import mmkd  # noqa: F401
from mmkd.errors import UserError
from mmkd.evaluation import VOCMeanAPMetric
from mmkd.registry import METRICS

CLASSES = ('cat', 'dog', 'traffic light')


def _sample(detections, objects):
    from mmdet.structures import DetDataSample

    def instances(**arrays):
        return InstanceData(**{name: torch.from_numpy(array) for name, array in arrays.items()})

    hard = objects.difficult
    return DetDataSample(
        gt_instances=instances(bboxes=objects.boxes[~hard], labels=objects.labels[~hard]),
        ignored_instances=instances(bboxes=objects.boxes[hard], labels=objects.labels[hard]),
        pred_instances=instances(bboxes=detections.boxes, scores=detections.scores,
                                 labels=detections.labels))


def _evaluator(**kwargs):
    evaluator = Evaluator(METRICS.build(dict(type='VOCMeanAPMetric', **kwargs)))
    evaluator.dataset_meta = dict(classes=CLASSES)
    return evaluator


def _evaluate(samples, **kwargs):
    evaluator = _evaluator(**kwargs)
    evaluator.process(samples)
    return evaluator.evaluate(len(samples))


def _one_box(label=0, box=(0, 0, 9, 9), dtype=torch.float32):
    """One image with one object of class 0 and a detection of it."""
    from mmdet.structures import DetDataSample
    return DetDataSample(
        gt_instances=InstanceData(bboxes=torch.tensor([[0., 0, 9, 9]]), labels=torch.tensor([0])),
        ignored_instances=InstanceData(bboxes=torch.zeros(0, 4), labels=torch.zeros(0).long()),
        pred_instances=InstanceData(bboxes=torch.tensor([box], dtype=dtype),
                                    scores=torch.tensor([0.5], dtype=dtype),
                                    labels=torch.tensor([label])))


@pytest.mark.parametrize('eval_mode', ['11points', 'area'])
def test_reports_what_the_devkit_computes(eval_mode):
    detections, objects = draw(3, images=12, whole_pixels=False)
    got = _evaluate([_sample(*pair) for pair in zip(detections, objects, strict=True)],
                    eval_mode=eval_mode)
    curves = [devkit(detections, objects, label) for label in range(3)]
    means = dict(zip(['11points', 'area'], np.mean([curve[3:] for curve in curves], axis=0),
                     strict=True))
    chosen = 3 if eval_mode == '11points' else 4
    assert got == pytest.approx({
        'pascal_voc/mAP': means[eval_mode],
        'pascal_voc/mAP_11points': means['11points'],
        'pascal_voc/mAP_area': means['area'],
        'pascal_voc/AP/cat': curves[0][chosen],
        'pascal_voc/AP/dog': curves[1][chosen],
        'pascal_voc/AP/traffic light': curves[2][chosen],
    }, abs=1e-9)
    assert means['11points'] != means['area']
    assert all(type(value) is float for value in got.values())


def test_no_image_or_no_detection_at_all():
    got = _evaluate([])
    assert got['pascal_voc/mAP'] == got['pascal_voc/mAP_area'] == 0
    assert math.isnan(got['pascal_voc/AP/cat'])
    sample = _one_box()
    sample.pred_instances = sample.pred_instances[:0]
    got = _evaluate([sample, sample])
    assert got['pascal_voc/mAP'] == got['pascal_voc/AP/cat'] == 0
    assert math.isnan(got['pascal_voc/AP/dog'])


def test_second_evaluation_starts_afresh():
    evaluator = _evaluator()
    for box, expected in (((50, 50, 59, 59), 0), ((0, 0, 9, 9), 1)):
        evaluator.process([_one_box(box=box)])
        assert evaluator.evaluate(1)['pascal_voc/mAP'] == expected


def test_iou_threshold_is_used():
    # 10 x 10 of 10 x 16 pixels: an IoU of 0.625.
    sample = _one_box(box=(0, 0, 9, 15))
    assert _evaluate([sample], iou_thr=0.6)['pascal_voc/mAP'] == 1
    assert _evaluate([sample], iou_thr=0.65)['pascal_voc/mAP'] == 0


def test_half_precision_predictions_and_missing_ignored_instances():
    sample = _one_box(dtype=torch.bfloat16)
    sample.ignored_instances = InstanceData()
    assert _evaluate([sample])['pascal_voc/mAP'] == 1


def test_logs_one_row_for_each_class(tmp_path):
    log = tmp_path / 'run.log'
    MMLogger.get_instance('voc_metric_table', log_file=str(log))
    _evaluate([_one_box(), _one_box(box=(50, 50, 59, 59)), _one_box(label=1)])
    rows = {line.split('  ')[0].strip(): line.split() for line in log.read_text().splitlines()}
    # Three cats and two detections of class cat, one of them right: recall 1/3. Equal scores: the
    # right one came first, so that 4 of 11 thresholds (0 to 0.3) see a precision of 1.
    assert rows['class'] == ['class', 'objects', 'detections', 'recall', 'AP']
    assert rows['cat'] == ['cat', '3', '2', '0.333', '0.364']
    assert rows['dog'] == ['dog', '0', '1', '0.000', 'nan']
    assert rows['traffic light'] == ['traffic', 'light', '0', '0', '0.000', 'nan']


@pytest.mark.parametrize(('kwargs', 'message'), [
    (dict(eval_mode='11point'), "eval_mode .* '11point', use one of .* Did you mean '11points'"),
    (dict(iou_thr=50), 'iou_thr .* 50'),
    (dict(iou_thr=[0.5]), 'iou_thr'),
])
def test_unknown_settings_are_refused(kwargs, message):
    with pytest.raises(UserError, match=message):
        VOCMeanAPMetric(**kwargs)


def test_label_beyond_the_classes_is_refused():
    with pytest.raises(UserError, match=r'label 3 .* 3 classes .* num_classes=3'):
        _evaluator().process([_one_box(label=3)])


def test_images_without_annotations_are_refused():
    sample = _one_box()
    sample.gt_instances = InstanceData()
    sample.set_metainfo(dict(img_path='images/a.jpg'))
    with pytest.raises(UserError, match=r'no annotations with images/a\.jpg, .*LoadAnnotations'):
        _evaluator().process([sample])


@pytest.mark.parametrize(('order', 'expected'), [
    (('Resize', 'LoadAnnotations'), 1),
    # What the docstring warns of: annotations are scaled along with the image.
    (('LoadAnnotations', 'Resize'), 0),
])
def test_ground_truth_is_in_original_pixels_if_loaded_after_resize(order, expected):
    from mmengine.dataset import Compose

    from mmkd.registry import TRANSFORMS
    settings = dict(Resize=dict(scale=(32, 32), keep_ratio=False),
                    LoadAnnotations=dict(with_bbox=True))
    pipeline = Compose([TRANSFORMS.build(dict(type=name, **settings[name])) for name in order]
                       + [TRANSFORMS.build(dict(type='PackDetInputs'))])
    box = [20, 10, 80, 50]
    sample = pipeline(dict(
        img=np.zeros((64, 128, 3), np.uint8), img_shape=(64, 128), ori_shape=(64, 128), img_id=0,
        img_path='a.jpg', height=64, width=128,
        instances=[dict(bbox=box, bbox_label=0, ignore_flag=0)]))['data_samples']
    from mmdet.models.utils.misc import samplelist_boxtype2tensor
    samplelist_boxtype2tensor([sample])
    sample.pred_instances = InstanceData(bboxes=torch.tensor([box]).float(),
                                         scores=torch.ones(1), labels=torch.zeros(1).long())
    assert _evaluate([sample])['pascal_voc/mAP'] == expected


# Odd, even, and fewer images than processes. Tied scores make the order of the images matter.
SIZES = (1, 6, 7)


def _tied_samples(size):
    return [_sample(*pair) for pair in zip(*draw(1, size, tied_scores=True), strict=True)]


def _evaluate_a_share(rank, world_size, folder):
    dist.init_process_group('gloo', init_method=f'file://{folder}/store', rank=rank,
                            world_size=world_size)
    got = {}
    for size in SIZES:
        samples, evaluator = _tied_samples(size), _evaluator()
        indices = list(DefaultSampler(samples, shuffle=False))
        for start in range(0, len(indices), 2):
            evaluator.process([samples[i] for i in indices[start:start + 2]])
        got[size] = evaluator.evaluate(size)
    (folder / f'{rank}.json').write_text(json.dumps(got))
    leave_process_group()


@pytest.mark.dist
def test_two_processes_report_what_one_reports(tmp_path):
    mp.spawn(_evaluate_a_share, args=(2, tmp_path), nprocs=2)
    for size in SIZES:
        samples = _tied_samples(size)
        alone = _evaluate(samples)
        # The case is a hard one: the order of the images and an image counted twice both show.
        if size == 7:
            assert _evaluate(samples[::-1]) != alone
            assert _evaluate([*samples, samples[0]]) != alone
        for rank in range(2):
            shared = json.loads((tmp_path / f'{rank}.json').read_text())[str(size)]
            np.testing.assert_equal(shared, alone)
