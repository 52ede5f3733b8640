"""Moments of an activation of normal inputs, by Gauss–Legendre quadrature with error control.

The line is cut at breakpoints and stationary points, around 0 by octaves, and into unit steps of z; a panel on which
16 and 32 nodes disagree is halved. Between two stationary points f only rises or falls, so that no peak of it hides
between the nodes. (A rule that runs across a kink is off by up to 1 %.)

The gains follow He et al. 2015, arXiv:1502.01852, section 2.2: weights of variance gain²/fan_in keep a variance.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from typing import Any, NamedTuple

import numpy as np

from .intervals import Array

# Beyond |z| = 39 the normal density is below the smallest float64.
RANGE = 39.0
TOLERANCE = 1e-13
PANELS = 20_000
_COARSE = np.polynomial.legendre.leggauss(16)
_FINE = np.polynomial.legendre.leggauss(32)
_OCTAVES = 2.0 ** np.arange(-12.0, 7.0)


class Moments(NamedTuple):
    """E[f(z)], E[f(z)²], Var f(z) and E[f′(z)²] for z ~ N(0, sigma²)."""

    sigma: float
    mean: float
    second_moment: float
    variance: float
    slope_second_moment: float

    @property
    def gain(self) -> float:
        """sigma/√E[f(z)²]: weights of variance gain²/fan_in keep the second moment through a layer and its activation.

        This and the next two are infinite where the expectation is 0.
        """
        return self.sigma * _inverse_root(self.second_moment)

    @property
    def centred_gain(self) -> float:
        """sigma/√Var f(z)."""
        # a constant has no variance but for the quadrature's rounding
        return self.sigma * _inverse_root(self.variance if self.variance > 1e-24 * self.second_moment else 0.0)

    @property
    def backward_gain(self) -> float:
        """1/√E[f′(z)²]: the same for gradients."""
        return _inverse_root(self.slope_second_moment)


def moments(value: Callable[[Any, int], Array], sigma: float, points: Sequence[float]) -> Moments | None:
    """Moments of `value(x, 0)` and its derivative `value(x, 1)`; None where an integral does not converge.

    points: where f has a breakpoint or turns.
    """

    def functions(x: Array) -> Array:
        f, slope = value(x, 0), value(x, 1)
        return np.stack([f, f * f, slope * slope])

    rule = _rule(functions, sigma, points)
    if rule is None:
        return None
    x, weights = rule
    with np.errstate(all="ignore"):
        f, slope = value(x, 0), value(x, 1)
        mean = _sum(weights, f)
        found = Moments(
            sigma, mean, _sum(weights, f * f), _sum(weights, (f - mean) * (f - mean)), _sum(weights, slope * slope)
        )
    return found if all(map(math.isfinite, found)) else None


def _sum(weights: Array, values: Array) -> float:
    # where the density has underflowed, f may have overflowed (exp(x²/5)): 0·∞ is 0 there
    return float(np.multiply(weights, values, out=np.zeros_like(weights), where=weights > 0).sum())


def _rule(functions: Callable[[Array], Array], sigma: float, points: Sequence[float]) -> tuple[Array, Array] | None:
    """Nodes and weights that integrate all `functions` against the density of N(0, sigma²)."""
    features = np.array([p for p in points if math.isfinite(p)]) / sigma
    around = np.concatenate([_OCTAVES, -_OCTAVES, [0.0]]) / sigma
    edges = np.unique(np.concatenate([np.linspace(-RANGE, RANGE, 79), features, around]))
    edges = edges[np.abs(edges) <= RANGE]
    low, high = edges[:-1], edges[1:]
    nodes: list[Array] = []
    weights: list[Array] = []
    scale = np.zeros(3)
    end = np.zeros(3)
    first = True
    while low.size:
        coarse, _, _ = _integrals(functions, low, high, sigma, _COARSE)
        fine, z, w = _integrals(functions, low, high, sigma, _FINE)
        if not np.isfinite(fine).all():
            return None
        if first:
            scale = np.abs(fine).sum(axis=1)
            first = False
        # NaN and ∞ count as disagreement
        agrees = (np.abs(fine - coarse) <= TOLERANCE * scale[:, None]).all(axis=0)
        agrees |= high - low <= 1e-13 * np.maximum(np.abs(low), np.abs(high))
        far = np.minimum(np.abs(low), np.abs(high))[agrees] > RANGE - 2
        end += np.abs(fine[:, agrees][:, far]).sum(axis=1)
        nodes.append(sigma * z[agrees])
        weights.append(w[agrees])
        low, high = low[~agrees], high[~agrees]
        if low.size + sum(map(len, nodes)) > PANELS:
            return None
        middle = low + 0.5 * (high - low)
        low, high = np.concatenate([low, middle]), np.concatenate([middle, high])
    # what has not died down at the end of the density is not there
    if not (end <= 1e-12 * scale).all():
        return None
    return np.concatenate(nodes), np.concatenate(weights)


def _integrals(
    functions: Callable[[Array], Array], low: Array, high: Array, sigma: float, rule: tuple[Array, Array]
) -> tuple[Array, Array, Array]:
    half = 0.5 * (high - low)[:, None]
    z = low[:, None] + half * (1 + rule[0])
    with np.errstate(all="ignore"):
        w = half * rule[1] * np.exp(-0.5 * z * z) / math.sqrt(2 * math.pi)
        values = functions(sigma * z)
        return np.multiply(w, values, out=np.zeros_like(values), where=w > 0).sum(axis=-1), z, w


def _inverse_root(value: float) -> float:
    return 1 / math.sqrt(value) if value > 0 else math.inf
