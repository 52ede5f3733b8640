"""The demo end to end: one cause, what helps and what does not, proof on untouched rows, files that hold it."""

from __future__ import annotations

import json
import math

import pytest
from rich.console import Console

from softknee import demo
from softknee.errors import InputError


@pytest.fixture(scope="module")
def told(tmp_path_factory):
    folder = tmp_path_factory.mktemp("demo")
    story, proved = demo.run(folder, seed=3, console=Console(quiet=True))
    return folder, story, proved, json.loads((folder / "summary.json").read_text())


def test_one_cause_and_its_consequences(told):
    _, story, _, summary = told
    roots = [f for f in summary["findings"] if f["caused_by"] is None and f["severity"] != "info"]
    assert [f["symptom"] for f in roots] == ["wrong_gain"], roots
    (root,) = roots
    assert root["evidence"]["measured_gain"] == pytest.approx(1 / math.sqrt(3), abs=0.02)
    assert root["evidence"]["exact_gain"] == pytest.approx(math.sqrt(2), abs=1e-6)
    assert root["source"] and root["threshold"] and "exact_gain" in root["repairs"]
    caused = {f["symptom"] for f in summary["findings"] if f["caused_by"] == story.before.causes[0].id}
    assert {"dead_unit", "forward_drift", "flat_loss"} <= caused


def test_the_exact_gain_helps_and_folk_advice_does_not(told):
    _, _, _, summary = told
    arms = {arm["name"]: arm for arm in summary["arms"]}
    assert arms["exact_gain"]["accuracy"] > 0.9 and arms["exact_gain"]["verdict"] == "better"
    for name in ("control", "leaky_relu", "gelu", "lower_learning_rate", "clip"):
        assert arms[name]["accuracy"] < 0.15 and arms[name]["verdict"] == "not different", name
    assert summary["winner"] in ("exact_gain", "he_gain", "xavier_gain")


def test_proof_on_untouched_rows(told):
    _, _, proved, summary = told
    assert proved
    assert summary["accuracy_before"] < 0.15 < 0.9 < summary["accuracy_after"]
    assert summary["rows"] == 360 and summary["fixed"] > 250 > summary["broken"]
    assert summary["mcnemar_p"] < 1e-9 and summary["interval"][0] > 0.7
    assert summary["difference"] == pytest.approx((summary["fixed"] - summary["broken"]) / 360)
    assert len(summary["cohorts"]) == 10
    calibration = summary["calibration"]
    keys = {"temperature", "nll_raw", "nll_scaled", "ece_raw", "ece_scaled", "interval", "verdict"}
    assert keys <= set(calibration)


def test_files(told):
    folder, story, _, summary = told
    page = (folder / "report.html").read_text()
    assert len(page) < 3 * 2**20 and story.patch.split("(")[0] in page
    assert sorted(p.name for p in folder.iterdir()) == ["report.html", "summary.json"]
    assert summary["provenance"]["seed"] == 3


def test_where_nothing_helps_the_exit_code_is_1(tmp_path, monkeypatch):
    """A learning rate of 0 trains nobody, whatever is repaired: the demo says so."""
    from softknee import cli

    monkeypatch.setattr(demo, "LEARNING_RATE", 0.0)
    with pytest.raises(SystemExit) as stop:
        cli.main(["demo", "--epochs", "2", "--output", str(tmp_path)])
    assert stop.value.code == 1
    summary = json.loads((tmp_path / "summary.json").read_text())
    assert summary["winner"] is None and "No repair helped" in summary["verdict"]


def test_the_split_is_stratified_and_disjoint():
    from softknee import overlap

    data = demo.Digits.load(0)
    assert (len(data.train), len(data.validation), len(data.test)) == (1078, 359, 360)
    assert not overlap(data.train, data.test) and not overlap(data.train, data.validation)


def test_bad_arguments(tmp_path):
    with pytest.raises(InputError, match="epochs must be at least 1"):
        demo.run(tmp_path, epochs=0)
