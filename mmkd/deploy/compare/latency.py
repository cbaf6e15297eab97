"""Median and 95th percentile of the time of one image, in onnxruntime and in PyTorch."""

import os
import statistics
import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np

from mmkd.deploy.device.runtime import open_model

if TYPE_CHECKING:
    from torch import Tensor

__all__ = ['Latency', 'measure', 'onnx_call', 'torch_call']

WARM_UP_RUNS = 10
Call = Callable[[], object]


@dataclass(frozen=True)
class Latency:
    """Milliseconds of single runs, in the order in which they were taken."""

    times: tuple[float, ...]

    @property
    def median(self) -> float:
        """The median."""
        return statistics.median(self.times)

    @property
    def p95(self) -> float:
        """The 95th percentile, between the two runs next to it by linear interpolation."""
        return float(np.percentile(self.times, 95))

    def __str__(self) -> str:
        return f'{self.median:.1f} / {self.p95:.1f}'


def measure(calls: Mapping[str, Call], rounds: int = 30,
            progress: Callable[[int], None] = lambda done: None) -> dict[str, Latency]:
    """Time several models in turn, so that what else the machine does touches all alike.

    In every round each has a turn of two runs. The first is not timed: it fills the caches
    again, and the threads of the one before it may still wait actively for work, which both of
    onnxruntime and OpenMP do for a while.

    Args:
        calls: What to call, by name.
        rounds: Timed runs of each.
        progress: Called after each round with their number so far.

    Returns:
        the latency of each, by name; the n-th times of all are from the same round.
    """
    for run in calls.values():
        for _ in range(WARM_UP_RUNS):
            run()
    times: dict[str, list[float]] = {name: [] for name in calls}
    for done in range(1, rounds + 1):
        for name, run in calls.items():
            run()
            start = time.perf_counter()
            run()
            times[name].append((time.perf_counter() - start) * 1000)
        progress(done)
    return {name: Latency(tuple(values)) for name, values in times.items()}


def onnx_call(path: str | os.PathLike, threads: int | None = None) -> Call:
    """Return a function that runs an exported model on one image in onnxruntime, on the CPU.

    It goes from the model's input (a prepared image, or the image itself if the model prepares it)
    to what the model returns: decoded boxes, or the scores of the classes. The input is noise of
    the model's own size.

    Args:
        path: A model exported by mmkd.
        threads: CPU threads; onnxruntime's own choice by default.

    Raises:
        UserError: If the file is not such a model.
    """
    model = open_model(path, threads)
    metadata = model.metadata
    generator = np.random.default_rng(0)
    if metadata.input_kind == 'image':
        image = generator.integers(0, 256, (*metadata.input_size, 3), dtype=np.uint8)
    else:
        shape = (metadata.batch or 1, 3, *metadata.input_size)
        image = generator.standard_normal(shape, np.float32).astype(
            np.float16 if metadata.precision == 'float16' else np.float32)
    inputs = metadata.feed(image)
    return lambda: model.session.run(None, inputs)


def torch_call(module: 'Callable[[Tensor], Any]', image: 'Tensor',
               threads: int | None = None) -> Call:
    """Return a function that runs a PyTorch module on an input, without gradients.

    Args:
        module: A module in evaluation mode on the device of ``image``, such as
            :func:`mmkd.deploy.export.exportable` returns, or what ``torch.compile`` made of it.
        image: Its only argument.
        threads: CPU threads; PyTorch's setting when it is called by default.
    """
    import torch

    def run() -> None:
        with torch_threads(threads), torch.inference_mode():
            outputs = module(image)
            # Fetching a result waits for a GPU to finish.
            (outputs if isinstance(outputs, torch.Tensor) else outputs[-1]).cpu()

    return run


@contextmanager
def torch_threads(threads: int | None) -> Iterator[None]:
    """Let PyTorch use ``threads`` CPU threads, or leave its setting alone if None."""
    import torch
    previous = torch.get_num_threads()
    torch.set_num_threads(threads or previous)
    try:
        yield
    finally:
        torch.set_num_threads(previous)
