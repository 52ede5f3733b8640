"""Accuracy in float64 against the oracle: f, f′, f″ at zero, subnormals, tails, near kinks and roots, at random."""

from __future__ import annotations

import math

import mpmath
import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from oracle import allowed, exact, ulp

from softknee.backends import table

TINY = [0.0, -0.0, 5e-324, -5e-324, 1e-310, -1e-310, 2.2250738585072014e-308, 1e-300, -1e-300, 1e-20, -1e-20]
MIDDLE = [s * x for x in (1e-8, 1e-3, 0.1, 0.5, 0.7518, 1.0, 1.1924, 1.2785, 2.0, 2.7, 5.0, 7.9, 10.0) for s in (1, -1)]
TAILS = [s * x for x in (13.1, 16.6, 20.0, 26.3, 38.2, 88.7, 103.0, 700.0, 740.0, 1e3, 1e10, 1e100) for s in (1, -1)]


def points(activation, order):
    x = [*TINY, *MIDDLE, *TAILS, *np.random.default_rng(0).normal(0, 3, 40)]
    breakpoints = activation.facts.breakpoints
    x += [b + d for b in breakpoints for d in (1e-9, -1e-9, 1e-3, -1e-3)]
    if order == 0:
        return x + list(breakpoints)
    # Within 1e-40 of a kink the oracle's own differences would straddle it.
    return [v for v in x if all(abs(v - b) > 1e-30 for b in breakpoints)]


def torch_derivative(activation, x, order):
    """f, f′ or f″ by PyTorch's autograd through our function."""
    x = torch.tensor(x, dtype=torch.float64, requires_grad=True)
    y = activation(x)
    for _ in range(order):
        (y,) = torch.autograd.grad(y.sum(), x, create_graph=True)
    return y.detach().numpy()


@pytest.mark.parametrize("order", [0, 1, 2])
def test_elementwise_float64(elementwise, order):
    if order == 2 and elementwise.native:
        pytest.skip("PyTorch's own op; its second derivative is 0 almost everywhere")
    x = np.array(points(elementwise, order))
    for got in (elementwise.derivative(x, order=order), torch_derivative(elementwise, x, order)):
        for point, value in zip(x, got, strict=True):
            truth = exact(elementwise, (float(point),), order)
            error = abs(float(mpmath.mpf(float(value)) - truth)) if math.isfinite(value) else math.inf
            bound = allowed(elementwise, (float(point),), order)
            assert error <= bound, f"{elementwise.name} order {order} at {point!r}: {value!r}, exactly {float(truth)!r}"


@pytest.mark.parametrize(("order", "wrt"), [(0, 0), (1, 0), (1, 1), (2, 0)])
def test_gated_float64(gated, order, wrt):
    rng = np.random.default_rng(1)
    gates = np.array([*TINY[:5], -700.0, -37.0, -8.0, -1.2785, -0.5, 0.7, 3.0, 40.0, *rng.normal(0, 3, 30)])
    gates = gates[[all(abs(g - b) > 1e-30 for b in gated.facts.breakpoints) for g in gates]]
    ups = rng.normal(0, 2, gates.size)
    tensors = [torch.tensor(v, dtype=torch.float64, requires_grad=True) for v in (gates, ups)]
    y = gated(*tensors)
    got = y
    for _ in range(order):
        (got,) = torch.autograd.grad(got.sum(), tensors[wrt], create_graph=True)
    reference = gated.derivative(gates, ups, order=order, wrt=gated.inputs[wrt])
    for values in (got.detach().numpy(), reference):
        for g, u, value in zip(gates, ups, values, strict=True):
            truth = exact(gated, (float(g), float(u)), order, wrt)
            error = abs(float(mpmath.mpf(float(value)) - truth))
            assert error <= allowed(gated, (float(g), float(u)), order, wrt), (gated.name, g, u, value, float(truth))


@settings(max_examples=150, deadline=None)
@given(x=st.floats(min_value=-750, max_value=750, allow_nan=False))
def test_any_float(elementwise, x):
    value = float(elementwise.value(x))
    truth = exact(elementwise, (x,))
    assert abs(float(mpmath.mpf(value) - truth)) <= allowed(elementwise, (x,), 0)


def test_parameters_have_gradients(elementwise):
    x = np.array([-3.0, -0.7, 0.4, 2.5])
    for name, parameter in elementwise.parameters.items():
        if math.isinf(parameter.default):
            continue
        code = elementwise.derivative(x, wrt=name)
        p = torch.tensor(parameter.default, dtype=torch.float64, requires_grad=True)
        (grad,) = torch.autograd.grad(elementwise(torch.tensor(x), **{name: p}).sum(), p)
        h = 1e-6
        either = [elementwise.value(x, **{name: parameter.default + s * h}) for s in (1, -1)]
        assert np.allclose(code, (either[0] - either[1]) / (2 * h), atol=1e-8)
        assert float(grad) == pytest.approx(code.sum(), rel=1e-12, abs=1e-15)


