"""Recommendations: every name is the catalog's, sources are there, facts and costs are read where they stand."""

from __future__ import annotations

import dataclasses
import io
import json
import re

import pytest

import softknee
from softknee.errors import InputError
from softknee.guide.recommending import production, recommend, uses
from softknee.kernels import costs
from softknee.report import dumps, render

ALL = uses()


@pytest.mark.parametrize("one", ALL, ids=lambda one: one.use)
def test_every_use(one):
    choice = softknee.get(one.choice)
    assert [softknee.get(name).name for name in one.names] == list(one.names)
    assert len(set(one.names)) == len(one.names) > 1
    assert one.tag is None or one.tag in choice.tags
    assert one.about and one.write and one.reasons and all(other.gain for other in one.others)
    assert one.sources and all(re.fullmatch(r"\d{4}\.\d{4,5}", source.arxiv) for source in one.sources)
    told = json.loads(dumps(one))
    assert [row["activation"] for row in told["compared"]] == list(one.names)


def test_the_uses_that_people_name():
    asked = {"hidden-mlp", "cnn", "transformer-ffn", "attention-scores", "binary-output", "multi-class-output"}
    asked |= {"regression-output", "lstm-gate", "implicit-representation", "rl", "int8-edge", "positive-output"}
    assert asked <= {one.use for one in ALL}
    assert softknee.recommend("Transformer FFN").choice == "swiglu"


def test_facts_are_the_catalogs(monkeypatch):
    row = recommend("int8-edge").to_dict()["compared"][0]
    facts = softknee.get("relu6").facts
    assert row["range"] == list(facts.range) and row["gain"] == facts.gain and row["lipschitz"] == facts.lipschitz
    assert row["ns_per_element"] == costs.recorded()["entries"]["relu6"]["float32"][0]
    monkeypatch.setattr(costs, "recorded", lambda: {"entries": {"relu6": {"float32": [7.5, 0.5, "kernel"]}}})
    assert recommend("int8-edge").costs()["relu6"] == 7.5


def test_a_normalizer_has_no_such_facts():
    row = recommend("attention-scores").to_dict()["compared"][0]
    assert row["activation"] == "softmax" and row["gain"] is None


def test_models_say_how_it_is_known():
    assert all(softknee.get(model.activation).name == model.activation for model in production())
    assert all(re.match("(read|recalled)", model.evidence) for model in production())
    assert {model.activation for model in recommend("transformer-ffn").models} >= {"swiglu", "relu2"}


def test_errors():
    with pytest.raises(InputError, match="use 'transfomer-ffn' is unknown; did you mean 'transformer-ffn'"):
        recommend("transfomer-ffn")
    with pytest.raises(InputError, match="it must be one of hidden-mlp"):
        recommend("xyzzy")
    with pytest.raises(InputError, match="use must be a string"):
        recommend(3)


@pytest.mark.parametrize("one", [*ALL, dataclasses.replace(ALL[0], tag=None)], ids=lambda one: one.use)
def test_it_fits_a_terminal(one):
    from rich.console import Console

    printed = Console(file=io.StringIO(), width=80, highlight=False)
    render(one, printed)
    lines = printed.file.getvalue().splitlines()
    assert lines[0] == f"{one.use}: {one.choice}" and max(map(len, lines)) <= 80
    assert one.tag is None or lines[-1].endswith(f"--tag {one.tag}")
    assert any(source.arxiv in line for line in lines for source in one.sources)
