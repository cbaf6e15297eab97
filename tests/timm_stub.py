"""What mmkd calls of timm, with tiny networks of the same names, strides and manners."""

import re
from types import SimpleNamespace

import torch
from torch import nn

CHANNELS = dict(resnet10t=(4, 6, 8, 10, 12), vit_tiny_patch16_224=(8,),
                vit_small_patch14_dinov2=(8,))


def is_model(name):
    return name.partition('.')[0] in CHANNELS


def list_models():
    return list(CHANNELS)


class Network(nn.Module):
    """Convolutions, each twice as coarse; a "transformer" is one of a patch."""

    def __init__(self, name, num_classes):
        super().__init__()
        self.channels = CHANNELS[name]
        patch = re.search(r'patch(\d+)', name)
        self.stride = int(patch[1]) if patch else 2
        self.conv1, *later = (nn.Conv2d(a, b, self.stride + 1, self.stride, self.stride // 2)
                              for a, b in zip((3, *self.channels), self.channels, strict=False))
        self.layers = nn.ModuleList(later)
        self.num_features = self.channels[-1]
        self.fc = nn.Linear(self.num_features, num_classes) if num_classes else nn.Identity()
        self.default_cfg = self.pretrained_cfg = dict(
            classifier='fc', mean=(0.5, 0.4, 0.3), std=(0.5, 0.2, 0.1), input_size=(3, 224, 224))
        if name.startswith('vit'):
            self.num_prefix_tokens = 1
            self.patch_embed = SimpleNamespace(patch_size=(self.stride, self.stride))
        self.feature_info = [dict(num_chs=c, reduction=self.stride ** i)
                             for i, c in enumerate(self.channels, 1)]

    def forward_intermediates(self, images, indices=None, output_fmt='NCHW', norm=False,
                              intermediates_only=False):
        maps = [self.conv1(images)]
        for layer in self.layers:
            maps.append(layer(maps[-1].relu()))
        return maps[-indices:] if intermediates_only else (maps[-1], maps)

    def forward_features(self, images):
        """Of a transformer: a token of nothing, and those of patches."""
        last = self.forward_intermediates(images)[0]
        if self.stride == 2:
            return last
        tokens = last.flatten(2).transpose(1, 2)
        return torch.cat([torch.full_like(tokens[:, :1], 99.0), tokens], 1)

    def forward_head(self, last):
        return self.fc(last.relu().mean((2, 3)))

    def forward(self, images):
        return self.forward_head(self.forward_intermediates(images)[0])


class Getter(nn.Module):
    """What timm makes of a network with features_only=True."""

    def __init__(self, model, out_indices):
        super().__init__()
        self.model, self.out_indices = model, out_indices
        self.feature_info = Info([model.feature_info[i] for i in out_indices])

    def forward(self, images):
        maps = self.model.forward_intermediates(images)[1]
        return [maps[i] for i in self.out_indices]


class Info(list):
    def channels(self):
        return [one['num_chs'] for one in self]

    def reduction(self):
        return [one['reduction'] for one in self]


def create_model(name, pretrained, num_classes=1000, features_only=False, feature_cls=None,
                 out_indices=None, dynamic_img_size=None):
    assert not pretrained
    if dynamic_img_size and not name.startswith('vit'):
        raise TypeError("got an unexpected keyword argument 'dynamic_img_size'")
    if not features_only:
        return Network(name, num_classes)
    model = Network(name, 0)
    return Getter(model, range(len(model.channels)) if out_indices is None else out_indices)
