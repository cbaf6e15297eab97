"""Export a trained student to ONNX, check the file, time it, and run it without torch.

Importing this package pulls in onnxruntime, NumPy and OpenCV, but neither torch nor mmengine:
a device needs no more. ``mmkd.deploy.export`` needs torch.
"""

from mmkd.deploy.runtime import Classification, Classifier, Detections, Detector, open_model

__all__ = ['Classification', 'Classifier', 'Detections', 'Detector', 'open_model']
