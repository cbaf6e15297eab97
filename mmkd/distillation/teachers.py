"""Build, load, freeze, place and run the teachers."""

from collections.abc import Iterable, Sequence
from contextlib import AbstractContextManager, nullcontext
from pathlib import Path
from typing import Any

import torch
from mmengine.config import Config
from mmengine.logging import print_log
from mmengine.registry import DefaultScope
from torch import Tensor, nn

from mmkd.distillation.checkpoints import load_weights
from mmkd.distillation.inference import CompiledRun, folded, runs_channels_last
from mmkd.distillation.random_state import undisturbed_random_state
from mmkd.distillation.renormalisation import Renormalisation, renormalisation
from mmkd.distillation.taps import TapRecorder, expand_taps, forward_for_taps, map_tensors
from mmkd.errors import UserError, did_you_mean
from mmkd.registry import MODELS

__all__ = ['Teacher', 'build_model', 'build_teacher', 'renormalisation', 'undisturbed_random_state']

PRECISIONS = dict(bf16=torch.bfloat16, fp16=torch.float16)


class Teacher:
    """A frozen network that gives its taps for a batch of the student's inputs.

    It is no ``nn.Module``: nothing that walks the student's modules may meet it.

    It is run for its taps alone: once they are chosen, batch norms are folded into the layers
    before them (but for those that a tap would show), and memory is laid out channels last; a
    forward pass ends at the last tap. Values differ from the plain network's by rounding.

    It runs under ``no_grad``. ``inference_mode`` would be no faster to speak of, and a loss could
    not save its tensors for the backward pass ("Inference tensors cannot be saved for backward");
    nor do these tell whether they were changed in place, as :class:`TapRecorder` asks.

    Args:
        name: its name in the config.
        model: the network; put into eval mode, gradients off.
        weight: share of this teacher among its peers, > 0.
        classes: the names its outputs stand for, in order, or None if unknown.
        renormalise: from :func:`renormalisation`, or None where student and teacher agree.
        compiled: whether ``torch.compile`` compiles it, when it first sees a batch.
        precision: ``'bf16'`` or ``'fp16'`` to run it under autocast, its taps in float32 all the
            same; None to run it as the student is.

    Raises:
        UserError: ``compiled`` or ``precision`` is something else.
    """

    rewritten = True
    """Whether its weights never change, so that they may be rewritten."""
    ends_early = True
    """Whether nothing behind the last tap matters."""
    _renormalise: Renormalisation | None = None
    _compiled = False
    _run: CompiledRun | None = None
    _precision: str | None = None
    _channels_last = False

    def __init__(self, name: str, model: nn.Module, weight: float = 1.0,
                 classes: Sequence[str] | None = None,
                 renormalise: Renormalisation | None = None, compiled: bool = False,
                 precision: str | None = None) -> None:
        _check_options(name, compiled, precision)
        self.name = name
        self.model = model.eval().requires_grad_(False)
        self.weight = weight
        self.classes = tuple(classes) if classes is not None else None
        self._renormalise = renormalise
        self._compiled = compiled
        self._precision = precision
        self._channels_last = self.rewritten and runs_channels_last(model)
        self._recorder = TapRecorder(model, ())

    def expand(self, taps: str | Sequence[str]) -> list[str]:
        """Return every tap that the names and wildcards in ``taps`` stand for.

        Raises:
            UserError: a name does not exist or a wildcard matches nothing.
        """
        return expand_taps(self.model, taps)

    def tap(self, taps: Iterable[str], inputs: Tensor) -> dict[str, Any]:
        """Choose what to record, and return it for ``inputs`` (``(B, 3, H, W)``) as a dry run.

        :attr:`model` is replaced by a network for these taps; others must not be chosen later.
        """
        taps = list(taps)
        inputs = self._own_inputs(inputs, None, {})
        self._recorder.remove()
        if self.rewritten:
            self._rewrite(taps, inputs)
        self._recorder = TapRecorder(self.model, taps)
        if self._compiled:
            self._run = CompiledRun(self.name, self._whole_forward)
        with self._autocast(inputs):
            return self._finished(self._recorder.dry_run(lambda: self._forward(inputs)))

    def _rewrite(self, taps: Sequence[str], inputs: Tensor) -> None:
        network = folded(self.model, taps, inputs)
        if network is None:
            print_log(f"Teacher '{self.name}' runs with its batch norms: it is slower, as its taps "
                      'change when they are folded', 'current')
        else:
            self.model = network
        if self._channels_last:
            self.model.to(memory_format=torch.channels_last)

    def __call__(self, inputs: Tensor, data_samples: Sequence | None = None,
                 shared: dict[Any, Tensor] | None = None) -> dict[str, Any]:
        """Return the tapped values, without gradients.

        Args:
            inputs: ``(B, 3, H, W)``, preprocessed for the student.
            data_samples: their ``img_shape`` tells which part of an input is padding.
            shared: where teachers leave what they made of these inputs for each other; empty
                before the first.
        """
        inputs = self._own_inputs(inputs, data_samples, {} if shared is None else shared)
        with torch.no_grad(), self._autocast(inputs):
            if self._run is not None:
                return self._finished(self._run(inputs))
            return self._finished(self._recorder.record(lambda: self._forward(inputs),
                                                        whole=not self.ends_early))

    def _own_inputs(self, inputs: Tensor, data_samples: Sequence | None,
                    shared: dict[Any, Tensor]) -> Tensor:
        key = self._renormalise, self._channels_last
        if key not in shared:
            own = inputs if self._renormalise is None else self._renormalise(inputs, data_samples)
            if self._channels_last and own.ndim == 4:
                own = own.contiguous(memory_format=torch.channels_last)
            shared[key] = own
        return shared[key]

    def _autocast(self, inputs: Tensor) -> AbstractContextManager:
        if self._precision is None:
            return nullcontext()
        return torch.autocast(inputs.device.type, PRECISIONS[self._precision])

    def _finished(self, values: dict[str, Any]) -> dict[str, Any]:
        if self._precision is None:
            return values
        return map_tensors(lambda value: value.float() if value.is_floating_point() else value,
                           values)

    def _forward(self, inputs: Tensor) -> None:
        forward_for_taps(self.model, inputs)

    def _whole_forward(self, inputs: Tensor) -> dict[str, Any]:
        return self._recorder.record(lambda: self._forward(inputs), whole=True)


