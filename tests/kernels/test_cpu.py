"""The compiled kernels: exact in every dtype, the same bits wherever a value stands, and on every instruction set."""

from __future__ import annotations

import functools
import hashlib
import os
import subprocess
import sys

import numpy as np
import pytest
import torch
from torch import Tensor

import softknee
from softknee.errors import InputError
from softknee.kernels import accuracy, cpu, paths

pytestmark = pytest.mark.skipif(not cpu.available(), reason="the kernels are not compiled here")

DTYPES = (torch.float64, torch.float32, torch.bfloat16, torch.float16)
STRIDE = 25 * 4001  # some of the points that were recorded
KERNELS = [a for a in softknee.activations() if a.kind != "normalizer" and cpu.operators(a) is not None]
UNARY = [a for a in KERNELS if a.kind == "elementwise"]
GATED = [a for a in KERNELS if a.kind == "gated"]
OTHER = {"elementwise": "composite", "gated": "joint"}
named = functools.partial(pytest.mark.parametrize, ids=lambda a: getattr(a, "name", str(a).removeprefix("torch.")))


def bits(x: Tensor) -> Tensor:
    x = torch.where(x.isnan(), torch.nan, x)  # which NaN is not specified
    return x.contiguous().view({2: torch.int16, 4: torch.int32, 8: torch.int64}[x.itemsize])


def forward(activation, *inputs: Tensor, **parameters) -> Tensor:
    result = cpu.forward(activation, *inputs, *(activation.defaults | parameters).values())
    assert result is not None
    return result


def derivatives(activation, grad: Tensor, *inputs: Tensor) -> tuple[Tensor, ...]:
    result = cpu.derivatives(activation, grad, *inputs, *activation.defaults.values())
    assert result is not None
    return result


def sample(dtype: torch.dtype, count: int = 4099) -> Tensor:
    x = 4 * torch.randn(count, generator=torch.Generator().manual_seed(1))
    x[:12] = torch.tensor([0.0, -0.0, 1e-40, -1e-40, 1.0, -1.0, 90.0, -90.0, torch.inf, -torch.inf, torch.nan, -3.0])
    return x.to(dtype)


def test_every_core_entry_has_kernels():
    without = {a.name for a in softknee.activations() if a.core and a.kind != "normalizer" and a not in KERNELS}
    assert without == {"identity", "rrelu"}  # nothing to compute; draws noise


@named("dtype", DTYPES)
@named("activation", UNARY)
def test_as_exact_as_recorded(activation, dtype):
    """Half precision: all inputs; float32: every 100,025th bit pattern, the tails and the kinks; float64: a hundred
    points, by mpmath."""
    evaluate = accuracy.ways(activation, dtype)["kernel"]
    recorded = paths.figures(activation, dtype, "kernel")
    assert recorded is not None
    for order, figure in enumerate(recorded[:2]):
        found = accuracy.worst(activation, evaluate, dtype, order, stride=STRIDE)
        assert found.ulp <= figure.ulp and (found.lost is None or figure.lost is not None)


@named("activation", GATED)
def test_gated_are_as_exact_as_recorded(activation):
    for dtype in DTYPES:
        recorded = paths.figures(activation, dtype, "kernel")
        assert recorded is not None
        for order, figure in enumerate(recorded):
            assert accuracy.joint(activation, dtype, order, count=100_000, kernel=True).ulp <= figure.ulp


@named("activation", KERNELS)
def test_float64_keeps_the_contract(activation):
    """8·(ulp(f) + |x·f′|·2⁻⁵²), and the same one order up; or what the composite has, beside a pole or a moved root."""
    kernel, composite = (paths.figures(activation, torch.float64, way) for way in ("kernel", OTHER[activation.kind]))
    for figure, other in zip((kernel or [])[:2], composite or [], strict=False):
        assert figure.ulp <= max(8, other.ulp) and figure.lost is None


def test_float64_is_the_composites_and_taken_where_it_is_faster():
    chosen = {a.name: a.path(torch.randn(3, dtype=torch.float64)).forward for a in UNARY}
    assert chosen["mish"] == "kernel" and chosen["relu"] == "native" and chosen["softplus"] != "kernel"
    values = tuple(torch.tensor([0.5, -3.0, 26.7, -40.0, 5e-324, torch.inf, -torch.inf, torch.nan]).double())
    for activation in UNARY:
        x = torch.stack(values)
        expected = activation.composite.compute(x, *activation.defaults.values())
        torch.testing.assert_close(forward(activation, x), expected, rtol=1e-14, atol=0, equal_nan=True)


