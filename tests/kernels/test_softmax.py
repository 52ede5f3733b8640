"""Softmax and log-softmax by their kernels: exact, the same bits wherever a row lies, gradients to the input and the
temperature, and the definition's own way for everything else."""

from __future__ import annotations

import functools
import hashlib
import math
import os

import pytest
import torch
from test_cpu import bits, named, on
from torch import Tensor, nn

import softknee
import softknee.functional as SF
from softknee.errors import InputError
from softknee.kernels import accuracy, cpu, normalizers, paths

pytestmark = pytest.mark.skipif(not cpu.available(), reason="the kernels are not compiled here")

DTYPES = (torch.float32, torch.bfloat16, torch.float16)
KERNELS = [a for a in softknee.activations() if a.kind == "normalizer" and cpu.row_operators(a) is not None]
taken = pytest.mark.skipif(cpu.isa() == "portable", reason="the portable kernels are not taken")


def rows(*shape: int, dtype: torch.dtype = torch.float32, seed: int = 0) -> Tensor:
    return (3 * torch.randn(shape, generator=torch.Generator().manual_seed(seed))).to(dtype)


def truth(activation, x: Tensor, dim: int, temperature) -> Tensor:
    return getattr(torch, activation.torch)(x.double() / temperature, dim)


def units(got: Tensor, wanted: Tensor, x: Tensor) -> float:
    """The largest error, as docs/accuracy.md counts it; also of probabilities far below the others."""
    eps = torch.finfo(x.dtype).eps
    size = wanted.abs().clamp(min=accuracy.FLOOR)
    unit = 2.0 ** size.log2().floor() * eps
    if x.dtype == torch.float32:
        unit = unit + x.double().abs() * eps
    return ((got.double() - wanted).abs() / unit).max().item()


@taken
def test_small_losses_keep_their_digits():
    """Of sure rows: −log(1 + the rest), where PyTorch's has 0."""
    for gap in (5.0, 17.0, 40.0, 80.0):
        x = torch.tensor([[gap, 0.0, -1.0], [0.0, gap, gap]])
        got, wanted = SF.log_softmax(x, -1), torch.log_softmax(x.double(), -1)
        wanted[0, 0] = -math.log1p(math.exp(-gap) + math.exp(-gap - 1))
        torch.testing.assert_close(got.double(), wanted, rtol=2**-22, atol=0.0)


def backward(activation, grad: Tensor, y: Tensor, dim: int, temperature):
    operator = cpu.row_operators(activation)[1]
    if isinstance(temperature, Tensor):
        return operator.Tensor(grad, y, dim, temperature.double())
    return operator.default(grad, y, dim, temperature)


def test_which_there_are():
    assert {a.name for a in KERNELS} == {"softmax", "log_softmax"}


@named("dtype", DTYPES)
@named("activation", KERNELS)
def test_as_exact_as_recorded(activation, dtype):
    (figure,) = paths.figures(activation, dtype, "kernel")
    assert accuracy.joint(activation, dtype, 0, 64_000, kernel=True).ulp <= figure.ulp
    for size in (*range(1, 71), 1023, 1024, 1025, 4097, 40_001):
        x = rows(3, size, dtype=dtype, seed=size)
        for temperature in (1.0, 0.7, 4.0):
            got = normalizers.forward(activation, x, -1, temperature)
            # 1/T of what rounding the input may do
            scale = max(1.0, 1 / temperature)
            enough = 2 if dtype == torch.float32 else 0.51
            assert units(got, truth(activation, x, -1, temperature), x) <= enough * scale, (size, temperature)


def test_small_probabilities_keep_their_digits():
    x = torch.linspace(-85, 0, 300).repeat(2, 1)
    got, wanted = normalizers.forward(softknee.get("softmax"), x, -1, 1.0), torch.softmax(x.double(), -1)
    assert ((got - wanted) / wanted).abs().max() < 4 * 2**-24
    sharp = normalizers.forward(softknee.get("softmax"), x / 8, -1, 0.1)
    wanted = torch.softmax((x / 8).double() / 0.1, -1)
    normal = wanted > torch.finfo(torch.float32).tiny
    assert ((sharp - wanted) / wanted)[normal].abs().max() < 2**-24 * 85 / 8 / 0.1


