"""Telling an unknown function by its behaviour: evaluated at probes, compared with the catalog, parameters fitted.

A candidate is accepted where it agrees at every probe within `tolerance(dtype)`, so constants are tight: 1.773 is not
1.702, and the tanh form of GELU (4.7e-4 away) is not the exact one, while spellings that differ only in rounding or in
the printed digits of a constant (2e-7) are the same. Parameters are fitted by least squares on the catalog's own
derivatives. Where nothing fits, the answer is "unknown" with the nearest neighbour and how far away it is.
The function is evaluated at 512 points at most.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field, replace
from typing import Any

import numpy as np
import torch

from .. import catalog
from ..errors import InputError

_SIDE = 16
_STARTS = (0.01, 0.2, 0.5, 1.0, 1.7, 3.0, 6.0, -1.0)


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


def match(
    function: Callable[..., torch.Tensor],
    *,
    inputs: int = 1,
    dtype: torch.dtype = torch.float64,
    activations: Sequence[Any] | None = None,
) -> Match:
    """Matches `function`, of one tensor (or of two: gated), against `activations` (the whole catalog by default).

    It must accept tensors of any shape; dtype is tried first and float32 where the function refuses it. Raises
    InputError where the function cannot be called like that or does not return one tensor of the input's shape.
    """
    known = catalog.activations() if activations is None else activations
    grid = probes()
    if inputs == 1:
        points: tuple[np.ndarray, ...] = (grid,)
    elif inputs == 2:
        coarse = grid[np.linspace(6, len(grid) - 7, _SIDE).astype(int)]
        pairs = np.meshgrid(coarse, coarse[::-1] * 0.83 + 0.1, indexing="ij")
        points = tuple(p.ravel() for p in pairs)
    else:
        raise InputError(f"inputs must be 1 or 2, got {inputs}")
    values, dtype = _evaluate(function, points, dtype)
    shuffle = np.random.default_rng(0).permutation(len(points[0]))
    square = (_SIDE, _SIDE)
    again, _ = _evaluate(function, tuple(p[shuffle].reshape(square) for p in points), dtype)
    if not np.allclose(again.ravel(), values[shuffle], rtol=16 * torch.finfo(dtype).eps, atol=0, equal_nan=True):
        return _normalizer(known, points, shuffle, again, dtype)
    return match_values(points, values, dtype, known)


def match_values(
    points: tuple[np.ndarray, ...],
    values: np.ndarray,
    dtype: torch.dtype = torch.float64,
    activations: Sequence[Any] | None = None,
) -> Match:
    """As `match`, for a function that has been evaluated: `values` at `points` (one array per input)."""
    known = catalog.activations() if activations is None else activations
    points = tuple(np.asarray(torch.as_tensor(p).to(dtype).double()) for p in points)
    limit = tolerance(dtype)
    kind = "elementwise" if len(points) == 1 else "gated"
    exact = limit <= 1e-6
    nearest: Match | None = None
    accepted: list[tuple[float, Match]] = []
    # Fewer parameters first, fixed before learned, then the order of definition: relu is not leaky_relu(0)
    candidates = sorted(
        (a for a in known if a.kind == kind),
        key=lambda a: (len(a.parameters), sum(p.learnable for p in a.parameters.values())),
    )
    for activation in candidates:
        for order in ("gate_up", "up_gate")[: len(points)]:
            given = points if order == "gate_up" else points[::-1]
            parameters = _fitted(activation, given, values, dtype)
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
        # At this precision several may fit: the closest on average, and the others that are as good within a half
        least, best = min(accepted, key=lambda pair: pair[0])
        rivals = [m.nearest for mean, m in accepted if m.nearest != best.nearest and mean <= 1.5 * least]
        note = f"in {dtype} it cannot be told from {', '.join(map(str, rivals))}" if rivals else ""
        return replace(best, note=note)
    if nearest is None:
        return Match(None, note=f"there is no {kind} activation to compare with")
    return replace(nearest, activation=None)


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
    activation: Any, points: tuple[np.ndarray, ...], values: np.ndarray, dtype: torch.dtype
) -> dict[str, float]:
    """The parameters with the least squared difference; those that the slope does not tell stay at their default."""
    if not activation.parameters:
        return {}
    defaults = dict(activation.defaults)
    if not np.isfinite(values).all():
        return defaults
    if _distance(activation.value(*points, **defaults), values)[0] <= 4 * torch.finfo(dtype).eps:
        return defaults
    free = [
        name for name, p in activation.parameters.items()
        if math.isfinite(p.default)
        and np.any(activation.derivative(*points, wrt=name, **_moved(activation, defaults, name)))
    ]  # fmt: skip
    if not free:
        return defaults
    from scipy.optimize import least_squares

    low = np.array([activation.parameters[n].low for n in free])
    high = np.array([activation.parameters[n].high for n in free])
    scale = np.maximum(1.0, np.abs(values))

    def residual(theta: np.ndarray) -> np.ndarray:
        got = activation.value(*points, **(defaults | dict(zip(free, map(float, theta), strict=True))))
        return np.nan_to_num((got - values) / scale, nan=1e6, posinf=1e6, neginf=-1e6)

    def slopes(theta: np.ndarray) -> np.ndarray:
        given = defaults | dict(zip(free, map(float, theta), strict=True))
        columns = [activation.derivative(*points, wrt=name, **given) / scale for name in free]
        return np.nan_to_num(np.stack(columns, axis=1), nan=0.0, posinf=0.0, neginf=0.0)

    starts = [np.array([defaults[n] for n in free])]
    starts += [np.full(len(free), s) for s in _STARTS]
    inside = [s for s in starts if np.all((low < s) & (s < high))]
    # Only the two best starting points are worth a descent
    inside.sort(key=lambda s: float(np.sum(residual(s) ** 2)))
    best: Any = None
    for start in inside[:2]:
        found = least_squares(
            residual, start, slopes, bounds=(low, high), x_scale="jac", ftol=1e-15, xtol=1e-15, gtol=1e-15, max_nfev=60
        )
        if best is None or found.cost < best.cost:
            best = found
        if best.cost < 1e-20:
            break
    grain = 1e-9 if dtype == torch.float64 else 8 * torch.finfo(dtype).eps
    return defaults | {n: _rounded(float(v), grain) for n, v in zip(free, best.x, strict=True)}


def _moved(activation: Any, defaults: dict[str, float], name: str) -> dict[str, float]:
    # f may be flat in the parameter just at its default (a slope of 1, an exponent of 0)
    p = activation.parameters[name]
    moved = p.default * 1.1 + 0.05
    return defaults | {name: moved} if p.low < moved < p.high else defaults


def _rounded(value: float, grain: float) -> float:
    """The shortest decimal within the fit's own uncertainty: 0.1 rather than 0.10000000149."""
    for digits in range(1, 13):
        short = float(f"{value:.{digits}g}")
        if abs(short - value) <= grain * max(abs(value), 1e-3):
            return short
    return value


def _normalizer(
    known: Sequence[Any], points: tuple[np.ndarray, ...], shuffle: np.ndarray, values: np.ndarray, dtype: torch.dtype
) -> Match:
    """Not elementwise: a normalizer over the last dimension, or nothing that the catalog describes."""
    if len(points) == 1:
        rows = points[0][shuffle].reshape(values.shape)
        for activation in known:
            if activation.kind == "normalizer":
                distance, where = _distance(activation.value(rows).ravel(), values.ravel())
                if distance <= tolerance(dtype):
                    found = dict(activation.defaults)
                    return Match(activation.name, found, distance, float(rows.ravel()[where]), activation.name)
    return Match(None, note="an output depends on more than its own input, or changes from call to call")
