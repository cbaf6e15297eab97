"""Look at a folder of photographs and write a config that trains a detector or classifier on it.

    mmkd new data/mine
    mmkd new data/mine --classes cat,dog --out cats.py --show

Understood are VOC XML, COCO JSON, YOLO text, and a folder of images for each class. The photographs
and their annotations stay as they are; what is broken is named and left out.
"""

import argparse
import os
import statistics
from collections import Counter
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from mmkd.engine.cli import user_errors
from mmkd.errors import UserError
from mmkd.own_data.photos import Complaints, Found

if TYPE_CHECKING:  # imports torch
    from mmkd.own_data.config_text import Student

__all__ = ['main']

SHOWN = 16


def arguments(prog: str | None = None) -> argparse.ArgumentParser:
    """Return the parser of the command line."""
    parser = argparse.ArgumentParser(
        prog=prog, description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument('photos', help='the folder of photographs')
    parser.add_argument('--classes', metavar='A,B', help='learn these alone, in this order '
                        '(default: all that have an object)')
    parser.add_argument('--out', default='mine.py', help='the config (default: %(default)s)')
    parser.add_argument('--show', action='store_true',
                        help=f'write a picture of {SHOWN} images with their boxes or classes')
    return parser


def main(argv: list[str] | None = None, prog: str | None = None) -> None:
    """Parse the arguments, look at the folder, write the config and say what is next."""
    args = arguments(prog).parse_args(argv)
    with user_errors():
        classes = [name.strip() for name in args.classes.split(',')] if args.classes else None
        new(Path(args.photos), Path(args.out), classes, args.show)


def new(root: Path, out: Path, wanted: Sequence[str] | None = None, show: bool = False) -> None:
    """Do what ``mmkd new`` does, and print what it found.

    Args:
        root: the folder of photographs.
        out: the config to write; lists of the splits are written into ``<its name>_data`` beside.
        wanted: the classes to learn; None for all that have an object.
        show: whether to write a picture of some images, too.

    Raises:
        UserError: nothing can be made of the folder, or ``out`` is another's.
    """
    import mmkd.engine.hooks  # noqa: F401  (before anything of mmdet)
    from mmkd.own_data.check import check, settle_classes
    from mmkd.own_data.config_text import config_text, recommend
    from mmkd.own_data.folder import Folder
    from mmkd.own_data.layouts import recognise
    from mmkd.own_data.lists import write_lists
    from mmkd.own_data.splits import assign_splits

    folder, complaints = Folder.of(root), Complaints()
    lists = out.with_name(f'{out.stem}_data')
    _check_place(root, out)
    try:
        found = recognise(folder, complaints)
        print(f"{root}: {found.layout}; looking at {len(found.photos)} images ...", flush=True)
        check(found, root, complaints)
        classes = settle_classes(found, wanted, complaints)
        made = assign_splits(found, complaints)
        if not any(photo.boxes or photo.label for photo in found.photos if photo.split == 'train'):
            raise UserError('No training image has an object: look at the splits.')
    except OSError as error:
        raise UserError(f"'{error.filename}' cannot be read ({error.strerror}): change its "
                        'permissions, or take it out of the folder') from error
    except UserError:
        _print_complaints(complaints)
        raise
    _print_found(found, classes, made)
    _print_complaints(complaints)
    student = recommend(found)
    text = config_text(found, student, classes, root, out)
    is_new = _write_config(out, text, classes, lists)
    write_lists(found, root, lists, classes)
    print(f"written: {out}{'' if is_new else ' (was there and is kept)'}, and the lists of the "
          f"splits in {lists}; nothing in {root} was changed")
    if show:
        print(f'shown:   {_show(found, root, classes, lists / "sheet.png")}')
    _print_next(found.is_classified, out, student)


def _check_place(root: Path, out: Path) -> None:
    if out.suffix != '.py' or not out.stem.isidentifier():
        raise UserError(f"--out '{out}' is no name for a config: give one such as mine.py, of "
                        'letters, digits and _')
    if out.resolve().is_relative_to(root.resolve()):
        raise UserError(f"'{out}' would lie among the photographs of '{root}': name another place "
                        'with --out')
    if set('\'"\\{}\n') & set(str(out.resolve().parent)):
        raise UserError(f"the folder of '{out.resolve()}' has a quotation mark, backslash or brace "
                        'in its name, which a config cannot hold: name another place with --out')


def _print_found(found: Found, classes: Sequence[str], made: Sequence[str]) -> None:
    sizes = Counter(photo.size for photo in found.photos).most_common()
    shown = ', '.join(f'{width}x{height} ({count})' for (width, height), count in sizes[:4])
    print(f"images:  {len(found.photos)}; {shown}{', ...' if len(sizes) > 4 else ''}")
    counts = found.counts()
    what = 'classes' if found.is_classified else 'objects'
    print(f"{what}: {', '.join(f'{name} {counts[name]}' for name in classes)}")
    sides = sorted(_side(box.corners) for photo in found.photos for box in photo.boxes)
    if sides:
        print(f'sizes:   objects of {sides[0]:.0f} to {sides[-1]:.0f} px, half of them below '
              f'{statistics.median(sides):.0f} px (roots of their areas)')
    splits = Counter(photo.split for photo in found.photos)
    how = {split: 'made by the hash of the file names' if split in made else 'as they were'
           for split in splits}
    print('splits:  ' + '; '.join(
        ', '.join(f'{split} {splits[split]}' for split in ('train', 'val', 'test')
                  if how.get(split) == one) + f', {one}' for one in dict.fromkeys(how.values())))


def _side(corners: Sequence[float]) -> float:
    return ((corners[2] - corners[0]) * (corners[3] - corners[1])) ** 0.5


def _print_complaints(complaints: Complaints) -> None:
    for number, line in enumerate(complaints.lines()):
        print(f"{'wrong:   ' if number == 0 else '         '}{line}")


def _write_config(out: Path, text: str, classes: Sequence[str], lists: Path) -> bool:
    """Write a config, or keep one for the same classes, which may have been edited since."""
    from mmkd.engine.config import load_config
    from mmkd.files import written_atomically

    if out.exists():
        if tuple(load_config(out).get('classes') or ()) != tuple(classes):
            raise UserError(f"'{out}' exists and is not for the classes {', '.join(classes)}: name "
                            'another file with --out, or move it away')
        return False
    if lists.exists():
        raise UserError(f"the folder '{lists}' exists and '{out}' does not: name another file with "
                        '--out, or move the folder away')
    with written_atomically(out) as temporary:  # before the lists: what is there is then ours
        temporary.write_text(text, encoding='utf-8')
    return True


def _show(found: Found, root: Path, classes: Sequence[str], out: Path) -> Path:
    from mmkd.images import load_image
    from mmkd.visualization.sheet import labelled, spread, write_sheet

    pictures = []
    for i in spread(len(found.photos), SHOWN):
        photo = found.photos[i]
        names = [photo.label] if found.is_classified else [box.name for box in photo.boxes]
        boxes = None if found.is_classified else [box.corners for box in photo.boxes]
        pictures.append(labelled(load_image(root / photo.path), [classes.index(n) for n in names],
                                 classes, boxes))
    write_sheet(pictures, out)
    return out


def _print_next(is_classified: bool, out: Path, student: 'Student') -> None:
    config, name = os.path.relpath(out), out.stem
    train = f'mmkd train {config}'
    print(f'next:    mmkd browse {config}   # the images as the network sees them')
    if is_classified:
        print(f'         {train}   # the student alone\n'
              f'         {train} --student {student.teacher}   # a teacher\n'
              f'         {train} --teacher {student.teacher} --method kd   # distil\n'
              f'         mmkd test work_dirs/{name}/ce_{student.why}')
        return
    teacher = f'{out.with_suffix("")}_teacher'
    print(f'         {train}   # the student alone\n'
          f'         mmkd test work_dirs/{name}\n'
          f'         {train} --dump {teacher}.py --cfg-options {student.teacher}\n'
          f'         mmkd train {teacher}.py   # a teacher\n'
          f'         {train} --teacher work_dirs/{Path(teacher).name} '
          f'--work-dir work_dirs/{name}_distilled')
