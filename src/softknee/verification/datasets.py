"""Datasets: rows that carry the same id wherever and whenever they are loaded, their cohorts, and leaks between two.

A row's id is a SHA-256 of what the row holds (dtype, shape and bytes of its input and its target), so that two runs can
be paired row by row without anybody keeping a list. Strides, device and the order of rows do not matter; a second
identical row gets the suffix `.2`, a third `.3`.
"""

from __future__ import annotations

import hashlib
import json
from collections import Counter, defaultdict
from collections.abc import Iterator
from dataclasses import dataclass
from functools import cached_property
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from softknee.errors import InputError

Column = Tensor | list[Any]  # one entry per row: a tensor's first dimension, or plain Python values
Columns = Column | tuple[Column, ...] | dict[str, Column]
Mask = NDArray[np.bool_]


class Dataset:
    """Fixed, labelled rows.

    `inputs`: a tensor or array (rows, ...); a list with one entry per row (numbers, equal tensors, or any JSON values
    such as strings); a tuple of these (positional arguments of the model) or a dict of them (keyword arguments).
    `targets`: a tensor, array or list with one entry per row, or None.
    `cohorts`: one label per row; or a dict from a cohort's name to a boolean mask over the rows; or a dict from an
    attribute's name to one label per row (cohorts `name=label`). Cohorts may overlap.
    `clusters`: one name per row; rows of one name (a patient, a document) are not independent, so they are resampled
    together.

    Raises InputError when the columns disagree about the number of rows, or hold what has no bytes to hash.
    """

    def __init__(
        self,
        inputs: Any,
        targets: Any = None,
        cohorts: Any = None,
        *,
        clusters: Any = None,
        name: str = "dataset",
    ) -> None:
        self.name = str(name)
        self.inputs: Columns = _columns(inputs)
        self.targets: Column | None = None if targets is None else _column("targets", targets)
        lengths = {label: len(column) for label, column in self._labelled()}
        if len(set(lengths.values())) > 1:
            raise InputError(f"dataset {self.name!r}: every column needs one entry per row; got {lengths}")
        self._rows = next(iter(lengths.values()))
        self.cohorts: dict[str, Mask] = _cohorts(cohorts, self._rows)
        self.clusters: list[str] | None = None if clusters is None else _labels("clusters", clusters, self._rows)

    def __len__(self) -> int:
        return self._rows

    def __repr__(self) -> str:
        return f"Dataset({self.name!r}, {len(self)} rows, {len(self.cohorts)} cohorts)"

    @cached_property
    def ids(self) -> tuple[str, ...]:
        """One unique, stable id per row: 32 hexadecimal digits, and `.n` for its n-th identical row."""
        seen: Counter[str] = Counter()
        ids = []
        for digest in _digests(self._labelled(), self._rows):
            seen[digest] += 1
            ids.append(digest if seen[digest] == 1 else f"{digest}.{seen[digest]}")
        return tuple(ids)

    @cached_property
    def input_ids(self) -> tuple[str, ...]:
        """One id per row of the input alone; identical inputs share it."""
        return tuple(_digests([pair for pair in self._labelled() if pair[0] != "targets"], self._rows))

    def take(self, rows: Any) -> Dataset:
        """The rows named by indices or a boolean mask, as a Dataset of the same name."""
        index = np.arange(self._rows)[torch.as_tensor(rows).cpu().numpy()]
        return Dataset(
            _map(self.inputs, lambda column: _pick(column, index)),
            None if self.targets is None else _pick(self.targets, index),
            {name: mask[index] for name, mask in self.cohorts.items()} or None,
            clusters=None if self.clusters is None else [self.clusters[i] for i in index],
            name=self.name,
        )

    def batches(self, size: int) -> Iterator[tuple[Columns, Column | None]]:
        """Inputs and targets, `size` rows at a time, in order."""
        for start in range(0, self._rows, size):
            part = slice(start, start + size)
            yield (
                _map(self.inputs, lambda column, p=part: column[p]),
                None if self.targets is None else self.targets[part],
            )

    def _labelled(self) -> list[tuple[str, Column]]:
        if isinstance(self.inputs, dict):
            pairs = [(f"inputs[{key!r}]", column) for key, column in sorted(self.inputs.items())]
        elif isinstance(self.inputs, tuple):
            pairs = [(f"inputs[{place}]", column) for place, column in enumerate(self.inputs)]
        else:
            pairs = [("inputs", self.inputs)]
        return pairs if self.targets is None else [*pairs, ("targets", self.targets)]


