"""What exported models are compared with: MMDetection, NMS in plain loops, `mmkd test`."""

import runpy
import sys
from pathlib import Path

import cv2
import numpy as np
import torch
from conftest import pipeline
from helpers import CLASSES
from mmcv.transforms import Compose
from mmengine.config import Config
from mmengine.registry import DefaultScope

ROOT = Path(__file__).parents[2]
OBJECT = ('<object><name>{}</name><difficult>0</difficult><bndbox><xmin>{}</xmin><ymin>{}</ymin>'
          '<xmax>{}</xmax><ymax>{}</ymax></bndbox></object>')


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


def annotation(model, path, generator):
    """Objects near some of the places where PyTorch finds any."""
    with DefaultScope.overwrite_default_scope('mmkd'):
        sample = Compose(pipeline())(dict(img_path=str(path), img_id=0))
    with torch.no_grad():
        found = model.test_step(dict(inputs=[sample['inputs']],
                                     data_samples=[sample['data_samples']]))[0].pred_instances
    height, width = cv2.imread(str(path)).shape[:2]
    boxes = found.bboxes.numpy() + generator.uniform(-1, 1, (len(found), 4))
    boxes = boxes.clip(1, [width, height, width, height]).round().astype(int)
    chosen = np.flatnonzero((boxes[:, 2:] - boxes[:, :2] > 4).all(1))[::7]
    objects = ''.join(OBJECT.format(CLASSES[found.labels[i]], *boxes[i]) for i in chosen)
    return (f'<annotation><size><width>{width}</width><height>{height}</height><depth>3</depth>'
            f'</size>{objects}</annotation>')


def write_voc(root, model, images):
    """A data set in VOC layout of which a detector finds a part."""
    for name in ('JPEGImages', 'Annotations', 'ImageSets/Main'):
        (root / name).mkdir(parents=True)
    generator = np.random.default_rng(0)
    for path in images:
        (root / 'JPEGImages' / path.name).write_bytes(path.read_bytes())
        (root / f'Annotations/{path.stem}.xml').write_text(annotation(model, path, generator))
    (root / 'ImageSets/Main/test.txt').write_text('\n'.join(path.stem for path in images))
    return root


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
