"""What a terminal shows: 80 columns are enough, a pipe gets plain text, and names cannot give orders."""

from __future__ import annotations

import io

import pytest
from rich.console import Console
from stories import make_story

import softknee
from softknee.report import render

PARTS = ("census", "before", "after", "trial", "comparison", "calibration")


def shown(result, width: int = 80, **more) -> str:
    out = io.StringIO()
    render(result, Console(file=out, width=width, highlight=False, **more))
    return out.getvalue()


@pytest.mark.parametrize("part", PARTS)
@pytest.mark.parametrize("width", [60, 80, 120])
def test_fits_and_has_no_trailing_blanks(story, part, width):
    text = shown(getattr(story, part), width)
    assert text.strip()
    for line in text.splitlines():
        assert len(line) <= width
        assert line == line.rstrip()


def test_a_pipe_gets_no_escape_codes(story, capsys):
    render(story)
    text = capsys.readouterr().out
    assert "\x1b" not in text
    assert max(map(len, text.splitlines())) <= 80


def test_a_terminal_gets_colour(story):
    assert "\x1b[" in shown(story.before, force_terminal=True, color_system="standard")


def test_report_shows_the_cause_before_its_consequences(story):
    text = shown(story.before)
    assert (
        text.index("weights start with gain 0.578")
        < text.index("↳ signal fades across rows")
        < text.index("↳ constant output")
    )
    assert "net.15#0 and 3 more sites" not in text
    assert "net.9#0 and 3 more sites" in text, "one line for one symptom"
    assert "26/64" in text
    assert "not checked: flat loss" in text


def test_what_the_verdict_says_is_not_said_twice(story):
    from dataclasses import replace

    message = story.before.findings[0].message
    assert shown(replace(story.before, verdict=f"bad initialisation: {message}"), 200).count(message) == 1


def test_trial_shows_what_did_not_help(story):
    lines = shown(story.trial).splitlines()
    table = [line.split()[0] for line in lines[3:9]]
    assert table == ["exact_gain", "baseline", "control", "leaky_relu", "clip", "hand"]
    assert "+0.853 [+0.823, +0.883]" in lines[3]
    assert lines[3].endswith("winner")
    assert "not tried: it needs" in shown(story.trial)


def test_figures_survive_a_narrow_terminal(story):
    text = shown(story.trial, 60)
    assert "+0.853 [+0.823, +0.883]" in text


def test_activations_stand_side_by_side():
    text = shown([softknee.get("relu"), softknee.get("gelu"), softknee.get("softmax")])
    assert any(line.split() == ["relu", "gelu", "softmax"] for line in text.splitlines())
    assert all(softknee.get(name).source.split(",")[0] in text for name in ("relu", "gelu", "softmax"))
    gain = next(line for line in text.splitlines() if line.strip().startswith("gain"))
    assert gain.split() == ["gain", "1.414", "1.534", "–"]
    alone = shown(softknee.get("gelu"))
    assert "−0.170 at −0.752" in alone
    assert softknee.get("gelu").source in alone


def test_all_activations_fit():
    text = shown(list(softknee.activations()))
    assert max(map(len, text.splitlines())) <= 80
    assert all(act.name in text for act in softknee.activations())


def test_markup_and_control_characters_are_text():
    hostile = make_story(lambda text: f"[red]{text}[/red]\x1b[2J\a")
    text = shown(hostile, 100, force_terminal=True)
    assert "\x1b[2J" not in text
    assert "\a" not in text
    assert "[red]" in text


@pytest.mark.parametrize("result", [softknee.report.Story(), [], "a text", 3, None])
def test_little_to_show(result):
    shown(result)


def test_a_plan(story):
    from softknee.diagnosis import Plan, Repair

    repairs = (
        Repair("exact_gain", "the exact gain", "softknee.nn.init.initialize(model, census)", 2, addresses=("a@b",)),
        Repair("leaky_relu", "swap to LeakyReLU", "nn.ReLU → nn.LeakyReLU", 3, folk=True),
        Repair(
            "hand", "something else", "model.py:12: relu → gelu", 3, addresses=("a@b",), by_hand="it is in your code"
        ),
    )
    text = shown(Plan(story.before, repairs))
    assert "swap to LeakyReLU  folk advice" in text
    assert "by hand: it is in your code" in text
    assert "model.py:12: relu → gelu" in text
    assert "none to propose" in shown(Plan(story.after, ()))
