"""All 2³² float32 inputs of every core elementwise function with a kernel, f and f′, against float64.

python tools/exhaustive.py                    sweep what is not swept yet, and write benchmarks/results/ulp.json
python tools/exhaustive.py --jobs 1 silu mish only these, one process; the others keep their figures
python tools/exhaustive.py --afresh           forget what a former run swept

Ctrl-C keeps what is done: `build/ulp.json` holds every finished part, until its kernel, its definition or the versions
change. The unit and what is counted: `softknee.kernels.ulp`. The oracle is checked on a sample first, and a function
where that fails is not swept; then the exit code is 1.
"""

from __future__ import annotations

import argparse
import datetime
import functools
import hashlib
import json
import math
import multiprocessing
import os
import signal
import sys
import time
from concurrent.futures import FIRST_COMPLETED, Future, ProcessPoolExecutor, wait
from pathlib import Path
from typing import Any

import torch
from rich.console import Console
from rich.progress import BarColumn, Progress, TextColumn, TimeElapsedColumn

import softknee
from softknee.backends.cpp import code
from softknee.environment import processor
from softknee.errors import InputError
from softknee.expression import emit
from softknee.files import write_whole
from softknee.kernels import cpu, ulp
from softknee.kernels.paths import ORDERS
from softknee.kernels.ulp import Tally

ROOT = Path(__file__).parent.parent
STATE = ROOT / "build/ulp.json"
RESULTS = ROOT / "benchmarks/results/ulp.json"
PARTS = 64
"""A function and order is swept in so many parts of 2²⁶ inputs, of about a second each."""
Key = tuple[str, int]


@functools.cache
def _judge(name: str, order: int) -> ulp.Judge:
    activation = softknee.get(name)
    truth, _, _ = ulp.oracle(activation, order)
    return ulp.Judge(ulp.kernel(activation, order), truth, order)


def _ready() -> None:
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # the parent stops its workers
    torch.set_num_threads(1)


def swept(name: str, order: int, part: int) -> tuple[dict[str, Any], float]:
    """The tally of a part of the inputs, and the seconds it took."""
    began, each = time.perf_counter(), ulp.BLOCKS // PARTS
    judge, tally = _judge(name, order), Tally()
    with torch.inference_mode():
        for index in range(part * each, (part + 1) * each):
            tally += judge.block(index)
    return tally.to_dict(), time.perf_counter() - began


@functools.cache
def fingerprint(name: str) -> str:
    """Of everything that the figures of a function depend on: its kernels and their primitives, its definition, the
    judgement, PyTorch, processor."""
    activation, folder = softknee.get(name), Path(cpu.__file__).parent
    emitted = code(activation)
    shared = ("math.h", "polynomials.h", "loops.h", "double.h", f"simd_{cpu.isa()}.h", "simd_partial.h")
    found = hashlib.sha256(f"{torch.__version__} {processor()} {cpu.isa()}".encode())
    for text in (emitted.functor, emitted.uniforms, emit([activation.expression], "forward", activation.names)):
        found.update(text.encode())
    for path in [*(folder / each for each in shared), Path(ulp.__file__)]:
        found.update(path.read_bytes())
    return found.hexdigest()


class State:
    """The parts that are done, kept in `STATE`: by function and order, as long as their fingerprint holds."""

    def __init__(self, afresh: bool) -> None:
        self.kept: dict[str, dict[str, Any]] = {}
        self._written = time.monotonic()
        if STATE.exists() and not afresh:
            try:
                self.kept = {
                    str(key): {"of": k["of"], "parts": k["parts"]} for key, k in json.loads(STATE.read_text()).items()
                }
            except (ValueError, KeyError, TypeError, AttributeError):
                print(f"{STATE} is not readable and is begun anew", file=sys.stderr)

    def of(self, key: Key) -> dict[str, dict[str, Any]]:
        word, now = f"{key[0]} {key[1]}", fingerprint(key[0])
        if self.kept.get(word, {}).get("of") != now:
            self.kept[word] = {"of": now, "parts": {}}
        return self.kept[word]["parts"]

    def add(self, key: Key, part: int, tally: dict[str, Any]) -> None:
        self.of(key)[str(part)] = tally
        if time.monotonic() > self._written + 5:
            self.write()

    def write(self) -> None:
        write_whole(STATE, json.dumps(self.kept))
        self._written = time.monotonic()

    def missing(self, key: Key) -> list[int]:
        return [part for part in range(PARTS) if str(part) not in self.of(key)]

    def total(self, key: Key) -> Tally:
        return sum((Tally(**tally) for tally in self.of(key).values()), Tally())


