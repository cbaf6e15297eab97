"""Weights of a teacher that the student begins with."""

from collections.abc import Mapping, Sequence
from typing import Any

import torch
from mmengine.logging import print_log
from torch import Tensor, nn

from mmkd.distillation.entries import build_entry, checked_entries
from mmkd.errors import UserError, did_you_mean

__all__ = ['Inheritance', 'hand_down', 'inheritance']

Inheritance = dict[str, dict[str, dict[str, Tensor]]]
"""By teacher and module the tensors, by their names in the student's ``state_dict``."""


def hand_down(inherited: Inheritance, student: nn.Module) -> None:
    """Copy weights into the student, and say which."""
    for teacher, modules in inherited.items():
        for weights in modules.values():
            student.load_state_dict(weights, strict=False)
        counts = ', '.join(f'{len(weights)} tensors of {name}' for name, weights in modules.items())
        print_log(f"The student begins with weights of teacher '{teacher}': {counts}", 'current')


def inheritance(options: Any, teachers: Any, student: nn.Module) -> Inheritance:
    """Return what the student takes over from teachers.

    Source: the inheriting strategy of Z. Kang, P. Zhang, X. Zhang, J. Sun, N. Zheng,
    "Instance-conditional knowledge distillation for object detection", NeurIPS 2021, arXiv
    2110.12724. The published numbers of FGD and MGD contain it. Their code copies everything but
    the backbone, and what does not fit stays as it was; here modules are named, and all of
    them must fit.

    Args:
        options: ``inherit`` of the config: for a teacher's name the module or modules, such as
            ``['neck', 'bbox_head']``; or None.
        teachers: entries of the config's ``teachers``.
        student: the model.

    Raises:
        UserError: a teacher has no weights of its own, a module is not in both, two teachers give
            the same one, or tensors differ in name or shape.
    """
    if options is None:
        return {}
    if not isinstance(options, Mapping):
        raise UserError(f'inherit={options!r} does not say what is copied: give '
                        "dict(TEACHER=['neck', 'bbox_head'])")
    found: Inheritance = {}
    known: set[str] = set()
    for teacher, names in options.items():
        model = _built(teacher, checked_entries(teachers), student)
        for name in [names] if isinstance(names, str) else names:
            weights = _weights(name, student, model, teacher)
            twice = known & weights.keys()
            if twice:
                raise UserError(f"inherit gives the student '{min(twice)}' twice: name each module "
                                'once, and none inside another')
            known |= weights.keys()
            found.setdefault(teacher, {})[name] = weights
    return found


def _built(name: str, entries: Mapping[str, Any], student: nn.Module) -> nn.Module:
    """Build a teacher beside that of the run, of which a cache may have the outputs alone."""
    known = [key for key, entry in entries.items() if 'checkpoint' in entry]
    if name not in known:
        raise UserError(f"inherit names teacher '{name}', and those with a checkpoint are "
                        f'{", ".join(known) or "none"}: name one of these.'
                        f'{did_you_mean(name, known)}')
    model = build_entry(name, entries[name], student, torch.device('cpu')).model
    assert model is not None
    return model


def _weights(name: str, student: nn.Module, model: nn.Module, teacher: str) -> dict[str, Tensor]:
    own, theirs = (_module(name, *one).state_dict() for one in (
        (student, 'the student'), (model, f"teacher '{teacher}'")))
    for key in [*own, *theirs]:
        pair = [_kind(state.get(key)) for state in (own, theirs)]
        if pair[0] != pair[1]:
            raise UserError(f"inherit: '{name}.{key}' is {pair[0]} in the student and {pair[1]} in "
                            f"teacher '{teacher}': name modules that are alike in both, or parts "
                            "such as 'bbox_head.reg_convs'")
    return {f'{name}.{key}': value.detach().clone() for key, value in theirs.items()}


def _module(name: str, model: nn.Module, who: str) -> nn.Module:
    modules: Sequence[str] = [key for key, _ in model.named_modules() if key]
    if name not in modules:
        raise UserError(f"inherit: there is no module '{name}' in {who} ({type(model).__name__})."
                        f'{did_you_mean(name, modules)}')
    return model.get_submodule(name)


def _kind(value: Any) -> str:
    return 'missing' if value is None else f'of shape {tuple(value.shape)}'
