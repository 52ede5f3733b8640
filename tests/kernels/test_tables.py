"""Half precision by table: correctly rounded, whatever the size, the strides and the history; of any activation."""

from __future__ import annotations

import mpmath
import numpy as np
import pytest
import torch

import softknee
from softknee.backends import table
from softknee.kernels import tables

pytestmark = pytest.mark.usefixtures("without_kernels")
HALVES = [torch.bfloat16, torch.float16]


@softknee.elementwise
def own(x, ops, *, a=1.5):
    """A user's own: x·tanh(a·x) + sin x."""
    return x * ops.tanh(a * x) + ops.sin(x)


def everything(dtype):
    x = torch.arange(65_536, dtype=torch.int32).to(torch.int16).view(dtype)
    return x[x.isfinite()]


def nearest(values, dtype):
    """float64 → half, rounded once, by integer arithmetic that is not ours: NumPy's for float16."""
    if dtype == torch.float16:
        with np.errstate(over="ignore"):
            return torch.from_numpy(values.astype(np.float16))
    # bfloat16: scaled so that its last place is 1, rounded to even by NumPy
    exponent = np.maximum(np.frexp(values)[1] - 8, -133)
    with np.errstate(over="ignore"):
        return torch.from_numpy(np.ldexp(np.rint(np.ldexp(values, -exponent)), exponent)).to(dtype)


@pytest.mark.parametrize("dtype", HALVES, ids=str)
def test_rounded_once(dtype):
    rng = np.random.default_rng(0)
    values = rng.normal(size=200_000) * np.exp(rng.uniform(-60, 60, 200_000) if dtype == torch.bfloat16 else 1)
    # ties of the half, moved by less than float32 can see: rounding twice goes wrong on these
    halves = rng.normal(size=10_000).astype(np.float16).astype(np.float64)
    step = 2.0 ** (np.frexp(halves)[1] - (12 if dtype == torch.float16 else 9))
    nudged = [halves + step * (1 + s * 2.0**-30) for s in (1, -1)]
    values = np.concatenate([values, *nudged, [0.0, -0.0, 1e300, -1e300, 5e-324, np.inf, -np.inf]])
    got, wanted = tables.rounded(torch.from_numpy(values), dtype), nearest(values, dtype)
    assert torch.equal(got.view(torch.int16), wanted.view(torch.int16))
    assert not torch.equal(torch.from_numpy(values).to(dtype), wanted), "PyTorch's own conversion rounds twice"
    assert tables.rounded(torch.tensor([float("nan")], dtype=torch.float64), dtype).isnan().all()


@pytest.mark.parametrize("dtype", HALVES, ids=str)
@pytest.mark.parametrize("activation", [own, softknee.get("gelu"), softknee.get("mish"), softknee.get("laplace")])
def test_every_input_is_correctly_rounded(activation, dtype):
    x = everything(dtype)
    got = activation(x)
    assert activation.path(x).forward == "table"
    wanted = nearest(activation.value(x.double().numpy()), dtype)
    different = (got.view(torch.int16) != wanted.view(torch.int16)) & ~((got == 0) & (wanted == 0))
    # where torch's and NumPy's float64 differ in the last bit at a tie of the half, mpmath decides
    for at, value in zip(x[different].tolist(), got[different].double().tolist(), strict=True):
        with mpmath.workdps(80):
            truth = mpmath.mpf(activation.on(table("mpmath"), mpmath.mpf(at)))
            unit = 2.0 ** (np.frexp(abs(float(truth)))[1] - (11 if dtype == torch.float16 else 8))
            assert abs(value - truth) <= 0.5 * unit
    assert different.sum() < 5


@pytest.mark.parametrize("dtype", HALVES, ids=str)
def test_derivative_is_rounded_once_after_the_product(dtype):
    x = everything(dtype).requires_grad_()
    grad = torch.full_like(x, 0.7109375)
    (got,) = torch.autograd.grad(own(x), x, grad)
    wanted = own.derivative(x.detach().double().numpy()).astype(np.float32).astype(np.float64) * 0.7109375
    tiny = torch.finfo(dtype).tiny
    apart = (got.double() - torch.from_numpy(wanted)).abs() / (torch.from_numpy(wanted).abs() + tiny)
    assert apart.max() <= torch.finfo(dtype).eps * 0.501


@pytest.mark.parametrize("dtype", HALVES, ids=str)
def test_the_bits_do_not_depend_on_size_or_history(dtype):
    x = everything(dtype)
    for a in (0.3, 0.7):  # parameters that no table exists for
        pieces = torch.cat([own(part, a=a) for part in x[:5000].split(617)])
        whole = own(x, a=a)
        again = torch.cat([own(part, a=a) for part in x[:5000].split(617)])
        assert torch.equal(pieces, whole[:5000]) and torch.equal(again, whole[:5000])


def test_large_tensors_are_looked_up_in_pieces(monkeypatch):
    x = torch.randn(3, 1000).bfloat16()
    wanted = own(x)
    monkeypatch.setattr(tables, "_CHUNK", 100)
    own(everything(torch.bfloat16))
    assert torch.equal(own(x), wanted)


def test_strides_are_kept():
    x = torch.randn(2, 3, 4, 5).half()
    own(everything(torch.float16))
    for view in (x.to(memory_format=torch.channels_last), x.permute(3, 0, 2, 1), x.transpose(0, 1)):
        got = own(view)
        assert got.stride() == view.stride() and torch.equal(got, own(view.contiguous()))
    for view in (x[:, ::2], x[..., 1:], x[:1].expand(4, -1, -1, -1)):
        assert torch.equal(own(view), own(view.contiguous()))


def test_few_tables_are_kept(monkeypatch):
    monkeypatch.setattr(tables, "_LARGEST", 3)
    x = everything(torch.float16)
    for step in range(20):
        own(x, a=1.0 + step)
    assert len(tables._tables) <= 3


def test_small_tensors_have_a_table_in_the_end():
    @softknee.elementwise
    def fresh(x, ops):
        return x * ops.atan(x)

    x = torch.randn(1000).bfloat16()
    first = fresh(x)
    kept = [v for (key, *_), v in tables._tables.items() if key[0] is fresh]
    assert kept == [1000]
    for _ in range(20):
        assert torch.equal(fresh(x), first)
    (found,) = [v for (key, *_), v in tables._tables.items() if key[0] is fresh]
    assert found.shape == (65_536,)


def test_fake_tensors_neither_use_nor_make_tables():
    from torch._subclasses.fake_tensor import FakeTensorMode
    from torch.fx.experimental.proxy_tensor import make_fx

    @softknee.elementwise
    def faked(x, ops):
        return x * ops.atan(x)

    x = torch.randn(70_000).bfloat16()
    with FakeTensorMode():
        assert faked(torch.empty(70_000, dtype=torch.bfloat16)).shape == (70_000,)
    graph = make_fx(faked)(x)
    assert "arange" not in graph.code
    wanted = faked(x)
    with FakeTensorMode():
        assert faked(torch.empty(70_000, dtype=torch.bfloat16)).dtype == torch.bfloat16
    assert torch.equal(faked(x), wanted)


def test_a_table_made_in_inference_mode_serves_training():
    @softknee.elementwise
    def inferred(x, ops):
        return x * ops.atan(x)

    x = everything(torch.bfloat16)
    with torch.inference_mode():
        inferred(x)
    y = inferred(x.requires_grad_())
    y.float().nansum().backward()
    assert x.grad is not None
