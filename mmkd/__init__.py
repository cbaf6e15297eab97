"""mmkd: knowledge distillation for detectors of MMDetection and for classifiers.

Importing the package is cheap: it pulls in neither torch nor mmengine, and only makes sure
that ``mmcv`` can be imported where its compiled extension is absent. Everything
registered by mmkd is imported by its registries when a config first asks for it.
"""

from mmkd.ops.extension import provide_mmcv_extension

__version__ = '0.1.0'

provide_mmcv_extension()
