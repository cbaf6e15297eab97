"""The median over runs, warm-up left out."""

import itertools

import pytest
import torch
from torch import nn

from mmkd.deploy import latency
from mmkd.errors import UserError


def test_median_of_the_timed_runs(monkeypatch):
    # The clock stands still while warming up; then runs take 1, 7 and 3 s.
    ticks = itertools.chain([0, 1, 1, 8, 8, 11])
    monkeypatch.setattr(latency.time, 'perf_counter', lambda: next(ticks))
    calls = []
    assert latency._median_ms(lambda: calls.append(1), runs=3) == 3000
    assert len(calls) == latency.WARM_UP_RUNS + 3


def test_both_run_the_same_detector(exported):
    before = torch.get_num_threads()
    assert latency.onnx_latency(exported.onnx, runs=2, threads=1) > 0
    assert latency.torch_latency(exported.model, 64, runs=2, threads=1) > 0
    assert torch.get_num_threads() == before


def test_what_is_refused(tmp_path):
    with pytest.raises(UserError, match='does not exist'):
        latency.onnx_latency(tmp_path / 'none.onnx')
    with pytest.raises(UserError, match='CenterNetHead'):
        latency.torch_latency(nn.Linear(1, 1), 64)
