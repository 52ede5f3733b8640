"""Activations that draw random numbers: one uniform or normal per element, from PyTorch's generator or one's own."""

import math

import torch

from .normalizers import softmax
from .spec import elementwise, normalizer


@elementwise(
    source="Xu et al. 2015, arXiv:1505.00853",
    limits=(-math.inf, math.inf),
    conditions=("-inf < lower", "lower <= upper", "upper < inf"),
    torch="rrelu",
    torch_module="RReLU",
    tags=("hidden", "cnn"),
    core=True,
)
def rrelu(x, noise, ops, *, lower=1 / 8, upper=1 / 3):
    """Randomized leaky ReLU: in training each slope is drawn from [lower, upper], else it is their mean."""
    return ops.where(x > 0.0, x, (lower + (upper - lower) * noise) * x)


@elementwise(
    source="Shridhar et al. 2019, arXiv:1905.10761",
    limits=(0.0, math.inf),
    learnable=("sigma",),
    conditions=("-inf < sigma", "sigma < inf"),
    tags=("hidden", "cnn", "learnable"),
    unverified="where sigma starts: implementations have 0 and 0.1",
    equivalent_to={"relu": {}},
)
def prob_act(x, deviate, ops, *, sigma=0.1):
    """relu(x) + sigma·e: in training e is normal, else it is 0. sigma is learned."""
    return ops.maximum(x, 0.0) + sigma * deviate


@elementwise(
    aliases=("nrelu",),
    source="Nair & Hinton 2010, ICML",
    limits=(0.0, math.inf),
    module_name="NoisyReLU",
    tags=("hidden",),
    equivalent_to={"relu": {}},
)
def noisy_relu(x, deviate, ops):
    """max(x + e, 0): in training e is normal with the variance σ(x), else it is 0."""
    return ops.maximum(x + ops.exp(-0.5 * ops.softplus(-x)) * deviate, 0.0)  # exp(−softplus(−x)/2) is √σ(x)


def _gumbel_softmax(logits, noise, dim, *, tau, hard):
    y = softmax.apply(logits - torch.log(-torch.log(noise)), dim, temperature=tau)
    if hard:
        one_hot = torch.zeros_like(y).scatter(dim, y.argmax(dim, keepdim=True), 1.0)
        y = one_hot + (y - y.detach())  # the bracket is 0 and carries y's gradient
    # The noise of half precision is float32: computed there, rounded once.
    return y.to(logits.dtype)


@normalizer(
    _gumbel_softmax,
    aliases=("concrete",),
    source="Jang et al. 2016, arXiv:1611.01144; Maddison et al. 2016, arXiv:1611.00712",
    conditions=("0 < tau",),
    dim=-1,
    torch="gumbel_softmax",
    tags=("sampling",),
    core=True,
)
def gumbel_softmax(logits, noise, ops, *, tau=1.0, hard=False):
    """softmax((logits + g)/tau), g Gumbel: a differentiable sample of a category; hard makes it one-hot, with the soft
    one's gradient (straight-through)."""
    y = softmax.on(ops, logits - ops.log(-ops.log(noise)), temperature=tau)
    return ops.where(y >= ops.amax(y), 1.0, 0.0) if hard else y
