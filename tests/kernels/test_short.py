"""The short way of a call: the long way's answers; what backward keeps; in place; no gradient lost."""

from __future__ import annotations

import math

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor

import softknee
import softknee.functional as SF
from softknee.errors import InputError
from softknee.kernels import cpu, native, paths
from softknee.kernels.output import keeps_output

pytestmark = pytest.mark.skipif(not cpu.available(), reason="the kernels are not compiled here")

HALVES = (torch.bfloat16, torch.float16)
UNARY = [a for a in softknee.activations() if a.kind == "elementwise" and cpu.operators(a) is not None]
RELUS = {"relu", "relu6", "prelu", "leaky_relu", "thresholded_relu", "hardtanh", "hardshrink"}
SETTINGS = [
    (a, tuple(a.defaults.values()))
    for a in UNARY
] + [
    (softknee.get(name), values)
    for name, values in (
        ("leaky_relu", (3.0,)), ("leaky_relu", (1e-7,)), ("leaky_relu", (-0.5,)),
        ("hardtanh", (-0.1, 0.1)), ("hardtanh", (-0.7, 0.7)), ("hardtanh", (1.0, 2.0)), ("hardtanh", (-math.inf, 0.3)),
        ("hardshrink", (0.3,)), ("hardshrink", (-1.0,)), ("thresholded_relu", (-1.0,)), ("thresholded_relu", (0.7,)),
    )
]  # fmt: skip


def every(dtype: torch.dtype) -> Tensor:
    """Every number of half precision; of float32 those that have as few bits, and their neighbours."""
    if dtype in HALVES:
        return torch.arange(-(1 << 15), 1 << 15, dtype=torch.int32).to(torch.int16).view(dtype)
    few = torch.arange(-(1 << 15), 1 << 15, dtype=torch.int32) << 16
    near = torch.tensor([0.1, 0.3, 0.7, 6.0]).view(torch.int32)
    return torch.cat([start + step for start in (few, near, near + (-(1 << 31))) for step in (-1, 0, 1)]).view(dtype)


@pytest.mark.parametrize("dtype", [torch.float32, *HALVES], ids=lambda d: str(d).removeprefix("torch."))
def test_the_output_serves_where_it_is_kept(dtype):
    x = every(dtype)
    ones = torch.ones_like(x)
    kept, at_defaults = [], set()
    for activation, values in SETTINGS:
        forward, _, backward = cpu.operators(activation)
        same = torch.equal(backward(ones, forward(x, *values), *values), wanted := backward(ones, x, *values))
        if keeps_output(activation, values, dtype):
            kept.append((activation, values))
            assert same, f"{activation.name}{values}"
            if values == tuple(activation.defaults.values()):
                at_defaults.add(activation.name)
        # where it is not kept, that is for a reason
        elif wanted.nan_to_num().unique().numel() <= 3 and dtype in HALVES:
            assert not same, f"{activation.name}{values}"
    assert at_defaults == RELUS
    assert len(kept) > len(at_defaults)


@pytest.mark.parametrize("dtype", [torch.float32, *HALVES], ids=lambda d: str(d).removeprefix("torch."))
def test_the_bits_do_not_depend_on_the_size(dtype):
    x = every(dtype)
    found = [a for a in UNARY if a.torch is not None and paths.same_bits(a, dtype)]
    assert softknee.get("relu6") in found
    for activation in found:
        values = tuple(activation.defaults.values())
        forward, _, backward = cpu.operators(activation)
        leaf = x.clone().requires_grad_()
        theirs = native.call(activation, leaf, activation.defaults)
        ours, slope = forward(x, *values), backward(torch.ones_like(x), x, *values)
        torch.testing.assert_close(ours, theirs.detach(), rtol=0, atol=0, equal_nan=True)
        (wanted,) = torch.autograd.grad(theirs, leaf, torch.ones_like(x))
        number = ~x.isnan()  # where f is NaN, f′ is not specified: 1 or 0 of relu
        assert torch.equal(slope[number], wanted[number]), activation.name


def kept(call) -> set[int]:
    """The places of the memory that backward keeps."""
    found = set()

    def pack(t: Tensor) -> Tensor:
        found.add(t.untyped_storage().data_ptr())
        return t

    with torch.autograd.graph.saved_tensors_hooks(pack, lambda t: t):
        kept.result = call()
    return found


@pytest.mark.parametrize("dtype", [torch.float32, *HALVES], ids=lambda d: str(d).removeprefix("torch."))
def test_backward_keeps_what_is_alive_anyway(dtype):
    for name in ("relu", "thresholded_relu"):
        x = torch.randn(64, requires_grad=True, dtype=dtype)
        assert kept(lambda x=x, name=name: getattr(SF, name)(x)) == {kept.result.untyped_storage().data_ptr()}
    for activation in softknee.activations():
        if activation.kind != "elementwise" or activation.stochastic:
            continue
        x = torch.randn(64, requires_grad=True, dtype=dtype)
        places = kept(lambda x=x, activation=activation: activation(x))
        alive = {x.untyped_storage().data_ptr(), kept.result.untyped_storage().data_ptr()}
        # prelu's weight is an input, too, where PyTorch's op computes it
        assert len(places) <= 1 and (places <= alive or activation.name == "prelu"), activation.name
    for activation in softknee.activations():
        if activation.kind == "gated":
            gate, up = (torch.randn(64, requires_grad=True, dtype=dtype) for _ in range(2))
            places = kept(lambda gate=gate, up=up, activation=activation: activation(gate, up))
            assert places <= {gate.untyped_storage().data_ptr(), up.untyped_storage().data_ptr()}, activation.name


