"""Keras files and JSON: names, layers that are activations, nested models; code is never run."""

from __future__ import annotations

import json

import pytest

import softknee
from softknee.identification.formats import keras

FLAT = {
    "first#0": "gelu",
    "leaky#0": "leaky_relu(negative_slope=0.3)",
    "leakier#0": "leaky_relu(negative_slope=0.1)",
    "six#0": "relu6",
    "two#0": "hardtanh(min_val=0, max_val=2)",
    "odd#0": "unknown",
    "object#0": "elu(alpha=0.5)",
    "learned#0": "prelu",
    "hard#0": "hardsigmoid",
    "last#0": "softmax(temperature=1)",
}


@pytest.mark.parametrize("name", ["flat.keras", "flat.json"])
def test_a_sequential_model_that_keras_saved(keras_files, name):
    census = softknee.identify(keras_files / name)
    assert {site.key: site.name for site in census} == FLAT
    assert {site.evidence for site in census} == {"declared"} and not census.executed
    assert census["last#0"].role == "head" and census["first#0"].dtype == "float32"
    assert "negative_slope=0.1" in census["odd#0"].note


def test_a_functional_model_with_one_inside_and_code_in_it(keras_files):
    census = softknee.identify(keras_files / "nested.keras")
    found = {site.key: site.name for site in census}
    assert found == {
        "both.forward_lstm#0": "sigmoid", "both.forward_lstm#1": "tanh",
        "both.backward_lstm#0": "sigmoid", "both.backward_lstm#1": "tanh",
        "inner.dense#0": "silu", "yes#0": "sigmoid", "own#0": "unknown",
    }  # fmt: skip
    assert census["both.forward_lstm#0"].role == "gate" and census["yes#0"].role == "head"
    assert "not run" in census["own#0"].note


def layer(kind, **config):
    return {"class_name": kind, "config": {"name": kind.lower(), **config}}


def model(*layers, **more):
    return {"class_name": "Sequential", "config": {"name": "m", "layers": list(layers)}, **more}


@pytest.mark.parametrize(
    ("value", "expected"),
    [
        ("gelu", "gelu"), ("swish", "silu"), ("leaky_relu", "leaky_relu(negative_slope=0.2)"), ("nonsense", "unknown"),
        ({"class_name": "function", "config": "silu", "module": "keras.activations"}, "silu"),
        ({"class_name": "function", "config": "gelu", "module": "my.code"}, "unknown"),
        ({"class_name": "LeakyReLU", "config": {"alpha": 0.25}}, "leaky_relu(negative_slope=0.25)"),
        ({"class_name": "ReLU", "config": {"threshold": 1.5}}, "thresholded_relu(threshold=1.5)"),
        ({"class_name": "Activation", "config": {"activation": "mish"}}, "mish"),
        ({"class_name": "__lambda__", "config": {"value": "AAAA"}}, "unknown"), (7, "unknown"), ([], "unknown"),
    ],
)  # fmt: skip
def test_ways_to_write_an_activation(value, expected):
    (site,) = keras.from_config(model(layer("Dense", activation=value)))
    assert site.name == expected


def test_a_lambda_layer_is_unknown_and_linear_is_none():
    census = keras.from_config(
        model(layer("Lambda", function={"class_name": "__lambda__"}), layer("Dense", activation="linear"))
    )
    assert [site.name for site in census] == ["unknown"] and "not run" in census[0].note


def test_keras_2_meant_another_hard_sigmoid():
    (new,) = keras.from_config(model(layer("Dense", activation="hard_sigmoid")), "3.1.0")
    (old,) = keras.from_config(model(layer("Dense", activation="hard_sigmoid")), "2.15.0")
    assert new.activation == "hardsigmoid" and old.activation != new.activation


def test_attention_wrappers_and_half_precision():
    inside = layer("TimeDistributed", layer=layer("Dense", activation="relu"))
    census = keras.from_config(model(layer("MultiHeadAttention", dtype={"config": {"name": "mixed_float16"}}), inside))
    assert [(s.key, s.activation, s.role) for s in census] == [
        ("multiheadattention#0", "softmax", "attention"), ("timedistributed.dense#0", "relu", "head"),
    ]  # fmt: skip
    assert census[0].dtype == "float16"


def test_models_nested_too_deeply_are_refused():
    inner = model(layer("Dense", activation="relu"))
    for _ in range(60):
        inner = model(inner)
    with pytest.raises(softknee.errors.InputError, match="nested"):
        keras.from_config(json.loads(json.dumps(inner)))
