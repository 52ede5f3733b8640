"""Telling an unknown function by its behaviour: evaluated at probes, compared with the catalog, parameters fitted.

A candidate is accepted where it agrees at every probe within `tolerance(dtype)`, so constants are tight: 1.773 is not
1.702, and the tanh form of GELU (4.7e-4 away) is not the exact one, while spellings that differ only in rounding or in
the printed digits of a constant (2e-7) are the same. Of candidates that are the same function, the one with the fewest
parameters is named, one of the core before others. Parameters are fitted by least squares, within their conditions; one
that only says where a function jumps is bisected, where it is the only one (else it keeps its default). A parameter
that the probes do not tell, such as a limit beyond them, is no fit. Where nothing fits, the answer is "unknown" with
the nearest neighbour and how far away it is. The function is evaluated at 512 points at most, and at 512 more where it
jumps.
"""

from __future__ import annotations

import functools
import math
import operator
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Any

import numpy as np
import torch

from .. import catalog
from ..backends import table
from ..errors import InputError
from ..expression.graph import walk

_SIDE = 16
# Of two inputs: beyond the limits that gated activations are clamped at (7, 10, 25), and never twice the same distance
_GATE = (-37.0, -27.1, -17.3, -9.6, -5.3, -2.7, -1.1, -0.3, 0.2, 0.8, 1.6, 3.1, 6.2, 11.7, 21.9, 33.0)
_UP = (-39.0, -28.3, -15.9, -8.1, -4.4, -2.1, -0.9, -0.2, 0.1, 0.6, 1.3, 2.6, 5.7, 12.4, 24.2, 36.0)
# Where a fit may begin: this many values per parameter, by the number of parameters
_STARTS = {1: 64, 2: 16, 3: 6}


@dataclass(frozen=True)
class Match:
    """What a function was found to be.

    activation: the catalog name, None if unknown; parameters: as fitted; distance: the largest |difference| from it
    over the probes, at the input `at`, divided by max(1, |value|). Where unknown, `nearest` and the same figures tell
    the nearest neighbour. order: for two inputs, "gate_up" or "up_gate", which of them came first. note: why it cannot
    be an elementwise activation, where it cannot.
    """

    activation: str | None
    parameters: dict[str, float] = field(default_factory=dict)
    distance: float = math.inf
    at: float = math.nan
    nearest: str | None = None
    order: str | None = None
    note: str = ""

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


def probes() -> np.ndarray:
    """256 inputs: dense where activations bend, some in the tails, the usual kinks exactly."""
    dense = np.linspace(-8.9, 8.9, 197)
    tails = np.geomspace(9.1, 40.0, 16)
    kinks = np.array([0.0, 1e-6, 1e-3, 0.02, 0.5, 1.0, 2.0, 2.5, 3.0, 4.0, 6.0])
    small = np.array([0.1, 0.3])[:, None] * np.array([1.0, -1.0])
    points = np.concatenate([dense, tails, -tails, kinks, -kinks[1:], small.ravel(), [7.0, -7.0]])
    return np.sort(np.resize(points, _SIDE * _SIDE))


def gated_probes() -> tuple[np.ndarray, np.ndarray]:
    """256 pairs of gate and up."""
    gate, up = np.meshgrid(_GATE, _UP, indexing="ij")
    return gate.ravel(), up.ravel()


