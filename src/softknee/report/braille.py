"""A Plot in a terminal: curves in braille dots, eight to a character, with axes, numbers and a legend.

Without colour the curves carry their number; a terminal without Unicode gets the numbers alone.
"""

from __future__ import annotations

import functools
import itertools
import math
import operator
from typing import TYPE_CHECKING

from .charts import Scale, tick
from .curves import Panel, Plot, Point
from .formula import formula

if TYPE_CHECKING:
    from rich.console import Console
    from rich.text import Text

COLOURS = ("cyan", "yellow", "magenta", "green", "bright_red", "bright_blue", "bright_magenta", "white")
WIDEST, TALLEST, SHORTEST = 120, 22, 9
EVERY = 12
"""Columns from one number on a curve to the next."""
TURN = 3
"""Columns for which one of several curves that coincide shows."""

# Bits of U+2800 of the dots in a character: rows from the top, columns from the left.
DOTS = ((0x01, 0x08), (0x02, 0x10), (0x04, 0x20), (0x40, 0x80))
ASCII = str.maketrans("└─│┤┬┄┊━−′", "+-|++.:--'")


def draw(plot: Plot, console: Console, legend: bool = True, rows: int | None = None) -> None:
    """Print the legend, then each panel, as wide as the console and, unless `rows` says how high, about as high."""
    from rich.text import Text

    coloured = not console.no_color and console.color_system is not None
    braille = console.encoding.startswith("utf")
    lines = _legend(plot, coloured) if legend else []
    rows = rows or max(SHORTEST, min(TALLEST, (console.height - len(lines) - 1) // len(plot.panels) - 4))
    for panel in plot.panels:
        canvas = _canvas(plot, panel, min(console.width, WIDEST), rows, coloured, braille)
        lines += [Text(""), *canvas, *(Text(note, "dim") for note in panel.notes)]
    for line in lines:
        if not braille:
            line.plain = line.plain.translate(ASCII)
        line.rstrip()
        line.truncate(console.width, overflow="ellipsis" if braille else "crop")
        console.print(line, soft_wrap=True)


def _legend(plot: Plot, coloured: bool) -> list[Text]:
    """One line per curve: its number or colour, its name, its formula."""
    from rich.text import Text

    widest = max(len(curve.label) for curve in plot.curves)
    lines = []
    for i, curve in enumerate(plot.curves):
        activation = curve.choice.activation
        others = "".join(f", {name} = 1" for name in activation.inputs[1:])
        mark = ("━━", COLOURS[i]) if coloured else (str(i + 1) if len(plot.curves) > 1 else "", "")
        told = (f"{formula(activation) or activation.summary}{others}", "dim")
        lines.append(Text.assemble(mark, " " if mark[0] else "", (curve.label.ljust(widest), "bold"), "  ", told))
    return lines


def _canvas(plot: Plot, panel: Panel, width: int, rows: int, coloured: bool, braille: bool) -> list[Text]:
    """The panel's lines: its name, the rows with their numbers, the x axis with its numbers."""
    from rich.text import Text

    down = Scale(panel.low, panel.high, 4 * rows - 1, 0)
    levels = {round(down(value)) // 4: tick(value) for value in down.ticks(max(2, rows // 3))}
    margin = max(map(len, levels.values())) + 1
    columns = max(8, width - margin - 2)
    across = Scale(plot.low, plot.high, 0, 2 * columns - 1)

    cells = [[Text(" ") for _ in range(columns)] for _ in range(rows)]
    if plot.low < 0 < plot.high:
        for row in cells:
            row[round(across(0.0)) // 2] = Text("┊", "dim")
    if panel.low < 0 < panel.high:
        cells[round(down(0.0)) // 4] = [Text("┄", "dim") for _ in range(columns)]
    drawn = [_dots(plot.pieces(curve, panel), across, down) for curve in plot.curves]
    for y, x in set().union(*drawn):
        # curves that coincide take turns
        through = [i for i, dots in enumerate(drawn) if (y, x) in dots]
        i = through[x // TURN % len(through)]
        bits = functools.reduce(operator.or_, (drawn[k][y, x] for k in through))
        mark = chr(0x2800 + bits) if braille else str(i + 1) if len(drawn) > 1 else "*"
        cells[y][x] = Text(mark, COLOURS[i])
    if not coloured and len(drawn) > 1:
        for i, dots in enumerate(drawn):
            for column in range(i * EVERY // len(drawn), columns, EVERY):
                if found := sorted(y for y, x in dots if x == column):
                    cells[found[len(found) // 2]][column] = Text(str(i + 1))

    lines = [Text(" " * margin + panel.name, "dim")]
    for i, row in enumerate(cells):
        label = f"{levels.get(i, ''):>{margin - 1}} {'┤' if i in levels else '│'}"
        lines.append(Text.assemble((label, "dim"), *row))
    floor, below = ["─"] * columns, [" "] * (columns + margin + 6)
    free = 0
    for value in across.ticks(max(2, min(9, columns // 10))):
        column, label = round(across(value)) // 2, tick(value)
        start = min(max(0, margin + 2 + column - (len(label) + 1) // 2), width - len(label))
        if start >= free:
            floor[column] = "┬"
            below[start : start + len(label)] = label
            free = start + len(label) + 1
    lines.append(Text(" " * margin + "└" + "".join(floor), "dim"))
    lines.append(Text("".join(below), "dim"))
    return lines


def _dots(pieces: list[list[Point]], across: Scale, down: Scale) -> dict[tuple[int, int], int]:
    """The characters, (row, column), that the lines go through, with the bits of their dots."""
    bits: dict[tuple[int, int], int] = {}
    for piece in pieces:
        dots = [(across(x), down(y)) for x, y in piece]
        for (x0, y0), (x1, y1) in itertools.pairwise(dots):
            steps = max(1, math.ceil(max(abs(x1 - x0), abs(y1 - y0))))
            for step in range(steps + 1):
                x = round(x0 + (x1 - x0) * step / steps)
                y = round(y0 + (y1 - y0) * step / steps)
                at = (y // 4, x // 2)
                bits[at] = bits.get(at, 0) | DOTS[y % 4][x % 2]
    return bits
