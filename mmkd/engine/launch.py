"""What ``mmkd train`` and ``mmkd test`` do once their arguments are parsed."""

import argparse
import copy
import json
import logging
import os
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from tempfile import TemporaryFile
from typing import Any

import torch
from mmengine.config import Config
from mmengine.dist import is_main_process
from mmengine.logging import print_log
from mmengine.runner import Runner
from torch import distributed

from mmkd.checkpoints import load_checkpoint_safely, load_weights
from mmkd.detection.initial_weights import fetch_initial_weights
from mmkd.distillation import DistillationHook
from mmkd.engine.begin import add_hooks, write_down
from mmkd.engine.checkpoint_hook import latest_checkpoint
from mmkd.engine.choices import chosen_config
from mmkd.engine.config import override, validate_config
from mmkd.engine.config_values import add_tracker
from mmkd.engine.earlier_run import alone_in, put_aside, put_back
from mmkd.engine.environment import keep_freed_memory, leave_busy_cores
from mmkd.engine.guard import refuse_code_in_files
from mmkd.engine.int8_aware import settle_int8_aware, use_int8_aware
from mmkd.engine.progress import progress_on_terminal
from mmkd.engine.runner import StudentRunner, TrainingRunner
from mmkd.engine.schedule import resumed_mismatch, schedule_mismatch, set_epochs
from mmkd.engine.student_options import use_mixed_precision
from mmkd.engine.unlabelled import use_unlabelled
from mmkd.errors import UserError
from mmkd.files import require_writable, write_atomically
from mmkd.teacher_cache.options import fix_views

__all__ = ['cache_teachers', 'config_from_arguments', 'own_folder', 'settled', 'test', 'train']


def config_from_arguments(args: argparse.Namespace) -> Config:
    """Return the checked config that the arguments describe.

    Raises:
        UserError: see :mod:`mmkd.engine.config`.
    """
    if getattr(args, 'score_thr', None) is not None and not args.show_dir:
        raise UserError('--score-thr was given without --show-dir and would do nothing: add '
                        '--show-dir, or take it out')
    cfg = chosen_config(args)
    if getattr(args, 'epochs', None) is not None:
        set_epochs(cfg, args.epochs)
    if getattr(args, 'log', None):
        add_tracker(cfg, args.log)
    if getattr(args, 'unlabelled', None):
        cfg.unlabelled = dict(cfg.get('unlabelled') or {}, data_root=args.unlabelled)
    override(cfg, args.cfg_options)
    validate_config(cfg)
    cfg.work_dir = args.work_dir or cfg.get('work_dir') or own_folder(cfg.filename)
    cfg.launcher = args.launcher
    return cfg


def own_folder(config: str) -> str:
    """Return the work directory of a config that names none."""
    return str(Path('work_dirs') / Path(config).stem)


def train(cfg: Config, resume: str | None = None) -> None:
    """Train the model of ``cfg``.

    Args:
        cfg: from :func:`config_from_arguments`; may have the entries of
            :mod:`mmkd.engine.student_options`.
        resume: path of a checkpoint to go on from, or ``'auto'`` for the newest whole one of the
            work directory, or None to begin anew (unless ``cfg.resume`` says otherwise).

    Raises:
        UserError: a checkpoint does not serve, or the run itself found something to mend.
    """
    refuse_code_in_files()  # of a config, too, that load_config has not read
    asked, cfg = cfg, settled(cfg, resume)
    _make_work_dir(cfg.work_dir)
    if not torch.cuda.is_available():
        leave_busy_cores()
        keep_freed_memory()
    if mismatch := schedule_mismatch(cfg):
        print_log(mismatch, 'current', logging.WARNING)
    if os.environ.get('RANK', '0') != '0':  # no process knows of the others yet
        _run(cfg, [])
        return
    with alone_in(cfg.work_dir):
        aside = None if cfg.resume else put_aside(cfg.work_dir)
        built: list[Runner] = []
        try:
            write_down(cfg, asked)
            _run(cfg, built)
        except BaseException:
            if aside is not None and not any(runner.iter for runner in built):
                put_back(aside)
            raise


