"""The oracle: an activation's plain formula in mpmath, and the bound that float64 must keep against it."""

from __future__ import annotations

import functools
import math

import mpmath
import numpy as np

from softknee.backends import table
from softknee.catalog import Activation

DIGITS = 60
TAIL_DIGITS = 360  # what 1 + tanh(u) needs to keep 30 of them where it is the smallest float64


@functools.lru_cache(maxsize=100_000)
def exact(activation: Activation, point: tuple[float, ...], order: int = 0, wrt: int = 0, **parameters: float):
    """The `order`-th derivative of the formula at `point`, in mpmath, by differences that are exact to DIGITS."""
    value = _exact(activation, point, order, wrt, DIGITS, parameters)
    return value if abs(value) > 1e-25 else _exact(activation, point, order, wrt, TAIL_DIGITS, parameters)


def _exact(activation, point, order, wrt, digits, parameters):
    ops = table("mpmath")
    large = max([0, *(int(math.log10(abs(x))) for x in point if x)])
    with mpmath.workdps(digits + 2 * large):
        values = [mpmath.mpf(x) for x in point]
        given = {name: mpmath.mpf(value) for name, value in (activation.defaults | parameters).items()}

        def along(x):
            return activation.formula(*values[:wrt], x, *values[wrt + 1 :], ops, **given)

        # the step of mp.diff is 2^−precision, tiny beside everything that happens here
        return +mpmath.diff(along, values[wrt], order) if order else +mpmath.mpf(along(values[wrt]))


def ulp(value: float) -> float:
    return float(np.spacing(abs(value))) if math.isfinite(value) else math.inf


def allowed(activation: Activation, point: tuple[float, ...], order: int, wrt: int = 0, **parameters: float) -> float:
    """8·(ulp(f) + Σ|xᵢ·∂f/∂xᵢ|·2⁻⁵²): what rounding the inputs once does to the result. From the first derivative on,
    8·ulp(max(|f′|, 2⁻⁴)) is allowed, since a root has no relative accuracy."""
    value = float(exact(activation, point, order, wrt, **parameters))
    condition = 0.0
    for i, x in enumerate(point):
        step = order + 1 if i == wrt else 1
        if i == wrt:
            slope = exact(activation, point, step, wrt, **parameters)
        else:
            slope = exact(activation, point, 1, i, **parameters) if order == 0 else value / x if x else 0.0
        condition += abs(float(x * slope))
    bound = 8 * (ulp(value) + condition * 2.0**-52)
    return max(bound, 8 * ulp(max(abs(value), 2.0**-4))) if order else bound
