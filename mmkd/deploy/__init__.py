"""Export a trained student to ONNX, check the file, time it, and run it without torch.

Importing this package needs neither torch nor mmengine, and its models need onnxruntime, NumPy and
OpenCV: a device needs no more. ``mmkd.deploy.export`` needs torch.
"""

from typing import Any

__all__ = ['Classification', 'Classifier', 'Detections', 'Detector', 'open_model']


def __getattr__(name: str) -> Any:
    if name not in __all__:
        raise AttributeError(f"module 'mmkd.deploy' has no attribute '{name}'")
    from mmkd.deploy import runtime

    return getattr(runtime, name)
