"""Runs: one model version on one dataset, with a score, an answer and a latency per row, and where all that comes from.

A Run is plain data. It is stored as plain JSON and read back with every field checked; nothing in such a file is ever
executed, and a file that is malformed, truncated or hostile is refused in one sentence.
"""

from __future__ import annotations

import hashlib
import json
import math
import os
import platform
import random
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from datetime import datetime, timezone
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

import softknee
from softknee.errors import InputError
from softknee.files import write_whole
from softknee.plain import plain
from softknee.verification.datasets import Dataset, Mask, as_dataset, tensor_bytes
from softknee.verification.metrics import IGNORED, Metric, metrics_of, predictions

FORMAT = "softknee run 1"
LARGEST_FILE = 2**28  # bytes; a run of two million rows stays below


@dataclass(frozen=True, eq=False)
class Run:
    """One model version on one dataset. Columns are in the order of `ids`; a missing score is NaN."""

    version: str
    dataset: str
    ids: tuple[str, ...]
    scores: dict[str, NDArray[np.float64]]  # by metric
    higher_is_better: dict[str, bool]  # by metric
    predictions: tuple[Any, ...] | None
    targets: tuple[Any, ...] | None
    cohorts: dict[str, Mask]
    clusters: tuple[str, ...] | None
    latency: NDArray[np.float64]  # seconds per row: its batch's time divided by its batch's rows
    cost: NDArray[np.float64] | None  # per row, in whatever unit the caller counts
    provenance: dict[str, Any]

    def __len__(self) -> int:
        return len(self.ids)

    @property
    def metrics(self) -> tuple[str, ...]:
        return tuple(self.scores)

    def mean(self, metric: str | None = None) -> float:
        """Mean over the rows that have a score; NaN if none has."""
        scores = self.scores[self.metric(metric)]
        present = scores[np.isfinite(scores)]
        return float(present.mean()) if len(present) else math.nan

    def missing(self, metric: str | None = None) -> int:
        """Rows without a score."""
        return int((~np.isfinite(self.scores[self.metric(metric)])).sum())

    def metric(self, name: str | None = None) -> str:
        """`name` if the run has it; its first metric for None."""
        if name is None:
            return next(iter(self.scores))
        if name not in self.scores:
            raise InputError(f"run {self.version!r} has no metric {name!r}; it has {', '.join(self.scores)}")
        return name

    def to_dict(self) -> dict[str, Any]:
        """Everything, as plain JSON types; missing scores are None."""
        return {
            "format": FORMAT,
            "version": self.version,
            "dataset": self.dataset,
            "ids": list(self.ids),
            "scores": {metric: _or_missing(scores) for metric, scores in self.scores.items()},
            "higher_is_better": dict(self.higher_is_better),
            "predictions": plain(self.predictions),
            "targets": plain(self.targets),
            "cohorts": {name: np.flatnonzero(mask).tolist() for name, mask in self.cohorts.items()},
            "clusters": plain(self.clusters),
            "latency": _or_missing(self.latency),
            "cost": None if self.cost is None else _or_missing(self.cost),
            "provenance": plain(self.provenance),
        }

    def save(self, path: str | os.PathLike[str]) -> Path:
        """Write the run as JSON; the file appears whole or not at all."""
        text = json.dumps(self.to_dict(), allow_nan=False)
        if len(text) > LARGEST_FILE:
            raise InputError(f"the run of {len(self):,} rows is larger than {LARGEST_FILE >> 20} MiB; save it in parts")
        return write_whole(path, text)

    @classmethod
    def load(cls, path: str | os.PathLike[str]) -> Run:
        """Read a run that `save` wrote. Raises InputError, in one sentence, for anything else."""
        return _parsed(Path(path))

    def __str__(self) -> str:
        lines = [f"run {self.version}: {len(self):,} rows of {self.dataset}"]
        for name in self.scores:
            gone = f", {self.missing(name):,} missing" if self.missing(name) else ""
            lines.append(f"  {name:<16} {self.mean(name):.4f}{gone}")
        lines.append(f"  {'latency':<16} {np.median(self.latency) * 1e6:,.1f} µs per row (median)")
        if self.cost is not None and np.isfinite(self.cost).any():
            lines.append(f"  {'cost':<16} {np.nanmean(self.cost):.4g} per row (mean)")
        known = ", ".join(
            f"{key} {_short(value)}"
            for key, value in self.provenance.items()
            if value is not None and key != "census_note"
        )
        lines.append(f"  from {known}")
        if self.provenance.get("census_note"):
            lines.append(f"  note: {shown(self.provenance['census_note'])}")
        return "\n".join(lines)


