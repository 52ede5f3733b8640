"""Accuracy in float64 against the oracle: f, f′, f″ and derivatives by parameters, at zero, subnormals, tails, near
kinks and roots, at random, for several values of the parameters; what is stated at ±∞ and NaN."""

from __future__ import annotations

import itertools
import math

import mpmath
import numpy as np
import pytest
import torch
from hypothesis import assume, given, settings
from hypothesis import strategies as st
from oracle import TAIL_DIGITS, RowOps, allowed, exact, orders, ulp, within
from oracle import settings as parameter_settings

import softknee
from softknee.backends import table
from softknee.backends.torch import Composite
from softknee.expression import compile_source, differentiate, emit
from softknee.facts import facts

TINY = [0.0, -0.0, 5e-324, -5e-324, 1e-310, -1e-310, 2.2250738585072014e-308, 1e-300, -1e-300, 1e-20, -1e-20]
MIDDLE = [s * x for x in (1e-8, 1e-3, 0.1, 0.5, 0.7518, 1.0, 1.1924, 1.2785, 2.0, 2.7, 5.0, 7.9, 10.0) for s in (1, -1)]
TAILS = [s * x for x in (13.1, 16.6, 20.0, 26.3, 38.2, 88.7, 103.0, 700.0, 740.0, 1e3, 1e10, 1e100) for s in (1, -1)]
FEW = [0.0, 1e-310, -1e-20, 1e-3, -0.1, 0.5, -1.0, 1.2785, -2.0, 2.7, -6.1, 16.6, -38.2, 88.7, -740.0, 1e10, -1e100]
NEAR = 1e3
DTYPES = (torch.float64, torch.float32, torch.bfloat16, torch.float16)


def points(activation, order, **parameters):
    """Away from kinks where derivatives are asked for: within 1e-40 the oracle's own differences would straddle one."""
    defaults = parameters == activation.defaults
    every = [*TINY, *MIDDLE, *TAILS, *np.random.default_rng(0).normal(0, 3, 40)]
    x = FEW if not defaults else every if activation.core else [*FEW, *MIDDLE]
    breakpoints = facts(activation, **parameters).breakpoints
    breakpoints = [b for b in breakpoints if abs(b) < NEAR or not periodic(activation)]
    x = [v for v in x if abs(v) < NEAR or not periodic(activation)]
    x = [*x, *(b + d for b in breakpoints for d in (1e-9, -1e-9, 1e-3, -1e-3))]
    return [v for v in x if order == 0 or all(abs(v - b) > 1e-30 for b in breakpoints)]


def periodic(activation):
    """Beyond NEAR a rounding of the argument of sin is no small part of a turn, and nothing is promised there."""
    return "periodic" in activation.tags


def composite(activation):
    """Ours alone: no other way to the same values in front of it."""
    return Composite(activation.expression, activation.names, len(activation.inputs), (*activation.defaults.values(),))


def by(way, activation):
    """The composite, or whatever path a call takes."""
    ours = composite(activation)
    return activation if way == "call" else lambda *inputs: ours(*inputs, *activation.defaults.values())


def derivative(y, x):
    if not y.requires_grad:
        return torch.zeros_like(x)
    (grad,) = torch.autograd.grad(y.sum(), x, create_graph=True, allow_unused=True)
    return torch.zeros_like(x) if grad is None else grad


def derivatives(function, arguments, order):
    """`function` differentiated by PyTorch's autograd as often as `order` says with respect to each argument."""
    y = function(*arguments)
    for argument, times in zip(arguments, order, strict=True):
        for _ in range(times):
            y = derivative(y, argument)
    return y.detach().numpy()


def tensors(values, count):
    """Each number as a float64 tensor that takes a gradient; an infinite parameter stays a number."""
    return [torch.full((count,), v, dtype=torch.float64, requires_grad=True) if math.isfinite(v) else v for v in values]


def broken(activation, values, at, order, **parameters):
    """The points where a value leaves the bound, and the values there."""
    return [
        (point, float(value), float(exact(activation, point, *order, **parameters)))
        for value, point in zip(values, at, strict=True)
        if not within(float(value), activation, point, *order, **parameters)
    ]


