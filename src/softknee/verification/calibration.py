"""Calibration: does a model's confidence match how often it is right, and does one temperature mend it?

The temperature is fitted on validation rows (Guo et al. 2017, arXiv:1706.04599) and judged on rows it has not seen, by
the negative log-likelihood row by row. The calibration error stands beside it with its interval, but nothing is judged
by it: it is biased upwards in few rows, and more so under resampling.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import ArrayLike, NDArray

from softknee.errors import InputError
from softknee.plain import plain
from softknee.verification.statistics import Interval, paired

BINS = 15  # Guo et al. 2017
LOWEST, HIGHEST = 1e-2, 1e2  # temperatures outside are not a fit but a runaway: rows that are all right, or pure noise

Floats = NDArray[np.float64]


@dataclass(frozen=True)
class ReliabilityBin:
    """Rows whose confidence lies in (low, high], with Wilson's interval for their accuracy. Empty bins hold NaN."""

    low: float
    high: float
    rows: int
    confidence: float  # mean
    accuracy: float
    interval: Interval

    def to_dict(self) -> dict[str, Any]:
        return plain({name: getattr(self, name) for name in self.__dataclass_fields__})


@dataclass(frozen=True)
class Calibration:
    """A temperature and what it does on rows it was not fitted on. NLL in nats per row, ECE as a share."""

    temperature: float
    at_bound: bool  # no finite optimum between the bounds
    nll_raw: float
    nll_scaled: float
    ece_raw: float
    ece_scaled: float
    interval: Interval  # of nll_scaled − nll_raw, paired bootstrap
    p: float  # of the same, by sign flips
    ece_raw_interval: Interval
    ece_scaled_interval: Interval
    ece_interval: Interval  # of ece_scaled − ece_raw, paired bootstrap
    confidence: float
    margin: float
    validation_rows: int
    rows: int
    rows_needed: int | None  # more than there are; None: settled, or it cannot be told
    verdict: str
    reliability_raw: tuple[ReliabilityBin, ...]
    reliability_scaled: tuple[ReliabilityBin, ...]

    @property
    def applied(self) -> bool:
        """Whether the temperature is worth applying."""
        return self.verdict.startswith("calibrated by temperature")

    def to_dict(self) -> dict[str, Any]:
        return plain({**{name: getattr(self, name) for name in self.__dataclass_fields__}, "applied": self.applied})

    def __str__(self) -> str:
        return (
            f"{self.verdict} (T = {self.temperature:.3f} from {self.validation_rows:,} rows, judged on {self.rows:,})\n"
            f"  NLL {self.nll_raw:.4f} → {self.nll_scaled:.4f}, difference "
            f"{self.confidence:.0%} interval {self.interval.low:+.4f} to {self.interval.high:+.4f}\n"
            f"  ECE {self.ece_raw:.4f} → {self.ece_scaled:.4f}, difference "
            f"{self.confidence:.0%} interval {self.ece_interval.low:+.4f} to {self.ece_interval.high:+.4f}"
        )


def fit_temperature(logits: Any, targets: Any) -> float:
    """The T that minimises the mean negative log-likelihood of softmax(logits / T), in float64.

    `logits`: (rows, classes), or (rows,) / (rows, 1) for one logit against 0/1. The likelihood is convex in 1/T, so its
    derivative has one root, found by bracketing within [0.01, 100]; where there is none (every row right by any
    sharpness, or logits that say nothing), the nearer bound comes back.
    """
    from scipy.optimize import brentq

    scores, labels = _checked("logits", logits, targets)
    right = np.take_along_axis(scores, labels[:, None], 1)[:, 0]

    def slope(log_sharpness: float) -> float:
        scaled = scores * math.exp(log_sharpness)
        weights = np.exp(scaled - scaled.max(1, keepdims=True))
        expected = (weights * scores).sum(1) / weights.sum(1)
        return float(np.mean(expected - right))

    low, high = -math.log(HIGHEST), -math.log(LOWEST)
    if slope(low) >= 0:
        return HIGHEST
    if slope(high) <= 0:
        return LOWEST
    return math.exp(-brentq(slope, low, high, xtol=1e-12))


def probabilities(logits: Any, temperature: float = 1.0) -> Floats:
    """softmax(logits / temperature) in float64, (rows, classes); one logit per row gives two classes."""
    if not temperature > 0:
        raise InputError(f"temperature must be above 0; got {temperature!r}")
    return np.exp(_log_probabilities(_table("logits", logits), temperature))


