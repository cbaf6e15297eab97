"""The images of a folder, without labels."""

import os
from collections.abc import Mapping, Sequence
from typing import Any

from mmengine.dataset import BaseDataset

from mmkd.deploy.device.sources import IMAGE_SUFFIXES
from mmkd.distillation.unlabelled import SKIPPED
from mmkd.errors import UserError
from mmkd.registry import DATASETS

__all__ = ['UnlabelledImages', 'images_below']


@DATASETS.register_module()
class UnlabelledImages(BaseDataset):
    """The images in a folder and in those below it; hidden ones are left out.

    To the pipeline they are images without objects. One that cannot be read is skipped: the next
    one that can takes its place, and the sample says so in its metainfo, see
    :data:`mmkd.distillation.unlabelled.SKIPPED`.

    Args:
        data_root: the folder.
        pipeline: that of the training data; its first step loads by :class:`LoadImage`.
        metainfo: of the training data, whose classes are those of the student.

    Raises:
        UserError: there is no such folder, or no image in it; later, none of them can be read.
    """

    def __init__(self, data_root: str, pipeline: Sequence[Mapping[str, Any]],
                 metainfo: Mapping[str, Any] | None = None) -> None:
        super().__init__(data_root=data_root, data_prefix={}, pipeline=list(pipeline),
                         metainfo=metainfo and dict(metainfo))

    def load_data_list(self) -> list[dict]:
        """Return one dict per image: its number, its path, and that it has no objects."""
        images = images_below(self.data_root)
        return [dict(img_id=number, img_path=path, instances=[])
                for number, path in enumerate(images)]

    def prepare_data(self, idx: int) -> Any:
        """Return an image, or the next that can be read, as the pipeline makes it."""
        if idx >= len(self):
            raise IndexError(idx)
        skipped: dict[str, str] = {}
        for number in range(idx, idx + len(self)):
            info = self.get_data_info(number % len(self))
            path = info['img_path']
            try:
                sample = self._transformed(info)
            except _UnreadableError as error:
                skipped[path] = str(error)
                continue
            if skipped:
                sample['data_samples'].set_metainfo({SKIPPED: skipped})
            return sample
        raise UserError(f"none of the {len(self)} images in '{self.data_root}' can be read: "
                        f'{next(iter(skipped.values()))}')

    def _transformed(self, results: dict) -> Any:
        for transform in self.pipeline.transforms:
            try:
                results = transform(results)
            except UserError as error:
                if 'img' in results:
                    raise
                raise _UnreadableError(str(error)) from error
            if results is None:
                raise UserError(
                    f'{type(transform).__name__} of the training pipeline makes nothing of an '
                    'image without labels (unlabelled): take it out of the pipeline, or let it '
                    'keep images without objects')
        return results


def images_below(root: str) -> list[str]:
    """Return the paths of the images in a folder and in those below it, sorted.

    Raises:
        UserError: there is no such folder, it cannot be read, or there is no image in it.
    """
    if not os.path.isdir(root):
        raise UserError(f"there is no folder '{root}' (unlabelled.data_root): correct the path")
    found = []
    try:
        for place, folders, names in os.walk(root, onerror=_raise):
            folders[:] = [name for name in folders if _is_visible(name)]
            found += [os.path.join(place, name) for name in names if _is_visible(name)
                      and name.lower().endswith(IMAGE_SUFFIXES)]
    except OSError as error:
        raise UserError(f"the folder '{error.filename}' cannot be read ({error.strerror}): change "
                        'its permissions') from error
    if not found:
        raise UserError(f"the folder '{root}' holds no image (unlabelled.data_root): name one with "
                        '.jpg, .png or other image files, at any depth')
    return sorted(found)


def _is_visible(name: str) -> bool:
    return not name.startswith('.') and name != '__MACOSX'


def _raise(error: OSError) -> None:
    raise error


class _UnreadableError(Exception):
    """An image file is damaged."""
