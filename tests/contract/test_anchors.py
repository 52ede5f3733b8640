"""Against implementations that are not ours: a formula that is wrong everywhere is caught here. Kinks as in PyTorch."""

from __future__ import annotations

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from scipy import special, stats

import softknee
import softknee.functional as SF

X = torch.linspace(-6, 6, 64, dtype=torch.float64)


def torch_function(activation):
    return getattr(F, activation.torch) if activation.torch else None


def arguments(activation):
    """What makes PyTorch's function the entry's: its variant, and parameters that PyTorch has no default for."""
    given = dict(activation.torch_arguments)
    if activation.name == "prelu":
        given["weight"] = torch.tensor([0.25], dtype=torch.float64)
    return given


def test_equals_torch(elementwise):
    if torch_function(elementwise) is None:
        assert torch.equal(elementwise(X), X), "only the identity is without a function in torch"
        return
    theirs = torch_function(elementwise)(X, **arguments(elementwise))
    torch.testing.assert_close(elementwise(X), theirs, rtol=1e-9, atol=1e-9)


def test_equals_scipy():
    x = X.numpy()
    anchors = {
        "sigmoid": special.expit(x),
        "softplus": np.logaddexp(x, 0),
        "gelu": x * stats.norm.cdf(x),
        "tanh": np.sinh(x) / np.cosh(x),
        "silu": x / (1 + np.exp(-x)),
        "mish": x * np.tanh(np.log1p(np.exp(x))),
        "selu": special.elu(x) if hasattr(special, "elu") else None,
    }
    for name, values in anchors.items():
        if values is not None:
            np.testing.assert_allclose(softknee.get(name).value(x), values, rtol=1e-12, atol=1e-15)


def test_derivative_at_each_kink_is_torchs(elementwise):
    if torch_function(elementwise) is None:
        pytest.skip("torch has no such function")
    for kink in elementwise.facts.breakpoints:
        slopes = []
        for function, given in ((elementwise, {}), (torch_function(elementwise), arguments(elementwise))):
            x = torch.tensor([kink], dtype=torch.float64, requires_grad=True)
            slopes.append(torch.autograd.grad(function(x, **given).sum(), x)[0].item())
        assert slopes[0] == slopes[1], f"{elementwise.name} at {kink}"


def test_gated_equals_its_parts():
    gate, up = torch.randn(2, 64, dtype=torch.float64)
    parts = {"glu": torch.sigmoid, "reglu": torch.relu, "geglu": F.gelu, "swiglu": F.silu}
    for name, part in parts.items():
        torch.testing.assert_close(softknee.get(name)(gate, up), part(gate) * up, rtol=1e-9, atol=1e-12)
    packed = torch.randn(5, 8)
    torch.testing.assert_close(SF.glu(packed), F.glu(packed))
    torch.testing.assert_close(SF.glu(packed[:4], 0), F.glu(packed[:4], 0))


def test_normalizer_equals_torch(normalizer):
    x = torch.randn(64, 7, dtype=torch.float64)
    for dim in (0, 1, -1):
        torch.testing.assert_close(normalizer(x, dim=dim), getattr(F, normalizer.torch)(x, dim))
        torch.testing.assert_close(
            normalizer(x, dim=dim, temperature=0.3), getattr(F, normalizer.torch)(x / 0.3, dim), rtol=1e-10, atol=1e-12
        )


def test_published_constants():
    """Figures that papers and textbooks print, from the definitions."""
    softmax = softknee.get("softmax")
    for t, row in ((0.5, [0.864, 0.117, 0.019]), (2.0, [0.502, 0.304, 0.194])):
        assert softmax.value([2.0, 1.0, 0.1], temperature=t).round(3).tolist() == row
    assert softknee.get("sigmoid").facts.largest_derivative.value == 0.25
    assert softknee.get("silu").facts.minimum.x == pytest.approx(-1.2785, abs=5e-5)
    assert softknee.get("gelu").facts.minimum.x == pytest.approx(-0.7518, abs=5e-5)
    assert softknee.get("mish").facts.minimum.x == pytest.approx(-1.1924, abs=5e-5)
    gap = np.abs(softknee.get("gelu").value(X.numpy()) - softknee.get("gelu_tanh").value(X.numpy())).max()
    assert 4.5e-4 < gap < 4.74e-4
