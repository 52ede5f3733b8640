"""Piecewise linear activations and their exponential kin: identity on the right, something gentler on the left."""

import math

from .spec import elementwise


@elementwise(
    aliases=("linear",),
    source="-",
    limits=(-math.inf, math.inf),
    torch_module="Identity",
    core=True,
    equivalent_to={
        "leaky_relu": {"negative_slope": 1.0},
        "prelu": {"weight": 1.0},
        "softshrink": {"lambd": 0.0},
        "apl": {"a": -1.0},
    },
)
def identity(x, ops):
    """The identity, x: no activation."""
    return x


@elementwise(
    aliases=("rectifier", "ramp"),
    source="Nair & Hinton 2010, ICML; Fukushima 1969",
    limits=(0.0, math.inf),
    torch="relu",
    torch_module="ReLU",
    tags=("hidden", "cnn"),
    core=True,
    equivalent_to={
        "leaky_relu": {"negative_slope": 0.0},
        "prelu": {"weight": 0.0},
        "elu": {"alpha": 0.0},
        "threshold": {},
        "tlu": {},
        "apl": {"a": 0.0},
        "serlu": {"scale": 1.0, "alpha": 0.0},
    },
)
def relu(x, ops):
    """Rectified linear unit, max(x, 0). Derivative 0 at 0."""
    return ops.maximum(x, 0.0)


@elementwise(
    source="Krizhevsky 2010, Convolutional Deep Belief Networks on CIFAR-10; Howard et al. 2017, arXiv:1704.04861",
    limits=(0.0, 6.0),
    torch="relu6",
    torch_module="ReLU6",
    tags=("hidden", "cnn", "mobile"),
    core=True,
    equivalent_to={"hardtanh": {"min_val": 0.0, "max_val": 6.0}},
)
def relu6(x, ops):
    """ReLU capped at 6, for low-precision hardware. Derivative 0 at 0 and at 6."""
    return ops.where(x <= 0.0, 0.0, ops.where(x >= 6.0, 6.0, x))


@elementwise(
    aliases=("squared_relu", "relu_squared", "requ", "repu2"),
    source="So et al. 2021 (Primer), arXiv:2109.08668",
    limits=(0.0, math.inf),
    module_name="ReLU2",
    tags=("hidden", "transformer", "llm"),
    core=True,
    equivalent_to={"star_relu": {"scale": 1.0, "bias": 0.0}, "repu": {"power": 2.0}},
)
def relu2(x, ops):
    """Squared ReLU, max(x, 0)²."""
    positive = ops.maximum(x, 0.0)
    return positive * positive


@elementwise(
    aliases=("lrelu",),
    source="Maas et al. 2013, ICML",
    limits=(-math.inf, math.inf),
    conditions=("-inf < negative_slope", "negative_slope < inf"),
    torch="leaky_relu",
    torch_module="LeakyReLU",
    tags=("hidden", "cnn"),
    core=True,
    equivalent_to={"prelu": {"weight": 0.01}, "lelelu": {}, "apl": {"a": -0.01}},
)
def leaky_relu(x, ops, *, negative_slope=0.01):
    """x above zero, negative_slope·x below. Derivative at 0 is the slope."""
    return ops.where(x > 0.0, x, negative_slope * x)


@elementwise(
    aliases=("fatrelu", "trec"),
    source="Konda et al. 2014, arXiv:1402.3337; ONNX ThresholdedRelu",
    limits=(0.0, math.inf),
    module_name="ThresholdedReLU",
    tags=("hidden", "sparse"),
    core=True,
)
def thresholded_relu(x, ops, *, threshold=1.0):
    """x above the threshold, else 0: it jumps there. Derivative 0 at the threshold."""
    return ops.where(x <= threshold, 0.0, x)


@elementwise(
    aliases=("hard_tanh", "clip"),
    source="Collobert 2004, Large Scale Machine Learning (thesis)",
    limits=(-1.0, 1.0),
    conditions=("min_val <= max_val",),
    torch="hardtanh",
    torch_module="Hardtanh",
    tags=("hidden", "gate"),
    core=True,
)
def hardtanh(x, ops, *, min_val=-1.0, max_val=1.0):
    """x clipped to [min_val, max_val]. Derivative 0 at both ends."""
    return ops.where(x <= min_val, min_val, ops.where(x >= max_val, max_val, x))


@elementwise(
    source="Clevert et al. 2015, arXiv:1511.07289",
    limits=(-1.0, math.inf),
    conditions=("-inf < alpha", "alpha < inf"),
    torch="elu",
    torch_module="ELU",
    tags=("hidden",),
    core=True,
    equivalent_to={"celu": {}, "pelu": {}},
)
def elu(x, ops, *, alpha=1.0):
    """Exponential linear unit: x above zero, alpha·(eˣ − 1) below."""
    return ops.where(x > 0.0, x, alpha * ops.expm1(x))


@elementwise(
    source="Barron 2017, arXiv:1704.07483",
    limits=(-1.0, math.inf),
    conditions=("0 < alpha", "alpha < inf"),
    torch="celu",
    torch_module="CELU",
    tags=("hidden",),
    core=True,
)
def celu(x, ops, *, alpha=1.0):
    """ELU whose derivative is continuous for every alpha: x above zero, alpha·(exp(x/alpha) − 1) below."""
    return ops.where(x > 0.0, x, alpha * ops.expm1(x / alpha))


