"""Draw random numbers without leaving a trace."""

import random
from collections.abc import Iterator
from contextlib import contextmanager

import numpy as np
import torch

__all__ = ['undisturbed_random_state']


@contextmanager
def undisturbed_random_state() -> Iterator[None]:
    """Put back the state of every random generator, so that what a run draws stays the same."""
    states = random.getstate(), np.random.get_state()
    devices = [torch.cuda.current_device()] if torch.cuda.is_available() else []
    try:
        with torch.random.fork_rng(devices):
            yield
    finally:
        random.setstate(states[0])
        np.random.set_state(states[1])