def test_stable_form_is_the_formula(traced):
    """`stable` is the same function: equal to 40 digits in mpmath, where nothing cancels."""
    if traced.stable is None:
        pytest.skip("no stable form declared")
    ops = table("mpmath")
    with mpmath.workdps(60):
        for x in (-30.0, -3.3, -1.0, -1e-5, 0.0, 1e-5, 0.7, 2.2, 25.0):
            a = traced.formula(mpmath.mpf(x), ops, **traced.defaults)
            b = traced.stable(mpmath.mpf(x), ops, **traced.defaults)
            assert abs(a - b) <= mpmath.mpf(10) ** -40 * max(abs(a), mpmath.mpf(10) ** -30)


def test_limits(elementwise):
    """f(±∞) is what the definition states, is what the oracle tends to, and is what every path computes."""
    assert elementwise.limits is not None, "a catalog entry states its limits"
    ends = [-math.inf, math.inf]
    for end, limit in zip(ends, elementwise.limits, strict=True):
        far = exact(elementwise, (math.copysign(1e8, end),))
        if math.isinf(limit):
            assert abs(far) > 1e5 and math.copysign(1, far) == math.copysign(1, limit)
        else:
            assert abs(float(far) - limit) <= 1e-7
        assert float(elementwise.value(end)) == pytest.approx(limit, abs=1e-15)
        for dtype in (torch.float64, torch.float32, torch.bfloat16, torch.float16):
            x = torch.tensor([end], dtype=dtype, requires_grad=True)
            y = elementwise(x)
            assert y.item() == pytest.approx(limit, abs=1e-3)
            assert torch.isfinite(torch.autograd.grad(y.sum(), x)[0]).all(), (dtype, end)


def test_nan_stays_nan(traced):
    nan = torch.full((len(traced.inputs), 9), math.nan)
    for dtype in (torch.float64, torch.float32, torch.bfloat16, torch.float16):
        assert traced(*nan.to(dtype)).isnan().all()


def test_gradient_is_finite_wherever_f_is(elementwise):
    """No NaN from a branch that was not taken, at any exponent."""
    x = torch.tensor([s * 2.0**e for e in range(-1074, 1023, 7) for s in (1, -1)], dtype=torch.float64)
    x.requires_grad_()
    y = elementwise(x)
    (first,) = torch.autograd.grad(y.sum(), x, create_graph=True)
    assert y.isfinite().all() and first.isfinite().all()
    if first.requires_grad:
        (second,) = torch.autograd.grad(first.sum(), x)
        assert second.isfinite().all()


def test_half_precision_rounds_the_float32_result_once(elementwise):
    for dtype in (torch.bfloat16, torch.float16):
        bits = torch.arange(-(2**15), 2**15, dtype=torch.int32).to(torch.int16)
        x = bits.view(dtype)
        x = x[x.isfinite()]
        with torch.no_grad():
            assert torch.equal(elementwise(x), elementwise(x.float()).to(dtype))


@pytest.mark.parametrize("temperature", [1.0, 0.5, 2.0, 1e-300, math.inf])
def test_normalizer(normalizer, temperature):
    rng = np.random.default_rng(0)
    rows = np.array([[2.0, 1.0, 0.1], [700.0, -700.0, 3.0], [5.0, 5.0, 1.0], *rng.normal(0, 4, (5, 3))])
    if temperature == 1e-300:
        rows = rows[2:3]
    got = normalizer(torch.tensor(rows), dim=-1, temperature=temperature).numpy()
    got = np.exp(got) if normalizer.name.startswith("log") else got
    with mpmath.workdps(50):
        for row, values in zip(rows, got, strict=True):
            top = max(row)
            weights = [mpmath.exp((mpmath.mpf(x) - top) / mpmath.mpf(temperature)) for x in row]
            for weight, value in zip(weights, values, strict=True):
                truth = float(weight / mpmath.fsum(weights))
                assert value == pytest.approx(truth, rel=1e-12, abs=1e-300)


def test_the_bound_can_fail():
    """A form that cancels breaks the bound, so the tests above can fail."""
    import softknee

    gelu = softknee.get("gelu")
    x = -6.0
    careless = 0.5 * x * (1 + math.erf(x / math.sqrt(2)))
    assert abs(careless - float(exact(gelu, (x,)))) > allowed(gelu, (x,), 0)
    assert ulp(1.0) == 2.0**-52
