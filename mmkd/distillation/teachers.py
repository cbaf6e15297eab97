"""Build, load, freeze, place and run the teachers."""

from collections.abc import Iterable, Mapping, Sequence
from contextlib import AbstractContextManager, nullcontext
from pathlib import Path
from typing import Any

import torch
from mmengine.config import Config
from mmengine.logging import print_log
from mmengine.model import ImgDataPreprocessor
from mmengine.registry import DefaultScope
from torch import Tensor, nn

from mmkd.checkpoints import load_weights
from mmkd.config_files import config_path, read_config
from mmkd.distillation.foundation import FoundationModel
from mmkd.distillation.inference import PRECISIONS, CompiledRun, runs_channels_last
from mmkd.distillation.renormalisation import Renormalisation, fed_size, renormalisation
from mmkd.distillation.taps import Tapped, TapRecorder, forward_for_taps, map_tensors
from mmkd.errors import UserError, did_you_mean
from mmkd.random_state import undisturbed_random_state
from mmkd.registry import MODELS

__all__ = ['Teacher', 'build_model', 'build_teacher', 'renormalisation', 'undisturbed_random_state']


class Teacher:
    """A frozen network that gives its taps for a batch of the student's inputs.

    It is no ``nn.Module``: nothing that walks the student's modules may meet it.

    It runs under ``no_grad``, its memory laid out channels last. ``inference_mode`` would be no
    faster to speak of, and a loss could not save its tensors for the backward pass ("Inference
    tensors cannot be saved for backward"); nor do these tell whether they were changed in place, as
    :class:`TapRecorder` asks.

    Args:
        name: its name in the config.
        model: the network; put into eval mode, gradients off.
        weight: share of this teacher among its peers, > 0.
        classes: the names its outputs stand for, in order, or None if unknown.
        renormalise: from :func:`renormalisation`, or None where student and teacher agree.
        compiled: whether ``torch.compile`` compiles it, when it first sees a batch.
        precision: ``'bf16'`` or ``'fp16'`` to run it under autocast, its taps in float32 all the
            same; None to run it as the student is, or in float32 where its outputs are cached.

    Raises:
        UserError: ``compiled`` or ``precision`` is something else.
    """

    begins_as_the_student = False
    """Whether it has nothing to say in the first step."""

    def __init__(self, name: str, model: nn.Module, weight: float = 1.0,
                 classes: Sequence[str] | None = None,
                 renormalise: Renormalisation | None = None, compiled: bool = False,
                 precision: str | None = None) -> None:
        _check_options(name, compiled, precision)
        model.eval()  # in two statements: some backbones of MMDetection return None
        model.requires_grad_(False)
        self.name = name
        self.model = model
        self.weight = weight
        self.classes = tuple(classes) if classes is not None else None
        self._renormalise = renormalise
        self._compiled = compiled
        self._run: CompiledRun | None = None
        self._precision = precision
        self._channels_last = runs_channels_last(model)
        if self._channels_last:
            model.to(memory_format=torch.channels_last)

    def tap(self, taps: Iterable[str], inputs: Tensor, data_samples: Any = None) -> Tapped:
        """Choose what to record, and return it for ``inputs`` (``(B, 3, H, W)``) as a dry run.

        Raises:
            UserError: a tap does not exist, is never passed, or does not say which of several
                tensors it means.
        """
        inputs = self._own_inputs(inputs, data_samples, {})
        self._recorder = TapRecorder(self.model, taps, stays=self._compiled)
        if self._compiled:
            self._run = CompiledRun(self.name, self._recorded)
        with self._autocast(inputs):
            found = self._recorder.dry_run(lambda: self._forward(inputs, data_samples))
        return {tap: self._finished(leaves) for tap, leaves in found.items()}

    def __call__(self, inputs: Tensor, data_samples: Any = None,
                 shared: dict[Any, Tensor] | None = None) -> dict[str, Tensor]:
        """Return the tapped leaves by name, without gradients.

        Args:
            inputs: ``(B, 3, H, W)``, preprocessed for the student.
            data_samples: of the batch; their ``img_shape`` tells which part of an input is padding.
            shared: where teachers leave what they made of these inputs for each other; empty
                before the first.
        """
        inputs = self._own_inputs(inputs, data_samples, {} if shared is None else shared)
        run = self._recorded if self._run is None else self._run
        with torch.no_grad(), self._autocast(inputs):
            return self._finished(run(inputs, data_samples))

    def input_size(self, own: Sequence[int]) -> tuple[int, int]:
        """Return height and width of what it is fed for inputs of the student of this size."""
        renormalise = self._renormalise
        return fed_size(own) if renormalise is None else fed_size(
            own, renormalise.size, renormalise.multiple_of)

    def _own_inputs(self, inputs: Tensor, data_samples: Any,
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

    def _finished(self, values: dict[str, Tensor]) -> dict[str, Tensor]:
        if self._precision is None:
            return values
        return map_tensors(lambda value: value.float() if value.is_floating_point() else value,
                           values)

    def _forward(self, inputs: Tensor, data_samples: Any) -> None:
        forward_for_taps(self.model, inputs, data_samples)

    def _recorded(self, inputs: Tensor, data_samples: Any) -> dict[str, Tensor]:
        return self._recorder.record(lambda: self._forward(inputs, data_samples))


def _check_options(name: str, compiled: Any, precision: Any) -> None:
    if not isinstance(compiled, bool):
        raise UserError(f"teacher '{name}' has compile={compiled!r}: give True or False")
    if precision is not None and precision not in list(PRECISIONS):
        raise UserError(f"teacher '{name}' has precision={precision!r}: give "
                        f'{", ".join(map(repr, PRECISIONS))} or "auto", or leave it out to run the '
                        f'teacher as the student is.{did_you_mean(str(precision), PRECISIONS)}')


def build_model(config: str | Path | Config) -> nn.Module:
    """Build the model of a config under that config's own scope, without initial weights.

    Raises:
        UserError: the config file is missing or has no model.
    """
    cfg = config
    if not isinstance(config, Config):
        path = config_path(config)
        if not path.is_file():
            raise UserError(f"config '{config}' does not exist: correct the path")
        cfg = read_config(path)
    if 'model' not in cfg:
        raise UserError(f"config '{cfg.filename}' has no `model`: name a training config")
    with DefaultScope.overwrite_default_scope(cfg.get('default_scope', 'mmkd')):
        # Initial weights are only fetched by `init_weights`, which is never called here.
        return MODELS.build(cfg.model)


def build_teacher(name: str, config: str | Path | Config, checkpoint: str | Path,
                  student_preprocessor: nn.Module, device: torch.device,
                  weight: float = 1.0, compiled: bool = False, precision: str | None = None,
                  prefix: str = '', preprocessor: Mapping[str, Any] | str | None = None,
                  size: tuple[int, int] | None = None, multiple_of: int | None = None) -> Teacher:
    """Build a teacher from its config and checkpoint, frozen and on ``device``.

    Args:
        name: its name in the config.
        config: what it was trained with; its model may be any registered or importable
            ``nn.Module``, ``dict(type='package.module.Class', ...)``.
        checkpoint: its weights.
        student_preprocessor: the ``data_preprocessor`` of the student.
        device: where it runs.
        weight: share of this teacher among its peers.
        compiled: the entry's ``compile``; see :class:`Teacher`.
        precision: see :class:`Teacher`; in a config ``'auto'``, too, for what the machine is
            fastest with.
        prefix: see :func:`load_weights`.
        preprocessor: ``dict(mean=[...], std=[...], bgr_to_rgb=True)`` of a network that does not
            say itself how its inputs are normalised, or ``'none'`` for one that takes BGR pixels
            from 0 to 255.
        size: height and width that its inputs are resized to.
        multiple_of: number that the height and width of its inputs are rounded up to multiples of.
            A :class:`~mmkd.distillation.foundation.FoundationModel` knows both by itself.

    Raises:
        UserError: from :func:`build_model`, or the checkpoint is missing, truncated, of another
            architecture, or would run code; or another argument is missing or out of range.
    """
    if not isinstance(weight, (int, float)) or not 0 < weight < float('inf'):
        raise UserError(f"teacher '{name}' has weight {weight!r}: give a number above 0, or take "
                        'the teacher out')
    _check_options(name, compiled, precision)
    with undisturbed_random_state():
        model = build_model(config)
    own = _preprocessor_of(name, model, preprocessor)
    if isinstance(model, FoundationModel):
        size, multiple_of = size or model.size, multiple_of or model.multiple_of
    try:
        meta = load_weights(model, checkpoint, prefix)
    except UserError as error:
        raise UserError(f"teacher '{name}': {error}") from error
    classes = (meta.get('dataset_meta') or {}).get('classes')
    parameters = sum(p.numel() for p in model.parameters())
    print_log(f"Teacher '{name}': {parameters / 1e6:.2f} M parameters from {checkpoint}", 'current')
    return Teacher(name, model.to(device), weight, classes,
                   renormalisation(student_preprocessor, own, size, multiple_of), compiled,
                   precision)


def _preprocessor_of(name: str, model: nn.Module, given: Mapping[str, Any] | str | None
                     ) -> nn.Module:
    """Return what tells how a teacher's inputs are normalised.

    Raises:
        UserError: nothing does.
    """
    if given == 'none':
        return ImgDataPreprocessor()
    if given is not None:
        return ImgDataPreprocessor(**given)
    own = getattr(model, 'data_preprocessor', None)
    if not isinstance(own, ImgDataPreprocessor):
        raise UserError(f"teacher '{name}' ({type(model).__name__}) does not say how its inputs "
                        'are normalised: add preprocessor=dict(mean=[...], std=[...], '
                        "bgr_to_rgb=True) to its entry, or preprocessor='none' if it takes BGR "
                        'pixels from 0 to 255')
    return own
