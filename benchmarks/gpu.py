"""What the Triton kernels reach on a GPU: bytes moved per second, as a share of what a copy reaches there.

Peers: PyTorch eager, torch.compile, and for SwiGLU Liger-Kernel where it is installed. Forward and backward apart, 64M
elements, the median of Triton's `do_bench`. Needs a CUDA device; it has not been run on one yet. Prints a table.
"""

from __future__ import annotations

import os
import sys
from collections.abc import Callable
from typing import Any

import torch
import torch.nn.functional as F

import softknee

ROWS, COLUMNS = 8192, 8192
DTYPES = (torch.float32, torch.bfloat16)
EAGER: dict[str, Callable[..., torch.Tensor]] = {
    "silu": F.silu,
    "gelu": F.gelu,
    "mish": F.mish,
    "swiglu": lambda gate, up: F.silu(gate) * up,
}


def peers(name: str) -> dict[str, Callable[..., torch.Tensor]]:
    ways: dict[str, Callable[..., torch.Tensor]] = {
        "softknee": softknee.get(name),
        "eager": EAGER[name],
        "torch.compile": torch.compile(EAGER[name]),
    }
    if name == "swiglu":
        try:
            from liger_kernel.ops.swiglu import LigerSiLUMulFunction
        except ImportError:
            return ways
        ways["liger"] = LigerSiLUMulFunction.apply
    return ways


def rate(run: Callable[[], Any], tensors: int, dtype: torch.dtype) -> float:
    """Bytes per second, where `tensors` of them are read or written once."""
    from triton.testing import do_bench

    return tensors * ROWS * COLUMNS * dtype.itemsize / (1e-3 * do_bench(run, return_mode="median"))


def backward(way: Callable[..., torch.Tensor], inputs: list[torch.Tensor], grad: torch.Tensor) -> Callable[[], Any]:
    inputs = [x.detach().clone().requires_grad_() for x in inputs]
    y = way(*inputs)
    return lambda: torch.autograd.grad(y, inputs, grad, retain_graph=True)


def main() -> None:
    if not torch.cuda.is_available():
        sys.exit("benchmarks/gpu.py needs a CUDA device")
    os.environ["SOFTKNEE_TRITON"] = "1"  # what is measured here
    print(torch.cuda.get_device_name(), "torch", torch.__version__)
    for dtype in DTYPES:
        grad = torch.randn(ROWS, COLUMNS, device="cuda", dtype=dtype)
        target = torch.empty_like(grad)
        copy = rate(lambda target=target, grad=grad: target.copy_(grad), 2, dtype)
        print(f"{dtype}: a copy moves {copy / 1e9:.0f} GB/s")
        for name in EAGER:
            count = len(softknee.get(name).inputs)
            inputs = [torch.randn_like(grad) for _ in range(count)]
            for word, way in peers(name).items():
                forth = rate(lambda way=way, inputs=inputs: way(*inputs), count + 1, dtype) / copy
                # Liger-Kernel's backward writes into what it has kept, so that it may run again only for its time
                back = rate(backward(way, inputs, grad), 2 * count + 1, dtype) / copy
                print(f"  {name:8} {word:14} forward {forth:.2f}, backward {back:.2f} of the copy")


if __name__ == "__main__":
    main()
