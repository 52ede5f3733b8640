"""Symptoms judge what was measured. Each is one function with its thresholds, and where they come from, beside it.

A symptom sees a `Measurement` and returns findings; it does not know of other symptoms (causes.py does). `needs` says
why it cannot be looked for, where it cannot: what was not measured is not healthy, it is unknown. Thresholds taken
from the literature were widened where healthy trainings crossed them (benchmarks/healthy.py); the docstrings say so.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass

from softknee.diagnosis.measurements import ROWS_NEEDED, Measurement, median
from softknee.diagnosis.probes import SATURATION_SLOPE
from softknee.diagnosis.reports import Finding, SiteStatistics

CALIBRATED = "calibrated on benchmarks/healthy.py"
DEEPCHECKER = "TheDeepChecker, Ben Braiek & Khomh 2022, arXiv:2204.00694"
AUTOTRAINER = "AutoTrainer, Zhang et al. 2021, arXiv:2103.00191"
SAGEMAKER = "Amazon SageMaker Debugger built-in rules"

LOGS_NEEDED = 50
"""Logged losses below which nothing is said of their course."""


@dataclass(frozen=True)
class Symptom:
    """A named symptom: `look` finds it, `needs` says why it cannot be looked for (None: it can)."""

    name: str
    title: str
    look: Callable[[Measurement], list[Finding]]
    needs: Callable[[Measurement], str | None]


# -- what a symptom needs


def _sites(m: Measurement) -> str | None:
    if not m.hidden:
        return m.trouble or "no hidden activation was seen in a forward of the model itself"
    if m.rows < ROWS_NEEDED:
        return f"needs {ROWS_NEEDED - m.rows} more rows"
    return None


def _signal(m: Measurement) -> str | None:
    return _sites(m) or (
        None if _chain(m) else "needs batches of at least 2 rows and 3 sites in which signals can be compared"
    )


def _gradients(m: Measurement) -> str | None:
    if not m.gradients:
        return (
            "no gradient was seen: give the optimizer to watch, or log between backward and zero_grad"
            if m.watched
            else "needs targets"
        )
    if not any(layer.gradient_norm for layer in m.layers):
        return "every gradient seen was zero" if m.layers else (m.trouble or "no affine layer was seen")
    return None


def _updates(m: Measurement) -> str | None:
    return None if m.updates else "single updates of the weights were not seen: watch the training"


def _losses(m: Measurement) -> str | None:
    if len(m.losses) < LOGS_NEEDED:
        return f"needs {LOGS_NEEDED - len(m.losses)} more logged losses: watch the training, w.log(loss=…)"
    return None


def _output(m: Measurement) -> str | None:
    if m.output is None:
        return "the model's output is no tensor of real numbers that a probe could read"
    if m.output.across_row_std is None:
        return "needs batches of at least 2 rows"
    return None if m.output.rows >= ROWS_NEEDED else f"needs {ROWS_NEEDED - m.output.rows} more rows"


def _labels(m: Measurement) -> str | None:
    if m.confidence is None:
        return "needs class labels: diagnose(model, (x, y))"
    if m.confidence.rows < ROWS_NEEDED:
        return f"needs {ROWS_NEEDED - m.confidence.rows} more labelled rows"
    return None


def _census(m: Measurement) -> str | None:
    return None if m.census is not None and m.census.executed else (m.trouble or "the model was not identified")


def _anything(m: Measurement) -> str | None:
    return None if m.sites or m.output is not None or m.gradients or m.losses else "nothing was measured"


# -- the symptoms


def nonfinite(m: Measurement) -> list[Finding]:
    """A value that is NaN or infinite, at the first place where one appeared.

    By step, then in the order of computation: input, sites as executed, loss, gradients from the last layer back.
    Definition: any at all. With `every` > 1 the first site is the first at a measured step.
    """
    if m.origin is None:
        return []
    origin = m.origin
    if origin.where == "input":
        message = f"the data themselves hold NaN or Inf (first at step {origin.step})"
    elif origin.where == "loss":
        message = f"the loss is NaN or Inf from step {origin.step} on"
    elif origin.where == "gradient":
        message = f"the gradient of {origin.site} is the first value that is NaN or Inf, at step {origin.step}"
    else:
        message = f"{origin.site} is the first site, in executed order, with NaN or Inf, at step {origin.step}"
    known_to = "" if m.every == 1 or not m.watched else f" (measured every {m.every} steps)"
    return [
        Finding(
            symptom="nonfinite",
            site=origin.site,
            title="NaN or Inf",
            severity="critical",
            message=message + known_to,
            evidence={"first_site": origin.site, "where": origin.where, "step": origin.step, "every": m.every},
            threshold="any value that is not finite",
            source="IEEE 754: one NaN makes every later value NaN",
            repairs=("clip", "learning_rate") if origin.where != "input" else (),
        )
    ]


GAIN_EFFECT = 10.0
"""The product of measured over exact gain has to account for at least this factor."""
GAIN_RATIO = 3.0
"""Mean ratio of gains, either way, at which bounded activations saturate (or stay linear) from the start."""


ALIKE = 1e-6
"""Gain, and signal, up to which a layer's weights count as all the same number, and its output as constant."""


