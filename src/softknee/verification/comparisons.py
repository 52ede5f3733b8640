"""Comparisons: two runs paired row by row, what changed, whether it is real, and what else differs between them."""

from __future__ import annotations

import math
import re
from collections.abc import Sequence
from dataclasses import dataclass, replace
from functools import cached_property
from typing import Any

import numpy as np

from softknee.errors import InputError
from softknee.plain import plain
from softknee.verification.runs import Run, shown
from softknee.verification.statistics import Interval, Paired, holm, paired

# What may explain a difference although nobody meant to change it. Weights, model and census are what is compared.
CONFOUNDERS = ("training", "seed", "budget", "batch_size", "device", "threads", "python", "torch", "softknee")
SUBJECT = ("model", "weights", "census")
TIMING = ("batch_size", "device", "threads")
_MARGIN = re.compile(r"\s*([0-9]+(?:\.[0-9]*)?|\.[0-9]+)(?:[eE]([+-]?[0-9]{1,2}))?\s*(pp|%)?\s*")


@dataclass(frozen=True)
class ComparedRow:
    """One row in both runs."""

    id: str
    index_before: int
    index_after: int
    before: float  # score; NaN: missing
    after: float
    prediction_before: Any
    prediction_after: Any
    target: Any


@dataclass(frozen=True)
class CohortComparison:
    """The comparison within one cohort; `p_adjusted` is Holm's over all cohorts, and "different" goes by it."""

    name: str
    rows: int
    result: Paired | None  # None: no row of it has a score on both sides
    p_adjusted: float | None
    verdict: str

    @property
    def gain(self) -> float:
        """Mean gain, positive where after is better; NaN without scores."""
        return self.result.gain if self.result is not None else math.nan

    def to_dict(self) -> dict[str, Any]:
        judged = {} if self.result is None else self.result.to_dict()
        own = {"name": self.name, "rows": self.rows, "p_adjusted": self.p_adjusted, "verdict": self.verdict}
        return {**judged, **plain(own)}


@dataclass(frozen=True)
class Change:
    """A per-row figure beside the score (latency in seconds, cost), before and after."""

    before: float
    after: float

    @property
    def ratio(self) -> float:
        """After over before; NaN where before is 0."""
        return self.after / self.before if self.before else math.nan

    def to_dict(self) -> dict[str, Any]:
        return plain({"before": self.before, "after": self.after, "ratio": self.ratio})