def test_float32_is_within_four_ulps():
    """But for softcap, whose x/cap is subnormal before x is, and situ_glu, a product of three functions."""
    over = set()
    for activation in KERNELS:
        figure = (paths.figures(activation, torch.float32, "kernel") or [])[0]
        if figure.ulp > 4 or figure.lost is not None:
            over.add(activation.name)
    assert over <= {"softcap", "situ_glu"}


def test_a_figure_would_be_refuted():
    """The measurement sees an error of a few ULPs."""
    silu = softknee.get("silu")
    wrong = accuracy.worst(silu, lambda x, order, **p: forward(silu, x) * (1 + 2.0**-20), torch.float32, 0, STRIDE)
    assert wrong.ulp > 4


@named("dtype", DTYPES)
@named("activation", KERNELS)
def test_the_same_bits_wherever_a_value_stands(activation, dtype):
    inputs = [sample(dtype).roll(7 * i) for i in range(len(activation.inputs))]
    grad = sample(dtype).roll(100).nan_to_num()
    whole, slopes = forward(activation, *inputs), derivatives(activation, grad, *inputs)
    for size in (0, 1, 3, 8, 15, 16, 17, 31, 33, 64, 70):
        for start in (0, 1, 5):
            part = slice(start, start + size)
            pieces = [x[part] for x in inputs]
            assert torch.equal(bits(forward(activation, *pieces)), bits(whole[part]))
            for got, all_of_it in zip(derivatives(activation, grad[part], *pieces), slopes, strict=True):
                assert torch.equal(bits(got), bits(all_of_it[part]))


@named("activation", [softknee.get("mish"), softknee.get("swiglu")])
def test_the_same_bits_for_any_layout(activation):
    shape = (3, 5, 7, 66)
    flat = [sample(torch.float32, 3 * 5 * 7 * 66).roll(i) for i in range(len(activation.inputs))]
    expected = bits(forward(activation, *flat)).view(shape)
    inputs = [x.view(shape) for x in flat]

    def check(inputs: list[Tensor]) -> None:
        got = forward(activation, *inputs)
        assert torch.equal(bits(got), expected.expand(got.shape))
        for part in derivatives(activation, torch.ones(()).expand(shape), *inputs):
            assert part.shape == torch.Size(shape)

    check(inputs)
    check([x.to(memory_format=torch.channels_last) for x in inputs])
    check([x.transpose(1, 3).contiguous().transpose(1, 3) for x in inputs])
    check([torch.cat([x, x], -1)[..., : shape[-1]] for x in inputs])  # rows with gaps
    check([torch.stack([x, x], -1)[..., 0] for x in inputs])  # every second element
    check([x.flip(0).flip(0) for x in inputs])


def test_dense_layouts_are_kept():
    x = torch.randn(2, 3, 4, 5).to(memory_format=torch.channels_last)
    assert forward(softknee.get("silu"), x).stride() == x.stride()
    t = torch.randn(4, 6).t()
    assert forward(softknee.get("silu"), t).stride() == t.stride()
    assert derivatives(softknee.get("silu"), torch.ones(()).expand(6, 4), t)[0].stride() == t.stride()


def test_gated_inputs_broadcast_and_read_packed_ones_in_place():
    swiglu, packed = softknee.get("swiglu"), torch.randn(6, 2 * 50)
    for gate, up in (packed.chunk(2, -1), packed.view(6, 50, 2).unbind(-1)):
        assert torch.equal(forward(swiglu, gate, up), forward(swiglu, gate.contiguous(), up.contiguous()))
    gate, up = torch.randn(4, 1, 5), torch.randn(3, 1)
    assert torch.equal(forward(swiglu, gate, up), forward(swiglu, *torch.broadcast_tensors(gate, up)))


def test_the_same_bits_with_any_number_of_threads():
    x, threads = torch.randn(100_003), torch.get_num_threads()
    try:
        torch.set_num_threads(1)
        one = forward(softknee.get("gelu"), x)
        torch.set_num_threads(2)
        assert torch.equal(one, forward(softknee.get("gelu"), x))
    finally:
        torch.set_num_threads(threads)


