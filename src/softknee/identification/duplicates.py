"""Finding entries that are the same function: one at its defaults, the other with parameters fitted to it.

A definition declares such pairs in `equivalent_to`; one that nobody declared is an entry defined twice. Values are
compared at the probes of `matching`, to within rounding.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple

import numpy as np
import torch

from ..backends import table
from ..catalog import Activation
from .matching import _distance, _fitted, _free, _starts, gated_probes, probes

SAME = 1e-9
# The mean square of relative differences from which a fit is tried: of two that are the same function, the best of a
# coarse grid of parameters leaves a few hundredths.
WORTH_A_FIT = 0.08

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
    return _distance(other.value(*points, **parameters), activation.value(*points))[0] <= SAME


def _parameters(activation: Activation, points: tuple[np.ndarray, ...], values: np.ndarray) -> dict[str, float] | None:
    if _distance(activation.value(*points), values)[0] <= SAME:
        return {}
    free = _free(activation) if activation.parameters and np.isfinite(values).all() else ()
    if not free or len(free) > 2:
        return None
    given = activation.defaults | {name: _starts(activation, free)[:, i, None] for i, name in enumerate(free)}
    few = values[::5]
    with np.errstate(all="ignore"):
        off = activation.on(table("numpy"), *(p[::5] for p in points), **given) - few
        off /= np.maximum(1.0, np.abs(few))
    if not np.nanmin((off**2).mean(-1)) <= WORTH_A_FIT:
        return None
    fitted = _fitted(activation, points, values, torch.float64, None)
    if fitted is None or _distance(activation.value(*points, **fitted), values)[0] > SAME:
        return None
    if max(map(abs, fitted.values())) > LARGE:
        return None
    return {name: value for name, value in fitted.items() if value != activation.defaults[name]}