def _or_missing(column: NDArray[np.float64]) -> list[float | None]:
    """One number per row; a score that is not finite is missing."""
    return [float(value) if math.isfinite(value) else None for value in column]


def evaluate(
    model: Any,
    dataset: Any,
    metrics: Any = ("accuracy",),
    *,
    version: str | None = None,
    batch_size: int = 256,
    seed: int | None = None,
    budget: Any = None,
    training: Any = None,
    cost: Callable[[Any, Any], Any] | Sequence[float] | None = None,
) -> Run:
    """Score every row of `dataset` with `model`.

    `model`: a Module (put in eval mode, no grad, on its own device; modes restored) or any callable. It may return a
    tensor, a tuple (its first entry counts), a dict or model output (its `logits`, else its only entry), or a list with
    one answer per row. `dataset`: a Dataset or an `(inputs, targets)` pair. `metrics`: names, Metrics or callables
    `(outputs, targets) -> one score per row`. `version`: how this model version is called; without one it is called by
    the hash of its weights. `seed`, `budget` (steps, epochs, anything) and `training` (a Dataset, or a name) say how
    the model was trained; they are recorded so that a comparison can tell what else differs. `cost`: one number per
    row, or a callable of a batch's `(inputs, outputs)` that returns them.

    The state of torch's, NumPy's and Python's generators is untouched; inside, torch's is seeded with 0, so that a
    stochastic model gives the same run twice. Latency is measured after one batch of warm-up, with the device in step.
    Raises InputError for an empty dataset, outputs with another number of rows, and a metric that does not fit.
    """
    data = as_dataset(dataset)
    chosen = metrics_of(metrics)
    if len(data) == 0:
        raise InputError(f"dataset {data.name!r} has no rows, so there is nothing to evaluate")
    if isinstance(batch_size, bool) or not isinstance(batch_size, int) or batch_size < 1:
        raise InputError(f"batch_size must be a whole number of at least 1; got {batch_size!r}")
    if not callable(model):
        raise InputError(f"model must be a torch Module or a callable; got {type(model).__name__}")
    device = _device(model)
    classes, one_hot = _holds_classes(data.targets), _is_one_hot(data.targets)
    reads_logits = any(entry.reads_logits for entry in chosen)
    scores: dict[str, list[NDArray[np.float64]]] = {entry.name: [] for entry in chosen}
    answers: list[Any] = []
    latency: list[NDArray[np.float64]] = []
    costs: list[float] = []
    digest = hashlib.sha256()
    lone: list[float] = []  # least and largest output of a model that gives one number per 0/1 target
    with _undisturbed(model), torch.no_grad():
        for place, (inputs, targets) in enumerate(data.batches(batch_size)):
            moved = _moved(inputs, device)
            if place == 0:
                _call(model, moved, device)
            output, seconds = _call(model, moved, device)
            outputs = _outputs(output)
            rows = min(batch_size, len(data) - place * batch_size)
            if len(outputs) != rows:
                raise InputError(
                    f"the model returned {len(outputs)} rows for a batch of {rows}; the first dimension must be rows"
                )
            if one_hot and reads_logits and isinstance(outputs, Tensor) and outputs.ndim == 2 and outputs.shape[1] > 1:
                raise InputError(
                    "the targets are one-hot; give classes instead (targets.argmax(1)), so that they can be scored"
                )
            latency.append(np.full(rows, seconds / rows))
            _digest(digest, outputs)
            for entry in chosen:
                scores[entry.name].append(_scored(entry, outputs, targets))
            answers.extend(_answers(outputs, targets if classes else None))
            if classes and isinstance(outputs, Tensor) and isinstance(targets, Tensor) and outputs.is_floating_point():
                lone += [float(outputs.min()), float(outputs.max())] if outputs.numel() == targets.numel() else []
            if callable(cost):
                costs.extend(_costs(cost(inputs, outputs)))
    if lone and min(lone) >= 0 and max(lone) <= 1 and reads_logits:
        raise InputError(
            "the model's one output per target always lies in [0, 1], so it looks like a probability where a logit is "
            "expected; return logits, or pass Metric('accuracy', partial(accuracy, threshold=0.5))"
        )
    if cost is not None and not callable(cost):
        costs = _costs(cost)
    if cost is not None and len(costs) != len(data):
        raise InputError(f"cost must give one number per row: {len(costs)} for {len(data)} rows")
    provenance = _provenance(model, data, device, digest.hexdigest()[:32])
    provenance |= {
        "seed": plain(seed),
        "budget": plain(budget),
        "training": _training(training),
        "batch_size": batch_size,
    }
    name = version if version is not None else (provenance["weights"] or "unversioned")[:12]
    return Run(
        version=_name("version", name),
        dataset=_name("dataset", data.name),
        ids=data.ids,
        scores={entry.name: np.concatenate(scores[entry.name]) for entry in chosen},
        higher_is_better={entry.name: entry.higher_is_better for entry in chosen},
        predictions=tuple(answers) if any(answer is not None for answer in answers) else None,
        targets=None if data.targets is None else tuple(plain(data.targets)),
        cohorts=data.cohorts,
        clusters=None if data.clusters is None else tuple(data.clusters),
        latency=np.concatenate(latency),
        cost=np.asarray(costs, dtype=np.float64) if cost is not None else None,
        provenance=provenance,
    )


