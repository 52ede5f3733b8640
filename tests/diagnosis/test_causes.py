"""One cause and its consequences, not as many alarms; and what the verdict says."""

from __future__ import annotations

import json
import math

import pytest
import torch
from torch import nn

import softknee
from softknee.diagnosis.causes import EDGES, attribute
from softknee.diagnosis.measurements import Measurement
from softknee.diagnosis.reports import Finding, Report
from softknee.diagnosis.symptoms import SYMPTOMS


def finding(symptom: str, site: str = "model", severity: str = "critical", **evidence: float | str) -> Finding:
    return Finding(symptom, site, symptom, severity, "message", evidence, "threshold", "source")


def measurement(**known: object) -> Measurement:
    fields = dict.fromkeys(Measurement.__dataclass_fields__)
    empty = {"sites": (), "layers": (), "losses": (), "gradients": {}, "updates": {}, "regularisers": ()}
    return Measurement(**{**fields, **empty, "model": "Net", **known})  # type: ignore[arg-type]


def causes(*findings: Finding) -> dict[str, str | None]:
    return {f.id: f.caused_by for f in attribute(measurement(), list(findings))}


def test_edges_name_symptoms_that_exist() -> None:
    names = {symptom.name for symptom in SYMPTOMS}
    for edge in EDGES:
        assert edge.cause in names
        assert set(edge.consequences) <= names
        assert edge.why


def test_consequences_cite_the_root_of_a_chain() -> None:
    found = causes(
        finding("wrong_gain", accumulated_ratio=1e-3), finding("forward_drift"), finding("dead_unit", "a#0", share=0.6),
        finding("constant_output"), finding("flat_loss"),
    )  # fmt: skip
    assert found.pop("wrong_gain@model") is None
    assert set(found.values()) == {"wrong_gain@model"}


def test_a_gain_that_is_too_small_does_not_make_steps_too_long() -> None:
    found = causes(finding("wrong_gain", accumulated_ratio=1e-3), finding("unstable_update"))
    assert found == {"wrong_gain@model": None, "unstable_update@model": None}
    found = causes(finding("wrong_gain", accumulated_ratio=1e3), finding("unstable_update"))
    assert found["unstable_update@model"] == "wrong_gain@model"


def test_nan_after_a_wild_step_follows_from_it_and_before_it_does_not() -> None:
    wild = finding("unstable_update", step=5)
    assert causes(wild, finding("nonfinite", "a#0", where="forward", step=6))["nonfinite@a#0"] == wild.id
    assert causes(wild, finding("nonfinite", "a#0", where="forward", step=2))["nonfinite@a#0"] is None


def test_nan_in_the_data_is_the_cause_of_everything() -> None:
    found = causes(
        finding("unstable_update", step=0), finding("nonfinite", "input", where="input", step=0), finding("flat_loss")
    )
    assert found == {
        "nonfinite@input": None, "unstable_update@model": "nonfinite@input", "flat_loss@model": "nonfinite@input",
    }  # fmt: skip


def test_half_dead_does_not_sever_but_all_dead_does() -> None:
    assert causes(finding("dead_unit", "a#0", share=0.6), finding("flat_loss"))["flat_loss@model"] is None
    assert causes(finding("dead_unit", "a#0", share=1.0), finding("flat_loss"))["flat_loss@model"] == "dead_unit@a#0"


def test_notes_cause_nothing() -> None:
    found = causes(finding("dead_unit", "a#0", "info", share=1.0), finding("flat_loss"))
    assert found["flat_loss@model"] is None


def test_causes_come_first_and_worst_first() -> None:
    ordered = attribute(
        measurement(),
        [
            finding("missing_nonlinearity", "1", "warning"),
            finding("frozen_update"),
            finding("flat_loss"),
        ],
    )
    assert [f.symptom for f in ordered] == ["frozen_update", "flat_loss", "missing_nonlinearity"]


def test_every_set_of_symptoms_has_a_root() -> None:
    for left in SYMPTOMS:
        for right in SYMPTOMS:
            found = attribute(
                measurement(), [finding(left.name, "a#0", share=1.0), finding(right.name, "b#0", share=1.0)]
            )
            assert any(f.caused_by is None for f in found)
            assert all(f.caused_by in (None, *(other.id for other in found if other.caused_by is None)) for f in found)


