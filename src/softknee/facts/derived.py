"""Facts of one activation at given parameters, from its traced expression, in float64.

Integrals over z ~ N(0, 1) are taken by Gauss–Legendre quadrature on short pieces that end at the definition's
breakpoints, since a rule that runs across a kink is off by up to 1 %. A gated activation is looked at as a function of
its gate, with up = 1 (E[up²] = 1 makes its gain the same as with up ~ N(0, 1)).
"""

from __future__ import annotations

import functools
import math
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, NamedTuple

import numpy as np

from ..catalog import Activation
from ..errors import InputError
from ..expression import Expr, compile_source, emit, trace
from ..expression.graph import walk
from ..plain import plain

# Beyond |z| = 39 the normal density is below the smallest float64.
_RANGE = 39.0
_NODES, _WEIGHTS = np.polynomial.legendre.leggauss(48)


class Interval(NamedTuple):
    """An open interval; ends may be infinite."""

    low: float
    high: float


class Point(NamedTuple):
    x: float
    value: float


@dataclass(frozen=True, eq=False)
class Facts:
    """Facts of `activation` at `parameters` (its defaults unless given)."""

    activation: Activation
    parameters: dict[str, float]

    def value(self, x: Any, order: int = 0) -> np.ndarray:
        x = np.asarray(x, dtype=np.float64)
        inputs = (x, np.ones_like(x)) if self.activation.kind == "gated" else (x,)
        return np.asarray(self.activation.derivative(*inputs, order=order, **dict[str, Any](self.parameters)))

    @functools.cached_property
    def breakpoints(self) -> tuple[float, ...]:
        """Where the formula changes its branch: the roots of what its comparisons, maxima and abs compare."""
        found: set[float] = set()
        for node in walk(_formula(self.activation)):
            if node.op in ("lt", "le", "gt", "ge", "maximum", "minimum"):
                found.update(self._roots_of(node.args[0] - node.args[1]))
            elif node.op in ("abs", "sign"):
                found.update(self._roots_of(node.args[0]))
        return tuple(sorted(found))

    def _roots_of(self, expression: Expr) -> list[float]:
        from ..backends import table

        names = self.activation.names
        code = compile_source(emit([expression], "condition", names), "condition")
        ones = [1.0] * (len(self.activation.inputs) - 1)

        def difference(x: Any) -> np.ndarray:
            with np.errstate(all="ignore"):
                value = code(table("numpy"), x, *ones, *(self.parameters[p] for p in self.activation.parameters))
            return np.broadcast_to(value, np.shape(x)).astype(float)

        return _roots(difference, wide=True)

    @functools.cached_property
    def minimum(self) -> Point | None:
        """The lowest point, or None where there is none (unbounded below, or only approached at an end)."""
        return self._lowest(1.0)

    @functools.cached_property
    def maximum(self) -> Point | None:
        """The highest point, or None where there is none."""
        return self._lowest(-1.0)

    def _lowest(self, sign: float) -> Point | None:
        candidates = [*self.breakpoints, *_roots(lambda x: self.value(x, 1), wide=True)]
        if not candidates:
            return None
        values = sign * self.value(candidates)
        # of equals, the one nearest to 0 is the one to show
        with np.errstate(over="ignore"):
            value, _, x = min(zip(np.round(values, 14), np.abs(candidates), candidates, strict=True))
        if not value <= min((sign * end for end in self._ends), default=math.inf) or not math.isfinite(value):
            return None
        return Point(x, float(self.value(x)))

    @functools.cached_property
    def range(self) -> Interval:
        """Infimum and supremum of f."""
        low = min([*self._ends, *([self.minimum.value] if self.minimum else [])])
        high = max([*self._ends, *([self.maximum.value] if self.maximum else [])])
        return Interval(low, high)

    @functools.cached_property
    def _ends(self) -> tuple[float, ...]:
        """What f comes near to at the ends; both infinities where it swings ever further (x·cos x)."""
        ends: tuple[float, ...] = tuple(end for end in self.limits if not math.isnan(end))
        swings = len(ends) < 2 and np.any(_grows(*self.value(np.array([-1e4, 1e4, -1e8, 1e8])).reshape(2, 2)))
        return (*ends, -math.inf, math.inf) if swings else ends

    @functools.cached_property
    def limits(self) -> tuple[float, float]:
        """f(−∞) and f(+∞); where the definition gives NaN there, from how it grows. NaN where it is periodic."""
        stated = self.activation.limits or (0.0, 0.0)
        if any(map(math.isnan, stated)):
            return stated
        near, far, ends = self.value(np.array([-1e4, 1e4, -1e8, 1e8, -math.inf, math.inf])).reshape(3, 2)
        grown = np.where(_grows(near, far), np.copysign(math.inf, far), far)
        low, high = (np.where(np.isnan(ends), grown, ends) + 0.0).tolist()  # no −0
        return low, high

    @functools.cached_property
    def largest_derivative(self) -> Point:
        """Where |f′| is largest, and f′ there.

        A supremum that is only approached is given at a distant point; where f′ grows without end (relu2, xielu), both
        are infinite. A jump of f has no f′, and counts for nothing.
        """
        near, far = self.value(np.array([-1e4, 1e4, -1e8, 1e8]), 1).reshape(2, 2)
        if _grows(near, far).any():
            end = int(np.nanargmax(np.abs(far)))
            return Point((-math.inf, math.inf)[end], math.copysign(math.inf, far[end]))
        x = np.concatenate([_grid(), [-1e8, 1e8], _roots(lambda x: self.value(x, 2))])
        edges = np.array(self.breakpoints, dtype=float)
        x = np.concatenate([x, edges, edges, edges])
        at = x.copy()
        # at a kink the supremum is one of the one-sided slopes
        at[x.size - 2 * edges.size :] = np.concatenate([np.nextafter(edges, -math.inf), np.nextafter(edges, math.inf)])
        slopes = self.value(at, 1)
        # of equals, the one nearest to 0 is the one to show
        with np.errstate(over="ignore"):
            order = np.lexsort((np.abs(x), -np.round(np.abs(slopes), 14)))
        return Point(float(x[order[0]]), float(slopes[order[0]]))

    @functools.cached_property
    def dead(self) -> tuple[Interval, ...]:
        """Intervals between breakpoints on which f′ is exactly 0 as a function, not by underflow."""
        edges = [-math.inf, *self.breakpoints, math.inf]
        found: list[Interval] = []
        for low, high in zip(edges[:-1], edges[1:], strict=True):
            left, right = (low if math.isfinite(low) else high - 4 if math.isfinite(high) else -4), high
            right = high if math.isfinite(high) else left + 4
            inside = np.linspace(left, right, 9)[1:-1]
            if self.value(inside, 1).any():
                continue
            # the formula may branch where nothing happens: |x| at 0, in a shrinkage
            if found and found[-1].high == low and np.ptp(self.value([np.nextafter(low, -1e9), low, inside[0]])) == 0:
                found[-1] = Interval(found[-1].low, high)
            else:
                found.append(Interval(low, high))
        return tuple(found)

    def saturated(self, epsilon: float = 1e-3) -> tuple[Interval, ...]:
        """Intervals in which |f′| < epsilon (dead ones included), found on a grid and refined."""
        # Apart: around a root of f′ each crosses 0 once, while |f′| − ε does so twice, perhaps between two grid points.
        crossings = _roots(lambda x: self.value(x, 1) - epsilon, wide=True)
        crossings += _roots(lambda x: self.value(x, 1) + epsilon, wide=True)
        crossings = [c for c in crossings if not any(abs(c - b) < 1e-9 for b in self.breakpoints)]
        edges = [-math.inf, *sorted([*self.breakpoints, *crossings]), math.inf]
        found: list[Interval] = []
        for low, high in zip(edges[:-1], edges[1:], strict=True):
            left = low if math.isfinite(low) else min(high, 0.0) - 50.0
            right = high if math.isfinite(high) else max(low, 0.0) + 50.0
            if abs(float(self.value((left + right) / 2, 1))) < epsilon:
                if found and found[-1].high == low:
                    found[-1] = Interval(found[-1].low, high)
                else:
                    found.append(Interval(low, high))
        return tuple(found)

    def expectation(self, function: Callable[[np.ndarray], np.ndarray]) -> float:
        """E[function(z)] for z ~ N(0, 1)."""
        edges = np.unique([*np.linspace(-_RANGE, _RANGE, 79), *(b for b in self.breakpoints if abs(b) < _RANGE)])
        half = np.diff(edges)[:, None] / 2
        z = (edges[:-1, None] + edges[1:, None]) / 2 + half * _NODES
        density = np.exp(-z * z / 2) / math.sqrt(2 * math.pi)
        with np.errstate(all="ignore"):
            values = function(z)
        # where the density has underflowed, f may have overflowed (exp(x²/5)): 0·∞ is 0 there
        weighted = np.multiply(density, values, out=np.zeros_like(density), where=density > 0)
        return float((half * _WEIGHTS * weighted).sum())

    @functools.cached_property
    def mean(self) -> float:
        """E[f(z)]."""
        return self.expectation(self.value)

    @functools.cached_property
    def second_moment(self) -> float:
        """E[f(z)²]."""
        return self.expectation(lambda z: self.value(z) ** 2)

    @functools.cached_property
    def gain(self) -> float:
        """1/√E[f(z)²]: weights of variance gain²/fan_in keep the second moment through a layer and its activation.

        This and the next two are infinite where the expectation is 0.
        """
        return _inverse_root(self.second_moment)

    @functools.cached_property
    def centred_gain(self) -> float:
        """1/√Var f(z)."""
        variance = self.expectation(lambda z: (self.value(z) - self.mean) ** 2)
        # a constant has none but for the quadrature's rounding
        return _inverse_root(variance if variance > 1e-24 * self.second_moment else 0.0)

    @functools.cached_property
    def backward_gain(self) -> float:
        """1/√E[f′(z)²]: the same for gradients."""
        return _inverse_root(self.expectation(lambda z: self.value(z, 1) ** 2))

    def to_dict(self) -> dict[str, Any]:
        """All of them, as plain JSON types."""
        points = {"minimum": self.minimum, "maximum": self.maximum, "largest_derivative": self.largest_derivative}
        return plain(
            {"range": self.range, "limits": self.limits}
            | {name: None if point is None else point._asdict() for name, point in points.items()}
            | {
                "breakpoints": self.breakpoints,
                "dead": self.dead,
                "saturated": self.saturated(),
                "mean": self.mean,
                "second_moment": self.second_moment,
                "gain": self.gain,
                "centred_gain": self.centred_gain,
                "backward_gain": self.backward_gain,
            }
        )

    def gain_with(self, **parameters: float) -> float:
        """The gain at other parameters."""
        return facts(self.activation, **parameters).gain


