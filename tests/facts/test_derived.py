"""Facts against brute force and published figures."""

from __future__ import annotations

import math

import numpy as np
import pytest

import softknee
from softknee.errors import InputError

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
    facts = softknee.get(name).facts
    assert (facts.gain, facts.backward_gain) == pytest.approx(GAINS[name], rel=1e-12)


def test_gain_with_parameters():
    leaky = softknee.get("leaky_relu").facts
    assert leaky.gain_with(negative_slope=0.2) == pytest.approx(math.sqrt(2 / (1 + 0.2**2)), rel=1e-13)


def test_against_brute_force():
    x = np.linspace(-12, 12, 2_400_001)
    for activation in softknee.activations():
        if activation.kind != "elementwise":
            continue
        facts = activation.facts
        values, slopes = activation.value(x), activation.derivative(x)
        assert abs(facts.largest_derivative.value) >= np.abs(slopes).max() - 1e-5, activation
        if facts.minimum:
            assert facts.minimum.value == pytest.approx(values.min(), abs=1e-9)
        assert facts.range.low <= values.min() and values.max() <= facts.range.high
        for low, high in facts.dead:
            assert not slopes[(x > low) & (x < high)].any()
        inside = np.zeros(x.shape, bool)
        for low, high in facts.saturated(1e-3):
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
