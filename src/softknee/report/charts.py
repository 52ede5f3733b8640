"""The page's charts, as inline SVG: lines over layers, a histogram under f and f′, intervals, reliability.

Plain SVG rather than a plotting runtime: the page then holds no script at all, weighs little, prints, and follows the
reader's light or dark setting, because colours are CSS classes (`before`, `after`, `value`, `slope`). Each chart is
drawn about 360 px wide and placed in a grid that wraps, so letters keep their size on a phone. A mark's figures stand
in its `<title>`, which browsers show on hovering and screen readers read. All text is escaped here.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from html import escape
from typing import TYPE_CHECKING

import numpy as np

from .figures import clip, known, number, percent

if TYPE_CHECKING:
    from softknee.verification.calibration import ReliabilityBin

WIDTH, HEIGHT = 360, 224
LEFT, RIGHT, TOP, BOTTOM = 52, 12, 14, 38


SMALLEST = 1e-300
"""What is smaller, as a value on a log axis or as an axis' length, is 0: a subnormal has no decade to show."""


@dataclass(frozen=True)
class Scale:
    """Data → pixels, linear or logarithmic; what lies outside is put on the border."""

    low: float
    high: float
    start: float
    end: float
    log: bool = False

    def __call__(self, value: float) -> float:
        low, high = (math.log10(self.low), math.log10(self.high)) if self.log else (self.low, self.high)
        at = (math.log10(value) if value > 0 else low) if self.log else value
        share = (at - low) / (high - low)
        return round(self.start + min(1.0, max(0.0, share)) * (self.end - self.start), 2)

    def ticks(self, count: int = 5) -> list[float]:
        """Round values inside the scale, about `count` of them."""
        if not self.log:
            step = nice((self.high - self.low) / count)
            first = math.ceil(self.low / step - 1e-9)
            return [i * step for i in range(first, math.floor(self.high / step + 1e-9) + 1)]
        low, high = math.ceil(math.log10(self.low) - 1e-9), math.floor(math.log10(self.high) + 1e-9)
        stride = max(1, math.ceil((high - low + 1) / count))
        return [10.0**e for e in range(low, high + 1, stride)]


def nice(step: float) -> float:
    """The next 1, 2 or 5 times a power of ten."""
    power = 10.0 ** math.floor(math.log10(step))
    return power * next(f for f in (1, 2, 5, 10) if f * power >= step * (1 - 1e-9))


def span(values: Sequence[float], *, log: bool = False) -> tuple[float, float]:
    """Ends of an axis that holds `values`, never empty: whole decades if log."""
    if log:
        positive = [v for v in values if v >= SMALLEST]
        low, high = (min(positive), max(positive)) if positive else (0.1, 1.0)
        floor, top = math.floor(math.log10(low) + 1e-9), math.ceil(math.log10(high) - 1e-9)
        return 10.0**floor, 10.0 ** max(top, floor + 1)
    low, high = (min(values), max(values)) if values else (0.0, 1.0)
    return (low, high) if high - low >= SMALLEST else (low - 0.5, high + 0.5)


@dataclass
class Drawing:
    """An SVG being drawn: a plot area with axes, and the marks on it."""

    label: str
    x: Scale
    y: Scale
    width: int = WIDTH
    height: int = HEIGHT
    parts: list[str] = field(default_factory=list)

    def add(self, element: str, title: str = "", **attributes: object) -> None:
        """One element; `class_` is its class, underscores in names become hyphens."""
        pairs = "".join(f' {k.rstrip("_").replace("_", "-")}="{escape(str(v))}"' for k, v in attributes.items())
        inside = f"<title>{escape(title)}</title>" if title else ""
        self.parts.append(f"<{element}{pairs}>{inside}</{element}>" if inside else f"<{element}{pairs}/>")

    def text(self, content: str, x: float, y: float, class_: str = "tick", anchor: str = "middle") -> None:
        self.parts.append(f'<text x="{x:g}" y="{y:g}" class="{class_}" text-anchor="{anchor}">{escape(content)}</text>')

    def path(self, points: Sequence[tuple[float, float]], class_: str, *, closed: bool = False) -> None:
        """A line through points in data coordinates."""
        if points:
            steps = "L".join(f"{self.x(x):g} {self.y(y):g}" for x, y in points)
            self.add("path", d=f"M{steps}{'Z' if closed else ''}", class_=class_)

    def axes(
        self, x_label: str, y_label: str, write_x: Callable[[float], str], write_y: Callable[[float], str]
    ) -> None:
        """Grid, ticks and the two axes' names."""
        for tick in self.y.ticks():
            y = self.y(tick)
            self.add("path", d=f"M{self.x.start:g} {y:g}H{self.x.end:g}", class_="grid")
            self.text(write_y(tick), self.x.start - 6, y + 3.5, anchor="end")
        for tick in self.x.ticks(6):
            self.text(write_x(tick), self.x(tick), self.y.start + 15)
        self.text(x_label, (self.x.start + self.x.end) / 2, self.height - 5, "axis")
        self.text(y_label, 2, 9, "axis", "start")

    def __str__(self) -> str:
        return (
            f'<svg class="chart" viewBox="0 0 {self.width} {self.height}" role="img" '
            f'aria-label="{escape(self.label)}">{"".join(self.parts)}</svg>'
        )


