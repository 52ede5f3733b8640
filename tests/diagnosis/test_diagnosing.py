"""`diagnose` takes the usual forms of data, and the model is afterwards what it was."""

from __future__ import annotations

import copy
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor, nn
from torch.utils.data import DataLoader, TensorDataset

import softknee
from softknee.errors import InputError


def model(out: int = 3) -> nn.Module:
    torch.manual_seed(0)
    return nn.Sequential(
        nn.Linear(8, 16),
        nn.BatchNorm1d(16),
        nn.ReLU(),
        nn.Dropout(0.3),
        nn.Linear(16, 16),
        nn.GELU(),
        nn.Linear(16, out),
    )


X = torch.randn(120, 8, generator=torch.Generator().manual_seed(1))
Y = torch.randint(3, (120,), generator=torch.Generator().manual_seed(2))


def test_afterwards_everything_is_what_it_was() -> None:
    net = model()
    net[4].eval()  # modes may differ per module
    nn.functional.cross_entropy(net(X), Y).backward()
    before = copy.deepcopy(net.state_dict())
    grads = [p.grad.clone() for p in net.parameters()]  # type: ignore[union-attr]
    modes = [m.training for m in net.modules()]
    buffers = [id(b) for b in net.buffers()]
    states = torch.get_rng_state(), np.random.get_state()[1].copy()  # type: ignore[index]
    loader = DataLoader(TensorDataset(X, Y), 32, shuffle=True, generator=torch.Generator().manual_seed(5))
    drawn = loader.generator.get_state()
    softknee.diagnose(net, loader)
    assert all(torch.equal(before[name], value) for name, value in net.state_dict().items())
    assert all(torch.equal(a, p.grad) for a, p in zip(grads, net.parameters(), strict=True))  # type: ignore[arg-type]
    assert modes == [m.training for m in net.modules()]
    assert buffers == [id(b) for b in net.buffers()]
    assert torch.equal(states[0], torch.get_rng_state())
    assert (states[1] == np.random.get_state()[1]).all()  # type: ignore[index]
    assert torch.equal(drawn, loader.generator.get_state())
    assert not any(m._forward_hooks or m._forward_pre_hooks for m in net.modules())


def test_also_when_the_loss_raises() -> None:
    net = model()
    before = copy.deepcopy(net.state_dict())

    def failing(output: Tensor, targets: Tensor) -> Tensor:
        raise RuntimeError("no")

    with pytest.raises(RuntimeError, match="no"):
        softknee.diagnose(net, (X, Y), loss_fn=failing)
    assert all(torch.equal(before[name], value) for name, value in net.state_dict().items())
    assert net.training
    assert not any(m._forward_hooks or m._forward_pre_hooks for m in net.modules())


@pytest.mark.parametrize(
    "data",
    [
        (X, Y),
        [(X[:60], Y[:60]), (X[60:], Y[60:])],
        DataLoader(TensorDataset(X, Y), 60),
        (X.numpy(), Y.numpy()),
        SimpleNamespace(inputs=X, targets=Y),
        ({"input": X}, Y),
        {"input": X, "labels": Y},
        [{"input": X[:60], "targets": Y[:60]}, {"input": X[60:], "targets": Y[60:]}],
        (((X[:60], Y[:60]), (X[60:], Y[60:]))[i] for i in range(2)),
    ],
    ids=["pair", "list", "loader", "numpy", "dataset", "dict input", "dict", "dicts", "generator"],
)
def test_forms_of_data(data: Any) -> None:
    report = softknee.diagnose(model(), data)
    assert [s.rows for s in report.stats()] == [120, 120]
    assert all(s.gradient_norm for s in report.stats() if s.layer)
    assert report.output["accuracy"] == pytest.approx(0.33, abs=0.2)


def test_inputs_alone_leave_gradients_and_confidence_unchecked() -> None:
    report = softknee.diagnose(model(), X)
    assert [s.gradient_norm for s in report.stats()] == [None, None]
    assert "over-confidence: needs class labels: diagnose(model, (x, y))" in report.unchecked
    assert "vanishing gradient: needs targets" in report.unchecked


@pytest.mark.parametrize(
    ("out", "targets"),
    [(3, Y), (1, (Y > 0).long()), (1, torch.randn(120)), (2, torch.randn(120, 2)), (3, Y.to(torch.int32))],
    ids=["classes", "binary", "real", "several", "int32"],
)
def test_default_losses(out: int, targets: Tensor) -> None:
    report = softknee.diagnose(model(out), (X, targets))
    assert all(layer.gradient_norm for layer in report.layers)


