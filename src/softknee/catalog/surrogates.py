"""Activations whose own derivative is 0 or dead, and which pass on that of another function, their surrogate."""

import math

from .elementary import step
from .rectifiers import relu
from .selfgated import b_silu
from .spec import elementwise


def _b_silu(x, ops, *, alpha):
    return b_silu.on(ops, x, alpha=alpha)


@elementwise(
    aliases=("sugar",),
    source="Horuz et al. 2025, arXiv:2505.22074",
    surrogate=_b_silu,
    limits=(0.0, math.inf),
    conditions=("-inf < alpha", "alpha < inf"),
    module_name="SUGARReLU",
    tags=("hidden", "cnn"),
)
def sugar_relu(x, ops, *, alpha=1.67):
    """relu(x), with the gradient of b_silu: (x + alpha)·σ(x) − alpha/2. Units that are off still learn."""
    return relu.on(ops, x)


def _arc(x, ops, *, alpha):
    return ops.atan(0.5 * ops.pi * alpha * x) / ops.pi


@elementwise(
    source="Neftci et al. 2019, arXiv:1901.09948; the arc: Fang et al. 2020, arXiv:2007.05785; snnTorch",
    surrogate=_arc,
    limits=(0.0, 1.0),
    conditions=("0 < alpha", "alpha < inf"),
    tags=("spiking",),
)
def spike_surrogate(x, ops, *, alpha=2.0):
    """1 where x ≥ 0, else 0, with the gradient of atan(π/2·alpha·x)/π. x is what a membrane has above its threshold."""
    return step.on(ops, x)


def _straight(x, ops):
    return x


@elementwise(
    aliases=("binary_stochastic",),
    source="Bengio et al. 2013, arXiv:1308.3432",
    surrogate=_straight,
    limits=(0.0, 1.0),
    module_name="BernoulliSTE",
    tags=("gate",),
)
def bernoulli_ste(x, noise, ops):
    """In training 1 with the probability σ(x), else 0; in evaluation 1 where x > 0. Its gradient is x's own, 1
    (straight-through)."""
    edge = ops.log(noise / (1.0 - noise))  # σ(x) is above the noise where x is above this
    return ops.where(x > edge, 1.0, ops.where(x <= edge, 0.0, x))
