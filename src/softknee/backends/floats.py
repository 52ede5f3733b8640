"""What every backend with machine arithmetic shares: the primitives that no math library gets right in the tails.

With h = exp(−|u|/2), which is a normal number down to u ≈ −1400 (fp64), e = h² and a coefficient a:

    σ(u)     = 1/(1 + e) for u ≥ 0,   e/(1 + e) for u < 0
    sech²(u) = 4e/(1 + e)²            (e = exp(−2|u|))
    a·σ(u)   = (a·h)·h/(1 + e) for u < 0

so the exponent is applied last and the product is rounded into the subnormal range once. Where the factor is 0 the
product is 0 also for a = ±∞, which is the limit: these factors beat every polynomial. Hence a is made finite, on the
decaying side only.
"""

from __future__ import annotations

import functools
import itertools
import math
from collections.abc import Callable, Sequence
from typing import Any

import numpy as np

from ..expression import Expr, OpTable, compile_source, emit

_LARGEST = float(np.finfo(np.float64).max)


class FloatTable(OpTable):
    """An op table over IEEE numbers. The backend adds the elementary functions and its own `finite`."""

    def sigmoid(self, x: Any) -> Any:
        e = self.exp(-abs(x))
        return self.where(x < 0, e, 1.0) / (1.0 + e)

    def sech2(self, x: Any) -> Any:
        e = self.exp(-2.0 * abs(x))
        return 4.0 * e / ((1.0 + e) * (1.0 + e))

    def softplus(self, x: Any) -> Any:
        return self.maximum(x, 0.0) + self.log1p(self.exp(-abs(x)))

    def exp_times(self, a: Any, u: Any) -> Any:
        h = self.exp(0.5 * u)
        return self.where(u < 0, self.finite(a) * h, a * h) * h

    def sigmoid_times(self, a: Any, u: Any) -> Any:
        h = self.exp(-0.5 * abs(u))
        return self.where(u < 0, (self.finite(a) * h) * h, a) / (1.0 + h * h)

    def sech2_times(self, a: Any, u: Any) -> Any:
        h = self.exp(-abs(u))
        e = h * h
        # 4·a may overflow where a·h does not
        return (self.finite(a) * h) * (4.0 * h) / ((1.0 + e) * (1.0 + e))

    def erfc_times(self, a: Any, u: Any) -> Any:
        # erfc(u) = erfcx(u)·exp(−u²); below u = 1 erfc itself is far from underflow. exp(−u²) in two halves,
        # the second last.
        v = self.maximum(u, 1.0)
        h = self.exp(-0.5 * v * v)
        tail = ((self.finite(a) * self.erfcx(v)) * h) * h
        return self.where(u > 1.0, tail, a * self.erfc(u))

    def erfcx(self, x: Any) -> Any:
        """exp(x²)·erfc(x) for x ≥ 1, where the backend has none: a polynomial for (x + 2)·erfcx(x)"""
        q = 1.0 - 4.0 / (x + 2.0)  # (x − 2)/(x + 2), from −⅓ to 1
        return polynomial(_erfcx_series(), 1.5 * q - 0.5) / (x + 2.0)


def polynomial(coefficients: Sequence[float], t: Any) -> Any:
    *rest, total = coefficients
    for c in reversed(rest):
        total = total * t + c
    return total


def powers(function: Callable[[float], float], terms: int) -> tuple[float, ...]:
    """A smooth function on [−1, 1] as a polynomial: its Chebyshev series from 40 points, written in powers.

    For a series that falls by a factor above 2.4 a term, so that the powers' sum does not cancel.
    """
    cosines = [math.cos(math.pi * j / 80) for j in range(160)]
    values = [function(cosines[2 * j + 1]) for j in range(40)]
    sums = [math.fsum(v * cosines[k * (2 * j + 1) % 160] for j, v in enumerate(values)) for k in range(terms)]
    return tuple(np.polynomial.chebyshev.cheb2poly([sums[0] / 40, *(each / 20 for each in sums[1:])]).tolist())


@functools.cache
def _erfcx_series() -> tuple[float, ...]:
    from scipy.special import erfcx

    def function(t: float) -> float:
        q = (t + 0.5) / 1.5
        x = 2.0 * (1.0 + q) / (1.0 - q)
        return (x + 2.0) * erfcx(x)

    return powers(function, 22)


def unsteady(
    expression: Expr, inputs: Sequence[str], parameters: Sequence[str], defaults: Sequence[float]
) -> tuple[str, ...]:
    """The inputs of a derivative that its code must keep from overflow: all, or none where a trial shows no NaN.

    The terms of a derivative at ±∞, or at the largest numbers, may be 0·∞, while 2⁸ below it already has its limit. The
    trial has one input there at a time, the parameters at their defaults and the cotangent (a name with an underscore)
    at 1.
    """
    from .numpy import OPS

    far, near = (-np.inf, -_LARGEST, _LARGEST, np.inf), (-2.0, 3.0)
    points = [(1.0,) if name.startswith("_") else far + near for name in inputs]
    trials = [trial for trial in itertools.product(*points) if sum(value in far for value in trial) == 1]
    code = compile_source(emit([expression], "trial", [*inputs, *parameters]), "trial")
    with np.errstate(all="ignore"):
        values = code(OPS, *np.array(trials).T, *defaults)
    return tuple(name for name in inputs if not name.startswith("_")) if np.isnan(values).any() else ()
