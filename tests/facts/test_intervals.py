"""An enclosure contains the value: on random expressions, of every primitive, against mpmath."""

from __future__ import annotations

import math

import hypothesis.strategies as st
import mpmath
import numpy as np
import pytest
from hypothesis import given, settings

from softknee.backends import table
from softknee.expression import Expr, constant, differentiate, symbol
from softknee.expression.graph import walk
from softknee.expression.tracing import UNARY
from softknee.facts.intervals import Enclosure, IntervalTable, evaluate
from softknee.facts.pieces import simplified

X = symbol("x")
NUMBERS = st.floats(-8, 8, allow_subnormal=False).map(lambda v: round(v, 3))


def grown(inner):
    unary = st.builds(Expr, st.sampled_from([op for op in UNARY if op != "erfc"]), inner)
    binary = st.builds(Expr, st.sampled_from(["add", "sub", "mul", "div", "maximum", "minimum"]), inner, inner)
    chosen = st.builds(
        lambda op, a, b, c, d: Expr("where", Expr(op, a, b), c, d),
        st.sampled_from(["lt", "le", "gt", "ge"]), inner, inner, inner, inner,
    )  # fmt: skip
    return st.one_of(unary, binary, chosen)


EXPRESSIONS = st.recursive(st.one_of(st.just(X), NUMBERS.map(constant)), grown, max_leaves=7)


def oracle(expression: Expr, x: float) -> mpmath.mpf | None:
    """The value to 60 digits, None where it is undefined or too large to matter."""
    ops, values = table("mpmath"), {}
    infix = {
        "add": lambda a, b: a + b, "sub": lambda a, b: a - b, "mul": lambda a, b: a * b, "div": lambda a, b: a / b,
        "lt": lambda a, b: a < b, "le": lambda a, b: a <= b, "gt": lambda a, b: a > b, "ge": lambda a, b: a >= b,
        "neg": lambda a: -a,
    }  # fmt: skip
    for node in walk(expression):
        args = [values[a] for a in node.args if isinstance(a, Expr)]
        if node.op == "symbol":
            value = mpmath.mpf(x)
        elif node.op == "constant":
            value = mpmath.mpf(node.args[0])
        elif node.op == "pi":
            value = +mpmath.pi
        else:
            try:
                value = (infix.get(node.op) or getattr(ops, node.op))(*args)
            except ZeroDivisionError:
                return None
        if not isinstance(value, bool) and (
            isinstance(value, mpmath.mpc) or not mpmath.isfinite(value) or abs(value) > 1e6
        ):
            return None
        values[node] = value
    return values[expression]


@settings(max_examples=400)
@given(EXPRESSIONS, st.floats(-30, 30), st.floats(0, 4), st.floats(0, 1))
def test_the_enclosure_contains_the_value(expression, low, width, share):
    x = min(low + share * width, low + width)
    with mpmath.workdps(60):
        for one in (expression, differentiate(expression, "x"), simplified(expression)):
            value = oracle(one, x)
            if value is None:
                continue
            for left, right in ((low, low + width), (x, x)):
                found = evaluate(one, left, right)
                assert float(found.low) <= value <= float(found.high), (one, left, right, value)
                assert not (found.nonzero and value == 0)


@pytest.mark.parametrize("op", UNARY)
def test_every_primitive_encloses_tightly(op):
    """SLACK is enough over the whole range, and no more than is needed: a thin interval stays thin."""
    rng = np.random.default_rng(0)
    x = np.concatenate([rng.normal(0, 2, 300), rng.normal(0, 20, 200), rng.uniform(-750, 750, 60), [0.0, 1e-300, 27.0]])
    if op in ("log", "sqrt"):
        x = np.abs(x)
    if op == "log1p":
        x = np.abs(x) - 0.999
    if op == "erfc":
        x = np.abs(x[np.abs(x) < 40])
    found = evaluate(Expr(op, X), x, x)
    with mpmath.workdps(40):
        for at, low, high in zip(x.tolist(), found.low, found.high, strict=True):
            if op == "sech2" and abs(at) > 1e3:
                continue
            if (op in ("exp", "expm1") and at > 700) or (op == "log" and at == 0):
                continue
            value = getattr(table("mpmath"), op)(mpmath.mpf(at))
            assert low <= value <= high, (op, at)
    narrow = np.abs(found.high) > 1e-280
    narrow &= np.isfinite(found.high) & np.isfinite(found.low)
    assert ((found.high - found.low)[narrow] <= 1e-12 * np.abs(found.high[narrow])).all()


def test_there_is_a_rule_for_every_primitive():
    for op in (*UNARY, "maximum", "minimum", "where"):
        assert callable(getattr(IntervalTable(), op)), op


def test_intervals_are_tight_where_they_can_be():
    square = evaluate(X * X, -1.0, 2.0)
    assert (square.low, square.high) == (0.0, 4.0), "x·x is a square, not a product of strangers"
    assert evaluate(X * constant(0.25), 3.0, 3.0).low == 0.75, "a power of two rounds nothing"
    wave = evaluate(Expr("sin", X), np.array([0.0, 1.0, 3.0]), np.array([1.0, 2.0, 40.0]))
    assert wave.high[1] == 1.0 and wave.high[0] < 0.8415 and (wave.low[2], wave.high[2]) == (-1.0, 1.0)


def test_limits_that_are_rounded_are_enclosed():
    found = evaluate(Expr("atan", X), 1.0, math.inf)
    with mpmath.workdps(400):
        assert float(found.low) <= mpmath.atan(mpmath.mpf("1e300")) <= float(found.high), "π/2 is above its float"
    assert evaluate(Expr("tanh", X), 1.0, math.inf).high == 1.0


def test_infinity_division_and_emptiness():
    assert evaluate(constant(1.0) / X, -1.0, 1.0).low == -math.inf
    assert evaluate(constant(1.0) / X, 0.0, 2.0).low == pytest.approx(0.5)
    assert np.isnan(evaluate(Expr("log", X), -2.0, -1.0).low)
    assert evaluate(Expr("log", X), -2.0, 1.0).low == -math.inf
    either = Expr("where", constant(0.0) < X, Expr("log", X), X)
    assert evaluate(either, -2.0, -1.0).high == -1.0, "what is empty is not taken"
    product = Enclosure.of(0.0, math.inf) * Enclosure.of(0.0, 0.0)
    assert (product.low, product.high) == (0.0, 0.0)
    tail = evaluate(X * Expr("sigmoid", X), -2000.0, -1000.0)
    assert tail.nonzero and tail.high == 0.0 and tail.low > -1e-300, "underflow hides no sign"


def test_a_wrong_rule_is_noticed(monkeypatch):
    """The test above would fail: an exponential that is too narrow by a part in 10¹² is outside the oracle's value."""
    wrong = staticmethod(lambda x: Enclosure.of(np.exp(x.low) * (1 + 1e-12), np.exp(x.high) * (1 + 1e-12)))
    monkeypatch.setattr(IntervalTable, "exp", wrong)
    found = evaluate(Expr("exp", X), 1.0, 1.0)
    with mpmath.workdps(40):
        assert not found.low <= mpmath.e <= found.high
