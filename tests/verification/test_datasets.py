"""Row ids hold what the row holds, and nothing else; overlap finds leaks."""

from __future__ import annotations

import json
import subprocess
import sys

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

import softknee
from softknee.errors import InputError
from softknee.verification import Dataset, overlap


@pytest.fixture
def rows():
    return torch.randn(12, 3, 4), torch.arange(12) % 3


def test_ids_do_not_depend_on_strides_or_container(rows):
    x, y = rows
    ids = Dataset(x, y).ids
    assert len(set(ids)) == 12
    assert Dataset(x.transpose(1, 2).contiguous().transpose(1, 2), y).ids == ids
    assert Dataset(x.numpy(), y.numpy()).ids == ids
    assert Dataset(list(x), y.tolist()).ids == ids
    assert Dataset(torch.stack([x, x], 1)[:, 0], y.requires_grad_(False)).ids == ids
    assert Dataset(x.clone().requires_grad_(), y).ids == ids


def test_ids_follow_their_rows(rows):
    x, y = rows
    order = torch.randperm(12)
    ids = Dataset(x, y).ids
    assert Dataset(x[order], y[order]).ids == tuple(ids[i] for i in order)


def test_ids_hold_dtype_shape_input_and_target(rows):
    x, y = rows
    base = set(Dataset(x, y).ids)
    for other in (
        Dataset(x.double(), y),
        Dataset(x.flatten(1), y),
        Dataset(x, (y + 1) % 3),
        Dataset(x),
        Dataset(x, y.int()),
    ):
        assert not base & set(other.ids)
    changed = x.clone()
    changed[5, 0, 0] += 1e-6
    assert len(base & set(Dataset(changed, y).ids)) == 11


def test_ids_are_the_same_in_another_process():
    script = "import torch, softknee; print(softknee.Dataset(torch.arange(6.0).reshape(3, 2), ['a', 'b', 'c']).ids)"
    other = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, check=True)
    assert other.stdout.strip() == str(Dataset(torch.arange(6.0).reshape(3, 2), ["a", "b", "c"]).ids)


def test_duplicates_stay_apart():
    ids = Dataset(torch.zeros(3, 2), [0, 0, 1]).ids
    assert ids[1] == ids[0] + ".2"
    assert not ids[2].startswith(ids[0])
    assert len(set(Dataset(torch.zeros(3, 2), [0, 0, 1]).input_ids)) == 1


@pytest.mark.parametrize(
    "dtype", [torch.bool, torch.uint8, torch.int64, torch.float16, torch.bfloat16, torch.float8_e4m3fn, torch.complex64]
)
def test_any_dtype_has_ids(dtype):
    assert len(set(Dataset(torch.tensor([[0.0], [1.0]]).to(dtype)).ids)) == 2


def test_odd_shapes_have_ids():
    assert len(Dataset(torch.arange(3.0)).ids) == 3
    assert len(set(Dataset(torch.empty(3, 0)).ids)) == 3  # equal rows, told apart by their occurrence
    assert Dataset(torch.empty(0, 2)).ids == ()
    assert Dataset([]).ids == ()


def test_columns_by_position_and_by_name(rows):
    x, y = rows
    assert len(Dataset((x, x * 2), y).ids) == 12
    named = Dataset({"b": x, "a": x * 2}, y)
    assert named.ids == Dataset({"a": x * 2, "b": x}, y).ids
    assert named.ids != Dataset({"a": x, "b": x * 2}, y).ids
    inputs, targets = next(named.batches(5))
    assert set(inputs) == {"a", "b"}
    assert len(inputs["a"]) == len(targets) == 5


@given(st.lists(st.one_of(st.text(), st.integers(), st.lists(st.text()), st.none()), min_size=1, max_size=8))
def test_values_have_ids(values):
    dataset = Dataset(["q"] * len(values), values)
    assert len(set(dataset.ids)) == len(values)
    assert Dataset(["q"] * len(values), json.loads(json.dumps(values))).ids == dataset.ids


def test_parts_of_a_row_cannot_slide_into_each_other():
    assert Dataset((["ab"], ["c"])).ids != Dataset((["a"], ["bc"])).ids