@dataclass(frozen=True, eq=False)
class Comparison:
    """Two runs on the same rows. Everything is after against before; the statistics are in `result`."""

    before: Run
    after: Run
    metric: str
    result: Paired
    identical: bool  # same weights, and outputs equal bit by bit on all rows
    cohorts: tuple[CohortComparison, ...]
    latency: Change  # median seconds per row
    cost: Change | None  # mean per row
    differs: dict[str, tuple[Any, Any]]  # provenance that is not the same, before and after
    confounders: tuple[str, ...]  # those that may explain a difference
    notes: tuple[str, ...]
    order: tuple[int, ...]  # where each row of `before` stands in `after`

    @property
    def verdict(self) -> str:
        """One of "different", "equivalent" and "underpowered"."""
        return self.result.verdict

    @property
    def direction(self) -> str:
        """By the mean: "better", "worse" or "same"."""
        return self.result.direction

    @property
    def rows_needed(self) -> int | None:
        return self.result.rows_needed

    @property
    def fixed(self) -> int:
        return self.result.fixed

    @property
    def broken(self) -> int:
        return self.result.broken

    @property
    def p(self) -> float:
        return self.result.p

    @property
    def difference(self) -> float:
        return self.result.difference

    @property
    def interval(self) -> Interval:
        return self.result.interval

    @property
    def worst_cohort(self) -> CohortComparison | None:
        """The cohort that gained least or lost most; None without cohorts that have scores."""
        scored = [cohort for cohort in self.cohorts if cohort.result is not None]
        return min(scored, key=lambda cohort: cohort.gain, default=None)

    @property
    def confounded(self) -> bool:
        return bool(self.confounders)

    @property
    def conclusion(self) -> str:
        """The verdict in words, with what confounds it."""
        text = (
            "equivalent: the same weights and the same outputs, bit by bit"
            if self.identical
            else self.result.conclusion
        )
        return f"{text}; confounded by: {', '.join(self.confounders)}" if self.confounders else text

    def worse_than(self, margin: float | str = 0.0) -> bool:
        """Whether `after` is shown to be worse, and by more than `margin`: the gate `--fail-on worse`.

        True when a loss is significant and its mean exceeds the margin, or when more than a share `margin` of the rows
        had a score before and have none after. A loss that so few rows cannot show passes; `no_worse_than` does not
        let it.
        """
        allowed = parse_margin(margin)
        lost = len(self.rows("lost")) / len(self.before)
        return (self.result.significant and -self.result.gain > allowed) or lost > allowed

    def no_worse_than(self, margin: float | str = 0.005) -> bool:
        """Whether it is shown that `after` is not worse by as much as `margin` (non-inferiority, one-sided).

        The strict gate: too few rows fail it, and so do rows that lost their score.
        """
        allowed = parse_margin(margin)
        if self.result.rows < 2 or len(self.rows("lost")) > allowed * len(self.before):
            return False
        if self.identical:
            return True
        interval = self.result.equivalence_interval
        least = interval.low if self.result.higher_is_better else -interval.high
        return least > -allowed

    def rows(self, kind: str = "changed") -> tuple[ComparedRow, ...]:
        """Rows of one kind, in the order of `before`.

        "fixed" (score got better), "broken" (got worse), "changed" (another answer or another score), "lost" (scored
        before, no score after), "gained" (the reverse).
        """
        if kind not in self._kinds:
            raise InputError(f"kind must be one of {', '.join(self._kinds)}; got {kind!r}")
        return tuple(self._row(int(index)) for index in np.flatnonzero(self._kinds[kind]))

    @cached_property
    def _kinds(self) -> dict[str, Any]:
        first = self.before.scores[self.metric]
        second = self.after.scores[self.metric][list(self.order)]
        change = (second - first) * (1 if self.result.higher_is_better else -1)  # NaN where a side is missing
        left, right = np.isfinite(first), np.isfinite(second)
        moved = (left != right) | (left & right & (first != second))
        answers = self.before.predictions, self.after.predictions
        if answers[0] is not None and answers[1] is not None:
            moved |= np.array([answers[0][i] != answers[1][j] for i, j in enumerate(self.order)], dtype=np.bool_)
        return {
            "fixed": change > 0,
            "broken": change < 0,
            "changed": moved,
            "lost": left & ~right,
            "gained": right & ~left,
        }

    def _row(self, index: int) -> ComparedRow:
        other = self.order[index]
        before, after = self.before, self.after
        return ComparedRow(
            id=before.ids[index],
            index_before=index,
            index_after=other,
            before=float(before.scores[self.metric][index]),
            after=float(after.scores[self.metric][other]),
            prediction_before=None if before.predictions is None else before.predictions[index],
            prediction_after=None if after.predictions is None else after.predictions[other],
            target=None if before.targets is None else before.targets[index],
        )

    def to_dict(self) -> dict[str, Any]:
        worst = self.worst_cohort
        return {
            **self.result.to_dict(),
            "before_version": self.before.version,
            "after_version": self.after.version,
            "dataset": self.before.dataset,
            "metric": self.metric,
            "conclusion": self.conclusion,
            "identical": self.identical,
            "changed": int(self._kinds["changed"].sum()),
            "lost": int(self._kinds["lost"].sum()),
            "gained": int(self._kinds["gained"].sum()),
            "cohorts": [cohort.to_dict() for cohort in self.cohorts],
            "worst_cohort": None if worst is None else worst.name,
            "latency": self.latency.to_dict(),
            "cost": None if self.cost is None else self.cost.to_dict(),
            "differs": plain(self.differs),
            "confounders": list(self.confounders),
            "notes": list(self.notes),
        }

    def __str__(self) -> str:
        result = self.result
        lines = [
            f"{self.before.version} → {self.after.version} on {result.rows:,} rows of {self.before.dataset}: "
            f"{self.conclusion}",
            f"  {self.metric}: {result.before:.4f} → {result.after:.4f}, difference {result.difference:+.4f} "
            f"(paired bootstrap, {result.confidence:.0%}: {result.interval.low:+.4f} to {result.interval.high:+.4f})",
            f"  {result.fixed:,} rows fixed, {result.broken:,} broken, {result.test} p = {result.p:.2g}; "
            f"{int(self._kinds['changed'].sum()):,} changed in all",
        ]
        worst = self.worst_cohort
        if worst is not None and worst.result is not None:
            adjusted = "" if worst.p_adjusted is None else f", Holm-adjusted p = {worst.p_adjusted:.2g}"
            lines.append(
                f"  worst of {len(self.cohorts)} cohorts: {worst.name} {worst.result.before:.4f} → "
                f"{worst.result.after:.4f} on {worst.result.rows:,} rows{adjusted}"
            )
        lines.append(
            f"  latency: {self.latency.before * 1e6:,.1f} → {self.latency.after * 1e6:,.1f} µs per row "
            f"(× {self.latency.ratio:.2f})"
        )
        if self.cost is not None:
            lines.append(f"  cost: {self.cost.before:.4g} → {self.cost.after:.4g} per row (× {self.cost.ratio:.2f})")
        return "\n".join([*lines, *(f"  note: {shown(note)}" for note in self.notes)])


