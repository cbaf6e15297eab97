"""What runs end with, compared."""

import torch


def assert_equal(one, other):
    """Dicts, and dicts within them, hold the same tensors by the same names."""
    assert one.keys() == other.keys()
    for key, value in one.items():
        if isinstance(value, dict):
            assert_equal(value, other[key])
        else:
            assert torch.equal(value, other[key]), key
