"""Every entry of the core is identified: as our module, as torch's module and function, and written by hand.

Off the registry: what torch calls an entry and its arguments come from there. The hand-written spellings are the one
table, since they are what cannot be derived.
"""

import inspect
import math

import pytest
import torch
import torch.nn.functional as F
from torch import nn

import softknee
import softknee.nn as sn
from softknee.identification import Observer, identify

CATALOG = [a for a in softknee.activations() if a.core]
X = torch.randn(3, 6, generator=torch.Generator().manual_seed(0))


class Between(nn.Module):
    """linear → act (a module, or a function of this module's attribute) → linear."""

    def __init__(self, act, features=6):
        super().__init__()
        self.a, self.act, self.b = nn.Linear(6, 6), act, nn.Linear(features, 3)

    def forward(self, x):
        return self.b(self.act(self.a(x)))


class Gated(nn.Module):
    """down(function(gate(x), up(x)))."""

    def __init__(self, function):
        super().__init__()
        self.gate, self.up, self.down = nn.Linear(6, 6), nn.Linear(6, 6), nn.Linear(6, 6)
        self.function = function

    def forward(self, x):
        return self.down(self.function(self.gate(x), self.up(x)))


def only_site(model, x=X):
    (site,) = identify(model, x)
    return site


def moved(activation, factor=1.25):
    """Parameters that are not the defaults, within the conditions."""
    return {
        name: p.default if isinstance(p.default, bool) or not math.isfinite(p.default) else p.default * factor
        for name, p in activation.parameters.items()
    }


@pytest.mark.parametrize("activation", CATALOG, ids=lambda a: a.name)
def test_our_module(activation):
    if activation.name == "identity":
        return
    keywords = {"dim": -1} if activation.kind == "normalizer" else {}
    module = sn.Activation(activation, **moved(activation), **keywords)
    site = only_site(Between(module, 3 if activation.kind == "gated" else 6).train())
    assert (site.activation, site.evidence, site.form, site.path) == (activation.name, "observed", "module", "act")
    assert site.parameters == pytest.approx(moved(activation))


@pytest.mark.parametrize("activation", [a for a in CATALOG if a.torch_module], ids=lambda a: a.name)
@pytest.mark.parametrize("training", [False, True])
def test_torch_s_module(activation, training):
    cls = getattr(nn, activation.torch_module)
    if cls is nn.Identity:
        assert len(identify(Between(cls()), X)) == 0
        return
    known = inspect.signature(cls).parameters
    given = {n: v for n, v in moved(activation).items() if n in known}
    if cls is nn.PReLU:
        given = {"init": moved(activation)["weight"]}
    if activation.kind == "normalizer":
        given = {"dim": -1}
    module = cls(**given, **activation.torch_arguments)
    model = Between(module, 3 if activation.kind == "gated" else 6).train(training)
    for site in (only_site(model), *identify(model)):
        assert site.activation == activation.name
        assert site.implementation == f"torch.nn.modules.{cls.__module__.rpartition('.')[2]}.{cls.__name__}"
        wanted = moved(activation) if activation.kind == "elementwise" else {}
        held = {name: value for name, value in wanted.items() if name in known or name == "weight"}
        assert {name: site.parameters[name] for name in held} == pytest.approx(held)


@pytest.mark.parametrize("activation", [a for a in CATALOG if a.torch], ids=lambda a: a.name)
def test_torch_s_function(activation):
    function = getattr(F, activation.torch)
    given = dict(activation.torch_arguments)
    given |= {name: torch.tensor([p.default]) for name, p in activation.parameters.items() if p.learnable}
    if activation.kind == "normalizer":
        given = {"dim": -1}
    model = Between(lambda x: function(x, **given), 3 if activation.kind == "gated" else 6)
    site = only_site(model)
    assert (site.activation, site.evidence, site.form) == (activation.name, "observed", "functional")
    assert site.implementation in (f"torch.nn.functional.{activation.torch}", f"torch.Tensor.{activation.torch}")


def softplus(x):
    return torch.log1p(torch.exp(-x.abs())) + x.clamp(min=0)


def erf(x):
    return (1 + torch.erf(x / 2**0.5)) / 2