def fading_activation(m: Measurement) -> list[Finding]:
    """An activation that lets the difference between rows fade with depth, at its best initialisation too.

    Two rows that are nearly alike differ by √(σ_w²·E[f′(z)²]) times as much behind a layer as before it (Schoenholz et
    al. 2017: χ below 1 is the ordered phase). At the exact gain, the largest that keeps the signal's size, that is
    √E[f′²]/√E[f²]: 1 for the ReLU, 1.04 for GELU, 0.39 for the sigmoid, most of whose signal is its mean. So no
    initialisation mends it at depth. A fault when the factors amount to 1/`DRIFT` over depth and the signal was
    measured to shrink by `DRIFT` (normalised and residual networks do not let it).
    """
    drift = _drift(m)
    factors = [s.exact_gain / s.backward_gain for s in m.hidden if s.exact_gain and s.backward_gain]
    total = sum(map(math.log, factors[1:]))
    if drift is None or drift.total > -math.log(DRIFT) or total > -math.log(DRIFT):
        return []
    names = sorted({s.activation for s in m.hidden if s.activation and s.exact_gain})
    each, best, measured = math.exp(total / (len(factors) - 1)), math.exp(total), math.exp(drift.total)
    return [
        Finding(
            symptom="fading_activation",
            site="model",
            title="activation too flat for this depth",
            severity="critical",
            message=(
                f"{'/'.join(names)} passes on at most ×{each:.2g} of what distinguishes rows per layer, at its best"
                f" initialisation: ×{best:.2g} over {len(factors)} layers, measured ×{measured:.2g}"
            ),
            evidence={
                "best_factor_per_layer": each,
                "best_factor": best,
                "layers": len(factors),
                "signal_factor": measured,
            },
            threshold=f"best and measured factor over depth ≤ 1/{DRIFT:g}",
            source="Schoenholz et al. 2017, arXiv:1611.01232 (χ = σ_w²·E[f′²] < 1); " + CALIBRATED,
            repairs=("swap_with_gain", "exact_gain"),
        )
    ]


def wrong_gain(m: Measurement) -> list[Finding]:
    """Bad initialisation: std(W)·√fan_in away from the activation's gain 1/√E[f(z)²], so that depth adds up to harm.

    A gain that is off is no fault in itself: `nn.Linear`'s stock initialisation has 0.58 for any activation, and
    shallow, normalised and residual networks train with it. It is judged by its effect. Either the signal that
    distinguishes rows has drifted by `DRIFT` over depth and the product of the gains' ratios accounts for it, in the
    same direction; or the gains are more than `GAIN_RATIO` too large and bounded sites are saturated; or the weights
    started all alike and no signal passes.
    """
    alike = [s for s in m.hidden if s.exact_gain and s.gain is not None and s.gain < ALIKE]
    if alike and all((s.across_row_std or 0.0) < ALIKE for s in alike):
        return [_all_alike(alike)]
    pairs = [(s, s.gain / s.exact_gain) for s in m.hidden if s.gain and s.exact_gain]
    if len(pairs) < 2 or fading_activation(m):  # then no gain is right
        return []
    logs = [math.log(ratio) for _, ratio in pairs[1:]]  # the first layer sets the scale, the others compound it
    mean_log, total = sum(logs) / len(logs), sum(logs)
    drift = _drift(m)
    drifted = (
        drift is not None
        and abs(drift.total) >= math.log(DRIFT)
        and drift.total * total > 0
        and abs(total) >= math.log(GAIN_EFFECT)
        and abs(total) >= abs(drift.total) / 4
    )
    flooded = mean_log > math.log(GAIN_RATIO) and bool(saturation(m))
    if not drifted and not flooded:
        return []
    measured = math.exp(sum(math.log(s.gain) for s, _ in pairs if s.gain) / len(pairs))
    exact = math.exp(sum(math.log(s.exact_gain) for s, _ in pairs if s.exact_gain) / len(pairs))
    effect = (
        f"over {len(pairs)} layers the signal that distinguishes rows is multiplied by {math.exp(drift.total):.2g}"
        if drifted and drift is not None
        else "bounded activations are saturated from the start"
    )
    names = sorted({s.activation for s, _ in pairs if s.activation})
    return [
        Finding(
            symptom="wrong_gain",
            site="model",
            title="bad initialisation",
            severity="critical",
            message=(f"weights start with gain {measured:.3g} where {'/'.join(names)} needs {exact:.4g}: {effect}"),
            evidence={
                "measured_gain": measured,
                "exact_gain": exact,
                "layers": len(pairs),
                "accumulated_ratio": math.exp(total),
                "signal_factor": math.exp(drift.total) if drift is not None else "not measured",
            },
            threshold=(
                f"gains' product off by ≥ {GAIN_EFFECT:g} and the signal across rows by ≥ {DRIFT:g} over depth, or"
                f" gain ≥ {GAIN_RATIO:g} × exact and saturated"
            ),
            source="He et al. 2015, arXiv:1502.01852 (variance kept when fan_in·Var(w)·E[f²] = 1); " + CALIBRATED,
            repairs=("exact_gain", "he_gain", "xavier_gain"),
        )
    ]


