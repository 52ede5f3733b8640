"""The CPU kernels: f and its derivatives of catalog activations in one pass each, compiled from their definitions.

    forward(activation, x, *parameters)             f(x); of a gated activation (activation, gate, up, *parameters)
    derivatives(activation, grad, x, *parameters)   (grad·f′(x),); of a gated one grad times both partials
    learned(activation, x, *parameters)             f(x) where a parameter that modules learn is a tensor: one value, or
                                                    one per place along a dimension of x
    gradients(activation, grad, x, *parameters)     grad·f′(x) and such a parameter's gradients, summed, in one pass

float64, float32, bfloat16 and float16 on the CPU, any strides, parameters as Python floats; broadcasting inputs of one
dtype. Everything else gets None, and the caller takes another path: another dtype or device, another tensor parameter,
an activation that is not the catalog's own, an installation whose library was not built. A result's bits do not depend
on threads, alignment, strides or where a value stands; a sum's not on threads.

The library holds the loops for several instruction sets and takes the widest that the processor has; the environment
variable SOFTKNEE_ISA (avx512, avx2, portable) forces one, for tests. float64 goes by the C library, one at a time.
"""

from __future__ import annotations

import ctypes
import functools
import os
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from ...catalog import Activation
from ...errors import InputError

LIBRARY = Path(__file__).parent / "_kernels.so"
ISAS = ("avx512", "avx2", "portable")
DTYPES = (torch.float64, torch.float32, torch.bfloat16, torch.float16)
ROW_DTYPES = DTYPES[1:]  # of normalizers


@functools.cache
def _library() -> ctypes.CDLL | str:
    """The loaded library, or why there is none."""
    if not LIBRARY.exists():
        return "no compiled kernels: there was no C++ compiler, or no torch, when softknee was installed"
    try:
        torch.ops.load_library(LIBRARY)
        library = ctypes.CDLL(str(LIBRARY))
    except OSError as error:
        return f"the compiled kernels do not load with torch {torch.__version__}: {error}"
    library.softknee_isa.restype = ctypes.c_char_p
    library.softknee_register.argtypes = [ctypes.c_char_p]
    library.softknee_register_normalizer.argtypes = [ctypes.c_char_p]
    wanted = os.environ.get("SOFTKNEE_ISA")
    if wanted and wanted not in ISAS:
        raise InputError(f"SOFTKNEE_ISA={wanted!r} is unknown; it must be one of {', '.join(ISAS)}")
    if wanted and library.softknee_isa().decode() != wanted:
        raise InputError(f"SOFTKNEE_ISA={wanted!r}: this processor does not have these instructions")
    return library


def available() -> bool:
    """Whether the compiled library is there and loads."""
    return not isinstance(_library(), str)


def isa() -> str | None:
    """The instructions that the kernels use here: "avx512", "avx2" or "portable"; None without the library."""
    library = _library()
    return None if isinstance(library, str) else library.softknee_isa().decode()


def described() -> str:
    """In plain words, for `softknee env`."""
    library = _library()
    if isinstance(library, str):
        return library
    name = library.softknee_isa().decode()
    return f"compiled for {name}" + ("" if name in ISAS[:2] else ", too slow here to be taken")


@functools.cache
def operators(activation: Activation) -> tuple[Any, Any, Any] | None:
    """Forward, out and backward of this activation, registered now if they were not; None where there are no kernels
    for it. They do not ask whether gradients are lost, as the public `torch.ops.softknee` do."""
    if not (activation.formula.__module__ or "").startswith("softknee.catalog."):
        return None
    library = _library()
    if isinstance(library, str) or library.softknee_register(activation.name.encode()):
        return None
    namespace, name = torch.ops.softknee, activation.name
    forward, backward = getattr(namespace, name), getattr(namespace, f"{name}_backward")
    return forward.own, forward.own_out, backward.own


@functools.cache
def row_operators(activation: Activation) -> tuple[Any, Any] | None:
    """The same of a normalizer: forward and backward, each with two overloads, `default` for a temperature that is a
    float, `Tensor` for one that is a tensor."""
    if not (activation.formula.__module__ or "").startswith("softknee.catalog."):
        return None
    library = _library()
    if isinstance(library, str) or library.softknee_register_normalizer(activation.name.encode()):
        return None
    return getattr(torch.ops.softknee, activation.name), getattr(torch.ops.softknee, f"{activation.name}_backward")


def takes(activation: Activation, dtype: torch.dtype) -> bool:
    """Whether there are kernels for this activation and dtype that are worth taking.

    The portable ones give the same bits without vector instructions or a fused multiply-add, at 20 to 120 ns per
    element: they are the reference, and PyTorch's ops serve such a processor better.
    """
    normalizer = activation.kind == "normalizer"
    found = (row_operators if normalizer else operators)(activation)
    return dtype in (ROW_DTYPES if normalizer else DTYPES) and isa() in ISAS[:2] and found is not None


