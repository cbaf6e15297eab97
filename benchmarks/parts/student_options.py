"""The student's own training step, without teachers: eager against its options, each and together.

CenterNet with ResNet-18, a batch of 4 images of 256x256 pixels with 12 objects each, and
ResNet-8x4, a batch of 64 images of 32x32 pixels. Each step is that of a runner with all of its
hooks. The first call of a compiled step, which compiles it, is not in the times; how long it took
is in the note.
Without a C++ compiler there are no rows for ``compile``.
"""

import tempfile
import time
from collections.abc import Callable, Iterable
from dataclasses import replace
from pathlib import Path
from typing import Any

import torch
from harness import Options, Result, compare
from mmdet.structures import DetDataSample
from mmengine.config import Config
from mmengine.structures import InstanceData
from runs import classifier, classifier_run, has_compiler, started

from mmkd.engine.config import load_config

CONFIG = Path(__file__).parents[2] / 'configs/centernet/centernet_r18_voc.py'
PART = 'student_options'
BF16 = dict(amp='bf16')
CHANNELS_LAST = dict(channels_last=True)
COMPILE = dict(compile=True)


def measure(options: Options) -> Iterable[Result]:
    """Time both students."""
    variants = {'channels_last': CHANNELS_LAST, 'bf16': BF16,
                'bf16 + channels_last': BF16 | CHANNELS_LAST}
    if options.quick:  # to see that it runs, without waiting for a C++ compiler
        variants = {'compile + bf16': BF16 | dict(compile=dict(backend='eager'))}
    elif has_compiler():
        variants |= {'compile': COMPILE, 'compile + channels_last': COMPILE | CHANNELS_LAST,
                     'compile + bf16 + channels_last': COMPILE | BF16 | CHANNELS_LAST}
    for student, make in (('CenterNet R18', detector_step), ('ResNet-8x4', classifier_step)):
        with tempfile.TemporaryDirectory() as folder:
            calls = {'eager': make(folder, options.quick)}
            first = {}
            for name, entries in variants.items():
                step = make(folder, options.quick, **entries)
                start = time.perf_counter()
                step()
                first[name] = time.perf_counter() - start
                calls[name] = step
            for row in compare(PART, calls, 'eager', options):
                note = f'first step {first[row.name]:.1f} s' if 'compile' in row.name else ''
                yield replace(row, name=f'{student}, {row.name}', note=note)


def classifier_step(folder: str, quick: bool, **entries: Any) -> Callable[[], object]:
    """Return a step of the classifier."""
    cfg = classifier_run(folder, classifier('resnet8' if quick else 'resnet8x4'),
                         4 if quick else 64, **entries)
    loop = started(cfg).train_loop
    batch = next(iter(loop.dataloader))
    return lambda: loop.run_iter(batch)


def detector_step(folder: str, quick: bool, **entries: Any) -> Callable[[], object]:
    """Return a step of the detector of the main job, with random weights."""
    size = 64 if quick else 256
    cfg = load_config(CONFIG)
    model = cfg.model
    model.data_preprocessor.pad_size_divisor = size
    model.backbone.pop('init_cfg', None)
    batch = detection_batch(1 if quick else 4, size)
    loop = started(Config(dict(
        model=model, work_dir=folder, default_scope='mmkd', randomness=dict(seed=0),
        train_dataloader=dict(batch_size=1, num_workers=0, dataset=dict(type='RandomPixels'),
                              sampler=dict(type='DefaultSampler', shuffle=False)),
        optim_wrapper=dict(type='OptimWrapper', optimizer=dict(type='SGD', lr=1e-4, momentum=0.9)),
    ) | entries)).train_loop
    return lambda: loop.run_iter(batch)


def detection_batch(images: int, size: int) -> dict[str, list]:
    """Return random images with 12 random boxes each, as a loader gives them."""
    generator = torch.Generator().manual_seed(0)
    inputs, samples = [], []
    for _ in range(images):
        inputs.append(torch.randint(0, 256, (3, size, size), dtype=torch.uint8,
                                    generator=generator))
        corner = torch.rand(12, 2, generator=generator) * 0.7 * size
        side = (0.05 + 0.25 * torch.rand(12, 2, generator=generator)) * size
        sample = DetDataSample(metainfo=dict(img_shape=(size, size), ori_shape=(size, size),
                                             scale_factor=(1.0, 1.0)))
        sample.gt_instances = InstanceData(
            bboxes=torch.cat((corner, corner + side), dim=1),
            labels=torch.randint(20, (12,), generator=generator))
        samples.append(sample)
    return dict(inputs=inputs, data_samples=samples)
