"""Activations that are hard to show: jumps, poles, values that blow up, places where there is none."""

from __future__ import annotations

import softknee
from softknee.catalog.spec import normalizer


@softknee.elementwise
def shrink(x, ops, *, width=0.5):
    """0 within ±width, else x."""
    return ops.where(ops.abs(x) <= width, 0.0, x)


@softknee.elementwise
def square(x, ops):
    """x²."""
    return x * x


@softknee.elementwise
def tower(x, ops):
    """exp(x⁴): overflows at 5.16."""
    return ops.exp(x**4)


@softknee.elementwise
def logarithm(x, ops):
    """log x: not defined below 0."""
    return ops.log(x)


@softknee.elementwise
def reciprocal(x, ops):
    """1/x: a pole at 0."""
    return 1.0 / x


@softknee.elementwise
def constant(x, ops, *, level=1e20):
    """One level."""
    return level + 0.0 * x


@softknee.elementwise
def capped(x, ops, *, cap=30.0):
    """Bends far out, without a kink."""
    return cap * ops.tanh(x / cap)


@softknee.elementwise
def far(x, ops, *, at=900.0):
    """A kink far out."""
    return ops.maximum(x, at)


@softknee.gated
def limited(gate, up, ops):
    """min(gate, 7)·(up + 1)."""
    return ops.minimum(gate, 7.0) * (up + 1.0)


@normalizer(lambda x, dim: x / x.sum(dim, keepdim=True))
def share(x, ops):
    """x over its total."""
    return x / ops.total(x)


UNUSUAL = (shrink, square, tower, logarithm, reciprocal, constant, capped, far, limited)
