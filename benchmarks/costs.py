"""What a forward call of every catalog entry costs beside a copy of its input: ns per element, float32 and bfloat16.

    python benchmarks/costs.py [names …]

1M elements of N(0, 1), one thread, pages kept; call and copy in turn, and the least of each, since it is disturbed the
least. A stochastic entry is as in evaluation, a normalizer works on rows of 1024. Two minutes.
Writes src/softknee/kernels/costs.json, which `softknee show` and the site read, unless names are given.
"""

from __future__ import annotations

import json
import re
import sys
import time
from collections.abc import Callable
from pathlib import Path

import torch
from machine import machine

import softknee
from softknee.catalog import Activation
from softknee.files import write_whole

TARGET = Path(__file__).parent.parent / "src/softknee/kernels/costs.json"
SIZE, ROW = 1 << 20, 1 << 10
DTYPES = (torch.float32, torch.bfloat16)
ROUNDS, CALLS, SECONDS = 5, 7, 0.05
CONDITIONS = "forward, 1M elements of N(0, 1), one thread, pages kept, the least of several calls"


def least(ways: list[Callable[[], object]]) -> list[float]:
    """ns per element of each, the least of calls in turn."""
    times = [float("inf")] * len(ways)
    for _ in range(ROUNDS):
        end, calls = time.perf_counter() + SECONDS, 0
        while calls < CALLS or time.perf_counter() < end:
            calls += 1
            for i, call in enumerate(ways):
                start = time.perf_counter()
                call()
                times[i] = min(times[i], time.perf_counter() - start)
    return [1e9 * taken / SIZE for taken in times]


def measured(activation: Activation, dtype: torch.dtype) -> list[object]:
    given = [torch.randn(SIZE // ROW, ROW).to(dtype) for _ in activation.inputs]
    options = {"dim": -1} if activation.kind == "normalizer" else {}
    if activation.stochastic and activation.kind == "elementwise":
        options = {"training": False}
    path = activation.path(*given, **options).forward
    ns, copy = least([lambda: activation(*given, **options), lambda: given[0].clone()])
    return [round(ns, 3), round(copy, 3), path]


def main() -> None:
    torch.set_num_threads(1)
    torch.manual_seed(0)
    names = sys.argv[1:] or [a.name for a in softknee.activations()]
    entries = {}
    with softknee.keep_pages(limit=None), torch.no_grad():
        for name in names:
            activation = softknee.get(name)
            entries[name] = {str(dtype).removeprefix("torch."): measured(activation, dtype) for dtype in DTYPES}
            print(name, entries[name], flush=True)
    if not sys.argv[1:]:
        text = json.dumps({"conditions": CONDITIONS, "machine": machine(), "entries": entries}, indent=1)
        write_whole(TARGET, re.sub(r"\[\s+([^]]*?)\s+\]", lambda m: f"[{' '.join(m[1].split())}]", text) + "\n")


if __name__ == "__main__":
    main()
