"""Smooth approximations of ReLU that stay positive, and their kin."""

import math

from .spec import elementwise


def _softplus_stable(x, ops, *, beta, threshold):
    # beta·|x| may overflow, and then its exponential is 0. The derivative with respect to beta,
    # (u·σ(u) − softplus(u))/beta², cancels for u > 0; it is even in u.
    size = beta * ops.abs(x)
    value = ops.with_slope(ops.maximum(0.0, x) + ops.softplus(-size) / beta, x, ops.sigmoid(beta * x))
    slope = -(size * ops.sigmoid(-size) + ops.softplus(-size)) / beta / beta
    return ops.where(beta * x > threshold, x, ops.with_slope(value, beta, slope))


@elementwise(
    aliases=("smooth_relu",),
    source="Dugas et al. 2001, NeurIPS",
    stable=_softplus_stable,
    limits=(0.0, math.inf),
    conditions=("0 < beta", "beta < inf"),
    torch="softplus",
    torch_module="Softplus",
    tags=("positive",),
    core=True,
)
def softplus(x, ops, *, beta=1.0, threshold=math.inf):
    """Smooth ReLU, log(1 + exp(beta·x))/beta; the identity where beta·x > threshold.

    PyTorch's threshold is 20, a guard against overflow that this form does not need: off by up to 2e-9 in float64,
    no difference in float32. Pass threshold=20 for exactly PyTorch's function.
    """
    return ops.where(beta * x > threshold, x, ops.softplus(beta * x) / beta)


@elementwise(
    aliases=("log_sigmoid",),
    source="classical; the log-likelihood of logistic regression",
    limits=(-math.inf, 0.0),
    torch="logsigmoid",
    torch_module="LogSigmoid",
    tags=("binary-output",),
    core=True,
)
def logsigmoid(x, ops):
    """log σ(x) = −log(1 + e⁻ˣ)."""
    return -ops.softplus(-x)


def _sqrt_softplus_stable(x, ops):
    # Below −37 softplus is eˣ to the last bit of float64, but underflows long before its root does.
    return ops.where(x < -37.0, ops.exp(0.5 * x), ops.sqrt(ops.softplus(x)))


@elementwise(
    aliases=("sqrtsoftplus",),
    source="DeepSeek-V4, the router's scores",
    stable=_sqrt_softplus_stable,
    limits=(0.0, math.inf),
    tags=("router", "positive", "llm"),
    core=True,
)
def sqrt_softplus(x, ops):
    """The square root of softplus, √log(1 + eˣ)."""
    return ops.sqrt(ops.softplus(x))


def _squareplus_stable(x, ops, *, b):
    # Left of 0 the sum cancels: (x + r)/2 = b/2/(r − x). Far out x² overflows; there r = |x|·√(1 + b/x²).
    # The derivative is f/r = (1 + x/r)/2, and its own b/(2r³).
    size = ops.abs(x)
    r = ops.where(size > 1e8, size * ops.sqrt(1.0 + b / x / x), ops.sqrt(x * x + b))
    value = ops.where(x < 0.0, 0.25 * b / (0.5 * r - 0.5 * x), 0.5 * x + 0.5 * r)
    slope = ops.where(x < -1.0, value / r, 0.5 + 0.5 * x / r)
    return ops.with_slope(value, x, ops.with_slope(slope, x, 0.5 * b / r / r / r))


@elementwise(
    source="Barron 2021, arXiv:2112.11687",
    stable=_squareplus_stable,
    limits=(0.0, math.inf),
    conditions=("0 < b", "b < inf"),
    tags=("positive",),
    core=True,
)
def squareplus(x, ops, *, b=4.0):
    """(x + √(x² + b))/2: like softplus, without exponentials. b = 4 gives it softplus's curvature at 0."""
    return 0.5 * (x + ops.sqrt(x * x + b))


@elementwise(
    source="Blondel et al. 2019, arXiv:1901.02324",
    limits=(0.0, math.inf),
    tags=("positive", "sparse"),
    core=True,
)
def sparse_plus(x, ops):
    """0 below −1, x above 1, the parabola (x + 1)²/4 between: the integral of the piecewise linear sigmoid."""
    return ops.where(x <= -1.0, 0.0, ops.where(x >= 1.0, x, 0.25 * (x + 1.0) * (x + 1.0)))


@elementwise(
    source="Shamir et al. 2022, arXiv:2202.06499",
    limits=(0.0, math.inf),
    conditions=("0 < beta", "beta < inf"),
    module_name="SmeLU",
    tags=("positive", "hidden"),
    equivalent_to={"sparse_plus": {}},
    unverified="the paper was not read; at beta = 1 it is sparse_plus, which was checked",
)
def smelu(x, ops, *, beta=1.0):
    """Smooth ReLU: 0 below −beta, x above beta, the parabola (x + beta)²/(4·beta) between."""
    parabola = (x + beta) * ((x + beta) / (4.0 * beta))
    return ops.where(x <= -beta, 0.0, ops.where(x >= beta, x, parabola))
