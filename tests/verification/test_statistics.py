"""The statistics against scipy, brute force and simulation; seeds are fixed, so nothing here is a matter of luck."""

from __future__ import annotations

import itertools
import math
import subprocess
import sys
import time

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from scipy import stats

from softknee.errors import InputError
from softknee.verification.statistics import (
    Interval,
    benjamini_hochberg,
    holm,
    mcnemar_exact,
    mcnemar_power,
    mean_interval,
    paired,
    paired_bootstrap,
    required_rows,
    required_rows_for_mean,
    score_interval,
    sign_flip,
)


def flips(rows, fixed, broken):
    """0/1 scores before and after with so many rows fixed and broken; the rest stays right."""
    before, after = np.ones(rows), np.ones(rows)
    before[:fixed] = 0
    after[fixed : fixed + broken] = 0
    return before, after


# --- McNemar -------------------------------------------------------------------------------------------------------


@given(st.integers(0, 300), st.integers(0, 300))
def test_mcnemar_is_the_exact_binomial_test(fixed, broken):
    expected = 1.0 if fixed + broken == 0 else stats.binomtest(fixed, fixed + broken, 0.5).pvalue
    assert mcnemar_exact(fixed, broken) == pytest.approx(expected, rel=1e-9)
    assert mcnemar_exact(broken, fixed) == mcnemar_exact(fixed, broken)


def test_mcnemar_takes_arrays():
    p = mcnemar_exact(np.array([0, 1, 10]), np.array([0, 9, 0]))
    assert p == pytest.approx([1.0, 2 * 11 / 1024, 2 / 1024])


@pytest.mark.parametrize(("fixed", "broken"), [(-1, 2), (1.5, 2), (1, -1)])
def test_mcnemar_refuses_what_is_no_count(fixed, broken):
    with pytest.raises(InputError, match="counts of rows"):
        mcnemar_exact(fixed, broken)


def test_mcnemar_keeps_its_level_on_null_data():
    generator = np.random.default_rng(0)
    changed = generator.binomial(400, 0.05, size=20_000)
    share = float(np.mean(mcnemar_exact(fixed := generator.binomial(changed, 0.5), changed - fixed) < 0.05))
    assert 0.01 < share <= 0.05  # exact: never above, and not idle either


def test_paired_test_sees_what_an_unpaired_one_misses():
    # the same data: McNemar finds it, the unpaired z of the two accuracies does not
    p = mcnemar_exact(22, 6)
    before, after, rows = 0.90, 0.90 + 16 / 400, 400
    pooled = (before + after) / 2
    z = (after - before) / math.sqrt(2 * pooled * (1 - pooled) / rows)
    assert p < 0.01 < 0.03 < 2 * stats.norm.sf(z)


def brute_power(rows, fixed, broken, alpha=0.05):
    total = 0.0
    for won, lost in itertools.product(range(rows + 1), repeat=2):
        if won + lost <= rows and mcnemar_exact(won, lost) < alpha:
            total += stats.multinomial.pmf([won, lost, rows - won - lost], rows, [fixed, broken, 1 - fixed - broken])
    return total


@pytest.mark.parametrize(("rows", "fixed", "broken"), [(12, 0.6, 0.1), (20, 0.4, 0.1), (9, 1.0, 0.0), (5, 0.5, 0.1)])
def test_power_is_the_sum_over_all_outcomes(rows, fixed, broken):
    assert mcnemar_power(rows, fixed, broken) == pytest.approx(brute_power(rows, fixed, broken), abs=1e-9)


def test_required_rows_for_two_against_one_percent():
    rows = required_rows(0.02, 0.01, power=0.9)
    assert 3_100 < rows < 3_400  # about 3.2 thousand
    assert mcnemar_power(rows, 0.02, 0.01) >= 0.9 > mcnemar_power(rows - 60, 0.02, 0.01)
    assert required_rows(0.01, 0.02, power=0.9) == rows


def test_required_rows_by_simulation():
    rows = required_rows(0.10, 0.03, power=0.8)
    generator = np.random.default_rng(1)
    counts = generator.multinomial(rows, [0.10, 0.03, 0.87], size=20_000)
    assert np.mean(mcnemar_exact(counts[:, 0], counts[:, 1]) < 0.05) == pytest.approx(0.8, abs=0.015)


