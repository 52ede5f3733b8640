"""Naming an activation at parameters: `elu:alpha=0.5` is read without eval, and refused in one sentence."""

from __future__ import annotations

import math

import pytest
from unusual import capped, reciprocal, share, shrink, square

import softknee
from softknee.errors import InputError
from softknee.report.choice import Choice, choices, written_range, written_steepest


def test_names_aliases_and_parameters():
    assert Choice.of("relu") == Choice.of(softknee.get("relu")) == Choice.of(softknee.get("relu").facts)
    chosen = Choice.of("lrelu: negative_slope = 2e-1")
    assert chosen.activation.name == "leaky_relu" and chosen.parameters == {"negative_slope": 0.2}
    assert chosen.label == "leaky_relu(negative_slope=0.2)"
    assert chosen.facts.value(-1.0) == -0.2
    assert Choice.of("softplus:threshold=20,beta=2").parameters == {"beta": 2.0, "threshold": 20.0}
    assert Choice.of("softplus:threshold=inf").label == "softplus"
    assert Choice.of("gumbel_softmax:hard=True").parameters["hard"] is True


def test_each_once():
    found = choices(["gelu", "relu", "gelu_erf", "leaky_relu:negative_slope=0.01", "leaky_relu", "elu", "elu:alpha=2"])
    assert [one.label for one in found] == ["gelu", "relu", "leaky_relu", "elu", "elu(alpha=2)"]


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("rela", "did you mean 'relu'"),
        ("elu:", "nothing stands behind the colon of 'elu:'; write elu:parameter=value, of alpha"),
        ("relu: ", "nothing stands behind the colon of 'relu: '; relu has no parameters"),
        ("elu:alpha", "write elu:parameter=value"),
        ("elu:=1", "write elu:parameter=value"),
        ("elu:alpha=1,", "write elu:parameter=value"),
        ("elu:alfa=1", "elu has no parameter 'alfa'; its parameters are alpha; did you mean 'alpha'?"),
        ("elu:alfa=x", "elu has no parameter 'alfa'"),
        ("relu:alpha=1", "relu has no parameter 'alpha'; it has none"),
        ("elu:alpha=x", "elu: alpha must be a number, got 'x'"),
        ("elu:alpha=__import__('os')", "alpha must be a number"),
        ("elu:alpha=nan", "elu: alpha must be a number, got 'nan'"),
        ("elu:alpha=1,alpha=2", "gives alpha twice"),
        ("softplus:beta=-1", "beta=-1.0 is out of range"),
        ("gumbel_softmax:hard=1", "hard must be true or false, got '1'"),
    ],
)
def test_what_cannot_be_read_is_refused(text, message):
    with pytest.raises(InputError, match="^" + r"[^\n]*$") as refused:
        Choice.of(text)
    assert message in str(refused.value)


def test_to_dict_is_of_these_parameters():
    told = Choice.of("leaky_relu:negative_slope=0.5").to_dict()
    assert told["parameters"] == {"negative_slope": 0.5} and told["formula"] == "x if x > 0 else negative_slope·x"
    assert told["facts"]["limits"] == ["-inf", "inf"]
    assert told["facts"]["gain"] == pytest.approx(math.sqrt(2 / 1.25))
    assert Choice.of(share).to_dict()["facts"] is None


def test_range_and_steepest_are_said_as_they_are():
    said = {a.name: (written_range(a.facts), written_steepest(a.facts)) for a in (square, capped, shrink, reciprocal)}
    assert said["square"] == ("[0, ∞)", "unbounded")
    assert said["capped"] == ("(−30, 30)", "1 at 0")
    assert said["shrink"][1] == "1 at −0.500"
    assert said["reciprocal"][1] == "unbounded"
    towards = {"softplus": "∞", "logsigmoid": "−∞", "tanhshrink": "±∞", "squareplus": "∞"}
    assert all(written_steepest(softknee.get(name).facts) == f"1 towards {end}" for name, end in towards.items())
    assert written_range(softknee.get("silu").facts) == "[−0.278, ∞)"
