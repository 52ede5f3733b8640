"""Behaviour decides, constants are tight, parameters come back, and what is unknown is called unknown."""

import pytest
import torch
import torch.nn.functional as F
from hypothesis import given, settings
from hypothesis import strategies as st

import softknee
from softknee.errors import InputError
from softknee.identification.matching import match, probes, recognised

ELEMENTWISE = [a for a in recognised() if a.kind == "elementwise"]

# At their defaults these are the function of a simpler or more usual entry
SAME = {
    "swish": "silu", "celu": "elu", "prelu": "leaky_relu", "rrelu": "leaky_relu", "fatrelu_glu": "reglu",
    "noisy_relu": "relu",
}  # fmt: skip


@pytest.mark.parametrize("dtype", [torch.float64, torch.float32], ids=str)
@pytest.mark.parametrize("activation", ELEMENTWISE, ids=lambda a: a.name)
def test_every_elementwise_entry_is_recognised(activation, dtype):
    found = match(lambda x: activation(x.to(dtype)))
    assert found.activation == SAME.get(activation.name, activation.name)


@pytest.mark.parametrize("activation", [a for a in recognised() if a.kind == "gated"], ids=lambda a: a.name)
def test_every_gated_entry_is_recognised_in_both_orders(activation):
    assert match(lambda a, b: activation(a, b), inputs=2).order == "gate_up"
    found = match(lambda a, b: activation(b, a), inputs=2)
    if activation.name == "drelu":  # the same in either order
        return
    assert (found.activation, found.order) == (SAME.get(activation.name, activation.name), "up_gate")


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
    "quick gelu": ("quick_gelu", lambda x: x / (1 + torch.exp(-1.702 * x))),
    "relu6": ("relu6", lambda x: x.clamp(0, 6)),
    "relu2": ("relu2", lambda x: torch.relu(x) ** 2),
    "smelu": ("sparse_plus", lambda x: torch.where(x.abs() < 1, (x + 1) ** 2 / 4, F.relu(x))),
    "softsign": ("softsign", lambda x: x / (1 + x.abs())),
    "root": ("sqrt_softplus", lambda x: torch.log1p(torch.exp(x)).sqrt()),
    "shrink": ("softshrink", lambda x: torch.sign(x) * F.relu(x.abs() - 0.5)),
    "hard sigmoid": ("hardsigmoid", lambda x: (x + 3).clamp(0, 6) / 6),
    "log": ("logsigmoid", lambda x: -torch.log1p(torch.exp(-x))),
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


@given(beta=st.floats(0.05, 8.0).filter(lambda b: min(abs(b - 1), abs(b - 1.702)) > 1e-3))
@settings(max_examples=25, deadline=None)
def test_swish_beta_is_recovered(beta):
    found = match(lambda x: x * torch.sigmoid(beta * x))
    assert found.activation == "swish"
    assert found.parameters["beta"] == pytest.approx(beta, abs=1e-6)


def test_the_two_quick_gelus_come_apart():
    assert match(lambda x: x * torch.sigmoid(1.702 * x)).activation == "quick_gelu"
    found = match(lambda x: x * torch.sigmoid(1.773 * x))
    assert (found.activation, found.parameters) == ("swish", {"beta": 1.773})


# What a parameter may be, where the entry at that value is not another one's function
RANGES = {
    "thresholded_relu": {"threshold": (0.01, 9.0)},
    "hardtanh": {"min_val": (-20.0, -0.05), "max_val": (0.05, 20.0)},
    "celu": {"alpha": (0.05, 0.9)},
    "hardshrink": {"lambd": (0.05, 9.0)},
    "softshrink": {"lambd": (0.05, 9.0)},
    "softcap": {"cap": (1.5, 60.0)},
    "laplace": {"mu": (-4.0, 4.0), "sigma": (0.05, 5.0)},
    "softplus": {"beta": (0.1, 8.0)},
    "squareplus": {"b": (0.01, 30.0)},
    "xielu": {"alpha_p": (-3.0, 3.0), "alpha_n": (-3.0, 3.0), "beta": (0.1, 2.0)},
    "swiglu_oai": {"alpha": (0.5, 4.0), "limit": (0.5, 20.0)},
    "swiglu_clamped": {"limit": (0.5, 20.0)},
    "situ_glu": {"gate_cap": (1.0, 12.0), "up_cap": (2.0, 30.0)},
}


def test_every_parameter_that_a_fit_can_tell_has_a_range():
    told = {a.name for a in softknee.activations() if a.core and a.parameters and a.kind != "normalizer"}
    assert set(RANGES) == told - {"leaky_relu", "prelu", "rrelu", "elu", "swish"}  # those above, and their doubles


@pytest.mark.parametrize("name", RANGES)
@given(data=st.data())
@settings(max_examples=12, deadline=None)
def test_parameters_are_recovered(name, data):
    activation = softknee.get(name)
    wanted = {p: data.draw(st.floats(*ends), p) for p, ends in RANGES[name].items()}
    found = match(lambda *x: activation(*x, **wanted), inputs=len(activation.inputs))
    assert found.activation == name
    assert found.parameters == pytest.approx(activation.defaults | wanted, rel=1e-6, abs=1e-6)


@pytest.mark.parametrize("activation", [a for a in softknee.activations() if a.conditions], ids=lambda a: a.name)
def test_a_fit_keeps_the_conditions(activation):
    # the nearest to a function that none of them is, and to its mirror image
    for sign in (1.0, -1.0) if activation.kind != "normalizer" else ():
        found = match(
            lambda *x, s=sign: s * x[0].sin() * x[-1], inputs=len(activation.inputs), activations=[activation]
        )
        assert found.activation is None
        activation.resolve(found.parameters)


