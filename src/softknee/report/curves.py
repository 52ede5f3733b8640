"""Curves of activations: f, and f′ if asked, sampled once for every way of drawing them.

`plot("relu", "gelu", derivative=True)` is a `Plot`: `render` draws it in the terminal, `Plot.save` writes it as PNG,
SVG or HTML, `dumps` gives its points. A gated activation is drawn over its gate, with up = 1.
"""

from __future__ import annotations

import itertools
import math
import os
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from softknee.errors import InputError
from softknee.facts import Facts
from softknee.plain import plain

from .choice import Choice, Named, choices, spelled
from .figures import number

MOST = 8
"""Curves that can still be told apart in one plot."""

SAMPLES = 601
REACH = 6.0
"""How far a plot goes to either side of 0, unless something happens further out."""
FARTHEST = 1000.0
LARGEST = 1e100

Point = tuple[float, float]


@dataclass(frozen=True, eq=False)
class Curve:
    """One activation over x. `values`: f, and f′ if asked; NaN where it is undefined, and at a jump of its own."""

    choice: Choice
    x: np.ndarray
    values: tuple[np.ndarray, ...]

    @property
    def label(self) -> str:
        return self.choice.label


@dataclass(frozen=True)
class Panel:
    """One pair of axes: f or f′ of all curves. `notes` say which curves leave it, and how far they go."""

    name: str
    order: int
    low: float
    high: float
    notes: tuple[str, ...]


@dataclass(frozen=True, eq=False)
class Plot:
    """Curves over low ≤ x ≤ high and the panels that show them."""

    curves: tuple[Curve, ...]
    low: float
    high: float
    panels: tuple[Panel, ...]

    def pieces(self, curve: Curve, panel: Panel) -> list[list[Point]]:
        """The curve inside the panel, as unbroken lines: it is broken where it jumps, leaves or is undefined."""
        return [p for p in _pieces(curve.x, curve.values[panel.order], panel.low, panel.high) if p]

    def save(self, path: str | os.PathLike[str]) -> Path:
        """Write the plot as .png, .svg or .html, by the ending of `path`, whole or not at all; returns the path.

        Raises InputError for another ending, a path that cannot be written, and a PNG where Matplotlib is missing.
        """
        from .pictures import save

        return save(self, path)

    def to_dict(self) -> dict[str, Any]:
        """The sampled points, as plain JSON types; None where a curve is undefined or jumps."""
        names = [panel.name for panel in self.panels]
        return plain(
            {
                "range": [self.low, self.high],
                "curves": [
                    {"name": curve.choice.activation.name, "parameters": curve.choice.parameters, "x": curve.x}
                    | dict(zip(("value", "derivative"), curve.values, strict=False))
                    for curve in self.curves
                ],
                "notes": {name: panel.notes for name, panel in zip(names, self.panels, strict=True)},
            }
        )

    def _repr_html_(self) -> str:
        from .pictures import svg

        return svg(self)

    def __str__(self) -> str:
        names = ", ".join(curve.label for curve in self.curves)
        return f"Plot of {names} from {number(self.low)} to {number(self.high)}"


def plot(*activations: Named, range: Sequence[float] | None = None, derivative: bool = False) -> Plot:
    """Curves of activations, given as Activation, Facts or a name such as "elu" or "elu:alpha=0.5"; each is drawn once.

    range: (low, high) of x; by default −6 to 6, and further where an activation has a kink or still bends there.
    derivative: also f′, in a second panel. Raises InputError for an unknown name or parameter, a normalizer (no
    function of one number), more than 8 activations, a range that is not two numbers, the lower first.
    """
    chosen = choices(activations)
    if not 1 <= len(chosen) <= MOST:
        raise InputError(f"a plot holds 1 to {MOST} activations, got {len(chosen)}")
    for one in chosen:
        if one.activation.kind == "normalizer":
            raise InputError(
                f"{one.label} cannot be plotted: it is a normalizer, whose outputs each depend on every input"
            )
    if range is None:
        reaches = [_reach(one.facts) for one in chosen]
        low, high = min(r[0] for r in reaches), max(r[1] for r in reaches)
    else:
        low, high = _checked(range)
    curves = tuple(_sampled(one, low, high, 2 if derivative else 1) for one in chosen)
    # f is measured against x: what grows much faster than the others leaves the panel; most f′ stay below 2
    panels = [_panel("f(x)", 0, curves, 1.5 * max(abs(low), abs(high)))]
    if derivative:
        panels.append(_panel("f′(x)", 1, curves, 2.5))
    return Plot(curves, low, high, tuple(panels))


