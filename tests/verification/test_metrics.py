"""Metrics against torch, scikit-learn and by hand: one score per row, and a missing score is NaN."""

from __future__ import annotations

import math
from functools import partial

import numpy as np
import pytest
import torch

from softknee.errors import InputError
from softknee.verification.metrics import METRICS, Metric, accuracy, embedding_similarity, metric, metrics_of

NAN = float("nan")


def score(name, outputs, targets):
    return metric(name)(outputs, targets)


def test_accuracy_of_classes():
    logits = torch.tensor([[1.0, 2.0], [3.0, 0.0], [NAN, 1.0]])
    scores = score("accuracy", logits, torch.tensor([1, 1, 1]))
    assert scores[:2].tolist() == [1.0, 0.0]
    assert math.isnan(scores[2])
    assert score("ground_truth_match", logits[:2], torch.tensor([1.0, 1.0])).tolist() == [1.0, 0.0]


def test_accuracy_of_one_logit():
    for shape in ((3,), (3, 1)):
        assert score("accuracy", torch.tensor([0.2, -1.0, 3.0]).reshape(shape), torch.tensor([1, 0, 0])).tolist() == [
            1,
            1,
            0,
        ]
    at_half = Metric("accuracy", partial(accuracy, threshold=0.5))
    assert at_half(torch.tensor([0.2, 0.7]), torch.tensor([0.0, 1.0])).tolist() == [1, 1]


def test_accuracy_of_positions_leaves_ignored_ones_out():
    logits = torch.nn.functional.one_hot(torch.tensor([[0, 1, 2], [0, 0, 0]]), 4).float()
    targets = torch.tensor([[0, 1, -100], [1, 0, 3]])
    for outputs in (logits, logits.movedim(-1, 1)):
        assert score("accuracy", outputs, targets) == pytest.approx([1.0, 1 / 3])
    assert math.isnan(score("accuracy", logits[:1], torch.full((1, 3), -100))[0])


def test_accuracy_of_labels_answers_and_texts():
    assert score("accuracy", torch.tensor([[1.0, -1.0]]), torch.tensor([[1.0, 1.0]])).tolist() == [0.5]
    assert score("accuracy", torch.tensor([1, 2]), torch.tensor([1, 3])).tolist() == [1, 0]
    assert score("accuracy", ["yes", "no"], ["yes", "yes"]).tolist() == [1, 0]


def test_nll_is_cross_entropy():
    logits, targets = torch.randn(8, 5), torch.randint(5, (8,))
    expected = torch.nn.functional.cross_entropy(logits.double(), targets, reduction="none").numpy()
    assert score("nll", logits, targets) == pytest.approx(expected)
    assert score("log_likelihood", logits, targets) == pytest.approx(-expected)
    assert score("nll", logits.log_softmax(1), targets) == pytest.approx(expected, abs=1e-6)
    # a softmax of the softmax would score something else without a word
    assert score("nll", logits.softmax(1), targets) == pytest.approx(expected, abs=1e-5)
    assert not METRICS["nll"].higher_is_better


def test_nll_of_one_logit_and_of_positions():
    logits, targets = torch.randn(6), torch.tensor([0, 1, 1, 0, 1, 0])
    expected = torch.nn.functional.binary_cross_entropy_with_logits(logits.double(), targets.double(), reduction="none")
    assert score("nll", logits, targets) == pytest.approx(expected.numpy())
    positions, classes = torch.randn(2, 7, 3), torch.randint(3, (2, 7))
    classes[0, :4] = -100
    each = [
        torch.nn.functional.cross_entropy(row.double(), want, ignore_index=-100)
        for row, want in zip(positions, classes, strict=True)
    ]
    assert score("nll", positions, classes) == pytest.approx([float(value) for value in each])
    assert score("nll", positions.movedim(-1, 1), classes) == pytest.approx([float(value) for value in each])


def test_an_infinite_or_missing_score_is_missing():
    assert np.isnan(score("nll", torch.tensor([[0.0, -math.inf]]), torch.tensor([1]))).all()
    assert np.isnan(score("nll", torch.tensor([[NAN, 0.0]]), torch.tensor([1]))).all()
    assert np.isnan(score(lambda outputs, targets: [None], torch.zeros(1), None)).all()


def test_recall():
    assert score("recall", [{"a", "b"}, ["a"], set(), "x"], [{"a", "c"}, {"a"}, set(), "x"]).tolist() == [0.5, 1, 1, 1]
    logits = torch.tensor([[1.0, -1.0, 2.0], [-1.0, -1.0, -1.0]])
    assert score("recall", logits, torch.tensor([[1, 1, 0], [0, 0, 0]])).tolist() == [0.5, 1.0]


