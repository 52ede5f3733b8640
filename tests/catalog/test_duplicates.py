"""No function is in the catalog twice without saying so."""

from __future__ import annotations

import pytest

import softknee
from softknee.identification.duplicates import duplicates, same, undeclared

DECLARED = [(a, name) for a in softknee.activations() for name in a.equivalent_to]


@pytest.mark.parametrize(("activation", "name"), DECLARED, ids=str)
def test_what_is_declared_is_the_same_function(activation, name):
    other = softknee.get(name)
    assert other.name == name
    assert same(activation, other, dict(activation.equivalent_to[name]))


def test_no_entry_is_another_without_saying_so():
    assert not undeclared(softknee.activations())


def test_what_is_planted_is_found():
    """Under another name, with a parameter, and gated."""

    @softknee.elementwise
    def again(x, ops):
        return x / (1.0 + ops.exp(-x))

    @softknee.elementwise
    def scaled(x, ops, *, c=0.3):
        return x * ops.sigmoid(c * x)

    @softknee.gated
    def twice(gate, up, ops):
        return up * gate * ops.sigmoid(gate)

    silu, swiglu = softknee.get("silu"), softknee.get("swiglu")
    assert [(d.activation, d.other) for d in undeclared([silu, again])] == [(silu, again), (again, silu)]
    (found,) = undeclared([silu, scaled])
    assert (found.activation, found.other) == (silu, scaled) and found.parameters == pytest.approx({"c": 1.0})
    assert len(undeclared([swiglu, twice])) == 2


def test_declared_ones_are_not_told_of():
    silu, swish = softknee.get("silu"), softknee.get("swish")
    assert duplicates([silu, swish]) and not undeclared([silu, swish])
