"""The parameters with which an activation comes closest to values: found from a coarse grid, then by least squares.

Of an activation's parameters, those that its value is a polynomial of the first degree in are solved for; those that
it bends in are tried at a grid of starting points; one that only says where it jumps lies between two probes.
"""

from __future__ import annotations

import functools
import operator
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np

from ...backends import table
from ...expression.graph import walk
from .sampling import gated_probes, probes

_HUGE = 1e6
# A grid's values of one parameter, by how many it has to be taken with
_SIZES = {1: np.geomspace(0.02, 30.0, 32), 2: np.geomspace(0.04, 30.0, 10), 3: np.geomspace(0.12, 4.0, 5)}
_FREQUENCIES = np.arange(0.5, 100.0, 0.5)
_EVERY = 3  # of the probes, a grid takes one in so many
# The largest root-mean-square relative difference at a grid's best point from which least squares can be expected to
# arrive. Over random parameters of the whole catalog the right one's is up to 0.36, of those with a sine up to 0.5.
WITHIN_REACH, WITHIN_REACH_PERIODIC = 0.45, 0.65


@dataclass(frozen=True, eq=False)
class Data:
    """Values of a function at points (one array per input), and what counts there: differences in units of `scale`."""

    points: tuple[np.ndarray, ...]
    values: np.ndarray
    scale: np.ndarray

    @functools.cached_property
    def finite(self) -> np.ndarray:
        return np.isfinite(self.values)


@dataclass(frozen=True)
class Fit:
    """Parameters, and their standard error per unit of `scale`; reach: the difference at the grid's best point."""

    parameters: dict[str, float]
    errors: dict[str, float]
    reach: float = 0.0


def allowed(activation: Any, parameters: Mapping[str, Any]) -> Any:
    """Whether the conditions hold: a bool, or one for each where a parameter has several values."""
    return functools.reduce(operator.and_, (c.holds(parameters) for c in activation.conditions), np.True_)


def value(activation: Any, points: tuple[np.ndarray, ...], parameters: Mapping[str, Any]) -> np.ndarray:
    """The activation in float64; parameters may be arrays that broadcast with the points."""
    with np.errstate(all="ignore"):
        return np.asarray(activation.on(table("numpy"), *points, **parameters))


@dataclass(frozen=True)
class Roles:
    """How an activation's value depends on its parameters; one that it does not depend on is in none of the three."""

    linear: tuple[str, ...]
    bent: tuple[str, ...]
    jumps: tuple[str, ...]

    @property
    def smooth(self) -> tuple[str, ...]:
        return (*self.bent, *self.linear)


@functools.lru_cache(maxsize=512)
def roles(activation: Any) -> Roles:
    """Told by moving parameters: a little, and a lot."""
    points = (probes(),) if activation.kind == "elementwise" else gated_probes()
    names = [n for n, p in activation.parameters.items() if np.isfinite(p.default)]
    random = np.random.default_rng(0)
    draws = []
    for _ in range(200):
        # f may be flat in a parameter just at the defaults (a slope of 1, an exponent of 0)
        factors = dict(zip(names, random.uniform(-1.0, 1.0, len(names)), strict=True))
        moved = {n: activation.defaults[n] * np.exp(f) + 0.3 * f * (activation.defaults[n] == 0.0)
                 for n, f in factors.items()}  # fmt: skip
        if allowed(activation, activation.defaults | moved):
            draws.append(activation.defaults | moved)
        if len(draws) == 6:
            break

    def changed(draw: dict[str, float], moves: dict[str, float]) -> np.ndarray:
        got = value(activation, points, draw | {n: draw[n] + by for n, by in moves.items()})
        return np.where(np.isfinite(got), got, 0.0)

    smooth, jumps = [], []
    for name in names:
        little = [1e-5 * (abs(d[name]) or 1.0) for d in draws]
        slopes = [np.abs(changed(d, {name: h}) - changed(d, {name: -h})) / (2 * h) * abs(d[name])
                  for d, h in zip(draws, little, strict=True)]  # fmt: skip
        if any((s > 1e-5).sum() > 2 for s in slopes):
            smooth.append(name)
            continue
        far = [0.5 * abs(d[name]) for d in draws]
        if any(
            np.abs(changed(d, {name: h}) - changed(d, {name: -h})).max() > 1e-5 for d, h in zip(draws, far, strict=True)
        ):
            jumps.append(name)

    def straight(first: str, second: str) -> bool:
        for d in draws:
            a, b = 0.37 * (abs(d[first]) + 0.1), 0.29 * (abs(d[second]) + 0.1)
            corners = [changed(d, {first: a} | {second: b} if first != second else {first: a + b}),
                       changed(d, {}), changed(d, {first: a}), changed(d, {second: b})]  # fmt: skip
            bend = corners[0] + corners[1] - corners[2] - corners[3]
            if np.any(np.abs(bend) > 1e-9 * np.maximum(1.0, np.abs(corners).max(0))):
                return False
        return True

    linear: list[str] = []
    for name in smooth:
        if all(straight(name, other) for other in (name, *linear)):
            linear.append(name)
    return Roles(tuple(linear), tuple(n for n in smooth if n not in linear), tuple(jumps))