def test_gradient_norms_are_those_of_the_loss() -> None:
    net = nn.Sequential(nn.Linear(8, 16), nn.ReLU(), nn.Linear(16, 3))
    report = softknee.diagnose(net, (X, Y))
    nn.functional.cross_entropy(net(X), Y).backward()
    assert report.layers[0].gradient_norm == pytest.approx(net[0].weight.grad.norm().item(), rel=1e-5)
    assert report.layers[0].gain == pytest.approx(net[0].weight.std().item() * 8**0.5, rel=1e-5)


class Segmenter(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.a, self.b = nn.Conv2d(1, 6, 3, padding=1), nn.Conv2d(6, 4, 1)

    def forward(self, x: Tensor) -> Tensor:
        return self.b(torch.relu_(self.a(x)))


def test_segmentation_has_channels_for_units() -> None:
    torch.manual_seed(0)
    y = torch.randint(4, (80, 9, 9))
    report = softknee.diagnose(Segmenter(), (torch.randn(80, 1, 9, 9), y))
    assert [s.units for s in report.stats()] == [6]
    assert report.output["rows"] == 80 * 81 or report.output["rows"] >= 80


class Language(nn.Module):
    """Token classification with an output object, as transformers have it."""

    def __init__(self) -> None:
        super().__init__()
        self.embed, self.up, self.down = nn.Embedding(11, 8), nn.Linear(8, 32), nn.Linear(32, 11)

    def forward(self, input_ids: Tensor, labels: Tensor | None = None) -> Any:
        logits = self.down(nn.functional.gelu(self.up(self.embed(input_ids)), approximate="tanh"))
        loss = None
        if labels is not None:
            loss = nn.functional.cross_entropy(logits.flatten(0, 1), labels.flatten())
        return {"loss": loss, "logits": logits}


def test_dict_outputs_that_carry_their_loss() -> None:
    torch.manual_seed(0)
    ids = torch.randint(11, (70, 5))
    labels = ids.clone()
    labels[:, 0] = -100
    report = softknee.diagnose(Language(), {"input_ids": ids, "labels": labels})
    (site,) = report.stats()
    assert site.activation == "gelu_tanh"
    assert site.gradient_norm
    assert report.output["rows"] >= 70


def test_one_row_and_max_rows() -> None:
    net = nn.Sequential(nn.Linear(8, 16), nn.ReLU(), nn.Linear(16, 3))
    assert softknee.diagnose(net, X[:1]).verdict == "don't know: needs 59 more rows (1 seen)"
    assert softknee.diagnose(net, [X] * 1000, max_rows=300).stats()[0].rows == 360


def test_held_out_rows_are_judged_and_compared() -> None:
    report = softknee.diagnose(model(), (X, Y), held_out=(X[:90], Y[:90]))
    assert report.output["held_out"] is True
    assert report.output["rows"] == 90
    assert report.output["train_accuracy"] is not None


@pytest.mark.parametrize(
    ("data", "arguments", "match"),
    [
        (X[:0], {}, "no batch"),
        ([], {}, "no batch"),
        (3.0, {}, "got float"),
        ((X, Y, Y), {}, "of length 3"),
        ((X, Y[:5]), {}, "120 rows of inputs and 5 of targets"),
        ((X, Y + 5), {}, "class 7 but the model's output has 3 classes"),
        ((X, torch.randn(120, 7)), {}, r"targets of shape \(120, 7\)"),
        ((X, Y), {"loss_fn": lambda output, targets: output}, r"single number, got \(120, 3\)"),
        ((X, Y), {"held_out": X}, "held_out holds no class labels"),
        ((X, Y), {"max_rows": 0}, "at least 1, got 0"),
        (["text"], {}, "got str"),
        (torch.tensor(1.0), {}, "first dimension must be rows"),
    ],
)
def test_bad_data(data: Any, arguments: dict[str, Any], match: str) -> None:
    with pytest.raises(InputError, match=match):
        softknee.diagnose(model(), data, **arguments)


def test_a_model_must_be_a_module() -> None:
    with pytest.raises(InputError, match=r"torch\.nn\.Module, got function"):
        softknee.diagnose(lambda x: x, X)  # type: ignore[arg-type]


def test_a_model_without_values_is_refused() -> None:
    with pytest.raises(InputError, match="meta device"):
        softknee.diagnose(model().to("meta"), X)
