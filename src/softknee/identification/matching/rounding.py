"""What rounding does to values, and how likely it makes a candidate: grids of half precision and of int8 codes.

A value that was computed widely and rounded once lies within half a step of the grid from the truth, at every probe; a
wrong candidate does not. A model's own code rounds every step, and 1 + tanh(…) loses what cancels: how much is seen by
running the candidate's own formula in that precision, and is then taken as the width of a normal error, up to one
factor for all probes. So it is the shape of the difference that tells, not its size.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch

from ...backends import table
from .fitting import allowed, value

# Error of arithmetic in float32 before it is rounded, and of printed constants, relative to max(1, |x|, |value|)
INNER = 3e-7
_WINDOW = 9
LOOSEST = 2.5  # times the error that the candidate's own formula makes
_LEAST_TERM = -8.0  # a single probe decides no more than this


@dataclass(frozen=True)
class Grid:
    """The numbers of a floating-point format: significant bits, exponent of the least normal number, the largest."""

    dtype: torch.dtype
    bits: int
    least: int
    largest: float

    def half_step(self, values: np.ndarray) -> np.ndarray:
        """Half the distance between neighbours around each value."""
        _, exponent = np.frexp(np.where(np.isfinite(values), values, 1.0))
        return np.ldexp(0.5, np.maximum(exponent - 1, self.least) - self.bits + 1)


@dataclass(frozen=True)
class Codes:
    """Multiples of a step, at most 256 of them: what int8 holds. inputs: the step between inputs, likewise."""

    step: float
    inputs: float
    dtype = torch.int8
    largest = math.inf

    def half_step(self, values: np.ndarray) -> np.ndarray:
        return np.full(np.shape(values), self.step / 2)


GRIDS = {
    torch.float16: Grid(torch.float16, 11, -14, 65504.0),
    torch.bfloat16: Grid(torch.bfloat16, 8, -126, float(torch.finfo(torch.bfloat16).max)),
}


def carried(points: tuple[np.ndarray, ...], values: np.ndarray, least: int = 32) -> Grid | None:
    """The half-precision format that all of these wider values are numbers of, as through a table; None if there is
    none, or if fewer than `least` of them are more than what doubling and halving makes of the inputs."""
    finite = np.isfinite(values)
    mantissas = np.abs(np.frexp(values[finite])[0])
    own = np.concatenate([np.abs(np.frexp(p)[0]) for p in points])
    if len(np.setdiff1d(mantissas, own)) < least:
        return None
    for grid in GRIDS.values():
        if np.array_equal(torch.as_tensor(values).to(grid.dtype).double().numpy(), values, equal_nan=True):
            return grid
    return None


def coded(x: np.ndarray, values: np.ndarray) -> tuple[Codes, np.ndarray] | None:
    """The codes that values stand on, and at which of the inputs `x` nothing is cut off; None if they are no codes."""
    levels = np.unique(values)
    if not np.isfinite(levels).all() or not 8 <= len(levels) <= min(256, 0.8 * len(x)):
        return None
    least = float(np.diff(levels).min())
    for part in (1, 2, 3):
        count = (levels - levels[0]) / (least / part)
        step = float((levels[-1] - levels[0]) / round(count[-1]))
        count = (levels - levels[0]) / step
        if count[-1] <= 255.5 and np.abs(count - np.round(count)).max() <= 0.02:
            order = np.argsort(x)
            changes = np.flatnonzero(np.diff(values[order]))
            low, high = x[order][changes[0]], x[order][changes[-1] + 1]
            bound = max(abs(low), abs(high))  # beyond, inputs are cut off, or f is flat
            return Codes(step, 2 * bound / 255), np.abs(x) < 0.98 * bound
    return None


@dataclass(frozen=True, eq=False)
class Rounded:
    """Values on a grid: room is how far the truth may be from each, half a step and what was lost before."""

    points: tuple[np.ndarray, ...]
    values: np.ndarray
    grid: Grid | Codes

    def __post_init__(self) -> None:
        largest = np.max([np.abs(p) for p in self.points], axis=0)
        finite = np.isfinite(self.values)
        size = np.maximum(np.maximum(1.0, largest), np.where(finite, np.abs(self.values), 0.0))
        room = self.grid.half_step(self.values) * (1 + 1e-6) + INNER * size
        object.__setattr__(self, "room", room)
        object.__setattr__(self, "finite", finite)

    room: np.ndarray = None  # type: ignore[assignment]
    finite: np.ndarray = None  # type: ignore[assignment]

    def off(self, candidate: np.ndarray) -> np.ndarray:
        """|candidate − value| in units of room; infinite where one is finite and the other is not."""
        with np.errstate(all="ignore"):
            off = np.abs(candidate - self.values) / self.room
            beyond = np.sign(candidate) * np.where(np.abs(candidate) > self.grid.largest, np.inf, 0.0) == self.values
        same = (np.isnan(candidate) & np.isnan(self.values)) | (~self.finite & beyond)
        return np.where(same, 0.0, np.where(self.finite & np.isfinite(candidate), off, np.inf))

    def between(self, one: np.ndarray, other: np.ndarray) -> float:
        """The largest |one − other| of two candidates in units of room; 0 where they are equal to 1e-5."""
        with np.errstate(all="ignore"):
            off = np.abs(one - other)
            off = np.where(off <= 1e-5 * np.maximum(1.0, np.abs(one)), 0.0, off / self.room)
        return float(np.where(self.finite & (one != other), off, 0.0).max())

    def centred(self, activation: Any, given: tuple[np.ndarray, ...], names: tuple[str, ...],
                parameters: dict[str, float]) -> dict[str, float]:  # fmt: skip
        """The parameters at which the largest difference, in units of room, is least: a linear programme, three times.

        Of N values rounded once this knows a parameter to within 1/N of what one of them tells; least squares 1/√N.
        """
        from scipy.optimize import linprog

        kept = self.finite & (np.abs(self.values) < self.grid.largest)
        points, wanted, room = tuple(p[kept] for p in given), self.values[kept], self.room[kept]
        theta = np.array([parameters[n] for n in names])
        best, least = parameters, float(self.off(value(activation, given, parameters)).max())
        for _ in range(3):
            at = value(activation, points, parameters | dict(zip(names, theta.tolist(), strict=True)))
            slopes = []
            for i, name in enumerate(names):
                h = 1e-6 * max(abs(theta[i]), 1e-3)
                moved = parameters | dict(zip(names, theta.tolist(), strict=True)) | {name: float(theta[i]) + h}
                slopes.append((value(activation, points, moved) - at) / h)
            tangent = np.stack(slopes, axis=-1) / room[:, None]
            right = (wanted - at) / room
            if not (np.isfinite(tangent).all() and np.isfinite(right).all()):
                break
            size = np.abs(tangent).max(0) + 1e-12
            tangent = tangent / size
            ones = np.ones((len(right), 1))
            solved = linprog(
                [0.0] * len(names) + [1.0],
                np.block([[tangent, -ones], [-tangent, -ones]]), np.concatenate([right, -right]),
                bounds=[(None, None)] * len(names) + [(0, None)],
            )  # fmt: skip
            if solved.status != 0:
                break
            theta = theta + solved.x[:-1] / size
            moved = parameters | dict(zip(names, theta.tolist(), strict=True))
            if not allowed(activation, moved):
                break
            worst = float(self.off(value(activation, given, moved)).max())
            if worst < least:
                best, least = moved, worst
            else:
                break
        return best

    def steps(
        self, activation: Any, given: tuple[np.ndarray, ...], parameters: Mapping[str, float], exact: np.ndarray
    ) -> np.ndarray:
        """The typical error of the formula with each step rounded, around each point."""
        if isinstance(self.grid, Codes):
            nearby = value(activation, tuple(p + 1e-4 for p in given), parameters)
            with np.errstate(all="ignore"):
                slope = np.where(np.isfinite(nearby), (nearby - exact) / 1e-4, 0.0)
            return np.sqrt((self.grid.step**2 + (slope * self.grid.inputs) ** 2) / 12)
        tensors = [torch.as_tensor(p).to(self.grid.dtype) for p in given]
        with torch.no_grad(), np.errstate(all="ignore"):
            result = activation.formula(*tensors, table("torch"), **parameters)
            error = np.abs(torch.as_tensor(result).double().expand(exact.shape).numpy() - exact)
        error = np.where(np.isfinite(error), error, 0.0) ** 2
        if len(given) == 1:
            order = np.argsort(given[0], kind="stable")
            smooth = np.convolve(error[order], np.ones(_WINDOW) / _WINDOW, mode="same")
            error = np.empty_like(error)
            error[order] = smooth
        else:
            relative = error / self.room**2
            error = np.maximum(error, np.median(relative) * self.room**2)
        return np.sqrt(error + self.room**2 / 3)

    def cancelling(self) -> np.ndarray:
        """The error of the first input times a sum that cancels, such as 1 + tanh."""
        lost = self.grid.half_step(np.ones_like(self.values)) * np.abs(self.points[0])
        return np.sqrt(lost**2 + self.room**2 / 3)


def likelihood(off: np.ndarray, rounded: Rounded, width: np.ndarray) -> tuple[float, float]:
    """The log likelihood of values on a grid if errors are normal of this `width` times one factor, and that factor:
    above `LOOSEST` it is not this candidate. off: its differences in units of room, all finite."""
    z = off * rounded.room / width
    loose = max(float(np.sqrt(np.mean(np.minimum(z, 8.0) ** 2))), 0.3)
    if np.quantile(z, 0.99) > 4 * LOOSEST:
        return -math.inf, math.inf
    terms = (
        np.log(np.minimum(1.0, 2 * rounded.room / (math.sqrt(2 * math.pi) * loose * width))) - 0.5 * (z / loose) ** 2
    )
    return float(np.maximum(terms, _LEAST_TERM).sum()), loose
