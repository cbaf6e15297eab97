"""Classification data: sets of images, batches of them, and what is done to a batch."""

from mmkd.classification.data.augment import BatchPreprocessor
from mmkd.classification.data.cifar import CIFAR10, CIFAR100
from mmkd.classification.data.fashion_mnist import FashionMNIST
from mmkd.classification.data.folders import ImageFolderInMemory, ImageNetFolder
from mmkd.classification.data.lists import ImageListInMemory
from mmkd.classification.data.memory import MemoryDataset, whole_batch
from mmkd.classification.data.samplers import ClassBalancedSampler, PairSampler
from mmkd.classification.data.structures import ClassificationSample
from mmkd.classification.data.svhn import SVHN
from mmkd.classification.data.tiny_imagenet import TinyImageNet, TinyImageNet100

__all__ = ['CIFAR10', 'CIFAR100', 'SVHN', 'BatchPreprocessor', 'ClassBalancedSampler',
           'ClassificationSample', 'FashionMNIST', 'ImageFolderInMemory', 'ImageListInMemory',
           'ImageNetFolder', 'MemoryDataset', 'PairSampler', 'TinyImageNet', 'TinyImageNet100',
           'whole_batch']
