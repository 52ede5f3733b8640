"""Initialisation: gains, fills, and walking a model so that the signal keeps its second moment through any depth."""

from __future__ import annotations

import math

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from torch import nn

import softknee
from softknee.errors import InputError
from softknee.nn import init


@pytest.mark.parametrize(
    ("name", "parameters", "expected"),
    [
        ("identity", {}, 1.0),
        ("relu", {}, math.sqrt(2)),
        ("leaky_relu", {}, 1.4141428569978354),
        ("leaky_relu", {"negative_slope": 0.2}, 1.3867504905630728),
        ("tanh", {}, 1.5925374197228312),  # not the 5/3 that calculate_gain gives
        ("gelu", {}, 1.5335304411955353),
        ("silu", {}, 1.6765324703310913),
    ],
)
def test_gain(name, parameters, expected):
    assert init.gain(name, **parameters) == pytest.approx(expected, rel=1e-12)
    assert init.gain(softknee.get(name), **parameters) == init.gain(name, **parameters)


def test_gain_is_what_sampling_gives():
    z = torch.randn(300_000, generator=torch.Generator().manual_seed(0), dtype=torch.float64)
    for activation in softknee.activations():
        if activation.kind == "elementwise":
            sampled = activation(z).square().mean().rsqrt().item()
            assert init.gain(activation) == pytest.approx(sampled, rel=2e-2), activation.name


def test_a_gain_that_does_not_exist_is_refused():
    with pytest.raises(InputError, match="did you mean 'relu'"):
        init.gain("reluu")
    with pytest.raises(InputError, match="normalizer"):
        init.gain("softmax")
    with pytest.raises(InputError, match="no parameter"):
        init.gain("relu", slope=1.0)

    @softknee.elementwise
    def nothing(x, ops):
        "f = 0"
        return x * 0.0

    with pytest.raises(InputError, match="no gain"):
        init.gain(nothing)


@pytest.mark.parametrize("distribution", ["normal", "uniform"])
@pytest.mark.parametrize("shape", [(300, 400), (40, 30, 5, 5), (20, 30, 20)])
def test_fills(shape, distribution):
    fan_in = math.prod(shape[1:])
    fan_out = shape[0] * math.prod(shape[2:])
    generator = torch.Generator().manual_seed(0)
    weight = torch.empty(shape)
    more = {"distribution": distribution, "generator": generator}
    assert init.exact_(weight, "silu", **more) is weight
    assert weight.std().item() == pytest.approx(1.6765324703310913 / math.sqrt(fan_in), rel=0.03)
    init.exact_(weight, "silu", mode="fan_out", **more)
    assert weight.std().item() == pytest.approx(1.623320257952497 / math.sqrt(fan_out), rel=0.03)
    init.he_(weight, **more)
    assert weight.std().item() == pytest.approx(math.sqrt(2 / fan_in), rel=0.03)
    init.he_(weight, 1.0, mode="fan_out", **more)
    assert weight.std().item() == pytest.approx(math.sqrt(1 / fan_out), rel=0.03)
    init.xavier_(weight, 2.0, **more)
    assert weight.std().item() == pytest.approx(2 * math.sqrt(2 / (fan_in + fan_out)), rel=0.03)
    assert abs(weight.mean().item()) < 3 * weight.std().item() / math.sqrt(weight.numel())


def test_fills_agree_with_torch():
    ours, theirs = torch.empty(50, 60), torch.empty(50, 60)
    for mine, torchs in (
        (lambda g: init.he_(ours, generator=g), lambda g: nn.init.kaiming_normal_(theirs, generator=g)),
        (
            lambda g: init.he_(ours, 0.2, mode="fan_out", distribution="uniform", generator=g),
            lambda g: nn.init.kaiming_uniform_(theirs, 0.2, "fan_out", generator=g),
        ),
        (lambda g: init.xavier_(ours, generator=g), lambda g: nn.init.xavier_uniform_(theirs, generator=g)),
        (
            lambda g: init.xavier_(ours, 3.0, distribution="normal", generator=g),
            lambda g: nn.init.xavier_normal_(theirs, 3.0, generator=g),
        ),
    ):
        mine(torch.Generator().manual_seed(1))
        torchs(torch.Generator().manual_seed(1))
        torch.testing.assert_close(ours, theirs)


@pytest.mark.parametrize(
    ("call", "message"),
    [
        (lambda: init.exact_(torch.empty(3)), "at least 2 dimensions"),
        (lambda: init.exact_(torch.empty(3, 3, dtype=torch.int64)), "floating point"),
        (lambda: init.exact_(torch.empty(3, 3), mode="fan_avg"), "mode must be"),
        (lambda: init.he_(torch.empty(3, 3), distribution="cauchy"), "distribution must be"),
        (lambda: init.xavier_(torch.empty(())), "at least 2 dimensions"),
    ],
)
def test_wrong_arguments_are_named(call, message):
    with pytest.raises(InputError, match=message):
        call()


