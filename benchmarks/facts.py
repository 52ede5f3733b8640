"""How long the facts of the whole catalog take, computed anew: `python benchmarks/facts.py`.

Every fact of every entry that has some, in a fresh cache folder, by a pool of one process per core: what `softknee list`
and the documentation wait for once. Seconds of each entry are those of its own process, imports left out.
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
    """The seconds that one entry's facts take, all of them."""
    import softknee

    activation = softknee.get(name)
    before = time.perf_counter()
    activation.facts.to_dict()
    return name, time.perf_counter() - before


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
        "total_s": round(total, 1),
        "one_after_another_s": round(sum(seconds.values()), 1),
        "slowest_s": {name: round(value, 2) for name, value in slowest},
    }
    RESULTS.write_text(json.dumps(results, indent=1, ensure_ascii=False) + "\n")
    print(json.dumps(results, indent=1, ensure_ascii=False))


if __name__ == "__main__":
    main()
