"""Smooth activations that gate the identity by a curve of the input, beyond those that networks commonly have."""

import math

from .smooth import gelu, silu
from .spec import elementwise


@elementwise(
    aliases=("clipped_gelu",),
    source="Wu et al. 2020, arXiv:2004.09602",
    limits=(0.0, 10.0),
    module_name="GELU10",
    tags=("hidden", "transformer"),
)
def gelu_10(x, ops):
    """GELU clipped to [−10, 10] for 8-bit quantization: it is never below −0.17, so only 10 is reached."""
    return ops.minimum(10.0, gelu.on(ops, x))


def _tanhexp_stable(x, ops):
    # Left of −20 tanh(eˣ) is eˣ to the last bit, but underflows before x·eˣ does. tanh(eˣ) is 1 long before 40.
    e = ops.exp(ops.minimum(40.0, x))
    return ops.where(x < -20.0, x * ops.exp(x), x * ops.tanh(e))


@elementwise(
    aliases=("telu",),
    source="Liu & Di 2020, arXiv:2003.09855; Fernandez & Mali 2024 (TeLU), arXiv:2412.20269",
    stable=_tanhexp_stable,
    limits=(0.0, math.inf),
    module_name="TanhExp",
    tags=("hidden",),
)
def tanhexp(x, ops):
    """x·tanh(eˣ), published twice: as TanhExp and as TeLU."""
    return x * ops.tanh(ops.exp(x))


def _golu_stable(x, ops):
    # exp(−e⁻ˣ) is below the smallest float64 left of −6.7, and e⁻ˣ itself overflows further out
    return x * ops.exp(-ops.exp(-ops.maximum(-10.0, x)))


@elementwise(
    aliases=("expexpish",),
    source="Das et al. 2025, arXiv:2502.03654",
    stable=_golu_stable,
    limits=(0.0, math.inf),
    module_name="GoLU",
    tags=("hidden",),
)
def golu(x, ops):
    """Gompertz linear unit, x·exp(−e⁻ˣ): gated by the distribution function of a Gumbel variable."""
    return x * ops.exp(-ops.exp(-x))


def _serf_stable(x, ops):
    # Left of −40 erf(softplus(x)) is 2/√π·eˣ to the last bit, but underflows before the product does.
    return ops.where(x < -40.0, 2.0 / ops.sqrt(ops.pi) * x * ops.exp(x), x * ops.erf(ops.softplus(x)))


@elementwise(
    source="Nag et al. 2021, arXiv:2108.09598",
    stable=_serf_stable,
    limits=(0.0, math.inf),
    tags=("hidden",),
)
def serf(x, ops):
    """Mish with erf for tanh, x·erf(log(1 + eˣ))."""
    return x * ops.erf(ops.softplus(x))


def _logish_stable(x, ops):
    # Left of −40 log(1 + σ) is σ to the last bit, but underflows before the product does.
    return ops.where(x < -40.0, silu.on(ops, x), x * ops.log1p(ops.sigmoid(x)))


@elementwise(
    source="Zhu et al. 2021, Neurocomputing 458",
    stable=_logish_stable,
    limits=(0.0, math.inf),
    tags=("hidden",),
)
def logish(x, ops):
    """x·log(1 + σ(x))."""
    return x * ops.log1p(ops.sigmoid(x))


def _smish_stable(x, ops):
    # tanh(log y) = (y² − 1)/(y² + 1) = σ·(2 + σ)/(2 + 2σ + σ²) with y = 1 + σ; as 1 − …, since 3·x may overflow
    s = ops.sigmoid(x)
    return x * ops.sigmoid(x) * (1.0 - s * (1.0 + s) / (2.0 + s * (2.0 + s)))


@elementwise(
    source="Wang et al. 2022, Electronics 11",
    stable=_smish_stable,
    limits=(0.0, math.inf),
    tags=("hidden",),
)
def smish(x, ops):
    """x·tanh(log(1 + σ(x))), the paper's with both its factors 1."""
    return x * ops.tanh(ops.log1p(ops.sigmoid(x)))


def _phish_stable(x, ops):
    # Left of −7 tanh(gelu(x)) is gelu(x) to the last bit, but underflows before the product does.
    return ops.where(x < -7.0, x * gelu.on(ops, x), x * ops.tanh(gelu.on(ops, x)))


@elementwise(
    source="Naveen 2022, TechRxiv",
    stable=_phish_stable,
    limits=(0.0, math.inf),
    tags=("hidden",),
)
def phish(x, ops):
    """x·tanh(gelu(x)): positive on both sides of 0."""
    return x * ops.tanh(gelu.on(ops, x))


@elementwise(
    source="Roy et al. 2019, arXiv:1901.05894",
    limits=(math.inf, math.inf),
    module_name="LiSHT",
    tags=("hidden",),
)
def lisht(x, ops):
    """x·tanh(x): even, x² near 0 and |x| far out."""
    return x * ops.tanh(x)


def _colu_stable(x, ops):
    # Left of −1 divided through by x·e⁻ˣ, which overflows
    left = ops.exp(x) / (ops.exp(x) / x - ops.exp(-ops.exp(x)))
    return ops.where(x < -1.0, left, x / (1.0 - x * ops.exp(-(x + ops.exp(ops.minimum(40.0, x))))))


@elementwise(
    source="Vagerwal 2021, arXiv:2112.12078",
    stable=_colu_stable,
    limits=(0.0, math.inf),
    module_name="CoLU",
    tags=("hidden",),
)
def colu(x, ops):
    """Collapsing linear unit, x/(1 − x·exp(−(x + eˣ)))."""
    return x / (1.0 - x * ops.exp(-(x + ops.exp(x))))


def _b_silu_stable(x, ops, *, alpha):
    # σ(x) − 1/2 = tanh(x/2)/2: both terms have the sign of x, where alpha is positive
    return x * ops.sigmoid(x) + 0.5 * alpha * ops.tanh(0.5 * x)


@elementwise(
    source="Horuz et al. 2025, arXiv:2505.22074",
    stable=_b_silu_stable,
    limits=(-0.835, math.inf),
    conditions=("-inf < alpha", "alpha < inf"),
    module_name="BSiLU",
    tags=("hidden",),
)
def b_silu(x, ops, *, alpha=1.67):
    """Bounded SiLU, (x + alpha)·σ(x) − alpha/2: from −alpha/2 up, through 0."""
    return (x + alpha) * ops.sigmoid(x) - 0.5 * alpha


@elementwise(
    aliases=("softclamp_silu",),
    source="Kimi K3 2026, arXiv:2607.24653",
    limits=(0.0, 4.0),
    conditions=("0 < cap", "cap < inf"),
    module_name="SiTU",
    tags=("hidden", "llm"),
)
def situ(x, ops, *, cap=4.0):
    """SiLU with its linear part softly capped, σ(x)·cap·tanh(x/cap): the gate of situ_glu."""
    from .sigmoids import softcap

    return ops.sigmoid(x) * softcap.on(ops, x, cap=cap)
