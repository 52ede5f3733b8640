"""What each model type of transformers applies where: `huggingface.json`, which tools/architectures.py derives.

    {"source": "transformers 5.23.0, …", "rows": [row, …], "types": {"llama": {"sites": [numbers of rows], …}, …}}

A row: path (a pattern with {} for numbers), is (the entry), call, key (the config's, which names it), with (parameters:
numbers or keys), layers (the rule that gives the numbers), role, form, layout. A type: model (its class), prefix (of
its modules in a model with a head), sites, heads, parts (nested configs → path, usual type), defaults (of the keys
that are used), unread (keys that it writes and does not read), ran (whether a model of it could be run).
"""

from __future__ import annotations

import functools
import json
from importlib import resources
from typing import Any

NAME = "huggingface.json"


@functools.cache
def architectures() -> dict[str, Any]:
    """The table, each type's sites as rows rather than numbers."""
    return unpacked(json.loads(resources.files(__package__).joinpath(NAME).read_text(encoding="utf-8")))


def unpacked(held: dict[str, Any]) -> dict[str, Any]:
    """The table as it is used, of the one as it is kept."""
    for entry in held["types"].values():
        entry["sites"] = [held["rows"][number] for number in entry["sites"]]
    return {"source": held["source"], "types": held["types"]}


def packed(source: str, types: dict[str, Any]) -> str:
    """The table as it is kept: rows that several types share stand once; one line a row and a type."""
    numbers: dict[str, int] = {}
    lines = []
    for name in sorted(types):
        sites = [numbers.setdefault(_line(row), len(numbers)) for row in types[name]["sites"]]
        lines.append(f"  {json.dumps(name)}: {_line(types[name] | {'sites': sites})}")
    rows = ",\n".join(f"  {row}" for row in numbers)
    held = ",\n".join(lines)
    return f'{{\n "source": {json.dumps(source)},\n "rows": [\n{rows}\n ],\n "types": {{\n{held}\n }}\n}}\n'


def _line(value: Any) -> str:
    return json.dumps(value, separators=(",", ":"))