def test_a_fit_keeps_a_condition_between_parameters():
    @softknee.elementwise(conditions=("low < high",))
    def ramp(x, ops, *, low=-1.0, high=1.0):
        """From 0 at low to 1 at high."""
        return ops.minimum(ops.maximum((x - low) / (high - low), 0.0), 1.0)

    assert match(lambda x: ((x + 2) / 5).clamp(0, 1), activations=[ramp]).parameters == {"low": -2.0, "high": 3.0}
    falling = match(lambda x: ((x + 2) / -5).clamp(0, 1), activations=[ramp])  # low = 3, high = -2
    assert falling.activation is None
    assert falling.parameters["low"] < falling.parameters["high"]


COINCIDENT = {
    "silu": lambda x: softknee.functional.swish(x, 1.0),
    "quick_gelu": lambda x: softknee.functional.swish(x, 1.702),
    "relu6": lambda x: F.hardtanh(x, 0.0, 6.0),
    "elu": lambda x: F.celu(x, 1.0),
    "relu": lambda x: F.threshold(x, 0.0, 0.0),
    "tanh": lambda x: softknee.functional.softcap(x, 1.0),
    "identity": lambda x: F.softshrink(x, 0.0),
    "leaky_relu": lambda x: F.rrelu(x, 0.1, 0.3),
}


@pytest.mark.parametrize("name", COINCIDENT)
def test_the_simplest_of_the_same_is_named(name):
    assert match(COINCIDENT[name]).activation == name


NO_FIT = {
    "a floor": lambda x: x.clamp(min=1e-6),
    "a ceiling": lambda x: x.clamp(max=1.0),
    "nothing": lambda x: 0 * x,
    "a constant": lambda x: 0 * x + 3,
    "a half": lambda x: x / 2,
    "affine": lambda x: 2 * x - 1,
    "a sum of jumps": lambda x: torch.where(x > 1.23, x, 0.0) + torch.where(x > 1.24, x, 0.0),
    "a jump elsewhere on the left": lambda x: torch.where((x > 0.61) | (x < -0.6), x, 0.0),
}


@pytest.mark.parametrize("name", NO_FIT)
def test_what_no_probe_tells_is_no_fit(name):
    found = match(NO_FIT[name])
    assert found.activation is None
    assert found.distance > 1e-7


def gpt_oss(gate, up, alpha=1.702, limit=7.0, one=1.0):
    gate, up = gate.clamp(max=limit), up.clamp(-limit, limit)
    return (up + one) * (gate * torch.sigmoid(gate * alpha))


NO_GATED_FIT = {
    "no one": lambda g, u: gpt_oss(g, u, one=0.0),
    "limit 0": lambda g, u: gpt_oss(g, u, limit=0.0),
    "the gate clamped on both sides": lambda g, u: F.silu(g.clamp(-7, 7)) * u.clamp(max=7),
    "clamped after silu": lambda g, u: F.silu(g).clamp(max=10) * u.clamp(-9, 9),
    "up twice": lambda g, u: F.silu(g) * u * u,
    "gate and up swapped within": lambda g, u: u * torch.sigmoid(1.702 * g) * (g + 1),
}


@pytest.mark.parametrize("name", NO_GATED_FIT)
def test_gated_near_misses_are_unknown(name):
    assert match(NO_GATED_FIT[name], inputs=2).activation is None


def test_clamped_after_silu():
    found = match(lambda g, u: F.silu(g).clamp(max=7) * u.clamp(-7, 7), inputs=2)
    assert (found.activation, found.parameters) == ("swiglu_step", {"limit": 7.0})


def test_what_could_be_anything_is_named_only_if_asked_for():
    """x², |x| and a product are parts of norms; curves of several parameters come near to anything."""
    for function, name in ((torch.square, "quadratic"), (torch.abs, "abs"), (lambda x: 2 * torch.tanh(x), "dyt")):
        assert match(function).activation != name
        assert match(function, activations=[softknee.get(name)]).activation == name
    assert match(torch.mul, inputs=2).activation is None


def test_which_came_first_is_told():
    found = match(lambda a, b: gpt_oss(b, a, 1.5, 5.0), inputs=2)
    assert (found.activation, found.parameters, found.order) == ("swiglu_oai", {"alpha": 1.5, "limit": 5.0}, "up_gate")


@pytest.mark.parametrize("temperature", [0.25, 1.0, 2.5, 30.0])
@pytest.mark.parametrize("name", ["softmax", "log_softmax"])
def test_temperatures(name, temperature):
    found = match(lambda x: getattr(torch, name)(x / temperature, -1))
    assert (found.activation, found.parameters) == (name, {"temperature": pytest.approx(temperature, rel=1e-6)})


def test_sparsemax_is_told_and_what_is_random_is_said_to_be():
    assert match(softknee.functional.sparsemax).activation == "sparsemax"
    assert match(lambda x: torch.softmax(-x, -1)).activation is None
    for function in (F.gumbel_softmax, lambda x: F.rrelu(x, training=True)):
        assert match(function).note == "it is random: an output changes from call to call"


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
    count = 0
    match(lambda x: torch.where(counted(x) > -1, F.hardshrink(x, 0.777123), 0.0))
    assert count <= 1024


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
