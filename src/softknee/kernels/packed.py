"""Gate and up in one tensor: its layouts, and a gated activation of it whose gradient is one tensor again.

Autograd's own way back through two views writes the two gradients and copies them together. Here the kernel writes each
into its place; only the packed tensor is kept for it.
"""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor

from ..backends.torch import transformed
from ..catalog import Activation
from ..catalog.activation import LAYOUTS
from ..errors import InputError
from . import cpu
from .dispatch import call, plain
from .paths import choose


def unpack(packed: Tensor, dim: int = -1, layout: str = "gate_up") -> tuple[Tensor, Tensor]:
    """Gate and up, two views of one tensor whose size along `dim` is even.

    layout: "gate_up" and "up_gate" are halves in that order, "interleaved" alternates gate, up, gate, up.
    Raises InputError for an odd size or an unknown layout.
    """
    if layout not in LAYOUTS[1:]:
        raise InputError(
            f"layout={layout!r} is unknown for one packed tensor; it must be one of {', '.join(LAYOUTS[1:])}"
        )
    if not isinstance(packed, Tensor):
        raise InputError(f"a packed gate and up must be a tensor, got {type(packed).__name__}")
    if packed.ndim and (not isinstance(dim, int) or not -packed.ndim <= dim < packed.ndim):
        raise InputError(
            f"dim={dim!r} does not fit a packed tensor of shape {tuple(packed.shape)}; it must be a whole number from "
            f"{-packed.ndim} to {packed.ndim - 1}"
        )
    if packed.ndim == 0 or packed.size(dim) % 2:
        raise InputError(f"a packed gate and up need an even size along dim={dim}, got shape {tuple(packed.shape)}")
    if layout == "interleaved":
        axis = dim % packed.ndim
        gate, up = packed.unflatten(axis, (packed.size(axis) // 2, 2)).unbind(axis + 1)
        return gate, up
    first, second = packed.chunk(2, dim)
    return (first, second) if layout == "gate_up" else (second, first)


def pack(gate: Tensor, up: Tensor, dim: int, layout: str) -> Tensor:
    """The one tensor of which they are parts."""
    if layout == "interleaved":
        axis = dim % gate.ndim
        return torch.stack((gate, up), axis + 1).flatten(axis, axis + 1)
    return torch.cat((gate, up) if layout == "gate_up" else (up, gate), dim)


def call_packed(activation: Activation, packed: Tensor, dim: int, layout: str, **parameters: Any) -> Tensor:
    """`activation(*unpack(packed, dim, layout), **parameters)`."""
    if not torch.compiler.is_compiling() and _takes(activation, packed):
        values = tuple((activation.resolve(parameters) if parameters else activation.defaults).values())
        if not any(isinstance(value, Tensor) for value in values):
            return Packed.apply(packed, activation, dim, layout, values)
    return call(activation, *unpack(packed, dim, layout), **parameters)


def _takes(activation: Activation, packed: Tensor) -> bool:
    """Whether autograd records the call and the kernels serve it both ways."""
    if not plain(packed) or not packed.requires_grad or not torch.is_grad_enabled() or transformed():
        return False
    chosen = choose(activation, packed.dtype, packed.device.type)
    return chosen.forward == chosen.backward == "kernel" and packed.layout is torch.strided


class Packed(torch.autograd.Function):
    """The kernels over the two parts. A backward that is differentiated again, or that somebody looks into, is the
    composite's."""

    @staticmethod
    def forward(
        ctx: Any, packed: Tensor, activation: Activation, dim: int, layout: str, values: tuple[float, ...]
    ) -> Tensor:
        ctx.save_for_backward(packed)
        ctx.how = activation, dim, layout, values
        result = cpu.forward(activation, *unpack(packed, dim, layout), *values)
        assert result is not None
        return result

    @staticmethod
    def backward(ctx: Any, grad: Tensor) -> tuple[Tensor | None, ...]:
        (packed,) = ctx.saved_tensors
        activation, dim, layout, values = ctx.how
        gate, up = unpack(packed, dim, layout)
        if torch.is_grad_enabled() or not plain(grad) or transformed() or torch.compiler.is_compiling():
            of_gate, of_up = (d(grad, gate, up, *values) for d in activation.composite.derivatives[:2])
            return pack(of_gate, of_up, dim, layout), None, None, None, None
        result = torch.empty_like(packed)
        cpu.derivatives(activation, grad, gate, up, *values, out=unpack(result, dim, layout))
        return result, None, None, None, None