def _all_alike(sites: Sequence[SiteStatistics]) -> Finding:
    layers = ", ".join(str(s.layer) for s in sites)
    return Finding(
        symptom="wrong_gain",
        site="model",
        title="bad initialisation",
        severity="critical",
        message=f"the weights of {layers} are all the same number: no signal passes, and no unit learns unlike another",
        evidence={"measured_gain": 0.0, "layers": len(sites), "accumulated_ratio": 0.0, "signal_factor": 0.0},
        threshold=f"gain and signal across rows both < {ALIKE:g}",
        source="Goodfellow et al. 2016, Deep Learning, section 8.4 (initialisation has to break symmetry)",
        repairs=("exact_gain", "he_gain", "xavier_gain"),
    )


UPDATE_UNSTABLE = 0.1
UPDATE_WILD = 1.0
UPDATE_FROZEN = 1e-6
"""TheDeepChecker warns below 1e-4, where healthy SGD near its end also is."""
GRADIENT_ALIVE = 1e-8


def unstable_update(m: Measurement) -> list[Finding]:
    """Steps that move the weights too far: median over weights of ‖Δw‖/‖w‖ above 0.1 in the median step, or above 1.

    TheDeepChecker wants log10 ‖Δw‖/‖w‖ in [−4, −1]. Single steps above 0.1 occur in healthy starts (Adam), so the
    median over steps counts; one step above 1 replaces the weights.
    """
    course = _update_course(m)
    if not course:
        return []
    typical, largest = median(course) or 0.0, max(course)
    if typical <= UPDATE_UNSTABLE and largest <= UPDATE_WILD:
        return []
    when = m.update_steps[course.index(largest)] if len(course) == len(m.update_steps) else "unknown"
    return [
        Finding(
            symptom="unstable_update",
            site="model",
            title="unstable update (learning rate too high)",
            severity="critical" if largest > UPDATE_WILD else "warning",
            message=(
                f"a step moves the weights by {typical:.2g} of their norm (median), {largest:.2g} at most (step {when})"
            ),
            evidence={"median_update_ratio": typical, "largest_update_ratio": largest, "step": when},
            threshold=f"median ‖Δw‖/‖w‖ > {UPDATE_UNSTABLE:g}, or any > {UPDATE_WILD:g}",
            source=f"{DEEPCHECKER}; {CALIBRATED}",
            repairs=("learning_rate", "clip"),
        )
    ]


def frozen_update(m: Measurement) -> list[Finding]:
    """Steps that do not move the weights: ‖Δw‖/‖w‖ ≤ 1e-6 for the median weight in every measured step.

    TheDeepChecker's lower limit is 1e-4; healthy SGD near convergence passes it, so ours is 1e-6 and also asks that
    the loss has not fallen.
    """
    course = _update_course(m)
    if not course or max(course) > UPDATE_FROZEN or _fallen(m):
        return []
    return [
        Finding(
            symptom="frozen_update",
            site="model",
            title="frozen update",
            severity="warning",
            message=f"no measured step moves the weights by more than {max(course):.2g} of their norm",
            evidence={
                "largest_update_ratio": max(course),
                "median_gradient_norm": median([g.gradient_norm or 0.0 for g in m.layers]) or 0.0,
            },
            threshold=f"median over weights of ‖Δw‖/‖w‖ ≤ {UPDATE_FROZEN:g} in every measured step, loss not falling",
            source=f"{DEEPCHECKER}; {CALIBRATED}",
            repairs=("learning_rate",),
        )
    ]


