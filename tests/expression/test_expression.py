"""Interning, rules against finite differences for every primitive, emission and its tail products."""

from __future__ import annotations

import math

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from softknee.backends import table
from softknee.errors import InputError
from softknee.expression import compile_source, constant, differentiate, emit, symbol, symbols, trace
from softknee.expression.derivatives import UNARY_RULES
from softknee.expression.tracing import UNARY

NUMPY = table("numpy")


def code(expression, *names):
    return compile_source(emit([expression], "f", names), "f")


def test_equal_structure_is_the_same_object():
    x = symbol("x")
    assert (x * 2 + 1) is (symbol("x") * 2.0 + 1.0)
    assert constant(0.0) is not constant(-0.0)
    assert symbols(x * symbol("y") + x) == ("x", "y")
    with pytest.raises(AttributeError):
        x.op = "add"


def test_every_primitive_has_a_rule():
    assert set(UNARY) <= set(UNARY_RULES)


@pytest.mark.parametrize("name", UNARY)
def test_rule_against_differences(name):
    x = np.array([0.31, 0.77, 1.9])
    expression = trace(lambda x, ops: getattr(ops, name)(x), ("x",))
    for order in (1, 2):
        lower = code(differentiate(expression, "x", order - 1), "x")
        h = 1e-6
        differences = (lower(NUMPY, x + h) - lower(NUMPY, x - h)) / (2 * h)
        assert np.allclose(code(differentiate(expression, "x", order), "x")(NUMPY, x), differences, atol=1e-8)


@given(st.recursive(st.sampled_from(["x", "a"]), lambda inner: st.tuples(st.sampled_from("+-*/"), inner, inner)))
def test_random_trees_evaluate_as_python_does(tree):
    def build(node, leaves):
        if isinstance(node, str):
            return leaves[node]
        op, a, b = node[0], build(node[1], leaves), build(node[2], leaves)
        return {"+": lambda: a + b, "-": lambda: a - b, "*": lambda: a * b, "/": lambda: a / b}[op]()

    leaves = {"x": np.float64(1.37), "a": np.float64(0.61)}
    with np.errstate(all="ignore"):
        wanted = build(tree, leaves)
        got = code(build(tree, {"x": symbol("x"), "a": symbol("a")}), "x", "a")(NUMPY, leaves["x"], leaves["a"])
    assert got == wanted or (math.isnan(got) and math.isnan(wanted))


def test_constants_fold_and_shared_parts_are_computed_once():
    source = emit([trace(lambda x, ops: ops.exp(x) / ops.sqrt(2.0 * ops.pi) + ops.exp(x), ("x",))], "f", ["x"])
    assert "sqrt" not in source
    assert source.count("ops.exp(") == 1


def test_a_decaying_factor_takes_its_coefficient():
    expression = trace(lambda x, ops: -3.0 * x * ops.exp(-x * x) / 7.0, ("x",))
    source = emit([expression], "f", ["x"])
    assert "exp_times" in source
    assert code(expression, "x")(NUMPY, np.float64(26.0)) == pytest.approx(-3 * 26 * math.exp(-676) / 7, rel=1e-12)


@pytest.mark.parametrize("name", ["exp", "sigmoid", "sech2", "erfc"])
def test_times_is_the_product(name):
    a, u = np.meshgrid([-7.0, 0.3, 1e5], [-20.0, -1.0, -0.1, 0.0, 0.2, 3.0, 20.0])
    product = a * getattr(NUMPY, name)(u)
    assert np.allclose(getattr(NUMPY, f"{name}_times")(a, u), product, rtol=1e-13, atol=0)


def test_times_keeps_the_tail_and_the_limit():
    assert NUMPY.exp_times(1e300, -1000.0) == pytest.approx(1e300 * math.exp(-500) * math.exp(-500), rel=1e-12)
    assert NUMPY.sigmoid_times(-math.inf, -math.inf) == 0
    assert NUMPY.sigmoid_times(math.inf, math.inf) == math.inf


def test_unknown_backend():
    with pytest.raises(InputError, match="did you mean 'numpy'"):
        table("nunpy")


def test_a_missing_primitive_is_named():
    with pytest.raises(NotImplementedError, match="sympy backend has no primitive 'amax'"):
        table("sympy").amax(1)
