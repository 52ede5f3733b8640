"""Finding entries that are the same function: one at its defaults, the other with parameters fitted to it.

A definition declares such pairs in `equivalent_to`; one that nobody declared is an entry defined twice. Values are
compared at the probes of `matching`, to within rounding.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple

import numpy as np

from ..catalog import Activation
from .matching.fitting import Data, allowed, fitted, roles, value
from .matching.sampling import gated_probes, probes

SAME = 1e-9
LARGE = 1e4  # a parameter beyond stands for a limit, not for a value


class Duplicate(NamedTuple):
    """`activation` at its defaults is `other` with `parameters` (what is not named at its default)."""

    activation: Activation
    other: Activation
    parameters: dict[str, float]


def duplicates(activations: Sequence[Activation]) -> list[Duplicate]:
    """Every pair of them that is the same function; where both are so at their defaults, both ways."""
    found = []
    for kind in ("elementwise", "gated"):
        points = (probes(),) if kind == "elementwise" else gated_probes()
        known = [a for a in activations if a.kind == kind and not a.stochastic and a.surrogate is None]
        for activation in known:
            values = activation.value(*points)
            for other in known:
                if other is not activation:
                    parameters = _parameters(other, points, values)
                    if parameters is not None:
                        found.append(Duplicate(activation, other, parameters))
    return found


def undeclared(activations: Sequence[Activation]) -> list[Duplicate]:
    """Those duplicates that no `equivalent_to` declares, nor several of them together."""
    groups: list[list[tuple[str, dict[str, float]]]] = []
    for activation in activations:
        if activation.equivalent_to:
            pairs = [(name, dict(given)) for name, given in activation.equivalent_to.items()]
            mine = [(activation.name, dict[str, float]()), *pairs]
            joined = [g for g in groups if any(_among(node, g) for node in mine)]
            groups = [g for g in groups if g not in joined]
            groups.append([*mine, *(node for g in joined for node in g)])
    return [
        d
        for d in duplicates(activations)
        if not any(_among((d.activation.name, {}), g) and _among((d.other.name, d.parameters), g) for g in groups)
    ]


def _among(node: tuple[str, dict[str, float]], group: list[tuple[str, dict[str, float]]]) -> bool:
    name, given = node
    return any(
        n == name and p.keys() == given.keys() and all(abs(p[k] - given[k]) <= 1e-6 for k in p) for n, p in group
    )


def same(activation: Activation, other: Activation, parameters: dict[str, float]) -> bool:
    """Whether `activation` at its defaults is `other` with these parameters."""
    points = (probes(),) if activation.kind == "elementwise" else gated_probes()
    return _equal(other, points, other.defaults | parameters, activation.value(*points))


def _equal(activation: Activation, points: tuple[np.ndarray, ...], given: dict[str, float], values: np.ndarray) -> bool:
    return np.allclose(value(activation, points, given), values, rtol=SAME, atol=SAME, equal_nan=True)


def _parameters(activation: Activation, points: tuple[np.ndarray, ...], values: np.ndarray) -> dict[str, float] | None:
    if _equal(activation, points, activation.defaults, values):
        return {}
    if not activation.parameters or not np.isfinite(values).all():
        return None
    if roles(activation).jumps:
        return None
    fit = fitted(activation, Data(points, values, np.maximum(1.0, np.abs(values))))
    if fit is None or not fit.errors or len(fit.errors) > 2:
        return None
    given = activation.defaults | {name: _short(fit.parameters[name]) for name in fit.errors}
    if max(map(abs, given.values())) > LARGE or not allowed(activation, given):
        return None
    if not _equal(activation, points, given, values):
        return None
    for name in fit.errors:
        for factor in (0.85, 1.15):  # one that may be moved stands for a limit, beyond the probes or at infinity
            moved = given | {name: given[name] * factor}
            if given[name] and allowed(activation, moved) and _equal(activation, points, moved, values):
                return None
    return {name: number for name, number in given.items() if number != activation.defaults[name]}


def _short(number: float) -> float:
    """Without what least squares leaves: 0.1 for 0.1000000000002."""
    return round(number, 9) + 0.0
