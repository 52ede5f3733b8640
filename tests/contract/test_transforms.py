"""Every entry under PyTorch's machinery: autograd of every order, torch.func, compile, export, autocast, layouts."""

from __future__ import annotations

import copy
import io
import pickle

import pytest
import torch
from torch.autograd import gradcheck, gradgradcheck
from torch.utils.checkpoint import checkpoint

import softknee


def inputs(activation, *shape, dtype=torch.float64, grad=True):
    """Random tensors, away from kinks, where differences of the checks would straddle them."""
    generator = torch.Generator().manual_seed(7)
    made = []
    for _ in activation.inputs:
        x = torch.randn(shape, generator=generator, dtype=torch.float64)
        for kink in () if activation.kind == "normalizer" else activation.facts.breakpoints:
            x = torch.where((x - kink).abs() < 1e-2, x + 0.05, x)
        made.append(x.to(dtype).requires_grad_(grad))
    return tuple(made)


def run(activation):
    return (lambda x: activation(x, dim=-1)) if activation.kind == "normalizer" else activation


def test_gradcheck(activation):
    x = inputs(activation, 3, 4)
    assert gradcheck(run(activation), x, check_forward_ad=True, check_batched_grad=True)


def test_gradgradcheck(activation):
    assert gradgradcheck(run(activation), inputs(activation, 2, 3))


def test_parameter_gradcheck(elementwise):
    for name, parameter in elementwise.parameters.items():
        if parameter.default in (float("inf"),):
            continue
        p = torch.tensor([parameter.default], dtype=torch.float64, requires_grad=True)
        (x,) = inputs(elementwise, 5)
        assert gradcheck(lambda x, p, name=name: elementwise(x, **{name: p}), (x, p))
        assert gradgradcheck(lambda x, p, name=name: elementwise(x, **{name: p}), (x, p))


def test_func(elementwise):
    (x,) = inputs(elementwise, 6, grad=False)
    hessian = torch.func.hessian(lambda z: elementwise(z).sum())(x)
    assert torch.allclose(hessian, hessian.diagonal().diag())
    second = torch.as_tensor(elementwise.derivative(x.numpy(), order=2))
    torch.testing.assert_close(hessian.diagonal(), second, rtol=1e-9, atol=1e-12)
    each = torch.func.vmap(torch.func.grad(elementwise))(x)
    torch.testing.assert_close(each, torch.as_tensor(elementwise.derivative(x.numpy())), rtol=1e-12, atol=1e-15)
    value, tangent = torch.func.jvp(elementwise, (x,), (torch.ones_like(x),))
    torch.testing.assert_close(tangent, each)
    torch.testing.assert_close(value, elementwise(x))


def test_compile(activation):
    """fullgraph: no break, forward and backward equal to eager."""
    torch._dynamo.reset()
    function = run(activation)
    eager, compiled = inputs(activation, 4, 5), inputs(activation, 4, 5)
    wanted = function(*eager)
    got = torch.compile(function, fullgraph=True, backend="aot_eager")(*compiled)
    torch.testing.assert_close(got, wanted)
    for a, b in zip(torch.autograd.grad(wanted.sum(), eager), torch.autograd.grad(got.sum(), compiled), strict=True):
        torch.testing.assert_close(b, a)


def test_compile_without_gradients(activation):
    torch._dynamo.reset()
    function = run(activation)
    x = inputs(activation, 4, 5, grad=False)
    torch.testing.assert_close(torch.compile(function, fullgraph=True, backend="aot_eager")(*x), function(*x))


def test_compile_of_ones_own():
    """An activation that was never called before is compiled all the same."""

    @softknee.elementwise
    def own(x, ops, *, a=1.5):
        """x·tanh(a·x)."""
        return x * ops.tanh(a * x)

    torch._dynamo.reset()
    x = torch.randn(5, requires_grad=True)
    y = torch.compile(own, fullgraph=True, backend="aot_eager")(x)
    torch.testing.assert_close(torch.autograd.grad(y.sum(), x)[0], own.slope(x))


