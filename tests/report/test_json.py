"""JSON that every reader accepts."""

from __future__ import annotations

import json
import math

import numpy as np
import torch
from hypothesis import given
from hypothesis import strategies as st

from softknee.report import dumps


def strict(text):
    def refuse(word):
        raise AssertionError(f"{word} is not JSON")

    return json.loads(text, parse_constant=refuse)


def test_missing_is_null_and_infinity_a_string():
    assert strict(dumps({"a": math.nan, "b": math.inf, "c": -math.inf, "d": 1.5})) == {
        "a": None,
        "b": "inf",
        "c": "-inf",
        "d": 1.5,
    }


def test_arrays_scalars_sets_tuples_and_keys_that_are_no_strings():
    value = {
        1: np.float64(0.5),
        "array": np.array([1.0, math.nan]),
        "tensor": torch.tensor([1, 2]),
        "set": {"b", "a"},
        "tuple": (True, None),
    }
    assert strict(dumps(value)) == {
        "1": 0.5,
        "array": [1.0, None],
        "tensor": [1, 2],
        "set": ["a", "b"],
        "tuple": [True, None],
    }


def test_what_has_no_json_form_is_its_text():
    assert strict(dumps({"a": complex(1, 2)})) == {"a": "(1+2j)"}


@given(
    st.recursive(
        st.none() | st.booleans() | st.floats() | st.integers() | st.text(),
        lambda inner: st.lists(inner) | st.dictionaries(st.text(), inner),
    )
)
def test_anything_plain_is_strict(value):
    strict(dumps(value))


def test_every_result_is_strict(story):
    for result in (story, story.census, story.before, story.trial, story.comparison, story.calibration):
        assert strict(dumps(result))
