"""Activations with parameters that training learns, one value for all or one per channel."""

import math

from .algebraic import atlu
from .smooth import gelu, silu
from .spec import elementwise


@elementwise(
    source="He et al. 2015, arXiv:1502.01852",
    limits=(-math.inf, math.inf),
    learnable=("weight",),
    torch="prelu",
    torch_module="PReLU",
    tags=("hidden", "cnn", "learnable"),
    core=True,
    equivalent_to={"leaky_relu": {"negative_slope": 0.25}, "apl": {"a": -0.25}},
)
def prelu(x, ops, *, weight=0.25):
    """Leaky ReLU with a learned slope, one for all or one per channel (dimension 1). Not max(x, weight·x) above 1."""
    return ops.where(x > 0.0, x, weight * x)


@elementwise(
    aliases=("swish_beta",),
    source="Ramachandran et al. 2017, arXiv:1710.05941",
    limits=(0.0, math.inf),
    learnable=("beta",),
    tags=("hidden", "learnable"),
    core=True,
)
def swish(x, ops, *, beta=1.0):
    """x·σ(beta·x), beta learned. With beta = 1 it is SiLU, which many libraries call swish; 1.702 is quick_gelu."""
    return x * ops.sigmoid(beta * x)


# softplus of these is 0.8 and 0.3
ALPHA_P, ALPHA_N = math.log(math.expm1(0.8)), math.log(math.expm1(0.3))


def _xielu_stable(x, ops, *, alpha_p, alpha_n, beta, eps):
    # f′ has a root on the left, near which what eˣ is off by is all that counts: its product with αₙ is not rounded.
    excess, near = ops.softplus(alpha_n), ops.minimum(eps, x)
    left = (beta + excess) * ops.expm1(near) - excess * x
    slope = (beta + excess) * ops.where(x > eps, 0.0, ops.exp(near)) - excess
    return ops.where(x > 0.0, x * (ops.softplus(alpha_p) * x + beta), ops.with_slope(left, x, slope))


@elementwise(
    source="Huang & Schlag 2024, arXiv:2411.13010",
    stable=_xielu_stable,
    limits=(math.inf, math.inf),
    learnable=("alpha_p", "alpha_n"),
    conditions=("-inf < beta", "beta < inf"),
    module_name="XIELU",
    tags=("hidden", "llm", "learnable"),
    core=True,
)
def xielu(x, ops, *, alpha_p=ALPHA_P, alpha_n=ALPHA_N, beta=0.5, eps=-1e-6):
    """Integral of ELU: αₚ·x² + beta·x above 0, αₙ·(exp(min(x, eps)) − 1) − (αₙ − beta)·x below.

    αₚ = softplus(alpha_p) and αₙ = beta + softplus(alpha_n), both 0.8 at first: what is learned, and what checkpoints
    hold, stands before the softplus. eps keeps the published implementation's guard, a step of 8e-7 at 0.
    """
    excess = ops.softplus(alpha_n)
    left = (beta + excess) * ops.expm1(ops.minimum(eps, x)) - excess * x
    return ops.where(x > 0.0, x * (ops.softplus(alpha_p) * x + beta), left)


def _times(a, x, ops):
    """a·x, which is 0 for a = 0 at ±∞ too."""
    return ops.where(ops.abs(x) < math.inf, a * x, ops.where(ops.abs(a) <= 0.0, 0.0, a * x))


def _expanded(value, g, h, x, ops, alpha):
    """x·(g·(1 + 2·alpha) − alpha) of value = x·g and h = 2·g − 1: by terms that cannot be ∞ − ∞; by alpha x·h."""
    left = (1.0 + 2.0 * alpha) * value - _times(alpha, x, ops)
    return ops.with_slope(ops.where(x > 0.0, x * (g + alpha * h), left), alpha, x * h)


def _xatlu_stable(x, ops, *, alpha):
    angle = ops.atan(x) / ops.pi
    return _expanded(atlu.on(ops, x), angle + 0.5, 2.0 * angle, x, ops, alpha)


@elementwise(
    source="Huang 2024, arXiv:2405.20768",
    stable=_xatlu_stable,
    limits=(-1.0 / math.pi, math.inf),
    learnable=("alpha",),
    module_name="XATLU",
    tags=("hidden", "learnable"),
)
def xatlu(x, ops, *, alpha=0.0):
    """ATLU whose gate is expanded to [−alpha, 1 + alpha]: x·(g(x)·(1 + 2·alpha) − alpha), g = atan(x)/π + 1/2."""
    return x * ((ops.atan(x) / ops.pi + 0.5) * (1.0 + 2.0 * alpha) - alpha)


