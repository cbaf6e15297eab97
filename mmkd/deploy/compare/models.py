"""Parameters, operations, bytes, latency and accuracy of several models, side by side."""

import argparse
import copy
import os
import re
import shlex
import tempfile
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import torch
from mmengine.config import Config
from torch import Tensor, nn

from mmkd.config_files import SHORT
from mmkd.deploy.compare.complexity import count_flops, count_parameters, weight_bytes
from mmkd.deploy.compare.evaluate import evaluate_onnx
from mmkd.deploy.compare.latency import Call, Latency, measure, onnx_call, torch_call
from mmkd.deploy.compare.random_weights import noise_images, settle_random_weights
from mmkd.deploy.device.runtime import open_model
from mmkd.deploy.export.agreement import Agreement
from mmkd.deploy.export.calibration import calibration_images
from mmkd.deploy.export.exporter import export_onnx, exportable, load_model, model_metadata
from mmkd.deploy.export.onnx_file import first_line
from mmkd.deploy.export.quantize import quantize_onnx
from mmkd.deploy.export.verify import Image
from mmkd.distillation import build_model
from mmkd.distillation.teachers import undisturbed_random_state
from mmkd.engine import launch
from mmkd.engine.arguments import BACKENDS, add_choices
from mmkd.engine.choices import chosen_config
from mmkd.engine.config import override, validate_config
from mmkd.errors import UserError

__all__ = ['Entry', 'Row', 'Setup', 'compare', 'load_entry', 'parse_entry']

ENTRY = re.compile(r'(?P<name>[^=/]+)=(?P<variables>(?:\w+=\S*\s+)*)'
                   r'(?:(?P<config>(?:\w+::)?[^:]+\.py|' + '|'.join(SHORT) + r')'
                   r'(?::(?P<checkpoint>.+?))?|(?P<onnx>.+\.onnx))(?P<choices>(?:\s+--.*)?)')


@dataclass(frozen=True)
class Entry:
    """One model to compare.

    Args:
        name: How the table calls it.
        config: Its config; None for an ONNX file.
        checkpoint: Its weights; None for random ones.
        onnx: An exported model in place of both.
        variables: Environment variables that hold while the config is read.
        choices: What to choose of what the config leaves open, as on the command line of training.
    """

    name: str
    config: str | None = None
    checkpoint: str | None = None
    onnx: str | None = None
    variables: Mapping[str, str] = field(default_factory=dict)
    choices: tuple[str, ...] = ()


@dataclass
class Row:
    """What was found out about a model; dicts are by backend, see ``BACKENDS``.

    Args:
        name: That of its entry.
        weights: Where they are from: a file, or 'random'.
        input_size: Height and width of the input.
        parameters: Numbers that training adapts.
        flops: Floating-point operations of one image, see :func:`count_flops`.
        bytes: Those of the weights, or of the ONNX file.
        latency: Of one image.
        metrics: By name.
        failures: Why a backend does not run it, in one line.
        agreement: What the export's check against PyTorch found.
    """

    name: str
    weights: str
    input_size: tuple[int, int]
    parameters: int | None = None
    flops: int | None = None
    bytes: dict[str, int] = field(default_factory=dict)
    latency: dict[str, Latency] = field(default_factory=dict)
    metrics: dict[str, dict[str, float]] = field(default_factory=dict)
    failures: dict[str, str] = field(default_factory=dict)
    agreement: Agreement | None = None


@dataclass(frozen=True)
class Setup:
    """How models are measured.

    Args:
        folder: Where the exported models ``NAME.onnx`` and ``NAME_int8.onnx`` go.
        backends: Of ``BACKENDS``.
        threads: CPU threads of every backend.
        rounds: Timed runs of each model in each backend.
        images: Image files on which exports are checked and the int8 models of checkpoints
            calibrated.
        evaluate: Whether to evaluate the models with a checkpoint on their test data, in PyTorch
            and as they were exported. Without ``images`` their int8 models are then calibrated on
            a hundred training images; without either on noise, with which their times hold but
            their accuracy does not, and so are those of random weights.
        options: Entries to override in every config.
        say: Called with each step that begins.
    """

    folder: Path
    backends: Sequence[str] = tuple(BACKENDS)
    threads: int = field(default_factory=torch.get_num_threads)
    rounds: int = 30
    images: Sequence[str | os.PathLike] = ()
    evaluate: bool = False
    options: Mapping[str, Any] | None = None
    say: Callable[[str], None] = print


