"""Multi-scale deformable attention: stands in for mmcv's compiled one, which GPUs ask for.

mmcv has the same in PyTorch, for CPUs.

Source: X. Zhu, W. Su, L. Lu, B. Li, X. Wang, J. Dai, "Deformable DETR: Deformable Transformers
for End-to-End Object Detection", ICLR 2021, arXiv 2010.04159.
"""

import torch
from torch import Tensor

from mmkd.ops._gradients import backward_into

__all__ = ['ms_deform_attn_backward', 'ms_deform_attn_forward']


def ms_deform_attn_forward(value: Tensor, value_spatial_shapes: Tensor,
                           value_level_start_index: Tensor, sampling_locations: Tensor,
                           attention_weights: Tensor, im2col_step: int) -> Tensor:
    """Return ``sum_lp a_lp x_l(q_lp)`` for each query and head.

    ``x_l`` is a map read bilinearly, and zero outside.

    Args:
        value: ``(B, sum of H W, heads, C)``, the maps of all levels one after the other.
        value_spatial_shapes: ``(L, 2)`` int64, height and width of each level.
        value_level_start_index: ``(L,)``, which follows from them.
        sampling_locations: ``(B, Q, heads, L, P, 2)``, x and y from 0 to 1 between the edges.
        attention_weights: ``(B, Q, heads, L, P)``.
        im2col_step: images that the compiled operator takes at once.

    Returns:
        ``(B, Q, heads * C)``.
    """
    with torch.no_grad():
        return _attend(value_spatial_shapes, value, sampling_locations, attention_weights)


def ms_deform_attn_backward(value: Tensor, value_spatial_shapes: Tensor,
                            value_level_start_index: Tensor, sampling_locations: Tensor,
                            attention_weights: Tensor, grad_output: Tensor, grad_value: Tensor,
                            grad_sampling_loc: Tensor, grad_attn_weight: Tensor,
                            im2col_step: int) -> None:
    """Fill ``grad_value``, ``grad_sampling_loc`` and ``grad_attn_weight``."""
    backward_into([grad_value, grad_sampling_loc, grad_attn_weight],
                  lambda *inputs: _attend(value_spatial_shapes, *inputs),
                  [value, sampling_locations, attention_weights], grad_output)


def _attend(shapes: Tensor, value: Tensor, locations: Tensor, weights: Tensor) -> Tensor:
    # Imported when it is called: mmcv's module asks for the extension while it is imported.
    from mmcv.ops.multi_scale_deform_attn import multi_scale_deformable_attn_pytorch
    return multi_scale_deformable_attn_pytorch(value, shapes.tolist(), locations, weights)
