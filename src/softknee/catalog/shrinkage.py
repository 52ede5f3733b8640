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


def _lambert() -> tuple[list[float], list[float]]:
    # Lambert's fraction tanh x = x/(1 + x²/(3 + x²/(5 + …))) is x·u₁/u₀ with uₖ = (2k + 1)·uₖ₊₁ + x²·uₖ₊₂, all of one
    # sign, and x − tanh x is x³·u₂/u₀. The coefficients of u₂ and of u₀ in x², over u₂'s first: begun with u₁₀ = 1 and
    # u₁₁ = 0, their quotient is off by 2e-19 at |x| = 1.
    u, after = [1], [0]
    found = []
    for k in range(9, -1, -1):
        longer = [0, *after]
        u, after = [(2 * k + 1) * (u[i] if i < len(u) else 0) + c for i, c in enumerate(longer)], u
        found.append(u)
    above, below = ([c / found[7][0] for c in of] for of in (found[7], found[9]))
    return above, below


def _horner(coefficients, t):
    total = coefficients[-1]
    for c in coefficients[-2::-1]:
        total = total * t + c
    return total


def _tanhshrink_stable(x, ops):
    # Near 0 the difference cancels: Lambert's fraction. Further out tanh|x| = 1 − 2e/(1 + e), e = exp(−2|x|), is close
    # to 1. One division serves both. The derivative 1 − sech² is tanh², of x less the difference, which is rounded less
    # than tanh itself.
    square, size, e = x * x, ops.abs(x), ops.exp(-2.0 * ops.abs(x))
    above, below = (_horner(coefficients, square) for coefficients in _lambert())
    near = size < 1.0
    part = ops.where(near, x * square * above, e + e) / ops.where(near, below, 1.0 + e)
    far = (size - 1.0) + part
    value = ops.where(near, part, ops.where(x < 0.0, -far, far))
    t = ops.where(near, x - part, ops.where(x < 0.0, part - 1.0, 1.0 - part))
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