# The fixed point of the mean and variance maps at (0, 1), Klambauer et al. 2017, equation 14.
SELU_ALPHA = 1.6732632423543772848170429916717
SELU_SCALE = 1.0507009873554804934193349852946


def _selu_stable(x, ops):
    # The scale's rounding to float32 would make the largest numbers overflow too early; what exceeds 1 rounds less.
    right = x + 0.0507009873554804934193349852946 * x
    return ops.where(x > 0.0, right, (SELU_SCALE * SELU_ALPHA) * ops.expm1(x))


@elementwise(
    source="Klambauer et al. 2017, arXiv:1706.02515",
    stable=_selu_stable,
    limits=(-SELU_SCALE * SELU_ALPHA, math.inf),
    torch="selu",
    torch_module="SELU",
    tags=("hidden", "self-normalizing"),
    core=True,
)
def selu(x, ops):
    """Scaled ELU, whose scale and alpha keep mean 0 and variance 1 through depth."""
    return ops.where(x > 0.0, SELU_SCALE * x, (SELU_SCALE * SELU_ALPHA) * ops.expm1(x))


def _hardswish_stable(x, ops):
    # x last, so that a small one is rounded into the subnormal range once
    inside = ops.with_slope((x + 3.0) / 6.0 * x, x, ((x + 3.0) + x) / 6.0)
    return ops.where(x <= -3.0, 0.0, ops.where(x >= 3.0, x, inside))


@elementwise(
    aliases=("hard_swish", "hard_silu", "h_swish"),
    source="Howard et al. 2019, arXiv:1905.02244",
    stable=_hardswish_stable,
    limits=(0.0, math.inf),
    torch="hardswish",
    torch_module="Hardswish",
    tags=("hidden", "cnn", "mobile"),
    core=True,
)
def hardswish(x, ops):
    """Piecewise quadratic SiLU, x·clip(x + 3, 0, 6)/6. Derivative 0 at −3 and 1 at +3."""
    return ops.where(x <= -3.0, 0.0, ops.where(x >= 3.0, x, x * (x + 3.0) / 6.0))


@elementwise(
    source="Collobert et al. 2011, Torch7; PyTorch Threshold",
    limits=(0.0, math.inf),
    tags=("hidden",),
)
def threshold(x, ops, *, threshold=0.0, value=0.0):
    """x above the threshold, else a value of one's own; PyTorch has no defaults for the two. Derivative 0 at it."""
    return ops.where(x <= threshold, value, x)


@elementwise(
    aliases=("h_mish",),
    source="Misra 2020, H-Mish; timm HardMish",
    limits=(0.0, math.inf),
    tags=("hidden", "cnn", "mobile"),
)
def hard_mish(x, ops):
    """Piecewise quadratic Mish, x/2·clip(x + 2, 0, 2). Derivative 0 at −2 and 1 at 0."""
    return ops.where(x <= -2.0, 0.0, ops.where(x >= 0.0, x, 0.5 * x * (x + 2.0)))


@elementwise(
    source="Zhang & Li 2018, arXiv:1807.10117",
    limits=(0.0, math.inf),
    conditions=("-inf < alpha", "alpha < inf", "-inf < scale", "scale < inf"),
    module_name="SERLU",
    tags=("hidden", "self-normalizing"),
)
def serlu(x, ops, *, scale=1.07862, alpha=2.90427):
    """Scaled exponentially regularized linear unit: scale·x above zero, scale·alpha·x·eˣ below."""
    return ops.where(x > 0.0, scale * x, scale * alpha * x * ops.exp(x))


def _repu_stable(x, ops, *, power):
    # Whole powers by multiplication; others by a logarithm, whose rounding the power magnifies as its own would be
    r = ops.maximum(x, 0.0)
    log = ops.log(ops.where(x > 0.0, x, 1.0))

    def raised(p):
        return ops.where(x > 0.0, ops.exp(p * log), 0.0)

    def whole(p, value, slope):
        return ops.where(power >= p, ops.where(power <= p, value, slope), slope)

    curve = whole(2.0, ops.where(x > 0.0, 2.0, 0.0), whole(3.0, 6.0 * r, power * (power - 1.0) * raised(power - 2.0)))
    slope = whole(2.0, 2.0 * r, whole(3.0, 3.0 * r * r, power * raised(power - 1.0)))
    value = whole(2.0, r * r, whole(3.0, r * r * r, raised(power)))
    by_power = ops.where(x > 0.0, log * ops.exp(power * log), 0.0)
    return ops.with_slope(ops.with_slope(value, power, by_power), x, ops.with_slope(slope, x, curve))


@elementwise(
    source="Li et al. 2019, arXiv:1903.05858",
    stable=_repu_stable,
    limits=(0.0, math.inf),
    conditions=("1 < power", "power < inf"),
    module_name="RePU",
    tags=("hidden",),
)
def repu(x, ops, *, power=3.0):
    """Rectified power unit, max(x, 0)^power: power 2 is relu2."""
    return ops.where(x > 0.0, ops.exp(power * ops.log(ops.where(x > 0.0, x, 1.0))), 0.0)