def xielu(x, alpha_p=1.3, alpha_n=-0.7, beta=0.5, eps=-1e-6):
    p, n = math.log1p(math.exp(alpha_p)), beta + math.log1p(math.exp(alpha_n))
    return torch.where(x > 0, p * x * x + beta * x, (torch.expm1(torch.min(x, torch.tensor(eps))) - x) * n + beta * x)


def sparsemax(x):
    z = x.sort(-1, descending=True).values
    k = torch.arange(1, x.shape[-1] + 1)
    size = (1 + k * z > z.cumsum(-1)).sum(-1, keepdim=True)
    return (x - (z.cumsum(-1).gather(-1, size - 1) - 1) / size).clamp(min=0)


# name: (parameters, as people write it)
BY_HAND = {
    "relu": ({}, lambda x: x.clamp(min=0)),
    "relu6": ({}, lambda x: x.clamp(0, 6)),
    "relu2": ({}, lambda x: torch.square(F.relu(x))),
    "leaky_relu": ({"negative_slope": 0.2}, lambda x: torch.where(x > 0, x, 0.2 * x)),
    "thresholded_relu": ({"threshold": 0.7}, lambda x: x * (x > 0.7)),
    "hardtanh": ({"min_val": -2.0, "max_val": 1.5}, lambda x: torch.clamp(x, -2.0, 1.5)),
    "elu": ({"alpha": 0.7}, lambda x: torch.where(x > 0, x, 0.7 * (torch.exp(x) - 1))),
    "celu": ({"alpha": 0.6}, lambda x: x.clamp(min=0) + (0.6 * (torch.exp(x / 0.6) - 1)).clamp(max=0)),
    "selu": ({}, lambda x: 1.0507009873554805 * torch.where(x > 0, x, 1.6732632423543772 * torch.expm1(x))),
    "hardswish": ({}, lambda x: x * (x + 3).clamp(0, 6) / 6),
    "sigmoid": ({}, lambda x: 1 / (1 + torch.exp(-x))),
    "hardsigmoid": ({}, lambda x: F.relu6(x + 3) / 6),
    "tanh": ({}, lambda x: 2 / (1 + torch.exp(-2 * x)) - 1),
    "softcap": ({"cap": 50.0}, lambda x: torch.tanh(x / 50.0) * 50.0),
    "softsign": ({}, lambda x: x / (1 + x.abs())),
    "laplace": ({"mu": 0.707107, "sigma": 0.282095}, lambda x: erf((x - 0.707107) / 0.282095)),
    "silu": ({}, lambda x: x / (1 + torch.exp(-x))),
    "gelu": ({}, lambda x: x * erf(x)),
    "gelu_tanh": ({}, lambda x: 0.5 * x * (1 + torch.tanh(0.7978845608 * x * (1 + 0.044715 * x * x)))),
    "quick_gelu": ({}, lambda x: x * torch.sigmoid(1.702 * x)),
    "swish": ({"beta": 1.773}, lambda x: x * torch.sigmoid(1.773 * x)),
    "mish": ({}, lambda x: x * torch.tanh(softplus(x))),
    "softplus": ({"beta": 2.0, "threshold": math.inf}, lambda x: softplus(2 * x) / 2),
    "logsigmoid": ({}, lambda x: torch.log(torch.sigmoid(x))),
    "sqrt_softplus": ({}, lambda x: softplus(x).sqrt()),
    "squareplus": ({"b": 1.5}, lambda x: (x + torch.sqrt(x**2 + 1.5)) / 2),
    "sparse_plus": ({}, lambda x: torch.where(x <= -1, 0.0, torch.where(x < 1, (x + 1) ** 2 / 4, x))),
    "hardshrink": ({"lambd": 0.3}, lambda x: x * (x.abs() > 0.3)),
    "softshrink": ({"lambd": 0.3}, lambda x: torch.sign(x) * (x.abs() - 0.3).clamp(min=0)),
    "tanhshrink": ({}, lambda x: x - torch.tanh(x)),
    "xielu": ({"alpha_p": 1.3, "alpha_n": -0.7, "beta": 0.5, "eps": -1e-6}, xielu),
    "glu": ({}, lambda g, u: u * torch.sigmoid(g)),
    "reglu": ({}, lambda g, u: g.clamp(min=0) * u),
    "geglu": ({}, lambda g, u: g * erf(g) * u),
    "swiglu": ({}, lambda g, u: g * torch.sigmoid(g) * u),
    "swiglu_oai": ({"alpha": 1.5, "limit": 5.0}, lambda g, u: gpt_oss(g, u, 1.5, 5.0)),
    "swiglu_clamped": ({"limit": 7.0}, lambda g, u: F.silu(g.clamp(max=7.0)) * u.clamp(-7.0, 7.0)),
    "situ_glu": (
        {"gate_cap": 3.0, "up_cap": 20.0},
        lambda g, u: torch.sigmoid(g) * (3.0 * torch.tanh(g / 3.0)) * (20.0 * torch.tanh(u / 20.0)),
    ),
}  # fmt: skip
# The same function as a simpler entry (prelu, rrelu), nothing at all, or over a dimension
NOT_BY_HAND = {"identity", "prelu", "rrelu", "softmax", "log_softmax", "sparsemax", "gumbel_softmax"}