def sweep(keys: list[Key], state: State, jobs: int, console: Console) -> None:
    """Every missing part of `keys`, by `jobs` processes."""
    work = [(key, part) for key in keys for part in state.missing(key)]
    if not work:
        return
    bar = Progress(
        TextColumn("{task.description:22}"), BarColumn(), TextColumn("{task.percentage:5.1f} %  {task.fields[rate]}"),
        TimeElapsedColumn(), console=console,
    )  # fmt: skip
    context = multiprocessing.get_context("spawn")
    pool = ProcessPoolExecutor(jobs, context, _ready)
    began, done, waiting = time.monotonic(), 0, list(reversed(work))
    running: dict[Future[Any], tuple[Key, int]] = {}
    try:
        with bar:
            task = bar.add_task("starting", total=len(work), rate="")
            while waiting or running:
                while waiting and len(running) < 2 * jobs:
                    key, part = waiting.pop()
                    running[pool.submit(swept, *key, part)] = key, part
                for future in wait(running, return_when=FIRST_COMPLETED).done:
                    key, part = running.pop(future)
                    tally, _ = future.result()
                    state.add(key, part, tally)
                    done += 1
                    seconds = time.monotonic() - began
                    rate = done * ((1 << 32) // PARTS) / seconds / 1e6
                    left = seconds / done * (len(work) - done) / 60
                    said = f"{rate:5.0f} M inputs/s, {left:4.0f} min left"
                    bar.update(task, advance=1, description=f"{key[0]} {ORDERS[key[1]]}", rate=said)
    except BaseException:
        for process in list((pool._processes or {}).values()):
            process.terminate()
        raise
    finally:
        pool.shutdown(wait=False, cancel_futures=True)
        state.write()


def row(key: Key, state: State, checked: float, way: str) -> dict[str, Any]:
    tally = state.total(key)
    x = torch.tensor(tally.bits, dtype=torch.int64).to(torch.int32).view(torch.float32).item()
    found = tally.to_dict() | {
        "bits": f"0x{tally.bits:08x}",
        "x": repr(x),
        "ulp": math.ceil(1e4 * tally.ulp) / 1e4 if math.isfinite(tally.ulp) else str(tally.ulp),
    }
    if tally.wrong_bits is not None:
        found["wrong_bits"] = f"0x{tally.wrong_bits:08x}"
    return found | {"oracle": way, "oracle apart": float(f"{checked:.2g}")}


def estimate(keys: list[Key], state: State, jobs: int) -> float:
    """Minutes for what is missing, from one block in 8192."""
    total = 0.0
    for key in keys:
        judge, indices = _judge(*key), range(3, ulp.BLOCKS, 8192)
        judge.block(16256)
        began = time.perf_counter()
        for index in indices:
            judge.block(index)
        total += (time.perf_counter() - began) / len(indices) * ulp.BLOCKS * len(state.missing(key)) / PARTS
    return total / jobs / 60


def main() -> int:
    parser = argparse.ArgumentParser(description=(__doc__ or "").split("\n")[0])
    parser.add_argument("--jobs", type=int, default=min(2, os.cpu_count() or 1), help="processes, one thread each")
    parser.add_argument("--afresh", action="store_true", help="forget what a former run swept")
    parser.add_argument("--output", type=Path, default=RESULTS)
    parser.add_argument("names", nargs="*", help="only these activations; the others keep their figures")
    arguments = parser.parse_args()
    console = Console(highlight=False)
    torch.set_num_threads(1)
    known = [activation.name for activation in ulp.swept()]
    names = [softknee.get(name).name for name in arguments.names] or known
    if not known or (unknown := [name for name in names if name not in known]):
        print(cpu.described() if not known else f"no float32 kernel: {', '.join(unknown)}", file=sys.stderr)
        return 2
    if arguments.jobs < 1:
        print("--jobs must be at least 1", file=sys.stderr)
        return 2
    checks: dict[Key, tuple[str, float]] = {}
    for name in names:
        for order in (0, 1):
            try:
                _, way, apart = ulp.oracle(softknee.get(name), order)
                checks[name, order] = way, apart
            except InputError as error:
                print(f"not swept: {error}", file=sys.stderr)
    state, keys = State(arguments.afresh), list(checks)
    with torch.inference_mode():
        minutes = estimate(keys, state, arguments.jobs)
    console.print(f"{len(keys)} sweeps of 2³² inputs: about {minutes:.0f} minutes with {arguments.jobs} processes")
    try:
        sweep(keys, state, arguments.jobs, console)
    except KeyboardInterrupt:
        console.print(f"interrupted; what is done stands in {STATE.relative_to(ROOT)}, and the same command goes on")
        return 130
    entries = (
        json.loads(arguments.output.read_text())["entries"] if arguments.output.exists() and arguments.names else {}
    )
    for (name, order), (way, apart) in checks.items():
        found = row((name, order), state, apart, way)
        entries.setdefault(name, {})[ORDERS[order]] = found
        counts = f"{found['above']} above {ulp.MANY:g}, {found['wrong']} of the wrong kind"
        where = f"{found['x']} ({found['bits']})"
        console.print(f"{name:18} {ORDERS[order]:3} {found['ulp']!s:>8} ULPs at {where}, {counts}", soft_wrap=True)
    result = {
        "unit": "f: ulp(f) where the true value is normal; f′: ulp(max(|f′|, 2⁻⁴))",
        "inputs": "all 2³² of float32",
        "date": datetime.date.today().isoformat(),
        "softknee": softknee.__version__,
        "torch": torch.__version__,
        "isa": cpu.isa(),
        "processor": processor(),
        "entries": {name: entries[name] for name in sorted(entries)},
    }
    write_whole(arguments.output, json.dumps(result, indent=1, ensure_ascii=False) + "\n")
    return int(len(checks) < 2 * len(names))


if __name__ == "__main__":
    sys.exit(main())
