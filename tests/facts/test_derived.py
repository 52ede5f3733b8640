"""Facts against brute force and published figures."""

from __future__ import annotations

import json
import math

import numpy as np
import pytest

import softknee
from softknee.errors import InputError
from softknee.facts import facts

GAINS = {  # 1/√E[f²] and 1/√E[f′²], mpmath, z ~ N(0, 1)
    "relu": (math.sqrt(2), math.sqrt(2)),
    "leaky_relu": (1.4141428569978354, 1.4141428569978354),
    "silu": (1.6765324703310913, 1.623320257952497),
    "gelu": (1.5335304411955353, 1.481114412708348),
    "mish": (1.486847581273208, 1.4447552325473194),
    "tanh": (1.5925374197228312, 1.4674135916307953),
    "sigmoid": (1.8462285453386054, 4.722646085937974),
    "hardswish": (1.7366572127665412, 1.670076367441382),
    "selu": (1.0, 0.9660257769739012),
}


@pytest.mark.parametrize("name", GAINS)
def test_gains(name):
    found = softknee.get(name).facts
    assert (found.gain, found.backward_gain) == pytest.approx(GAINS[name], rel=1e-12)


def test_gain_with_parameters():
    leaky = softknee.get("leaky_relu").facts
    assert leaky.gain_with(negative_slope=0.2) == pytest.approx(math.sqrt(2 / (1 + 0.2**2)), rel=1e-13)


def test_against_brute_force():
    x = np.linspace(-12, 12, 2_400_001)
    for activation in softknee.activations():
        if activation.kind != "elementwise":
            continue
        found = activation.facts
        values, slopes = activation.value(x), activation.derivative(x)
        assert abs(found.largest_derivative.value) >= np.abs(slopes).max() - 1e-5, activation
        if found.minimum:
            assert found.minimum.value == pytest.approx(values.min(), abs=1e-9)
        assert found.range.low <= values.min() and values.max() <= found.range.high
        for low, high in found.dead:
            assert not slopes[(x > low) & (x < high)].any()
        inside = np.zeros(x.shape, bool)
        for low, high in found.saturated(1e-3):
            inside |= (x > low) & (x < high)
        assert (inside == (np.abs(slopes) < 1e-3)).mean() > 0.99999


def test_known_regions():
    assert softknee.get("relu").facts.dead == ((-math.inf, 0.0),)
    assert softknee.get("relu").facts.breakpoints == (0.0,)
    assert softknee.get("hardswish").facts.dead == ((-math.inf, -3.0),)
    assert softknee.get("gelu").facts.dead == ()
    assert softknee.get("leaky_relu").facts.minimum is None
    assert softknee.get("tanh").facts.range == (-1.0, 1.0)


def test_a_normalizer_has_none():
    with pytest.raises(InputError, match="softmax is a normalizer"):
        _ = softknee.get("softmax").facts


def test_a_constant_has_facts():
    @softknee.elementwise
    def three(x, ops):
        return 3.0

    @softknee.elementwise
    def nothing(x, ops):
        return 0.0 * x

    assert (three.facts.gain, three.facts.centred_gain, three.facts.backward_gain) == (1 / 3, math.inf, math.inf)
    assert three.facts.dead == ((-math.inf, math.inf),)
    assert nothing.facts.gain == math.inf
    for activation in (three, nothing, softknee.get("relu")):
        json.dumps(activation.to_dict(), allow_nan=False)
    with pytest.raises(InputError, match="nothing has no gain"):
        softknee.nn.init.gain(nothing)


def test_breakpoints_move_with_the_parameters_and_lie_anywhere():
    @softknee.elementwise
    def between(x, ops, *, low=-60.0, high=1e5):
        return ops.minimum(ops.maximum(x, low), high)

    assert between.facts.breakpoints == (-60.0, 1e5)
    assert between.facts.dead == ((-math.inf, -60.0), (1e5, math.inf))
    found = facts(between, low=-0.1, high=0.7)
    assert (found.breakpoints, found.range) == ((-0.1, 0.7), (-0.1, 0.7))
    assert (found.minimum, found.maximum) == ((-0.1, -0.1), (0.7, 0.7))


def test_many_extrema():
    @softknee.elementwise
    def wave(x, ops, *, frequency=30.0):
        return ops.sin(frequency * x)

    assert wave.facts.minimum == pytest.approx((-math.pi / 60, -1.0))
    assert wave.facts.maximum == pytest.approx((math.pi / 60, 1.0))
    assert wave.facts.backward_gain == pytest.approx(math.sqrt(2) / 30)


def test_a_moment_that_exists_although_f_overflows():
    @softknee.elementwise
    def steep(x, ops):
        return ops.exp(x * x / 5.0)

    assert steep.facts.second_moment == pytest.approx(math.sqrt(5))  # ∫ exp(2x²/5)·φ(x) dx