def weights_hash(model: Any) -> str | None:
    """SHA-256 (32 hexadecimal digits) over the names, dtypes, shapes and bytes of a state dict; None without one."""
    state = model.state_dict() if hasattr(model, "state_dict") else {}
    digest = hashlib.sha256()
    for name, value in sorted(state.items(), key=lambda item: str(item[0])):
        if isinstance(value, Tensor):
            digest.update(f"{name}:{value.dtype}:{tuple(value.shape)};".encode())
            digest.update(tensor_bytes(value))
        else:
            digest.update(f"{name}:{value!r};".encode() if isinstance(value, (str, int, float, tuple)) else b"")
    return digest.hexdigest()[:32] if state else None


# --- one batch -----------------------------------------------------------------------------------------------------


@contextmanager
def _undisturbed(model: Any) -> Iterator[None]:
    """Eval mode inside; modes and all random generators as they were outside, also after an exception."""
    modes = [(module, module.training) for module in model.modules()] if isinstance(model, torch.nn.Module) else []
    states = random.getstate(), np.random.get_state()
    devices = list(range(torch.cuda.device_count())) if torch.cuda.is_initialized() else []
    with torch.random.fork_rng(devices=devices):
        torch.manual_seed(0)
        try:
            if isinstance(model, torch.nn.Module):
                model.eval()
            yield
        finally:
            for module, training in modes:
                module.training = training
            random.setstate(states[0])
            np.random.set_state(states[1])


def _device(model: Any) -> torch.device:
    if isinstance(model, torch.nn.Module):
        for tensor in (*model.parameters(), *model.buffers()):
            return tensor.device
    return torch.device("cpu")


def _moved(inputs: Any, device: torch.device) -> Any:
    if isinstance(inputs, Tensor):
        return inputs.to(device)
    if isinstance(inputs, dict):
        return {key: _moved(value, device) for key, value in inputs.items()}
    return tuple(_moved(value, device) for value in inputs) if isinstance(inputs, tuple) else inputs


def _call(model: Any, inputs: Any, device: torch.device) -> tuple[Any, float]:
    if device.type == "cuda":
        torch.cuda.synchronize(device)
    began = time.perf_counter()
    if isinstance(inputs, dict):
        output = model(**inputs)
    else:
        output = model(*inputs) if isinstance(inputs, tuple) else model(inputs)
    if device.type == "cuda":
        torch.cuda.synchronize(device)
    return output, time.perf_counter() - began


def _outputs(output: Any) -> Tensor | list[Any]:
    """What of a model's output is scored: a tensor on the CPU, or a list with one answer per row."""
    if hasattr(output, "keys") and hasattr(output, "__getitem__"):
        names = list(output.keys())
        if "logits" not in names and len(names) != 1:
            raise InputError(f"the model returned a dict without 'logits'; it holds {', '.join(map(str, names))}")
        output = output["logits" if "logits" in names else names[0]]
    elif hasattr(output, "logits"):
        output = output.logits
    elif isinstance(output, tuple) and output:
        output = output[0]
    if isinstance(output, np.ndarray):
        output = torch.from_numpy(np.ascontiguousarray(output))
    if isinstance(output, Tensor):
        if output.ndim == 0:
            raise InputError("the model returned a single number (0-d tensor); it must return one output per row")
        return output.detach().dequantize().cpu() if output.is_quantized else output.detach().cpu()
    if isinstance(output, list):
        return output
    raise InputError(
        f"the model returned a {type(output).__name__}; it must return a tensor, or a list with one answer per row"
    )


def _scored(entry: Metric, outputs: Any, targets: Any) -> NDArray[np.float64]:
    if isinstance(targets, Tensor):
        targets = targets.cpu()
    try:
        return entry(outputs, targets)
    except InputError:
        raise
    except Exception as error:
        raise InputError(f"metric {entry.name!r} failed: {type(error).__name__}: {error}") from error


