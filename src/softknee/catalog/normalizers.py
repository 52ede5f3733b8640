"""Activations over a dimension. The formula is the reference; the functions below run it in PyTorch."""

import math

import torch

from ..errors import InputError
from .spec import normalizer


def _tempered(function, x, dim, temperature):
    """function(x/temperature, dim), taken of (x − max x)/temperature: 0 at the maxima, so that ties share as T → 0."""
    if isinstance(temperature, torch.Tensor):
        if not torch.compiler.is_compiling() and not temperature.is_meta and not (temperature > 0).all():
            raise InputError(f"temperature must be > 0, got {temperature.detach().flatten()[:8].tolist()}")
    elif temperature == 1.0:
        return function(x, dim)
    # Half precision is computed in float32 and rounded once.
    wide = x.float() if x.dtype in (torch.float16, torch.bfloat16) else x
    # Softmax does not change under a shift, so the shift needs no gradient.
    top = wide.detach().amax(dim, keepdim=True) if x.numel() else wide.detach()
    # A masked −∞ is kept out of the division: ∞/∞ and 0·∞ in its gradient are NaN.
    masked = wide == -math.inf
    scaled = (torch.where(masked, top, wide) - top) / temperature
    return function(torch.where(masked, wide, scaled), dim).to(x.dtype)


def _softmax(x, dim, temperature=1.0):
    return _tempered(torch.softmax, x, dim, temperature)


def _log_softmax(x, dim, temperature=1.0):
    return _tempered(torch.log_softmax, x, dim, temperature)


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
