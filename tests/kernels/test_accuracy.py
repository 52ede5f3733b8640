"""What a call gives is as exact as docs/accuracy.md says: measured again, on the path that it takes."""

from __future__ import annotations

import math

import numpy as np
import pytest
import torch

import softknee
from softknee.kernels import accuracy, paths
from softknee.kernels.accuracy import FLOOR, error

ACTIVATIONS = [a for a in softknee.activations() if a.measured]
ELEMENTWISE = [a for a in ACTIVATIONS if a.kind == "elementwise"]
JOINT = [a for a in ACTIVATIONS if a.kind != "elementwise"]
# of the points that were recorded one in ten; of a half precision all
WIDE = {torch.float32: 40_010, torch.float64: 40_010}


def called(activation):
    """The public call, as a way of computing."""

    def evaluate(x, order, **parameters):
        return accuracy.differentiated(lambda v: activation(v, **parameters), x, order)

    return evaluate


@pytest.mark.parametrize("dtype", accuracy.DTYPES, ids=str)
@pytest.mark.parametrize("activation", ELEMENTWISE, ids=lambda a: a.name)
def test_elementwise_is_as_exact_as_stated(activation, dtype):
    for order, promise in enumerate(paths.promised(activation, dtype)[:2]):
        found = accuracy.worst(activation, called(activation), dtype, order, WIDE.get(dtype, 1))
        assert found.lost is None or promise.lost is not None, (order, found)
        assert found.ulp <= promise.ulp, (order, found, promise)


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16, torch.float16], ids=str)
@pytest.mark.parametrize("activation", JOINT, ids=lambda a: a.name)
def test_joint_is_as_exact_as_stated(activation, dtype):
    orders = 2 if activation.kind == "gated" else 1
    for order, promise in enumerate(paths.promised(activation, dtype)[:orders]):
        kernel = paths.choose(activation, dtype).forward == "kernel"
        assert accuracy.joint(activation, dtype, order, count=64_000, kernel=kernel).ulp <= promise.ulp


@pytest.mark.parametrize("activation", ACTIVATIONS, ids=lambda a: a.name)
def test_every_entry_states_its_figures(activation):
    """And they are good ones: f and f′ within 8 units in float64, correctly rounded in half precision. laplace may be
    off by 16: its mu and sigma are roundings too, which the unit does not count (tests/contract counts them)."""
    for dtype in accuracy.DTYPES:
        figures = paths.promised(activation, dtype)
        assert len(figures) >= (1 if activation.kind == "normalizer" else 2)
        for figure in figures[:2]:
            assert figure.lost is None
            wide = 16 if dtype == torch.float32 or activation.name == "laplace" else 8
            assert figure.ulp <= (0.51 if dtype in (torch.bfloat16, torch.float16) else wide)


def test_error_counts_units():
    x = torch.tensor([1.0, 2.0, 4.0])
    truth, flat = np.array([1.0, 2.0, 4.0]), np.zeros(3)
    eps = torch.finfo(torch.float32).eps
    off = torch.tensor([1.0, 2.0, 4.0 * (1 + 3 * eps)])
    assert error(truth, flat, off, x, 0.0).ulp == 3.0 and error(truth, flat, off, x, 0.0).at == 4.0
    assert error(truth, np.ones(3), off, x, 0.0).ulp == 1.5  # x·f′·ε is another ulp(f)
    assert error(truth, flat, x, x, 0.0) == paths.Figure(0.0, 1.0, None)


def test_error_sees_what_is_lost():
    x = torch.tensor([-9.0, -8.0, 1.0])
    truth, flat = np.array([-1e-8, -1e-7, 1.0]), np.zeros(3)
    assert error(truth, flat, torch.tensor([0.0, -1e-7, 1.0]), x, FLOOR).lost == -9.0
    assert error(truth, flat, torch.tensor([1e-8, -1e-7, 1.0]), x, FLOOR).lost == -9.0
    assert error(truth, flat, torch.tensor([-1e-8, math.nan, 1.0]), x, FLOOR).lost == -8.0
    assert error(truth, flat, torch.tensor([-1e-8, math.nan, 1.0]), x, FLOOR).ulp == math.inf
    # at a root zero is a matter of rounding x
    assert error(truth, np.ones(3), torch.tensor([0.0, -1e-7, 1.0]), x, FLOOR).lost is None
    # below the smallest normal number a result may be zero
    assert error(np.array([1e-40, 1, 1]), flat, torch.tensor([0.0, 1.0, 1.0]), x, 0.0) == paths.Figure(0.0, -9.0, None)


def test_a_careless_form_breaks_the_statement():
    gelu = softknee.get("gelu")

    def careless(x, order, **parameters):
        return 0.5 * x * (1 + torch.erf(x / math.sqrt(2)))

    found = accuracy.worst(gelu, careless, torch.float32, 0, 40_010)
    assert found.ulp > paths.promised(gelu, torch.float32)[0].ulp and found.lost is not None


def test_stated_is_rounded_up():
    values = [0.0, 0.3, 0.5, 0.5004, 0.7, 1.2, 5.0, 8.0, 8.1, 11.4, 4000.0]
    assert [accuracy.stated(v) for v in values] == [0.5, 0.5, 0.5, 0.501, 0.75, 1.5, 6.0, 8.0, 11.3, 16.0, 4100.0]
    assert accuracy.stated(math.inf) == math.inf
