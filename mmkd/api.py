"""mmkd from Python; each function does what the command of its name does.

::

    import mmkd

    teacher = mmkd.train('configs/mine/teacher.py', work_dir='work_dirs/teacher')
    student = mmkd.distill('configs/mine/student.py', teachers=[teacher],
                           work_dir='work_dirs/student')
    print(mmkd.evaluate(student))                     # {'pascal_voc/mAP': 0.61, ...}
    mmkd.export(student, out='student.onnx')
    found = mmkd.Detector('student.onnx')(cv2.imread('photo.jpg'))

A run is named by what :func:`train` returned, by its folder, or by one of its checkpoints.
"""

import os
from argparse import Namespace
from collections.abc import Callable, Mapping, Sequence
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any

from mmkd.errors import UserError

if TYPE_CHECKING:
    from mmengine.config import Config
    from mmengine.runner import Runner

    from mmkd.report.runs import Run

__all__ = ['distill', 'evaluate', 'export', 'train']

PathLike = str | os.PathLike


def train(config: PathLike, *, teachers: Sequence['Run | PathLike'] = (),
          method: str | None = None, student: str | None = None,
          members: Sequence[str] = (), data: PathLike | None = None, classes: Sequence[str] = (),
          data_root: PathLike | None = None, work_dir: PathLike | None = None,
          epochs: int | None = None, unlabelled: PathLike | None = None,
          resume: bool | PathLike = False,
          options: Mapping[str, Any] | None = None) -> 'Run':
    """Train a detector or a classifier; with teachers, distil.

    Args:
        config: a path, a name (``'classifier'``, ``'mmdet::retinanet/retinanet_r18_fpn_1x_coco'``)
            or the folder of a run.
        teachers: of a detector runs, or ``'CONFIG=CHECKPOINT'``; of a classifier
            ``'NETWORK=CHECKPOINT'``.
        method: what is learned from them, one or several of ``mmkd methods``, by commas; None for
            ``joint`` between CenterNets, else ``pkd``. A classifier needs one.
        student: a classifier's network, such as ``'resnet8x4'``.
        members: the networks of a cohort.
        data: of a detector a folder in VOC or COCO layout; of a classifier a name such as
            ``'cifar100'``.
        classes: of such a folder.
        data_root: where the config's data lie, in place of its ``data_root``.
        work_dir: where everything goes; None for ``work_dirs`` and the config's name.
        epochs: train for so many, the schedule with them.
        unlabelled: a folder with images that need no labels, on which the student learns from its
            teachers as well.
        resume: go on from the newest checkpoint of ``work_dir``, or from this one.
        options: entries of the config to override, ``{'train_dataloader.batch_size': 8}``.

    Returns:
        the run: ``run.folder``, ``run.weights`` (the path of ``best.pth``), ``run.rows`` (a dict
        for every epoch), ``run.best_row()``.

    Raises:
        UserError: anything is wrong with the arguments, the config, the data or a file.
    """
    from mmkd.engine import launch
    from mmkd.report.runs import read_runs

    cfg = launch.config_from_arguments(Namespace(
        config=str(config), teacher=[_path(one) for one in teachers], method=method,
        student=student, members=','.join(members) or None, data=data and str(data),
        classes=','.join(classes) or None, data_root=data_root and str(data_root),
        work_dir=work_dir and str(work_dir), epochs=epochs,
        unlabelled=unlabelled and str(unlabelled), cfg_options=dict(options or {}),
        launcher='none'))
    launch.train(cfg, {True: 'auto', False: None}[resume] if isinstance(resume, bool)
                 else str(resume))
    return read_runs([cfg.work_dir])[0]


def distill(student: PathLike, *, teachers: Sequence['Run | PathLike'], method: str | None = None,
            data: PathLike | None = None, classes: Sequence[str] = (),
            data_root: PathLike | None = None, work_dir: PathLike | None = None,
            epochs: int | None = None, unlabelled: PathLike | None = None,
            resume: bool | PathLike = False,
            options: Mapping[str, Any] | None = None) -> 'Run':
    """Train a detector that learns from others; what is not said here is as of :func:`train`.

    Args:
        student: its config.
        teachers: one or several runs, or ``'CONFIG=CHECKPOINT'``.

    Returns:
        the run, as :func:`train` does.

    Raises:
        UserError: there is no teacher, or as of :func:`train`.
    """
    if not teachers:
        raise UserError('distill has no teachers: give runs or CONFIG=CHECKPOINT, or use '
                        'mmkd.train')
    return train(student, teachers=teachers, method=method, data=data, classes=classes,
                 data_root=data_root, work_dir=work_dir, epochs=epochs, unlabelled=unlabelled,
                 resume=resume, options=options)


