"""Definitions given as text: what they mean, and that nothing else is read, let alone run."""

import sys

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

import softknee
from softknee.errors import InputError

X = np.linspace(-4, 4, 41)


@pytest.mark.parametrize(
    ("text", "name", "parameters"),
    [
        ("x * sigmoid(x)", "silu", {}),
        ("x*tanh(softplus(x))", "mish", {}),
        ("x if x > 0 else 0.01 * x", "leaky_relu", {}),
        ("where(x > 0, x, slope * x); slope = 0.2", "leaky_relu", {"negative_slope": 0.2}),
        ("max(x, 0)**2", "relu2", {}),
        ("min(max(x, -1), 1)", "hardtanh", {}),
        ("x * (1 + erf(x / sqrt(2))) / 2", "gelu", {}),
        ("0.5*x*(1 + tanh(sqrt(2/pi)*(x + 0.044715*x**3)))", "gelu_tanh", {}),
        ("gate * sigmoid(gate) * up", "swiglu", {}),
    ],
)
def test_it_is_the_function(text, name, parameters):
    written, entry = softknee.define(text), softknee.get(name)
    inputs = [X] if len(entry.inputs) == 1 else [X, X[::-1].copy()]
    assert written.inputs == entry.inputs
    for order in (0, 1):
        found = written.derivative(*inputs, order=order)
        np.testing.assert_allclose(found, entry.derivative(*inputs, order=order, **parameters), rtol=1e-9, atol=1e-12)


def test_it_is_an_activation_like_any_other():
    mine = softknee.define("x * sigmoid(beta * x)", "mine", beta=1.702)
    x = torch.linspace(-3, 3, 9, dtype=torch.float64, requires_grad=True)
    (slope,) = torch.autograd.grad(mine(x).sum(), x)
    np.testing.assert_allclose(slope, softknee.get("quick_gelu").derivative(x.detach().numpy()), rtol=1e-12)
    assert mine.name == "mine" and mine.defaults == {"beta": 1.702}
    assert mine(x, beta=0.0).tolist() == pytest.approx((x / 2).tolist())
    assert mine.module()(x).shape == x.shape
    assert mine.facts.minimum is not None
    named_like_an_entry = softknee.define("2 * x", "silu")
    assert named_like_an_entry(torch.ones(3)).tolist() == [2.0, 2.0, 2.0]  # not the entry's kernel


ATTACKS = [
    "__import__('os').system('true')", "x.__class__", "().__class__.__bases__[0]", "open('f')", "eval('1')",
    "exec('1')",
    "(lambda: x)()", "[x for x in (1,)]", "x if __import__ else x", "f'{x}'", "x := 1", "x; import os", "import os",
    "getattr(x, 'y')", "sigmoid(x, __name__)", "sigmoid(*x)", "sigmoid(x=x)", "exp.__globals__", "ops.exp(x)",
    "x[0]", "{x}", "{}", "x and 1", "not x", "x == 1", "1 < x < 2", "x @ x", "x // 2", "x % 2", "x << 2", "x | 1", "~x",
    "x ** 999", "x ** 0.5", "x ** x", "x ** True", "9**9**9**9 * x", "1e999 * x", "1" + "0" * 400 + " * x", "x * 'a'",
    "x * 1j", "x * None", "x * True", "", "   ", "x +", "x\x00", "(" * 500 + "x" + ")" * 500, "-" * 900 + "x",
    "+".join("x" * 300),
    "x" * 2000, "y * x", "tan(x)", "relu(x)", "sigmoid", "where(x, 1, 2)", "where(x > 0, 1)", "x > 0", "gate * x",
    "3.0", "x / 0 * 0 + 1 / 0", "x; beta", "x; beta = b", "x; beta = 1", "x; gate = 1", "await x", "yield x", "x\n= 1",
    "x: int", "lambda: x", "...", "*x", "x,", "(x, x)", "x if x else 1", "max(x)", "pi(x)", "x()", "x(x)",
]  # fmt: skip


@pytest.mark.parametrize("text", ATTACKS, ids=range(len(ATTACKS)))
def test_everything_else_is_refused_in_one_line(text):
    before = set(sys.modules)
    with pytest.raises(InputError) as caught:
        softknee.define(text)
    assert "\n" not in str(caught.value) and len(str(caught.value)) < 2 * len(text) + 400
    assert not {m for m in set(sys.modules) - before if m in ("os.path", "subprocess", "ctypes.util")}


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("x * sigmod(x)", "column 5: there is no function 'sigmod'; did you mean 'sigmoid'"),
        ("x * sigmoid", "sigmoid is a function"),
        ("bta * x; beta = 1", "'bta' is neither x, .* did you mean 'beta'"),
        ("x ** 0.5", "a power is a whole number from 1 to 16"),
        ("maximum(x)", "maximum takes 2 arguments, got 1"),
        ("x; beta = 1", "has no beta"),
    ],
)
def test_the_message_says_what_would_be_right(text, message):
    with pytest.raises(InputError, match=message):
        softknee.define(text)


def test_other_arguments():
    with pytest.raises(InputError, match="must be text, got int"):
        softknee.define(3)
    with pytest.raises(InputError, match="must be an identifier"):
        softknee.define("x", "two words")
    with pytest.raises(InputError, match="cannot be named 'input'"):
        softknee.define("x * input", input=1.0)


@settings(max_examples=300, deadline=None)
@given(st.text(alphabet="xgateup()+-*/<>=.,;0159 eisgmodtanhwr_[]'\"\\:\n{}@&|", max_size=60))
def test_any_text_is_a_definition_or_an_input_error(text):
    try:
        activation = softknee.define(text)
    except InputError:
        return
    assert activation.kind in ("elementwise", "gated")


def test_on_the_command_line(capsys):
    from softknee.cli import main

    with pytest.raises(SystemExit) as left:
        main(["show", "x * sigmoid(1.702 * x)", "quick_gelu"])
    assert left.value.code == 0
    assert "custom" in capsys.readouterr().out
    with pytest.raises(SystemExit) as left:
        main(["show", "x * sigmod(x)"])
    assert left.value.code == 2
    assert "did you mean 'sigmoid'" in capsys.readouterr().err
