"""Check, unpack and split data in PASCAL VOC layout."""

import hashlib
import os
import shutil
import tarfile
from collections import Counter
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from functools import cache
from pathlib import Path, PurePosixPath

from mmdet.datasets import VOCDataset

from mmkd.detection.data.annotation import (
    VOCAnnotation,
    find_images,
    read_annotation,
    read_split,
)
from mmkd.errors import UserError, did_you_mean
from mmkd.files import written_file, written_folder
from mmkd.images import load_image

__all__ = ['VOC_ARCHIVES', 'SplitReport', 'check_voc', 'extract_voc', 'split_voc']

_SPLITS = ('train', 'val', 'trainval', 'test')
_DEVKIT_SPLITS = {'VOC2007': ('trainval', 'test'), 'VOC2012': ('trainval', )}
_SITE = 'http://host.robots.ox.ac.uk/pascal/VOC'

# name: (URL, MD5)
VOC_ARCHIVES = {
    'VOCtrainval_06-Nov-2007.tar': (f'{_SITE}/voc2007/VOCtrainval_06-Nov-2007.tar',
                                    'c52e279531787c972589f7e41ab4ae64'),
    'VOCtest_06-Nov-2007.tar': (f'{_SITE}/voc2007/VOCtest_06-Nov-2007.tar',
                                'b6e924de25625d8de591ea690078ad9f'),
    'VOCtrainval_11-May-2012.tar': (f'{_SITE}/voc2012/VOCtrainval_11-May-2012.tar',
                                    '6cd6e144f989b92b3379bac3b3de84fd'),
}


@dataclass
class SplitReport:
    """What one split holds. ``problems`` stop a run; the other counts do not."""

    name: str
    images: int = 0
    objects: Counter = field(default_factory=Counter)
    difficult: int = 0
    empty_boxes: list[str] = field(default_factory=list)  # the file of each
    unknown_classes: Counter = field(default_factory=Counter)
    problems: list[str] = field(default_factory=list)

    def __str__(self) -> str:
        lines = [f'{self.name}: {self.images} images, {self.objects.total()} objects, '
                 f'{self.difficult} difficult']
        lines += [f'    {name}: {count}' for name, count in sorted(self.objects.items())]
        if self.unknown_classes:
            named = ', '.join(f'{name} {count}' for name, count in self.unknown_classes.items())
            lines.append(f'    skipped, unknown class: {named}')
        lines += _capped(self.empty_boxes, '    skipped, box of zero size: ')
        lines += _capped(self.problems, '    ERROR ')
        return '\n'.join(lines)


def check_voc(root: str | os.PathLike, classes: Sequence[str] | None = None) -> list[SplitReport]:
    """Look at every file that the splits of a VOC-layout folder or of a VOCdevkit name.

    Every image is decoded: some 200 photographs a second.

    Args:
        root: A folder with ``JPEGImages``, ``Annotations`` and ``ImageSets/Main``, or a devkit
            with ``VOC2007`` and ``VOC2012``.
        classes: The known classes; by default VOC's 20 in a devkit and all elsewhere.

    Raises:
        UserError: If ``root`` is no folder.
    """
    root = Path(root)
    if not root.is_dir():
        raise UserError(f'There is no folder {root}: name the one that holds JPEGImages, or the '
                        'VOCdevkit.')
    if root.name == 'VOCdevkit' or any((root / year).is_dir() for year in _DEVKIT_SPLITS):
        known = classes or VOCDataset.METAINFO['classes']
        return [_with_absent(report, classes) for year, splits in _DEVKIT_SPLITS.items()
                for report in _check_folder(root / year, splits, known)]
    splits = [split for split in _SPLITS if _split_file(root, split).is_file()]
    # Nothing can be trained without a training split: let its absence be reported.
    if 'trainval' not in splits and 'train' not in splits:
        splits.insert(0, 'train')
    return [_with_absent(report, classes) for report in _check_folder(root, splits, classes)]


