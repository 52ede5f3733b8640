"""Small files of each format, made once: by their own libraries where these are installed."""

from __future__ import annotations

import importlib.util
import json
import os
import struct
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
import torch

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


def safetensors(path: Path, shapes: dict[str, tuple[int, ...]], dtype: str = "F32", sparse: bool = False) -> Path:
    """A safetensors file with zeros of these shapes; sparse: the zeros are a hole in the file."""
    bits = {"F32": 32, "BF16": 16, "F4": 4}[dtype]
    header: dict[str, Any] = {"__metadata__": {"format": "pt"}}
    at = 0
    for name, shape in shapes.items():
        size = bits * int(torch.Size(shape).numel()) // 8
        header[name] = {"dtype": dtype, "shape": list(shape), "data_offsets": [at, at + size]}
        at += size
    text = json.dumps(header).encode()
    with path.open("wb") as file:
        file.write(struct.pack("<Q", len(text)) + text)
        if sparse:
            file.truncate(8 + len(text) + at)
        else:
            file.write(bytes(at))
    return path


def feedforward(layers: int = 2, width: int = 4, prefix: str = "model.") -> dict[str, tuple[int, ...]]:
    """Names and shapes of Llama's feed-forward blocks."""
    shapes = {"gate_proj": (2 * width, width), "up_proj": (2 * width, width), "down_proj": (width, 2 * width)}
    return {f"{prefix}layers.{i}.mlp.{name}.weight": shape for i in range(layers) for name, shape in shapes.items()}


GGUF_TYPES = {bool: (7, "?"), int: (4, "I"), float: (6, "f")}


def gguf(
    path: Path, metadata: dict[str, Any], tensors: dict[str, tuple[int, ...]], version: int = 3, order: str = "<"
) -> Path:
    """A GGUF header, in any version and byte order; no data follow, as a reader of headers needs none."""
    long = "I" if version == 1 else "Q"

    def text(word: str) -> bytes:
        data = word.encode()
        return struct.pack(order + long, len(data)) + data

    def value(held: Any, kind: bool = True) -> bytes:
        if isinstance(held, list):
            number = 8 if held and isinstance(held[0], str) else GGUF_TYPES[type(held[0])][0]
            head = struct.pack(order + "II" + long, 9, number, len(held))
            return head + b"".join(value(item, False) for item in held)
        if isinstance(held, str):
            return (struct.pack(order + "I", 8) if kind else b"") + text(held)
        number, form = GGUF_TYPES[type(held)]
        return (struct.pack(order + "I", number) if kind else b"") + struct.pack(order + form, held)

    data = b"GGUF" + struct.pack(order + "I" + 2 * long, version, len(tensors), len(metadata))
    for key, held in metadata.items():
        data += text(key) + value(held)
    for number, (name, shape) in enumerate(tensors.items()):
        data += text(name) + struct.pack(order + "I", len(shape))
        data += struct.pack(f"{order}{len(shape)}{long}", *reversed(shape)) + struct.pack(order + "IQ", 0, 32 * number)
    path.write_bytes(data)
    return path


def blocks(layers: int = 2, gated: bool = True, packed: bool = False) -> dict[str, tuple[int, ...]]:
    """Names and shapes of a llama.cpp model's blocks."""
    parts = {"attn_q": (4, 4), "ffn_up": (16 if packed else 8, 4), "ffn_down": (4, 8)}
    if gated:
        parts["ffn_gate"] = (8, 4)
    return {f"blk.{i}.{part}.weight": shape for i in range(layers) for part, shape in parts.items()}
