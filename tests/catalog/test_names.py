"""Names per ecosystem: every one resolves, and where the library is installed, it computes the same."""

import importlib
import importlib.util
import os
import pickle
import sys
import types
from pathlib import Path

import numpy as np
import pytest
import torch

import softknee
from softknee.catalog import names
from softknee.errors import InputError

POINTS = np.concatenate([np.linspace(-9, 9, 181), [-3.0, 3.0, -2.5, 2.5, 0.0, 1.0, -1.0, 0.5, -0.5]])


def written(ecosystem):
    """Each name with its default arguments, and the activation that it is."""
    for meaning in names.meanings(ecosystem):
        yield meaning, softknee.get(meaning.entry).at(**meaning.resolved({}))


def same(one, other):
    """ONNX's Swish is silu, and swish at beta = 1."""
    if one.kind == "normalizer":
        return one is other
    np.testing.assert_allclose(one.value(*[POINTS] * len(one.inputs)), other.value(*[POINTS] * len(other.inputs)))
    return True


@pytest.mark.parametrize("ecosystem", names.ecosystems())
def test_every_name_resolves_and_comes_back(ecosystem):
    for meaning, activation in written(ecosystem):
        if not meaning.fixed:
            assert same(softknee.get(meaning.name, ecosystem=ecosystem), activation)
        back = activation.name_in(ecosystem)
        assert back is not None
        assert same(softknee.get(back, ecosystem=ecosystem), activation)


def test_one_name_means_different_functions():
    get = softknee.get
    assert get("gelu", ecosystem="torch") is softknee.get("gelu")
    assert get("gelu", ecosystem="jax") is get("gelu", ecosystem="keras.ops") is get("gelu_tanh")
    assert get("gelu", ecosystem="keras") is get("gelu")
    assert get("gelu", ecosystem="transformers.gemma") is get("gelu_tanh")
    assert get("swish", ecosystem="transformers") is get("silu")
    slopes = {("leaky_relu", "torch"): 0.01, ("leaky_relu", "keras"): 0.2, ("LeakyReLU", "keras"): 0.3}
    for (name, ecosystem), slope in slopes.items():
        assert get(name, ecosystem=ecosystem).defaults == {"negative_slope": slope}
    assert get("PReLU", ecosystem="keras").defaults == {"weight": 0.0}
    assert get("PReLU", ecosystem="torch").defaults == {"weight": 0.25}


def test_arguments_are_read_and_written():
    activation = softknee.get("LeakyRelu(alpha=0.3)", ecosystem="onnx")
    assert activation.defaults == {"negative_slope": 0.3}
    assert activation.name_in("onnx") == "LeakyRelu(alpha=0.3)"
    assert activation.name_in("jax") == "leaky_relu(negative_slope=0.3)"
    assert activation.name_in("transformers") is None  # its slope is 0.01, always
    gelu_tanh = softknee.get("gelu_tanh")
    assert gelu_tanh.name_in("onnx", opset=20) == "Gelu(approximate='tanh')"
    assert gelu_tanh.name_in("onnx", opset=19) is None
    assert softknee.get("silu").name_in("onnx", opset=24) == "Swish"
    assert softknee.get("swish").name_in("onnx", opset=24) == "Swish"  # beta is 1
    assert softknee.get("swish").at(beta=2.0).name_in("onnx") == "Swish(alpha=2.0)"


def test_an_activation_at_other_defaults():
    at = softknee.get("leaky_relu").at(negative_slope=0.2)
    x = torch.tensor([-1.0, 2.0], requires_grad=True)
    y = at(x)
    (slope,) = torch.autograd.grad(y.sum(), x)
    assert y.tolist() == pytest.approx([-0.2, 2.0])
    assert slope.tolist() == pytest.approx([0.2, 1.0])
    assert at.module()(x.detach()).tolist() == pytest.approx([-0.2, 2.0])
    assert at(x.detach(), negative_slope=0.5).tolist() == [-0.5, 2.0]
    assert softknee.get("leaky_relu").at(negative_slope=0.2) is at
    assert at.at(negative_slope=0.01) is not at
    assert softknee.get("leaky_relu").at(negative_slope=0.01) is softknee.get("leaky_relu")
    assert pickle.loads(pickle.dumps(at)) is at
    assert "0.2" in repr(at)
    with pytest.raises(InputError, match="taken"):
        softknee.register(at)
    with pytest.raises(InputError, match="a default must be a number"):
        at.at(negative_slope=torch.tensor(0.1))
    with pytest.raises(InputError, match="no parameter 'slope'"):
        at.at(slope=0.1)


@pytest.mark.parametrize(
    ("name", "ecosystem", "message"),
    [
        ("gelu", "jaxx", "did you mean 'jax'"),
        ("gelo", "jax", "did you mean 'gelu'"),
        ("gelu(approximate=3)", "jax", "known as gelu, gelu"),
        ("gelu(", "jax", "in brackets"),
        ("gelu(x)", "jax", "word=value"),
        ("LeakyRelu(alpha=0.3, beta=1)", "onnx", "known as LeakyRelu"),
    ],
)
def test_what_is_not_known_is_said(name, ecosystem, message):
    with pytest.raises(InputError, match=message):
        softknee.get(name, ecosystem=ecosystem)


