"""Run an exported detector on onnxruntime, NumPy and OpenCV: no torch, no mmengine."""

import os
from collections.abc import Sequence
from pathlib import Path
from typing import NamedTuple, overload

import numpy as np
import onnxruntime

from mmkd.deploy.metadata import ModelMetadata
from mmkd.errors import UserError

__all__ = ['Detections', 'Detector', 'open_session']


def open_session(path: str | os.PathLike, threads: int | None = None
                 ) -> onnxruntime.InferenceSession:
    """Open a model on the CPU, with as many threads as onnxruntime likes or as are given.

    Raises:
        UserError: If the file is missing, truncated or no ONNX model.
    """
    if not Path(path).is_file():
        raise UserError(f"model '{path}' does not exist: export it with tools/export.py or "
                        'correct the path')
    options = onnxruntime.SessionOptions()
    # Reported through the exception alone.
    options.log_severity_level = 4
    if threads is not None:
        options.intra_op_num_threads = threads
    try:
        return onnxruntime.InferenceSession(os.fspath(path), options,
                                            providers=['CPUExecutionProvider'])
    # onnxruntime's exceptions have no common base but Exception.
    except Exception as error:
        raise UserError(f"model '{path}' is truncated or no ONNX model: export or copy it "
                        'again') from error


class Detections(NamedTuple):
    """The objects found in one image, best score first.

    ``boxes`` is ``(K, 4)`` float32, ``(x1, y1, x2, y2)`` in pixels of the image; ``scores`` is
    ``(K,)`` float32 from 0 to 1; ``labels`` is ``(K,)`` int64, an index into the class names.
    """

    boxes: np.ndarray
    scores: np.ndarray
    labels: np.ndarray


class Detector:
    """A detector exported by ``tools/export.py``.

    Its boxes are those of the PyTorch model under MMDetection's test pipeline: not clipped to
    the image, and as many as the model's top-k.

    Args:
        path: The ``.onnx`` file.
        threads: CPU threads of one run; onnxruntime's own choice by default.

    Raises:
        UserError: If the file is missing, truncated, no ONNX model or not exported by mmkd.
    """

    def __init__(self, path: str | os.PathLike, threads: int | None = None) -> None:
        self.session = open_session(path, threads)
        self.metadata = ModelMetadata.from_props(
            self.session.get_modelmeta().custom_metadata_map, os.fspath(path))

    @property
    def classes(self) -> tuple[str, ...]:
        """Names of the categories, in the order of the labels."""
        return self.metadata.classes

    @overload
    def __call__(self, images: np.ndarray, score_thr: float = 0.0) -> Detections: ...

    @overload
    def __call__(self, images: Sequence[np.ndarray],
                 score_thr: float = 0.0) -> list[Detections]: ...

    def __call__(self, images: np.ndarray | Sequence[np.ndarray],
                 score_thr: float = 0.0) -> Detections | list[Detections]:
        """Detect the objects of one image or of several.

        Args:
            images: ``(h, w, 3)`` uint8 in BGR order, as ``cv2.imread`` returns it, or a list of
                such images of any sizes. They are run one after the other.
            score_thr: Objects with a lower score are left out.

        Returns:
            the detections of the image, or a list of them.

        Raises:
            UserError: If an image is not such an array.
        """
        if isinstance(images, (list, tuple)):
            return [self(image, score_thr) for image in images]
        prepared, factors = self.metadata.prepare(images)
        boxes, scores, labels = (output[0] for output in
                                 self.session.run(None, {'image': prepared[None]}))
        kept = scores >= score_thr
        return Detections(boxes[kept] / np.tile(factors, 2), scores[kept], labels[kept])
