"""Softmax and log-softmax with a temperature by their compiled kernels, with autograd.

Not every call: a dtype or device that they lack, a tensor without numbers of its own or that somebody looks into, a
temperature that changes along `dim` or is larger than the input are left to the definition's own way. Backward keeps
the output alone; it can be differentiated again, then by PyTorch's ops.
"""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor

from ..backends.torch import transformed
from ..catalog import Activation
from . import cpu


def takes(x: Tensor, dim: int | None, temperature: float | Tensor) -> bool:
    """Whether the kernels take this call."""
    if not _dense(x) or x.dtype not in cpu.ROW_DTYPES or torch.is_autocast_enabled("cpu"):
        return False
    limit = max(x.ndim, 1)
    if not isinstance(dim, int) or not -limit <= dim < limit:
        return False
    return not isinstance(temperature, Tensor) or _per_row(temperature, x, dim)


def apply(activation: Activation, x: Tensor, dim: int, temperature: float | Tensor) -> Tensor:
    """`activation(x, dim=dim, temperature=temperature)`, a call that the kernels take."""
    wanted = x.requires_grad or (isinstance(temperature, Tensor) and temperature.requires_grad)
    if wanted and torch.is_grad_enabled():
        return _Recorded.apply(x, temperature, dim, activation)
    return forward(activation, x, dim, temperature)


def forward(activation: Activation, x: Tensor, dim: int, temperature: float | Tensor) -> Tensor:
    """The same without autograd."""
    found = cpu.row_operators(activation)
    assert found is not None
    if isinstance(temperature, Tensor):
        return found[0].Tensor(x, dim, _wide(temperature))
    return found[0].default(x, dim, temperature)


def plain(x: Tensor) -> bool:
    """Whether it holds numbers that may be looked at: no fake or wrapped tensor, and nobody records what is done."""
    return type(x) in (Tensor, torch.nn.Parameter) and not torch._C._len_torch_dispatch_stack()


def _dense(x: Tensor) -> bool:
    return plain(x) and x.device.type == "cpu" and x.layout == torch.strided and not x.is_nested


def _per_row(temperature: Tensor, x: Tensor, dim: int) -> bool:
    """Whether it has one value for each row, or for several."""
    if not _dense(temperature) or not temperature.is_floating_point() or temperature.ndim > x.ndim:
        return False
    shape = list(x.shape)
    if shape:
        shape[dim] = 1
    pairs = zip(reversed(temperature.shape), reversed(shape), strict=False)
    return all(size in (1, rows) for size, rows in pairs)


def _wide(temperature: Tensor) -> Tensor:
    return temperature.detach().double().contiguous()


class _Recorded(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, x: Tensor, temperature: float | Tensor, dim: int, activation: Activation) -> Tensor:
        y = forward(activation, x, dim, temperature)
        given = isinstance(temperature, Tensor)
        ctx.save_for_backward(*((y, temperature) if given else (y,)))
        ctx.rest = (None if given else temperature, dim, activation)
        return y

    @staticmethod
    def backward(ctx: Any, grad: Tensor) -> tuple[Any, ...]:
        number, dim, activation = ctx.rest
        y = ctx.saved_tensors[0]
        temperature = ctx.saved_tensors[1] if number is None else number
        if torch.is_grad_enabled() or not _dense(grad) or transformed() or torch.compiler.is_compiling():
            return *_gradients(grad, y, temperature, dim, activation.name == "log_softmax"), None, None
        found = cpu.row_operators(activation)
        assert found is not None
        if number is not None:
            return found[1].default(grad, y, dim, number), None, None, None
        to_x, to_temperature = found[1].Tensor(grad, y, dim, _wide(temperature))
        return to_x, to_temperature.to(temperature.dtype), None, None


def _gradients(
    grad: Tensor, y: Tensor, temperature: float | Tensor, dim: int, logarithm: bool
) -> tuple[Tensor, Tensor | None]:
    """What the backward kernels compute, by PyTorch's ops, which can be differentiated again."""
    wide = torch.float32 if y.dtype in (torch.float16, torch.bfloat16) else y.dtype
    given, v = grad.to(wide), y.to(wide)
    if not isinstance(temperature, Tensor):
        temperature = max(temperature, torch.finfo(wide).tiny)
    if logarithm:
        part = given - v.exp() * given.sum(dim, keepdim=True)
    else:
        part = v * (given - (given * v).sum(dim, keepdim=True))
    to_x = (part / temperature).to(y.dtype)
    if not isinstance(temperature, Tensor):
        return to_x, None
    if logarithm:
        # A masked −∞ has no part in it.
        there = v > -torch.inf
        exponent = torch.where(there, v, 0.0) - (v.detach().amax(dim, keepdim=True) if v.numel() else 0.0)
        part = torch.where(there, part, 0.0)
    else:
        exponent = torch.where(v > 0, v, 1.0).log()
    to_temperature = -(part * exponent / temperature).sum_to_size(temperature.shape)
    return to_x, to_temperature.to(temperature.dtype)
