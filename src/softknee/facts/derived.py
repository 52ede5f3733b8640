"""Facts of one activation at given parameters, derived from its definition.

Candidates come from float64; what is said of them is shown by interval arithmetic (proofs.py) for |x| ≤ 2¹²⁸, the
range of float32, and by the limits at ±∞ beyond. Values hold to 1e-9 relative (or 1e-12). A stretch of a tail on which
|f| (or |f′|) stays below 1e-200 counts as 0 there. **A fact that cannot be shown is None**, which reads "unknown".

A gated activation is looked at as a function of its gate, with up = 1 (E[up²] = 1 makes its gain the same as with
up ~ N(0, 1)); noise is at its mean. Where a surrogate is declared, f is the function itself, and what is said of
gradients (dead and saturated regions, the largest derivative, E[f′²], the backward gain) is said of those of backward.
"""

from __future__ import annotations

import functools
import math
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, NamedTuple, TypeVar

import numpy as np

from ..catalog import Activation
from ..errors import InputError
from ..plain import plain
from .intervals import Array, Enclosure
from .moments import Moments, moments
from .pieces import Piece, bound, mirrors, split
from .proofs import REACH
from .signals import FixedPoint, Signal, fixed_points, signal
from .store import Store, key

HIGHEST = 4
"""The highest order of continuity that is looked for."""

T = TypeVar("T")


class Interval(NamedTuple):
    """An open interval; ends may be infinite."""

    low: float
    high: float


class Point(NamedTuple):
    x: float
    value: float


class Line(NamedTuple):
    """slope·x + intercept."""

    slope: float
    intercept: float


class Smoothness(NamedTuple):
    """At a breakpoint x, f has `order` continuous derivatives: −1 at a jump, 0 at a kink; 4 may be more."""

    x: float
    order: int


def _remembered(compute: Callable[[Facts], T]) -> functools.cached_property[T]:
    """A fact: computed when it is first asked for, and kept on disk."""

    @functools.wraps(compute)
    def read(self: Facts) -> T:
        return self._store.get(compute.__name__, lambda: compute(self))

    return functools.cached_property(read)


