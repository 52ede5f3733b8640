"""Modules: PyTorch's names, arguments and state, learned parameters per channel, packed gates, errors."""

from __future__ import annotations

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


def test_errors():
    with pytest.raises(InputError, match="softmax needs dim"):
        sn.Softmax()
    with pytest.raises(InputError, match="channels must be at least 1"):
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


def test_learned_parameters_of_a_block_have_its_dtype_and_device():
    block = sn.FeedForward(4, activation="prelu", dtype=torch.bfloat16, device="meta")
    assert {(p.dtype, p.device.type) for p in block.parameters()} == {(torch.bfloat16, "meta")}
