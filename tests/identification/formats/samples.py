"""Small files of each format, written byte by byte."""

from __future__ import annotations

import json
import struct
from pathlib import Path
from typing import Any

import torch


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