@dataclass(frozen=True, eq=False)
class Facts:
    """Facts of `activation` at `parameters` (its defaults unless given). Each is computed on first access."""

    activation: Activation
    parameters: dict[str, float]
    cache: bool = True

    def value(self, x: Any, order: int = 0) -> np.ndarray:
        """f, or a derivative of it, in float64."""
        x = np.asarray(x, dtype=np.float64)
        inputs = (x, np.ones_like(x)) if self.activation.kind == "gated" else (x,)
        return np.asarray(self.activation.own.derivative(*inputs, order=order, **dict[str, Any](self.parameters)))

    @functools.cached_property
    def _split(self) -> tuple[tuple[Piece, ...], bool]:
        return split(*bound(self.activation.own, self.parameters))

    @functools.cached_property
    def _passing(self) -> Facts:
        """Of the function whose derivative backward takes: this one, unless a surrogate is declared."""
        own = self.activation.surrogate is None
        return self if own else Facts(self.activation.passing, self.parameters, self.cache)

    @property
    def _pieces(self) -> tuple[Piece, ...]:
        return self._split[0]

    @functools.cached_property
    def _store(self) -> Store:
        shapes = (Interval, Point, Line, Smoothness, Moments)
        if not self.cache:
            return Store("", shapes, used=False)
        declared = repr((self._declared, self.activation.kind, self.activation.inputs))
        formulas = [*bound(self.activation.own, self.parameters)]
        if self._passing is not self:
            formulas += bound(self.activation.passing, self.parameters)
        numbers = [part for item in sorted(self.parameters.items()) for part in item]
        return Store(key(*formulas, *numbers, declared), shapes)

    @property
    def _declared(self) -> tuple[float, float] | None:
        """The limits that the definition declares, which are those at its defaults."""
        return self.activation.limits if self.parameters == self.activation.defaults else None

    @_remembered
    def breakpoints(self) -> tuple[float, ...] | None:
        """Where the formula changes its branch: the roots of what its comparisons, maxima, abs and sign look at."""
        return tuple(piece.high for piece in self._pieces[:-1]) if self._split[1] else None

    @_remembered
    def smoothness(self) -> tuple[Smoothness, ...] | None:
        """How smooth f is at each breakpoint. One-sided values that agree to rounding count as equal."""
        if not self._split[1]:
            return None
        found = []
        for left, right in zip(self._pieces[:-1], self._pieces[1:], strict=True):
            x, order = left.high, -1
            while order < HIGHEST and (differ := _differ(left, right, order + 1)) is False:
                order += 1
            if order < HIGHEST and differ is None:
                return None
            found.append(Smoothness(x, order))
        return tuple(found)

    @_remembered
    def limits(self) -> tuple[float | None, float | None]:
        """f(−∞) and f(+∞)."""
        low, high = self._declared or (None, None)
        return self._limit(0, -1, low), self._limit(0, 1, high)

    @_remembered
    def slopes(self) -> tuple[float | None, float | None]:
        """The limits of f′ at −∞ and +∞."""
        return self._limit(1, -1), self._limit(1, 1)

    def _limit(self, order: int, side: int, declared: float | None = None) -> float | None:
        """The limit of a derivative: what f is at infinity in float64, or declared, as far as it fits what f is on the
        last octaves before 2¹²⁸. Those decide where they are narrow, or large; else f must rise or fall there.
        """
        edges = side * 2.0 ** np.arange(120.0, 129.0)
        low, high = np.minimum(edges[:-1], edges[1:]), np.maximum(edges[:-1], edges[1:])
        piece = self._pieces[0 if side < 0 else -1]
        if not piece.low <= low.min() or not piece.high >= high.max():
            return None
        found, slope = (piece.enclose(n, low, high) for n in (order, order + 1))
        least, most = float(np.min(found.low)), float(np.max(found.high))
        if (slope.low >= 0).all() or (slope.high <= 0).all():  # between its values at the ends
            ends = piece.enclose(order, edges[[0, -1]], edges[[0, -1]])
            least, most = max(least, float(np.min(ends.low))), min(most, float(np.max(ends.high)))
        candidate = float(self.value(side * math.inf, order)) if declared is None else declared
        if not least <= most:
            return None
        if most - least <= 1e-11 * max(1.0, abs(least)):
            if least - 1e-9 <= candidate <= most + 1e-9:
                return (candidate if declared is not None else _rounded(candidate)) + 0.0
            return _rounded(0.5 * (least + most)) if declared is None else None
        for sign, grows in ((1, least >= 1e6), (-1, most <= -1e6)):
            if grows:
                return sign * math.inf if declared in (None, sign * math.inf) else None
        for sign in (1, -1):
            outward = slope.low if sign * side > 0 else -slope.high
            if candidate == sign * math.inf and (outward >= 0).all() and sign * (most if sign > 0 else least) > 0:
                return candidate
        if declared is None or math.isnan(declared):
            return None
        fits = most >= 1e6 if declared == math.inf else least <= -1e6 if declared == -math.inf else None
        return declared if (least <= declared <= most if fits is None else fits) else None

    def _sides(self, order: int) -> list[tuple[float, float]]:
        """(x, value) of a derivative on both sides of each breakpoint."""
        pairs = zip(self._pieces[:-1], self._pieces[1:], strict=True)
        return [(left.high, _middle(piece.enclose(order, left.high, left.high))) for left, right in pairs
                for piece in (left, right)]  # fmt: skip

    def _poles(self, order: int) -> list[Point]:
        """0 and breakpoints at which a derivative is infinite, with the sign that it has on each side."""
        found = []
        for x in (0.0, *(piece.high for piece in self._pieces[:-1])):
            if math.isinf(self.value(x, order)):
                near = self._thin(np.nextafter(x, [-math.inf, math.inf]), order)
                found += [Point(x, math.copysign(math.inf, v)) for v in near.low.tolist() if abs(v) >= 100]
        return found

    @functools.cached_property
    def _turns(self) -> list[float]:
        """Where f may have its lowest and highest value: stationary points and breakpoints, all that are found."""
        roots = [piece.roots(1) for piece in self._pieces]
        found = [x for some, _ in roots for x in some] + [piece.high for piece in self._pieces[:-1]]
        return found if all(complete for _, complete in roots) else [*found, *_roots(lambda x: self.value(x, 1))]

    @_remembered
    def range(self) -> Interval | None:
        """Infimum and supremum of f."""
        low, high = self._lowest(1), self._lowest(-1)
        return None if low is None or high is None else Interval(low, -high + 0.0)

    @_remembered
    def minimum(self) -> Point | None:
        """The lowest point; None where there is none (unbounded below, only approached), or the range is unknown."""
        return None if self.range is None else self._attained(1, self.range.low)

    @_remembered
    def maximum(self) -> Point | None:
        """The highest point; None where there is none, or the range is unknown."""
        return None if self.range is None else self._attained(-1, self.range.high)

    def _lowest(self, sign: int) -> float | None:
        """The infimum of sign·f."""
        ends = [sign * end for end in self.limits if end is not None]
        ends += [sign * pole.value for pole in self._poles(0)]
        if -math.inf in ends:
            return -math.inf
        reached = (sign * self.value([*self._turns, 0.0])).tolist()
        approached = [*(sign * v for _, v in self._sides(0)), *ends]
        lows = [min((v for v in some if not math.isnan(v)), default=math.inf) for some in (reached, approached)]
        # what only rounding tells apart is reached
        low = lows[0] if lows[0] <= lows[1] + 1e-14 * abs(lows[1]) else lows[1]
        if not math.isfinite(low):
            return None
        most = -low + _tolerance(low)
        return low + 0.0 if all(piece.bounded(most, sign=-sign) for piece in self._pieces) else None

    def _attained(self, sign: int, extreme: float) -> Point | None:
        candidates = np.array([*self._turns, *(piece.low for piece in self._pieces[1:])])
        for piece in self._pieces:
            if piece.vanishes(1):  # a level stretch
                candidates = np.append(candidates, _inside(piece))
        if not candidates.size or not math.isfinite(extreme):
            return None
        values = self.value(candidates)
        reached = sign * values <= sign * extreme + 1e-14 * abs(extreme)
        if not reached.any():
            return None
        # of equals, the one nearest to 0 is the one to show
        x = min(candidates[reached].tolist(), key=abs)
        return Point(x, float(self.value(x)))

    @_remembered
    def roots(self) -> tuple[float, ...] | None:
        """The isolated zeros of f; see `zero` for stretches."""
        return self._isolated(0)

    @_remembered
    def stationary(self) -> tuple[float, ...] | None:
        """The isolated zeros of f′; see `dead` for stretches. At a breakpoint both sides' slopes must be 0."""
        return self._isolated(1)

    def _isolated(self, order: int) -> tuple[float, ...] | None:
        if not self._split[1]:
            return None
        found = [piece.roots(order) for piece in self._pieces]
        if not all(complete for _, complete in found):
            return None
        roots = set()
        for i, (piece, (some, _)) in enumerate(zip(self._pieces, found, strict=True)):
            for x in some:
                other = i - 1 if x == piece.low else i + 1 if x == piece.high else None
                if other is None:
                    roots.add(x)
                elif not self._pieces[other].vanishes(order):
                    here = x in found[other][0]
                    if here or (order == 0 and self.value(x) == 0):
                        roots.add(x)
        return tuple(sorted(roots))

    @_remembered
    def zero(self) -> tuple[Interval, ...] | None:
        """Intervals on which f is 0."""
        return self._level(0)

    @_remembered
    def dead(self) -> tuple[Interval, ...] | None:
        """Intervals on which f′ is exactly 0 as a function, not by underflow."""
        return self._passing._level(1)

    def _level(self, order: int) -> tuple[Interval, ...] | None:
        if not self._split[1]:
            return None
        found: list[Interval] = []
        for piece in self._pieces:
            if not piece.vanishes(order):
                continue
            # the formula may branch where nothing happens
            if found and found[-1].high == piece.low and self._smooth(piece.low) >= 0:
                found[-1] = Interval(found[-1].low, piece.high)
            else:
                found.append(Interval(piece.low, piece.high))
        return tuple(found)

    def _smooth(self, x: float) -> int:
        return next((point.order for point in self.smoothness or () if point.x == x), HIGHEST)

    @_remembered
    def parity(self) -> str | None:
        """'even', 'odd' or 'none'. The first two are read off the formula's pieces, the last off its values."""
        edges = [piece.high for piece in self._pieces[:-1]]
        if self._split[1] and edges == [-e for e in reversed(edges)]:
            even, odd = zip(*map(mirrors, self._pieces, reversed(self._pieces)), strict=True)
            if all(even) or all(odd):
                return "even" if all(even) else "odd"
        x = np.concatenate([np.geomspace(1e-3, 40.0, 61), np.linspace(0.013, 9.7, 61)])
        right, left = self._thin(x), self._thin(-x)
        even_fails = ((right.low > left.high) | (right.high < left.low)).any()
        odd_fails = ((right.low > -left.low) | (right.high < -left.high)).any()
        return "none" if even_fails and odd_fails else None

    def _thin(self, x: Array, order: int = 0) -> Enclosure:
        """Enclosures of a derivative at numbers; NaN at breakpoints."""
        low, high = np.full(x.shape, math.nan), np.full(x.shape, math.nan)
        for piece in self._pieces:
            own = (piece.low < x) & (x < piece.high)
            found = piece.enclose(order, x[own], x[own])
            low[own], high[own] = found.low, found.high
        return Enclosure.of(low, high)

    @_remembered
    def monotonicity(self) -> str | None:
        """'increasing' (nowhere falling), 'decreasing', 'constant', or 'none' of them."""
        return self._one_signed(1, ("increasing", "decreasing", "constant", "none"))

    @_remembered
    def convexity(self) -> str | None:
        """'convex', 'concave', 'linear' (both), or 'none' of them."""
        return self._one_signed(2, ("convex", "concave", "linear", "none"))

    def _one_signed(self, order: int, words: tuple[str, str, str, str]) -> str | None:
        """The word for a derivative of that order that is nowhere negative, nowhere positive, 0, or takes both signs.

        A jump of the derivative below counts with its sign; f″ ≥ 0 says convex only where f itself is continuous.
        """
        up, down, none, both = words
        signs: set[int] = set()
        if not self._split[1]:
            # |sin x|: the slopes between unknown breakpoints still tell "both"
            return both if self._witnessed(order) == {1, -1} else None
        for left, right in zip(self._pieces[:-1], self._pieces[1:], strict=True):
            jump = self._jump(left, right, order - 1)
            if order == 2 and self._smooth(left.high) < 0:
                return both
            if jump is None:
                return None
            signs |= {jump} - {0}
        signs |= self._witnessed(order)
        if signs == {1, -1}:
            return both
        if all(piece.vanishes(order) for piece in self._pieces):
            return up if signs == {1} else down if signs == {-1} else none
        for sign, word in ((1, up), (-1, down)):
            if -sign not in signs and all(piece.bounded(0.0, -sign, order) for piece in self._pieces):
                return word
        return None

    def _jump(self, left: Piece, right: Piece, order: int) -> int | None:
        """The sign of a jump at the edge between two pieces, 0 without one."""
        differ = _differ(left, right, order)
        if not differ:
            return 0 if differ is False else None
        x = left.high
        gain = _middle(_at(right, x, order)) - _middle(_at(left, x, order))
        return None if math.isnan(gain) else 1 if gain > 0 else -1

    def _witnessed(self, order: int) -> set[int]:
        """The signs that a derivative is shown to take somewhere."""
        values = self.value(_grid(), order)
        values[np.isin(_grid(), [piece.high for piece in self._pieces])] = math.nan
        if np.isnan(values).all():
            return set()
        at = _grid()[[int(np.nanargmin(values)), int(np.nanargmax(values))]]
        found = self._thin(at, order)
        return {sign for sign, seen in ((1, (found.low > 0).any()), (-1, (found.high < 0).any())) if seen}

    @_remembered
    def largest_derivative(self) -> Point | None:
        """Where |f′| is largest, and f′ there.

        A supremum that is only approached is given at ±inf; where f′ grows without end (relu2, xielu), both are
        infinite. A jump of f has no f′, and counts for nothing.
        """
        return self._passing._steepest(1)

    @_remembered
    def lipschitz(self) -> float | None:
        """The Lipschitz constant of f, sup |f(a) − f(b)|/|a − b|: the largest |f′|, infinite where f jumps."""
        return self._lipschitz(1)

    @_remembered
    def lipschitz_derivative(self) -> float | None:
        """The Lipschitz constant of f′: the largest |f″|, infinite at a kink or a jump."""
        return self._lipschitz(2)

    def _lipschitz(self, order: int) -> float | None:
        if self.smoothness is None:
            return None
        if any(point.order < order - 1 for point in self.smoothness):
            return math.inf
        shared = order == 1 and self._passing is self
        found = self.largest_derivative if shared else self._steepest(order)
        return None if found is None else abs(found.value)

    def _steepest(self, order: int) -> Point | None:
        """Where a derivative is largest in size, shown to 1e-9."""
        ends = self.slopes if order == 1 else (self._limit(order, -1), self._limit(order, 1))
        for end, x in zip(ends, (-math.inf, math.inf), strict=True):
            if end is not None and math.isinf(end):
                return Point(x, end)
        if poles := self._poles(order):
            return poles[0]
        points = [Point(x, v) for x, v in self._sides(order)]
        points.append(Point(0.0, float(self.value(0.0, order))))
        points += [Point(x, end) for end, x in zip(ends, (-math.inf, math.inf), strict=True) if end is not None]
        points = [p for p in points if math.isfinite(p.value)]
        # a peak that only rounding tells from the value at an end is none: σ(37) is 1
        most = (1 + 1e-13) * max((abs(p.value) for p in points), default=0.0)
        points += [Point(x, v) for x in self._peaks(order) if most < abs(v := float(self.value(x, order))) < math.inf]
        largest = max((abs(p.value) for p in points), default=math.inf)
        if not math.isfinite(largest):
            return None
        # of equals, the one nearest to 0 is the one to show
        best = min((p for p in points if abs(p.value) >= largest - 1e-14 * largest), key=lambda p: abs(p.x))
        most = largest + _tolerance(largest)
        if not all(piece.bounded(most, sign, order) for piece in self._pieces for sign in (1, -1)):
            return None
        return best

    def _peaks(self, order: int) -> list[float]:
        """Where a derivative is largest in size on a grid, refined; not at breakpoints, whose sides are seen apart."""
        x = _wide_grid()
        size = np.abs(self.value(x, order))
        if np.isnan(size).all():
            return []
        at = int(np.nanargmax(size))
        low, high = float(x[max(at - 1, 0)]), float(x[min(at + 1, x.size - 1)])
        if any(low <= piece.high <= high for piece in self._pieces[:-1]):
            return []
        return [float(x[at]), *_roots(lambda t: self.value(t, order + 1), np.linspace(low, high, 9))]

    @_remembered
    def asymptotes(self) -> tuple[Line | None, Line | None]:
        """The lines that f approaches at −∞ and +∞; None where there is none, or it cannot be told."""
        return self._asymptote(-1), self._asymptote(1)

    def _asymptote(self, side: int) -> Line | None:
        end, slope = (pair[0 if side < 0 else 1] for pair in (self.limits, self.slopes))
        if end is not None and math.isfinite(end):
            return Line(0.0, end)
        if slope is None or slope == 0 or math.isinf(slope):
            return None
        piece = self._pieces[0 if side < 0 else -1]
        if piece.vanishes(2):
            # the line, read where it passes x = 0 rather than where x is large
            return Line(slope, _rounded(_middle(piece.enclose(0, 0.0, 0.0))))
        # f − slope·x settles exponentially, or as 1/x, which one step of Richardson's extrapolation takes off
        x = side * 2.0 ** np.arange(3.0, 24.0)
        rest = self.value(x) - slope * x
        for values in (rest, 2 * rest[1:] - rest[:-1]):
            change = np.abs(np.diff(values))
            calm = np.maximum(change[1:], change[:-1])
            best = int(np.argmin(np.where(np.isnan(calm), math.inf, calm)))
            if calm[best] <= 1e-9:
                return Line(slope, _rounded(float(values[best + 1])))
        return None

    def saturated(self, epsilon: float = 1e-3) -> tuple[Interval, ...] | None:
        """Intervals in which |f′| < epsilon, dead ones included; shown up to a millionth of epsilon.

        Raises InputError for an epsilon that is not positive.
        """
        epsilon = _positive("epsilon", epsilon)
        return self._store.get(f"saturated {epsilon.hex()}", lambda: self._passing._saturated(epsilon))

    def _saturated(self, epsilon: float) -> tuple[Interval, ...] | None:
        edges = [piece.high for piece in self._pieces[:-1]]
        # Apart: around a root of f′ each crosses 0 once, while |f′| − ε does so twice, perhaps between two grid points.
        crossings = _roots(lambda x: self.value(x, 1) - epsilon) + _roots(lambda x: self.value(x, 1) + epsilon)
        crossings = [c for c in crossings if not any(abs(c - b) < 1e-9 for b in edges)]
        ends = [-math.inf, *sorted([*edges, *crossings]), math.inf]
        found: list[Interval] = []
        for low, high in zip(ends[:-1], ends[1:], strict=True):
            left = low if math.isfinite(low) else min(high, 0.0) - 50.0
            right = high if math.isfinite(high) else max(low, 0.0) + 50.0
            slope = float(self.value((left + right) / 2, 1))
            inside = abs(slope) < epsilon
            if not self._shown(low, high, epsilon, inside, 1 if slope > 0 else -1):
                return None
            if inside and found and found[-1].high == low:
                found[-1] = Interval(found[-1].low, high)
            elif inside:
                found.append(Interval(low, high))
        return tuple(found)

    def _shown(self, low: float, high: float, epsilon: float, inside: bool, sign: int) -> bool:
        """Whether |f′| is shown to be below epsilon, or sign·f′ above it, all over an interval."""
        room = 1e-6 * epsilon
        for piece in self._pieces:
            within = max(low, piece.low, -REACH), min(high, piece.high, REACH)
            if within[0] >= within[1]:
                continue
            if inside:
                shown = all(piece.bounded(epsilon + room, s, 1, within) for s in (1, -1))
            else:
                shown = piece.bounded(room - epsilon, -sign, 1, within)
            if not shown:
                return False
        return True

    def moments(self, sigma: float = 1.0) -> Moments | None:
        """Mean, second moment, variance and E[f′(z)²] for z ~ N(0, sigma²), to 1e-9, with the gains that follow.

        None where an integral does not converge. Raises InputError for a sigma that is not positive.
        """
        sigma = _positive("sigma", sigma)
        if sigma == 1.0:
            return self._unit
        return moments(self._value, sigma, self._turns)

    def _value(self, x: Any, order: int = 0) -> np.ndarray:
        return (self._passing if order else self).value(x, order)

    @_remembered
    def _unit(self) -> Moments | None:
        return moments(self._value, 1.0, self._turns)

    @property
    def mean(self) -> float:
        """E[f(z)], z ~ N(0, 1); NaN, as the next ones, where the integral does not converge."""
        return math.nan if self._unit is None else self._unit.mean

    @property
    def second_moment(self) -> float:
        """E[f(z)²]."""
        return math.nan if self._unit is None else self._unit.second_moment

    @property
    def slope_second_moment(self) -> float:
        """E[f′(z)²]: ½ for ReLU, half of whose units pass a gradient on unchanged."""
        return math.nan if self._unit is None else self._unit.slope_second_moment

    @property
    def gain(self) -> float:
        """1/√E[f(z)²]: weights of variance gain²/fan_in keep the second moment through a layer and its activation.

        This and the next two are infinite where the expectation is 0. He et al. 2015, arXiv:1502.01852.
        """
        return math.nan if self._unit is None else self._unit.gain

    @property
    def centred_gain(self) -> float:
        """1/√Var f(z)."""
        return math.nan if self._unit is None else self._unit.centred_gain

    @property
    def backward_gain(self) -> float:
        """1/√E[f′(z)²]: the same for gradients."""
        return math.nan if self._unit is None else self._unit.backward_gain

    def gain_with(self, **parameters: float) -> float:
        """The gain at other parameters."""
        return facts(self.activation, self.cache, **parameters).gain

    def signal(
        self, depth: int = 50, gain: float | None = None, bias: float = 0.0, variance: float | None = None
    ) -> Signal:
        """How the variances of activations and gradients change through `depth` layers: signals.py.

        gain: of the weights, the activation's own unless given; bias: the biases' standard deviation; variance: of the
        first layer's pre-activations, gain² + bias² (of unit inputs) unless given. Raises InputError for a depth below
        1, a gain or variance that is not positive, a bias below 0.
        """
        return signal(self, depth, gain, bias, variance)

    def fixed_points(self, gain: float | None = None, bias: float = 0.0) -> tuple[FixedPoint, ...]:
        """Variances that a layer keeps, with what becomes of gradients there: signals.py."""
        return fixed_points(self, gain, bias)

    def to_dict(self) -> dict[str, Any]:
        """All of them, as plain JSON types; unknown ones are None."""
        points = {name: getattr(self, name) for name in ("minimum", "maximum", "largest_derivative")}
        lines = [None if line is None else line._asdict() for line in self.asymptotes]
        smoothness = None if self.smoothness is None else [point._asdict() for point in self.smoothness]
        plainly = (
            "range", "limits", "slopes", "parity", "monotonicity", "convexity", "roots", "zero", "stationary",
            "lipschitz", "lipschitz_derivative", "breakpoints", "dead", "mean", "second_moment", "slope_second_moment",
            "gain", "centred_gain", "backward_gain",
        )  # fmt: skip
        return plain(
            {name: getattr(self, name) for name in plainly}
            | {name: None if point is None else point._asdict() for name, point in points.items()}
            | {"asymptotes": lines, "smoothness": smoothness, "saturated": self.saturated()}
        )


