"""What each section of the page shows, as plain data for the template: texts, rows and finished charts.

Each function takes result objects and returns None where there is nothing to show, so that a partial story makes a
shorter page, not a broken one. Nothing here is HTML except charts, which escape their own text.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any

import numpy as np

from softknee.errors import SoftkneeError

from . import charts
from .figures import MINUS, MISSING, clip, interval, known, number, p_value, percent, plural, score, shape, signed
from .png import data_uri

if TYPE_CHECKING:
    from softknee.diagnosis import Arm, Finding, Report, SiteStatistics, Trial
    from softknee.identification import Census
    from softknee.verification import Comparison
    from softknee.verification.calibration import Calibration
    from softknee.verification.comparisons import CohortComparison, ComparedRow

PANELS = 9
"""Sites whose histogram is drawn; of more, evenly spread ones with the first and the last."""

View = dict[str, Any]


def headline(report: Report) -> str:
    """The verdict without the list of what was checked, which stands elsewhere."""
    return "healthy: look elsewhere" if report.healthy else report.verdict


def unchecked(report: Report) -> list[str]:
    """What could not be checked, told once for each reason."""
    reasons: dict[str, list[str]] = {}
    for line in report.unchecked:
        title, _, why = line.partition(": ")
        reasons.setdefault(why, []).append(title)
    return [f"{', '.join(titles)}{': ' + why if why else ''}" for why, titles in reasons.items()]


def causes(report: Report | None) -> View | None:
    """Findings as trees: each cause with what follows from it."""
    if report is None:
        return None
    children: dict[str | None, list[Finding]] = {}
    ids = {finding.id for finding in report.findings}
    for finding in report.findings:
        children.setdefault(finding.caused_by if finding.caused_by in ids else None, []).append(finding)

    def tree(parent: str | None, above: frozenset[str]) -> list[View]:
        found = grouped([finding for finding in children.get(parent, ()) if finding.id not in above])
        return [_node(group, tree, above) for group in found]

    return {
        "trees": tree(None, frozenset()),
        "healthy": report.healthy,
        "verdict": headline(report),
        "checked": list(report.checked),
        "unchecked": unchecked(report),
        "rows": report.rows,
        "steps": report.steps,
    }


def grouped(findings: Sequence[Finding]) -> list[list[Finding]]:
    """Findings of one symptom together, in the order in which symptoms first occur."""
    groups: dict[str, list[Finding]] = {}
    for finding in findings:
        groups.setdefault(finding.symptom, []).append(finding)
    return list(groups.values())


def most_severe(findings: Sequence[Finding]) -> Finding:
    """The most severe one, the first of equals."""
    rank = {"critical": 0, "warning": 1}
    return min(findings, key=lambda finding: rank.get(finding.severity, 2))


def _node(found: Sequence[Finding], tree: Any, above: frozenset[str]) -> View:
    """One symptom at one or more sites, and what follows from any of them."""
    first = most_severe(found)
    return {
        "title": first.title,
        "severity": first.severity,
        "sites": [clip(f.site, 60) for f in found],
        "message": first.message,
        "others": [(clip(f.site, 60), f.message) for f in found if f is not first],
        "evidence": [(k.replace("_", " "), number(v, 4)) for k, v in first.evidence.items()],
        "threshold": first.threshold,
        "source": first.source,
        "repairs": [name.replace("_", " ") for name in first.repairs],
        "consequences": [node for f in found for node in tree(f.id, above | {f.id})],
    }


def _by_site(before: Report | None, after: Report | None) -> dict[str, dict[str, SiteStatistics]]:
    """Site key → {"before": …, "after": …}, in executed order; {"measured": …} where there is one report only."""
    found: dict[str, dict[str, SiteStatistics]] = {}
    alone = before is None or after is None
    for name, report in (("before", before), ("after", after)):
        for entry in report.stats() if report is not None else ():
            found.setdefault(entry.key, {})["measured" if alone else name] = entry
    return found


def _names(sites: Mapping[str, Mapping[str, Any]]) -> list[str]:
    return [name for name in ("before", "after", "measured") if any(name in pair for pair in sites.values())]


_LAYERS = (
    (
        "across_row_std",
        "signal across rows",
        "std, log scale",
        "How much a site's output differs from row to row; near zero, all inputs look alike to what follows.",
        {"log": True},
    ),
    (
        "gradient_norm",
        "gradient norm",
        "norm, log scale",
        "How strongly the loss pulls on the weights that feed the site; a steep slope: some layers hardly learn.",
        {"log": True},
    ),
    (
        "dead_share",
        "dead units",
        "share of units",
        "Share of units whose derivative was exactly zero on every row: no gradient passes, and they hardly come back.",
        {"share": True},
    ),
)


def layers(before: Report | None, after: Report | None, limit: int) -> View | None:
    """Signal, gradient and dead units over the sites, and the table that they are drawn from, of `limit` sites."""
    sites = _by_site(before, after)
    if not sites:
        return None
    names = _names(sites)
    panels = []
    for attribute, label, unit, words, style in _LAYERS:
        series = {name: [getattr(pair.get(name), attribute, None) for pair in sites.values()] for name in names}
        if any(known(value) for line in series.values() for value in line):
            panels.append(
                {"title": label, "svg": charts.over_layers(label, unit, list(sites), series, **style), "words": words}
            )
    table = []
    for i, (key, pair) in enumerate([*sites.items()][:limit], start=1):
        for name, entry in pair.items():
            dead = None if entry.dead is None else f"{entry.dead}/{entry.units}"
            table.append(
                [
                    str(i),
                    clip(key, 60),
                    name,
                    entry.activation or "unknown",
                    number(entry.mean),
                    number(entry.std),
                    number(entry.across_row_std),
                    percent(entry.zeros, 0),
                    percent(entry.saturated, 0),
                    dead or number(None),
                    number(entry.gradient_norm),
                ]
            )
    head = [
        "#",
        "site",
        "when",
        "activation",
        "mean",
        "std",
        "across-row std",
        "zeros",
        "saturated",
        "dead",
        "gradient norm",
    ]
    return {"panels": panels, "names": names, "head": head, "table": table, "left_out": max(0, len(sites) - limit)}


def distributions(before: Report | None, after: Report | None, census: Census | None) -> View | None:
    """Histograms of what goes into each activation, under its curve and its slope."""
    sites = {
        k: pair for k, pair in _by_site(before, after).items() if any(sum(e.histogram_counts) for e in pair.values())
    }
    if not sites:
        return None
    settings = {
        (site.key, site.activation): site.parameters
        for known_sites in (report.census for report in (after, before) if report is not None)
        for site in known_sites or ()
    } | {(site.key, site.activation): site.parameters for site in census or ()}
    shown = sorted({round(i) for i in np.linspace(0, len(sites) - 1, min(PANELS, len(sites)))})
    panels: list[View] = []
    for i, (key, pair) in enumerate(sites.items()):
        if i not in shown:
            continue
        kinds: dict[str | None, dict[str, charts.Histogram]] = {}
        for name, entry in pair.items():
            kinds.setdefault(entry.activation, {})[name] = (entry.histogram_edges, entry.histogram_counts)
        for activation, histograms in kinds.items():
            value, slope, breakpoints, axis = _curves(activation, settings.get((key, activation), {}))
            when = "" if len(kinds) == 1 else f", {next(iter(histograms))}"
            title = f"{i + 1} · {clip(key, 40)} · {activation or 'unknown activation'}{when}"
            label = f"Histogram of the input of {clip(key, 60)} under the curve of {activation or 'the activation'}"
            svg = charts.over_curves(label, histograms, value, slope, breakpoints, axis)
            panels.append({"title": title, "svg": svg})
    left_out = len(sites) - len(shown)
    return {"panels": panels, "left_out": left_out, "names": _names(sites)}


def _curves(name: str | None, parameters: Mapping[str, Any]) -> tuple[Any, Any, Sequence[float], str]:
    """f, f′, the breakpoints and what z is; no curves where there is no function of one number to draw."""
    from softknee.catalog import get
    from softknee.facts import facts

    try:
        activation = get(str(name))
        curve = facts(activation, **parameters)
        axis = "z, the gate (up = 1)" if activation.kind == "gated" else "z, the activation's input"
        return curve.value, (lambda z: curve.value(z, 1)), curve.breakpoints or (), axis
    except SoftkneeError:
        return None, None, (), "z, the activation's input"


def arms(trial: Trial | None) -> View | None:
    """Every arm with its difference from the baseline, the winner first, what did not help included."""
    if trial is None:
        return None
    ends = [end for arm in trial.arms if arm.interval is not None for end in arm.interval if known(end)]
    domain = _domain(ends)
    best = None if trial.best is None else trial.best.name
    rows = [_arm(arm, best, domain) for arm in trial.arms]
    rows.sort(key=lambda row: (not row["winner"], -row["order"]))
    tried = [arm for arm in trial.arms[2:] if arm.accuracy is not None]
    useless = [arm.title for arm in tried if arm.verdict != "better"]
    return {
        "rows": rows,
        "reason": trial.reason,
        "useless": useless,
        "domain": [f"{end:+.2f}".replace("-", MINUS) for end in domain],
        "seeds": ", ".join(map(str, trial.seeds)),
        "validation_rows": trial.rows,
    }


def _domain(ends: Sequence[float]) -> tuple[float, float]:
    """Where all rows' differences and 0 have room."""
    low, high = charts.span([0.0, *ends])
    return low - 0.05 * (high - low), high + 0.05 * (high - low)