def missing_nonlinearity(m: Measurement) -> list[Finding]:
    """Consecutive affine maps with nothing between: they are one affine map, at any depth. Exact, by folding them."""
    assert m.census is not None
    return [
        Finding(
            symptom="missing_nonlinearity",
            site=collapse.paths[-1],
            title="missing nonlinearity",
            severity="warning",
            message=(
                f"{' → '.join(collapse.paths)} is one affine map: folded and executed differ by at most"
                f" {collapse.max_difference:.2g}"
            ),
            evidence={
                "layers": " → ".join(collapse.paths),
                "max_difference": collapse.max_difference,
                "folded_shape": "×".join(map(str, collapse.weight.shape)),
            },
            threshold="two or more affine maps in a row",
            source="W₂(W₁x + b₁) + b₂ = (W₂W₁)x + (W₂b₁ + b₂)",
            repairs=("insert_activation",),
        )
        for collapse in m.census.collapses
        if not _deliberate(m, collapse.paths)
    ]


DRIFT = 100.0
"""Change of the signal across rows over depth, either way, from which it is a fault."""
DRIFT_CRITICAL = 1000.0


def forward_drift(m: Measurement) -> list[Finding]:
    """The signal that distinguishes rows (std across rows) shrinks or grows with depth, layer by layer.

    Slope of log std per layer, fitted over the hidden sites in executed order; a fault when the whole amounts to
    1/100 or 100 (TheDeepChecker: std outside [0.5, 2] in any layer, which healthy networks leave).
    """
    drift = _drift(m)
    if drift is None or abs(drift.total) < math.log(DRIFT):
        return []
    chain = _chain(m)
    verb = "shrinks" if drift.slope < 0 else "grows"
    return [
        Finding(
            symptom="forward_drift",
            site="model",
            title=f"signal across rows {verb} layer by layer",
            severity="critical" if abs(drift.total) >= math.log(DRIFT_CRITICAL) else "warning",
            message=(
                f"×{math.exp(drift.slope):.2g} per layer, from {chain[0].across_row_std or 0:.2g} at {chain[0].key} to"
                f" {chain[-1].across_row_std or 0:.2g} at {chain[-1].key}"
            ),
            evidence={
                "slope_per_layer": drift.slope,
                "factor_per_layer": math.exp(drift.slope),
                "factor": math.exp(drift.total),
                "first": chain[0].across_row_std or 0.0,
                "last": chain[-1].across_row_std or 0.0,
            },
            threshold=f"fitted change over depth ≥ {DRIFT:g} either way",
            source=f"{DEEPCHECKER}; Schoenholz et al. 2017, arXiv:1611.01232; {CALIBRATED}",
            repairs=("exact_gain", "he_gain", "xavier_gain"),
        )
    ]


SATURATED = 0.5
SATURATED_CRITICAL = 0.85


def saturation(m: Measurement) -> list[Finding]:
    """|f′| < 0.01 for more than half of a site's values, for activations that are bounded on both sides.

    One-sided activations (ReLU, GELU, SiLU) are flat on one side by design: there the question is dead units. Critical
    above 0.85 (TheDeepChecker's ρ_B); the half is reference practice for |f′| rather than ρ.
    """
    findings = []
    for site in m.hidden:
        if site.saturated is None or site.saturated <= SATURATED or site.role != "hidden" or not _bounded(site):
            continue
        findings.append(
            Finding(
                symptom="saturation",
                site=site.key,
                title="saturation",
                severity="critical" if site.saturated > SATURATED_CRITICAL else "warning",
                message=f"{site.saturated:.0%} of {site.activation}'s inputs lie where |f′| < 0.01",
                evidence={"saturated": site.saturated, "input_std": site.input_std, "rows": site.rows},
                threshold=f"share > {SATURATED:g} (critical > {SATURATED_CRITICAL:g})",
                source=f"{DEEPCHECKER}; Glorot & Bengio 2010",
                repairs=("exact_gain", "learning_rate", "swap_activation"),
            )
        )
    return findings


DEAD = 0.5
DEAD_CRITICAL = 0.9
DEAD_NOTED = 0.1


