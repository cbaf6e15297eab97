"""Panels of a classifier: what was taken for what, and where its embeddings lie."""

from collections.abc import Sequence

import numpy as np
import torch
from mmengine.runner import Runner
from torch.utils.data import Subset

from mmkd.classification.data.memory import balanced_first
from mmkd.errors import UserError
from mmkd.registry import DATASETS
from mmkd.report.panels import Figure, Panel
from mmkd.report.plots import confusion, drawing, svg
from mmkd.report.runs import Run
from mmkd.visualization.embeddings import Panel as Cloud
from mmkd.visualization.embeddings import draw_clouds, embed, project

__all__ = ['class_confusion', 'embeddings', 'quality']

MOST_IMAGES, MOST_POINTS, MOST_CLASSES = 2000, 1000, 10
FEWEST_POINTS = 10


def quality(runs: Sequence[Run], made: Panel) -> None:
    """Draw which class was taken for which."""
    for run in runs:
        loader, classes = _loader(run, MOST_IMAGES)
        _, predicted, labels = embed(run.model, loader)
        right = 100 * (predicted == labels).double().mean().item()
        before = f'{run.name}: ' if len(runs) > 1 else ''
        made.sentences.append(f'{before}{run.weights.name} on {len(labels)} validation images: '
                              f'top-1 {right:.2f} %.')
        made.figures.append(Figure(f'{before}which class was taken for which', confusion(
            class_confusion(labels, predicted, len(classes)), classes, classes)))


def class_confusion(labels: torch.Tensor, predicted: torch.Tensor, classes: int) -> np.ndarray:
    """Count how often an image of a class (row) was taken for one of a class (column)."""
    counts = np.zeros((classes, classes))
    np.add.at(counts, (labels.numpy(), predicted.numpy()), 1)
    return counts


def embeddings(runs: Sequence[Run], made: Panel) -> None:
    """Draw the embeddings of student and teachers by t-SNE."""
    for run in runs:
        loader, classes = _loader(run, MOST_POINTS, MOST_CLASSES)
        if len(loader.dataset) < FEWEST_POINTS:
            raise UserError(f'there are {len(loader.dataset)} validation images and t-SNE needs '
                            f'{FEWEST_POINTS}')
        clouds, labels = [], None
        for name in ('student', *run.teachers):
            try:
                network = run.model if name == 'student' else run.teacher(name)
            except UserError as error:
                made.sentences.append(f"Teacher '{name}' is left out: {error}.")
                continue
            features, predicted, labels = embed(network, loader)
            right = 100 * (predicted == labels).double().mean().item()
            if name != 'student':
                run.measured[name] = (f'top-1 {right:.2f} % on {len(labels)} validation images of '
                                      f'{len(set(labels.tolist()))} classes')
            clouds.append(Cloud(f'{name}\ntop-1 {right:.1f}', project(features, 0)))
        with drawing(3.6 * len(clouds) + 1.2, 3.9) as figure:
            draw_clouds(figure, clouds, labels, classes)
            before = f'{run.name}: ' if len(runs) > 1 else ''
            made.figures.append(Figure(
                f'{before}embeddings by t-SNE, {len(labels)} validation images, the same in each '
                'cloud', svg(figure), wide=True))


def _loader(run: Run, images: int, classes: int | None = None) -> tuple:
    """Return a loader of validation images, spread over their (first) classes, and all classes."""
    config = run.validation_loader()
    dataset = DATASETS.build(config['dataset'])
    of_these = (dataset.labels < (classes or len(dataset.metainfo['classes']))).nonzero()[:, 0]
    chosen = of_these[balanced_first(dataset.labels[of_these], images)].tolist()
    loader = Runner.build_dataloader(dict(config, dataset=Subset(dataset, chosen)))
    return loader, list(dataset.metainfo['classes'])
