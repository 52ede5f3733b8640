"""Interval arithmetic: an expression over intervals gives intervals that contain every value it takes there.

Arrays of intervals are evaluated at once, in float64, rounded outwards: sums, products, quotients and roots by one
unit where they are not exact, other functions by SLACK, a multiple of what NumPy's and SciPy's own errors are (the
tests measure them against mpmath). Interval division and the empty interval are those of IEEE 1788: a quotient by an
interval around 0 is everything, a logarithm of negative numbers is empty, and empty intervals are NaN.

`nonzero` says what ends cannot: eˣ at −1000 is between 0 and the smallest float, but it is not 0.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import numpy as np

from ..backends.numpy import OPS
from ..expression import Expr
from ..expression.graph import walk

Array = np.ndarray[Any, np.dtype[Any]]

_LARGEST = float(np.finfo(np.float64).max)
_EPS = 2.0**-52
SLACK = {"erf": 8, "erfc": 512, "sin": 4, "cos": 4}
"""Units in the last place by which a function's value is widened, where they are not the usual 8. SciPy's erfc is off
by up to 60 in its tail."""
_USUAL = 8


@dataclass(frozen=True, eq=False)
class Enclosure:
    """Intervals [low, high] elementwise; `nonzero` where 0 is not a value even if it lies between the ends."""

    low: Array
    high: Array
    nonzero: Array

    @classmethod
    def of(cls, low: Any, high: Any, nonzero: Any = False) -> Enclosure:
        low, high = np.asarray(low, dtype=np.float64), np.asarray(high, dtype=np.float64)
        # an end that overflowed is still an end on the real line
        low, high = np.minimum(low, _LARGEST), np.maximum(high, -_LARGEST)
        return cls(low, high, np.asarray(nonzero) | (low > 0) | (high < 0))

    @property
    def parts(self) -> tuple[Array, Array, Array]:
        return self.low, self.high, self.nonzero

    @property
    def magnitude(self) -> Array:
        """The largest absolute value."""
        return np.maximum(np.abs(self.low), np.abs(self.high))

    def meet(self, other: Enclosure) -> Enclosure:
        """What lies in both: two enclosures of the same value."""
        low, high = np.fmax(self.low, other.low), np.fmin(self.high, other.high)
        return Enclosure(low, high, self.nonzero | other.nonzero)

    def __neg__(self) -> Enclosure:
        return Enclosure(-self.high, -self.low, self.nonzero)

    def __add__(self, other: Enclosure) -> Enclosure:
        low, below = _two_sum(self.low, other.low)
        high, above = _two_sum(self.high, other.high)
        same = ((self.low >= 0) & (other.low >= 0)) | ((self.high <= 0) & (other.high <= 0))
        nonzero = same & (self.nonzero | other.nonzero)
        return Enclosure.of(np.where(below < 0, _down(low), low), np.where(above > 0, _up(high), high), nonzero)

    def __sub__(self, other: Enclosure) -> Enclosure:
        return self + -other

    def __mul__(self, other: Enclosure) -> Enclosure:
        if self is other:
            return self._square()
        numbers = [one for one in (self, other) if one.low.ndim == 0 and one.low == one.high]
        if numbers:
            by = next((one for one in numbers if _power(one.low)), numbers[0])
            return (other if by is self else self)._scaled(float(by.low))
        products = [a * b for a in (self.low, self.high) for b in (other.low, other.high)]
        low, high = _least(products), _most(products)
        if np.isnan(low).any():  # 0·∞, which is 0 here, or an empty interval
            empty = np.isnan(self.low) | np.isnan(other.low)
            products = [np.where(np.isnan(p) & ~empty, 0.0, p) for p in products]
            low, high = _least(products), _most(products)
        low, high = _down(low), _up(high)
        # rounding does not cross 0 where signs are certain
        left, right = (self.low >= 0, self.high <= 0), (other.low >= 0, other.high <= 0)
        alike, unlike = (left[0] & right[0]) | (left[1] & right[1]), (left[0] & right[1]) | (left[1] & right[0])
        low, high = np.where(alike, np.maximum(low, 0.0), low), np.where(unlike, np.minimum(high, 0.0), high)
        return Enclosure.of(low, high, self.nonzero & other.nonzero)

    def _scaled(self, by: float) -> Enclosure:
        """Times a number."""
        if by == 0:
            return Enclosure.of(0.0 * np.nan_to_num(self.low) + 0.0, 0.0 * np.nan_to_num(self.high) + 0.0)
        low, high = (self.low, self.high) if by > 0 else (self.high, self.low)
        below, above = low * by, high * by
        if abs(math.frexp(by)[0]) == 0.5:  # a power of two rounds nothing, unless it underflows
            down, up = (np.where(np.abs(p) > 1e-290, p, r(p)) for p, r in ((below, _down), (above, _up)))
        else:
            down, up = _down(below), _up(above)
        return Enclosure.of(np.where(low == 0, 0.0, down), np.where(high == 0, 0.0, up), self.nonzero)

    def _square(self) -> Enclosure:
        small = np.where((self.low <= 0) & (self.high >= 0), 0.0, np.minimum(np.abs(self.low), np.abs(self.high)))
        large = self.magnitude
        down = np.where(_power(small) | (small == 0), small * small, np.maximum(_down(small * small), 0.0))
        up = np.where((_power(large) & (large > 1e-140)) | (large == 0), large * large, _up(large * large))
        return Enclosure.of(down, up, self.nonzero)

    def __truediv__(self, other: Enclosure) -> Enclosure:
        with np.errstate(all="ignore"):
            under, over = 1.0 / other.high, 1.0 / other.low
            under = np.where(_power(other.high) | np.isinf(other.high), under, _down(under))
            over = np.where(_power(other.low) | np.isinf(other.low), over, _up(over))
            around = (other.low < 0) & (other.high > 0)
            low = np.where((other.high == 0) | around, -math.inf, under)
            high = np.where((other.low == 0) | around, math.inf, over)
            none = (other.low == 0) & (other.high == 0)
            low, high = np.where(none, math.nan, low), np.where(none, math.nan, high)
        low = np.where(other.low >= 0, np.maximum(low, 0.0), low)
        high = np.where(other.high <= 0, np.minimum(high, 0.0), high)
        return self * Enclosure.of(low, high, np.ones_like(low, dtype=bool))

    def __lt__(self, other: Enclosure) -> Verdict:
        return Verdict(self.high < other.low, self.low >= other.high)

    def __le__(self, other: Enclosure) -> Verdict:
        return Verdict(self.high <= other.low, self.low > other.high)

    def __gt__(self, other: Enclosure) -> Verdict:
        return other < self

    def __ge__(self, other: Enclosure) -> Verdict:
        return other <= self


@dataclass(frozen=True)
class Verdict:
    """A comparison of intervals: where it certainly holds, and where it certainly does not."""

    holds: Array
    fails: Array


def _down(x: Array) -> Array:
    return np.nextafter(x, -math.inf)


def _up(x: Array) -> Array:
    return np.nextafter(x, math.inf)


def _least(values: list[Array]) -> Array:
    return np.minimum(np.minimum(values[0], values[1]), np.minimum(values[2], values[3]))


def _most(values: list[Array]) -> Array:
    return np.maximum(np.maximum(values[0], values[1]), np.maximum(values[2], values[3]))


def _power(x: Array) -> Array:
    return np.abs(np.frexp(x)[0]) == 0.5


def _two_sum(a: Array, b: Array) -> tuple[Array, Array]:
    """The rounded sum, and what rounding took off (Knuth); NaN where the sum is infinite, no error in comparisons."""
    total = a + b
    part = total - a
    return total, (a - (total - part)) + (b - part)


def _widened(function: Callable[[Any], Any], x: Array, units: int, up: bool) -> Array:
    """`function(x)` moved outwards; where it is exact, 0, ½ or 1 at 0 and at infinities, it stays."""
    value = np.asarray(function(x), dtype=np.float64)
    # 8 of the smallest floats, for what is rounded where numbers are subnormal
    slack = np.abs(value) * (units * _EPS) + 4e-323
    moved = _up(value + slack) if up else _down(value - slack)
    exact = ((x == 0) | np.isinf(x)) & (2 * value == np.round(2 * value))
    return np.where(exact | np.isinf(value), value, moved)


def _monotone(
    name: str, low: float = -math.inf, high: float = math.inf, *, falls: bool = False, keeps: bool = False
) -> Callable[[Enclosure], Enclosure]:
    """A primitive that only rises (or only falls), with values in [low, high].

    keeps: 0 goes to 0 and nothing else does. One with low = 0 that does not is positive.
    """
    function, units = getattr(OPS, name), SLACK.get(name, _USUAL)

    def enclose(x: Enclosure) -> Enclosure:
        left, right = (x.high, x.low) if falls else (x.low, x.high)
        nonzero = x.nonzero if keeps else np.full(np.shape(x.low), low == 0.0)
        below, above = _widened(function, left, units, False), _widened(function, right, units, True)
        return Enclosure.of(np.clip(below, low, high), np.clip(above, low, high), nonzero)

    return enclose


class IntervalTable:
    """The primitives over enclosures. Not an op table for definitions: it evaluates expressions, constants exactly."""

    exp = staticmethod(_monotone("exp", 0.0))
    expm1 = staticmethod(_monotone("expm1", -1.0, keeps=True))
    atan = staticmethod(_monotone("atan", keeps=True))
    tanh = staticmethod(_monotone("tanh", -1.0, 1.0, keeps=True))
    sigmoid = staticmethod(_monotone("sigmoid", 0.0, 1.0))
    softplus = staticmethod(_monotone("softplus", 0.0))
    erf = staticmethod(_monotone("erf", -1.0, 1.0, keeps=True))
    _tail = staticmethod(_monotone("erfc", 0.0, 2.0, falls=True))
    _root = staticmethod(_monotone("sqrt", 0.0, keeps=True))
    _log = staticmethod(_monotone("log"))
    _log1p = staticmethod(_monotone("log1p", keeps=True))
    _decaying = staticmethod(_monotone("sech2", 0.0, 1.0, falls=True))

    def log(self, x: Enclosure) -> Enclosure:
        return self._log(_restricted(x, 0.0))

    def log1p(self, x: Enclosure) -> Enclosure:
        return self._log1p(_restricted(x, -1.0))

    def sqrt(self, x: Enclosure) -> Enclosure:
        return self._root(_restricted(x, 0.0))

    def erfc(self, x: Enclosure) -> Enclosure:
        found = self._tail(x)
        # SciPy's is 0 from 26.64 on, where the true value is 3e-310
        return Enclosure(found.low, np.where(x.low > 26, np.maximum(found.high, 1e-290), found.high), found.nonzero)

    def sech2(self, x: Enclosure) -> Enclosure:
        return self._decaying(self.abs(x))

    def sin(self, x: Enclosure) -> Enclosure:
        return _wave(np.sin, x, 0.5 * math.pi)

    def cos(self, x: Enclosure) -> Enclosure:
        return _wave(np.cos, x, 0.0)

    def abs(self, x: Enclosure) -> Enclosure:
        around = (x.low < 0) & (x.high > 0)
        small = np.where(around, 0.0, np.minimum(np.abs(x.low), np.abs(x.high)))
        return Enclosure.of(small, x.magnitude, x.nonzero)

    def sign(self, x: Enclosure) -> Enclosure:
        low, high = np.sign(x.low), np.sign(x.high)
        return Enclosure.of(np.where(x.nonzero & (low == 0), 1.0, low), np.where(x.nonzero & (high == 0), -1.0, high))

    def maximum(self, a: Enclosure, b: Enclosure) -> Enclosure:
        return Enclosure.of(np.maximum(a.low, b.low), np.maximum(a.high, b.high), a.nonzero & b.nonzero)

    def minimum(self, a: Enclosure, b: Enclosure) -> Enclosure:
        return Enclosure.of(np.minimum(a.low, b.low), np.minimum(a.high, b.high), a.nonzero & b.nonzero)

    def where(self, condition: Verdict, a: Enclosure, b: Enclosure) -> Enclosure:
        def chosen(first: Array, second: Array, both: Array) -> Array:
            return np.where(condition.holds, first, np.where(condition.fails, second, both))

        low = chosen(a.low, b.low, np.fmin(a.low, b.low))
        high = chosen(a.high, b.high, np.fmax(a.high, b.high))
        return Enclosure.of(low, high, chosen(a.nonzero, b.nonzero, a.nonzero & b.nonzero))


_TABLE = IntervalTable()
_PI = Enclosure.of(math.pi, np.nextafter(math.pi, 4.0), True)  # math.pi is below π
_INFIX: dict[str, Callable[[Any, Any], Any]] = {
    "add": Enclosure.__add__, "sub": Enclosure.__sub__, "mul": Enclosure.__mul__, "div": Enclosure.__truediv__,
    "lt": Enclosure.__lt__, "le": Enclosure.__le__, "gt": Enclosure.__gt__, "ge": Enclosure.__ge__,
}  # fmt: skip


def _restricted(x: Enclosure, least: float) -> Enclosure:
    """The part of `x` that is at least `least`; empty where there is none."""
    none = x.high < least
    return Enclosure(
        np.where(none, math.nan, np.maximum(x.low, least)), np.where(none, math.nan, x.high), np.asarray(x.nonzero)
    )


def _wave(function: Callable[[Any], Any], x: Enclosure, peak: float) -> Enclosure:
    """sin or cos, whose maxima lie at peak + 2πk and whose minima half a period further."""

    def reaches(at: float) -> Array:
        turns = (x.low - at) / (2 * math.pi), (x.high - at) / (2 * math.pi)
        room = 1e-15 * (np.abs(turns[0]) + np.abs(turns[1])) + 1e-12
        return ~(np.ceil(turns[0] - room) > turns[1] + room)  # also where an end is infinite

    with np.errstate(all="ignore"):
        left, right = np.where(np.isfinite(x.low), x.low, 0.0), np.where(np.isfinite(x.high), x.high, 0.0)
        below = np.minimum(*(_widened(function, end, SLACK["sin"], False) for end in (left, right)))
        above = np.maximum(*(_widened(function, end, SLACK["sin"], True) for end in (left, right)))
        far = ~(x.magnitude < 1e12)
        low = np.where(far | reaches(peak + math.pi), -1.0, np.maximum(below, -1.0))
        high = np.where(far | reaches(peak), 1.0, np.minimum(above, 1.0))
    none = np.isnan(x.low)
    return Enclosure.of(np.where(none, math.nan, low), np.where(none, math.nan, high))


def evaluate(expression: Expr, low: Any, high: Any) -> Enclosure:
    """The enclosure of an expression in the one symbol "x" over the intervals [low, high]."""
    shape = np.shape(low)
    values: dict[Expr, Any] = {}
    with np.errstate(all="ignore"):
        for node in walk(expression):
            args = [values[a] for a in node.args if isinstance(a, Expr)]
            if node.op == "symbol":
                values[node] = Enclosure.of(low, high)
            elif node.op == "constant":
                values[node] = Enclosure.of(node.args[0], node.args[0])
            elif node.op == "pi":
                values[node] = _PI
            elif node.op == "neg":
                values[node] = -args[0]
            elif node.op == "with_slope":
                values[node] = args[0]
            elif node.op in _INFIX:
                values[node] = _INFIX[node.op](*args)
            else:
                values[node] = getattr(_TABLE, node.op)(*args)
    found = values[expression]
    return Enclosure(*(np.broadcast_to(part, shape) for part in (found.low, found.high, found.nonzero)))