def _costs(values: Any) -> list[float]:
    try:
        listed = values.tolist() if hasattr(values, "tolist") else list(values)
        return [math.nan if value is None else float(value) for value in listed]
    except (TypeError, ValueError) as error:
        raise InputError(f"cost must give one number per row; {error}") from None


def _holds_classes(targets: Any) -> bool:
    """Whether targets are classes rather than measurements: whole dtypes, or floats that are all 0 or 1."""
    if not isinstance(targets, Tensor):
        return False
    return not (targets.is_floating_point() or targets.is_complex()) or bool(((targets == 0) | (targets == 1)).all())


def _is_one_hot(targets: Any) -> bool:
    """Whether targets are (rows, classes) with a single 1 in each row: as labels of their own they would be misread."""
    if not isinstance(targets, Tensor) or targets.ndim != 2 or targets.shape[1] < 2 or not _holds_classes(targets):
        return False
    return bool(((targets == 1).sum(1) == 1).all()) and bool(((targets == 0) | (targets == 1)).all())


def _answers(outputs: Any, targets: Any) -> list[Any]:
    """What each row answered: a class, classes by position, a number, a text; None where there is no such thing.

    `targets` are given where they hold classes.
    """
    if not isinstance(outputs, Tensor):
        return plain(outputs)
    if targets is not None and outputs.is_floating_point():
        try:
            found = predictions(outputs, targets.cpu())
        except InputError:
            return [None] * len(outputs)
        return [None if answer == IGNORED else answer for answer in found.reshape(targets.shape).tolist()]
    if outputs.numel() == len(outputs):
        return plain(outputs.reshape(-1))
    return [None] * len(outputs) if outputs.is_floating_point() else plain(outputs)


# --- where a run comes from ----------------------------------------------------------------------------------------


def _provenance(model: Any, data: Dataset, device: torch.device, outputs: str) -> dict[str, Any]:
    census, note = _census(model, data)
    is_module = isinstance(model, torch.nn.Module)
    return {
        "model": type(model).__qualname__ if is_module else getattr(model, "__name__", type(model).__name__),
        "weights": weights_hash(model),
        "census": census,
        "census_note": note,
        "outputs": outputs,
        "data": _data_hash(data.ids),
        "python": platform.python_version(),
        "torch": torch.__version__,
        "softknee": softknee.__version__,
        "threads": torch.get_num_threads(),
        "device": torch.cuda.get_device_name(device) if device.type == "cuda" else device.type,
        "date": datetime.now(timezone.utc).isoformat(timespec="seconds"),
    }


def _census(model: Any, data: Dataset) -> tuple[str | None, str | None]:
    """Hash of which activation stands where; None, with the reason, for a model that cannot be traced."""
    if not isinstance(model, torch.nn.Module):
        return None, "the model is not a torch Module, so its activations were not identified"
    inputs, _ = next(data.batches(2))
    try:
        with _undisturbed(model):
            census = softknee.identify(model, _moved(inputs, _device(model)))
    except Exception as error:  # a model that identification cannot run is still a model that can be scored
        first = (str(error).splitlines() or [""])[0]
        return None, f"the activations could not be identified ({type(error).__name__}: {first})"
    sites = [[site.key, site.activation, plain(site.parameters)] for site in census.sites]
    return hashlib.sha256(json.dumps(sites, sort_keys=True).encode()).hexdigest()[:32], None


def _training(training: Any) -> str | None:
    if training is None or isinstance(training, str):
        return training
    return _data_hash(as_dataset(training).ids)


def _data_hash(ids: Sequence[str]) -> str:
    """Of the rows as a set: their order is no difference."""
    return hashlib.sha256("\n".join(sorted(ids)).encode()).hexdigest()[:32]


def _digest(digest: Any, outputs: Any) -> None:
    digest.update(tensor_bytes(outputs) if isinstance(outputs, Tensor) else json.dumps(plain(outputs)).encode())


def shown(value: Any) -> str:
    """A value from a file, fit for a terminal: control characters escaped, and not endless."""
    text = str(value)
    text = text if text.isprintable() else ascii(text)
    return text if len(text) <= 200 else f"{text[:199]}…"


def _short(value: Any) -> str:
    text = shown(value)
    return text[:10] + "…" if len(text) == 32 else text


# --- reading what anybody may have written -------------------------------------------------------------------------


