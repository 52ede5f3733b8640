"""ONNX: every entry as a function body, right to half a ULP of float32 in the reference evaluator."""

import numpy as np
import pytest

import softknee
from softknee.errors import InputError

onnx = pytest.importorskip("onnx")
from onnx.reference import ReferenceEvaluator  # noqa: E402

import softknee.onnx as SO  # noqa: E402

ENTRIES = [a for a in softknee.activations() if not (a.kind == "normalizer" and a.stochastic)]
ENDS = [-np.inf, np.inf, np.nan, -1e30, 1e30, 1e-30, -1e-30, 0.0]
POINTS = np.concatenate([np.linspace(-90, 90, 2001), np.linspace(-3, 3, 998), ENDS]).astype(np.float32)


def inputs_of(activation):
    if activation.kind == "gated":
        generator = np.random.default_rng(0)
        return [generator.normal(size=2000).astype(np.float32) * 3 for _ in activation.inputs]
    if activation.kind == "elementwise":
        return [POINTS]
    return [points.reshape(20, 100) / 9 for points in (POINTS[:2000], POINTS[1999::-1])[: len(activation.inputs)]]


def run(model, names, inputs):
    with np.errstate(all="ignore"):
        return ReferenceEvaluator(model).run(None, dict(zip(names, inputs, strict=True)))[0]


def ulps(found, exact):
    """The largest error where the exact value is a normal float32; infinity where one is NaN or ∞ and the other not."""
    with np.errstate(over="ignore", invalid="ignore"):
        single = exact.astype(np.float32)
        differ = (np.isnan(found) != np.isnan(single)) | (np.isinf(found) != np.isinf(single))
        normal = np.isfinite(single) & (np.abs(exact) >= 2.0**-126)
        error = np.abs(found.astype(np.float64) - exact) / np.spacing(np.abs(single)).astype(np.float64)
    return np.inf if differ.any() else error[normal].max()


@pytest.mark.parametrize("activation", ENTRIES, ids=lambda a: a.name)
def test_body(activation):
    inputs = inputs_of(activation)
    model = SO.model(activation, native=False)
    onnx.checker.check_model(model)
    found = run(model, activation.inputs, inputs)
    assert found.dtype == np.float32
    assert ulps(found, activation.value(*inputs)) <= 0.5001


def test_native_operators_are_taken_where_the_opset_has_them():
    def operators(**arguments):
        return [node.op_type for node in SO.model(**arguments).graph.node]

    assert operators(activation="gelu_tanh", opset=20) == ["Gelu"]
    assert operators(activation="gelu_tanh", opset=19) == ["gelu_tanh"]
    assert operators(activation="gelu_tanh", opset=20, native=False) == ["gelu_tanh"]
    assert operators(activation="leaky_relu", negative_slope=0.2) == ["LeakyRelu"]
    model = SO.model("leaky_relu", negative_slope=0.25)
    np.testing.assert_array_equal(run(model, ["x"], [np.float32([[-1, 2]])]), [[-0.25, 2.0]])


def test_parameters_are_in_the_body():
    model = SO.model("softcap", cap=5.0)
    assert model.functions[0].name == "softcap_cap_5"
    found = run(model, ["x"], [POINTS])
    assert ulps(found, softknee.get("softcap").value(POINTS, cap=5.0)) <= 0.5001


@pytest.mark.parametrize("kind", [np.float64, np.float16])
def test_other_types(kind):
    function = SO.function("gelu")
    x = np.linspace(-5, 5, 101).astype(kind)
    found = ReferenceEvaluator(function).run(None, {"x": x}, attributes={})[0]
    np.testing.assert_allclose(
        found, softknee.get("gelu").value(x).astype(kind), rtol=1e-13 if kind == np.float64 else 0
    )


# What ONNX Runtime 1.31 has in float64; of its operators in float32 alone a body may use none.
IN_DOUBLE = {
    "Abs", "Add", "And", "Cast", "CastLike", "Concat", "Constant", "Cos", "CumSum", "Div", "Equal", "Exp",
    "Greater", "GreaterOrEqual", "Less", "LessOrEqual", "Log", "Max", "Min", "Mul", "Neg", "ReduceMax", "ReduceSum",
    "Reshape", "Shape", "Sign", "Sin", "Sqrt", "Sub", "Tanh", "TopK", "Where",
}  # fmt: skip


def test_bodies_keep_to_what_runtimes_have_in_double():
    for activation in softknee.activations():
        if not (activation.kind == "normalizer" and activation.stochastic):
            used = {node.op_type for node in SO.function(activation).node}
            assert used <= IN_DOUBLE, f"{activation.name}: {used - IN_DOUBLE}"


@pytest.mark.parametrize("primitive", ["atan", "log1p"])
def test_what_has_no_operator_in_double_is_exact(primitive):
    activation = softknee.define(f"{primitive}(x)", name=primitive)
    x = np.concatenate([np.logspace(-300, 300, 601), np.linspace(0, 5, 501), [np.inf, -0.0]])
    x = x if primitive == "log1p" else np.concatenate([x, -x])
    x = np.concatenate([x, -x[x < 1]])
    (found,) = ReferenceEvaluator(SO.function(activation)).run(None, {"x": x}, attributes={})
    np.testing.assert_allclose(found, activation.value(x), rtol=4 * np.finfo(float).eps)  # π/4 + u cancels a little


def test_a_users_own():
    @softknee.elementwise
    def squared_sine(x, ops, *, period=2.0):
        """sin²(x/period)"""
        s = ops.sin(x / period)
        return s * s

    x = np.linspace(-3, 3, 50, dtype=np.float32)
    found = run(SO.model(squared_sine, period=3.0), ["x"], [x])
    assert ulps(found, squared_sine.value(x, period=3.0)) <= 0.5001


def test_bad_input_is_named():
    with pytest.raises(InputError, match="opset must be a whole number from 18 to"):
        SO.model("silu", opset=9)
    with pytest.raises(InputError, match="opset must be a whole number from 18 to"):
        SO.function("silu", opset=999)
    with pytest.raises(InputError, match="has no parameter"):
        SO.model("silu", slope=1.0)
    with pytest.raises(InputError, match="draws noise"):
        SO.function("gumbel_softmax")


def test_a_wrong_function_is_seen():
    wrong = run(SO.model("gelu_tanh", native=False), ["x"], [POINTS])
    assert ulps(wrong, softknee.get("gelu").value(POINTS)) > 1000
