"""Strict JSON of any result: no bare NaN or infinity, which JSON does not have."""

from __future__ import annotations

import json
from typing import Any

from softknee.plain import plain


def dumps(result: Any, *, indent: int | None = 2) -> str:
    """`result` as JSON: its `to_dict()` if it has one, else plain data as it is.

    NaN becomes null (a missing figure is missing), infinities the strings "inf" and "-inf"; see `softknee.plain`.
    """
    return json.dumps(plain(result), indent=indent, allow_nan=False, ensure_ascii=False)