def _arm(arm: Arm, best: str | None, domain: tuple[float, float]) -> View:
    winner = arm.name == best
    label = f"{clip(arm.title, 60)}: {signed(arm.difference)} {interval(arm.interval)}"
    style = "after" if winner else "harm" if arm.verdict == "worse" else "before"
    drawn = arm.accuracy is not None and arm.difference is not None
    return {
        "name": arm.name,
        "title": arm.title,
        "edit": arm.edit,
        "folk": arm.folk,
        "winner": winner,
        "control": arm.name == "control",
        "order": arm.accuracy if arm.accuracy is not None else -math.inf,
        "accuracy": score(arm.accuracy),
        "svg": charts.dot_interval(label, arm.difference, arm.interval, domain, style) if drawn else "",
        "difference": f"{signed(arm.difference)} {interval(arm.interval)}" if drawn else "",
        "fixed": number(arm.fixed),
        "broken": number(arm.broken),
        "p": p_value(arm.p),
        "verdict": arm.verdict,
        "note": arm.note,
    }


def comparison(result: Comparison | None) -> View | None:
    """The two runs row by row: the key figures, the cohorts, what else differs."""
    if result is None:
        return None
    judged = result.result
    ends = [end for c in result.cohorts if c.result is not None for end in c.result.interval if known(end)]
    domain = _domain(ends)
    worst = result.worst_cohort
    return {
        "metric": result.metric,
        "versions": (clip(result.before.version, 60), clip(result.after.version, 60)),
        "dataset": clip(result.before.dataset, 80),
        "conclusion": result.conclusion,
        "before": score(judged.before),
        "after": score(judged.after),
        "difference": signed(judged.difference),
        "interval": interval(judged.interval),
        "confidence": percent(judged.confidence, 0),
        "fixed": number(judged.fixed),
        "broken": number(judged.broken),
        "p": p_value(judged.p),
        "test": judged.test,
        "rows": number(judged.rows),
        "latency": f"{number(1e6 * result.latency.before)} → {number(1e6 * result.latency.after)} µs per row",
        "worst": None
        if worst is None or worst.result is None
        else {
            "name": clip(worst.name, 60),
            "scores": f"{score(worst.result.before)} → {score(worst.result.after)}, {worst.verdict}",
        },
        "cohorts": [_cohort(cohort, worst, domain) for cohort in result.cohorts],
        "domain": [f"{end:+.2f}".replace("-", MINUS) for end in domain],
        "differs": [(clip(k, 60), clip(a, 80), clip(b, 80)) for k, (a, b) in result.differs.items()],
        "notes": [clip(note, 400) for note in result.notes],
    }