def dead_unit(m: Measurement) -> list[Finding]:
    """Units whose f′ was exactly 0 on every sampled row: no gradient reaches them, they do not come back by themselves.

    With 0 of n rows the firing rate is below 3/n (95 %). A few dead units are ordinary in healthy ReLU networks, so
    only more than half of a site is a fault; from a tenth on they are noted.
    """
    findings = []
    for site in m.hidden:
        share = site.dead_share
        if share is None or share <= DEAD_NOTED or site.dead is None:
            continue
        severity = "critical" if share > DEAD_CRITICAL else "warning" if share > DEAD else "info"
        findings.append(
            Finding(
                symptom="dead_unit",
                site=site.key,
                title="dead units",
                severity=severity,
                message=(
                    f"{site.dead} of {site.units} units have f′ = 0 on all {site.rows} rows"
                    f" (they fire on < {site.firing_bound:.2%})"
                ),
                evidence={
                    "dead": site.dead,
                    "units": site.units,
                    "share": share,
                    "rows": site.rows,
                    "firing_rate_below": site.firing_bound,
                },
                threshold=f"share > {DEAD:g} (critical > {DEAD_CRITICAL:g}; noted > {DEAD_NOTED:g})",
                source=f"Lu et al. 2019, arXiv:1903.06733; rule of three, Hanley & Lippman-Hand 1983; {CALIBRATED}",
                repairs=("revive", "swap_activation", "learning_rate"),
            )
        )
    return findings


VANISHING_RATIO = 1e-3
VANISHING_FIRST = 1e-4
EXPLODING_RATIO = 70.0
EXPLODING_LAST = 1.0
WINDOW = 5
FADING = 16.0


def vanishing_gradient(m: Measurement) -> list[Finding]:
    """The gradient fades on its way back: first/last layer < 1e-3 with first < 1e-4, or halving per layer.

    AutoTrainer's ratio and floor; the second form, a norm that falls by 16 over 5 consecutive layers (halving at each
    step) without ever rising, shows it before the floor is reached.
    """
    layers = [layer for layer in m.layers if layer.gradient_norm is not None]
    norms = [layer.gradient_norm or 0.0 for layer in layers]
    if len(norms) < 3 or not any(norms):
        return []
    ratio = norms[0] / norms[-1] if norms[-1] else math.inf
    faded = ratio < VANISHING_RATIO and norms[0] < VANISHING_FIRST
    run = _fading(norms)
    if not faded and run is None:
        return []
    low, high = (0, len(norms) - 1) if run is None or faded else run
    return [
        Finding(
            symptom="vanishing_gradient",
            site=layers[low].path,
            title="vanishing gradient",
            severity="critical" if faded else "warning",
            message=(
                f"the gradient falls from {norms[high]:.2g} at {layers[high].path} to {norms[low]:.2g} at"
                f" {layers[low].path}"
            ),
            evidence={
                "first": norms[0],
                "last": norms[-1],
                "first_to_last": ratio,
                "factor_per_layer": (norms[low] / norms[high]) ** (1 / (high - low)) if norms[high] else 0.0,
                "layers": high - low + 1,
            },
            threshold=(
                f"first/last < {VANISHING_RATIO:g} and first < {VANISHING_FIRST:g}, or falling by {FADING:g} over"
                f" {WINDOW} layers in a row"
            ),
            source=AUTOTRAINER,
            repairs=("exact_gain", "swap_activation"),
        )
    ]


def exploding_gradient(m: Measurement) -> list[Finding]:
    """The gradient grows on its way back: first/last layer > 70 (AutoTrainer) and the first exceeds its weight's norm.

    The second half keeps small gradients of uneven layers from counting.
    """
    layers = [layer for layer in m.layers if layer.gradient_norm is not None]
    norms = [layer.gradient_norm or 0.0 for layer in layers]
    if len(norms) < 2 or any(math.isnan(norm) for norm in norms):
        return []
    worst = max(range(len(norms)), key=norms.__getitem__)
    last = norms[-1]
    ratio = norms[worst] / last if last else math.inf
    relative = norms[worst] / max(layers[worst].weight_norm, 1e-30)
    if not (ratio > EXPLODING_RATIO and relative > EXPLODING_LAST):
        return []
    return [
        Finding(
            symptom="exploding_gradient",
            site=layers[worst].path,
            title="exploding gradient",
            severity="critical",
            message=(
                f"the gradient grows from {last:.2g} at {layers[-1].path} to {norms[worst]:.2g} at {layers[worst].path}"
            ),
            evidence={"largest": norms[worst], "last": last, "ratio": ratio, "relative_to_weight": relative},
            threshold=f"ratio to the last layer > {EXPLODING_RATIO:g} and norm > {EXPLODING_LAST:g} × the weight's",
            source=f"{AUTOTRAINER}; {CALIBRATED}",
            repairs=("clip", "exact_gain", "learning_rate"),
        )
    ]


