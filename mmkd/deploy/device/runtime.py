"""Run an exported model on onnxruntime, NumPy and OpenCV: no torch, no mmengine."""

import os
from collections.abc import Iterator, Sequence
from itertools import chain
from pathlib import Path
from typing import Any, ClassVar, NamedTuple, overload

import numpy as np
import onnxruntime

from .files import has_fitting_hash
from .metadata import ModelMetadata, check_image
from .standalone import UserError

__all__ = ['Classification', 'Classifier', 'Detections', 'Detector', 'open_model', 'open_session',
           'read_metadata']

# Enough of them to occupy a CPU; more would only fill the memory.
PIXELS_PER_BATCH, IMAGES_PER_BATCH = 2**20, 64


def open_session(path: str | os.PathLike, threads: int | None = None
                 ) -> onnxruntime.InferenceSession:
    """Open a model on the CPU, with as many threads as onnxruntime likes or as are given.

    Raises:
        UserError: If the file is missing, damaged or no ONNX model.
    """
    if not os.path.isfile(path):
        raise UserError(f"model '{path}' does not exist: export it with mmkd export or "
                        'correct the path')
    if Path(path).suffix in ('.pth', '.pt'):
        raise UserError(f"model '{path}' is a checkpoint of PyTorch: export it first, with "
                        f'mmkd export CONFIG {path} --out model.onnx')
    if not has_fitting_hash(Path(path).read_bytes()):
        raise UserError(f"model '{path}' is not what mmkd wrote: copy or export it again, or, if "
                        "it was changed on purpose, take 'sha256' out of its metadata_props")
    options = onnxruntime.SessionOptions()
    # Reported through the exception alone.
    options.log_severity_level = 4
    if threads is not None:
        if threads < 1:
            raise UserError(f'{threads} threads cannot run a model: give 1 or more')
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

    def above(self, score_thr: float) -> 'Detections':
        """Leave out the objects with a lower score."""
        kept = self.scores >= score_thr
        return Detections(self.boxes[kept], self.scores[kept], self.labels[kept])


class Classification(NamedTuple):
    """The most probable classes of one image, the most probable first.

    ``scores`` is ``(k,)`` float32, probabilities; ``labels`` is ``(k,)`` int64, an index into the
    class names.
    """

    scores: np.ndarray
    labels: np.ndarray