def _check_options(name: str, compiled: Any, precision: Any) -> None:
    if not isinstance(compiled, bool):
        raise UserError(f"teacher '{name}' has compile={compiled!r}: give True or False")
    if precision is not None and precision not in list(PRECISIONS):
        raise UserError(f"teacher '{name}' has precision={precision!r}: give "
                        f'{" or ".join(map(repr, PRECISIONS))}, or leave it out to run the teacher '
                        f'as the student is.{did_you_mean(str(precision), PRECISIONS)}')


def build_model(config: str | Path | Config) -> nn.Module:
    """Build the model of a config under that config's own scope, without initial weights.

    Raises:
        UserError: the config file is missing or has no model.
    """
    cfg = config
    if not isinstance(config, Config):
        if not Path(config).is_file():
            raise UserError(f"config '{config}' does not exist: correct the path")
        cfg = Config.fromfile(config)
    if 'model' not in cfg:
        raise UserError(f"config '{cfg.filename}' has no `model`: name a training config")
    with DefaultScope.overwrite_default_scope(cfg.get('default_scope', 'mmkd')):
        # Initial weights are only fetched by `init_weights`, which is never called here.
        return MODELS.build(cfg.model)


def build_teacher(name: str, config: str | Path | Config, checkpoint: str | Path,
                  student_preprocessor: nn.Module, device: torch.device,
                  weight: float = 1.0, compiled: bool = False,
                  precision: str | None = None) -> Teacher:
    """Build a teacher from its config and checkpoint, frozen and on ``device``.

    Args:
        name: its name in the config.
        config: what it was trained with.
        checkpoint: its weights.
        student_preprocessor: the ``data_preprocessor`` of the student.
        device: where it runs.
        weight: share of this teacher among its peers.
        compiled: the entry's ``compile``; see :class:`Teacher`.
        precision: see :class:`Teacher`.

    Raises:
        UserError: from :func:`build_model`, or the checkpoint is missing, truncated, of another
            architecture, or would run code; or another argument is out of range.
    """
    if not isinstance(weight, (int, float)) or not 0 < weight < float('inf'):
        raise UserError(f"teacher '{name}' has weight {weight!r}: give a number above 0, or take "
                        'the teacher out')
    _check_options(name, compiled, precision)
    with undisturbed_random_state():
        model = build_model(config)
    try:
        meta = load_weights(model, checkpoint)
    except UserError as error:
        raise UserError(f"teacher '{name}': {error}") from error
    classes = (meta.get('dataset_meta') or {}).get('classes')
    parameters = sum(p.numel() for p in model.parameters())
    print_log(f"Teacher '{name}': {parameters / 1e6:.2f} M parameters from {checkpoint}", 'current')
    return Teacher(name, model.to(device), weight, classes,
                   renormalisation(student_preprocessor, model.data_preprocessor), compiled,
                   precision)