def _with_absent(report: SplitReport, classes: Sequence[str] | None) -> SplitReport:
    """Complain of classes that were asked for and of which a training split has no object."""
    if report.objects and report.name.endswith(('train', 'trainval')):
        report.problems += [
            f"no object of the class '{name}'.{did_you_mean(name, report.unknown_classes)}"
            for name in classes or () if name not in report.objects]
    return report


def extract_voc(archives: str | os.PathLike, out: str | os.PathLike) -> list[Path]:
    """Unpack the official VOC2007 and VOC2012 archives, each checked against its MD5.

    Only plain files are written, all of them below ``out``.

    Args:
        archives: Folder with the archives of :data:`VOC_ARCHIVES`.
        out: The VOCdevkit folder to make; ``VOC2007`` and ``VOC2012`` are put in it.

    Returns:
        The archives that were unpacked.

    Raises:
        UserError: If an archive is damaged (before anything is written), or, once the others
            are unpacked, if one is missing.
    """
    archives, out = Path(archives), Path(out)
    found = [archives / name for name in VOC_ARCHIVES if (archives / name).is_file()]
    for path in found:
        url, md5 = VOC_ARCHIVES[path.name]
        if _md5(path) != md5:
            raise UserError(f'{path} is damaged (its MD5 is not {md5}): fetch it again from {url}.')
    for path in found:
        _extract(path, out)
    missing = [url for name, (url, _) in VOC_ARCHIVES.items() if archives / name not in found]
    if missing:
        raise UserError(f'{len(missing)} of {len(VOC_ARCHIVES)} VOC archives are missing in '
                        f'{archives}: fetch {", ".join(missing)}.')
    return found


def split_voc(root: str | os.PathLike, val: float, test: float, seed: int = 0) -> dict[str, int]:
    """Write ``ImageSets/Main`` for data that has none.

    Images without an annotation file are left out. An image's place depends on its name and the
    seed, not on the platform. A split with share 0 is not written; others get at least one image.

    Args:
        root: Folder with ``JPEGImages`` and ``Annotations``.
        val: Share of the images for validation, in [0, 1).
        test: Share of the images for testing, in [0, 1).
        seed: Another seed gives another split.

    Returns:
        The number of images in each split that was written.

    Raises:
        UserError: If a share is impossible, lists exist already, or there are too few images.
    """
    root = Path(root)
    if not (val >= 0 and test >= 0 and val + test < 1):  # so that NaN fails, too
        raise UserError(f'The shares val={val} and test={test} leave nothing to train on or are '
                        'negative: give two from 0 that sum to less than 1.')
    lists = root / 'ImageSets' / 'Main'
    if lists.is_dir() and any(lists.iterdir()):
        raise UserError(f'{lists} has files already and they are not overwritten: move them away.')
    names = [name for name in find_images(root / 'JPEGImages')
             if (root / 'Annotations' / f'{name}.xml').is_file()]
    names.sort(key=lambda name: hashlib.sha256(f'{seed}:{name}'.encode()).digest())
    n_val, n_test = (max(1, round(share * len(names))) if share else 0 for share in (val, test))
    parts = dict(train=names[n_val + n_test:], val=names[:n_val],
                 trainval=names[n_val + n_test:] + names[:n_val],
                 test=names[n_val:n_val + n_test])
    if not parts['train']:
        images, files = len(find_images(root / 'JPEGImages')), len(list(root.rglob('*.xml')))
        raise UserError(f"{root} has {len(names)} images with both a JPEGImages and an Annotations "
                        f"file ({images} in JPEGImages, {files} .xml in all): too few to split; "
                        f"for other layouts there is 'mmkd new {root}'.")
    written = {split: sorted(members) for split, members in parts.items() if members}
    with written_folder(lists) as part:  # a kill leaves either no lists or all of them
        for split, members in written.items():
            (part / f'{split}.txt').write_text('\n'.join(members) + '\n', encoding='utf-8')
    return {split: len(members) for split, members in written.items()}