CONSTANT = 0.02
CONSTANT_LOGITS = 0.02
"""Std across rows of logits up to which no probability moves by more than about 2 % of itself."""
CONSTANT_REAL = 1e-4
ONE_CLASS = 0.99


def constant_output(m: Measurement) -> list[Finding]:
    """The network says the same for every row: its output's std across rows is tiny against its size.

    Classes: below 2 % of the output's root mean square, and one class gets ≥ 99 % of each batch (predicting one class
    alone can be right, when the classes are imbalanced). Real values: below 1e-4 of it, or 1 % of the targets' std.
    """
    output = m.output
    assert output is not None
    assert output.across_row_std is not None
    across = output.across_row_std
    size = math.hypot(output.std, output.mean)
    ratio = across / size if size else 0.0
    classes = output.units > 1 and m.top_share is not None and m.target_std is None
    if classes and m.top_share is not None:
        logits = m.census is not None and m.census.head is not None and m.census.head.kind == "logits"
        constant = ratio < CONSTANT and m.top_share >= ONE_CLASS and not (logits and across > CONSTANT_LOGITS)
    elif m.target_std:
        constant = across < 0.01 * m.target_std and ratio < CONSTANT
    else:
        constant = ratio < CONSTANT_REAL
    if not constant:
        return []
    share = f"; one class gets {m.top_share:.0%} of the rows" if classes and m.top_share is not None else ""
    return [
        Finding(
            symptom="constant_output",
            site="model",
            title="constant output",
            severity="critical",
            message=f"std across rows is {ratio:.2g} of the output's size{share}",
            evidence={
                "across_row_std": across,
                "relative": ratio,
                "top_class_share": m.top_share if classes and m.top_share is not None else "not applicable",
            },
            threshold=(
                f"relative < {CONSTANT:g} with one class ≥ {ONE_CLASS:.0%}; real values: < {CONSTANT_REAL:g}, or 1 % of"
                " the targets' std"
            ),
            source=f"{SAGEMAKER} (constant outputs); {CALIBRATED}",
            repairs=(),
        )
    ]


FLAT = 0.01
CHANCE = 0.9
RISING = 1.5
RISING_CHANCE = 1.05


