"""identify on a dozen kinds of models: every site once, nothing invented, the model as it was."""

import json
import math
import random
import warnings

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from torch import nn

import softknee
import softknee.nn
from softknee.errors import InputError
from softknee.identification import identify


def found(model, inputs, *names):
    """(key, *attributes) of every site."""
    census = identify(model, inputs)
    json.dumps(census.to_dict(), allow_nan=False)
    assert str(census)
    return [(s.key, s.activation, *(getattr(s, n) for n in names)) for s in census]


def mlp(*activations, width=6):
    layers = [layer for a in activations for layer in (nn.Linear(width, width), a)]
    return nn.Sequential(*layers, nn.Linear(width, 3))


class Wrap(nn.Module):
    """A forward written as a function of (the module, x)."""

    def __init__(self, forward, **modules):
        super().__init__()
        self.written = forward
        for name, module in modules.items():
            setattr(self, name, module)

    def forward(self, x):
        return self.written(self, x)


def between(function):
    """linear → function → linear."""
    return Wrap(lambda m, x: m.b(function(m.a(x))), a=nn.Linear(6, 6), b=nn.Linear(6, 3))


# -- kinds of models


def test_mlp():
    census = identify(mlp(nn.ReLU(), nn.GELU("tanh")), torch.randn(4, 6))
    assert [(s.key, s.activation, s.role, s.evidence, s.form, s.preceded_by) for s in census] == [
        ("1#0", "relu", "hidden", "observed", "module", "0"),
        ("3#0", "gelu_tanh", "hidden", "observed", "module", "2"),
    ]  # fmt: skip
    assert (census.head.path, census.head.kind, census.head.features) == ("4", "logits", 3)
    assert [(a.path, a.fan_in, a.fan_out, a.followed_by, a.preceded_by) for a in census.affines] == [
        ("0", 6, 6, "1#0", None), ("2", 6, 6, "3#0", "1#0"), ("4", 6, 3, None, "3#0"),
    ]  # fmt: skip
    assert census.collapses == ()
    assert census["1#0"].shape == (4, 6)
    assert census["1#0"].units == 6
    assert "1#0" in census
    assert not census.functional
    with pytest.raises(KeyError, match="the sites are 1#0, 3#0"):
        census["nowhere#0"]


class Residual(nn.Module):
    def __init__(self):
        super().__init__()
        self.stem, self.norm = nn.Conv2d(3, 8, 3, padding=1), nn.BatchNorm2d(8)
        self.body, self.norm2 = nn.Conv2d(8, 8, 3, padding=1), nn.BatchNorm2d(8)
        self.squeeze, self.excite = nn.Conv2d(8, 2, 1), nn.Conv2d(2, 8, 1)
        self.head = nn.Linear(8, 5)

    def forward(self, x):
        x = F.relu_(self.norm(self.stem(x)))
        y = self.norm2(self.body(x))
        y = y * torch.sigmoid(self.excite(F.relu(self.squeeze(F.adaptive_avg_pool2d(y, 1)))))
        x = F.relu(x + y, inplace=True)
        return self.head(F.adaptive_avg_pool2d(x, 1).flatten(1))


def test_residual_cnn_with_squeeze_and_excite():
    assert found(Residual(), torch.randn(2, 3, 8, 8), "role", "unit_dim", "units", "preceded_by") == [
        ("#0", "relu", "hidden", 1, 8, "stem"),
        ("#1", "relu", "hidden", 1, 2, "squeeze"),
        ("#2", "sigmoid", "gate", 1, 8, "excite"),
        ("#3", "relu", "hidden", 1, 8, None),
    ]


class RMSNorm(nn.Module):
    def __init__(self, width):
        super().__init__()
        self.weight = nn.Parameter(torch.ones(width))

    def forward(self, x):
        return x * torch.rsqrt(x.pow(2).mean(-1, keepdim=True) + 1e-6) * self.weight