def test_out():
    silu, x = softknee.get("silu"), torch.randn(100)
    expected, out = forward(silu, x), torch.full((100,), torch.nan)
    assert cpu.forward(silu, x, out=out) is out and torch.equal(out, expected)
    assert cpu.forward(silu, x, out=x) is x and torch.equal(x, expected)
    for wrong in (torch.empty(99), torch.empty(100, dtype=torch.float64), torch.empty(200)[::2]):
        with pytest.raises(RuntimeError, match="softknee::silu: out must"):
            cpu.forward(silu, x, out=wrong)


@named("activation", KERNELS)
def test_gradients_are_the_composites(activation):
    inputs = [sample(torch.float32, 500)[12:].roll(i).requires_grad_() for i in range(len(activation.inputs))]
    grad = torch.randn(488)
    assert activation.path(*inputs).backward in ("kernel", "native"), "the figures must allow it"
    got = torch.autograd.grad(activation(*inputs), inputs, grad)
    values = activation.defaults.values()
    for partial, found in zip(activation.composite.derivatives, got, strict=False):
        expected = partial.compute(grad.double(), *[x.double() for x in inputs], *values)
        torch.testing.assert_close(found.double(), expected, rtol=1e-6, atol=1e-6)


def test_a_kernel_is_taken_where_it_is_exact_and_pays(monkeypatch):
    gelu, good = softknee.get("gelu"), paths.Figure(0.5, 0.0)
    assert str(gelu.path(torch.randn(3))) == f"kernel: {paths.uncompiled(gelu, torch.float32).reason}"

    def chosen(figure: paths.Figure, kernel: float, native: float) -> paths.Path:
        monkeypatch.setattr(paths, "figures", lambda a, dtype, way: [figure if way == "kernel" else good, good, good])
        monkeypatch.setattr(paths, "speed", lambda a, dtype, way: kernel if way == "kernel" else native)
        return paths.choose.__wrapped__(softknee.get("relu"), torch.float32, "cpu")

    paths.uncompiled.cache_clear()
    assert str(chosen(good, 1.0, 2.0)) == "kernel: PyTorch's op takes 2.0 times as long at 64K elements"
    assert chosen(good, 1.0, 0.9).forward == "native"
    for bad in (paths.Figure(9.0, 0.0), paths.Figure(0.5, 0.0, lost=3.0)):
        assert chosen(bad, 1.0, 2.0).forward == "native"
    paths.uncompiled.cache_clear()


def test_second_derivatives_go_through_the_composite():
    x = torch.randn(20, requires_grad=True)
    (first,) = torch.autograd.grad(softknee.get("mish")(x).sum(), x, create_graph=True)
    (second,) = torch.autograd.grad(first.sum(), x)
    expected = softknee.get("mish").derivative(x.detach().double().numpy(), order=2)
    np.testing.assert_allclose(second.numpy(), expected, rtol=1e-4, atol=1e-5)


def test_a_comparison_with_a_number_that_float32_lacks():
    """1.35 lies between two floats: the larger one is above the threshold, not at it."""
    x = torch.tensor([1.35, np.nextafter(np.float32(1.35), np.float32(0))])
    assert x[0].item() > 1.35 > x[1].item()
    got = forward(softknee.get("thresholded_relu"), x, threshold=1.35)
    assert got.tolist() == [x[0].item(), 0.0]


def test_what_the_kernels_do_not_do_they_decline():
    x, elu = torch.randn(3), softknee.get("elu")
    assert cpu.forward(elu, x.to(torch.complex64), 1.0) is None
    assert cpu.forward(elu, x, torch.tensor(1.0)) is None
    assert cpu.forward(softknee.get("swiglu"), x, x.half()) is None
    assert cpu.forward(elu, x.to("meta"), 1.0) is None

    @softknee.elementwise
    def silu(x, ops):
        return x

    assert cpu.forward(silu, x) is None
    silu.formula.__module__ = None  # as exec leaves it
    assert not cpu.takes(silu, torch.float32)