@named("dtype", DTYPES)
@named("activation", KERNELS)
def test_the_same_bits_for_any_layout_and_dim(activation, dtype):
    """A row's result depends on the row alone: neither on its neighbours nor on where its elements lie."""
    for size in (1, 2, 7, 31, 33, 64, 70, 1100, 2500):
        x, grad = rows(5, size, 19, dtype=dtype), rows(5, size, 19, dtype=dtype, seed=1)
        warm = torch.linspace(0.5, 2, 5).view(5, 1, 1)
        across = normalizers.forward(activation, x, 1, warm)
        down, slopes = backward(activation, grad, across, 1, warm)
        for i, j in ((0, 0), (3, 7), (4, 18)):
            row = normalizers.forward(activation, x[i, :, j].contiguous(), 0, warm[i].item())
            assert torch.equal(bits(row), bits(across[i, :, j]))
            alone, _ = backward(activation, grad[i, :, j].contiguous(), row, 0, warm[i, 0, 0])
            assert torch.equal(bits(alone), bits(down[i, :, j]))
        along = normalizers.forward(activation, x.transpose(1, 2).contiguous(), -1, warm)
        assert torch.equal(bits(along.transpose(1, 2)), bits(across))
        layouts = [
            x.transpose(1, 2).contiguous().transpose(1, 2),
            torch.cat([x, x], 1)[:, :size],
            torch.stack([x, x], -1)[..., 0],
        ]
        for other in layouts:
            assert torch.equal(bits(normalizers.forward(activation, other, 1, warm)), bits(across))
        odd = backward(activation, grad.transpose(0, 2).contiguous().transpose(0, 2), across, 1, warm)
        assert torch.equal(bits(odd[0]), bits(down)) and torch.equal(odd[1], slopes)


@named("activation", KERNELS)
def test_the_same_bits_with_any_number_of_threads(activation):
    threads = torch.get_num_threads()
    try:
        for shape, dim in (((300, 333), -1), ((8, 70, 300), 1)):
            x, grad, warm = rows(*shape), rows(*shape, seed=1), torch.tensor(1.3)
            found = []
            for count in (1, 2):
                torch.set_num_threads(count)
                y = normalizers.forward(activation, x, dim, warm)
                found.append([y, *backward(activation, grad, y, dim, warm)])
            for one, two in zip(*found, strict=True):
                assert torch.equal(one, two)
    finally:
        torch.set_num_threads(threads)


@taken
@named("activation", KERNELS)
@pytest.mark.parametrize("shape", [(), (1,), (4, 1, 1), (2, 4, 1, 6)], ids=str)
def test_gradients_are_those_in_float64(activation, shape):
    for dtype in DTYPES:
        x, grad = rows(2, 4, 37, 6, dtype=dtype).requires_grad_(), rows(2, 4, 37, 6, dtype=dtype, seed=1)
        warm = (1.25 + torch.arange(math.prod(shape)) / 64).view(shape).requires_grad_()
        assert activation.path(x, dim=2, temperature=warm).forward == "kernel"
        got = torch.autograd.grad(activation(x, dim=2, temperature=warm), (x, warm), grad)
        wide = x.detach().double().requires_grad_(), warm.detach().double().requires_grad_()
        wanted = torch.autograd.grad(truth(activation, wide[0], 2, wide[1]), wide, grad.double())
        # x − max x, up to 20 here, is rounded; the rounding of y tells on as many terms as a temperature has
        eps = torch.finfo(dtype).eps
        for ours, exact, enough in zip(got, wanted, (16 if dtype == torch.float32 else 4, 30), strict=True):
            assert ours.shape == exact.shape and (ours - exact).abs().max() <= enough * eps * exact.abs().max()


