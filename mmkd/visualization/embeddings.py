"""The embeddings of a student and its teachers as clouds of points."""

import importlib.util
import io
from collections.abc import Sequence
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import torch
from mmengine.config import Config
from mmengine.registry import DefaultScope
from mmengine.runner import Runner
from torch import Tensor, nn
from torch.utils.data import DataLoader, Dataset, Subset

from mmkd.checkpoints import load_weights
from mmkd.classification.data.memory import balanced_first
from mmkd.distillation.taps import TapRecorder
from mmkd.distillation.teachers import build_model
from mmkd.errors import UserError
from mmkd.files import write_atomically
from mmkd.registry import DATASETS

__all__ = ['Panel', 'choose_images', 'draw_clouds', 'draw_panels', 'embed', 'project',
           'visualize_embeddings']

TAP = 'backbone.embedding'
SUFFIXES = ('.jpg', '.pdf', '.png', '.svg')
FEWEST_IMAGES = 10
PERPLEXITY = 30


class Panel(NamedTuple):
    """One cloud of the picture."""

    title: str
    points: np.ndarray
    """``(N, 2)``."""


def visualize_embeddings(cfg: Config, checkpoint: str | Path, out: str | Path, classes: int = 10,
                         images: int = 1000, seed: int = 0) -> None:
    """Draw the t-SNE of the pooled embedding of a student and of each of its teachers.

    All panels show the same test images, coloured by class. A title has the network's name and
    its top-1 accuracy on these images, among all classes.

    Args:
        cfg: a classification config; its ``teachers`` are drawn beside the student.
        checkpoint: the student's.
        out: picture to write, jpg, pdf, png or svg.
        classes: how many classes to draw, the first ones.
        images: how many images to draw at most, spread evenly over these classes.
        seed: of t-SNE.

    Raises:
        UserError: matplotlib or scikit-learn is missing, a checkpoint does not serve, the config
            has no classifier or no test images of classes, or an argument is out of range.
    """
    _check_extra()
    if Path(out).suffix.lower() not in SUFFIXES:
        raise UserError(f"--out '{out}' is no picture: give a name that ends with one of "
                        f'{", ".join(SUFFIXES)}')
    if 'test_dataloader' not in cfg:
        raise UserError(f"config '{cfg.filename}' has no test images: define test_dataloader")
    with DefaultScope.overwrite_default_scope(cfg.get('default_scope', 'mmkd')):
        dataset = DATASETS.build(cfg.test_dataloader.dataset)
    chosen = choose_images(dataset, classes, images)
    loader = Runner.build_dataloader(dict(cfg.test_dataloader, dataset=chosen))
    panels = []
    for name, network in _networks(cfg, checkpoint).items():
        features, predicted, labels = embed(network, loader)
        top1 = 100 * (predicted == labels).double().mean().item()
        panels.append(Panel(f'{name}\ntop-1 {top1:.1f}', project(features, seed)))
    draw_panels(panels, labels, dataset.metainfo['classes'], out)


def _check_extra() -> None:
    for package, module in (('matplotlib', 'matplotlib'), ('scikit-learn', 'sklearn')):
        if importlib.util.find_spec(module) is None:
            raise UserError(f'{package} is missing, which the picture is made with: '
                            'pip install mmkd[vis]')


def _networks(cfg: Config, checkpoint: str | Path) -> dict[str, nn.Module]:
    """The student and its teachers, by what stands above their panels."""
    student = cfg.get('model', {}).get('backbone', {}).get('type', 'network')
    networks = {f'{student} (student)': _loaded(cfg, checkpoint)}
    for name, entry in (cfg.get('teachers') or {}).items():
        config = Config(dict(model=entry['model'])) if 'model' in entry else entry['config']
        networks[f'{name} (teacher)'] = _loaded(config, entry['checkpoint'])
    return networks


def _loaded(config: Config | str, checkpoint: str | Path) -> nn.Module:
    model = build_model(config)
    load_weights(model, checkpoint)
    return model.eval().to('cuda' if torch.cuda.is_available() else 'cpu')


