"""The GPU kernels: f and its derivatives of catalog activations in one pass each, by Triton, from their definitions.

    forward(activation, x, *parameters)             f(x); of a gated activation (activation, gate, up, *parameters)
    derivatives(activation, grad, x, *parameters)   (grad·f′(x),); of a gated one grad times both partials

float32, bfloat16 and float16 of one dtype and shape, computed in float32 and rounded once; any number of elements.
Rows may lie apart, as halves of a packed projection do; other layouts are copied first. Parameters as Python floats.
Everything else gets None, and the caller takes another path.

Tested with Triton's interpreter on the CPU, and compiled. On a real GPU it is neither tested nor measured, so that a
call takes these kernels only where the environment variable SOFTKNEE_TRITON is 1.
"""

from __future__ import annotations

import functools
import importlib.util
import linecache
import os
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor

from ...catalog import Activation

if TYPE_CHECKING:
    from ...backends.triton import Code

DTYPES = (torch.float32, torch.bfloat16, torch.float16)
BLOCK = 1024


def asked() -> bool:
    """Whether calls are to take these kernels."""
    return os.environ.get("SOFTKNEE_TRITON") == "1"


@functools.cache
def available() -> bool:
    """Whether Triton is installed."""
    return importlib.util.find_spec("triton") is not None


@functools.cache
def _code(activation: Activation) -> Code | None:
    """None where there are no kernels for it."""
    if activation.kind == "normalizer" or not (activation.formula.__module__ or "").startswith("softknee.catalog."):
        return None
    from ...backends.triton import code  # emission costs every start 15 ms, and few have it to do

    try:
        return code(activation)
    except NotImplementedError:
        return None


@functools.cache
def kernel(activation: Activation, word: str) -> Any:
    """The `forward` or `backward` that Triton compiles at its first call."""
    made = _code(activation)
    assert made is not None
    source = getattr(made, word)
    filename = f"<softknee {activation.name} {word}>"
    # Triton reads the source of what it compiles.
    linecache.cache[filename] = (len(source), None, source.splitlines(True), filename)
    namespace: dict[str, Any] = {"__name__": f"softknee.kernels.gpu.{activation.name}"}
    exec(compile(source, filename, "exec"), namespace)
    return namespace[word]


def takes(activation: Activation, dtype: torch.dtype) -> bool:
    """Whether there are kernels for this activation and dtype."""
    return dtype in DTYPES and available() and _code(activation) is not None


def _launch(
    activation: Activation, word: str, tensors: tuple[Tensor, ...], values: tuple[Any, ...], results: int
) -> tuple[Tensor, ...] | None:
    x = tensors[0]
    if not takes(activation, x.dtype) or any(isinstance(value, Tensor) for value in values):
        return None
    if any(t.dtype != x.dtype or t.device != x.device or t.shape != x.shape for t in tensors):
        return None
    if x.device.type != "cuda" and os.environ.get("TRITON_INTERPRET") != "1":
        return None
    out = tuple(torch.empty(x.shape, dtype=x.dtype, device=x.device) for _ in range(results))
    if x.numel() == 0:
        return out
    if all(t.is_contiguous() for t in tensors):
        rows = [t.view(1, -1) for t in (*tensors, *out)]
    else:
        rows = [_rows(t) for t in (*tensors, *out)]
    columns = rows[0].shape[1]
    blocks = -(-columns // BLOCK)
    made = _code(activation)
    assert made is not None
    numbers = made.numbers(*values)
    # Rounded as written, so that the GPU gives what the interpreter was tested to give.
    with torch.cuda.device_of(x):
        kernel(activation, word)[(rows[0].shape[0] * blocks,)](
            *rows, *(t.stride(0) for t in rows), columns, blocks, *numbers, BLOCK=BLOCK, enable_fp_fusion=False
        )
    return out


def _rows(t: Tensor) -> Tensor:
    t = t.reshape(-1, t.shape[-1])
    return t if t.stride(1) == 1 else t.contiguous()


def forward(activation: Activation, *arguments: Any) -> Tensor | None:
    """f of the inputs, which come first among `arguments`, the parameters after them."""
    count = len(activation.inputs)
    found = _launch(activation, "forward", arguments[:count], arguments[count:], 1)
    return None if found is None else found[0]


def derivatives(activation: Activation, grad: Tensor, *arguments: Any) -> tuple[Tensor, ...] | None:
    """`grad` times the derivative with respect to each input."""
    count = len(activation.inputs)
    return _launch(activation, "backward", (grad, *arguments[:count]), arguments[count:], count)
