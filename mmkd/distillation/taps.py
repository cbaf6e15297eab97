"""Record what named parts of a model take in or give out; see :mod:`.tap_paths` for the names."""

import copy
from collections.abc import Callable, Iterable, Mapping
from typing import Any, NamedTuple

import torch
from mmengine.logging import print_log
from mmengine.model import BaseModel
from mmengine.structures import BaseDataElement
from torch import Tensor, nn

from mmkd.distillation.tap_paths import (
    INPUT,
    INPUTS,
    endpoint_of,
    endpoints,
    find_module,
    leaves_of,
    method_name,
    tensors_in,
)
from mmkd.errors import UserError

__all__ = ['Leaf', 'TapInfo', 'TapRecorder', 'Tapped', 'flat', 'forward_for_taps', 'list_taps',
           'map_tensors']

Tapped = dict[str, dict[str, Tensor]]
"""For each tap of a config the leaves that it stands for, by name."""


def map_tensors(function: Callable[[Tensor], Any], value: Any) -> Any:
    """Apply ``function`` to every tensor in nested lists, tuples and dicts."""
    if isinstance(value, Tensor):
        return function(value)
    if isinstance(value, Mapping):
        return {key: map_tensors(function, item) for key, item in value.items()}
    if isinstance(value, (list, tuple)):
        return [map_tensors(function, item) for item in value]
    return value


def _copied(value: Any) -> Any:
    """Clone every tensor in nested lists, tuples and dicts, and keep their types."""
    if isinstance(value, Tensor):
        return value.clone()
    if isinstance(value, Mapping):
        same = copy.copy(value)  # some give their items as attributes, too
        for key, item in value.items():
            same[key] = _copied(item)
        return same
    if isinstance(value, (list, tuple)):
        items = map(_copied, value)
        return type(value)(*items) if hasattr(value, '_fields') else type(value)(items)
    return value


def flat(tapped: Tapped) -> dict[str, Tensor]:
    """Return all leaves of all taps."""
    return {name: leaf for leaves in tapped.values() for name, leaf in leaves.items()}


def forward_for_taps(model: nn.Module, inputs: Tensor, samples: Any = None) -> None:
    """Run a model up to its raw outputs, so that every tap is passed.

    An mmengine model is called as ``model(inputs, samples, mode='tensor')``, any other module as
    ``model(inputs)``.

    Args:
        model: the network.
        inputs: ``(B, 3, H, W)``, normalised.
        samples: of the batch; two-stage detectors and DETRs read the images' sizes there.
    """
    if isinstance(model, BaseModel):
        model(inputs, samples, mode='tensor')
    else:
        model(inputs)


