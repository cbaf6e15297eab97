"""What a comparison found, as markdown and as JSON."""

import importlib.metadata
import os
import platform
from collections.abc import Callable, Sequence
from dataclasses import asdict
from pathlib import Path
from typing import Any

import mmkd
from mmkd.deploy.compare.models import Row, Setup
from mmkd.engine.arguments import BACKENDS

__all__ = ['as_json', 'machine', 'markdown']

PACKAGES = ('torch', 'onnxruntime')
FILES = dict(torch='weights, MB', onnx='ONNX, MB', int8='ONNX int8, MB')
# Of all that an evaluator says what the table shows.
METRICS = ('mAP', 'bbox_mAP', 'top1')
Column = tuple[str, Callable[[Row], str]]


def markdown(rows: Sequence[Row], setup: Setup, baseline: str | None = None) -> str:
    """Return a table with a line for each model, and what must be known to read it.

    Args:
        rows: What :func:`~mmkd.deploy.compare.compare` returned.
        setup: What it was given.
        baseline: Name of the row that the others are set against in percent: numbers and sizes as
            they differ from its own, latencies as the gain in images per second.
    """
    base = next((row for row in rows if row.name == baseline), None)
    columns = [(title, [cell(row) for row in rows]) for title, cell in _columns(rows, base)]
    columns = [(title, cells) for title, cells in columns if any(cells)]
    lines = [[title for title, _ in columns], ['---'] * len(columns),
             *zip(*(cells for _, cells in columns), strict=True)]
    table = [f'| {" | ".join(line)} |' for line in lines]
    return '\n'.join([*table, '', *_notes(rows, setup, baseline), ''])


def as_json(rows: Sequence[Row], setup: Setup) -> dict[str, Any]:
    """Return everything as values that JSON knows; latencies in milliseconds."""
    models = []
    for row in rows:
        latency = {backend: dict(median=times.median, p95=times.p95)
                   for backend, times in row.latency.items()}
        agreement = row.agreement and asdict(row.agreement)
        models.append(vars(row) | dict(latency=latency, agreement=agreement))
    return dict(machine=machine(), versions=_versions(), threads=setup.threads,
                rounds=setup.rounds, models=models)


def _columns(rows: Sequence[Row], base: Row | None) -> list[Column]:
    def number(title: str, of: Callable[[Row], int | None], unit: float, digits: int) -> Column:
        def cell(row: Row) -> str:
            value = of(row)
            if value is None:
                return ''
            reference = of(base) if base and row is not base else None
            return f'{value / unit:.{digits}f}' + (_percent(value / reference) if reference else '')
        return title, cell

    def latency(backend: str) -> Column:
        def cell(row: Row) -> str:
            if backend in row.failures:
                return 'fails'
            if backend not in row.latency:
                return ''
            times = row.latency[backend]
            reference = base.latency.get(backend) if base and row is not base else None
            return str(times) + (_percent(reference.median / times.median) if reference else '')
        return f'{BACKENDS[backend]}, ms', cell

    def metric(name: str, backend: str) -> Column:
        def cell(row: Row) -> str:
            value = row.metrics.get(backend, {}).get(name)
            return '' if value is None else f'{value:#.4g}'
        return f'{name}, {BACKENDS[backend]}', cell

    names = dict.fromkeys(name for row in rows for found in row.metrics.values() for name in found
                          if name.rpartition('/')[2] in METRICS)
    return [
        ('model', lambda row: row.name + (' (random weights)' if row.weights == 'random' else '')),
        ('input', lambda row: 'x'.join(map(str, row.input_size))),
        number('parameters, M', lambda row: row.parameters, 1e6, 2),
        number('GFLOPs', lambda row: row.flops, 1e9, 3),
        *(number(title, lambda row, backend=backend: row.bytes.get(backend), 1e6, 1)
          for backend, title in FILES.items()),
        *map(latency, BACKENDS),
        *(metric(name, backend) for name in names for backend in BACKENDS),
    ]


def _percent(ratio: float) -> str:
    return f' ({100 * (ratio - 1):+.1f} %)'


def _notes(rows: Sequence[Row], setup: Setup, baseline: str | None) -> list[str]:
    versions = ', '.join(f'{name} {version}' for name, version in _versions().items())
    threads = f'{setup.threads} thread{"s" * (setup.threads > 1)}'
    notes = [
        f'ms: median / 95th percentile of {setup.rounds} runs of one image, from the prepared '
        f'input to boxes or scores, {threads}, all models in turn in one process; {machine()}; '
        f'{versions}.',
        'GFLOPs: convolutions and matrix products of one image, a multiply-add being two.']
    if baseline is not None:
        notes.append(f'In brackets: against {baseline}; of times, the gain in images per second.')
    noisy = [row.name for row in rows if 'int8' in row.bytes and row.parameters
             and (row.weights == 'random' or not (setup.images or setup.evaluate))]
    if noisy:
        notes.append(f'Calibrated on noise, which serves to time int8 and for nothing else: '
                     f"{', '.join(noisy)}.")
    for row in rows:
        notes += [f'{row.name} fails in {BACKENDS[backend]}: {reason}.'
                  for backend, reason in row.failures.items()]
    return [f'- {note}' for note in notes]


def machine() -> str:
    """Return the number of cores and, where the system tells it, the CPU's name."""
    name = platform.processor() or platform.machine()
    cpus = Path('/proc/cpuinfo')
    if cpus.is_file():
        names = [line.partition(':')[2].strip() for line in cpus.read_text().splitlines()
                 if line.startswith('model name')]
        name = names[0] if names else name
    return f'{os.cpu_count()} cores of {name}'


def _versions() -> dict[str, str]:
    return dict(mmkd=mmkd.__version__) | {name: importlib.metadata.version(name)
                                          for name in PACKAGES}
