"""Signatures as PyTorch's, softmax's temperature, gated layouts, and errors that say what would be right."""

from __future__ import annotations

import inspect
import math
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
import torch
import torch.nn.functional as F

import softknee
import softknee.functional as SF
from softknee.errors import InputError

X = torch.randn(4, 6, generator=torch.Generator().manual_seed(0))
ROOT = Path(__file__).parent.parent


def test_positional_arguments_as_in_torch():
    torch.testing.assert_close(SF.leaky_relu(X, 0.2), F.leaky_relu(X, 0.2))
    torch.testing.assert_close(SF.elu(X, 0.7), F.elu(X, 0.7))
    torch.testing.assert_close(SF.softplus(X, 2, 20), F.softplus(X, 2, 20))
    torch.testing.assert_close(SF.gelu(X, approximate="tanh"), F.gelu(X, approximate="tanh"))
    torch.testing.assert_close(SF.glu(X, 1), F.glu(X, 1))
    torch.testing.assert_close(SF.prelu(X, torch.tensor([0.3])), F.prelu(X, torch.tensor([0.3])))
    mine = X.clone()
    assert SF.relu(mine, True) is mine


def test_every_activation_has_its_function():
    for activation in softknee.activations():
        function = getattr(SF, activation.name)
        assert function.activation is activation and function.__doc__ and inspect.signature(function).parameters


def test_stub_is_up_to_date():
    check = subprocess.run([sys.executable, ROOT / "tools/stubs.py", "--check"], timeout=60)
    assert check.returncode == 0, "run python tools/stubs.py"


def test_softmax_temperature():
    row = torch.tensor([2.0, 1.0, 2.0, -math.inf], dtype=torch.float64)
    assert SF.softmax(row, -1, temperature=1e-30).tolist() == [0.5, 0.0, 0.5, 0.0]
    uniform = SF.softmax(row, -1, temperature=math.inf)
    torch.testing.assert_close(uniform, torch.tensor([1 / 3, 1 / 3, 1 / 3, 0.0], dtype=torch.float64))
    for wrong in (0.0, -1.0, torch.tensor([0.5, 0.0])):
        with pytest.raises(InputError, match="temperature"):
            SF.softmax(row[:2], -1, temperature=wrong)
    with pytest.raises(TypeError):
        SF.softmax(row, -1, None, 0.5)


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16, torch.float32, torch.float64])
@pytest.mark.parametrize("temperature", [1e-38, 1e-46, 1e-310, 5e-324])
def test_a_temperature_below_the_smallest_normal_is_one_hot(temperature, dtype):
    x = torch.tensor([2.0, 1.0, 2.0, -math.inf, -5.0], dtype=dtype, requires_grad=True)
    y = SF.softmax(x, -1, temperature=temperature)
    assert y.tolist() == [0.5, 0.0, 0.5, 0.0, 0.0]
    assert not torch.autograd.grad(y[0], x)[0].isnan().any()
    assert SF.log_softmax(x, -1, temperature=temperature)[0].item() == pytest.approx(-math.log(2), rel=1e-2)
    assert SF.gumbel_softmax(x, temperature).sum() == 1.0


def test_softmax_temperature_learns():
    logits = torch.randn(5, 3, dtype=torch.float64, requires_grad=True)
    t = torch.tensor(0.7, dtype=torch.float64, requires_grad=True)
    for function in (SF.softmax, SF.log_softmax):
        assert torch.autograd.gradcheck(lambda x, t, f=function: f(x, -1, temperature=t), (logits, t))
    masked = torch.tensor([1.0, -math.inf], dtype=torch.float64)
    assert torch.autograd.grad(SF.softmax(masked, -1, temperature=t)[0], t)[0].isfinite()


def test_softmax_dtype_and_dim():
    assert SF.softmax(X.half(), -1, dtype=torch.float64).dtype == torch.float64
    with pytest.raises(InputError, match="softmax needs dim"):
        SF.softmax(X)


