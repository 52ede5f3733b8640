"""Parameters that modules learn, as tensors: f by kernel, and both gradients in one pass, summed in one order."""

from __future__ import annotations

import functools

import pytest
import torch
from torch import Tensor

import softknee
import softknee.functional as SF
from softknee.kernels import cpu, dispatch

pytestmark = pytest.mark.skipif(not cpu.available(), reason="the kernels are not compiled here")

LEARNED = [a for a in softknee.activations() if a.core and any(p.learnable for p in a.parameters.values())]
named = functools.partial(pytest.mark.parametrize, ids=lambda a: getattr(a, "name", str(a).removeprefix("torch.")))
# runs of a channel, rows of channels, and what is neither: short runs, more channels than fit a row, nothing at all
SHAPES = [(3, 5, 17, 13), (600, 7), (9, 1030), (33, 24, 2, 9), (2, 3, 70_001), (0, 3), (3, 0, 2), (5,), (3, 1, 4)]
TOLERANCE = {torch.float64: 1e-14, torch.float32: 3e-6, torch.bfloat16: 8e-3, torch.float16: 1e-3}


def values(activation, x: Tensor, count: int, dtype: torch.dtype) -> list[Tensor | float]:
    """The parameters as they broadcast with `x`: tensors where modules learn them."""
    found: list[Tensor | float] = []
    for name, parameter in activation.parameters.items():
        if parameter.learnable:
            spread = torch.linspace(-0.3, 0.3, count) if count > 1 else torch.zeros(1)
            value = (spread + parameter.default).to(dtype)
            found.append(dispatch.per_channel(activation, name, value, x))
        else:
            found.append(parameter.default)
    return found


def wide(arguments: list[Tensor | float]) -> list[Tensor | float]:
    return [v.double() if isinstance(v, Tensor) else v for v in arguments]


def check(activation, x: Tensor, grad: Tensor, given: list[Tensor | float]) -> tuple[Tensor | None, ...]:
    """Against the composite in float64. Of a sum by the contract for its terms: 8 ULPs of the dtype (of half precision
    a few thousandths: math.h) of max(|term|, |grad|/16) + |x·∂term/∂x|, and one of the parameter's."""
    tolerance = TOLERANCE[x.dtype]
    close = functools.partial(torch.testing.assert_close, rtol=tolerance, atol=tolerance / 16)
    y, found = cpu.learned(activation, x, *given), cpu.gradients(activation, grad, x, *given)
    assert y is not None and found is not None and y.dtype == found[0].dtype == x.dtype
    close(y.double(), activation.composite.compute(x.double(), *wide(given)))
    partials = [d.compute(grad.double(), x.double(), *wide(given)) for d in activation.composite.derivatives]
    close(found[0].double(), partials[0])
    each = activation.composite.derivatives[1:]
    for got, partial, terms, value in zip(found[1:], each, partials[1:], given, strict=True):
        if isinstance(value, Tensor):
            assert got.shape == value.shape and got.dtype == value.dtype
            slope = partial.derivatives[1].compute(torch.ones_like(terms), grad.double(), x.double(), *wide(given))
            size = torch.maximum(terms.abs(), grad.double().abs() / 16) + (x.double() * slope).abs()
            error = (got.double() - terms.sum_to_size(value.shape)).abs()
            working = torch.finfo(x.dtype).eps * (8 if x.itemsize > 2 else 1 / 256)
            allowed = working * size.sum_to_size(value.shape) + torch.finfo(value.dtype).eps * got.double().abs()
            assert torch.all(error <= allowed)
        else:
            assert got is None
    return found


@named("dtype", cpu.DTYPES)
@named("activation", LEARNED)
def test_values_and_gradients(activation, dtype):
    generator = torch.Generator().manual_seed(0)
    for shape in SHAPES:
        x, grad = (torch.randn(shape, generator=generator, dtype=torch.float64).to(dtype) for _ in range(2))
        for count in (1, shape[1] if len(shape) > 1 else shape[0]):
            for own in {dtype, torch.float32} if dtype != torch.float64 else {dtype}:
                check(activation, x, grad, values(activation, x, count, own))


