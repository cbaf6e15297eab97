"""mmkd: knowledge distillation for detectors of MMDetection and for classifiers.

What a program needs is here: :func:`train`, :func:`distill`, :func:`evaluate`, :func:`export`,
:class:`Detector` and :class:`Classifier` for what was exported, and :class:`Distillation` for a
training loop of one's own.

Importing the package is cheap: it pulls in neither torch nor mmengine, and only makes sure
that ``mmcv`` can be imported where its compiled extension is absent. Everything
registered by mmkd is imported by its registries when a config first asks for it.
"""

import importlib
from typing import Any

from mmkd.moved import find_moved_modules
from mmkd.ops.extension import provide_mmcv_extension

__version__ = '0.1.0'

__all__ = ['Classifier', 'Detector', 'Distillation', 'distill', 'evaluate', 'export', 'train']

provide_mmcv_extension()
find_moved_modules()

_PLACES = (dict.fromkeys(('distill', 'evaluate', 'export', 'train'), 'mmkd.api')
           | dict.fromkeys(('Classifier', 'Detector'), 'mmkd.deploy')
           | dict(Distillation='mmkd.distillation'))


def __getattr__(name: str) -> Any:
    if name not in _PLACES:
        raise AttributeError(f"module 'mmkd' has no attribute '{name}'")
    return getattr(importlib.import_module(_PLACES[name]), name)


def __dir__() -> list[str]:
    return sorted([*globals(), *__all__])
