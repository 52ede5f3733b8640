"""A Plot as a file: SVG and HTML that follow the reader's light or dark setting and need nothing else, and PNG.

The SVG stands alone; the page has the same panels, each as wide as the screen lets it, and a table that says what the
curves are. Both hold no script and name no address. PNG is Matplotlib's work.
"""

from __future__ import annotations

import io
import os
import warnings
from collections.abc import Callable, Sequence
from html import escape
from pathlib import Path
from typing import Any

from softknee.errors import InputError
from softknee.files import write_whole

from .charts import Drawing, Scale, tick
from .choice import written_parameters, written_range, written_steepest
from .curves import Curve, Panel, Plot
from .formula import formula

WIDTH, HEIGHT = 400, 290
LETTER = 7.0
"""Pixels that a letter of the legend takes, at most on average."""

PAPER, INK, SOFT, LINE = ("#fcfcfa", "#141619"), ("#1c1f22", "#e8e8e3"), ("#565d66", "#a5abb3"), ("#dfdfd8", "#32363b")
# (light, dark); the second four are dashed too, so that no two differ by colour alone in print
COLOURS = (
    ("#0b6a64", "#5cc6ba"), ("#c2410c", "#f2906f"), ("#2f5fd0", "#86aeff"), ("#8e3aa8", "#d79bec"),
    ("#946c00", "#dcb63f"), ("#c92c66", "#ff8bb0"), ("#4b7a12", "#a6cd5e"), ("#4c5866", "#b4bfcc"),
)  # fmt: skip
DASHED = 4
"""The first curve that is dashed."""


def save(plot: Plot, path: str | os.PathLike[str]) -> Path:
    """Write the plot as the ending of `path` says; see `Plot.save`."""
    ending = Path(path).suffix.lower()
    if ending not in WRITERS:
        raise InputError(f"cannot write {os.fspath(path)}: its name must end in {', '.join(WRITERS)}")
    return write_whole(path, WRITERS[ending](plot))


def svg(plot: Plot) -> str:
    """One standalone SVG: the legend, the panels beside each other, the notes."""
    width = WIDTH * len(plot.panels) + 8
    legend, top = _legend(plot, width)
    drawings = [_drawing(plot, panel) for panel in plot.panels]
    body = "".join(
        f'<g transform="translate({i * WIDTH + 10} {top})">{"".join(drawing.parts)}</g>'
        for i, drawing in enumerate(drawings)
    )
    below = top + HEIGHT
    for panel in plot.panels:
        for note in panel.notes:
            below += 16
            body += f'<text x="12" y="{below - 4}" class="axis">{escape(f"{panel.name}: {note}")}</text>'
    height = below + 8
    return (
        f'<svg xmlns="http://www.w3.org/2000/svg" class="chart" viewBox="0 0 {width} {height}" width="{width}" '
        f'height="{height}" role="img" aria-label="{escape(str(plot))}"><style>{_style(page=False)}</style>'
        f'<rect class="paper" width="{width}" height="{height}"/>{legend}{body}</svg>\n'
    )


def html(plot: Plot) -> str:
    """One page: a figure per panel, and a table of the curves."""
    names = ", ".join(curve.label for curve in plot.curves)
    figures = "".join(
        f"<figure>{_drawing(plot, panel)}"
        + (f"<figcaption>{escape('; '.join(panel.notes))}</figcaption>" if panel.notes else "")
        + "</figure>"
        for panel in plot.panels
    )
    rows = "".join(_row(i, curve) for i, curve in enumerate(plot.curves))
    return f"""<!DOCTYPE html>
<html lang="en">
<head>
<meta charset="utf-8">
<meta http-equiv="Content-Security-Policy" content="default-src 'none'; style-src 'unsafe-inline'">
<meta name="viewport" content="width=device-width, initial-scale=1">
<meta name="color-scheme" content="light dark">
<title>{escape(names)}</title>
<style>{_style(page=True)}</style>
</head>
<body>
<h1>{escape(names)}</h1>
<div class="figures">{figures}</div>
<table>
<thead><tr><th>activation</th><th>formula</th><th>range</th><th>largest |f′|</th></tr></thead>
<tbody>{rows}</tbody>
</table>
</body>
</html>
"""


