"""Telling an unknown function by its behaviour: evaluated at probes, compared with the catalog, parameters fitted.

A candidate is accepted where it agrees at every probe to within rounding, so constants are tight: 1.773 is not 1.702,
and the tanh form of GELU (4.7e-4 away) is not the exact one, while spellings that differ only in rounding or in the
printed digits of a constant (2e-7) are the same. Of candidates that are the same function, the one with the fewest
parameters is named, one of the core before others. Parameters are fitted within their conditions; one that only says
where the function jumps is bisected. A parameter that the probes do not tell, such as a limit beyond them, is no fit.
In half precision, through a table of float16 values and between int8 grids the likelihood of what rounding left
decides, and where several activations are likely they are all named, each with its confidence. Where nothing fits, the
answer is "unknown" with the nearest neighbour and how far away it is. The function is evaluated at 512 elements at
most; torch's random state stays what it was, and the answer to the same question is the same.
"""

from __future__ import annotations

import functools
import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field, replace
from typing import Any

import numpy as np
import torch

from ... import catalog
from ...errors import InputError
from ...expression.graph import walk
from ..census import Candidate
from . import normalizers, rounding
from .fitting import Data, Fit, allowed, fitted, least_squares, roles, value
from .sampling import BUDGET, Sampler, gated_probes, probes, undisturbed

__all__ = ["BUDGET", "Match", "gated_probes", "match", "match_values", "probes", "recognised", "tolerance"]

_SIDE = 8


@dataclass(frozen=True)
class Match:
    """What a function was found to be.

    activation: the catalog name, None if unknown; parameters: as fitted; distance: the largest |difference| from it
    over the probes, at the input `at`, divided by max(1, |value|). Where unknown, `nearest` and the same figures tell
    the nearest neighbour. order: for two inputs, "gate_up" or "up_gate", which of them came first. note: why it cannot
    be an elementwise activation, where it cannot. candidates: where the values do not tell one activation, those that
    it may be, the likeliest (which is `activation`) first; their confidences sum to at most 1.
    """

    activation: str | None
    parameters: dict[str, float] = field(default_factory=dict)
    distance: float = math.inf
    at: float = math.nan
    nearest: str | None = None
    order: str | None = None
    note: str = ""
    candidates: tuple[Candidate, ...] = ()

    def describe(self) -> str:
        """One phrase: what it is, or that it is unknown and what comes nearest."""
        name = self.activation or self.nearest
        settings = ", ".join(f"{k}={v:.6g}" for k, v in self.parameters.items())
        named = f"{name}({settings})" if settings else f"{name}"
        if self.activation:
            return named
        if self.note:
            return f"unknown: {self.note}"
        return f"unknown; nearest is {named}, off by {self.distance:.3g} at x = {self.at:.4g}"


def recognised() -> tuple[Any, ...]:
    """What behaviour is compared with unless told otherwise: the core, what is registered, and of the wide catalog what
    could be nothing but an activation. x², |x|, eˣ or a product are parts of norms and losses far more often, and a
    curve of several fitted parameters comes near to anything that bends.
    """
    return tuple(a for a in catalog.activations() if a.core or _of_ones_own(a) or _telling(a))


def _of_ones_own(activation: Any) -> bool:
    return not (activation.formula.__module__ or "").startswith(f"{catalog.__name__}.")


def _telling(activation: Any) -> bool:
    if activation.kind == "elementwise":
        return "hidden" in activation.tags and not activation.parameters
    return "ffn" in activation.tags and {node.op for node in walk(activation.expression)} != {"symbol", "mul"}


def tolerance(dtype: torch.dtype) -> float:
    """The largest difference from a catalog entry, relative to max(1, |value|), that counts as rounding."""
    if dtype == torch.float64:
        return 3e-7  # the printed digits of constants in the wild move a GELU by up to 2.1e-7
    return max(1e-6, 4 * torch.finfo(dtype).eps)


