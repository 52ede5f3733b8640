"""Bounded, S-shaped activations: gates, probabilities, caps."""

from .shrinkage import tanhshrink
from .spec import elementwise


@elementwise(
    aliases=("logistic", "expit"),
    source="Verhulst 1845; Rumelhart et al. 1986, Nature 323",
    limits=(0.0, 1.0),
    torch="sigmoid",
    torch_module="Sigmoid",
    tags=("gate", "binary-output"),
    core=True,
)
def sigmoid(x, ops):
    """The logistic function, 1/(1 + e⁻ˣ). Its derivative is at most 1/4."""
    return ops.sigmoid(x)


@elementwise(
    aliases=("hard_sigmoid",),
    source="Howard et al. 2019, arXiv:1905.02244",
    limits=(0.0, 1.0),
    torch="hardsigmoid",
    torch_module="Hardsigmoid",
    tags=("gate", "cnn", "mobile"),
    core=True,
    equivalent_to={"hard_sigmoid_02": {"alpha": 1 / 6}},
)
def hardsigmoid(x, ops):
    """Piecewise linear sigmoid, clip(x/6 + 1/2, 0, 1). Derivative 0 at ±3."""
    return ops.where(x <= -3.0, 0.0, ops.where(x >= 3.0, 1.0, (x + 3.0) / 6.0))


@elementwise(
    source="LeCun et al. 1998, Efficient BackProp",
    limits=(-1.0, 1.0),
    torch="tanh",
    torch_module="Tanh",
    tags=("gate", "hidden"),
    core=True,
    equivalent_to={"softcap": {"cap": 1.0}, "penalized_tanh": {"a": 1.0}, "lecun_tanh": {"alpha": 1.0, "beta": 1.0}},
)
def tanh(x, ops):
    """The hyperbolic tangent."""
    return ops.tanh(x)


def _softcap_stable(x, ops, *, cap):
    # x where x/cap may be subnormal, whose lost bits cap would magnify. By cap: tanh u − u·sech²u, which cancels near 0
    u, t = x / cap, ops.tanh(x / cap)
    value = ops.with_slope(ops.where(ops.abs(x) < 1e-9 * cap, x, cap * t), x, ops.sech2(u))
    by_cap = ops.where(ops.abs(u) < 1.0, u * t * t - tanhshrink.on(ops, u), t - u * ops.sech2(u))
    return ops.with_slope(value, cap, by_cap)


@elementwise(
    aliases=("softclamp", "scaled_tanh"),
    source="Bello et al. 2016, arXiv:1611.09940; Gemma 2 2024, arXiv:2408.00118",
    stable=_softcap_stable,
    limits=(-30.0, 30.0),
    conditions=("0 < cap", "cap < inf"),
    tags=("attention", "llm"),
    core=True,
)
def softcap(x, ops, *, cap=30.0):
    """cap·tanh(x/cap): x near 0, never beyond ±cap. Gemma 2 caps its final logits at 30, attention scores at 50."""
    return cap * ops.tanh(x / cap)


def _softsign_stable(x, ops):
    # x/(1 + |x|) is ∞/∞ at the ends, and its derivative by the quotient rule cancels
    size, slope = ops.abs(x), 1.0 / (1.0 + ops.abs(x))
    value = ops.where(size > 1e30, ops.sign(x), x / (1.0 + size))
    return ops.with_slope(value, x, slope * slope)


@elementwise(
    aliases=("soft_sign",),
    source="Elliott 1993, ISR TR 93-8; Turian et al. 2009, LREC",
    stable=_softsign_stable,
    limits=(-1.0, 1.0),
    torch="softsign",
    torch_module="Softsign",
    tags=("hidden",),
    core=True,
)
def softsign(x, ops):
    """x/(1 + |x|): like tanh, but with tails that fall off as 1/x²."""
    return x / (1.0 + ops.abs(x))


def _laplace_stable(x, ops, *, mu, sigma):
    # 1 + erf(u) = erfc(−u), which does not cancel on the left
    return 0.5 * ops.erfc((mu - x) / (sigma * ops.sqrt(2.0)))


