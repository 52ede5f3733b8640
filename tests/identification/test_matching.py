"""Behaviour decides, constants are tight, parameters come back, and what is unknown is called unknown."""

import pytest
import torch
import torch.nn.functional as F
from hypothesis import given, settings
from hypothesis import strategies as st

import softknee
from softknee.errors import InputError
from softknee.identification.matching import match, probes

ELEMENTWISE = [a for a in softknee.activations() if a.kind == "elementwise"]


@pytest.mark.parametrize("dtype", [torch.float64, torch.float32], ids=str)
@pytest.mark.parametrize("activation", ELEMENTWISE, ids=lambda a: a.name)
def test_every_elementwise_entry_is_recognised(activation, dtype):
    found = match(lambda x: activation(x.to(dtype)))
    assert found.activation == activation.name or {found.activation, activation.name} == {"leaky_relu", "prelu"}


@pytest.mark.parametrize("activation", [a for a in softknee.activations() if a.kind == "gated"], ids=lambda a: a.name)
def test_every_gated_entry_is_recognised_in_both_orders(activation):
    assert match(lambda a, b: activation(a, b), inputs=2).order == "gate_up"
    found = match(lambda a, b: activation(b, a), inputs=2)
    assert (found.activation, found.order) == (activation.name, "up_gate")


SPELLINGS = {
    "x * torch.sigmoid(x)": ("silu", lambda x: x * torch.sigmoid(x)),
    "x / (1 + exp(-x))": ("silu", lambda x: x / (1 + torch.exp(-x))),
    "printed digits": ("gelu_tanh", lambda x: 0.5 * x * (1 + torch.tanh(0.79788456 * (x + 0.044715 * x**3)))),
    "factored": ("gelu_tanh", lambda x: x * 0.5 * (1 + torch.tanh(0.7978845608 * x * (1 + 0.044715 * x * x)))),
    "ONNX Runtime": ("gelu_tanh", lambda x: 0.5 * x * (1 + torch.tanh(0.797885 * x + 0.035677 * x**3))),
    "erf": ("gelu", lambda x: x * 0.5 * (1 + torch.erf(x / 1.41421356))),
    "three ops": ("mish", lambda x: x * torch.tanh(torch.log1p(torch.exp(x)))),
    "max": ("relu", lambda x: torch.maximum(x, torch.zeros_like(x))),
    "half the sum": ("relu", lambda x: (x + x.abs()) / 2),
    "clip": ("hardswish", lambda x: x * torch.clamp(x + 3, 0, 6) / 6),
    "exp": ("tanh", lambda x: 1 - 2 / (torch.exp(2 * x) + 1)),
    "softmax": ("softmax", lambda x: torch.softmax(x, -1)),
}


@pytest.mark.parametrize("spelling", SPELLINGS)
def test_spellings(spelling):
    name, function = SPELLINGS[spelling]
    assert match(function).activation == name


NEAR_MISSES = {
    "quick gelu": lambda x: x * torch.sigmoid(1.702 * x),
    "old mlx gelu": lambda x: x * torch.sigmoid(1.773 * x),
    "swapped coefficients": lambda x: 0.5 * x * (1 + torch.tanh(0.044715 * (x + 0.79788456 * x**3))),
    "swish 1.001": lambda x: x * torch.sigmoid(1.001 * x),
    "scaled": lambda x: 1.0001 * F.gelu(x),
    "floor above zero": lambda x: x.clamp(min=1e-6),
    "offset": lambda x: F.silu(x) + 1e-5,
    "saturating": lambda x: F.gelu(x.clamp(-10, 10)),
    "nan below": lambda x: torch.where(x < -13, torch.nan, F.gelu(x)),
    "selu without scale": lambda x: torch.where(x > 0, x, 1.6732632 * torch.expm1(x)) * 1.05,
}


