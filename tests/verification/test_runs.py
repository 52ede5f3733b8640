"""Evaluate leaves the model as it was and keeps a score per row; a stored run comes back whole or is refused."""

from __future__ import annotations

import json
import math
import os
import random
import time
from functools import partial
from types import SimpleNamespace

import numpy as np
import pytest
import torch
from torch import nn

import softknee
from softknee.errors import InputError
from softknee.verification import Dataset, Metric, Run, compare
from softknee.verification.metrics import accuracy
from softknee.verification.runs import weights_hash


@pytest.fixture
def data():
    return Dataset(torch.randn(50, 4), torch.arange(50) % 3, cohorts=torch.arange(50) % 3, name="toy")


@pytest.fixture
def model():
    return nn.Sequential(nn.Linear(4, 8), nn.ReLU(), nn.BatchNorm1d(8), nn.Dropout(), nn.Linear(8, 3))


@pytest.fixture
def run(model, data):
    return softknee.evaluate(model, data, ("accuracy", "nll"), version="v1", seed=3, budget={"steps": 10})


def test_scores_are_those_of_the_model(model, data):
    run = softknee.evaluate(model, data, ("accuracy", "nll"), version="v1", batch_size=7)
    model.eval()
    with torch.no_grad():
        logits = model(data.inputs)
    assert run.scores["accuracy"].tolist() == (logits.argmax(1) == data.targets).double().tolist()
    expected = nn.functional.cross_entropy(logits, data.targets, reduction="none")
    assert run.scores["nll"] == pytest.approx(expected.numpy(), abs=1e-6)
    assert run.predictions == tuple(logits.argmax(1).tolist())
    assert run.targets == tuple(data.targets.tolist())
    assert run.ids == data.ids
    assert run.mean() == run.scores["accuracy"].mean()
    assert run.missing("nll") == 0
    assert run.higher_is_better == {"accuracy": True, "nll": False}


def test_nothing_is_disturbed(model, data):
    model[3].eval()  # a mixed mode comes back mixed
    modes = [module.training for module in model.modules()]
    state = {name: value.clone() for name, value in model.state_dict().items()}
    generators = torch.random.get_rng_state(), random.getstate(), np.random.get_state()[1].copy()

    class Noisy(nn.Module):
        def __init__(self):
            super().__init__()
            self.inner = model

        def forward(self, x):
            return self.inner(x) + torch.rand(()) + random.random() + float(np.random.rand())

    softknee.evaluate(Noisy(), data, "nll")
    assert torch.equal(torch.random.get_rng_state(), generators[0])
    assert random.getstate() == generators[1]
    assert np.array_equal(np.random.get_state()[1], generators[2])
    assert [module.training for module in model.modules()] == modes
    assert all(torch.equal(value, state[name]) for name, value in model.state_dict().items())
    assert all(parameter.grad is None for parameter in model.parameters())
    assert not any(module._forward_hooks or module._forward_pre_hooks for module in model.modules())


def test_modes_come_back_after_an_exception(model, data):
    class Failing(nn.Module):
        def __init__(self):
            super().__init__()
            self.inner = model

        def forward(self, x):
            raise RuntimeError("in the middle")

    failing = Failing()
    with pytest.raises(RuntimeError, match="in the middle"):
        softknee.evaluate(failing, data)
    assert failing.training
    assert model[3].training


def test_a_stochastic_model_gives_the_same_run_twice(data):
    def noisy(x):
        return torch.randn(len(x), 3)

    first, second = (softknee.evaluate(noisy, data, version="v") for _ in range(2))
    assert first.provenance["outputs"] == second.provenance["outputs"]


@pytest.mark.parametrize(
    "wrap",
    [
        lambda logits: logits,
        lambda logits: (logits, None),
        lambda logits: {"loss": torch.tensor(1.0), "logits": logits},
        lambda logits: {"out": logits},
        lambda logits: SimpleNamespace(logits=logits),
        lambda logits: logits.numpy(),
    ],
)
def test_outputs_of_any_form(data, wrap):
    weight = torch.randn(4, 3)
    run = softknee.evaluate(lambda x: wrap(x @ weight), data)
    assert run.predictions == tuple((data.inputs @ weight).argmax(1).tolist())


