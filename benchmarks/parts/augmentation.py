"""The augmentation for VOC, from file to packed sample: mmkd's transforms and MMDetection's.

``configs/_base_/datasets/voc0712.py`` as it is, and with its distortion as a transform of its own
("by type": MMDetection's pipeline with other names), against the same with MMDetection's
transforms. All see the same images, boxes and seeds, and their results are compared before anything
is timed: boxes are equal, images to rounding. One thread, as in a worker; times are per image. Then
each transform for itself, on what MMDetection's hand it; flipping goes with packing, since
MMDetection leaves the work of the one to the other. Last the whole in a worker of a data loader,
whose batches of 16 float32 images have to come to the main process.

The images are photographs in the folder that the variable IMAGES names, or else are drawn:
500 x 375 pixels, smooth, with edges and noise, as JPEG. Boxes are drawn.
"""

import copy
import os
import tempfile
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager
from pathlib import Path

import cv2
import numpy as np
import torch
from harness import Options, Result, result, time_calls
from mmengine.config import Config
from mmengine.dataset import Compose, pseudo_collate
from mmengine.registry import DefaultScope
from torch.utils.data import DataLoader, Dataset

from mmkd.errors import UserError
from mmkd.registry import TRANSFORMS

CONFIG = Path(__file__).parents[2] / 'configs' / '_base_' / 'datasets' / 'voc0712.py'
IMAGES = 48
BATCH = 16
THEIRS = 'MMDetection'


def measure(options: Options) -> Iterable[Result]:
    """Time the whole, its parts, and the whole in a worker."""
    with _one_thread(), tempfile.TemporaryDirectory() as folder:
        samples = _samples(_images(Path(folder), options.quick))
        pipelines = _pipelines()
        _check_equal(pipelines, samples)
        yield from _compare('', {name: _over(Compose(steps), samples)
                                 for name, steps in pipelines.items()}, len(samples), options)
        yield from _transforms(pipelines[THEIRS], pipelines['mmkd, by type'], samples, options)
        loaders = {name: DataLoader(_Samples(Compose(steps), samples), BATCH, num_workers=1,
                                    persistent_workers=True, collate_fn=pseudo_collate)
                   for name, steps in pipelines.items()}
        yield from _compare(', one worker', {name: lambda loader=loader: sum(1 for _ in loader)
                                             for name, loader in loaders.items()},
                            len(samples), options)


def _pipelines() -> dict[str, list[Callable]]:
    """Build the three pipelines."""
    fused = Config.fromfile(CONFIG).train_pipeline
    by_type = []
    for step in copy.deepcopy(fused):
        if 'distortion' in step:
            by_type.append(dict(type='FastPhotoMetricDistortion', **step.pop('distortion')))
        by_type.append(step)
    theirs = [dict(step, type=step['type'].removeprefix('Fast')) for step in by_type]
    with DefaultScope.overwrite_default_scope('mmkd'):
        return {name: [TRANSFORMS.build(step) for step in steps] for name, steps in
                ((THEIRS, theirs), ('mmkd, by type', by_type), ('mmkd, the config', fused))}


def _transforms(theirs: list[Callable], ours: list[Callable], samples: list[dict],
                options: Options) -> Iterator[Result]:
    """Time each transform that mmkd replaces; of flipping and packing, the last two, the sum."""
    data = [copy.deepcopy(sample) for sample in samples]
    steps = [*zip(theirs[:-2], ours[:-2], strict=True), (Compose(theirs[-2:]), Compose(ours[-2:]))]
    for their, our in steps:
        last = isinstance(our, Compose)
        if last or type(our) is not type(their):
            name = 'RandomFlip and PackDetInputs' if last else type(their).__name__
            yield from _compare(f', {name}', {THEIRS: _over(their, data), 'mmkd': _over(our, data)},
                                len(data), options)
        data = [_seeded(their, number, _copied(one)) for number, one in enumerate(data)]


