"""Shrinkage: small inputs go to 0, as in sparse coding and wavelet denoising."""

import math

from .spec import elementwise


@elementwise(
    aliases=("hard_shrink",),
    source="Donoho & Johnstone 1994, Biometrika 81",
    limits=(-math.inf, math.inf),
    torch="hardshrink",
    torch_module="Hardshrink",
    tags=("sparse",),
    core=True,
)
def hardshrink(x, ops, *, lambd=0.5):
    """0 where |x| ≤ lambd, else x: it jumps at ±lambd, where its derivative is 0."""
    return ops.where(ops.abs(x) <= lambd, 0.0, x)


@elementwise(
    aliases=("soft_shrink",),
    source="Donoho 1995, IEEE Transactions on Information Theory 41",
    limits=(-math.inf, math.inf),
    conditions=("0 <= lambd",),
    torch="softshrink",
    torch_module="Softshrink",
    tags=("sparse",),
    core=True,
)
def softshrink(x, ops, *, lambd=0.5):
    """Soft thresholding: 0 where |x| ≤ lambd, else x moved towards 0 by lambd."""
    return ops.where(ops.abs(x) <= lambd, 0.0, ops.where(x > 0.0, x - lambd, x + lambd))


def _tanhshrink_stable(x, ops):
    # Near 0 the difference cancels. Lambert's fraction tanh x = x/(1 + x²/(3 + x²/(5 + …))) is x·u₁/u₀ with
    # uₖ = (2k + 1)·uₖ₊₁ + x²·uₖ₊₂, all of one sign, and the difference is x³·u₂/u₀, u₀ = 3·u₂ + x²·(u₂ + u₃). Begun
    # with u₁₀ = 1 and u₁₁ = 0, it is off by 2e-19 at |x| = 1. Further out tanh|x| = 1 − 2q is close to 1. The
    # derivative 1 − sech² is tanh², of x less the difference, which is rounded less than tanh itself.
    square, size, q = x * x, ops.abs(x), ops.sigmoid(-2.0 * ops.abs(x))
    u, after = 17.0 * 19.0 + square, 19.0
    for k in range(7, 1, -1):
        u, after = (2 * k + 1) * u + square * after, u
    near = x * square / (3.0 + square * (1.0 + after / u))
    far = (size - 1.0) + (q + q)
    value = ops.where(size < 1.0, near, ops.where(x < 0.0, -far, far))
    t = ops.where(size < 1.0, x - near, ops.where(x < 0.0, (q + q) - 1.0, 1.0 - (q + q)))
    t = ops.with_slope(t, x, ops.sech2(x))
    return ops.with_slope(value, x, t * t)


@elementwise(
    aliases=("tanh_shrink",),
    source="PyTorch Tanhshrink",
    stable=_tanhshrink_stable,
    limits=(-math.inf, math.inf),
    torch="tanhshrink",
    torch_module="Tanhshrink",
    tags=("sparse",),
    core=True,
)
def tanhshrink(x, ops):
    """x − tanh(x): x³/3 near 0, x ∓ 1 far out."""
    return x - ops.tanh(x)