# --- what is installed is executed ----------------------------------------------------------------------------------


def agree(activation, theirs, tolerance=3e-6):
    """float32 of theirs against float64 of ours; gated ones take gate and up as halves, gate second as glu does."""
    ours = activation.value(*[POINTS] * len(activation.inputs))
    np.testing.assert_allclose(np.asarray(theirs, dtype=np.float64), ours, rtol=tolerance, atol=tolerance)


def test_transformers_computes_the_same():
    act2fn = pytest.importorskip("transformers.activations").ACT2FN
    assert set(act2fn) == {meaning.name for meaning in names.meanings("transformers")}
    for meaning, activation in written("transformers"):
        with torch.no_grad():
            found = act2fn[meaning.name](torch.from_numpy(POINTS).float())
        # xielu keeps its parameters in bfloat16
        agree(activation, found.float().numpy(), 2e-2 if meaning.name == "xielu" else 3e-6)


def test_jax_computes_the_same():
    nn = pytest.importorskip("jax.nn")
    for meaning, activation in written("jax"):
        function = getattr(nn, meaning.name)
        if activation.kind == "gated":
            agree(activation, function(np.concatenate([POINTS, POINTS]).astype(np.float32)))
        else:
            agree(activation, function(POINTS.astype(np.float32), **meaning.fixed))


@pytest.mark.parametrize("ecosystem", ["keras", "keras.ops"])
def test_keras_computes_the_same(ecosystem, monkeypatch):
    monkeypatch.setitem(os.environ, "KERAS_BACKEND", "torch")
    keras = pytest.importorskip("keras")
    place = keras.activations if ecosystem == "keras" else keras.ops
    for meaning, activation in written(ecosystem):
        x = torch.from_numpy(POINTS).float()
        if meaning.name[0].isupper():
            found = getattr(keras.layers, meaning.name)(**meaning.fixed)(x[None])[0]
        elif activation.kind == "gated":
            found = getattr(place, meaning.name)(torch.cat([x, x]))
        else:
            given = meaning.arguments if meaning.name == "threshold" else meaning.fixed  # it has no defaults
            found = getattr(place, meaning.name)(x, **given)
        if meaning.name == "sparsemax" and found.sum() == 0:
            continue  # Keras 3.15 sums the running sums of the support, and gives only zeros
        agree(activation, found.detach().numpy())


def test_onnx_computes_the_same():
    onnx = pytest.importorskip("onnx")
    from onnx.reference import ReferenceEvaluator

    latest = onnx.defs.onnx_opset_version()
    for meaning, activation in written("onnx"):
        versions = [s.since_version for s in onnx.defs.get_all_schemas_with_history() if s.name == meaning.name]
        assert min(versions) == meaning.since, meaning.name
        if latest < meaning.since or activation.kind == "gated":
            continue
        inputs = ["x", "slope"] if meaning.name == "PRelu" else ["x"]
        node = onnx.helper.make_node(meaning.name, inputs, ["y"], **meaning.fixed)
        values = [onnx.helper.make_tensor_value_info(n, onnx.TensorProto.FLOAT, None) for n in (*inputs, "y")]
        graph = onnx.helper.make_graph([node], "one", values[:-1], values[-1:])
        model = onnx.helper.make_model(graph, opset_imports=[onnx.helper.make_opsetid("", latest)])
        given = {"x": POINTS.astype(np.float32), "slope": np.array([0.25], dtype=np.float32)}
        (found,) = ReferenceEvaluator(model).run(None, {name: given[name] for name in inputs})
        agree(activation, found)


@pytest.fixture
def create_act(monkeypatch):
    """timm's module of that name and what it imports, without the packages above it, which need torchvision."""
    found = importlib.util.find_spec("timm")
    if found is None:
        pytest.skip("timm is not installed")
    package = types.ModuleType("timm_layers")
    package.__path__ = [str(Path(found.origin).parent / "layers")]
    monkeypatch.setitem(sys.modules, "timm_layers", package)
    return importlib.import_module("timm_layers.create_act")


def test_timm_computes_the_same(create_act):
    known = {meaning.name for meaning in names.meanings("timm")}
    assert {name for each in create_act._ACT_LAYERS for name in each} == known
    x = torch.from_numpy(POINTS).float()
    for meaning, activation in written("timm"):
        with torch.no_grad():
            agree(activation, create_act.create_act_layer(meaning.name)(x).numpy())
        for functions in create_act._ACT_FNS:  # the usual ones, and those that keep less for backward
            if meaning.name in functions:
                agree(activation, functions[meaning.name](x.clone().requires_grad_()).detach().numpy())


def test_an_executed_difference_is_found():
    with pytest.raises(AssertionError):
        agree(softknee.get("gelu"), softknee.get("gelu_tanh").value(POINTS))
