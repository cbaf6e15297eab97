"""Batch norms move into the layers before them."""

import pytest
import torch
from torch import nn
from torch.nn.modules.batchnorm import _BatchNorm

from mmkd.deploy.export.folding import fold_batch_norms
from mmkd.ops.deform_layer import ModulatedDeformConv2dPack


def trained(norm):
    """Statistics and weights as training leaves them."""
    for values in (norm.running_mean, norm.weight.data, norm.bias.data):
        nn.init.normal_(values)
    nn.init.uniform_(norm.running_var, 0.5, 2)
    return norm


@pytest.fixture(autouse=True)
def _seed():
    torch.manual_seed(0)


def computes_the_same_when_folded(model, x):
    expected = model(x)
    fold_batch_norms(model, torch.randn(x.shape))
    torch.testing.assert_close(model(x), expected, rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize(('layer', 'shape'), [
    (nn.Conv2d(6, 4, 3, stride=2), (2, 6, 9, 9)),
    (nn.Conv2d(6, 6, 3, groups=6, bias=False), (2, 6, 9, 9)),
    (nn.ConvTranspose2d(6, 4, 4, stride=2, bias=False), (2, 6, 5, 5)),
    (nn.ConvTranspose2d(6, 4, 4, stride=2, groups=2), (2, 6, 5, 5)),
    (nn.Linear(6, 4), (5, 6)),
    (ModulatedDeformConv2dPack(6, 4, 3, padding=1), (2, 6, 9, 9)),
])
def test_every_kind_of_layer(layer, shape):
    channels = getattr(layer, 'out_channels', None) or layer.out_features
    norm = trained((nn.BatchNorm1d if len(shape) == 2 else nn.BatchNorm2d)(channels))
    model = nn.Sequential(layer, norm, nn.ReLU()).eval()
    computes_the_same_when_folded(model, torch.randn(shape))
    assert not any(isinstance(module, _BatchNorm) for module in model.modules())
    # Only the channels of a grouped transposed convolution lie on two axes.
    transposed_groups = isinstance(layer, nn.ConvTranspose2d) and layer.groups > 1
    assert isinstance(model[1], nn.Identity) != transposed_groups


class Residual(nn.Module):
    """Normalises first, and adds what its convolution returns, as wide residual networks do."""

    def __init__(self):
        super().__init__()
        self.stem = nn.Conv2d(3, 4, 3, padding=1)
        self.first = trained(nn.BatchNorm2d(4))
        self.conv = nn.Conv2d(4, 4, 3, padding=1)
        self.second = trained(nn.BatchNorm2d(4))
        self.shared = nn.Conv2d(4, 4, 1)
        self.third = trained(nn.BatchNorm2d(4))
        self.unused = nn.BatchNorm2d(4)

    def forward(self, x):
        stem = self.stem(x)
        x = stem + self.second(self.conv(self.first(stem).relu()))
        return self.third(self.shared(self.shared(x)))


def test_a_norm_whose_input_has_other_readers():
    model = Residual().eval()
    computes_the_same_when_folded(model, torch.randn(2, 3, 8, 8))
    kinds = [type(getattr(model, name)).__name__ for name in ('first', 'second', 'third', 'unused')]
    assert kinds == ['ScaleShift', 'Identity', 'ScaleShift', 'BatchNorm2d']


def test_one_norm_after_two_layers():
    norm = trained(nn.BatchNorm2d(4))
    model = nn.Sequential(nn.Conv2d(4, 4, 1), norm, nn.Conv2d(4, 4, 1), norm).eval()
    computes_the_same_when_folded(model, torch.randn(2, 4, 3, 3))
    assert model[1] is model[3]
