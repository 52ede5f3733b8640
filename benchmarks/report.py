"""How large the demo's page is and how long the demo takes. Writes results/report.json. The bars are 3 MiB and 90 s."""

from __future__ import annotations

import json
import tempfile
import time
from pathlib import Path

from machine import machine
from rich.console import Console

from softknee import demo


def main() -> None:
    with tempfile.TemporaryDirectory() as folder:
        began = time.perf_counter()
        _, proved = demo.run(Path(folder), console=Console(quiet=True))
        seconds = time.perf_counter() - began
        page = (Path(folder) / "report.html").stat().st_size
    result = {
        "page_bytes": page,
        "page_bar_bytes": 3 * 2**20,
        "demo_seconds": seconds,
        "demo_bar_seconds": 90,
        "proved": proved,
        "machine": machine() | {"threads": 1},
    }
    text = json.dumps(result, indent=1)
    print(text)
    (Path(__file__).parent / "results/report.json").write_text(text + "\n")


if __name__ == "__main__":
    main()