@pytest.mark.wide
@pytest.mark.parametrize("order", [0, 1, 2])
def test_elementwise(elementwise, order):
    for setting in parameter_settings(elementwise):
        x = points(elementwise, order, **setting)
        at, ordered = [(v,) for v in x], orders(elementwise, **{elementwise.inputs[0]: order})
        reference = elementwise.derivative(x, order=order, **setting)
        assert not broken(elementwise, reference, at, ordered, **setting), setting
        arguments = [torch.tensor(x, dtype=torch.float64, requires_grad=True), *setting.values()]
        ours = derivatives(composite(elementwise), arguments, ordered)
        assert not broken(elementwise, ours, at, ordered, **setting), setting


@pytest.mark.wide
def test_elementwise_by_parameter(elementwise):
    for setting in parameter_settings(elementwise):
        x = [v for v in points(elementwise, 1, **setting) if v in FEW or abs(v) < 3]
        arguments = [torch.tensor(x, dtype=torch.float64, requires_grad=True), *tensors(setting.values(), len(x))]
        for name in (name for name, value in setting.items() if math.isfinite(value)):
            ordered = orders(elementwise, **{name: 1})
            for values in (
                elementwise.derivative(x, wrt=name, **setting),
                derivatives(composite(elementwise), arguments, ordered),
            ):
                assert not broken(elementwise, values, [(v,) for v in x], ordered, **setting), (name, setting)


def pairs(activation, **parameters):
    rng = np.random.default_rng(1)
    breakpoints = facts(activation, **parameters).breakpoints
    gates = [*TINY[:5], -700.0, -37.0, -8.0, -1.2785, -0.5, 0.7, 3.0, 40.0, *rng.normal(0, 3, 12)]
    gates = [g for g in gates if all(abs(g - b) > 1e-30 for b in breakpoints)]
    ups = [*rng.normal(0, 2, len(gates) - 4), 1e-9, -8.1, 33.0, -700.0]
    return list(zip(gates, map(float, ups), strict=True))


@pytest.mark.wide
@pytest.mark.parametrize("order", [(0, 0), (1, 0), (0, 1), (2, 0), (1, 1), (0, 2)])
def test_gated(gated, order):
    for setting in parameter_settings(gated):
        at = pairs(gated, **setting)
        gates, ups = (torch.tensor(v, dtype=torch.float64, requires_grad=True) for v in zip(*at, strict=True))
        ordered = (*order, *[0] * len(setting))
        ours = derivatives(composite(gated), [gates, ups, *setting.values()], ordered)
        assert not broken(gated, ours, at, ordered, **setting), setting
        if 0 in order:
            wrt = gated.inputs[int(order[1] > 0)]
            reference = gated.derivative(*np.array(at).T, order=sum(order), wrt=wrt, **setting)
            assert not broken(gated, reference, at, ordered, **setting), setting


@pytest.mark.wide
def test_gated_by_parameter(gated):
    for setting in parameter_settings(gated):
        at = pairs(gated, **setting)
        gates, ups = (torch.tensor(v, dtype=torch.float64, requires_grad=True) for v in zip(*at, strict=True))
        for name in setting:
            ordered = orders(gated, **{name: 1})
            ours = derivatives(composite(gated), [gates, ups, *tensors(setting.values(), len(at))], ordered)
            assert not broken(gated, ours, at, ordered, **setting), (name, setting)
            reference = gated.derivative(*np.array(at).T, wrt=name, **setting)
            assert not broken(gated, reference, at, ordered, **setting), (name, setting)


@settings(max_examples=60, deadline=None)
@given(x=st.floats(min_value=-750, max_value=750, allow_nan=False))
def test_any_float(elementwise, x):
    assert within(float(elementwise.value(x)), elementwise, (x,))


def within_conditions(activation):
    """A strategy of parameters near their defaults that keep the conditions."""

    def keeps(values):
        return all(condition.holds(values) for condition in activation.conditions)

    near = {
        name: st.floats(-2.0, 2.0).map(lambda d, v=value: v + d if math.isfinite(v) else 10.0 + d)
        for name, value in activation.defaults.items()
    }
    return st.fixed_dictionaries(near).filter(keeps)


@settings(max_examples=40, deadline=None)
@given(data=st.data(), x=st.floats(min_value=-30, max_value=30, allow_subnormal=False))
def test_any_parameters(elementwise, data, x):
    parameters = data.draw(within_conditions(elementwise))
    # a parameter whose reciprocal overflows leaves float64 on the way
    assume(all(value == 0 or abs(value) > 1e-3 for value in parameters.values()))
    assert within(float(elementwise.value(x, **parameters)), elementwise, (x,), **parameters)