def jumps(facts: Facts, order: int = 0) -> tuple[float, ...]:
    """The breakpoints at which the derivative of that order jumps; of order 1, where f itself does not: the kinks."""
    edges = np.array(facts.breakpoints or (), dtype=float)
    jumping = _jumping(lambda x: facts.value(x, order), edges)
    if order:
        jumping &= ~_jumping(facts.value, edges)
    return tuple(edges[jumping].tolist())


def _jumping(function: Callable[[np.ndarray], np.ndarray], edges: np.ndarray) -> np.ndarray:
    """Whether `function` is discontinuous at each edge: what it gains across it does not shrink with the step, and is
    more than a millionth of the function's size there.

    NaN, which a function may be on one side, is no jump: there is no line to break.
    """
    size = np.maximum(np.abs(edges), 1.0)
    with np.errstate(all="ignore"):
        wide, narrow = (np.abs(function(edges + step) - function(edges - step)) for step in (1e-9 * size, 1e-12 * size))
        around = np.abs(function(edges + np.linspace(-1.0, 1.0, 9)[:, None] * size))
        scale = np.where(np.isfinite(around), around, 0.0).max(axis=0)
        return (narrow > 0.5 * wide) & (narrow > 1e-6 * scale)


def _checked(ends: Sequence[float]) -> Point:
    try:
        low, high = map(float, ends)
    except (TypeError, ValueError):
        raise InputError(f"range must be two numbers, the lower first, got {ends!r}") from None
    if not (-LARGEST < low < high < LARGEST and high - low > 1e-9 * max(abs(low), abs(high), 1e-90)):
        raise InputError(f"range must be two numbers, the lower first, got {spelled(low)} and {spelled(high)}")
    return low, high


def _reach(facts: Facts) -> Point:
    """The x that a reader wants to see of one activation: a third beyond its last kink, and until it stops bending."""
    seen = [*jumps(facts), *jumps(facts, 1)]
    ends = []
    for side in (-1.0, 1.0):
        end = max([REACH, *(math.ceil(side * edge * 4 / 3) for edge in seen if abs(edge) <= FARTHEST)])
        wider = end
        while wider < FARTHEST and not _settled(facts, side, wider):
            wider *= 2
        # what never settles (x², eˣ, sin) is no clearer from further away
        ends.append(side * (wider if wider < FARTHEST else end))
    return ends[0], ends[1]


def _settled(facts: Facts, side: float, end: float) -> bool:
    """Whether the curve is about a straight line from `end` to four times as far, or not defined there at all.

    A third of the steepest slope is what a slow root's may still change; what saturates further out changes by more.
    """
    slopes = facts.value(side * np.linspace(end, 4 * end, 33), 1)
    if np.isnan(slopes).all():
        return True
    inside = np.abs(facts.value(np.linspace(-end, end, 65), 1))
    steepest = inside[np.isfinite(inside)].max(initial=1e-9)
    with np.errstate(all="ignore"):
        return bool((np.abs(slopes - slopes[-1]) <= 0.35 * steepest).all())


