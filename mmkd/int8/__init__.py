"""Train a student for int8: its weights and features are rounded while it learns.

::

    rounding.py   how a weight and a feature are rounded, with gradients
    places.py     which layers and features of a network: of :mod:`mmkd.deploy.export.quantize`
    student.py    a network that computes with them, and the ranges that it learns
    hook.py       that in a run: when it begins, checkpoints
"""

from mmkd.int8.hook import Int8AwareHook
from mmkd.int8.student import Rounded

__all__ = ['Int8AwareHook', 'Rounded']