def _run(cfg: Config, built: list[Runner]) -> None:
    """Build the runner of ``cfg``, add it to ``built``, and train."""
    with _processes(cfg):
        fetch_initial_weights(cfg)
        runner = TrainingRunner.from_cfg(cfg)
        built.append(runner)
        if cfg.resume:
            # mmengine itself would resume with whatever keys happen to fit.
            load_weights(runner.model, cfg.load_from)
        with progress_on_terminal(runner):
            runner.train()


def settled(cfg: Config, resume: str | None = None) -> Config:
    """Return the config that is run: ``cfg``, with all that its short entries stand for.

    ``load_from`` is the checkpoint of a resumed run, ``amp`` an optimizer wrapper of this machine's
    precision, ``unlabelled``, ``int8_aware`` and ``teacher_cache`` data sets, hooks and a teacher,
    and every training has the hooks that write its folder. The folder's ``config.py`` has the short
    entries, so that it runs on another machine, too; ``train.log`` has what this function returns.

    Args:
        cfg: from :func:`config_from_arguments`; stays as it is.
        resume: see :func:`train`.

    Raises:
        UserError: an entry is wrong, or there is no checkpoint that can be loaded.
    """
    cfg = copy.deepcopy(cfg)
    settle_int8_aware(cfg)  # by load_from, before a resumed run has one
    begins_with = cfg.get('load_from')
    if resume is not None:
        cfg.resume, cfg.load_from = True, None if resume == 'auto' else resume
    _choose_checkpoint(cfg, begins_with)
    use_mixed_precision(cfg)
    use_unlabelled(cfg)
    use_int8_aware(cfg)
    fix_views(cfg)
    add_hooks(cfg)
    return cfg


def cache_teachers(cfg: Config) -> None:
    """Let the teachers of ``cfg`` see what its ``teacher_cache`` lacks; train nothing.

    Args:
        cfg: from :func:`config_from_arguments`.

    Raises:
        UserError: the config has no ``teacher_cache``, a cache is not of this config, or it cannot
            be written.
    """
    _make_work_dir(cfg.work_dir)
    use_unlabelled(cfg)
    fix_views(cfg)
    with _processes(cfg):
        runner = StudentRunner.from_cfg(cfg)
        hook = next((hook for hook in runner.hooks if isinstance(hook, DistillationHook)), None)
        if hook is None:
            raise UserError(f"config '{cfg.filename}' has no teachers to cache: name the config of "
                            'a distillation')
        hook.build_cache(runner)


def test(cfg: Config, checkpoint: str, show_dir: str | None = None, out: str | None = None,
         score_thr: float | None = None,
         runner_of: Callable[[Config, str], Runner] | None = None) -> dict[str, Any]:
    """Evaluate a checkpoint on the test data of ``cfg``.

    Args:
        cfg: from :func:`config_from_arguments`.
        checkpoint: weights of exactly this architecture, or what ``runner_of`` takes.
        show_dir: a folder for the images with the detections drawn in.
        out: a JSON file for the metrics.
        score_thr: draw no object below this score; None for what ``default_hooks.visualization``
            of the config says, or 0.2.
        runner_of: builds the runner of a config and a checkpoint; None for one that loads weights.
            :func:`mmkd.api.runner_of` is for exported models, too.

    Returns:
        the metrics by name.

    Raises:
        UserError: the checkpoint is missing, truncated, of another architecture, or would run
            code; ``show_dir`` or ``out`` cannot be written; or from ``runner_of``.
    """
    if 'test_dataloader' not in cfg or 'test_evaluator' not in cfg:
        raise UserError(f"config '{cfg.filename}' has nothing to test on: define test_dataloader, "
                        'test_cfg and test_evaluator')
    _make_work_dir(cfg.work_dir)
    cfg.load_from, cfg.resume = None, False
    if out is not None:
        require_writable(Path(out))
    if show_dir is not None:
        _draw_into(cfg, show_dir, score_thr)
    with _processes(cfg):
        runner = (runner_of or _checkpoint_runner)(cfg, checkpoint)
        metrics = runner.test()
        if is_main_process():
            for name, value in metrics.items():
                print(f'{name}: {value}')
            if out is not None:
                write_atomically(out, json.dumps(metrics, indent=2, default=float).encode())
    return metrics


