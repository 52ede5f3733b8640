"""What fresh pages cost an eager CPU function, and what `softknee.keep_pages()` saves, in one process.

ReLU and GELU of 16M float32 elements (an output of 64 MiB), eager PyTorch and softknee, two threads: page faults and
milliseconds per call, medians over rounds in which the functions take turns; first as it comes, then with kept pages,
since the heap's gaps outlive them. Writes results/allocation.json.
"""

from __future__ import annotations

import contextlib
import json
import resource
import statistics
import time
from collections.abc import Callable
from pathlib import Path

import torch
from machine import machine
from torch import Tensor

import softknee
import softknee.functional as SF
from softknee.files import write_whole

ELEMENTS, ROUNDS, CALLS = 1 << 24, 9, 5
FUNCTIONS: dict[str, Callable[[Tensor], Tensor]] = {
    "relu, eager": torch.relu,
    "relu, softknee": SF.relu,
    "gelu, eager": torch.nn.functional.gelu,
    "gelu, softknee": SF.gelu,
}


def faults() -> int:
    return resource.getrusage(resource.RUSAGE_SELF).ru_minflt


def main() -> None:
    torch.set_num_threads(2)
    x = torch.randn(ELEMENTS)
    counted: dict[tuple[str, bool], list[tuple[float, float]]] = {}
    for keep in (False, True):
        with softknee.keep_pages() if keep else contextlib.nullcontext():
            for _ in range(ROUNDS):
                for name, function in FUNCTIONS.items():
                    function(x)
                    before, start = faults(), time.perf_counter()
                    for _ in range(CALLS):
                        function(x)
                    seconds, more = time.perf_counter() - start, faults() - before
                    counted.setdefault((name, keep), []).append((1e3 * seconds / CALLS, more / CALLS))
    rows = []
    for (name, keep), values in counted.items():
        milliseconds, page_faults = (round(statistics.median(column), 3) for column in zip(*values, strict=True))
        rows.append({"function": name, "pages kept": keep, "ms": milliseconds, "page faults": page_faults})
        print(
            f"{name:15} {'pages kept' if keep else 'as it comes':12} {milliseconds:8.2f} ms {page_faults:9.0f} faults"
        )
    result = {"elements": ELEMENTS, "unit": "ms and page faults per call", "rows": rows, "machine": machine()}
    path = Path(__file__).parent / "results/allocation.json"
    write_whole(path, json.dumps(result, indent=1) + "\n")


if __name__ == "__main__":
    main()
