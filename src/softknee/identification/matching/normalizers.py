"""Telling a function of a whole row: a normalizer over the last dimension, or nothing that the catalog describes.

It is looked at over rows of two lengths: softmax with a temperature and one whose scale grows with the row's length are
the same over one.
"""

from __future__ import annotations

import itertools
import math
from collections.abc import Iterator, Sequence
from typing import Any

import numpy as np
import torch

from ...backends import table
from ...errors import InputError

NOTE = "an output depends on more than its own input"


class _Rows:
    """Values (R, C) of a function over rows, and how far off a value may be: room (R, C)."""

    def __init__(self, rows: np.ndarray, values: np.ndarray, precision: torch.dtype) -> None:
        eps = torch.finfo(precision).eps
        tiny = torch.finfo(precision).smallest_normal * eps if precision.itemsize < 4 else 0.0
        # Half precision is read by the bit, since a row holds few values that are not 0 or 1
        self.room = 3e-7 * np.maximum(1.0, np.abs(values)) + 4 * eps * np.abs(values) + tiny
        self.rows, self.values = rows, values

    def off(self, activation: Any, parameters: dict[str, Any]) -> np.ndarray | None:
        """|difference| where it is rounding everywhere, else None."""
        try:
            with np.errstate(all="ignore"):
                off = np.abs(activation.value(self.rows, **parameters) - self.values)
        except InputError:  # rows of this length cannot be put into such groups
            return None
        return off if np.isfinite(off).all() and (off <= self.room).all() else None


def told(
    known: Sequence[Any], rows: np.ndarray, values: np.ndarray, long: tuple[np.ndarray, np.ndarray], precision: Any
) -> dict[str, Any]:
    """What `Match` says of values of `rows` (R, C) and of one `long` row (N,), with its values."""
    several = _Rows(rows, values, precision)
    one = _Rows(long[0][None], long[1][None], precision)
    candidates = [
        a
        for a in known
        if a.kind == "normalizer" and not a.stochastic and not a.resizes and len(a.inputs) == 1
    ]  # fmt: skip
    defaults = ((activation, dict(activation.defaults)) for activation in candidates)
    counted = ((a, found) for a in candidates for found in _counted(a, rows.shape[-1]))
    fitted = ((a, found) for a in candidates for found in _fitted(a, several))
    for activation, found in itertools.chain(defaults, counted, fitted):
        off = several.off(activation, found)
        if off is not None and one.off(activation, found) is not None:
            off = (off / np.maximum(1.0, np.abs(values))).ravel()
            where = int(np.argmax(off))
            return {
                "activation": activation.name, "parameters": found, "distance": float(off[where]),
                "at": float(rows.ravel()[where]), "nearest": activation.name,
            }  # fmt: skip
    return {"activation": None, "note": NOTE}


def _counted(activation: Any, most: int) -> Iterator[dict[str, Any]]:
    """Every setting of its counts, up to the row's length, and switches, where it has nothing else."""
    choices: dict[str, list[Any]] = {}
    for name, parameter in activation.parameters.items():
        if isinstance(parameter.default, bool):
            choices[name] = [False, True]
        elif isinstance(parameter.default, int):
            choices[name] = list(range(1, most + 1))
        else:
            return
    for values in itertools.product(*choices.values()) if choices else ():
        yield dict(zip(choices, values, strict=True))


def _fitted(activation: Any, seen: _Rows) -> Iterator[dict[str, float]]:
    """The numbers with the least squared difference: short, and exact."""
    numbers = [p for p in activation.parameters.values() if not isinstance(p.default, int)]
    if not numbers or len(numbers) < len(activation.parameters) or not np.isfinite(seen.values).all():
        return
    exact = _one(activation, numbers[0], seen) if len(numbers) == 1 else _several(activation, seen)
    if not all(p.low <= exact[p.name] <= p.high and math.isfinite(exact[p.name]) for p in numbers):
        return
    for digits in range(1, 7):
        short = {name: float(f"{v:.{digits}g}") for name, v in exact.items()}
        if all(abs(short[name] - v) <= 1e-6 * max(abs(v), 1e-3) for name, v in exact.items()):
            yield short
    yield exact


def _one(activation: Any, parameter: Any, seen: _Rows) -> dict[str, float]:
    from scipy.optimize import minimize_scalar

    value = np.exp if parameter.low == 0.0 else np.asarray

    def far(at: Any) -> Any:
        with np.errstate(all="ignore"):
            off = (activation.on(table("numpy"), seen.rows, **{parameter.name: value(at)}) - seen.values) / seen.room
        return np.minimum(np.nan_to_num(np.abs(off), nan=1e9), 1e9)

    grid = np.linspace(-6.0, 6.0, 193)
    best = grid[int((far(grid[:, None, None]) ** 2).sum((1, 2)).argmin())]
    found = minimize_scalar(lambda at: (far(at) ** 2).sum(), bounds=(best - 0.1, best + 0.1), options={"xatol": 1e-12})
    return {parameter.name: float(value(found.x))}


def _several(activation: Any, seen: _Rows) -> dict[str, float]:
    """From the defaults on; what the values hardly depend on (an epsilon) stays there."""
    from scipy.optimize import least_squares

    names = list(activation.defaults)
    begin = np.array([activation.defaults[name] for name in names], dtype=float)

    def off(theta: np.ndarray) -> np.ndarray:
        with np.errstate(all="ignore"):
            value = activation.on(table("numpy"), seen.rows, **dict(zip(names, theta, strict=True)))
        return np.nan_to_num((value - seen.values) / np.maximum(1.0, np.abs(seen.values)), nan=1e6).ravel()

    found = least_squares(off, begin, x_scale=np.maximum(np.abs(begin), 1e-3), max_nfev=200, xtol=1e-14, ftol=1e-14)
    tells = np.abs(found.jac).max(0) > 1e-2 * np.abs(found.jac).max()
    return {n: float(v if t else b) for n, v, b, t in zip(names, found.x, begin, tells, strict=True)}