def test_layouts():
    gate, up = torch.randn(2, 4, 3)
    wanted = SF.swiglu(gate, up)
    assert torch.equal(SF.swiglu(torch.cat([gate, up], -1)), wanted)
    assert torch.equal(SF.swiglu(torch.cat([up, gate], -1), layout="up_gate"), wanted)
    assert torch.equal(SF.swiglu(torch.stack([gate, up], -1).flatten(-2), layout="interleaved"), wanted)
    assert torch.equal(SF.swiglu(torch.cat([gate, up], 0), dim=0), wanted)
    assert torch.equal(SF.swiglu(torch.stack([gate, up], 1).flatten(0, 1), dim=0, layout="interleaved"), wanted)
    with pytest.raises(InputError, match="even size"):
        SF.swiglu(gate)
    with pytest.raises(InputError, match="interleaved"):
        SF.swiglu(gate, layout="packed")
    with pytest.raises(InputError, match="gate and up were given"):
        SF.swiglu(gate, up, layout="gate_up")


@pytest.mark.parametrize(
    ("call", "message"),
    [
        (lambda: SF.elu(X, beta=1.0), "no parameter 'beta'; its parameters are alpha"),
        (lambda: SF.softplus(X, beta=-1.0), "beta=-1.0 is out of range; it must be 0 < beta"),
        (lambda: SF.silu(X.long()), "real floating-point tensor, got int64"),
        (lambda: SF.silu(3.0), "takes x as tensors, got float"),
        (lambda: SF.gelu(X, approximate="fast"), "approximate='fast' is unknown; it must be one of 'none', 'tanh'"),
        (lambda: softknee.get("swiglu")(X), "takes gate and up as tensors, got Tensor"),
        (lambda: softknee.get("gelo"), "did you mean 'gelu'"),
        (lambda: SF.elu(X, alpha="1"), "must be a number or a tensor, got str"),
        (lambda: SF.softmax(X, -1, inplace=True), "softmax is normalizer and does not work in place"),
        (lambda: SF.swiglu(X, X, inplace=True), "swiglu is gated and does not work in place"),
        (lambda: SF.relu(X, "no"), "relu: inplace must be True or False, got 'no'"),
        (lambda: SF.relu(X, inplace=1), "relu: inplace must be True or False, got 1"),
        (lambda: SF.relu(X, inplace=0), "relu: inplace must be True or False, got 0"),
        (lambda: SF.gelu(X, inplace=None), "gelu: inplace must be True or False, got None"),
        (lambda: SF.rrelu(X, 0.1, 0.2, False, 1.0), "rrelu: inplace must be True or False, got 1.0"),
        (lambda: SF.softmax(X, True), "softmax: dim must be a whole number, got True"),
        (lambda: SF.sparsemax(X, dim=False), "sparsemax: dim must be a whole number, got False"),
        (lambda: SF.gumbel_softmax(X, 1.0, False, True), "gumbel_softmax: dim must be a whole number, got True"),
        (lambda: SF.glu(X, True), "glu: dim must be a whole number, got True"),
        (lambda: SF.swiglu(X, dim=True), "swiglu: dim must be a whole number, got True"),
        (lambda: softknee.get("elu").derivative(1.0, wrt="beta"), "wrt='beta' is unknown; it must be one of x, alpha"),
        (lambda: softknee.get("elu").derivative(1.0, order=-1), "order must be a whole number of at least 0, got -1"),
    ],
)
def test_errors_say_what_would_be_right(call, message):
    with pytest.raises(InputError, match=message):
        call()


def test_too_many_arguments():
    with pytest.raises(TypeError, match="got 3 arguments"):
        SF.silu(X, True, 1, 2)
    with pytest.raises(TypeError, match="twice"):
        SF.elu(X, 1.0, alpha=2.0)
    with pytest.raises(TypeError, match="takes logits, tau, hard, dim; got 4 arguments after logits"):
        SF.gumbel_softmax(X, 1.0, False, -1, 2)
    with pytest.raises(TypeError, match="got 2 arguments"):
        SF.gelu(X, "tanh", True)
    with pytest.raises(TypeError, match="twice"):
        SF.gelu(X, "none", approximate="tanh")


def test_numbers_of_numpy_are_numbers():
    assert torch.equal(SF.elu(X, alpha=np.float32(0.5)), SF.elu(X, alpha=0.5))
    assert torch.equal(SF.leaky_relu(X, np.float64(0.5)), SF.leaky_relu(X, 0.5))