# -- the flagship


@pytest.fixture(scope="module")
def flagship() -> tuple[Report, Report]:
    """Eight hidden layers × 64 ReLU, stock initialisation, SGD 0.05, digits: watched while training; and after."""
    sklearn = pytest.importorskip("sklearn.datasets")
    inputs, targets = sklearn.load_digits(return_X_y=True)
    order = torch.randperm(len(inputs), generator=torch.Generator().manual_seed(0))[:1078]
    x, y = torch.tensor(inputs / 16, dtype=torch.float32)[order], torch.tensor(targets)[order]
    torch.manual_seed(0)
    layers: list[nn.Module] = []
    for _ in range(8):
        layers += [nn.Linear(64, 64), nn.ReLU()]
    model = nn.Sequential(*layers, nn.Linear(64, 10))
    optimizer = torch.optim.SGD(model.parameters(), 0.05)
    with softknee.watch(model, optimizer) as w:
        for step in range(300):
            rows = torch.arange(step * 64, step * 64 + 64) % len(x)
            loss = nn.functional.cross_entropy(model(x[rows]), y[rows])
            loss.backward()
            optimizer.step()
            optimizer.zero_grad()
            w.log(loss=loss)
    return w.report(), softknee.diagnose(model, (x, y))


def test_one_cause_bad_initialisation(flagship: tuple[Report, Report]) -> None:
    watched, looked = flagship
    for report in flagship:
        (cause,) = report.causes
        assert cause.title == "bad initialisation"
        assert cause.evidence["measured_gain"] == pytest.approx(0.58, abs=0.01)
        assert cause.evidence["exact_gain"] == pytest.approx(math.sqrt(2), abs=1e-3)
        assert not report.healthy
        assert report.verdict.startswith("bad initialisation: weights start with gain 0.57")
    told = {f.symptom for f in watched.consequences(watched.causes[0]) if f.severity != "info"}
    assert {"forward_drift", "dead_unit", "constant_output", "flat_loss"} <= told
    assert {"forward_drift", "constant_output", "vanishing_gradient"} <= {
        f.symptom for f in looked.consequences(looked.causes[0])
    }


def test_statistics_tell_it_layer_by_layer(flagship: tuple[Report, Report]) -> None:
    for report in flagship:
        across = [s.across_row_std or 0.0 for s in report.stats()]
        assert len(across) == 8
        assert across == sorted(across, reverse=True)
        assert report.stats()[-1].dead > report.stats()[0].dead  # type: ignore[operator]


def test_the_report_is_plain_json(flagship: tuple[Report, Report]) -> None:
    for report in flagship:
        text = json.dumps(report.to_dict(), allow_nan=False)
        assert json.loads(text)["findings"][0]["id"] == "wrong_gain@model"
        assert "bad initialisation" in str(report)


def test_nan_is_plain_json_too() -> None:
    torch.manual_seed(0)
    model = nn.Sequential(nn.Linear(4, 8), nn.ReLU(), nn.Linear(8, 2))
    report = softknee.diagnose(model, torch.full((100, 4), math.nan))
    json.dumps(report.to_dict(), allow_nan=False)
    assert report.causes[0].symptom == "nonfinite"


# -- verdicts


def test_healthy_lists_what_was_checked_and_what_could_not_be() -> None:
    torch.manual_seed(0)
    model = nn.Sequential(nn.Linear(4, 8), nn.ReLU(), nn.Linear(8, 2))
    report = softknee.diagnose(model, torch.randn(200, 4))
    assert report.healthy
    assert report.verdict.startswith("healthy: look elsewhere (checked: ")
    assert "dead units" in report.verdict
    assert "over-confidence: needs class labels" in report.verdict


def test_too_few_rows_is_no_verdict() -> None:
    torch.manual_seed(0)
    model = nn.Sequential(nn.Linear(4, 8), nn.ReLU(), nn.Linear(8, 2))
    report = softknee.diagnose(model, torch.randn(20, 4))
    assert report.verdict == "don't know: needs 40 more rows (20 seen)"
    assert not report.healthy