class TapRecorder:
    """Keeps what the tapped modules give from :meth:`start` to :meth:`take`.

    Meanwhile each of them has an attribute ``forward`` of its own that records and calls the
    class's: it is passed whether the module is called or, as MMDetection does with heads, its
    ``forward`` is; nothing is left for ``copy.deepcopy`` (an EMA) or ``state_dict`` to find.

    A later in-place operation (``ReLU(inplace=True)``, ``out += identity``) would silently change
    what was recorded: such values are found out by the tensors' version counters in the dry run
    and the network goes on with clones of them from then on; the others are not copied. In a
    network that was compiled before that, all are cloned.

    Args:
        model: the network.
        taps: names, see :mod:`.tap_paths`.
        stays: record at every call, without taking the attributes off in between; for a network
            that nobody copies and a compiler would otherwise see change.

    Raises:
        UserError: a tap does not exist.
    """

    def __init__(self, model: nn.Module, taps: Iterable[str], stays: bool = False) -> None:
        self._taps = {tap: endpoints(model, tap) for tap in dict.fromkeys(taps)}
        self._stays = stays
        self._recording = False
        self._is_dry = False
        self._values: dict[str, list[Any]] = {}
        self._versions: dict[str, list[Any]] = {}
        self._cloned: set[str] = set()
        self._expected: dict[str, list[str]] = {}
        self._patches = self._wrappers(model)
        self._previous: list[Any] = []

    def _wrappers(self, model: nn.Module) -> list[tuple[nn.Module, str, Callable]]:
        wanted: dict[tuple[nn.Module, str], list[str]] = {}
        for taps in self._taps.values():
            for endpoint in map(endpoint_of, taps):
                owner = find_module(model, endpoint), method_name(endpoint)
                found = wanted.setdefault(owner, [])
                if endpoint not in found:
                    found.append(endpoint)
        return [(module, method, self._wrapper(module, method, found))
                for (module, method), found in wanted.items()]

    def _wrapper(self, module: nn.Module, method: str, wanted: list[str]) -> Callable:
        own = getattr(module, method)
        entering = [endpoint for endpoint in wanted if endpoint.endswith((INPUT, INPUTS))]
        leaving = [endpoint for endpoint in wanted if endpoint not in entering]

        def recorded(*args: Any, **kwargs: Any) -> Any:
            given = [*args, *kwargs.values()]
            for endpoint in entering:
                if endpoint.endswith(INPUTS):
                    given = self._record(endpoint, given)
                else:
                    given[0] = self._record(endpoint, given[0])
            output = own(*given[:len(args)],
                         **dict(zip(kwargs, given[len(args):], strict=True)))
            for endpoint in leaving:
                output = self._record(endpoint, output)
            return output

        return recorded

    def _record(self, endpoint: str, value: Any) -> Any:
        """Keep a value; return what the network goes on with."""
        if not self._recording:
            return value
        if torch.compiler.is_compiling() and self._is_dry:  # a graph has no versions
            self._cloned.add(endpoint)
        self._values.setdefault(endpoint, []).append(value)
        if not torch.compiler.is_compiling():
            self._versions.setdefault(endpoint, []).append(
                map_tensors(lambda tensor: tensor._version, value))
        # The network gets the clone: so gradients of its own loss pass through what is recorded.
        return _copied(value) if endpoint in self._cloned else value

    def start(self) -> None:
        """Forget what was recorded and record from now on."""
        if not (self._stays and self._previous):
            self.stop()  # where a pass that failed has left something
            for module, method, wrapper in self._patches:
                self._previous.append(vars(module).get(method))
                object.__setattr__(module, method, wrapper)
        self._values, self._versions, self._recording = {}, {}, True

    def stop(self) -> None:
        """Record no longer, and leave nothing on the modules."""
        self._recording = False
        for (module, method, _), previous in zip(reversed(self._patches),
                                                 reversed(self._previous), strict=False):
            if previous is None:
                vars(module).pop(method, None)
            else:
                object.__setattr__(module, method, previous)
        self._previous = []

    def take(self) -> dict[str, Tensor]:
        """Stop recording, return the leaves by name and let go of them.

        Raises:
            UserError: there are other leaves than in the dry run.
        """
        self._stop_unless_it_stays()
        self._clone_from_now_on()
        tapped = self._tapped()
        for tap, names in self._expected.items():
            if list(tapped[tap]) != names:
                raise UserError(f"tap '{tap}' stands for {len(tapped[tap])} tensors, and in the "
                                f'dry run it stood for {len(names)}: the model takes another way; '
                                'name a tap that every forward pass gives')
        return flat(tapped)

    def record(self, run: Callable[[], Any]) -> dict[str, Tensor]:
        """Record ``run()``, a forward pass as that of the dry run, and return the leaves."""
        self.start()
        try:
            run()
        finally:
            self._stop_unless_it_stays()
        return self.take()

    def dry_run(self, run: Callable[[], Any]) -> Tapped:
        """Record ``run()`` without gradients; learn what each tap stands for and what to clone.

        Raises:
            UserError: ``run`` never reaches a tap, or a tap stands for several tensors and does not
                say which.
        """
        self._is_dry = True
        self.start()
        try:
            with torch.no_grad():
                run()
        finally:
            self._is_dry = False
            self._stop_unless_it_stays()
        self._cloned |= set(self._changed())
        tapped = self._tapped()
        self._expected = {tap: list(leaves) for tap, leaves in tapped.items()}
        return tapped

    def _stop_unless_it_stays(self) -> None:
        self._recording = False
        if not self._stays:
            self.stop()

    def _tapped(self) -> Tapped:
        values, self._values = self._values, {}
        found: Tapped = {}
        for tap, ends in self._taps.items():
            found[tap] = {}
            for end in ends:
                endpoint = endpoint_of(end)
                if endpoint not in values:
                    raise UserError(f"tap '{end}' names a module that a forward pass never calls: "
                                    'tap the module around it; `mmkd taps CONFIG` lists '
                                    'those that are called')
                calls = values[endpoint]
                found[tap] |= leaves_of(end, calls[0] if len(calls) == 1 else calls)
        return found

    def _clone_from_now_on(self) -> None:
        changed = self._changed()
        if changed:
            print_log(f"What {', '.join(changed)} gave was changed in place, and in the dry run it "
                      'was not: this step saw the changed values, later ones see copies',
                      'current', level=30)
            self._cloned |= set(changed)

    def _changed(self) -> list[str]:
        found = [endpoint for endpoint, versions in self._versions.items()
                 if map_tensors(lambda tensor: tensor._version,
                                self._values[endpoint]) != versions]
        self._versions = {}
        return found


class Leaf(NamedTuple):
    """One tensor that a module gives."""

    name: str
    """What to write as a tap."""
    shape: tuple[int, ...]
    """For one image."""
    stride: float | None
    """Input pixels per cell, of a map ``(B, C, H, W)``."""


class TapInfo(NamedTuple):
    """One entry of :func:`list_taps`."""

    name: str
    """Dotted name of the submodule."""
    kind: str
    """Its class."""
    calls: int
    """How often a forward pass calls it."""
    leaves: list[Leaf]


def list_taps(model: nn.Module, inputs: Tensor) -> list[TapInfo]:
    """Run a model once in eval mode and describe every submodule that was called.

    Args:
        model: the network.
        inputs: ``(1, 3, H, W)`` float32.
    """
    modules = {name: module for name, module in model.named_modules() if name}
    recorder = TapRecorder(model, modules)
    training = model.training
    model.eval()
    recorder.start()
    try:
        with torch.no_grad():
            forward_for_taps(model, inputs, [blank_sample(inputs)])
    finally:
        recorder.stop()
        model.train(training)
    found = []
    for name, module in modules.items():
        calls = recorder._values.get(name, [])
        if calls:
            leaves = [Leaf(path, tuple(tensor.shape), inputs.shape[-1] / tensor.shape[-1]
                           if tensor.dim() == 4 and len(tensor) == len(inputs) else None)
                      for path, tensor in tensors_in(name, calls[0] if len(calls) == 1 else calls)]
            if len(leaves) == 1:
                leaves = [leaves[0]._replace(name=name)]
            found.append(TapInfo(name, type(module).__name__, len(calls), leaves))
    return found


def blank_sample(inputs: Tensor) -> BaseDataElement:
    """Return the data sample of an image that fills its input and is labelled with nothing."""
    size = tuple(inputs.shape[-2:])
    return BaseDataElement(metainfo=dict(
        img_shape=size, ori_shape=size, pad_shape=size, batch_input_shape=size,
        scale_factor=(1.0, 1.0)))
