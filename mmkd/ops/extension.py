"""Let ``mmcv.ops`` import where ``mmcv._ext`` was not compiled.

``mmcv.ops`` asks ``mmcv._ext`` for some hundred compiled functions while it is imported,
and MMDetection imports ``mmcv.ops`` from everywhere. The module that stands in has those that
MMDetection's detectors call, in PyTorch, under mmcv's names and with its arguments: so that all
of mmcv's layers and functions run on them. The finder below is the last on
``sys.meta_path``: it is only asked when Python itself found no ``mmcv._ext``, so a compiled
extension is always preferred.
"""

import importlib
import importlib.util
import sys
from collections.abc import Callable, Sequence
from importlib.abc import Loader, MetaPathFinder
from importlib.machinery import ModuleSpec
from types import ModuleType

__all__ = ['has_compiled_extension', 'provide_mmcv_extension']

NAME = 'mmcv._ext'


# What mmkd has in PyTorch, by the file of mmkd.ops.
PROVIDED = dict(
    deform_conv=('deform_conv_forward', 'deform_conv_backward_input',
                 'deform_conv_backward_parameters', 'modulated_deform_conv_forward',
                 'modulated_deform_conv_backward'),
    focal_loss=('sigmoid_focal_loss_forward', 'sigmoid_focal_loss_backward',
                'softmax_focal_loss_forward', 'softmax_focal_loss_backward'),
    ms_deform_attn=('ms_deform_attn_forward', 'ms_deform_attn_backward'),
    nms=('nms',),
    roi_align=('roi_align_forward', 'roi_align_backward'),
    softnms=('softnms',))


def _missing(function: str) -> Callable:
    def raise_missing(*args: object, **kwargs: object) -> None:
        raise NotImplementedError(
            f"mmcv's compiled operator '{function}', which this model needs, is not among those "
            f'that mmkd has in PyTorch ({", ".join(PROVIDED)}); install an mmcv that was built '
            'with its extension')

    return raise_missing


class _StandIn(ModuleType):
    """A module in which every public name it lacks is a function that says what is missing."""

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
        for file, names in PROVIDED.items():
            provided = importlib.import_module(f'mmkd.ops.{file}')
            for name in names:
                setattr(module, name, getattr(provided, name))


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
