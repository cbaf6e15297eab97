"""A run's folder, read for a report."""

import json
from collections.abc import Sequence
from dataclasses import dataclass, field
from functools import cached_property
from pathlib import Path
from typing import Any

import torch
from mmengine.config import Config
from torch import nn

from mmkd.distillation import build_model, load_weights
from mmkd.distillation.foundation import spelled_out
from mmkd.engine.config import load_config
from mmkd.engine.results import VALIDATION, Row, read_results
from mmkd.engine.run_folder import CHECK, CONFIG, RESULTS, is_better, kept_weights
from mmkd.errors import UserError

__all__ = ['Run', 'read_runs']


@dataclass
class Run:
    """What is known of one training; ``measured`` is what panels found out for the table."""

    folder: Path
    name: str
    cfg: Config
    rows: list[Row]
    check: dict[str, Any] = field(default_factory=dict)
    measured: dict[str, str] = field(default_factory=dict)

    @property
    def is_classifier(self) -> bool:
        """Whether its model is a classifier of mmkd."""
        return self.cfg.model.get('type') == 'Classifier'

    @property
    def teachers(self) -> dict[str, dict]:
        """The teachers that have a checkpoint; others are made of the student."""
        return {name: spelled_out(name, entry) for name, entry in
                (self.cfg.get('teachers') or {}).items() if 'checkpoint' in entry}

    @property
    def weights(self) -> Path:
        """``best.pth``, or else ``last.pth``.

        Raises:
            UserError: there is neither.
        """
        return kept_weights(self.folder)

    @property
    def metric(self) -> str | None:
        """The column of the metric that judges the run; None if it was not validated."""
        return next((name for row in self.rows for name in row if name.startswith(VALIDATION)),
                    None)

    def best_row(self) -> Row | None:
        """Return the row of the best validation."""
        best = None
        for row in self.rows:
            if self.metric in row and (best is None or is_better(
                    self.metric, row[self.metric], best[self.metric])):
                best = row
        return best

    @cached_property
    def model(self) -> nn.Module:
        """The student as it is now."""
        return loaded(self.cfg, self.weights)

    def teacher(self, name: str) -> nn.Module:
        """Return a teacher.

        Raises:
            UserError: its checkpoint or config is not there or does not fit.
        """
        entry = self.teachers[name]
        config = Config(dict(model=entry['model'])) if 'model' in entry else entry['config']
        return loaded(config, entry['checkpoint'])

    def validation_loader(self) -> dict[str, Any]:
        """Return the config of the loader of validation images.

        Raises:
            UserError: the run has none.
        """
        loader = self.cfg.get('val_dataloader')
        if not loader:
            raise UserError('the config has no validation images (val_dataloader)')
        return loader


def loaded(config: Config | str, checkpoint: str | Path) -> nn.Module:
    """Build a network with its weights, for evaluation, where there is a GPU on it."""
    model = build_model(config)
    load_weights(model, checkpoint)
    return model.eval().to('cuda' if torch.cuda.is_available() else 'cpu')


def read_runs(folders: Sequence[str | Path]) -> list[Run]:
    """Read the folders of runs, each with a name that no other has.

    Raises:
        UserError: one is no folder of a training.
    """
    paths = [Path(folder) for folder in folders]
    names = [path.resolve().name for path in paths]
    if len(set(names)) < len(names):
        names = ['/'.join(path.resolve().parts[-2:]) for path in paths]
    if len(set(names)) < len(names):
        names = [str(path) for path in paths]
    return [_read(path, name) for path, name in zip(paths, names, strict=True)]


def _read(folder: Path, name: str) -> Run:
    if not (folder / CONFIG).is_file():
        raise UserError(f"'{folder}' is no folder of a training, it has no {CONFIG}: name the work "
                        'directory of mmkd train')
    check = folder / CHECK
    try:
        found = json.loads(check.read_text()) if check.is_file() else {}
    except ValueError:
        found = {}
    return Run(folder, name, load_config(folder / CONFIG), read_results(folder / RESULTS), found)