def _compare(what: str, calls: dict[str, Callable], count: int,
             options: Options) -> Iterator[Result]:
    """Time calls that deal with some images against MMDetection's; per image."""
    seconds = {name: [time / count for time in times]
               for name, times in time_calls(calls, options).items()}
    for name in calls:
        if name != THEIRS:
            rate = 1 / np.median(seconds[name])
            yield result('augmentation', name + what, THEIRS, seconds[THEIRS], seconds[name],
                         note=f'{rate:.0f} images/s')


def _over(step: Callable, samples: list[dict]) -> Callable[[], None]:
    """Return a call that does the step to all samples, each with a seed of its own."""
    def call() -> None:
        for number, one in enumerate(samples):
            _seeded(step, number, _copied(one))
    return call


def _seeded(step: Callable, seed: int, data: dict) -> dict:
    np.random.seed(seed)
    return step(data)


def _copied(sample: dict) -> dict:
    """Copy what transforms change in place."""
    boxes = sample.get('gt_bboxes')
    return dict(sample) if boxes is None else dict(sample, gt_bboxes=boxes.clone())


class _Samples(Dataset):
    """Samples through a pipeline."""

    def __init__(self, pipeline: Compose, samples: list[dict]) -> None:
        self.pipeline, self.samples = pipeline, samples

    def __len__(self) -> int:
        return len(self.samples)

    def __getitem__(self, index: int) -> dict:
        return _seeded(self.pipeline, index, _copied(self.samples[index]))


def _check_equal(pipelines: dict[str, list[Callable]], samples: list[dict]) -> None:
    for number, one in enumerate(samples):
        theirs, *others = (_seeded(Compose(steps), number, _copied(one))
                           for steps in pipelines.values())
        for ours in others:
            torch.testing.assert_close(ours['inputs'], theirs['inputs'], rtol=0, atol=2e-3)
            own, other = (part['data_samples'].gt_instances for part in (ours, theirs))
            assert torch.equal(own.bboxes.tensor, other.bboxes.tensor)
            assert torch.equal(own.labels, other.labels)


def _samples(paths: list[Path]) -> list[dict]:
    """Return what a data set says of the images, with three boxes each."""
    rng, samples = np.random.default_rng(0), []
    for path in paths:
        height, width = cv2.imread(str(path)).shape[:2]
        corners = rng.uniform(0, 0.7, (3, 2))
        sides = rng.uniform(0.05, 0.3, (3, 2))
        boxes = np.hstack([corners, corners + sides]) * ((width, height) * 2)
        samples.append(dict(img_path=str(path), img_id=path.stem, height=height, width=width,
                            instances=[dict(bbox=box, bbox_label=label, ignore_flag=0)
                                       for label, box in enumerate(boxes.tolist())]))
    return samples


def _images(folder: Path, quick: bool) -> list[Path]:
    count = 2 if quick else IMAGES
    if 'IMAGES' in os.environ:
        paths = sorted(Path(os.environ['IMAGES']).glob('*.jpg'))[:count]
        if not paths:
            raise UserError(f"No .jpg lies in {os.environ['IMAGES']}: set IMAGES to a folder of "
                            'photographs or leave it out.')
        return paths
    rng, paths = np.random.default_rng(0), []
    for number in range(count):
        image = cv2.resize(rng.uniform(-60, 315, (6, 8, 3)), (500, 375))
        for _ in range(12):
            corner, size = rng.integers(0, 400, 2), rng.integers(10, 150, 2)
            cv2.rectangle(image, (*map(int, corner), *map(int, size)), rng.uniform(0, 255, 3), -1)
        image += rng.normal(scale=6, size=image.shape)
        paths.append(folder / f'{number}.jpg')
        cv2.imwrite(str(paths[-1]), image.clip(0, 255).astype(np.uint8))
    return paths


@contextmanager
def _one_thread() -> Iterator[None]:
    threads = cv2.getNumThreads(), torch.get_num_threads()
    cv2.setNumThreads(0)
    torch.set_num_threads(1)
    try:
        yield
    finally:
        cv2.setNumThreads(threads[0])
        torch.set_num_threads(threads[1])