def compare(
    a: Run,
    b: Run,
    metric: str | None = None,
    margin: float | str = 0.005,
    *,
    confidence: float = 0.95,
    seed: int = 0,
) -> Comparison:
    """Compare run `b` (after) with run `a` (before), row by row.

    Rows are paired by id, in whatever order they stand. `metric`: by default the first that both have. `margin`: the
    difference that does not matter, in the unit of the score ("0.5pp" and "0.5%" are 0.005). See `paired` in
    `softknee.verification.statistics` for the verdicts. Raises InputError when a row stands on one side only, naming
    how many and which, and when the runs have no metric in common.
    """
    for name, run in (("a", a), ("b", b)):
        if not isinstance(run, Run):
            raise InputError(f"{name} must be a Run, as softknee.evaluate returns; got {type(run).__name__}")
    chosen = _common_metric(a, b, metric)
    allowed = parse_margin(margin)
    order = _order(a, b)
    index = list(order)
    first, second = a.scores[chosen], b.scores[chosen][index]
    better = a.higher_is_better[chosen]
    settings: dict[str, Any] = {"confidence": confidence, "seed": seed, "higher_is_better": better}
    result = paired(first, second, margin=allowed, clusters=a.clusters, **settings)
    identical = result.rows > 1 and _identical(a, b, order)
    if identical:
        result = replace(result, verdict="equivalent", rows_needed=None)
    cohorts = []
    for name, mask in a.cohorts.items():
        both = mask & np.isfinite(first) & np.isfinite(second)
        clusters = None if a.clusters is None else [label for label, kept in zip(a.clusters, mask, strict=True) if kept]
        judged = (
            paired(first[mask], second[mask], margin=allowed, clusters=clusters, **settings) if both.any() else None
        )
        if judged is not None and identical:
            judged = replace(judged, verdict="equivalent", rows_needed=None)
        cohorts.append(
            CohortComparison(name, int(mask.sum()), judged, None, "no scores" if judged is None else judged.verdict)
        )
    adjusted = holm([math.nan if cohort.result is None else cohort.result.p for cohort in cohorts])
    cohorts = [_judged(cohort, float(p), confidence) for cohort, p in zip(cohorts, adjusted, strict=True)]
    differs, confounders, notes = _differences(a, b, order)
    cost = None
    if a.cost is not None and b.cost is not None and np.isfinite(a.cost).any() and np.isfinite(b.cost).any():
        cost = Change(float(np.nanmean(a.cost)), float(np.nanmean(b.cost)))
    return Comparison(
        before=a,
        after=b,
        metric=chosen,
        result=result,
        identical=identical,
        cohorts=tuple(cohorts),
        latency=Change(float(np.median(a.latency)), float(np.median(b.latency))),
        cost=cost,
        differs=differs,
        confounders=confounders,
        notes=(*_missing(result), *notes),
        order=order,
    )