def plot(label: str, x: tuple[float, float], y: tuple[float, float], *, log: bool = False) -> Drawing:
    """An empty plot area with these ends; `log`: of the y axis."""
    return Drawing(
        label,
        Scale(*x, start=LEFT, end=WIDTH - RIGHT),
        Scale(*y, start=HEIGHT - BOTTOM, end=TOP + 4, log=log),
    )


def tick(value: float) -> str:
    """A tick's label, short."""
    if value and (abs(value) >= 1e4 or abs(value) < 1e-3):
        mantissa, exponent = f"{value:.2e}".split("e")
        return f"{float(mantissa):g}e{int(exponent)}".replace("-", "−")
    return f"{value:g}".replace("-", "−")


def style(name: str) -> str:
    """The class that a series is drawn in: of a single one, whatever its name, that of "after"."""
    return "before" if name == "before" else "after"


def over_layers(
    label: str,
    unit: str,
    names: Sequence[str],
    series: Mapping[str, Sequence[float | None]],
    *,
    log: bool = False,
    share: bool = False,
) -> str:
    """One line per series ("before", "after") over the sites in executed order; None leaves a gap.

    log: decades on the y axis, where a zero lies on the floor; share: the y axis is 0 to 100 %.
    """
    values = [float(v) for line in series.values() for v in line if v is not None and math.isfinite(v)]
    y = (0.0, 1.0) if share else span(values, log=log)
    drawing = plot(label, (0.5, len(names) + 0.5), y, log=log)
    drawing.axes(
        "site, in the order of execution",
        unit,
        lambda i: f"{i:g}" if float(i).is_integer() and 1 <= i <= len(names) else "",
        lambda v: percent(v, 0) if share else tick(v),
    )
    for name, line in series.items():
        piece: list[tuple[float, float]] = []
        for i, v in enumerate([*line, None], start=1):
            if v is not None and known(v):
                piece.append((float(i), float(v)))
            else:
                drawing.path(piece, f"line {style(name)}")
                piece = []
    for name, line in series.items():
        for i, v in enumerate(line, start=1):
            if v is not None and known(v):
                figure = percent(v) if share else number(v)
                drawing.add(
                    "circle",
                    f"{name}, site {i} ({clip(names[i - 1], 60)}): {figure}",
                    cx=drawing.x(i),
                    cy=drawing.y(v),
                    r=3.2,
                    class_=f"dot {style(name)}",
                )
    return str(drawing)


Histogram = tuple[Sequence[float], Sequence[int]]
"""Edges and counts; the outer bins also hold what lies beyond them."""


def bulk(histogram: Histogram, share: float = 0.995) -> tuple[float, float] | None:
    """Ends of the bins that hold the middle `share` of a histogram; None if it is empty."""
    edges, counts = np.asarray(histogram[0], dtype=float), np.asarray(histogram[1], dtype=float)
    if counts.size == 0 or counts.sum() <= 0:
        return None
    cumulated = np.cumsum(counts) / counts.sum()
    low = int(np.searchsorted(cumulated, (1 - share) / 2))
    high = min(int(np.searchsorted(cumulated, (1 + share) / 2)), counts.size - 1)
    return float(edges[low]), float(edges[high + 1])


