"""One cause told from its consequences: a small explicit graph over findings, and the verdict that follows.

`EDGES` lists which symptom may cause which, and on what condition. A finding follows from the first edge that holds
whose cause was also found; causes stand earlier in `SYMPTOMS` (or, within one symptom, at an earlier site), so there
are no cycles. Consequences cite the root: a chain wrong gain → drift → dead units names wrong gain for both.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, replace

from torch import nn

from softknee.diagnosis.measurements import ROWS_NEEDED, Measurement
from softknee.diagnosis.reports import SEVERITIES, Finding, Report, SiteStatistics
from softknee.diagnosis.symptoms import GRADIENT_ALIVE, SYMPTOMS

Condition = Callable[[Measurement, Finding, Finding], bool]


@dataclass(frozen=True)
class Edge:
    """`cause` may bring about each of `consequences`, where `when(measurement, cause, consequence)` holds."""

    cause: str
    consequences: tuple[str, ...]
    why: str
    when: Condition = lambda m, cause, consequence: True


def _shrinks(m: Measurement, cause: Finding, consequence: Finding) -> bool:
    ratio = cause.evidence.get("accumulated_ratio")
    return isinstance(ratio, float) and ratio < 1


def _grows(m: Measurement, cause: Finding, consequence: Finding) -> bool:
    return not _shrinks(m, cause, consequence)


def _bad_input(m: Measurement, cause: Finding, consequence: Finding) -> bool:
    return cause.evidence.get("where") == "input"


def _before(m: Measurement, cause: Finding, consequence: Finding) -> bool:
    """The wild step came no later than the first value that was not finite."""
    when, then = cause.evidence.get("step"), consequence.evidence.get("step")
    return not (isinstance(when, int) and isinstance(then, int)) or when <= then


def _severed(m: Measurement, cause: Finding, consequence: Finding) -> bool:
    """Nearly all units of a site are dead, so hardly anything passes."""
    share = cause.evidence.get("share")
    return isinstance(share, float) and share > 0.9


def _downstream(m: Measurement, cause: Finding, consequence: Finding) -> bool:
    keys = [site.key for site in m.sites]
    earlier = cause.site in keys and consequence.site in keys and keys.index(cause.site) < keys.index(consequence.site)
    return earlier and _severed(m, cause, consequence)


def _no_gradient(m: Measurement, cause: Finding, consequence: Finding) -> bool:
    norm = consequence.evidence.get("median_gradient_norm")
    return isinstance(norm, float) and norm < GRADIENT_ALIVE


def _severe(m: Measurement, cause: Finding, consequence: Finding) -> bool:
    return cause.severity == "critical"


EDGES: tuple[Edge, ...] = (
    Edge(
        "fading_activation",
        ("forward_drift", "vanishing_gradient", "constant_output", "flat_loss", "frozen_update"),
        "each layer lets less of the signal and of the gradient through, whatever the weights",
    ),
    Edge(
        "wrong_gain",
        ("forward_drift", "dead_unit", "vanishing_gradient", "constant_output", "flat_loss", "frozen_update"),
        "gains below the exact one multiply the signal and the gradient down, layer by layer; biases take over",
        _shrinks,
    ),
    Edge(
        "wrong_gain",
        (
            "forward_drift",
            "saturation",
            "exploding_gradient",
            "vanishing_gradient",
            "unstable_update",
            "nonfinite",
            "dead_unit",
            "rising_loss",
            "flat_loss",
            "constant_output",
            "over_confidence",
        ),
        "gains above the exact one multiply the signal up, layer by layer, until it saturates or overflows",
        _grows,
    ),
    Edge(
        "nonfinite",
        tuple(symptom.name for symptom in SYMPTOMS if symptom.name != "nonfinite"),
        "NaN or Inf in the data makes every value after it so",
        _bad_input,
    ),
    Edge(
        "unstable_update",
        ("nonfinite",),
        "a step as long as the weights themselves overflows what follows",
        _before,
    ),
    Edge(
        "unstable_update",
        (
            "dead_unit",
            "saturation",
            "forward_drift",
            "exploding_gradient",
            "vanishing_gradient",
            "frozen_update",
            "constant_output",
            "rising_loss",
            "flat_loss",
            "over_confidence",
        ),
        "steps that overshoot throw units to where f′ is 0 and the loss to where it stays",
    ),
    Edge("exploding_gradient", ("unstable_update", "rising_loss"), "a step is as long as its gradient"),
    Edge("nonfinite", ("rising_loss", "flat_loss", "constant_output", "dead_unit"), "NaN and Inf spread"),
    Edge(
        "dead_unit",
        ("dead_unit", "forward_drift"),
        "behind a site where hardly a unit fires the input is constant",
        _downstream,
    ),
    Edge(
        "dead_unit",
        ("forward_drift", "vanishing_gradient", "frozen_update", "constant_output", "flat_loss"),
        "through a site where hardly a unit fires pass neither signal nor gradient",
        _severed,
    ),
    Edge(
        "saturation",
        ("vanishing_gradient", "frozen_update", "flat_loss", "constant_output"),
        "each saturated site multiplies the gradient by f′ ≈ 0",
    ),
    Edge(
        "forward_drift",
        ("vanishing_gradient", "constant_output", "flat_loss"),
        "what does not distinguish rows at a layer cannot do so behind it",
    ),
    Edge("vanishing_gradient", ("frozen_update",), "no gradient, no step", _no_gradient),
    Edge("vanishing_gradient", ("flat_loss", "constant_output"), "the layers near the input do not learn", _severe),
    Edge("frozen_update", ("flat_loss", "constant_output"), "weights that do not move do not learn"),
    Edge("constant_output", ("flat_loss",), "a constant prediction's loss is that of chance"),
)


def judge(m: Measurement, subject: nn.Module | None = None) -> Report:
    """Look for every symptom, tell causes from consequences, and say what follows; `subject` is the model measured."""
    found: list[Finding] = []
    checked, unchecked = [], []
    for symptom in SYMPTOMS:
        why_not = symptom.needs(m)
        if why_not is not None:
            unchecked.append(f"{symptom.title}: {why_not}")
            continue
        checked.append(symptom.title)
        found += symptom.look(m)
    findings = attribute(m, found)
    return Report(
        model=m.model,
        verdict=verdict(m, findings, checked, unchecked),
        findings=findings,
        checked=tuple(checked),
        unchecked=tuple(unchecked),
        rows=max((site.rows for site in m.sites), default=m.rows),
        steps=m.steps,
        statistics=m.sites,
        layers=m.layers,
        output=_output(m),
        history=m.history,
        census=m.census,
        subject=subject,
    )


def attribute(m: Measurement, found: list[Finding]) -> tuple[Finding, ...]:
    """The findings with `caused_by` set: causes by severity, each followed by its consequences."""
    serious = [finding for finding in found if finding.severity != "info"]
    roots: dict[str, str] = {}

    def root(finding: Finding, seen: tuple[str, ...] = ()) -> str:
        """Id of the finding at the head of the chain that ends in `finding`."""
        if finding.id not in roots:
            direct = _direct(m, finding, [f for f in serious if f.id != finding.id and f.id not in seen])
            roots[finding.id] = finding.id if direct is None else root(direct, (*seen, finding.id))
        return roots[finding.id]

    traced = [
        finding if root(finding) == finding.id else replace(finding, caused_by=root(finding)) for finding in found
    ]
    by_severity = sorted(
        (finding for finding in traced if finding.caused_by is None), key=lambda f: -SEVERITIES.index(f.severity)
    )
    ordered: list[Finding] = []
    for cause in by_severity:
        ordered += [cause, *(finding for finding in traced if finding.caused_by == cause.id)]
    return tuple(ordered)


def _direct(m: Measurement, finding: Finding, others: list[Finding]) -> Finding | None:
    for edge in EDGES:
        if finding.symptom in edge.consequences:
            for other in others:
                if other.symptom == edge.cause and edge.when(m, other, finding):
                    return other
    return None


def verdict(m: Measurement, findings: tuple[Finding, ...], checked: list[str], unchecked: list[str]) -> str:
    """One sentence: the cause, or healthy, or what is missing before anything can be said."""
    causes = [f for f in findings if f.caused_by is None and f.severity != "info"]
    if causes:
        first = causes[0]
        followed = [f.title for f in findings if f.caused_by == first.id and f.severity != "info"]
        titles = list(dict.fromkeys(followed))
        sentence = f"{first.title}: {first.message}"
        if titles:
            sentence += f". From it follow: {', '.join(titles)}"
        if len(causes) > 1:
            sentence += f". Besides: {', '.join(dict.fromkeys(f.title for f in causes[1:]))}"
        return sentence
    if not m.sites and m.output is None:
        return f"don't know: {m.trouble or 'no forward of the model was seen'}"
    rows = max((site.rows for site in m.sites), default=m.output.rows if m.output else 0)
    if rows < ROWS_NEEDED:
        return f"don't know: needs {ROWS_NEEDED - rows} more rows ({rows} seen)"
    missing = f"; not checked: {'; '.join(unchecked)}" if unchecked else ""
    return f"healthy: look elsewhere (checked: {', '.join(checked)}{missing})"


def _output(m: Measurement) -> dict[str, object]:
    result: dict[str, object] = {}
    output: SiteStatistics | None = m.output
    if output is not None:
        result |= {
            "units": output.units,
            "rows": output.rows,
            "mean": output.mean,
            "std": output.std,
            "across_row_std": output.across_row_std,
            "amax": output.amax,
        }
    if m.input is not None:
        result["input_across_row_std"] = m.input.across_row_std
    if m.top_share is not None:
        result["top_class_share"] = m.top_share
    if m.confidence is not None:
        result |= {name: getattr(m.confidence, name) for name in m.confidence.__dataclass_fields__}
    result["regularisers"] = list(m.regularisers)
    return result
