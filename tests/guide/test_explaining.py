"""Explanations: what they tell was computed at the call, so a planted case tells something else."""

from __future__ import annotations

import io
import json
import time

import pytest
import torch

import softknee
from softknee.errors import InputError
from softknee.guide import explaining, topics
from softknee.guide.explaining import explain
from softknee.report import dumps, render


@pytest.mark.parametrize("topic", topics())
def test_every_topic(topic):
    from rich.console import Console

    started = time.thread_time()
    told = explain(topic)
    assert time.thread_time() - started < 6  # 0.5 s on an idle machine, the first call of an activation apart
    printed = Console(file=io.StringIO(), width=80, highlight=False)
    render(told, printed)
    lines = printed.file.getvalue().splitlines()
    assert len(lines) <= 15 and max(map(len, lines)) <= 80
    assert json.loads(dumps(told))["figures"] and told.sources
    assert str(explain(topic)) == str(told)


@pytest.mark.parametrize("topic", sorted(set(topics()) - {"temperature"}))
def test_another_seed_computes_other_figures(topic):
    assert explain(topic, seed=1).figures != explain(topic).figures


def test_the_callers_generator_and_grad_mode_are_left_alone():
    before = torch.get_rng_state()
    with torch.no_grad():
        explain("dying-relu")
        assert not torch.is_grad_enabled()
    assert torch.equal(torch.get_rng_state(), before)


def test_dying_relu():
    for seed in range(10):
        figures = explain("dying-relu", seed).figures
        assert figures["alive_before"] > 0 == figures["alive_after"] == figures["gradient_after"]
        assert figures["leaky_gradient_after"] > 0
    alive = explaining._dying_relu(0, "leaky_relu")[2]  # cannot die
    assert alive["alive_after"] == alive["rows"] and alive["gradient_after"] > 0


def test_vanishing():
    figures = explain("vanishing").figures
    assert figures["bad_measured"] < 1e-4 < 0.1 < figures["good_measured"] < 10
    assert figures["bad_predicted"] == pytest.approx(figures["bad_measured"], rel=0.5)
    mild = explaining._vanishing(0, bad="tanh")[2]
    assert mild["bad_measured"] > 100 * figures["bad_measured"]


def test_collapse():
    figures = explain("collapse").figures
    assert figures["difference"] < 1e-11 and figures["unexplained"] > 0.05
    assert explaining._collapse(0, between="identity")[2]["unexplained"] < 1e-20


def test_temperature():
    figures = explain("temperature").figures["temperatures"]
    assert figures["1"]["probabilities"] == pytest.approx(torch.tensor([2, 1, 0.1]).softmax(0).tolist(), abs=1e-7)
    assert figures["0.5"]["entropy"] < figures["1"]["entropy"] < figures["2"]["entropy"]
    even = explaining._temperature(0, (1.0, 1.0))[2]["temperatures"]
    assert even["2"]["probabilities"] == [0.5, 0.5]


def test_gating():
    figures = explain("gating").figures
    assert figures["plain_weights"] == figures["gated_weights"]
    assert figures["gated_error"] < figures["plain_error"]
    assert explaining._gating(0, "bilinear")[2]["gated_error"] < 0.1 * figures["gated_error"]  # the target's own form


def test_saturation():
    rows = explain("saturation").figures["scales"]
    assert rows["1"]["saturated"] < rows["5"]["saturated"] < rows["25"]["saturated"]
    assert explaining._saturation(0, "identity")[2]["scales"]["25"] == {"saturated": 0.0, "slope": 1.0}


def test_overconfidence():
    figures = explain("overconfidence").figures
    assert figures["confidence"] > figures["accuracy"] + 0.1 and figures["temperature"] > 1.5
    assert figures["ece_after"] < figures["ece_before"] and figures["nll_after"] < figures["nll_before"]
    assert explaining._overconfidence(0, steps=1)[2]["temperature"] < 1  # hardly trained: not sure enough


def test_errors():
    with pytest.raises(InputError, match="topic 'dying' is unknown; did you mean 'dying-relu'"):
        softknee.explain("dying")
    with pytest.raises(InputError, match="topic must be a string"):
        explain(None)
    with pytest.raises(InputError, match="seed must be a whole number"):
        explain("collapse", seed=-1)


def test_command_line(capsys):
    from softknee import cli

    for arguments, start in (
        (["explain", "collapse"], "Collapse:"),
        (["explain"], "dying-relu\n"),
        (["recommend", "cnn"], "cnn: relu\n"),
        (["recommend"], "  use "),
        (["explain", "collapse", "--json"], "{"),
        (["recommend", "--json"], "["),
    ):
        with pytest.raises(SystemExit) as stop:
            cli.main(arguments)
        out = capsys.readouterr().out
        assert stop.value.code == 0 and out.startswith(start)
        assert "--json" not in arguments or json.loads(out)
