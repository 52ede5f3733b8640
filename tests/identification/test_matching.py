"""Behaviour decides, constants are tight, parameters come back, and what is unknown is called unknown."""

import math
import random

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from hypothesis import assume, given, settings
from hypothesis import strategies as st

import softknee
from softknee.errors import InputError
from softknee.identification.matching import match, recognised

ALL = tuple(a for a in softknee.activations() if not a.stochastic and a.surrogate is None)
POLES = {"srs", "pau"}  # whose value is a quotient with poles, at most parameters
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


# What takes the most evaluations of each kind: told at once, a jump to be bisected, another input, random, an array
COUNTED = {
    "smooth": lambda x: F.silu(x),
    "a jump": lambda x: F.hardshrink(x, 0.777123),
    "a jump in half precision": lambda x: F.hardshrink(x.half(), 0.777123),
    "a row": lambda x: torch.softmax(x, -1),
    "random": lambda x: F.rrelu(x, training=True),
    "an array": lambda x: np.tanh(np.asarray(x, dtype=np.float64)) if isinstance(x, np.ndarray) else x.no_tensors(),
    "int8": lambda x: (F.silu(x) * 16).round().clamp(-128, 127) / 16,
}


@pytest.mark.parametrize("name", COUNTED)
def test_at_most_512_evaluations(name):
    count = 0

    def counted(x):
        nonlocal count
        count += x.numel() if isinstance(x, torch.Tensor) else x.size
        return COUNTED[name](x)

    match(counted, activations=ALL)
    assert 256 <= count <= 512


def test_at_most_512_evaluations_of_two_inputs_and_of_numbers():
    calls = []

    def number(x):
        calls.append(x)
        return math.tanh(x)

    assert match(number).activation == "tanh"
    assert sum(x.numel() if isinstance(x, torch.Tensor) else np.size(x) for x in calls) <= 512
    calls.clear()
    gate = softknee.get("fatrelu_glu")
    found = match(lambda g, u: gate(calls.append(g) or g, u, threshold=0.7), inputs=2, activations=ALL)
    assert found.parameters == pytest.approx({"threshold": 0.7}, abs=1e-9)
    assert sum(g.numel() for g in calls) <= 512


def test_random_states_are_left_alone_and_answers_repeat():
    torch.manual_seed(3)
    states = torch.get_rng_state(), np.random.get_state()[1].copy(), random.getstate()
    first, second = (match(lambda x: F.dropout(F.gelu(x), 0.1)) for _ in range(2))
    assert first == second and "random" in first.note
    assert torch.equal(states[0], torch.get_rng_state())
    assert np.array_equal(states[1], np.random.get_state()[1])
    assert states[2] == random.getstate()


ARRAYS = {
    "tanh": (math.tanh, "tanh"),
    "exp": (lambda x: 1 / (1 + math.exp(-x)), "sigmoid"),
    "branches": (lambda x: x if x > 0 else 0.2 * x, "leaky_relu"),
    "numpy": (lambda x: np.where(x > 0, x, np.expm1(x)), "elu"),
    "numpy, float32": (lambda x: np.maximum(np.asarray(x, np.float32), np.float32(0)), "relu"),
}


@pytest.mark.parametrize("name", ARRAYS)
def test_functions_of_arrays_and_of_numbers(name):
    function, activation = ARRAYS[name]
    assert match(function).activation == activation
    (site,) = softknee.identify(function)
    assert site.activation == activation


def test_by_itself_a_function_may_be_any_identity():
    for function, name in ((lambda x: x * x, "quadratic"), (lambda x: abs(x), "abs"), (lambda x: torch.exp(x), "exp")):
        (site,) = softknee.identify(function)
        assert site.activation == name


def test_a_rational_tanh_that_ends_too_high_is_nearest_to_tanh():
    def rational(x):
        t = (x * (27 + x * x)) / (27 + 9 * x * x)
        return t.clamp(-1.044, 1.044)

    found = match(rational, activations=ALL)
    assert found.activation is None
    assert found.nearest == "tanh"
    assert found.distance == pytest.approx(0.044 / 1.044, rel=1e-3)
    assert abs(found.at) > 4


