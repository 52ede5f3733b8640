"""What an eager call costs on each path, in µs and in ns per element, beside PyTorch's own function.

Peers take turns in one process; the median over rounds of each round's mean. 64 elements show the cost of the call,
1M of the work. Writes results/calls.json. One thread.
"""

from __future__ import annotations

import json
import statistics
import time
from collections.abc import Callable
from pathlib import Path

import torch
import torch.nn.functional as F
from machine import machine

import softknee
import softknee.functional as SF

ROUNDS = 21
# For each path (kernel, PyTorch's op, composite, table) some, and what PyTorch's users would write instead.
CASES: dict[str, Callable[[torch.Tensor], torch.Tensor]] = {
    "relu": F.relu,
    "hardtanh": F.hardtanh,
    "elu": F.elu,
    "tanh": torch.tanh,
    "silu": F.silu,
    "gelu": F.gelu,
    "mish": F.mish,
    "squareplus": lambda x: 0.5 * (x + torch.sqrt(x * x + 4.0)),
    "laplace": lambda x: 0.5 * (1.0 + torch.erf((x - 0.707107) / (0.282095 * 2**0.5))),
    "own": lambda x: x * torch.atan(x),
}
DTYPES = (torch.float64, torch.float32, torch.bfloat16)


@softknee.elementwise
def own(x, ops):
    """A user's own: no kernel, no op of PyTorch's; the composite, and in half precision a table."""
    return x * ops.atan(x)


def timed(ways: dict[str, Callable[[], object]], repeats: int) -> dict[str, float]:
    """Median seconds per call of each way, taken in turn."""
    rounds: dict[str, list[float]] = {name: [] for name in ways}
    for _ in range(ROUNDS + 1):
        for name, call in ways.items():
            start = time.perf_counter()
            for _ in range(repeats):
                call()
            rounds[name].append((time.perf_counter() - start) / repeats)
    return {name: statistics.median(times[1:]) for name, times in rounds.items()}


def case(name: str, theirs: Callable[[torch.Tensor], torch.Tensor], dtype: torch.dtype) -> dict[str, object]:
    activation = own if name == "own" else softknee.get(name)
    ours = SF.function(activation)
    row: dict[str, object] = {"activation": name, "dtype": str(dtype).removeprefix("torch.")}
    row["path"] = str(activation.path(torch.zeros(1, dtype=dtype)))
    for size, label, unit, repeats in ((64, "call_us", 1e6, 300), (1 << 20, "element_ns", 1e9 / (1 << 20), 2)):
        x = torch.randn(size).to(dtype)
        leaf = torch.randn(size).to(dtype).requires_grad_()
        grad = torch.ones_like(x)
        ways: dict[str, Callable[[], object]] = {
            "forward": lambda x=x: ours(x),
            "forward torch": lambda x=x: theirs(x),
            "training": lambda leaf=leaf, grad=grad: torch.autograd.grad(ours(leaf), leaf, grad),
            "training torch": lambda leaf=leaf, grad=grad: torch.autograd.grad(theirs(leaf), leaf, grad),
        }
        row[label] = {way: round(seconds * unit, 3) for way, seconds in timed(ways, repeats).items()}
    return row


def main() -> None:
    torch.set_num_threads(1)
    rows = [case(name, theirs, dtype) for name, theirs in CASES.items() for dtype in DTYPES]
    result = {"unit": "µs per call at 64 elements, ns per element at 1M", "rows": rows, "machine": machine()}
    text = json.dumps(result, indent=1, ensure_ascii=False)
    print(text)
    (Path(__file__).parent / "results/calls.json").write_text(text + "\n")


if __name__ == "__main__":
    main()
