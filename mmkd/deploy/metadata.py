"""What an exported model says about itself: class names and how to prepare an image."""

import json
from collections.abc import Mapping
from dataclasses import asdict, dataclass, fields

import cv2
import numpy as np

import mmkd
from mmkd.errors import UserError

__all__ = ['ModelMetadata']


@dataclass(frozen=True)
class ModelMetadata:
    """The entries of an exported model's ``metadata_props``, each a JSON value.

    Args:
        classes: Names of the categories, in the order of the labels.
        input_size: Height and width of the model's input in pixels.
        channel_order: 'RGB' or 'BGR', the order of the input's channels and of mean and std.
        mean: What is subtracted from each channel, 0 to 255.
        std: What each channel is divided by after that.
        resize_to: Longest side and shortest side of the box, in pixels, into which an image is
            scaled with its aspect ratio kept, bilinearly.
        resize_dtype: 'uint8' or 'float32', the type of the pixels that are scaled.
        pad_value: What fills the input to the right of and below the normalised image.
        mmkd_version: The mmkd that wrote the model.
    """

    classes: tuple[str, ...]
    input_size: tuple[int, int]
    channel_order: str
    mean: tuple[float, ...]
    std: tuple[float, ...]
    resize_to: tuple[int, int]
    resize_dtype: str = 'uint8'
    pad_value: float = 0.0
    mmkd_version: str = mmkd.__version__

    def to_props(self) -> dict[str, str]:
        """Return the entries as ``{name: JSON}``."""
        return {name: json.dumps(value) for name, value in asdict(self).items()}

    @classmethod
    def from_props(cls, props: Mapping[str, str], path: str) -> 'ModelMetadata':
        """Read the entries of the model file at ``path``.

        Raises:
            UserError: If an entry is missing or not what mmkd writes.
        """
        values = {}
        for field in fields(cls):
            try:
                value = json.loads(props[field.name])
            except (KeyError, ValueError) as error:
                raise UserError(
                    f"model '{path}' has no valid '{field.name}' in its metadata, so it was not "
                    'exported by mmkd: export the checkpoint with tools/export.py') from error
            values[field.name] = tuple(value) if isinstance(value, list) else value
        return cls(**values)

    def prepare(self, image: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        """Scale, normalise and pad an image as MMDetection's test pipeline does.

        Args:
            image: ``(h, w, 3)`` uint8 in BGR order, as ``cv2.imread`` returns it.

        Returns:
            the model's input ``(3, H, W)`` float32, and the factors ``(fx, fy)`` float32 by
            which the image was scaled.

        Raises:
            UserError: If it is no such image, or so narrow that scaling leaves nothing of it.
        """
        if (not isinstance(image, np.ndarray) or image.dtype != np.uint8 or image.ndim != 3
                or image.shape[2] != 3 or image.size == 0):
            found = (f'{image.dtype} {image.shape}' if isinstance(image, np.ndarray)
                     else type(image).__name__)
            raise UserError(f'an image must be a uint8 array of shape (height, width, 3) in BGR '
                            f'order but this is {found}: read it with cv2.imread')
        height, width = image.shape[:2]
        factor = min(max(self.resize_to) / max(height, width),
                     min(self.resize_to) / min(height, width))
        # mmcv rounds half up.
        new_width, new_height = int(width * factor + 0.5), int(height * factor + 0.5)
        if not (new_width and new_height):
            raise UserError(f'an image of {width}x{height} pixels is too narrow to be scaled into '
                            f'{self.resize_to[0]}x{self.resize_to[1]}: crop it')
        pixels = cv2.resize(image.astype(self.resize_dtype), (new_width, new_height),
                            interpolation=cv2.INTER_LINEAR)
        if self.channel_order == 'RGB':
            pixels = pixels[..., ::-1]
        pixels = ((pixels.astype(np.float32) - np.asarray(self.mean, np.float32))
                  / np.asarray(self.std, np.float32))
        prepared = np.full((3, *self.input_size), self.pad_value, np.float32)
        prepared[:, :new_height, :new_width] = pixels.transpose(2, 0, 1)
        return prepared, np.asarray((new_width / width, new_height / height), np.float32)
