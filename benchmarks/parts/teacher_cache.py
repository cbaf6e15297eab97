"""Whole training epochs: the student alone, with two teachers that run, with both cached.

A ResNet-18 CenterNet learns from a ResNet-50 and an Hourglass-104 by all four terms, in batches of
4 (16 on a GPU) at 256 x 256 (512 x 512 on a GPU). Three runs are set up as tools/train.py does it,
on the same photographs and the same fixed views; their epochs, from the image files to the update,
take turns. `teachers` is both teachers' forward passes alone, on batches that are there: what runs
should cost is that and the student's epoch. The same is done for a RetinaNet-R18 that learns from a
RetinaNet-R50 by PKD on all five levels, and for KD from ResNet-32x4 to ResNet-8x4 in batches of 64,
on noise held in memory, with every logit of every view cached.

Photographs: those of BCCD_ROOT (see configs/_base_/datasets/bccd.py); without it a drawn set.
Weights are random: nothing here depends on them.
"""

import os
import tempfile
from collections.abc import Callable, Iterable
from pathlib import Path

import torch
from harness import Options, Result, result, time_calls
from mmengine.config import Config
from mmengine.runner import Runner
from runs import classifier, classifier_run, started, without_validation

from mmkd.config_files import config_path
from mmkd.deploy.compare.random_weights import settle_random_weights
from mmkd.detection.data.synthetic import DRAWN_CLASSES, draw_dataset
from mmkd.distillation import DistillationHook
from mmkd.distillation.teachers import build_model
from mmkd.engine.config import load_config
from mmkd.engine.data_root import use_number_of_classes
from mmkd.engine.distil import distil
from mmkd.teacher_cache.options import fix_views

CONFIGS = Path(__file__).parents[2] / 'configs'
TEACHERS = dict(resnet50='centernet/centernet_r50_bccd.py',
                hourglass='centernet/centernet_hourglass104_bccd.py')
NARROW = dict(resnet50='bccd_small/centernet_r50.py',
              hourglass='bccd_small/centernet_hourglass.py')


def measure(options: Options) -> Iterable[Result]:
    """Time epochs of detectors and of classifiers."""
    with tempfile.TemporaryDirectory() as folder:
        yield from _epochs(retinanet_config(Path(folder), options.quick), 'RetinaNet-R50',
                           Path(folder, 'retinanet'), 2, options)
        yield from _epochs(detection_config(Path(folder), options.quick), 'two teachers',
                           Path(folder, 'detection'), 2, options)
        yield from _epochs(classification_config(Path(folder), options.quick), 'KD',
                           Path(folder, 'classification'), 'all', options)


def _epochs(cfg: Config, what: str, folder: Path, views: int | str,
            options: Options) -> list[Result]:
    """Time the epochs of three runs of ``cfg`` and of its teachers."""
    cached = dict(folder=str(folder / 'cache'), views=views)
    taught = list(cfg.custom_hooks)
    runs = {name: _started(cfg, folder / name, hooks, cache) for name, hooks, cache in (
        ('student alone', [], dict(cached, terms=[]) if views != 'all' else None),
        (f'{what}, running', taught, dict(cached, terms=[]) if views != 'all' else None),
        (f'{what}, cached', taught, cached))}
    alone, running, stored = runs
    calls = {name: _epoch(run) for name, run in runs.items()}
    calls['teachers'] = _teachers(runs[running])
    seconds = time_calls(calls, options)
    parts = [a + b for a, b in zip(seconds[alone], seconds['teachers'], strict=True)]
    return [result('teacher_cache', stored, alone, seconds[alone], seconds[stored]),
            result('teacher_cache', stored, running, seconds[running], seconds[stored]),
            result('teacher_cache', running, 'student alone + teachers', parts, seconds[running]),
            result('teacher_cache', running, alone, seconds[alone], seconds[running])]


def _started(cfg: Config, folder: Path, hooks: list, cache: dict | None) -> Runner:
    own = Config(dict(cfg.to_dict(), custom_hooks=hooks, work_dir=str(folder)))
    if cache is not None:
        own.teacher_cache = cache
    fix_views(own)
    return started(own)


def _epoch(runner: Runner) -> Callable[[], None]:
    def run() -> None:
        for batch in runner.train_dataloader:
            runner.model.train_step(batch, runner.optim_wrapper)
    return run