def match(
    function: Callable[..., torch.Tensor],
    *,
    inputs: int = 1,
    dtype: torch.dtype = torch.float64,
    activations: Sequence[Any] | None = None,
) -> Match:
    """Matches `function`, of one tensor (or of two: gated), against `activations` (`recognised()` by default).

    It must accept tensors of any shape; dtype is tried first and float32 where the function refuses it. Raises
    InputError where the function cannot be called like that or does not return one tensor of the input's shape.
    """
    known = recognised() if activations is None else activations
    if inputs not in (1, 2):
        raise InputError(f"inputs must be 1 or 2, got {inputs}")
    points: tuple[np.ndarray, ...] = (probes(),) if inputs == 1 else gated_probes()
    values, dtype = _evaluate(function, points, dtype)
    shuffle = np.random.default_rng(0).permutation(len(points[0]))
    square = (_SIDE, _SIDE)
    again, _ = _evaluate(function, tuple(p[shuffle].reshape(square) for p in points), dtype)
    if not np.allclose(again.ravel(), values[shuffle], rtol=16 * torch.finfo(dtype).eps, atol=0, equal_nan=True):
        once_more, _ = _evaluate(function, points, dtype)
        if not np.array_equal(once_more, values, equal_nan=True):
            return Match(None, note="it is random: an output changes from call to call")
        return _normalizer(known, points, shuffle, again, dtype)
    return _matched(points, values, dtype, known, function)


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
    dtype: torch.dtype,
    known: Sequence[Any],
    function: Callable[..., torch.Tensor] | None,
) -> Match:
    points = tuple(np.asarray(torch.as_tensor(p).to(dtype).double()) for p in points)
    limit = tolerance(dtype)
    kind = "elementwise" if len(points) == 1 else "gated"
    exact = limit <= 1e-6
    straight = kind == "elementwise" and _straight(points[0], values, limit)  # no parameter says more
    nearest: Match | None = None
    accepted: list[tuple[float, Match]] = []
    # Fewer parameters first, fixed before learned, then the order of definition: relu is not leaky_relu(0). What is not
    # of the core and has parameters comes last: a fit takes 20 ms, and few networks have them. Without noise a
    # stochastic activation is another one's double, and so is one whose surrogate is all that it is.
    candidates = sorted(
        (
            a
            for a in known
            if a.kind == kind and not a.stochastic and a.surrogate is None and not (straight and a.parameters)
        ),
        key=lambda a: (_rare(a), len(a.parameters), sum(p.learnable for p in a.parameters.values()), not a.core),
    )
    for activation in candidates:
        if accepted and _rare(activation):
            break
        for order in ("gate_up", "up_gate")[: len(points)]:
            given = points if order == "gate_up" else points[::-1]
            parameters = _fitted(activation, given, values, dtype, function)
            if parameters is None:
                continue
            candidate = activation.value(*given, **parameters)
            distance, where = _distance(candidate, values)
            found = Match(
                activation.name, parameters, distance, float(given[0][where]), activation.name,
                order if len(points) == 2 else None,
            )  # fmt: skip
            if distance <= limit and exact:
                return found
            if distance <= limit:
                accepted.append((float(np.mean(np.abs(candidate - values))), found))
            if nearest is None or distance < nearest.distance:
                nearest = found
    if accepted:
        # At this precision several may fit: of those as close on average as any, within a half, the simplest
        least = min(mean for mean, _ in accepted)
        alike = [(len(m.parameters), mean, i, m) for i, (mean, m) in enumerate(accepted) if mean <= 1.5 * least]
        best = min(alike)[3]
        rivals = [m.nearest for n, *_, m in alike if m.nearest != best.nearest and n == len(best.parameters)]
        note = f"in {dtype} it cannot be told from {', '.join(map(str, rivals))}" if rivals else ""
        return replace(best, note=note)
    if nearest is None:
        return Match(None, note=f"there is no {kind} activation to compare with")
    return replace(nearest, activation=None)


def _rare(activation: Any) -> bool:
    return bool(activation.parameters) and not activation.core


def _straight(x: np.ndarray, values: np.ndarray, limit: float) -> bool:
    """Whether f is affine: 0, x/2 (which is swish(beta=0)), −x."""
    if not np.isfinite(values).all():
        return False
    return _distance(np.polyval(np.polyfit(x, values, 1), x), values)[0] <= limit