def choose_images(dataset: Dataset, classes: int, images: int) -> Subset:
    """Take the first ``classes`` classes of a data set, and of them ``images`` images at most.

    Raises:
        UserError: the data set has no ``labels``, or too few images or classes are left.
    """
    labels = getattr(dataset, 'labels', None)
    if labels is None:
        raise UserError(f'{type(dataset).__name__} does not tell the classes of its images: give '
                        'a classification config')
    if classes < 1:
        raise UserError(f'--classes is {classes}: give a number above 0')
    of_these = (labels < classes).nonzero()[:, 0]
    if min(images, len(of_these)) < FEWEST_IMAGES:
        raise UserError(f'--images {images} and --classes {classes} leave '
                        f'{min(images, len(of_these))} images: t-SNE needs {FEWEST_IMAGES}, so '
                        'raise them')
    return Subset(dataset, of_these[balanced_first(labels[of_these], images)].tolist())


@torch.no_grad()
def embed(model: nn.Module, loader: DataLoader) -> tuple[Tensor, Tensor, Tensor]:
    """Run a classifier over a loader.

    Args:
        model: in eval mode.
        loader: of batches with one ``ClassificationSample`` each.

    Returns:
        embeddings ``(N, D)`` float32, predicted classes ``(N,)`` and labels ``(N,)``, on the CPU.

    Raises:
        UserError: the model has no ``backbone.embedding``.
    """
    recorder = TapRecorder(model, [TAP])
    found: list[tuple[Tensor, Tensor, Tensor]] = []
    for batch in loader:
        batch = model.data_preprocessor(batch, False)
        recorder.start()
        logits = model(batch['inputs'], mode='tensor')
        parts = recorder.take()[TAP].float(), logits.argmax(1), batch['data_samples'].labels
        found.append(tuple(part.cpu() for part in parts))
    features, predicted, labels = (torch.cat(parts) for parts in zip(*found, strict=True))
    return features, predicted, labels


def project(features: Tensor, seed: int) -> np.ndarray:
    """Lay ``(N, D)`` embeddings out in the plane by t-SNE, ``(N, 2)``.

    Perplexity 30, less for under 90 images; begins with the principal components.

    Source: L. van der Maaten, G. Hinton, Visualizing Data using t-SNE, JMLR 9, 2008.
    """
    from sklearn.manifold import TSNE

    tsne = TSNE(perplexity=min(PERPLEXITY, len(features) / 3), init='pca', random_state=seed)
    return tsne.fit_transform(features.numpy())


def draw_panels(panels: Sequence[Panel], labels: Tensor, classes: Sequence[str],
                out: str | Path) -> None:
    """Write one scatter plot per panel, side by side, as one picture.

    Args:
        panels: all of the same ``N`` images.
        labels: ``(N,)``, int64; the colour.
        classes: their names, for the legend.
        out: the file; its suffix is the format.

    Raises:
        UserError: the file cannot be written.
    """
    from matplotlib.figure import Figure

    figure = Figure(figsize=(4.5 * len(panels) + 1.5, 4.8), layout='constrained')
    draw_clouds(figure, panels, labels, classes)
    picture = io.BytesIO()
    figure.savefig(picture, format=Path(out).suffix[1:].lower(), dpi=150)
    try:
        write_atomically(out, picture.getvalue())
    except OSError as error:
        raise UserError(f"cannot write '{out}' ({error.strerror or error}): give --out a file in "
                        'a folder that can be written') from error


def draw_clouds(figure: Any, panels: Sequence[Panel], labels: Tensor, classes: Sequence[str]
                ) -> None:
    """Draw one scatter plot per panel into matplotlib's ``figure``; see :func:`draw_panels`."""
    import matplotlib

    shown = sorted(set(labels.tolist()))
    colours = matplotlib.colormaps['tab10' if len(shown) <= 10 else 'gist_rainbow'].resampled(
        max(10, len(shown)))
    for axes, panel in zip(figure.subplots(1, len(panels), squeeze=False)[0], panels, strict=True):
        for number, label in enumerate(shown):
            points = panel.points[(labels == label).numpy()]
            axes.scatter(*points.T, s=6, linewidths=0, color=colours(number), label=classes[label])
        axes.set(title=panel.title, xticks=[], yticks=[])
    if len(shown) <= 20:
        handles, names = figure.axes[0].get_legend_handles_labels()
        figure.legend(handles, names, loc='outside right upper', markerscale=3, frameon=False)
