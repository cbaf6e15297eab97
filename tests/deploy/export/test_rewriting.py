"""Padding, sampling and precision of a network, rewritten for inference."""

import pytest
import torch
from mmcv.cnn.bricks.conv2d_adaptive_padding import Conv2dAdaptivePadding
from mmcv.ops import DeformConv2d, DeformConv2dPack
from mmdet.models.dense_heads import TOODHead
from torch import nn

from mmkd.deploy.export.rewriting import fix_padding, sample_plainly, to_half
from mmkd.ops.deform_layer import ModulatedDeformConv2dPack


@pytest.fixture(autouse=True)
def _seed():
    torch.manual_seed(0)


@pytest.mark.parametrize(('kernel', 'stride', 'dilation'),
                         [(3, 1, 1), (3, 2, 1), (5, 2, 1), (1, 2, 1), (3, 2, 2), (2, 4, 1)])
def test_padding_that_depends_on_the_size(kernel, stride, dilation):
    conv = Conv2dAdaptivePadding(2, 3, kernel, stride, dilation=dilation)
    model = nn.Sequential(conv)
    images = [torch.randn(1, 2, height, width) for height, width in ((8, 8), (4, 16), (20, 12))]
    expected = [model(image) for image in images]
    fix_padding(model)
    for image, before in zip(images, expected, strict=True):
        torch.testing.assert_close(model(image), before)
    assert model[0] is not conv


def test_deformable_convolutions_stay_in_float32():
    model = nn.Sequential(nn.Conv2d(3, 4, 1), ModulatedDeformConv2dPack(4, 2, 3, padding=1)).eval()
    nn.init.normal_(model[1].conv_offset.weight, std=0.1)
    x = torch.randn(1, 3, 4, 300)
    expected = model(x)
    to_half(model)
    assert model[0].weight.dtype == torch.float16
    assert model[1].layer.weight.dtype == torch.float32
    found = model(x.half())
    assert found.dtype == torch.float16
    torch.testing.assert_close(found.float(), expected, rtol=0.01, atol=0.01)


class Sampling(nn.Module):
    """A deformable convolution whose offsets come from outside, and one that computes its own."""

    def __init__(self):
        super().__init__()
        self.first = DeformConv2d(4, 8, 3, padding=1, deform_groups=2)
        self.second = DeformConv2dPack(8, 6, 3, stride=2, padding=2, dilation=2, groups=2)
        nn.init.normal_(self.second.conv_offset.weight, std=0.2)

    def forward(self, x, offset):
        return self.second(self.first(x, offset))


@pytest.mark.parametrize('sides', [(9, 7), (2, 3), (1, 1)])
def test_deformable_convolutions_of_the_first_version(sides):
    model = Sampling().eval()
    x, offset = torch.randn(2, 4, *sides), torch.randn(2, 2 * 18, *sides)
    expected = model(x, offset)
    sample_plainly(model)
    assert not isinstance(model.first, DeformConv2d)
    torch.testing.assert_close(model(x, offset), expected, rtol=1e-4, atol=1e-5)
    to_half(model)
    found = model(x.half(), offset.half())
    assert found.dtype == torch.float16
    torch.testing.assert_close(found.float(), expected, rtol=0.02, atol=0.02)


def test_what_tood_samples():
    head = TOODHead(num_classes=2, in_channels=8, feat_channels=8, stacked_convs=1, norm_cfg=None,
                    loss_cls=dict(type='mmdet.FocalLoss', use_sigmoid=True),
                    anchor_generator=dict(type='mmdet.AnchorGenerator', ratios=[1.0],
                                          octave_base_scale=8, scales_per_octave=1, strides=[8]),
                    bbox_coder=dict(type='mmdet.DeltaXYWHBBoxCoder'),
                    loss_bbox=dict(type='mmdet.GIoULoss'))
    feature, offset = torch.randn(2, 4, 5, 6), torch.randn(2, 8, 5, 6)
    expected = head.deform_sampling(feature, offset)
    sample_plainly(head)
    torch.testing.assert_close(head.deform_sampling(feature, offset), expected)
