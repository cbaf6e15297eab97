"""What ``mmkd label`` does, from the teachers to the summary."""

import json
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
from mmengine.registry import DefaultScope
from tqdm import tqdm

from mmkd.engine.distil import teacher_entries
from mmkd.engine.progress import BAR
from mmkd.errors import UserError
from mmkd.evaluation.voc_map import Detections, Objects
from mmkd.files import written_atomically
from mmkd.label.folder import images_by_name, write_image, write_lists
from mmkd.label.teachers import Teacher, Teachers
from mmkd.label.threshold import best_threshold
from mmkd.registry import DATASETS
from mmkd.text_files import read_text

__all__ = ['label_folder']


def label_folder(folder: str, teachers: Sequence[str], out: str | None = None,
                 score_thr: float | None = None) -> None:
    """Write what teachers find in a folder of images as labels, and print a summary.

    Args:
        folder: images, at any depth.
        teachers: ``'CONFIG=CHECKPOINT'`` each, or the folder of a run.
        out: the folder to make; by default beside ``folder``, with ``_labelled`` behind its name.
        score_thr: boxes with a lower score are no labels; None to choose it on the validation
            images of the first teacher's config.

    Raises:
        UserError: folder or teachers cannot be used, or ``out`` was labelled by others.
    """
    source = Path(folder)
    target = Path(out) if out else source.absolute().with_name(f'{source.absolute().name}_labelled')
    if target.resolve().is_relative_to(source.resolve()):
        raise UserError(f"'{target}' lies in '{source}', whose images it would label: name "
                        'another --out')
    if score_thr is not None and not 0 <= score_thr <= 1:
        raise UserError(f'--score-thr is {score_thr}: give a number from 0 to 1')
    images = images_by_name(source)
    entries = teacher_entries(teachers)
    if any('config' not in entry for entry in entries.values()):
        raise UserError('a teacher is a backbone alone, which finds no objects: name detectors')
    members = [Teacher(**entry) for entry in entries.values()]
    asked = Teachers(members)
    said = _settings(target, asked, members[0], dict(
        teachers=[dict(one, bytes=Path(one['checkpoint']).stat().st_size,
                       changed=Path(one['checkpoint']).stat().st_mtime_ns)
                  for one in entries.values()], given=score_thr))
    skipped = []
    for name, path in tqdm(images.items(), desc='labelling', bar_format=BAR, disable=None):
        if not (target / 'Annotations' / f'{name}.xml').exists():
            try:
                found, size = asked(path)
            except UserError as error:
                skipped.append(str(error))
                continue
            write_image(target, name, path, size, _above(found, said['threshold']), asked.classes)
    counts = write_lists(target, images, asked.classes)
    for reason in skipped:
        print(f'skipped: {reason}', file=sys.stderr)
    _summary(target, len(images), len(skipped), counts, said)


def _settings(out: Path, asked: Teachers, first: Teacher, wanted: dict[str, Any]) -> dict[str, Any]:
    """Return what ``out`` is labelled by: as an earlier call wrote it down, or chosen now."""
    file = out / 'label.json'
    if file.exists():
        said = _read(file)
        if any(said.get(key) != value for key, value in wanted.items()):
            raise UserError(f"'{out}' holds labels of other teachers or of another --score-thr: "
                            'name another --out, or remove it')
        return said
    threshold, f1 = wanted['given'], None
    if threshold is None:
        threshold, f1 = _chosen(asked, first)
    said = dict(wanted, threshold=threshold, f1=f1)
    with written_atomically(file) as temporary:
        temporary.write_text(json.dumps(said, indent=1), encoding='utf-8')
    return said


def _read(file: Path) -> dict[str, Any]:
    try:
        said = json.loads(read_text(file, 'remove the folder and label anew'))
    except json.JSONDecodeError as error:
        raise UserError(f"'{file}' is damaged ({error}): remove the folder and label "
                        'anew') from error
    if not isinstance(said, dict) or not {'threshold', 'f1'} <= said.keys():
        raise UserError(f"'{file}' is not what `mmkd label` writes: name another --out")
    return said


def _chosen(asked: Teachers, first: Teacher) -> tuple[float, float]:
    """Choose a threshold on the validation images of a teacher's config."""
    described = (first.cfg.get('val_dataloader') or {}).get('dataset')
    if not described:
        raise UserError(f"'{first.cfg.filename}' has no validation images to choose a threshold "
                        'on: give --score-thr, such as 0.5')
    with DefaultScope.overwrite_default_scope(first.cfg.get('default_scope', 'mmkd')):
        dataset = DATASETS.build(described)
    numbers = {label: asked.classes.index(name) for label, name in
               enumerate(dataset.metainfo['classes']) if name in asked.classes}
    found, objects = [], []
    for index in tqdm(range(len(dataset)), desc='threshold', bar_format=BAR, disable=None):
        info = dataset.get_data_info(index)
        found.append(asked(info['img_path'])[0])
        there = [one for one in info['instances'] if one['bbox_label'] in numbers]
        objects.append(Objects(
            np.array([one['bbox'] for one in there], float).reshape(-1, 4),
            np.array([numbers[one['bbox_label']] for one in there], int),
            np.array([one.get('ignore_flag', 0) for one in there], bool)))
    threshold, f1 = best_threshold(found, objects, len(asked.classes))
    if f1 == 0:
        raise UserError('the teachers find no object of the validation images of '
                        f"'{first.cfg.filename}': give --score-thr, or other teachers")
    return threshold, f1


def _above(found: Detections, threshold: float) -> Detections:
    kept = found.scores >= threshold
    return Detections(found.boxes[kept], found.scores[kept], found.labels[kept])


def _summary(out: Path, images: int, skipped: int, counts: dict[str, int],
             said: dict[str, Any]) -> None:
    boxes = ', '.join(f'{name} {count}' for name, count in sorted(counts.items())) or 'none'
    chosen = '' if said['f1'] is None else f", with an F1 of {said['f1']:.3f} on validation images"
    print(f"{images - skipped} images labelled, {skipped} skipped: {out}\n"
          f'boxes: {boxes}\nthreshold: {said["threshold"]:g}{chosen}\n'
          f"next: name '{out}' beside the labelled data in a config (docs/unlabelled.md, "
          '"Pseudo-labels, or distillation?") and `mmkd train` it')