@taken
@named("activation", KERNELS)
def test_second_derivatives(activation):
    """Of the backward that the kernels serve, against the definition's own, in float64 and in float32."""
    x, warm = rows(3, 5).double().requires_grad_(), torch.tensor([[0.7], [1.0], [2.0]]).double().requires_grad_()
    own = functools.partial(activation, dim=-1)
    assert activation.path(x, dim=-1).forward == "native"
    assert torch.autograd.gradcheck(lambda x, t: own(x, temperature=t), (x, warm))

    def second(x: Tensor, warm: Tensor) -> tuple[Tensor, ...]:
        leaves = x.detach().requires_grad_(), warm.detach().requires_grad_()
        y = own(leaves[0], temperature=leaves[1])
        first = torch.autograd.grad(y.square().sum(), leaves, create_graph=True)
        return torch.autograd.grad(sum(f.square().sum() for f in first), leaves)

    for got, wanted in zip(second(x.float(), warm.float()), second(x, warm), strict=True):
        torch.testing.assert_close(got.double(), wanted, rtol=1e-4, atol=1e-4)


@taken
@named("activation", KERNELS)
def test_infinities_masks_and_temperatures_are_the_definitions(activation):
    inf, nan = math.inf, math.nan
    x = torch.tensor([[1.0, -inf, 3.0, 3.0], [-inf] * 4, [inf, 0, 0, 0], [nan, 0, 1, -inf], [3e38, -3e38, 3e38, 0]])
    for temperature in (1.0, 0.5, 1e-30, 1e-44, 1e30, inf):
        got = activation(x, dim=-1, temperature=temperature)
        torch.testing.assert_close(got[:4], activation.apply(x, -1, temperature)[:4], equal_nan=True)
    for temperature in (1.0, 0.5, 1e-30):
        got = activation(x, dim=-1, temperature=temperature)
        torch.testing.assert_close(got[4], activation.apply(x, -1, temperature)[4])
    # a masked entry has no part in the gradients
    leaves = x[:1].clone().requires_grad_(), torch.tensor(0.5, requires_grad=True)
    grad = torch.tensor([[0.3, 0.0, -1.0, 0.4]])
    got = torch.autograd.grad(activation(leaves[0], dim=-1, temperature=leaves[1]), leaves, grad)
    wanted = torch.autograd.grad(activation.apply(leaves[0], -1, leaves[1]), leaves, grad)
    for ours, theirs in zip(got, wanted, strict=True):
        torch.testing.assert_close(ours, theirs)


@taken
@named("activation", KERNELS)
def test_empty_tensors(activation):
    for shape, dim in (((0, 3), 1), ((3, 0), 1), ((2, 0, 4), 0), ((0,), 0)):
        x, warm = torch.zeros(shape, requires_grad=True), torch.tensor(2.0, requires_grad=True)
        y = activation(x, dim=dim, temperature=warm)
        assert y.shape == shape
        assert [g.shape for g in torch.autograd.grad(y.sum(), (x, warm))] == [x.shape, warm.shape]
    assert activation(torch.tensor(3.0), dim=0).item() == (1.0 if activation.name == "softmax" else 0.0)


@taken
def test_who_takes_what():
    softmax, x = softknee.get("softmax"), rows(3, 4)

    def way(x: Tensor, **given) -> str:
        return softmax.path(x, dim=-1, **given).forward

    assert way(x) == way(x.half(), temperature=0.5) == way(x, temperature=torch.ones(3, 1)) == "kernel"
    assert way(x.double()) == way(x, temperature=torch.ones(4)) == way(x.to("meta")) == "native"
    assert way(rows(4, 4), temperature=torch.linspace(1, 2, 4)) == "native", "it changes along the row"
    with torch.autocast("cpu", dtype=torch.bfloat16):
        assert way(x) == "native"
    with pytest.raises(InputError, match="dim=2 does not fit"):
        softmax(x, dim=2)
    with pytest.raises(RuntimeError, match="softknee::softmax: dim must be from -2 to 1, got 5"):
        cpu.row_operators(softmax)[0](x, 5, 1.0)
    with pytest.raises(RuntimeError, match="temperature must be contiguous, float64"):
        cpu.row_operators(softmax)[0].Tensor(x, 1, torch.ones(4).double())
    mapped = torch.func.vmap(lambda row: SF.softmax(row, 0, temperature=0.5))(x)
    torch.testing.assert_close(mapped, SF.softmax(x, 1, temperature=0.5))


