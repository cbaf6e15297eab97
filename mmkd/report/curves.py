"""Panels of what ``results.csv`` has: losses, learning rate, validation."""

import math
from collections.abc import Callable, Iterable, Sequence

from mmkd.engine.results import FIRST, VALIDATION, Row
from mmkd.errors import UserError
from mmkd.report.panels import Figure, Panel, Table
from mmkd.report.plots import colours_of, lines
from mmkd.report.runs import Run

__all__ = ['learning_rate', 'losses', 'validation']

TERM, OWN_WEIGHT = 'loss_distill_', 'weight_'
MOST_CLASSES = 12


def losses(runs: Sequence[Run], made: Panel) -> None:
    """Draw every loss, with the weight of each term and its share of the gradient."""
    _draw(runs, made, lambda name: not name.startswith(VALIDATION) and name not in FIRST
          and not name.endswith('lr'))
    made.sentences.append(
        'Each value is the mean over an epoch, as it was minimised: weight included. A term has '
        'its share of the gradient at the layers that it taps: its own norm over the sum of its '
        "own and that of the student's own loss.")


def learning_rate(runs: Sequence[Run], made: Panel) -> None:
    """Draw the rate at the end of each epoch."""
    _draw(runs, made, lambda name: name.endswith('lr'))


def validation(runs: Sequence[Run], made: Panel) -> None:
    """Draw every metric of the validation, classes among them."""
    if all(run.metric is None for run in runs):
        raise UserError('there was no validation, so there are no metrics: give the config '
                        'val_dataloader, val_cfg and val_evaluator')
    classes = _columns(runs, lambda name: '/AP/' in name)
    hidden = set(classes[MOST_CLASSES:])
    names = _columns(runs, lambda name: name.startswith(VALIDATION) and name not in hidden)
    empty = [name for name in names if not any(_is_told(row.get(name))
                                               for run in runs for row in run.rows)]
    shown = [name for name in names if name not in empty]
    if all(len(_validated(run)) < 2 for run in runs):  # a curve of one point shows nothing
        made.tables.append(_metrics(runs, shown))
    elif shown:
        _draw(runs, made, shown.__contains__)
    if hidden:
        made.sentences.append(f'Of {len(classes)} classes the first {MOST_CLASSES} are shown; '
                              'results.csv has all.')
    if empty:
        made.sentences.append('Left out, since no validation image has such objects: '
                              f'{", ".join(name[len(VALIDATION):] for name in empty)}.')


def _is_told(value: float | None) -> bool:
    """Whether a metric says something: that of objects which are not there is NaN, or COCO's -1."""
    return value is not None and value != -1 and not math.isnan(value)


def _validated(run: Run) -> list[Row]:
    return [row for row in run.rows if run.metric in row]


def _metrics(runs: Sequence[Run], names: Sequence[str]) -> Table:
    """Return the metrics of runs that were validated once, a column for each."""
    of_runs = [(run.name, row) for run in runs for row in _validated(run)]
    return Table(('metric', *(f'{name}, epoch {row["epoch"]:g}' for name, row in of_runs)), [
        (name[len(VALIDATION):], *(f'{row[name]:.4f}' if _is_told(row.get(name)) else ''
                                   for _, row in of_runs)) for name in names])


def _draw(runs: Sequence[Run], made: Panel, wanted: Callable[[str], bool]) -> None:
    columns = _columns(runs, wanted)
    if not columns:
        raise UserError('results.csv has no such numbers: it is missing or from a run that ended '
                        'before its first epoch')
    colours = colours_of([run.name for run in runs])
    if len(runs) > 1:
        made.colours = colours
    for name in columns:
        series = {}
        for run in runs:
            points = [(row['epoch'], row[name]) for row in run.rows if name in row]
            if points:
                series[run.name] = tuple(zip(*points, strict=True))
        made.figures.append(Figure(_caption(name, runs), lines(series, colours)))


def _columns(runs: Iterable[Run], wanted: Callable[[str], bool]) -> list[str]:
    found = dict.fromkeys(name for run in runs for row in run.rows for name in row if wanted(name))
    return sorted(found, key=lambda name: name != 'loss')  # the sum comes first


def _caption(name: str, runs: Sequence[Run]) -> str:
    if name.startswith(VALIDATION):
        return name[len(VALIDATION):]
    if name.startswith(OWN_WEIGHT):
        return f'weight of term {name[len(OWN_WEIGHT):]}, which sets itself'
    if not name.startswith(TERM):
        return {'loss': 'loss, the sum of all', 'grad_norm': 'norm of the gradient'}.get(name, name)
    term = name[len(TERM):]
    told = list(dict.fromkeys(filter(None, (_of_term(run, term) for run in runs))))
    return f'term {term}' + (f' ({"; ".join(told)})' if told else '')


def _of_term(run: Run, name: str) -> str:
    """Say what weight a term had, and its share of the gradient in the first step."""
    first = next((term for term in run.check.get('terms', []) if term['name'] == name), None)
    if first is None:
        weight = _weight(run, name)
        return '' if weight is None else f'weight {weight:g}'
    if first['share'] is not None:
        return f'{100 * first["share"]:.0f} % of the gradient by its weight, which sets itself'
    share = first['gradient'] / (1 + first['gradient'])
    return f'weight {first["weight"]:g}, {100 * share:.2g} % of the gradient in the first step'


def _weight(run: Run, name: str) -> float | None:
    terms, weights = run.cfg.get('terms') or {}, run.cfg.get('distill_weights') or {}
    if not hasattr(weights, 'get'):
        weights = dict(zip(terms, weights, strict=False))
    weight = weights.get(name, (terms.get(name) or {}).get('weight'))
    return weight if isinstance(weight, int | float) else None