def _split_file(folder: Path, split: str) -> Path:
    return folder / 'ImageSets' / 'Main' / f'{split}.txt'


def _check_folder(folder: Path, splits: Sequence[str],
                  classes: Sequence[str] | None) -> list[SplitReport]:
    images = find_images(folder / 'JPEGImages')

    @cache  # trainval names the files of train and val again
    def read(name: str) -> tuple[str | None, VOCAnnotation | str]:
        file = images.get(name)
        return (_image_problem(folder / 'JPEGImages' / (file or f'{name}.jpg'), file is None),
                _try_annotation(folder / 'Annotations' / f'{name}.xml'))

    return [_check_split(folder, split, classes, read) for split in splits]


def _check_split(folder: Path, split: str, classes: Sequence[str] | None,
                 read: Callable[[str], tuple[str | None, VOCAnnotation | str]]) -> SplitReport:
    report = SplitReport(f'{folder} {split}')
    try:
        names = read_split(_split_file(folder, split))
    except UserError as error:
        report.problems.append(str(error))
        return report
    report.images = len(names)
    repeated = [name for name, count in Counter(names).items() if count > 1]
    report.problems += [f'listed more than once: {name}' for name in repeated]
    for name in names:
        image_problem, annotation = read(name)
        if image_problem is not None:
            report.problems.append(image_problem)
        if isinstance(annotation, str):
            report.problems.append(annotation)
            continue
        _count_objects(report, annotation, folder / 'Annotations' / f'{name}.xml', classes)
    if not report.objects:
        found = ', '.join(report.unknown_classes)
        hint = did_you_mean(found.split(', ')[0], classes or ())
        report.problems.append(f'no object of a known class (found: {found or "none"}).{hint}')
    return report


def _image_problem(path: Path, is_missing: bool) -> str | None:
    if is_missing:
        return f'missing image: {path}'
    try:
        load_image(path)
    except UserError as error:
        return str(error)
    return None


def _try_annotation(path: Path) -> VOCAnnotation | str:
    try:
        return read_annotation(path)
    except FileNotFoundError:
        return f'missing annotation: {path}'
    except UserError as error:
        return str(error)


def _count_objects(report: SplitReport, annotation: VOCAnnotation, path: Path,
                   classes: Sequence[str] | None) -> None:
    for found in annotation.objects:
        if classes is not None and found.name not in classes:
            report.unknown_classes[found.name] += 1
        elif found.is_reversed:
            report.problems.append(f'box with swapped corners: {found.name} {found.box} in {path}, '
                                   'written as (xmin, ymin, xmax, ymax); training leaves it out')
        elif found.is_empty:
            report.empty_boxes.append(f'{found.name} in {path}')
        else:
            report.objects[found.name] += 1
            report.difficult += found.difficult


def _capped(items: list[str], prefix: str, most: int = 20) -> list[str]:
    """One line for each of the first ``most`` items, and one that counts the rest."""
    lines = [f'{prefix}{item}' for item in items[:most]]
    if len(items) > most:
        lines.append(f'{prefix}... and {len(items) - most} more')
    return lines


def _md5(path: Path) -> str:
    digest = hashlib.md5(usedforsecurity=False)
    with path.open('rb') as file:
        while block := file.read(1 << 20):
            digest.update(block)
    return digest.hexdigest()


def _extract(archive: Path, out: Path) -> None:
    """Unpack an archive of ``VOCdevkit/...`` without that first folder.

    Written file by file because Python 3.10.0 to 3.10.11 lack tarfile's safe filter.
    """
    with tarfile.open(archive) as tar:
        for member in tar:
            parts = PurePosixPath(member.name).parts
            if not member.isfile() or parts[0] != 'VOCdevkit' or '..' in parts:
                continue
            target = out.joinpath(*parts[1:])
            with tar.extractfile(member) as source, written_file(target) as file:
                shutil.copyfileobj(source, file)
