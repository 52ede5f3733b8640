"""What an activation tells of itself."""

from __future__ import annotations

import json

import softknee


def test_to_dict_tells_the_conditions():
    assert softknee.get("hardtanh").to_dict()["conditions"] == ["min_val <= max_val"]
    assert softknee.get("celu").to_dict()["conditions"] == ["0 < alpha", "alpha < inf"]
    assert json.loads(json.dumps(softknee.get("relu").to_dict()))["conditions"] == []
