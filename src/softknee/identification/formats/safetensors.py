"""safetensors: the names and shapes of the tensors. Only headers are read, never a weight.

A file begins with the length of its header (8 bytes, little endian) and the header, a JSON object of name → dtype,
shape and place. Sharded models have an index, a JSON file of name → shard.
"""

from __future__ import annotations

import os
import struct
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from ...errors import InputError
from ..census import Census
from . import parsing
from .tensors import Tensor, census

_BITS = {
    "BOOL": 8, "U8": 8, "I8": 8, "F8_E4M3": 8, "F8_E5M2": 8, "F8_E8M0": 8, "F8_E4M3FNUZ": 8, "F8_E5M2FNUZ": 8,
    "F6_E2M3": 6, "F6_E3M2": 6, "F4": 4, "I16": 16, "U16": 16, "F16": 16, "BF16": 16, "I32": 32, "U32": 32, "F32": 32,
    "I64": 64, "U64": 64, "F64": 64, "C64": 64,
}  # fmt: skip
INDEX = ".safetensors.index.json"


def read(path: str | os.PathLike[str]) -> Census:
    """The Census of a .safetensors file, of an index of shards, or of a directory of them.

    Raises InputError where a header is damaged or a shard is missing.
    """
    found = Path(path)
    tensors = headers(found)
    return census(found.name, tensors, "the names of the tensors")


def headers(path: Path) -> dict[str, Tensor]:
    """Name → dtype and shape of every tensor in a file, in the shards of an index, or in a directory."""
    if path.is_dir():
        return _directory(path)
    path = parsing.regular(path)
    return _indexed(path) if path.name.endswith(".json") else header(path)


def _directory(path: Path) -> dict[str, Tensor]:
    indices = sorted(path.glob("*" + INDEX))
    if indices:
        return _indexed(next((i for i in indices if i.name == "model" + INDEX), indices[0]))
    tensors: dict[str, Tensor] = {}
    for file in sorted(path.glob("*.safetensors")):
        tensors |= header(file)
    return tensors


def _indexed(index: Path) -> dict[str, Tensor]:
    places = parsing.table(parsing.whole(parsing.regular(index)), str(index)).get("weight_map")
    if not isinstance(places, Mapping) or not all(isinstance(name, str) for name in places.values()):
        raise InputError(f"{index} has no weight_map of names to shards")
    tensors: dict[str, Tensor] = {}
    for name in sorted(set(places.values())):
        if name != os.path.basename(name) or name in ("", ".", ".."):
            raise InputError(f"{index} names the shard {name!r}, which is not a file beside it")
        tensors |= header(index.parent / name)
    return {name: tensors[name] for name in places if name in tensors}


def header(path: Path) -> dict[str, Tensor]:
    """Name → dtype and shape of the tensors in one file. Raises InputError where the header does not fit the file."""
    path = parsing.regular(path)
    size = path.stat().st_size
    start = parsing.beginning(path, 8)
    if len(start) < 8:
        raise InputError(f"{path} has {size} bytes; a safetensors file has at least 10")
    (length,) = struct.unpack("<Q", start)
    if length > size - 8:
        raise InputError(
            f"{path} says that its header has {length} bytes, the file has {size}: it is cut off or damaged"
        )
    if length > parsing.LIMIT:
        raise InputError(f"the header of {path} has {length} bytes, more than the {parsing.LIMIT} that are read")
    found = parsing.table(parsing.beginning(path, 8 + length)[8:], f"the header of {path}")
    found.pop("__metadata__", None)
    return {name: _tensor(name, entry, size - 8 - length, path) for name, entry in found.items()}


def _tensor(name: str, entry: Any, room: int, path: Path) -> Tensor:
    entry = entry if isinstance(entry, Mapping) else {}
    kind, shape, place = entry.get("dtype"), entry.get("shape"), entry.get("data_offsets")
    wrong = None
    if not isinstance(kind, str) or kind not in _BITS:
        wrong = f"dtype {kind!r}"
    elif not isinstance(shape, list) or not all(type(n) is int and 0 <= n < 1 << 48 for n in shape) or len(shape) > 64:
        wrong = f"shape {shape!r}"
    elif not isinstance(place, list) or len(place) != 2 or not all(type(n) is int for n in place):
        wrong = f"data_offsets {place!r}"
    elif not 0 <= place[0] <= place[1] <= room:
        wrong = f"data_offsets {place}, beyond the end of the file"
    else:
        bits = _BITS[kind]
        for n in shape:
            bits *= n
        if (bits + 7) // 8 != place[1] - place[0]:
            wrong = f"{place[1] - place[0]} bytes for {kind} of shape {shape}"
    if wrong is not None:
        raise InputError(f"tensor {name[:80]!r} in {path} has {wrong[:120]}: the file is damaged")
    return Tensor(str(kind), tuple(shape or ()))
