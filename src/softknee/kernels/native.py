"""PyTorch's own functions: how each is called with an activation's parameters, and which of them it takes."""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor

from ..catalog import Activation


def call(activation: Activation, x: Tensor, resolved: dict[str, Any]) -> Tensor:
    """PyTorch's own op."""
    given = arguments(activation, resolved)
    for name, value in given.items():
        if not isinstance(value, Tensor) and name in activation.parameters and activation.parameters[name].learnable:
            given[name] = torch.tensor([value], dtype=x.dtype, device=x.device)
    return getattr(torch.nn.functional, str(activation.torch))(x, **given)


def function(activation: Activation) -> Callable[..., Tensor]:
    """The op under `torch.nn.functional`'s function, whose Python asks for `__torch_function__` once more."""
    name = str(activation.torch)
    for place in (torch._C._nn, torch):
        if hasattr(place, name):
            return getattr(place, name)
    return getattr(torch.nn.functional, name)


def inplace(activation: Activation) -> Callable[..., Tensor] | None:
    """The op that writes into its input, where PyTorch has it."""
    for place in (torch._C._nn, torch):
        if hasattr(place, f"{activation.torch}_"):
            return getattr(place, f"{activation.torch}_")
    return None


def arguments(activation: Activation, resolved: dict[str, Any]) -> dict[str, Any]:
    # softplus without a threshold is PyTorch's with its default, which guards against overflow where ours needs none
    absent = {name: p.default for name, p in activation.parameters.items() if math.isinf(p.default)}
    given = {name: v for name, v in resolved.items() if isinstance(v, Tensor) or v != absent.get(name)}
    return {**activation.torch_arguments, **given}


def takes(activation: Activation, x: Tensor, resolved: dict[str, Any]) -> bool:
    """Whether PyTorch's function takes these parameters: tensors only where it learns them, as it wants them; numbers
    of a size that its scalars hold."""
    for name, value in resolved.items():
        if not isinstance(value, Tensor):
            if not usual(activation, name, value):
                return False
        else:
            learnable = activation.parameters[name].learnable and value.ndim == 1 and value.dtype == x.dtype
            if not learnable or (value.numel() > 1 and (x.ndim < 2 or x.size(1) != value.numel())):
                return False
    return True


def usual(activation: Activation, name: str, value: float) -> bool:
    """Whether a number is of a size that PyTorch's scalars hold, and at which its op is measured."""
    return value == 0.0 or 1e-4 <= abs(value) <= 1e4 or value == activation.defaults[name]