def as_dataset(source: Any, name: str = "dataset") -> Dataset:
    """`source` as a Dataset: one already, a tensor or array (inputs alone), an `(inputs, targets)` pair of them, or a
    torch Dataset of such pairs."""
    if isinstance(source, Dataset):
        return source
    if isinstance(source, torch.utils.data.DataLoader):
        raise InputError(
            "a DataLoader has no fixed rows; give its dataset (`loader.dataset`) or the tensors themselves"
        )
    if (
        isinstance(source, (tuple, list))
        and len(source) == 2
        and all(isinstance(part, (Tensor, np.ndarray)) for part in source)
    ):
        return Dataset(source[0], source[1], name=name)
    if isinstance(source, torch.utils.data.Dataset) and hasattr(source, "__len__"):
        rows = [source[index] for index in range(len(source))]
        if rows and all(isinstance(row, (tuple, list)) and len(row) == 2 for row in rows):
            return Dataset([row[0] for row in rows], [row[1] for row in rows], name=name)
        if rows and all(isinstance(row, (tuple, list)) and len(row) == 1 for row in rows):
            return Dataset([row[0] for row in rows], name=name)
        return Dataset(rows, name=name)
    return Dataset(source, name=name)


@dataclass(frozen=True)
class LeakedRow:
    """A test row whose input also stands in the training rows."""

    index: int  # in test
    train: tuple[int, ...]  # where it stands in train
    same_label: bool | None  # whether one of those carries the same target; None: a side has no targets


@dataclass(frozen=True)
class Overlap:
    """The rows of `test` whose input stands in `train`, by content."""

    rows: tuple[LeakedRow, ...]
    train_rows: int
    test_rows: int

    @property
    def same_label(self) -> tuple[LeakedRow, ...]:
        """Leaks: the answer was seen in training."""
        return tuple(row for row in self.rows if row.same_label is True)

    @property
    def other_label(self) -> tuple[LeakedRow, ...]:
        """Contradictions: the same input was trained towards another answer."""
        return tuple(row for row in self.rows if row.same_label is False)

    @property
    def share(self) -> float:
        """Leaked rows, of any label, per test row; 0.0 for an empty test set."""
        return len(self.rows) / self.test_rows if self.test_rows else 0.0

    def __len__(self) -> int:
        return len(self.rows)

    def __bool__(self) -> bool:
        return bool(self.rows)

    def to_dict(self) -> dict[str, Any]:
        return {
            "train_rows": self.train_rows,
            "test_rows": self.test_rows,
            "leaked": len(self.rows),
            "share": self.share,
            "same_label": len(self.same_label),
            "other_label": len(self.other_label),
            "rows": [{"index": row.index, "train": list(row.train), "same_label": row.same_label} for row in self.rows],
        }

    def __str__(self) -> str:
        if not self.rows:
            return f"no overlap: none of {self.test_rows:,} test rows stands in {self.train_rows:,} training rows"
        text = f"{len(self.rows):,} of {self.test_rows:,} test rows ({self.share:.1%}) stand in the training rows"
        if any(row.same_label is None for row in self.rows):
            return f"{text}; labels were not compared"
        return f"{text}: {len(self.same_label):,} with the same label, {len(self.other_label):,} with another"