def _sampled(choice: Choice, low: float, high: float, orders: int) -> Curve:
    facts = choice.facts
    # peaks and kinks to the last bit, however narrow they are
    extremes = [p.x for p in (facts.minimum, facts.maximum, facts.largest_derivative) if p is not None]
    edges = np.array([b for b in facts.breakpoints or () if low < b < high], dtype=float)
    step = 1e-9 * np.maximum(np.abs(edges), 1e-3 * (high - low))
    x = np.concatenate([np.linspace(low, high, SAMPLES), edges - step, edges, edges + step])
    x = np.unique(np.concatenate([x, extremes]))
    x = x[(low <= x) & (x <= high)]
    values = []
    for order in range(orders):
        y = np.asarray(facts.value(x, order), dtype=float)
        y[np.isin(x, [*jumps(facts), *(jumps(facts, 1) if order else ())])] = math.nan
        y[~np.isfinite(y)] = math.nan
        values.append(y)
    return Curve(choice, x, tuple(values))


def _panel(name: str, order: int, curves: Sequence[Curve], natural: float) -> Panel:
    """Ends that show every curve, except where one blows up: then up to `natural`, or what the tamest needs."""
    reaches, finite = [], []
    for curve in curves:
        y = curve.values[order]
        size = np.abs(y[np.isfinite(y)])
        if size.size:
            finite.append((curve, y[np.isfinite(y)]))
            size.sort()
            reaches.append(min(float(size[-1]), max(4 * float(size[int(0.75 * size.size)]), natural)))
    limit = max(natural, min(reaches, default=0.0))  # the tamest sets the measure
    low = max(-limit, min((float(y.min()) for _, y in finite), default=0.0))
    high = min(limit, max((float(y.max()) for _, y in finite), default=1.0))
    if not high - low > 1e-9 * max(abs(low), abs(high)):  # all on one level
        low, high = low - max(0.5, abs(low) / 2), high + max(0.5, abs(high) / 2)
    margin = 0.04 * (high - low)
    low, high = low - margin, high + margin
    notes = []
    for curve in curves:
        y = curve.values[order]
        if not np.isfinite(y).any():
            notes.append(f"{curve.label} has no finite value here")
        elif np.nanmax(y) > high or np.nanmin(y) < low:
            farthest = int(np.nanargmax(np.abs(y)))
            at = f"{number(float(y[farthest]))} at {number(float(curve.x[farthest]))}"
            notes.append(f"{curve.label} leaves the plot: {at}")
    return Panel(name, order, low, high, tuple(notes))


def _pieces(x: np.ndarray, y: np.ndarray, low: float, high: float) -> Iterator[list[Point]]:
    """Unbroken lines of the points inside low ≤ y ≤ high, cut exactly where they leave it.

    A step from below the window to above it in one sample is a pole's, not the curve's.
    """
    points = zip(x.tolist(), np.clip(y, -1e150, 1e150).tolist(), strict=True)
    piece: list[Point] = []
    for (x0, y0), (x1, y1) in itertools.pairwise(points):
        enters, leaves = _inside(y0, y1, low, high)
        if not enters < leaves or (enters > 0 and leaves < 1):
            yield piece
            piece = []
            continue
        if enters > 0 or not piece:
            yield piece
            piece = [(x0 + enters * (x1 - x0), y0 + enters * (y1 - y0))]
        piece.append((x0 + leaves * (x1 - x0), y0 + leaves * (y1 - y0)))
        if leaves < 1:
            yield piece
            piece = []
    yield piece


def _inside(y0: float, y1: float, low: float, high: float) -> Point:
    """Which part of the way from y0 to y1 lies between low and high, as shares of it; (1, 0) if none."""
    if y0 == y1:
        return (0.0, 1.0) if low <= y0 <= high else (1.0, 0.0)
    if math.isnan(y0 + y1):
        return 1.0, 0.0
    first, last = sorted((end - y0) / (y1 - y0) for end in (low, high))
    return max(0.0, first), min(1.0, last)
