"""Conditions on parameters: what is read, what is refused, what holds."""

from __future__ import annotations

import math

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

import softknee
from softknee.catalog.conditions import Condition, ends, parse_condition
from softknee.errors import InputError

NUMBERS = st.floats(allow_nan=False)


@given(left=st.one_of(st.sampled_from("ab"), NUMBERS), strict=st.booleans(), right=st.one_of(st.just("a"), NUMBERS))
def test_what_is_written_is_read_back(left, strict, right):
    text = f"{left!r} {'<' if strict else '<='} {right!r}".replace("'", "")
    assert parse_condition(text, ("a", "b"), "mine") == Condition(left, strict, right)


@given(st.text())
def test_any_text_is_a_condition_or_is_refused(text):
    """Nothing is evaluated, and nothing but InputError is raised."""
    try:
        parsed = parse_condition(text, ("a", "b"), "mine")
    except InputError:
        return
    assert all(isinstance(side, float) or side in ("a", "b") for side in (parsed.left, parsed.right))


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("", "must read like"),
        ("a", "must read like"),
        ("0 > a", "must read like"),
        ("0 == a", "must read like"),
        ("0<a", "must read like"),
        ("0 < a < 1", "must read like"),
        ("0 < gamma", "names 'gamma', which is no number and not one of its parameters"),
        ("__import__('os') < a", "no number and not one of its parameters"),
    ],
)
def test_malformed(text, message):
    def mine(x, ops, *, a=1.0):
        return a * x

    with pytest.raises(InputError, match=message):
        softknee.elementwise(mine, conditions=(text,))


def test_a_string_is_no_tuple_of_conditions():
    def mine(x, ops, *, a=1.0):
        return a * x

    with pytest.raises(InputError, match="conditions must be a tuple, got the string '0 < a'"):
        softknee.elementwise(mine, conditions="0 < a")


def test_a_definition_keeps_its_own_conditions():
    def mine(x, ops, *, a=-1.0):
        return a * x

    with pytest.raises(InputError, match=r"a=-1.0 is out of range; it must be 0 < a"):
        softknee.elementwise(mine, conditions=("0 < a",))


@given(a=st.floats(), b=st.floats())
def test_holds(a, b):
    """Of numbers and of tensors alike; NaN keeps no condition."""
    for strict in (True, False):
        condition = Condition("a", strict, "b")
        wanted = a < b if strict else a <= b
        assert condition.holds({"a": a, "b": b}) is wanted
        assert bool(condition.holds({"a": torch.tensor(a, dtype=torch.float64), "b": b})) is wanted


def test_ends():
    conditions = [parse_condition(text, ("a", "b"), "mine") for text in ("0 < a", "-1 <= a", "a <= b", "b < 6")]
    assert ends("a", conditions) == (0.0, math.inf)
    assert ends("b", conditions) == (-math.inf, 6.0)
