"""What runs on the device: an exported model, on onnxruntime, NumPy and OpenCV alone.

This folder imports nothing of mmkd that it could not do without. Copied alone into a program, under
whatever name, it works there as it does here::

    from device import Detector

    found = Detector('student.onnx')(cv2.imread('photo.jpg'))

Hence its imports of its own files are relative. onnxruntime is imported when a model is asked for:
what reads images and writes files needs none.
"""

from typing import Any

__all__ = ['Classification', 'Classifier', 'Detections', 'Detector', 'open_model']


def __getattr__(name: str) -> Any:
    if name not in __all__:
        raise AttributeError(f"module '{__name__}' has no attribute '{name}'")
    from . import runtime

    return getattr(runtime, name)
