"""Make the forward pass of a network that is never trained again faster."""

import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import torch
from mmengine.logging import print_log
from torch import Tensor, nn

from mmkd.errors import UserError
from mmkd.random_state import undisturbed_random_state

__all__ = ['PRECISIONS', 'CompiledRun', 'best_precision', 'computes_in_bfloat16',
           'runs_channels_last']

PRECISIONS = dict(bf16=torch.bfloat16, fp16=torch.float16)


def best_precision() -> str | None:
    """Return the fastest precision of this machine: that of its GPU, or bf16, or None."""
    if torch.cuda.is_available():
        return 'fp16'
    return 'bf16' if computes_in_bfloat16() else None


def computes_in_bfloat16() -> bool:
    """Whether the processor has instructions for it, as Linux lists its features."""
    features = Path('/proc/cpuinfo')
    return features.exists() and 'bf16' in features.read_text()


def runs_channels_last(model: nn.Module) -> bool:
    """Whether each layer of ``model`` understands any layout of memory.

    The compiled operators of mmcv take the memory they are given for ``(B, C, H, W)``.
    """
    return not any(str(type(module).forward.__module__).startswith('mmcv.ops')
                   for module in model.modules())


class CompiledRun:
    """A forward pass as ``torch.compile`` makes it; compiled when it is first called.

    Args:
        name: of the teacher.
        run: from inputs and data samples to the leaves by name.
    """

    def __init__(self, name: str, run: Callable[[Tensor, Any], dict[str, Tensor]]) -> None:
        self._name = name
        self._run = torch.compile(run)
        self._is_compiled = False

    def __call__(self, inputs: Tensor, data_samples: Any) -> dict[str, Tensor]:
        """Return the leaves by name.

        Raises:
            UserError: the network cannot be compiled.
        """
        if self._is_compiled:
            return self._run(inputs, data_samples)
        started = time.perf_counter()
        try:
            with undisturbed_random_state():
                values = self._run(inputs, data_samples)
        except torch.OutOfMemoryError:
            raise
        except Exception as error:  # of the compiler's many, some are no public classes
            reason = ' '.join(str(error).split('\n')[:2]).strip()
            raise UserError(f"teacher '{self._name}' does not compile ({type(error).__name__}: "
                            f'{reason}): take `compile` out of its entry') from error
        self._is_compiled = True
        print_log(f"Teacher '{self._name}' compiled in {time.perf_counter() - started:.0f} s",
                  'current')
        return values
