"""Metrics: one score per row, by name or by any callable. A score that cannot be had is missing (NaN), never 0.

A metric's function takes a batch, `function(outputs, targets)`, and returns one number per row. Tensors score
classification, multi-label, ranking, embedding and regression outputs; lists (one entry per row) score text and
retrieval answers.
"""

from __future__ import annotations

import math
import re
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from functools import partial
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from softknee.errors import InputError, closest

IGNORED = -100  # torch's ignore_index: a target that asks for nothing


@dataclass(frozen=True)
class Metric:
    """A named score per row. `function(outputs, targets)` returns (rows,) numbers; NaN or None where there is none."""

    name: str
    function: Callable[[Any, Any], Any]
    higher_is_better: bool = True
    reads_logits: bool = False  # a probability given for the one logit would silently mean something else

    def __call__(self, outputs: Any, targets: Any) -> NDArray[np.float64]:
        """Scores of a batch, float64 of shape (rows,). Raises InputError when there is not one score per row."""
        scores = self.function(outputs, targets)
        if isinstance(scores, Tensor):
            column = scores.detach().cpu().double().numpy()
        else:
            listed = [scores] if isinstance(scores, (int, float)) else list(scores)
            column = np.array([math.nan if score is None else float(score) for score in listed], dtype=np.float64)
        if column.shape != (len(outputs),):
            raise InputError(
                f"metric {self.name!r} returned scores of shape {column.shape} for {len(outputs)} rows; "
                "it must return one number per row (NaN or None where there is none)"
            )
        return np.where(np.isfinite(column), column, math.nan)


def accuracy(outputs: Any, targets: Any, *, threshold: float = 0.0) -> Any:
    """1.0 where the answer is the target, else 0.0.

    Class logits (rows, classes) against (rows,) classes; (rows, positions, classes) or (rows, classes, positions)
    against (rows, positions): the share of right positions, targets of -100 left out. One logit per target of 0 or 1
    (rows, or rows and labels): right side of `threshold`. Integer outputs or lists: equality. Rows with a NaN among
    their logits are missing.
    """
    if not isinstance(outputs, Tensor):
        return [float(output == target) for output, target in zip(outputs, _entries(targets), strict=True)]
    targets = _tensor("accuracy", targets)
    if outputs.dtype.is_floating_point:
        _whole("accuracy", targets)
        answers = predictions(outputs, targets, threshold=threshold)
        targets = targets.reshape(answers.shape)
    else:
        answers = outputs
        if answers.shape != targets.shape:
            raise _unfit("accuracy", outputs, targets)
    return _row_mean((answers == targets).double(), (targets != IGNORED) & (answers != IGNORED))


def nll(outputs: Tensor, targets: Tensor) -> Tensor:
    """Negative log-likelihood of the target in nats, from logits, log-probabilities or probabilities.

    Shapes as for `accuracy`; the mean over positions. Rows that are non-negative and sum to 1 are taken as the
    probabilities they are, since the softmax of a softmax would silently score something else.
    """
    targets = _tensor("nll", targets)
    logits = _tensor("nll", outputs).double()
    _whole("nll", targets)
    if _single(logits, targets):
        sign = torch.where(targets.reshape(logits.shape) > 0, -1.0, 1.0)
        return torch.nn.functional.softplus(sign * logits).reshape(len(logits), -1).mean(1)
    logits = logits.movedim(_class_dim("nll", logits, targets), -1)
    summed = logits.sum(-1, keepdim=True)
    is_probability = (logits >= 0).all(-1, keepdim=True) & ((summed - 1).abs() < 1e-3)
    # bfloat16 probabilities sum to 1 within 1e-2 only, so they are renormalised; fp32 ones within 1e-6
    logs = torch.where(is_probability, (logits.clamp_min(0) / summed).log(), torch.log_softmax(logits, -1))
    kept = targets != IGNORED
    index = torch.where(kept, targets, 0).long()
    if ((index < 0) | (index >= logits.shape[-1])).any():
        raise InputError(f"nll: targets must be classes from 0 to {logits.shape[-1] - 1}")
    return _row_mean(-logs.gather(-1, index[..., None])[..., 0], kept)