def test_inputs_by_position_and_by_name():
    x, y = torch.randn(6, 2), torch.tensor([0, 1, 0, 1, 0, 1])
    by_place = softknee.evaluate(lambda a, b: a + b, Dataset((x, x), y))
    by_name = softknee.evaluate(lambda b, a: a + b, Dataset({"a": x, "b": x}, y))
    assert by_place.predictions == by_name.predictions == tuple(x.argmax(1).tolist())
    assert softknee.evaluate(lambda x: x, (x, y)).predictions == by_place.predictions


def test_texts():
    data = Dataset(["2+2", "3+3"], ["4", "6"])
    run = softknee.evaluate(lambda texts: ["4", "7"][: len(texts)], data, ("ground_truth_match", "recall"))
    assert run.scores["ground_truth_match"].tolist() == [1, 0]
    assert run.predictions == ("4", "7")


def test_half_precision_and_autocast(data):
    model = nn.Linear(4, 3).bfloat16()
    run = softknee.evaluate(model, Dataset(data.inputs.bfloat16(), data.targets), ("accuracy", "nll"))
    assert np.isfinite(run.scores["nll"]).all()


def test_binary_labels_in_floats_are_answered_in_classes():
    x = torch.randn(20, 1)
    run = softknee.evaluate(lambda x: x * 3, Dataset(x, (x[:, 0] > 0).float()))
    assert run.mean() == 1.0
    assert set(run.predictions) == {0, 1}


def test_regression_keeps_its_numbers():
    x = torch.randn(20, 1)
    run = softknee.evaluate(lambda x: x, Dataset(x, x[:, 0] + 0.5), "squared_error")
    assert run.scores["squared_error"] == pytest.approx(0.25)
    assert run.predictions == pytest.approx(x[:, 0].tolist())


def test_a_probability_where_a_logit_belongs_is_refused():
    x = torch.randn(20, 1)
    data = Dataset(x, (x[:, 0] > 0).long())
    with pytest.raises(InputError, match="looks like a probability"):
        softknee.evaluate(torch.sigmoid, data)
    at_half = Metric("accuracy", partial(accuracy, threshold=0.5))
    assert softknee.evaluate(torch.sigmoid, data, at_half).mean() == 1.0


def test_one_hot_targets_are_refused_and_labels_are_not(data):
    labels = nn.functional.one_hot(data.targets, 3).float()
    model = nn.Linear(4, 3)
    with pytest.raises(InputError, match="one-hot"):
        softknee.evaluate(model, (data.inputs, labels))
    labels[0] = 1  # several at once: these are labels, each right or wrong
    run = softknee.evaluate(model, (data.inputs, labels))
    expected = ((model(data.inputs) > 0).float() == labels).double().mean(1)
    assert run.scores["accuracy"] == pytest.approx(expected.numpy())
    labels[:] = nn.functional.one_hot(data.targets, 3)
    assert softknee.evaluate(model, (data.inputs, labels), "squared_error").missing() == 0


def test_a_row_without_logits_has_no_score(data):
    def model(x):
        logits = torch.zeros(len(x), 3)
        logits[0] = math.nan
        return logits

    run = softknee.evaluate(model, data)
    assert run.missing() == 1
    assert run.predictions[0] is None
    assert run.mean() == pytest.approx(np.nanmean(run.scores["accuracy"]))
    assert run.to_dict()["scores"]["accuracy"][0] is None


def test_latency_and_cost_are_per_row(data):
    def slow(x):
        time.sleep(0.01)
        return torch.zeros(len(x), 3)

    run = softknee.evaluate(slow, data, batch_size=10, cost=lambda inputs, outputs: [2.0] * len(outputs))
    assert 0.001 <= np.median(run.latency) < 0.01
    assert run.cost.tolist() == [2.0] * 50
    assert softknee.evaluate(slow, data, cost=range(50)).cost[49] == 49
    with pytest.raises(InputError, match="cost must give one number per row"):
        softknee.evaluate(slow, data, cost=[1.0])
    with pytest.raises(InputError, match="cost must give one number per row"):
        softknee.evaluate(slow, data, cost=["dear"] * 50)


