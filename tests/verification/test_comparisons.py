"""Two runs, row by row: verdicts, directions, cohorts, confounders, gates."""

from __future__ import annotations

import json
import math
from dataclasses import replace

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from torch import nn

import softknee
from softknee.errors import InputError
from softknee.verification import Dataset, compare, parse_margin
from softknee.verification.statistics import holm, mcnemar_exact

ROWS = 400


class Answers(nn.Module):
    """Gives the classes it is told, so that a test decides which rows are right."""

    def __init__(self, answers):
        super().__init__()
        self.answers = nn.Parameter(torch.as_tensor(answers).float(), requires_grad=False)

    def forward(self, x):
        return nn.functional.one_hot(self.answers[x[:, 0].long()].long(), 3).float()


def dataset(rows=ROWS, **options):
    return Dataset(torch.arange(rows).float()[:, None], torch.ones(rows).long(), **options)


def run(wrong=(), version="v", rows=ROWS, data=None, answer=0, **options):
    answers = torch.ones(rows)
    answers[list(wrong)] = answer
    return softknee.evaluate(Answers(answers), data or dataset(rows), version=version, **options)


@pytest.fixture(autouse=True)
def _untraced(monkeypatch):
    """What a census costs is not what is tested here."""
    monkeypatch.setattr(softknee, "identify", lambda *arguments: type("Census", (), {"sites": ()}), raising=False)


def test_better_and_worse():
    before, after = run(range(40), "old"), run(range(30, 42), "new")
    better = compare(before, after)
    assert (better.verdict, better.direction) == ("different", "better")
    assert (better.fixed, better.broken) == (30, 2)
    assert better.p == mcnemar_exact(30, 2)
    assert better.difference == pytest.approx(28 / ROWS)
    assert better.interval.low > 0
    worse = compare(after, before)
    assert (worse.verdict, worse.direction, worse.fixed, worse.broken) == ("different", "worse", 2, 30)
    assert "old → new on 400 rows" in str(better)
    assert "30 rows fixed, 2 broken, exact McNemar" in str(better)


def test_rows_are_named_with_both_answers():
    comparison = compare(run([0, 1, 7]), run([1, 9]))
    assert [row.index_before for row in comparison.rows("fixed")] == [0, 7]
    (broken,) = comparison.rows("broken")
    assert (broken.index_before, broken.index_after, broken.before, broken.after) == (9, 9, 1.0, 0.0)
    assert (broken.prediction_before, broken.prediction_after, broken.target) == (1, 0, 1)
    assert broken.id == dataset().ids[9]
    with pytest.raises(InputError, match="fixed, broken, changed"):
        comparison.rows("borken")


def test_changed_holds_wrong_answers_that_became_other_wrong_answers():
    comparison = compare(run([0, 1, 2], answer=0), run([0, 1, 2], answer=2))
    assert len(comparison.rows("changed")) == 3
    assert not comparison.rows("fixed")
    assert not comparison.rows("broken")
    assert "3 changed in all" in str(comparison)


def test_rows_are_paired_by_id_in_any_order():
    data = dataset(cohorts=np.arange(ROWS) % 4)
    order = np.random.default_rng(0).permutation(ROWS)
    before, after = run(range(40), data=data), run(range(30, 42), data=data.take(order))
    shuffled, straight = compare(before, after), compare(before, run(range(30, 42), data=data))
    assert shuffled.to_dict() | {"latency": 0} == straight.to_dict() | {"latency": 0}
    assert not shuffled.confounded
    row = shuffled.rows("broken")[0]
    assert order[row.index_after] == row.index_before


def test_other_rows_raise_and_name_the_orphans():
    whole = dataset()
    first, second = run(data=whole.take(range(395)), version="old"), run(data=whole.take(range(2, 400)), version="new")
    with pytest.raises(InputError) as caught:
        compare(first, second)
    message = str(caught.value)
    assert "2 rows" in message
    assert "5 rows" in message
    assert whole.ids[0][:12] in message
    assert whole.ids[395][:12] in message
    assert "only in 'old'" in message
    assert "only in 'new'" in message
    with pytest.raises(InputError, match="1 row "):
        compare(run(data=whole.take(range(399))), run(data=whole))


def test_the_same_run_twice_is_equivalent():
    one = run(range(20))
    for other in (one, run(range(20))):
        comparison = compare(one, other)
        assert comparison.verdict == "equivalent"
        assert comparison.identical
        assert not comparison.worse_than(0)
        assert comparison.no_worse_than("0.1pp")
        assert "bit by bit" in str(comparison)