def _draw_into(cfg: Config, folder: str, score_thr: float | None) -> None:
    require_writable(Path(folder) / 'first.jpg')
    hooks = cfg.setdefault('default_hooks', {})
    drawing = dict(hooks.get('visualization') or {}) | dict(
        type='PicturesHook', draw=True, test_out_dir=str(Path(folder).resolve()))
    if score_thr is not None:
        drawing['score_thr'] = score_thr
    hooks['visualization'] = drawing


def _checkpoint_runner(cfg: Config, path: str) -> Runner:
    runner = StudentRunner.from_cfg(cfg)
    load_weights(runner.model, path)
    return runner


def _make_work_dir(folder: str) -> None:
    try:
        Path(folder).mkdir(parents=True, exist_ok=True)
        TemporaryFile(dir=folder).close()
    except OSError as error:
        raise UserError(f"work directory '{folder}' cannot be made or written to "
                        f'({error.strerror}): name another one with --work-dir') from error


def _choose_checkpoint(cfg: Config, begins_with: str | None) -> None:
    """Settle ``cfg.load_from`` and make sure that it can be loaded without running code.

    Args:
        cfg: whose ``load_from`` is None where the newest checkpoint of its folder is meant.
        begins_with: the weights with which the run begins if there is nothing to resume.
    """
    cfg.setdefault('resume', False)
    cfg.setdefault('load_from', None)
    if cfg.resume and cfg.load_from is None:
        latest = latest_checkpoint(cfg.work_dir)
        if latest is None:
            weights = f" with the weights of '{begins_with}'" if begins_with else ''
            print_log(f"nothing to resume in '{cfg.work_dir}': training begins anew{weights}",
                      'current')
            cfg.resume = False
        cfg.load_from = begins_with if latest is None else str(latest)
    if cfg.load_from is None:
        return
    if '://' in cfg.load_from:
        raise UserError(f"load_from is the address '{cfg.load_from}': download the file and give "
                        'its path, so that it can be checked before it is loaded')
    checkpoint = load_checkpoint_safely(cfg.load_from)
    if cfg.resume:
        _check_progress(checkpoint, cfg.load_from)
        if mismatch := resumed_mismatch(cfg, checkpoint):
            print_log(mismatch, 'current', logging.WARNING)


def _check_progress(checkpoint: Mapping[str, Any], path: str) -> None:
    missing = [name for name in ('message_hub', 'meta', 'optimizer')
               if not isinstance(checkpoint.get(name), Mapping)]
    missing = missing or [f'number of the {name}' for name in ('epoch', 'iter')
                          if not isinstance(checkpoint['meta'].get(name), int)]
    if missing:
        raise UserError(f"cannot resume from '{path}', it holds no {' and no '.join(missing)}: to "
                        f'start from its weights use --cfg-options load_from={path} without '
                        '--resume')


@contextmanager
def _processes(cfg: Config) -> Iterator[None]:
    """Join the processes of a distributed run, which on a CPU mmengine could not do itself."""
    if cfg.launcher == 'none' or torch.cuda.is_available():
        yield
        return
    if 'RANK' not in os.environ:
        raise UserError('--launcher pytorch was given, but torchrun did not start this process: '
                        'use tools/dist_train.sh or tools/dist_test.sh')
    distributed.init_process_group('gloo')
    cfg.model_wrapper_cfg = dict(
        type='MMDistributedDataParallel', device_ids=None, broadcast_buffers=False,
        find_unused_parameters=cfg.get('find_unused_parameters', False))
    yield
    distributed.barrier()  # gloo aborts a process whose peer leaves early
    distributed.destroy_process_group()
