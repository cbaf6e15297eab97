"""Rewrite a network that never trains again, so that its taps cost less."""

import copy
import time
from collections.abc import Callable, Sequence
from typing import Any

import torch
from mmengine.logging import print_log
from torch import Tensor, nn

from mmkd.distillation.random_state import undisturbed_random_state
from mmkd.distillation.taps import TapRecorder, forward_for_taps, map_tensors
from mmkd.errors import UserError
from mmkd.ops.folding import fold_into_layers

__all__ = ['CompiledRun', 'folded', 'runs_channels_last']

# Of a tap's norm, what may change. Rounding changes 1e-6 of it, in random networks 1e-4; on a GPU,
# which multiplies in TF32, a thousand times as much as on a CPU.
TOLERANCES = dict(cpu=1e-3, cuda=2e-2)


def folded(model: nn.Module, taps: Sequence[str], inputs: Tensor) -> nn.Module | None:
    """Return a copy of ``model`` whose batch norms moved into the layers before them.

    Where a tap records what such a layer gives to its norm, both stay. Weights that stay as they
    are are those of ``model``, not copies of them.

    Args:
        model: in eval mode.
        taps: what must keep its value, by name.
        inputs: ``(B, 3, H, W)``, normalised.

    Returns:
        the copy, or None if a tap of it differs by more than rounding: where a layer does something
        of its own with its weight.
    """
    tensors = {id(tensor): tensor for tensor in (*model.parameters(), *model.buffers())}
    network = copy.deepcopy(model, tensors)
    expected: dict[str, Any] = {}

    def run() -> dict[str, Any]:
        expected.update(_tapped(network, taps, inputs))
        return expected

    fold_into_layers(network, run)
    return network if _agree(expected, _tapped(network, taps, inputs)) else None


def _tapped(network: nn.Module, taps: Sequence[str], inputs: Tensor) -> dict[str, Any]:
    recorder = TapRecorder(network, taps)
    try:
        return recorder.dry_run(lambda: forward_for_taps(network, inputs))
    finally:
        recorder.remove()


def _agree(expected: Any, found: Any) -> bool:
    tensors: tuple[list[Tensor], list[Tensor]] = ([], [])
    map_tensors(tensors[0].append, expected)
    map_tensors(tensors[1].append, found)
    return all((ours - theirs).norm() <= TOLERANCES.get(ours.device.type, 2e-2) * theirs.norm()
               for theirs, ours in zip(*tensors, strict=True) if theirs.is_floating_point())


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
        run: from inputs to the values by tap.
    """

    def __init__(self, name: str, run: Callable[[Tensor], dict[str, Any]]) -> None:
        self._name = name
        self._run = torch.compile(run)
        self._is_compiled = False

    def __call__(self, inputs: Tensor) -> dict[str, Any]:
        """Return the values by tap.

        Raises:
            UserError: the network cannot be compiled.
        """
        if self._is_compiled:
            return self._run(inputs)
        started = time.perf_counter()
        try:
            with undisturbed_random_state():
                values = self._run(inputs)
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