@pytest.mark.wide
def test_stable_form_is_the_formula(traced):
    """`stable` is the same function in mpmath, where nothing cancels, to half an ulp of float64: its constants may be
    rounded to that."""
    if traced.stable is None:
        pytest.skip("no stable form declared")
    ops = table("mpmath")
    for setting in parameter_settings(traced):
        with mpmath.workdps(TAIL_DIGITS):
            parameters = {name: mpmath.mpf(value) for name, value in setting.items()}
            for x in (-30.0, -8.1, -3.3, -1.0, -0.4, -1e-5, 1e-9, 1e-5, 0.7, 2.2, 25.0, 38.0):
                a = traced.formula(mpmath.mpf(x), ops, **parameters)
                b = traced.stable(mpmath.mpf(x), ops, **parameters)
                assert abs(a - b) <= mpmath.mpf(2) ** -53 * max(abs(a), mpmath.mpf(2) ** -1074), (x, setting)


@pytest.mark.wide
def test_limits(elementwise):
    """f(±∞) is what the definition states, what the oracle tends to and what ours computes, f′(±∞) and f″(±∞) too."""
    assert elementwise.limits is not None, "a catalog entry states its limits"
    for end, limit in zip([-math.inf, math.inf], elementwise.limits, strict=True):
        if math.isnan(limit):
            assert periodic(elementwise) and np.isnan(elementwise.value(end))
            continue
        far = exact(elementwise, (math.copysign(1e12, end),))
        if math.isinf(limit):
            farther = exact(elementwise, (math.copysign(1e24, end),))  # a logarithm grows slowly
            assert abs(farther) > abs(far) + 20 and math.copysign(1, far) == math.copysign(1, limit)
        else:
            assert abs(float(far) - limit) <= 1e-7
        assert float(elementwise.value(end)) == pytest.approx(limit, abs=1e-15)
        if periodic(elementwise):  # whose slopes have none
            continue
        slopes = [float(exact(elementwise, (math.copysign(1e18, end),), order)) for order in (1, 2)]
        slopes = [math.copysign(math.inf, s) if abs(s) > 1e8 else s for s in slopes]
        for order, slope in enumerate(slopes, 1):
            assert float(elementwise.derivative(end, order=order)) == pytest.approx(slope, abs=1e-8), order
        check_limit(by("composite", elementwise), end, [limit, *slopes])


def check_limit(function, end, wanted):
    for dtype in DTYPES:
        x = torch.tensor([end], dtype=dtype, requires_grad=True)
        y = function(x)
        first = derivative(y, x)
        got = [y.item(), first.item(), derivative(first, x).item()]
        assert got == pytest.approx(wanted, abs=1e-2), (dtype, end)


@pytest.mark.wide
def test_limits_of_a_call(elementwise):
    """The same by whichever path a call takes."""
    if periodic(elementwise):
        pytest.skip("its slopes have no limits")
    for end, limit in zip([-math.inf, math.inf], elementwise.limits, strict=True):
        check_limit(elementwise, end, [limit, *(float(elementwise.derivative(end, order=order)) for order in (1, 2))])


@pytest.mark.wide
def test_no_nan_at_either_end(elementwise):
    """f, f′, f″ and the derivative by each parameter, at ±∞ and the largest numbers, whatever the parameters."""
    ends = [-math.inf, -1.7e308, 1.7e308, math.inf]
    if periodic(elementwise):
        pytest.skip("has no limits")
    for setting in parameter_settings(elementwise):
        for order, wrt in [(0, None), (1, None), (2, None), *((1, n) for n, v in setting.items() if math.isfinite(v))]:
            assert not np.isnan(elementwise.derivative(ends, order=order, wrt=wrt, **setting)).any(), (order, wrt)


@pytest.mark.wide
def test_gated_at_infinity(gated):
    """One input at ±∞, the other a number: f as IEEE arithmetic has it, f′ what it tends to."""
    for (gate, up), order in itertools.product([(math.inf, 2.0), (-math.inf, 2.0)], [(0, 0), (1, 0), (0, 1)]):
        far = float(exact(gated, (math.copysign(1e24, gate), up), *order))  # powlu is slow
        far = math.copysign(math.inf, far) if abs(far) > 1e7 else far
        pair = [torch.tensor([v], dtype=torch.float64, requires_grad=True) for v in (gate, up)]
        for function in (gated, by("composite", gated)):
            (value,) = derivatives(function, pair, order)
            assert value == pytest.approx(far, abs=1e-8), (gate, up, order)


