"""What `import softknee` costs over `import torch`: fresh interpreters, the time of each import statement, medians.

With bytecode, as an installed package has it: PYTHONDONTWRITEBYTECODE would have every start compile the sources, which
costs twice as much again. A full collection of torch's objects, 70 ms, may fall into any stage: that is its maximum.

Writes results/imports.json. The bar is 80 ms.
"""

from __future__ import annotations

import json
import os
import statistics
import subprocess
import sys
import tempfile
from pathlib import Path

from machine import machine

PROGRAM = """
import time, torch
start = time.perf_counter()
import softknee
imported = time.perf_counter()
softknee.get("gelu")
catalog = time.perf_counter()
import softknee.functional, softknee.nn
print(imported - start, catalog - imported, time.perf_counter() - catalog)
"""
RUNS = 9
STAGES = ("import softknee", "first softknee.get: the catalog", "softknee.functional and softknee.nn")


def main() -> None:
    rows = []
    with tempfile.TemporaryDirectory() as folder:
        kept = {name: value for name, value in os.environ.items() if name != "PYTHONDONTWRITEBYTECODE"}
        environment = kept | {"PYTHONPYCACHEPREFIX": folder}
        for _ in range(1 + RUNS):  # the first writes the bytecode
            command = [sys.executable, "-c", PROGRAM]
            out = subprocess.run(command, capture_output=True, text=True, check=True, env=environment).stdout
            rows.append([1e3 * float(x) for x in out.split()])
    del rows[0]
    columns = dict(zip(STAGES, zip(*rows, strict=True), strict=True))
    result = {
        "unit": "ms after import torch",
        "runs": RUNS,
        "bar": 80,
        "stages": {name: {"median": statistics.median(c), "min": min(c), "max": max(c)} for name, c in columns.items()},
        "machine": machine(),
    }
    text = json.dumps(result, indent=1)
    print(text)
    (Path(__file__).parent / "results/imports.json").write_text(text + "\n")


if __name__ == "__main__":
    main()
