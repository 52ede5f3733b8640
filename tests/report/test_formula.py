"""Formulas: what is printed is the function, for whatever is in the catalog."""

from __future__ import annotations

import math
import re

import pytest
from scipy import special
from unusual import UNUSUAL, share

import softknee
from softknee.catalog.spec import normalizer
from softknee.report.formula import LONGEST, formula


class Root:
    """√ as Python can read it: `root**u`, which binds as tightly."""

    def __pow__(self, value):
        return math.sqrt(value)


NAMES = ("exp", "log", "sin", "cos", "atan", "tanh", "erf", "erfc", "e")
SCOPE = {name: getattr(math, name) for name in NAMES} | {
    "σ": special.expit, "softplus": lambda x: math.log1p(math.exp(x)), "π": math.pi, "root": Root(), "noise": 0.5,
    "deviate": 0.0,
    "max": max, "min": min, "abs": abs, "sech2": lambda x: math.cosh(x) ** -2, "__builtins__": {},
}  # fmt: skip
RAISED = str.maketrans("⁻⁰¹²³⁴⁵⁶⁷⁸⁹ˣ", "-0123456789x")


def python(text: str) -> str:
    for sign, read in {"sech²": "sech2", "·": "*", "−": "-", "∞": "1e999", "≤": "<=", "≥": ">=", "√": "root**"}.items():
        text = text.replace(sign, read)
    text = re.sub(r"\|([^|]+)\|", r"abs(\1)", text)
    return re.sub(r"[⁻⁰¹²³⁴⁵⁶⁷⁸⁹ˣ]+", lambda raised: f"**({raised[0].translate(RAISED)})", text)


def agrees(activation: softknee.Activation) -> None:
    text = formula(activation)
    assert text is not None
    code = compile(python(text), activation.name, "eval")
    for x in (-8.3, -2.9, -1.0, -0.3, 1e-3, 0.4, 1.0, 2.2, 6.5):
        inputs = dict(zip(activation.inputs, (x, 0.7), strict=False))
        try:
            read = eval(code, SCOPE, {**activation.defaults, **inputs})
        except (ValueError, ZeroDivisionError, OverflowError):
            read = math.nan
        known = float(activation.value(*inputs.values()))
        if math.isfinite(known):
            # constants are printed to six digits
            assert read == pytest.approx(known, rel=1e-5, abs=1e-6), (text, x)


@pytest.mark.parametrize("activation", [a for a in softknee.activations() if a.kind != "normalizer"], ids=str)
def test_what_is_printed_is_the_function(activation):
    agrees(activation)


@pytest.mark.parametrize("activation", UNUSUAL, ids=str)
def test_of_a_user_too(activation):
    agrees(activation)


def define(body):
    @softknee.elementwise
    def made(x, ops, *, alpha=1.5):
        return body(x, ops, alpha)

    return made


@pytest.mark.parametrize(
    ("body", "text"),
    [
        (lambda x, ops, a: x - (a - x), "x − (alpha − x)"),
        (lambda x, ops, a: x - (a + x), "x − (alpha + x)"),
        (lambda x, ops, a: x - (-x), "x − (−x)"),
        (lambda x, ops, a: x + (-x), "x − x"),
        (lambda x, ops, a: x + -2.5, "x − 2.5"),
        (lambda x, ops, a: (-x) * x, "−x²"),
        (lambda x, ops, a: (-(x + a)) * a, "−(x + alpha)·alpha"),
        (lambda x, ops, a: -(x - a), "−(x − alpha)"),
        (lambda x, ops, a: x / (a * x), "x/(alpha·x)"),
        (lambda x, ops, a: x / (a / x), "x/(alpha/x)"),
        (lambda x, ops, a: x / a / x, "x/alpha/x"),
        (lambda x, ops, a: a * (x / a), "alpha·(x/alpha)"),
        (lambda x, ops, a: (x + a) ** 3 * x, "(x + alpha)³·x"),
        (lambda x, ops, a: ops.sqrt(x * x) * ops.sqrt(x * x), "(√(x²))²"),
        (lambda x, ops, a: ops.exp(-x) + ops.exp(-x * x), "e⁻ˣ + exp(−x²)"),
        (lambda x, ops, a: a * ops.expm1(x), "alpha·(eˣ − 1)"),
        (lambda x, ops, a: ops.where(ops.where(x > 0, x, a) > 0, x, a), "x if (x if x > 0 else alpha) > 0 else alpha"),
        (lambda x, ops, a: ops.where(x > 0, ops.where(x > 1, x, a), a), "(x if x > 1 else alpha) if x > 0 else alpha"),
        (lambda x, ops, a: ops.where(x > 0, x, a) * x, "(x if x > 0 else alpha)·x"),
        (lambda x, ops, a: x * 1e-6 + math.inf, "x·1e−06 + ∞"),
    ],
)
def test_brackets_stand_where_they_are_needed_and_nowhere_else(body, text):
    activation = define(body)
    assert formula(activation) == text
    agrees(activation)


def test_what_cannot_be_written_is_left_out():
    @softknee.elementwise
    def doubling(x, ops):
        for _ in range(40):
            x = ops.sin(x) + x
        return x

    @normalizer(lambda x, dim: x)
    def ranked(x, ops):
        return x.argsort()

    assert formula(doubling) is None, "2⁴⁰ letters"
    assert formula(ranked) is None
    assert formula(share) == "x/Σ(x)"
    assert all(len(formula(a) or "") <= LONGEST for a in softknee.activations())
