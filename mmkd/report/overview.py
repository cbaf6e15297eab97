"""What was trained, what came of it, and what was known before."""

from collections.abc import Mapping, Sequence
from typing import Any

import torch
from mmengine.dataset import pseudo_collate
from torch import nn

from mmkd.deploy.compare.complexity import count_parameters
from mmkd.deploy.compare.latency import measure
from mmkd.engine.results import VALIDATION
from mmkd.engine.run_folder import kept_weights
from mmkd.engine.screen import shown
from mmkd.errors import UserError
from mmkd.registry import DATASETS
from mmkd.report.panels import Panel, Table
from mmkd.report.runs import Run

__all__ = ['before_training', 'headline', 'models']

ROUNDS = 10


def headline(run: Run) -> list[str]:
    """Return sentences: what was trained, from whom, to what result, and what to do next."""
    model = described(run.cfg.model)
    taught = ', '.join(f'{name} ({described(_model_of(entry))})'
                       for name, entry in run.teachers.items())
    terms = ', '.join(run.cfg.get('terms') or {})
    if taught:
        text = f'{model}, taught by {taught}' + (f' in the terms {terms}.' if terms else '.')
    else:
        text = f'{model}, trained without a teacher' + (f' with the terms {terms}.' if terms
                                                        else '.')
    return [text, _result(run), *_next(run)]


def _result(run: Run) -> str:
    if not run.rows:
        return 'No epoch is finished.'
    last, best = run.rows[-1], run.best_row()
    minutes = sum(row.get('seconds', 0) for row in run.rows) / 60
    text = f'{last["epoch"]:g} epochs in {minutes:.1f} minutes of training'
    if best is None:
        return f'{text}; there was no validation.'
    metric = run.metric
    final = next(row for row in reversed(run.rows) if metric in row)
    return (f'{text}; {metric[len(VALIDATION):]} {best[metric]:.4f} after epoch '
            f'{best["epoch"]:g}, the best, and {final[metric]:.4f} after epoch '
            f'{final["epoch"]:g}, the last validation.')


def _next(run: Run) -> list[str]:
    try:
        kept_weights(run.folder)
    except UserError as error:
        return [f'{error}.']
    return [f'Next: mmkd test {shown(run.folder)}']


def described(model: Mapping[str, Any]) -> str:
    """Name a model by its type and its backbone."""
    backbone = model.get('backbone') or {}
    name = f'{backbone.get("type", "")}{f"-{depth}" if (depth := backbone.get("depth")) else ""}'
    return f'{model.get("type", "model")} with {name}' if name else str(model.get('type', 'model'))


def _model_of(entry: Mapping[str, Any]) -> Mapping[str, Any]:
    from mmkd.engine.config import load_config
    try:
        return entry['model'] if 'model' in entry else load_config(entry['config']).model
    except (UserError, AttributeError):
        return {}


def models(runs: Sequence[Run], made: Panel) -> None:
    """Set students and teachers side by side: parameters, latency, metric."""
    rows, device = [], 'GPU' if torch.cuda.is_available() else 'CPU'
    for run in runs:
        before = f'{run.name}: ' if len(runs) > 1 else ''
        networks = {}
        for name in ('student', *run.teachers):
            try:
                networks[name] = run.model if name == 'student' else run.teacher(name)
            except UserError as error:
                made.sentences.append(f'{before}{name} is left out: {error}.')
        times = _latencies(run, networks, made)
        for name, network in networks.items():
            title = 'student' if name == 'student' else f'teacher {name}'
            rows.append((before + title, described(
                run.cfg.model if name == 'student' else _model_of(run.teachers[name])),
                f'{count_parameters(network) / 1e6:.2f} M', times.get(name, ''),
                _metric_of(run, name)))
    if not rows:
        raise UserError('no network of these runs can be read')
    made.tables.append(Table(('', 'network', 'parameters', f'latency, {device}', 'metric'), rows))
    made.sentences.append('Latency: the median of one image through the network in PyTorch, on '
                          'this machine.')


def _metric_of(run: Run, name: str) -> str:
    if name == 'student':
        best = run.best_row()
        told = '' if best is None else (f'{run.metric[len(VALIDATION):]} '
                                        f'{best[run.metric]:.4f}, validation')
        return run.measured.get(name) or told
    found = next((one for one in run.check.get('teachers', []) if one['name'] == name), None)
    told = '' if found is None else (f'{found["metric"]} {found["value"]:.4f} on {found["images"]} '
                                     'validation images, before training')
    return run.measured.get(name) or told


def _latencies(run: Run, networks: Mapping[str, nn.Module], made: Panel) -> dict[str, str]:
    if not networks:
        return {}
    try:
        device = next(next(iter(networks.values())).parameters()).device
        dataset = DATASETS.build(run.validation_loader()['dataset'])
        if run.is_classifier:
            image = torch.zeros(1, *dataset.images.shape[1:], device=device)
            calls = {name: _call(network, image, mode='tensor')
                     for name, network in networks.items()}
        else:
            batch = pseudo_collate([dataset[0]])
            calls = {name: _call(network.test_step, batch) for name, network in networks.items()}
        return {name: f'{time.median:.1f} ms'
                for name, time in measure(calls, rounds=ROUNDS).items()}
    except Exception as error:  # a network that cannot be timed still has parameters
        made.sentences.append(f'Latencies were not measured ({type(error).__name__}: '
                              f'{str(error).strip()[:200]}).')
        return {}


def _call(function: Any, *args: Any, **kwargs: Any) -> Any:
    def call() -> None:
        with torch.inference_mode():
            function(*args, **kwargs)
        if torch.cuda.is_available():
            torch.cuda.synchronize()
    return call


def before_training(runs: Sequence[Run], made: Panel) -> None:
    """Show what the check before the first epoch found."""
    checked = [run for run in runs if run.check]
    if not checked:
        raise UserError('nothing was checked before the first epoch: that is done where teachers '
                        'teach')
    for run in checked:
        before = f'{run.name}: ' if len(runs) > 1 else ''
        teachers, terms = run.check.get('teachers', []), run.check.get('terms', [])
        made.sentences += [f'{before}{text}.' for text in run.check.get('warnings', [])] or [
            f'{before}nothing looked wrong.']
        if teachers:
            made.tables.append(Table(
                (f'{before}teacher', 'metric', 'value', 'validation images'),
                [(one['name'], one['metric'], f'{one["value"]:.4f}', str(one['images']))
                 for one in teachers]))
        if terms:
            made.tables.append(Table(
                (f'{before}term', 'loss in the first step', 'weight',
                 'gradient over that of the own loss'),
                [(one['name'], f'{one["loss"]:.4g}',
                  f'{one["weight"]:.4g}' if one['share'] is None else 'sets itself',
                  f'{one["gradient"]:.2g}') for one in terms]))