def test_required_rows_at_the_ends():
    assert required_rows(0.0, 0.0) is None
    assert required_rows(0.2, 0.2) is None
    assert required_rows(1.0, 0.0) == 6  # five coins all heads is 1/16 two-sided: not yet below .05
    assert required_rows(1e-6, 0.0) > 1_000_000
    assert required_rows(0.4, 0.3999) > 100_000_000  # too many changed rows to sum over: the formula, at once
    with pytest.raises(InputError, match="together at most 1"):
        required_rows(0.7, 0.7)


# --- intervals -----------------------------------------------------------------------------------------------------


def test_score_interval_of_nothing_changed_has_a_width():
    z = stats.norm.ppf(0.975)
    low, high = score_interval(0, 0, 100)
    assert high == pytest.approx(z**2 / (100 + z**2), rel=1e-6)
    assert low == pytest.approx(-high)


def test_score_interval_solves_its_equation():
    # both ends have the statistic ±z, with the chance of a broken row that is likeliest at that difference
    fixed, broken, rows = 12, 2, 44
    z = stats.norm.ppf(0.975)
    for end, sign in zip(score_interval(fixed, broken, rows), (1, -1), strict=True):
        grid = np.linspace(1e-9, 1 - 1e-9, 200_001)  # the chance of "broken", by brute force over the likelihood
        grid = grid[(grid + end > 0) & (2 * grid + end < 1)]
        likelihood = (
            fixed * np.log(grid + end) + broken * np.log(grid) + (rows - fixed - broken) * np.log(1 - 2 * grid - end)
        )
        chance = grid[likelihood.argmax()]
        statistic = (fixed - broken - rows * end) / math.sqrt(rows * (2 * chance + end * (1 - end)))
        assert statistic == pytest.approx(sign * z, abs=1e-3)


@given(st.integers(1, 60), st.data())
def test_score_interval_holds_what_was_seen_and_mirrors(rows, data):
    fixed = data.draw(st.integers(0, rows))
    broken = data.draw(st.integers(0, rows - fixed))
    low, high = score_interval(fixed, broken, rows)
    assert -1 <= low <= (fixed - broken) / rows <= high <= 1
    assert score_interval(broken, fixed, rows) == pytest.approx((-high, -low), abs=1e-6)


def test_mean_interval_is_students():
    values = np.random.default_rng(0).normal(1, 2, 30)
    expected = stats.ttest_1samp(values, 0).confidence_interval(0.9)
    assert mean_interval(values, confidence=0.9) == pytest.approx((expected.low, expected.high))
    assert mean_interval([0.3]) == Interval(-math.inf, math.inf)


@pytest.mark.parametrize("draw", ["normal", "skewed", "flips"])
def test_bootstrap_interval_covers(draw):
    generator = np.random.default_rng(2)
    truth = {"normal": 0.3, "skewed": 1.0, "flips": 0.05}[draw]
    inside = 0
    for seed in range(400):
        if draw == "normal":
            change = generator.normal(truth, 1, 120)
        elif draw == "skewed":
            change = generator.exponential(truth, 120)
        else:
            change = generator.choice([1.0, -1.0, 0.0], 120, p=[0.10, 0.05, 0.85])
        low, high = paired_bootstrap(np.zeros(120), change, resamples=1_000, seed=seed)
        inside += low <= truth <= high
    assert 0.91 <= inside / 400 <= 0.98


def test_clustered_bootstrap_covers_where_the_plain_one_does_not():
    generator = np.random.default_rng(3)
    clusters = np.repeat(np.arange(40), 10)
    plain = clustered = 0
    for seed in range(200):
        change = np.repeat(generator.normal(0, 1, 40), 10) + generator.normal(0, 0.3, 400)
        low, high = paired_bootstrap(np.zeros(400), change, resamples=600, seed=seed)
        plain += low <= 0 <= high
        low, high = paired_bootstrap(np.zeros(400), change, clusters=clusters, resamples=600, seed=seed)
        clustered += low <= 0 <= high
    assert plain / 200 < 0.6 < 0.90 <= clustered / 200


