"""Charts: scales that hold what they are given, marks in their places, text that stays text."""

from __future__ import annotations

import math
import re
from xml.etree import ElementTree

import numpy as np
import pytest
from hypothesis import assume, example, given
from hypothesis import strategies as st

from softknee.report import charts
from softknee.verification.calibration import ReliabilityBin
from softknee.verification.statistics import Interval

SANE = st.floats(min_value=-1e12, max_value=1e12)


def numbers(svg: str) -> list[float]:
    return [float(n) for n in re.findall(r'(?:cx|cy|x|y|r)="(-?[\d.]+)"', svg)]


@given(st.lists(SANE, min_size=1), st.booleans())
@example([0.0, 5e-324], False)
@example([5e-324], True)
@example([1.0, 2500000004.0], False)
def test_an_axis_holds_its_values(values, log):
    low, high = charts.span(values, log=log)
    assert low < high
    scale = charts.Scale(low, high, 0, 100, log)
    assert all(0 <= scale(v) <= 100 for v in values)
    beside = 0.0 if log else 1e-8 * (high - low)  # far less than a pixel
    for t in scale.ticks():
        assert low - beside <= t <= high + beside or math.isclose(t, low) or math.isclose(t, high)


@pytest.mark.parametrize(
    ("value", "text"),
    [
        (0.0, "0"),
        (0.5, "0.5"),
        (-2.0, "−2"),
        (1e4, "1e4"),
        (2e4, "2e4"),
        (12500.0, "1.25e4"),
        (-3e5, "−3e5"),
        (1e-4, "1e−4"),
    ],
)
def test_a_tick_says_its_value(value, text):
    assert charts.tick(value) == text


@given(st.floats(min_value=-1e6, max_value=1e6), st.floats(min_value=1e-6, max_value=1e6))
def test_ticks_are_few_and_round(low, width):
    assume(low + width > low)
    ticks = charts.Scale(low, low + width, 0, 1).ticks(5)
    assert len(ticks) <= 7


def test_line_over_layers():
    svg = charts.over_layers(
        "signal", "std", ["a", "b", "c"], {"before": [1.0, None, 0.0], "after": [1.0, 1.0, 1.0]}, log=True
    )
    root = ElementTree.fromstring(svg)
    assert root.attrib["aria-label"] == "signal"
    dots = list(root.iter("circle"))
    assert len(dots) == 5, "a missing value has no mark, a zero lies on the floor"
    assert any("before, site 3 (c): 0" in "".join(e.itertext()) for e in dots)


@pytest.mark.parametrize("value", [0.0, 1e-300, 1e300, -1.0])
def test_extreme_values_stay_inside(value):
    svg = charts.over_layers("x", "y", ["a", "b"], {"before": [value, 1.0]}, log=True)
    ElementTree.fromstring(svg)
    assert all(-1 <= n <= max(charts.WIDTH, charts.HEIGHT) for n in numbers(svg))


def test_histogram_under_the_curves():
    edges, counts = np.linspace(-1, 1, 5), [0, 10, 5, 0]
    svg = charts.over_curves(
        "z", {"before": (edges, counts)}, lambda z: np.maximum(z, 0), lambda z: (z > 0) * 1.0, [0.0]
    )
    root = ElementTree.fromstring(svg)
    classes = [e.attrib.get("class") for e in root.iter("path")]
    assert {"bars before", "curve value", "curve slope"} <= set(classes)
    without = charts.over_curves("z", {"before": (edges, counts)}, None, None)
    assert "curve" not in without


def test_an_empty_histogram_draws_only_the_curves():
    svg = charts.over_curves("z", {"before": ([-1.0, 0.0, 1.0], [0, 0])}, np.tanh, lambda z: 1 - np.tanh(z) ** 2)
    assert "bars" not in svg
    assert "curve" in svg


def test_bulk_leaves_out_the_tails():
    edges = np.linspace(-10, 10, 21)
    counts = np.zeros(20)
    counts[0], counts[10] = 1, 9999
    assert charts.bulk((edges, counts)) == (0.0, 1.0)
    assert charts.bulk((edges, np.zeros(20))) is None


def test_reliability_leaves_empty_bins_out():
    nan = math.nan
    bins = [
        ReliabilityBin(0.0, 0.5, 0, nan, nan, Interval(nan, nan)),
        ReliabilityBin(0.5, 1.0, 7, 0.8, 0.9, Interval(0.5, 1.0)),
    ]
    root = ElementTree.fromstring(charts.reliability("r", bins, "before"))
    assert len(list(root.iter("circle"))) == 1
    assert ElementTree.fromstring(charts.reliability("r", [], "before")) is not None


def test_names_stay_text():
    hostile = "</title><script>alert(1)</script>"
    svg = charts.over_layers(hostile, hostile, [hostile], {"before": [1.0]})
    assert "<script" not in svg
    ElementTree.fromstring(svg)
    ElementTree.fromstring(charts.dot_interval(hostile, 0.1, (0.0, 0.2), (0.0, 1.0), "after"))
