"""Activations made of roots, quotients and arctangents, whose tails are powers rather than exponentials."""

import math

from .spec import elementwise


def _inverse_root(x, ops, alpha=1.0):
    """1/√(1 + alpha·x²), and by its derivative −alpha·x times its cube; x² may overflow."""
    size = ops.abs(x)
    far = size > 1.0
    value = ops.where(far, 1.0 / size / ops.sqrt(alpha + 1.0 / x / x), 1.0 / ops.sqrt(1.0 + alpha * x * x))
    return ops.with_slope(value, x, -alpha * _root_quotient(x, ops, alpha) * value * value)


def _root_quotient(x, ops, alpha=1.0):
    """x/√(1 + alpha·x²), without derivatives of its own."""
    far = ops.abs(x) > 1.0
    return ops.where(far, ops.sign(x) / ops.sqrt(alpha + 1.0 / x / x), x / ops.sqrt(1.0 + alpha * x * x))


def _isru_stable(x, ops, *, alpha):
    # f′ = (1 + alpha·x²)^(−3/2), and the derivative by alpha is −f³/2
    value, q = _root_quotient(x, ops, alpha), _inverse_root(x, ops, alpha)
    return ops.with_slope(ops.with_slope(value, x, q * q * q), alpha, -0.5 * value * value * value)


@elementwise(
    source="Carlile et al. 2017, arXiv:1710.09967",
    stable=_isru_stable,
    limits=(-1.0, 1.0),
    conditions=("0 < alpha", "alpha < inf"),
    module_name="ISRU",
    tags=("hidden", "gate"),
)
def isru(x, ops, *, alpha=1.0):
    """Inverse square root unit, x/√(1 + alpha·x²): like tanh, without exponentials, within ±1/√alpha."""
    return x / ops.sqrt(1.0 + alpha * x * x)


@elementwise(
    source="Carlile et al. 2017, arXiv:1710.09967",
    limits=(-1.0, math.inf),
    conditions=("0 < alpha", "alpha < inf"),
    module_name="ISRLU",
    tags=("hidden",),
)
def isrlu(x, ops, *, alpha=1.0):
    """Inverse square root linear unit: x above zero, x/√(1 + alpha·x²) below."""
    return ops.where(x < 0.0, isru.on(ops, x, alpha=alpha), x)


def _pflu_stable(x, ops):
    # With q = 1/√(1 + x²) and t = x·q, 1 + t = q²/(1 − t) does not cancel on the left; there f = x/2/(r·(r − x)),
    # r = 1/q, divided through by x². f′ = (1 + t + t·q²)/2 and f″ = q³·(3q² − 1)/2.
    q, t = _inverse_root(x, ops), _root_quotient(x, ops)
    s = ops.sqrt(1.0 + 1.0 / x / x)
    value = ops.where(x < -1.0, 0.5 / x / (s * (1.0 + s)), 0.5 * x * (1.0 + t))
    slope = ops.where(x < 0.0, 0.5 * q * q * (1.0 / (1.0 - t) + t), 0.5 * (1.0 + t + t * q * q))
    return ops.with_slope(value, x, ops.with_slope(slope, x, 0.5 * q * q * q * (3.0 * q * q - 1.0)))


@elementwise(
    source="Zhu & Chen 2021, PFLU and FPFLU",
    stable=_pflu_stable,
    limits=(0.0, math.inf),
    module_name="PFLU",
    tags=("hidden",),
)
def pflu(x, ops):
    """Power function linear unit, x/2·(1 + x/√(1 + x²))."""
    return 0.5 * x * (1.0 + x / ops.sqrt(1.0 + x * x))


def _bent_identity_stable(x, ops):
    # √(x² + 1) − 1 cancels near 0, and x² overflows far out. The derivative is 1 + x/√(x² + 1)/2.
    s = ops.sqrt(1.0 + 1.0 / x / x)
    far = x * (1.0 + 0.5 * ops.sign(x) * s) - 0.5
    near = x + 0.5 * x * x / (1.0 + ops.sqrt(x * x + 1.0))
    value = ops.where(ops.abs(x) > 1.0, far, near)
    return ops.with_slope(value, x, 1.0 + 0.5 * isru.on(ops, x))


@elementwise(
    source="folklore; e3x.nn.bent_identity",
    stable=_bent_identity_stable,
    limits=(-math.inf, math.inf),
    tags=("hidden",),
)
def bent_identity(x, ops):
    """x + (√(x² + 1) − 1)/2: slope 1/2 far left, 3/2 far right."""
    return 0.5 * (ops.sqrt(x * x + 1.0) - 1.0) + x


def _atlu_stable(x, ops):
    # Left of −1, with w = −1/x, f = −atan(w)/w/π and f′ = (atan(w) − w/(1 + w²))/π, which cancels for small w; its
    # series is Σ −(−1)ᵏ·2k/(2k + 1)·w²ᵏ⁺¹. f″ = 2/π/(1 + x²)².
    w = -1.0 / x
    square, series = w * w, 0.0
    for k in range(13, 0, -1):
        series = -series * square + 2 * k / (2 * k + 1)
    far = ops.where(x < -4.0, series * square * w, ops.atan(w) - w / (1.0 + w * w)) / ops.pi
    near = (ops.atan(x) + x / (1.0 + x * x)) / ops.pi + 0.5
    value = ops.where(x < -1.0, x * ops.atan(w) / ops.pi, x * (ops.atan(x) / ops.pi + 0.5))
    value = ops.where(x < -1e9, -1.0 / ops.pi, value)
    q = _inverse_root(x, ops)
    slope = ops.where(x < -1.0, far, ops.where(x > 1e9, 1.0, near))
    return ops.with_slope(value, x, ops.with_slope(slope, x, 2.0 / ops.pi * q * q * q * q))


@elementwise(
    aliases=("cauchy_lu", "arctan_lu"),
    source="Huang 2024, arXiv:2405.20768",
    stable=_atlu_stable,
    limits=(-1.0 / math.pi, math.inf),
    module_name="ATLU",
    tags=("hidden",),
    equivalent_to={"iglu": {}, "xatlu": {}},
)
def atlu(x, ops):
    """Arctan linear unit, x·(atan(x)/π + 1/2): gated by the distribution function of a Cauchy variable."""
    return x * (ops.atan(x) / ops.pi + 0.5)


def _iglu_stable(x, ops, *, sigma):
    # ∂f/∂sigma = x²/π/(1 + (sigma·x)²)
    t = _root_quotient(sigma * x, ops) / sigma
    return ops.with_slope(atlu.on(ops, sigma * x) / sigma, sigma, t * t / ops.pi)


@elementwise(
    source="Kang 2026, arXiv:2603.06861",
    stable=_iglu_stable,
    limits=(-1.0 / math.pi, math.inf),
    learnable=("sigma",),
    conditions=("0 < sigma", "sigma < inf"),
    module_name="IGLU",
    tags=("hidden", "learnable"),
)
def iglu(x, ops, *, sigma=1.0):
    """x·(1/2 + atan(sigma·x)/π), sigma learned."""
    return x * (0.5 + ops.atan(sigma * x) / ops.pi)


@elementwise(
    source="Wuraola & Patel 2018, SQNL",
    limits=(-1.0, 1.0),
    module_name="SQNL",
    tags=("hidden", "gate"),
)
def sqnl(x, ops):
    """Square nonlinearity, x − x·|x|/4 between −2 and 2, ±1 beyond: tanh of multiplications."""
    inside = x * (1.0 - 0.25 * ops.abs(x))
    return ops.where(x >= 2.0, 1.0, ops.where(x <= -2.0, -1.0, inside))