def match(
    function: Callable[..., Any],
    *,
    inputs: int = 1,
    dtype: torch.dtype = torch.float64,
    activations: Sequence[Any] | None = None,
) -> Match:
    """Matches `function`, of one input (or of two: gated), against `activations` (`recognised()` by default).

    It must accept tensors of any shape, or NumPy arrays, or Python floats; dtype is what the tensors have, and float32
    where the function refuses it. Raises InputError where the function cannot be called like that or does not return
    one tensor (array, number) of the input's shape.
    """
    known = recognised() if activations is None else activations
    if inputs not in (1, 2):
        raise InputError(f"inputs must be 1 or 2, got {inputs}")
    points: tuple[np.ndarray, ...] = (probes(),) if inputs == 1 else gated_probes()
    with undisturbed():
        sampler = Sampler(function, inputs, dtype)
        values = sampler(*points)
        precision = sampler.precision
        chosen = np.random.default_rng(0).permutation(len(points[0]))[: _SIDE**2].reshape(_SIDE, _SIDE)
        again = sampler(*(p[chosen] for p in points))
        if not np.allclose(again, values[chosen], rtol=16 * torch.finfo(precision).eps, atol=0, equal_nan=True):
            if not np.array_equal(sampler(*(p[chosen] for p in points)), again, equal_nan=True):
                return Match(None, note="it is random: an output changes from call to call")
            if inputs == 2:
                return Match(None, note=normalizers.NOTE)
            rows = points[0][chosen]
            grid = rounding.GRIDS.get(precision) or rounding.carried((rows,), again, least=8)  # a row holds few values
            long = (points[0], values)
            return Match(**normalizers.told(known, rows, again, long, precision if grid is None else grid.dtype))
        return _matched(points, values, precision, known, sampler)


def match_values(
    points: tuple[np.ndarray, ...],
    values: np.ndarray,
    dtype: torch.dtype = torch.float64,
    activations: Sequence[Any] | None = None,
) -> Match:
    """As `match`, for a function that has been evaluated: `values` at `points` (one array per input)."""
    known = recognised() if activations is None else activations
    return _matched(points, values, dtype, known, None)


def _matched(
    points: tuple[np.ndarray, ...],
    values: np.ndarray,
    precision: torch.dtype,
    known: Sequence[Any],
    sampler: Sampler | None,
) -> Match:
    points = tuple(torch.tensor(p).to(precision).double().numpy() for p in points)
    kind = "elementwise" if len(points) == 1 else "gated"
    candidates = [a for a in _in_order(tuple(known)) if a.kind == kind]
    if not candidates:
        return Match(None, note=f"there is no {kind} activation to compare with")
    comparing = _Comparing(points, values, precision, sampler)
    if precision in rounding.GRIDS:
        return comparing.likely(candidates, rounding.GRIDS[precision])
    found = comparing.exactly(candidates)
    if found.activation is not None:
        return found
    likely = None
    half, codes = rounding.carried(points, values), rounding.coded(points[0], values) if len(points) == 1 else None
    if half is not None:
        likely = comparing.likely(candidates, half)
    elif codes is not None:
        grid, kept = codes
        within = _Comparing((points[0][kept],), values[kept], precision, None)
        likely = within.likely(candidates, grid)
    return found if likely is None or likely.activation is None else likely


@functools.lru_cache(maxsize=16)
def _in_order(known: tuple[Any, ...]) -> tuple[Any, ...]:
    """Fewer parameters first, fixed before learned, then the order of definition: relu is not leaky_relu(0). What is
    not of the core and has parameters comes last: a fit takes 10 ms, and few networks have them. Without noise a
    stochastic activation is another one's double, and so is one whose surrogate is all that it is."""
    return tuple(sorted(
        (a for a in known if not a.stochastic and a.surrogate is None),
        key=lambda a: (_rare(a), len(a.parameters), sum(p.learnable for p in a.parameters.values()), not a.core),
    ))  # fmt: skip


def _remoteness(activation: Any, found: Match) -> float:
    """By what the nearest of those that do not fit is chosen. One with parameters must be nearer by a factor of 5 for
    each, one that is not of the core by 1.5: a tanh that ends at 1.04 is near tanh, not near 1.04·tanh."""
    fitted = len(roles(activation).smooth) if activation.parameters else 0
    return found.distance * 5.0**fitted * (1.0 if activation.core else 1.5)


def _rare(activation: Any) -> bool:
    return bool(activation.parameters) and not activation.core


