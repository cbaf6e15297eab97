"""Teachers that are made of the student."""

from collections.abc import Iterable
from typing import Any

from mmengine.model import BaseAveragedModel
from torch import Tensor, nn

from mmkd.distillation.taps import Tapped
from mmkd.distillation.teachers import Teacher
from mmkd.errors import UserError

__all__ = ['FloatTeacher', 'MeanTeacher', 'PartnerTeacher']


class _RampedAverage(BaseAveragedModel):
    """``mean <- a mean + (1 - a) student`` with ``a = min(1 - 1 / (t + 1), decay)`` at step t."""

    def __init__(self, model: nn.Module, decay: float) -> None:
        super().__init__(model, update_buffers=True)
        self.decay = decay

    def avg_func(self, averaged_param: Tensor, source_param: Tensor, steps: int) -> None:
        """Move the average towards the student."""
        share = max(1 / (int(steps) + 1), 1 - self.decay)
        averaged_param.lerp_(source_param.to(averaged_param.dtype), share)


class MeanTeacher(Teacher):
    """The exponential moving average of the student over the iterations, in eval mode.

    ``a = min(1 - 1 / (t + 1), decay)``, so that the first steps do not count for ever. Buffers (the
    statistics of batch norms) are averaged as the weights are.

    Source: A. Tarvainen, H. Valpola, "Mean teachers are better role models", NeurIPS 2017, arXiv
    1703.01780.

    Args:
        name: its name in the config.
        student: the network; copied.
        decay: in ``[0, 1)``.
        weight: share of this teacher among its peers, > 0.

    Raises:
        UserError: ``decay`` is out of range.
    """

    begins_as_the_student = True

    def __init__(self, name: str, student: nn.Module, decay: float, weight: float = 1.0) -> None:
        if not isinstance(decay, float) or not 0 <= decay < 1:
            raise UserError(f"teacher '{name}' has ema={decay!r}: give a number in [0, 1), such as "
                            '0.999')
        self.average = _RampedAverage(student, decay)
        super().__init__(name, self.average.module, weight)
        # It moves the tensors it has listed: another layout of memory makes others of them.
        self.average.avg_parameters = self.average.module.state_dict()

    def begin(self, student: nn.Module) -> None:
        """Take over the weights that the run starts from, unless it goes on from a checkpoint."""
        if self.average.steps == 0:
            self.average.module.load_state_dict(student.state_dict())

    def update(self, student: nn.Module) -> None:
        """Move one step towards the student."""
        self.average.update_parameters(student)


class FloatTeacher(MeanTeacher):
    """The student as it was before it was rounded for int8; until then, the student itself.

    Args:
        name: its name in the config.
        student: the network; copied.
        weight: share of this teacher among its peers, > 0.
    """

    def __init__(self, name: str, student: nn.Module, weight: float = 1.0) -> None:
        super().__init__(name, student, 0.0, weight)
        self._frozen = False

    def freeze(self) -> None:
        """Follow the student no longer."""
        self._frozen = True
        self.average.steps.fill_(1)  # a resumed run does not begin with it anew

    def update(self, student: nn.Module) -> None:
        """Be the student, unless frozen."""
        if not self._frozen:
            self.average.module.load_state_dict(student.state_dict())


class PartnerTeacher(Teacher):
    """The student itself, as it is in this step, on other images of the same classes.

    It runs without gradients on ``data_samples.partners`` ``(B, 3, H, W)``, in the student's own
    mode, so that batch norms see these images too.

    Args:
        name: its name in the config.
        student: the network; not copied.
        weight: share of this teacher among its peers, > 0.
    """

    _renormalise, _compiled, _run, _precision, _channels_last = None, False, None, None, False

    def __init__(self, name: str, student: nn.Module, weight: float = 1.0) -> None:
        self.name = name
        self.model = student
        self.weight = weight
        self.classes = None

    def tap(self, taps: Iterable[str], inputs: Tensor, data_samples: Any = None) -> Tapped:
        """Choose what to record, in eval mode so that no batch norm learns from the dry run."""
        training = self.model.training
        self.model.eval()
        try:
            return super().tap(taps, inputs)
        finally:
            self.model.train(training)

    def _own_inputs(self, inputs: Tensor, data_samples: Any,
                    shared: dict[Any, Tensor]) -> Tensor:
        if data_samples is None:
            return inputs
        partners = getattr(data_samples, 'partners', None)
        if partners is None:
            raise UserError(f"teacher '{self.name}' needs a partner for every image: put "
                            "batch_sampler=dict(type='PairSampler') into train_dataloader and "
                            'pairs=True into the data_preprocessor')
        return partners