def parse_entry(text: str) -> Entry:
    """Read ``NAME=CONFIG[:CHECKPOINT] [--student NETWORK ...]`` or ``NAME=FILE.onnx``.

    ``VARIABLE=VALUE`` may stand before the config, for one that reads its environment.

    Raises:
        UserError: It is neither.
    """
    match = ENTRY.fullmatch(text.strip())
    if not match:
        raise UserError(f"model '{text}' is neither NAME=CONFIG.py, NAME=CONFIG.py:CHECKPOINT nor "
                        'NAME=FILE.onnx: correct it')
    parts = match.groupdict()
    variables = dict(part.split('=', 1) for part in parts.pop('variables').split())
    choices = tuple(shlex.split(parts.pop('choices')))
    return Entry(**parts, variables=variables, choices=choices)


def compare(entries: Sequence[Entry], setup: Setup) -> list[Row]:
    """Prepare every model for every backend, then time all of them in turn in this process.

    A backend that cannot run a model is noted in the model's row; what is wrong with a config or
    a checkpoint ends the comparison.

    Raises:
        UserError: from :func:`~mmkd.engine.config.load_config`, :func:`load_model`,
            :func:`~mmkd.deploy.device.runtime.open_model`, :func:`~mmkd.engine.launch.test` and
            :func:`evaluate_onnx`.
    """
    configs = [_read_config(entry, setup) for entry in entries]
    rows: dict[str, Row] = {}
    calls: dict[tuple[str, str], Call] = {}
    for entry, cfg in zip(entries, configs, strict=True):
        row, own = (_prepare_onnx(entry, setup) if cfg is None else
                    _prepare_config(entry, cfg, setup))
        rows[entry.name] = row
        calls |= {(entry.name, backend): call for backend, call in own.items()}

    def progress(done: int) -> None:
        if done % 10 == 0:
            setup.say(f'timed {done} of {setup.rounds} rounds')

    setup.say(f'timing {len(calls)} models in turn')
    for (name, backend), latency in measure(calls, setup.rounds, progress).items():
        rows[name].latency[backend] = latency
    for entry, cfg in zip(entries, configs, strict=True):
        if setup.evaluate and entry.checkpoint is not None:
            rows[entry.name].metrics = _evaluate(entry, cfg, rows[entry.name], setup)
    return list(rows.values())


def _read_config(entry: Entry, setup: Setup) -> Config | None:
    """Read the config of an entry; find files that are absent before anything takes long."""
    for path, what in ((entry.checkpoint, 'checkpoint'), (entry.onnx, 'model')):
        if path is not None and not Path(path).is_file():
            raise UserError(f"{what} '{path}' of {entry.name} does not exist: correct the path")
    if entry.config is None:
        return None
    parser = argparse.ArgumentParser(prog=entry.name)
    parser.add_argument('config')
    parser.add_argument('--data-root')
    add_choices(parser)
    with _environment(entry.variables):
        cfg = chosen_config(parser.parse_args([entry.config, *entry.choices]))
    override(cfg, setup.options)
    if setup.evaluate:
        validate_config(cfg)
    return cfg


def _onnx_files(entry: Entry, setup: Setup) -> dict[str, Path]:
    return dict(onnx=setup.folder / f'{entry.name}.onnx',
                int8=setup.folder / f'{entry.name}_int8.onnx')


def _evaluate(entry: Entry, cfg: Config, row: Row, setup: Setup) -> dict[str, dict[str, float]]:
    setup.say(f'{entry.name}: evaluating')
    cfg.merge_from_dict(dict(work_dir=str(setup.folder / 'test'), launcher='none',
                             log_level='WARNING'))
    metrics = dict(torch=launch.test(copy.deepcopy(cfg), entry.checkpoint))
    for backend, path in _onnx_files(entry, setup).items():
        if backend in row.latency:
            metrics[backend] = evaluate_onnx(cfg, path)
    return metrics