def _evaluate(function: Any, points: tuple[np.ndarray, ...], dtype: torch.dtype) -> tuple[np.ndarray, torch.dtype]:
    failure: Exception | None = None
    for kind in dict.fromkeys((dtype, torch.float32)):
        tensors = [torch.tensor(p, dtype=kind) for p in points]  # copies: the function may work in place
        try:
            with torch.no_grad():
                result = function(*tensors)
        except Exception as error:  # whatever the caller's function raises
            failure = error
            continue
        if not isinstance(result, torch.Tensor) or result.shape != tensors[0].shape or result.is_complex():
            got = f"{result.dtype} {tuple(result.shape)}" if isinstance(result, torch.Tensor) else type(result).__name__
            raise InputError(
                f"the function must return one real tensor of its input's shape {tuple(tensors[0].shape)}, got {got}"
            )
        kind = result.dtype if result.is_floating_point() and result.dtype.itemsize < kind.itemsize else kind
        return result.detach().cpu().double().numpy(), kind
    raise InputError(f"the function cannot be evaluated on a tensor: {failure}")


def _distance(candidate: np.ndarray, values: np.ndarray) -> tuple[float, int]:
    with np.errstate(all="ignore"):
        difference = np.abs(candidate - values) / np.maximum(1.0, np.abs(values))
    same = (candidate == values) | (np.isnan(candidate) & np.isnan(values))
    difference = np.where(same, 0.0, np.where(np.isnan(difference), np.inf, difference))
    where = int(np.argmax(difference))
    return float(difference[where]), where


def _fitted(
    activation: Any,
    points: tuple[np.ndarray, ...],
    values: np.ndarray,
    dtype: torch.dtype,
    function: Callable[..., torch.Tensor] | None,
) -> dict[str, float] | None:
    """The parameters with the least squared difference, None where the probes cannot tell them."""
    if not activation.parameters:
        return {}
    defaults = dict(activation.defaults)
    if not np.isfinite(values).all():
        return defaults
    if _distance(activation.value(*points, **defaults), values)[0] <= 4 * torch.finfo(dtype).eps:
        return defaults
    free = _free(activation)
    if not free:
        if len(activation.parameters) == len(points) == 1:
            return _jump(activation, points[0], values, dtype, function)
        return defaults
    theta = _least_squares(activation, free, points, values)
    grain = 1e-9 if dtype == torch.float64 else 8 * torch.finfo(dtype).eps
    found = {n: _rounded(float(v), grain) for n, v in zip(free, theta, strict=True)}
    return defaults | found if _told(activation, found, points, values, tolerance(dtype)) else None


@functools.lru_cache(maxsize=256)
def _free(activation: Any) -> tuple[str, ...]:
    """The parameters that values depend on smoothly somewhere, not only by where they jump."""
    points: tuple[np.ndarray, ...] = (probes(),) if activation.kind == "elementwise" else gated_probes()
    found = []
    for name, parameter in activation.parameters.items():
        # f may be flat in the parameter just at its default (a slope of 1, an exponent of 0)
        moved = activation.defaults | {name: parameter.default * 1.1 + 0.05}
        given = moved if _allowed(activation, moved) else activation.defaults
        if math.isfinite(parameter.default) and np.any(activation.derivative(*points, wrt=name, **given)):
            found.append(name)
    return tuple(found)


def _allowed(activation: Any, parameters: Mapping[str, Any]) -> Any:
    """Whether the conditions hold: a bool, or one for each where a parameter has several values."""
    return functools.reduce(operator.and_, (c.holds(parameters) for c in activation.conditions), np.True_)


