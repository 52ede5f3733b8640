"""Figures: three digits that say something, missing is missing, and nothing that is not zero is written as zero."""

from __future__ import annotations

import math

import pytest
from hypothesis import given
from hypothesis import strategies as st

from softknee.report import figures


@pytest.mark.parametrize(
    ("value", "text"),
    [
        (0.57812, "0.578"),
        (-0.57812, "−0.578"),
        (1078, "1,078"),
        (1078.0, "1,078"),
        (3.14e-5, "3.14e−05"),
        (0, "0"),
        (0.0, "0"),
        (12.345, "12.3"),
        (123456.7, "123,457"),
        (1.5e9, "1.50e+09"),
        (math.inf, "∞"),
        (-math.inf, "−∞"),
        (math.nan, "–"),
        (None, "–"),
        (True, "True"),
        ("net.3#0", "net.3#0"),
        (0.9999, "1.000"),
    ],
)
def test_number(value, text):
    assert figures.number(value) == text


@pytest.mark.parametrize(
    ("value", "text"),
    [
        (0.0, "0%"),
        (1.0, "100%"),
        (0.5, "50.0%"),
        (1e-6, "< 0.1%"),
        (1 - 1e-6, "> 99.9%"),
        (0.1234, "12.3%"),
        (None, "–"),
        (math.nan, "–"),
        (-0.25, "−25.0%"),
    ],
)
def test_percent(value, text):
    assert figures.percent(value) == text


@given(st.floats(min_value=0, max_value=1, exclude_min=True, exclude_max=True))
def test_a_share_inside_is_never_written_as_none_or_all(value):
    assert figures.percent(value) not in ("0%", "0.0%", "100%", "100.0%")


@given(st.floats(min_value=-1e300, max_value=1e300))
def test_a_number_reads_back_within_half_a_percent(value):
    back = float(figures.number(value).replace("−", "-").replace(",", ""))
    assert back == pytest.approx(value, rel=6e-3)


@pytest.mark.parametrize(
    ("p", "text"), [(0.0, "< 0.0001"), (0.03125, "0.031"), (1.0, "1"), (0.999, "1"), (None, "–"), (math.nan, "–")]
)
def test_p_value(p, text):
    assert figures.p_value(p) == text


def test_signed_and_interval():
    assert figures.signed(0.8561) == "+0.856"
    assert figures.signed(-0.0031) == "−0.003"
    assert figures.signed(-0.0001) == "0.000"
    assert figures.interval((-0.1, 0.25)) == "[−0.100, +0.250]"
    assert figures.interval(None) == "–"


def test_clip_keeps_both_ends_and_one_line():
    text = figures.clip("a" * 200 + "\n" + "b" * 200, 50)
    assert len(text) == 50
    assert text.startswith("aaa")
    assert text.endswith("bbb")
    assert "\n" not in text
    assert figures.clip("short") == "short"