def _parsed(path: Path) -> Run:
    try:
        if not path.is_file():
            raise InputError(f"{path} is not a file" if path.exists() else f"there is no file {path}")
        if path.stat().st_size > LARGEST_FILE:
            raise InputError(f"{path} is larger than {LARGEST_FILE >> 20} MiB, more than a run may be")
        document = json.loads(path.read_bytes().decode("utf-8"), parse_constant=_no_number, parse_int=_whole_number)
    except OSError as error:
        raise InputError(f"cannot read {path}: {error.strerror}") from None
    except RecursionError:
        raise InputError(f"{path} is not a run: it is nested too deeply") from None
    except InputError:
        raise
    except ValueError as error:
        raise InputError(f"{path} is not a run: it is not valid JSON ({error})") from None
    try:
        return _run(document)
    except InputError as error:
        raise InputError(f"{path} is not a run: {error}") from None


def _run(document: Any) -> Run:
    if not isinstance(document, dict) or document.get("format") != FORMAT:
        raise InputError(f"its format is not {FORMAT!r}")
    ids = _list(document, "ids")
    rows = len(ids)
    if rows == 0 or not all(isinstance(name, str) and name.isprintable() and len(name) <= 64 for name in ids):
        raise InputError("ids must be one short text per row, and at least one")
    if len(set(ids)) != rows:
        raise InputError("ids must differ from each other")
    provenance = _dict(document, "provenance")
    if provenance.get("data") != _data_hash(ids):
        raise InputError("its ids do not match the hash of its data, so the file was cut or changed")
    scores = {
        _name("metric", name): _numbers(f"scores[{name!r}]", column, rows)
        for name, column in _dict(document, "scores").items()
    }
    better = _dict(document, "higher_is_better")
    if not scores or set(better) != set(scores) or not all(isinstance(value, bool) for value in better.values()):
        raise InputError("scores and higher_is_better must name the same metrics, one or more")
    cohorts = {}
    for name, index in _dict(document, "cohorts").items():
        if not isinstance(index, list) or not all(type(i) is int and 0 <= i < rows for i in index):
            raise InputError(f"cohorts[{name!r}] must list row numbers from 0 to {rows - 1}")
        mask = np.zeros(rows, dtype=np.bool_)
        mask[index] = True
        cohorts[_name("cohort", name)] = mask
    columns = {name: _optional(document, name, rows) for name in ("predictions", "targets", "clusters")}
    if columns["clusters"] is not None and not all(isinstance(name, str) for name in columns["clusters"]):
        raise InputError("clusters must be one text per row")
    latency = _numbers("latency", document.get("latency"), rows)
    cost = None if document.get("cost") is None else _numbers("cost", document["cost"], rows)
    return Run(
        version=_name("version", document.get("version")),
        dataset=_name("dataset", document.get("dataset")),
        ids=tuple(ids),
        scores=scores,
        higher_is_better=better,
        predictions=columns["predictions"],
        targets=columns["targets"],
        cohorts=cohorts,
        clusters=columns["clusters"],
        latency=latency,
        cost=cost,
        provenance=provenance,
    )


def _no_number(text: str) -> Any:
    raise ValueError(f"{text} is no JSON number")


def _whole_number(text: str) -> int:
    if len(text) > 20:  # reading a number of a million digits takes quadratic time
        raise ValueError(f"a whole number of {len(text)} digits")
    return int(text)


def _dict(document: dict[str, Any], key: str) -> dict[str, Any]:
    value = document.get(key)
    if not isinstance(value, dict):
        raise InputError(f"{key} must be an object")
    return value


def _list(document: dict[str, Any], key: str) -> list[Any]:
    value = document.get(key)
    if not isinstance(value, list):
        raise InputError(f"{key} must be a list")
    return value


def _optional(document: dict[str, Any], key: str, rows: int) -> tuple[Any, ...] | None:
    value = document.get(key)
    if value is None:
        return None
    if not isinstance(value, list) or len(value) != rows:
        raise InputError(f"{key} must be a list of {rows} entries, one per row")
    return tuple(value)


def _numbers(key: str, column: Any, rows: int) -> NDArray[np.float64]:
    if not isinstance(column, list) or len(column) != rows:
        raise InputError(f"{key} must be a list of {rows} numbers, one per row")
    if not all(value is None or (type(value) in (int, float) and math.isfinite(value)) for value in column):
        raise InputError(f"{key} must hold finite numbers, or null where a score is missing")
    return np.array([math.nan if value is None else value for value in column], dtype=np.float64)


def _name(kind: str, value: Any) -> str:
    """A name that may stand in a terminal: no control characters, not empty, not endless."""
    if not isinstance(value, str) or not value or not value.isprintable() or len(value) > 500:
        raise InputError(f"{kind} must be a printable text of 1 to 500 characters; got {str(value)[:40]!r}")
    return value
