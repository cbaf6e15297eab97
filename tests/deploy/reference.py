"""What exported models are made of, and compared with: MMDetection, plain loops, `mmkd test`."""

import itertools
import runpy
import sys
from dataclasses import replace
from pathlib import Path

import cv2
import numpy as np
import onnx
import torch
from archives import write_image
from helpers import CLASSES, build
from mmcv.transforms import Compose
from mmengine.config import Config
from mmengine.registry import DefaultScope
from onnx import numpy_helper
from photo_folders import xml
from torch import nn

from mmkd.deploy import Detections, open_model
from mmkd.deploy.export.image_graph import with_preprocessing

ROOT = Path(__file__).parents[2]
SIZE = 64


def pipeline():
    return [dict(type='LoadImageFromFile'),
            dict(type='Resize', scale=(SIZE, SIZE), keep_ratio=True),
            dict(type='LoadAnnotations', with_bbox=True),
            dict(type='PackDetInputs',
                 meta_keys=('img_id', 'img_path', 'ori_shape', 'img_shape', 'scale_factor'))]


def config_of(model, classes=CLASSES):
    """What a config that trains ``model`` says about testing it."""
    dataset = dict(type='VOCDataset', metainfo=dict(classes=classes), pipeline=pipeline())
    return Config(dict(default_scope='mmkd', model=model,
                       test_dataloader=dict(dataset=dataset)))


def lively(config):
    """Build a detector whose scores, sizes and offsets differ from place to place."""
    model = build(config)
    torch.manual_seed(1)
    for module in model.modules():
        if hasattr(module, 'conv_offset'):
            nn.init.normal_(module.conv_offset.weight, std=0.1)
    head = model.bbox_head
    for branch in (head.heatmap_head, head.wh_head, head.offset_head):
        nn.init.normal_(branch[0].weight, std=0.3)
        nn.init.normal_(branch[-1].weight, std=0.5)
    model.cfg, model.dataset_meta = config_of(config), dict(classes=CLASSES)
    return model.eval()


def with_bias(path, name, change):
    """The graph of a file, without its metadata, in which one bias is larger by so much."""
    proto = onnx.load(path)
    bias, = (value for value in proto.graph.initializer if value.name.endswith(name))
    changed = numpy_helper.to_array(bias) + np.float32(change)
    bias.CopyFrom(numpy_helper.from_array(changed, bias.name))
    del proto.metadata_props[:]
    return proto


def write_folders(root, classes, sizes, block=1):
    """Images of noise of these sizes (height, width) as ImageNet's: ``train/cat/0.png`` etc.

    Each colour fills a block of so many pixels in height and width.
    """
    generator = np.random.default_rng(0)
    for split, name in itertools.product(('train', 'val'), classes):
        for number, size in enumerate(sizes):
            noise = generator.integers(0, 256, (*size, 3), dtype=np.uint8)[::block, ::block]
            write_image(root / split / name / f'{number}.png',
                        noise.repeat(block, 0).repeat(block, 1)[:size[0], :size[1]])
    return root


def write_video(path, levels):
    """Five frames a second of these grey levels, as .avi or .mp4."""
    codec = cv2.VideoWriter_fourcc(*('MJPG' if path.suffix == '.avi' else 'mp4v'))
    writer = cv2.VideoWriter(str(path), codec, 5, (64, 64))
    assert writer.isOpened()
    for level in levels:
        writer.write(np.full((64, 64, 3), level, np.uint8))
    writer.release()


def with_metadata(path, out, **values):
    """A copy of an exported model that says something else of itself; it may take images then."""
    about = replace(open_model(path).metadata, **values)
    proto = onnx.load(path)
    if about.input_kind == 'image':
        proto = with_preprocessing(proto, about)
    onnx.helper.set_model_props(proto, about.to_props())
    onnx.save(proto, out)
    return out


def detections(*rows):
    """Of rows of a score, a label and a box."""
    rows = np.array(rows, np.float32).reshape(-1, 6)
    return Detections(rows[:, 2:], rows[:, 0], rows[:, 1].astype(np.int64))