HALF = {
    "gelu": [F.gelu, lambda x: 0.5 * x * (1 + torch.erf(x / 1.41421356))],
    "gelu_tanh": [
        lambda x: F.gelu(x, approximate="tanh"),
        lambda x: 0.5 * x * (1 + torch.tanh(0.79788456 * (x + 0.044715 * x**3))),
    ],
    "silu": [F.silu, lambda x: x * torch.sigmoid(x), lambda x: x / (1 + torch.exp(-x))],
    "quick_gelu": [softknee.functional.quick_gelu, lambda x: x * torch.sigmoid(1.702 * x)],
    "mish": [F.mish, lambda x: x * torch.tanh(torch.log1p(torch.exp(x)))],
    "hardswish": [F.hardswish, lambda x: x * (x + 3).clamp(0, 6) / 6],
    "relu": [F.relu],
}


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16], ids=str)
@pytest.mark.parametrize("name", HALF)
def test_in_half_precision_the_truth_is_named_or_among_the_candidates(name, dtype):
    for i, function in enumerate(HALF[name]):
        found = match(lambda x, f=function: f(x.to(dtype)), activations=ALL)
        named = [c.activation for c in found.candidates] or [found.activation]
        assert name in named and len(named) <= 3
        if i == 0:  # rounded once
            assert found.activation == name and not found.candidates
        assert sum(c.confidence for c in found.candidates) <= 1 + 1e-9


def test_only_where_every_step_is_rounded_coarsely_erf_and_tanh_are_not_told_apart():
    tanh = HALF["gelu_tanh"][1]
    found = match(lambda x: tanh(x.bfloat16()), activations=ALL)
    assert {c.activation for c in found.candidates} == {"gelu", "gelu_tanh"}
    assert "cannot be told" in found.note
    assert match(lambda x: tanh(x.half()), activations=ALL).candidates == ()


@pytest.mark.parametrize("name", ["gelu", "gelu_tanh", "silu"])
def test_through_a_table_of_float16_values(name):
    """float32 in and out, by way of one float16 value for each float16 input."""
    activation = softknee.get(name)
    found = match(lambda x: activation(x.half().float()).half().to(x.dtype), activations=ALL)
    assert (found.activation, found.candidates) == (name, ())


def test_swapped_coefficients_and_a_shift_are_unknown_in_half_precision_too():
    swapped = lambda x: 0.5 * x * (1 + torch.tanh(0.044715 * (x + 0.79788456 * x**3)))  # noqa: E731
    for function in (swapped, lambda x: F.gelu(x) + 0.1, lambda x: 1.1 * F.gelu(x)):
        assert match(lambda x, f=function: f(x.double()).half(), activations=ALL).activation is None


def int8(activation):
    """Inputs and outputs on 255 codes; inputs from −8 to 8."""
    step = float(activation(torch.linspace(-8, 8, 255)).abs().max()) / 127
    return lambda x: (activation((x * 127 / 8).round().clamp(-127, 127) * 8 / 127) / step).round() * step


def test_between_int8_codes_the_answer_is_a_set():
    found = match(int8(softknee.get("gelu")), activations=ALL)
    likely = {c.activation: c.confidence for c in found.candidates}
    assert {"gelu", "gelu_tanh"} <= set(likely) and len(likely) <= 4
    assert "silu" not in likely and "relu" not in likely
    assert sum(likely.values()) <= 1 + 1e-9
    assert match(int8(softknee.get("silu")), activations=ALL).activation == "silu"
    assert match(int8(torch.sin), activations=[softknee.get("gelu"), softknee.get("silu")]).activation is None
    (site,) = softknee.identify(int8(softknee.get("gelu_tanh")))
    assert {c.activation for c in site.candidates} == set(likely)


@given(data=st.data())
@settings(max_examples=40, deadline=None, derandomize=True)
def test_random_entries_at_random_parameters_come_back_as_the_same_function(data):
    activation = data.draw(st.sampled_from([a for a in ALL if a.kind != "normalizer" and a.name not in POLES]))
    factors = {
        n: data.draw(st.floats(0.5, 2.0), n) for n, p in activation.parameters.items() if math.isfinite(p.default)
    }
    # 0 stays 0: a threshold or an exponent of it is the usual one
    wanted = activation.defaults | {n: activation.defaults[n] * f for n, f in factors.items()}
    assume(all(c.holds(wanted) for c in activation.conditions))
    swap = len(activation.inputs) == 2 and data.draw(st.booleans(), "swapped")
    found = match(lambda *x: activation(*x[:: -1 if swap else 1], **wanted), inputs=len(activation.inputs),
                  activations=ALL)  # fmt: skip
    assert found.activation is not None, (activation, wanted, found)
    x = np.linspace(-9.87, 9.91, 501)  # not the probes
    points = (x, 4 * np.sin(5 * x))[: len(activation.inputs)]
    same = points[::-1] if found.order is not None and (found.order == "up_gate") != swap else points
    got, truth = softknee.get(found.activation).value(*same, **found.parameters), activation.value(*points, **wanted)
    assert np.allclose(got, truth, rtol=1e-6, atol=1e-6)


@given(scale=st.floats(1.01, 3.0), shift=st.floats(0.01, 2.0))
@settings(max_examples=4, deadline=None)
def test_scaled_and_shifted_activations_are_unknown(scale, shift):
    for function in (lambda x: scale * F.mish(x) + shift, lambda x: F.gelu(x - shift), lambda x: F.silu(x) + shift):
        assert match(function, activations=ALL).activation is None


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
