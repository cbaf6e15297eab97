"""Export a trained student to a file, check it, run it without torch, and compare it with others.

Three rooms: ``export`` makes and checks a file, ``device`` runs it, ``compare`` says how fast and
how good it is. ``device`` imports neither torch nor mmengine, and is all that a device needs.
"""

from typing import Any

from mmkd.deploy import device

__all__ = ['Classification', 'Classifier', 'Detections', 'Detector', 'open_model']


def __getattr__(name: str) -> Any:
    if name not in __all__:
        raise AttributeError(f"module 'mmkd.deploy' has no attribute '{name}'")
    return getattr(device, name)
