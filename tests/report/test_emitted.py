"""The code shown is the code that computes: run as text it agrees with the activation, and every entry has its own."""

from __future__ import annotations

import ast

import numpy as np
import pytest
import torch

import softknee
from softknee.errors import InputError
from softknee.report import Choice, code
from softknee.report.emitted import BACKENDS, STRAIGHT, available

X = np.linspace(-5, 5, 41)


def run(text):
    names = {}
    exec(compile(text, "shown", "exec"), names)
    return names


def columns(function, *inputs):
    """A scalar function over arrays."""
    return np.array([float(function(*each)) for each in zip(*(x.tolist() for x in inputs), strict=True)])


def jax_array(x):
    import jax

    return jax.numpy.asarray(x, dtype="float32")


@pytest.mark.parametrize("backend", STRAIGHT)
@pytest.mark.parametrize("what", ["mish", "elu:alpha=0.5", "swiglu", "x * sigmoid(b * x); b = 2"])
def test_what_is_shown_computes_f_and_its_derivatives(backend, what):
    pytest.importorskip(backend)
    activation = Choice.of(what).activation.at(**Choice.of(what).parameters)
    names, values = run(code(what, backend)), tuple(activation.defaults.values())
    inputs = [X, X[::-1].copy()][: len(activation.inputs)]
    tolerance = 2e-6 if backend == "jax" else 1e-12  # float32
    expected = {activation.name: activation.value(*inputs)}
    expected |= {f"{activation.name}_d{name}": activation.derivative(*inputs, wrt=name) for name in activation.inputs}
    for word, wanted in expected.items():

        def function(*given, called=names[word]):
            return called(names["ops"], *given, *values)

        if backend == "mpmath":
            found = columns(function, *inputs)
        else:
            convert = {"torch": torch.from_numpy, "jax": jax_array}.get(backend, np.asarray)
            found = np.asarray(function(*map(convert, inputs)))
        np.testing.assert_allclose(np.broadcast_to(found, X.shape), wanted, rtol=tolerance, atol=tolerance)


def test_every_entry_has_code():
    for activation in softknee.activations():
        found = available(activation)
        if activation.kind == "normalizer":
            assert set(found) >= {"definition", "latex"} and not set(found) & set(STRAIGHT)
        else:
            assert set(found) >= set(BACKENDS) - {"triton", "cpp"}
        assert f"def {activation.formula.__name__}(" in code(activation, "definition")
        for backend in set(found) & {"definition", "numpy", "triton"}:
            ast.parse(code(activation, backend))


def test_sympy_reads_it_back():
    sympy = pytest.importorskip("sympy")
    x, beta = sympy.Symbol("x", real=True), sympy.Symbol("beta", real=True)
    read = sympy.sympify(code("swish", "sympy"), {"x": x, "beta": beta})
    assert sympy.simplify(read - x / (1 + sympy.exp(-beta * x))) == 0
    assert "sigma" not in code("swiglu", "sympy") and "softplus" not in code("mish", "sympy")


def test_the_kernels():
    text = code("elu:alpha=0.5", "triton")
    assert text.count("@triton.jit") == 2 and "def forward(" in text and "def backward(" in text
    assert text.endswith("# the arguments _u…, of the parameters: 0.5, 0.0")
    assert "struct mish {" in code("mish", "cpp") and "backward(" in code("mish", "cpp")


def test_onnx_as_text():
    pytest.importorskip("onnx")
    assert "silu (x) => (y)" in code("silu", "onnx")
    assert "leaky_relu_negative_slope_0.2" in code("leaky_relu:negative_slope=0.2", "onnx")


def test_of_ones_own():
    text = code(softknee.define("x * sigmoid(b * x); b = 2", name="steep"), "definition")
    assert run(f"import softknee\nmade = {text}")["made"].defaults == {"b": 2.0}
    assert "def " not in text and "struct steep {" in code(softknee.define("x * tanh(x)", name="steep"), "cpp")


@pytest.mark.parametrize(
    ("what", "backend", "message"),
    [
        ("mish", "tritn", "did you mean 'triton'"),
        (
            "softmax",
            "triton",
            "softmax has no code for triton: it reduces over a dimension.* there is definition, latex",
        ),
        ("gumbel_softmax", "onnx", "it draws noise at every call"),
        ("mich", "triton", "did you mean 'mish'"),
    ],
)
def test_what_there_is_not_is_said(what, backend, message):
    with pytest.raises(InputError, match=message):
        code(what, backend)
