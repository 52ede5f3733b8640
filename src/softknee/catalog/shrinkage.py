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
    # Near 0 the difference cancels, but x·cosh x − sinh x = Σ 2k/(2k + 1)!·x²ᵏ⁺¹ has terms of one sign. Nine of them
    # leave 1e-18 at |x| = 1. Further out tanh|x| = 1 − 2q is close to 1. The derivative 1 − sech² is tanh².
    square, size, q = x * x, ops.abs(x), ops.sigmoid(-2.0 * ops.abs(x))
    t, slope = 1.0 - (q + q), ops.tanh(x)
    series = 18 / math.factorial(19)
    for k in range(8, 0, -1):
        series = series * square + 2 * k / math.factorial(2 * k + 1)
    near = series * square * x * ops.sqrt(1.0 - t * t)
    far = (size - 1.0) + (q + q)
    value = ops.where(size < 1.0, near, ops.where(x < 0.0, -far, far))
    return ops.with_slope(value, x, slope * slope)


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