class _Comparing:
    """Values at points, and how near activations come to them."""

    def __init__(
        self, points: tuple[np.ndarray, ...], values: np.ndarray, precision: torch.dtype, sampler: Sampler | None
    ) -> None:
        self.points, self.values, self.precision, self.sampler = points, values, precision, sampler
        self.limit = tolerance(precision)
        self.eps = torch.finfo(precision).eps
        self.largest = torch.finfo(precision).max
        self.magnitude = np.maximum(1.0, np.abs(np.where(np.isfinite(values), values, 1.0)))

    def orders(self) -> tuple[str, ...]:
        return ("gate_up", "up_gate")[: len(self.points)]

    def given(self, order: str) -> tuple[np.ndarray, ...]:
        return self.points if order == "gate_up" else self.points[::-1]

    def differences(self, candidate: np.ndarray) -> np.ndarray:
        """|candidate − value| / max(1, |value|); an overflow of both is none."""
        candidate = np.where(np.abs(candidate) > self.largest, np.copysign(np.inf, candidate), candidate)
        with np.errstate(all="ignore"):
            off = np.abs(candidate - self.values) / self.magnitude
        same = (candidate == self.values) | (np.isnan(candidate) & np.isnan(self.values))
        return np.where(same, 0.0, np.where(np.isnan(off), np.inf, off))

    def fits(self, activation: Any, given: tuple[np.ndarray, ...], parameters: dict[str, float]) -> bool:
        """Whether it agrees everywhere to within `limit` and what rounding its input, and an angle or exponent made of
        it, does to its value."""
        candidate = value(activation, given, parameters)
        off = self.differences(candidate)
        worst = float(off.max())
        if worst <= self.limit:
            return True
        if worst > 1e4 * self.limit or self.precision == torch.float64:
            return False
        nearby = value(activation, tuple(p * (1 + 1e-6) for p in given), parameters)
        with np.errstate(all="ignore"):
            slope = np.abs(nearby - candidate) / 1e-6 / self.magnitude
        return bool((off <= self.limit + 16 * self.eps * np.where(np.isfinite(slope), slope, 0.0)).all())

    # -- to within the rounding of float64 or float32

    def exactly(self, candidates: Sequence[Any]) -> Match:
        """The first of `candidates` that fits; if none, the nearest."""
        data = Data(self.points, self.values, self.magnitude)
        turned = Data(self.points[::-1], self.values, self.magnitude)
        straight = len(self.points) == 1 and self.straight()
        nearest: tuple[float, Match] | None = None
        for activation in candidates:
            if straight and activation.parameters:  # 0, x/2 (which is swish(beta=0)), −x: no parameter says more
                continue
            for order in self.orders():
                given = self.given(order)
                parameters, fits = self.settled(activation, given, data if order == "gate_up" else turned)
                if parameters is None:
                    continue
                off = self.differences(value(activation, given, parameters))
                where = int(np.argmax(off))
                found = Match(
                    activation.name, parameters, float(off[where]), float(given[0][where]), activation.name,
                    order if len(given) == 2 else None,
                )  # fmt: skip
                if fits:
                    return found
                score = _remoteness(activation, found)
                if nearest is None or score < nearest[0]:
                    nearest = score, found
        if nearest is None:
            return Match(None, note="the values are a straight line's")
        return replace(nearest[1], activation=None)

    def straight(self) -> bool:
        """Whether the values are an affine function's."""
        x = self.points[0]
        if not np.isfinite(self.values).all():
            return False
        return bool(self.differences(np.polyval(np.polyfit(x, self.values, 1), x)).max() <= self.limit)

    def settled(
        self, activation: Any, given: tuple[np.ndarray, ...], data: Data
    ) -> tuple[dict[str, float] | None, bool]:
        """The parameters, None where the probes do not tell them, and whether the activation fits with them."""
        defaults = dict(activation.defaults)
        if not defaults or float(self.differences(value(activation, given, defaults)).max()) <= 4 * self.eps:
            return defaults, self.fits(activation, given, defaults)
        fit = fitted(activation, data)
        if fit is None:
            return defaults, self.fits(activation, given, defaults)
        if not self.fits(activation, given, fit.parameters):
            return fit.parameters, False
        parameters = self.short(activation, given, fit)
        if parameters is None:
            return None, False
        if roles(activation).jumps:

            def agree(points: tuple[np.ndarray, ...], values: np.ndarray, tried: dict[str, float]) -> bool:
                return _Comparing(points, values, self.precision, None).fits(activation, points, tried)

            found = self.bisected(activation, given, parameters, agree, self.precision)
            return found, found is not None
        for name in self.untold(activation, given, parameters):
            # It keeps its default, if all fits with that
            rest = tuple(n for n in fit.errors if n != name)
            fixed = {name: defaults[name]}
            if rest:
                begin = np.array([[parameters[n] for n in rest]])
                theta, _ = least_squares(activation, rest, begin, data, fixed)
                fixed |= dict(zip(rest, theta.tolist(), strict=True))
            fit = Fit(defaults | fixed, {n: e for n, e in fit.errors.items() if n != name})
            if not self.fits(activation, given, fit.parameters):
                return None, False
            parameters = self.short(activation, given, fit)
            if parameters is None:
                return None, False
        return parameters, True

    def short(self, activation: Any, given: tuple[np.ndarray, ...], fit: Fit) -> dict[str, float] | None:
        """Each parameter as the shortest decimal within its error that still fits: 0.1 rather than 0.10000000149.
        None where one is at an open end of what it may be."""
        parameters = dict(fit.parameters)
        for name, error in fit.errors.items():
            exact = parameters[name]
            grain = max(1e-9 * max(abs(exact), 1e-3), 4 * error * self.eps)
            parameters[name] = _rounded(exact, min(grain, 1e-4))
            if not allowed(activation, parameters):
                return None
            if not self.fits(activation, given, parameters):
                parameters[name] = exact
        return parameters

    def untold(self, activation: Any, given: tuple[np.ndarray, ...], parameters: dict[str, float]) -> list[str]:
        """The parameters that may move by 15 % one way or the other."""
        found = []
        for name in roles(activation).smooth:
            for step in (-0.15, 0.15):
                moved = parameters | {name: parameters[name] + step * max(abs(parameters[name]), 1e-3)}
                if allowed(activation, moved) and self.fits(activation, given, moved):
                    found.append(name)
                    break
        return found

    def bisected(
        self,
        activation: Any,
        given: tuple[np.ndarray, ...],
        parameters: dict[str, float],
        agree: Callable[[tuple[np.ndarray, ...], np.ndarray, dict[str, float]], bool],
        precision: torch.dtype,
    ) -> dict[str, float] | None:
        """The parameter that says where the activation jumps, as |first input|: between two probes, then bisected at
        numbers of `precision`. None where the probes do not tell it. agree: of points, values there, parameters.
        """
        (name,) = roles(activation).jumps
        edges = np.unique(np.concatenate([given[0], np.abs(given[0])]))

        def at(low: float, high: float) -> dict[str, float]:
            return parameters | {name: float((low + high) / 2)}

        first = last = int(np.searchsorted(edges, parameters[name]))  # the interval that ends there
        while first > 0 and agree(given, self.values, at(edges[first - 1], edges[first])):
            first -= 1
        while last < len(edges) and agree(given, self.values, at(edges[last - 1], edges[last])):
            last += 1
        if first == 0 or last == len(edges) or last - first > 4:  # no probe sees the jump
            return None
        low, high = float(edges[first]), float(edges[last - 1])
        while self.sampler is not None and self.sampler.left >= 16 and high - low > 1e-10 * max(1.0, abs(high)):
            narrow = high - low <= 2**-9 * abs(high)
            kind = precision if narrow or precision.itemsize < 4 else torch.float16  # as through a table
            inside = torch.linspace(low, high, 10, dtype=torch.float64)[1:-1].to(kind).double().numpy()
            inside = np.unique(inside[(low < inside) & (inside < high)])
            if not len(inside) and (narrow or precision.itemsize < 4):
                break
            if not len(inside):
                inside = np.linspace(low, high, 10)[1:-1]
            x = np.concatenate([inside, -inside])
            place = (x, *(np.full_like(x, 1.25) for _ in given[1:]))
            values = self.sampler(*(place if given[0] is self.points[0] else place[::-1]))
            edges = np.concatenate([[low], inside, [high]])
            fits = [i for i in range(len(edges) - 1) if agree(place, values, at(edges[i], edges[i + 1]))]
            if len(fits) != 1 and narrow:  # a table of float16 tells no more
                break
            if len(fits) != 1:
                return None
            low, high = float(edges[fits[0]]), float(edges[fits[0] + 1])
        return parameters | {name: _within(low, high)}

    # -- to within the rounding of fewer bits

    def likely(self, candidates: Sequence[Any], grid: rounding.Grid | rounding.Codes) -> Match:
        """What the values may be on a grid: the likeliest, and all that are not much less likely."""
        rounded = {order: rounding.Rounded(self.given(order), self.values, grid) for order in self.orders()}
        fine, coarse = {}, {}
        for order, r in rounded.items():
            floor = grid.half_step(np.full_like(self.values, 0.01))
            fine[order] = Data(r.points, self.values, np.maximum(grid.half_step(self.values), floor) + rounding.INNER)
            coarse[order] = Data(r.points, self.values, self.magnitude)
        straight = len(self.points) == 1 and self.straight()
        near: list[_Near] = []
        for activation in candidates:
            if straight and activation.parameters:
                continue
            if _rare(activation) and any(each.once and not each.found.parameters for each in near):
                break
            for order in self.orders():
                r = rounded[order]
                parameters = self.rounded_fit(activation, r, fine[order], coarse[order])
                if parameters is None:
                    continue
                candidate = value(activation, r.points, parameters)
                off = self.differences(candidate)
                where = int(np.argmax(off))
                found = Match(
                    activation.name, parameters, float(off[where]), float(r.points[0][where]), activation.name,
                    order if len(r.points) == 2 else None,
                )  # fmt: skip
                near.append(_Near(activation, r, candidate, r.off(candidate), found))
        if not near:
            return Match(None, note="the values are a straight line's")
        likely = [(each, -_complexity(each.activation)) for each in near if each.once] or _stepwise(near)
        if not likely:
            best = min(near, key=lambda each: _remoteness(each.activation, each.found))
            return replace(best.found, activation=None)
        return _confident(likely, f"in {str(grid.dtype).removeprefix('torch.')}")

    def rounded_fit(self, activation: Any, r: rounding.Rounded, fine: Data, coarse: Data) -> dict[str, float] | None:
        """The parameters for values on a grid; the defaults where those already explain them, None where the probes do
        not tell them."""
        defaults = dict(activation.defaults)
        if not defaults or r.off(value(activation, r.points, defaults)).max() <= 1:
            return defaults
        fit = fitted(activation, fine, coarse)
        if fit is None:
            return defaults
        parameters = dict(fit.parameters)
        if roles(activation).jumps:
            if r.off(value(activation, r.points, parameters)).max() > 1:
                return parameters

            def agree(points: tuple[np.ndarray, ...], values: np.ndarray, tried: dict[str, float]) -> bool:
                return bool(rounding.Rounded(points, values, r.grid).off(value(activation, points, tried)).max() <= 1)

            found = self.bisected(activation, r.points, parameters, agree, r.grid.dtype)
            if found is None:
                return None
            parameters = found
        off = r.off(value(activation, r.points, parameters))
        if not fit.errors or (np.quantile(off, 0.5) > 1 and off.max() > 50):
            return parameters
        parameters = r.centred(activation, r.points, tuple(fit.errors), parameters)

        def error(tried: dict[str, float]) -> float:
            """1 at most where this explains the values as well as what was fitted."""
            if not allowed(activation, tried):
                return math.inf
            off = r.off(value(activation, r.points, tried))
            return float(off.max()) if once else float(np.mean(np.minimum(off, 50.0) ** 2)) / spread

        off = r.off(value(activation, r.points, parameters))
        once, spread = bool(off.max() <= 1), 1.02 * float(np.mean(np.minimum(off, 50.0) ** 2))
        for name, deviation in fit.errors.items():
            width = max(deviation, 1e-9)  # how far it may move
            while width < 0.1 * abs(parameters[name]) and min(
                error(parameters | {name: parameters[name] + step}) for step in (-width, width)
            ) <= 1:  # fmt: skip
                width *= 2
            short = _short(parameters[name], width)
            if short is not None and error(parameters | {name: short}) <= 1:
                parameters = parameters | {name: short}
        return parameters


