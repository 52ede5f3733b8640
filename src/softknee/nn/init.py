"""Initialisation: how large the weights must be for a signal to pass through a depth of layers unchanged.

An affine layer computes z = W·h + b with h = f(z_before). For independent weights of mean 0 and b = 0,

    Var(z) = fan_in · Var(w) · E[h²],

so the second moment (not the variance) of what feeds the layer decides. It is E[f(z)²] with z ~ N(0, 1) when
the layer before did its work, and Var(z) = 1 again exactly when

    fan_in · Var(w) · E[f(z)²] = 1,   that is   std(w) = gain(f) / √fan_in,   gain(f) = 1 / √E[f(z)²].

The gain is that of the activation that *feeds* the layer, not of the one that follows it. A layer that is fed
by no activation (the first one, one behind a normalisation, one behind another affine layer) has gain 1: its
input is taken as normalised. For the ReLU the gain is √2, which is He's; for every other activation it is
computed from the definition, where the tables that are passed around give rounded figures (tanh: 5/3) or none
(GELU, SiLU).
"""

from __future__ import annotations

import math
from collections.abc import Iterator
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor, nn

from softknee.catalog import Activation, get
from softknee.errors import InputError, closest
from softknee.facts import facts

if TYPE_CHECKING:
    from softknee.identification import Census, Site
    from softknee.identification.census import Affine

METHODS = ("exact", "he", "xavier")


def gain(activation: str | Activation, **parameters: float) -> float:
    """1/√E[f(z)²] for z ~ N(0, 1): what one application of the activation costs the signal's second moment.

    `parameters` are the activation's own, e.g. `gain("leaky_relu", negative_slope=0.2)`. Raises `InputError` for an
    unknown name and for an activation without one (f ≡ 0, E[f²] infinite).
    """
    return _gain(activation, True, parameters)


def exact_(
    tensor: Tensor,
    activation: str | Activation = "relu",
    *,
    mode: str = "fan_in",
    distribution: str = "normal",
    generator: torch.Generator | None = None,
    **parameters: float,
) -> Tensor:
    """Fill `tensor` in place with std = gain/√fan, the gain of the `activation` that feeds the layer.

    `tensor` is laid out (out, in, *kernel), floating point, at least two dimensions. `mode` is "fan_in" (keeps the
    forward signal, by E[f²]) or "fan_out" (keeps the gradient, by E[f′²] and the number of outputs that one input
    feeds); `distribution` "normal" or "uniform". `activation="identity"` is gain 1, for a layer that is fed by
    normalised input. Returns `tensor`; raises `InputError` for what does not fit.
    """
    fan_in, fan_out = _fans(tensor)
    if mode not in ("fan_in", "fan_out"):
        raise InputError(f"mode must be 'fan_in' or 'fan_out', not {mode!r}")
    forward = mode == "fan_in"
    factor = _gain(activation, forward, parameters)
    return _fill(tensor, factor / math.sqrt(max(fan_in if forward else fan_out, 1)), distribution, generator)


def he_(
    tensor: Tensor,
    negative_slope: float = 0.0,
    *,
    mode: str = "fan_in",
    distribution: str = "normal",
    generator: torch.Generator | None = None,
) -> Tensor:
    """Var(w) = 2 / ((1 + negative_slope²)·fan): He et al. 2015, arXiv:1502.01852. Derived for rectifiers only."""
    return exact_(
        tensor,
        "leaky_relu",
        mode=mode,
        distribution=distribution,
        generator=generator,
        negative_slope=negative_slope,
    )


def xavier_(
    tensor: Tensor,
    gain: float = 1.0,
    *,
    distribution: str = "uniform",
    generator: torch.Generator | None = None,
) -> Tensor:
    """Var(w) = gain² · 2 / (fan_in + fan_out): Glorot & Bengio 2010 (AISTATS). Derived for f(z) ≈ z around 0."""
    if not gain > 0:
        raise InputError(f"gain must be above 0, not {gain!r}")
    fan_in, fan_out = _fans(tensor)
    return _fill(tensor, gain * math.sqrt(2.0 / max(fan_in + fan_out, 1)), distribution, generator)


def initialize(
    model: nn.Module, census: Census, method: str = "exact", *, generator: torch.Generator | None = None
) -> nn.Module:
    """Re-initialise, in place, every affine layer of `model` that `census` saw executed; biases become 0.

    `census` is `softknee.identify(model, example_inputs)`. `method`:

    - "exact": std = gain/√fan_in with the exact gain of the activation that feeds the layer, normal;
    - "he": std = √2/√fan_in for every layer, normal, whatever the activation (He et al. 2015, arXiv:1502.01852);
    - "xavier": Var(w) = 2/(fan_in + fan_out), uniform (Glorot & Bengio 2010).

    Frozen weights (`requires_grad=False`), weights that an embedding shares and what is no affine layer of its own
    (the projections inside `nn.MultiheadAttention`, recurrent layers) are left alone. Returns
    `model`. Raises `InputError` if a layer of the census is not in the model.
    """
    if method not in METHODS:
        raise InputError(f"method must be one of {', '.join(METHODS)}, not {method!r}{closest(str(method), METHODS)}")
    if not census.executed:
        raise InputError("the census saw no layer run: give softknee.identify example inputs too")
    for module, feeding, (fan_in, fan_out) in _layers(model, census):
        if method == "xavier":
            std, distribution = math.sqrt(2.0 / max(fan_in + fan_out, 1.0)), "uniform"
        else:
            factor = math.sqrt(2.0) if method == "he" else feeding
            std, distribution = factor / math.sqrt(max(fan_in, 1.0)), "normal"
        _fill_weight(module, std, distribution, generator)
        bias = getattr(module, "bias", None)
        if isinstance(bias, Tensor) and bias.requires_grad:
            nn.init.zeros_(bias)
    return model


