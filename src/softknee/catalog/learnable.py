"""Activations with parameters that training learns, one value for all or one per channel."""

import math

from .spec import elementwise


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
    aliases=("swish_beta",),
    source="Ramachandran et al. 2017, arXiv:1710.05941",
    limits=(0.0, math.inf),
    learnable=("beta",),
    tags=("hidden", "learnable"),
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
)
def xielu(x, ops, *, alpha_p=ALPHA_P, alpha_n=ALPHA_N, beta=0.5, eps=-1e-6):
    """Integral of ELU: αₚ·x² + beta·x above 0, αₙ·(exp(min(x, eps)) − 1) − (αₙ − beta)·x below.

    αₚ = softplus(alpha_p) and αₙ = beta + softplus(alpha_n), both 0.8 at first: what is learned, and what checkpoints
    hold, stands before the softplus. eps keeps the published implementation's guard, a step of 8e-7 at 0.
    """
    excess = ops.softplus(alpha_n)
    left = (beta + excess) * ops.expm1(ops.minimum(eps, x)) - excess * x
    return ops.where(x > 0.0, x * (ops.softplus(alpha_p) * x + beta), left)