@dataclass(frozen=True, eq=False)
class _Near:
    """An activation as near as it comes to values on a grid; off: how far at each probe, in units of their room."""

    activation: Any
    rounded: rounding.Rounded
    values: np.ndarray
    off: np.ndarray
    found: Match

    @property
    def once(self) -> bool:
        """Whether the values are its own, rounded once."""
        return bool(self.off.max() <= 1)


def _stepwise(near: list[_Near]) -> list[tuple[_Near, float]]:
    """Those that the values may be if every step was rounded, and the logarithm of how likely each is.

    Nobody knows which formula was written, only how much each candidate's own loses; the largest of these that is
    enough for its own candidate is granted to all.
    """
    some = [each for each in near if np.isfinite(each.off).all()]
    own = []
    for each in some:
        width = each.rounded.steps(each.activation, each.rounded.points, each.found.parameters, each.values)
        if rounding.likelihood(each.off, each.rounded, width)[1] <= rounding.LOOSEST:
            own.append(width)
    if not own and some:
        own.append(some[0].rounded.cancelling())
    found = []
    for each in some:
        logarithm, loose = rounding.likelihood(each.off, each.rounded, np.max(own, axis=0))
        if loose <= rounding.LOOSEST:
            # by half: what one rounding does to neighbouring probes is alike
            found.append((each, 0.5 * logarithm - _complexity(each.activation)))
    return found


