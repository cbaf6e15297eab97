"""What an exported model says about itself: what it does and how to prepare an image for it."""

import json
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, fields, replace
from typing import Any

import cv2
import numpy as np

from .images import resize_antialiased
from .nms import Nms
from .standalone import MMKD_VERSION, UserError

__all__ = ['ModelMetadata', 'check_image']

_CHOICES: dict[str, tuple[Any, ...]] = dict(
    task=('detection', 'classification'), input_kind=('tensor', 'image'),
    precision=('float32', 'float16', 'int8'), resize_mode=('letterbox', 'crop', 'stretch'),
    channel_order=('RGB', 'BGR'), resize_dtype=('uint8', 'float32'))
# Larger ones would fill the memory, or leave no digits of a pixel.
_LARGEST_SIDE, _LARGEST_BATCH, _LARGEST_LEVEL = 2**15, 2**12, 1e6
# Entries that a file holds only where they say something.
_OPTIONAL = ('nms', 'takes_sizes')


@dataclass(frozen=True)
class ModelMetadata:
    """The entries of an exported model's ``metadata_props``, each a JSON value.

    Args:
        classes: Names of the categories, in the order of the labels.
        input_size: Height and width in pixels that images are brought to.
        channel_order: 'RGB' or 'BGR', the order of the input's channels and of mean and std.
        mean: What is subtracted from each channel, 0 to 255.
        std: What each channel is divided by after that.
        resize_to: Longest and shortest side, in pixels, that ``resize_mode`` speaks of.
        resize_dtype: 'uint8' or 'float32', the type of the pixels that are scaled; with 'crop'
            and 'stretch' always 'uint8'.
        pad_value: What fills the input to the right of and below the normalised image, one number
            or one for each channel.
        task: 'detection' or 'classification'.
        input_kind: 'tensor', ``(N, 3, H, W)`` float32 or float16 as :meth:`prepare` returns it;
            or 'image', one ``(h, w, 3)`` uint8 image in BGR order of any size, prepared inside
            the model.
        precision: 'float32', 'float16' or 'int8' (whose input is float32).
        dynamic_size: Whether other sizes than ``input_size`` are taken, too.
        size_divisor: Height and width of the input must be multiples of it.
        batch: Number of images that the input holds, 0 for any.
        resize_mode: 'letterbox' scales an image into the box ``resize_to``, whichever way round,
            with its aspect ratio kept, bilinearly (``cv2.INTER_LINEAR``), and pads it; 'crop'
            scales its shorter side to the shorter of ``resize_to`` and cuts the centre out;
            'stretch' scales it to ``input_size``. The latter two average when they shrink, see
            :func:`~mmkd.deploy.device.images.resize_antialiased`.
        mmkd_version: The mmkd that wrote the model.
        nms: What makes detections of the boxes, scores and labels that the model returns; None
            where they are the detections.
        takes_sizes: Whether the model must be told how large each image is within its input, as
            a second input ``sizes``, ``(N, 2)`` int64, heights and widths.
    """

    classes: tuple[str, ...]
    input_size: tuple[int, int]
    channel_order: str
    mean: tuple[float, ...]
    std: tuple[float, ...]
    resize_to: tuple[int, int]
    resize_dtype: str = 'uint8'
    pad_value: float | tuple[float, ...] = 0.0
    task: str = 'detection'
    input_kind: str = 'tensor'
    precision: str = 'float32'
    dynamic_size: bool = False
    size_divisor: int = 1
    batch: int = 0
    resize_mode: str = 'letterbox'
    mmkd_version: str = MMKD_VERSION
    nms: Nms | None = None
    takes_sizes: bool = False

    def to_props(self) -> dict[str, str]:
        """Return the entries as ``{name: JSON}``."""
        return {name: json.dumps(value) for name, value in asdict(self).items()
                if value or name not in _OPTIONAL}

    @classmethod
    def from_props(cls, props: Mapping[str, str], path: str) -> 'ModelMetadata':
        """Read the entries of the model file at ``path``.

        Raises:
            UserError: If an entry is missing or not what mmkd writes.
        """
        values = {}
        for field in fields(cls):
            if field.name in _OPTIONAL and field.name not in props:
                continue
            try:
                value = json.loads(props[field.name])
                value = tuple(value) if isinstance(value, list) else value
                value = Nms.from_json(value) if field.name == 'nms' else value
                if not _is_valid(field.name, value):
                    raise ValueError(value)
            except (KeyError, ValueError, RecursionError) as error:
                raise UserError(
                    f"model '{path}' has no valid '{field.name}' in its metadata, so it was not "
                    'exported by this version of mmkd: export the checkpoint with '
                    'mmkd export') from error
            values[field.name] = value
        return cls(**values)

    @property
    def input_names(self) -> list[str]:
        """Names of the model's inputs."""
        return ['image', 'sizes'] if self.takes_sizes and self.input_kind == 'tensor' else ['image']

    def feed(self, images: np.ndarray, sizes: Sequence[tuple[int, int]] | None = None
             ) -> dict[str, np.ndarray]:
        """Return a model's inputs by name.

        Args:
            images: ``(N, 3, H, W)``, or one ``(h, w, 3)`` for a model that takes images.
            sizes: Height and width of each image within ``images``; all of it by default.
        """
        if self.input_names == ['image']:
            return {'image': images}
        sizes = [images.shape[2:]] * len(images) if sizes is None else sizes
        return {'image': images, 'sizes': np.array(sizes, np.int64)}

    def with_input_size(self, input_size: tuple[int, int]) -> 'ModelMetadata':
        """Return the same for images that are brought to another size.

        ``resize_to`` follows: the whole box for 'letterbox', the same share of the image for
        'crop'.

        Args:
            input_size: Height and width.

        Raises:
            UserError: If the model does not take that size.
        """
        height, width = input_size
        if input_size == self.input_size:
            return self
        own = 'x'.join(map(str, self.input_size))
        if not self.dynamic_size or self.input_kind == 'image':
            raise UserError(f'the model takes {own} pixels (height x width) and not '
                            f'{height}x{width}: leave the size out, or export the model with '
                            '--dynamic-size and without --image-input')
        divisor = self.size_divisor
        if min(height, width) < 1 or height % divisor or width % divisor:
            nearest = 'x'.join(str(max(round(side / divisor), 1) * divisor)
                               for side in (height, width))
            raise UserError(f'the model takes heights and widths that are multiples of {divisor} '
                            f'and not {height}x{width}: give {nearest}')
        longest, shortest = max(height, width), min(height, width)
        if self.resize_mode == 'crop':
            shortest = min(self.resize_to) * longest // max(self.input_size)
            longest = shortest
        return replace(self, input_size=(height, width), resize_to=(longest, shortest))

    def scaled_size(self, height: int, width: int) -> tuple[int, int]:
        """Height and width of an image after scaling, before it is padded or cropped.

        Raises:
            UserError: If the image is so narrow that scaling leaves nothing of it.
        """
        if self.resize_mode == 'stretch':
            return self.input_size
        if self.resize_mode == 'crop':
            shorter, size = min(height, width), min(self.resize_to)
            return size * height // shorter, size * width // shorter
        # The last two do not bind where the input is as large as the longest side of the box.
        factor = min(max(self.resize_to) / max(height, width),
                     min(self.resize_to) / min(height, width),
                     self.input_size[0] / height, self.input_size[1] / width)
        # mmcv rounds half up.
        new_height, new_width = int(height * factor + 0.5), int(width * factor + 0.5)
        if not (new_width and new_height):
            raise UserError(f'an image of {width}x{height} pixels is too narrow to be scaled into '
                            f'{self.resize_to[0]}x{self.resize_to[1]}: crop it')
        return new_height, new_width

    def prepare(self, image: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        """Scale, normalise and pad or crop an image as the test data of the config does.

        Args:
            image: ``(h, w, 3)`` uint8 in BGR order, as ``cv2.imread`` returns it.

        Returns:
            the model's input ``(3, H, W)`` float32, and the factors ``(fx, fy)`` float32 by
            which the image was scaled.

        Raises:
            UserError: If it is no such image, or so narrow that scaling leaves nothing of it.
        """
        check_image(image)
        height, width = image.shape[:2]
        new_height, new_width = self.scaled_size(height, width)
        if self.resize_mode == 'letterbox':
            pixels = cv2.resize(image.astype(self.resize_dtype), (new_width, new_height),
                                interpolation=cv2.INTER_LINEAR)
        else:
            pixels = resize_antialiased(image, (new_height, new_width), self.input_size)
        if self.channel_order == 'RGB':
            pixels = pixels[..., ::-1]
        pixels = ((pixels.astype(np.float32) - np.asarray(self.mean, np.float32))
                  / np.asarray(self.std, np.float32))
        prepared = np.empty((3, *self.input_size), np.float32)
        prepared[:] = np.reshape(np.float32(self.pad_value), (-1, 1, 1))
        prepared[:, :pixels.shape[0], :pixels.shape[1]] = pixels.transpose(2, 0, 1)
        return prepared, np.asarray((new_width / width, new_height / height), np.float32)


def check_image(image: Any) -> None:
    """Raise a UserError unless ``image`` is what ``cv2.imread`` returns of an image."""
    if (not isinstance(image, np.ndarray) or image.dtype != np.uint8 or image.ndim != 3
            or image.shape[2] != 3 or image.size == 0):
        found = (f'{image.dtype} {image.shape}' if isinstance(image, np.ndarray)
                 else type(image).__name__)
        raise UserError(f'an image must be a uint8 array of shape (height, width, 3) in BGR '
                        f'order but this is {found}: read it with cv2.imread')


def _is_valid(name: str, value: Any) -> bool:
    """Whether an entry of a file is of the kind that mmkd writes."""
    if name in _CHOICES:
        return value in _CHOICES[name]
    if name in ('dynamic_size', 'takes_sizes'):
        return isinstance(value, bool)
    if name == 'nms':
        return isinstance(value, Nms)
    if name == 'classes':
        return _are(value, str) and len(value) > 0
    if name in ('mean', 'std') or (name == 'pad_value' and isinstance(value, tuple)):
        return (_are(value, int | float) and len(value) == 3 and all(map(_is_level, value))
                and (name != 'std' or all(value)))
    if name in ('input_size', 'resize_to'):
        return _are(value, int) and len(value) == 2 and all(
            0 < side <= _LARGEST_SIDE for side in value)
    if name == 'size_divisor':
        return _is(value, int) and 0 < value <= _LARGEST_SIDE
    if name == 'batch':
        return _is(value, int) and 0 <= value <= _LARGEST_BATCH
    return isinstance(value, str) if name == 'mmkd_version' else _is_level(value)


def _are(values: Any, kind: Any) -> bool:
    return isinstance(values, tuple) and all(_is(value, kind) for value in values)


def _is(value: Any, kind: Any) -> bool:
    return isinstance(value, kind) and not isinstance(value, bool)


def _is_level(value: Any) -> bool:
    return _is(value, int | float) and abs(value) <= _LARGEST_LEVEL  # nor NaN