class _Model:
    """What detectors and classifiers share: the file, its metadata, batches."""

    task: ClassVar[str]
    outputs: ClassVar[tuple[str, ...]]

    def __init__(self, path: str | os.PathLike, threads: int | None = None,
                 input_size: tuple[int, int] | None = None) -> None:
        session = open_session(path, threads)
        self._set_up(path, session, read_metadata(path, session), input_size)

    def _set_up(self, path: str | os.PathLike, session: onnxruntime.InferenceSession,
                metadata: ModelMetadata, input_size: tuple[int, int] | None) -> None:
        if metadata.task != self.task:
            other = _CLASSES[metadata.task]
            raise UserError(f"model '{path}' is for {metadata.task} and not for {self.task}: use "
                            f'mmkd.deploy.{other.__name__}')
        inputs = session.get_inputs()
        if ([value.name for value in inputs] != metadata.input_names
                or tuple(value.name for value in session.get_outputs()) != self.outputs):
            raise UserError(f"model '{path}' does not have the input "
                            f"{' and '.join(metadata.input_names)} and the outputs "
                            f"{', '.join(self.outputs)} that its metadata promises: export it "
                            'again')
        self.session = session
        self.metadata = (metadata if input_size is None
                         else metadata.with_input_size(tuple(input_size)))
        self._dtype = np.float16 if inputs[0].type == 'tensor(float16)' else np.float32

    @property
    def classes(self) -> tuple[str, ...]:
        """Names of the categories, in the order of the labels."""
        return self.metadata.classes

    @property
    def batch_size(self) -> int:
        """How many images of a list are run at once."""
        if self.metadata.input_kind == 'image':
            return 1
        height, width = self.metadata.input_size
        return self.metadata.batch or min(max(PIXELS_PER_BATCH // (height * width), 1),
                                          IMAGES_PER_BATCH)

    def _outputs(self, images: Any) -> Iterator[tuple[np.ndarray, ...]]:
        """For each image the scaling factors and the outputs, batch by batch."""
        size = self.batch_size
        return chain.from_iterable(self._run(images[i:i + size])
                                   for i in range(0, len(images), size))

    def _run(self, images: Sequence[np.ndarray]) -> Iterator[tuple[np.ndarray, ...]]:
        if self.metadata.input_kind == 'image':
            image, = images
            check_image(image)
            self.metadata.scaled_size(*image.shape[:2])
            feed, factors = self.metadata.feed(image), [np.ones(2, np.float32)]
        else:
            prepared, factors = zip(*map(self.metadata.prepare, images), strict=True)
            # A model for a fixed number of images gets empty ones besides.
            inputs = np.zeros((self.metadata.batch or len(images), *prepared[0].shape),
                              self._dtype)
            inputs[:len(images)] = prepared
            sizes = [self.metadata.input_size] * len(inputs)
            sizes[:len(images)] = [self.metadata.scaled_size(*image.shape[:2]) for image in images]
            feed = self.metadata.feed(inputs, sizes)
        outputs = [output[:len(images)] for output in self.session.run(None, feed)]
        for output in outputs:
            if not np.isfinite(output).all():
                raise UserError('the model gives results that are not finite numbers: export it '
                                'anew, and if it was with --half, without')
        return zip(factors, *outputs, strict=True)


class Detector(_Model):
    """A detector exported by ``mmkd export``.

    Its boxes are those of the PyTorch model under MMDetection's test pipeline, after NMS where
    that belongs to the model: a CenterNet's are not clipped to the image, and as many as its
    top-k.

    Args:
        path: The ``.onnx`` file.
        threads: CPU threads of one run; onnxruntime's own choice by default.
        input_size: Height and width that images are brought to, for a model of dynamic size; that
            of the test pipeline by default.

    Raises:
        UserError: If the file is missing, truncated, no ONNX model, not exported by mmkd or no
            detector, or does not take ``input_size``.
    """

    task = 'detection'
    outputs = ('boxes', 'scores', 'labels')

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
                such images of any sizes. They are run :attr:`batch_size` at a time.
            score_thr: Objects with a lower score are left out.

        Returns:
            the detections of the image, or a list of them.

        Raises:
            UserError: If an image is not such an array.
        """
        if not isinstance(images, list | tuple):
            return self([images], score_thr)[0]
        found = []
        for image, (factors, boxes, scores, labels) in zip(images, self._outputs(images),
                                                           strict=True):
            boxes = boxes.astype(np.float32) / np.tile(factors, 2)
            scores = scores.astype(np.float32)
            if self.metadata.nms is not None:
                boxes, scores, labels = self.metadata.nms.detections(boxes, scores, labels,
                                                                     image.shape[:2])
            found.append(Detections(boxes, scores, labels).above(score_thr))
        return found


class Classifier(_Model):
    """A classifier exported by ``mmkd export``.

    Its probabilities are those of the PyTorch model on the test data of its config.

    Args:
        path: The ``.onnx`` file.
        threads: CPU threads of one run; onnxruntime's own choice by default.
        input_size: Height and width that images are brought to, for a model of dynamic size; that
            of the test data by default.

    Raises:
        UserError: If the file is missing, truncated, no ONNX model, not exported by mmkd or no
            classifier, or does not take ``input_size``.
    """

    task = 'classification'
    outputs = ('scores',)

    @overload
    def __call__(self, images: np.ndarray, topk: int = 5) -> Classification: ...

    @overload
    def __call__(self, images: Sequence[np.ndarray], topk: int = 5) -> list[Classification]: ...

    def __call__(self, images: np.ndarray | Sequence[np.ndarray],
                 topk: int = 5) -> Classification | list[Classification]:
        """Classify one image or several.

        Args:
            images: ``(h, w, 3)`` uint8 in BGR order, as ``cv2.imread`` returns it, or a list of
                such images of any sizes. They are run :attr:`batch_size` at a time.
            topk: How many classes to return; all where there are fewer.

        Returns:
            the classes of the image, or a list of them.

        Raises:
            UserError: If an image is not such an array.
        """
        if not isinstance(images, list | tuple):
            return self([images], topk)[0]
        found = []
        for _, scores in self._outputs(images):
            labels = np.argsort(-scores, kind='stable')[:topk]
            found.append(Classification(scores[labels].astype(np.float32), labels))
        return found


_CLASSES: dict[str, type[_Model]] = {cls.task: cls for cls in (Detector, Classifier)}


def open_model(path: str | os.PathLike, threads: int | None = None,
               input_size: tuple[int, int] | None = None) -> Detector | Classifier:
    """Open an exported model as what it is; arguments and errors as for :class:`Detector`."""
    session = open_session(path, threads)
    metadata = read_metadata(path, session)
    cls = _CLASSES[metadata.task]
    model = cls.__new__(cls)  # The file need not be read a second time.
    model._set_up(path, session, metadata, input_size)
    return model


def read_metadata(path: str | os.PathLike,
                  session: onnxruntime.InferenceSession) -> ModelMetadata:
    """Return what a model says about itself.

    Raises:
        UserError: If it is not what mmkd writes, or not true of the model's input.
    """
    try:
        props = session.get_modelmeta().custom_metadata_map
    except UnicodeDecodeError as error:
        raise UserError(f"model '{path}' has metadata that is no text, so it is damaged or not "
                        'from mmkd: export the checkpoint with mmkd export') from error
    metadata = ModelMetadata.from_props(props, os.fspath(path))
    shape = next((value.shape for value in session.get_inputs()), ())
    size = (None, None) if metadata.dynamic_size else metadata.input_size
    promised = ((None, None, 3) if metadata.input_kind == 'image' else
                (metadata.batch or None, 3, *size))
    # What is open in the model has a name or None in the place of a number.
    if len(shape) != len(promised) or any(
            isinstance(side, int) and side != said
            for side, said in zip(shape, promised, strict=True)):
        raise UserError(f"model '{path}' does not take images as its metadata says: export it "
                        'again')
    return metadata