def test_a_changed_output_is_noticed():
    for dtype in (torch.float32, torch.bfloat16):
        x = torch.randn(8, dtype=dtype, requires_grad=True)
        y = SF.relu(x)
        y.mul_(2)
        with pytest.raises(RuntimeError, match="modified by an inplace operation"):
            y.sum().backward()


@pytest.mark.parametrize("name", ["relu", "leaky_relu", "hardtanh", "hardshrink", "silu", "tanh"])
@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16], ids=["float32", "bfloat16"])
def test_in_place(name, dtype):
    function, x = getattr(SF, name), torch.randn(300, dtype=dtype)
    wanted = function(x)
    mine = x.clone()
    version = mine._version
    assert function(mine, inplace=True) is mine and torch.equal(mine, wanted) and mine._version > version
    strided = torch.stack([x, x], 1)
    function(strided[:, 0], inplace=True)
    assert torch.equal(strided, torch.stack([wanted, x], 1))
    leaf = x.clone().requires_grad_()
    grads = torch.autograd.grad(function(leaf), leaf, torch.ones_like(x))
    for middle in (leaf * 1.0, torch.stack([leaf, leaf], 1)[:, 0]):
        same = function(middle, inplace=True)
        assert same is middle and torch.equal(middle, wanted)
        assert torch.equal(torch.autograd.grad(middle, leaf, torch.ones_like(x))[0], grads[0])
    with pytest.raises(RuntimeError, match="leaf Variable that requires grad"):
        function(leaf, inplace=True)
    assert torch.equal(leaf.detach(), x)
    needed = leaf.exp()
    function(needed, inplace=True)
    with pytest.raises(RuntimeError, match="modified by an inplace operation"):
        needed.sum().backward()
    with torch.inference_mode():
        inferred = x.clone()
    with pytest.raises(RuntimeError, match="inference tensor"):
        function(inferred, inplace=True)


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16], ids=["float32", "bfloat16"])
def test_in_place_keeps_nothing_but_the_output(dtype):
    for name in ("relu", "leaky_relu", "hardtanh"):
        middle = torch.randn(64, dtype=dtype, requires_grad=True) * 1.0
        assert kept(lambda x=middle, name=name: getattr(SF, name)(x, inplace=True)) == {middle.data_ptr()}, name


def test_the_second_derivative_of_what_keeps_its_output():
    x = torch.randn(8, dtype=torch.bfloat16, requires_grad=True)
    grad = torch.ones_like(x).requires_grad_()
    (first,) = torch.autograd.grad(SF.relu(x), x, grad, create_graph=True)
    again = torch.autograd.grad(first.sum(), (x, grad))
    assert torch.equal(again[0], torch.zeros_like(x)) and torch.equal(again[1], (x > 0).to(x.dtype))


def test_numbers_that_are_equal_and_not_the_same():
    x = torch.tensor([-2.0, 3.0])
    for dtype in (torch.float32, torch.bfloat16):
        v = x.to(dtype)
        assert SF.leaky_relu(v, 0.0).signbit().tolist() == [True, False]
        assert SF.leaky_relu(v, -0.0).signbit().tolist() == [False, False]
        assert torch.equal(SF.leaky_relu(v, 1), SF.leaky_relu(v, 1.0))
        with pytest.raises(InputError, match="negative_slope must be a number"):
            SF.leaky_relu(v, True)
        with pytest.raises(InputError, match="must not be NaN"):
            SF.leaky_relu(v, math.nan)


def test_gates_that_broadcast():
    gate, up = torch.randn(3, 1, requires_grad=True), torch.randn(4, requires_grad=True)
    ours = torch.autograd.grad(SF.swiglu(gate, up).sum(), (gate, up))
    theirs = torch.autograd.grad((F.silu(gate) * up).sum(), (gate, up))
    torch.testing.assert_close(ours, theirs)
    with pytest.raises(InputError, match="do not broadcast"):
        SF.swiglu(torch.randn(3), torch.randn(4))


def test_a_tensor_that_outlived_its_transform():
    leaked = []
    x = torch.randn(4, requires_grad=True)
    torch.func.grad(lambda v: leaked.append(v) or v.sum())(x)
    (got,) = torch.autograd.grad(SF.silu(leaked[0]).sum(), x)
    assert torch.equal(got, torch.autograd.grad(SF.silu(x).sum(), x)[0])


def test_an_operator_called_directly_does_not_lose_gradients():
    x = torch.randn(8)
    leaf = x.clone().requires_grad_()
    SF.silu(x), SF.swiglu(x, x)
    ops = torch.ops.softknee
    for call in (
        lambda v: ops.silu(v),
        lambda v: ops.silu.out(v, out=torch.empty(8)),
        lambda v: ops.silu_backward(x, v),
        lambda v: ops.swiglu(x, v),
    ):
        for v in (leaf, leaf * 2.0):
            with pytest.raises(RuntimeError, match=r"call softknee\.functional\.s\w+, which has"):
                call(v)
            with torch.no_grad():
                call(v)
        call(leaf.detach())
    assert torch.equal(ops.silu(x), SF.silu(x))