def test_a_mode_sees_the_activation():
    seen = []

    class Mode(torch.overrides.TorchFunctionMode):
        def __torch_function__(self, func, types, args=(), kwargs=None):
            seen.append(func)
            return func(*args, **(kwargs or {}))

    with Mode():
        SF.silu(X)
    assert seen[0] is softknee.get("silu")


def test_access_order_of_verbs_and_packages():
    """A verb and a package never share a name, in either order of access."""
    pairs = (("identify", "identification"), ("kernelize", "kernelization"))
    for verb, first, second in ((v, *order) for v, p in pairs for order in ((v, p), (p, v))):
        program = f"import softknee; a = softknee.{first}; b = softknee.{second}; print(callable(softknee.{verb}))"
        run = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, timeout=60)
        assert run.stdout.strip() == "True", run.stderr


def test_what_a_package_offers_is_no_submodule_of_the_same_name():
    program = (
        "import softknee, importlib, types\n"
        "for name in softknee._PACKAGES: importlib.import_module(f'softknee.{name}')\n"
        "print([name for name in softknee._HOME if isinstance(getattr(softknee, name), types.ModuleType)])"
    )
    run = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, timeout=60)
    assert run.stdout.strip() == "[]", run.stdout + run.stderr


def test_import_loads_nothing_heavy():
    heavy = ["sympy", "mpmath", "scipy", "matplotlib", "duckdb", "typer", "rich", "jinja2", "altair", "sklearn"]
    program = (
        "import torch, sys; before = set(sys.modules); import softknee; softknee.activations; "
        f"print([m for m in {heavy!r} if m in set(sys.modules) - before])"
    )
    run = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, timeout=60)
    assert run.stdout.strip() == "[]", run.stdout + run.stderr


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16])
@pytest.mark.parametrize("name", ["softmax", "log_softmax"])
def test_softmax_of_half_precision_is_rounded_once(name, dtype):
    x = (8 * torch.randn(64, 10, generator=torch.Generator().manual_seed(0))).to(dtype)
    for temperature in (2.0, torch.tensor([[3.0]])):
        got = getattr(SF, name)(x, -1, temperature=temperature)
        wanted = getattr(torch, name)(x.double() / torch.as_tensor(temperature).double(), -1).to(dtype)
        assert got.dtype == dtype
        # one unit in the last place, where float32's own rounding meets a tie
        unit = torch.finfo(dtype).eps * wanted.double().abs().clamp(min=2**-4)
        assert ((got.double() - wanted.double()).abs() <= unit).all()
        assert (got == wanted).double().mean() > 0.99


def test_softmax_of_a_scalar_and_of_integers_with_a_dtype():
    assert SF.softmax(torch.tensor(2.0), 0, temperature=2.0).item() == 1.0
    assert SF.softmax(X.to("meta"), -1, temperature=torch.tensor(2.0, device="meta")).shape == X.shape
    integers = torch.arange(6).view(2, 3)
    got, wanted = (f(integers, 1, dtype=torch.float32) for f in (SF.softmax, F.softmax))
    torch.testing.assert_close(got, wanted, rtol=2**-23, atol=0.0)
    with pytest.raises(InputError, match="got int64"):
        SF.softmax(integers, 1)


@pytest.mark.parametrize("shape", [(2, 3), (2, 3, 4), (2, 3, 4, 3), (2, 3, 2, 3, 2), (0, 3, 4)])
def test_prelu_weights_per_channel_are_dimension_1(shape):
    x, weight = torch.randn(shape, requires_grad=True), torch.tensor([0.1, 0.2, 0.3], requires_grad=True)
    mine, theirs = SF.prelu(x, weight), F.prelu(x, weight)
    torch.testing.assert_close(mine, theirs)
    up = torch.randn(shape)
    torch.testing.assert_close(torch.autograd.grad(mine, (x, weight), up), torch.autograd.grad(theirs, (x, weight), up))
    slope = torch.autograd.grad(F.prelu(x, weight).sum(), x)[0]
    torch.testing.assert_close(softknee.get("prelu").slope(x, weight=weight), slope)
    with pytest.raises(InputError, match="weight has 2 channels, .* has 3 in dimension 1"):
        SF.prelu(x, weight[:2])


def test_prelu_of_a_scalar_keeps_its_shape():
    assert SF.prelu(torch.tensor(-2.0), torch.tensor([0.5])).shape == ()
