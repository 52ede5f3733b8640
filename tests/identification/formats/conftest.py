"""Keras files, saved once by keras itself."""

from __future__ import annotations

import importlib.util
import os
import subprocess
import sys
from pathlib import Path

import pytest

KERAS = """
import keras, sys
from keras import layers
flat = keras.Sequential([
    keras.Input((8,)), layers.Dense(4, activation="gelu", name="first"), layers.LeakyReLU(name="leaky"),
    layers.LeakyReLU(negative_slope=0.1, name="leakier"), layers.ReLU(max_value=6, name="six"),
    layers.ReLU(max_value=2, name="two"), layers.ReLU(negative_slope=0.1, max_value=2, name="odd"),
    layers.Dense(4, activation=layers.ELU(alpha=0.5), name="object"), layers.PReLU(name="learned"),
    layers.Dense(4, name="linear"), layers.Activation("hard_sigmoid", name="hard"),
    layers.Dense(3, activation="softmax", name="last"),
])
flat.save(sys.argv[1] + "/flat.keras")
open(sys.argv[1] + "/flat.json", "w").write(flat.to_json())
given = keras.Input((5, 8), name="given")
x = layers.Bidirectional(layers.LSTM(4), name="both")(given)
x = keras.Sequential([layers.Dense(4, activation="silu", name="dense")], name="inner")(x)
a = layers.Dense(1, activation="sigmoid", name="yes")(x)
b = layers.Dense(1, activation=lambda t: t * 2, name="own")(x)
keras.Model(given, [a, b]).save(sys.argv[1] + "/nested.keras")
"""


@pytest.fixture(scope="session")
def keras_files(tmp_path_factory) -> Path:
    """flat.keras, flat.json, nested.keras, saved by keras in a process of its own."""
    if importlib.util.find_spec("keras") is None:  # importing it here would settle its backend for every test
        pytest.skip("keras is not installed")
    folder = tmp_path_factory.mktemp("keras")
    script = folder / "make.py"  # a file, as keras looks for the source of a lambda
    script.write_text(KERAS)
    environment = os.environ | {"KERAS_BACKEND": "numpy"}  # the one that starts fastest
    subprocess.run([sys.executable, "-W", "ignore", script, folder], env=environment, check=True, timeout=120)
    return folder
