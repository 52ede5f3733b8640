"""Modules: PyTorch's names, arguments and state, learned parameters per channel, packed gates, errors."""

from __future__ import annotations

import copy
import inspect
import math
import pickle
import re

import pytest
import torch
from torch import nn

import softknee
import softknee.nn as sn
from softknee.errors import InputError

X = torch.randn(2, 3, 4, 5, generator=torch.Generator().manual_seed(0))


@pytest.mark.parametrize(
    ("name", "arguments"),
    [
        ("ReLU", ()), ("LeakyReLU", (0.2,)), ("ELU", (0.5,)), ("SELU", ()), ("GELU", ()), ("SiLU", ()), ("Mish", ()),
        ("Sigmoid", ()), ("Tanh", ()),
        ("Softplus", (2.0,)), ("Hardswish", ()), ("Softmax", (1,)), ("LogSoftmax", (-1,)),
        ("Identity", ()), ("PReLU", ()), ("PReLU", (3, 0.1)),
    ],
)  # fmt: skip
def test_equals_torch(name, arguments):
    mine, theirs = getattr(sn, name)(*arguments), getattr(nn, name)(*arguments)
    torch.testing.assert_close(mine(X), theirs(X))
    assert {k: v.shape for k, v in mine.state_dict().items()} == {k: v.shape for k, v in theirs.state_dict().items()}
    mine.load_state_dict(theirs.state_dict())


def test_gelu_variants_and_glu():
    torch.testing.assert_close(sn.GELU("tanh")(X), nn.GELU("tanh")(X))
    torch.testing.assert_close(sn.GLU(2)(X), nn.GLU(2)(X))
    with pytest.raises(InputError, match="must be one of none, tanh"):
        sn.GELU("fast")


def test_learned_per_channel():
    prelu = sn.PReLU(3)
    prelu(X).sum().backward()
    theirs = nn.PReLU(3)
    theirs(X).sum().backward()
    torch.testing.assert_close(prelu.weight.grad, theirs.weight.grad)
    with pytest.raises(InputError, match="4 channels, but the input of shape .* has 3 in dimension 1"):
        sn.PReLU(4)(X)
    with pytest.raises(InputError, match="has no in dimension|no"):
        sn.PReLU(4)(torch.tensor(1.0))
    assert sn.PReLU()(torch.tensor(-1.0)).shape == ()


@pytest.mark.parametrize("shape", [(2,), (4,), (0,), (3, 1), (1, 3)], ids=str)
def test_learned_values_that_do_not_fit_the_channels(shape):
    message = rf"prelu: weight of shape {re.escape(str(shape))} does not fit channels=3; it must be one value, or 3"
    with pytest.raises(InputError, match=message):
        sn.Activation("prelu", channels=3, weight=torch.rand(shape))
    with pytest.raises(InputError, match="does not fit channels=1; it must be one value$"):
        sn.Activation("prelu", weight=torch.rand(2))
    for value in (torch.tensor(0.1), torch.tensor([0.1]), torch.tensor([0.1, 0.2, 0.3])):
        weight = sn.Activation("prelu", channels=3, weight=value).weight
        assert torch.equal(weight.detach(), value.expand(3))


@pytest.mark.parametrize("channels", [2.5, "3", True, None, -1])
def test_channels_are_a_whole_number(channels):
    with pytest.raises(InputError, match=f"channels must be a whole number of at least 1, got {channels!r}"):
        sn.Activation("prelu", channels=channels)


def test_any_parameter_may_be_learned():
    elu = sn.Activation("elu", learn=("alpha",), channels=3)
    elu(X).sum().backward()
    assert elu.alpha.grad.shape == (3,)
    with pytest.raises(InputError, match="no parameter 'beta' to learn"):
        sn.Activation("elu", learn=("beta",))


def test_a_temperature_may_be_learned():
    softmax = sn.Activation("softmax", dim=-1, learn=("temperature",), temperature=2.0)
    torch.testing.assert_close(softmax(X), torch.softmax(X / 2, -1))
    (softmax(X) ** 2).sum().backward()
    assert softmax.temperature.grad.item() != 0
    with pytest.raises(InputError, match="channels must be 1, got 3"):
        sn.Activation("softmax", dim=-1, channels=3)


