"""Facts of random definitions: what is claimed is so on a grid, what cannot be shown is unknown."""

from __future__ import annotations

import hypothesis.strategies as st
import numpy as np
from hypothesis import given, settings

import softknee

GRID = np.unique(np.concatenate([np.linspace(-9, 9, 4001), np.geomspace(9, 1e4, 50), -np.geomspace(9, 1e4, 50)]))
NUMBERS = st.floats(-3, 3).map(lambda v: round(v, 1))
UNARY = ("tanh", "sigmoid", "softplus", "abs", "erf", "atan", "sech2", "sin", "expm1", "sqrt", "log1p")


def formulas():
    """Functions of (x, ops)."""
    leaves = st.one_of(st.just(lambda x, ops: x), NUMBERS.map(lambda c: lambda x, ops: c * x + 1.0))

    def grown(inner):
        unary = st.tuples(st.sampled_from(UNARY), inner).map(lambda p: lambda x, ops: getattr(ops, p[0])(p[1](x, ops)))
        summed = st.tuples(inner, inner).map(lambda p: lambda x, ops: p[0](x, ops) + p[1](x, ops))
        times = st.tuples(inner, inner).map(lambda p: lambda x, ops: p[0](x, ops) * p[1](x, ops))
        larger = st.tuples(inner, NUMBERS).map(lambda p: lambda x, ops: ops.maximum(p[0](x, ops), p[1]))
        parted = st.tuples(inner, inner, NUMBERS).map(
            lambda p: lambda x, ops: ops.where(x > p[2], p[0](x, ops), p[1](x, ops))
        )
        return st.one_of(unary, summed, times, larger, parted)

    return st.recursive(leaves, grown, max_leaves=4)


@settings(max_examples=40)
@given(formulas())
def test_what_is_claimed_is_so(formula):
    def drawn(x, ops):
        return formula(x, ops)

    found = softknee.elementwise(drawn).facts
    values, slopes = found.value(GRID), found.value(GRID, 1)
    known = np.isfinite(values)
    x, values, slopes = GRID[known], values[known], slopes[known]
    order = np.argsort(x)
    x, values, slopes = x[order], values[order], slopes[order]
    if not x.size:
        return
    size = 1e-9 * (1 + np.abs(values))
    if found.range is not None:
        assert (values >= found.range.low - size).all() and (values <= found.range.high + size).all()
    steps, gains = np.diff(x), np.diff(values)
    whole = steps < 1e4 / 10  # no gap where f is undefined
    if found.monotonicity in ("increasing", "constant"):
        assert (gains >= -size[1:]).all()
    if found.monotonicity in ("decreasing", "constant"):
        assert (gains <= size[1:]).all()
    if found.lipschitz is not None:
        assert (np.abs(gains) <= found.lipschitz * steps * (1 + 1e-6) + size[1:]).all()
    if found.roots is not None and found.breakpoints is not None and found.zero is not None:
        for i in np.flatnonzero((np.sign(values[:-1]) * np.sign(values[1:]) < 0) & whole):
            places = (*found.roots, *found.breakpoints)
            assert any(x[i] - 1e-9 <= place <= x[i + 1] + 1e-9 for place in places), x[i]
    for low, high in found.dead or ():
        inside = (x > low) & (x < high)
        assert not slopes[inside].any()
    if found.parity in ("even", "odd"):
        mirrored = found.value(-x)
        assert np.allclose(values, mirrored if found.parity == "even" else -mirrored, rtol=1e-9, atol=1e-9)
    found.to_dict()