def _xgelu_stable(x, ops, *, alpha):
    u = x / ops.sqrt(2.0)
    return _expanded(gelu.on(ops, x), 0.5 * ops.erfc(-u), ops.erf(u), x, ops, alpha)


@elementwise(
    source="Huang 2024, arXiv:2405.20768",
    stable=_xgelu_stable,
    limits=(0.0, math.inf),
    learnable=("alpha",),
    module_name="XGELU",
    tags=("hidden", "learnable"),
)
def xgelu(x, ops, *, alpha=0.0):
    """GELU whose gate is expanded to [−alpha, 1 + alpha]: x·(Φ(x)·(1 + 2·alpha) − alpha)."""
    return x * (0.5 * ops.erfc(-x / ops.sqrt(2.0)) * (1.0 + 2.0 * alpha) - alpha)


def _xsilu_stable(x, ops, *, alpha):
    return _expanded(silu.on(ops, x), ops.sigmoid(x), ops.tanh(0.5 * x), x, ops, alpha)


@elementwise(
    source="Huang 2024, arXiv:2405.20768",
    stable=_xsilu_stable,
    limits=(0.0, math.inf),
    learnable=("alpha",),
    module_name="XSiLU",
    tags=("hidden", "learnable"),
)
def xsilu(x, ops, *, alpha=0.0):
    """SiLU whose gate is expanded to [−alpha, 1 + alpha]: x·(σ(x)·(1 + 2·alpha) − alpha)."""
    return x * (ops.sigmoid(x) * (1.0 + 2.0 * alpha) - alpha)


@elementwise(
    source="Trottier et al. 2016, arXiv:1605.09332",
    limits=(-1.0, math.inf),
    learnable=("a", "b"),
    conditions=("0 < a", "a < inf", "0 < b", "b < inf"),
    module_name="PELU",
    tags=("hidden", "learnable"),
)
def pelu(x, ops, *, a=1.0, b=1.0):
    """ELU with a learned slope and knee: a/b·x above zero, a·(exp(x/b) − 1) below."""
    return ops.where(x > 0.0, a / b * x, a * ops.expm1(x / b))


@elementwise(
    source="Chen et al. 2020, arXiv:2006.13858",
    limits=(-math.inf, math.inf),
    learnable=("alpha", "beta"),
    module_name="AReLU",
    tags=("hidden", "learnable"),
)
def arelu(x, ops, *, alpha=0.9, beta=2.0):
    """Attention-based ReLU: (1 + σ(beta))·x above zero, clip(alpha, 0.01, 0.99)·x below."""
    left = ops.where(alpha < 0.01, 0.01 * x, ops.where(alpha > 0.99, 0.99 * x, alpha * x))
    return ops.where(x > 0.0, (1.0 + ops.sigmoid(beta)) * x, left)


@elementwise(
    source="Maniatopoulos & Mitianoudis 2021, Information 12",
    limits=(-math.inf, math.inf),
    learnable=("alpha",),
    module_name="LeLeLU",
    tags=("hidden", "learnable"),
)
def lelelu(x, ops, *, alpha=1.0):
    """Learnable leaky ReLU, leaky_relu(x)·alpha with the slope 0.01: both sides are scaled together."""
    return ops.where(x > 0.0, alpha * x, 0.01 * alpha * x)


@elementwise(
    source="Jin et al. 2015, arXiv:1512.07030",
    limits=(-math.inf, math.inf),
    learnable=("t_left", "a_left", "t_right", "a_right"),
    module_name="SReLU",
    tags=("hidden", "learnable"),
    equivalent_to={"leaky_relu": {"negative_slope": 0.2}, "prelu": {"weight": 0.2}, "apl": {"a": -0.2}},
)
def srelu(x, ops, *, t_left=0.0, a_left=0.2, t_right=0.4, a_right=1.0):
    """S-shaped ReLU: x between two thresholds, slopes of its own beyond each, all four learned.

    The paper fits t_right to the layer's inputs; 0.4 only stands in for that, and is without effect while a_right is 1.
    """
    right = t_right + a_right * (x - t_right)
    left = t_left + a_left * (x - t_left)
    return ops.where(x >= t_right, right, ops.where(x > t_left, x, left))


@elementwise(
    aliases=("aplu",),
    source="Agostinelli et al. 2014, arXiv:1412.6830",
    limits=(math.inf, math.inf),
    learnable=("a", "b"),
    module_name="APL",
    tags=("hidden", "learnable"),
    equivalent_to={"leaky_relu": {"negative_slope": -0.2}, "prelu": {"weight": -0.2}},
)
def apl(x, ops, *, a=0.2, b=0.0):
    """Adaptive piecewise linear unit with one hinge, max(x, 0) + a·max(b − x, 0). The paper's has up to five."""
    return ops.maximum(x, 0.0) + a * ops.maximum(b - x, 0.0)


