"""Exported one-stage and two-stage detectors and DETRs detect what ``predict`` does."""

import json
from types import SimpleNamespace

import cv2
import numpy as np
import pytest
import torch
from dense_models import SIZE, config, lively
from helpers import CLASSES
from mmcv.transforms import Compose
from mmengine.registry import DefaultScope
from reference import config_on, mmdet_predictions, run_test_tool, with_bias, write_voc

from mmkd.deploy import Detector
from mmkd.deploy.compare.evaluate import OnnxModel
from mmkd.deploy.device.nms import Nms
from mmkd.deploy.export import export_onnx, export_pt2, exportable, exporter, model_metadata
from mmkd.deploy.export.detr_graph import _padding
from mmkd.deploy.export.quantize import CERTAIN, list_layers, quantize_onnx
from mmkd.distillation import build_model
from mmkd.engine import launch
from mmkd.errors import UserError
from mmkd.evaluation.voc_map import Detections as FoundObjects
from mmkd.evaluation.voc_map import Objects, voc_average_precision

NAMES = ['retinanet', 'gfl', 'detr', 'faster_rcnn']
MORE = ['fcos', 'rtmdet', 'yolox', 'atss', 'fsaf', 'conditional_detr', 'dab_detr',
        'deformable_detr', 'dino', 'vfnet', 'ddod', 'reppoints', 'foveabox',
        'autoassign', 'yolof', 'yolov3', 'centernet_update', 'free_anchor', 'cascade_rcnn']
# These must be told where an image ends.
SIZED = ['detr', 'conditional_detr', 'dab_detr', 'deformable_detr', 'dino', 'foveabox',
         'faster_rcnn', 'cascade_rcnn']


@pytest.fixture(autouse=True)
def _scope():
    with DefaultScope.overwrite_default_scope('mmdet'):
        yield


@pytest.fixture(scope='module')
def exports(images, tmp_path_factory):
    """Export a detector when it is first asked for."""
    done = {}

    def get(name):
        if name not in done:
            path = tmp_path_factory.mktemp(name) / 'student.onnx'
            # By default this one finds nothing in some of the images.
            model = lively(config(name), mean=-2.0 if name == 'centernet_update' else -4.0)
            checks = export_onnx(model, path, images)
            done[name] = SimpleNamespace(model=model, onnx=path, checks=checks)
        return done[name]

    return get


def same(ours, theirs, at_least=3):
    """Assert that two lists of boxes, scores and labels hold the same objects, in any order."""
    assert len(ours[1]) == len(theirs[1]) >= at_least
    distance = (np.abs(ours[0][:, None] - theirs[0][None]).max(-1) / 0.02
                + np.abs(ours[1][:, None] - theirs[1][None]) / 1e-4
                + 10 * (ours[2][:, None] != theirs[2][None]))
    assert distance.min(1).max(initial=0) < 1
    assert sorted(distance.argmin(1)) == list(range(len(ours[1])))


ALL = [*NAMES, *(pytest.param(name, marks=pytest.mark.matrix) for name in MORE)]


@pytest.mark.parametrize('name', ALL)
def test_equals_predict(exports, images, name):
    exported = exports(name)
    on_random, on_images = exported.checks
    assert (on_random.inputs, on_images.inputs) == (4, len(images))
    # YOLOX does not normalise images: to it random inputs are all black.
    assert min(on_random.boxes, on_images.boxes) > 10 or name == 'yolox'
    assert on_images.boxes > 10
    pictures = [cv2.imread(str(path)) for path in images]
    detector = Detector(exported.onnx)
    assert (detector.metadata.nms is None) == ('detr' in name or name == 'dino')
    assert detector.metadata.takes_sizes == (name in SIZED)
    for found, path, picture in zip(detector(pictures), images, pictures, strict=True):
        inputs, *theirs = mmdet_predictions(exported.model, path)
        np.testing.assert_allclose(detector.metadata.prepare(picture)[0], inputs, atol=1e-6)
        same(found, theirs)
        assert (np.diff(found.scores) <= 0).all()
        same(found, detector(picture))
    middle = float(found.scores.mean())
    assert len(detector(picture, score_thr=middle).scores) == (found.scores > middle).sum()


@pytest.mark.matrix
def test_tood_for_a_fixed_number_of_images(images, tmp_path):
    """Its head repeats the anchors as often as there are images."""
    model = lively(config('tood'))
    on_random, on_images = export_onnx(model, tmp_path / 'a.onnx', images, batch=2)
    assert min(on_random.boxes, on_images.boxes) > 10
    with pytest.raises(UserError, match='any number of images: use --batch 2'):
        export_onnx(model, tmp_path / 'b.onnx')


@pytest.mark.parametrize(('name', 'options'), [
    ('gfl', dict(batch=2)), pytest.param('vfnet', {}, marks=pytest.mark.matrix),
    pytest.param('yolov3', dict(dynamic_size=True), marks=pytest.mark.matrix)])
def test_float16(exports, images, tmp_path, name, options):
    on_random, on_images = export_onnx(exports(name).model, tmp_path / 'a.onnx', images, half=True,
                                       **options)
    assert min(on_random.boxes, on_images.boxes) > 10
    assert 1e-5 < on_random.score_difference < 1e-2