def png(plot: Plot) -> bytes:
    """The panels beside each other, 160 dots per inch. Raises InputError where Matplotlib is missing."""
    try:
        from matplotlib.figure import Figure
        from matplotlib.lines import Line2D
    except ImportError as error:
        raise InputError("a PNG needs Matplotlib: pip install 'softknee[plot]' (SVG and HTML do not)") from error
    wide = 5.0 * len(plot.panels)
    across = max(1, int(wide / (0.6 + 0.075 * max(len(curve.label) for curve in plot.curves))))
    high = 3.8 + 0.2 * -(-len(plot.curves) // across)
    figure = Figure(figsize=(wide, high), dpi=160, facecolor=PAPER[0], layout="constrained")
    axes = figure.subplots(1, len(plot.panels), squeeze=False)[0]
    for area, panel in zip(axes, plot.panels, strict=True):
        area.set(xlim=(plot.low, plot.high), ylim=(panel.low, panel.high), facecolor=PAPER[0])
        area.set_title(panel.name, loc="left", fontsize=10, color=SOFT[0])
        area.grid(color=LINE[0], linewidth=0.7)
        area.spines[:].set_visible(False)
        area.tick_params(colors=SOFT[0], length=0, labelsize=9)
        area.axhline(0, color=SOFT[0], linewidth=0.7)
        area.axvline(0, color=SOFT[0], linewidth=0.7)
        for i, curve in enumerate(plot.curves):
            for piece in plot.pieces(curve, panel):
                area.plot(*zip(*piece, strict=True), **_line(i))
        area.set_xlabel("\n".join(["x", *panel.notes]), fontsize=9, color=SOFT[0], parse_math=False)
    legend = figure.legend(
        [Line2D([], [], **_line(i)) for i, _ in enumerate(plot.curves)],
        # Matplotlib leaves out what begins with an underscore
        ["\u200b" * curve.label.startswith("_") + curve.label for curve in plot.curves],
        loc="outside upper left",
        ncols=min(len(plot.curves), across),
        frameon=False,
        fontsize=10,
    )
    for text in legend.get_texts():
        text.set_parse_math(False)
    file = io.BytesIO()
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # of a letter that its font does not have
        figure.savefig(file, format="png", metadata={"Software": None})
    return file.getvalue()


WRITERS: dict[str, Callable[[Plot], str | bytes]] = {".png": png, ".svg": svg, ".html": html}

CHART = """
.chart text { font: 12px system-ui, -apple-system, "Segoe UI", Roboto, "Helvetica Neue", Arial, sans-serif }
.chart .label { font-size: 13px }
.chart path { fill: none; stroke-width: 1 }
.chart .curve { stroke-width: 2.2; stroke-linejoin: round }
.chart .dashed { stroke-dasharray: 7 3 }
"""

PAGE = """
body { margin: 0 auto; max-width: 72rem; padding: 1.5rem 1.25rem 3rem; font: 1rem/1.5 system-ui, -apple-system,
  "Segoe UI", Roboto, "Helvetica Neue", "Liberation Sans", sans-serif; overflow-wrap: break-word; }
h1 { font-size: 1.3rem; line-height: 1.3; margin: 0 0 1rem; }
.figures { display: grid; grid-template-columns: repeat(auto-fit, minmax(min(100%, 24rem), 1fr)); gap: 1.5rem; }
figure { margin: 0; max-width: 44rem; }
figcaption { font-size: .875rem; }
.chart { display: block; width: 100%; height: auto; }
.chart.key { display: inline-block; width: 1.75rem; height: .75rem; margin-right: .4rem; }
table { border-collapse: collapse; width: 100%; margin-top: 1.5rem; font-size: .9375rem; }
th, td { text-align: left; vertical-align: top; padding: .45rem 1rem .45rem 0; }
th { font-weight: 600; font-size: .875rem; }
td:nth-child(n+3) { white-space: nowrap; }
td p { margin: .1rem 0 0; font-size: .875rem; }
.name { font-weight: 600; }
.formula { font-size: .9em;
  font-family: ui-monospace, "SF Mono", "Cascadia Mono", Menlo, "Liberation Mono", monospace; }
@media (max-width: 44rem) {
  thead { position: absolute; width: 1px; height: 1px; overflow: hidden; clip-path: inset(50%); }
  table, tbody, tr, td { display: block; }
  tr { padding: .5rem 0; }
  td { padding: .1rem 0; border: 0 !important; }
  td:nth-child(n+3)::before { content: attr(data-label) " "; font-size: .875rem; }
}
"""


def _style(*, page: bool) -> str:
    """The sheet of the charts, and of the page: plain colours, since not every program that shows SVG has variables."""

    def sheet(mode: int) -> str:
        rules = {
            ".chart .paper": f"fill: {PAPER[mode]}",
            ".chart text": f"fill: {SOFT[mode]}",
            ".chart .label": f"fill: {INK[mode]}",
            ".chart .grid": f"stroke: {LINE[mode]}",
            ".chart .zero": f"stroke: {SOFT[mode]}",
            **{f".chart .c{i}": f"stroke: {colours[mode]}" for i, colours in enumerate(COLOURS)},
        }
        if page:
            rules |= {
                "body": f"background: {PAPER[mode]}; color: {INK[mode]}",
                "figcaption, th, td p, td::before": f"color: {SOFT[mode]}",
                "th, td": f"border-bottom: 1px solid {LINE[mode]}",
            }
        return "\n".join(f"{name} {{ {rule} }}" for name, rule in rules.items())

    dark = f"@media (prefers-color-scheme: dark) {{\n{sheet(1)}\n}}\n"
    return f"{CHART}{sheet(0)}\n{dark}{PAGE if page else ''}"


def _class(i: int) -> str:
    return f"curve c{i}" + (" dashed" if i >= DASHED else "")


def _line(i: int) -> dict[str, Any]:
    return {"color": COLOURS[i][0], "linewidth": 1.8, "linestyle": (0, (5, 2)) if i >= DASHED else "-"}


def _drawing(plot: Plot, panel: Panel) -> Drawing:
    across = Scale(plot.low, plot.high, start=48, end=WIDTH - 18)
    drawing = Drawing(
        f"{panel.name}: {plot}", across, Scale(panel.low, panel.high, start=HEIGHT - 34, end=18), WIDTH, HEIGHT
    )
    drawing.axes("x", panel.name, tick, tick)
    if panel.low < 0 < panel.high:
        drawing.path([(plot.low, 0.0), (plot.high, 0.0)], "zero")
    if plot.low < 0 < plot.high:
        drawing.path([(0.0, panel.low), (0.0, panel.high)], "zero")
    for i, curve in enumerate(plot.curves):
        pieces = ("L".join(f"{drawing.x(x):g} {drawing.y(y):g}" for x, y in p) for p in plot.pieces(curve, panel))
        drawing.add("path", _told(curve), d="".join(f"M{piece}" for piece in pieces), class_=_class(i))
    return drawing


def _told(curve: Curve) -> str:
    written = formula(curve.choice.activation)
    return curve.label + (f": {written}" if written else "")


def _legend(plot: Plot, width: int) -> tuple[str, int]:
    """The names behind their lines, in rows; and the height that they take."""
    parts: list[str] = []
    x, y = 14.0, 22
    for i, curve in enumerate(plot.curves):
        room = 32 + LETTER * len(curve.label)
        if x > 14 and x + room > width:
            x, y = 14.0, y + 20
        parts.append(f'<path class="{_class(i)}" d="M{x:g} {y - 4}h24"/>')
        parts.append(f'<text class="label" x="{x + 31:g}" y="{y}">{escape(curve.label)}</text>')
        x += room + 22
    return "".join(parts), y + 14


def _row(i: int, curve: Curve) -> str:
    facts, activation = curve.choice.facts, curve.choice.activation
    parameters = written_parameters(curve.choice)
    others = "".join(f", {name} = 1" for name in activation.inputs[1:])
    key = f'<svg class="chart key" viewBox="0 0 28 12" aria-hidden="true"><path class="{_class(i)}" d="M0 6H28"/></svg>'
    cells: Sequence[tuple[str, str]] = (
        (
            "",
            f'{key}<span class="name">{escape(curve.label)}</span><p>{escape(activation.summary)}</p>',
        ),
        (
            "",
            f'<span class="formula">{escape((formula(activation) or "") + others)}</span>'
            + (f"<p>{escape(parameters)}</p>" if parameters else ""),
        ),
        ("range", escape(written_range(facts))),
        ("largest |f′|", escape(written_steepest(facts))),
    )
    return "<tr>" + "".join(f'<td data-label="{label}">{cell}</td>' for label, cell in cells) + "</tr>"