def overlap(train: Any, test: Any) -> Overlap:
    """Find the test rows whose input stands in the training rows, byte for byte.

    Each side: a Dataset, a tensor or array of inputs, an `(inputs, targets)` pair or a torch Dataset of pairs. Raises
    InputError where no row could ever match, because the inputs differ in dtype or shape.
    """
    left, right = as_dataset(train, "train"), as_dataset(test, "test")
    kinds = _kinds(left), _kinds(right)
    if len(left) and len(right) and kinds[0] != kinds[1]:
        raise InputError(
            f"train holds {kinds[0]} and test {kinds[1]}: such rows never match, so convert one to the other"
        )
    places: dict[str, list[int]] = defaultdict(list)
    for index, digest in enumerate(left.input_ids):
        places[digest].append(index)
    labels = None
    if left.targets is not None and right.targets is not None:
        labels = (_values(left.targets), _values(right.targets))
    rows = []
    for index, digest in enumerate(right.input_ids):
        if digest in places:
            found = tuple(places[digest])
            same = None if labels is None else any(labels[0][place] == labels[1][index] for place in found)
            rows.append(LeakedRow(index, found, same))
    return Overlap(tuple(rows), len(left), len(right))


def tensor_bytes(tensor: Tensor) -> Any:
    """The bytes of a dense or quantized tensor in row-major order, whatever its strides and device, as a 1-D array."""
    tensor = tensor.detach()
    if tensor.is_quantized:
        tensor = tensor.int_repr()
    if tensor.layout != torch.strided:
        tensor = tensor.to_dense()
    tensor = tensor.cpu().resolve_conj().resolve_neg().contiguous().reshape(-1)
    return tensor.view(torch.uint8).numpy() if tensor.numel() else np.empty(0, dtype=np.uint8)


