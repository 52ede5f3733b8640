"""Curves in a terminal: the shape is the function's, it fits, and it can be read without colour and without Unicode."""

from __future__ import annotations

import io
import subprocess
import sys

import pytest
from rich.console import Console
from unusual import UNUSUAL, reciprocal, shrink

from softknee.report import plot, render


def shown(drawn, width: int = 80, height: int = 25, **more) -> str:
    out = io.StringIO()
    render(drawn, Console(file=out, width=width, height=height, highlight=False, **more))
    return out.getvalue()


def canvas(text: str) -> list[str]:
    """The rows of the first panel, without the axis."""
    lines = text.splitlines()
    start = next(i for i, line in enumerate(lines) if line.strip() == "f(x)") + 1
    end = next(i for i, line in enumerate(lines) if line.lstrip().startswith("└"))
    return [line[min(line.find("│") % 99, line.find("┤") % 99) + 1 :] for line in lines[start:end]]


def heights(rows: list[str], marks: str = "") -> dict[int, list[int]]:
    """Rows, counted from below, that a curve goes through, by column."""
    found: dict[int, list[int]] = {}
    for i, row in enumerate(reversed(rows)):
        for column, letter in enumerate(row):
            if "\u2801" <= letter <= "\u28ff" or (marks and letter in marks):
                found.setdefault(column, []).append(i)
    return found


def test_relu_is_flat_then_rises():
    at = heights(canvas(shown(plot("relu"))))
    columns = sorted(at)
    middle = columns[len(columns) // 2]
    assert len(columns) > 70 and columns == list(range(columns[0], columns[-1] + 1)), "it is one line"
    assert {tuple(at[c]) for c in columns if c < middle - 1} == {(0,)}
    right = [max(at[c]) for c in columns if c > middle]
    assert right == sorted(right) and right[-1] == len(canvas(shown(plot("relu")))) - 1


def test_a_jump_is_not_drawn():
    rows = canvas(shown(plot(shrink, range=(-1, 1)), height=30))
    at = heights(rows)
    assert max(map(len, at.values())) <= 2, "no column is bridged"
    assert max(at[max(at)]) == len(rows) - 1 and min(at[min(at)]) == 0


def test_a_pole_is_not_drawn():
    at = heights(canvas(shown(plot(reciprocal))))
    assert not any(0 in ys and max(ys) > 15 for ys in at.values())


@pytest.mark.parametrize("width", [40, 80, 120, 200])
def test_fits(width):
    text = shown(plot("relu", "elu:alpha=0.5", "swiglu", *UNUSUAL[:5], derivative=True), width)
    for line in text.splitlines():
        assert len(line) <= width and line == line.rstrip()
    assert "\n  x" not in text and text.count("└") == 2


def test_numbers_stand_where_they_belong():
    rows = shown(plot("tanh", range=(-4, 4))).splitlines()
    axis = rows[-1]
    floor = rows[-2]
    for label, value in (("−4", -4), ("0", 0), ("4", 4)):
        near = [i for i, sign in enumerate(floor) if sign == "┬" and abs(i - axis.index(label)) <= 2]
        assert near, (label, value)
    top = next(row for row in rows if row.lstrip().startswith("1 ┤"))
    bottom = next(row for row in rows if row.lstrip().startswith("−1 ┤"))
    assert "⠉" in top or "⠒" in top or "⠤" in top or "⣀" in top
    assert rows.index(top) < rows.index(bottom)


def test_without_colour_the_curves_carry_their_numbers():
    text = shown(plot("relu", "gelu", "tanh"))
    assert "\x1b" not in text
    assert [line.split()[:2] for line in text.splitlines()[:3]] == [["1", "relu"], ["2", "gelu"], ["3", "tanh"]]
    drawn = "".join(canvas(text))
    assert all(drawn.count(number) >= 4 for number in "123")
    # at the right tanh is far below relu, and says so
    rows = canvas(text)
    assert "3" in next(row for row in rows if "3" in row[60:])[60:]
    assert not any("1" in row[60:] and "3" in row[60:] for row in rows)


def test_with_colour_they_do_not():
    text = shown(plot("relu", "tanh"), force_terminal=True, color_system="standard")
    assert "\x1b[36m" in text and "\x1b[33m" in text
    assert "━━" in text
    coloured = shown(plot("relu", "tanh"), force_terminal=True, color_system="standard", no_color=True)
    assert "\x1b[36m" not in coloured and "1 relu" in coloured.replace("\x1b[1m", "").replace("\x1b[0m", "")


def test_without_unicode():
    command = "from softknee.report import plot, render; render(plot('relu', 'tanh', derivative=True))"
    done = subprocess.run(
        [sys.executable, "-W", "error", "-c", command],
        capture_output=True,
        env={"PYTHONIOENCODING": "ascii:replace", "PATH": ""},
        timeout=120,
    )
    assert done.returncode == 0, done.stderr
    text = done.stdout.decode("ascii")
    assert "?" not in text
    assert "f'(x)" in text and "-6" in text
    assert "11111111" in text and "22222222" in text
    assert max(map(len, text.splitlines())) <= 80