def ece(probabilities: Any, targets: Any, bins: int = BINS) -> float:
    """Expected calibration error of the top class: Σ (rows in bin / rows)·|accuracy − confidence|, equal-width bins.

    `probabilities`: (rows, classes), each row summing to 1. Naeini et al. 2015; 15 bins as in Guo et al. 2017.
    """
    confidence, right = _top(*_probable(probabilities, targets))
    return float(np.abs(_gaps(confidence, right, bins).sum(0)).sum() / len(confidence))


def reliability(
    probabilities: Any, targets: Any, bins: int = BINS, *, confidence: float = 0.95
) -> tuple[ReliabilityBin, ...]:
    """The reliability diagram: accuracy against mean confidence in each of `bins` equal bins of the top class."""
    top, right = _top(*_probable(probabilities, targets))
    place = _bin(top, bins)
    diagram = []
    for number in range(bins):
        inside = place == number
        rows, hits = int(inside.sum()), float(right[inside].sum())
        interval = _wilson(hits, rows, confidence) if rows else Interval(math.nan, math.nan)
        mean = float(top[inside].mean()) if rows else math.nan
        share = hits / rows if rows else math.nan
        diagram.append(ReliabilityBin(number / bins, (number + 1) / bins, rows, mean, share, interval))
    return tuple(diagram)


def calibrate(
    validation_logits: Any,
    validation_targets: Any,
    test_logits: Any,
    test_targets: Any,
    *,
    margin: float = 0.005,
    confidence: float = 0.95,
    bins: int = BINS,
    resamples: int = 2_000,
    seed: int = 0,
) -> Calibration:
    """Fit a temperature on validation rows and judge it on test rows.

    Logits (rows, classes) as tensors, arrays or lists, targets (rows,) classes. `margin` is the gain in nats per row
    that does not matter. Verdicts:

    - "already calibrated: not applied": two one-sided tests place the change of NLL within ±margin;
    - "calibrated by temperature T": otherwise, the NLL fell significantly (sign flips);
    - "not applied: temperature T is worse on the untouched rows": it rose, as when the two sets are not alike;
    - "needs n more rows": otherwise; n rows more would settle it at 90 % power if what was seen stayed.
    """
    valid, valid_labels = _checked("validation_logits", validation_logits, validation_targets)
    test, labels = _checked("test_logits", test_logits, test_targets)
    if valid.shape[1] != test.shape[1]:
        raise InputError(
            f"validation logits have {valid.shape[1]} classes and test logits {test.shape[1]}; both need the same"
        )
    temperature = fit_temperature(valid, valid_labels)
    logs = _log_probabilities(test, 1.0), _log_probabilities(test, temperature)
    raw, scaled = (-np.take_along_axis(side, labels[:, None], 1)[:, 0] for side in logs)
    judged = paired(
        raw, scaled, margin=margin, confidence=confidence, higher_is_better=False, resamples=resamples, seed=seed
    )
    needed = None if judged.rows_needed is None else judged.rows_needed - judged.rows
    if judged.verdict == "equivalent":
        verdict = "already calibrated: not applied"
    elif judged.verdict == "underpowered":
        verdict = "needs more rows" if needed is None else f"needs {needed:,} more rows"
    elif judged.direction == "better":
        verdict = f"calibrated by temperature {temperature:.3g}"
    else:
        verdict = f"not applied: temperature {temperature:.3g} is worse on the untouched rows"
    both = np.exp(logs[0]), np.exp(logs[1])
    drawn = [_ece_resampled(side, labels, bins, resamples, seed) for side in both]
    ends = [(1 - confidence) / 2, (1 + confidence) / 2]
    spans = [Interval(*map(float, np.quantile(values, ends))) for values in (*drawn, drawn[1] - drawn[0])]
    return Calibration(
        temperature=temperature,
        at_bound=temperature in (LOWEST, HIGHEST),
        nll_raw=judged.before,
        nll_scaled=judged.after,
        ece_raw=ece(both[0], labels, bins),
        ece_scaled=ece(both[1], labels, bins),
        interval=judged.interval,
        p=judged.p,
        ece_raw_interval=spans[0],
        ece_scaled_interval=spans[1],
        ece_interval=spans[2],
        confidence=confidence,
        margin=margin,
        validation_rows=len(valid),
        rows=len(test),
        rows_needed=needed,
        verdict=verdict,
        reliability_raw=reliability(both[0], labels, bins, confidence=confidence),
        reliability_scaled=reliability(both[1], labels, bins, confidence=confidence),
    )


