"""Networks of the distillation literature, for CIFAR-sized and ImageNet-sized images.

All but timm's are :class:`~mmkd.classification.networks.base.TappedNetwork`\\ s: what can be tapped
has the same name in each.
"""

from mmkd.classification.networks.base import TappedNetwork
from mmkd.classification.networks.mobilenetv1 import MobileNetV1ImageNet
from mmkd.classification.networks.mobilenetv2 import MobileNetV2CIFAR
from mmkd.classification.networks.resnet import ResNetCIFAR, ResNetImageNet
from mmkd.classification.networks.shufflenetv1 import ShuffleNetV1CIFAR
from mmkd.classification.networks.shufflenetv2 import ShuffleNetV2CIFAR, ShuffleNetV2ImageNet
from mmkd.classification.networks.tail import Tail
from mmkd.classification.networks.timm_network import TimmNetwork
from mmkd.classification.networks.vgg import VGGCIFAR
from mmkd.classification.networks.wrn import WideResNet

__all__ = ['VGGCIFAR', 'MobileNetV1ImageNet', 'MobileNetV2CIFAR', 'ResNetCIFAR', 'ResNetImageNet',
           'ShuffleNetV1CIFAR', 'ShuffleNetV2CIFAR', 'ShuffleNetV2ImageNet', 'Tail',
           'TappedNetwork', 'TimmNetwork', 'WideResNet']
