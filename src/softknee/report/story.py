"""A whole run in one object, from the census to the calibration: what `summary.json` and `report.html` are made of."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

from softknee.errors import InputError
from softknee.plain import plain

from .sections import headline

if TYPE_CHECKING:
    from softknee.diagnosis import Report, Trial
    from softknee.identification import Census
    from softknee.verification import Comparison
    from softknee.verification.calibration import Calibration


@dataclass(frozen=True)
class Story:
    """The results of one run; every part may be missing.

    verdict: one sentence; patch: the line of code to change; before, after: diagnoses of the model as it was and as it
    is; images: row id → array (height, width) to show for changed rows; provenance: what a reader needs to run it
    again (versions, seeds, machine, hashes), nested or flat.
    """

    title: str = "softknee report"
    verdict: str = ""
    patch: str = ""
    census: Census | None = None
    before: Report | None = None
    after: Report | None = None
    trial: Trial | None = None
    comparison: Comparison | None = None
    calibration: Calibration | None = None
    images: Mapping[str, Any] = field(default_factory=dict)
    provenance: Mapping[str, Any] = field(default_factory=dict)

    @classmethod
    def of(cls, result: Any) -> Story:
        """`result` as a story: itself, or the one part that it is. Raises InputError for anything else."""
        kind = kind_of(result)
        if kind == "Story":
            return result
        if kind == "Census":
            return cls(title=f"Activations of {result.model}", census=result)
        if kind == "Report":
            return cls(f"Diagnosis of {result.model}", headline(result), census=result.census, before=result)
        if kind == "Trial":
            return cls("Repairs, tried", result.reason, "" if result.best is None else result.best.edit, trial=result)
        if kind == "Comparison":
            return cls("Comparison", str(result.verdict), comparison=result)
        if kind == "Calibration":
            return cls("Calibration", str(result.verdict), calibration=result)
        raise InputError(f"a {type(result).__name__} has no page; give a {', '.join(KINDS[:-1])} or {KINDS[-1]}")

    def summary(self) -> dict[str, Any]:
        """The figures of the run in plain JSON types, as written to `summary.json`; what is missing is None.

        Accuracies, `rows`, `fixed`, `broken`, `mcnemar_p`, `difference`, `interval` and `cohorts` are of the
        comparison on untouched rows, after against before; `arms` and `winner` of the trial on validation rows;
        `findings` of the diagnosis before. `interval` is a 95 % paired bootstrap unless the comparison was told
        otherwise.
        """
        compared = None if self.comparison is None else self.comparison.result
        worst = None if self.comparison is None else self.comparison.worst_cohort
        trial, best = self.trial, None if self.trial is None else self.trial.best
        figures = {
            "title": self.title,
            "verdict": self.verdict,
            "patch": self.patch,
            "accuracy_before": None if compared is None else compared.before,
            "accuracy_after": None if compared is None else compared.after,
            "metric": None if self.comparison is None else self.comparison.metric,
            "rows": None if compared is None else compared.rows,
            "fixed": None if compared is None else compared.fixed,
            "broken": None if compared is None else compared.broken,
            "mcnemar_p": None if compared is None else compared.p,
            "difference": None if compared is None else compared.difference,
            "interval": None if compared is None else list(compared.interval),
            "conclusion": None if self.comparison is None else self.comparison.conclusion,
            "worst_cohort": None if worst is None else worst.name,
            "cohorts": [] if self.comparison is None else [cohort.to_dict() for cohort in self.comparison.cohorts],
            "diagnosis": None if self.before is None else self.before.verdict,
            "findings": [] if self.before is None else [finding.to_dict() for finding in self.before.findings],
            "diagnosis_after": None if self.after is None else self.after.verdict,
            "findings_after": [] if self.after is None else [finding.to_dict() for finding in self.after.findings],
            "arms": [] if trial is None else [arm.to_dict() for arm in trial.arms],
            "winner": None if best is None else best.name,
            "calibration": None if self.calibration is None else self.calibration.to_dict(),
            "census": None if self.census is None else self.census.to_dict(),
            "provenance": self.provenance,
        }
        return plain(figures)

    def to_dict(self) -> dict[str, Any]:
        return self.summary()

    def __str__(self) -> str:
        parts = (self.census, self.before, self.trial, self.comparison, self.calibration)
        lines = [self.title, self.verdict, *(str(part) for part in parts if part is not None)]
        return "\n\n".join(line for line in [*lines, self.patch and f"Patch: {self.patch}"] if line)


KINDS = ("Story", "Census", "Report", "Trial", "Comparison", "Calibration")


def kind_of(result: Any) -> str:
    """The name of the result class that `result` is of; its own class's name if it is none of softknee's.

    By name, because asking with isinstance would import the trials to print a census.
    """
    names = [cls.__name__ for cls in type(result).__mro__]
    return next((name for name in names if name in KINDS), names[0])
