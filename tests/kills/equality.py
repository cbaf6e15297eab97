"""Two work directories are equal in everything that a training continues from, bit for bit."""

import csv
import re
from collections.abc import Mapping
from pathlib import Path

import numpy as np
import torch

from mmkd.checkpoints import load_checkpoint_safely

FILES = {
    r'work/train\.log|work/\d{8}_\d{6}/.*': 'logs, with times, of each start',
    r'training\.py|work/config\.py|work/last_checkpoint': 'name the folder they are in',
    r'work/environment\.txt': 'names the command',
    r'work/earlier_\w+/.*': 'of a run that was killed before its first checkpoint: put aside',
}
"""Files that may differ, and why."""
ENTRIES = {
    r'meta/(time|cfg|experiment_name)': 'times, and the folder',
    r'message_hub/log_scalars/train/(time|data_time)/.*': 'times',
    r'message_hub/(log_scalars|resumed_keys)/val/.*':
        'what was logged of validations: it is in results.csv, and nothing goes on from here',
    r'message_hub/runtime_info/(eta|experiment_name)': 'times',
    r'message_hub/runtime_info/(cfg|last_ckpt)': 'name the folder',
}
"""Entries of a checkpoint that may differ, and why."""
COLUMNS = {'seconds': 'wall clock'}
"""Columns of results.csv that may differ, and why."""


def differences(folder, other):
    """Return how a folder differs from another in what matters, a line for each difference."""
    names, others = _files(folder), _files(other)
    found = [f'{name} is there in one alone' for name in sorted(names ^ others)]
    for name in sorted(names & others):
        found += [f'{name}: {line}' for line in _read_and_compared(folder / name, other / name)]
    return found


def _files(folder):
    names = {str(path.relative_to(folder)) for path in Path(folder).rglob('*') if path.is_file()}
    return {name for name in names if not any(re.fullmatch(pattern, name) for pattern in FILES)}


def _read_and_compared(path, other):
    if path.suffix == '.pth':
        ours, theirs = (dict(_leaves(load_checkpoint_safely(one))) for one in (path, other))
    elif path.name == 'results.csv':
        ours, theirs = (_rows(one) for one in (path, other))
    else:
        ours, theirs = ({'content': one.read_bytes()} for one in (path, other))
    return [f'{name} is {_short(ours.get(name))} and not {_short(theirs.get(name))}'
            for name in ours.keys() | theirs.keys()
            if not any(re.fullmatch(pattern, name) for pattern in ENTRIES)
            and _bits(ours.get(name)) != _bits(theirs.get(name))]


def _leaves(value, name=''):
    if hasattr(value, '__getstate__') and type(value).__name__ == 'HistoryBuffer':
        value = dict(values=value.data[0], counts=value.data[1])
    if isinstance(value, Mapping):
        value = value.items()
    elif isinstance(value, list | tuple):
        value = enumerate(value)
    else:
        yield name[1:], value
        return
    for key, one in value:
        yield from _leaves(one, f'{name}/{key}')


def _rows(path):
    with open(path, newline='') as file:
        return {f'row {number}, {name}': value for number, row in enumerate(csv.DictReader(file))
                for name, value in row.items() if name not in COLUMNS}


def _bits(value):
    if isinstance(value, torch.Tensor):
        value = value.detach().cpu().contiguous().numpy()
    if isinstance(value, np.ndarray):
        return str(value.dtype), value.shape, value.tobytes()
    return repr(value)


def _short(value):
    return repr(value)[:80].replace('\n', ' ')