def test_bootstrap_by_levels_has_the_law_of_resampling_rows():
    before, after = flips(200, 20, 5)
    fast = paired_bootstrap(before, after, seed=0)
    generator = np.random.default_rng(0)
    slow = [(after - before)[generator.integers(0, 200, 200)].mean() for _ in range(10_000)]
    assert fast == pytest.approx(np.quantile(slow, [0.025, 0.975]), abs=0.006)


def test_bootstrap_is_quick_and_repeats():
    generator = np.random.default_rng(0)
    before, after = generator.normal(size=400), generator.normal(size=400)
    began = time.perf_counter()
    first = paired_bootstrap(before, after, resamples=10_000)
    assert time.perf_counter() - began < 1.0
    assert paired_bootstrap(before, after, resamples=10_000) == first
    assert paired_bootstrap(before, after, resamples=10_000, seed=1) != first


def test_bootstrap_leaves_the_global_generators_alone():
    torch_state, numpy_state = torch.random.get_rng_state(), np.random.get_state()[1].copy()
    paired([0.1, 0.2, 0.7], [0.3, 0.2, 0.1])
    assert torch.equal(torch.random.get_rng_state(), torch_state)
    assert np.array_equal(np.random.get_state()[1], numpy_state)


# --- sign flips ----------------------------------------------------------------------------------------------------


def test_sign_flip_counts_all_flips():
    change = np.array([0.5, -0.1, 0.4, 0.0, 0.9, 0.2])
    sums = [
        abs(sum(s * c for s, c in zip(signs, change, strict=True))) for signs in itertools.product((1, -1), repeat=6)
    ]
    assert sign_flip(change) == pytest.approx(np.mean(np.array(sums) >= abs(change.sum()) - 1e-12))
    assert sign_flip(np.zeros(5)) == 1.0
    assert sign_flip([1.0] * 5) == 2 / 32


def test_sign_flip_agrees_with_scipy():
    change = np.random.default_rng(4).normal(0.25, 1, 60)
    scipy = stats.permutation_test(
        (change, np.zeros(60)), lambda x, y: np.mean(x - y), permutation_type="samples", n_resamples=4_000, rng=0
    )
    assert sign_flip(change) == pytest.approx(scipy.pvalue, abs=0.02)


def test_sign_flip_on_flips_agrees_with_mcnemar():
    before, after = flips(300, 25, 10)
    assert sign_flip(after - before, resamples=20_000) == pytest.approx(mcnemar_exact(25, 10), abs=0.004)


def test_sign_flip_is_never_zero_and_knows_clusters():
    assert 0 < sign_flip(np.ones(1_000)) < 0.001
    clusters = np.repeat(["a", "b", "c", "d"], 50)
    assert sign_flip(np.ones(200), clusters) == 2 / 16  # four clusters, four coins


def test_many_sign_flips_follow_the_normal_law():
    change = np.random.default_rng(8).exponential(1, 2_500) - 0.965
    drawn = np.random.default_rng(0).integers(0, 2, (4_000, 2_500), dtype=np.int8) * 2.0 - 1
    assert sign_flip(change) == pytest.approx(np.mean(np.abs(drawn @ change) >= abs(change.sum())), abs=0.02)
    one_row_rules = np.r_[1e6, np.tile([1.0, -1.0], 1_250)]  # no normal law here: a single coin decides
    assert sign_flip(one_row_rules, resamples=1_000) > 0.4


def test_sign_flip_keeps_its_level_on_null_data():
    generator = np.random.default_rng(5)
    p = [sign_flip(generator.standard_t(3, 25), resamples=400, seed=seed) for seed in range(500)]
    assert 0.03 <= np.mean(np.array(p) < 0.05) <= 0.07


# --- many tests ----------------------------------------------------------------------------------------------------


def test_holm_by_hand():
    assert holm([0.01, 0.04, 0.03, 0.005]) == pytest.approx([0.03, 0.06, 0.06, 0.02])
    assert holm([0.9, 0.6]) == pytest.approx([1.0, 1.0])


