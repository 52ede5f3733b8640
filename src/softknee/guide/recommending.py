"""Which activation for a use: one choice, what any other would gain, reasons, sources, facts, and who runs it.

The judgement is written down in `uses.json` with its sources, the models in `production.csv` with how that is known.
Facts are the catalog's, costs those recorded in `kernels/costs.json`: none is written twice.
"""

from __future__ import annotations

import csv
import functools
import json
from dataclasses import dataclass
from importlib import resources
from typing import Any

from softknee.catalog import Activation, get
from softknee.errors import InputError, closest
from softknee.kernels.costs import cost
from softknee.plain import plain, plain_fields


@dataclass(frozen=True)
class Source:
    """A paper."""

    title: str
    arxiv: str

    def __str__(self) -> str:
        return f"{self.title}, arXiv:{self.arxiv}"


@dataclass(frozen=True)
class Model:
    """Models that run an activation; evidence: "read" in their code or configuration, or "recalled", and from where."""

    activation: str
    models: str
    parameters: str
    evidence: str


@dataclass(frozen=True)
class Alternative:
    """Another activation and what it would gain over the choice."""

    name: str
    gain: str


@dataclass(frozen=True)
class Recommendation:
    """The choice for a use. write: how it is written down; tag: the catalog's tag under which there are more."""

    use: str
    about: str
    choice: str
    write: str
    others: tuple[Alternative, ...]
    reasons: tuple[str, ...]
    sources: tuple[Source, ...]
    tag: str | None

    @property
    def names(self) -> tuple[str, ...]:
        """The choice, then the others."""
        return (self.choice, *(other.name for other in self.others))

    @property
    def models(self) -> tuple[Model, ...]:
        """Production models that run the choice or one of the others, in that order."""
        return tuple(model for name in self.names for model in models(get(name)))

    def costs(self) -> dict[str, float | None]:
        """Recorded ns per element of a forward call in float32 on a CPU; None where nothing is recorded."""
        found = {name: cost(get(name)) for name in self.names}
        return {name: None if one is None else one.ns for name, one in found.items()}

    def to_dict(self) -> dict[str, Any]:
        """All of it, with the facts and the cost of each activation named, as plain JSON types."""
        costs = self.costs()
        compared = [{"activation": name, "ns_per_element": costs[name], **_facts(get(name))} for name in self.names]
        return plain_fields(self) | plain({"compared": compared, "models": self.models})

    def __str__(self) -> str:
        return f"{self.use}: {self.choice}"


def recommend(use: str) -> Recommendation:
    """The activation for `use`, one of `uses()`.

    Raises InputError for an unknown use, with those that look like it.
    """
    if not isinstance(use, str):
        raise InputError(f"use must be a string, one of {', '.join(_uses())}; got {type(use).__name__}")
    word = use.strip().lower().replace("_", "-").replace(" ", "-")
    if word not in _uses():
        near = closest(word, _uses()) or f"; it must be one of {', '.join(_uses())}"
        raise InputError(f"use {use!r} is unknown{near}")
    known = _uses()[word]
    return Recommendation(
        use=word,
        about=known["about"],
        choice=known["choice"],
        write=known["write"],
        others=tuple(Alternative(*other) for other in known["others"]),
        reasons=tuple(known["reasons"]),
        sources=tuple(Source(*source) for source in known["sources"]),
        tag=known["tag"],
    )


def uses() -> tuple[Recommendation, ...]:
    """The recommendation of every use."""
    return tuple(map(recommend, _uses()))


def models(activation: Activation) -> tuple[Model, ...]:
    """Which models run the entry; none of one's own, even under an entry's name."""
    known = (activation.formula.__module__ or "").startswith("softknee.catalog.")
    return tuple(model for model in production() if known and model.activation == activation.name)


@functools.cache
def production() -> tuple[Model, ...]:
    """`production.csv`."""
    text = (resources.files(__package__) / "production.csv").read_text(encoding="utf-8")
    return tuple(Model(**row) for row in csv.DictReader(text.splitlines()))


@functools.cache
def _uses() -> dict[str, dict[str, Any]]:
    return json.loads((resources.files(__package__) / "uses.json").read_text(encoding="utf-8"))


def _facts(activation: Activation) -> dict[str, Any]:
    """None of them for a normalizer, which is no function of one number."""
    names = ("range", "dead", "lipschitz", "gain")
    facts = None if activation.kind == "normalizer" else activation.facts
    return {name: None if facts is None else getattr(facts, name) for name in names}
