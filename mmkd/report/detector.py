"""Panels of a detector: how well, what for what, and what it looks like."""

import tempfile
from collections.abc import Mapping, Sequence
from pathlib import Path

import numpy as np
import torch
import torch.nn.functional as F
from mmengine.dataset import BaseDataset, Compose, pseudo_collate
from mmengine.registry import DefaultScope
from torch import Tensor, nn

from mmkd.engine.config import load_config
from mmkd.engine.run_folder import CONFIG
from mmkd.errors import UserError
from mmkd.evaluation import VOCMeanAPMetric, mean_average_precision, voc_average_precision
from mmkd.evaluation.voc_map import Detections, Objects
from mmkd.images import read_image
from mmkd.registry import DATASETS
from mmkd.report.panels import Figure, Panel
from mmkd.report.pictures import data_uri
from mmkd.report.plots import class_colours, confusion, drawing, lines, svg
from mmkd.report.runs import Run
from mmkd.visualization import Column, draw_comparison

__all__ = ['class_confusion', 'heatmaps', 'pictures', 'quality']

MOST_IMAGES = 300
BATCH = 8
SCORE, IOU = 0.3, 0.5
PICTURES, HEATMAPS = 5, 3
MOST_CURVES = 10

Found = list[tuple[Detections, Objects]]


def quality(runs: Sequence[Run], made: Panel) -> None:
    """Draw precision against recall for each class, and what was taken for what."""
    for run in runs:
        found, classes = predictions(run)
        detections, objects = zip(*found, strict=True)
        results = voc_average_precision(detections, objects, len(classes))
        mean = mean_average_precision([one.ap_area for one in results])
        before = f'{run.name}: ' if len(runs) > 1 else ''
        made.sentences.append(
            f'{before}{run.weights.name} on {len(found)} validation images: mean average '
            f'precision {mean:.4f} (area under the curve, IoU {IOU}).')
        kept = [i for i, one in enumerate(results) if one.num_objects][:MOST_CURVES]
        names = {f'{classes[i]} ({results[i].ap_area:.2f})': results[i] for i in kept}
        colours = dict(zip(names, class_colours(len(names)), strict=True))
        made.figures.append(Figure(
            f'{before}precision against recall, by class (AP)',
            lines({name: (one.recall, one.precision) for name, one in names.items()}, colours,
                  'recall', 'precision', legend=True)))
        made.figures.append(Figure(
            f'{before}what was taken for what (score at least {SCORE}, IoU at least {IOU})',
            confusion(class_confusion(found, len(classes)), [*classes, 'nothing'],
                      [*classes, 'missed'])))


@torch.no_grad()
def predictions(run: Run) -> tuple[Found, tuple[str, ...]]:
    """Return what the student finds in its validation images, and what there is, and the classes.

    Of more than 300 images those evenly spaced.
    """
    dataset = DATASETS.build(run.validation_loader()['dataset'])
    metric = VOCMeanAPMetric()
    metric.dataset_meta = dataset.metainfo
    chosen = evenly(len(dataset), MOST_IMAGES)
    for start in range(0, len(chosen), BATCH):
        batch = pseudo_collate([dataset[i] for i in chosen[start:start + BATCH]])
        metric.process(batch, [one.to_dict() for one in run.model.test_step(batch)])
    return metric.results, tuple(dataset.metainfo['classes'])