def test_a_parameter_stays_a_leaf_that_learns():
    weight = nn.Parameter(torch.empty(8, 8, dtype=torch.bfloat16))
    assert init.exact_(weight, "gelu") is weight
    assert weight.is_leaf
    assert weight.requires_grad
    assert init.exact_(torch.empty(0, 4)).shape == (0, 4)


def mlp(activation, depth: int = 10, width: int = 256) -> nn.Sequential:
    layers: list[nn.Module] = []
    for _ in range(depth):
        layers += [nn.Linear(width, width), activation()]
    return nn.Sequential(*layers, nn.Linear(width, 10))


@pytest.mark.parametrize("activation", [nn.ReLU, nn.GELU, nn.Tanh, nn.SiLU, nn.ELU, lambda: nn.LeakyReLU(0.5)])
def test_exact_keeps_the_signal_through_depth(activation):
    torch.manual_seed(0)
    model, x = mlp(activation), torch.randn(512, 256)
    stock = [h.square().mean().sqrt().item() for h in pre_activations(model, x)]
    init.initialize(model, softknee.identify(model, x), generator=torch.Generator().manual_seed(0))
    exact = [h.square().mean().sqrt().item() for h in pre_activations(model, x)]
    assert all(0.5 < value < 2.0 for value in exact), exact
    assert stock[-1] < 0.2  # what torch's own initialisation leaves of it
    assert all(not layer.bias.any() for layer in model if isinstance(layer, nn.Linear))


def pre_activations(model: nn.Sequential, x: torch.Tensor) -> list[torch.Tensor]:
    found = []
    with torch.no_grad():
        for layer in model:
            x = layer(x)
            if isinstance(layer, nn.Linear):
                found.append(x)
    return found


def std_times_root_fan(layer: nn.Module, fan: float) -> float:
    return layer.weight.std().item() * math.sqrt(fan)


def test_the_gain_is_that_of_the_activation_that_feeds_the_layer():
    torch.manual_seed(0)
    model = nn.Sequential(
        nn.Linear(200, 300), nn.Tanh(), nn.Linear(300, 200), nn.ReLU(), nn.Linear(200, 200), nn.Linear(200, 200)
    )
    init.initialize(model, softknee.identify(model, torch.randn(8, 200)))
    assert std_times_root_fan(model[0], 200) == pytest.approx(1.0, rel=0.02)
    assert std_times_root_fan(model[2], 300) == pytest.approx(1.5925, rel=0.02)
    assert std_times_root_fan(model[4], 200) == pytest.approx(math.sqrt(2), rel=0.02)
    assert std_times_root_fan(model[5], 200) == pytest.approx(1.0, rel=0.02)


def test_he_and_xavier_walk_a_model_too():
    torch.manual_seed(0)
    model, x = mlp(nn.Tanh, 2), torch.randn(4, 256)
    census = softknee.identify(model, x)
    init.initialize(model, census, "he")
    assert all(std_times_root_fan(model[i], 256) == pytest.approx(math.sqrt(2), rel=0.02) for i in (0, 2))
    init.initialize(model, census, "xavier")
    assert model[4].weight.abs().max() <= math.sqrt(6 / 266)
    assert std_times_root_fan(model[0], 256) == pytest.approx(1.0, rel=0.02)


def test_convolutions_grouped_and_transposed():
    torch.manual_seed(0)
    model = nn.Sequential(
        nn.Conv2d(16, 64, 3, padding=1),
        nn.ReLU(),
        nn.Conv2d(64, 128, 3, groups=4, padding=1),
        nn.ReLU(),
        nn.ConvTranspose2d(128, 64, 4, stride=2, padding=1),
        nn.ReLU(),
        nn.Flatten(),
        nn.Linear(64 * 64, 10),
    )
    x = torch.randn(64, 16, 4, 4)
    init.initialize(model, softknee.identify(model, x))
    assert std_times_root_fan(model[0], 16 * 9) == pytest.approx(1.0, rel=0.03)
    assert std_times_root_fan(model[2], 16 * 9) == pytest.approx(math.sqrt(2), rel=0.03)
    assert std_times_root_fan(model[4], 128 * 16 / 4) == pytest.approx(math.sqrt(2), rel=0.03)
    assert std_times_root_fan(model[7], 64 * 64) == pytest.approx(math.sqrt(2), rel=0.03)
    assert init.layer_fans(model[4]) == (128 * 16 / 4, 64 * 16)
    inner = model[:5](torch.randn(64, 16, 16, 16))[..., 4:-4, 4:-4]  # zero padding costs at the rim
    assert inner.square().mean().item() == pytest.approx(1.0, rel=0.25)


class Gated(nn.Module):
    def __init__(self, width: int = 256, hidden: int = 256) -> None:
        super().__init__()
        self.gate, self.up = nn.Linear(width, hidden), nn.Linear(width, hidden)
        self.down = nn.Linear(hidden, width)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return self.down(nn.functional.silu(self.gate(x)) * self.up(x))