def _complexity(activation: Any) -> float:
    """How much likelier values must make an activation for being rare, or having parameters (half the logarithm of how
    many values there are, each: the Bayesian information criterion)."""
    return 0.5 * math.log(256) * len(activation.parameters) + (0.0 if activation.core else 1.0)


def _confident(likely: list[tuple[_Near, float]], where: str) -> Match:
    """The likeliest, with every other of which the data leave 2 % or more; of one alone there are no candidates.

    What is the same function as one with fewer parameters, as far as the grid can show, is no other.
    """
    kept: list[tuple[_Near, float]] = []
    for each, weight in sorted(likely, key=lambda pair: len(pair[0].found.parameters)):
        fewer = [(e, w) for e, w in kept if len(e.found.parameters) < len(each.found.parameters)]
        equal = [(e, w) for e, w in kept if len(e.found.parameters) == len(each.found.parameters)]
        r = each.rounded
        if any(r.between(each.values, e.values) <= 1 and w >= weight - 1 for e, w in fewer):
            continue
        if any(r.between(each.values, e.values) == 0 for e, _ in equal):
            continue
        kept.append((each, weight))
    top = max(weight for _, weight in kept)
    share = [math.exp(weight - top) for _, weight in kept]
    ranked = sorted(range(len(kept)), key=lambda i: -share[i])
    chosen = [(share[i] / sum(share), kept[i][0].found) for i in ranked if share[i] >= 0.02 * sum(share)][:8]
    best = chosen[0][1]
    if len(chosen) == 1:
        return best
    rivals = ", ".join(str(m.activation) for _, m in chosen[1:])
    return replace(
        best,
        note=f"{where} it cannot be told from {rivals}",
        candidates=tuple(Candidate(str(m.activation), m.parameters, round(c, 3)) for c, m in chosen),
    )


def _short(number: float, width: float) -> float | None:
    """The decimal within `width` of a number, if it has so few digits that there is hardly one so near by chance."""
    for digits in range(1, 7):
        short = float(f"{number:.{digits}g}")
        spacing = 10.0 ** (math.floor(math.log10(abs(number))) - digits + 1) if number else 1.0
        if spacing < 5 * width:
            return None
        if abs(short - number) <= width:
            return short
    return None


def _within(low: float, high: float) -> float:
    """The shortest decimal from `low` to `high`."""
    middle = (low + high) / 2
    for digits in range(1, 17):
        short = float(f"{middle:.{digits}g}")
        if low <= short <= high:
            return short
    return middle


def _rounded(number: float, grain: float) -> float:
    """The shortest decimal within `grain`."""
    if abs(number) <= grain * 1e-3:
        return 0.0
    for digits in range(1, 13):
        short = float(f"{number:.{digits}g}")
        if abs(short - number) <= grain:
            return short
    return number