def facts(activation: Activation, **parameters: float) -> Facts:
    """The facts of an activation at `parameters`, computed when they are asked for and remembered.

    Raises InputError for a normalizer, which is no function of one number, and for wrong parameters.
    """
    if activation.kind == "normalizer":
        raise InputError(f"{activation.name} is a normalizer, no function of one number; it has no facts of this kind")
    resolved = {name: float(value) for name, value in activation.resolve(parameters).items()}
    return _cached(activation, tuple(sorted(resolved.items())))


@functools.lru_cache(maxsize=4096)
def _cached(activation: Activation, parameters: tuple[tuple[str, float], ...]) -> Facts:
    return Facts(activation, dict(parameters))


def _grows(near: np.ndarray, far: np.ndarray) -> np.ndarray:
    """Whether a function grows without end, from its values at 1e4 and at 1e8."""
    return np.abs(far) > 2 * np.abs(near) + 1


def _formula(activation: Activation) -> Expr:
    """What is defined, not the form that is stable in floating point, whose branches are no feature of the function."""
    if activation.stable is None:
        return activation.expression
    return trace(activation.formula, activation.inputs, activation.parameters, activation.name)


def _inverse_root(value: float) -> float:
    return 1 / math.sqrt(value) if value else math.inf


@functools.cache
def _grid() -> np.ndarray:
    return np.linspace(-50.0, 50.0, 20001)