@dataclass(frozen=True, eq=False)
class _Grid:
    """Parameters (S, P): bent, then jumps. Values (S, 1 + L, N): with the linear ones 0, and what 1 of each adds."""

    names: tuple[str, ...]
    parameters: np.ndarray
    values: np.ndarray


@functools.lru_cache(maxsize=1024)
def _grid(activation: Any, key: bytes, inputs: int) -> _Grid:
    points = tuple(np.frombuffer(key, dtype=np.float64).reshape(inputs, -1))
    own = roles(activation)
    names = (*own.bent, *own.jumps)
    axes = []
    for name in names:
        if name in own.jumps:
            edges = np.unique(np.concatenate([points[0], np.abs(points[0])]))
            axes.append((edges[:-1] + edges[1:]) / 2)
            continue
        sizes = _SIZES.get(len(names), _SIZES[3])
        sizes = np.concatenate([sizes, -sizes])
        if len(names) == 1 and _periodic(activation):
            sizes = np.concatenate([sizes, _FREQUENCIES])
        axes.append(sizes)
    mesh = np.meshgrid(*axes, indexing="ij")
    grid = np.stack([m.ravel() for m in mesh], axis=-1) if names else np.zeros((1, 0))
    if names:
        grid = np.concatenate([[[activation.defaults[n] for n in names]], grid])
    grid = grid[np.broadcast_to(
        allowed(activation, activation.defaults | {n: grid[:, i] for i, n in enumerate(names)}), len(grid)
    )]  # fmt: skip
    given: dict[str, Any] = activation.defaults | {n: grid[:, i, None] for i, n in enumerate(names)}
    given |= dict.fromkeys(own.linear, 0.0)
    shape = (len(grid), len(points[0]))
    base = np.broadcast_to(value(activation, points, given), shape)
    terms = [np.broadcast_to(value(activation, points, given | {n: 1.0}), shape) - base for n in own.linear]
    return _Grid(names, grid, np.stack([base, *terms], axis=1))


@functools.lru_cache(maxsize=512)
def _periodic(activation: Any) -> bool:
    return any(node.op in ("sin", "cos") for node in walk(activation.expression))


def starts(activation: Any, data: Data, count: int) -> tuple[np.ndarray, float]:
    """(count, P) parameters, those that `roles` names `smooth` and then `jumps`: the best of a grid; and how good."""
    own = roles(activation)
    every = 1 if own.jumps else _EVERY
    chosen = data.finite[::every]
    grid = _grid(activation, np.stack([p[::every] for p in data.points]).tobytes(), len(data.points))
    scale = data.scale[::every][chosen]
    with np.errstate(all="ignore"):
        values = grid.values[:, :, chosen] / scale
    values = np.where(np.abs(values) < _HUGE, values, _HUGE)
    wanted = data.values[::every][chosen] / scale
    off = wanted - values[:, 0]
    linear = np.zeros((len(values), 0))
    if own.linear:
        terms = values[:, 1:]
        square = terms @ terms.transpose(0, 2, 1)
        size = np.einsum("spp->sp", square)
        square = square + np.eye(len(own.linear)) * (1e-10 * size.max(-1, keepdims=True) + 1e-30)[:, None]
        linear = np.linalg.solve(square, (terms @ off[:, :, None]))[:, :, 0]
        off = off - np.einsum("sp,spn->sn", linear, terms)
    cost = np.minimum(off**2, 1.0).mean(-1)
    bent = len(own.bent)
    found = np.concatenate([grid.parameters[:, :bent], linear, grid.parameters[:, bent:]], axis=1)
    names = (*own.smooth, *own.jumps)
    within = allowed(activation, activation.defaults | {n: found[:, i] for i, n in enumerate(names)})
    within = np.broadcast_to(within, len(found))
    ours = np.array([activation.defaults[n] for n in own.linear])
    found[:, bent : bent + len(ours)] = np.where(within[:, None], found[:, bent : bent + len(ours)], ours)
    cost = np.where(within, cost, 1.0)
    best = np.argsort(cost, kind="stable")[:count]
    return found[best], float(np.sqrt(cost[best[0]]))


