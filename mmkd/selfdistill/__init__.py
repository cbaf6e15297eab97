"""The self-distillation wing: a network that is its own teacher."""

from mmkd.selfdistill.auxiliary import AuxiliaryClassifiers

__all__ = ['AuxiliaryClassifiers']