def test_provenance_says_where_a_run_comes_from(run, model, data):
    known = run.provenance
    assert known["weights"] == weights_hash(model)
    assert (known["seed"], known["budget"], known["batch_size"]) == (3, {"steps": 10}, 256)
    assert known["torch"] == torch.__version__
    assert known["softknee"] == softknee.__version__
    assert known["threads"] == torch.get_num_threads()
    assert known["date"].endswith("+00:00")
    assert softknee.evaluate(model, data, training=data).provenance["training"] == known["data"]


def test_the_census_tells_activations_apart(data):
    weights = nn.Linear(4, 3)
    hashes = [
        softknee.evaluate(nn.Sequential(weights, activation), data).provenance["census"]
        for activation in (nn.GELU(), nn.GELU(), nn.GELU(approximate="tanh"), nn.SiLU())
    ]
    assert hashes[0] is not None
    assert hashes[0] == hashes[1]
    assert len(set(hashes)) == 3


def test_a_model_that_cannot_be_identified_is_still_scored(data, monkeypatch):
    def refuse(*arguments):
        raise RuntimeError("no idea\nat all")

    monkeypatch.setattr(softknee, "identify", refuse, raising=False)
    run = softknee.evaluate(nn.Linear(4, 3), data)
    assert run.provenance["census"] is None
    assert "no idea" in run.provenance["census_note"]
    assert "not a torch Module" in softknee.evaluate(lambda x: x, data).provenance["census_note"]


def test_weights_hash_follows_the_weights(model):
    first = weights_hash(model)
    assert weights_hash(model) == first
    model[0].weight.data.t_().t_()
    assert weights_hash(model) == first
    with torch.no_grad():
        model[0].weight[0, 0] += 1e-6
    assert weights_hash(model) != first
    assert weights_hash(lambda x: x) is None
    assert weights_hash(nn.ReLU()) is None


def test_a_version_cannot_be_forgotten(model, data):
    assert softknee.evaluate(model, data).version == weights_hash(model)[:12]
    assert softknee.evaluate(lambda x: torch.zeros(len(x), 3), data).version == "unversioned"


@pytest.mark.parametrize(
    ("model", "arguments", "options", "message"),
    [
        (lambda x: x, (torch.randn(0, 2), torch.zeros(0)), {}, "no rows"),
        (lambda x: x, None, {"batch_size": 0}, "batch_size"),
        (lambda x: x, None, {"metrics": "acuracy"}, "did you mean"),
        (lambda x: x, None, {"metrics": lambda outputs, targets: 1 / 0}, "failed: ZeroDivisionError"),
        (lambda x: x, None, {"version": "a\x1b[31m"}, "printable"),
        (lambda x: x, None, {"version": ""}, "printable"),
        (lambda x: x[:1], None, {}, "1 rows for a batch of 4"),
        (lambda x: x.sum(), None, {}, "0-d"),
        (lambda x: {"a": x, "b": x}, None, {}, "without 'logits'"),
        (lambda x: None, None, {}, "NoneType"),
        (3, None, {}, "callable; got int"),
    ],
)
def test_bad_input_is_named(model, arguments, options, message):
    with pytest.raises(InputError, match=message):
        softknee.evaluate(model, arguments or (torch.randn(4, 2), torch.zeros(4).long()), **options)


# --- stored --------------------------------------------------------------------------------------------------------


def test_a_run_comes_back_whole(run, tmp_path):
    again = Run.load(run.save(tmp_path / "deep" / "run.json"))
    assert again.to_dict() == run.to_dict()
    assert all(np.array_equal(again.scores[name], run.scores[name]) for name in run.scores)
    assert all((again.cohorts[name] == mask).all() for name, mask in run.cohorts.items())
    assert compare(run, again).verdict == "equivalent"
    assert os.listdir(tmp_path / "deep") == ["run.json"]  # nothing half-written stays behind


def test_missing_scores_and_odd_texts_come_back(tmp_path):
    data = Dataset(["a", "b"], ["\ud800", "\x1b[2J"], clusters=["x", "x"])
    run = softknee.evaluate(lambda texts: ["é\ud800", None], data, lambda outputs, targets: [None, 1.0], version="ü 1")
    again = Run.load(run.save(tmp_path / "run.json"))
    assert math.isnan(again.scores["<lambda>"][0])
    assert again.predictions == ("é\ud800", None)
    assert again.clusters == ("x", "x")