@pytest.mark.wide
def test_nan_stays_nan(traced):
    nan = torch.full((len(traced.inputs), 9), math.nan)
    for dtype in DTYPES:
        assert traced(*nan.to(dtype)).isnan().all()


@pytest.mark.wide
@pytest.mark.parametrize("way", ["composite", "call"])
def test_gradient_is_finite_wherever_f_is(elementwise, way):
    """No NaN from a branch that was not taken, at any exponent; f and f′ overflow only where they are that large."""
    for dtype, low, high in ((torch.float64, -1074, 1023), (torch.float32, -149, 127)):
        powers = [*(2.0**e for e in range(low, high, 7)), 0.51 * torch.finfo(dtype).max, torch.finfo(dtype).max]
        powers = [v for v in powers if v < NEAR or not periodic(elementwise)]
        x = torch.tensor([s * v for v in powers for s in (1, -1)], dtype=dtype, requires_grad=True)
        y = by(way, elementwise)(x)
        first = derivative(y, x)
        second = derivative(first, x)
        for values, order in ((y, 0), (first, 1), (second, 2)):
            assert not values.isnan().any()
            for v in x[values.isinf()].tolist():
                assert abs(exact(elementwise, (v,), order)) > torch.finfo(dtype).max, (v, order)


def sweep(count):
    """float32 numbers: every 40013th bit pattern that is finite, and a dense grid of where things happen."""
    x = np.arange(0, 2**32, 40013, dtype=np.uint64).astype(np.uint32).view(np.float32)
    x = np.concatenate([x[np.isfinite(x)], np.linspace(-110, 110, 30_001, dtype=np.float32)])
    rng = np.random.default_rng(0)
    return [x, *(rng.normal(0, 3, x.size).astype(np.float32) for _ in range(count - 1))]


def both(activation, order, name, inputs):
    """The derivative by the first input, `order` times, and then by `name`, in float64."""
    expression = differentiate(differentiate(activation.expression, activation.inputs[0], order), name)
    code = compile_source(emit([expression], activation.name, activation.names, activation.inputs), activation.name)
    return code(table("numpy"), *inputs, *activation.defaults.values())


@pytest.mark.wide
@pytest.mark.parametrize("order", [0, 1])
def test_float32(traced, order):
    """The bound of float64 in the terms of float32, against float64; nothing is 0 that is a normal number."""
    x = sweep(len(traced.inputs))
    x = [v[np.abs(v) < NEAR / 100] for v in x] if periodic(traced) else x
    wide = [v.astype(np.float64) for v in x]
    arguments = [torch.tensor(v, requires_grad=True) for v in x]
    with np.errstate(all="ignore"):
        got = derivatives(by("composite", traced), arguments, (order, *[0] * (len(x) - 1))).astype(np.float64)
        truth = traced.derivative(*wide, order=order, wrt=traced.inputs[0])
        condition = np.abs(wide[0] * traced.derivative(*wide, order=order + 1, wrt=traced.inputs[0]))
        for name, value in [*zip(traced.inputs[1:], wide[1:], strict=True), *traced.defaults.items()]:
            if np.isfinite(value).all():
                condition += np.abs(value * both(traced, order, name, wide))
        size = np.maximum(np.abs(truth), 2.0**-4) if order else np.abs(truth)
        bound = 8 * (np.spacing(size.astype(np.float32)).astype(np.float64) + condition * 2.0**-23)
        fits = np.abs(truth) <= np.finfo(np.float32).max
        wrong = fits & ~(np.abs(got - truth) <= bound) | ~fits & (got != np.copysign(np.inf, truth))
        lost = (got == 0) & (np.abs(truth) >= np.finfo(np.float32).tiny)
    assert not (wrong | lost).any(), list(zip(*(v[wrong | lost][:3] for v in (*x, got, truth)), strict=True))


@pytest.mark.wide
def test_half_precision_rounds_the_float32_result_once(elementwise):
    ours = composite(elementwise)
    for dtype in (torch.bfloat16, torch.float16):
        x = torch.arange(-(2**15), 2**15, dtype=torch.int32).to(torch.int16).view(dtype)
        x = x[x.abs() < NEAR] if periodic(elementwise) else x[x.isfinite()]
        with torch.no_grad():
            halves, singles = (ours(v, *elementwise.defaults.values()) for v in (x, x.float()))
            assert torch.equal(halves, singles.to(dtype))


