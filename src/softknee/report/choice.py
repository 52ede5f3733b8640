"""An activation at parameters, as a reader names it: `relu`, or `leaky_relu:negative_slope=0.2`."""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import Any, TypeAlias

from softknee.catalog import Activation, define, get
from softknee.catalog.chosen import chosen
from softknee.facts import Facts, Line, facts
from softknee.guide import models
from softknee.kernels.costs import cost
from softknee.plain import plain

from .figures import number
from .formula import formula


@dataclass(frozen=True)
class Choice:
    """An activation and the values of all its parameters."""

    activation: Activation
    parameters: Mapping[str, float]

    @classmethod
    def of(cls, what: Named) -> Choice:
        """The choice that `what` names: an Activation (at its defaults), Facts (at theirs), or a string, which is a
        name or an alias, perhaps with parameters behind a colon: `elu:alpha=0.5`, `softplus:beta=2,threshold=20`; or a
        formula: `x * sigmoid(2 * x)`, whose parameters stand behind semicolons.

        Raises InputError for a name that is unknown and a parameter that is unknown, no number or out of range.
        """
        if isinstance(what, Choice):
            return what
        if isinstance(what, Facts):
            return cls(what.activation, what.parameters)
        if isinstance(what, str) and FORMULA & set(what) and ":" not in what:
            written = define(what)
            return cls(written, written.defaults)
        if isinstance(what, str):
            return cls(*chosen(what))
        return cls(get(what), get(what).defaults)

    @property
    def label(self) -> str:
        """Its name, with the parameters that are not at their defaults: `elu(alpha=0.5)`."""
        defaults = self.activation.defaults
        given = [f"{name}={spelled(value)}" for name, value in self.parameters.items() if value != defaults[name]]
        return self.activation.name + (f"({', '.join(given)})" if given else "")

    @property
    def facts(self) -> Facts:
        return facts(self.activation, **self.parameters)

    def to_dict(self) -> dict[str, Any]:
        """What is declared, the formula, the facts at these parameters, what a call costs, which models run it and the
        backends that have code of it, as plain JSON types."""
        from .emitted import available

        normalizer = self.activation.kind == "normalizer"
        costs = {dtype: cost(self.activation, dtype) for dtype in COSTED}
        own = {
            "formula": formula(self.activation),
            "parameters": self.parameters,
            "facts": None if normalizer else self.facts,
            "cost": {dtype: None if found is None else found._asdict() for dtype, found in costs.items()},
            "models": models(self.activation),
            "code": available(self),
        }
        return self.activation.to_dict() | plain(own)


FORMULA = set("()*/+-<>;")  # what no name has
UNKNOWN = "unknown"
COSTED = ("float32", "bfloat16")

Named: TypeAlias = "Activation | Choice | Facts | str"


def choices(several: Iterable[Named]) -> list[Choice]:
    """Each of them once, in the order in which they were first named."""
    found: list[Choice] = []
    for one in map(Choice.of, several):
        if one not in found:
            found.append(one)
    return found


def written_parameters(choice: Choice) -> str:
    """All parameters with their values to six digits: "lower = 0.125, upper = 0.333333"."""
    learned = {name: " (learned)" if p.learnable else "" for name, p in choice.activation.parameters.items()}
    values = {name: spelled(v) if isinstance(v, bool) else f"{v:g}" for name, v in choice.parameters.items()}
    return ", ".join(f"{name} = {value}{learned[name]}" for name, value in values.items())


def written_cost(choice: Choice, dtype: str) -> str:
    """ns an element, and how many more than a copy: "0.31, 0.21 over a copy"; of the entry at its defaults."""
    found = cost(choice.activation, dtype)
    return "not measured" if found is None else f"{number(found.ns, 2)}, {number(found.over_copy, 2)} over a copy"


def written_range(facts: Facts) -> str:
    """The range, closed where its end is attained: [−0.278, ∞)."""
    if facts.range is None:
        return UNKNOWN
    low = "(" if facts.minimum is None else "["
    high = ")" if facts.maximum is None else "]"
    return f"{low}{number(facts.range.low)}, {number(facts.range.high)}{high}"


def written_steepest(facts: Facts) -> str:
    """The largest |f′| and where it is: "1.13 at 1.41", "1 towards ∞" where it is only approached, "unbounded"."""
    if facts.largest_derivative is None:
        return UNKNOWN
    at, steepest = facts.largest_derivative
    if math.isinf(steepest):
        return "unbounded"
    if math.isinf(at):
        left, right = facts.slopes
        return f"{number(steepest)} towards {'±∞' if left == right else number(at)}"
    return f"{number(steepest)} at {number(at)}"


def written_shape(facts: Facts) -> str:
    """What holds all over: "odd, increasing", "convex"; "unknown" where nothing is known to hold or not to hold."""
    told = [facts.parity, facts.monotonicity, facts.convexity]
    return ", ".join(word for word in told if word not in (None, "none")) or (UNKNOWN if None in told else "none")


def written_asymptotes(facts: Facts) -> str:
    """The slanting lines that f approaches: "x − 0.5 at ∞"."""
    return ",\n".join(
        f"{_line(line)} at {end}"
        for line, end in zip(facts.asymptotes, ("−∞", "∞"), strict=True)
        if line is not None and line.slope != 0
    )


def _line(line: Line) -> str:
    times = {1.0: "", -1.0: "−"}.get(line.slope, number(line.slope))
    sign, size = ("−" if line.intercept < 0 else "+"), abs(line.intercept)
    return f"{times}x" + (f" {sign} {number(size)}" if size else "")


def spelled(value: float) -> str:
    """A parameter's value as it is typed: 1, 0.01, 1e-06, inf, true."""
    return str(value).lower() if isinstance(value, bool) else repr(float(value)).removesuffix(".0")