@given(st.lists(st.floats(0, 1), min_size=1, max_size=20))
def test_benjamini_hochberg_is_scipys(p):
    assert benjamini_hochberg(p) == pytest.approx(stats.false_discovery_control(p))


@given(st.lists(st.floats(0, 1), min_size=1, max_size=12), st.randoms())
def test_adjusted_values_follow_their_tests(p, random):
    order = list(range(len(p)))
    random.shuffle(order)
    for adjust in (holm, benjamini_hochberg):
        adjusted = adjust(p)
        assert (adjusted >= np.array(p) - 1e-15).all()
        assert (adjusted <= 1).all()
        assert adjust([p[i] for i in order]) == pytest.approx(adjusted[order])
    assert (holm(p) >= benjamini_hochberg(p) - 1e-12).all()


def test_what_was_not_tested_does_not_count():
    adjusted = holm([0.02, math.nan, 0.03])
    assert adjusted[[0, 2]] == pytest.approx([0.04, 0.04])
    assert math.isnan(adjusted[1])
    assert len(holm([])) == 0
    with pytest.raises(InputError, match="0 to 1"):
        holm([1.2])


# --- verdicts ------------------------------------------------------------------------------------------------------


def test_better_and_worse_are_different():
    for fixed, broken, direction in ((40, 10, "better"), (10, 40, "worse")):
        judged = paired(*flips(400, fixed, broken))
        assert (judged.verdict, judged.direction, judged.test) == ("different", direction, "exact McNemar")
        assert (judged.fixed, judged.broken) == (fixed, broken)
        assert judged.p == mcnemar_exact(fixed, broken)
        assert judged.difference == pytest.approx((fixed - broken) / 400)
        assert judged.conclusion == f"different: {direction}"
        assert judged.rows_needed is None


def test_lower_can_be_better():
    generator = np.random.default_rng(0)
    before = generator.exponential(1, 200)
    judged = paired(before, before - 0.2 - 0.05 * generator.normal(size=200), higher_is_better=False)
    assert (judged.verdict, judged.direction, judged.test) == ("different", "better", "sign flips")
    assert judged.difference < 0 < judged.gain
    assert judged.fixed > judged.broken


def test_equivalent_needs_evidence_too():
    # nothing changed: 600 rows rule a change of 0.5pp out, 300 do not
    assert paired(*flips(600, 0, 0)).verdict == "equivalent"
    few = paired(*flips(300, 0, 0))
    assert few.verdict == "underpowered"
    assert 300 < few.rows_needed < 3_000
    assert paired(*flips(300, 0, 0), margin=0.02).verdict == "equivalent"
    assert paired(*flips(600, 0, 0), margin=0).verdict == "underpowered"


def test_a_tiny_significant_difference_is_equivalent_within_the_margin():
    judged = paired(*flips(100_000, 300, 200))
    assert judged.significant
    assert judged.verdict == "equivalent"
    assert paired(*flips(100_000, 300, 200), margin=0.0001).verdict == "different"


def test_underpowered_names_rows_that_settle_it():
    judged = paired(*flips(100, 6, 2))
    assert judged.verdict == "underpowered"
    assert judged.conclusion == f"underpowered: needs {judged.rows_needed:,} rows"
    scale = judged.rows_needed / 100
    assert paired(*flips(judged.rows_needed, round(6 * scale), round(2 * scale))).verdict == "different"


def test_equivalence_keeps_its_level():
    # the true difference is the margin itself: equivalence may be claimed in 5 % of samples at most
    generator = np.random.default_rng(6)
    counts = generator.multinomial(500, [0.06, 0.04, 0.90], size=2_000)
    distinct, index = np.unique(counts[:, :2], axis=0, return_inverse=True)
    inside = [score_interval(*map(int, pair), 500, confidence=0.9).inside(0.02) for pair in distinct]
    assert np.mean(np.array(inside)[index.ravel()]) <= 0.06


def test_one_row_is_never_enough():
    for before, after in (([1], [0]), ([1], [1]), ([0.2], [0.9])):
        judged = paired(before, after)
        assert judged.verdict == "underpowered"
        assert "needs" in judged.conclusion
    assert paired([1], [0]).rows_needed == 6


