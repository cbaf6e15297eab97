"""Entries of a config that are a few options: ``teacher_cache``, ``unlabelled``."""

from collections.abc import Mapping
from dataclasses import MISSING, fields
from typing import TypeVar

from mmengine.config import Config

from mmkd.errors import UserError, did_you_mean

__all__ = ['read_options']

Options = TypeVar('Options')


def read_options(cfg: Config, name: str, kind: type[Options], example: str) -> Options | None:
    """Read an entry of a config into a dataclass; None if the config has none.

    Args:
        cfg: of a training.
        name: of the entry.
        kind: the dataclass; its fields without a default must be given.
        example: how the entry is written.

    Raises:
        UserError: one is missing or unknown, or the dataclass refuses a value.
    """
    entry = cfg.get(name)
    if entry is None:
        return None
    needed = {field.name for field in fields(kind) if field.default is MISSING}
    if not isinstance(entry, Mapping) or not needed <= entry.keys():
        raise UserError(f"{name} needs {' and '.join(sorted(needed))}: write {name} = {example}")
    known = [field.name for field in fields(kind)]
    for option in entry.keys() - set(known):
        raise UserError(f"{name} has an unknown entry '{option}'."
                        f"{did_you_mean(option, known) or f' It takes {chr(44).join(known)}'}")
    return kind(**entry)