def log_likelihood(outputs: Tensor, targets: Tensor) -> Tensor:
    """Log-likelihood of the target in nats: −`nll`, higher is better."""
    return -nll(outputs, targets)


def recall(outputs: Any, targets: Any) -> Any:
    """Share of what was expected that was answered; 1.0 where nothing was expected.

    Lists of sets (or of lists), or multi-label logits (rows, labels) against 0/1 targets: answered where the logit is
    above 0 (bool and integer outputs: where they are not 0).
    """
    if not isinstance(outputs, Tensor):
        answered = [_set(output) for output in outputs]
        return [_share(answer, _set(truth)) for answer, truth in zip(answered, _entries(targets), strict=True)]
    truth = _tensor("recall", targets)
    if outputs.ndim != 2 or outputs.shape != truth.shape:
        raise _unfit("recall", outputs, truth)
    return _tensor_share((outputs > 0) & ~outputs.isnan(), truth > 0, outputs.isnan().any(1))


def recall_at_k(outputs: Any, targets: Any, *, k: int = 5, relevance_threshold: float = 0.0) -> Any:
    """Share of the relevant items among the first k; 1.0 where nothing is relevant.

    Item scores (rows, items) against relevance (rows, items), relevant above `relevance_threshold`, or against the
    index (rows,) of the one relevant item; ties go to the lower index. Or ranked lists against sets of items (or dicts
    from item to relevance).
    """
    if not isinstance(outputs, Tensor):
        truths = [_relevant(truth, relevance_threshold) for truth in _entries(targets)]
        return [_share(_set(list(ranked)[:k]), truth) for ranked, truth in zip(outputs, truths, strict=True)]
    relevance = _relevance("recall_at_k", outputs, targets)
    first = torch.zeros_like(relevance, dtype=torch.bool).scatter(1, _ranking(outputs)[:, :k], True)
    return _tensor_share(first, relevance > relevance_threshold, outputs.isnan().any(1))


def ndcg(outputs: Any, targets: Any, *, k: int | None = None) -> Any:
    """Normalised discounted cumulative gain, linear in relevance (Järvelin and Kekäläinen 2002), of the first k items.

    Shapes as for `recall_at_k`. Missing where nothing is relevant: there is no ideal order to compare with.
    """
    if isinstance(outputs, Tensor):
        relevance = _relevance("ndcg", outputs, targets).double()
        gains = relevance.gather(1, _ranking(outputs))
        ideal = relevance.sort(1, descending=True).values
        scores = _dcg(gains, k) / _dcg(ideal, k)
        missing = outputs.isnan().any(1) | (relevance < 0).any(1)
        return torch.where(missing, math.nan, scores)
    listed = []
    for ranked, truth in zip(outputs, _entries(targets), strict=True):
        graded = truth if isinstance(truth, dict) else dict.fromkeys(_set(truth), 1.0)
        ranked = list(dict.fromkeys(ranked))  # an item counts once, where it first stands
        gains = torch.tensor([[float(graded.get(item, 0.0)) for item in ranked]], dtype=torch.float64)
        ideal = torch.tensor([sorted((float(g) for g in graded.values()), reverse=True)], dtype=torch.float64)
        listed.append(float(_dcg(gains, k) / _dcg(ideal, k)))
    return listed


def embedding_similarity(outputs: Tensor, targets: Tensor, *, kind: str = "cosine") -> Tensor:
    """Similarity of two embeddings (rows, features): "cosine", or 1/(1 + distance) for "euclidean" and "manhattan".

    A zero vector has no direction, so its cosine is missing.
    """
    left, right = _tensor("embedding_similarity", outputs).double(), _tensor("embedding_similarity", targets).double()
    if left.shape != right.shape:
        raise _unfit("embedding_similarity", outputs, targets)
    left, right = left.reshape(len(left), -1), right.reshape(len(right), -1)
    if kind == "cosine":
        left, right = (side / side.abs().amax(1, keepdim=True) for side in (left, right))  # squares cannot overflow
        return (left * right).sum(1) / (left.norm(dim=1) * right.norm(dim=1))
    if kind in ("euclidean", "manhattan"):
        return 1 / (1 + torch.linalg.vector_norm(left - right, 2 if kind == "euclidean" else 1, dim=1))
    raise InputError(f"kind must be 'cosine', 'euclidean' or 'manhattan'; got {kind!r}")


