"""Strict JSON of any result: no bare NaN or infinity, which JSON does not have."""

from __future__ import annotations

import json
import math
from collections.abc import Mapping
from typing import Any


def dumps(result: Any, *, indent: int | None = 2) -> str:
    """`result` as JSON: its `to_dict()` if it has one, else plain data as it is.

    NaN becomes null (a missing figure is missing), infinities the strings "inf" and "-inf"; NumPy and torch scalars
    and arrays become numbers and lists, tuples and sets lists. Raises TypeError for what has no such form.
    """
    return json.dumps(plain(result), indent=indent, allow_nan=False, ensure_ascii=False)


def plain(value: Any) -> Any:
    """`value` in JSON types only, by the rules of `dumps`."""
    if value is None or isinstance(value, (bool, int, str)):
        return value
    if isinstance(value, float):
        if math.isnan(value):
            return None
        return float(value) if math.isfinite(value) else ("inf" if value > 0 else "-inf")
    if isinstance(value, Mapping):
        return {str(key): plain(item) for key, item in value.items()}
    if isinstance(value, (list, tuple)):
        return [plain(item) for item in value]
    if isinstance(value, (set, frozenset)):
        return [plain(item) for item in sorted(value, key=str)]
    if hasattr(value, "to_dict"):
        return plain(value.to_dict())
    if hasattr(value, "tolist"):  # NumPy and torch
        return plain(value.tolist())
    raise TypeError(f"{type(value).__name__} has no JSON form: give it a to_dict() method, or pass plain data")