def test_the_same_scores_from_other_weights_are_not_identical():
    comparison = compare(run([0], answer=0), run([0], answer=2))
    assert not comparison.identical
    assert comparison.verdict == "underpowered"  # 400 rows cannot rule 0.5pp out
    assert compare(run([0], answer=0), run([0], answer=2), margin="2pp").verdict == "equivalent"


def test_tiny_inputs():
    one = compare(run(rows=1), run([0], rows=1))
    assert one.verdict == "underpowered"
    assert one.conclusion == "underpowered: needs 6 rows"
    same = run(rows=1)
    assert compare(same, same).verdict == "underpowered"
    assert compare(run(rows=2), run([0, 1], rows=2)).verdict == "underpowered"


def test_cohorts_are_adjusted_and_the_worst_is_named():
    data = dataset(cohorts=np.arange(ROWS) // 100)
    comparison = compare(run(range(30), data=data), run(range(300, 312), data=data))
    assert [cohort.name for cohort in comparison.cohorts] == ["0", "1", "2", "3"]
    p = [mcnemar_exact(30, 0), 1.0, 1.0, mcnemar_exact(0, 12)]
    assert [cohort.p_adjusted for cohort in comparison.cohorts] == pytest.approx(holm(p))
    assert comparison.worst_cohort.name == "3"
    assert comparison.worst_cohort.verdict == "different"
    assert comparison.worst_cohort.gain == pytest.approx(-0.12)
    assert "worst of 4 cohorts: 3" in str(comparison)


def test_a_cohort_that_is_different_alone_may_not_be_among_many():
    data = dataset(cohorts=np.arange(ROWS) // 20)
    comparison = compare(run(data=data), run(range(7), data=data))
    cohort = comparison.cohorts[0]
    assert cohort.result.p < 0.05 < cohort.p_adjusted
    assert cohort.verdict == "underpowered"
    assert cohort.to_dict()["verdict"] == cohort.result.verdict == "underpowered"


def test_a_cohort_without_scores():
    data = dataset(cohorts={"none": np.zeros(ROWS, dtype=bool), "all": np.ones(ROWS, dtype=bool)})
    comparison = compare(run(data=data), run(range(20), data=data))
    assert comparison.cohorts[0].verdict == "no scores"
    assert comparison.cohorts[0].p_adjusted is None
    assert comparison.worst_cohort.name == "all"
    json.dumps(comparison.to_dict(), allow_nan=False)


def test_what_else_differs_confounds():
    clean = compare(run([0], seed=1, budget=10), run([1], seed=1, budget=10))
    assert not clean.confounded
    assert set(clean.differs) == {"weights"}
    mixed = compare(run([0], seed=1, budget=10, training="a"), run([1], seed=2, training="b", batch_size=8))
    assert mixed.confounded
    told = " ".join(mixed.confounders)
    for fragment in ("seed (1 → 2)", "budget (10 → not recorded)", "training (a → b)", "batch_size (256 → 8)"):
        assert fragment in told
    assert "confounded by: " in str(mixed)
    assert "latency was measured under different batch_size" in str(mixed)
    later = replace(run([1]), provenance=run([1]).provenance | {"torch": "9.9", "threads": 64})
    assert {"torch", "threads"} <= set(compare(run([0]), later).differs)


def test_a_hostile_provenance_cannot_reach_the_terminal():
    hostile = replace(run([1]), provenance=run([1]).provenance | {"seed": "\x1b[2J" + "x" * 999})
    text = str(compare(run([0]), hostile))
    assert "\x1b" not in text
    assert len(text) < 2_000


def test_a_forgotten_version_is_noted():
    assert any("both runs are called 'v'" in note for note in compare(run([0]), run([1])).notes)


def test_cohorts_defined_otherwise_confound():
    first, second = (dataset(cohorts=np.arange(ROWS) % k) for k in (2, 3))
    assert any("cohorts" in told for told in compare(run(data=first), run([1], data=second)).confounders)


def test_missing_scores_are_left_out_and_lost_ones_named():
    before, after = run(range(20)), run(range(20))
    scores = after.scores["accuracy"].copy()
    scores[100:110] = math.nan
    after = replace(after, scores={"accuracy": scores}, provenance=after.provenance | {"outputs": "other"})
    comparison = compare(before, after)
    assert comparison.result.rows == 390
    assert len(comparison.rows("lost")) == 10
    assert any("10 without a score after" in note for note in comparison.notes)
    assert comparison.worse_than("1pp")  # losing scores is no way past the gate
    assert not comparison.worse_than("5pp")
    assert not comparison.no_worse_than("1pp")
    assert len(compare(after, before).rows("gained")) == 10


def test_the_gate():
    slightly = compare(run(), run(range(8)))
    assert slightly.result.significant
    assert slightly.worse_than()
    assert slightly.worse_than("0.5pp")
    assert slightly.worse_than(0.0199)
    assert not slightly.worse_than("2pp")  # worse, but not by more than that
    assert not compare(run(range(8)), run()).worse_than()
    unclear = compare(run(), run(range(3)))
    assert not unclear.worse_than("0.5pp")  # not shown ...
    assert not unclear.no_worse_than("0.5pp")  # ... and not ruled out
    assert unclear.no_worse_than("5pp")
    assert compare(run(range(40)), run()).no_worse_than("0.1pp")
    assert not compare(run(rows=1), run(rows=1)).no_worse_than()
    with pytest.raises(InputError, match="margin"):
        unclear.worse_than("much")


def test_the_gate_knows_metrics_where_lower_is_better():
    x = torch.randn(200, 1)
    data = Dataset(x, x[:, 0])
    near, far = (softknee.evaluate(lambda x, d=d: x + d, data, "squared_error", version=str(d)) for d in (0.1, 0.5))
    assert compare(near, far).direction == "worse"
    assert compare(near, far).worse_than(0.1)
    assert not compare(near, far).worse_than(0.3)
    assert compare(far, near).direction == "better"
    assert compare(far, near).no_worse_than(0.0)
    assert not compare(far, near).worse_than()


def test_the_metric_is_the_first_in_common():
    before, after = run(metrics=("accuracy", "nll")), run([0], metrics=("nll",))
    assert compare(before, after).metric == "nll"
    with pytest.raises(InputError, match="no metric in common"):
        compare(run(), after)
    with pytest.raises(InputError, match="no metric 'recall'"):
        compare(before, after, metric="recall")
    other = replace(after, higher_is_better={"nll": True})
    with pytest.raises(InputError, match="when lower in the other"):
        compare(before, other)


def test_latency_and_cost_stand_beside_quality():
    comparison = compare(run([0], cost=[1.0] * ROWS), run([1], cost=[3.0] * ROWS))
    assert comparison.cost.ratio == 3.0
    assert comparison.latency.before > 0
    assert "(× 3.00)" in str(comparison)
    assert compare(run([0]), run([1])).cost is None


def test_clusters_count():
    data = dataset(clusters=np.arange(ROWS) // 100)
    comparison = compare(run(data=data), run(range(40), data=data))
    assert comparison.result.test == "sign flips"
    assert comparison.verdict == "underpowered"  # all forty rows stem from one of four clusters


def test_a_comparison_is_plain_json():
    data = dataset(cohorts=np.arange(ROWS) % 4)
    document = json.loads(json.dumps(compare(run(range(9), data=data), run([1], data=data)).to_dict(), allow_nan=False))
    for key in (
        "verdict",
        "direction",
        "fixed",
        "broken",
        "p",
        "difference",
        "interval",
        "cohorts",
        "rows",
        "confounders",
    ):
        assert key in document
    assert document["before"] < document["after"]
    assert len(document["cohorts"]) == 4


def test_only_runs_compare():
    with pytest.raises(InputError, match="b must be a Run"):
        compare(run(), 3)


# --- margins -------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("text", "value"),
    [
        ("0.5pp", 0.005),
        ("0.5 pp", 0.005),
        ("1%", 0.01),
        ("0.005", 0.005),
        (".5pp", 0.005),
        ("0", 0.0),
        ("5e-3", 0.005),
        (" 2. ", 2.0),
    ],
)
def test_margins(text, value):
    assert parse_margin(text) == value


@given(st.integers(0, 10**6), st.integers(0, 6))
def test_points_percent_and_shares_agree(digits, places):
    text = f"{digits / 10**places:.{places}f}"
    share = parse_margin(text)
    assert share == float(text)
    assert parse_margin(f"{text}pp") == parse_margin(f"{text} %") == pytest.approx(share / 100, rel=1e-15)
    assert parse_margin(share) == share


@given(
    st.one_of(
        st.text(),
        st.floats(max_value=-1e-9),
        st.sampled_from([math.nan, math.inf, None, True, "nan", "inf", "-1", "1pp%"]),
    )
)
def test_what_is_no_margin_is_refused(margin):
    # whatever comes in: a share that is a number, or one sentence
    value, told = None, ""
    try:
        value = parse_margin(margin)
    except InputError as error:
        told = str(error)
    if value is None:
        assert "0.5pp" in told
    else:
        assert isinstance(margin, str)
        assert 0 <= value < math.inf


@pytest.mark.parametrize(
    "margin", ["", "pp", "-1", "1ppp", "1 p p", "nan", "inf", "1e400", "9" * 400, "0x1", "1_0", "١", None, True, -0.1]
)
def test_these_are_no_margins(margin):
    with pytest.raises(InputError, match="margin must be a number"):
        parse_margin(margin)
