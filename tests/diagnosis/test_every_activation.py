"""Every elementwise entry of the core as the activation of a small network: diagnosed, watched, healthy when
initialised for it."""

from __future__ import annotations

import json

import pytest
import torch
from torch import Tensor, nn

import softknee
from softknee.diagnosis.repairs import propose

ELEMENTWISE = [a for a in softknee.activations() if a.kind == "elementwise" and a.core]
# At a depth of four hidden layers, each initialised with its own gain. Softplus and the sigmoid are not here: their
# mean takes the gain and their gradients do vanish.
MAINSTREAM = (
    "relu", "relu6", "leaky_relu", "prelu", "rrelu", "elu", "celu", "selu", "silu", "swish", "gelu", "gelu_tanh",
    "quick_gelu", "mish", "hardswish", "hardtanh", "tanh", "softsign", "sparse_plus",
)  # fmt: skip


def mlp(activation: softknee.Activation, depth: int) -> nn.Module:
    torch.manual_seed(0)
    layers: list[nn.Module] = []
    for width in (8, *[32] * (depth - 1)):
        layers += [nn.Linear(width, 32), activation.module()]
    net = nn.Sequential(*layers, nn.Linear(32, 2))
    return softknee.nn.init.initialize(net, softknee.identify(net, data()[0]))


def data() -> tuple[Tensor, Tensor]:
    x = torch.randn(256, 8, generator=torch.Generator().manual_seed(1))
    return x, (x[:, 0] * x[:, 1] > 0).long()


@pytest.mark.parametrize("activation", ELEMENTWISE, ids=lambda a: a.name)
def test_every_activation_is_healthy_at_two_layers(activation: softknee.Activation) -> None:
    report = softknee.diagnose(mlp(activation, 2), data())
    wrong = {f.symptom for f in report.findings if f.severity != "info"}
    assert wrong == ({"missing_nonlinearity"} if activation.name == "identity" else set())
    json.dumps(report.to_dict(), allow_nan=False)


@pytest.mark.parametrize("name", MAINSTREAM)
def test_the_mainstream_is_healthy_at_four_layers(name: str) -> None:
    assert not softknee.diagnose(mlp(softknee.get(name), 4), data()).findings


@pytest.mark.parametrize("activation", ELEMENTWISE, ids=lambda a: a.name)
def test_what_is_wrong_is_found_and_mended_with_every_activation(activation: softknee.Activation) -> None:
    net = mlp(activation, 2)
    with torch.no_grad():
        net[0].bias += 1e3  # type: ignore[union-attr, index, operator]
        net[2].weight *= 1e3  # type: ignore[union-attr, index, operator]
    report = softknee.diagnose(net, data())
    assert report.findings
    for repair in propose(report, net):
        if repair.change is not None:
            assert repair.apply(net)(data()[0]).shape == (256, 2)


def test_relu6_is_not_called_saturated_for_being_0_on_the_left() -> None:
    net = mlp(softknee.get("relu6"), 2)
    with torch.no_grad():
        net[0].bias -= 1.0  # type: ignore[union-attr, index, operator]
    assert "saturation" not in {f.symptom for f in softknee.diagnose(net, data()).findings}
    both = mlp(softknee.get("hardtanh"), 2)
    with torch.no_grad():
        both[0].weight *= 30.0  # type: ignore[union-attr, index, operator]
    assert "saturation" in {f.symptom for f in softknee.diagnose(both, data()).findings}


@pytest.mark.parametrize("act", [nn.RReLU, softknee.nn.RReLU, softknee.nn.XIELU, softknee.nn.ThresholdedReLU])
def test_watching_random_and_learned_activations_changes_nothing(act: type[nn.Module]) -> None:
    def train(watched: bool) -> tuple[list[float], list[Tensor]]:
        torch.manual_seed(0)
        net = nn.Sequential(nn.Linear(8, 16), act(), nn.Linear(16, 16), act(), nn.Linear(16, 2))
        optimizer = torch.optim.SGD(net.parameters(), 0.05)
        x, y = data()
        losses = []
        w = softknee.watch(net, optimizer, every=2).__enter__() if watched else None
        for _ in range(12):
            loss = nn.functional.cross_entropy(net(x), y)
            optimizer.zero_grad()
            loss.backward()
            optimizer.step()
            losses.append(loss.item())
            if w is not None:
                w.log(loss=loss)
        if w is not None:
            assert w.measurement().sites
            w.close()
        return losses, [p.detach().clone() for p in net.parameters()]

    (losses, weights), (seen, after) = train(False), train(True)
    assert losses == seen
    assert all(torch.equal(a, b) for a, b in zip(weights, after, strict=True))
    assert losses[-1] < losses[0]