def flat_loss(m: Measurement) -> list[Finding]:
    """The loss has not fallen by 1 % between the first and the last tenth of what was logged.

    SageMaker's rule is 0.1 % between evaluations. A model that has learned is flat too, so it is a fault only at the
    level of a constant prediction (≥ 0.9·ln classes) or with a constant output; elsewhere it is noted.
    """
    course = [loss for _, loss in m.losses]
    if any(not math.isfinite(loss) for loss in course):
        return []
    tenth = max(5, len(course) // 10)
    start, end = _mean(course[:tenth]), _mean(course[-tenth:])
    scale = max(abs(start), 1e-12)
    if (start - end) / scale >= FLAT or _rising(m):
        return []
    chance = _chance(m)
    stuck = (chance is not None and end >= CHANCE * chance) or bool(_output(m) is None and constant_output(m))
    level = f", {end / chance:.0%} of a constant prediction's {chance:.3g}" if chance else ""
    return [
        Finding(
            symptom="flat_loss",
            site="model",
            title="flat loss",
            severity="critical" if stuck else "info",
            message=f"the loss went from {start:.4g} to {end:.4g} over {m.steps} steps{level}",
            evidence={
                "start": start,
                "end": end,
                "relative_fall": (start - end) / scale,
                "chance": chance if chance is not None else "unknown",
            },
            threshold=f"fall < {FLAT:.0%} at ≥ {CHANCE:g} of a constant prediction's loss",
            source=f"{SAGEMAKER} (loss not decreasing); {CALIBRATED}",
            repairs=("learning_rate",) if stuck else (),
        )
    ]


def rising_loss(m: Measurement) -> list[Finding]:
    """The loss ends above its start and above that of a constant prediction by 5 % (SageMaker's figure).

    Where the latter is unknown, more than half above its start: 5 % of a small loss is noise.
    """
    if not _rising(m):
        return []
    course = [loss for _, loss in m.losses]
    tenth = max(5, len(course) // 10)
    start, end = _mean(course[:tenth]), _mean(course[-tenth:])
    return [
        Finding(
            symptom="rising_loss",
            site="model",
            title="rising loss",
            severity="critical",
            message=f"the loss rose from {start:.4g} to {end:.4g}",
            evidence={"start": start, "end": end, "factor": end / start if start else math.inf},
            threshold=(
                f"last tenth > {RISING_CHANCE:g} × the larger of first tenth and chance; chance unknown: > {RISING:g} ×"
                " first tenth"
            ),
            source=f"{SAGEMAKER}; {CALIBRATED}",
            repairs=("learning_rate", "clip"),
        )
    ]


CONFIDENT = 0.99
CONFIDENT_ACCURACY = 0.95
CONFIDENT_ROWS = 30
GAP = 0.1


def over_confidence(m: Measurement) -> list[Finding]:
    """Sure and wrong: of the rows with p > .99 clearly fewer than 95 % are right, or confidence exceeds accuracy by .1.

    "Clearly": above two standard errors. On rows the model was trained on it can hide: give held-out rows. The
    evidence also tells the logits' scale, the gap to the training rows, and the regularisers found.
    """
    c = m.confidence
    assert c is not None
    confident_rows = round(c.confident * c.rows)
    sure_wrong = False
    if c.confident_accuracy is not None and confident_rows >= CONFIDENT_ROWS:
        error = math.sqrt(max(c.confident_accuracy * (1 - c.confident_accuracy), 1e-4) / confident_rows)
        sure_wrong = c.confident_accuracy + 2 * error < CONFIDENT_ACCURACY
    gap = c.mean_confidence - c.accuracy
    noise = math.sqrt(max(c.accuracy * (1 - c.accuracy), 1e-4) / c.rows)
    # A model that answers no better than chance has not learned; that it is not unsure of it is the lesser news.
    features = m.census.head.features if m.census is not None and m.census.head is not None else None
    learned = features is None or max(c.accuracy, c.train_accuracy or 0.0) - 2 * noise > 1 / max(features, 2)
    if not (sure_wrong or (learned and gap - 2 * noise >= GAP)):
        return []
    evidence: dict[str, float | int | str] = {
        "rows": c.rows,
        "confident_share": c.confident,
        "confident_accuracy": c.confident_accuracy if c.confident_accuracy is not None else "no such rows",
        "accuracy": c.accuracy,
        "mean_confidence": c.mean_confidence,
        "logit_scale": c.logit_scale,
        "regularisers": ", ".join(m.regularisers) or "none found",
        "held_out": "yes" if c.held_out else "not said",
    }
    if c.train_accuracy is not None:
        evidence["train_accuracy"] = c.train_accuracy
        evidence["train_held_out_gap"] = c.train_accuracy - c.accuracy
    sure = (
        f"{c.confident:.0%} of rows have p > {CONFIDENT:g}, of which {c.confident_accuracy:.0%} are right"
        if c.confident_accuracy is not None
        else f"no row has p > {CONFIDENT:g}"
    )
    return [
        Finding(
            symptom="over_confidence",
            site="model",
            title="over-confidence",
            severity="warning",
            message=f"{sure}; mean confidence {c.mean_confidence:.2f}, accuracy {c.accuracy:.2f}",
            evidence=evidence,
            threshold=(
                f"accuracy where p > {CONFIDENT:g} below {CONFIDENT_ACCURACY:g} by 2 standard errors, or mean"
                f" confidence − accuracy > {GAP:g}"
            ),
            source="Guo et al. 2017, arXiv:1706.04599",
            repairs=("temperature", "label_smoothing", "dropout"),
        )
    ]


SYMPTOMS: tuple[Symptom, ...] = (
    Symptom("fading_activation", "activation too flat for its depth", fading_activation, _signal),
    Symptom("wrong_gain", "bad initialisation", wrong_gain, _signal),
    Symptom("unstable_update", "unstable update", unstable_update, _updates),
    Symptom("nonfinite", "NaN or Inf", nonfinite, _anything),
    Symptom("missing_nonlinearity", "missing nonlinearity", missing_nonlinearity, _census),
    Symptom("exploding_gradient", "exploding gradient", exploding_gradient, _gradients),
    Symptom("dead_unit", "dead units", dead_unit, _sites),
    Symptom("saturation", "saturation", saturation, _sites),
    Symptom("forward_drift", "forward scale drift", forward_drift, _signal),
    Symptom("vanishing_gradient", "vanishing gradient", vanishing_gradient, _gradients),
    Symptom("frozen_update", "frozen update", frozen_update, _updates),
    Symptom("constant_output", "constant output", constant_output, _output),
    Symptom("rising_loss", "rising loss", rising_loss, _losses),
    Symptom("flat_loss", "flat loss", flat_loss, _losses),
    Symptom("over_confidence", "over-confidence", over_confidence, _labels),
)
"""Every symptom, in the order in which one may cause a later one."""


# -- shared arithmetic


@dataclass(frozen=True)
class _Slope:
    slope: float
    total: float


def _chain(m: Measurement) -> list[SiteStatistics]:
    """Hidden sites whose signal can be compared: at least three, or none."""
    sites = [s for s in m.hidden if s.across_row_std is not None and math.isfinite(s.across_row_std)]
    return sites if len(sites) >= 3 else []


def _drift(m: Measurement) -> _Slope | None:
    """Least-squares slope of log std across rows over the sites, and its change from first to last."""
    chain = _chain(m)
    if not chain:
        return None
    logs = [math.log(max(s.across_row_std or 0.0, 1e-12)) for s in chain]
    centre, mean = (len(logs) - 1) / 2, _mean(logs)
    slope = sum((i - centre) * (v - mean) for i, v in enumerate(logs)) / sum(
        (i - centre) ** 2 for i in range(len(logs))
    )
    return _Slope(slope, slope * (len(logs) - 1))


def _update_course(m: Measurement) -> list[float]:
    """Median over weights of ‖Δw‖/‖w‖, at each measured step; infinite where weights are not finite."""
    columns = list(m.updates.values())
    if not columns:
        return []
    course = []
    for values in zip(*columns, strict=True):
        middle = median(values)
        course.append(math.inf if middle is None else middle)
    return [value for value in course if math.isfinite(value)]


def _fading(norms: Sequence[float]) -> tuple[int, int] | None:
    """(low, high) of the window whose norms fall at each step towards the input, and most, if by `FADING` or more."""
    falls = [
        (norms[high] / norms[high - WINDOW + 1], high)
        for high in range(WINDOW - 1, len(norms))
        if all(0 < norms[i] < norms[i + 1] for i in range(high - WINDOW + 1, high))
    ]
    factor, high = max(falls, default=(0.0, 0))
    return (high - WINDOW + 1, high) if factor >= FADING else None


def _fallen(m: Measurement) -> bool:
    """Whether the loss fell by `FLAT` or more; True where that is unknown."""
    course = [loss for _, loss in m.losses]
    if len(course) < LOGS_NEEDED or any(not math.isfinite(v) for v in course):
        return len(course) < LOGS_NEEDED
    tenth = max(5, len(course) // 10)
    start, end = _mean(course[:tenth]), _mean(course[-tenth:])
    return (start - end) / max(abs(start), 1e-12) >= FLAT


def _rising(m: Measurement) -> bool:
    course = [loss for _, loss in m.losses]
    if any(not math.isfinite(loss) for loss in course):
        return False
    tenth = max(5, len(course) // 10)
    start, end = _mean(course[:tenth]), _mean(course[-tenth:])
    chance = _chance(m)
    if chance is not None:
        return end > RISING_CHANCE * max(start, chance)
    return start > 0 and end > RISING * start


def _chance(m: Measurement) -> float | None:
    """Loss of a constant prediction: as measured, else ln classes for a head that gives classes."""
    if m.chance_loss is not None:
        return m.chance_loss
    head = m.census.head if m.census is not None else None
    if head is not None and head.kind in ("logits", "softmax", "log_softmax") and (head.features or 0) > 1:
        return math.log(head.features or 1)
    return None


def _bounded(site: SiteStatistics) -> bool:
    """Whether the activation is flat on both sides, and not by design where half of its inputs lie (relu6)."""
    if site.definition is None or site.definition.kind == "normalizer":
        return False
    facts = site.definition.facts
    saturated = facts.saturated(SATURATION_SLOPE)
    if facts.range is None or saturated is None:
        return False
    usual = sum(_normal(high) - _normal(low) for low, high in saturated)
    return all(math.isfinite(end) for end in facts.range) and usual < SATURATED


def _normal(z: float) -> float:
    """P(Z < z) for Z ~ N(0, 1)."""
    return (1 + math.erf(z / math.sqrt(2))) / 2


def _deliberate(m: Measurement, paths: Sequence[str]) -> bool:
    """Whether a chain of affine maps is a low-rank factorisation: its middle is narrower than both of its ends."""
    assert m.census is not None
    shapes = {affine.path: affine for affine in m.census.affines}
    chain = [shapes[path] for path in paths if path in shapes]
    if len(chain) < 2:
        return False
    ends = min(chain[0].fan_in, chain[-1].fan_out)
    return all(affine.fan_out < ends for affine in chain[:-1])


def _mean(values: Sequence[float]) -> float:
    return sum(values) / len(values)
