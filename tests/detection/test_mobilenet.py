"""MobileNetV2 with other strides: sizes by hand, weights as MMDetection's."""

import pytest
import torch

from mmkd.detection import MobileNetV2
from mmkd.errors import UserError

MMDetMobileNetV2 = MobileNetV2.__base__


def test_as_published_by_default():
    torch.manual_seed(0)
    mine = MobileNetV2(widen_factor=0.25, out_indices=(2, 7))
    theirs = MMDetMobileNetV2(widen_factor=0.25, out_indices=(2, 7))
    theirs.load_state_dict(mine.state_dict())
    images = torch.rand(2, 3, 64, 64)
    mine.eval(), theirs.eval()  # which return nothing
    for a, b in zip(mine(images), theirs(images), strict=True):
        assert torch.equal(a, b)
    mine.train(), theirs.train()
    for model in (mine, theirs):
        sum(one.square().mean() for one in model(images)).backward()
    for a, b in zip(mine.parameters(), theirs.parameters(), strict=True):
        assert torch.equal(a.grad, b.grad)


def test_a_stride_of_16():
    backbone = MobileNetV2((1, 2, 2, 2, 1, 1, 1), widen_factor=0.25, out_indices=(1, 2, 4, 7))
    backbone.eval()
    sizes = [tuple(one.shape[2:]) for one in backbone(torch.rand(1, 3, 64, 96))]
    assert sizes == [(16, 24), (8, 12), (4, 6), (4, 6)]
    assert MMDetMobileNetV2.arch_settings[5][3] == 2  # MMDetection's own are left alone
    MMDetMobileNetV2(widen_factor=0.25).load_state_dict(
        MobileNetV2((1, 2, 2, 2, 1, 1, 1), widen_factor=0.25).state_dict())


@pytest.mark.parametrize('strides', [(1, 2, 2), (1, 2, 2, 2, 1, 3, 1)])
def test_strides_that_fit_nothing(strides):
    with pytest.raises(UserError, match='seven'):
        MobileNetV2(strides)