def test_a_failed_write_leaves_the_old_file(run, tmp_path, monkeypatch):
    path = run.save(tmp_path / "run.json")
    before = path.read_bytes()

    def fail(*arguments):
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(os, "replace", fail)
    with pytest.raises(InputError, match="No space left"):
        run.save(path)
    assert path.read_bytes() == before
    assert os.listdir(tmp_path) == ["run.json"]


def mangled(run, change):
    document = run.to_dict()
    change(document)
    return json.dumps(document)


def assign(*path_and_value):
    *path, key, value = path_and_value

    def change(document):
        for step in path:
            document = document[step]
        document[key] = value

    return change


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (assign("format", "other"), "format"),
        (assign("ids", []), "at least one"),
        (assign("ids", 0, 7), "short text"),
        (assign("ids", 0, "\x1b[2J"), "short text"),
        (assign("ids", 0, "other"), "cut or changed"),
        (lambda document: assign("ids", 0, document["ids"][1])(document), "differ"),
        (lambda document: document["ids"].pop(), "cut or changed"),
        (assign("scores", {}), "same metrics"),
        (assign("scores", "accuracy", [1.0]), "50 numbers"),
        (assign("scores", "accuracy", 0, "1"), "finite numbers"),
        (assign("scores", "accuracy", 0, True), "finite numbers"),
        (assign("higher_is_better", "accuracy", 1), "same metrics"),
        (assign("cohorts", {"a": [50]}), "row numbers"),
        (assign("cohorts", {"a": [True]}), "row numbers"),
        (assign("cohorts", {"\x07": [1]}), "printable"),
        (assign("cohorts", []), "object"),
        (assign("version", None), "version"),
        (assign("version", "a\nb"), "printable"),
        (assign("predictions", [1]), "50 entries"),
        (assign("clusters", [1] * 50), "text per row"),
        (assign("latency", None), "latency"),
        (assign("provenance", None), "object"),
        (assign("provenance", {}), "cut or changed"),
    ],
)
def test_a_changed_file_is_refused(run, tmp_path, change, message):
    path = tmp_path / "run.json"
    path.write_text(mangled(run, change))
    with pytest.raises(InputError, match=message) as caught:
        Run.load(path)
    assert "\n" not in str(caught.value)
    assert "\x1b" not in str(caught.value)


@pytest.mark.parametrize(
    "content",
    [
        b"",
        b"null",
        b"[]",
        b"{",
        b"\xff\xfe\x00",
        b"[" * 200_000,
        b'{"a":' * 200_000,
        b"9" * 2_000_000,
        b'{"format": NaN}',
        b"\x80\x04\x95pickle",
    ],
)
def test_a_hostile_file_is_refused(tmp_path, content):
    path = tmp_path / "run.json"
    path.write_bytes(content)
    with pytest.raises(InputError, match="is not a run"):
        Run.load(path)


def test_every_truncation_is_refused(run, tmp_path):
    text = json.dumps(run.to_dict())
    path = tmp_path / "run.json"
    for end in range(0, len(text) - 1, 97):
        path.write_text(text[:end])
        with pytest.raises(InputError):
            Run.load(path)


def test_an_overflowing_number_is_refused(run, tmp_path):
    path = tmp_path / "run.json"
    path.write_text(mangled(run, assign("latency", 0, 123456789)).replace("123456789", "1e999"))
    with pytest.raises(InputError, match="finite"):
        Run.load(path)


def test_what_is_no_file_is_refused_at_once(tmp_path):
    with pytest.raises(InputError, match="there is no file"):
        Run.load(tmp_path / "none.json")
    with pytest.raises(InputError, match="is not a file"):
        Run.load(tmp_path)
    os.mkfifo(tmp_path / "pipe")
    with pytest.raises(InputError, match="is not a file"):
        Run.load(tmp_path / "pipe")
    with pytest.raises(InputError, match="cannot write"):
        softknee.evaluate(lambda x: x, (torch.randn(4, 2), torch.zeros(4).long())).save("/dev/null/run.json")


def test_a_run_reads_well(run):
    assert "run v1: 50 rows of toy" in str(run)
    assert "µs per row" in str(run)
