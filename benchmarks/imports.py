"""What `import softknee` costs over `import torch`: fresh interpreters, the time of each import statement, medians.

Writes results/imports.json. The bar is 80 ms.
"""

from __future__ import annotations

import json
import statistics
import subprocess
import sys
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
    for _ in range(RUNS):
        out = subprocess.run([sys.executable, "-c", PROGRAM], capture_output=True, text=True, check=True).stdout
        rows.append([1e3 * float(x) for x in out.split()])
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
