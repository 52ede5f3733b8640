"""Interning, rules against finite differences for every primitive, emission and its tail products."""

from __future__ import annotations

import copy
import math
import pickle

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from softknee.backends import table
from softknee.backends.floats import unsteady
from softknee.backends.torch import Composite
from softknee.catalog import elementwise, gated
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


@pytest.mark.parametrize("name", ["v0", "v1", "float", "e"])
def test_a_parameter_may_have_any_plain_name(name):
    """Names that emitted code might use itself, and a literal infinity beside them."""
    names = {}
    exec(f"def f(x, ops, *, {name}=3.0): return ops.minimum(ops.tanh(2.0 * x) * {name}, float('inf')) + {name}", names)
    if name == "float":
        with pytest.raises(InputError, match="cannot be named 'float', which modules use"):
            elementwise(names["f"])
        return
    act = elementwise(names["f"])
    assert act(torch.tensor(1.0)).item() == pytest.approx(3 * math.tanh(2) + 3, rel=1e-6)
    assert act.value(1.0) == pytest.approx(3 * math.tanh(2) + 3)


def nameless():
    return elementwise(lambda x, ops: x)


def compares(x, ops):
    return x > 0


def calculates(x, ops):
    return (x > 0) * x


def unconditional(x, ops):
    return ops.where(x, x, 0.0)


def misspelt(x, ops):
    return ops.sigmiod(x)


def in_place(x, ops, *, inplace=1.0):
    return x * inplace


def training(x, ops, *, training=1.0):
    return x * training


def underscored(_x, ops):
    return _x


def true(x, ops, *, a=True):
    return x * a


def gate(a, b, ops, *, up=1.0):
    return a * b * up


@pytest.mark.parametrize(
    ("define", "message"),
    [
        (nameless, "<lambda> is none; define it with def"),
        (lambda: elementwise(compares), "'compares' cannot be traced: it returns a comparison"),
        (lambda: elementwise(calculates), "calculates with a comparison; write ops.where"),
        (lambda: elementwise(unconditional), "a condition that compares nothing"),
        (lambda: elementwise(misspelt), "the op table has no 'sigmiod'; did you mean 'sigmoid'"),
        (lambda: elementwise(in_place), "cannot be named 'inplace'"),
        (lambda: elementwise(training), "cannot be named 'training'"),
        (lambda: elementwise(underscored), "'_x' must not begin with an underscore"),
        (lambda: elementwise(true), "'a' needs a number as its default"),
        (lambda: gated(gate), "cannot be named 'up'"),
    ],
)
def test_a_definition_that_cannot_work_is_refused_where_it_stands(define, message):
    with pytest.raises((InputError, TypeError), match=message):
        define()


def test_what_is_defined_inside_a_function_says_so_when_pickled():
    @elementwise
    def inner(x, ops):
        return x * x

    assert copy.copy(inner) is inner and copy.deepcopy(inner) is inner
    with pytest.raises(pickle.PicklingError, match="'inner': it is defined inside a function"):
        pickle.dumps(inner)


def test_a_declared_slope_is_the_derivative():
    """By chain rule, by the declared variable only, at every order; the value is what it was."""
    expression = trace(lambda x, ops, *, a: ops.with_slope(a * x * x, x, 7.0 * x), ("x",), {"a": 1.0})
    assert code(expression, "x", "a")(NUMPY, 3.0, 2.0) == 18
    assert code(differentiate(expression, "x"), "x", "a")(NUMPY, 3.0, 2.0) == 21
    assert code(differentiate(expression, "x", 2), "x", "a")(NUMPY, 3.0, 2.0) == 7
    assert code(differentiate(expression, "a"), "x", "a")(NUMPY, 3.0, 2.0) == 9
    of_half = trace(lambda x, ops: ops.with_slope(ops.exp(0.5 * x), 0.5 * x, 2.0 * x), ("x",))
    assert code(differentiate(of_half, "x"), "x")(NUMPY, 3.0) == 3


@pytest.mark.parametrize(
    ("function", "wanted"),
    [
        (lambda x, ops: x * x, ()),  # 2x: ∞ at ∞, as it should be
        (lambda x, ops: x * ops.sigmoid(x), ()),  # exponents are applied last
        (lambda x, ops: x / ops.sqrt(1.0 + x * x), ("x",)),  # ∞/∞
    ],
)
def test_a_derivative_is_kept_from_overflow_where_it_would_be_nan(function, wanted):
    derived = differentiate(trace(function, ("x",)), "x")
    assert unsteady(derived, ("x",), (), ()) == wanted
    slope = compile_source(emit([derived], "f", ["x"], wanted), "f")
    with np.errstate(all="ignore"):
        assert not np.isnan(slope(NUMPY, np.array([-np.inf, -1.7e308, 1.7e308, np.inf]))).any()


def test_code_is_made_at_first_use():
    composite = Composite(trace(lambda x, ops: x * ops.tanh(x), ("x",)), ("x",), 1)
    assert composite._code is None
    x = torch.tensor(2.0, requires_grad=True)
    (slope,) = torch.autograd.grad(composite(x), x)
    assert slope.item() == pytest.approx(math.tanh(2) + 2 / math.cosh(2) ** 2)
