"""Median time of one image, in onnxruntime and in PyTorch."""

import os
import statistics
import time
from collections.abc import Callable
from typing import TYPE_CHECKING

import numpy as np

from mmkd.deploy.metadata import ModelMetadata
from mmkd.deploy.runtime import open_session

if TYPE_CHECKING:
    from torch import nn

__all__ = ['onnx_latency', 'torch_latency']

WARM_UP_RUNS = 30


def _median_ms(run: Callable[[], object], runs: int) -> float:
    for _ in range(WARM_UP_RUNS):
        run()
    times = []
    for _ in range(runs):
        start = time.perf_counter()
        run()
        times.append(time.perf_counter() - start)
    return statistics.median(times) * 1000


def onnx_latency(path: str | os.PathLike, runs: int = 30, threads: int | None = None) -> float:
    """Median milliseconds from a prepared image to decoded boxes in onnxruntime, batch 1, CPU.

    Args:
        path: A model exported by mmkd.
        runs: Timed runs, after thirty that are not.
        threads: CPU threads; onnxruntime's own choice by default.

    Raises:
        UserError: If the file is not such a model.
    """
    session = open_session(path, threads)
    metadata = ModelMetadata.from_props(session.get_modelmeta().custom_metadata_map,
                                        os.fspath(path))
    image = np.random.default_rng(0).standard_normal((1, 3, *metadata.input_size), np.float32)
    return _median_ms(lambda: session.run(None, {'image': image}), runs)


def torch_latency(model: 'nn.Module', image_size: int, runs: int = 30,
                  threads: int | None = None) -> float:
    """Median milliseconds from a prepared image to decoded boxes in eager PyTorch, batch 1.

    The same work as :func:`onnx_latency` times, on the model's device.

    Args:
        model: A CenterNet detector in evaluation mode.
        image_size: Height and width of the input in pixels.
        runs: Timed runs, after thirty that are not.
        threads: CPU threads; PyTorch's present setting by default.

    Raises:
        UserError: If the model is no CenterNet.
    """
    import torch

    from mmkd.deploy.export import ExportableCenterNet
    detector = ExportableCenterNet(model)
    generator = torch.Generator().manual_seed(0)
    image = torch.randn(1, 3, image_size, image_size, generator=generator).to(
        next(model.parameters()).device)

    def run() -> None:
        with torch.inference_mode():
            # Fetching a result waits for a GPU to finish.
            detector(image)[1].cpu()

    previous = torch.get_num_threads()
    torch.set_num_threads(threads or previous)
    try:
        return _median_ms(run, runs)
    finally:
        torch.set_num_threads(previous)
