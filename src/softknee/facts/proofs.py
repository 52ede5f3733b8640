"""What intervals prove about a function by bisection: its sign, a bound, all its roots.

Everything is shown for |x| ≤ REACH, the range of float32; what lies beyond is told by limits. The work starts from
pieces that grow with |x|, two per octave and finer around 0, and is bounded: past BUDGET live intervals the answer is
"not shown", never a guess.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import Any

import numpy as np

from .intervals import Array, Enclosure

REACH = 2.0**128
BUDGET = 4096
ROUNDS = 60
# Where a function stays below this it is taken to have reached 0, which its tail may never do.
VANISHED = 1e-200

Function = Callable[[int, Any, Any], Enclosure]
"""(order, low, high) ↦ the enclosures of that derivative over the intervals [low, high]."""


def _grid() -> Array:
    octaves = 2.0 ** np.arange(6.5, 128.1, 0.5)
    near = np.concatenate([2.0 ** np.arange(-4.0, 0.0), np.arange(1.0, 17.0, 0.5), np.arange(17.0, 88.0, 3.0)])
    side = np.array(sorted({*near, *octaves, REACH}))  # np.unique loads numpy.ma, 10 ms of every start
    return np.concatenate([-side[::-1], [0.0], side])


_GRID = _grid()


def cells(low: float, high: float) -> tuple[Array, Array]:
    """[low, high], cut off at ±REACH, in cells of moderate ratio."""
    low, high = max(low, -REACH), min(high, REACH)
    edges = np.concatenate([[low], _GRID[(low < _GRID) & (high > _GRID)], [high]])
    return edges[:-1], edges[1:]


def _middle(low: Array, high: Array) -> Array:
    return low + 0.5 * (high - low)


def _halved(low: Array, high: Array) -> tuple[Array, Array]:
    middle = _middle(low, high)
    return np.concatenate([low, middle]), np.concatenate([middle, high])


def _narrow(low: Array, high: Array) -> Array:
    return high - low <= 1e-11 * np.maximum(np.maximum(np.abs(low), np.abs(high)), 1e-3)


def bounded(f: Function, low: float, high: float, most: float, sign: int = 1) -> bool:
    """Whether sign·f ≤ most is shown on [low, high]; f′ is used where f alone does not tell."""
    left, right = cells(low, high)
    for _ in range(ROUNDS):
        found = _signed(f(0, left, right), sign)
        open_ = ~(found.high <= most)  # NaN stays open
        left, right, above = left[open_], right[open_], found.high[open_]
        if left.size:
            above = np.fmin(above, _tighter(f, left, right, sign))
            open_ = ~(above <= most)
            left, right = left[open_], right[open_]
        if not left.size:
            return True
        if left.size > BUDGET or _narrow(left, right).any():
            return False
        left, right = _halved(left, right)
    return False


def _signed(found: Enclosure, sign: int) -> Enclosure:
    return found if sign > 0 else -found


def _tighter(f: Function, left: Array, right: Array, sign: int) -> Array:
    """An upper bound of sign·f by its derivative: at the ends where it has one sign, else by the mean value form."""
    slope = f(1, left, right)
    middle = _middle(left, right)
    ends = [_signed(f(0, x, x), sign).high for x in (left, middle, right)]
    with np.errstate(all="ignore"):
        mean = ends[1] + slope.magnitude * (right - left) * (0.5 + 1e-15)
        one_sided = (slope.low >= 0) | (slope.high <= 0)
        return np.where(one_sided, np.maximum(ends[0], ends[2]), np.where(np.isnan(mean), math.inf, mean))


def isolate(f: Function, low: float, high: float) -> tuple[tuple[float, ...], bool]:
    """The roots of f on [low, high], ends included, and whether these are shown to be all.

    A stretch without a root is one whose enclosure excludes 0; a simple root lies where f′ excludes 0 and the ends'
    signs differ. A multiple root is one at a number where f is exactly 0 and some derivative up to the third is not
    0 around it. A root that rounding cannot tell from an end counts as that end.
    """
    left, right = cells(low, high)
    roots: list[float] = []
    for _ in range(ROUNDS):
        found = f(0, left, right)
        tail = (found.magnitude <= VANISHED) & (np.minimum(np.abs(left), np.abs(right)) >= 1)
        open_ = ~(found.nonzero | tail)
        left, right = left[open_], right[open_]
        if not left.size:
            return _merged(roots), True
        simple = f(1, left, right).nonzero
        if simple.any():
            new, undecided = _simple_roots(f, left[simple], right[simple])
            roots += new
            # what rounding hides at an end is looked at more closely
            left = np.concatenate([left[~simple], left[simple][undecided]])
            right = np.concatenate([right[~simple], right[simple][undecided]])
        stuck = _narrow(left, right)
        if stuck.any():
            multiple, all_found = _multiple(f, left[stuck], right[stuck], (max(low, -REACH), min(high, REACH)))
            roots += multiple
            if not all_found:
                return _merged(roots), False
            left, right = left[~stuck], right[~stuck]
        if left.size > BUDGET:
            return _merged(roots), False
        left, right = _halved(left, right)
    return _merged(roots), False


def _signs(f: Function, x: Array) -> Array:
    """1, −1, 0 where f is exactly 0, NaN where rounding hides it."""
    found = f(0, x, x)
    exact = (found.low == 0) & (found.high == 0)
    above, below = found.nonzero & (found.low >= 0), found.nonzero & (found.high <= 0)
    return np.select([exact, above, below], [0.0, 1.0, -1.0], math.nan)


def _simple_roots(f: Function, left: Array, right: Array) -> tuple[list[float], Array]:
    """The roots in intervals on which f only rises or only falls, so one each at most; and which are undecided."""
    at_left, at_right = _signs(f, left), _signs(f, right)
    roots = [*left[at_left == 0].tolist(), *right[at_right == 0].tolist()]
    crosses = at_left * at_right < 0
    roots += _bisected(f, left[crosses], right[crosses], at_left[crosses]).tolist()
    undecided = np.isnan(at_left + at_right) & (at_left != 0) & (at_right != 0)
    return roots, undecided


def _bisected(f: Function, low: Array, high: Array, at_low: Array) -> Array:
    """The root in each interval to the last bits: of what rounding leaves, the middle."""
    for _ in range(200):
        middle = _middle(low, high)
        if not low.size or not ((middle != low) & (middle != high)).any():
            break
        value = f(0, middle, middle)
        same = np.sign(value.low + value.high) == at_low
        low, high = np.where(same, middle, low), np.where(same, high, middle)
    sizes = [f(0, x, x).magnitude for x in (low, high)]
    return np.where(sizes[0] < sizes[1], low, high)


def _multiple(f: Function, left: Array, right: Array, domain: tuple[float, float]) -> tuple[list[float], bool]:
    """The roots in the stretches that bisection left over, and whether that settles all of them."""
    ascending = np.argsort(left)
    left, right = left[ascending], right[ascending]
    apart = np.flatnonzero(left[1:] > right[:-1])
    starts, ends = left[np.concatenate([[0], apart + 1])], right[np.concatenate([apart, [left.size - 1]])]
    roots: list[float] = []
    for start, end in zip(starts.tolist(), ends.tolist(), strict=True):
        corners = dict.fromkeys(x for x in (*left.tolist(), *right.tolist()) if start <= x <= end)
        exact = next((x for x in corners if _zero(f(0, x, x))), None)
        first, last = _signs(f, np.array([start, end])).tolist()
        if exact is not None:
            order = next((n for n in (1, 2, 3) if not _zero(f(n, exact, exact))), 4)
            if order == 4 or not f(order, start, end).nonzero:
                return roots, False
            roots.append(exact)
        elif f(1, start, end).nonzero and first * last < 0:
            roots.append(start + 0.5 * (end - start))
        elif f(1, start, end).nonzero and math.isnan(first) and start == domain[0] and not math.isnan(last):
            roots.append(start)  # to rounding
        elif f(1, start, end).nonzero and math.isnan(last) and end == domain[1] and not math.isnan(first):
            roots.append(end)
        elif not (f(1, start, end).nonzero and first * last > 0):
            return roots, False
    return roots, True


def _zero(found: Enclosure) -> bool:
    return bool(found.low == 0 == found.high)


def _merged(roots: list[float]) -> tuple[float, ...]:
    """Neighbouring intervals may both claim a root at their common end."""
    found: list[float] = []
    for root in sorted(roots):
        if not found or root - found[-1] > 4e-15 * max(abs(root), 1e-3):
            found.append(root + 0.0)
    return tuple(found)