def _cohort(cohort: CohortComparison, worst: CohortComparison | None, domain: tuple[float, float]) -> View:
    judged = cohort.result
    if judged is None:
        return {
            "name": clip(cohort.name, 60),
            "rows": number(cohort.rows),
            "verdict": cohort.verdict,
            "worst": False,
            "svg": "",
        }
    label = f"{clip(cohort.name, 60)}: {signed(judged.difference)} {interval(judged.interval)}"
    style = "harm" if cohort.verdict == "different" and judged.gain < 0 else "after"
    return {
        "name": clip(cohort.name, 60),
        "rows": number(cohort.rows),
        "before": score(judged.before),
        "after": score(judged.after),
        "difference": f"{signed(judged.difference)} {interval(judged.interval)}",
        "svg": charts.dot_interval(label, judged.difference, judged.interval, domain, style),
        "p": p_value(cohort.p_adjusted),
        "verdict": f"{cohort.verdict}: {judged.direction}" if cohort.verdict == "different" else cohort.verdict,
        "worst": cohort is worst,
    }


def changed(result: Comparison | None, images: Mapping[str, Any], limit: int) -> View | None:
    """Rows that were broken and rows that were fixed, as pictures where there are any; at most `limit` of a kind."""
    if result is None:
        return None
    groups: list[View] = []
    for kind, plain, words in (
        ("broken", "Broken: right before, wrong now", "Broken: the score got worse"),
        ("fixed", "Fixed: wrong before, right now", "Fixed: the score got better"),
    ):
        rows = result.rows(kind)
        title = plain if {row.before for row in rows} | {row.after for row in rows} <= {0.0, 1.0} else words
        # evenly spread rather than the first ones, which may all be of one class
        at = np.unique(np.linspace(0, len(rows) - 1, min(limit, len(rows))).round().astype(int))
        shown = [_row(rows[i], images) for i in at]
        groups.append(
            {"kind": kind, "title": title, "rows": shown, "count": len(rows), "left_out": len(rows) - len(shown)}
        )
    return {"groups": groups, "pictures": any(row["image"] for group in groups for row in group["rows"])}