@elementwise(
    source="Ma et al. 2022 (MEGA), arXiv:2209.10655",
    stable=_laplace_stable,
    limits=(0.0, 1.0),
    conditions=("-inf < mu", "mu < inf", "0 < sigma", "sigma < inf"),
    tags=("attention",),
    core=True,
)
def laplace(x, ops, *, mu=0.707107, sigma=0.282095):
    """(1 + erf((x − mu)/(sigma·√2)))/2, the normal distribution function: mu and sigma make it resemble relu2 early."""
    return 0.5 * (1.0 + ops.erf((x - mu) / (sigma * ops.sqrt(2.0))))


@elementwise(
    aliases=("onnx_hard_sigmoid", "hard_sigmoid_keras2"),
    source="Courbariaux et al. 2015, arXiv:1511.00363; Theano; ONNX HardSigmoid",
    limits=(0.0, 1.0),
    conditions=("0 < alpha", "alpha < inf", "-inf < beta", "beta < inf"),
    module_name="HardSigmoid02",
    tags=("gate",),
)
def hard_sigmoid_02(x, ops, *, alpha=0.2, beta=0.5):
    """The older piecewise linear sigmoid, clip(alpha·x + beta, 0, 1): Keras 1 and 2, ONNX. Derivative 0 at its ends."""
    u = alpha * x + beta
    return ops.where(u <= 0.0, 0.0, ops.where(u >= 1.0, 1.0, u))


@elementwise(
    aliases=("binarynet_hard_sigmoid",),
    source="Courbariaux et al. 2015, arXiv:1511.00363; Blondel et al. 2019, arXiv:1901.02324",
    limits=(0.0, 1.0),
    tags=("gate", "sparse"),
    equivalent_to={"hard_sigmoid_02": {"alpha": 0.5}},
)
def sparse_sigmoid(x, ops):
    """clip((x + 1)/2, 0, 1), the derivative of sparse_plus. Derivative 0 at ±1."""
    return ops.where(x <= -1.0, 0.0, ops.where(x >= 1.0, 1.0, 0.5 * (x + 1.0)))


@elementwise(
    aliases=("stanh",),
    source="LeCun et al. 1998, Efficient BackProp",
    limits=(-1.7159, 1.7159),
    conditions=("-inf < alpha", "alpha < inf", "0 < beta", "beta < inf"),
    module_name="LeCunTanh",
    tags=("hidden",),
)
def lecun_tanh(x, ops, *, alpha=1.7159, beta=2 / 3):
    """alpha·tanh(beta·x): nearly 1 at 1, with its largest curvature there."""
    return alpha * ops.tanh(beta * x)


@elementwise(
    source="Xu et al. 2016, arXiv:1602.05980",
    limits=(-0.25, 1.0),
    conditions=("-inf < a", "a < inf"),
    tags=("hidden",),
)
def penalized_tanh(x, ops, *, a=0.25):
    """tanh(x) above zero, a·tanh(x) below."""
    return ops.where(x > 0.0, ops.tanh(x), a * ops.tanh(x))


def _soft_clipping_stable(x, ops, *, alpha):
    # f(x) + f(1 − x) = 1, and on the left half nothing cancels
    u = ops.where(x > 0.5, 1.0 - x, x)
    ends = -ops.expm1(-alpha)
    left = ops.log1p(ends * ops.exp(alpha * u) * ops.sigmoid(alpha * (1.0 - u))) / alpha
    value = ops.where(x > 0.5, 1.0 - left, left)
    # by alpha: f(½) is ½ whatever it is, and these two differ by what remains
    pull = x * ops.tanh(0.5 * alpha * x) - (1.0 - x) * ops.tanh(0.5 * alpha * (1.0 - x))
    value = ops.where(ops.abs(x - 0.5) < 1.5, ops.with_slope(value, alpha, (0.5 * pull + (0.5 - value)) / alpha), value)
    return ops.with_slope(value, x, ends * ops.sigmoid(alpha * x) * ops.sigmoid(alpha * (1.0 - x)))


@elementwise(
    source="Klimek & Perelstein 2018, arXiv:1810.11509",
    stable=_soft_clipping_stable,
    limits=(0.0, 1.0),
    conditions=("0 < alpha", "alpha < inf"),
    tags=("gate",),
)
def soft_clipping(x, ops, *, alpha=1.0):
    """x clipped smoothly to [0, 1], (softplus(alpha·x) − softplus(alpha·(x − 1)))/alpha. The paper has alpha = 50."""
    return (ops.softplus(alpha * x) - ops.softplus(alpha * (x - 1.0))) / alpha