def _ece_resampled(probable: Floats, labels: NDArray[np.int64], bins: int, resamples: int, seed: int) -> Floats:
    """ECE of resampled rows: a row drawn k times adds k times its gap to its bin, so a resample is one matrix product.

    The same seed draws the same rows, which pairs raw with scaled.
    """
    gaps = _gaps(*_top(probable, labels), bins)
    rows = len(gaps)
    generator = np.random.default_rng(seed)
    step = max(1, 4_000_000 // rows)
    drawn = []
    for start in range(0, resamples, step):
        size = min(step, resamples - start)
        index = generator.integers(0, rows, size=(size, rows)) + rows * np.arange(size)[:, None]
        counts = np.bincount(index.ravel(), minlength=size * rows).reshape(size, rows)
        drawn.append(np.abs(counts @ gaps).sum(1) / rows)
    return np.concatenate(drawn)


def _gaps(confidence: Floats, right: Floats, bins: int) -> Floats:
    """(rows, bins): each row's accuracy − confidence in the column of its bin, 0 elsewhere."""
    gaps = np.zeros((len(confidence), bins))
    gaps[np.arange(len(confidence)), _bin(confidence, bins)] = right - confidence
    return gaps


def _bin(confidence: Floats, bins: int) -> NDArray[np.int64]:
    if isinstance(bins, bool) or not isinstance(bins, int) or bins < 1:
        raise InputError(f"bins must be a whole number of at least 1; got {bins!r}")
    return np.clip(np.ceil(confidence * bins).astype(np.int64) - 1, 0, bins - 1)


def _top(probable: Floats, labels: NDArray[np.int64]) -> tuple[Floats, Floats]:
    return probable.max(1), (probable.argmax(1) == labels).astype(np.float64)


def _log_probabilities(logits: Floats, temperature: float) -> Floats:
    scaled = logits / temperature
    scaled = scaled - scaled.max(1, keepdims=True)
    return scaled - np.log(np.exp(scaled).sum(1, keepdims=True))


def _wilson(hits: float, rows: int, confidence: float) -> Interval:
    from scipy.special import ndtri

    z = float(ndtri((1 + confidence) / 2))
    centre = (hits + z * z / 2) / (rows + z * z)
    reach = z / (rows + z * z) * math.sqrt(hits * (rows - hits) / rows + z * z / 4)
    return Interval(max(0.0, centre - reach), min(1.0, centre + reach))


def _table(name: str, values: Any) -> Floats:
    if hasattr(values, "detach"):  # a tensor; on any device, of any floating dtype, with a graph
        values = values.detach().cpu().double().numpy()
    table = np.asarray(values, dtype=np.float64)
    if table.ndim == 1 or (table.ndim == 2 and table.shape[1] == 1):
        column = table.reshape(-1)
        table = np.stack([np.zeros_like(column), column], axis=1)
    if table.ndim != 2 or len(table) == 0:
        raise InputError(f"{name} must be (rows, classes) with at least one row; got shape {table.shape}")
    if not np.isfinite(table).all():
        raise InputError(f"{name} holds values that are not finite, in {int((~np.isfinite(table)).any(1).sum())} rows")
    return table


def _classes(targets: ArrayLike | Any, rows: int, classes: int) -> NDArray[np.int64]:
    if hasattr(targets, "detach"):
        targets = targets.detach().cpu().double().numpy()
    labels = np.asarray(targets, dtype=np.float64).reshape(-1)
    if len(labels) != rows:
        raise InputError(f"targets must hold one class per row: {len(labels)} for {rows} rows")
    if not (np.isfinite(labels) & (labels == np.floor(labels)) & (labels >= 0) & (labels < classes)).all():
        raise InputError(f"targets must be whole numbers from 0 to {classes - 1}")
    return labels.astype(np.int64)


def _checked(name: str, logits: Any, targets: Any) -> tuple[Floats, NDArray[np.int64]]:
    table = _table(name, logits)
    return table, _classes(targets, len(table), table.shape[1])


def _probable(values: Any, targets: Any) -> tuple[Floats, NDArray[np.int64]]:
    table = _table("probabilities", values)
    if (table < 0).any() or np.abs(table.sum(1) - 1).max() > 1e-3:
        raise InputError(
            "probabilities must be (rows, classes) of at least 0, each row summing to 1; for logits use softmax"
        )
    return table, _classes(targets, len(table), table.shape[1])