def _acon_c_stable(x, ops, *, p1, p2, beta):
    # with v = beta·u, ∂f/∂p1 = x·(σ(v) + v·σ′(v)) and ∂f/∂p2 = x·(σ(−v) − v·σ′(v)), where 1 − σ(v) cancels
    u = (p1 - p2) * x
    v = beta * u
    value = u * ops.sigmoid(v) + _times(p2, x, ops)
    bell = 0.25 * x * v * ops.sech2(0.5 * v)
    value = ops.with_slope(value, p1, x * ops.sigmoid(v) + bell)
    return ops.with_slope(value, p2, x * ops.sigmoid(-v) - bell)


@elementwise(
    aliases=("acon",),
    source="Ma et al. 2020, arXiv:2009.04759",
    stable=_acon_c_stable,
    limits=(0.0, math.inf),
    learnable=("p1", "p2", "beta"),
    module_name="ACONC",
    tags=("hidden", "cnn", "learnable"),
)
def acon_c(x, ops, *, p1=1.0, p2=0.0, beta=1.0):
    """(p1 − p2)·x·σ(beta·(p1 − p2)·x) + p2·x: a smooth maximum of p1·x and p2·x. ACON-A is p1 = 1, p2 = 0."""
    return (p1 - p2) * x * ops.sigmoid(beta * (p1 - p2) * x) + p2 * x


def _smu_stable(x, ops, *, alpha, mu):
    # 1 + erf(u) = erfc(−u), which does not cancel on the left
    u = mu * (1.0 - alpha) * x
    share = 0.5 * (1.0 - alpha)
    left = _times(alpha, x, ops) + x * share * ops.erfc(-u)
    return ops.where(u < 0.0, left, x - x * share * ops.erfc(u))


@elementwise(
    source="Biswas et al. 2021, arXiv:2111.04682",
    stable=_smu_stable,
    limits=(-math.inf, math.inf),
    learnable=("mu",),
    conditions=("-inf < alpha", "alpha < 1", "0 < mu", "mu < inf"),
    module_name="SMU",
    tags=("hidden", "learnable"),
)
def smu(x, ops, *, alpha=0.25, mu=1e6):
    """Smooth maximum of x and alpha·x, ((1 + alpha)·x + (1 − alpha)·x·erf(mu·(1 − alpha)·x))/2, mu learned."""
    return 0.5 * ((1.0 + alpha) * x + (1.0 - alpha) * x * ops.erf(mu * (1.0 - alpha) * x))


@elementwise(
    source="Singh & Krishnan 2019 (FRN), arXiv:1911.09737",
    limits=(0.0, math.inf),
    learnable=("tau",),
    conditions=("-inf < tau", "tau < inf"),
    module_name="TLU",
    tags=("hidden", "cnn", "learnable"),
)
def tlu(x, ops, *, tau=0.0):
    """Thresholded linear unit, max(x, tau), tau learned per channel: the partner of filter response normalization."""
    return ops.maximum(x, tau)


@elementwise(
    source="Yu et al. 2022 (MetaFormer), arXiv:2210.13452",
    limits=(-0.4472, math.inf),
    learnable=("scale", "bias"),
    module_name="StarReLU",
    tags=("hidden", "transformer", "learnable"),
)
def star_relu(x, ops, *, scale=0.8944, bias=-0.4472):
    """scale·max(x, 0)² + bias, which start as the mean 0 and variance 1 of a normal input."""
    positive = ops.maximum(x, 0.0)
    return scale * positive * positive + bias


@elementwise(
    aliases=("dynamic_tanh",),
    source="Zhu et al. 2025, arXiv:2503.10622",
    limits=(-1.0, 1.0),
    learnable=("alpha", "weight", "bias"),
    conditions=("-inf < alpha", "alpha < inf"),
    module_name="DyT",
    tags=("normalization", "transformer", "learnable"),
    equivalent_to={"lecun_tanh": {"alpha": 1.0, "beta": 0.5}},
)
def dyt(x, ops, *, alpha=0.5, weight=1.0, bias=0.0):
    """Dynamic tanh, weight·tanh(alpha·x) + bias, in the place of a layer norm."""
    return weight * ops.tanh(alpha * x) + bias


@elementwise(
    aliases=("dynamic_erf",),
    source="Chen et al. 2025, arXiv:2512.10938",
    limits=(-1.0, 1.0),
    learnable=("alpha", "shift", "weight", "bias"),
    conditions=("-inf < alpha", "alpha < inf"),
    tags=("normalization", "transformer", "learnable"),
)
def derf(x, ops, *, alpha=0.5, shift=0.0, weight=1.0, bias=0.0):
    """Dynamic erf, weight·erf(alpha·x + shift) + bias, in the place of a layer norm."""
    return weight * ops.erf(alpha * x + shift) + bias