def _teachers(runner: Runner) -> Callable[[], None]:
    [hook] = [hook for hook in runner.hooks if isinstance(hook, DistillationHook)]
    batches = [runner.model.data_preprocessor(batch, True) for batch in runner.train_dataloader]

    def run() -> None:
        for batch in batches:
            shared: dict = {}
            for teacher in hook.teachers:
                teacher(batch['inputs'], batch['data_samples'], shared)
    return run


def detection_config(folder: Path, quick: bool) -> Config:
    """The run with two teachers, whose random weights go to ``folder``."""
    gpu = torch.cuda.is_available()
    size = 64 if quick else 512 if gpu else 256
    images = 4 if quick else 192 if gpu else 24
    cfg = load_config(CONFIGS / ('bccd_small/centernet_mt_r18.py' if quick else
                                 'multi_teacher/centernet_mt_r18_bccd.py'))
    without_validation(cfg)
    cfg.train_dataloader.batch_size = 2 if quick else 16 if gpu else 4
    _resize(cfg, size)
    cfg.model.backbone.init_cfg = None
    workers = 8 if gpu and not quick else 0
    cfg.train_dataloader.update(num_workers=workers, persistent_workers=workers > 0)
    data = cfg.train_dataloader.dataset
    data.indices = images
    if 'BCCD_ROOT' not in os.environ:
        data.data_root = str(draw_dataset(folder / 'drawn', image_size=max(size, 32),
                                          splits=dict(train=images, val=1, test=1)))
        data.metainfo = dict(classes=DRAWN_CLASSES)
        cfg.model.bbox_head.num_classes = len(DRAWN_CLASSES)
    torch.manual_seed(0)
    for name, path in (NARROW if quick else TEACHERS).items():
        teacher = load_config(CONFIGS / path)
        _resize(teacher, size)
        teacher.model.bbox_head.num_classes = cfg.model.bbox_head.num_classes
        cfg.teachers[name] = _saved(teacher.model, folder / f'{name}.pth',
                                    (size, size))
    return cfg


def retinanet_config(folder: Path, quick: bool) -> Config:
    """The run of a RetinaNet, on the same data."""
    cfg = detection_config(folder, quick)
    paths = [f'mmdet::retinanet/retinanet_r{depth}_fpn_1x_coco'
             for depth in (18, 18 if quick else 50)]
    student, teacher = (Config.fromfile(config_path(path)).model for path in paths)
    for model in (student, teacher):
        model.backbone.init_cfg = None
        use_number_of_classes(model, cfg.model.bbox_head.num_classes)
    cfg.model, cfg.custom_hooks = student, []
    distil(cfg, [f'{paths[1]}=random'], ['pkd'])
    cfg.teachers = dict(teacher=_saved(teacher, folder / 'retinanet.pth', (64, 64)))
    return cfg


def classification_config(folder: Path, quick: bool) -> Config:
    """The run of KD, whose teacher's random weights go to ``folder``."""
    student, teacher = (classifier(name) for name in (('resnet8', 'resnet8') if quick else
                                                      ('resnet8x4', 'resnet32x4')))
    # Crops of 1 pixel are 18 views: the cache of 512 images is built within a minute or two.
    for model in (student, teacher):
        model['data_preprocessor']['crop_padding'] = 0 if quick else 1
    cfg = load_config(CONFIGS / 'classification/methods/kd.py')
    return classifier_run(
        '', student | cfg.get('model', {}), 8 if quick else 64, 16 if quick else 512,
        custom_hooks=[hook for hook in cfg.custom_hooks if hook.type != 'BestAndLastHook'],
        terms=cfg.terms,
        teachers=dict(teacher=_saved(teacher, folder / 'teacher.pth', (32, 32))))


def _resize(cfg: Config, size: int) -> None:
    cfg.model.data_preprocessor.pad_size_divisor = size
    for step in cfg.train_dataloader.dataset.pipeline:
        for key in {'scale', 'crop_size'} & step.keys():
            step[key] = (size, size)


def _saved(model: dict, path: Path, size: tuple[int, int]) -> dict:
    """Save random weights of a network; return its entry of ``teachers``."""
    network = build_model(Config(dict(model=model)))
    settle_random_weights(network, size)
    torch.save(network.state_dict(), path)
    return dict(model=model, checkpoint=str(path))
