"""What a training has in its folder and in its config before anything is built."""

import copy
import math
import shlex
import sys
from collections.abc import Mapping
from keyword import iskeyword
from pathlib import Path
from typing import Any

from mmengine.config import Config
from yapf.yapflib.yapf_api import FormatCode

from mmkd.engine.environment import environment_report
from mmkd.engine.int8_aware import settle_int8_aware
from mmkd.engine.run_folder import CONFIG, ENVIRONMENT
from mmkd.files import write_atomically

__all__ = ['add_hooks', 'write_down']


def write_down(cfg: Config, asked: Config) -> None:
    """Write into the folder of a run what is run, and on what.

    Args:
        cfg: what is run, from :func:`mmkd.engine.launch.settled`.
        asked: as the user asked for it: another machine may choose another precision.
    """
    asked = copy.deepcopy(asked)
    settle_int8_aware(asked)  # it depends on load_from, which a resumed run changes
    if asked.get('resume'):
        asked.load_from = None  # the checkpoint that was resumed
    asked.resume = False
    folder = Path(cfg.work_dir)
    write_atomically(folder / CONFIG, _config_text(asked).encode())
    write_atomically(folder / ENVIRONMENT,
                     f'{environment_report()}\ncommand: {shlex.join(sys.argv)}\n'.encode())


def _config_text(cfg: Config) -> str:
    """Return a config as Python, its entries in their order.

    mmengine's own sorts them, and the order of ``terms`` and ``teachers`` has a meaning.
    """
    text = '\n'.join(f'{name} = {_literal(value)}' for name, value in cfg.to_dict().items())
    return FormatCode(text + '\n', style_config=dict(
        based_on_style='pep8', column_limit=100,
        split_before_expression_after_opening_paren=True))[0]


def _literal(value: Any) -> str:
    if isinstance(value, Mapping):
        if all(isinstance(key, str) and key.isidentifier() and not iskeyword(key)
               for key in value):
            return f'dict({", ".join(f"{key}={_literal(one)}" for key, one in value.items())})'
        return f'{{{", ".join(f"{key!r}: {_literal(one)}" for key, one in value.items())}}}'
    if isinstance(value, list):
        return f'[{", ".join(map(_literal, value))}]'
    if isinstance(value, tuple):
        return f'({"".join(f"{_literal(one)}, " for one in value)})'
    if isinstance(value, float) and not math.isfinite(value):
        return f"float('{value}')"
    return repr(value)


def add_hooks(cfg: Config) -> None:
    """Add what every training has, also of MMDetection's own configs."""
    cfg.setdefault('default_hooks', {})
    hooks = cfg.default_hooks
    # Of several processes each has batch statistics of its own: their mean is evaluated and saved,
    # so that a resumed run, which begins with what was saved, is an undisturbed one.
    for name, kind in (('sync_buffers', 'SyncBuffersHook'),
                       ('stop_on_invalid_loss', 'StopOnInvalidLossHook'),
                       ('results', 'ResultsHook'),
                       ('missed_validation', 'MissedValidationHook'), ('summary', 'SummaryHook')):
        hooks.setdefault(name, dict(type=kind))
    hooks.setdefault('checkpoint', dict(type='SafeCheckpointHook', interval=1))
    checkpoint = hooks['checkpoint']
    if checkpoint is not None and checkpoint['type'] == 'CheckpointHook' and not (
            {'backend_args', 'file_client_args'} & checkpoint.keys()):
        checkpoint['type'] = 'SafeCheckpointHook'