def _srs_stable(x, ops, *, alpha, beta):
    # Left of 0 numerator and denominator times E = exp(x/beta), right of 1 over x. With D the denominator,
    # f′ = E⁻¹·(1 + x/beta)/D², ∂f/∂alpha = (f/alpha)² and ∂f/∂beta = −(f/beta)²·E⁻¹.
    rise, fall = ops.exp(x / beta), ops.exp(-x / beta)
    left = 1.0 + x / alpha * ops.exp(x / beta)
    right = x / alpha + fall
    value = ops.where(x < 0.0, x * ops.exp(x / beta) / left, x / right)
    value = ops.where(x > 1.0, 1.0 / (1.0 / alpha + fall / x), value)
    slope = ops.where(
        x < 0.0, (1.0 + x / beta) * rise / left / left, (1.0 + x / beta) * ops.exp(-x / beta) / right / right
    )
    by_beta = ops.where(
        x < 0.0, (x / beta) * (x / beta) * rise / left / left, (x / beta) * (x / beta) * fall / right / right
    )
    value = ops.with_slope(value, alpha, value / alpha * (value / alpha))
    return ops.with_slope(ops.with_slope(value, beta, -by_beta), x, slope)


@elementwise(
    aliases=("soft_root_sign",),
    source="Zhou et al. 2020, arXiv:2003.00547",
    stable=_srs_stable,
    limits=(0.0, 2.0),
    learnable=("alpha", "beta"),
    conditions=("0 < alpha", "alpha < inf", "0 < beta", "beta < inf"),
    module_name="SRS",
    tags=("hidden", "learnable"),
)
def srs(x, ops, *, alpha=2.0, beta=3.0):
    """Soft-root-sign, x/(x/alpha + exp(−x/beta)). It has a pole on the left where beta/alpha reaches e."""
    return x / (x / alpha + ops.exp(-x / beta))


@elementwise(
    source="Zhuo et al. 2024 (PolyCom), arXiv:2411.03884",
    limits=(0.0, math.inf),
    learnable=("a0", "a1", "a2", "a3"),
    module_name="PolyReLU",
    tags=("hidden", "llm", "learnable"),
)
def poly_relu(x, ops, *, a0=0.0, a1=1 / 3, a2=1 / 3, a3=1 / 3):
    """a0 + a1·r + a2·r² + a3·r³ of r = max(x, 0), the coefficients learned."""
    r = ops.maximum(x, 0.0)
    return a0 + r * (a1 + r * (a2 + a3 * r))


def _pau_stable(x, ops, *, a0, a1, a2, a3, a4, a5, b1, b2, b3, b4):
    # beyond 1 in powers of 1/x, which do not overflow
    far = ops.abs(x) > 1.0
    r = ops.where(far, 1.0 / x, x)
    s = ops.abs(r)
    c1, c2, c3, c4 = ops.abs(b1), ops.abs(b2), ops.abs(b3), ops.abs(b4)
    near = (a0 + r * (a1 + r * (a2 + r * (a3 + r * (a4 + r * a5))))) / (1.0 + s * (c1 + s * (c2 + s * (c3 + s * c4))))
    rest = (a5 + r * (a4 + r * (a3 + r * (a2 + r * (a1 + r * a0))))) / (c4 + s * (c3 + s * (c2 + s * (c1 + s))))
    return ops.where(far, x * rest, near)


@elementwise(
    aliases=("pade", "rational"),
    source="Molina et al. 2019, arXiv:1907.06732",
    stable=_pau_stable,
    limits=(-math.inf, math.inf),
    learnable=("a0", "a1", "a2", "a3", "a4", "a5", "b1", "b2", "b3", "b4"),
    module_name="PAU",
    tags=("hidden", "learnable"),
)
def pau(
    x, ops, *, a0=0.02996348, a1=0.61690165, a2=2.37539147, a3=3.06608078, a4=1.52474449, a5=0.25281987,
    b1=1.19160814, b2=4.40811795, b3=0.91111034, b4=0.34885983,
):  # fmt: skip
    """Padé unit, (a0 + a1·x + … + a5·x⁵)/(1 + |b1·x| + … + |b4·x⁴|), all learned; at first nearly leaky_relu."""
    upper = a0 + x * (a1 + x * (a2 + x * (a3 + x * (a4 + x * a5))))
    s = ops.abs(x)
    lower = ops.abs(b1) + s * (ops.abs(b2) + s * (ops.abs(b3) + s * ops.abs(b4)))
    return upper / (1.0 + s * lower)