def _least_squares(
    activation: Any, free: tuple[str, ...], points: tuple[np.ndarray, ...], values: np.ndarray
) -> np.ndarray:
    """The `free` parameters with the least sum of squared relative differences (Levenberg–Marquardt).

    Several starting points descend together, in one evaluation a step: scipy's `least_squares` takes one at a time,
    1 ms a step, which over a catalog is seconds.
    """
    ops = table("numpy")
    scale = np.maximum(1.0, np.abs(values))

    def residuals(theta: np.ndarray, every: int = 1) -> np.ndarray:
        """(..., P) parameters → (..., N) differences; huge where a parameter is out of range."""
        given = activation.defaults | {n: theta[..., i, None] for i, n in enumerate(free)}
        with np.errstate(all="ignore"):
            got = activation.on(ops, *(p[::every] for p in points), **given)
            off = (got - values[::every]) / scale[::every]
        off = np.where(np.isfinite(off) & (np.abs(off) < 1e6), off, 1e6)
        return np.where(_allowed(activation, given), off, 1e6)

    starts = _starts(activation, free)
    costs = (residuals(starts, 3) ** 2).sum(-1)
    theta = starts[np.argsort(costs, kind="stable")[:4]]
    off = residuals(theta)
    cost = (off**2).sum(-1)
    damping = np.full(len(theta), 1e-3)
    identity = np.eye(len(free))
    for step in range(60):
        h = 1e-7 * np.maximum(np.abs(theta), 1e-3)
        there = residuals(theta[:, None, :] + h[:, :, None] * identity)
        slopes = (there - off[:, None, :]) / h[:, :, None]  # (starts, P, N)
        slopes = np.where(np.abs(slopes) < 1e8, slopes, 0.0)  # a step out of range
        square = slopes @ slopes.transpose(0, 2, 1)
        size = np.einsum("kpp->kp", square)
        damped = square + identity * (damping[:, None] * size + 1e-12 * size.max(-1, keepdims=True) + 1e-300)[:, None]
        moved = theta - np.linalg.solve(damped, slopes @ off[:, :, None])[:, :, 0]
        trial = residuals(moved)
        fresh = (trial**2).sum(-1)
        better = fresh < cost
        gain = np.where(better, 1 - fresh / np.maximum(cost, 1e-300), 0.0)
        theta, off = np.where(better[:, None], moved, theta), np.where(better[:, None], trial, off)
        cost, damping = np.where(better, fresh, cost), np.where(better, damping / 10, damping * 5)
        best = int(cost.argmin())
        # a fit that will do converges quadratically; one that will not is only to be named as a neighbour
        if cost[best] < 1e-26 or (gain[best] < 1e-2 and damping[best] > 1e3) or (step > 12 and gain.max() < 1e-2):
            break
        if step == 4:  # the best two go on
            keep = np.argsort(cost)[:2]
            theta, off, cost, damping = theta[keep], off[keep], cost[keep], damping[keep]
    return np.asarray(theta[cost.argmin()])