def test_export(activation):
    class Model(torch.nn.Module):
        def forward(self, *x):
            return run(activation)(*x)

    x = inputs(activation, 2, 3, dtype=torch.float32, grad=False)
    program = torch.export.export(Model(), x)
    torch.testing.assert_close(program.module()(*x), Model()(*x))


def test_autocast_and_half(activation):
    x = inputs(activation, 4, 4, dtype=torch.bfloat16)
    with torch.autocast("cpu", dtype=torch.bfloat16):
        y = run(activation)(*x)
    (grad, *_) = torch.autograd.grad(y.float().sum(), x)
    assert grad.dtype == torch.bfloat16
    wide = run(activation)(*(v.double() for v in x))
    torch.testing.assert_close(y.double(), wide, rtol=2e-2, atol=1e-2)


def test_checkpoint(activation):
    x = inputs(activation, 3, 3)
    plain = torch.autograd.grad(run(activation)(*x).sum(), x)
    again = torch.autograd.grad(checkpoint(run(activation), *x, use_reentrant=False).sum(), x)
    for a, b in zip(plain, again, strict=True):
        assert torch.equal(a, b)


@pytest.mark.parametrize("shape", [(), (0,), (2, 0, 3), (1,)])
def test_shapes(activation, shape):
    if activation.kind == "normalizer" and shape == ():
        pytest.skip("needs a dimension")
    x = inputs(activation, *shape)
    y = run(activation)(*x)
    assert y.shape == shape
    y.sum().backward()
    assert all(v.grad is None or v.grad.shape == shape for v in x)


def test_strides(activation):
    x = inputs(activation, 2, 3, 4, 6, dtype=torch.float32, grad=False)
    for view in (
        lambda v: v.to(memory_format=torch.channels_last),
        lambda v: v.transpose(0, 3),
        lambda v: v[:, ::2, 1:, ::3],
        lambda v: v[:1].expand(5, -1, -1, -1),
    ):
        viewed = tuple(map(view, x))
        got = run(activation)(*viewed)
        torch.testing.assert_close(got, run(activation)(*(v.contiguous() for v in viewed)), rtol=0, atol=0)


def test_meta_and_complex(activation):
    meta = tuple(torch.empty(3, 4, device="meta") for _ in activation.inputs)
    assert run(activation)(*meta).shape == (3, 4)
    with pytest.raises(ValueError, match="real floating-point"):
        run(activation)(*(torch.zeros(2, 2, dtype=torch.complex64) for _ in activation.inputs))


def test_inplace(elementwise):
    (x,) = inputs(elementwise, 8, grad=False)
    mine = x.clone()
    assert elementwise(mine, inplace=True) is mine or elementwise.name == "identity"
    torch.testing.assert_close(mine, elementwise(x))
    leaf = x.clone().requires_grad_()
    (grad,) = torch.autograd.grad(elementwise(leaf * 1.0, inplace=True).sum(), leaf)
    torch.testing.assert_close(grad, torch.as_tensor(elementwise.derivative(x.numpy())), rtol=1e-12, atol=1e-15)


def test_module(activation):
    """A module that deep-copies, pickles, and keeps a state_dict."""
    options = {"dim": -1} if activation.kind == "normalizer" else {}
    module = softknee.nn.Activation(activation, **options)
    x = inputs(activation, 3, 4, dtype=torch.float32, grad=False)
    wanted = module(*x)
    assert torch.equal(copy.deepcopy(module)(*x), wanted)
    buffer = io.BytesIO()
    torch.save(module.state_dict(), buffer)
    buffer.seek(0)
    twin = softknee.nn.Activation(activation, **options)
    twin.load_state_dict(torch.load(buffer, weights_only=True))
    assert torch.equal(twin(*x), wanted)
    assert module(*x).dtype == torch.float32


def test_pickle_keeps_identity(activation):
    assert pickle.loads(pickle.dumps(activation)) is activation