def facts(activation: Activation, cache: bool = True, /, **parameters: float) -> Facts:
    """The facts of an activation at `parameters`, computed when they are asked for and remembered.

    cache: also on disk (store.py says where, and how to switch that off for good).
    Raises InputError for a normalizer, which is no function of one number, and for wrong parameters.
    """
    if activation.kind == "normalizer":
        raise InputError(f"{activation.name} is a normalizer, no function of one number; it has no facts of this kind")
    resolved = {name: float(value) for name, value in activation.resolve(parameters).items()}
    return _cached(activation, tuple(sorted(resolved.items())), bool(cache))


@functools.lru_cache(maxsize=4096)
def _cached(activation: Activation, parameters: tuple[tuple[str, float], ...], cache: bool) -> Facts:
    return Facts(activation, dict(parameters), cache)


def _positive(name: str, value: float) -> float:
    if isinstance(value, bool) or not isinstance(value, (int, float)) or not 0 < value < math.inf:
        raise InputError(f"{name} must be a positive number, got {value!r}")
    return float(value)


def _middle(found: Enclosure) -> float:
    return float(0.5 * found.low + 0.5 * found.high)


def _rounded(value: float) -> float:
    """A value that is known to about 1e-12; 0 where that is all there is."""
    return 0.0 if abs(value) < 1e-11 else float(value)