def _row(row: ComparedRow, images: Mapping[str, Any]) -> View:
    return {
        "id": row.id,
        "image": data_uri(images[row.id]) if row.id in images else "",
        "label": _answer(row.target),
        "before": _answer(row.prediction_before, row.before),
        "after": _answer(row.prediction_after, row.after),
    }


def _answer(answer: Any, otherwise: float | None = None) -> str:
    """A label or an answer; the row's score where no answer was kept."""
    if answer is None:
        return score(otherwise)
    return number(answer) if isinstance(answer, float) else clip(answer, 40)


def calibration(result: Calibration | None) -> View | None:
    """Reliability before and after the temperature, with NLL and ECE."""
    if result is None:
        return None
    panels = [
        {"title": title, "svg": charts.reliability(f"Reliability diagram, {title}", bins, style)}
        for title, bins, style in (
            ("as it is", result.reliability_raw, "before"),
            (f"with temperature {number(result.temperature)}", result.reliability_scaled, "after"),
        )
    ]
    return {
        "verdict": result.verdict,
        "temperature": number(result.temperature),
        "validation_rows": number(result.validation_rows),
        "rows": number(result.rows),
        "panels": panels,
        "confidence": percent(result.confidence, 0),
        "table": [
            [
                "NLL, nats per row",
                number(result.nll_raw),
                number(result.nll_scaled),
                f"{number(result.nll_scaled - result.nll_raw)} {interval(result.interval, number)}",
            ],
            [
                "ECE, calibration error",
                f"{number(result.ece_raw)} {interval(result.ece_raw_interval, number)}",
                f"{number(result.ece_scaled)} {interval(result.ece_scaled_interval, number)}",
                f"{number(result.ece_scaled - result.ece_raw)} {interval(result.ece_interval, number)}",
            ],
        ],
    }


def census(result: Census | None, limit: int) -> View | None:
    """The activation sites, the head and linear maps that collapse."""
    if result is None:
        return None
    rows = []
    for site in result.sites[:limit]:
        where = site.source or site.implementation
        rows.append(
            [
                clip(site.key, 60),
                clip(site.name, 60),
                site.role,
                f"{site.form}, {site.evidence}",
                shape(site.shape),
                "yes" if site.measured else "no",
                clip(where, 90),
                clip(site.note),
            ]
        )
    names = ["site", "activation", "role", "found as", "shape", "measured", "where", "note"]
    kept = [i for i in range(len(names)) if any(row[i] for row in rows)]
    head = result.head
    return {
        "head_row": [names[i] for i in kept],
        "rows": [[row[i] for i in kept] for row in rows],
        "blocks": [
            [clip(path or "the model itself", 60), str(len(found)), clip(", ".join(found), 200)]
            for path, found in [*result.blocks.items()][:limit]
        ],
        "left_out": len(result.sites) - len(rows),
        "counts": [f"{plural(count, 'site')} of {name}" for name, count in result.counts().items()],
        "head": None if head is None else _head(head),
        "collapses": [clip(str(collapse), 300) for collapse in result.collapses],
        "notes": [*result.notes],
    }


def _head(head: Any) -> str:
    features = f", {plural(head.features, 'output')}" if head.features is not None else ""
    return f"{head.kind} from {clip(head.path or 'the model', 60)}{features}"


def runs(result: Comparison | None) -> list[list[str]]:
    """Provenance of the two runs side by side."""
    if result is None:
        return []
    before, after = dict(provenance(result.before.provenance)), dict(provenance(result.after.provenance))
    return [[name, before.get(name, MISSING), after.get(name, MISSING)] for name in {**before, **after}]


def thresholds(*reports: Report | None) -> list[list[str]]:
    """Symptom, threshold and source of every finding, each once."""
    found: dict[tuple[str, str], list[str]] = {}
    for report in reports:
        for finding in report.findings if report is not None else ():
            found.setdefault((finding.symptom, finding.threshold), [finding.title, finding.threshold, finding.source])
    return list(found.values())


def provenance(entries: Mapping[str, Any], above: str = "") -> list[tuple[str, str]]:
    """Nested provenance as (name, value) lines."""
    lines: list[tuple[str, str]] = []
    for key, value in entries.items():
        name = f"{above} · {key}" if above else str(key)
        if isinstance(value, Mapping):
            lines += provenance(value, name)
        elif isinstance(value, (list, tuple, set, frozenset)):
            lines.append((name, clip(", ".join(map(str, value)), 400)))
        else:
            lines.append((name, f"{value:g}" if isinstance(value, float) else clip(value, 400)))
    return lines
