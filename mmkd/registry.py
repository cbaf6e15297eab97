"""The registries of mmkd, scope ``mmkd``.

Each is a child of MMDetection's registry of the same kind, which is a child of mmengine's.
A config with ``default_scope = 'mmkd'`` therefore finds mmkd's, MMDetection's and mmengine's
names without a prefix. What lies under ``locations`` is imported when a name is first looked up.
"""

from functools import partial
from typing import Any

from mmdet import registry as mmdet
from mmengine.registry import Registry

from mmkd.timm_networks import TIMM, check_name


class Models(Registry):
    """MMDetection's and mmkd's modules; as ``timm:NAME`` timm's networks, for classifiers."""

    def get(self, key: str) -> Any:
        """Return a class or function by its name.

        Raises:
            UserError: the name is one of timm's, and see :mod:`mmkd.timm_networks`.
        """
        if not key.startswith(TIMM):
            return super().get(key)
        check_name(key.removeprefix(TIMM))
        return partial(super().get('TimmNetwork'), key.removeprefix(TIMM))


def _child(name: str, parent: Registry, *locations: str, kind: type[Registry] = Registry
           ) -> Registry:
    # mmengine looks names up in a parent without importing what the parent would register.
    return kind(name, parent=parent, scope='mmkd', locations=[*parent._locations, *locations])


MODELS = _child('model', mmdet.MODELS, 'mmkd.distillation', 'mmkd.detection',
                'mmkd.classification', 'mmkd.online', kind=Models)
HOOKS = _child('hook', mmdet.HOOKS, 'mmkd.engine.hooks', 'mmkd.distillation', 'mmkd.detection',
               'mmkd.classification', 'mmkd.online', 'mmkd.int8')
DATASETS = _child('dataset', mmdet.DATASETS, 'mmkd.teacher_cache', 'mmkd.detection',
                  'mmkd.classification')
TRANSFORMS = _child('transform', mmdet.TRANSFORMS, 'mmkd.detection')
METRICS = _child('metric', mmdet.METRICS, 'mmkd.evaluation', 'mmkd.classification',
                 'mmkd.online')
DATA_SAMPLERS = _child('data sampler', mmdet.DATA_SAMPLERS, 'mmkd.teacher_cache',
                       'mmkd.classification')
OPTIM_WRAPPERS = _child('optim_wrapper', mmdet.OPTIM_WRAPPERS, 'mmkd.engine.amp')

# Nothing of mmkd's own yet: here so that MMDetection's names are found under mmkd's scope.
RUNNERS = _child('runner', mmdet.RUNNERS)
RUNNER_CONSTRUCTORS = _child('runner constructor', mmdet.RUNNER_CONSTRUCTORS)
LOOPS = _child('loop', mmdet.LOOPS)
MODEL_WRAPPERS = _child('model_wrapper', mmdet.MODEL_WRAPPERS)
WEIGHT_INITIALIZERS = _child('weight initializer', mmdet.WEIGHT_INITIALIZERS)
OPTIMIZERS = _child('optimizer', mmdet.OPTIMIZERS)
OPTIM_WRAPPER_CONSTRUCTORS = _child('optimizer constructor', mmdet.OPTIM_WRAPPER_CONSTRUCTORS)
PARAM_SCHEDULERS = _child('parameter scheduler', mmdet.PARAM_SCHEDULERS)
EVALUATOR = _child('evaluator', mmdet.EVALUATOR)
TASK_UTILS = _child('task util', mmdet.TASK_UTILS)
VISUALIZERS = _child('visualizer', mmdet.VISUALIZERS)
VISBACKENDS = _child('vis_backend', mmdet.VISBACKENDS)
LOG_PROCESSORS = _child('log_processor', mmdet.LOG_PROCESSORS)

# Distillation terms, which no other library of the family has.
TERMS = Registry('distillation term', scope='mmkd',
                 locations=['mmkd.distillation', 'mmkd.detection'])
