"""Published weights under mmkd's names.

Published checkpoints name their tensors as the code that trained them does. The tables below
say, for each family, what a name of RepDistiller and mdistiller (same names), torchvision or
timm is called here. A ResNetCIFAR of option A is the network of akamaster's
pytorch_resnet_cifar10, whose names are the same but for ``linear``::

    family               RepDistiller, mdistiller    ImageNet
    ResNetCIFAR          resnet
    ResNetImageNet       resnetv2 (ResNet50)         torchvision and timm resnet18/34/50
    WideResNet           wrn
    VGGCIFAR             vgg with batch norm
    MobileNetV1ImageNet  mdistiller's                timm mobilenetv1_100 (with relu6=True)
    MobileNetV2CIFAR     mobilenetv2
    ShuffleNetV1CIFAR    ShuffleNetv1
    ShuffleNetV2CIFAR    ShuffleNetv2
    ShuffleNetV2ImageNet                             torchvision shufflenet_v2_x0_5/x1_0
    TimmNetwork                                      timm's network of that name
"""

import re
from collections.abc import Mapping
from typing import Any

import torch
from torch import Tensor, nn

from mmkd.classification.networks import (
    VGGCIFAR,
    MobileNetV1ImageNet,
    MobileNetV2CIFAR,
    ResNetCIFAR,
    ResNetImageNet,
    ShuffleNetV1CIFAR,
    ShuffleNetV2CIFAR,
    ShuffleNetV2ImageNet,
    TimmNetwork,
    WideResNet,
)
from mmkd.errors import UserError

__all__ = ['convert_state_dict']

Rules = list[tuple[str, str]]
"""Pattern at the start of a name, and what stands for it; the first that matches is taken."""

COUNTER = 'num_batches_tracked'
"""Of a batch norm; old checkpoints lack it."""


def _resnet_rules() -> Rules:
    block = r'backbone.stage\1.blocks.\2.'
    return [(r'conv1\.', 'backbone.stem.0.'), (r'bn1\.', 'backbone.stem.1.'),
            (r'layer(\d)\.(\d+)\.(?:downsample|shortcut)\.', block + 'shortcut.'),
            (r'layer(\d)\.(\d+)\.', block), (r'(?:fc|linear)\.', 'head.fc.')]


def _wrn_rules() -> Rules:
    """The batch norm that begins a stage there, or the pooling, ends the one before it here."""
    return [(r'conv1\.', 'backbone.stem.'), (r'block2\.layer\.0\.bn1\.', 'backbone.stage1.preact.'),
            (r'block3\.layer\.0\.bn1\.', 'backbone.stage2.preact.'),
            (r'bn1\.', 'backbone.stage3.preact.'),
            (r'block(\d)\.layer\.(\d+)\.convShortcut\.', r'backbone.stage\1.blocks.\2.shortcut.'),
            (r'block(\d)\.layer\.(\d+)\.', r'backbone.stage\1.blocks.\2.'), (r'fc\.', 'head.fc.')]


def _vgg_rules() -> Rules:
    """A block there is a row of convolution, batch norm and ReLU, again and again."""
    rules = [(r'classifier\.', 'head.fc.')]
    for index in range(4):
        for theirs, ours in ((3 * index, 0), (3 * index + 1, 1)):
            rules += [(rf'block0\.{theirs}\.', f'backbone.stem.blocks.{index}.{ours}.'),
                      (rf'block(\d)\.{theirs}\.', rf'backbone.stage\1.blocks.{index}.{ours}.')]
    return rules


def _mobilenetv1_rules() -> Rules:
    rules = [(r'(?:model\.0\.0|conv_stem)\.', 'backbone.stem.blocks.0.0.'),
             (r'(?:model\.0\.1|bn1)\.', 'backbone.stem.blocks.0.1.'),
             (r'model\.1\.', 'backbone.stem.blocks.1.'), (r'(?:fc|classifier)\.', 'head.fc.')]
    blocks = [(stage, index) for stage, count in enumerate((2, 2, 6, 2), 1)
              for index in range(count)]
    rules += [(rf'model\.{number}\.', f'backbone.stage{stage}.blocks.{index}.')
              for number, (stage, index) in enumerate(blocks, 2)]
    for theirs, ours in (('conv_dw', 0), ('bn1', 1), ('conv_pw', 3), ('bn2', 4)):
        rules += [(rf'blocks\.0\.0\.{theirs}\.', f'backbone.stem.blocks.1.{ours}.'),
                  (rf'blocks\.(\d)\.(\d)\.{theirs}\.', rf'backbone.stage\1.blocks.\2.{ours}.')]
    return rules


def _mobilenetv2_rules() -> Rules:
    """A group there is a row of the paper's table; here a stage has the blocks of its rows."""
    rules = [(r'conv1\.', 'backbone.stem.'), (r'conv2\.', 'backbone.final.'),
             (r'classifier\.(?:0\.)?', 'head.fc.')]
    groups = {1: {0: 1, 1: 2}, 2: {2: 3}, 3: {3: 4, 4: 3}, 4: {5: 3, 6: 1}}
    for stage, counts in groups.items():
        blocks = [(group, index) for group, count in counts.items() for index in range(count)]
        rules += [(rf'blocks\.{group}\.{index}\.', f'backbone.stage{stage}.blocks.{number}.')
                  for number, (group, index) in enumerate(blocks)]
    return rules


def _shufflenetv1_rules() -> Rules:
    return [(r'conv1\.', 'backbone.stem.0.'), (r'bn1\.', 'backbone.stem.1.'),
            (r'layer(\d)\.(\d+)\.', r'backbone.stage\1.blocks.\2.'), (r'linear\.', 'head.fc.')]