def parse_margin(margin: float | str) -> float:
    """A margin in the unit of the score: 0.005, "0.005", "0.5pp" and "0.5%" are the same (of a score from 0 to 1).

    Raises InputError for what is negative, not finite or not a number.
    """
    if isinstance(margin, str):
        match = _MARGIN.fullmatch(margin)
        if match is not None:
            # the exponent moves the decimal point, so that "0.5pp" is the double nearest to 0.005
            exponent = int(match[2] or 0) - (2 if match[3] else 0)
            value = float(f"{match[1]}e{exponent}")
            if value < math.inf:
                return value
    elif isinstance(margin, (int, float)) and not isinstance(margin, bool) and 0 <= margin < math.inf:
        return float(margin)
    raise InputError(f"margin must be a number of at least 0, such as 0.005, '0.5pp' or '0.5%'; got {margin!r}")


def _common_metric(a: Run, b: Run, metric: str | None) -> str:
    if metric is None:
        common = [name for name in a.scores if name in b.scores]
        if not common:
            raise InputError(
                f"the runs have no metric in common: {a.version!r} has {', '.join(a.scores)}; "
                f"{b.version!r} has {', '.join(b.scores)}"
            )
        metric = common[0]
    a.metric(metric), b.metric(metric)
    if a.higher_is_better[metric] != b.higher_is_better[metric]:
        raise InputError(f"metric {metric!r} is better when higher in one run and when lower in the other")
    return metric


def _order(a: Run, b: Run) -> tuple[int, ...]:
    places = {name: index for index, name in enumerate(b.ids)}
    known = set(a.ids)
    left = [name for name in a.ids if name not in places]
    right = [name for name in b.ids if name not in known]
    if left or right:
        sides = [f"{_orphans(names)} only in {run.version!r}" for names, run in ((left, a), (right, b)) if names]
        raise InputError(f"the runs are not on the same rows: {', and '.join(sides)}; evaluate both on one dataset")
    return tuple(places[name] for name in a.ids)


def _orphans(names: Sequence[str]) -> str:
    shown = ", ".join(name[:12] for name in names[:3])
    return f"{len(names):,} row{'s' if len(names) > 1 else ''} ({shown}{', …' if len(names) > 3 else ''})"


def _identical(a: Run, b: Run, order: Sequence[int]) -> bool:
    if a is b:
        return True
    same = all(
        a.provenance.get(key) is not None and a.provenance.get(key) == b.provenance.get(key)
        for key in ("weights", "outputs")
    )
    return same and a.provenance.get("census") == b.provenance.get("census") and list(order) == list(range(len(order)))


def _judged(cohort: CohortComparison, p: float, confidence: float) -> CohortComparison:
    if cohort.result is None:
        return cohort
    # what was "different" alone may not be among many; it is then too little evidence
    if cohort.verdict == "different" and p >= 1 - confidence:
        cohort = replace(cohort, verdict="underpowered", result=replace(cohort.result, verdict="underpowered"))
    return replace(cohort, p_adjusted=p)


def _missing(result: Paired) -> list[str]:
    counts = [(result.missing_before, "before"), (result.missing_after, "after")]
    told = [f"{count:,} without a score {side}" for count, side in counts if count]
    return [f"rows left out: {', '.join(told)}"] if told else []


def _differences(
    a: Run, b: Run, order: Sequence[int]
) -> tuple[dict[str, tuple[Any, Any]], tuple[str, ...], tuple[str, ...]]:
    keys = (*SUBJECT, *CONFOUNDERS)
    differs = {
        key: (a.provenance.get(key), b.provenance.get(key))
        for key in keys
        if a.provenance.get(key) != b.provenance.get(key)
    }
    confounders = [
        f"{key} ({_told(before)} → {_told(after)})" for key, (before, after) in differs.items() if key in CONFOUNDERS
    ]
    if a.cohorts.keys() != b.cohorts.keys() or any(
        (mask != b.cohorts[name][list(order)]).any() for name, mask in a.cohorts.items()
    ):
        confounders.append("cohorts (defined otherwise; those of the first run are used)")
    notes = []
    if a.version == b.version and "weights" in differs:
        notes.append(f"both runs are called {a.version!r}, yet their weights differ")
    timing = [key for key in TIMING if key in differs]
    if timing:
        notes.append(f"latency was measured under different {', '.join(timing)}")
    told = [note for note in {a.provenance.get("census_note"), b.provenance.get("census_note")} if note]
    return differs, tuple(confounders), (*notes, *sorted(told))


def _told(value: Any) -> str:
    return "not recorded" if value is None else shown(value)
