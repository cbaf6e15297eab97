"""Build, load, freeze, place and run the teachers."""

import random
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import numpy as np
import torch
from mmengine.config import Config
from mmengine.logging import print_log
from mmengine.registry import DefaultScope
from torch import Tensor, nn

from mmkd.distillation.checkpoints import load_weights
from mmkd.distillation.taps import TapRecorder, forward_for_taps
from mmkd.errors import UserError
from mmkd.registry import MODELS

__all__ = ['Teacher', 'build_model', 'build_teacher', 'renormalisation', 'undisturbed_random_state']


@contextmanager
def undisturbed_random_state() -> Iterator[None]:
    """Put back the state of every random generator, so that what a run draws stays the same."""
    states = random.getstate(), np.random.get_state()
    devices = [torch.cuda.current_device()] if torch.cuda.is_available() else []
    try:
        with torch.random.fork_rng(devices):
            yield
    finally:
        random.setstate(states[0])
        np.random.set_state(states[1])


class Teacher:
    """A frozen network that gives its taps for a batch of the student's inputs.

    It is no ``nn.Module``: nothing that walks the student's modules may meet it.

    Args:
        name: its name in the config.
        model: the network; put into eval mode, gradients off.
        weight: share of this teacher among its peers, > 0.
        classes: the names its outputs stand for, in order, or None if unknown.
        renormalise: from :func:`renormalisation`, or None where student and teacher agree.
    """

    def __init__(self, name: str, model: nn.Module, weight: float = 1.0,
                 classes: Sequence[str] | None = None,
                 renormalise: Callable[[Tensor, Sequence | None], Tensor] | None = None) -> None:
        self.name = name
        self.model = model.eval().requires_grad_(False)
        self.weight = weight
        self.classes = tuple(classes) if classes is not None else None
        self._renormalise = renormalise
        self._recorder = TapRecorder(model, ())

    def tap(self, taps: Iterable[str], inputs: Tensor) -> dict[str, Any]:
        """Choose what to record, and return it for ``inputs`` (``(B, 3, H, W)``) as a dry run."""
        self._recorder.remove()
        self._recorder = TapRecorder(self.model, taps)
        return self._recorder.dry_run(lambda: self._forward(inputs, None))

    def __call__(self, inputs: Tensor, data_samples: Sequence | None = None) -> dict[str, Any]:
        """Return the tapped values, without gradients.

        Args:
            inputs: ``(B, 3, H, W)``, preprocessed for the student.
            data_samples: their ``img_shape`` tells which part of an input is padding.
        """
        self._recorder.start()
        with torch.no_grad():
            self._forward(inputs, data_samples)
        return self._recorder.take()

    def _forward(self, inputs: Tensor, data_samples: Sequence | None) -> None:
        if self._renormalise is not None:
            inputs = self._renormalise(inputs, data_samples)
        forward_for_taps(self.model, inputs)


def renormalisation(student: nn.Module, teacher: nn.Module
                    ) -> Callable[[Tensor, Sequence | None], Tensor] | None:
    """How to turn the student's inputs into the teacher's, from their data preprocessors.

    ``x_t = (x_s * std_s + mean_s - mean_t) / std_t``, channels reversed where one network takes
    RGB and the other BGR, padding set to the teacher's own normalised zero.

    Returns:
        a function of ``(inputs, data_samples)``, or None if both agree.
    """
    def constants(preprocessor: nn.Module) -> tuple[Tensor, Tensor]:
        if getattr(preprocessor, '_enable_normalize', False):
            return preprocessor.mean, preprocessor.std
        return torch.zeros(3, 1, 1), torch.ones(3, 1, 1)

    def takes_other_order(preprocessor: nn.Module) -> bool:
        return bool(getattr(preprocessor, '_channel_conversion', False))

    flip = takes_other_order(student) != takes_other_order(teacher)
    (mean_s, std_s), (mean_t, std_t) = constants(student), constants(teacher)
    if flip:
        mean_s, std_s = mean_s.flip(0), std_s.flip(0)
    if not flip and torch.equal(mean_s.cpu(), mean_t.cpu()) and torch.equal(std_s.cpu(),
                                                                          std_t.cpu()):
        return None

    def renormalise(inputs: Tensor, data_samples: Sequence | None) -> Tensor:
        s_mean, s_std, t_mean, t_std = (c.to(inputs) for c in (mean_s, std_s, mean_t, std_t))
        outputs = inputs.flip(1) if flip else inputs
        outputs = (outputs * s_std + s_mean - t_mean) / t_std
        # A list has a sample per image; images of one size come with one sample for all.
        for i, sample in enumerate(data_samples if isinstance(data_samples, (list, tuple)) else ()):
            height, width = getattr(sample, 'img_shape', inputs.shape[-2:])[:2]
            outputs[i, :, height:] = 0
            outputs[i, :, :, width:] = 0
        return outputs

    return renormalise


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
                  weight: float = 1.0) -> Teacher:
    """Build a teacher from its config and checkpoint, frozen and on ``device``.

    Raises:
        UserError: from :func:`build_model`, or the checkpoint is missing, truncated, of another
            architecture, or would run code.
    """
    if not isinstance(weight, (int, float)) or not 0 < weight < float('inf'):
        raise UserError(f"teacher '{name}' has weight {weight!r}: give a number above 0, or take "
                        'the teacher out')
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
                   renormalisation(student_preprocessor, model.data_preprocessor))