def _takes(activation: Activation, arguments: tuple[Any, ...], inputs: int) -> bool:
    first = arguments[0]
    dtype = first.dtype
    if dtype not in DTYPES:
        return False
    for x in arguments[:inputs]:
        if x.dtype is not dtype or not x.is_cpu or x.layout is not torch.strided:
            return False
    values = arguments[inputs:]
    return not values or not any(isinstance(value, Tensor) for value in values)


def forward(activation: Activation, *arguments: Any, out: Tensor | None = None) -> Tensor | None:
    """f of the inputs, which come first among `arguments`, the parameters after them; into `out` if given.

    out: of the result's dtype and shape, laid out as the input is (x itself will do).
    """
    if not _takes(activation, arguments, len(activation.inputs)) or (found := operators(activation)) is None:
        return None
    if out is None:
        return found[0]._op(*arguments)
    found[1]._op(*arguments, out=out)  # `_op`: what the operator calls, 0.3 µs less than by way of it
    return out


def derivatives(
    activation: Activation, grad: Tensor, *arguments: Any, out: tuple[Tensor, Tensor] | None = None
) -> tuple[Tensor, ...] | None:
    """`grad` times the derivative with respect to each input, in the inputs' common shape.

    out: of a gated activation, where both are written, of that shape, with any strides.
    """
    if not _takes(activation, (grad, *arguments), 1 + len(activation.inputs)):
        return None
    if (found := operators(activation)) is None:
        return None
    if out is not None:
        backward = getattr(torch.ops.softknee, f"{activation.name}_backward").own_out
        backward(grad, *arguments, of_gate=out[0], of_up=out[1])
        return out
    result = found[2](grad, *arguments)
    return (result,) if isinstance(result, Tensor) else tuple(result)


@functools.cache
def _of_tensors(activation: Activation) -> tuple[Any, Any, tuple[bool, ...]] | None:
    """The operators with learned parameters as tensors, forward and backward, and which parameters are learned."""
    flags = tuple(p.learnable for p in activation.parameters.values())
    if not any(flags) or operators(activation) is None:
        return None
    namespace, name = torch.ops.softknee, f"{activation.name}_learned"
    return getattr(namespace, name).own, getattr(namespace, f"{name}_backward").own, flags


def _tensors(activation: Activation, x: Tensor, values: tuple[Any, ...]) -> list[Any] | None:
    """The parameters as the operators take them; None where a tensor has other than one value, or one per place along
    one dimension of x, the same for all."""
    if (found := _of_tensors(activation)) is None or x.dtype not in DTYPES or x.layout != torch.strided:
        return None
    if x.device.type != "cpu":
        return None
    taken: list[Any] = []
    along = None
    for value, learned in zip(values, found[2], strict=True):
        if isinstance(value, Tensor):
            if not learned or value.dtype not in DTYPES or value.device.type != "cpu" or value.ndim > x.ndim:
                return None
            if value.numel() != 1:
                places = [d - value.ndim for d, size in enumerate(value.shape) if size != 1]
                if len(places) > 1 or along not in (None, places[0]) or value.shape[places[0]] != x.shape[places[0]]:
                    return None
                along = places[0]
            taken.append(value)
        else:
            taken.append(torch.tensor(value, dtype=torch.float64) if learned else value)
    return taken


def takes_tensors(activation: Activation, x: Tensor, *values: Any) -> bool:
    """Whether `learned` and `gradients` do."""
    return _tensors(activation, x, values) is not None


def learned(activation: Activation, x: Tensor, *values: Any) -> Tensor | None:
    """f(x), laid out as x is; a learned parameter may be a tensor."""
    if (taken := _tensors(activation, x, values)) is None:
        return None
    return _of_tensors(activation)[0](_dense(x), *taken)  # type: ignore[index]


def gradients(activation: Activation, grad: Tensor, x: Tensor, *values: Any) -> tuple[Tensor | None, ...] | None:
    """`grad` times f′, and of each parameter that is a tensor the gradient, in its dtype and shape; else None.

    A sum is of terms in x's working precision, at most 16 of them added in it and the rest in float64, in an order that
    the shape and the layout fix.
    """
    if grad.shape != x.shape or grad.dtype != x.dtype or (taken := _tensors(activation, x, values)) is None:
        return None
    x = _dense(x)
    if grad.stride() != x.stride():
        grad = torch.empty_like(x).copy_(grad)
    operator, flags = _of_tensors(activation)[1:]  # type: ignore[index]
    first, *rest = operator(grad, x, *taken)
    sums = iter(rest)
    own = [next(sums) if flag else None for flag in flags]
    return first, *(s if isinstance(v, Tensor) else None for s, v in zip(own, values, strict=True))


def _dense(x: Tensor) -> Tensor:
    """`x` without gaps or overlap, its dimensions in the same order in memory."""
    if x.is_contiguous():
        return x
    dense = torch.empty_like(x)
    return x if dense.stride() == x.stride() else dense.copy_(x)
