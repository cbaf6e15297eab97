"""Write the config of a student for the user's own photographs."""

import math
import os
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch

from mmkd.own_data.photos import Found

__all__ = ['Student', 'config_text', 'recommend']

OBJECT = 12
"""So many pixels have the sides of all but the smallest tenth of the objects: three cells of a
CenterNet's map."""
TINY_IMAGE = 64
"""Up to this side the networks of the CIFAR literature see an image whole."""


@dataclass(frozen=True)
class Student:
    """What is recommended: files of ``configs`` and the numbers that follow from the data."""

    bases: Sequence[str]
    """From ``configs``."""
    image_size: int
    """Side in pixels."""
    batch_size: int
    """Images of a step."""
    epochs: int
    """After which the training ends."""
    teacher: str
    """Options that make a heavier network of it, or a classifier's name."""
    why: str
    """For whom it is, for a comment; of a classifier, its name."""


def recommend(found: Found, with_gpu: bool | None = None) -> Student:
    """Choose a student by the number of photographs, the sizes of the objects, and the machine.

    Args:
        found: with splits.
        with_gpu: whether it is trained on a GPU; None to look.
    """
    with_gpu = torch.cuda.is_available() if with_gpu is None else with_gpu
    count = sum(photo.split == 'train' for photo in found.photos)
    if found.is_classified:
        return _classifier(found, count, with_gpu)
    if with_gpu:
        return Student(
            ['_base_/models/centernet_resnet18.py', '_base_/datasets/own.py',
             '_base_/schedules/centernet_100e.py', '_base_/default_runtime.py'],
            _detector_size(found, 320, 768), min(16, count), 100,
            'model.backbone.depth=50 model.neck.in_channels=2048 model.backbone.init_cfg.'
            'checkpoint=https://download.pytorch.org/models/resnet50-0676ba61.pth',
            'CenterNet with ResNet-18 and ImageNet weights (45 MB, fetched once): for a GPU')
    # From scratch some 600 steps or more: docs/results.md.
    epochs = 72 if count <= 64 else 24 if count <= 800 else 8
    return Student(
        ['_base_/models/narrow_resnet18.py', '_base_/datasets/own.py',
         f'_base_/schedules/small_{epochs}e.py', '_base_/default_runtime.py'],
        _detector_size(found, 160, 320), min(8, count), epochs,
        'model.backbone.base_channels=32 model.neck.in_channels=256',
        'CenterNet with a narrow ResNet-18, without initial weights: for a CPU')


def _classifier(found: Found, count: int, with_gpu: bool) -> Student:
    shorter = int(np.median([min(photo.size) for photo in found.photos]))
    bases = ['_base_/classification/data.py', '_base_/classification/cifar_240e.py',
             'classification/methods/{{$MMKD_METHOD:ce}}.py']
    if shorter <= TINY_IMAGE:
        return Student(bases, shorter, min(64, count), 240, 'resnet32x4', 'resnet8x4')
    return Student(bases, min(shorter, 224 if with_gpu else 96), min(64, count), 240,
                   'imagenet_resnet34', 'imagenet_resnet18')


def _detector_size(found: Found, least: int, most: int) -> int:
    shares = [math.sqrt((box.corners[2] - box.corners[0]) * (box.corners[3] - box.corners[1]))
              / max(photo.size) for photo in found.photos for box in photo.boxes]
    wanted = OBJECT / np.percentile(shares, 10)
    return int(min(max(32 * math.ceil(wanted / 32), least), most))


