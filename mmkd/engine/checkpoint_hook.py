"""Checkpoints that survive a kill at any moment and a full disk.

Under its name there is always one whole file (:mod:`mmkd.files`). Old checkpoints are removed only
after the new one is there. ``last.pth`` and ``best.pth`` are hard links to them, or copies.
"""

import logging
import os
import re
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from mmengine.dist import is_main_process
from mmengine.fileio import LocalBackend, register_backend
from mmengine.logging import print_log
from mmengine.model import is_model_wrapper
from mmengine.runner import Runner

from mmkd import files
from mmkd.checkpoint_checks import WEIGHTS_HASH, is_whole, weights_hash
from mmkd.engine.run_folder import BEST, LAST
from mmkd.errors import UserError
from mmkd.mmengine_private import HookOfCheckpoints, goes_on_from, trains
from mmkd.moved_names import moved_names
from mmkd.registry import HOOKS

__all__ = ['SafeCheckpointHook', 'last_good', 'latest_checkpoint', 'resumed_from']

__getattr__ = moved_names(__name__, write_atomically='mmkd.files')

POINTER = 'last_checkpoint'
OUTDATED = 'outdated_ckpt'


class AtomicBackend(LocalBackend):
    """mmengine's local files: written all or nothing, removed when told so."""

    def __init__(self) -> None:
        self._outdated: list[str] = []

    def put(self, obj: bytes, filepath: str | Path) -> None:
        """Write ``obj`` to ``filepath``, all or nothing."""
        files.write_atomically(filepath, obj)

    def remove(self, filepath: str | Path) -> None:
        """Note that ``filepath`` is outdated."""
        self._outdated.append(str(filepath))

    def remove_outdated(self, keep: set[str | None]) -> None:
        """Remove what was noted, except what was written again since."""
        for path in set(self._outdated) - keep:
            Path(path).unlink(missing_ok=True)
        self._outdated.clear()


register_backend('atomic', AtomicBackend, force=True)


@HOOKS.register_module()
class SafeCheckpointHook(HookOfCheckpoints):
    """mmengine's ``CheckpointHook`` whose files are always whole; it takes the same arguments.

    Beside the weights is their hash, which is compared when they are read. Weights that are not
    finite are never written over good ones. In the work directory,
    ``last.pth`` is the newest checkpoint and ``best.pth`` that of the epoch which
    :class:`~mmkd.engine.results.ResultsHook` found best, however few ``max_keep_ckpts`` keeps.

    Raises:
        UserError: a checkpoint cannot be written (full disk), or the weights are not finite;
            names the last whole checkpoint.
    """

    def __init__(self, *args: Any, **kwargs: Any) -> None:
        super().__init__(*args, **kwargs, backend_args=dict(backend='atomic'))

    def before_train(self, runner: Runner) -> None:
        """Prepare the folder; drop what a killed run left half written."""
        super().before_train(runner)
        if resumed_from(runner, self.out_dir):
            self.last_ckpt = os.path.join(self.out_dir, Path(goes_on_from(runner)).name)
            # What a kill left undone: the link, and the removal of the oldest.
            if is_main_process():
                with _told_to_the_user(runner, last_good(runner)):
                    files.link_atomically(self.last_ckpt, Path(runner.work_dir) / LAST)
            if outdated := runner.message_hub.runtime_info.get(OUTDATED):
                self.file_backend.remove(os.path.join(self.out_dir, outdated))
        self._remove_outdated()
        if is_main_process():
            for folder in {str(runner.work_dir), str(self.out_dir)}:
                for leftover in files.leftovers(folder):
                    leftover.unlink(missing_ok=True)

    def before_save_checkpoint(self, runner: Runner, checkpoint: dict) -> None:
        """Put a hash of the weights beside them, after what other hooks changed."""
        checkpoint['meta'][WEIGHTS_HASH] = weights_hash(checkpoint['state_dict'])

    def after_val_epoch(self, runner: Runner, metrics: dict[str, float]) -> None:
        """As mmengine's; keep the weights if they are the best so far."""
        super().after_val_epoch(runner, metrics)
        best = runner.message_hub.runtime_info.get('best_epoch')
        if trains(runner) and best is not None and best['iterations'] == runner.iter:
            with _told_to_the_user(runner, last_good(runner)):
                self._keep_best(runner)

    def _keep_best(self, runner: Runner) -> None:
        step = runner.epoch if self.by_epoch else runner.iter
        saved = os.path.join(self.out_dir, self.filename_tmpl.format(step))
        if self.last_ckpt != saved:  # there is none of this epoch
            _refuse_invalid_weights(runner)
            runner.save_checkpoint(
                runner.work_dir, BEST, save_optimizer=False, save_param_scheduler=False,
                meta=dict(epoch=runner.epoch, iter=runner.iter), by_epoch=False,
                backend_args=self.backend_args)
        elif is_main_process():
            files.link_atomically(saved, Path(runner.work_dir, BEST))

    @contextmanager
    def saving_best(self, runner: Runner) -> Iterator[None]:
        """Say what failed; remove the one before it afterwards."""
        with _told_to_the_user(runner, last_good(runner)):
            yield
        self._remove_outdated()

    def save_step(self, runner: Runner, step: int, meta: dict) -> None:
        """As mmengine's, in the safe order: write, point ``last_checkpoint`` to it, remove."""
        _refuse_invalid_weights(runner)
        if self.max_keep_ckpts > 0 and step not in self.keep_ckpt_ids:
            if len(self.keep_ckpt_ids) == self.max_keep_ckpts:
                oldest = self.filename_tmpl.format(self.keep_ckpt_ids.popleft())
                self.file_backend.remove(os.path.join(self.out_dir, oldest))
                runner.message_hub.update_info(OUTDATED, oldest)  # a kill may come before
            self.keep_ckpt_ids.append(step)
            runner.message_hub.update_info('keep_ckpt_ids', list(self.keep_ckpt_ids))
        name, previous = self.filename_tmpl.format(step), last_good(runner)
        self.last_ckpt = os.path.join(self.out_dir, name)
        runner.message_hub.update_info('last_ckpt', self.last_ckpt)
        with _told_to_the_user(runner, previous):
            runner.save_checkpoint(
                self.out_dir, name, save_optimizer=self.save_optimizer,
                save_param_scheduler=self.save_param_scheduler, meta=meta,
                by_epoch=self.by_epoch, backend_args=self.backend_args, **self.args)
            if is_main_process():
                files.write_atomically(Path(runner.work_dir) / POINTER, self.last_ckpt.encode())
                files.link_atomically(self.last_ckpt, Path(runner.work_dir) / LAST)
        self._remove_outdated()

    def _remove_outdated(self) -> None:
        best = getattr(self, 'best_ckpt_path_dict', {'': getattr(self, 'best_ckpt_path', None)})
        if is_main_process():
            self.file_backend.remove_outdated(keep={self.last_ckpt, *best.values()})


