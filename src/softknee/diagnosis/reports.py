"""What a diagnosis says: `Finding`, `SiteStatistics`, `LayerStatistics` and the `Report` that holds them.

Plain frozen results. They measure nothing and judge nothing; they know how to be read by a person (`str`) and by a
machine (`to_dict`, by the rules of `softknee.plain`).
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

from softknee.plain import plain, plain_fields

if TYPE_CHECKING:
    from torch import nn

    from softknee.catalog import Activation
    from softknee.diagnosis.repairs import Plan
    from softknee.identification import Census

SEVERITIES = ("info", "warning", "critical")


@dataclass(frozen=True)
class Finding:
    """A symptom at a site: what was measured, against which threshold, from whom, and what would mend it."""

    symptom: str
    site: str
    """Site key (`path#call`), path of a layer, or "model" when the whole model is meant."""
    title: str
    severity: str
    message: str
    evidence: Mapping[str, float | int | str]
    threshold: str
    source: str
    caused_by: str | None = None
    """Id of the finding this one follows from; None: a cause of its own."""
    repairs: tuple[str, ...] = ()
    """Names of repairs that `Report.plan()` can propose."""

    def __post_init__(self) -> None:
        if self.severity not in SEVERITIES:
            raise ValueError(f"severity must be one of {', '.join(SEVERITIES)}, not {self.severity!r}")

    @property
    def id(self) -> str:
        return f"{self.symptom}@{self.site}"

    def to_dict(self) -> dict[str, Any]:
        return {"id": self.id, **plain_fields(self)}

    def __str__(self) -> str:
        return f"[{self.severity}] {self.title} at {self.site}: {self.message}"


@dataclass(frozen=True)
class SiteStatistics:
    """What was measured at one site. Shares are in [0, 1]; None: could not be measured."""

    key: str
    path: str
    activation: str | None
    role: str
    rows: int
    """Sampled rows (row × position pairs for convolutions and sequences)."""
    units: int
    mean: float
    std: float
    across_row_std: float | None
    """Std over the rows of a batch, per unit, root mean square over units; None below two rows per batch."""
    zeros: float
    """Share of outputs that are exactly 0."""
    saturated: float | None
    """Share of inputs where |f′| < ε; None where f′ is unknown."""
    dead: int | None
    """Units whose f′ was exactly 0 on every sampled row; None where f′ is unknown."""
    dead_units: tuple[int, ...]
    firing_bound: float
    """A dead unit fires on fewer than this share of rows (95 %, rule of three: 3/rows)."""
    amax: float
    nonfinite: int
    input_mean: float
    input_std: float
    histogram_edges: tuple[float, ...]
    """Edges of the histogram of the pre-activation; the outer bins also hold what lies beyond them."""
    histogram_counts: tuple[int, ...]
    layer: str | None = None
    """Path of the affine layer that feeds the site."""
    gain: float | None = None
    """std(W)·√fan_in of that layer, when watching or diagnosing began."""
    exact_gain: float | None = None
    """1/√E[f(z)²], z ~ N(0, 1)."""
    backward_gain: float | None = None
    """1/√E[f′(z)²], z ~ N(0, 1)."""
    gradient_norm: float | None = None
    """Norm of the gradient of that layer's weight, median over the sampled steps."""
    definition: Activation | None = field(default=None, repr=False, compare=False)
    """The activation itself; not part of `to_dict()`."""

    @property
    def dead_share(self) -> float | None:
        return None if self.dead is None or not self.units else self.dead / self.units

    def to_dict(self) -> dict[str, Any]:
        return plain_fields(self, leave_out=("definition",))


@dataclass(frozen=True)
class LayerStatistics:
    """What was measured of one affine layer's weight; None: could not be measured."""

    path: str
    kind: str
    fan_in: int
    fan_out: int
    gain: float
    """std(W)·√fan_in when watching or diagnosing began."""
    weight_norm: float
    gradient_norm: float | None
    """Median over the sampled steps of the trailing half."""
    update_ratio: float | None
    """Median of ‖Δw‖/‖w‖ of one step over the sampled steps."""
    largest_update_ratio: float | None

    def to_dict(self) -> dict[str, Any]:
        return plain_fields(self, leave_out=("definition",))


