"""Smooth activations that gate the identity by a sigmoid-like curve."""

import math

from .spec import elementwise


@elementwise(
    aliases=("swish1",),
    source="Hendrycks & Gimpel 2016, arXiv:1606.08415; Elfwing et al. 2017, arXiv:1702.03118",
    limits=(0.0, math.inf),
    torch="silu",
    torch_module="SiLU",
    tags=("hidden", "transformer"),
    core=True,
    equivalent_to={"swish": {}, "xsilu": {}, "acon_c": {}, "b_silu": {"alpha": 0.0}},
)
def silu(x, ops):
    """Sigmoid-weighted linear unit, x·σ(x)."""
    return x * ops.sigmoid(x)


@elementwise(
    aliases=("gelu_erf", "gelu_none", "gelu_python"),
    source="Hendrycks & Gimpel 2016, arXiv:1606.08415",
    limits=(0.0, math.inf),
    torch="gelu",
    torch_module="GELU",
    torch_arguments={"approximate": "none"},
    tags=("hidden", "transformer"),
    core=True,
    equivalent_to={"xgelu": {}, "smu": {"alpha": 0.0, "mu": 0.5**0.5}},
)
def gelu(x, ops):
    """Gaussian error linear unit, x·Φ(x), exact. Φ by erfc, since 1 + erf cancels on the left."""
    return 0.5 * x * ops.erfc(-x / ops.sqrt(2.0))


def _gelu_tanh_stable(x, ops):
    # (1 + tanh u)/2 = σ(2u): the same function without the cancellation of 1 + tanh u on the left
    k = 2.0 * ops.sqrt(2.0 / ops.pi)
    u, gain = k * (x + 0.044715 * x**3), k * (x + 0.134145 * x**3)  # gain: x·u′
    return ops.with_slope(x * ops.sigmoid(u), x, ops.sigmoid(u) + 0.25 * gain * ops.sech2(0.5 * u))


@elementwise(
    aliases=(
        "gelu_new",
        "gelu_fast",
        "gelu_accurate",
        "gelu_pytorch_tanh",
        "gelu_python_tanh",
        "gelu_approx",
        "sielu",
    ),
    source="Hendrycks & Gimpel 2016, arXiv:1606.08415",
    stable=_gelu_tanh_stable,
    limits=(0.0, math.inf),
    torch="gelu",
    torch_module="GELU",
    torch_arguments={"approximate": "tanh"},
    module_name="GELUTanh",
    tags=("hidden", "transformer"),
    core=True,
)
def gelu_tanh(x, ops):
    """GELU's tanh approximation, x/2·(1 + tanh(√(2/π)·(x + 0.044715·x³))); up to 4.7e-4 from the exact one."""
    return 0.5 * x * (1.0 + ops.tanh(ops.sqrt(2.0 / ops.pi) * (x + 0.044715 * x**3)))


@elementwise(
    aliases=("gelu_quick", "gelu_sigmoid", "gelu_fast_approx"),
    source="Hendrycks & Gimpel 2016, arXiv:1606.08415; OpenAI CLIP 2021",
    limits=(0.0, math.inf),
    module_name="QuickGELU",
    tags=("hidden", "transformer"),
    core=True,
    equivalent_to={"swish": {"beta": 1.702}},
)
def quick_gelu(x, ops):
    """GELU's sigmoid approximation, x·σ(1.702·x); up to 2.03e-2 from the exact one."""
    return x * ops.sigmoid(1.702 * x)


def _mish_stable(x, ops):
    # With n = eˣ, tanh(log(1 + n)) = n·s/d, s = n + 2, d = n·s + 2; from 25 on 1 to the last bit, f″ 8·(1 − x)/n².
    # f′ = n·(s + 4·x·(n + 1)/d)/d, which cancels on the left, near its root; there n·((1 + x) − a fraction over d²).
    # f″ = 4·n·(2·(n + 1) + x − 2·x·n²·s/d)/d².
    far, e = x > 25.0, ops.exp(x)
    n = ops.minimum(1e11, e)
    s = n + 2.0
    d = n * s + 2.0
    value = (2.0 * x + ops.maximum(-2000.0, x) * n) / d * e  # x·n may be ∞·0
    four_x, v = ops.minimum(100.0, 4.0 * x), 1.0 / d
    right = (s + v * (four_x * n + four_x)) * v * n
    w = four_x + 2.0
    less = n * (w + n * ((w + w) + n * ((w + 1.0) + n * (x + 1.0)))) * v
    slope = ops.where(x > -0.5, right, ((x + 1.0) - less * v) * e)
    curvature = 4.0 * v * ((2.0 * (n + 1.0) + x - 2.0 * x * n * (n * s * v)) * v) * e
    curvature = ops.where(far, (8.0 - 8.0 * x) * ops.exp(-2.0 * x), curvature)
    slope = ops.with_slope(ops.where(far, 1.0, slope), x, curvature)
    return ops.with_slope(ops.where(far, x, value), x, slope)


@elementwise(
    source="Misra 2019, arXiv:1908.08681",
    stable=_mish_stable,
    limits=(0.0, math.inf),
    torch="mish",
    torch_module="Mish",
    tags=("hidden", "cnn"),
    core=True,
)
def mish(x, ops):
    """Self-gated by the tanh of softplus, x·tanh(log(1 + eˣ))."""
    return x * ops.tanh(ops.softplus(x))
