"""Drawn numbers, and what the formulas of losses are made of: plain Python on nested lists."""

import math

import torch


def randn(*shape, seed=0, dtype=torch.float64):
    """Numbers that depend on shape and seed alone."""
    generator = torch.Generator().manual_seed(seed)
    return torch.randn(*shape, dtype=torch.float64, generator=generator).to(dtype)


def nested(values):
    """Lists of tensors as lists of numbers."""
    return [nested(value) for value in values] if isinstance(values, list) else values.tolist()


def flat(values):
    return [x for item in values for x in flat(item)] if isinstance(values, list) else [values]


def mean(values):
    values = list(values)
    return sum(values) / len(values)


def dot(a, b):
    return sum(x * y for x, y in zip(a, b, strict=True))


def norm(vector):
    return math.sqrt(dot(vector, vector))


def unit(vector):
    return [x / norm(vector) for x in vector] if norm(vector) else vector


def linear(layer, vector):
    return [dot(row, vector) + bias
            for row, bias in zip(layer.weight.tolist(), layer.bias.tolist(), strict=True)]


def square_distance(a, b):
    return sum((x - y) ** 2 for x, y in zip(a, b, strict=True))


def sigmoid(z):
    return 1 / (1 + math.exp(-z))


def softmax(logits, temperature=1.0):
    top = max(logits)
    powers = [math.exp((z - top) / temperature) for z in logits]
    return [power / sum(powers) for power in powers]


def kl(p, q):
    """Divergence of a distribution ``p`` from ``q``."""
    return sum(a * math.log(a / b) for a, b in zip(p, q, strict=True) if a > 0)


def soft_kl(student, teacher, temperature):
    """``T^2`` times the divergence of one row of logits, as every imitation has it."""
    return temperature ** 2 * kl(softmax(teacher, temperature), softmax(student, temperature))


def cross_entropy(logits, labels):
    """Mean over the rows."""
    return mean(-math.log(softmax(row)[label]) for row, label in zip(logits, labels, strict=True))


def dkd(student, teacher, labels, alpha=1, beta=1, temperature=1):
    """Decoupled distillation: label against the rest, and the rest among themselves."""
    total = 0.0
    for s, t, label in zip(student, teacher, labels, strict=True):
        p, q = softmax(s, temperature)[label], softmax(t, temperature)[label]
        s, t = ([z for c, z in enumerate(row) if c != label] for row in (s, t))
        total += (temperature ** 2 * alpha * kl([q, 1 - q], [p, 1 - p])
                  + beta * soft_kl(s, t, temperature))
    return total / len(labels)


CORNERS = {
    'one sample': lambda s, t: (s[:1], t[:1]),
    'zero student': lambda s, t: (s * 0, t),
    'zero teacher': lambda s, t: (s, t * 0),
    'zero both': lambda s, t: (s * 0, t * 0),
    'one zero sample': lambda s, t: (torch.cat([s[:1] * 0, s[1:]]), t),
    'identical students': lambda s, t: (s[:1].expand_as(s), t),
    'identical both': lambda s, t: (s[:1].expand_as(s), t[:1].expand_as(t)),
    'large': lambda s, t: (s * 1e4, t * -1e4),
    'small': lambda s, t: (s * 1e-15, t * 1e-15),
}
"""What a batch of student and teacher may look like at its worst."""


def assert_float32_under_autocast(call, values, rtol=0.02, rounded=1e-6):
    """Float32 features give the same numbers, bfloat16 ones those of their rounded values.

    ``call(values)`` of any lists of float32 tensors.
    """
    exact, halves = call(values), _cast(values, torch.bfloat16)
    with torch.autocast('cpu', torch.bfloat16):
        same, half = call(values), call(halves)
    assert exact.dtype == same.dtype == half.dtype == torch.float32
    torch.testing.assert_close(same, exact, rtol=1e-6, atol=0)
    # Computed in float32 from rounded features.
    torch.testing.assert_close(half, call(_cast(halves, torch.float32)), rtol=rounded, atol=0)
    torch.testing.assert_close(half, exact, rtol=rtol, atol=0)


def _cast(value, dtype):
    if isinstance(value, (list, tuple)):
        return [_cast(item, dtype) for item in value]
    return value.to(dtype) if value.is_floating_point() else value
