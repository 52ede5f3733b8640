"""Functions of calculus that networks use as activations."""

import math

from .spec import elementwise


@elementwise(aliases=("exponential",), source="-", limits=(0.0, math.inf), tags=("positive",))
def exp(x, ops):
    """The exponential, eˣ."""
    return ops.exp(x)


@elementwise(source="-", limits=(-1.0, math.inf))
def expm1(x, ops):
    """eˣ − 1, without the cancellation near 0."""
    return ops.expm1(x)


@elementwise(source="-", limits=(-1.0, 1.0), tags=("gate",))
def erf(x, ops):
    """The error function, 2/√π·∫₀ˣ exp(−t²)dt."""
    return ops.erf(x)


@elementwise(aliases=("arctan",), source="-", limits=(-math.pi / 2, math.pi / 2), tags=("gate",))
def atan(x, ops):
    """The arctangent."""
    return ops.atan(x)


def _asinh_stable(x, ops):
    # of |x|; log1p where it is small, and log|x| apart where its square overflows. The derivative is 1/√(1 + x²).
    from .algebraic import _inverse_root

    size = ops.abs(x)
    near = ops.log1p(size + size * size / (1.0 + ops.sqrt(size * size + 1.0)))
    far = ops.log(size) + ops.log1p(ops.sqrt(1.0 + 1.0 / size / size))
    value = ops.where(size > 1.0, far, near)
    return ops.with_slope(ops.where(x < 0.0, -value, value), x, _inverse_root(x, ops))


@elementwise(aliases=("arcsinh",), source="-", stable=_asinh_stable, limits=(-math.inf, math.inf), tags=("regression",))
def asinh(x, ops):
    """The inverse hyperbolic sine, log(x + √(x² + 1)): linear near 0, logarithmic far out."""
    return ops.log(x + ops.sqrt(x * x + 1.0))


@elementwise(
    aliases=("symmetric_log",),
    source="Hafner et al. 2023 (DreamerV3), arXiv:2301.04104",
    limits=(-math.inf, math.inf),
    tags=("regression",),
)
def symlog(x, ops):
    """sign(x)·log(1 + |x|): the inverse of symexp."""
    return ops.where(x > 0.0, ops.log1p(ops.abs(x)), -ops.log1p(ops.abs(x)))


@elementwise(
    aliases=("symmetric_exp",),
    source="Hafner et al. 2023 (DreamerV3), arXiv:2301.04104",
    limits=(-math.inf, math.inf),
    tags=("regression",),
)
def symexp(x, ops):
    """sign(x)·(exp(|x|) − 1): the inverse of symlog."""
    return ops.where(x > 0.0, ops.expm1(x), -ops.expm1(-x))


@elementwise(
    aliases=("vrelu", "modulus"),
    source="-",
    limits=(math.inf, math.inf),
    equivalent_to={"leaky_relu": {"negative_slope": -1.0}, "prelu": {"weight": -1.0}, "apl": {"a": 1.0}},
)
def abs(x, ops):
    """The absolute value, |x|. Derivative 0 at 0."""
    return ops.abs(x)


@elementwise(source="Hubara et al. 2016, arXiv:1602.02830", limits=(-1.0, 1.0), tags=("binary",))
def sign(x, ops):
    """−1, 0 or 1. Its derivative is 0 everywhere: what trains through it brings a straight-through estimator."""
    return ops.where(x > 0.0, 1.0, ops.where(x < 0.0, -1.0, ops.where(ops.abs(x) <= 0.0, 0.0, x)))


@elementwise(aliases=("heaviside", "binary_step"), source="McCulloch & Pitts 1943", limits=(0.0, 1.0), tags=("binary",))
def step(x, ops, *, threshold=0.0):
    """1 where x ≥ threshold, else 0. Its derivative is 0 everywhere."""
    return ops.where(x >= threshold, 1.0, ops.where(x < threshold, 0.0, x))


@elementwise(aliases=("square",), source="Livni et al. 2014, arXiv:1410.1141", limits=(math.inf, math.inf))
def quadratic(x, ops):
    """x²."""
    return x * x


@elementwise(source="Chen & Manning 2014, EMNLP", limits=(-math.inf, math.inf))
def cube(x, ops):
    """x³."""
    return x * x * x


@elementwise(
    aliases=("ndtr",),
    source="Bliss 1934, Science 79",
    limits=(0.0, 1.0),
    tags=("gate", "binary-output"),
    equivalent_to={"laplace": {"mu": 0.0, "sigma": 1.0}},
)
def probit(x, ops):
    """The normal distribution function, Φ(x)."""
    return 0.5 * ops.erfc(-x / ops.sqrt(2.0))


@elementwise(
    aliases=("rbf", "radial"),
    source="Ramasinghe & Lucey 2021, arXiv:2111.15135",
    limits=(0.0, 0.0),
    conditions=("0 < sigma", "sigma < inf"),
    tags=("coordinates",),
)
def gaussian(x, ops, *, sigma=1.0):
    """exp(−x²/(2·sigma²)): a bump at 0."""
    return ops.exp(-0.5 * (x / sigma) * (x / sigma))


def _mexican_hat_stable(x, ops):
    # each derivative a polynomial times the same exponential, which beats it at ±∞
    square, bump = x * x, ops.exp(-0.5 * x * x)
    slope = ops.with_slope(x * (square - 3.0) * bump, x, -(square * (square - 6.0) + 3.0) * bump)
    return ops.with_slope((1.0 - square) * bump, x, slope)


@elementwise(
    aliases=("ricker",),
    source="Zhang & Benveniste 1992, IEEE Transactions on Neural Networks 3",
    stable=_mexican_hat_stable,
    limits=(0.0, 0.0),
)
def mexican_hat(x, ops):
    """The second derivative of a Gaussian bump, upside down: (1 − x²)·exp(−x²/2)."""
    return (1.0 - x * x) * ops.exp(-0.5 * x * x)