def test_a_tensor_that_would_be_no_state_is_refused():
    with pytest.raises(InputError, match=r"alpha is a tensor; to learn it pass learn=\('alpha',\)"):
        sn.Activation("elu", alpha=torch.tensor(0.5))
    assert sn.Activation("elu", alpha=torch.tensor(0.5), learn=("alpha",)).alpha.item() == 0.5


def test_gated_module_takes_two_tensors_or_one_packed():
    gate, up = torch.randn(2, 4, 6)
    for layout, packed in (
        ("gate_up", torch.cat([gate, up], -1)),
        ("up_gate", torch.cat([up, gate], -1)),
        ("interleaved", torch.stack([gate, up], -1).flatten(-2)),
    ):
        assert torch.equal(sn.Activation("swiglu", layout=layout)(packed), sn.SwiGLU()(gate, up))


def test_ones_own_gated_activation():
    @softknee.gated
    def mishglu(gate, up, ops, *, scale=1.0):
        """scale·mish(gate)·up."""
        return scale * softknee.get("mish").on(ops, gate) * up

    gate, up = torch.randn(2, 4, 6)
    packed = torch.cat([gate, up], -1)
    wanted = 2.0 * nn.functional.mish(gate) * up
    torch.testing.assert_close(mishglu(gate, up, scale=2.0), wanted)
    torch.testing.assert_close(sn.Activation(mishglu, scale=2.0)(packed), wanted)
    torch.testing.assert_close(softknee.functional.function(mishglu)(packed, scale=2.0), wanted)
    assert sn.GatedFeedForward(6, activation=mishglu)(gate).shape == gate.shape
    assert mishglu.facts.gain == softknee.get("mish").facts.gain


def test_repr():
    assert repr(sn.LeakyReLU(0.2)) == "LeakyReLU(negative_slope=0.2)"
    assert repr(sn.Activation("silu")) == "Activation('silu')"
    assert repr(sn.ReLU(inplace=True)) == "ReLU(inplace=True)"
    assert repr(sn.PReLU(3)) == "PReLU(weight: 3 learned)"
    assert repr(sn.GELU("tanh")) == "GELU(approximate='tanh')"
    assert repr(sn.RReLU(0.1, 0.3)) == "RReLU(lower=0.1, upper=0.3)"
    assert repr(sn.SwiGLUOAI(limit=5.0, layout="gate_up")) == "SwiGLUOAI(limit=5.0, layout='gate_up')"
    assert repr(sn.Activation("gumbel_softmax", hard=True)) == "Activation('gumbel_softmax', hard=True, dim=-1)"


def test_errors():
    with pytest.raises(InputError, match="softmax needs dim"):
        sn.Softmax()
    with pytest.raises(InputError, match="channels must be a whole number of at least 1, got 0"):
        sn.Activation("prelu", channels=0)
    with pytest.raises(AttributeError, match="no attribute 'SiLo'"):
        _ = sn.SiLo


def test_feed_forward_blocks():
    block, gated = sn.FeedForward(96), sn.GatedFeedForward(96)
    x = torch.randn(2, 7, 96)
    assert block(x).shape == gated(x).shape == x.shape
    count = lambda m: sum(p.numel() for p in m.parameters())  # noqa: E731
    assert gated.up.out_features == 256
    assert count(gated) == pytest.approx(count(sn.FeedForward(96, bias=False)), rel=0.01)
    assert "hidden=256" in repr(gated) and "ungated block with hidden=384" in repr(gated) and "73,728" in repr(gated)
    wanted = gated.down(torch.nn.functional.silu(gated.gate(x)) * gated.up(x))
    torch.testing.assert_close(gated(x), wanted)
    assert sn.GatedFeedForward(8, 24, "geglu")(x[..., :8]).shape == (2, 7, 8)