@pytest.mark.parametrize("name", NEAR_MISSES)
def test_near_misses_are_unknown_with_a_neighbour(name):
    # later entries of the catalog may well be these functions
    known = [softknee.get(n) for n in ("identity", "relu", "selu", "gelu", "gelu_tanh", "silu", "mish", "sigmoid")]
    found = match(NEAR_MISSES[name], activations=known)
    assert found.activation is None
    assert found.nearest in [a.name for a in known]
    assert "nearest is" in found.describe()


@pytest.mark.parametrize("dtype", [torch.float64, torch.float32], ids=str)
def test_erf_and_tanh_gelu_are_told_apart(dtype):
    assert match(lambda x: F.gelu(x.to(dtype))).activation == "gelu"
    assert match(lambda x: F.gelu(x.to(dtype), approximate="tanh")).activation == "gelu_tanh"


def test_in_half_precision_the_closest_is_named_with_its_rivals():
    known = [softknee.get(n) for n in ("gelu", "gelu_tanh", "silu", "relu")]
    found = match(lambda x: F.gelu(x.to(torch.bfloat16)), activations=known)
    assert {"gelu", "gelu_tanh"} >= {found.activation}
    assert "silu" not in found.note
    assert match(lambda x: F.relu(x.half()), activations=known).activation == "relu"


@given(slope=st.floats(0.001, 0.9))
@settings(max_examples=25, deadline=None)
def test_leaky_slope_is_recovered(slope):
    found = match(lambda x: torch.where(x > 0, x, slope * x))
    assert found.activation == "leaky_relu"
    assert found.parameters["negative_slope"] == pytest.approx(slope, abs=1e-6)


@given(alpha=st.floats(0.05, 5.0).filter(lambda a: abs(a - 1) > 1e-3))
@settings(max_examples=25, deadline=None)
def test_elu_alpha_is_recovered(alpha):
    found = match(lambda x: F.elu(x, alpha))
    assert found.activation == "elu"
    assert found.parameters["alpha"] == pytest.approx(alpha, abs=1e-6)


@softknee.elementwise(bounds={"beta": (0.0, 100.0)})
def swish(x, ops, *, beta=1.0):
    """x·σ(beta·x)."""
    return x * ops.sigmoid(beta * x)


@given(beta=st.floats(0.05, 8.0))
@settings(max_examples=25, deadline=None)
def test_swish_beta_is_recovered(beta):
    found = match(lambda x: x * torch.sigmoid(beta * x), activations=[swish])
    assert found.activation == "swish"
    assert found.parameters["beta"] == pytest.approx(beta, abs=1e-6)


@pytest.mark.parametrize("beta", [1.702, 1.773])
def test_the_two_quick_gelus_come_apart(beta):
    assert match(lambda x: x * torch.sigmoid(beta * x), activations=[swish]).parameters == {"beta": beta}


def test_slopes_of_a_tenth_and_a_fifth_come_apart_in_float32():
    for slope in (0.1, 0.2):
        found = match(lambda x, s=slope: F.leaky_relu(x.float(), s))
        assert found.parameters == {"negative_slope": pytest.approx(slope, abs=1e-6)}


def test_at_most_512_evaluations():
    count = 0

    def counted(x):
        nonlocal count
        count += x.numel()
        return F.silu(x)

    match(counted)
    assert len(probes()) == 256
    assert count <= 512


def test_what_is_not_elementwise_is_said_to_be_so():
    found = match(lambda x: x - x.mean())
    assert found.activation is None
    assert "more than its own input" in found.note


def test_bad_functions_are_refused():
    with pytest.raises(InputError, match="input's shape"):
        match(lambda x: x.sum())
    with pytest.raises(InputError, match="cannot be evaluated"):
        match(lambda x: x @ torch.zeros(3, 3))
    with pytest.raises(InputError, match="one real tensor"):
        match(lambda x: torch.complex(x, x))
    with pytest.raises(InputError, match="1 or 2"):
        match(F.relu, inputs=3)