def test_take_keeps_everything(rows):
    x, y = rows
    dataset = Dataset(x, y, cohorts=y, clusters=[i // 2 for i in range(12)], name="toy")
    for part in (dataset.take([3, 1]), dataset.take(np.array([3, 1])), dataset.take(torch.tensor([3, 1]))):
        assert part.ids == (dataset.ids[3], dataset.ids[1])
        assert part.clusters == ["1", "0"]
        assert part.name == "toy"
    assert len(dataset.take(y == 0)) == 4
    assert dataset.take(y == 0).cohorts["0"].all()


def test_cohorts_by_label_mask_and_attribute():
    y = torch.tensor([2, 10, 2, 1])
    assert list(Dataset(torch.randn(4, 1), y, y).cohorts) == ["1", "2", "10"]
    cohorts = Dataset(
        torch.randn(4, 1), y, {"hard": [True, False, True, False], "site": np.array(["a", "b", "b", "a"])}
    ).cohorts
    assert cohorts["hard"].tolist() == [True, False, True, False]
    assert cohorts["site=b"].tolist() == [False, True, True, False]


@pytest.mark.parametrize(
    ("arguments", "options", "message"),
    [
        ((torch.randn(3, 2), torch.zeros(2)), {}, "one entry per row"),
        ((torch.tensor(1.0),), {}, "0-d"),
        (((torch.randn(3), torch.randn(4)),), {}, "one entry per row"),
        (({},), {}, "empty dict"),
        (((),), {}, "empty tuple"),
        ((7,), {}, "must be a tensor"),
        (([torch.randn(2), torch.randn(3)],), {}, "pad them"),
        ((torch.randn(3), None, ["a"]), {}, "one per row"),
        ((torch.randn(3), None, {"c": [True]}), {}, "one per row"),
        ((torch.randn(3), None, "abc"), {}, "one label per row"),
        ((torch.randn(3),), {"clusters": [1]}, "one per row"),
    ],
)
def test_bad_columns_are_named(arguments, options, message):
    with pytest.raises(InputError, match=message):
        Dataset(*arguments, **options)


def test_what_has_no_fixed_bytes_is_refused():
    with pytest.raises(InputError, match="object"):
        _ = Dataset([object(), object()]).ids


# --- overlap -------------------------------------------------------------------------------------------------------


def test_overlap_tells_same_label_from_other_label(rows):
    x, y = rows
    test_y = y[8:].clone()
    test_y[0] = (test_y[0] + 1) % 3
    leak = overlap(Dataset(x[:10], y[:10]), Dataset(x[8:], test_y))
    assert [row.index for row in leak.rows] == [0, 1]
    assert [row.train for row in leak.rows] == [(8,), (9,)]
    assert [row.index for row in leak.same_label] == [1]
    assert [row.index for row in leak.other_label] == [0]
    assert leak.share == 0.5
    assert "1 with the same label, 1 with another" in str(leak)
    assert json.loads(json.dumps(leak.to_dict()))["leaked"] == 2


def test_overlap_takes_tensors_arrays_pairs_and_torch_datasets(rows):
    x, y = rows
    for train, test in (
        (x[:8], x[6:]),
        (x[:8].numpy(), x[6:]),
        ((x[:8], y[:8]), (x[6:], y[6:])),
        (torch.utils.data.TensorDataset(x[:8], y[:8]), torch.utils.data.TensorDataset(x[6:], y[6:])),
        (torch.utils.data.TensorDataset(x[:8]), x[6:]),
    ):
        assert len(softknee.overlap(train, test)) == 2
    assert overlap(x[:8], x[6:]).rows[0].same_label is None
    assert "labels were not compared" in str(overlap(x[:8], x[6:]))


def test_no_overlap(rows):
    x, y = rows
    none = overlap((x[:6], y[:6]), (x[6:], y[6:]))
    assert not none
    assert none.share == 0.0
    assert str(none).startswith("no overlap")
    assert overlap(x, x[:0]).share == 0.0


def test_overlap_finds_every_training_copy():
    assert overlap(torch.zeros(3, 2), torch.zeros(1, 2)).rows[0].train == (0, 1, 2)


def test_overlap_refuses_a_comparison_that_cannot_find_anything(rows):
    x, _ = rows
    with pytest.raises(InputError, match=r"float32\[3, 4\].*float64\[3, 4\]"):
        overlap(x, x.double())
    with pytest.raises(InputError, match=r"loader\.dataset"):
        overlap(torch.utils.data.DataLoader(torch.utils.data.TensorDataset(x)), x)
