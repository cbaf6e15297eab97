"""The heart: teachers, taps, connectors, losses and the hooks that join them to a run.

It knows neither boxes nor labels; detection and classification build on it.
"""

from mmkd.distillation import losses
from mmkd.distillation.cache.views import FixedViews, ViewSampler
from mmkd.distillation.checkpoints import load_checkpoint_safely, load_weights
from mmkd.distillation.connectors import (
    ConvConnector,
    LinearConnector,
    MLPConnector,
    OFDConnector,
    RegressorConnector,
    ReviewConnector,
)
from mmkd.distillation.distill_hook import DistillHook
from mmkd.distillation.self_distill_hook import SelfDistillHook
from mmkd.distillation.taps import TapRecorder, list_taps
from mmkd.distillation.teacher_hook import TeacherHook
from mmkd.distillation.teachers import Teacher, build_model, build_teacher
from mmkd.registry import MODELS

__all__ = ['ConvConnector', 'DistillHook', 'FixedViews', 'LinearConnector', 'MLPConnector',
           'OFDConnector', 'RegressorConnector', 'ReviewConnector', 'SelfDistillHook',
           'TapRecorder', 'Teacher', 'TeacherHook', 'ViewSampler', 'build_model', 'build_teacher',
           'list_taps', 'load_checkpoint_safely', 'load_weights']

for _name in losses.__all__:
    # Here and not beside each loss, so that losses import only torch.
    MODELS.register_module(module=getattr(losses, _name))
