"""Random weights with which an untrained network computes numbers like a trained one's."""

import numpy as np
import torch
from mmdet.models.detectors import DetectionTransformer, TwoStageDetector
from torch import Tensor, nn
from torch.nn.modules.batchnorm import _BatchNorm

from mmkd.classification import Classifier
from mmkd.distillation.teachers import undisturbed_random_state

__all__ = ['noise_images', 'settle_random_weights']

# Of the noise for a detector: its coarsest maps must have some cells.
SIDE = 256
# Mean and standard deviation of what a CenterNet's branches return. Scores are about 0.05: an int8
# model must find again what is certain, but not what noise finds. Boxes are some cells wide.
BRANCHES = dict(heatmap_head=(-3.0, 0.2), wh_head=(8.0, 2.0), offset_head=(0.5, 0.2))


def settle_random_weights(model: nn.Module, input_size: tuple[int, int], seed: int = 0) -> None:
    """Let the features and results of an untrained network vary from place to place, in place.

    With initial weights alone the features of a deep network die away towards numbers that are
    slow to compute with, and all boxes look alike: neither a time nor a difference would mean
    anything. Hence batch norms are set to the statistics of :func:`noise_images`, and the last
    layer of each branch of a CenterNet's head is scaled. On other images numbers may grow large:
    deep random networks amplify what differs.

    Args:
        model: A detector or classifier as it was built; left in evaluation mode.
        input_size: Height and width of a classifier's inputs.
        seed: Of the noise.
    """
    norms = [module for module in model.modules() if isinstance(module, _BatchNorm)]
    momenta = [norm.momentum for norm in norms]
    for norm in norms:
        norm.reset_running_stats()
        norm.momentum = None  # the mean of what is seen
    # Dropout draws.
    with undisturbed_random_state(), torch.no_grad():
        noise = _normalised(model, noise_images(
            input_size if isinstance(model, Classifier) else (SIDE, SIDE), 2, seed))
        _run(model.train(), noise)
        _scale_branches(model.eval(), noise)
    for norm, momentum in zip(norms, momenta, strict=True):
        norm.momentum = momentum


def noise_images(input_size: tuple[int, int], count: int = 8, seed: int = 0) -> list[np.ndarray]:
    """Return images ``(H, W, 3)`` uint8 of a network's own size, each number drawn by itself."""
    generator = np.random.default_rng(seed)
    return list(generator.integers(0, 256, (count, *input_size, 3), dtype=np.uint8))


def _normalised(model: nn.Module, images: list[np.ndarray]) -> Tensor:
    pixels = torch.from_numpy(np.stack(images)).permute(0, 3, 1, 2).float()
    preprocessor = model.data_preprocessor
    if not getattr(preprocessor, '_enable_normalize', False):
        return pixels
    return (pixels - preprocessor.mean) / preprocessor.std


def _run(model: nn.Module, image: Tensor) -> None:
    if isinstance(model, DetectionTransformer | TwoStageDetector):
        model.extract_feat(image)  # Batch norms are nowhere else.
    elif hasattr(model, 'bbox_head'):
        model.bbox_head(model.extract_feat(image))
    else:
        model(image)


def _scale_branches(model: nn.Module, noise: Tensor) -> None:
    """Bring each channel of each branch to the mean and deviation of ``BRANCHES``."""
    head = getattr(model, 'bbox_head', None)
    for name in BRANCHES if hasattr(head, 'heatmap_head') else ():
        branch = getattr(head, name)
        maps: list[Tensor] = []
        hook = branch.register_forward_hook(lambda *call, maps=maps: maps.append(call[-1]))
        _run(model, noise)
        hook.remove()
        mean, deviation = BRANCHES[name]
        factor = deviation / maps[-1].std((0, 2, 3))
        last = branch[-1]
        last.weight.mul_(factor[:, None, None, None])
        last.bias.copy_(mean - (maps[-1].mean((0, 2, 3)) - last.bias) * factor)
