"""Draw what was found into pictures, and write pictures and videos."""

import colorsys
import os
from collections.abc import Iterable, Sequence
from pathlib import Path

import cv2
import numpy as np

from .files import move_into_place, temporary_path, write_errors, written_atomically
from .runtime import Classification, Detections
from .sources import IMAGE_SUFFIXES, Frame, video_fps
from .standalone import UserError

__all__ = ['PictureWriter', 'draw']


def draw(image: np.ndarray, found: Detections | Classification, classes: Sequence[str],
         with_scores: bool = True) -> np.ndarray:
    """Draw boxes with their names and scores, or write the classes of the image into it.

    Args:
        image: ``(h, w, 3)`` uint8 in BGR order.
        found: What the model returned for the image.
        classes: Names by label. OpenCV writes signs beyond ASCII as question marks.
        with_scores: Whether to write the scores behind the names; labels have none.

    Returns:
        a copy of the image with the drawing.
    """
    picture = image.copy()
    texts = [f'{classes[label]} {score:.2f}' if with_scores else classes[label]
             for score, label in zip(found.scores, found.labels, strict=True)]
    colors = [_color(label, len(classes)) for label in found.labels]
    if isinstance(found, Classification):
        for row, (text, color) in enumerate(zip(texts, colors, strict=True)):
            _write(picture, text, (0, row * _line_height(picture)), color)
        return picture
    # The best last, on top of the others.
    for box, text, color in reversed(list(zip(found.boxes, texts, colors, strict=True))):
        left, top, right, bottom = _corners(box, picture)
        cv2.rectangle(picture, (left, top), (right, bottom), color, _thickness(picture))
        _write(picture, text, (left, top - _line_height(picture)), color)
    return picture


def _corners(box: np.ndarray, picture: np.ndarray) -> list[int]:
    """Round a box; what is outside of the picture ends just beyond its border."""
    height, width = picture.shape[:2]
    limits = np.array([width, height, width, height])
    return np.clip(box.round(), -1, limits).astype(int).tolist()


def _color(label: int, count: int) -> tuple[int, int, int]:
    """Return BGR of a hue of its own for each of ``count`` labels."""
    red, green, blue = colorsys.hsv_to_rgb(label / count, 0.8, 1.0)
    return int(blue * 255), int(green * 255), int(red * 255)


def _thickness(picture: np.ndarray) -> int:
    return max(round(max(picture.shape[:2]) / 400), 1)


def _font_scale(picture: np.ndarray) -> float:
    return max(max(picture.shape[:2]) / 1200, 0.35)


def _line_height(picture: np.ndarray) -> int:
    return round(30 * _font_scale(picture))


def _write(picture: np.ndarray, text: str, corner: tuple[int, int],
           color: tuple[int, int, int]) -> None:
    """Write black on a bar of ``color`` with its left upper corner there, kept in the picture."""
    scale, height = _font_scale(picture), _line_height(picture)
    thickness = max(round(scale), 1)
    (width, _), _ = cv2.getTextSize(text, cv2.FONT_HERSHEY_SIMPLEX, scale, thickness)
    left = max(min(corner[0], picture.shape[1] - width), 0)
    top = max(min(corner[1], picture.shape[0] - height), 0)
    cv2.rectangle(picture, (left, top), (left + width, top + height), color, cv2.FILLED)
    cv2.putText(picture, text, (left, top + round(0.75 * height)), cv2.FONT_HERSHEY_SIMPLEX, scale,
                (0, 0, 0), thickness, cv2.LINE_AA)


class PictureWriter:
    """Writes pictures and videos into a folder, each whole or not at all; a context manager.

    They get the names of their sources: images keep their format where OpenCV writes it and are PNG
    otherwise, videos are MPEG-4. Names that come twice get a number.

    Args:
        folder: Made where it is missing.
        sources: Files that must not be replaced.

    Raises:
        UserError: If something cannot be written, or would replace a source.
    """

    def __init__(self, folder: str | os.PathLike, sources: Iterable[Path] = ()) -> None:
        self.folder = Path(folder)
        self._sources = {path.resolve() for path in sources}
        with write_errors(self.folder):
            self.folder.mkdir(parents=True, exist_ok=True)
        self._names: set[str] = set()
        self._video: cv2.VideoWriter | None = None
        self._source = self._temporary = self._target = Path()

    def __enter__(self) -> 'PictureWriter':
        return self

    def __exit__(self, kind: type[BaseException] | None, *_: object) -> None:
        self._end_video(keep=kind is None)

    def write(self, frame: Frame, picture: np.ndarray) -> None:
        """Write the picture that was drawn of ``frame``; frames of one video come in a row."""
        if frame.index is None:
            self._end_video()
            suffix = frame.path.suffix.lower()
            target = self._name(frame.path, suffix if suffix in IMAGE_SUFFIXES else '.png')
            encoded = cv2.imencode(target.suffix, picture)[1]
            with written_atomically(target) as temporary:
                temporary.write_bytes(encoded.tobytes())
            return
        if frame.path != self._source or frame.index == 0:
            self._end_video()
            self._begin_video(frame)
        assert self._video is not None
        self._video.write(picture)

    def _begin_video(self, frame: Frame) -> None:
        self._source, self._target = frame.path, self._name(frame.path, '.mp4')
        self._temporary = temporary_path(self._target)
        height, width = frame.image.shape[:2]
        self._video = cv2.VideoWriter(str(self._temporary), cv2.VideoWriter_fourcc(*'mp4v'),
                                      video_fps(frame.path), (width, height))
        if not self._video.isOpened():
            self._end_video(keep=False)
            raise self._unwritable()

    def _end_video(self, keep: bool = True) -> None:
        if self._video is None:
            return
        self._video.release()
        self._video = None
        try:
            if keep:
                video_fps(self._temporary)  # A full disk is not reported, but leaves no video.
                with write_errors(self._target):
                    move_into_place(self._temporary, self._target)
        except UserError as error:
            raise self._unwritable() from error
        finally:
            self._temporary.unlink(missing_ok=True)

    def _unwritable(self) -> UserError:
        return UserError(f"video '{self._target}' cannot be written: free some space, or use an "
                         'OpenCV with FFmpeg (opencv-python-headless has it)')

    def _name(self, source: Path, suffix: str) -> Path:
        name, number = source.stem + suffix, 2
        while name in self._names:
            name, number = f'{source.stem}_{number}{suffix}', number + 1
        self._names.add(name)
        target = self.folder / name
        if target.resolve() in self._sources:
            raise UserError(f"'{target}' would be replaced by the picture with the drawing: write "
                            'to another folder')
        return target