def squared_error(outputs: Tensor, targets: Tensor) -> Tensor:
    """Mean squared error of a row, lower is better."""
    return _error("squared_error", outputs, targets).square().mean(1)


def absolute_error(outputs: Tensor, targets: Tensor) -> Tensor:
    """Mean absolute error of a row, lower is better."""
    return _error("absolute_error", outputs, targets).abs().mean(1)


METRICS: dict[str, Metric] = {
    entry.name: entry
    for entry in (
        Metric("accuracy", accuracy, reads_logits=True),
        Metric("ground_truth_match", accuracy, reads_logits=True),
        Metric("log_likelihood", log_likelihood, reads_logits=True),
        Metric("nll", nll, higher_is_better=False, reads_logits=True),
        Metric("recall", recall),
        Metric("recall_at_k", recall_at_k),
        Metric("ndcg", ndcg),
        Metric("embedding_similarity", embedding_similarity),
        Metric("squared_error", squared_error, higher_is_better=False),
        Metric("absolute_error", absolute_error, higher_is_better=False),
    )
}
_AT = re.compile(r"(recall|ndcg)_at_([1-9][0-9]{0,5})")


def metric(source: str | Metric | Callable[[Any, Any], Any]) -> Metric:
    """A Metric from its name (`recall_at_5` and `ndcg_at_10` name their k), a Metric, or a callable.

    A callable is named by its `__name__`, and is better when higher unless it carries `higher_is_better = False`.
    """
    if isinstance(source, Metric):
        return source
    if isinstance(source, str):
        if source in METRICS:
            return METRICS[source]
        if match := _AT.fullmatch(source):
            function = recall_at_k if match[1] == "recall" else ndcg
            return Metric(source, partial(function, k=int(match[2])))
        known = [*METRICS, "recall_at_5", "ndcg_at_10"]
        raise InputError(f"unknown metric {source!r}{closest(source, known)}; known: {', '.join(known)}")
    if callable(source):
        inner = getattr(source, "func", source)
        name = getattr(source, "__name__", "") or getattr(inner, "__name__", type(inner).__name__)
        return Metric(str(name), source, bool(getattr(source, "higher_is_better", True)))
    raise InputError(f"a metric is a name, a Metric or a callable of (outputs, targets); got {type(source).__name__}")


def metrics_of(sources: Any) -> tuple[Metric, ...]:
    """One or more metrics with different names."""
    listed = [sources] if isinstance(sources, (str, Metric)) or callable(sources) else list(sources)
    found = tuple(metric(source) for source in listed)
    names = [entry.name for entry in found]
    if not found or len(set(names)) < len(names):
        raise InputError(f"metrics must be one or more with different names; got {names}")
    return found


def predictions(outputs: Tensor, targets: Tensor, *, threshold: float = 0.0) -> Tensor:
    """The class each row (or position) answers, as int64; -100 where a logit is NaN.

    One logit per row is 1 above `threshold`, else 0.
    """
    if _single(outputs, targets):
        return torch.where(outputs.isnan(), IGNORED, (outputs > threshold).long())
    dim = _class_dim("accuracy", outputs, targets)
    return torch.where(outputs.isnan().any(dim), IGNORED, outputs.argmax(dim))


def _single(outputs: Tensor, targets: Tensor) -> bool:
    """Whether each target has one logit of its own."""
    return outputs.shape == targets.shape or (outputs.ndim == 2 and outputs.shape == (*targets.shape, 1))