@taken
def test_modules_take_it():
    module = nn.Sequential(nn.Linear(4, 6), nn.Softmax(-1))
    softknee.kernelize(module)
    with torch.profiler.profile() as profile:
        module(rows(3, 4)).sum().backward()
    assert {"softknee::softmax", "softknee::softmax_backward"} <= {event.key for event in profile.key_averages()}
    attention = softknee.nn.Activation("softmax", dim=-1, learn=("temperature",), temperature=2.0)
    attention(rows(3, 4)).square().sum().backward()
    assert attention.temperature.grad.item() != 0


@taken
def test_compiled_and_checked():
    x, warm = rows(3, 4).requires_grad_(), torch.tensor(1.5, requires_grad=True)
    compiled = torch.compile(lambda x, t: SF.softmax(x, -1, temperature=t), fullgraph=True, backend="aot_eager")
    got = torch.autograd.grad(compiled(x, warm).square().sum(), (x, warm))
    wanted = torch.autograd.grad(SF.softmax(x, -1, temperature=warm).square().sum(), (x, warm))
    for ours, theirs in zip(got, wanted, strict=True):
        torch.testing.assert_close(ours, theirs)
    forward, down = cpu.row_operators(softknee.get("softmax"))
    plain, wide = x.detach(), torch.tensor([[1.5]]).double()
    checks = ("test_schema", "test_faketensor")
    torch.library.opcheck(forward.default, (plain, -1, 1.5), test_utils=checks)
    torch.library.opcheck(forward.Tensor, (plain, -1, wide), test_utils=checks)
    torch.library.opcheck(down.default, (plain, plain, -1, 1.5), test_utils=checks)
    torch.library.opcheck(down.Tensor, (plain, plain, -1, wide), test_utils=checks)


DIGEST = """
import sys
sys.path.insert(0, {folder!r})
from test_softmax import digest
print(digest())
"""


def digest() -> str:
    """Of the kernels in use: results and gradients, but for subnormal numbers, along memory and across it."""
    total = hashlib.sha256()
    for activation in KERNELS:
        for dtype in DTYPES:
            for size in (3, 33, 1500):
                x, grad = rows(2, size, 5, dtype=dtype), rows(2, size, 5, dtype=dtype, seed=1)
                x[0, 0] = -math.inf
                for dim in (1, 2):
                    warm = torch.tensor(0.7, dtype=torch.float64)
                    y = normalizers.forward(activation, x, dim, warm)
                    down, slope = backward(activation, grad, y, dim, warm)
                    for found in (y, down):
                        normal = torch.where(found.abs().double() >= torch.finfo(dtype).tiny, found, 0.0)
                        total.update(bits(torch.where(found.isnan(), torch.nan, normal).to(dtype)).numpy().tobytes())
                    total.update(slope.nan_to_num().numpy().tobytes())
    return f"{cpu.isa()} {total.hexdigest()}"


def test_every_instruction_set_gives_the_same_bits():
    found = {str(cpu.isa()): digest().split()[1]}
    for isa in set(cpu.ISAS) - set(found):
        done = on(isa, DIGEST.format(folder=os.path.dirname(__file__)))
        if "does not have these instructions" not in done.stderr:
            assert done.returncode == 0, done.stderr[-2000:]
            name, found[isa] = done.stdout.split()
            assert name == isa
    assert "portable" in found and len(set(found.values())) == 1
