"""Piecewise linear activations and their exponential kin: identity on the right, something gentler on the left."""

import math

from .spec import elementwise


@elementwise(aliases=("linear",), source="-", limits=(-math.inf, math.inf), torch_module="Identity", native=True)
def identity(x, ops):
    """The identity, x: no activation."""
    return x


@elementwise(
    aliases=("rectifier", "ramp"),
    source="Nair & Hinton 2010, ICML; Fukushima 1969",
    limits=(0.0, math.inf),
    torch="relu",
    torch_module="ReLU",
    native=True,
    tags=("hidden", "cnn"),
)
def relu(x, ops):
    """Rectified linear unit, max(x, 0). Derivative 0 at 0."""
    return ops.maximum(x, 0.0)


@elementwise(
    aliases=("lrelu",),
    source="Maas et al. 2013, ICML",
    limits=(-math.inf, math.inf),
    torch="leaky_relu",
    torch_module="LeakyReLU",
    native=True,
    tags=("hidden", "cnn"),
)
def leaky_relu(x, ops, *, negative_slope=0.01):
    """x above zero, negative_slope·x below. Derivative at 0 is the slope."""
    return ops.where(x > 0.0, x, negative_slope * x)


@elementwise(
    source="He et al. 2015, arXiv:1502.01852",
    limits=(-math.inf, math.inf),
    learnable=("weight",),
    torch="prelu",
    torch_module="PReLU",
    tags=("hidden", "cnn", "learnable"),
)
def prelu(x, ops, *, weight=0.25):
    """Leaky ReLU with a learned slope, one for all or one per channel (dimension 1). Not max(x, weight·x) above 1."""
    return ops.where(x > 0.0, x, weight * x)


@elementwise(
    source="Clevert et al. 2015, arXiv:1511.07289",
    limits=(-1.0, math.inf),
    torch="elu",
    torch_module="ELU",
    tags=("hidden",),
)
def elu(x, ops, *, alpha=1.0):
    """Exponential linear unit: x above zero, alpha·(eˣ − 1) below."""
    return ops.where(x > 0.0, x, alpha * ops.expm1(x))


# The fixed point of the mean and variance maps at (0, 1), Klambauer et al. 2017, equation 14.
SELU_ALPHA = 1.6732632423543772848170429916717
SELU_SCALE = 1.0507009873554804934193349852946


@elementwise(
    source="Klambauer et al. 2017, arXiv:1706.02515",
    limits=(-SELU_SCALE * SELU_ALPHA, math.inf),
    torch="selu",
    torch_module="SELU",
    tags=("hidden", "self-normalizing"),
)
def selu(x, ops):
    """Scaled ELU, whose scale and alpha keep mean 0 and variance 1 through depth."""
    return ops.where(x > 0.0, SELU_SCALE * x, (SELU_SCALE * SELU_ALPHA) * ops.expm1(x))


@elementwise(
    aliases=("hard_swish", "hard_silu", "h_swish"),
    source="Howard et al. 2019, arXiv:1905.02244",
    limits=(0.0, math.inf),
    torch="hardswish",
    torch_module="Hardswish",
    tags=("hidden", "cnn", "mobile"),
)
def hardswish(x, ops):
    """Piecewise quadratic SiLU, x·clip(x + 3, 0, 6)/6. Derivative 0 at −3 and 1 at +3."""
    return ops.where(x <= -3.0, 0.0, ops.where(x >= 3.0, x, x * (x + 3.0) / 6.0))
