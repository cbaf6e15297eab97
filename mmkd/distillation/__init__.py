"""The heart: teachers, taps, connectors, losses and the hooks that join them to a run.

It knows neither boxes nor labels; detection and classification build on it.
"""

from mmkd.checkpoints import load_checkpoint_safely, load_weights
from mmkd.distillation import losses
from mmkd.distillation.connectors import (
    AlignConnector,
    ConvConnector,
    LinearConnector,
    MLPConnector,
    OFDConnector,
    RegressorConnector,
    ReviewConnector,
)
from mmkd.distillation.distillation import Distillation
from mmkd.distillation.distillation_hook import DistillationHook
from mmkd.distillation.foundation import HuggingFaceModel, TimmModel
from mmkd.distillation.self_term import SelfTerm
from mmkd.distillation.step import Step, fact
from mmkd.distillation.taps import TapRecorder, list_taps
from mmkd.distillation.teacher_connectors import TokensToMap
from mmkd.distillation.teachers import Teacher, build_model, build_teacher
from mmkd.distillation.term import Term
from mmkd.registry import MODELS
from mmkd.teacher_cache import FixedViews, ViewSampler

__all__ = ['AlignConnector', 'ConvConnector', 'Distillation', 'DistillationHook', 'FixedViews',
           'HuggingFaceModel', 'LinearConnector', 'MLPConnector', 'OFDConnector',
           'RegressorConnector', 'ReviewConnector', 'SelfTerm', 'Step', 'TapRecorder', 'Teacher',
           'Term', 'TimmModel', 'TokensToMap', 'ViewSampler', 'build_model', 'build_teacher',
           'fact', 'list_taps', 'load_checkpoint_safely', 'load_weights']

for _name in losses.__all__:
    # Here and not beside each loss, so that losses import only torch.
    MODELS.register_module(module=getattr(losses, _name))
