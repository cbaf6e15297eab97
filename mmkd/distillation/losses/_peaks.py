"""Where a heatmap says that there are objects."""

import torch.nn.functional as F
from torch import Tensor


def peaks(heatmap: Tensor, min_score: float = 0.0) -> Tensor:
    """Return a heatmap ``(B, C, H, W)`` where it is highest of 3x3 cells, and 0 elsewhere.

    Maxima below ``min_score`` are 0, too.
    """
    highest = F.max_pool2d(heatmap, 3, stride=1, padding=1)
    return heatmap * ((heatmap == highest) & (heatmap >= min_score))
