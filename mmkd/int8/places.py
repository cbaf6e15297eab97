"""Where a network is rounded for int8: found in one pass.

The places are those of an int8 file of :func:`mmkd.deploy.export.quantize.quantize_onnx`: what goes
into a layer, and what comes out of it behind its batch norm and its ReLU; whoever reads such a
feature reads it rounded. In a detector the layers whose output passes no other layer stay in float.

The pass and all later ones are seen by a ``TorchFunctionMode``, as a sequence of calls of
functions. A feature has a name by where it is made: which layer was called before, which function
made it, how many calls of that function after the layer. So dropout, which draws numbers in
training alone, changes no name.
"""

from collections import Counter
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from typing import Any, NamedTuple

import torch
from torch import Tensor, nn
from torch.nn.modules.batchnorm import _BatchNorm
from torch.overrides import TorchFunctionMode
from torch.utils._pytree import tree_leaves

from mmkd.int8.rounding import is_convolution

__all__ = ['LAYERS', 'NORM', 'Call', 'Place', 'Places', 'Track', 'converts_nothing', 'find_places',
           'passes_through', 'tensors_of']

LAYERS = dict(conv2d=nn.Conv2d, conv_transpose2d=nn.ConvTranspose2d, linear=nn.Linear)
"""By the function that computes it."""
NORM = 'batch_norm'
ACTIVATIONS = {'relu', 'relu_', 'relu6', 'hardtanh', 'hardtanh_', 'clamp', 'clamp_', 'clip'}
"""What becomes the limits of a layer's output."""
SAME_VALUES = {'max_pool2d', 'boolean_dispatch', 'fn', 'flatten', 'view', 'reshape', 'contiguous'}
"""Give values that they were given, so that rounded ones stay rounded."""
CONVERSIONS = {'to', 'float'}
"""Give back the tensor itself where there is nothing to convert."""


class Call(NamedTuple):
    """A call of a layer: its name, and which of its calls in a pass."""

    layer: str
    number: int


class Place(NamedTuple):
    """Where a tensor is made: behind which layer, by what, the how manieth and which of several."""

    behind: Call | None
    function: str
    number: int
    item: int


@dataclass
class Places:
    """What is rounded in a network.

    Args:
        calls: how often each layer in int8 is called in a pass.
        norms: by layer the batch norm that is part of it.
        inputs: by call the number of the feature that goes in.
        outputs: by call the number of the feature that comes out.
        made: by place the number of the feature that is made there; those that are made nowhere,
            the images, are rounded where they are read.
        count: of the features.
    """

    calls: dict[str, int]
    norms: dict[str, str]
    inputs: dict[Call, int]
    outputs: dict[Call, int]
    made: dict[Place, int]
    count: int

    def named(self) -> dict[str, int]:
        """Return the number of each feature by its names, ``LAYER:CALL:input`` or ``output``."""
        return {f'{call.layer}:{call.number}:{end}': number
                for end, numbers in (('input', self.inputs), ('output', self.outputs))
                for call, number in numbers.items()}


@dataclass(eq=False)
class _Value:
    place: Place | None = None
    source: '_Value | None' = None
    """Whose values it has, if it only passes them on."""
    padded: bool = False
    behind: frozenset[Call] = frozenset()
    """The layers that it comes from without another one between."""
    readers: list[tuple[str, '_Value | None']] = field(default_factory=list)


class Track:
    """Counts what was called, so that what is made has its place."""

    def __init__(self) -> None:
        self.start()

    def start(self) -> None:
        """Begin a pass."""
        self.calls: Counter[str] = Counter()
        self.last: Call | None = None
        self._since: Counter[str] = Counter()

    def layer(self, name: str, calls: int = 0) -> Call:
        """Return the call of a layer that happens now; ``calls`` of them are a pass."""
        number = self.calls[name] % calls if calls else self.calls[name]
        self.calls[name] += 1
        self.last = Call(name, number)
        self._since.clear()
        return self.last

    def made(self, function: str) -> Callable[[int], Place]:
        """Return the place of what a function gives now, by its item."""
        number = self._since[function]
        self._since[function] += 1
        last = self.last
        return lambda item: Place(last, function, number, item)


def tensors_of(result: Any) -> list[Tensor]:
    """Return the tensors that a function gave, in order."""
    if isinstance(result, Tensor):
        return [result]
    return [one for one in result if isinstance(one, Tensor)] if isinstance(
        result, (tuple, list)) else []


def converts_nothing(function: str, args: tuple, result: Any) -> bool:
    """Whether a call is none for the network, such as ``x.to(x.dtype)``."""
    return function in CONVERSIONS and bool(args) and result is args[0]


def passes_through(function: str, args: tuple, kwargs: dict) -> bool:
    """Whether a function gives values that it was given, or zeros."""
    if function == 'pad':
        options = dict(zip(('mode', 'value'), args[2:], strict=False)) | kwargs
        return options.get('mode', 'constant') == 'constant' and not options.get('value')
    return function in SAME_VALUES