def _digests(pairs: list[tuple[str, Column]], rows: int) -> Iterator[str]:
    start = hashlib.sha256()
    parts: list[Any] = []
    for label, column in pairs:
        if isinstance(column, Tensor):
            start.update(f"{label}:{column.dtype}:{tuple(column.shape[1:])};".encode())
            content = tensor_bytes(column)
            parts.append(content.reshape(rows, len(content) // rows) if rows else [])
        else:
            start.update(f"{label}:json;".encode())
            parts.append([_canonical(label, value) for value in column])
    for row in range(rows):
        digest = start.copy()
        for part in parts:
            entry = part[row]
            digest.update(len(entry).to_bytes(8, "little"))  # lengths first, so that no two splits collide
            digest.update(entry)
        yield digest.hexdigest()[:32]


def _canonical(label: str, value: Any) -> bytes:
    try:
        return json.dumps(_ordered(value), sort_keys=True, ensure_ascii=False).encode("utf-8", "surrogatepass")
    except (TypeError, RecursionError):
        kind = type(value).__name__
        raise InputError(
            f"{label} holds a {kind}, which has no fixed bytes; use tensors, strings or JSON values"
        ) from None


def _ordered(value: Any) -> Any:
    if isinstance(value, (set, frozenset)):
        return {"set": sorted((_ordered(item) for item in value), key=repr)}
    if isinstance(value, (list, tuple)):
        return [_ordered(item) for item in value]
    if isinstance(value, np.generic):
        return value.item()
    return value


def _columns(inputs: Any) -> Columns:
    if isinstance(inputs, dict) or (hasattr(inputs, "keys") and hasattr(inputs, "__getitem__")):
        if not len(inputs.keys()):
            raise InputError("inputs is an empty dict; give one column per keyword argument of the model")
        return {str(key): _column(f"inputs[{key!r}]", inputs[key]) for key in inputs.keys()}  # noqa: SIM118
    if isinstance(inputs, tuple):
        if not inputs:
            raise InputError("inputs is an empty tuple; give one column per argument of the model")
        return tuple(_column(f"inputs[{place}]", column) for place, column in enumerate(inputs))
    return _column("inputs", inputs)


def _column(label: str, values: Any) -> Column:
    if hasattr(values, "__array__") and not isinstance(values, Tensor):  # NumPy, pandas, JAX
        values = np.asarray(values)
        if values.dtype.kind in "OUS":
            values = values.tolist()
    if isinstance(values, np.ndarray):
        try:
            values = torch.from_numpy(np.ascontiguousarray(values))
        except TypeError as error:
            raise InputError(f"{label}: torch has no tensor for an array of {values.dtype}; {error}") from None
    if isinstance(values, Tensor):
        if values.ndim == 0:
            raise InputError(f"{label} is a single number (0-d tensor); its first dimension must be the rows")
        return values.detach()
    if not isinstance(values, (list, tuple)):
        raise InputError(
            f"{label} must be a tensor, an array or a list with one entry per row; got {type(values).__name__}"
        )
    rows = [torch.from_numpy(np.ascontiguousarray(row)) if isinstance(row, np.ndarray) else row for row in values]
    if rows and all(isinstance(row, Tensor) for row in rows):
        if len({(row.shape, row.dtype) for row in rows}) > 1:
            raise InputError(f"{label}: rows of several shapes or dtypes cannot be one batch; pad them to one")
        return torch.stack([row.detach() for row in rows])
    rows = [row.item() if isinstance(row, np.generic) else row for row in rows]
    if rows and all(_numbers(row) for row in rows):
        try:
            return torch.tensor(rows)
        except (ValueError, TypeError, RuntimeError, OverflowError):
            return rows  # ragged lists of numbers: one JSON value per row
    return rows


def _numbers(row: Any) -> bool:
    return isinstance(row, (int, float)) or (isinstance(row, (list, tuple)) and bool(row) and all(map(_numbers, row)))


def _labels(label: str, values: Any, rows: int) -> list[str]:
    values = values.tolist() if hasattr(values, "tolist") else list(values)
    names = [str(name) for name in values]
    if len(names) != rows:
        raise InputError(f"{label} must name one per row: {len(names)} for {rows} rows")
    return names


def _cohorts(cohorts: Any, rows: int) -> dict[str, Mask]:
    if cohorts is None:
        return {}
    if not isinstance(cohorts, dict):
        return _by_label("cohorts", "", cohorts, rows)
    masks: dict[str, Mask] = {}
    for name, values in cohorts.items():
        column = np.asarray(values.cpu() if isinstance(values, Tensor) else values)
        if column.shape == (rows,) and column.dtype == np.bool_:
            masks[str(name)] = column
        else:
            masks.update(_by_label(f"cohorts[{name!r}]", f"{name}=", values, rows))
    return masks


def _by_label(label: str, prefix: str, values: Any, rows: int) -> dict[str, Mask]:
    if isinstance(values, str) or not (hasattr(values, "__len__") or isinstance(values, range)):
        raise InputError(f"{label} must hold one label per row, or be a dict of boolean masks; got {values!r}")
    names = np.asarray(_labels(label, values, rows), dtype=object)
    distinct = sorted(set(names), key=lambda name: (len(name), name) if name.isdigit() else (10**6, name))
    return {prefix + name: np.asarray(names == name, dtype=np.bool_) for name in distinct}


def _map(inputs: Columns, change: Any) -> Any:
    if isinstance(inputs, dict):
        return {key: change(column) for key, column in inputs.items()}
    if isinstance(inputs, tuple):
        return tuple(change(column) for column in inputs)
    return change(inputs)


def _pick(column: Column, index: NDArray[np.int64]) -> Column:
    if isinstance(column, Tensor):
        return column[torch.from_numpy(index).to(column.device)]
    return [column[i] for i in index]


def _kinds(dataset: Dataset) -> str:
    return ", ".join(
        f"{str(column.dtype).removeprefix('torch.')}{list(column.shape[1:])}"
        if isinstance(column, Tensor)
        else "values"
        for label, column in dataset._labelled()
        if label != "targets"
    )


def _values(column: Column) -> list[Any]:
    return column.tolist() if isinstance(column, Tensor) else column
