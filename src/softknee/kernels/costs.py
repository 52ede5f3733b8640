"""What a call costs, as recorded: `costs.json`, written by benchmarks/costs.py on the machine that it names."""

from __future__ import annotations

import functools
import json
from importlib import resources
from typing import Any, NamedTuple

from ..catalog import Activation


class Cost(NamedTuple):
    """ns per element of a forward call, and of copying the input beside it; the path is that of the call."""

    ns: float
    copy: float
    path: str

    @property
    def over_copy(self) -> float:
        """What it takes more than reading and writing the memory; below 0 it is noise."""
        return self.ns - self.copy


@functools.cache
def recorded() -> dict[str, Any]:
    """`costs.json`: {"conditions", "machine", "entries": {name: {dtype: [ns, copy, path]}}}."""
    return json.loads((resources.files(__package__) / "costs.json").read_text(encoding="utf-8"))


def cost(activation: Activation, dtype: str = "float32") -> Cost | None:
    """Of the entry at its defaults; None where nothing is recorded, as of one's own."""
    if not (activation.formula.__module__ or "").startswith("softknee.catalog."):
        return None
    found = recorded()["entries"].get(activation.name, {}).get(dtype)
    return None if found is None else Cost(*found)
