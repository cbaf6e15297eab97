"""Data sets in PASCAL VOC layout, whatever their classes."""

import logging
import os.path as osp
from collections import Counter
from dataclasses import dataclass, field
from typing import Any

from mmdet.datasets import VOCDataset
from mmengine.logging import print_log

from mmkd.detection.data.annotation import VOCObject, find_images, read_annotation, read_split
from mmkd.errors import UserError, did_you_mean
from mmkd.images import read_image
from mmkd.registry import DATASETS

__all__ = ['SkippedObjects', 'VOCLayoutDataset']


@dataclass
class SkippedObjects:
    """What a split holds that cannot be learnt: objects per class and the first file with one."""

    empty_boxes: Counter = field(default_factory=Counter)
    unknown_classes: Counter = field(default_factory=Counter)
    first_file: str = ''

    def __str__(self) -> str:
        parts = [f'{counts.total()} {what} ({", ".join(f"{k} {n}" for k, n in counts.items())})'
                 for what, counts in (('boxes of zero or negative size', self.empty_boxes),
                                      ('objects of unknown classes', self.unknown_classes))
                 if counts]
        return f'{" and ".join(parts)}, first in {self.first_file}'


@DATASETS.register_module()
class VOCLayoutDataset(VOCDataset):
    """MMDetection's ``VOCDataset`` for any classes, with errors that say what to mend.

    A folder (``data_root`` joined with ``data_prefix['sub_data_root']``, by default ``data_root``
    itself) holds ``JPEGImages`` (.jpg, .jpeg or .png) and ``Annotations``; ``ann_file`` lists
    the image names of a split. The classes are ``metainfo['classes']``, by default VOC's 20.
    Files must be local.

    Boxes are (x1, y1, x2, y2) in pixels as MMDetection counts them: VOC's 1-based corners minus 1,
    clipped to the image, so that x2 and y2 are the last pixel. ``difficult`` objects have
    ``ignore_flag=1``. Objects of an unknown class or with a box of no size are left out and counted
    in :attr:`skipped`; in training one warning sums them up.

    Raises:
        UserError: If the split file is missing or empty, a file that it names is missing, an
            annotation is not valid, or no object of a training split has a known class.
    """

    def __init__(self, **kwargs: Any) -> None:
        self.skipped = SkippedObjects()
        kwargs.setdefault('data_prefix', dict(sub_data_root=''))
        super().__init__(**kwargs)
        if tuple(self._metainfo['classes']) != self.METAINFO['classes']:
            # VOC's 20 colours mean nothing for other classes and may be too few.
            self._metainfo['palette'] = kwargs['metainfo'].get('palette', 'random')

    def load_data_list(self) -> list[dict]:
        """Return one dict per image: path, name, size in pixels and instances."""
        classes = self._metainfo['classes']
        if isinstance(classes, str):
            raise UserError(f"The classes of {self.ann_file} are the text '{classes}': write a "
                            f"tuple, classes=('{classes}', ).")
        self.cat2label = {name: label for label, name in enumerate(classes)}
        self.skipped = SkippedObjects()
        data_list = [self.parse_data_info(info) for info in self._find_files()]
        self._report_skipped(data_list)
        return data_list

    def _find_files(self) -> list[dict]:
        """Return img_id, img_path and xml_path of the split's images."""
        image_folder = osp.join(self.sub_data_root, self.img_subdir)
        images, files, missing = find_images(image_folder), [], []
        for img_id in read_split(self.ann_file):
            if img_id in images:
                xml_path = osp.join(self.sub_data_root, self.ann_subdir, f'{img_id}.xml')
                files.append(dict(img_id=img_id, xml_path=xml_path,
                                  img_path=osp.join(image_folder, images[img_id])))
            else:
                missing.append(osp.join(image_folder, f'{img_id}.jpg'))
        if missing:
            raise UserError(f'{len(missing)} images of {self.ann_file} do not exist as .jpg, .jpeg '
                            f"or .png, the first is {missing[0]}: 'mmkd check "
                            f"{self.sub_data_root}' lists them all.")
        return files

    def parse_data_info(self, img_info: dict) -> dict:
        """Read one annotation file.

        Args:
            img_info: ``img_id``, ``img_path`` and ``xml_path``.

        Returns:
            ``img_info`` with ``width``, ``height`` and ``instances``.
        """
        try:
            annotation = read_annotation(img_info['xml_path'])
        except FileNotFoundError as error:
            raise UserError(f'The annotation {img_info["xml_path"]} of {self.ann_file} does not '
                            f"exist: 'mmkd check {self.sub_data_root}' lists all "
                            'that are missing.') from error
        size = annotation.size or read_image(img_info['img_path']).shape[1::-1]
        instances = [self._instance(found, size, img_info['xml_path'])
                     for found in annotation.objects]
        return dict(img_info, width=size[0], height=size[1],
                    instances=[instance for instance in instances if instance])

    def _instance(self, found: VOCObject, size: tuple[int, int], path: str) -> dict | None:
        """Turn an object into an instance, or count it as skipped."""
        limits = (size[0] - 1, size[1] - 1) * 2
        box = [min(max(corner - 1, 0), limit)
               for corner, limit in zip(found.box, limits, strict=True)]
        if found.name not in self.cat2label:
            counter = self.skipped.unknown_classes
        elif box[2] <= box[0] or box[3] <= box[1]:
            counter = self.skipped.empty_boxes
        else:
            smallest = min(box[2] - box[0], box[3] - box[1])
            ignored = found.difficult or smallest < (self.bbox_min_size or 0)
            return dict(bbox=box, bbox_label=self.cat2label[found.name], ignore_flag=int(ignored))
        counter[found.name] += 1
        self.skipped.first_file = self.skipped.first_file or path
        return None

    def _report_skipped(self, data_list: list[dict]) -> None:
        if self.test_mode:
            return
        if not any(info['instances'] for info in data_list):
            skipped = self.skipped.unknown_classes + self.skipped.empty_boxes
            found = ', '.join(sorted(skipped)) or 'none'
            raise UserError(f'No object of {self.ann_file} has one of the classes '
                            f'{", ".join(self.cat2label)}: the classes in its files are {found}; '
                            "set metainfo=dict(classes=...) to the data set's own.")
        if self.skipped.first_file:
            print_log(f'{self.ann_file}: skipped {self.skipped}', logger='current',
                      level=logging.WARNING)
        found = {instance['bbox_label'] for info in data_list for instance in info['instances']}
        for name, label in self.cat2label.items():
            # A name that is misspelt has the objects of its true name left out.
            hint = did_you_mean(name, self.skipped.unknown_classes)
            if hint and label not in found:
                print_log(f"{self.ann_file}: no object of the class '{name}'.{hint}",
                          logger='current', level=logging.WARNING)