def test_operators():
    from torch.library import opcheck

    for name, arguments in (("silu", (torch.randn(7),)), ("swiglu", (torch.randn(3, 4), torch.randn(3, 4)))):
        own, _, _ = cpu.operators(softknee.get(name))
        for operator in (own, getattr(torch.ops.softknee, name).default):
            opcheck(operator, arguments, test_utils=("test_schema", "test_faketensor", "test_aot_dispatch_dynamic"))
    with torch.profiler.profile() as profile:
        cpu.forward(softknee.get("silu"), torch.randn(7))
    assert "softknee::silu" in {event.key for event in profile.key_averages()}


@named("dtype", DTYPES)
@pytest.mark.parametrize("name", ["sigmoid", "swiglu"])
def test_the_bits_do_not_depend_on_where_the_output_lies(name, dtype):
    """Just after the input the loop runs from the end to the beginning; before it, or far, from the beginning."""
    activation = softknee.get(name)
    inputs = [sample(dtype, 3001).roll(i) for i in range(len(activation.inputs))]
    room = torch.empty(3001 + 4096, dtype=dtype)
    wanted, seen = forward(activation, *inputs), set()
    for far in range(0, 4096, 64):
        out = room[far // dtype.itemsize :][:3001]
        seen.add(0 < (out.data_ptr() - inputs[0].data_ptr()) % 4096 <= 256)
        assert cpu.forward(activation, *inputs, *activation.defaults.values(), out=out) is out
        assert torch.equal(bits(out), bits(wanted))
    assert seen == {False, True}


def test_ties_go_where_they_are_said_to():
    """Between two bfloat16: to even where a tie may be the true value's, and nowhere where nothing is rounded."""
    gate = torch.tensor([1.0078125, 1.0234375], dtype=torch.bfloat16)  # 1 + 1/128 and 1 + 3/128
    up = torch.tensor([1.5, 1.5], dtype=torch.bfloat16)
    exact = gate.float() * up.float()
    assert torch.equal(forward(softknee.get("reglu"), gate, up), exact.bfloat16())
    assert not torch.equal(exact, exact.bfloat16().float())
    every = torch.arange(-(1 << 15), 1 << 15, dtype=torch.int32).to(torch.int16).view(torch.bfloat16)
    assert torch.equal(bits(forward(softknee.get("relu"), every)), bits(torch.relu(every)))


def test_a_product_that_overflows_where_the_result_does_not():
    x = torch.tensor([3e38, 1e38, -3e38])
    for dtype in (torch.float32, torch.bfloat16):
        y = softknee.get("softplus")(x.to(dtype), beta=8.0)
        assert torch.equal(y, x.to(dtype).clamp(min=0))


DIGEST = """
import sys
sys.path.insert(0, {folder!r})
from test_cpu import digest
print(digest())
"""


def digest() -> str:
    """Of all results that are normal numbers, of all kernels: forward, and derivatives, by learned parameters too."""
    total = hashlib.sha256()

    def add(y: Tensor) -> None:
        normal = torch.where(y.abs() >= torch.finfo(y.dtype).tiny, y, 0.0)
        total.update(bits(torch.where(y.isnan(), torch.nan, normal).to(y.dtype)).numpy().tobytes())

    for activation in KERNELS:
        for dtype in DTYPES:
            inputs = [sample(dtype).roll(7 * i) for i in range(len(activation.inputs))]
            for y in (forward(activation, *inputs), *derivatives(activation, inputs[0].roll(5), *inputs)):
                add(y)
            learned = [
                torch.full((3, 1), p.default) if p.learnable else p.default for p in activation.parameters.values()
            ]
            for shape in ((-1, 3, 1), (3, -1)) if any(isinstance(v, Tensor) for v in learned) else ():
                x = sample(dtype, 4098).nan_to_num(0, 1, -1).view(shape)
                for y in (cpu.learned(activation, x, *learned), *cpu.gradients(activation, x.flip(0), x, *learned)):
                    add(y if y is not None else x)
    return f"{cpu.isa()} {total.hexdigest()}"


LARGE = """
import torch, softknee
from softknee.kernels import cpu
x = torch.linspace(-100.0, 100.0, 8001)
for name in ("sigmoid", "tanh", "softcap", "glu"):
    activation = softknee.get(name)
    inputs = [x] if activation.kind == "elementwise" else [x, torch.ones_like(x)]
    for factor in (2.5e38, 3.4028234e38, -3.4028234e38):
        grad, values = torch.full_like(x, factor), activation.defaults.values()
        got = cpu.derivatives(activation, grad, *inputs, *values)[0].double()
        truth = cpu.derivatives(activation, grad.double(), *[v.double() for v in inputs], *values)[0]
        counts = (truth.abs() > 2.0**-120) & (truth.abs() < 3.4028235e38)
        wrong = (got - truth).abs() > 6 * 2.0**-23 * truth.abs()
        assert not (wrong & counts).any(), (name, factor, x[wrong & counts])
        least = truth.abs() <= 2.0**-120
        assert got[least].abs().le(2.0**-119).all(), (name, factor)
"""


def on(isa: str, code: str) -> subprocess.CompletedProcess[str]:
    environment = os.environ | {"SOFTKNEE_ISA": isa}
    return subprocess.run([sys.executable, "-c", code], env=environment, capture_output=True, text=True, timeout=200)


def test_every_instruction_set_gives_the_same_bits():
    found = {}
    for isa in cpu.ISAS:
        done = on(isa, DIGEST.format(folder=os.path.dirname(__file__)))
        if "does not have these instructions" not in done.stderr:
            assert done.returncode == 0, done.stderr[-2000:]
            name, found[isa] = done.stdout.split()
            assert name == isa
    assert "portable" in found and len(found) == len(cpu.ISAS)
    assert len(set(found.values())) == 1


@pytest.mark.parametrize("isa", cpu.ISAS)
def test_a_factor_near_the_largest_float32_does_not_overflow(isa):
    done = on(isa, LARGE)
    assert done.returncode == 0 or "does not have these instructions" in done.stderr, done.stderr[-2000:]


def test_the_ends_of_the_range():
    """What overflows or is subnormal on the way to a result that is neither."""
    selu, softplus, mish = map(softknee.get, ("selu", "softplus", "mish"))
    last = 3.2386221488365256e38
    assert forward(selu, torch.tensor([last])).item() == np.float32(1.0507009873554805 * last) < np.inf
    small = torch.tensor([0x00FFFFFF], dtype=torch.int32).view(torch.float32)
    assert 0 < forward(softknee.get("hardswish"), small).item() <= torch.finfo(torch.float32).tiny
    for dtype in DTYPES:
        far = torch.tensor([-3e38, -torch.inf, 3e38, torch.inf]).to(dtype)
        assert forward(softplus, far, beta=2.0).tolist() == [0.0, 0.0, *far[2:].tolist()]
        assert forward(mish, far).tolist() == [0.0, 0.0, *far[2:].tolist()]


def test_the_portable_kernels_are_not_taken():
    code = """
import softknee, softknee.environment, torch
from softknee.kernels import cpu
x = torch.randn(3)
assert softknee.get("gelu").path(x).forward == "composite" and cpu.forward(softknee.get("gelu"), x) is not None
print(softknee.environment.environment()["kernels"])
"""
    done = on("portable", code)
    assert done.stdout.strip() == "compiled for portable, too slow here to be taken", done.stderr[-2000:]


def test_an_unknown_instruction_set_is_named():
    done = on("sse9", "from softknee.kernels import cpu; cpu.isa()")
    assert done.returncode and "SOFTKNEE_ISA='sse9' is unknown; it must be one of avx512" in done.stderr


def test_without_the_library_everything_works():
    code = """
import pathlib, torch
from softknee.kernels import cpu
cpu.LIBRARY = pathlib.Path("/nowhere")
import softknee, softknee.environment
x = torch.randn(5, requires_grad=True)
softknee.get("silu")(x).sum().backward()
assert softknee.get("silu").path(x).forward == "composite" and cpu.isa() is None
print(softknee.environment.environment()["kernels"])
"""
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, timeout=100)
    assert done.returncode == 0, done.stderr[-2000:]
    assert "no C++ compiler" in done.stdout


def test_bad_inputs_of_an_operator_are_named():
    swiglu, x = softknee.get("swiglu"), torch.randn(3)
    with pytest.raises(RuntimeError, match="shapes do not broadcast"):
        cpu.forward(swiglu, x, torch.randn(4))
    with pytest.raises(InputError, match="broadcast"):
        swiglu(x, torch.randn(4))