@dataclass(frozen=True)
class Report:
    """A diagnosis: the verdict, its findings, what was checked and everything that was measured."""

    model: str
    verdict: str
    findings: tuple[Finding, ...]
    """Causes first, each followed by its consequences."""
    checked: tuple[str, ...]
    """Titles of the symptoms that were looked for."""
    unchecked: tuple[str, ...]
    """"title: why" for those that could not be."""
    rows: int
    steps: int
    """Training steps watched; 0 for `diagnose`."""
    statistics: tuple[SiteStatistics, ...]
    layers: tuple[LayerStatistics, ...]
    output: Mapping[str, Any] = field(default_factory=dict)
    """What was measured at the model's output: classes, across_row_std, confident share, …"""
    history: Mapping[str, Any] = field(default_factory=dict)
    """Bounded series: name → {"step": [...], key: [...]}."""
    census: Census | None = None
    subject: nn.Module | None = field(default=None, repr=False, compare=False)
    """The model itself, which a trial of repairs starts from; not part of what is written."""

    @property
    def healthy(self) -> bool:
        """Nothing at or above a warning was found, and there was enough to judge by."""
        return self.verdict.startswith("healthy")

    @property
    def causes(self) -> tuple[Finding, ...]:
        """Findings at or above a warning that follow from no other finding."""
        return tuple(f for f in self.findings if f.caused_by is None and f.severity != "info")

    def consequences(self, cause: Finding) -> tuple[Finding, ...]:
        """Findings that follow from `cause`."""
        return tuple(f for f in self.findings if f.caused_by == cause.id)

    def stats(self) -> tuple[SiteStatistics, ...]:
        """One entry per measured site, in executed order."""
        return self.statistics

    def plan(self) -> Plan:
        """The repairs that fit the findings, and the folk advice to measure them against."""
        from softknee.diagnosis.repairs import propose

        return propose(self)

    def to_dict(self) -> dict[str, Any]:
        return {
            "model": self.model,
            "verdict": self.verdict,
            "healthy": self.healthy,
            "rows": self.rows,
            "steps": self.steps,
            "findings": [finding.to_dict() for finding in self.findings],
            "checked": list(self.checked),
            "unchecked": list(self.unchecked),
            "statistics": [entry.to_dict() for entry in self.statistics],
            "layers": [entry.to_dict() for entry in self.layers],
            "output": plain(self.output),
            "history": plain(self.history),
            "census": None if self.census is None else self.census.to_dict(),
        }

    def __str__(self) -> str:
        lines = [f"{self.model}: {self.verdict}"]
        for finding in self.findings:
            lines.append(f"{'  ' if finding.caused_by is None else '    ↳ '}{finding}")
            if finding.caused_by is None:
                lines.append(f"      threshold: {finding.threshold} ({finding.source})")
        if self.statistics:
            lines.append(
                f"  {'site':<20} {'activation':<11} {'rows':>6} {'mean':>9} {'std':>9} {'across':>9}"
                f" {'zeros':>6} {'satur.':>6} {'dead':>9}"
            )
        for s in self.statistics:
            dead = "-" if s.dead is None else f"{s.dead}/{s.units}"
            across = "-" if s.across_row_std is None else f"{s.across_row_std:.3g}"
            saturated = "-" if s.saturated is None else f"{s.saturated:.0%}"
            lines.append(
                f"  {s.key:<20} {s.activation or 'unknown':<11} {s.rows:>6} {s.mean:>9.3g} {s.std:>9.3g} {across:>9}"
                f" {s.zeros:>6.0%} {saturated:>6} {dead:>9}"
            )
        if self.unchecked:
            lines.append(f"  not checked: {'; '.join(self.unchecked)}")
        return "\n".join(lines)
