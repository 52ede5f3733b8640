"""Is the model healthy, from what cause, and what mends it?

Probes measure, symptoms judge, repairs propose, trials prove.

Loaded lazily: `softknee.diagnose` does not pay for what only a trial needs.
"""

from __future__ import annotations

import importlib
from typing import Any

_HOME = {
    "Finding": "reports",
    "LayerStatistics": "reports",
    "Report": "reports",
    "SiteStatistics": "reports",
    "Watch": "watching",
    "watch": "watching",
    "diagnose": "diagnosing",
    "Plan": "repairs",
    "Repair": "repairs",
    "Settings": "repairs",
    "Arm": "trials",
    "Race": "racing",
    "race": "racing",
    "Trial": "trials",
}

__all__ = [*sorted(_HOME)]


def __getattr__(name: str) -> Any:
    if name in _HOME:
        value = getattr(importlib.import_module(f"softknee.diagnosis.{_HOME[name]}"), name)
        globals()[name] = value
        return value
    raise AttributeError(f"module 'softknee.diagnosis' has no attribute {name!r}")


def __dir__() -> list[str]:
    return __all__
