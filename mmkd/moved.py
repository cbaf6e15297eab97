"""Modules that are elsewhere since 0.2.0: importable from their old places for this release.

``from mmkd.deploy.metadata import ModelMetadata`` still works, with a DeprecationWarning that names
``mmkd.deploy.device.metadata``. In the next release this file goes, and the line that calls it in
``mmkd/__init__.py``.
"""

import importlib
import sys
import warnings
from collections.abc import Sequence
from importlib.abc import Loader, MetaPathFinder
from importlib.machinery import ModuleSpec
from types import ModuleType
from typing import Any

__all__ = ['MOVED', 'find_moved_modules']

_ROOMS = dict(
    device=('drawing', 'files', 'metadata', 'nms', 'runtime', 'sources'),
    export=('agreement', 'calibration', 'classifier_graph', 'dense_adapters', 'dense_graph',
            'detector_graph', 'detr_graph', 'image_graph', 'onnx_file', 'onnx_operators',
            'predictions', 'pt2', 'quantize', 'transposed', 'two_stage_candidates',
            'two_stage_graph', 'verify'),
    compare=('complexity', 'evaluate', 'latency', 'random_weights'))

MOVED: dict[str, tuple[str, ...]] = {
    f'mmkd.deploy.{name}': (f'mmkd.deploy.{room}.{name}',)
    for room, names in _ROOMS.items() for name in names
} | {
    f'mmkd.distillation.cache.{name}': (f'mmkd.teacher_cache.{name}',)
    for name in ('claims', 'codecs', 'identity', 'options', 'outputs', 'shards', 'store', 'views')
} | {
    f'mmkd.distillation.{name}': (f'mmkd.{name}',)
    for name in ('checkpoints', 'options', 'random_state')
} | {
    'mmkd.deploy.compare_table': ('mmkd.deploy.compare.table',),
    'mmkd.deploy.folding': ('mmkd.deploy.export.folding', 'mmkd.deploy.export.rewriting'),
    'mmkd.ops.folding': ('mmkd.deploy.export.folding',),
    'mmkd.distillation.cache': ('mmkd.teacher_cache',),
    'mmkd.distillation.cache.build': ('mmkd.distillation.cache_build',),
    'mmkd.distillation.cache.cached_teacher': ('mmkd.distillation.cached_teacher',),
    'mmkd.distillation.cache.prepare': ('mmkd.distillation.cache_plan',),
    'mmkd.selfdistill': ('mmkd.classification.auxiliary',),
    'mmkd.selfdistill.auxiliary': ('mmkd.classification.auxiliary',),
}
"""Each old place, and where its names are now."""


class _MovedModules(MetaPathFinder, Loader):
    """Makes an empty module for an old place, whose names are looked up in the new ones."""

    def find_spec(self, name: str, path: Sequence[str] | None = None,
                  target: ModuleType | None = None) -> ModuleSpec | None:
        """Find an old place; as a package, since modules may have been in it."""
        return ModuleSpec(name, self, is_package=True) if name in MOVED else None

    def exec_module(self, module: ModuleType) -> None:
        """Warn, and let the module find its names."""
        name, places = module.__name__, MOVED[module.__name__]
        warnings.warn(f'{name} is {" and ".join(places)} now, and will not be found under its old '
                      'name by the next release', DeprecationWarning, stacklevel=2)
        found = [importlib.import_module(place) for place in places]

        def get(attribute: str) -> Any:
            for one in found:
                if hasattr(one, attribute):
                    return getattr(one, attribute)
            raise AttributeError(f"module '{name}' has no attribute '{attribute}'")

        module.__getattr__ = get
        module.__all__ = [attribute for one in found for attribute in one.__all__]


def find_moved_modules() -> None:
    """Let Python find them; before anything else, which might take an emptied folder for one."""
    sys.meta_path.insert(0, _MovedModules())