def evenly(length: int, most: int) -> list[int]:
    """Return ``most`` numbers below ``length``, evenly spaced, or all if there are fewer."""
    count = min(length, most)
    return [length * (2 * i + 1) // (2 * count) for i in range(count)]


def class_confusion(found: Found, classes: int) -> np.ndarray:
    """Count how often an object of a class (row) was taken for one of a class (column).

    An object belongs to the detection of a score of at least 0.3 that overlaps it most, whatever
    the class, by an IoU of at least 0.5; pairs of a larger overlap come first. The last row counts
    detections without an object, the last column objects without a detection. What overlaps a
    `difficult` object is left out.

    Returns:
        ``(classes + 1, classes + 1)``.
    """
    from mmdet.structures.bbox import bbox_overlaps

    counts = np.zeros((classes + 1, classes + 1))
    for detections, objects in found:
        sure = detections.scores >= SCORE
        boxes, labels = detections.boxes[sure], detections.labels[sure]
        overlaps = bbox_overlaps(torch.as_tensor(objects.boxes).float().reshape(-1, 4),
                                 torch.as_tensor(boxes).float().reshape(-1, 4)).numpy()
        free_objects, free = set(range(len(objects.labels))), set(range(len(labels)))
        for flat in np.argsort(-overlaps, axis=None, kind='stable'):
            i, j = divmod(int(flat), overlaps.shape[1])
            if overlaps[i, j] < IOU:
                break
            if i in free_objects and j in free:
                free_objects.discard(i)
                free.discard(j)
                if not objects.difficult[i]:
                    counts[objects.labels[i], labels[j]] += 1
        for i in free_objects:
            counts[objects.labels[i], -1] += not objects.difficult[i]
        for j in free:
            counts[-1, labels[j]] += 1
    return counts


def pictures(runs: Sequence[Run], made: Panel) -> None:
    """Draw a few validation images: labels, each student, each teacher that fits."""
    columns = [Column('student now' if len(runs) == 1 else run.name, run.folder / CONFIG,
                      run.weights) for run in runs]
    teachers = [Column(f'teacher {name}', entry['config'], entry['checkpoint'])
                for run in runs[:1] for name, entry in run.teachers.items() if 'config' in entry]
    with tempfile.TemporaryDirectory() as folder:
        out = Path(folder, 'comparison.jpg')
        try:
            draw_comparison([*columns, *teachers], out, PICTURES, split='val')
        except UserError as error:
            if not teachers:
                raise
            made.sentences.append(f'The teachers are left out: {error}.')
            draw_comparison(columns, out, PICTURES, split='val')
        made.figures.append(Figure(
            f'{PICTURES} validation images, evenly spaced; boxes of a score of at least {SCORE}',
            data_uri(out), wide=True))
    made.sentences.append('The student before its training is not drawn: its weights are not '
                          'kept, and random ones find nothing.')


def heatmaps(runs: Sequence[Run], made: Panel) -> None:
    """Draw the highest class score of each cell: student, teachers, and the difference."""
    for run in runs:
        dataset = DATASETS.build(run.validation_loader()['dataset'])
        networks: dict[str, tuple[nn.Module, Mapping]] = {'student': (run.model, run.cfg)}
        for name, entry in run.teachers.items():
            try:
                if 'config' in entry:
                    networks[name] = run.teacher(name), load_config(entry['config'])
            except UserError as error:
                made.sentences.append(f"Teacher '{name}' is left out: {error}.")
        before = f'{run.name}: ' if len(runs) > 1 else ''
        taught = len(networks) > 1
        made.figures.append(Figure(
            f'{before}the highest class score of each cell, 0 to 1' + (
                '; differences: red where the teacher is surer, blue where the student is'
                if taught else ''), _heat_figure(networks, dataset), wide=taught))


def _heat_figure(networks: Mapping[str, tuple[nn.Module, Mapping]], dataset: BaseDataset) -> str:
    chosen = evenly(len(dataset), HEATMAPS)
    width = 2 * len(networks)
    with drawing(1.7 * width, 1.75 * len(chosen)) as figure:
        grid = figure.subplots(len(chosen), width, squeeze=False)
        for axes in grid.flat:
            axes.set_axis_off()
        for row, index in zip(grid, chosen, strict=True):
            info = dataset.get_data_info(index)
            maps = {name: _scores(*pair, info) for name, pair in networks.items()}
            own = maps['student']
            row[0].imshow(read_image(info['img_path'])[..., ::-1])
            row[1].imshow(own, vmin=0, vmax=1, cmap='viridis')
            titles = ['image', 'student']
            for i, (name, other) in enumerate(list(maps.items())[1:]):
                row[2 + 2 * i].imshow(other, vmin=0, vmax=1, cmap='viridis')
                row[3 + 2 * i].imshow(_resized(other, own.shape) - own, vmin=-1, vmax=1,
                                      cmap='coolwarm')
                titles += [name, f'{name} - student']
            for axes, title in zip(row, titles, strict=True):
                axes.set_title(title)
        return svg(figure)


@torch.no_grad()
def _scores(model: nn.Module, cfg: Mapping, info: dict) -> np.ndarray:
    """Return the highest class score of each cell of the finest level, without the padding."""
    with DefaultScope.overwrite_default_scope(cfg.get('default_scope', 'mmkd')):
        prepare = Compose((cfg.get('val_dataloader') or cfg['test_dataloader'])['dataset'][
            'pipeline'])
        data = model.data_preprocessor(pseudo_collate([prepare(info)]), False)
    if not hasattr(model, 'bbox_head'):
        raise UserError(f'{type(model).__name__} has no dense head whose cells have scores')
    outputs = model(data['inputs'], data['data_samples'], mode='tensor')
    levels = outputs[0] if isinstance(outputs, tuple) else None
    levels = levels if isinstance(levels, list | tuple) else [levels]
    if not all(isinstance(level, Tensor) and level.dim() == 4 for level in levels):
        raise UserError(f'{type(model.bbox_head).__name__} does not give a score for each cell')
    if not hasattr(model.bbox_head, 'loss_center_heatmap'):  # CenterNet's are scores already
        if not getattr(model.bbox_head, 'use_sigmoid_cls', False):
            raise UserError(f'the scores of {type(model.bbox_head).__name__} are no sigmoids')
        levels = [level.sigmoid() for level in levels]
    finest = max((level.shape[-2:] for level in levels), key=lambda size: size[0])
    best = torch.stack([F.interpolate(level.float().amax(1, keepdim=True), finest)
                        for level in levels]).amax(0)[0, 0]
    height, width = data['data_samples'][0].img_shape[:2]
    padded = data['inputs'].shape[-2:]
    return best[:max(1, round(height / padded[0] * finest[0])),
                :max(1, round(width / padded[1] * finest[1]))].cpu().numpy()


def _resized(values: np.ndarray, size: tuple[int, int]) -> np.ndarray:
    return F.interpolate(torch.as_tensor(values)[None, None], size, mode='bilinear',
                         align_corners=False)[0, 0].numpy()