def test_recall_at_k():
    items = torch.tensor([[0.1, 0.9, 0.5, 0.3], [0.4, 0.3, 0.2, 0.1]])
    assert score("recall_at_2", items, torch.tensor([[1, 1, 0, 0], [0, 0, 0, 0]])).tolist() == [0.5, 1.0]
    assert score("recall_at_1", items, torch.tensor([1, 1])).tolist() == [1, 0]
    assert score("recall_at_9", items, torch.tensor([1, 1])).tolist() == [1, 1]
    ranked = [["a", "b", "c"], ["x"]]
    assert score("recall_at_2", ranked, [{"b", "c"}, {"x": 0.0, "y": 2.0}]).tolist() == [0.5, 0.0]
    ties = torch.zeros(1, 3)
    assert score("recall_at_1", ties, torch.tensor([0])).tolist() == [1.0]  # ties go to the lower index


def test_ndcg_is_scikit_learns():
    sklearn = pytest.importorskip("sklearn.metrics")
    relevance = torch.randint(0, 4, (20, 9)).double()
    relevance[:, 0] += 1
    items = torch.randn(20, 9)
    for k in (1, 3, 9):
        expected = [sklearn.ndcg_score(relevance[i : i + 1], items[i : i + 1], k=k) for i in range(20)]
        assert score(f"ndcg_at_{k}", items, relevance) == pytest.approx(expected)
    ranked = [row.argsort(descending=True).tolist() for row in items]
    graded = [dict(enumerate(row)) for row in relevance.tolist()]
    assert score("ndcg", ranked, graded) == pytest.approx(score("ndcg", items, relevance))
    assert np.isnan(score("ndcg", items[:1], torch.zeros(1, 9))).all()  # nothing relevant: no ideal to compare with
    assert score("ndcg", [["a", "a"]], [{"a"}]).tolist() == [1.0]  # a repeated answer is not paid twice


def test_embedding_similarity():
    left, right = torch.randn(5, 3), torch.randn(5, 3)
    expected = torch.nn.functional.cosine_similarity(left.double(), right.double())
    assert score("embedding_similarity", left, right) == pytest.approx(expected.numpy())
    assert score("embedding_similarity", left * 1e30, right * 1e-30) == pytest.approx(expected.numpy(), abs=1e-6)
    assert np.isnan(score("embedding_similarity", torch.zeros(1, 3), right[:1])).all()
    away = torch.tensor([[3.0, 4.0]])
    for kind, distance in (("euclidean", 5), ("manhattan", 7)):
        similar = metric(partial(embedding_similarity, kind=kind))
        assert similar(away, torch.zeros(1, 2)) == pytest.approx([1 / (1 + distance)])
    with pytest.raises(InputError, match="'cosine', 'euclidean' or 'manhattan'"):
        embedding_similarity(away, away, kind="hamming")


def test_errors_of_a_regression():
    outputs, targets = torch.tensor([[1.0], [2.0]]), torch.tensor([0.0, 4.0])
    assert score("squared_error", outputs, targets).tolist() == [1, 4]
    assert score("absolute_error", outputs, targets).tolist() == [1, 2]


def test_any_callable_is_a_metric():
    def margin(outputs, targets):
        return outputs[:, 0] - outputs[:, 1]

    assert metric(margin).name == "margin"
    assert metric(margin)(torch.tensor([[3.0, 1.0]]), None).tolist() == [2.0]
    margin.higher_is_better = False
    assert not metric(margin).higher_is_better


@pytest.mark.parametrize(
    ("name", "outputs", "targets", "message"),
    [
        ("accuracy", torch.zeros(3, 2), torch.zeros(4), "do not fit"),
        ("accuracy", torch.zeros(2, 3, 3), torch.zeros(2, 3).long(), "dimension 1 or in the last"),
        ("accuracy", torch.zeros(3, 2), torch.full((3,), 0.5), "whole numbers"),
        ("accuracy", torch.zeros(3, 2), None, "has none"),
        ("nll", torch.zeros(3, 2), torch.tensor([0, 1, 2]), "from 0 to 1"),
        ("nll", torch.zeros(3, 2), torch.tensor([0, 1, -1]), "from 0 to 1"),
        ("recall_at_2", torch.zeros(3, 2), torch.tensor([0, 1, 2]), "from 0 to 1"),
        ("squared_error", torch.zeros(3, 2), torch.zeros(3), "do not fit"),
        ("recall", torch.zeros(3, 2), torch.zeros(3), "do not fit"),
        ("recall", ["a"], None, "has none"),
        (lambda outputs, targets: 1.0, torch.zeros(3), None, "one number per row"),
        (lambda outputs, targets: torch.zeros(2), torch.zeros(3), None, "one number per row"),
    ],
)
def test_what_does_not_fit_is_named(name, outputs, targets, message):
    with pytest.raises(InputError, match=message):
        score(name, outputs, targets)


def test_names():
    with pytest.raises(InputError, match="did you mean 'accuracy'"):
        metric("acuracy")
    with pytest.raises(InputError, match="unknown metric"):
        metric("recall_at_0")
    with pytest.raises(InputError, match="a name, a Metric or a callable"):
        metric(3)
    assert [entry.name for entry in metrics_of("nll")] == ["nll"]
    for bad in ((), ("nll", "nll")):
        with pytest.raises(InputError, match="different names"):
            metrics_of(bad)
