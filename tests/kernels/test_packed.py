"""Gate and up in one tensor: the same as apart, and one gradient for both."""

from __future__ import annotations

import pytest
import torch

import softknee
import softknee.functional as SF
from softknee import nn
from softknee.catalog.activation import LAYOUTS
from softknee.kernels import cpu, dispatch, packed

pytestmark = pytest.mark.skipif(not cpu.available(), reason="the kernels are not compiled here")

SHAPES = [((5, 66), -1), ((3, 4, 10), 1), ((7, 2), -1), ((0, 4), -1), ((9, 260), -1), ((2, 64, 5, 7), 1), ((34, 51), 0)]


def laid_out(x):
    yield x
    yield x.transpose(0, -1).contiguous().transpose(0, -1)
    yield torch.stack([x, x], -1)[..., 0]
    if x.ndim == 4:
        yield x.to(memory_format=torch.channels_last)


@pytest.mark.parametrize("layout", LAYOUTS[1:])
@pytest.mark.parametrize("dtype", cpu.DTYPES, ids=str)
def test_the_same_bits_as_apart(dtype, layout):
    swiglu = softknee.get("swiglu")
    for shape, dim in SHAPES:
        for x in laid_out(torch.randn(shape).to(dtype)):
            one, two = (x.detach().requires_grad_() for _ in range(2))
            y, expected = SF.swiglu(one, dim=dim, layout=layout), dispatch.call(swiglu, *SF.unpack(two, dim, layout))
            assert type(y.grad_fn).__name__ == "PackedBackward" and torch.equal(y, expected)
            grad = torch.randn(y.shape).to(dtype)
            for upstream in (grad, grad[..., :1].expand_as(y)):
                (got,) = torch.autograd.grad(y, one, upstream, retain_graph=True)
                (wanted,) = torch.autograd.grad(expected, two, upstream, retain_graph=True)
                assert torch.equal(got, wanted) and got.stride() == torch.empty_like(x).stride()


def test_with_two_threads():
    x, threads, found = torch.randn(300, 1026), torch.get_num_threads(), []
    try:
        for count in (1, 2):
            torch.set_num_threads(count)
            for layout in LAYOUTS[1:]:
                p = x.clone().requires_grad_()
                SF.geglu(p, layout=layout).square().sum().backward()
                found.append(p.grad)
    finally:
        torch.set_num_threads(threads)
    assert all(torch.equal(a, b) for a, b in zip(found[:3], found[3:], strict=True))


def test_only_the_packed_tensor_is_kept():
    kept = []
    with torch.autograd.graph.saved_tensors_hooks(lambda t: kept.append(t) or t, lambda t: t):
        x = torch.randn(6, 8, dtype=torch.bfloat16, requires_grad=True)
        SF.swiglu(x, layout="interleaved")
    assert [t.data_ptr() for t in kept] == [x.data_ptr()]


@pytest.mark.parametrize("layout", LAYOUTS[1:])
def test_autograd(layout):
    x = torch.randn(3, 8, dtype=torch.float64, requires_grad=True)
    assert torch.autograd.gradcheck(lambda x: SF.swiglu(x, layout=layout), x)
    assert torch.autograd.gradgradcheck(lambda x: SF.swiglu(x, layout=layout), x)
    per_row = torch.func.vmap(torch.func.grad(lambda row: SF.swiglu(row, layout=layout).sum()))(x)
    torch.testing.assert_close(per_row, torch.autograd.grad(SF.swiglu(x, layout=layout).sum(), x)[0])
    parts = SF.unpack(x, -1, layout)
    assert torch.equal(packed.pack(*parts, -1, layout), x)


def test_modules_and_parameters_take_it():
    x = torch.randn(3, 8, requires_grad=True)
    assert type(nn.Activation("geglu")(x).grad_fn).__name__ == "PackedBackward"
    name, default = next(iter(softknee.get("swiglu_oai").defaults.items()))
    y = SF.swiglu_oai(x, **{name: 1.25 * default})
    assert torch.equal(y, softknee.get("swiglu_oai")(*SF.unpack(x, -1, "interleaved"), **{name: 1.25 * default}))
    tensor = SF.swiglu_oai(x, **{name: torch.tensor(1.25 * default)})
    torch.testing.assert_close(tensor, y)