@pytest.mark.wide
@pytest.mark.parametrize("temperature", [1.0, 0.5, 2.0, 1e-300, math.inf])
def test_normalizer(normalizer, temperature):
    """PyTorch's path and the NumPy reference against the definition in mpmath, with the noise given."""
    rng = np.random.default_rng(0)
    fixed = [[2.0, 1.0, 0.1, -0.4], [70.0, -70.0, 3.0, 0.0], [5.0, 5.0, 1.0, 5.0], [0.0] * 4]
    rows = [np.array([*fixed, *rng.normal(0, 4, (5, 4))]) for _ in normalizer.inputs]
    parameters = {name: temperature for name in normalizer.parameters if name in ("temperature", "tau")}
    if not parameters and temperature != 1.0:
        pytest.skip("has no temperature")
    if temperature == 1e-300:
        rows = [rows[0][2:3]]
    given = [np.full_like(rows[0], 0.3) if temperature == 1e-300 else rng.random(rows[0].shape)]
    given = [*rows, *(given if normalizer.stochastic else [])]
    resolved = normalizer.resolve(parameters)
    ours = normalizer.along(-1, *map(torch.tensor, given), **resolved).numpy()
    with np.errstate(over="ignore", divide="ignore"):
        reference = normalizer.on(table("numpy"), *given, **resolved)
    if not normalizer.stochastic:
        assert np.array_equal(normalizer(*map(torch.tensor, rows), dim=-1, **parameters).numpy(), ours)
    with mpmath.workdps(50):
        exactly = np.frompyfunc(mpmath.mpf, 1, 1)
        wanted = normalizer.on(RowOps(), *map(exactly, given), **resolved).astype(np.float64)
    for got in (ours, reference):
        np.testing.assert_allclose(got, wanted, rtol=1e-12, atol=1e-15)


def values_at_every_place(function, count, value, dtype):
    """What f and f′ of one value are, at every place of tensors of many lengths, contiguous or not."""
    found, slopes = set(), set()
    for length in (*range(1, 36), 63, 64, 65, 70):
        contiguous = torch.full((length,), value, dtype=dtype, requires_grad=True)
        strided = torch.full((length, 3), value, dtype=dtype).requires_grad_()[:, 1]
        for x in (contiguous, strided):
            y = function(*[x] * count)
            found |= set(y.tolist())
            slopes |= set(derivative(y, x).tolist())
    return found, slopes


@pytest.mark.parametrize("dtype", DTYPES, ids=str)
@pytest.mark.parametrize("way", ["composite", "call"])
def test_place_does_not_matter(traced, dtype, way):
    """Where a call takes PyTorch's op, whose vector lanes and scalar tail differ, within what that is allowed."""
    function = by(way, traced)
    native = way == "call" and traced.path(*[torch.zeros(1, dtype=dtype)] * len(traced.inputs)).forward == "native"
    for value in (-8.1, -5.0, -5.06, -0.3, 1.7, 9.3):
        found, slopes = values_at_every_place(function, len(traced.inputs), value, dtype)
        spread = max(found) - min(found)
        assert len(found) == 1 or (native and spread <= 4 * torch.finfo(dtype).eps * abs(max(found))), (value, found)
        assert len(slopes) == 1, (value, slopes)


def test_the_bound_can_fail():
    """A form that cancels breaks the bound, so the tests above can fail."""
    gelu = softknee.get("gelu")
    x = -6.0
    careless = 0.5 * x * (1 + math.erf(x / math.sqrt(2)))
    assert abs(careless - float(exact(gelu, (x,)))) > allowed(gelu, (x,))
    assert not within(careless, gelu, (x,)) and within(float(gelu.value(x)), gelu, (x,))
    assert not within(math.nan, gelu, (x,)) and not within(math.inf, gelu, (x,))
    assert ulp(1.0) == 2.0**-52


def test_the_bound_of_float32_can_fail():
    @softknee.elementwise
    def careless(x, ops):
        return 0.5 * x * (1.0 + ops.erf(x / ops.sqrt(2.0)))

    with pytest.raises(AssertionError):
        test_float32(careless, 0)