@pytest.mark.parametrize(
    ("build", "message"),
    [
        (lambda: sn.FeedForward(0), "dim must be a positive integer, got 0"),
        (lambda: sn.FeedForward(4, activation="swiglu"), "swiglu is gated, .* use nn.GatedFeedForward"),
        (lambda: sn.GatedFeedForward(4, activation="silu"), "silu is elementwise, .* use nn.FeedForward"),
        (lambda: sn.GatedFeedForward(4, multiple_of=0), "multiple_of"),
        (lambda: sn.FeedForward(4, hidden=2.5), "hidden must be a positive integer, got 2.5"),
        (lambda: sn.GatedFeedForward(2.5), "dim must be a positive integer, got 2.5"),
        (lambda: sn.GatedFeedForward(4, multiple_of=2.5), "multiple_of must be a positive integer, got 2.5"),
        (lambda: sn.GatedFeedForward(2, expansion=0.01), "expansion=0.01 does not fit dim=2"),
        (lambda: sn.GatedFeedForward(2, expansion=-1), "expansion=-1 does not fit dim=2"),
        (lambda: sn.GatedFeedForward(2, expansion=math.nan), "expansion=nan does not fit dim=2"),
        (lambda: sn.GatedFeedForward(2, expansion=math.inf), "expansion=inf does not fit dim=2"),
        (
            lambda: sn.FeedForward(8, activation="elu", beta=1.0),
            "elu has no parameter 'beta'; its parameters are alpha",
        ),
        (lambda: sn.GatedFeedForward(8, limit=5.0), "swiglu has no parameter 'limit'; it has none"),
        (lambda: sn.FeedForward(8, activation="prelu", channels=8), "prelu has no parameter 'channels'"),
        (lambda: sn.FeedForward(8, activation="elu", alpha=math.nan), "elu: alpha must not be NaN"),
        (lambda: sn.SwiGLU(inplace=True), "swiglu is gated and does not work in place"),
        (lambda: sn.Softmax(-1, inplace=True), "softmax is normalizer and does not work in place"),
        (lambda: sn.Softmax(True), "softmax: dim must be a whole number, got True"),
        (lambda: sn.GLU(False), "glu: dim must be a whole number, got False"),
        (lambda: sn.FeedForward(True), "dim must be a positive integer, got True"),
        (lambda: sn.SwiGLU(layout="packed"), "layout='packed' is unknown; .* gate_up, up_gate, interleaved"),
        (lambda: sn.Activation("relu", layout="gate_up"), "for a gated activation"),
        (lambda: sn.Activation("elu", learn="alpha"), "learn must be a tuple of names, got the string 'alpha'"),
        (lambda: sn.init.xavier_(torch.empty(2, 2), gain=-1.0), "gain must be above 0"),
    ],
)
def test_errors_of_blocks_and_modules(build, message):
    with pytest.raises(InputError, match=message):
        build()


def test_a_block_passes_parameters_on():
    x = torch.randn(2, 5, 8)
    block = sn.FeedForward(8, activation="leaky_relu", negative_slope=0.2)
    torch.testing.assert_close(block(x), block.down(nn.functional.leaky_relu(block.up(x), 0.2)))
    gated = sn.GatedFeedForward(8, activation="swiglu_oai", limit=0.5)
    wanted = softknee.get("swiglu_oai")(gated.gate(x), gated.up(x), limit=0.5)
    torch.testing.assert_close(gated(x), gated.down(wanted))
    assert "limit=0.5" in repr(gated)


def test_learned_parameters_of_a_block_have_its_dtype_and_device():
    block = sn.FeedForward(4, activation="prelu", dtype=torch.bfloat16, device="meta")
    assert {(p.dtype, p.device.type) for p in block.parameters()} == {(torch.bfloat16, "meta")}


def _torch_classes():
    for activation in softknee.activations():
        if activation.torch_module and activation.torch_arguments.get("approximate") != "tanh":
            yield pytest.param(activation, getattr(nn, activation.torch_module), id=activation.torch_module)