def config_text(found: Found, student: Student, classes: Sequence[str], root: Path,
                out: Path) -> str:
    """Return the text of a config that trains ``student``.

    Args:
        found: with splits.
        student: of :func:`recommend`.
        classes: their names in order.
        root: the folder of the photographs.
        out: where the config will lie; the lists are in ``<its name>_data`` beside it.
    """
    bases = ''.join(f"    'mmkd::{base}',\n" for base in student.bases)
    counts = found.counts()
    facts = dict(
        what=f'{len(found.photos)} photographs of {str(root)!r}',
        counts=', '.join(f'{name} {counts[name]}' for name in classes[:8])
        + (', ...' if len(classes) > 8 else ''),
        name=out.stem, path=os.path.relpath(out), bases=bases, classes=tuple(classes),
        folder=f'{{{{ fileDirname }}}}/{out.stem}_data/', size=student.image_size,
        batch=student.batch_size, epochs=student.epochs, teacher=student.teacher, why=student.why)
    if found.is_classified:
        return CLASSIFIER.format(**facts, padding=max(student.image_size // 8, 1))
    with_gpu = 'centernet_100e' in ''.join(student.bases)
    return DETECTOR.format(**facts, augment=CROP if with_gpu else FLIP, workers=4 * with_gpu,
                           options='' if with_gpu else "amp = 'auto'\nchannels_last = True\n")


FLIP = "    dict(type='RandomFlip', prob=0.5),\n"
CROP = """\
    dict(type='FastRandomCenterCropPad', distortion=dict(), crop_size=(image_size, image_size),
         ratios=(0.6, 0.7, 0.8, 0.9, 1.0, 1.1, 1.2, 1.3), mean=[123.675, 116.28, 103.53],
         std=[58.395, 57.12, 57.375], to_rgb=True, test_pad_mode=None),
    dict(type='Resize', scale=(image_size, image_size), keep_ratio=True),
    dict(type='FastRandomFlip', prob=0.5),
"""

DETECTOR = """\
# {what}: {counts}.
#   mmkd train {path}
#   mmkd test work_dirs/{name}
_base_ = [  # {why}
{bases}]

classes = {classes!r}
image_size = {size}  # nine of ten objects then have 12 px or more, as far as the machine bears it
data = dict(data_root='{folder}', metainfo=dict(classes=classes))

train_pipeline = [
    dict(type='LoadImage'),
    dict(type='LoadAnnotations', with_bbox=True),
    dict(type='Resize', scale=(image_size, image_size), keep_ratio=True),
{augment}    dict(type='PackDetInputs')]
test_pipeline = [
    dict(type='LoadImage'),
    dict(type='Resize', scale=(image_size, image_size), keep_ratio=True),
    dict(type='LoadAnnotations', with_bbox=True),  # after Resize: the boxes keep their size
    dict(type='PackDetInputs',
         meta_keys=('img_id', 'img_path', 'ori_shape', 'img_shape', 'scale_factor'))]
train_dataloader = dict(
    batch_size={batch}, num_workers={workers}, dataset=dict(data, pipeline=train_pipeline))
val_dataloader = dict(num_workers={workers}, dataset=dict(data, pipeline=test_pipeline))
test_dataloader = val_dataloader  # its list is another one, see datasets/own.py
val_evaluator = dict(ann_file=data['data_root'] + 'annotations/instances_val.json')
test_evaluator = dict(ann_file=data['data_root'] + 'annotations/instances_test.json')

{options}model = dict(
    data_preprocessor=dict(pad_size_divisor=image_size),  # images are padded to squares
    bbox_head=dict(num_classes=len(classes)))
"""

CLASSIFIER = """\
# {what}: {counts}.
#   mmkd train {path}                                   # the student alone
#   mmkd train {path} --student {teacher}               # a teacher
#   mmkd train {path} --teacher {teacher} --method kd   # distil
#   mmkd test work_dirs/{name}/ce_{why}
_base_ = [
{bases}]

method = '{{{{$MMKD_METHOD:ce}}}}'  # --method, a file of configs/classification/methods
student = '{{{{$MMKD_STUDENT:{why}}}}}'  # --student, a network of mmkd.classification.networks
teacher = '{{{{$MMKD_TEACHER:{teacher}}}}}'
classes = {classes!r}
preprocessor = dict(
    type='BatchPreprocessor', mean=[123.675, 116.28, 103.53], std=[58.395, 57.12, 57.375],
    crop_padding={padding})
model = dict(type='Classifier', backbone=dict(type=student), num_classes=len(classes),
             data_preprocessor=preprocessor)
teachers = {{}} if method == 'ce' else {{teacher: dict(
    model=dict(model, backbone=dict(type=teacher)),
    checkpoint=f'work_dirs/{name}/ce_{{teacher}}/epoch_{epochs}.pth')}}

data = dict(type='ImageListInMemory', data_root='{folder}',
            metainfo=dict(classes=classes), image_size={size})
train_dataloader = dict(batch_size={batch}, dataset=dict(data, _delete_=True, ann_file='train.txt'))
val_dataloader = dict(dataset=dict(data, _delete_=True, ann_file='val.txt'))
test_dataloader = dict(dataset=dict(data, _delete_=True, ann_file='test.txt'))
work_dir = '_'.join(['work_dirs/{name}/' + method, *teachers, student])
"""
