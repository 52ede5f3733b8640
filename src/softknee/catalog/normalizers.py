"""Activations over a dimension. The formula is the reference; the functions below run it in PyTorch."""

import math

import torch

from .spec import normalizer


def _tempered(function, x, dim, temperature):
    """function(x/temperature, dim), taken of (x − max x)/temperature: 0 at the maxima, so that ties share as T → 0."""
    if not isinstance(temperature, torch.Tensor) and temperature == 1.0:
        return function(x, dim)
    # Half precision is computed in float32 and rounded once.
    wide = x.float() if x.dtype in (torch.float16, torch.bfloat16) else x
    if not isinstance(temperature, torch.Tensor):
        # Below the smallest normal number its reciprocal overflows, and 0·∞ is NaN.
        temperature = max(temperature, torch.finfo(wide.dtype).tiny)
    # Softmax does not change under a shift, so the shift needs no gradient.
    top = wide.detach().amax(dim, keepdim=True) if x.numel() else wide.detach()
    # A masked −∞ is kept out of the division: ∞/∞ and 0·∞ in its gradient are NaN.
    masked = wide == -math.inf
    scaled = (torch.where(masked, top, wide) - top) / temperature
    return function(torch.where(masked, wide, scaled), dim).to(x.dtype)


def _softmax(x, dim, temperature=1.0):
    return _tempered(torch.softmax, x, dim, temperature)


def _log_softmax(x, dim, temperature=1.0):
    # PyTorch's own loses the small losses of sure rows in half precision: 0 for −3e-5.
    wide = x.float() if x.dtype in (torch.float16, torch.bfloat16) else x
    return _tempered(torch.log_softmax, wide, dim, temperature).to(x.dtype)


@normalizer(
    _softmax,
    aliases=("softargmax",),
    source="Bridle 1990, NeurIPS; temperature: Hinton et al. 2015, arXiv:1503.02531",
    conditions=("0 < temperature",),
    torch="softmax",
    torch_module="Softmax",
    tags=("multi-class-output", "attention"),
    core=True,
)
def softmax(x, ops, *, temperature=1.0):
    """exp(xᵢ/T)/Σ exp(xⱼ/T): positive, sums to 1. T → 0 is one-hot (ties share), T = ∞ uniform."""
    e = ops.exp((x - ops.amax(x)) / temperature)
    return e / ops.total(e)


@normalizer(
    _log_softmax,
    source="Bridle 1990, NeurIPS",
    conditions=("0 < temperature",),
    torch="log_softmax",
    torch_module="LogSoftmax",
    tags=("multi-class-output",),
    core=True,
)
def log_softmax(x, ops, *, temperature=1.0):
    """log softmax(x/T), without taking the logarithm of a number that has underflowed."""
    shifted = (x - ops.amax(x)) / temperature
    return shifted - ops.log(ops.total(ops.exp(shifted)))


def _sparsemax(x, dim):
    wide = x.float() if x.dtype in (torch.float16, torch.bfloat16) else x
    if not x.numel():
        return x.clone()
    shifted = wide - wide.detach().amax(dim, keepdim=True)
    with torch.no_grad():
        falling = shifted.sort(dim, descending=True).values
        totals = falling.cumsum(dim)
        rank = torch.ones_like(falling).cumsum(dim)
        size = (1.0 + rank * falling > totals).sum(dim, keepdim=True).clamp(min=1)
        threshold = (totals.gather(dim, size - 1) - 1.0) / size
        inside = ~(shifted <= threshold)  # a row with NaN is NaN
    # Given the support, the projection is linear: autograd's derivatives of every order are exact.
    tau = (torch.where(inside, shifted, 0.0).sum(dim, keepdim=True) - 1.0) / inside.sum(dim, keepdim=True)
    return torch.where(inside, shifted - tau, 0.0).to(x.dtype)


@normalizer(
    _sparsemax,
    source="Martins & Astudillo 2016, arXiv:1602.02068",
    dim=-1,
    tags=("attention", "sparse"),
    core=True,
)
def sparsemax(x, ops):
    """The point of the probability simplex nearest to x: like softmax, with zeros."""
    shifted = x - ops.amax(x)
    falling = ops.descending(shifted)
    rank = ops.cumulative(ops.sign(1.0 + ops.abs(falling)))
    inside = 1.0 + rank * falling > ops.cumulative(falling)
    size = ops.total(ops.where(inside, 1.0, 0.0))
    return ops.maximum(shifted - (ops.total(ops.where(inside, falling, 0.0)) - 1.0) / size, 0.0)