@pytest.mark.parametrize('name', [*NAMES, *(pytest.param(name, marks=pytest.mark.matrix)
                                            for name in ('fcos', 'rtmdet', 'yolox'))])
def test_a_batch_of_two_shapes(exports, images, name):
    exported = exports(name)
    steps = Compose(exported.model.cfg.test_dataloader.dataset.pipeline)
    samples = [steps(dict(img_path=str(path), img_id=0)) for path in images[:2]]
    batch = {key: [sample[key] for sample in samples] for key in samples[0]}
    with torch.no_grad():
        expected = exported.model.test_step(batch)
    with DefaultScope.overwrite_default_scope('mmkd'):
        ours = OnnxModel(str(exported.onnx), exported.model.cfg.model.data_preprocessor)
    for sample, theirs in zip(ours.test_step(batch), expected, strict=True):
        same(*([one.pred_instances[key].numpy() for key in ('bboxes', 'scores', 'labels')]
               for one in (sample, theirs)))


def test_what_the_metadata_says(exports):
    assert Detector(exports('retinanet').onnx).metadata.nms == Nms(
        iou_threshold=0.5, class_aware=True, max_per_img=100, score_thr=0.05, min_size=0)
    nms = Detector(exports('faster_rcnn').onnx).metadata.nms
    assert (nms.iou_threshold, nms.score_thr, nms.max_per_img, nms.clip) == (0.5, 0.05, 100, False)
    nms = model_metadata(lively(config('yolox'))).nms
    assert (nms.iou_threshold, nms.max_per_img, nms.min_size, nms.clip) == (0.65, 0, -1, False)
    about = model_metadata(lively(config('rtmdet')))
    assert about.pad_value == pytest.approx([(114 - 103.53) / 57.375, (114 - 116.28) / 57.12,
                                             (114 - 123.675) / 58.395])
    # What the test pipeline pads belongs to the image.
    assert (about.input_size, about.nms.clip) == ((SIZE, SIZE), False)


@pytest.mark.parametrize('name', [pytest.param('retinanet', marks=pytest.mark.matrix), 'rtmdet',
                                  'detr'])
def test_images_of_any_size(images, tmp_path, name):
    _, on_images = export_onnx(lively(config(name)), tmp_path / 'a.onnx', images, image_input=True)
    assert on_images.boxes > 10
    detector = Detector(tmp_path / 'a.onnx')
    assert [value.name for value in detector.session.get_inputs()] == ['image']
    assert len(detector(cv2.imread(str(images[0]))).scores) > 2


@pytest.mark.matrix
def test_sizes_that_vary(images, tmp_path):
    on_random, _ = export_onnx(lively(config('gfl')), tmp_path / 'a.onnx', images,
                               dynamic_size=True)
    assert on_random.inputs == 1 + 3 + 1 + 3
    detector = Detector(tmp_path / 'a.onnx', input_size=(SIZE, 2 * SIZE))
    assert detector(cv2.imread(str(images[0]))).boxes.shape[1] == 4


@pytest.mark.parametrize('name', [pytest.param('fcos', marks=pytest.mark.matrix), 'detr'])
def test_pt2(exports, images, tmp_path, name):
    on_random, on_images = export_pt2(exports(name).model, tmp_path / 'a.pt2', images)
    assert min(on_random.boxes, on_images.boxes) > 10


@pytest.mark.parametrize('name', ['retinanet', 'gfl'])
def test_int8(exports, images, tmp_path, name):
    exported = exports(name)
    report = quantize_onnx(exported.onnx, tmp_path / 'int8.onnx', list(map(str, images)))
    assert report.agreeing >= report.certain / 2
    kept = {layer.name for layer in list_layers(exported.onnx) if layer.kept}
    prefix = name.removesuffix('net')
    assert kept == {f'bbox_head.{prefix}_cls', f'bbox_head.{prefix}_reg'}
    exact, int8 = Detector(exported.onnx), Detector(tmp_path / 'int8.onnx')
    assert (int8.metadata.precision, int8.metadata.nms) == ('int8', exact.metadata.nms)
    # What the float model is certain of is what there is to be found: its own precision is 1.
    pictures = [cv2.imread(str(path)) for path in images]
    objects = [Objects(found.boxes, found.labels, np.zeros(len(found.labels), bool))
               for found in exact(pictures, score_thr=CERTAIN)]
    for model, least in ((exact, 0.999), (int8, 0.8)):
        results = voc_average_precision([FoundObjects(*found) for found in model(pictures)],
                                        objects, len(CLASSES))
        assert np.nanmean([result.ap_area for result in results]) > least


def test_a_wrong_number_is_noticed(exports, images, tmp_path, monkeypatch):
    exported = exports('retinanet')
    proto = with_bias(exported.onnx, 'retina_reg.bias', 0.01)
    monkeypatch.setattr(exporter, 'to_onnx', lambda *args: proto)
    with pytest.raises(UserError, match=r'was not written .* no such detection'):
        export_onnx(exported.model, tmp_path / 'a.onnx', images)
    assert list(tmp_path.iterdir()) == []


