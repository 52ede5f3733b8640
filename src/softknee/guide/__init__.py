"""Guidance: which activation for a use, and why networks fail as they do, told with figures computed at the call.

What is known of uses stands in `uses.json`, which models run what in `production.csv`; facts and costs are read from
the catalog, explanations compute.
"""

from __future__ import annotations

from .explaining import Explanation, explain, topics
from .recommending import Alternative, Model, Recommendation, Source, models, recommend, uses

__all__ = [
    "Alternative",
    "Explanation",
    "Model",
    "Recommendation",
    "Source",
    "explain",
    "models",
    "recommend",
    "topics",
    "uses",
]
