"""Record what named submodules of a model take in or give out.

A tap is the dotted name of a submodule as ``model.named_modules()`` gives it
(``'backbone.layer3'``), which stands for its output; with ``':input'`` behind it
(``'bbox_head:input'``) for its first argument. Where several taps can be named, a wildcard stands
for every submodule that matches, in the order of the model: ``'backbone.stage?'``.
"""

from collections.abc import Callable, Iterable, Sequence
from contextlib import suppress
from fnmatch import fnmatchcase
from typing import Any, NamedTuple

import torch
from torch import Tensor, nn

from mmkd.errors import UserError, did_you_mean

__all__ = ['TapInfo', 'TapRecorder', 'expand_taps', 'find_module', 'forward_for_taps',
           'list_taps', 'map_tensors']


def map_tensors(function: Callable[[Tensor], Any], value: Any) -> Any:
    """Apply ``function`` to every tensor in nested lists, tuples and dicts."""
    if isinstance(value, Tensor):
        return function(value)
    if isinstance(value, dict):
        return {key: map_tensors(function, item) for key, item in value.items()}
    if isinstance(value, (list, tuple)):
        return [map_tensors(function, item) for item in value]
    return value


def _versions(value: Any) -> Any:
    return map_tensors(lambda tensor: tensor._version, value)


def forward_for_taps(model: nn.Module, inputs: Tensor) -> None:
    """Run an mmengine model up to its raw outputs, so that every tap is passed.

    No losses and no targets: ``mode='loss'`` would cost twice as much.

    Args:
        model: the network.
        inputs: ``(B, 3, H, W)``, normalised.
    """
    if hasattr(model, 'bbox_head') and hasattr(model, 'extract_feat'):
        # MMDetection's mode='tensor' calls `bbox_head.forward`, which no hook sees.
        model.bbox_head(model.extract_feat(inputs))
    else:
        model(inputs, mode='tensor')


def find_module(model: nn.Module, tap: str) -> nn.Module:
    """Return the submodule that a tap names.

    Raises:
        UserError: there is none; names the closest that exists.
    """
    name = tap.removesuffix(':input')
    modules = dict(model.named_modules())
    if name not in modules or not name:
        raise UserError(f"tap '{tap}' does not exist in {type(model).__name__}."
                        f'{did_you_mean(name, modules)} `python tools/taps.py CONFIG` lists them')
    return modules[name]


def expand_taps(model: nn.Module, taps: str | Sequence[str]) -> list[str]:
    """Return every tap that the names and wildcards in ``taps`` stand for.

    Raises:
        UserError: a name does not exist or a wildcard matches nothing.
    """
    expanded: list[str] = []
    for tap in [taps] if isinstance(taps, str) else taps:
        pattern, colon, end = tap.partition(':')
        if not any(sign in pattern for sign in '*?['):
            find_module(model, tap)
            expanded.append(tap)
            continue
        names = [name for name, _ in model.named_modules() if fnmatchcase(name, pattern)]
        if not names:
            raise UserError(f"tap '{tap}' matches no submodule of {type(model).__name__}: "
                            '`python tools/taps.py CONFIG` lists them')
        expanded += [name + colon + end for name in names]
    return expanded


class _AllRecorded(BaseException):  # which no `except Exception` of a network swallows
    """The last tap of a forward pass was recorded."""