def mmdet_predictions(model, path):
    """The preprocessed input, the boxes in image pixels, and scores and labels."""
    sample = Compose(model.cfg.test_dataloader.dataset.pipeline)(
        dict(img_path=str(path), img_id=0))
    data = dict(inputs=[sample['inputs']], data_samples=[sample['data_samples']])
    inputs = model.data_preprocessor(data)['inputs'][0].numpy()
    with torch.no_grad():
        found = model.test_step(data)[0].pred_instances
    return inputs, found.bboxes.numpy(), found.scores.numpy(), found.labels.numpy()


def by_loops(boxes, scores, threshold):
    """Greedy NMS on Python numbers."""
    kept = []
    for i in sorted(range(len(boxes)), key=lambda i: -scores[i]):
        for j in kept:
            a, b = boxes[i].tolist(), boxes[j].tolist()
            width, height = (min(a[k + 2], b[k + 2]) - max(a[k], b[k]) for k in (0, 1))
            common = max(width, 0) * max(height, 0)
            union = sum((box[2] - box[0]) * (box[3] - box[1]) for box in (a, b)) - common
            if common / union > threshold:
                break
        else:
            kept.append(i)
    return kept


def write_voc(root, model, images):
    """A data set in VOC layout: objects near some of the places where PyTorch finds any."""
    (root / 'JPEGImages').mkdir(parents=True)
    (root / 'ImageSets/Main').mkdir(parents=True)
    generator = np.random.default_rng(0)
    for path in images:
        (root / 'JPEGImages' / path.name).write_bytes(path.read_bytes())
        with DefaultScope.overwrite_default_scope('mmkd'):
            sample = Compose(pipeline())(dict(img_path=str(path), img_id=0))
        with torch.no_grad():
            found = model.test_step(dict(inputs=[sample['inputs']],
                                         data_samples=[sample['data_samples']]))[0].pred_instances
        height, width = cv2.imread(str(path)).shape[:2]
        boxes = found.bboxes.numpy() + generator.uniform(-1, 1, (len(found), 4))
        boxes = boxes.clip(1, [width, height, width, height]).round().astype(int)
        chosen = np.flatnonzero((boxes[:, 2:] - boxes[:, :2] > 4).all(1))[::7]
        xml(root / f'Annotations/{path.stem}.xml',
            *((CLASSES[found.labels[i]], *boxes[i]) for i in chosen), size=(width, height))
    (root / 'ImageSets/Main/test.txt').write_text('\n'.join(path.stem for path in images))
    return root


def classifier_config(work_dir='work', **dataset):
    """A config by which `launch.test` runs a classifier of three classes on a data set."""
    dataset = dict(type='CIFAR10', data_root='data', split='test') | dataset
    return Config(dict(
        default_scope='mmkd', work_dir=str(work_dir), launcher='none',
        custom_imports=dict(imports=['mmkd']),
        model=dict(type='Classifier', backbone=dict(type='resnet8'), num_classes=3,
                   data_preprocessor=dict(type='BatchPreprocessor', mean=[125.3, 123.0, 113.9],
                                          std=[63.0, 62.1, 66.7])),
        test_cfg=dict(type='TestLoop'), test_evaluator=dict(type='TopKAccuracy', topk=(1, 2)),
        test_dataloader=dict(
            batch_size=8, num_workers=0, sampler=dict(type='DefaultSampler', shuffle=False),
            collate_fn=dict(type='whole_batch'), dataset=dataset)))


def config_on(root, work_dir, **config):
    """A config by which `launch.test` runs a detector on what `write_voc` wrote."""
    dataset = dict(type='VOCLayoutDataset', data_root=str(root), test_mode=True,
                   ann_file='ImageSets/Main/test.txt', metainfo=dict(classes=CLASSES),
                   pipeline=pipeline())
    return Config(dict(
        config, default_scope='mmkd', work_dir=str(work_dir), launcher='none', default_hooks={},
        custom_imports=dict(imports=['mmkd']), test_cfg=dict(type='TestLoop'),
        test_evaluator=dict(type='VOCMeanAPMetric'),
        visualizer=dict(type='DetLocalVisualizer', name=str(work_dir)),
        test_dataloader=dict(batch_size=2, num_workers=0, dataset=dataset,
                             sampler=dict(type='DefaultSampler', shuffle=False))))


def run_test_tool(monkeypatch, *args):
    monkeypatch.setattr(sys, 'argv', ['test.py', *map(str, args)])
    runpy.run_path(str(ROOT / 'tools/test.py'), run_name='__main__')
