"""Activations over a dimension. The formula is the reference; the functions below run it in PyTorch."""

import math

import torch

from ..errors import InputError
from .spec import normalizer


def _scaled(x, dim, temperature):
    """(x − max x)/temperature: 0 at the maxima and → −∞ elsewhere as temperature → 0, so ties share; −∞ stays −∞."""
    if isinstance(temperature, torch.Tensor):
        if not torch.compiler.is_compiling() and not (temperature > 0).all():
            raise InputError(f"temperature must be > 0, got {temperature.detach().flatten()[:8].tolist()}")
    elif temperature == 1.0:
        return x
    # Softmax does not change under a shift, so the shift needs no gradient.
    top = x.detach().amax(dim, keepdim=True) if x.size(dim) else x.detach()
    # A masked −∞ is kept out of the division: ∞/∞ and 0·∞ in its gradient are NaN.
    masked = x == -math.inf
    scaled = (torch.where(masked, top, x) - top) / temperature
    return torch.where(masked, x, scaled)


def _softmax(x, dim, temperature=1.0):
    return torch.softmax(_scaled(x, dim, temperature), dim)


def _log_softmax(x, dim, temperature=1.0):
    return torch.log_softmax(_scaled(x, dim, temperature), dim)


@normalizer(
    apply=_softmax,
    aliases=("softargmax",),
    source="Bridle 1990, NeurIPS; temperature: Hinton et al. 2015, arXiv:1503.02531",
    bounds={"temperature": (0.0, math.inf)},
    torch="softmax",
    torch_module="Softmax",
    tags=("multi-class-output", "attention"),
)
def softmax(x, ops, *, temperature=1.0):
    """exp(xᵢ/T)/Σ exp(xⱼ/T): positive, sums to 1. T → 0 is one-hot (ties share), T = ∞ uniform."""
    e = ops.exp((x - ops.amax(x)) / temperature)
    return e / ops.total(e)


@normalizer(
    apply=_log_softmax,
    source="Bridle 1990, NeurIPS",
    bounds={"temperature": (0.0, math.inf)},
    torch="log_softmax",
    torch_module="LogSoftmax",
    tags=("multi-class-output",),
)
def log_softmax(x, ops, *, temperature=1.0):
    """log softmax(x/T), without taking the logarithm of a number that has underflowed."""
    shifted = (x - ops.amax(x)) / temperature
    return shifted - ops.log(ops.total(ops.exp(shifted)))
