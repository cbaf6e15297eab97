"""The pictures that a user names: image files, folders of them, and the frames of videos."""

import os
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import NamedTuple

import cv2
import numpy as np

from .images import load_image
from .standalone import UserError

__all__ = ['IMAGE_SUFFIXES', 'VIDEO_SUFFIXES', 'Frame', 'Sources', 'video_fps']

IMAGE_SUFFIXES = ('.bmp', '.jpeg', '.jpg', '.png', '.tif', '.tiff', '.webp')
VIDEO_SUFFIXES = ('.avi', '.m4v', '.mkv', '.mov', '.mp4', '.mpeg', '.mpg', '.webm')

# How many frames a video has is an estimate in some formats.
MISSING_SHARE = 0.1


class Frame(NamedTuple):
    """One picture: its file, its number in a video from 0 (None for an image file), its pixels.

    ``image`` is ``(h, w, 3)`` uint8 in BGR order.
    """

    path: Path
    index: int | None
    image: np.ndarray


class Sources:
    """Iterates over the pictures of files and folders.

    A file with a video's suffix is a video, any other file an image. A folder stands for its image
    and video files by name; folders in it and hidden files are passed over. What does not decode is
    skipped and noted in ``skipped``; a video that ends early yields the frames before and is
    noted, too.

    Args:
        paths: Files and folders.

    Attributes:
        files: The files, in the order of ``paths``.
        skipped: One sentence for each file that was skipped so far, by path; as errors begin.

    Raises:
        UserError: If a path does not exist, or a folder holds no image or video.
    """

    def __init__(self, paths: Sequence[str | os.PathLike]) -> None:
        self.files = [file for path in map(Path, paths) for file in _files(path)]
        self.skipped: dict[Path, str] = {}

    def __iter__(self) -> Iterator[Frame]:
        """Read the pictures one after the other; anew each time."""
        self.skipped.clear()
        for file in self.files:
            try:
                if is_video(file):
                    yield from _video_frames(file)
                else:
                    yield Frame(file, None, load_image(file))
            except UserError as error:
                self.skipped[file] = str(error)


def is_video(path: Path) -> bool:
    """Whether the name is that of a video."""
    return path.suffix.lower() in VIDEO_SUFFIXES


def video_fps(path: str | os.PathLike) -> float:
    """Frames per second of a video; 25 where the file does not say.

    Raises:
        UserError: If it cannot be opened.
    """
    with _opened(path) as video:
        fps = video.get(cv2.CAP_PROP_FPS)
        return fps if 0 < fps < 1000 else 25.0


def _files(path: Path) -> list[Path]:
    if path.is_file():
        return [path]
    if not path.is_dir():
        raise UserError(f"'{path}' does not exist: correct the path")
    files = sorted(file for file in path.iterdir()
                   if file.suffix.lower() in IMAGE_SUFFIXES + VIDEO_SUFFIXES
                   and not file.name.startswith('.') and file.is_file())
    if not files:
        suffixes = ', '.join(suffix[1:] for suffix in IMAGE_SUFFIXES + VIDEO_SUFFIXES)
        raise UserError(f"folder '{path}' holds no image or video ({suffixes}; folders in it are "
                        'not searched): name another one')
    return files


def _video_frames(path: Path) -> Iterator[Frame]:
    with _opened(path) as video:
        expected = video.get(cv2.CAP_PROP_FRAME_COUNT)
        count = 0
        while True:
            decoded, image = video.read()
            if not decoded:
                break
            yield Frame(path, count, image)
            count += 1
    if count == 0:
        raise UserError(f"video '{path}' has no frame that decodes: replace it or take it out")
    if count < (1 - MISSING_SHARE) * expected:
        raise UserError(f"video '{path}' ends after {count} of {expected:.0f} frames: replace it "
                        'or take it out')


@contextmanager
def _opened(path: str | os.PathLike) -> Iterator[cv2.VideoCapture]:
    video = cv2.VideoCapture(os.fspath(path))
    try:
        if not video.isOpened():
            raise UserError(f"video '{path}' cannot be opened, it is damaged or of a kind that "
                            'this OpenCV does not read: replace it or take it out')
        yield video
    finally:
        video.release()
