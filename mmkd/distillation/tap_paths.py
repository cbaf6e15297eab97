"""What a tap names: the input or the output of a module, and a tensor in it.

``MODULE[:input][:STEP]...``, where ``MODULE`` is the dotted name that ``model.named_modules()``
gives (``backbone.layer3``) and stands for what the module returns, ``:input`` for its first
argument, ``:inputs`` for the list of all, and ``MODULE.method()`` for what that method returns.
Wildcards in it stand for every module that matches: ``backbone.stage?``,
``neck.fpn_convs.[0-2].conv``. A ``STEP`` goes into a list, a tuple or a dict: a number (also from
the end: ``-1``), a range ``0-2`` with both ends, ``*`` for all, or a key. A number also picks along
the first axis of a tensor. A module that is called several times in a forward pass gives the list
of what it returned. So::

    neck:*                  every level of a feature pyramid
    neck:0-2                three of them
    bbox_head.gfl_cls:*     a convolution that is called once for each level
    bbox_head:0:*           the first of the head's lists: the classes, level by level
    bbox_head:0:-1          of a DETR: the classes of the last decoder layer
    bbox_head:input:-1      of a CenterNet: what entered the head, last stack

A tensor at the end of a path is a *leaf*; it has a name of the same form. Losses, connectors and
caches meet leaves alone.
"""

import re
from collections.abc import Iterator, Mapping, Sequence
from fnmatch import fnmatchcase
from typing import Any

from torch import Tensor, nn

from mmkd.errors import UserError, did_you_mean

__all__ = ['endpoint_of', 'endpoints', 'find_module', 'leaves_of', 'tensors_in']

NUMBER = re.compile(r'-?\d+')
RANGE = re.compile(r'(\d+)-(\d+)')
INPUT, INPUTS = ':input', ':inputs'
SHOWN = 8
"""Leaves that a message lists."""


def endpoint_of(tap: str) -> str:
    """Return the part of a tap before its steps: ``'bbox_head:input'`` of ``'...:input:-1'``."""
    module, *rest = tap.split(':')
    return f'{module}:{rest[0]}' if rest[:1] in (['input'], ['inputs']) else module


def find_module(model: nn.Module, endpoint: str) -> nn.Module:
    """Return the module that an endpoint belongs to.

    Raises:
        UserError: there is none; names the closest that exists.
    """
    name = module_name(endpoint)
    modules = dict(model.named_modules())
    if name not in modules or not name:
        raise UserError(f"tap '{endpoint}' does not exist in {type(model).__name__}."
                        f'{did_you_mean(name, modules)} `mmkd taps CONFIG` lists them')
    method = method_name(endpoint)
    if not callable(getattr(modules[name], method, None)):
        raise UserError(f"tap '{endpoint}' does not exist: {type(modules[name]).__name__} has no "
                        f'method {method}.{did_you_mean(method, dir(modules[name]))}')
    return modules[name]


def module_name(endpoint: str) -> str:
    """Return the dotted name of the module of an endpoint."""
    name = endpoint.partition(':')[0]
    return name.rpartition('.')[0] if name.endswith('()') else name


def method_name(endpoint: str) -> str:
    """Return the method whose call is recorded."""
    name = endpoint.partition(':')[0]
    return name.rpartition('.')[2][:-2] if name.endswith('()') else 'forward'


def endpoints(model: nn.Module, tap: str) -> list[str]:
    """Return the taps that one with wildcards stands for, in the order of the model; steps stay.

    Raises:
        UserError: a name does not exist or a wildcard matches nothing.
    """
    module, colon, rest = tap.partition(':')
    if not any(sign in module for sign in '*?['):
        find_module(model, endpoint_of(tap))
        return [tap]
    names = [name for name, _ in model.named_modules() if fnmatchcase(name, module)]
    if not names:
        raise UserError(f"tap '{tap}' matches no submodule of {type(model).__name__}: "
                        '`mmkd taps CONFIG` lists them')
    return [name + colon + rest for name in names]


def leaves_of(tap: str, value: Any) -> dict[str, Tensor]:
    """Return the tensors that a tap stands for, by the names of their leaves.

    Args:
        tap: without wildcards in the module's name.
        value: what came at its endpoint.

    Raises:
        UserError: a step leads nowhere, or the path ends at several tensors or at none.
    """
    endpoint = endpoint_of(tap)
    found = [(endpoint, value)]
    for step in tap[len(endpoint):].split(':')[1:]:
        found = [pair for name, one in found for pair in _stepped(tap, name, one, step)]
    leaves = {}
    for name, one in found:
        tensors = list(tensors_in(name, one))
        if len(tensors) != 1:
            raise UserError(f"tap '{tap}' stands for {_listed(tensors)}" if tensors else
                            f"tap '{tap}' stands for no tensor: at '{name}' is {_kind(one)}")
        leaves[name] = tensors[0][1]
    return leaves


def tensors_in(name: str, value: Any) -> Iterator[tuple[str, Tensor]]:
    """Yield every tensor in nested lists, tuples and dicts, and the leaf's name."""
    if isinstance(value, Tensor):
        yield name, value
    elif isinstance(value, Mapping):
        for key, one in value.items():
            yield from tensors_in(f'{name}:{key}', one)
    elif isinstance(value, (list, tuple)):
        for i, one in enumerate(value):
            yield from tensors_in(f'{name}:{i}', one)


def _stepped(tap: str, name: str, value: Any, step: str) -> list[tuple[str, Any]]:
    try:
        return [(f'{name}:{key}', _item(value, key)) for key in _keys(value, step)]
    except (IndexError, KeyError, TypeError) as error:
        raise UserError(f"tap '{tap}' has no step ':{step}' at '{name}', which is "
                        f'{_kind(value)}{_choices(name, value)}') from error


def _keys(value: Any, step: str) -> Sequence[Any]:
    bounds = RANGE.fullmatch(step)
    if isinstance(value, Mapping):
        return list(value) if step == '*' else [step]
    if bounds:
        return range(int(bounds[1]), int(bounds[2]) + 1)
    if step == '*' and isinstance(value, (list, tuple)):
        return range(len(value))
    if NUMBER.fullmatch(step):
        return [int(step)]
    raise KeyError(step)


def _item(value: Any, key: Any) -> Any:
    if not isinstance(value, (Mapping, list, tuple, Tensor)):
        raise TypeError(key)
    return value[key]


def _listed(tensors: Sequence[tuple[str, Tensor]]) -> str:
    shown = ', '.join(f'{name} {tuple(tensor.shape)}' for name, tensor in tensors[:SHOWN])
    more = f' and {len(tensors) - SHOWN} more' if len(tensors) > SHOWN else ''
    every = tensors[0][0].rpartition(':')[0]
    return (f'{len(tensors)} tensors: {shown}{more}; name one of them, or all that lie side by '
            f"side with '{every}:*'")


def _kind(value: Any) -> str:
    if isinstance(value, Tensor):
        return f'a tensor of shape {tuple(value.shape)}'
    if isinstance(value, (list, tuple, Mapping)):
        return f'a {type(value).__name__} of {len(value)}'
    return f'a {type(value).__name__}'


def _choices(name: str, value: Any) -> str:
    tensors = list(tensors_in(name, value))
    return f': it has {_listed(tensors)}' if len(tensors) > 1 else ''
