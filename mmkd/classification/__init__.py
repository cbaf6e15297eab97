"""The classification wing: networks, data, the classifier, its accuracy."""

from mmkd.classification import data, networks
from mmkd.classification.accuracy import BestAndLastHook, TopKAccuracy
from mmkd.classification.check_data_hook import CheckTrainingDataHook
from mmkd.classification.classifier import Classifier

__all__ = ['BestAndLastHook', 'CheckTrainingDataHook', 'Classifier', 'TopKAccuracy', 'data',
           'networks']
