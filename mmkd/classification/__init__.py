"""The classification wing: networks, data, the classifier, its accuracy."""

from mmkd.classification import data, networks
from mmkd.classification.accuracy import BestAndLastHook, TopKAccuracy
from mmkd.classification.classifier import Classifier

__all__ = ['BestAndLastHook', 'Classifier', 'TopKAccuracy', 'data', 'networks']