def _class_dim(name: str, outputs: Tensor, targets: Tensor) -> int:
    last = outputs.ndim >= 2 and outputs.shape[:-1] == targets.shape
    second = outputs.ndim >= 2 and (outputs.shape[0], *outputs.shape[2:]) == tuple(targets.shape)
    if last and second and outputs.ndim > 2:
        raise InputError(
            f"{name}: outputs of shape {tuple(outputs.shape)} may hold classes in dimension 1 or in the last one; "
            "give a metric of your own that says which"
        )
    if not (last or second):
        raise _unfit(name, outputs, targets)
    return outputs.ndim - 1 if last else 1


def _unfit(name: str, outputs: Tensor, targets: Tensor) -> InputError:
    return InputError(
        f"{name}: outputs of shape {tuple(outputs.shape)} ({outputs.dtype}) and targets of shape "
        f"{tuple(targets.shape)} ({targets.dtype}) do not fit together"
    )


def _whole(name: str, targets: Tensor) -> None:
    if targets.dtype.is_floating_point and bool((targets != targets.floor()).any()):
        raise InputError(f"{name}: targets must be classes (whole numbers), not {targets.dtype} measurements")


def _tensor(name: str, values: Any) -> Tensor:
    if not isinstance(values, Tensor):
        kind = "missing (the dataset has none)" if values is None else f"a {type(values).__name__}"
        raise InputError(f"{name} needs tensors; one side is {kind}")
    return values


def _entries(targets: Any) -> list[Any]:
    if targets is None:
        raise InputError("this metric needs targets, and the dataset has none")
    return targets.tolist() if isinstance(targets, Tensor) else list(targets)


def _row_mean(values: Tensor, kept: Tensor) -> Tensor:
    """Mean over each row's kept positions; NaN where none is kept."""
    rows = len(values)
    weight = kept.reshape(rows, -1).double()
    total = torch.where(kept, values, 0.0).reshape(rows, -1).sum(1)
    return total / weight.sum(1)


def _error(name: str, outputs: Any, targets: Any) -> Tensor:
    left, right = _tensor(name, outputs), _tensor(name, targets)
    if left.shape != right.shape:
        if left.shape != (*right.shape, 1) and right.shape != (*left.shape, 1):
            raise _unfit(name, left, right)
        left, right = left.reshape(len(left), -1), right.reshape(len(right), -1)
    return (left.double() - right.double()).reshape(len(left), -1)


def _set(values: Any) -> set[Any]:
    if isinstance(values, str) or not isinstance(values, Iterable):
        return {values}
    return set(values)


def _share(answered: set[Any], truth: set[Any]) -> float:
    return len(answered & truth) / len(truth) if truth else 1.0


def _tensor_share(answered: Tensor, truth: Tensor, missing: Tensor) -> Tensor:
    expected = truth.sum(1)
    share = torch.where(expected > 0, (answered & truth).sum(1) / expected.clamp_min(1), 1.0)
    return torch.where(missing, math.nan, share.double())


def _relevant(truth: Any, threshold: float) -> set[Any]:
    return {item for item, grade in truth.items() if grade > threshold} if isinstance(truth, dict) else _set(truth)


def _relevance(name: str, outputs: Tensor, targets: Any) -> Tensor:
    targets = _tensor(name, targets)
    if outputs.ndim == 2 and targets.shape == outputs.shape:
        return targets
    if outputs.ndim == 2 and targets.shape == outputs.shape[:1] and not targets.dtype.is_floating_point:
        if bool(((targets < 0) | (targets >= outputs.shape[1])).any()):
            raise InputError(f"{name}: targets must be item indices from 0 to {outputs.shape[1] - 1}")
        return torch.nn.functional.one_hot(targets.long(), outputs.shape[1])
    raise _unfit(name, outputs, targets)


def _ranking(outputs: Tensor) -> Tensor:
    return outputs.argsort(dim=1, descending=True, stable=True)


def _dcg(gains: Tensor, k: int | None) -> Tensor:
    gains = gains[:, :k]
    discount = torch.log2(torch.arange(gains.shape[1], dtype=torch.float64) + 2)
    return (gains / discount).sum(1)