# One call per class, positional, in torch's own order; what has no number of its own (inplace) is True
VALUES = {
    "min_val": -2.0, "max_val": 1.5, "lower": 0.1, "upper": 0.3, "dim": 1, "num_parameters": 3, "init": 0.4,
    "approximate": "tanh", "threshold": 15.0, "value": 0.7, "alpha": 1.3, "lambd": 0.3, "negative_slope": 0.2,
    "beta": 2.0,
}  # fmt: skip


@pytest.mark.parametrize(("activation", "theirs"), list(_torch_classes()))
def test_every_class_takes_torch_s_arguments(activation, theirs):
    deprecated = {"min_value", "max_value"}
    known = [
        p.name for p in inspect.signature(theirs).parameters.values()
        if p.kind is p.POSITIONAL_OR_KEYWORD and p.name not in deprecated | {"device", "dtype"}
    ]  # fmt: skip
    mine = getattr(sn, activation.torch_module)
    packed = torch.randn(4, 6, 8)
    x = packed[:, :3] if "num_parameters" in known else packed
    required = sum(inspect.signature(theirs).parameters[n].default is inspect.Parameter.empty for n in known)
    for count in range(required, len(known) + 1):
        given = [True if name == "inplace" else VALUES[name] for name in known[:count]]
        if activation.kind == "normalizer" and not given:
            with pytest.raises(InputError, match="needs dim"):  # where PyTorch guesses, and warns
                mine()
            continue
        ours, reference = mine(*given).eval(), theirs(*given).eval()
        torch.testing.assert_close(ours(x.clone()), reference(x.clone()))
        by_name = mine(**dict(zip(known, given, strict=False))).eval()
        assert torch.equal(by_name(x.clone()), ours(x.clone()))
        for name in known[:count]:
            if hasattr(reference, name):
                assert getattr(ours, name) == getattr(reference, name)
        a = x.clone()
        assert (ours(a) is a) == bool(getattr(reference, "inplace", False)) or theirs is nn.Identity
        assert ours.state_dict().keys() == reference.state_dict().keys()
        ours.load_state_dict(reference.state_dict())
        reference.load_state_dict(ours.state_dict())


def test_rrelu_follows_the_mode():
    module, x = sn.Activation("rrelu", lower=0.1, upper=0.3), -torch.ones(2000)
    drawn = module(x)
    assert -0.3 <= drawn.min() < -0.28 and -0.12 < drawn.max() <= -0.1
    assert torch.equal(module.eval()(x), nn.RReLU(0.1, 0.3).eval()(x))
    assert not torch.equal(module.train()(x), drawn)


# smu's slope of a million is not found from another, nor srelu's t_right while its a_right is nearly 1
LEARNABLE = [
    a
    for a in softknee.activations()
    if any(p.learnable for p in a.parameters.values()) and not a.stochastic and a.name not in ("smu", "srelu")
]


@pytest.mark.parametrize("channels", [1, 3])
@pytest.mark.parametrize("activation", LEARNABLE, ids=lambda a: a.name)
def test_learnable_ones_learn(activation, channels):
    module = sn.Activation(activation, channels=channels)
    learned = {n for n, p in activation.parameters.items() if p.learnable}
    assert {n: tuple(p.shape) for n, p in module.named_parameters()} == dict.fromkeys(learned, (channels,))
    wanted = {n: activation.parameters[n].default * (1.5 if activation.core else 0.9) + 0.1 for n in learned}
    target = activation(X, **wanted)
    optimizer = torch.optim.Adam(module.parameters(), 0.05)
    losses = []
    for _ in range(300):
        loss = ((module(X) - target) ** 2).mean()
        losses.append(loss.item())
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
    assert losses[-1] <= 1e-2 * losses[0]
    for name, parameter in module.named_parameters() if len(learned) < 5 else ():  # pau's may be others
        torch.testing.assert_close(parameter.detach(), torch.full((channels,), wanted[name]), atol=0.02, rtol=0)
    with pytest.raises(InputError, match="has 4 channels, but the input of shape .* has 3 in dimension 1"):
        sn.Activation(activation, channels=4)(X)
    again = sn.Activation(activation, channels=channels)
    again.load_state_dict(module.state_dict())
    assert torch.equal(again(X), module(X))


