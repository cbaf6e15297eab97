"""The hooks of every run; the registry imports them from here."""

from mmkd.engine.checkpoint_hook import SafeCheckpointHook
from mmkd.engine.history_hook import ShortHistoryHook
from mmkd.engine.missed_validation import MissedValidationHook
from mmkd.engine.nan_hook import StopOnInvalidLossHook
from mmkd.engine.pictures_hook import PicturesHook
from mmkd.engine.results import ResultsHook
from mmkd.engine.screen import SummaryHook, TimedLoggerHook
from mmkd.engine.seed_hook import EpochSeedHook

__all__ = ['EpochSeedHook', 'MissedValidationHook', 'PicturesHook', 'ResultsHook',
           'SafeCheckpointHook', 'ShortHistoryHook', 'StopOnInvalidLossHook', 'SummaryHook',
           'TimedLoggerHook']
