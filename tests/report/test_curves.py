"""Curves: the right x and y are looked at, and a line is drawn only where there is one."""

from __future__ import annotations

import json
import math

import numpy as np
import pytest
from unusual import (
    UNUSUAL,
    capped,
    constant,
    far,
    limited,
    logarithm,
    reciprocal,
    share,
    shrink,
    square,
    tower,
)

import softknee
from softknee.errors import InputError
from softknee.report import dumps, plot
from softknee.report.curves import MOST, jumps

DRAWABLE = [a for a in softknee.activations() if a.kind != "normalizer"]


def pieces(drawn, which=0, panel=0):
    return drawn.pieces(drawn.curves[which], drawn.panels[panel])


@pytest.mark.parametrize("activation", [*DRAWABLE, *UNUSUAL], ids=str)
def test_every_activation_has_curves(activation):
    drawn = plot(activation, derivative=True)
    assert drawn.low <= -6 and drawn.high >= 6
    for panel in drawn.panels:
        assert math.isfinite(panel.low) and panel.low < panel.high
        assert pieces(drawn, panel=panel.order), "something is seen"
        for piece in pieces(drawn, panel=panel.order):
            x, y = np.array(piece).T
            assert (np.diff(x) > 0).all()
            beside = 1e-9 * (panel.high - panel.low)
            assert (y >= panel.low - beside).all() and (y <= panel.high + beside).all()


def test_the_points_are_the_function():
    drawn = plot("gelu", "elu:alpha=0.5", derivative=True)
    gelu, elu = drawn.curves
    assert np.array_equal(gelu.values[0], softknee.get("gelu").value(gelu.x))
    assert elu.values[0].min() == pytest.approx(0.5 * math.expm1(-6.0))
    with_kink = elu.values[1]
    assert np.isnan(with_kink[elu.x == 0.0]).all() and not np.isnan(with_kink[elu.x != 0.0]).any()


def test_a_jump_is_a_gap_and_a_kink_is_one_in_the_derivative():
    assert jumps(shrink.facts) == (-0.5, 0.5) and jumps(shrink.facts, 1) == ()
    assert jumps(softknee.get("relu").facts) == () and jumps(softknee.get("relu").facts, 1) == (0.0,)
    assert jumps(softknee.get("elu").facts, 1) == (), "at alpha = 1 only its curvature jumps"
    drawn = plot(shrink, "relu", "elu", derivative=True)
    assert [len(pieces(drawn, i, 0)) for i in range(3)] == [3, 1, 1]
    assert [len(pieces(drawn, i, 1)) for i in range(3)] == [3, 2, 1]
    left, middle, right = pieces(drawn)
    assert left[-1] == pytest.approx((-0.5, -0.5)) and right[0] == pytest.approx((0.5, 0.5))
    assert {y for _, y in middle} == {0.0}


def test_a_pole_is_no_line():
    left, right = pieces(plot(reciprocal))
    assert left[-1][1] < 0 < right[0][1]
    assert all(x < 0 for x, _ in left) and all(x > 0 for x, _ in right)


def test_a_steep_curve_is_one():
    (line,) = pieces(plot("softplus:beta=1000", derivative=True), panel=1)
    assert line[0][1] == pytest.approx(0.0) and line[-1][1] == pytest.approx(1.0)


@pytest.mark.parametrize(
    ("names", "ends"),
    [
        (["relu", "gelu"], (-6, 6)),
        (["relu6"], (-6, 8)),
        ([shrink], (-6, 6)),
        (["softplus:threshold=20"], (-6, 6)),
        ([limited], (-6, 10)),
        ([square], (-6, 6)),
        ([tower], (-6, 6)),
        ([capped], (-48, 48)),
        ([capped, "relu6"], (-48, 48)),
        ([far], (-6, 1200)),
        (["sqrt_softplus"], (-6, 6)),
        ([logarithm], (-6, 6)),
    ],
)
def test_as_far_as_something_happens(names, ends):
    drawn = plot(*names)
    assert (drawn.low, drawn.high) == ends


def test_what_blows_up_does_not_flatten_the_others():
    drawn = plot(square, tower, "tanh", derivative=True)
    assert drawn.panels[0].high < 10 and drawn.panels[1].high < 3
    assert drawn.panels[0].notes[0] == "square leaves the plot: 36 at −6"
    alone = plot(square)
    assert alone.panels[0].high > 36 and alone.panels[0].notes == ()
    (line,) = pieces(alone)
    assert line[0] == (-6.0, 36.0)


def test_levels_and_nothing_at_all():
    drawn = plot(constant, "identity", range=(-1, 1))
    assert drawn.panels[0].notes == ("constant leaves the plot: 1.00e+20 at −1",)
    (line,) = pieces(plot(constant))
    assert {y for _, y in line} == {1e20}
    nowhere = plot(logarithm, range=(-3, -1))
    assert nowhere.panels[0].notes == ("logarithm has no finite value here",)
    assert pieces(nowhere) == []


def test_a_gated_one_is_drawn_over_its_gate():
    (curve,) = plot("swiglu").curves
    assert np.array_equal(curve.values[0], softknee.get("silu").value(curve.x))


def test_each_once_and_not_too_many():
    assert [c.label for c in plot("gelu", "gelu_erf", "relu").curves] == ["gelu", "relu"]
    names = [a.name for a in DRAWABLE[: MOST + 1]]
    assert len(plot(*names[:MOST]).curves) == MOST
    with pytest.raises(InputError, match="1 to 8 activations, got 9"):
        plot(*names)
    with pytest.raises(InputError, match="got 0"):
        plot()


@pytest.mark.parametrize("normalizer", [share, "softmax", "softmax:temperature=2"])
def test_a_normalizer_has_no_curve(normalizer):
    with pytest.raises(InputError, match="it is a normalizer"):
        plot("relu", normalizer)


@pytest.mark.parametrize(
    "ends", [(1, 1), (2, 1), (math.nan, 1), (0, math.nan), (0, math.inf), (1, 1 + 1e-12), (0,), 3, ("a", 1), ()]
)
def test_a_range_that_is_none(ends):
    with pytest.raises(InputError, match="range must be two numbers, the lower first"):
        plot("relu", range=ends)


@pytest.mark.parametrize("ends", [(-1e-9, 1e-9), (1e6, 1e6 + 1), (-1e90, 1e90), (5, 6), (-1, 0)])
def test_a_range_of_any_size(ends):
    drawn = plot("gelu", "relu", shrink, range=ends, derivative=True)
    assert all(pieces(drawn, i, k) for i in range(3) for k in range(2))
    x = drawn.curves[0].x
    assert x[0] == ends[0] and x[-1] == ends[1]


def test_json_is_the_points():
    told = json.loads(dumps(plot(shrink, "elu:alpha=2", derivative=True)))
    assert told["range"] == [-6.0, 6.0]
    first, second = told["curves"]
    assert first["name"] == "shrink" and second["parameters"] == {"alpha": 2.0}
    assert len(first["x"]) == len(first["value"]) == len(first["derivative"])
    at = dict(zip(first["x"], first["value"], strict=True))
    assert at[-6.0] == -6.0 and at[0.0] == 0.0 and at[0.5] is None
    assert "derivative" not in json.loads(dumps(plot("elu")))["curves"][0]