@contextmanager
def _told_to_the_user(runner: Runner, last: str) -> Iterator[None]:
    try:
        yield
    except OSError as error:
        raise UserError(
            f"cannot write a checkpoint to '{runner.work_dir}' ({error.strerror or error}): make "
            f'room there and continue with --resume; {last}') from error


def _refuse_invalid_weights(runner: Runner) -> None:
    # A last update may break the weights after a loss that was still finite. The ranks of a
    # distributed run hold the same parameters, so all of them stop here.
    model = runner.model.module if is_model_wrapper(runner.model) else runner.model
    for name, parameter in model.named_parameters():
        if not parameter.isfinite().all():
            raise UserError(
                f'iteration {runner.iter + 1} left weights that are not finite (first: {name}), '
                'so no checkpoint is written: lower the learning rate or clip the gradients; '
                f'{last_good(runner)}')


def latest_checkpoint(work_dir: str | Path) -> Path | None:
    """Return the newest whole checkpoint of a run, or None if there is none.

    That is the one named in ``last_checkpoint``, or else the whole ``epoch_*.pth`` or
    ``iter_*.pth`` of the highest number. Broken files are passed over with a warning.
    """
    work_dir = Path(work_dir)
    pattern = re.compile(r'(?:epoch|iter)_(\d+)\.pth')
    numbered = [(int(match[1]), path) for path in work_dir.glob('*.pth')
                if (match := pattern.fullmatch(path.name))]
    candidates = [path for _, path in sorted(numbered, reverse=True)]
    pointer = work_dir / POINTER
    if pointer.is_file() and (named := pointer.read_text().strip()):
        # The folder may have been moved since, and the name may be relative to another place.
        candidates = [Path(named), work_dir / Path(named).name, *candidates]
    for path in dict.fromkeys(candidates):
        if path.is_file():
            if is_whole(path):
                return path
            print_log(f"checkpoint '{path}' is truncated and passed over", 'current',
                      logging.WARNING)
    return None


def resumed_from(runner: Runner, folder: str | Path) -> bool:
    """Tell whether a run goes on from a checkpoint in this folder."""
    checkpoint = goes_on_from(runner)
    return bool(checkpoint) and Path(checkpoint).resolve().parent == Path(folder).resolve()


def last_good(runner: Runner) -> str:
    """Say which checkpoint of this run is the last whole one, as the end of an error's sentence.

    What an earlier run left in the same folder is nothing to go on from.
    """
    resumed = runner.cfg.get('load_from') if runner.cfg.get('resume') else None
    for path in (runner.message_hub.get_info('last_ckpt'), resumed):
        if path is not None and is_whole(path):
            return f"the last good checkpoint is '{path}'"
    return 'no checkpoint was written before'