def _tolerance(value: float) -> float:
    return 1e-9 * abs(value) + 1e-12


def _at(piece: Piece, x: float, order: int) -> Enclosure:
    """A derivative at an end of a piece; where the formula is not defined there (log 0), close to it."""
    found = piece.enclose(order, x, x)
    if math.isfinite(found.magnitude):
        return found
    step = 2.0**-40 * max(abs(x), 1e-3)
    return piece.enclose(order, x - step, x) if x == piece.high else piece.enclose(order, x, x + step)


def _differ(left: Piece, right: Piece, order: int) -> bool | None:
    """Whether a derivative jumps between two pieces, by more than the rounding of the breakpoint explains; None where
    that cannot be told."""
    x = left.high
    a, b = _at(left, x, order), _at(right, x, order)
    slopes = np.nan_to_num(_at(left, x, order + 1).magnitude + _at(right, x, order + 1).magnitude, nan=0.0)
    room = 2.0**-46 * (2 * min(a.magnitude, b.magnitude) + np.minimum(slopes, 1e6) * abs(x)) + 1e-300
    if np.isnan(a.low) or np.isnan(b.low):
        return None
    if a.low > b.high or b.low > a.high:
        return not bool((a.low - b.high <= room) & (b.low - a.high <= room))
    width = float(a.high - a.low + b.high - b.low)
    narrow = math.isfinite(width) and width <= 1e-6 * (1 + a.magnitude + b.magnitude)
    return False if narrow else None


def _inside(piece: Piece) -> float:
    low, high = max(piece.low, -50.0), min(piece.high, 50.0)
    return min(max(0.0, low), high) if low <= high else piece.low if math.isfinite(piece.low) else piece.high


@functools.cache
def _grid() -> Array:
    return np.linspace(-50.0, 50.0, 20001)


@functools.cache
def _wide_grid() -> Array:
    tail = np.geomspace(50.0, 1e9, 1001)[1:]
    return np.concatenate([-tail[::-1], _grid(), tail])


def _roots(function: Callable[[Any], Array], x: Array | None = None) -> list[float]:
    """Candidates: sign changes of a function on a grid of 0.005 within ±50, growing by 2 % beyond, bisected."""
    x = _wide_grid() if x is None else x
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
