"""How deep a signal goes: the variance map of a wide network of one activation, and what becomes of gradients.

With weights of variance gain²/fan_in and biases of variance bias², pre-activations of a wide layer are normal, and
their variance goes from layer to layer by

    q ↦ V(q) = gain²·E[f(√q·z)²] + bias²,   z ~ N(0, 1)

(the length map of Poole et al. 2016, arXiv:1606.05340). The variance of gradients goes backwards by

    χ = gain²·E[f′(√q·z)²]

a layer (Schoenholz et al. 2017, arXiv:1611.01232): χ < 1 vanishes, χ > 1 explodes, and e-fold in 1/|ln χ| layers,
which is how deep a network at the fixed point of V can be trained.
"""

from __future__ import annotations

import itertools
import math
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, NamedTuple

import numpy as np

from ..errors import InputError
from ..plain import plain_fields

if TYPE_CHECKING:
    from .derived import Facts


class FixedPoint(NamedTuple):
    """A variance that the map keeps. slope: V′ there; below 1 it attracts. chi: the factor of gradients' variance.

    variance is None where every variance is kept (ReLU at its gain, whose V is a multiple of q).
    """

    variance: float | None
    slope: float
    chi: float

    @property
    def depth(self) -> float:
        """Layers in which the variance of gradients changes e-fold, 1/|ln χ|; infinite at χ = 1."""
        return _scale(self.chi)


@dataclass(frozen=True)
class Signal:
    """Variances through `depth` layers of an activation, weights of variance gain²/fan_in.

    forward: of the pre-activations of layers 1 to depth. chi: the factor of gradients' variance at each. backward: the
    variance of gradients with respect to those pre-activations, as a multiple of that behind the last activation.
    path: the most that n activations multiply a gradient by along one path with weights of 1, n = 0 to depth: the
    largest |f′| to the n-th; None where that is unknown or has no bound. A sigmoid's is 0.25ⁿ; ReLU's is 1ⁿ, while
    `slope_second_moment`, E[f′(z)²] for z ~ N(0, 1), says that half of its paths are closed in each layer.
    """

    depth: int
    gain: float
    bias: float
    slope_second_moment: float
    forward: tuple[float, ...]
    chi: tuple[float, ...]
    backward: tuple[float, ...]
    path: tuple[float, ...] | None

    def to_dict(self) -> dict[str, Any]:
        return plain_fields(self)


def signal(facts: Facts, depth: int, gain: float | None, bias: float, variance: float | None) -> Signal:
    """See `Facts.signal`."""
    if isinstance(depth, bool) or not isinstance(depth, int) or depth < 1:
        raise InputError(f"depth must be a whole number of at least 1, got {depth!r}")
    gain, bias = _checked(facts, gain, bias)
    q = gain * gain + bias * bias if variance is None else _number("variance", variance)
    if not q > 0:
        raise InputError(f"variance must be a positive number, got {variance!r}")
    forward, chi = [], []
    for _ in range(depth):
        forward.append(q)
        q, factor = _layer(facts, q, gain, bias)
        chi.append(factor)
    backward = list(itertools.accumulate(reversed(chi), lambda a, b: a * b))[::-1]
    steepest = facts.largest_derivative
    path = None
    if steepest is not None and math.isfinite(steepest.value):
        path = tuple(abs(steepest.value) ** n for n in range(depth + 1))
    return Signal(depth, gain, bias, facts.slope_second_moment, tuple(forward), tuple(chi), tuple(backward), path)


def fixed_points(facts: Facts, gain: float | None, bias: float) -> tuple[FixedPoint, ...]:
    """See `Facts.fixed_points`; those between 1e-8 and 1e8 that V crosses the diagonal at, and 0 where V(0) = 0."""
    from scipy.optimize import brentq

    gain, bias = _checked(facts, gain, bias)

    def excess(logarithm: float) -> float:
        q = math.exp(logarithm)
        return _layer(facts, q, gain, bias)[0] / q - 1

    grid = np.log(np.geomspace(1e-8, 1e8, 49)).tolist()
    values = [excess(at) for at in grid]
    if all(abs(value) < 1e-10 for value in values):
        return (FixedPoint(None, 1.0, _layer(facts, 1.0, gain, bias)[1]),)
    found = []
    if bias == 0 and float(facts.value(0.0)) == 0:
        # at 0 both sides' slopes count, each for half of the inputs
        tiny, chi = _layer(facts, 1e-20, gain, bias)
        found.append(FixedPoint(0.0, tiny / 1e-20, chi))
    for (low, at_low), (high, at_high) in itertools.pairwise(zip(grid, values, strict=True)):
        if at_low * at_high < 0:
            at = float(brentq(excess, low, high, xtol=1e-13, rtol=1e-14))
            step = 1e-4
            # V(q) = q·(1 + excess), so V′ = 1 + excess + q·excess′ = 1 + d excess/d ln q at the fixed point
            slope = 1 + (excess(at + step) - excess(at - step)) / (2 * step)
            q = math.exp(at)
            found.append(FixedPoint(q, slope, _layer(facts, q, gain, bias)[1]))
    return tuple(found)


def _layer(facts: Facts, q: float, gain: float, bias: float) -> tuple[float, float]:
    """V(q) and χ(q); infinite or NaN where they are not to be had."""
    if not 1e-300 < q < 1e300:
        return (bias * bias if q == 0 else q), math.nan
    found = facts.moments(math.sqrt(q))
    if found is None:
        return math.nan, math.nan
    return gain * gain * found.second_moment + bias * bias, gain * gain * found.slope_second_moment


def _scale(chi: float) -> float:
    if math.isnan(chi):
        return math.nan
    return 0.0 if chi in (0.0, math.inf) else math.inf if chi == 1.0 else 1 / abs(math.log(chi))


def _checked(facts: Facts, gain: float | None, bias: float) -> tuple[float, float]:
    gain = facts.gain if gain is None else _number("gain", gain)
    if not 0 < gain < math.inf:
        raise InputError(f"{facts.activation.name} has no gain at these parameters; gain must be a positive number")
    bias = _number("bias", bias)
    if bias < 0:
        raise InputError(f"bias must be at least 0, got {bias!r}")
    return gain, bias


def _number(name: str, value: Any) -> float:
    if isinstance(value, bool) or not isinstance(value, (int, float)) or not math.isfinite(value):
        raise InputError(f"{name} must be a finite number, got {value!r}")
    return float(value)
