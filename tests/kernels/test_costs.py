"""Recorded costs: of the catalog's entries, as written by the benchmark; of nothing else."""

import softknee
from softknee.kernels import costs


def test_what_is_recorded_is_of_the_catalog():
    recorded = costs.recorded()
    assert "least of several calls" in recorded["conditions"] and recorded["machine"]["processor"]
    names = {a.name for a in softknee.activations()}
    assert set(recorded["entries"]) <= names
    for name in recorded["entries"]:
        for dtype in ("float32", "bfloat16"):
            found = costs.cost(softknee.get(name), dtype)
            assert found.ns > 0 and found.copy > 0 and found.path in ("kernel", "native", "table", "composite")
            assert found.over_copy == found.ns - found.copy


def test_what_is_not_recorded_has_no_cost(monkeypatch):
    assert costs.cost(softknee.define("x * tanh(x)", name="mish")) is None, "one's own, under the name of an entry"
    assert costs.cost(softknee.get("mish"), "float8") is None
    monkeypatch.setattr(costs, "recorded", lambda: {"entries": {}})
    assert costs.cost(softknee.get("mish")) is None