def test_two_equal_continuous_rows_prove_nothing():
    assert paired([0.5, 0.25], [0.5, 0.25]).verdict == "underpowered"


def test_a_missing_score_is_missing_and_never_zero():
    judged = paired([1.0, math.nan, 0.0, 1.0], [1.0, 1.0, math.inf, math.nan])
    assert (judged.rows, judged.missing_before, judged.missing_after) == (1, 1, 2)
    assert judged.after == 1.0
    with pytest.raises(InputError, match="none of the 2 rows"):
        paired([math.nan, 1.0], [1.0, math.nan])


def test_clusters_widen_and_weaken():
    before, after = flips(400, 40, 10)
    clusters = [f"document {i // 40}" for i in range(400)]  # all fixed rows stem from one document
    alone, together = paired(before, after), paired(before, after, clusters=clusters)
    assert alone.verdict == "different"
    assert together.verdict == "underpowered"
    assert together.test == "sign flips"
    assert together.interval.high - together.interval.low > alone.interval.high - alone.interval.low
    assert together.rows_needed > 400


def test_a_to_a_is_not_different():
    generator = np.random.default_rng(7)
    verdicts = []
    for seed in range(200):
        counts = generator.multinomial(300, [0.04, 0.04, 0.92])
        verdicts.append(paired(*flips(300, *map(int, counts[:2])), resamples=200, seed=seed).verdict)
    assert verdicts.count("different") / 200 <= 0.05


@pytest.mark.parametrize("dtype", [torch.bool, torch.int8, torch.float16, torch.bfloat16, torch.float64])
def test_scores_of_any_dtype(dtype):
    before, after = (torch.tensor(column).to(dtype) for column in flips(50, 10, 1))
    assert (paired(before, after).fixed, paired(before, after).broken) == (10, 1)


@pytest.mark.parametrize(
    ("arguments", "options", "message"),
    [
        (([], []), {}, "no rows"),
        (([1, 0], [1]), {}, "2 rows and after 1"),
        (([[1, 0]], [[1, 0]]), {}, "1-D"),
        ((["a"], ["b"]), {}, "one number per row"),
        (([1, 0], [1, 0]), {"margin": -1}, "margin"),
        (([1, 0], [1, 0]), {"margin": math.nan}, "margin"),
        (([1, 0], [1, 0]), {"confidence": 95}, "confidence"),
        (([1, 0], [1, 0]), {"confidence": 0.4}, "confidence"),
        (([1, 0], [1, 0]), {"clusters": ["a"]}, "one cluster per row"),
    ],
)
def test_bad_input_is_named(arguments, options, message):
    with pytest.raises(InputError, match=message):
        paired(*arguments, **options)


def test_a_result_is_plain_and_readable():
    judged = paired(*flips(400, 40, 10))
    assert judged.to_dict()["interval"] == list(judged.interval)
    assert judged.to_dict()["direction"] == "better"
    assert "40 fixed, 10 broken of 400" in str(judged)


def test_required_rows_for_mean():
    # the textbook figure: (1.96 + 1.2816)² · σ²/δ² = 10.507 · 25
    assert required_rows_for_mean(5.0, 1.0) == 263
    assert required_rows_for_mean(5.0, 0.0) is None
    assert required_rows_for_mean(1.0, 0.3, margin=0.2) is None
    assert required_rows_for_mean(1.0, 0.0, margin=0.2) == math.ceil((2 * stats.norm.ppf(0.95) / 0.2) ** 2)


def test_a_million_rows_stay_quick():
    generator = np.random.default_rng(0)
    before = (generator.random(1_000_000) < 0.9).astype(float)
    after = np.where(generator.random(1_000_000) < 0.01, 1 - before, before)
    began = time.perf_counter()
    paired(before, after)
    assert time.perf_counter() - began < 5


def test_importing_verification_loads_no_scipy():
    script = (
        "import softknee.verification, sys; print(sorted({'scipy', 'sympy', 'sklearn', 'pandas'} & set(sys.modules)))"
    )
    loaded = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, check=True)
    assert loaded.stdout.strip() == "[]"
