"""A teacher's forward pass: the plain network against what :class:`Teacher` makes of it.

CenterNets with ResNet-50 and Hourglass-104 on 4 images of 256x256 pixels, tapped at the head and
what enters it, and ResNet32x4 on 64 images of 32x32 pixels, tapped at its stages and logits. All
with random weights, batch norms set to the statistics of noise. The baseline, "eager", runs the
whole plain network without gradients and records the taps. Notes say how far the taps are from the
baseline's (largest difference over the largest value, of all taps) and how long compiling took.
Deep random networks amplify what differs, so bf16 looks worse here than in a trained network.
"""

import copy
import dataclasses
import time
from collections.abc import Callable, Iterable
from pathlib import Path
from typing import Any

import torch
from harness import Options, Result, compare
from mmengine.registry import DefaultScope
from torch import Tensor, nn

from mmkd.deploy.compare.random_weights import settle_random_weights
from mmkd.distillation.tap_paths import INPUT, endpoint_of, endpoints, find_module, leaves_of
from mmkd.distillation.taps import forward_for_taps
from mmkd.distillation.teachers import Teacher, build_model
from mmkd.registry import MODELS

CONFIGS = Path(__file__).parents[2] / 'configs/centernet'
DETECTOR_TAPS = ['bbox_head:*:-1', 'bbox_head:input:-1']
CLASSIFIER_TAPS = ['backbone.stage?', 'head.fc']


def measure(options: Options) -> Iterable[Result]:
    """Time every network."""
    if options.quick:
        yield from _compared('resnet8', _classifier('resnet8'), CLASSIFIER_TAPS, (2, 3, 32, 32),
                             options)
        return
    yield from _compared('resnet32x4', _classifier('resnet32x4'), CLASSIFIER_TAPS, (64, 3, 32, 32),
                         options)
    for name in ('r50', 'hourglass104'):
        yield from _compared(name, build_model(CONFIGS / f'centernet_{name}_voc.py'),
                             DETECTOR_TAPS, (4, 3, 256, 256), options)


def _classifier(backbone: str) -> nn.Module:
    with DefaultScope.overwrite_default_scope('mmkd'):
        return MODELS.build(dict(type='Classifier', backbone=dict(type=backbone), num_classes=100))


def _compared(name: str, model: nn.Module, taps: list[str], shape: tuple[int, ...],
              options: Options) -> list[Result]:
    torch.manual_seed(0)
    settle_random_weights(model, shape[-2:])
    device = torch.device('cuda' if torch.cuda.is_available() else 'cpu')
    model = model.to(device)
    inputs = torch.randn(shape, device=device)
    calls = {
        'eager': _recorded(copy.deepcopy(model), taps, inputs),
        'eager, inference_mode': _recorded(copy.deepcopy(model), taps, inputs,
                                           torch.inference_mode),
        'channels_last': _teacher(model, taps, inputs),
        'channels_last + bf16': _teacher(model, taps, inputs, precision='bf16'),
        'channels_last + compile': _teacher(model, taps, inputs, compiled=True),
    }
    expected = calls['eager']()
    notes = {call: f'difference {_difference(expected, calls[call]()):.0e}' for call in calls
             if call != 'channels_last + compile'}
    started = time.perf_counter()
    difference = _difference(expected, calls['channels_last + compile']())
    notes['channels_last + compile'] = (
        f'difference {difference:.0e}, compiled in {time.perf_counter() - started:.0f} s')
    return [dataclasses.replace(row, name=f'{name}, {row.name}', note=notes[row.name])
            for row in compare('teachers', calls, 'eager', options)]


def _recorded(model: nn.Module, taps: list[str], inputs: Tensor,
              mode: Callable = torch.no_grad) -> Callable[[], dict[str, Tensor]]:
    """The forward pass of a network as it is, and what its tapped modules take in or give out."""
    values: dict[str, Any] = {}
    taps = [end for tap in taps for end in endpoints(model, tap)]

    def attach(endpoint: str) -> None:
        module = find_module(model, endpoint)
        forward = module.forward  # a detector calls this one of its head, past any hook

        def keeping(*args: Any) -> Any:
            output = forward(*args)
            values[endpoint] = args[0] if endpoint.endswith(INPUT) else output
            return output

        module.forward = keeping

    for endpoint in {endpoint_of(tap) for tap in taps}:
        attach(endpoint)

    def run() -> dict[str, Tensor]:
        with mode():
            forward_for_taps(model, inputs)
        return {name: leaf for tap in taps
                for name, leaf in leaves_of(tap, values[endpoint_of(tap)]).items()}

    return run


def _teacher(model: nn.Module, taps: list[str], inputs: Tensor,
             **options: Any) -> Callable[[], dict[str, Tensor]]:
    teacher = Teacher('teacher', copy.deepcopy(model), **options)
    teacher.tap(taps, inputs[:1])
    return lambda: teacher(inputs)


def _difference(expected: dict[str, Tensor], found: dict[str, Tensor]) -> float:
    return max(float((found[leaf] - theirs).abs().max() / theirs.abs().max())
               for leaf, theirs in expected.items())