def _prepare_onnx(entry: Entry, setup: Setup) -> tuple[Row, dict[str, Call]]:
    metadata = open_model(entry.onnx).metadata
    backend = 'int8' if metadata.precision == 'int8' else 'onnx'
    row = Row(entry.name, entry.onnx, metadata.input_size,
              bytes={backend: Path(entry.onnx).stat().st_size})
    return row, {backend: onnx_call(entry.onnx, setup.threads)}


def _prepare_config(entry: Entry, cfg: Config, setup: Setup) -> tuple[Row, dict[str, Call]]:
    model = load_entry(entry, cfg)
    graph, metadata = exportable(model).eval(), model_metadata(model)
    row = Row(entry.name, entry.checkpoint or 'random', metadata.input_size,
              parameters=count_parameters(model), flops=count_flops(graph, metadata.input_size),
              bytes=dict(torch=weight_bytes(model)))
    image = torch.randn(1, 3, *metadata.input_size, generator=torch.Generator().manual_seed(0))
    calls = _torch_calls(graph, image, row, setup)
    return row, calls | _onnx_calls(model, entry, row, setup)


def _torch_calls(graph: nn.Module, image: Tensor, row: Row, setup: Setup) -> dict[str, Call]:
    calls = {}
    if 'torch' in setup.backends:
        calls['torch'] = torch_call(graph, image, setup.threads)
    if 'compile' in setup.backends:
        setup.say(f'{row.name}: torch.compile')
        call = torch_call(_compiled(graph, row.name), image, setup.threads)
        try:
            call()
            calls['compile'] = call
        # The compilers behind it raise whatever they like.
        except Exception as error:
            row.failures['compile'] = f'{type(error).__name__}: {first_line(error)}'
    return calls


def _compiled(module: nn.Module, name: str) -> Callable[[Tensor], Any]:
    def forward(image: Tensor) -> Any:
        return module(image)

    # PyTorch counts what it compiled by code object, shared by all modules of a class, and after
    # eight of them runs further ones uncompiled without an error: hence one for each.
    forward.__code__ = forward.__code__.replace(co_name=name)
    return torch.compile(forward, dynamic=False)


def _onnx_calls(model: nn.Module, entry: Entry, row: Row, setup: Setup) -> dict[str, Call]:
    files = _onnx_files(entry, setup)
    wanted = [backend for backend in files if backend in setup.backends]
    try:
        if wanted:
            setup.say(f'{row.name}: exporting')
            row.agreement = Agreement()
            for found in export_onnx(model, files['onnx'], setup.images):
                row.agreement.add(found)
        if 'int8' in wanted:
            setup.say(f'{row.name}: quantising')
            quantize_onnx(files['onnx'], files['int8'], _calibration(entry, model, setup))
    except UserError as error:
        row.failures |= {backend: str(error) for backend in wanted if not files[backend].exists()}
    wanted = [backend for backend in wanted if backend not in row.failures]
    row.bytes |= {backend: files[backend].stat().st_size for backend in wanted}
    return {backend: onnx_call(files[backend], setup.threads) for backend in wanted}


def load_entry(entry: Entry, cfg: Config) -> nn.Module:
    """Load the model of an entry and its config; see :func:`load_model`."""
    if entry.checkpoint is not None:
        return load_model(cfg, entry.checkpoint)
    with tempfile.TemporaryDirectory() as folder, undisturbed_random_state():
        torch.manual_seed(0)
        torch.save(build_model(cfg).state_dict(), Path(folder) / 'random.pth')
        model = load_model(cfg, Path(folder) / 'random.pth')
    settle_random_weights(model, model_metadata(model).input_size)
    return model


def _calibration(entry: Entry, model: nn.Module, setup: Setup) -> Sequence[Image]:
    if entry.checkpoint is not None and setup.images:
        return setup.images
    if entry.checkpoint is not None and setup.evaluate:
        return calibration_images(model.cfg)
    return noise_images(model_metadata(model).input_size)


@contextmanager
def _environment(variables: Mapping[str, str]) -> Iterator[None]:
    before = {name: os.environ.get(name) for name in variables}
    os.environ.update(variables)
    try:
        yield
    finally:
        for name, value in before.items():
            if value is None:
                del os.environ[name]
            else:
                os.environ[name] = value
