"""What is known of a batch of images."""

import numpy as np
from mmengine.structures import BaseDataElement
from torch import Tensor

__all__ = ['ClassificationSample']


class ClassificationSample(BaseDataElement):
    """The labels of a whole batch of ``B`` images, and what the classifier says of them.

    One object stands for a batch, not for an image: one transfer to the device, one call each.
    A field is present once somebody has set it.

    Attributes:
        labels: ``(B,)``, int64, the classes.
        indices: ``(B,)``, int64, the images' numbers in their data set.
        views: ``(B, 2)``, int64 NumPy array, the image's number and the view's, if known.
        view_seeds: ``(B,)``, int64 NumPy array, what settles each image's draw, if anything does.
        labels_a: ``(B,)``, int64, in place of ``labels`` in a mixed batch (mixup, cutmix).
        labels_b: ``(B,)``, int64, the classes mixed in.
        lam: a scalar, float32, share of ``labels_a`` in a mixed batch; ``labels_b`` has the rest.
        partners: ``(B, 3, H, W)``, float32, another image of each one's class, if paired.
        scores: ``(B, C)``, float, after ``predict``.
    """

    labels: Tensor
    indices: Tensor
    views: np.ndarray
    view_seeds: np.ndarray
    labels_a: Tensor
    labels_b: Tensor
    lam: Tensor
    partners: Tensor
    scores: Tensor
