"""The classification wing: networks, data, the classifier, its accuracy, auxiliary classifiers."""

from mmkd.classification import data, networks
from mmkd.classification.accuracy import BestAndLastHook, TopKAccuracy
from mmkd.classification.auxiliary import AuxiliaryClassifiers
from mmkd.classification.check_data_hook import CheckTrainingDataHook
from mmkd.classification.classifier import Classifier

__all__ = ['AuxiliaryClassifiers', 'BestAndLastHook', 'CheckTrainingDataHook', 'Classifier',
           'TopKAccuracy', 'data', 'networks']
