"""Let ``mmcv.ops`` import where ``mmcv._ext`` was not compiled.

``mmcv.ops`` asks ``mmcv._ext`` for some hundred compiled functions while it is imported,
and MMDetection imports ``mmcv.ops`` from everywhere. The finder below is the last on
``sys.meta_path``: it is only asked when Python itself found no ``mmcv._ext``, so a compiled
extension is always preferred.
"""

import importlib.util
import sys
from collections.abc import Callable, Sequence
from importlib.abc import Loader, MetaPathFinder
from importlib.machinery import ModuleSpec
from types import ModuleType

__all__ = ['has_compiled_extension', 'provide_mmcv_extension']

NAME = 'mmcv._ext'


def _missing(function: str) -> Callable:
    def raise_missing(*args: object, **kwargs: object) -> None:
        raise NotImplementedError(
            f"mmcv's compiled operator '{function}' is not available: nothing in mmkd needs it, "
            'but this model does; install an mmcv that was built with its extension')

    return raise_missing


class _StandIn(ModuleType):
    """A module in which every public name is a function that says what is missing."""

    is_mmkd_stand_in = True

    def __getattr__(self, name: str) -> Callable:
        if name.startswith('__'):
            raise AttributeError(name)
        return _missing(name)


class _Finder(MetaPathFinder, Loader):
    def find_spec(self, fullname: str, path: Sequence[str] | None = None,
                  target: ModuleType | None = None) -> ModuleSpec | None:
        return ModuleSpec(fullname, self) if fullname == NAME else None

    def create_module(self, spec: ModuleSpec) -> ModuleType:
        return _StandIn(spec.name)

    def exec_module(self, module: ModuleType) -> None:
        from mmkd.ops.nms import nms
        module.nms = nms


def provide_mmcv_extension() -> None:
    """Install the finder, once."""
    if not any(isinstance(finder, _Finder) for finder in sys.meta_path):
        sys.meta_path.append(_Finder())


def has_compiled_extension() -> bool:
    """Whether mmcv's own compiled extension is there (and therefore used)."""
    module = sys.modules.get(NAME)
    if module is not None:
        return not getattr(module, 'is_mmkd_stand_in', False)
    spec = importlib.util.find_spec(NAME)
    return spec is not None and not isinstance(spec.loader, _Finder)
