"""Which path a call takes: never one that is less exact than stated, never the composite without a reason."""

from __future__ import annotations

import pytest
import torch
import torch.nn.functional as F

import softknee
from softknee.errors import InputError
from softknee.kernels import paths
from softknee.kernels.paths import Figure, Path

pytestmark = pytest.mark.usefixtures("without_kernels")
ELEMENTWISE = [a for a in softknee.activations() if a.kind == "elementwise" and a.core]


def test_relu_is_torchs_own_op():
    x = torch.randn(5, requires_grad=True)
    for dtype in (torch.float64, torch.float32, torch.float16, torch.bfloat16):
        assert softknee.get("relu").path(x.to(dtype)).forward == "native"
    assert softknee.get("relu")(x).grad_fn.name() == F.relu(x).grad_fn.name()


def test_what_torch_loses_is_ours():
    x = torch.randn(5)
    gelu = softknee.get("gelu").path(x)
    assert gelu.forward == "composite" and "f is lost at x = -5" in gelu.reason
    tanh = softknee.get("tanh").path(x)
    assert (tanh.forward, tanh.backward) == ("native", "composite") and "f′ is lost at x = " in str(tanh)
    assert softknee.get("gelu").path(x.half()).forward == "table"


def test_a_users_own_has_tables_and_the_composite():
    @softknee.elementwise
    def own(x, ops):
        return x * ops.tanh(x)

    assert own.path(torch.randn(3)).forward == "composite"
    assert own.path(torch.randn(3).half()).forward == "table"


def test_a_tensor_parameter_takes_the_composite_but_for_prelus():
    x = torch.randn(4, 3)
    alpha = torch.tensor(1.5)
    assert softknee.get("elu").path(x, alpha=alpha).forward == "composite"
    assert "alpha is a tensor" in softknee.get("elu").path(x, alpha=alpha).reason
    assert softknee.get("prelu").path(x, weight=torch.rand(3)).forward == "native"
    assert softknee.get("prelu").path(x, weight=torch.rand(3).double()).forward == "composite"
    assert softknee.get("rrelu").path(x, training=True).forward == "composite"


def test_paths_are_the_same_function():
    """Whatever the path, the values are the composite's within what both promise."""
    x = torch.linspace(-4, 4, 81)
    for activation in ELEMENTWISE:
        values = [activation.defaults[name] for name in activation.parameters]
        torch.testing.assert_close(activation(x), activation.composite.compute(x, *values), rtol=2e-6, atol=1e-7)


def test_path_raises_as_the_call_does():
    with pytest.raises(InputError, match="no parameter 'alhpa'"):
        softknee.get("elu").path(torch.randn(3), alhpa=1.0)
    with pytest.raises(InputError, match="complex64"):
        softknee.get("elu").path(torch.zeros(2, dtype=torch.complex64))


@pytest.mark.parametrize("name", [a.name for a in ELEMENTWISE])
def test_every_reason_is_told(name):
    for dtype in (torch.float64, torch.float32, torch.float16, torch.bfloat16):
        for device in ("cpu", "cuda"):
            chosen = paths.choose(softknee.get(name), dtype, device)
            ways = ("native", "table", "composite") if device == "cpu" else ("native", "composite", "kernel")
            assert chosen.reason and chosen.forward in ways
            if device != "cpu":
                assert "table" not in (chosen.forward, chosen.backward)


@pytest.mark.parametrize(
    ("figure", "word"),
    [(Figure(9e9, 1.0, None), "off by"), (Figure(0.5, 1.0, -3.0), "lost"), (Figure(float("inf"), 0.0, None), "off by")],
)
def test_an_inexact_op_is_not_used(monkeypatch, figure, word):
    """The gate can fail: one bad figure, and PyTorch's op is left out."""
    relu = softknee.get("relu")
    good = Figure(0.5, 0.0, None)

    def planted(order):
        native = [good, good, good]
        native[order] = figure
        monkeypatch.setattr(paths, "figures", lambda a, dtype, path: native if path == "native" else [good] * 3)
        return paths.uncompiled.__wrapped__(relu, torch.float32, "cpu")

    assert planted(0).forward == planted(0).backward == "composite" and word in planted(0).reason
    for order in (1, 2):
        chosen = planted(order)
        assert (chosen.forward, chosen.backward) == ("native", "composite") and word in chosen.reason


def test_path_reads_as_a_sentence():
    assert str(Path("native", "native", "PyTorch's op is as exact")) == "native: PyTorch's op is as exact"


@pytest.mark.parametrize("dtype", [torch.float64, torch.float32, torch.bfloat16])
def test_an_infinite_parameter_is_no_default(dtype):
    """Only softplus's own threshold is left out for PyTorch's."""
    x = torch.tensor([-5.0, 0.5, 5.0, 100.0], dtype=dtype)
    inf = float("inf")
    for name, given in (
        ("hardtanh", {"min_val": 0.0, "max_val": inf}),
        ("hardtanh", {"min_val": -inf, "max_val": 0.0}),
        ("softshrink", {"lambd": inf}),
        ("hardshrink", {"lambd": inf}),
        ("softplus", {"threshold": -inf}),
        ("softplus", {"threshold": inf}),
        ("hardtanh", {"min_val": 0.0, "max_val": 1e39}),
        ("hardshrink", {"lambd": 1e-42}),
    ):
        activation = softknee.get(name)
        wanted = torch.from_numpy(activation.value(x.double().numpy(), **given))
        torch.testing.assert_close(activation(x, **given).double(), wanted, rtol=1e-2, atol=0)


def test_the_identity_and_integers_have_a_path_too():
    assert "returns its input" in softknee.get("identity").path(torch.randn(2)).reason
    assert softknee.get("relu").path(torch.tensor([1, -1])).forward == "native"
    with pytest.raises(InputError, match="int64"):
        softknee.get("silu").path(torch.tensor([1]))


@pytest.mark.parametrize(
    ("name", "inputs", "given", "message"),
    [
        ("silu", (), {}, "takes x as tensors, got nothing"),
        ("silu", (None,), {}, "got NoneType"),
        ("swiglu", (torch.zeros(2),), {}, "gate and up"),
        ("swiglu", (torch.zeros(2), torch.zeros(3)), {}, "do not broadcast"),
        ("elu", (torch.zeros(4),), {"alpha": torch.ones(3)}, "does not broadcast"),
        ("prelu", (torch.zeros(2, 3),), {"weight": torch.ones(4)}, "4 channels"),
        ("softmax", (torch.zeros(2),), {}, "dim"),
    ],
)
def test_path_refuses_what_the_call_refuses(name, inputs, given, message):
    activation = softknee.get(name)
    for function in (activation, activation.path):
        with pytest.raises(InputError, match=message):
            function(*inputs, **given)


def test_a_direct_call_checks_its_options_too():
    x = torch.randn(3)
    for wrong in ("no", 1, 0, None):
        with pytest.raises(InputError, match="inplace must be True or False"):
            softknee.get("relu")(x, inplace=wrong)
    with pytest.raises(InputError, match="dim must be a whole number, got True"):
        softknee.get("softmax")(x, dim=True)
