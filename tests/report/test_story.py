"""The summary has what was promised, and a story with nothing in it is still a story."""

from __future__ import annotations

import json

import pytest

from softknee.errors import InputError
from softknee.report import Story, dumps

PROMISED = {
    "accuracy_before",
    "accuracy_after",
    "findings",
    "arms",
    "winner",
    "rows",
    "fixed",
    "broken",
    "mcnemar_p",
    "difference",
    "interval",
    "cohorts",
    "calibration",
}
OF_A_FINDING = {"symptom", "site", "severity", "evidence", "threshold", "source", "caused_by", "repairs"}
OF_AN_ARM = {"name", "accuracy", "fixed", "broken", "verdict"}
OF_A_CALIBRATION = {"temperature", "nll_raw", "nll_scaled", "ece_raw", "ece_scaled", "interval", "verdict"}


def test_summary(story):
    summary = json.loads(dumps(story.summary()))
    assert set(summary) >= PROMISED
    assert summary["findings"]
    assert all(set(finding) >= OF_A_FINDING for finding in summary["findings"])
    assert all(set(arm) >= OF_AN_ARM for arm in summary["arms"])
    assert set(summary["calibration"]) >= OF_A_CALIBRATION
    assert summary["winner"] == "exact_gain"
    assert summary["accuracy_after"] == story.comparison.result.after
    assert summary["difference"] == pytest.approx(summary["accuracy_after"] - summary["accuracy_before"])
    assert summary["interval"][0] <= summary["difference"] <= summary["interval"][1]
    assert summary["fixed"] - summary["broken"] == pytest.approx(summary["difference"] * summary["rows"])
    assert len(summary["cohorts"]) == 11


def test_an_empty_story_has_every_key_and_no_figure():
    summary = Story().summary()
    assert set(summary) >= PROMISED
    assert summary["accuracy_before"] is None
    assert summary["findings"] == []


def test_a_part_alone_is_a_story(story):
    assert Story.of(story) is story
    assert Story.of(story.before).census is story.census
    assert Story.of(story.trial).patch == story.trial.best.edit
    assert Story.of(story.census).title == "Activations of Net"
    for part in (story.comparison, story.calibration):
        assert Story.of(part).verdict
    with pytest.raises(InputError, match="a int has no page; give a Story, Census"):
        Story.of(3)


def test_str_tells_the_verdict_and_the_edit(story):
    text = str(story)
    assert text.startswith(f"{story.title}\n\n{story.verdict}")
    assert text.endswith(story.patch)
