"""What a terminal shows: 80 columns are enough, a pipe gets plain text, and names cannot give orders."""

from __future__ import annotations

import io

import pytest
from rich.console import Console
from stories import make_story
from unusual import UNUSUAL, share, shrink

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


@pytest.mark.parametrize("width", [60, 80, 160])
def test_all_activations_fit(width):
    text = shown(list(softknee.activations()), width)
    assert max(map(len, text.splitlines())) <= width
    assert all(act.name in text for act in softknee.activations())
    assert not any(word in text for word in ("cnn", "ffn", "llm", "multi-class-output")), "tags are spelled out"


def fact(text: str, name: str) -> str:
    return " ".join(next(line for line in text.splitlines() if line.strip().startswith(name)).split())


def test_unusual_activations_are_shown():
    for one in (*UNUSUAL, share):
        assert one.name in shown(one)
    text = shown([shrink, softknee.get("relu"), softknee.get("softplus")])
    assert fact(text, "jumps") == "jumps −0.500, 0.500 – –"
    assert fact(text, "kinks") == "kinks none 0 none"
    assert fact(text, "dead") == "dead where (−0.500, 0.500) (−∞, 0) none"
    assert fact(text, "largest") == "largest |f′| 1 at −0.500 1 at 0 1 towards ∞"
    assert fact(text, "at −∞, ∞") == "at −∞, ∞ −∞, ∞ 0, ∞ 0, ∞"
    assert "0 if |x| ≤ width else x" in text
    assert "jumps" not in shown(softknee.get("relu")), "no row of dashes"


def test_a_dead_region_is_not_joined_across_a_jump():
    @softknee.elementwise
    def step(x, ops):
        """0 or 1."""
        return ops.where(x > 0.0, 1.0, 0.0)

    text = shown(step)
    assert fact(text, "dead") == "dead where (−∞, 0)," and "\n                    (0, ∞)\n" in text


def test_gated_and_facts_at_parameters():
    text = shown([softknee.get("swiglu"), softknee.get("glu"), softknee.get("softmax")])
    assert "gate·σ(gate)·up" in text and fact(text, "as a function").endswith("gate, up = 1 gate, up = 1 –")
    assert fact(text, "packed as") == "packed as gate, then up up, then gate –"
    assert "used for  feed-forward blocks, transformers, LLMs" in text
    from softknee.facts import facts

    assert "(−2, ∞)" in shown(facts(softknee.get("elu"), alpha=2.0))


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
