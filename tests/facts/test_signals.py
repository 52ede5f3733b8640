"""Variances through depth: closed forms, simulated networks, bad input."""

from __future__ import annotations

import math

import numpy as np
import pytest

import softknee
from softknee.errors import InputError
from softknee.facts import facts


def test_a_sigmoid_passes_a_quarter_a_layer_and_relu_all_of_it():
    sigmoid = softknee.get("sigmoid").facts.signal(depth=50)
    assert sigmoid.path == pytest.approx([0.25**n for n in range(51)], rel=1e-12)
    relu = softknee.get("relu").facts.signal(depth=50, gain=math.sqrt(2))
    assert relu.path == (1.0,) * 51 and relu.slope_second_moment == pytest.approx(0.5, rel=1e-12)
    assert relu.forward == pytest.approx([2.0] * 50, rel=1e-11), "He: the variance is kept"
    assert relu.backward == pytest.approx([1.0] * 50, rel=1e-11)
    halved = softknee.get("relu").facts.signal(depth=50, gain=1.0)
    assert halved.backward == pytest.approx([0.5 ** (50 - n) for n in range(50)], rel=1e-10)
    assert softknee.get("relu2").facts.signal(3).path is None, "no bound"


def test_against_a_simulated_network():
    rng = np.random.default_rng(0)
    width, depth, gain, bias = 1500, 4, 1.3, 0.2
    tanh = softknee.get("tanh")
    told = tanh.facts.signal(depth, gain=gain, bias=bias, variance=2.0)
    z = rng.normal(0, math.sqrt(2.0), width)
    for layer in range(depth):
        assert z.var() == pytest.approx(told.forward[layer], rel=0.12)
        weights = rng.normal(0, gain / math.sqrt(width), (width, width))
        slope = tanh.derivative(z)
        back = weights.T @ rng.normal(size=width) * slope
        assert back.var() == pytest.approx(told.chi[layer], rel=0.12)
        z = weights @ tanh.value(z) + rng.normal(0, bias, width)


def test_the_backward_variance_is_the_product_of_chi():
    told = softknee.get("gelu").facts.signal(6, gain=1.2)
    assert told.backward[0] == pytest.approx(math.prod(told.chi)) and told.backward[-1] == told.chi[-1]
    assert softknee.get("gelu").facts.signal(1).forward[0] == pytest.approx(softknee.get("gelu").facts.gain ** 2)


def test_fixed_points():
    (selu,) = (p for p in softknee.get("selu").facts.fixed_points(gain=1.0) if p.variance)
    assert selu.variance == pytest.approx(1.0, abs=1e-9) and 0 < selu.slope < 1, "what it was made for"
    (every,) = softknee.get("relu").facts.fixed_points()
    assert every == (None, 1.0, pytest.approx(1.0)) and every.depth > 1e9
    assert softknee.get("relu").facts.fixed_points(gain=1.0)[0] == (0.0, pytest.approx(0.5), pytest.approx(0.5))
    ordered = softknee.get("tanh").facts.fixed_points(gain=0.9)
    assert [p.variance for p in ordered] == [0.0] and ordered[0].chi == pytest.approx(0.81)
    chaotic = softknee.get("tanh").facts.fixed_points(gain=1.5)
    assert chaotic[0].slope > 1 > chaotic[1].slope and chaotic[1].chi > 1, "0 repels; gradients explode"
    q = chaotic[1].variance
    assert 1.5**2 * facts(softknee.get("tanh")).moments(math.sqrt(q)).second_moment == pytest.approx(q, rel=1e-10)


def test_gains_at_other_variances():
    relu = softknee.get("relu").facts
    assert relu.moments(3.0).gain == pytest.approx(math.sqrt(2), rel=1e-12), "homogeneous: at every sigma"
    tanh = softknee.get("tanh").facts
    assert tanh.moments(1e-3).gain == pytest.approx(1.0, abs=2e-6) and tanh.moments(1e4).gain > 9e3
    steep = tanh.moments(1e4)
    # E[sech⁴(σz)] → ∫ sech⁴ / (σ√2π) = 4/3/(σ√2π)
    assert steep.slope_second_moment == pytest.approx(4 / 3 / (1e4 * math.sqrt(2 * math.pi)), rel=1e-7)


def test_a_moment_that_does_not_exist_is_none():
    @softknee.elementwise
    def bell(x, ops):
        return ops.exp(x * x / 4.0)

    assert bell.facts.moments() is None and math.isnan(bell.facts.gain) and bell.facts.moments(0.5) is not None
    with pytest.raises(InputError, match="bell has no gain"):
        bell.facts.signal(2)


@pytest.mark.parametrize(
    ("call", "word"),
    [
        (lambda f: f.moments(0.0), "sigma"),
        (lambda f: f.moments(math.inf), "sigma"),
        (lambda f: f.saturated(-1e-3), "epsilon"),
        (lambda f: f.signal(0), "depth"),
        (lambda f: f.signal(2.0), "depth"),
        (lambda f: f.signal(2, gain=0.0), "gain"),
        (lambda f: f.signal(2, bias=-1.0), "bias"),
        (lambda f: f.signal(2, variance=0.0), "variance"),
        (lambda f: f.fixed_points(gain=math.nan), "gain"),
        (lambda f: facts(f.activation, alfa=1.0), "alfa"),
    ],
)
def test_bad_input(call, word):
    with pytest.raises(InputError, match=word):
        call(softknee.get("elu").facts)
