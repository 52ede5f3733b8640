"""Results as JSON's own types: str, int, float, bool, None, list and dict. The one rule for every `to_dict`."""

from __future__ import annotations

import math
from collections.abc import Container, Mapping
from dataclasses import fields, is_dataclass
from typing import Any


def plain(value: Any) -> Any:
    """`value` in JSON types only.

    NaN is None (a missing figure is missing), infinities are the strings "inf" and "-inf". NumPy and torch scalars and
    arrays become numbers and lists, tuples and sets lists, objects their `to_dict()`, other dataclasses their fields,
    anything else its `str`.
    """
    if value is None or isinstance(value, (bool, str)):
        return value
    if isinstance(value, int):
        return int(value)
    if isinstance(value, float):
        if math.isnan(value):
            return None
        return float(value) if math.isfinite(value) else ("inf" if value > 0 else "-inf")
    if isinstance(value, Mapping):
        return {str(key): plain(item) for key, item in value.items()}
    if isinstance(value, (list, tuple)) and not hasattr(value, "to_dict"):
        return [plain(item) for item in value]
    if isinstance(value, (set, frozenset)):
        return sorted((plain(item) for item in value), key=repr)
    if hasattr(value, "to_dict"):
        return plain(value.to_dict())
    if hasattr(value, "tolist"):  # NumPy and torch
        return plain(value.tolist())
    if is_dataclass(value) and not isinstance(value, type):
        return plain_fields(value)
    return str(value)


def plain_fields(result: Any, leave_out: Container[str] = ()) -> dict[str, Any]:
    """The fields of a dataclass instance by name, each `plain`."""
    return {entry.name: plain(getattr(result, entry.name)) for entry in fields(result) if entry.name not in leave_out}
