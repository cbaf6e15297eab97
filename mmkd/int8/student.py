"""A network that computes with weights and features rounded for int8, and the ranges it learns."""

from collections.abc import Callable, Mapping
from typing import Any

import torch
from mmengine.dist import all_reduce_params
from torch import Tensor, nn
from torch.overrides import TorchFunctionMode

from mmkd.errors import UserError
from mmkd.int8.places import (
    LAYERS,
    NORM,
    Call,
    Places,
    Track,
    converts_nothing,
    passes_through,
    tensors_of,
)
from mmkd.int8.rounding import (
    rounded_bias,
    rounded_feature,
    rounded_weight,
    scale_and_zero,
    with_norm,
)

__all__ = ['RANGES', 'Ranges', 'Rounded']

LEAST_SHARE = 0.01
"""Of a batch in the moving average of a range, as in PyTorch's MovingAverageMinMaxObserver."""

RANGES = 'int8_ranges'
"""Where a checkpoint's ``meta`` has what :meth:`Ranges.saved` returns."""

Saved = dict[str, tuple[float, float, int]]
"""By the name of a feature: smallest value, largest value, of how many batches."""


class Ranges:
    """Smallest and largest value of each feature: averages over the batches of training.

    ``low <- low + a (min x - low)`` with ``a = max(1 / (t + 1), 0.01)`` at batch t, so that the
    first batches count alike. 0 belongs to every range.

    Args:
        places: of the features.
        device: where they are.
    """

    def __init__(self, places: Places, device: torch.device | str = 'cpu') -> None:
        self._numbers = places.named()
        self.low, self.high = (torch.zeros(places.count, device=device) for _ in range(2))
        self.batches = [0] * places.count

    @torch.no_grad()
    def observe(self, number: int, x: Tensor) -> None:
        """Let a feature's range follow what it is in this batch."""
        share = max(1 / (self.batches[number] + 1), LEAST_SHARE)
        self.batches[number] += 1
        low, high = x.detach().aminmax()
        self.low[number].lerp_(low.float().clamp(max=0), share)
        self.high[number].lerp_(high.float().clamp(min=0), share)

    def join(self) -> None:
        """Give all processes the same ranges: the mean of theirs."""
        all_reduce_params([self.low, self.high], op='mean')

    def saved(self) -> Saved:
        """Return them as plain numbers; a feature may have several names."""
        rows = list(zip(self.low.tolist(), self.high.tolist(), self.batches, strict=True))
        return {name: rows[number] for name, number in self._numbers.items()}

    def load(self, saved: Mapping[str, Any]) -> None:
        """Take over what :meth:`saved` returned.

        Raises:
            UserError: it is of another network, or no ranges.
        """
        if saved.keys() != self._numbers.keys():
            strange = sorted(saved.keys() ^ self._numbers.keys())
            raise UserError("the checkpoint's int8 ranges are of another network than the config's "
                            f'(first: {strange[0]}): use the config that it was trained with')
        for name, number in self._numbers.items():
            low, high, batches = saved[name]
            self.low[number], self.high[number] = low, high
            self.batches[number] = batches


class Rounded(TorchFunctionMode):
    """While it is entered, a network computes as its int8 file will: ``with rounded: model(x)``.

    Layers get rounded weights and biases with their batch norms inside, by the norms' running
    statistics, and features are rounded where :class:`Places` says. Functions are replaced as they
    are called; the model itself is not changed. Layers compute in float32 whatever autocast says:
    bfloat16 has no more digits than int8.

    Args:
        model: the network.
        places: found in it.
        ranges: of its features.
        learns: whether the ranges follow what passes, asked at each feature.
    """

    def __init__(self, model: nn.Module, places: Places, ranges: Ranges,
                 learns: Callable[[], bool] = lambda: False) -> None:
        super().__init__()
        self.places, self.ranges, self._learns = places, ranges, learns
        modules = dict(model.named_modules())
        self._layers = {name: modules[name] for name in places.calls}
        self._by_weight = {id(layer.weight): name for name, layer in self._layers.items()}
        self._norms = {layer: modules[norm] for layer, norm in places.norms.items()}
        self._folded = {id(norm.running_mean) for norm in self._norms.values()}
        self._track = Track()

    def __enter__(self) -> 'Rounded':
        self.start_pass()
        return super().__enter__()

    def start_pass(self) -> None:
        """Say that the model is called anew, where it was not entered anew."""
        self._track.start()

    def __torch_function__(self, function: Any, types: Any, args: Any = (),
                           kwargs: Any = None) -> Any:
        kwargs = kwargs or {}
        name = getattr(function, '__name__', '')
        key = id(args[1]) if len(args) > 1 else None
        if name in LAYERS and key in self._by_weight:
            result = self._layer(function, self._by_weight[key], args, kwargs)
        elif name == NORM and key in self._folded:
            result = args[0]
        else:
            result = function(*args, **kwargs)
            if converts_nothing(name, args, result):
                return result
        made = tensors_of(result)
        if not made:
            return result
        place = self._track.made(name)
        numbers = [self.places.made.get(place(item)) for item in range(len(made))]
        if any(number is not None for number in numbers):
            made = [one if number is None else self.round(number, one)
                    for number, one in zip(numbers, made, strict=True)]
            return made[0] if isinstance(result, Tensor) else type(result)(made)
        same = getattr(args[0], 'feature', None) if args and passes_through(
            name, args, kwargs) else None
        for one in made:
            if same is not None or hasattr(one, 'feature'):  # changed in place
                one.feature = same
        return result

    def _layer(self, function: Callable, name: str, args: tuple, kwargs: dict) -> Tensor:
        call = self._track.layer(name, self.places.calls[name])
        x = self._input(call, args[0])
        layer = self._layers[name]
        with torch.autocast(x.device.type, enabled=False):
            weight, bias = with_norm(layer, self._norms.get(name))
            number = self.places.inputs[call]
            step, _ = scale_and_zero(self.ranges.low[number], self.ranges.high[number])
            return function(x.float(), rounded_weight(weight, layer),
                            rounded_bias(bias, weight, layer, step), *args[3:], **kwargs)

    def _input(self, call: Call, x: Tensor) -> Tensor:
        number = self.places.inputs[call]
        if getattr(x, 'feature', None) == number:
            return x
        if number in self.places.made.values():
            raise UserError(f"int8-aware training cannot follow layer '{call.layer}', which is "
                            'called otherwise now than in the first pass: train this model without '
                            'int8_aware, and quantise its export with mmkd quantize')
        return self.round(number, x)

    def round(self, number: int, x: Tensor) -> Tensor:
        """Round a feature, whose range follows it in training."""
        if self._learns():
            self.ranges.observe(number, x)
        rounded = rounded_feature(x.float(), self.ranges.low[number], self.ranges.high[number])
        rounded.feature = number
        return rounded
