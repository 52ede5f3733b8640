"""The one door through which every activation of tensors goes: checks the arguments and chooses the path.

A kernel where there is one (none yet); else the composite. The call is visible to `__torch_function__` as a call of the `Activation` itself.
"""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor
from torch.overrides import handle_torch_function, has_torch_function

from ..catalog import Activation
from ..errors import InputError


def call(activation: Activation, *inputs: Tensor, inplace: bool = False, **parameters: Any) -> Tensor:
    """`activation(*inputs)`; with `inplace`, written into the first input, as PyTorch's `inplace=True` does.

    A normalizer takes `dim` (and `dtype`, to which the input is converted first) among its parameters, a stochastic
    activation `generator`, an elementwise one of them `training`. A 1-D tensor for a parameter that modules learn
    (PReLU's weight) is one value per channel, dimension 1.
    Raises InputError for a wrong number of inputs, a dtype that is not real floating point, a wrong parameter.
    """
    if has_torch_function(inputs):
        return handle_torch_function(activation, inputs, *inputs, inplace=inplace, **parameters)
    if len(inputs) != len(activation.inputs) or not all(isinstance(x, Tensor) for x in inputs):
        given = ", ".join(type(x).__name__ for x in inputs) or "nothing"
        raise InputError(f"{activation.name} takes {' and '.join(activation.inputs)} as tensors, got {given}")
    if inplace and activation.kind != "elementwise":
        raise InputError(f"{activation.name} is {activation.kind} and does not work in place")
    if inplace:
        # The copy keeps what backward needs, which this call is about to overwrite.
        x = inputs[0].clone() if torch.is_grad_enabled() and inputs[0].requires_grad else inputs[0]
        return inputs[0].copy_(_out_of_place(activation, (x, *inputs[1:]), parameters))
    return _out_of_place(activation, inputs, parameters)


def _out_of_place(activation: Activation, inputs: tuple[Tensor, ...], parameters: dict[str, Any]) -> Tensor:
    if activation.apply is not None:
        return _normalize(activation, inputs[0], **parameters)
    _check(activation, inputs)
    if activation.stochastic:
        return _sampled(activation, inputs[0], **parameters)
    resolved = settled(activation, inputs[0], parameters) if parameters else activation.defaults
    return activation.composite(*inputs, *(resolved[p] for p in activation.parameters))


def _sampled(
    activation: Activation,
    x: Tensor,
    training: bool = False,
    generator: torch.Generator | None = None,
    **parameters: Any,
) -> Tensor:
    resolved = settled(activation, x, parameters)
    values = [resolved[p] for p in activation.parameters]
    if not training:
        return activation.composite(x, *values)
    return activation.sampled(x, noise_like(x, generator), *values)


def noise_like(x: Tensor, generator: torch.Generator | None = None) -> Tensor:
    """Uniform numbers in (0, 1), one per element of `x`; float64 for float64, else float32.

    Without a generator they come from PyTorch's, whose state activation checkpointing restores.
    """
    dtype = torch.float64 if x.dtype == torch.float64 else torch.float32
    noise = torch.rand(x.shape, generator=generator, dtype=dtype, device=x.device)
    # rand includes 0, where a logarithm is infinite: half its grid's step instead
    return noise.clamp_(min=2.0**-54 if dtype == torch.float64 else 2.0**-25)


def _check(activation: Activation, inputs: tuple[Tensor, ...]) -> None:
    for name, x in zip(activation.inputs, inputs, strict=True):
        if not x.is_floating_point():
            dtype = str(x.dtype).removeprefix("torch.")
            raise InputError(f"{activation.name}: {name} must be a real floating-point tensor, got {dtype}")


def settled(activation: Activation, x: Tensor, parameters: dict[str, Any]) -> dict[str, Any]:
    """All parameters, checked, as they broadcast with `x`."""
    resolved = activation.resolve(parameters)
    for name, value in parameters.items():
        if isinstance(value, Tensor) and value.ndim == 1 and activation.parameters[name].learnable:
            resolved[name] = per_channel(activation, name, value, x)
    return resolved


def per_channel(activation: Activation, name: str, value: Tensor, x: Tensor) -> Tensor:
    """A 1-D parameter as it broadcasts with `x`: one value for all, or one per channel.

    The channels are dimension 1, as for `torch.nn.functional.prelu`, or the only dimension there is.
    Raises InputError where their numbers differ.
    """
    if value.numel() == 1:
        return value if x.ndim else value.squeeze(0)
    at = 1 if x.ndim > 1 else 0
    if x.ndim == 0 or x.size(at) != value.numel():
        raise InputError(
            f"{activation.name}: {name} has {value.numel()} channels, but the input of shape {tuple(x.shape)} has "
            f"{x.size(at) if x.ndim else 'no'} in dimension {at}"
        )
    return value.view(-1, *[1] * (x.ndim - 1 - at))


def _normalize(
    activation: Activation,
    x: Tensor,
    dim: int | None = None,
    dtype: torch.dtype | None = None,
    generator: torch.Generator | None = None,
    **parameters: Any,
) -> Tensor:
    dim = activation.dim if dim is None else dim
    if dim is None:
        raise InputError(f"{activation.name} needs dim, the dimension that sums to 1; for class scores it is dim=-1")
    x = x if dtype is None else x.to(dtype)
    _check(activation, (x,))
    assert activation.apply is not None
    resolved = activation.resolve(parameters)
    if not activation.stochastic:
        return activation.apply(x, dim, **resolved)
    return activation.apply(x, noise_like(x, generator), dim, **resolved)