class TapRecorder:
    """Keeps the latest value of each tap while :attr:`active`, until it is taken.

    A value is recorded as the submodule gave it. A later in-place operation
    (``ReLU(inplace=True)``, ``out += identity``) would silently change it: such taps are
    found out by the tensor's version counter at the first run and cloned from then on, so the
    first run must be a dry run. In a network that was compiled before that, all are cloned.

    The hooks are closures and hold no reference that ``copy.deepcopy(model)`` would follow.

    Args:
        model: the network.
        taps: names, see the module's docstring.

    Raises:
        UserError: a tap does not exist.
    """

    def __init__(self, model: nn.Module, taps: Iterable[str]) -> None:
        self.active = False
        self._values: dict[str, Any] = {}
        self._seen: dict[str, Any] = {}
        self._cloned: set[str] = set()
        self._count = 0  # of values that were recorded, and after how many of them to stop
        self._last: int | None = None
        self._calls = 0  # how many values a whole forward pass gives
        self._is_dry = False
        self._taps = list(dict.fromkeys(taps))
        self._handles = [self._attach(model, tap) for tap in self._taps]

    def _attach(self, model: nn.Module, tap: str) -> torch.utils.hooks.RemovableHandle:
        module = find_module(model, tap)

        def record(value: Any) -> None:
            if not self.active:
                return
            if tap in self._cloned:
                value = map_tensors(torch.clone, value)
            self._values[tap] = value
            if torch.compiler.is_compiling():
                # A graph has no versions, and computes for its outputs alone.
                if self._is_dry:
                    self._cloned.add(tap)
                return
            self._seen[tap] = _versions(value)
            self._count += 1
            if self._count == self._last:
                raise _AllRecorded

        if tap.endswith(':input'):
            return module.register_forward_pre_hook(lambda _, inputs: record(inputs[0]))
        return module.register_forward_hook(lambda _, inputs, output: record(output))

    def start(self) -> None:
        """Forget what was recorded and record from now on."""
        self._values, self._seen = {}, {}
        self._count, self._last = 0, None
        self.active = True

    def take(self) -> dict[str, Any]:
        """Stop recording, return the values by tap and let go of them.

        Raises:
            RuntimeError: a value was changed in place after it was recorded, though
                not in the dry run.
        """
        changed = self._changed()
        if changed:
            raise RuntimeError(f'taps {changed} were changed in place after they were recorded')
        values, self._values, self._seen = self._values, {}, {}
        self.active = False
        return values

    def record(self, run: Callable[[], Any], whole: bool = False) -> dict[str, Any]:
        """Record ``run()`` and return the values by tap.

        Args:
            run: a forward pass, as that of the dry run.
            whole: whether it runs to its end, or only until as many values were recorded as in the
                dry run: no further than the last tap.
        """
        self.start()
        if not whole:
            self._last = self._calls
        with suppress(_AllRecorded):
            run()
        return self.take()

    def dry_run(self, run: Callable[[], Any]) -> dict[str, Any]:
        """Record ``run()`` without gradients and learn which taps must be cloned.

        Raises:
            UserError: ``run`` never reaches a tap.
        """
        self.start()
        self._is_dry = True
        with torch.no_grad():
            run()
        self._is_dry = False
        self._cloned |= set(self._changed())
        self._calls = self._count
        self._seen = {}
        values = self.take()
        unreached = [tap for tap in self._taps if tap not in values]
        if unreached:
            raise UserError(f"tap '{unreached[0]}' names a module that a forward pass never calls: "
                            'tap the module around it; `python tools/taps.py CONFIG` lists those '
                            'that are called')
        return values

    def _changed(self) -> list[str]:
        return [tap for tap, seen in self._seen.items() if _versions(self._values[tap]) != seen]

    def remove(self) -> None:
        """Take the hooks off the model."""
        for handle in self._handles:
            handle.remove()


class TapInfo(NamedTuple):
    """One line of :func:`list_taps`."""

    name: str
    """Dotted name of the submodule."""
    kind: str
    """Its class."""
    shapes: list[tuple[int, ...]]
    """Shapes of the tensors in its output, for one image."""
    strides: list[float]
    """Input pixels per cell of each four-dimensional output."""


def list_taps(model: nn.Module, inputs: Tensor) -> list[TapInfo]:
    """Run a model once in eval mode and describe every submodule that was called.

    Args:
        model: an mmengine model.
        inputs: ``(1, 3, H, W)`` float32.
    """
    found: dict[str, TapInfo] = {}

    def describe(name: str, module: nn.Module) -> Callable:
        def hook(_: nn.Module, args: Any, output: Any) -> None:
            tensors: list[Tensor] = []
            map_tensors(tensors.append, output)
            found[name] = TapInfo(
                name, type(module).__name__, [tuple(t.shape) for t in tensors],
                [inputs.shape[-1] / t.shape[-1] for t in tensors if t.dim() == 4])
        return hook

    handles = [module.register_forward_hook(describe(name, module))
               for name, module in model.named_modules() if name]
    training = model.training
    model.eval()
    try:
        with torch.no_grad():
            forward_for_taps(model, inputs)
    finally:
        model.train(training)
        for handle in handles:
            handle.remove()
    return [found[name] for name, _ in model.named_modules() if name in found]