def _shufflenetv2_cifar_rules() -> Rules:
    """The first unit of a stage counts its convolutions through the left branch first."""
    first = dict(conv1='left.0', bn1='left.1', conv2='left.2', bn2='left.3', conv3='right.0',
                 bn3='right.1', conv4='right.3', bn4='right.4', conv5='right.5', bn5='right.6')
    later = dict(conv1='right.0', bn1='right.1', conv2='right.3', bn2='right.4', conv3='right.5',
                 bn3='right.6')
    return [(r'conv1\.', 'backbone.stem.0.'), (r'bn1\.', 'backbone.stem.1.'),
            (r'conv2\.', 'backbone.final.0.'), (r'bn2\.', 'backbone.final.1.'),
            (r'linear\.', 'head.fc.'),
            *((rf'layer(\d)\.0\.{theirs}\.', rf'backbone.stage\1.blocks.0.{ours}.')
              for theirs, ours in first.items()),
            *((rf'layer(\d)\.(\d+)\.{theirs}\.', rf'backbone.stage\1.blocks.\2.{ours}.')
              for theirs, ours in later.items())]


def _shufflenetv2_imagenet_rules() -> Rules:
    rules = [(r'conv1\.', 'backbone.stem.'), (r'conv5\.', 'backbone.final.'),
             (r'fc\.', 'head.fc.')]
    for stage in (1, 2, 3):
        for theirs, ours in (('branch1', 'left'), ('branch2', 'right')):
            rules.append((rf'stage{stage + 1}\.(\d+)\.{theirs}\.',
                          rf'backbone.stage{stage}.blocks.\1.{ours}.'))
    return rules


def _timm_rules(backbone: TimmNetwork) -> Rules:
    return [(re.escape(backbone.classifier) + r'\.', 'head.fc.'), ('', 'backbone.network.')]


RULES: dict[type[nn.Module], Rules] = {
    MobileNetV1ImageNet: _mobilenetv1_rules(),
    MobileNetV2CIFAR: _mobilenetv2_rules(),
    ResNetCIFAR: _resnet_rules(),
    ResNetImageNet: _resnet_rules(),
    ShuffleNetV1CIFAR: _shufflenetv1_rules(),
    ShuffleNetV2CIFAR: _shufflenetv2_cifar_rules(),
    ShuffleNetV2ImageNet: _shufflenetv2_imagenet_rules(),
    VGGCIFAR: _vgg_rules(),
    WideResNet: _wrn_rules(),
}


def convert_state_dict(state_dict: Mapping[str, Any], network: nn.Module) -> dict[str, Tensor]:
    """Rename published weights to those of a classifier.

    Args:
        state_dict: tensors by name, or a checkpoint that holds them under ``model`` or
            ``state_dict``. A ``module.`` before every name is dropped.
        network: a classifier with ``backbone`` and ``head.fc``.

    Returns:
        the same tensors under the names of ``network.state_dict()``, all of them.

    Raises:
        UserError: the family has no rules, the weights are of another architecture or number of
            classes, or were trained with another activation.
    """
    backbone = network.backbone
    kind = type(backbone).__name__
    rules = (_timm_rules(backbone) if isinstance(backbone, TimmNetwork) else
             RULES.get(type(backbone)))
    if rules is None:
        raise UserError(f'there is no key mapping for the backbone {kind}: published weights load '
                        f'into {", ".join(known.__name__ for known in RULES)}')
    state = _weights(state_dict)
    if 'conv_stem.weight' in state and not getattr(backbone, 'relu6', True):
        raise UserError("timm's MobileNetV1 weights were trained with ReLU6: build the network "
                        'with relu6=True')
    own = network.state_dict()
    found: dict[str, Tensor] = {name: torch.zeros_like(value) for name, value in own.items()
                                if name.endswith(COUNTER)}
    origin: dict[str, str] = {}
    unknown = []
    for theirs, value in state.items():
        ours = _rename(theirs, rules)
        if ours not in own or ours in origin:
            unknown.append(theirs)
        else:
            origin[ours], found[ours] = theirs, value
    missing = [name for name in own if name not in found]
    reshaped = [f'{origin[name]} {tuple(getattr(found[name], "shape", ()))} for {name} '
                f'{tuple(own[name].shape)}' for name in origin
                if getattr(found[name], 'shape', None) != own[name].shape]
    _check(kind, unknown=unknown, missing=missing, reshaped=reshaped)
    return {name: found[name] for name in own}


def _weights(checkpoint: Mapping[str, Any]) -> dict[str, Any]:
    state = checkpoint.get('model', checkpoint.get('state_dict', checkpoint))
    if not isinstance(state, Mapping):
        raise UserError(f'the checkpoint holds a {type(state).__name__} where its weights by name '
                        'should be: save model.state_dict()')
    return {name.removeprefix('module.'): value for name, value in state.items()}


def _rename(name: str, rules: Rules) -> str:
    for pattern, ours in rules:
        renamed, times = re.subn(f'^{pattern}', ours, name)
        if times:
            return renamed
    return name


def _check(kind: str, **faults: list[str]) -> None:
    """Say what does not fit, and the first three names of each sort."""
    said = [f'{len(names)} {what} ({", ".join(names[:3])}{", ..." if len(names) > 3 else ""})'
            for what, names in faults.items() if names]
    if said:
        raise UserError(f'the weights do not fit {kind}: {"; ".join(said)}: use the network '
                        'and number of classes that they were trained with')