def gpt_oss(gate, up, alpha=1.702, limit=7.0):
    gate, up = gate.clamp(min=None, max=limit), up.clamp(min=-limit, max=limit)
    return (up + 1) * (gate * torch.sigmoid(gate * alpha))


def test_every_entry_is_written_by_hand():
    assert BY_HAND.keys() | NOT_BY_HAND == {a.name for a in CATALOG}


@pytest.mark.parametrize("name", BY_HAND)
def test_written_by_hand(name):
    parameters, function = BY_HAND[name]
    activation = softknee.get(name)
    if activation.kind == "gated":
        site = only_site(Gated(function))
        assert (site.role, site.preceded_by) == ("gate", "gate")
        assert "up from up" in site.note
    else:
        site = only_site(Between(function))
        assert site.preceded_by == "a"
    assert site.activation == name
    assert site.parameters == pytest.approx(parameters, rel=1e-6)
    assert site.measured


@pytest.mark.parametrize("name", sorted({a.name for a in CATALOG if a.kind == "elementwise"} & BY_HAND.keys()))
def test_written_by_hand_as_a_module_of_its_own(name):
    parameters, function = BY_HAND[name]

    class Custom(nn.Module):
        def forward(self, x):
            return function(x)

    site = only_site(Between(Custom()))
    assert site.activation == name
    assert site.parameters == pytest.approx(parameters, rel=1e-6)


def test_sparsemax_by_hand_is_told_as_a_function():
    assert identify(sparsemax).sites[0].activation == "sparsemax"


class Packed(nn.Module):
    """One projection to gate and up, as gpt-oss (interleaved, batched over experts) or MiniMax (halves) have it."""

    def __init__(self, function, interleaved=False):
        super().__init__()
        self.weight, self.bias = nn.Parameter(torch.randn(2, 6, 16)), nn.Parameter(torch.zeros(2, 1, 16))
        self.down = nn.Parameter(torch.randn(2, 8, 6))
        self.function, self.interleaved = function, interleaved

    def forward(self, x):
        packed = torch.bmm(x.expand(2, *x.shape), self.weight) + self.bias
        gate, up = (packed[..., ::2], packed[..., 1::2]) if self.interleaved else packed.chunk(2, -1)
        return torch.bmm(self.function(gate, up), self.down).sum(0)


def in_place(gate, up):
    gate.clamp_(max=7.0)
    up.clamp_(-7.0, 7.0)
    return gate.mul(torch.sigmoid(1.702 * gate)).mul_(up.add_(1))


SILU = nn.SiLU()


def with_modules(gate, up):
    gate, up = gate.float().clamp(max=10.0), up.float().clamp(min=-10.0, max=10.0)
    return (SILU(gate) * up).to(gate.dtype)


def nested(gate, up):
    return torch.sigmoid(gate) * ((4 * torch.tanh(gate / 4)) * (25 * torch.tanh(up / 25)))


