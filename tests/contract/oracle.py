"""The oracle: an activation's plain formula in mpmath, and the bound that float64 must keep against it."""

from __future__ import annotations

import functools
import math

import mpmath
import numpy as np

from softknee.backends import table
from softknee.backends.mpmath import MpmathTable
from softknee.catalog import Activation
from softknee.errors import InputError

DIGITS = 60
TAIL_DIGITS = 360  # what 1 + tanh(u) needs to keep 30 of them where it is the smallest float64


def settings(activation: Activation) -> list[dict[str, float]]:
    """The defaults, and the parameters made smaller and larger, so far as their conditions allow."""
    found = [activation.defaults]
    for scale, shift in ((0.6, 0.0), (1.0, 1.25)):
        moved = {n: scale * v + shift if math.isfinite(v) else 3.0 for n, v in activation.defaults.items()}
        try:
            found += [activation.resolve(moved)] if moved else []
        except InputError:
            continue
    return found


def orders(activation: Activation, **of: int) -> tuple[int, ...]:
    """How often to differentiate with respect to each input and parameter: `orders(swish, x=1, beta=1)`."""
    assert of.keys() <= set(activation.names)
    return tuple(of.get(name, 0) for name in activation.names)


def exact(activation: Activation, point: tuple[float, ...], *order: int, **parameters: float) -> mpmath.mpf:
    """The formula at `point`, differentiated as often as `order` says with respect to each input and parameter (the
    first input alone if it is one number), in mpmath, by differences that are exact to DIGITS."""
    given = activation.defaults | parameters
    every = (*point, *(given[name] for name in activation.parameters))
    order = (*order, *[0] * (len(every) - len(order)))
    return _exact(activation, tuple(map(float, every)), order)


@functools.lru_cache(maxsize=400_000)
def _exact(activation: Activation, point: tuple[float, ...], order: tuple[int, ...]) -> mpmath.mpf:
    value = _differences(activation, point, order, DIGITS)
    return value if abs(value) > 1e-25 else _differences(activation, point, order, TAIL_DIGITS)


def _differences(activation, point, order, digits):
    ops = table("mpmath")
    function = activation.passing if order[0] else activation.own
    large = max([0, *(int(abs(math.log10(abs(x)))) for x in point if x and math.isfinite(x))])
    with mpmath.workdps(digits + (2 if large <= 110 else 4) * large):
        values = [mpmath.mpf(x) for x in point]
        moved = [i for i, n in enumerate(order) if n]

        def along(*some):
            arguments = list(values)
            for i, x in zip(moved, some, strict=True):
                arguments[i] = x
            inputs, parameters = arguments[: len(activation.inputs)], arguments[len(activation.inputs) :]
            return mpmath.mpf(function.on(ops, *inputs, **dict(zip(activation.parameters, parameters, strict=True))))

        if not moved:
            return +along()
        # the step of mp.diff is 2^−precision, tiny beside everything that happens here
        if len(moved) == 1:
            return +mpmath.diff(along, values[moved[0]], order[moved[0]])
        return +mpmath.diff(along, tuple(values[i] for i in moved), tuple(order[i] for i in moved))


class RowOps(MpmathTable):
    """mpmath over the last dimension of arrays of its numbers."""

    where = staticmethod(np.where)
    amax = staticmethod(functools.partial(np.max, axis=-1, keepdims=True))
    total = staticmethod(functools.partial(np.sum, axis=-1, keepdims=True))
    cumulative = staticmethod(functools.partial(np.cumsum, axis=-1))
    descending = staticmethod(lambda x: -np.sort(-x, axis=-1))
    grouped = staticmethod(lambda x, size: x.reshape(*x.shape[:-1], -1, size))
    flat = staticmethod(lambda x: x.reshape(*x.shape[:-2], -1))
    joined = staticmethod(lambda a, b: np.concatenate([a, b], -1))


for _name in ("exp", "log", "sqrt", "abs", "sign", "tanh", "maximum"):
    _primitive = getattr(MpmathTable(), _name)
    setattr(RowOps, _name, staticmethod(np.frompyfunc(_primitive, 2 if _name == "maximum" else 1, 1)))


def ulp(value: float) -> float:
    return float(np.spacing(abs(value))) if math.isfinite(value) else math.inf


def allowed(activation: Activation, point: tuple[float, ...], *order: int, **parameters: float) -> float:
    """8·(ulp(f) + Σ|a·∂f/∂a|·2⁻⁵²), a the inputs and parameters: what rounding each of them once does to the result.
    Of a derivative, 8·ulp(max(|f′|, 2⁻⁴)) is allowed, since a root has no relative accuracy."""
    return math.fsum(_allowances(activation, point, *order, **parameters))


def within(value: float, activation: Activation, point: tuple[float, ...], /, *order: int, **parameters: float) -> bool:
    """Whether `value` keeps the bound `allowed`, whose terms are only computed so far as they are needed."""
    truth = exact(activation, point, *order, **parameters)
    if not math.isfinite(value) or math.isinf(float(truth)):
        return value == float(truth)
    left = abs(mpmath.mpf(value) - truth)
    for allowance in _allowances(activation, point, *order, **parameters):
        left -= allowance
        if left <= 0:
            return True
    return False


def _allowances(activation, point, *order, **parameters):
    value = float(exact(activation, point, *order, **parameters))
    given = activation.defaults | parameters
    every = (*point, *(given[name] for name in activation.parameters))
    order = (*order, *[0] * (len(every) - len(order)))
    floor = 8 * ulp(max(abs(value), 2.0**-4)) if any(order) else 0.0
    so_far = max(8 * ulp(value), floor)
    yield so_far
    total = 8 * ulp(value)
    for i, a in enumerate(every):
        if a and math.isfinite(a):
            once_more = (*order[:i], order[i] + 1, *order[i + 1 :])
            total += 8 * 2.0**-52 * abs(float(a * exact(activation, point, *once_more, **parameters)))
            yield max(0.0, total - so_far)
            so_far = max(so_far, total)
