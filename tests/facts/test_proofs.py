"""Bisection shows what is so, and nothing else: planted wrong claims fail, hard functions stay undecided."""

from __future__ import annotations

import functools
import math

import numpy as np
import pytest

import softknee
from softknee.expression import constant, symbol
from softknee.facts import Facts, Interval, facts
from softknee.facts.pieces import Piece, bound, split
from softknee.facts.proofs import REACH, isolate


def pieces(activation):
    return split(*bound(activation, activation.defaults))[0]


def test_a_bound_is_shown_and_a_lower_one_is_not():
    (silu,) = pieces(softknee.get("silu"))
    lowest = -0.278464542761073795
    assert silu.bounded(-lowest + 1e-12, sign=-1)
    assert not silu.bounded(-lowest - 1e-12, sign=-1)
    assert silu.bounded(1.09983932012887, order=1) and not silu.bounded(1.0998393201, order=1)
    assert silu.bounded(1e-3, within=(-math.inf, -9.2), sign=-1) and not silu.bounded(
        1e-3, within=(-9.1, -9.0), sign=-1
    )


def test_roots_are_all_found_or_it_is_said():
    @softknee.elementwise
    def quintic(x, ops):
        return (x - 0.1) * (x + 2.0) * (x - 3.0) * (x - 3.0) * (x - 60000.0)

    @softknee.elementwise
    def nearly(x, ops):
        return x * x + 1e-9

    assert quintic.facts.roots == pytest.approx((-2.0, 0.1, 3.0, 60000.0), rel=1e-14)
    assert nearly.facts.roots == ()
    assert softknee.get("tanhshrink").facts.roots == (0.0,), "of third order"

    @softknee.elementwise
    def touching(x, ops):
        return (x * x - 2.0) * (x * x - 2.0)

    assert touching.facts.roots is None, "a double root at no float: two, one or none cannot be told apart"
    assert touching.facts.range == (pytest.approx(0.0, abs=1e-12), math.inf)

    @softknee.elementwise
    def wave(x, ops):
        return ops.sin(x)

    assert wave.facts.roots is None and wave.facts.limits == (None, None), "too many to count; no limit"
    assert wave.facts.range == Interval(-1.0, 1.0) and wave.facts.lipschitz == 1.0
    assert (wave.facts.parity, wave.facts.monotonicity, wave.facts.convexity) == ("odd", "none", "none")


def test_no_root_is_lost_on_random_polynomials():
    rng = np.random.default_rng(1)
    for _ in range(20):
        wanted = np.sort(rng.normal(0, 3, 4))
        expression = functools.reduce(lambda a, b: a * b, (symbol("x") - constant(r) for r in wanted.tolist()))
        piece = Piece(-math.inf, math.inf, expression)
        found, complete = isolate(piece.enclose, -math.inf, math.inf)
        assert complete and found == pytest.approx(wanted.tolist(), rel=1e-11, abs=1e-11)


def test_planted_wrong_facts_are_refused():
    """A candidate that is not the extremum is refused by the proof, whatever found it."""
    for name, wrong in (("gelu", -0.16), ("mish", -0.3088), ("hardswish", -0.3749)):
        found = facts(softknee.get(name))
        assert all(piece.bounded(-found.range.low + 1e-9, -1) for piece in found._pieces)
        assert not all(piece.bounded(-wrong, -1) for piece in found._pieces), name

    found = Facts(softknee.get("gelu"), {}, cache=False)
    found.__dict__["_turns"] = [3.0, -2.0]  # as if the minimum had been missed
    assert found.range is None and found.minimum is None, "unknown, not wrong"


@pytest.mark.parametrize(
    ("limits", "told"),
    [((0.0, math.inf), (0.0, math.inf)), ((0.1, math.inf), (None, math.inf)), ((0.0, 5.0), (0.0, None))],
)
def test_declared_limits_must_fit(limits, told):
    @softknee.elementwise(limits=limits)
    def mine(x, ops):
        return x * ops.sigmoid(x)

    assert mine.facts.limits == told

    @softknee.elementwise(limits=(-math.inf, 1.0))
    def wave(x, ops):
        return 2.0 * ops.sin(x)

    assert wave.facts.limits == (None, 1.0), "what the numbers do not contradict is taken as declared"


def test_conditions_without_end_leave_facts_unknown():
    @softknee.elementwise
    def rectified(x, ops):
        return ops.abs(ops.sin(x))

    found = rectified.facts
    assert found.breakpoints is None and found.smoothness is None and found.dead is None and found.lipschitz is None
    assert found.range == Interval(0.0, 1.0) and found.monotonicity == "none"
    assert found.second_moment == pytest.approx((1 - math.exp(-2)) / 2, rel=1e-9)
    found.to_dict()


def test_a_function_with_a_pole():
    @softknee.elementwise
    def reciprocal(x, ops):
        return 1.0 / x

    found = reciprocal.facts
    assert found.range == Interval(-math.inf, math.inf) and math.isinf(found.largest_derivative.value)
    assert found.roots == () and found.limits == (0.0, 0.0) and math.isnan(found.second_moment)


def test_far_breakpoints_and_reach():
    @softknee.elementwise
    def capped(x, ops):
        return ops.minimum(ops.maximum(x, -1e30), 1e35)

    assert capped.facts.breakpoints == (-1e30, 1e35) and REACH > 3e38
    assert capped.facts.range == Interval(-1e30, 1e35) and capped.facts.limits == (-1e30, 1e35)


def test_a_formula_that_is_not_defined_at_its_breakpoint():
    @softknee.elementwise
    def power(x, ops):
        return ops.where(x > 0.0, ops.exp(2.5 * ops.log(ops.where(x > 0.0, x, 1.0))), 0.0)

    assert power.facts.smoothness is None or power.facts.smoothness == ((0.0, 2),), "unknown, but no jump"
    assert power.facts.monotonicity in ("increasing", None) and power.facts.range == Interval(0.0, math.inf)

    @softknee.elementwise
    def jumping(x, ops):
        return ops.where(x > 0.0, ops.log(ops.where(x > 0.0, x, 1.0)), 0.0)

    assert jumping.facts.smoothness == ((0.0, -1),) and jumping.facts.lipschitz == math.inf


def test_a_root_within_rounding_of_a_breakpoint():
    @softknee.elementwise
    def hard(x, ops):
        return ops.minimum(ops.maximum(0.2 * x + 0.5, 0.0), 1.0)

    assert hard.facts.roots == () and hard.facts.dead[0].high == pytest.approx(-2.5)
