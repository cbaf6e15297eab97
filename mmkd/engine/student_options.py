"""Three ways to a faster training step of the student, each an entry of the config.

::

    amp = 'auto'            # float16 on a GPU, bfloat16 on a CPU that has it; or 'bf16', 'fp16'
    channels_last = True    # keep feature maps with the channels innermost
    compile = True          # torch.compile; or a dict of its arguments

They change how the student is computed, not what: checkpoints have the same names and shapes as
without, and a run can be resumed with other options.
"""

import logging
from collections.abc import Iterator, Mapping
from typing import Any

import torch
from mmengine.config import Config
from mmengine.logging import print_log
from mmengine.model import BaseModel
from torch import nn

from mmkd.distillation.inference import best_precision
from mmkd.errors import UserError

__all__ = ['AMP', 'OPTIONS', 'compile_student', 'use_channels_last', 'use_mixed_precision']

OPTIONS = ('amp', 'channels_last', 'compile')
AMP = dict(fp16='float16', bf16='bfloat16')
# What mixed precision takes the place of.
PLAIN = ('OptimWrapper', 'AmpOptimWrapper', 'CPUAmpOptimWrapper')


def use_mixed_precision(cfg: Config) -> None:
    """Let the optimizer wrapper of ``cfg`` do what ``cfg.amp`` asks for.

    Raises:
        UserError: ``amp`` is none of its values, or the config has an optimizer wrapper of its own.
    """
    wanted = cfg.get('amp') or None
    if wanted is None:
        return
    on_gpu = torch.cuda.is_available()
    if wanted in ('auto', True):
        wanted = best_precision()
        if wanted is None:
            print_log('no mixed precision: this processor has no arithmetic for bfloat16 and would '
                      'be slower with it', 'current')
            return
    if wanted not in AMP:
        raise UserError(f"amp is {wanted!r}: give 'fp16', 'bf16' or 'auto'")
    wrapper = cfg.optim_wrapper
    if wrapper.get('type', PLAIN[0]) not in PLAIN:
        raise UserError(f"amp is '{wanted}' but optim_wrapper.type is '{wrapper.type}', which says "
                        'itself in which precision it computes: take one of them out')
    if wanted == 'fp16' and not on_gpu:
        print_log('fp16 on a CPU: most have no arithmetic for it and are many times slower with it '
                  'than with bf16', 'current', logging.WARNING)
    wrapper.type = 'AmpOptimWrapper' if on_gpu else 'CPUAmpOptimWrapper'
    wrapper.dtype = AMP[wanted]
    if on_gpu:
        # bfloat16 has the range of float32.
        wrapper.loss_scale = 'dynamic' if wanted == 'fp16' else dict(enabled=False)


def use_channels_last(model: nn.Module) -> None:
    """Store the weights of convolutions with the channels innermost; their outputs follow.

    Before DistributedDataParallel wraps the model, since it lays its buckets out like the weights.
    """
    model.to(memory_format=torch.channels_last)


def compile_student(model: nn.Module, options: bool | Mapping[str, Any]) -> None:
    """Compile every network that a model calls, in place.

    mmengine would compile ``train_step`` as a whole, with the data preprocessor, the losses, the
    optimizer and the teachers that hang on the model; the loops and objects in it break the graph
    again and again. Here ``backbone``, ``neck`` and the like are each compiled by
    ``nn.Module.compile``, which leaves names and copies of the model as they are, and taps inside
    them are outputs of the compiled graph.

    Args:
        model: the student, not wrapped.
        options: what ``torch.compile`` takes; True for nothing.

    Raises:
        UserError: ``options`` are neither.
    """
    if not isinstance(options, (bool, Mapping)):
        raise UserError(f'compile is {options!r}: give True or a dict of what torch.compile takes, '
                        "such as dict(mode='max-autotune')")
    for network in _networks(model):
        network.compile(**({} if options is True else options))


def _networks(model: nn.Module) -> Iterator[nn.Module]:
    """Yield the outermost modules that are called: neither containers nor models in the model."""
    for name, child in model.named_children():
        if isinstance(child, (nn.ModuleList, nn.ModuleDict, BaseModel)):
            yield from _networks(child)
        elif name != 'data_preprocessor':
            yield child
