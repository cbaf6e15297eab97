"""Second implementations of published networks, with the names their checkpoints have.

Each function runs one network on plain functions. A weight is drawn where it is first used, so a
run also yields the checkpoint that the network's authors would have saved.
"""

import torch
import torch.nn.functional as F


class Checkpoint:
    """Draws weights by name, and keeps every batch norm's output."""

    def __init__(self, seed=0):
        self.state, self.outputs = {}, {}
        self._random = torch.Generator().manual_seed(seed)

    def _get(self, name, shape, scale=1.0, shift=0.0):
        if name not in self.state:
            draw = torch.rand(shape, dtype=torch.float64, generator=self._random) - 0.5
            self.state[name] = scale * draw + shift
        assert self.state[name].shape == tuple(shape)
        return self.state[name]

    def conv(self, x, name, channels, kernel, stride=1, groups=1, bias=False):
        shape = (channels, x.shape[1] // groups, kernel, kernel)
        scale = (12 / (shape[1] * kernel ** 2)) ** 0.5  # keeps the variance
        weight = self._get(f'{name}.weight', shape, scale)
        offset = self._get(f'{name}.bias', (channels,)) if bias else None
        return F.conv2d(x, weight, offset, stride, kernel // 2, 1, groups)

    def bn(self, x, name):
        shape = (x.shape[1],)
        weight = self._get(f'{name}.weight', shape, shift=1.0)
        bias = self._get(f'{name}.bias', shape)
        mean = self._get(f'{name}.running_mean', shape)
        var = self._get(f'{name}.running_var', shape, shift=1.0)
        self.state[f'{name}.num_batches_tracked'] = torch.tensor(7)
        self.outputs[name] = F.batch_norm(x, mean, var, weight, bias)
        return self.outputs[name]

    def pooled_linear(self, x, name, classes=10):
        x = x.mean((2, 3))
        return F.linear(x, self._get(f'{name}.weight', (classes, x.shape[1])),
                        self._get(f'{name}.bias', (classes,)))


def resnet_cifar(c, x, count, channels):
    x = c.bn(c.conv(x, 'conv1', channels[0], 3), 'bn1').relu()
    for layer, width in enumerate(channels[1:], 1):
        for i in range(count):
            x = _basic(c, x, f'layer{layer}.{i}', width, 2 if layer > 1 and i == 0 else 1)
    return c.pooled_linear(x, 'fc')


def resnet_option_a(c, x, count):
    """akamaster's: between stages a quarter of the new channels is 0 on either side."""
    x = c.bn(c.conv(x, 'conv1', 16, 3), 'bn1').relu()
    for layer, width in enumerate((16, 32, 64), 1):
        for i in range(count):
            stride, name = 2 if layer > 1 and i == 0 else 1, f'layer{layer}.{i}'
            shortcut = x
            if stride == 2:
                rows, columns = (torch.arange(0, side, 2) for side in x.shape[2:])
                shortcut = x.new_zeros(len(x), width, len(rows), len(columns))
                shortcut[:, width // 4:width // 4 + x.shape[1]] = x.index_select(
                    2, rows).index_select(3, columns)
            x = (_two_convolutions(c, x, name, width, stride) + shortcut).relu()
    return c.pooled_linear(x, 'linear')


def _two_convolutions(c, x, name, width, stride):
    y = c.bn(c.conv(x, f'{name}.conv1', width, 3, stride), f'{name}.bn1').relu()
    return c.bn(c.conv(y, f'{name}.conv2', width, 3), f'{name}.bn2')


def _basic(c, x, name, width, stride):
    y = _two_convolutions(c, x, name, width, stride)
    return (y + _projected(c, x, f'{name}.downsample', width, stride)).relu()


def _projected(c, x, name, width, stride):
    if stride == 1 and x.shape[1] == width:
        return x
    return c.bn(c.conv(x, f'{name}.0', width, 1, stride), f'{name}.1')


def _stem(c, x, small):
    if small:
        return c.bn(c.conv(x, 'conv1', 64, 3), 'bn1').relu()
    return F.max_pool2d(c.bn(c.conv(x, 'conv1', 64, 7, 2), 'bn1').relu(), 3, 2, 1)


def resnet_imagenet(c, x, counts, small=False):
    """torchvision's of two convolutions a block, or with the stem for small images."""
    x = _stem(c, x, small)
    for layer, (width, count) in enumerate(zip((64, 128, 256, 512), counts, strict=True), 1):
        for i in range(count):
            x = _basic(c, x, f'layer{layer}.{i}', width, 2 if layer > 1 and i == 0 else 1)
    return c.pooled_linear(x, 'fc')


def resnet50(c, x, small):
    """torchvision's, or the one for small images with its other names."""
    x = _stem(c, x, small)
    for layer, (width, count) in enumerate(((64, 3), (128, 4), (256, 6), (512, 3)), 1):
        for i in range(count):
            name, stride = f'layer{layer}.{i}', 2 if layer > 1 and i == 0 else 1
            y = c.bn(c.conv(x, f'{name}.conv1', width, 1), f'{name}.bn1').relu()
            y = c.bn(c.conv(y, f'{name}.conv2', width, 3, stride), f'{name}.bn2').relu()
            y = c.bn(c.conv(y, f'{name}.conv3', 4 * width, 1), f'{name}.bn3')
            shortcut = f'{name}.shortcut' if small else f'{name}.downsample'
            x = (y + _projected(c, x, shortcut, 4 * width, stride)).relu()
    return c.pooled_linear(x, 'linear' if small else 'fc')


def wrn(c, x, count, width):
    x = c.conv(x, 'conv1', 16, 3)
    for block, channels in enumerate((16 * width, 32 * width, 64 * width), 1):
        for i in range(count):
            name, stride = f'block{block}.layer.{i}', 2 if block > 1 and i == 0 else 1
            active = c.bn(x, f'{name}.bn1').relu()
            y = c.bn(c.conv(active, f'{name}.conv1', channels, 3, stride), f'{name}.bn2').relu()
            y = c.conv(y, f'{name}.conv2', channels, 3)
            if x.shape[1] != channels:
                x = c.conv(active, f'{name}.convShortcut', channels, 1, stride)
            x = x + y
    return c.pooled_linear(c.bn(x, 'bn1').relu(), 'fc')


def vgg(c, x, counts):
    pooled = (1, 2, 3, 4) if x.shape[-1] == 64 else (1, 2, 3)
    for block, (channels, count) in enumerate(zip((64, 128, 256, 512, 512), counts, strict=True)):
        x = F.max_pool2d(x, 2) if block in pooled else x
        for i in range(count):
            x = c.conv(x, f'block{block}.{3 * i}', channels, 3, bias=True)
            x = c.bn(x, f'block{block}.{3 * i + 1}').relu()
    return c.pooled_linear(x, 'classifier')


def mobilenetv2_half(c, x):
    x = c.bn(c.conv(x, 'conv1.0', 16, 3, 2), 'conv1.1').relu()
    rows = ((1, 8, 1, 1), (6, 12, 2, 1), (6, 16, 3, 2), (6, 32, 4, 2), (6, 48, 3, 1), (6, 80, 3, 2),
            (6, 160, 1, 1))
    for row, (factor, channels, count, first) in enumerate(rows):
        for i in range(count):
            name, stride, wide = f'blocks.{row}.{i}.conv', 1 if i else first, factor * x.shape[1]
            y = c.bn(c.conv(x, f'{name}.0', wide, 1), f'{name}.1').relu()
            y = c.bn(c.conv(y, f'{name}.3', wide, 3, stride, wide), f'{name}.4').relu()
            y = c.bn(c.conv(y, f'{name}.6', channels, 1), f'{name}.7')
            x = x + y if i else y
    x = c.bn(c.conv(x, 'conv2.0', 1280, 1), 'conv2.1').relu()
    return c.pooled_linear(x, 'classifier.0')


def _shuffled(x, groups):
    """Channel ``i`` of group ``g`` goes to place ``i * groups + g``."""
    per_group = x.shape[1] // groups
    order = [g * per_group + i for i in range(per_group) for g in range(groups)]
    return x[:, order]


def shufflenetv1(c, x):
    x = c.bn(c.conv(x, 'conv1', 24, 1), 'bn1').relu()
    for layer, (channels, count) in enumerate(((240, 4), (480, 8), (960, 4)), 1):
        for i in range(count):
            name, stride, groups = f'layer{layer}.{i}', 1 if i else 2, 1 if x.shape[1] == 24 else 3
            out = channels if i else channels - x.shape[1]
            y = c.bn(c.conv(x, f'{name}.conv1', out // 4, 1, groups=groups), f'{name}.bn1').relu()
            y = c.conv(_shuffled(y, groups), f'{name}.conv2', out // 4, 3, stride, out // 4)
            y = c.bn(y, f'{name}.bn2').relu()
            y = c.bn(c.conv(y, f'{name}.conv3', out, 1, groups=3), f'{name}.bn3')
            x = (x + y if i else torch.cat([y, F.avg_pool2d(x, 3, 2, 1)], 1)).relu()
    return c.pooled_linear(x, 'linear')


def _shuffle_block(c, x, channels, number, left_names, right_names):
    """A block of ShuffleNetV2; names of its convolutions and their batch norms, in turn."""
    half, stride = channels // 2, 1 if number else 2
    left, right = (x[:, :half], x[:, half:]) if number else (x, x)
    if not number:
        depthwise, bn1, pointwise, bn2 = left_names
        left = c.bn(c.conv(x, depthwise, x.shape[1], 3, 2, x.shape[1]), bn1)
        left = c.bn(c.conv(left, pointwise, half, 1), bn2).relu()
    conv1, bn1, depthwise, bn2, conv2, bn3 = right_names[:6]
    right = c.bn(c.conv(right, conv1, half, 1), bn1).relu()
    right = c.bn(c.conv(right, depthwise, half, 3, stride, half), bn2)
    right = c.bn(c.conv(right, conv2, half, 1), bn3).relu()
    return _shuffled(torch.cat([left, right], 1), 2)


def shufflenetv2_cifar(c, x, widths):
    x = c.bn(c.conv(x, 'conv1', 24, 1), 'bn1').relu()
    for layer, (channels, count) in enumerate(zip(widths, (4, 8, 4), strict=True), 1):
        for i in range(count):
            names = [f'layer{layer}.{i}.{part}{n}' for n in range(1, 6) for part in ('conv', 'bn')]
            x = _shuffle_block(c, x, channels, i, names[:4], names if i else names[4:])
    return c.pooled_linear(c.bn(c.conv(x, 'conv2', 1024, 1), 'bn2').relu(), 'linear')


def shufflenetv2_torchvision(c, x):
    x = F.max_pool2d(c.bn(c.conv(x, 'conv1.0', 24, 3, 2), 'conv1.1').relu(), 3, 2, 1)
    for stage, (channels, count) in enumerate(((116, 4), (232, 8), (464, 4)), 2):
        for i in range(count):
            first = [f'stage{stage}.{i}.branch1.{n}' for n in range(4)]
            second = [f'stage{stage}.{i}.branch2.{n}' for n in (0, 1, 3, 4, 5, 6)]
            x = _shuffle_block(c, x, channels, i, first, second)
    return c.pooled_linear(c.bn(c.conv(x, 'conv5.0', 1024, 1), 'conv5.1').relu(), 'fc')


# Channels and stride of the separable blocks of MobileNetV1, and their names in timm.
MOBILENETV1 = ((64, 1, '0.0'), (128, 2, '1.0'), (128, 1, '1.1'), (256, 2, '2.0'), (256, 1, '2.1'),
               (512, 2, '3.0'), *((512, 1, f'3.{i}') for i in range(1, 6)),
               (1024, 2, '4.0'), (1024, 1, '4.1'))


def mobilenetv1_mdistiller(c, x):
    x = c.bn(c.conv(x, 'model.0.0', 32, 3, 2), 'model.0.1').relu()
    for number, (channels, stride, _) in enumerate(MOBILENETV1, 1):
        name, wide = f'model.{number}', x.shape[1]
        x = c.bn(c.conv(x, f'{name}.0', wide, 3, stride, wide), f'{name}.1').relu()
        x = c.bn(c.conv(x, f'{name}.3', channels, 1), f'{name}.4').relu()
    return c.pooled_linear(x, 'fc')


def mobilenetv1_timm(c, x):
    x = F.relu6(c.bn(c.conv(x, 'conv_stem', 32, 3, 2), 'bn1'))
    for channels, stride, place in MOBILENETV1:
        name, wide = f'blocks.{place}', x.shape[1]
        x = F.relu6(c.bn(c.conv(x, f'{name}.conv_dw', wide, 3, stride, wide), f'{name}.bn1'))
        x = F.relu6(c.bn(c.conv(x, f'{name}.conv_pw', channels, 1), f'{name}.bn2'))
    return c.pooled_linear(x, 'classifier')


SMALL, WIDE = (16, 16, 32, 64), (32, 64, 128, 256)
# Each network of mmkd: its function here, and what that is told.
NETWORKS = {
    **{f'resnet{depth}': (resnet_cifar, (depth - 2) // 6, SMALL)
       for depth in (8, 14, 20, 32, 44, 56, 110)},
    **{f'resnet{depth}_option_a': (resnet_option_a, (depth - 2) // 6)
       for depth in (20, 32, 44, 56, 110)},
    'resnet8x4': (resnet_cifar, 1, WIDE),
    'resnet32x4': (resnet_cifar, 5, WIDE),
    'resnet18_cifar': (resnet_imagenet, (2, 2, 2, 2), True),
    'resnet34_cifar': (resnet_imagenet, (3, 4, 6, 3), True),
    'resnet50_cifar': (resnet50, True),
    **{f'wrn_{depth}_{width}': (wrn, (depth - 4) // 6, width)
       for depth, width in ((16, 1), (16, 2), (40, 1), (40, 2), (28, 4))},
    'vgg8': (vgg, (1, 1, 1, 1, 1)),
    'vgg11': (vgg, (1, 1, 2, 2, 2)),
    'vgg13': (vgg, (2, 2, 2, 2, 2)),
    'vgg16': (vgg, (2, 2, 3, 3, 3)),
    'vgg19': (vgg, (2, 2, 4, 4, 4)),
    'mobilenetv2_half': (mobilenetv2_half, ),
    'shufflenetv1': (shufflenetv1, ),
    'shufflenetv2_0_5x': (shufflenetv2_cifar, (48, 96, 192)),
    'shufflenetv2_1x': (shufflenetv2_cifar, (116, 232, 464)),
    'imagenet_resnet18': (resnet_imagenet, (2, 2, 2, 2)),
    'imagenet_resnet34': (resnet_imagenet, (3, 4, 6, 3)),
    'imagenet_resnet50': (resnet50, False),
    'imagenet_shufflenetv2': (shufflenetv2_torchvision, ),
    'imagenet_mobilenetv1': (mobilenetv1_mdistiller, ),
}