def over_curves(
    label: str,
    histograms: Mapping[str, Histogram],
    value: Callable[[np.ndarray], np.ndarray] | None,
    slope: Callable[[np.ndarray], np.ndarray] | None,
    breakpoints: Sequence[float] = (),
    axis: str = "z, the activation's input",
) -> str:
    """Densities of the pre-activation z, each scaled to its highest bin, under the curves f(z) and f′(z)."""
    ends = [e for e in (bulk(h) for h in histograms.values()) if e is not None and np.isfinite(e).all()]
    low, high = min([-2.0, *(e[0] for e in ends)]), max([2.0, *(e[1] for e in ends)])
    z = np.linspace(low, high, 161)
    edges = np.array([b for b in breakpoints if low < b < high], dtype=float)
    z = np.unique(np.concatenate([z, edges, np.nextafter(edges, -np.inf), np.nextafter(edges, np.inf)]))
    curves = {"value": value, "slope": slope}
    drawn: dict[str, np.ndarray] = {}
    for name, curve in curves.items():
        if curve is not None:
            drawn[name] = np.asarray(curve(z), dtype=float)
    finite = [float(v) for line in drawn.values() for v in line[np.isfinite(line)]]
    bottom, top = span([0.0, 1.0, *finite])
    drawing = plot(label, (low, high), (bottom, top + 0.04 * (top - bottom)))
    # the later one lies behind, so that a narrow spike from before is not hidden by what it widened to
    for name, histogram in reversed([*histograms.items()]):
        bins, counts = np.asarray(histogram[0], dtype=float), np.asarray(histogram[1], dtype=float)
        if counts.sum() <= 0:
            continue
        density = counts / np.diff(bins)  # bins need not be equally wide
        inside = (bins[1:] > low) & (bins[:-1] < high)
        outline, densest = [], density[inside].max(initial=0.0)
        for left, right, height in zip(bins[:-1][inside], bins[1:][inside], density[inside], strict=True):
            if height:
                x0, x1 = drawing.x(left), drawing.x(right)
                y = drawing.y.start + height / densest * 0.94 * (drawing.y.end - drawing.y.start)
                outline.append(f"M{x0:g} {drawing.y.start:g}V{y:.5g}H{max(x1, x0 + 1.5):g}V{drawing.y.start:g}Z")
        drawing.add(
            "path",
            f"{name}: {int(counts.sum()):,} sampled values of z",
            d="".join(outline),
            class_=f"bars {style(name)}",
        )
    drawing.axes(axis, "f(z), f′(z)", tick, tick)
    for name, line in drawn.items():
        piece: list[tuple[float, float]] = []
        for x, y in zip(z, line, strict=True):
            if np.isfinite(y):
                piece.append((float(x), float(y)))
        drawing.path(piece, f"curve {name}")
    return str(drawing)


def dot_interval(
    label: str, difference: float | None, ends: Sequence[float] | None, domain: tuple[float, float], class_: str
) -> str:
    """A row's difference with its interval on a scale that all rows share; a line marks 0."""
    width, height = 190, 22
    drawing = Drawing(label, Scale(*domain, start=6, end=width - 6), Scale(0, 1, start=height, end=0), width, height)
    zero = drawing.x(0.0)
    drawing.add("path", d=f"M{zero:g} 0V{height}", class_="zero")
    if ends is not None and all(map(known, ends)):
        drawing.add(
            "path", d=f"M{drawing.x(ends[0]):g} {height / 2:g}H{drawing.x(ends[1]):g}", class_=f"whisker {class_}"
        )
    if difference is not None and known(difference):
        drawing.add("circle", label, cx=drawing.x(difference), cy=height / 2, r=4.2, class_=f"dot {class_}")
    return str(drawing).replace('class="chart"', 'class="chart row"', 1)


def reliability(label: str, bins: Sequence[ReliabilityBin], class_: str) -> str:
    """Share that was right over confidence; on the diagonal the model is as right as it says."""
    drawing = plot(label, (0.0, 1.0), (0.0, 1.0))
    drawing.axes("confidence", "share that was right", lambda v: percent(v, 0), lambda v: percent(v, 0))
    drawing.path([(0, 0), (1, 1)], "diagonal")
    most = max([b.rows for b in bins], default=1) or 1
    for b in bins:
        if not (b.rows and known(b.confidence) and known(b.accuracy)):
            continue
        if all(map(known, b.interval)):
            x = drawing.x(b.confidence)
            drawing.add(
                "path",
                d=f"M{x:g} {drawing.y(b.interval[0]):g}V{drawing.y(b.interval[1]):g}",
                class_=f"whisker {class_}",
            )
    for b in bins:
        if not (b.rows and known(b.confidence) and known(b.accuracy)):
            continue
        spread = f", interval {percent(b.interval[0])} to {percent(b.interval[1])}"
        drawing.add(
            "circle",
            f"confidence {percent(b.confidence)}: {percent(b.accuracy)} right of {b.rows:,} rows{spread}",
            cx=drawing.x(b.confidence),
            cy=drawing.y(b.accuracy),
            r=round(2.6 + 3.4 * math.sqrt(b.rows / most), 2),
            class_=f"dot {class_}",
        )
    return str(drawing)