@functools.cache
def _wide_grid() -> np.ndarray:
    tail = np.geomspace(50.0, 1e9, 1001)[1:]
    return np.concatenate([-tail[::-1], _grid(), tail])


def _roots(function: Callable[[Any], np.ndarray], wide: bool = False) -> list[float]:
    """Isolated roots of a function on [−50, 50]: sign changes on a grid of 0.005, bisected to the last bit.

    wide: further out too, on a grid that grows by 2 %.
    """
    x = _wide_grid() if wide else _grid()
    sign = np.sign(function(x))
    zero = (sign == 0) & (np.roll(sign, 1) != 0) & (np.roll(sign, -1) != 0)
    roots = [float(r) for r in x[zero]]
    # A flat stretch of zeros ends in a breakpoint, which is found by itself; only + to − and − to + are roots.
    crossing = np.flatnonzero(sign[:-1] * sign[1:] < 0)
    low, high, left = x[crossing], x[crossing + 1], sign[crossing]
    for _ in range(200):  # a root at 0 would be sought through all exponents
        middle = (low + high) / 2
        if not ((low < middle) & (middle < high)).any():
            break
        before = np.sign(function(middle)) == left
        low, high = np.where(before, middle, low), np.where(before, high, middle)
    return sorted({*roots, *map(float, high)})