@named("activation", LEARNED)
def test_layouts(activation):
    x, grad = torch.randn(2, 5, 6, 7, 9).double(), torch.randn(5, 6, 7, 9).double()
    gaps = torch.stack([x[0], x[1]], -1)[..., 0]
    for laid in (
        x[0].to(memory_format=torch.channels_last),
        x[0].transpose(0, 3).contiguous().transpose(0, 3),
        gaps,
        x[0, :, :, :, :1].expand(5, 6, 7, 9),
    ):
        found = check(activation, laid, grad.expand_as(laid), values(activation, laid, 6, torch.float64))
        assert found[0].stride() == torch.empty_like(laid).stride()
        check(activation, laid, grad[:, :1].expand_as(laid), values(activation, laid, 1, torch.float64))
    none = torch.randn(())
    check(activation, none, none, values(activation, none, 1, torch.float32))


@named("activation", LEARNED)
def test_the_same_bits_with_any_number_of_threads(activation):
    threads = torch.get_num_threads()
    try:
        for shape in ((4, 6, 30_011), (70_000, 6), (300, 3000)):
            x, grad = torch.randn(shape), torch.randn(shape)
            given = values(activation, x, shape[1], torch.float32)
            found = []
            for count in (1, 2):
                torch.set_num_threads(count)
                found.append(cpu.gradients(activation, grad, x, *given))
            assert all(a is b or torch.equal(a, b) for a, b in zip(*found, strict=True))
    finally:
        torch.set_num_threads(threads)


def test_a_sum_of_many_terms_of_one_sign_keeps_its_digits():
    x = torch.full((1, 1, 3_000_000), -1.1)
    for weight, shape in ((torch.tensor([0.25]), x.shape), (torch.full((3,), 0.25), (1_000_000, 3))):
        found = cpu.gradients(softknee.get("prelu"), torch.ones(shape), x.view(shape), weight)
        expected = x[0, 0, 0].double() * (3_000_000 / weight.numel())
        assert (found[1].double() / expected - 1).abs().max() < 2.0**-21


@named("activation", LEARNED)
def test_autograd(activation):
    x = torch.randn(4, 3, 5, dtype=torch.float64, requires_grad=True)
    names = [name for name, p in activation.parameters.items() if p.learnable]
    for count in (1, 3):
        given = [torch.full((count,), activation.defaults[n] + 0.1, dtype=torch.float64) for n in names]
        given = [v.requires_grad_() for v in given]

        def function(x, *learned):
            return activation(x, **dict(zip(names, learned, strict=True)))

        assert torch.autograd.gradcheck(function, (x, *given))
        assert torch.autograd.gradgradcheck(function, (x, *given))
        assert torch.autograd.gradcheck(lambda *learned: function(x.detach(), *learned), given)
    half = torch.randn(4, 3, dtype=torch.bfloat16)  # a module whose parameters stay in float32
    weight = torch.full((3,), 0.5, requires_grad=True)
    function(half, *[weight] * len(names)).sum().backward()
    assert weight.grad.dtype == torch.float32


def test_the_path_says_so():
    x, weight = torch.randn(4, 3), torch.full((3,), 0.25)
    prelu = softknee.get("prelu")
    for dtype in (torch.float32, torch.bfloat16, torch.float64):
        assert prelu.path(x.to(dtype), weight=weight.to(dtype)).way == "kernel"
    with torch.profiler.profile() as profile:
        SF.prelu(x.requires_grad_(), weight.requires_grad_()).sum().backward()
    assert {"softknee::prelu_learned", "softknee::prelu_learned_backward"} <= {e.key for e in profile.key_averages()}
    torch.testing.assert_close(SF.prelu(x, weight), torch.nn.functional.prelu(x, weight))


def test_what_the_kernels_do_not_do_they_decline():
    swish, xielu, x = softknee.get("swish"), softknee.get("xielu"), torch.randn(4, 3, 5)
    for beta in (torch.ones(4, 3, 1), torch.ones(2, 4, 3, 5), torch.ones(1, dtype=torch.int64)):
        assert cpu.learned(swish, x, beta) is None
    assert cpu.learned(softknee.get("elu"), x, torch.tensor(1.0)) is None
    one, other = torch.ones(3, 1), torch.ones(5)
    assert cpu.learned(xielu, x, one, one, 0.5, -1e-6) is not None
    assert cpu.learned(xielu, x, one, other, 0.5, -1e-6) is None
    assert cpu.gradients(swish, x.double(), x, torch.ones(3, 1)) is None
    # another path has them all the same
    assert swish(x, beta=torch.ones(4, 3, 1)).shape == x.shape
