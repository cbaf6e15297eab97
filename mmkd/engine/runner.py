"""mmengine's runner, for students."""

from pathlib import Path
from typing import Any

from mmengine.logging import MMLogger
from mmengine.model import is_model_wrapper
from torch import nn

from mmkd.engine.amp import keep_strided_depthwise_in_float32
from mmkd.engine.environment import environment_report
from mmkd.engine.run_folder import LOG
from mmkd.engine.screen import keep_in_file
from mmkd.engine.student_options import compile_student, use_channels_last
from mmkd.mmengine_private import PreparedRunner

__all__ = ['StudentRunner', 'TrainingRunner']


class StudentRunner(PreparedRunner):
    """mmengine's, with the options of the student's step and a report of what it runs on.

    ``cfg`` may have the entries ``channels_last`` and ``compile`` of
    :mod:`mmkd.engine.student_options`; ``amp`` must be settled before, by
    :func:`~mmkd.engine.student_options.use_mixed_precision`.
    """

    def build_logger(self, *args: Any, **kwargs: Any) -> MMLogger:
        """Build mmengine's, with less on the screen."""
        logger = super().build_logger(*args, **kwargs)
        keep_in_file(logger)
        return logger

    def dump_config(self) -> None:
        """Write nothing: the folder's config is that of its training."""

    def on_logger_ready(self) -> None:
        """Log the environment."""
        self.logger.info('environment\n' + environment_report())

    def wrap_model(self, model_wrapper_cfg: dict | None, model: nn.Module) -> nn.Module:
        """Put the model on its device and, of several processes, into its wrapper."""
        if self.cfg.get('channels_last'):
            use_channels_last(model)
        wrapper = self.cfg.get('optim_wrapper') or {}
        if wrapper.get('type') == 'CPUAmpOptimWrapper' and wrapper.get('dtype') == 'bfloat16':
            keep_strided_depthwise_in_float32(model)
        return super().wrap_model(model_wrapper_cfg, model)

    def on_model_ready(self) -> None:
        """Compile the student, if it is to be."""
        if self.cfg.get('compile'):
            model = self.model.module if is_model_wrapper(self.model) else self.model
            compile_student(model, self.cfg.compile)


class TrainingRunner(StudentRunner):
    """The runner of a training, whose log lies at the top of the work directory."""

    def build_logger(self, *args: Any, **kwargs: Any) -> MMLogger:
        """Build mmengine's, that goes on with the log of a resumed run."""
        return super().build_logger(*args, **dict(
            kwargs, log_file=str(Path(self.work_dir, LOG))))
