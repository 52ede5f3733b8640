"""Verification: did a change hurt? Fixed rows, runs, paired comparisons, leaks, calibration.

run = softknee.evaluate(model, Dataset(x, y), version="v2")
print(softknee.compare(previous, run))
"""

from __future__ import annotations

from softknee.verification import calibration, metrics, statistics
from softknee.verification.calibration import Calibration, calibrate, fit_temperature
from softknee.verification.comparisons import CohortComparison, ComparedRow, Comparison, compare, parse_margin
from softknee.verification.datasets import Dataset, LeakedRow, Overlap, overlap
from softknee.verification.metrics import METRICS, Metric, metric
from softknee.verification.runs import Run, evaluate
from softknee.verification.statistics import Interval, Paired, paired

__all__ = [
    "METRICS",
    "Calibration",
    "CohortComparison",
    "ComparedRow",
    "Comparison",
    "Dataset",
    "Interval",
    "LeakedRow",
    "Metric",
    "Overlap",
    "Paired",
    "Run",
    "calibrate",
    "calibration",
    "compare",
    "evaluate",
    "fit_temperature",
    "metric",
    "metrics",
    "overlap",
    "paired",
    "parse_margin",
    "statistics",
]
