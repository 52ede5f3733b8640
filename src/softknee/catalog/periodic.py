"""Periodic activations, for functions of coordinates and for sound. They have no limit at ±∞: it is stated as NaN."""

import math

from .spec import elementwise

NONE = (math.nan, math.nan)


@elementwise(
    aliases=("sin",),
    source="Parascandolo et al. 2016, Taming the waves",
    limits=NONE,
    conditions=("-inf < omega", "omega < inf"),
    tags=("periodic", "coordinates"),
    equivalent_to={"siren": {"omega": 1.0}},
)
def sine(x, ops, *, omega=1.0):
    """sin(omega·x)."""
    return ops.sin(omega * x)


@elementwise(
    source="Sitzmann et al. 2020, arXiv:2006.09661",
    limits=NONE,
    conditions=("-inf < omega", "omega < inf"),
    module_name="Siren",
    tags=("periodic", "coordinates"),
    equivalent_to={"sine": {"omega": 30.0}},
)
def siren(x, ops, *, omega=30.0):
    """sin(omega·x), with the frequency of SIREN."""
    return ops.sin(omega * x)


@elementwise(
    source="Noel et al. 2021, arXiv:2108.12943",
    limits=NONE,
    module_name="GCU",
    tags=("periodic", "hidden"),
)
def gcu(x, ops):
    """Growing cosine unit, x·cos(x)."""
    return x * ops.cos(x)


# Of the published modules, against a division by 0; it moves f by a part in 10⁹.
GUARD = 1e-9


def _rippled(x, ops, frequency, size):
    """x + sin²(u)/size, u = frequency·x: f′ = 1 + sin(2u)·r = (sin u + cos u)² − sin(2u)·(1 − r), r = frequency/size,
    which does not cancel where r is nearly 1."""
    u = frequency * x
    s, c, r = ops.sin(u), ops.cos(u), frequency / size
    slope = (s + c) * (s + c) - 2.0 * s * c * ((size - frequency) / size)
    curve = 2.0 * frequency * r * (c - s) * (c + s)
    value = ops.where(ops.abs(x) >= math.inf, x, x + s * s / size)
    return ops.with_slope(value, x, ops.with_slope(slope, x, curve))


def _snake_stable(x, ops, *, alpha):
    value = _rippled(x, ops, alpha, alpha + GUARD)
    s = ops.sin(alpha * x)
    by_alpha = (2.0 * s * ops.cos(alpha * x) * x - s * s / (alpha + GUARD)) / (alpha + GUARD)
    return ops.with_slope(value, alpha, by_alpha)


@elementwise(
    source="Ziyin et al. 2020, arXiv:2006.08195; Kumar et al. 2023 (DAC), arXiv:2306.06546",
    stable=_snake_stable,
    limits=(-math.inf, math.inf),
    learnable=("alpha",),
    tags=("periodic", "audio", "learnable"),
    equivalent_to={"snake_beta": {}},
)
def snake(x, ops, *, alpha=1.0):
    """x + sin²(alpha·x)/(alpha + 1e-9), alpha learned; the guard is that of the published modules."""
    s = ops.sin(alpha * x)
    return x + s * s / (alpha + GUARD)


def _snake_beta_stable(x, ops, *, alpha, beta):
    frequency, size = ops.exp(alpha), ops.exp(beta) + GUARD
    s = ops.sin(frequency * x)
    value = _rippled(x, ops, frequency, size)
    value = ops.with_slope(value, alpha, 2.0 * s * ops.cos(frequency * x) * frequency * x / size)
    return ops.with_slope(value, beta, -s * s / size * (ops.exp(beta) / size))


@elementwise(
    source="Lee et al. 2022 (BigVGAN), arXiv:2206.04658",
    stable=_snake_beta_stable,
    limits=(-math.inf, math.inf),
    learnable=("alpha", "beta"),
    module_name="SnakeBeta",
    tags=("periodic", "audio", "learnable"),
)
def snake_beta(x, ops, *, alpha=0.0, beta=0.0):
    """x + sin²(e^alpha·x)/(e^beta + 1e-9): what is learned, and what checkpoints hold, are the logarithms."""
    s = ops.sin(ops.exp(alpha) * x)
    return x + s * s / (ops.exp(beta) + GUARD)


def _sinc_stable(x, ops):
    # Near 0 the derivatives cancel: with u = πx they are π·Σ −(−1)ᵏ·2k/(2k + 1)!·u²ᵏ⁻¹ and π²·Σ … ·(2k − 1)·u²ᵏ⁻².
    u = ops.pi * x
    square, first, second = u * u, 0.0, 0.0
    for k in range(11, 0, -1):
        first = -first * square + 2 * k / math.factorial(2 * k + 1)
        second = -second * square + 2 * k * (2 * k - 1) / math.factorial(2 * k + 1)
    near, small = ops.abs(x) < 0.3, ops.abs(x) <= 0.0
    s, c = ops.sin(u), ops.cos(u)
    value = ops.where(small, 1.0, s / u)
    slope = ops.where(near, -first * u, (c - s / u) / u) * ops.pi
    curve = ops.where(near, -second, -(s + 2.0 * (c - s / u) / u) / u) * ops.pi * ops.pi

    def vanishing(v):
        return ops.where(ops.abs(u) >= math.inf, 0.0, v)

    return ops.with_slope(vanishing(value), x, ops.with_slope(vanishing(slope), x, vanishing(curve)))


@elementwise(
    source="Whittaker 1915; Ramasinghe & Lucey 2021, arXiv:2111.15135",
    stable=_sinc_stable,
    limits=(0.0, 0.0),
    tags=("periodic", "coordinates"),
)
def sinc(x, ops):
    """sin(πx)/(πx), and 1 at 0."""
    zero = ops.abs(x) <= 0.0
    return ops.where(zero, 1.0, ops.sin(ops.pi * x) / (ops.pi * ops.where(zero, 1.0, x)))