def test_gated_blocks():
    torch.manual_seed(0)
    model, x = Gated(), torch.randn(512, 256)
    init.initialize(model, softknee.identify(model, x))
    assert std_times_root_fan(model.gate, 256) == pytest.approx(1.0, rel=0.02)
    assert std_times_root_fan(model.up, 256) == pytest.approx(1.0, rel=0.02)
    assert model(x).square().mean().item() == pytest.approx(1.0, rel=0.2)


def test_what_stands_between_counts():
    torch.manual_seed(0)
    model = nn.Sequential(
        *(nn.Linear(200, 200), nn.ReLU(), nn.Dropout(0.1)),
        *(nn.Linear(200, 200), nn.ReLU(), nn.LayerNorm(200)),
        nn.Linear(200, 200),
    )
    init.initialize(model, softknee.identify(model, torch.randn(8, 200)))
    assert std_times_root_fan(model[3], 200) == pytest.approx(math.sqrt(2), rel=0.02)
    assert std_times_root_fan(model[6], 200) == pytest.approx(1.0, rel=0.02)  # its input is normalised


def test_a_layer_that_multiplies_by_hand():
    class Transposed(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.weight, self.bias = nn.Parameter(torch.empty(400, 100)), nn.Parameter(torch.ones(100))

        def forward(self, x: torch.Tensor) -> torch.Tensor:
            return x @ self.weight + self.bias

    torch.manual_seed(0)
    model = nn.Sequential(nn.Linear(10, 400), nn.ReLU(), Transposed())
    init.initialize(model, softknee.identify(model, torch.randn(8, 10)))
    assert std_times_root_fan(model[2], 400) == pytest.approx(math.sqrt(2), rel=0.02)


def test_what_a_fused_kernel_hands_on_is_not_an_activation_s_output():
    class Recurrent(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.lstm, self.head = nn.LSTM(8, 200, batch_first=True), nn.Linear(200, 200)

        def forward(self, x: torch.Tensor) -> torch.Tensor:
            return self.head(self.lstm(x)[0])

    torch.manual_seed(0)
    model = Recurrent()
    before = {name: p.clone() for name, p in model.lstm.named_parameters()}
    init.initialize(model, softknee.identify(model, torch.randn(2, 3, 8)))
    assert std_times_root_fan(model.head, 200) == pytest.approx(1.0, rel=0.02)
    assert all(torch.equal(p, before[name]) for name, p in model.lstm.named_parameters())


def test_a_reused_layer_is_drawn_once():
    layer = nn.Linear(64, 64)
    model = nn.Sequential(layer, nn.Tanh(), layer, nn.Tanh(), layer)
    census = softknee.identify(model, torch.randn(4, 64))
    init.initialize(model, census, generator=torch.Generator().manual_seed(0))
    expected = torch.empty(64, 64).normal_(0, 1 / 8, generator=torch.Generator().manual_seed(0))
    torch.testing.assert_close(layer.weight.detach(), expected)


def test_frozen_tied_and_parametrized_weights():
    class Model(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.embed = nn.Embedding(50, 32)
            self.frozen = nn.Linear(32, 32).requires_grad_(False)
            self.normed = nn.utils.parametrizations.weight_norm(nn.Linear(32, 32))
            self.head = nn.Linear(32, 50, bias=False)
            self.head.weight = self.embed.weight

        def forward(self, tokens: torch.Tensor) -> torch.Tensor:
            return self.head(torch.relu(self.normed(torch.relu(self.frozen(self.embed(tokens))))))

    torch.manual_seed(0)
    model, tokens = Model(), torch.randint(0, 50, (4, 7))
    embedded, frozen = model.embed.weight.clone(), model.frozen.weight.clone()
    init.initialize(model, softknee.identify(model, tokens))
    assert torch.equal(model.embed.weight, embedded)
    assert model.head.weight is model.embed.weight
    assert torch.equal(model.frozen.weight, frozen)
    assert std_times_root_fan(model.normed, 32) == pytest.approx(math.sqrt(2), rel=0.1)


def test_another_model_and_another_method_are_refused():
    model = mlp(nn.ReLU, 1)
    census = softknee.identify(model, torch.randn(2, 256))
    with pytest.raises(InputError, match="identify this model"):
        init.initialize(nn.Linear(2, 2), census)
    with pytest.raises(InputError, match="example inputs"):
        init.initialize(model, softknee.identify(model))
    with pytest.raises(InputError, match="did you mean 'xavier'"):
        init.initialize(model, census, "xavir")


@given(st.floats(-2, 2), st.integers(1, 64), st.integers(1, 64))
def test_he_is_the_exact_gain_of_its_slope(slope, rows, columns):
    one, other = torch.empty(rows, columns), torch.empty(rows, columns)
    init.he_(one, slope, generator=torch.Generator().manual_seed(0))
    nn.init.kaiming_normal_(other, slope, generator=torch.Generator().manual_seed(0))
    torch.testing.assert_close(one, other)