@functools.lru_cache(maxsize=256)
def _starts(activation: Any, free: tuple[str, ...]) -> np.ndarray:
    """(S, P): the defaults first, then every combination of a few sizes, as far as the conditions allow."""
    each = _STARTS.get(len(free), 4)
    sizes = np.geomspace(0.02, 30.0, each // 2)
    sizes = np.concatenate([sizes, -sizes])
    mesh = np.meshgrid(*[sizes] * len(free), indexing="ij")
    defaults = np.array([[activation.defaults[n] for n in free]])
    starts = np.concatenate([defaults, np.stack([m.ravel() for m in mesh], axis=-1)])
    given = {n: starts[:, i] for i, n in enumerate(free)}
    return starts[np.broadcast_to(_allowed(activation, activation.defaults | given), len(starts))]


def _told(
    activation: Any, found: dict[str, float], points: tuple[np.ndarray, ...], values: np.ndarray, limit: float
) -> bool:
    """Whether the probes tell each parameter: moved by 15 % either way it no longer fits, nor is it at an open end."""
    fitted = activation.defaults | found
    if not _allowed(activation, fitted):
        return False
    if _distance(activation.value(*points, **fitted), values)[0] > limit:
        return True  # a neighbour only
    for name, value in found.items():
        for step in (-0.15, 0.15):
            moved = fitted | {name: value + step * max(abs(value), 1e-3)}
            if not _allowed(activation, moved):
                continue
            if _distance(activation.value(*points, **moved), values)[0] <= limit:
                return False
    return True


def _jump(
    activation: Any, x: np.ndarray, values: np.ndarray, dtype: torch.dtype, function: Callable[..., torch.Tensor] | None
) -> dict[str, float] | None:
    """The one parameter of an activation that jumps where |x| is the parameter: between two probes, then bisected."""
    (name,) = activation.parameters
    ops = table("numpy")
    limit = tolerance(dtype)

    def distances(at: np.ndarray, x: np.ndarray, values: np.ndarray) -> np.ndarray:
        with np.errstate(all="ignore"):
            off = np.abs(activation.on(ops, x, **{name: at[:, None]}) - values) / np.maximum(1.0, np.abs(values))
        return np.where(np.isfinite(off), off, np.inf).max(-1)

    edges = np.unique(np.concatenate([x, np.abs(x)]))
    edges = edges[np.diff(edges, prepend=-np.inf) > 1e-9]  # a probe and its mirror image may differ by rounding
    found = False
    while True:
        between = (edges[:-1] + edges[1:]) / 2
        off = distances(between, x, values)
        best = int(off.argmin())
        low, high = float(edges[best]), float(edges[best + 1])
        fits = int((off <= limit).sum())
        if fits > 1 or (found and not fits):  # no probe sees the jump, or it is another one
            return None
        found = fits == 1
        if function is None or not found or high - low <= 1e-10 * max(1.0, abs(high)):
            break
        inside = torch.linspace(low, high, 18, dtype=torch.float64)[1:-1].to(dtype).double().numpy()
        inside = np.unique(inside[(low < inside) & (inside < high)])
        if not len(inside):
            break
        x = np.concatenate([inside, -inside])
        values, _ = _evaluate(function, (x,), dtype)
        edges = np.concatenate([[low], inside, [high]])
    return {name: _within(low, high)}


def _within(low: float, high: float) -> float:
    """The shortest decimal from `low` to `high`."""
    middle = (low + high) / 2
    for digits in range(1, 17):
        short = float(f"{middle:.{digits}g}")
        if low <= short <= high:
            return short
    return middle


def _rounded(value: float, grain: float) -> float:
    """The shortest decimal within the fit's own uncertainty: 0.1 rather than 0.10000000149."""
    if abs(value) <= grain * 1e-3:
        return 0.0
    for digits in range(1, 13):
        short = float(f"{value:.{digits}g}")
        if abs(short - value) <= grain * max(abs(value), 1e-3):
            return short
    return value


def _normalizer(
    known: Sequence[Any], points: tuple[np.ndarray, ...], shuffle: np.ndarray, values: np.ndarray, dtype: torch.dtype
) -> Match:
    """Not elementwise: a normalizer over the last dimension, or nothing that the catalog describes."""
    note = "an output depends on more than its own input"
    if len(points) == 2:
        return Match(None, note=note)
    rows = points[0][shuffle].reshape(values.shape)
    for activation in known:
        if activation.kind != "normalizer" or activation.stochastic or activation.resizes or len(activation.inputs) > 1:
            continue
        for found in (activation.defaults, _fitted_normalizer(activation, rows, values, dtype)):
            distance, where = _distance(activation.value(rows, **found).ravel(), values.ravel())
            if distance <= tolerance(dtype):
                return Match(activation.name, dict(found), distance, float(rows.ravel()[where]), activation.name)
    return Match(None, note=note)


def _fitted_normalizer(activation: Any, rows: np.ndarray, values: np.ndarray, dtype: torch.dtype) -> dict[str, float]:
    """The one parameter with the least squared difference, if it has one that is a positive scale."""
    parameters = list(activation.parameters.values())
    if len(parameters) != 1 or parameters[0].low != 0.0 or not np.isfinite(values).all():
        return dict(activation.defaults)
    from scipy.optimize import minimize_scalar

    (parameter,) = parameters

    def at(log: Any) -> Any:
        return activation.on(table("numpy"), rows, **{parameter.name: np.exp(log)})

    logs = np.linspace(-6.0, 6.0, 49)
    far = np.abs(at(logs[:, None, None]) - values) / np.maximum(1.0, np.abs(values))
    best = int(far.max((1, 2)).argmin())
    if far[best].max() > 0.9:
        return dict(activation.defaults)
    nearby = (logs[best] - 0.3, logs[best] + 0.3)
    found = minimize_scalar(lambda log: ((at(log) - values) ** 2).sum(), bounds=nearby, options={"xatol": 1e-12})
    grain = 1e-7 if dtype == torch.float64 else 64 * torch.finfo(dtype).eps  # a minimum is flat
    return {parameter.name: _rounded(math.exp(found.x), grain)}
