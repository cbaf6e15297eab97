"""What is timed, how often and in which order."""

import numpy as np
import pytest
import torch
from handmade_models import HEAD, metadata, save

from mmkd.deploy.compare import latency
from mmkd.deploy.compare.latency import Latency, measure, onnx_call, torch_call


def test_percentiles():
    # 1 .. 20 ms: the 95th percentile lies at 0.95 * 19 = 18.05 steps above the smallest.
    times = Latency(tuple(float(t) for t in reversed(range(1, 21))))
    assert times.median == 10.5
    assert times.p95 == pytest.approx(19.05)
    assert str(times) == '10.5 / 19.1'


def test_models_take_turns_and_the_first_run_of_a_turn_is_not_timed(monkeypatch):
    clock = 0.0
    calls = []

    def runner(name, durations):
        durations = iter(durations)

        def run():
            nonlocal clock
            calls.append(name)
            clock += next(durations)
        return run

    monkeypatch.setattr(latency.time, 'perf_counter', lambda: clock)
    slow = [1000] * latency.WARM_UP_RUNS
    rounds = []
    result = measure(dict(a=runner('a', [*slow, 500, .001, 500, .007, 500, .003]),
                          b=runner('b', [*slow, 500, .002, 500, .002, 500, .002])),
                     rounds=3, progress=rounds.append)
    assert result['a'].times == pytest.approx((1, 7, 3))
    assert result['a'].median == pytest.approx(3)
    assert result['b'].times == pytest.approx((2, 2, 2))
    assert ''.join(calls[2 * latency.WARM_UP_RUNS:]) == 'aabb' * 3
    assert rounds == [1, 2, 3]


def test_an_exported_model_is_run(exported):
    run = onnx_call(exported.onnx, threads=1)
    assert [output.shape for output in run()] == [(1, 100, 4), (1, 100), (1, 100)]
    assert measure(dict(student=run), rounds=1)['student'].median > 0


@pytest.mark.parametrize(('values', 'taken', 'dtype', 'shape'), [
    (dict(), 'float[n, 3, 32, 64]', np.float32, (1, 3, 32, 64)),
    (dict(precision='int8', batch=2), 'float[2, 3, 32, 64]', np.float32, (2, 3, 32, 64)),
    (dict(precision='float16'), 'float16[n, 3, 32, 64]', np.float16, (1, 3, 32, 64)),
    (dict(input_kind='image', batch=1), 'uint8[h, w, 3]', np.uint8, (32, 64, 3)),
])
def test_the_input_is_what_the_model_takes(tmp_path, values, taken, dtype, shape):
    # A graph of one Identity gives back what it was given.
    graph = f'{HEAD} echo ({taken} image) => ({taken} scores) {{ scores = Identity (image) }}'
    about = metadata(task='classification', input_size=(32, 64), resize_to=(64, 32),
                     resize_mode='stretch', **values)
    echo, = onnx_call(save(tmp_path / 'echo.onnx', about, graph))()
    assert (echo.dtype, echo.shape) == (dtype, shape)
    assert echo.std() > 0


def test_torch_runs_without_gradients_on_the_threads_given():
    before = torch.get_num_threads()
    seen = []

    class Spy(torch.nn.Module):
        def forward(self, image):
            seen.append((torch.get_num_threads(), torch.is_grad_enabled()))
            return image, image

    run = torch_call(Spy(), torch.zeros(1), threads=before + 2)
    run()
    assert seen == [(before + 2, False)]
    assert torch.get_num_threads() == before
    torch_call(Spy(), torch.zeros(1))()
    assert seen[1] == (before, False)
    # After an error, too.
    with pytest.raises(RuntimeError):
        torch_call(torch.nn.Linear(1, 1), torch.zeros(2, 2), threads=before + 1)()
    assert torch.get_num_threads() == before