def test_a_checkpoint_of_transformers_xielu_loads():
    # which keeps beta and eps as buffers
    state = {
        "act.alpha_p": torch.tensor([0.7]), "act.alpha_n": torch.tensor([-0.4]),
        "act.beta": torch.tensor(0.25), "act.eps": torch.tensor(-1e-5),
    }  # fmt: skip
    model = nn.ModuleDict({"act": sn.XIELU()})
    model.load_state_dict(state)
    wanted = softknee.functional.xielu(X, alpha_p=0.7, alpha_n=-0.4, beta=0.25, eps=torch.tensor(-1e-5).item())
    torch.testing.assert_close(model["act"](X), wanted)
    assert model["act"].beta == 0.25
    assert set(state) == {"act.alpha_p", "act.alpha_n", "act.beta", "act.eps"}  # as it was
    with pytest.raises(RuntimeError, match="Unexpected key.*gamma"):
        model.load_state_dict(state | {"act.gamma": torch.tensor(1.0)})
    with pytest.raises(RuntimeError, match="Missing key.*alpha_n"):
        model.load_state_dict({"act.alpha_p": torch.tensor([0.7])})
    for wrong in (torch.ones(3), torch.ones(0)):
        with pytest.raises(InputError, match=rf"act.beta must be one value, .* shape \({len(wrong)},\)"):
            model.load_state_dict(state | {"act.beta": wrong})
    clamped = nn.ModuleDict({"act": sn.SwiGLUClamped()})
    with pytest.raises(InputError, match="limit=-1.0 is out of range"):
        clamped.load_state_dict({"act.limit": torch.tensor(-1.0)})


@pytest.mark.parametrize("activation", [a for a in softknee.activations() if a.kind == "gated"], ids=lambda a: a.name)
def test_gated_feed_forward_of_every_gated_entry(activation):
    block, x = sn.GatedFeedForward(6, activation=activation.name), torch.randn(2, 5, 6)
    torch.testing.assert_close(block(x), block.down(activation(block.gate(x), block.up(x))))
    block(x).sum().backward()
    assert all(p.grad is not None for p in block.parameters())


def test_settings_are_attributes_and_inplace_is_a_switch():
    assert sn.LeakyReLU(0.2).negative_slope == 0.2
    assert (sn.Hardtanh(-2, 3).min_val, sn.Hardtanh(-2, 3).max_val) == (-2.0, 3.0)
    assert copy.deepcopy(sn.ELU(0.5)).alpha == pickle.loads(pickle.dumps(sn.ELU(0.5))).alpha == 0.5
    with pytest.raises(AttributeError, match="no attribute 'slope'"):
        _ = sn.LeakyReLU().slope
    assert sn.Swish(2.0).beta.item() == 2.0
    with pytest.raises(InputError, match="inplace must be True or False, got 2.0"):
        sn.ReLU(2.0)
    with pytest.raises(TypeError, match="Swish takes beta, inplace; got 3 arguments"):
        sn.Swish(1.0, False, 3)


@pytest.mark.parametrize("module", [sn.LeakyReLU(0.2), sn.Swish(1.5), sn.XIELU(), sn.Hardtanh(-2, 2)], ids=repr)
def test_modules_compile_without_a_break(module):
    torch.testing.assert_close(torch.compile(module, fullgraph=True, backend="eager")(X), module(X))


def test_setting_an_attribute_changes_the_function():
    module = softknee.nn.LeakyReLU()
    module.negative_slope = 0.5
    assert module(torch.tensor(-2.0)).item() == -1.0 and "negative_slope=0.5" in repr(module)
    window = softknee.nn.Hardtanh(-2, 2)
    with pytest.raises(InputError, match="min_val=3.0, max_val=2.0 is out of range"):
        window.min_val = 3.0
    assert window.min_val == -2.0