def layer_fans(module: nn.Module) -> tuple[float, float]:
    """(fan_in, fan_out) of an affine layer: how many inputs one output sums over, how many outputs one feeds.

    Grouped convolutions sum over their own group; a transposed convolution's output meets kernel/stride taps.
    """
    weight = module.weight
    assert isinstance(weight, Tensor)
    taps = math.prod(weight.shape[2:])
    groups = int(getattr(module, "groups", 1))
    steps = math.prod(getattr(module, "stride", (1,)))
    if getattr(module, "transposed", False):
        return weight.shape[0] / groups * taps / steps, weight.shape[1] * taps
    return weight.shape[1] * taps, weight.shape[0] / groups * taps / steps


def feeding_site(census: Census, path: str) -> str | None:
    """Key of the site whose output the affine layer at `path` reads; None: raw, normalised or affine input."""
    return _feeding(census).get(path)


def site_gain(site: Site) -> float:
    """The exact gain at a site, with the parameters it was seen with; 1 where it is unknown or a normalizer's."""
    if site.definition is None or site.definition.kind == "normalizer":
        return 1.0
    return gain(site.definition, **site.parameters)


def _gain(activation: str | Activation, forward: bool, parameters: dict[str, float]) -> float:
    entry = get(activation)
    found = facts(entry, **parameters)
    value = found.gain if forward else found.backward_gain
    if not (math.isfinite(value) and value > 0):
        raise InputError(f"{entry.name} has no gain at these parameters: E[f(z)²] is 0 or not finite")
    return value


def _feeding(census: Census) -> dict[str, str | None]:
    # The census says which site a layer reads directly. Two more are told by the order of execution: what reads a
    # product `act(gate) * up` (and `up` reads what the gate reads), and what reads convolutional maps that were pooled
    # or flattened on the way. Behind a normalisation or a sum the second moment is not the activation's: none.
    feeding: dict[str, str | None] = {}
    previous: Affine | None = None
    site: str | None = None
    for affine in census.affines:
        key = affine.preceded_by
        follows_gate = previous is not None and site == previous.followed_by and _is(census, site, role="gate")
        if key is None and previous is not None and follows_gate and affine.fan_in == previous.fan_in:
            key = feeding[previous.path]
        else:
            if key is None and (_is(census, site, role="gate") or _is(census, site, unit_dim=1)):
                key = site
            site = affine.followed_by
        # What a fused kernel hands on (an LSTM's gated tanh) is not what its activation alone would.
        feeding.setdefault(affine.path, key if _is(census, key, measured=True) else None)
        previous = affine
    return feeding


def _is(census: Census, key: str | None, **properties: Any) -> bool:
    return key is not None and all(getattr(census[key], name) == value for name, value in properties.items())


def _layers(model: nn.Module, census: Census) -> Iterator[tuple[nn.Module, float, tuple[float, float]]]:
    """Every layer to initialise, the gain of what feeds it, and its fans; a layer that runs twice once."""
    embedded = {id(module.weight) for module in model.modules() if isinstance(module, (nn.Embedding, nn.EmbeddingBag))}
    feeding = _feeding(census)
    for path, affine in {affine.path: affine for affine in reversed(census.affines)}.items():
        try:
            module = model.get_submodule(path)
        except AttributeError:
            raise InputError(
                f"the census has a layer {path!r} that {type(model).__name__} has not: identify this model"
            ) from None
        weight = getattr(module, "weight", None)
        if not isinstance(weight, Tensor) or weight.ndim < 2 or not weight.is_floating_point():
            continue
        if id(weight) in embedded or not weight.requires_grad:
            continue
        if affine.kind == type(module).__name__:
            fans = layer_fans(module)
        elif weight.numel() == affine.fan_in * affine.fan_out:  # applied as a function: F.linear, x @ weight
            fans = float(affine.fan_in), float(affine.fan_out)
        else:
            continue
        key = feeding[path]
        yield module, 1.0 if key is None else site_gain(census[key]), fans


def _fans(tensor: Tensor) -> tuple[int, int]:
    if tensor.ndim < 2 or not tensor.is_floating_point():
        raise InputError(
            f"tensor must be floating point with at least 2 dimensions (out, in, *kernel), "
            f"not {str(tensor.dtype).removeprefix('torch.')}{list(tensor.shape)}"
        )
    taps = math.prod(tensor.shape[2:])
    return tensor.shape[1] * taps, tensor.shape[0] * taps


def _fill(tensor: Tensor, std: float, distribution: str, generator: torch.Generator | None) -> Tensor:
    if distribution not in ("normal", "uniform"):
        raise InputError(f"distribution must be 'normal' or 'uniform', not {distribution!r}")
    with torch.no_grad():
        if distribution == "normal":
            return tensor.normal_(0.0, std, generator=generator)
        bound = math.sqrt(3.0) * std
        return tensor.uniform_(-bound, bound, generator=generator)


def _fill_weight(module: nn.Module, std: float, distribution: str, generator: torch.Generator | None) -> None:
    weight = module.weight
    assert isinstance(weight, Tensor)
    if nn.utils.parametrize.is_parametrized(module, "weight"):
        # The weight is computed from other parameters: assigning goes through the parametrization's right inverse.
        with torch.no_grad():
            module.weight = _fill(torch.empty_like(weight), std, distribution, generator)
    else:
        _fill(weight, std, distribution, generator)