def evaluate(run: 'Run | PathLike', *, config: 'Run | PathLike | None' = None,
             data_root: PathLike | None = None, show_dir: PathLike | None = None,
             options: Mapping[str, Any] | None = None) -> dict[str, Any]:
    """Evaluate a run, a checkpoint or an exported model on the test data of its config.

    Args:
        run: a run, for its ``best.pth``; a checkpoint; or an ``.onnx`` file, which needs
            ``config``.
        config: None for the run's own.
        data_root: where the config's data lie, in place of its ``data_root``.
        show_dir: a folder for the images with the detections drawn in.
        options: entries of the config to override.

    Returns:
        the metrics by name, such as ``{'pascal_voc/mAP': 0.61}``.

    Raises:
        UserError: a file is missing or damaged, or weights and config do not fit.
    """
    from mmkd.engine import launch

    config, checkpoint = _files(run, config)
    cfg = launch.config_from_arguments(Namespace(
        config=config, data_root=data_root and str(data_root), work_dir=None,
        cfg_options=dict(options or {}), launcher='none'))
    return launch.test(cfg, checkpoint, show_dir and str(show_dir), runner_of=runner_of(checkpoint))


def runner_of(checkpoint: str) -> 'Callable[[Config, str], Runner] | None':
    """Return what builds the runner of a config and an ``.onnx`` file, and None for weights.

    Raises:
        UserError: it is an ``.onnx`` file, and onnxruntime is not installed.
    """
    if Path(checkpoint).suffix != '.onnx':
        return None
    try:
        from mmkd.deploy.compare.evaluate import onnx_runner
    except ModuleNotFoundError as error:
        if error.name != 'onnxruntime':
            raise
        raise UserError(f"'{checkpoint}' cannot be evaluated without onnxruntime: pip install "
                        'onnxruntime') from error
    from mmkd.engine.runner import StudentRunner

    return partial(onnx_runner, runner=StudentRunner)


def export(run: 'Run | PathLike', *, out: PathLike = 'student.onnx',
           config: 'Run | PathLike | None' = None, images: Sequence[PathLike] = (),
           batch: int = 0, dynamic_size: bool = False, image_input: bool = False,
           half: bool = False) -> Path:
    """Write a run's student as an ONNX file that was compared with PyTorch.

    Args:
        run: a run, for its ``best.pth``, or a checkpoint.
        out: the file.
        config: None for the run's own.
        images: files or folders that it is compared on, beside random inputs.
        batch: how many images the input holds; 0 for any number.
        dynamic_size: let height and width vary.
        image_input: take one uint8 image of any size.
        half: compute in float16.

    Returns:
        the path of the file; open it by ``mmkd.Detector`` or ``mmkd.Classifier``.

    Raises:
        UserError: a file is missing or damaged, or the model cannot be exported.
    """
    from mmkd.deploy.export import export_onnx, load_model
    from mmkd.deploy.export.verify import find_images
    from mmkd.engine.config import load_config
    from mmkd.files import require_writable

    require_writable(Path(out))
    config, checkpoint = _files(run, config)
    export_onnx(load_model(load_config(config), checkpoint), out,
                find_images([str(image) for image in images]), batch=batch,
                dynamic_size=dynamic_size, image_input=image_input, half=half)
    return Path(out)


def _path(run: Any) -> str:
    return str(getattr(run, 'folder', run))


def _files(run: Any, config: 'Run | PathLike | None') -> tuple[str, str]:
    """Return config and checkpoint."""
    from mmkd.engine.run_folder import kept_weights, run_files

    path = _path(run)
    if config is None:
        return run_files(path)
    return _path(config), str(kept_weights(path)) if Path(path).is_dir() else path