@pytest.mark.parametrize(
    ("function", "name"),
    [
        (gpt_oss, "swiglu_oai"), (in_place, "swiglu_oai"), (with_modules, "swiglu_clamped"), (nested, "situ_glu"),
        (lambda gate, up: gpt_oss(up, gate), "swiglu_oai"),
    ],
)  # fmt: skip
@pytest.mark.parametrize("interleaved", [False, True])
def test_clamped_gates_of_packed_projections(function, name, interleaved):
    site = only_site(Packed(function, interleaved))
    assert (site.activation, site.role) == (name, "gate")
    assert site.parameters == softknee.get(name).defaults


@pytest.mark.parametrize(
    "function",
    [
        lambda g, u: F.silu(g).clamp(max=7) * u.clamp(-7, 7),  # clamped after
        lambda g, u: gpt_oss(g, u, alpha=1.702 + 0.1 * u),
        lambda g, u: g.clamp(max=7) * torch.sigmoid(1.702 * g) * (u.clamp(-7, 7) + 1),  # the sigmoid is not clamped
        lambda g, u: g.clamp(-7, 7) * torch.sigmoid(1.702 * g.clamp(-7, 7)) * (u.clamp(max=7) + 1),  # the wrong half
    ],
)
def test_near_misses_of_clamped_gates(function):
    names = [site.activation for site in identify(Gated(function), X)]
    assert names and not {"swiglu_oai", "swiglu_clamped", "situ_glu"} & set(names)


def test_a_gate_written_by_hand_is_watched_as_the_product():
    model = Gated(gpt_oss)
    census = identify(model, X)
    seen = []
    with Observer(model, after=lambda call, output: seen.append((call.key, call.name, output)), census=census):
        model(X)
    ((key, name, output),) = seen
    assert (key, name) == ("#0", "swiglu_oai")
    torch.testing.assert_close(output, softknee.functional.swiglu_oai(model.gate(X), model.up(X)))


ACT2FN = {  # as the forwards of transformers' classes read
    "NewGELU": (
        "gelu_tanh",
        lambda x: 0.5 * x * (1.0 + torch.tanh((2 / math.pi) ** 0.5 * (x + 0.044715 * x.pow(3.0)))),
    ),
    "FastGELU": ("gelu_tanh", lambda x: 0.5 * x * (1.0 + torch.tanh(x * 0.7978845608 * (1.0 + 0.044715 * x * x)))),
    "GELU": ("gelu", lambda x: x * 0.5 * (1.0 + torch.erf(x / math.sqrt(2.0)))),
    "QuickGELU": ("quick_gelu", lambda x: x * torch.sigmoid(1.702 * x)),
    "Laplace": ("laplace", lambda x: 0.5 * (1.0 + torch.erf((x - 0.707107).div(0.282095 * math.sqrt(2.0))))),
    "ReLUSquared": ("relu2", lambda x: torch.square(F.relu(x))),
    "SqrtSoftplus": ("sqrt_softplus", lambda x: F.softplus(x).sqrt()),
    "Mish": ("mish", lambda x: x * torch.tanh(F.softplus(x))),
    "Linear": (None, lambda x: x),
}


@pytest.mark.parametrize("name", ACT2FN)
def test_classes_of_transformers(name):
    wanted, function = ACT2FN[name]

    class Custom(nn.Module):
        def forward(self, input):
            return function(input)

    assert [s.activation for s in identify(Between(Custom()), X)] == ([wanted] if wanted else [])


def test_the_xielu_of_transformers():
    class XIELU(nn.Module):
        def __init__(self):
            super().__init__()
            self.alpha_p = nn.Parameter(torch.log(torch.expm1(torch.tensor([0.8]))))
            self.alpha_n = nn.Parameter(torch.log(torch.expm1(torch.tensor([0.8 - 0.5]))))
            self.register_buffer("beta", torch.tensor(0.5))
            self.register_buffer("eps", torch.tensor(-1e-6))

        def forward(self, x):
            p, n = F.softplus(self.alpha_p), self.beta + F.softplus(self.alpha_n)
            left = (torch.expm1(torch.min(x, self.eps)) - x) * n + self.beta * x
            return torch.where(x > 0, p * x * x + self.beta * x, left)

    site = only_site(Between(XIELU()))
    assert site.activation == "xielu"
    assert site.parameters == pytest.approx(softknee.get("xielu").defaults, rel=1e-6)