def least_squares(
    activation: Any, names: tuple[str, ...], theta: np.ndarray, data: Data, others: Mapping[str, float]
) -> tuple[np.ndarray, np.ndarray]:
    """The parameters `names` with the least sum of squared differences, and their standard errors per unit of scale.

    theta: (K, P) where to begin. Levenberg–Marquardt; the starting points descend together, in one evaluation a step:
    scipy's `least_squares` takes one at a time, 1 ms a step, which over a catalog is seconds.
    """
    windows = [np.abs(data.points[0]) <= w for w in ((1.0, 4.0, np.inf) if _periodic(activation) else (np.inf,))]
    for window in windows:
        kept = window & data.finite
        points = tuple(p[kept] for p in data.points)
        theta, slopes = _descend(activation, names, theta, points, data.values[kept], data.scale[kept], others)
    square = slopes @ slopes.T
    try:
        errors = np.sqrt(np.abs(np.diag(np.linalg.pinv(square))))
    except np.linalg.LinAlgError:
        errors = np.full(len(names), np.inf)
    return theta[0], errors


def _descend(activation, names, theta, points, values, scale, others):
    def residuals(theta: np.ndarray) -> np.ndarray:
        """(..., P) parameters → (..., N) differences; huge where a parameter is out of range."""
        given = {**activation.defaults, **others} | {n: theta[..., i, None] for i, n in enumerate(names)}
        with np.errstate(all="ignore"):
            off = (value(activation, points, given) - values) / scale
        off = np.where(np.isfinite(off) & (np.abs(off) < _HUGE), off, _HUGE)
        return np.where(allowed(activation, given), off, _HUGE)

    off = residuals(theta)
    cost = (off**2).sum(-1)
    damping = np.full(len(theta), 1e-3)
    identity = np.eye(len(names))

    def tangents(theta: np.ndarray, off: np.ndarray) -> np.ndarray:
        """(K, P, N)."""
        h = 1e-7 * np.maximum(np.abs(theta), 1e-3)
        there = residuals(theta[:, None, :] + h[:, :, None] * identity)
        slopes = (there - off[:, None, :]) / h[:, :, None]
        return np.where(np.abs(slopes) < 1e8, slopes, 0.0)  # a step out of range

    for step in range(60):
        slopes = tangents(theta, off)
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
        if step in (4, 8):  # the best go on
            keep = np.argsort(cost, kind="stable")[: 3 if step == 4 else 2]
            theta, off, cost, damping = theta[keep], off[keep], cost[keep], damping[keep]
    order = np.argsort(cost, kind="stable")
    theta, off = theta[order], off[order]
    return theta, tangents(theta[:1], off[:1])[0]


def fitted(activation: Any, data: Data, coarse: Data | None = None) -> Fit | None:
    """The closest parameters; None where it has none to fit. A jump lies in the middle between two probes.

    coarse: what the grid is compared with, where it is to be compared on another scale than the fit.
    """
    own = roles(activation)
    names = (*own.smooth, *own.jumps)
    if not names:
        return None
    begin, reach = starts(activation, coarse or data, 12 if len(own.bent) > 2 else 4)
    others = {n: float(begin[0, len(own.smooth) + i]) for i, n in enumerate(own.jumps)}
    if not own.smooth:
        return Fit(activation.defaults | others, {}, reach)
    begin = begin[:, : len(own.smooth)]
    if own.jumps:
        begin = begin[:1]
    if not reach <= (WITHIN_REACH_PERIODIC if _periodic(activation) else WITHIN_REACH):
        return Fit(activation.defaults | others | dict(zip(own.smooth, begin[0].tolist(), strict=True)), {}, reach)
    theta, errors = least_squares(activation, own.smooth, begin, data, others)
    found = dict(zip(own.smooth, theta.tolist(), strict=True))
    return Fit(activation.defaults | others | found, dict(zip(own.smooth, errors.tolist(), strict=True)), reach)