def test_the_metrics_of_the_checkpoint(exports, images, tmp_path, monkeypatch):
    exported = exports('retinanet')
    write_voc(tmp_path, exported.model, images)
    cfg = config_on(tmp_path, tmp_path / 'work', model=exported.model.cfg.model.to_dict())
    torch.save(dict(state_dict=exported.model.state_dict()), tmp_path / 'epoch_1.pth')
    with DefaultScope.overwrite_default_scope('mmkd'):
        expected = launch.test(cfg.copy(), str(tmp_path / 'epoch_1.pth'))
    assert 0.05 < expected['pascal_voc/mAP_area'] < 0.95
    cfg.dump(tmp_path / 'config.py')
    run_test_tool(monkeypatch, tmp_path / 'config.py', exported.onnx, '--work-dir',
                  tmp_path / 'work', '--out', tmp_path / 'metrics.json')
    assert json.loads((tmp_path / 'metrics.json').read_text()) == pytest.approx(expected, abs=1e-6)


@pytest.mark.parametrize(('name', 'part', 'values', 'message'), [
    ('paa', 'test_cfg', {},
     r'the PAAHead predicts by steps of its own \(predict_by_feat, .*post_process\)'),
    ('ddq', 'test_cfg', {}, r'is a DDQDETR with a DDQDETRHead but only'),
    ('retinanet', 'test_cfg.nms', dict(type='soft_nms'), 'test_cfg.nms is .*soft_nms'),
    ('retinanet', 'test_cfg', dict(nms=None), 'test_cfg.nms is None'),
    ('fcos', 'test_cfg', dict(nms_pre=-1), 'set nms_pre'),
    ('gfl', 'test_cfg', dict(max_per_img=0), 'max_per_img'),
    ('detr', 'test_cfg', dict(max_per_img=21), 'max_per_img of the head is 21, .* 20 results'),
    ('faster_rcnn', 'roi_head', dict(type='mmdet.DoubleHeadRoIHead', reg_roi_scale_factor=1.3),
     'its DoubleHeadRoIHead differs from StandardRoIHead in _bbox_forward'),
    ('faster_rcnn', 'roi_head.bbox_roi_extractor', dict(type='mmdet.GenericRoIExtractor'),
     'GenericRoIExtractor differs from SingleRoIExtractor in forward, map_roi_levels'),
    ('faster_rcnn', 'roi_head.bbox_roi_extractor.roi_layer', dict(pool_mode='max'),
     'only an averaging RoIAlign'),
    ('faster_rcnn', 'roi_head.bbox_head.loss_cls',
     dict(_delete_=True, type='mmdet.SeesawLoss', num_classes=3), 'one softmax'),
    ('faster_rcnn', 'rpn_head.bbox_coder', dict(type='mmdet.TBLRBBoxCoder', _delete_=True),
     'TBLRBBoxCoder'),
    ('faster_rcnn', 'test_cfg.rpn', dict(max_per_img=0), 'must limit the proposals'),
    ('faster_rcnn', 'test_cfg.rcnn.nms', dict(type='soft_nms'), 'nms is .*soft_nms'),
])
def test_what_cannot_be_exported(name, part, values, message):
    cfg = config(name)
    cfg.merge_from_dict({f'model.{part}': values})
    with pytest.raises(UserError, match=message):
        exportable(build_model(cfg))


def test_two_stage_detectors_need_onnx(exports, tmp_path):
    with pytest.raises(UserError, match='leave --format pt2 out'):
        export_pt2(exports('faster_rcnn').model, tmp_path / 'a.pt2')


@pytest.mark.parametrize('name', ['detr', 'faster_rcnn'])
def test_options_that_those_with_sizes_refuse(name):
    model = lively(config(name))
    for option in ('dynamic_size', 'half'):
        with pytest.raises(UserError, match=f'leave --{option.replace("_", "-")} out'):
            model_metadata(model, **{option: True})


@pytest.mark.parametrize(('name', 'replaced', 'pad', 'message'), [
    ('detr', 0, dict(size=(SIZE, SIZE)), 'leave Pad out'),
    ('rtmdet', 1, dict(size_divisor=32), 'not one square of at least 64 pixels')])
def test_pipelines_that_pad_otherwise(name, replaced, pad, message):
    cfg = config(name)
    cfg.test_dataloader.dataset.pipeline[2:2 + replaced] = [dict(type='Pad', **pad)]
    with pytest.raises(UserError, match=message):
        model_metadata(lively(cfg))


def test_the_padding_that_a_detr_leaves_out():
    for whole, cells in (((64, 96), (2, 3)), ((1333, 800), (42, 25)), ((100, 60), (4, 2))):
        sizes = torch.tensor([whole, (whole[0] // 2 + 1, whole[1] // 3), (1, 1)])
        mask = torch.ones(3, *whole)
        for one, (height, width) in zip(mask, sizes, strict=True):
            one[:height, :width] = 0
        expected = torch.nn.functional.interpolate(mask[:, None], size=cells)[:, 0].bool()
        assert torch.equal(_padding(sizes, whole, cells), expected)
