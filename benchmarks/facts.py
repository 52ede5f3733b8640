"""How long the facts of the whole catalog take, computed anew: `python benchmarks/facts.py`.

Every fact of every entry that has some, in a fresh cache folder, by two processes: what the documentation and
`softknee list` wait for once. Writes results/facts.json. The bar is 60 s on two cores, which other work on the machine
makes longer; the processor's seconds do not count that.
"""

from __future__ import annotations

import concurrent.futures
import json
import multiprocessing
import os
import tempfile
import time
from pathlib import Path

from machine import machine

RESULTS = Path(__file__).parent / "results" / "facts.json"
PROCESSES = 2


def measure(name: str) -> tuple[str, float]:
    """The processor's seconds that all facts of one entry take, imports left out."""
    import softknee

    activation = softknee.get(name)
    before = time.process_time()
    activation.facts.to_dict()
    return name, time.process_time() - before


def main() -> None:
    import softknee

    names = [a.name for a in softknee.activations() if a.kind != "normalizer"]
    with tempfile.TemporaryDirectory() as folder:
        os.environ["SOFTKNEE_CACHE"] = folder
        context = multiprocessing.get_context("spawn")
        before = time.perf_counter()
        with concurrent.futures.ProcessPoolExecutor(PROCESSES, context) as pool:
            seconds = dict(pool.map(measure, names))
        total = time.perf_counter() - before
    slowest = sorted(seconds.items(), key=lambda item: -item[1])[:5]
    results = {
        "machine": machine(),
        "entries": len(seconds),
        "processes": PROCESSES,
        "wall_s": round(total, 1),
        "load": round(os.getloadavg()[0], 1),
        "processor_s": round(sum(seconds.values()), 1),
        "slowest_processor_s": {name: round(value, 2) for name, value in slowest},
    }
    RESULTS.write_text(json.dumps(results, indent=1, ensure_ascii=False) + "\n")
    print(json.dumps(results, indent=1, ensure_ascii=False))


if __name__ == "__main__":
    main()
