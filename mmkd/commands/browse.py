"""Show training images as the network sees them, with their boxes or classes.

    mmkd browse mine.py
    mmkd browse configs/centernet_mt_r18.py --out sheet.png --number 32

They are augmented and padded as in training, and brought back from their normalisation to colours.
"""

import argparse
from collections.abc import Iterator
from itertools import islice
from pathlib import Path
from typing import Any

import numpy as np

from mmkd.engine.cli import user_errors
from mmkd.errors import UserError

__all__ = ['main']


def arguments(prog: str | None = None) -> argparse.ArgumentParser:
    """Return the parser of the command line."""
    parser = argparse.ArgumentParser(
        prog=prog, description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument('config', help='a config of a training')
    parser.add_argument('--out', help='the picture, .png or .jpg (default: <config>_train.png)')
    parser.add_argument('--number', type=int, default=16, help='images (default: %(default)s)')
    return parser


def main(argv: list[str] | None = None, prog: str | None = None) -> None:
    """Parse the arguments, write the picture and print where it is."""
    args = arguments(prog).parse_args(argv)
    with user_errors():
        if args.number < 1:
            raise UserError(f'--number is {args.number}: give 1 or more')
        out = args.out or f'{Path(args.config.rpartition("::")[2]).stem}_train.png'
        print(f'{browse(args.config, out, args.number)} training images: {out}')


def browse(config: str, out: str | Path, number: int = 16) -> int:
    """Write a contact sheet of the training images of a config.

    Args:
        config: a config of a detector or a classifier.
        out: the picture, ``.png`` or ``.jpg``.
        number: of images.

    Returns:
        how many were drawn: fewer if the training set has fewer.

    Raises:
        UserError: the config cannot be used, the data is broken, or the picture cannot be written.
    """
    import mmkd.engine.hooks  # noqa: F401  (before anything of mmdet)
    from mmkd.engine.config import load_config, validate_config
    from mmkd.visualization.sheet import write_sheet

    cfg = load_config(config)
    if not cfg.get('train_dataloader'):
        raise UserError(f"config '{config}' has no train_dataloader: name one of a training")
    validate_config(cfg)
    pictures = list(islice(_pictures(cfg), number))
    write_sheet(pictures, out)
    return len(pictures)


def _pictures(cfg: Any) -> Iterator[np.ndarray]:
    """Yield the training images of an epoch, in a random order that is always the same."""
    from mmengine.registry import DefaultScope
    from mmengine.runner import Runner, set_random_seed

    from mmkd.registry import MODELS

    loader = cfg.train_dataloader.to_dict() | dict(num_workers=0, persistent_workers=False)
    loader.pop('prefetch_factor', None)
    set_random_seed(0)
    with DefaultScope.overwrite_default_scope(cfg.get('default_scope', 'mmkd')):
        batches = Runner.build_dataloader(loader, seed=0)
        preprocess = MODELS.build(cfg.model.data_preprocessor)
        classes = batches.dataset.metainfo['classes']
        for batch in batches:
            seen = preprocess(batch, training=True)
            images = _uint8(preprocess, seen['inputs'])
            yield from _labelled(images, seen['data_samples'], classes)


def _uint8(preprocess: Any, inputs: Any) -> np.ndarray:
    """Return normalised images, ``(B, 3, h, w)``, as they were: ``(B, h, w, 3)`` in BGR order."""
    inputs = inputs.flatten(0, -4).cpu()  # several views of each, in self-distillation
    if getattr(preprocess, '_enable_normalize', True):
        inputs = inputs * preprocess.std.cpu() + preprocess.mean.cpu()
    images = inputs.round().clip(0, 255).byte().permute(0, 2, 3, 1).numpy()
    # Classifiers' images are RGB from the beginning, detectors' where the preprocessor turns them.
    is_bgr = hasattr(preprocess, '_channel_conversion') and not (
        preprocess._channel_conversion or type(preprocess).__name__ == 'BatchPreprocessor')
    return np.ascontiguousarray(images if is_bgr else images[..., ::-1])


def _labelled(images: np.ndarray, samples: Any, classes: Any) -> Iterator[np.ndarray]:
    from mmdet.structures.bbox import get_box_tensor

    from mmkd.visualization.sheet import labelled

    if isinstance(samples, list):
        for image, sample in zip(images, samples, strict=True):
            found = sample.gt_instances
            yield labelled(image, found.labels.tolist(), classes,
                           get_box_tensor(found.bboxes).cpu().numpy())
        return
    labels = samples.labels if 'labels' in samples else samples.labels_a
    for i, image in enumerate(images):
        yield labelled(image, [int(labels[i % len(labels)])], classes)
