"""Temperature, calibration error and verdicts, on logits whose true temperature is known."""

from __future__ import annotations

import json

import numpy as np
import pytest
import torch

from softknee.errors import InputError
from softknee.verification.calibration import (
    HIGHEST,
    LOWEST,
    calibrate,
    ece,
    fit_temperature,
    probabilities,
    reliability,
)


def sharpened(rows, by, seed=0, classes=5):
    """Logits that are calibrated at temperature `by`, and labels drawn from them."""
    generator = np.random.default_rng(seed)
    logits = generator.normal(0, 2, (rows, classes))
    weights = np.exp(logits)
    labels = (generator.random((rows, 1)) > np.cumsum(weights / weights.sum(1, keepdims=True), 1)).sum(1)
    return logits * by, labels


def test_the_true_temperature_is_found():
    for by in (0.5, 1.0, 3.0):
        assert fit_temperature(*sharpened(20_000, by)) == pytest.approx(by, rel=0.03)


def test_the_temperature_is_the_optimum():
    logits, labels = sharpened(500, 2.0)
    temperature = fit_temperature(logits, labels)

    def loss(value):
        return torch.nn.functional.cross_entropy(torch.tensor(logits) / value, torch.tensor(labels)).item()

    assert all(loss(temperature) <= loss(temperature * factor) for factor in (0.9, 0.99, 1.01, 1.1))


def test_scale_and_shift_of_the_logits():
    logits, labels = sharpened(500, 2.0)
    base = fit_temperature(logits, labels)
    assert fit_temperature(logits * 7, labels) == pytest.approx(7 * base)
    assert fit_temperature(logits + 1e4, labels) == pytest.approx(base, rel=1e-6)
    assert fit_temperature(torch.tensor(logits, dtype=torch.float32, requires_grad=True), torch.tensor(labels)) > 0


def test_where_there_is_no_optimum_the_bound_comes_back():
    assert fit_temperature([[5.0, 0.0], [0.0, 5.0]], [0, 1]) == LOWEST
    assert fit_temperature([[5.0, 0.0], [0.0, 5.0]], [1, 0]) == HIGHEST
    assert fit_temperature([[1.0, 1.0]], [0]) == HIGHEST  # logits that say nothing


def test_one_logit_is_two_classes():
    logits, labels = sharpened(2_000, 2.0, classes=2)
    single = logits[:, 1] - logits[:, 0]
    assert fit_temperature(single, labels) == pytest.approx(fit_temperature(logits, labels))
    assert fit_temperature(single[:, None], labels) == pytest.approx(fit_temperature(logits, labels))
    assert probabilities(single, 2.0)[:, 1] == pytest.approx(1 / (1 + np.exp(-single / 2)))


def test_ece_by_hand():
    table = np.array([[0.9, 0.1], [0.9, 0.1], [0.6, 0.4], [0.6, 0.4]])
    assert ece(table, [0, 1, 0, 0]) == pytest.approx(0.5 * abs(0.5 - 0.9) + 0.5 * abs(1.0 - 0.6))
    assert ece(table, [0, 1, 0, 0], bins=1) == pytest.approx(abs(0.75 - 0.75))
    assert ece([[1.0, 0.0]], [0]) == 0.0


def test_ece_by_brute_force():
    logits, labels = sharpened(700, 3.0)
    table = probabilities(logits)
    top, right = table.max(1), table.argmax(1) == labels
    total = 0.0
    for low in np.arange(15) / 15:
        inside = (top > low) & (top <= low + 1 / 15)
        if inside.any():
            total += inside.mean() * abs(right[inside].mean() - top[inside].mean())
    assert ece(table, labels) == pytest.approx(total)


def test_reliability_holds_every_row_once_with_intervals():
    logits, labels = sharpened(400, 3.0)
    diagram = reliability(probabilities(logits), labels)
    assert len(diagram) == 15
    assert sum(entry.rows for entry in diagram) == 400
    for entry in diagram:
        if entry.rows:
            assert entry.low < entry.confidence <= entry.high + 1e-12
            assert 0 <= entry.interval.low <= entry.accuracy <= entry.interval.high <= 1
    assert diagram[0].to_dict()["accuracy"] is None  # five classes: the top one is never below 1/5


def test_over_confident_logits_are_calibrated():
    result = calibrate(*sharpened(500, 3.0), *sharpened(500, 3.0, seed=1))
    assert result.verdict == f"calibrated by temperature {result.temperature:.3g}"
    assert result.applied
    assert result.nll_scaled < result.nll_raw
    assert result.ece_scaled < result.ece_raw
    assert result.interval.high < 0
    assert result.ece_interval.high < 0
    assert result.rows_needed is None


def test_calibrated_logits_are_left_alone():
    result = calibrate(*sharpened(3_000, 1.0), *sharpened(3_000, 1.0, seed=1))
    assert result.verdict == "already calibrated: not applied"
    assert not result.applied


def test_too_few_rows_ask_for_more():
    result = calibrate(*sharpened(60, 1.3), *sharpened(25, 1.3, seed=4))
    assert result.verdict == f"needs {result.rows_needed:,} more rows"
    assert result.rows_needed > 0
    one = calibrate(*sharpened(60, 1.3), *sharpened(1, 1.3, seed=1))
    assert one.verdict == "needs more rows"


def test_a_temperature_from_other_data_is_not_applied():
    result = calibrate(*sharpened(500, 4.0), *sharpened(500, 0.5, seed=1))
    assert result.verdict.startswith("not applied: temperature")
    assert not result.applied


def test_the_same_seed_gives_the_same_figures():
    arguments = (*sharpened(200, 2.0), *sharpened(200, 2.0, seed=1))
    assert calibrate(*arguments) == calibrate(*arguments)


def test_ece_interval_holds_what_rows_resampled_one_by_one_give():
    logits, labels = sharpened(300, 3.0, seed=1)
    result = calibrate(*sharpened(300, 3.0), logits, labels, resamples=2_000)
    generator, table, drawn = np.random.default_rng(9), probabilities(logits), []
    for _ in range(500):
        index = generator.integers(0, 300, 300)
        drawn.append(ece(table[index], labels[index]))
    assert result.ece_raw_interval == pytest.approx(np.quantile(drawn, [0.025, 0.975]), abs=0.01)


def test_a_result_is_plain_json():
    result = calibrate(*sharpened(50, 2.0), *sharpened(50, 2.0, seed=1))
    document = json.loads(json.dumps(result.to_dict(), allow_nan=False))
    assert len(document["reliability_raw"]) == 15
    assert document["verdict"] in str(result)


@pytest.mark.parametrize(
    ("call", "message"),
    [
        (lambda: fit_temperature(np.empty((0, 3)), []), "at least one row"),
        (lambda: fit_temperature([[np.nan, 0.0]], [0]), "not finite"),
        (lambda: fit_temperature([[1.0, 0.0]], [2]), "from 0 to 1"),
        (lambda: fit_temperature([[1.0, 0.0]], [0.5]), "whole numbers"),
        (lambda: fit_temperature([[1.0, 0.0]], [0, 1]), "one class per row"),
        (lambda: ece([[2.0, 1.0]], [0]), "summing to 1"),
        (lambda: ece([[0.5, 0.5]], [0], bins=0), "bins"),
        (lambda: probabilities([[1.0, 0.0]], 0.0), "above 0"),
        (lambda: calibrate([[1.0, 0.0]], [0], [[1.0, 0.0, 0.0]], [0]), "2 classes and test logits 3"),
    ],
)
def test_bad_input_is_named(call, message):
    with pytest.raises(InputError, match=message):
        call()