class Transformer(nn.Module):
    """Rotary attention written out, fused attention, a packed gated feed-forward, capped logits."""

    def __init__(self, width=16):
        super().__init__()
        self.embedding, self.norm = nn.Embedding(10, width), RMSNorm(width)
        self.q, self.k, self.v, self.o = (nn.Linear(width, width, bias=False) for _ in range(4))
        self.gate_up, self.down = nn.Linear(width, 4 * width), nn.Linear(2 * width, width)
        self.head = nn.Linear(width, 10)

    def forward(self, ids):
        x = self.embedding(ids)
        h = self.norm(x)
        b, n, width = h.shape
        q, k, v = (p(h).view(b, n, 2, width // 2).transpose(1, 2) for p in (self.q, self.k, self.v))
        angle = torch.arange(n)[:, None] * 0.1
        q = q * torch.cos(angle) + torch.cat([-q[..., 4:], q[..., :4]], -1) * torch.sin(angle)
        scores = (q @ k.transpose(-1, -2)) / 4.0
        weights = scores.masked_fill(torch.ones(n, n).triu(1).bool(), float("-inf")).softmax(-1)
        x = x + self.o((weights @ v).transpose(1, 2).reshape(b, n, width))
        y = F.scaled_dot_product_attention(q, k, v).transpose(1, 2).reshape(b, n, width)
        x = x + self.o(y)
        gate, up = self.gate_up(self.norm(x)).chunk(2, -1)
        x = x + self.down(F.silu(gate) * up)
        return 30 * torch.tanh(self.head(self.norm(x)) / 30)


def test_tiny_transformer():
    census = identify(Transformer(), torch.randint(0, 10, (2, 5)))
    assert [(s.key, s.activation, s.role, s.form, s.measured) for s in census] == [
        ("#0", "softmax", "attention", "functional", True),
        ("#1", "softmax", "attention", "fused", False),
        ("#2", "swiglu", "gate", "functional", True),
        ("#3", "softcap", "head", "functional", True),
    ]  # fmt: skip
    assert census.collapses == ()  # heads are reshaped, projections stand side by side
    assert census["#2"].preceded_by == "gate_up"


@pytest.mark.parametrize("fast", [True, False])
def test_transformer_encoder_is_observed_whatever_the_fast_path(fast):
    layer = nn.TransformerEncoderLayer(8, 2, 16, activation="gelu", batch_first=True)
    model = nn.TransformerEncoder(layer, 2, enable_nested_tensor=False)
    before = torch.backends.mha.get_fastpath_enabled()
    torch.backends.mha.set_fastpath_enabled(fast)
    try:
        assert found(model.eval(), torch.randn(2, 3, 8), "role", "measured") == [
            ("layers.0.self_attn#0", "softmax", "attention", False),
            ("layers.0#0", "gelu", "hidden", True),
            ("layers.1.self_attn#0", "softmax", "attention", False),
            ("layers.1#0", "gelu", "hidden", True),
        ]
        assert torch.backends.mha.get_fastpath_enabled() == fast
    finally:
        torch.backends.mha.set_fastpath_enabled(before)
    assert identify(model, torch.randn(2, 3, 8)).blocks == {
        "layers.0": ("softmax", "gelu"), "layers.1": ("softmax", "gelu"),
    }  # fmt: skip


@pytest.mark.parametrize(
    ("recurrent", "names"),
    [
        (nn.LSTM(6, 4, 2, batch_first=True), ["sigmoid", "sigmoid", "tanh", "sigmoid", "tanh"]),
        (nn.GRU(6, 4, batch_first=True), ["sigmoid"] * 2 + ["tanh"]),
        (nn.RNN(6, 4, nonlinearity="relu", batch_first=True), ["relu"]),
    ],
    ids=["lstm", "gru", "rnn"],
)
def test_recurrent_gates_are_declared_and_not_measured(recurrent, names):
    model = Wrap(lambda m, x: m.head(m.cells(x)[0][:, -1]), cells=recurrent, head=nn.Linear(4, 2))
    for census in (identify(model, torch.randn(2, 3, 6)), identify(model)):
        assert [s.activation for s in census] == names
        assert {(s.form, s.evidence, s.measured) for s in census} == {("fused", "declared", False)}


def test_gated_feed_forward_with_modules():
    model = Wrap(
        lambda m, x: m.down(m.act(m.gate(x)) * m.up(x)),
        gate=nn.Linear(6, 8), up=nn.Linear(6, 8), down=nn.Linear(8, 6), act=nn.SiLU(),
    )  # fmt: skip
    census = identify(model, torch.randn(2, 6))
    assert [(s.key, s.activation, s.role, s.preceded_by) for s in census] == [("act#0", "swiglu", "gate", "gate")]
    assert "silu(gate) * up, up from up" in census["act#0"].note


def test_own_feed_forward_blocks():
    model = nn.Sequential(softknee.nn.GatedFeedForward(6), softknee.nn.FeedForward(6))
    assert found(model, torch.randn(2, 6), "role", "preceded_by") == [
        ("0.activation#0", "swiglu", "gate", "0.gate"), ("1.activation#0", "gelu", "hidden", "1.up"),
    ]  # fmt: skip


def test_one_module_used_twice_is_two_sites():
    model = Wrap(lambda m, x: m.b(m.act(m.a(m.act(m.a(x))))), a=nn.Linear(6, 6), b=nn.Linear(6, 2), act=nn.ELU(0.5))
    assert found(model, torch.randn(2, 6), "parameters") == [
        ("act#0", "elu", {"alpha": 0.5}), ("act#1", "elu", {"alpha": 0.5}),
    ]  # fmt: skip


HAND_WRITTEN = {
    "silu": ("silu", {}, lambda x: x * torch.sigmoid(x)),
    "gelu_tanh": ("gelu_tanh", {}, lambda x: 0.5 * x * (1 + torch.tanh(0.79788456 * (x + 0.044715 * x**3)))),
    "clamp": ("relu", {}, lambda x: torch.clamp(x, min=0)),
    "maximum": ("leaky_relu", {"negative_slope": 0.2}, lambda x: torch.maximum(x, 0.2 * x)),
    "where": ("leaky_relu", {"negative_slope": 0.1}, lambda x: torch.where(x > 0, x, 0.1 * x)),
    "zeros_like": ("relu", {}, lambda x: torch.where(x > 0, x, torch.zeros_like(x))),
    "in place": ("silu", {}, lambda x: x.mul_(torch.sigmoid(x))),
    "mish": ("mish", {}, lambda x: x * torch.tanh(F.softplus(x))),
    "scaled and shifted": ("silu", {}, lambda x: 1.5 * (x * torch.sigmoid(x)) - 0.25),
    "swish": ("swish", {"beta": 1.5}, lambda x: x * torch.sigmoid(1.5 * x)),
    "a clamp": ("hardtanh", {"min_val": -0.3, "max_val": 1.7}, lambda x: x.clamp(-0.3, 1.7)),
    "softcap": ("softcap", {"cap": 30.0}, lambda x: 30.0 * torch.tanh(x / 30.0)),
    "softplus, scaled": ("softplus", {"beta": 2.0, "threshold": math.inf}, lambda x: F.softplus(2 * x) / 2),
    "silu, scaled": ("quick_gelu", {}, lambda x: F.silu(1.702 * x) / 1.702),
    "relu6, shifted": ("hardsigmoid", {}, lambda x: F.relu6(x + 3) / 6),
    "a threshold": ("thresholded_relu", {"threshold": 0.8}, lambda x: torch.where(x > 0.8, x, 0.0)),
    "hardswish": ("hardswish", {}, lambda x: x * F.relu6(x + 3) / 6),
}


@pytest.mark.parametrize("name", HAND_WRITTEN)
def test_hand_written_activations(name):
    activation, parameters, function = HAND_WRITTEN[name]
    census = identify(between(function), torch.randn(3, 6))
    assert [(s.activation, s.parameters, s.evidence, s.preceded_by) for s in census] == [
        (activation, parameters, "inferred", "a")
    ]
    assert census.sites[0].source.rpartition(":")[0].endswith("test_models.py")
    assert [a.followed_by for a in census.affines] == ["#0", None]
    assert census.affines[1].preceded_by == ("#0" if name != "scaled and shifted" else None)


UNKNOWN = {
    "a swish of another power": lambda x: x * torch.sigmoid(1.5 * x) ** 2,
    "a clamp of one side": lambda x: x.clamp(max=1.7),
    "a power of relu": lambda x: F.relu(x) ** 2.5,
    "a product": lambda x: torch.sin(x) * torch.tanh(x),
}


@pytest.mark.parametrize("name", UNKNOWN)
def test_unknown_compositions_are_one_unknown_site_with_a_neighbour(name):
    census = identify(between(UNKNOWN[name]), torch.randn(3, 6))
    assert [(s.key, s.activation, s.parameters) for s in census] == [("#0", None, {})]
    assert "nearest is" in census["#0"].note


def test_torch_activations_that_the_catalog_may_not_have():
    census = identify(mlp(nn.Hardtanh(-0.3, 1.7), nn.Softsign()), torch.randn(2, 6))
    for site in census:
        assert site.activation is not None or "nearest is" in site.note
        assert site.implementation.startswith("torch.nn.modules.activation.")


class Swish(nn.Module):
    def forward(self, x):
        return x * torch.sigmoid(x)


class Slope(nn.Module):
    def __init__(self):
        super().__init__()
        self.slope = nn.Parameter(torch.tensor(0.3))

    def forward(self, x):
        return torch.where(x > 0, x, self.slope * x)


class Strange(nn.Module):
    def forward(self, x):
        return torch.atan(x) * x.abs().sqrt()


class Doubled(nn.Module):
    def forward(self, x):
        return 2 * F.relu(x)


class Scale(nn.Module):
    def __init__(self):
        super().__init__()
        self.scale = nn.Parameter(torch.full((6,), 0.5))

    def forward(self, x):
        return self.scale * x


def test_custom_modules():
    model = mlp(Swish(), Slope(), Strange(), Doubled(), Scale(), nn.Softsign())
    census = identify(model, torch.randn(2, 6))
    sites = {s.path: s for s in census}
    assert list(sites) == ["1", "3", "5", "7", "11"]
    assert (sites["1"].activation, sites["1"].evidence, sites["1"].form) == ("silu", "inferred", "module")
    assert sites["3"].activation == "leaky_relu"
    assert sites["3"].parameters["negative_slope"] == pytest.approx(0.3, abs=1e-6)
    assert (sites["5"].activation, sites["5"].form) == (None, "module")
    assert "nearest is" in sites["5"].note
    assert (sites["7"].activation, sites["7"].form) == ("relu", "functional")


def test_a_plain_function():
    census = identify(lambda x: x * torch.sigmoid(x))
    assert [(s.activation, s.evidence) for s in census] == [("silu", "inferred")]
    assert identify(softknee.get("mish")).sites[0].activation == "mish"
    with pytest.raises(InputError, match="got int"):
        identify(3)


def test_kwargs_nested_outputs_and_several_inputs():
    class Mixed(nn.Module):
        def __init__(self):
            super().__init__()
            self.a, self.b = nn.Linear(6, 6), nn.Linear(6, 2)

        def forward(self, x, *, batch, flag=None):
            h = torch.tanh(self.a(x) + batch["extra"])
            return {"logits": self.b(h), "hidden": (h, [batch["extra"], flag])}

    inputs = {"x": torch.randn(2, 6), "batch": {"extra": torch.randn(2, 6)}, "flag": None}
    assert found(Mixed(), inputs) == [("#0", "tanh")]
    pair = Wrap(lambda m, x: F.relu(m.a(x["left"]) + x["right"]), a=nn.Linear(6, 6))
    assert found(pair, ({"left": torch.randn(2, 6), "right": torch.randn(2, 6)},)) == [("#0", "relu")]


def test_head_kinds():
    x = torch.randn(4, 6)
    for function, kind in (
        (lambda h: h.softmax(-1), "softmax"),
        (torch.sigmoid, "sigmoid"),
        (lambda h: F.log_softmax(h, 1), "log_softmax"),
    ):
        census = identify(Wrap(lambda m, x, f=function: f(m.a(x)), a=nn.Linear(6, 3)), x)
        assert (census.head.kind, census.head.activation, census.sites[0].role) == (kind, "#0", "head")
    assert identify(nn.Linear(6, 1), x).head.kind == "output"
    assert identify(nn.ReLU(), x).head is None


# -- nothing invented


QUIET = {
    "residual": lambda m, x: x + m.a(x),
    "scaled": lambda m, x: 0.5 * m.a(x) / 3 - 1,
    "layer norm by hand": lambda m, x: (m.a(x) - m.a(x).mean(-1, True)) / (m.a(x).var(-1, keepdim=True) + 1e-5).sqrt(),
    "unit length": lambda m, x: m.a(x) / m.a(x).norm(dim=-1, keepdim=True).clamp(min=1e-6),
    "mean square": lambda m, x: m.a(x).pow(2).mean(-1),
    "dropout": lambda m, x: F.dropout(m.a(x), 0.5, m.training),
    "standard deviation": lambda m, x: m.a(x) + torch.randn_like(x) * torch.exp(0.5 * m.b(x)),
    "cast": lambda m, x: m.a(x).double().float().contiguous(),
    "positions": lambda m, x: m.a(x) + torch.sin(torch.arange(6.0)),
    "modules": lambda m, x: m.norm(m.drop(m.a(x))),
}


@pytest.mark.parametrize("name", QUIET)
def test_what_is_no_activation_is_no_site(name):
    model = Wrap(QUIET[name], a=nn.Linear(6, 6), b=nn.Linear(6, 6), norm=nn.LayerNorm(6), drop=nn.Dropout(0.3))
    assert found(model, torch.randn(3, 6)) == []


def test_residuals_around_an_activation_do_not_hide_it():
    model = Wrap(lambda m, x: m.b(x + F.gelu(x) + 2 * m.a(F.silu(m.a(x)))), a=nn.Linear(6, 6), b=nn.Linear(6, 3))
    assert found(model, torch.randn(3, 6), "evidence") == [("#0", "gelu", "observed"), ("#1", "silu", "observed")]


# -- collapses


def test_collapse_is_reported_with_the_folded_map():
    model = nn.Sequential(
        nn.Linear(6, 8), nn.Identity(), nn.Dropout(0.5), nn.Linear(8, 7), nn.Flatten(), nn.Linear(7, 3)
    )
    x = torch.randn(5, 6)
    (collapse,) = identify(model, x).collapses
    assert collapse.paths == ("0", "3", "5")
    assert collapse.weight.shape == (3, 6)
    assert collapse.weight.dtype == torch.float64
    expected = model.eval()(x).double()
    assert torch.allclose(x.double() @ collapse.weight.T + collapse.bias, expected, atol=1e-6)
    assert 0 <= collapse.max_difference < 1e-5


def test_a_bottleneck_is_a_collapse_with_a_note_and_functions_count():
    model = nn.Sequential(nn.Linear(6, 2), nn.Linear(2, 6), nn.ReLU())
    assert "low-rank" in identify(model, torch.randn(3, 6)).collapses[0].note
    weight = torch.randn(6, 4)
    bare = Wrap(lambda m, x: F.linear(m.a(x) @ weight, torch.ones(3, 4)), a=nn.Linear(6, 6, bias=False))
    (collapse,) = identify(bare, torch.randn(2, 6)).collapses
    assert len(collapse.paths) == 3
    assert collapse.max_difference < 1e-4


NOT_COLLAPSES = {
    "activation": lambda m, x: m.b(F.relu(m.a(x))),
    "residual": lambda m, x: m.b(m.a(x) + x),
    "used twice": lambda m, x: (y := m.a(x)) + m.b(y),
    "side by side": lambda m, x: m.a(x) + m.b(x),
    "heads": lambda m, x: m.b(m.a(x).view(-1, 2, 3).transpose(1, 2).reshape(-1, 6)),
    "norm": lambda m, x: m.b(F.layer_norm(m.a(x), (6,))),
}


@pytest.mark.parametrize("name", NOT_COLLAPSES)
def test_what_is_no_collapse(name):
    model = Wrap(NOT_COLLAPSES[name], a=nn.Linear(6, 6), b=nn.Linear(6, 6))
    assert identify(model, torch.randn(4, 6)).collapses == ()


# -- without inputs


def test_without_inputs_only_what_is_declared():
    census = identify(mlp(nn.ReLU(), nn.LeakyReLU(0.3)))
    assert [(s.key, s.activation, s.evidence, s.parameters) for s in census] == [
        ("1#0", "relu", "declared", {}), ("3#0", "leaky_relu", "declared", {"negative_slope": 0.3}),
    ]  # fmt: skip
    assert not census.executed
    assert "not executed" in str(census)
    layer = nn.TransformerEncoderLayer(8, 2, 16, activation="gelu")
    assert [s.activation for s in identify(layer)] == ["gelu", "softmax"]


# -- unchanged


class Meddling(nn.Module):
    """Changes all that a forward can change."""

    def __init__(self, fail=False):
        super().__init__()
        self.linear, self.norm, self.drop = nn.Linear(6, 6), nn.BatchNorm1d(6), nn.Dropout(0.5)
        self.register_buffer("steps", torch.zeros(()))
        self.fail, self.history = fail, None
        self.norm.train()

    def forward(self, x):
        self.steps += 1
        self.steps = self.steps + 1
        self.linear.weight.data.clamp_(-0.1, 0.1)
        self.history, self.seen = x, True
        random.random(), np.random.rand(), torch.rand(3)
        x = self.drop(self.norm(self.linear(x.mul_(2))))
        if self.fail:
            raise KeyError("halfway")
        return F.relu(x)


@pytest.mark.parametrize("fail", [False, True])
def test_the_model_is_what_it_was(fail):
    model, x = Meddling(fail), torch.randn(4, 6)
    model.linear.eval()
    model.linear.bias.requires_grad_(False)
    state = {k: v.clone() for k, v in model.state_dict().items()}
    modes = [m.training for m in model.modules()]
    steps = model.steps
    given = x.clone()
    random.seed(1), np.random.seed(1), torch.manual_seed(1)
    wanted = (random.random(), np.random.rand(), torch.rand(3))
    random.seed(1), np.random.seed(1), torch.manual_seed(1)
    if fail:
        with pytest.raises(InputError, match="Meddling raised KeyError in its own forward .*halfway"):
            identify(model, x)
    else:
        identify(model, x)
    assert (random.random(), np.random.rand()) == wanted[:2]
    assert torch.equal(torch.rand(3), wanted[2])
    assert torch.equal(x, given)
    assert all(torch.equal(state[k], v) for k, v in model.state_dict().items())
    assert model.steps is steps
    assert [m.training for m in model.modules()] == modes
    assert model.linear.weight.requires_grad
    assert not model.linear.bias.requires_grad
    assert model.history is None
    assert not hasattr(model, "seen")
    assert all(not m._forward_hooks and not m._forward_pre_hooks for m in model.modules())
    assert torch.is_grad_enabled()


# -- odd inputs and refusals


def test_empty_scalar_complex_half_and_wrapped():
    assert found(mlp(nn.ReLU()), torch.randn(0, 6)) == [("1#0", "relu")]
    assert found(nn.ReLU(), torch.tensor(1.0)) == [("#0", "relu")]
    assert found(nn.Sequential(nn.Linear(4, 4, dtype=torch.complex64), nn.Tanh()), torch.randn(2, 4) + 0j) == [
        ("1#0", "tanh")
    ]
    assert found(mlp(Swish()).bfloat16(), torch.randn(2, 6).bfloat16()) == [("1#0", "silu")]
    with torch.autocast("cpu", dtype=torch.bfloat16):
        assert found(mlp(Swish()), torch.randn(2, 6)) == [("1#0", "silu")]
    assert found(nn.DataParallel(mlp(nn.ReLU())), torch.randn(2, 6)) == [("1#0", "relu")]


def test_a_compiled_model_stands_for_the_one_it_was_made_from():
    assert found(torch.compile(mlp(nn.ReLU())), torch.randn(2, 6)) == [("1#0", "relu")]


def test_bad_input_is_one_clear_line():
    model = mlp(nn.ReLU(), nn.ReLU())
    with pytest.raises(InputError, match=r"RuntimeError in '0' when run on example_inputs \(\(2, 5\)\): mat1"):
        identify(model, torch.randn(2, 5))
    with pytest.raises(InputError, match="must be a tensor, a tuple of arguments or a dict"):
        identify(model, "float32[1,6]")
    with pytest.raises(InputError, match="not a name"):
        identify(model, {0: torch.randn(2, 6)})
    with pytest.raises(InputError, match=r"'0\.weight' is uninitialized"):
        identify(nn.Sequential(nn.LazyLinear(3)), torch.randn(2, 6))


def test_ones_own_activation_needs_no_registration():
    @softknee.elementwise
    def own(x, ops, *, a=1.0):
        """x·tanh(a·x)."""
        return x * ops.tanh(a * x)

    class Functional(nn.Module):
        def forward(self, x):
            return own(x, a=2.0)

    for model in (nn.Sequential(nn.Linear(4, 4), own.module(a=2.0), nn.Linear(4, 2)), Functional()):
        (site,) = softknee.identify(model, torch.randn(3, 4))
        assert (site.activation, site.parameters, site.definition) == ("own", {"a": 2.0}, own)
        assert "definition" not in site.to_dict()
    (declared,) = softknee.identify(own)
    assert declared.definition is own


def masked(x):
    x[x < 0] = 0
    return x


class Masked(nn.Module):
    def forward(self, x):
        return masked(x)


def test_assignment_to_a_mask_is_an_activation():
    assert found(between(masked), torch.randn(4, 6), "evidence") == [("#0", "relu", "inferred")]
    assert found(mlp(Masked()), torch.randn(4, 6), "evidence") == [("1#0", "relu", "inferred")]


def test_which_of_two_activations_is_the_gate():
    both = {"a": nn.Linear(6, 6), "b": nn.Linear(6, 6), "c": nn.Linear(6, 1)}
    wavenet = Wrap(lambda m, x: torch.tanh(m.a(x)) * torch.sigmoid(m.b(x)), **both)
    assert found(wavenet, torch.randn(4, 6), "role") == [("#0", "tanh", "hidden"), ("#1", "sigmoid", "gate")]
    broadcast = Wrap(lambda m, x: torch.relu(m.a(x)) * F.softplus(m.c(x)), **both)
    assert found(broadcast, torch.randn(4, 6), "role") == [("#0", "relu", "hidden"), ("#1", "softplus", "gate")]


def test_a_hook_that_applies_an_activation_is_seen_where_it_is_applied():
    model = mlp(nn.ReLU())
    model[0].register_forward_hook(lambda module, inputs, output: F.softplus(output))
    model[1].register_forward_pre_hook(lambda module, inputs: (torch.tanh(inputs[0]),))
    keys = [("#0", "softplus"), ("#1", "tanh"), ("1#0", "relu")]
    assert found(model, torch.randn(4, 6)) == keys
    assert len(model[0]._forward_hooks) == 1 and not model[2]._forward_hooks


def test_a_scripted_part_is_passed_over_and_said_to_be():
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # TorchScript is deprecated
        scripted = torch.jit.script(mlp(nn.ELU(), width=6))
    model = Wrap(lambda m, x: torch.relu(m.inner(x)), inner=scripted)
    census = identify(model, torch.randn(4, 6))
    assert [site.activation for site in census] == ["relu"]
    assert census.notes == ("inner is TorchScript, whose activations cannot be seen",)
    assert model.training and scripted.training


def test_a_class_is_no_model():
    with pytest.raises(InputError, match="got the class ReLU: make one"):
        identify(nn.ReLU)


def test_einsum_with_a_weight_is_an_affine_map():
    model = Wrap(lambda m, x: torch.einsum("bh,ho->bo", torch.relu(m.a(x)), m.w), a=nn.Linear(6, 8))
    model.w = nn.Parameter(torch.randn(8, 3))
    census = identify(model, torch.randn(4, 6))
    assert [(s.activation, s.role) for s in census] == [("relu", "hidden")]
    assert (census.head.kind, census.head.features) == ("logits", 3)
    assert [(a.kind, a.fan_in, a.fan_out) for a in census.affines] == [("Linear", 6, 8), ("einsum", 8, 3)]


def test_an_exported_part_is_said_not_to_be_seen():
    exported = torch.export.export(mlp(nn.GELU()), (torch.randn(4, 6),)).module()
    model = Wrap(lambda m, x: torch.relu(m.inner(x)), inner=exported)
    (note,) = identify(model, torch.randn(4, 6)).notes
    assert note == "inner is an exported graph of ATen operators, whose activations cannot be seen"


class Mine(nn.ReLU):
    pass


def test_a_subclass_of_an_activation_module_is_one_site():
    assert found(mlp(Mine()), torch.randn(4, 6), "evidence") == [("1#0", "relu", "observed")]
    assert found(mlp(Mine(inplace=True)), torch.randn(4, 6), "evidence") == [("1#0", "relu", "observed")]


def test_functions_of_torch_special():
    assert found(between(torch.special.expit), torch.randn(4, 6), "evidence") == [("#0", "sigmoid", "observed")]


def test_a_function_that_works_in_place():
    assert identify(torch.relu_).sites[0].activation == "relu"
