"""Telling a function of a whole row: a normalizer over the last dimension, or nothing that the catalog describes."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any

import numpy as np
import torch

from ...backends import table

NOTE = "an output depends on more than its own input"


def told(known: Sequence[Any], rows: np.ndarray, values: np.ndarray, precision: torch.dtype) -> dict[str, Any]:
    """What `Match` says of values of `rows` (R, C)."""
    eps = torch.finfo(precision).eps
    tiny = torch.finfo(precision).smallest_normal * eps if precision.itemsize < 4 else 0.0
    # Half precision is read by the bit, since a row holds few values that are not 0 or 1
    room = 3e-7 * np.maximum(1.0, np.abs(values)) + 4 * eps * np.abs(values) + tiny
    for activation in known:
        if activation.kind != "normalizer" or activation.stochastic or activation.resizes or len(activation.inputs) > 1:
            continue
        for found in (dict(activation.defaults), *_fitted(activation, rows, values, room)):
            with np.errstate(all="ignore"):
                off = np.abs(activation.value(rows, **found) - values)
            if np.isfinite(off).all() and (off <= room).all():
                off = (off / np.maximum(1.0, np.abs(values))).ravel()
                where = int(np.argmax(off))
                return {
                    "activation": activation.name, "parameters": found, "distance": float(off[where]),
                    "at": float(rows.ravel()[where]), "nearest": activation.name,
                }  # fmt: skip
    return {"activation": None, "note": NOTE}


def _fitted(activation: Any, rows: np.ndarray, values: np.ndarray, room: np.ndarray) -> list[dict[str, float]]:
    """The one parameter with the least squared difference, if it has one that is a positive scale: short, and exact."""
    parameters = list(activation.parameters.values())
    if len(parameters) != 1 or parameters[0].low != 0.0 or not np.isfinite(values).all():
        return []
    from scipy.optimize import minimize_scalar

    (parameter,) = parameters

    def far(log: Any) -> Any:
        with np.errstate(all="ignore"):
            off = (activation.on(table("numpy"), rows, **{parameter.name: np.exp(log)}) - values) / room
        return np.minimum(np.abs(off), 1e9)

    logs = np.linspace(-6.0, 6.0, 193)
    best = logs[int((far(logs[:, None, None]) ** 2).sum((1, 2)).argmin())]
    found = minimize_scalar(
        lambda log: (far(log) ** 2).sum(), bounds=(best - 0.1, best + 0.1), options={"xatol": 1e-12}
    )
    exact = math.exp(found.x)
    shorter = (float(f"{exact:.{digits}g}") for digits in range(1, 7))
    return [{parameter.name: v} for v in (*(s for s in shorter if abs(s - exact) <= 1e-6 * exact), exact)]
