"""CenterNet's training targets: mmkd's batched form against MMDetection's loop over objects.

Both heads draw heatmaps, sizes, offsets and weights of one batch of 4 images of 512x512 pixels
(maps of 128x128 cells) with 20 classes, from 12 and from 50 random boxes an image. Before anything
is timed their targets are compared, and must be equal bit for bit (on a GPU: within rounding).
"""

from collections.abc import Iterable

import torch
from harness import Options, Result, compare
from mmdet.models.dense_heads import CenterNetHead as MMDetCenterNetHead
from torch import Tensor

from mmkd.detection.centernet_head import CenterNetHead

CLASSES = 20
IMAGES = 4


def measure(options: Options) -> Iterable[Result]:
    """Time both for few and for many objects."""
    size = 128 if options.quick else 512
    shape = (IMAGES, CLASSES, size // 4, size // 4)
    head = dict(in_channels=4, feat_channels=4, num_classes=CLASSES, test_cfg=None)
    ours, theirs = CenterNetHead(**head), MMDetCenterNetHead(**head)
    for objects in (12, 50):
        arguments = (*draw_objects(objects, size), shape, (size, size))
        check_equal(ours.get_targets(*arguments), theirs.get_targets(*arguments))
        yield from compare('targets', {
            'MMDetection': lambda a=arguments: theirs.get_targets(*a),
            f'mmkd, {objects} objects an image': lambda a=arguments: ours.get_targets(*a),
        }, 'MMDetection', options)


def draw_objects(count: int, size: int) -> tuple[list[Tensor], list[Tensor]]:
    """Return the boxes and the labels of every image."""
    generator = torch.Generator().manual_seed(count)
    boxes, labels = [], []
    device = 'cuda' if torch.cuda.is_available() else 'cpu'
    for _ in range(IMAGES):
        corner = torch.rand(count, 2, generator=generator) * 0.8 * size
        side = (0.04 + 0.36 * torch.rand(count, 2, generator=generator)) * size
        boxes.append(torch.cat((corner, (corner + side).clamp(max=size - 1)), dim=1).to(device))
        labels.append(torch.randint(CLASSES, (count,), generator=generator).to(device))
    return boxes, labels


def check_equal(ours: tuple[dict[str, Tensor], Tensor],
                theirs: tuple[dict[str, Tensor], int]) -> None:
    """Compare all targets and the number of objects."""
    rounding = 1e-6 if torch.cuda.is_available() else 0
    torch.testing.assert_close(ours[0], theirs[0], rtol=rounding, atol=rounding)
    assert ours[1].item() == theirs[1], (ours[1], theirs[1])