def find_places(model: nn.Module, run: Callable[[], Any], keep_last: bool) -> Places:
    """Find what of a network is computed in int8.

    Args:
        model: in evaluation mode.
        run: calls it once.
        keep_last: leave the layers in float whose output passes no other layer: a detector's.

    Returns:
        the places; without layers if there are none.
    """
    finder = _Finder(model)
    with torch.no_grad(), finder:
        run()
    return finder.places(keep_last)


class _Finder(TorchFunctionMode):
    """Follows the tensors of one pass."""

    def __init__(self, model: nn.Module) -> None:
        super().__init__()
        self.layers = dict(_layers(model))
        self.norms = {id(module.running_mean): name for name, module in model.named_modules()
                      if isinstance(module, _BatchNorm) and module.running_mean is not None}
        self.track = Track()
        self.values: dict[int, _Value] = {}
        self.alive: list[Tensor] = []  # else another tensor could get an id that is known
        self.read: dict[Call, _Value] = {}
        self.given: dict[Call, _Value] = {}
        self.behind_norm: dict[str, list[_Value]] = {}

    def __torch_function__(self, function: Any, types: Any, args: Any = (),
                           kwargs: Any = None) -> Any:
        kwargs = kwargs or {}
        name = getattr(function, '__name__', '')
        result = function(*args, **kwargs)
        if converts_nothing(name, args, result):
            return result
        read = [self._value(tensor) for tensor in _all_tensors((args, kwargs))]
        made = tensors_of(result)
        call = self._call(name, args)
        if call is not None:
            self.read[call] = self._value(args[0])
        place = self.track.made(name) if made else None
        for item, tensor in enumerate(made):
            value = _Value(place(item), behind=frozenset().union(*(one.behind for one in read)))
            if call is not None:
                value.behind = frozenset([call])
                self.given[call] = value
            elif passes_through(name, args, kwargs) and read:
                value.source, value.padded = read[0], name == 'pad'
            if name == NORM and len(args) > 1 and id(args[1]) in self.norms:
                self.behind_norm.setdefault(self.norms[id(args[1])], []).append(value)
            for one in read:
                one.readers.append((name, value))
            self.values[id(tensor)] = value
            self.alive.append(tensor)
        return result

    def _call(self, name: str, args: tuple) -> Call | None:
        if name not in LAYERS or len(args) < 2 or id(args[1]) not in self.layers:
            return None
        if name == 'linear' and args[0].ndim != 2:  # with more it is no Gemm in ONNX
            return None
        return self.track.layer(self.layers[id(args[1])])

    def _value(self, tensor: Tensor) -> _Value:
        if id(tensor) not in self.values:
            self.values[id(tensor)] = _Value()
            self.alive.append(tensor)
        return self.values[id(tensor)]

    def places(self, keep_last: bool) -> Places:
        leading = frozenset().union(*(value.behind for value in self.read.values()))
        kept = {call.layer for call in self.read if keep_last and call not in leading}
        calls = [call for call in self.read if call.layer not in kept]
        found = Places({call.layer: self.track.calls[call.layer] for call in calls}, {}, {}, {}, {},
                       0)
        numbers: dict[_Value, int] = {}

        def number(value: _Value) -> int:
            if value not in numbers:
                numbers[value] = found.count
                found.count += 1
                if value.place is not None:
                    found.made[value.place] = numbers[value]
            return numbers[value]

        for call in calls:
            output = self._output(call, found.norms)
            found.outputs[call] = number(output)
        for call in calls:
            value = self.read[call]
            while value.padded:  # the export makes padding a part of the layer
                value = value.source
            rounded = value
            while value not in numbers and value.source is not None:
                value = value.source
            if value not in numbers:
                value = rounded
            found.inputs[call] = number(value)
        return found

    def _output(self, call: Call, norms: dict[str, str]) -> _Value:
        """The layer's output behind its norm and its ReLU, if nothing else reads it before."""
        value = self.given[call]
        by_value = {id(values[0]): norm for norm, values in self.behind_norm.items()
                    if len(values) == 1}
        reader, after = _only_reader(value)
        if (reader == NORM and id(after) in by_value and self.track.calls[call.layer] == 1):
            norms[call.layer] = by_value[id(after)]
            value = after
            reader, after = _only_reader(value)
        return after if reader in ACTIVATIONS else value


def _only_reader(value: _Value) -> tuple[str, _Value | None]:
    return value.readers[0] if len(value.readers) == 1 else ('', None)


def _layers(model: nn.Module) -> Iterator[tuple[int, str]]:
    for name, module in model.named_modules():
        if isinstance(module, tuple(LAYERS.values())) and (
                not isinstance(module, nn.ConvTranspose2d) or is_convolution(module)):
            yield id(module.weight), name


def _all_tensors(values: Any) -> Iterator[Tensor]:
    return (one for one in tree_leaves(values) if isinstance(one, Tensor))
