"""A plain function of numbers, NumPy or JAX arrays, or tensors is matched by what it computes."""

import math

import numpy as np
import pytest
import torch

from softknee.errors import InputError
from softknee.identification import identify


@pytest.mark.parametrize(
    ("function", "activation", "parameters"),
    [
        (np.tanh, "tanh", {}),
        (math.tanh, "tanh", {}),
        (lambda x: x / (1 + math.exp(-x)), "silu", {}),
        (lambda x: x * 0.5 * math.erfc(-x / math.sqrt(2)), "gelu", {}),
        (lambda x: x / (1 + np.exp(-x)), "silu", {}),
        (lambda x: np.where(x > 0, x, 0.2 * x), "leaky_relu", {"negative_slope": 0.2}),
        (lambda x: x.clamp(-2.0, 3.0), "hardtanh", {"min_val": -2.0, "max_val": 3.0}),
        (lambda g, u: g * torch.sigmoid(g) * u, "swiglu", {}),
        (lambda u, g: u / (1 + np.exp(-g)), "glu", {}),
        (lambda x: x * math.tanh(x) + 0.1, None, {}),
    ],
)
def test_functions_of_every_kind(function, activation, parameters):
    (site,) = identify(function)
    assert (site.activation, site.parameters) == (activation, parameters)


def test_a_function_of_numbers_is_called_512_times_at_most():
    calls = []

    def counted(x):
        calls.append(x)
        return math.tanh(x)

    assert identify(counted)[0].activation == "tanh"
    assert sum(isinstance(x, float) for x in calls) <= 512


def test_what_a_function_raises_is_said():
    def broken(x):
        raise KeyError("the user's own")

    with pytest.raises(InputError, match="the user's own"):
        identify(broken)
