"""The CPU kernels beside eager PyTorch and torch.compile: speed-ups by activation, dtype, size and regime; the bars.

    python benchmarks/cpu.py [--no-compile] [--quick] [--least] [names …]

In one process, peers interleaved: the median of each one's times, and their ratio (above 1: softknee is faster).
Regimes: as it comes; pages kept, `softknee.keep_pages()` in force for all peers alike; warm, softknee writing into an
existing tensor (forward only, pages kept). All of the first come before the second, since the heap's gaps outlive it.
Inputs are N(0, 1); at 1M elements also wide ones, three in ten uniform in ±[5, 90]. torch.compile, dynamic, once per
function, dtype and mode, stands beside them at 64K and 1M elements with pages kept. PyTorch's side is its function, or
what its users write for what it lacks; half precision of the gated ones is eager PyTorch's, which rounds twice.

Prints nothing of speed if a kernel's error is larger than recorded. Two threads, about 25 minutes on a quiet machine.
Writes results/cpu.json at the end, unless names are given or --quick is.
"""

from __future__ import annotations

import argparse
import contextlib
import functools
import json
import math
import re
import statistics
import sys
import time
import types
from collections.abc import Callable, Iterator
from pathlib import Path

import torch
import torch.nn.functional as F
from machine import machine
from rich.console import Console
from rich.progress import BarColumn, Progress, TextColumn, TimeElapsedColumn, TimeRemainingColumn
from rich.table import Table
from torch import Tensor

import softknee
from softknee.files import write_whole
from softknee.kernels import accuracy, cpu, paths

RESULTS = Path(__file__).parent / "results"
THREADS = 2
DTYPES = (torch.float32, torch.bfloat16, torch.float16)
SIZES = {"4K": 1 << 12, "64K": 1 << 16, "1M": 1 << 20, "16M": 1 << 24}
COMPILED = ("64K", "1M")
REGIMES = ("as it comes", "pages kept")
MODES = ("forward", "forward+backward")
GATED: dict[str, Callable[[Tensor, Tensor], Tensor]] = {
    "swiglu": lambda gate, up: F.silu(gate) * up,
    "geglu": lambda gate, up: F.gelu(gate) * up,
    "reglu": lambda gate, up: F.relu(gate) * up,
    "glu": lambda gate, up: torch.sigmoid(gate) * up,
}
# regime, inputs, mode, dtype, size, peer → its time over softknee's, by activation
Ratios = dict[tuple[str, str, str, str, str, str], dict[str, float]]


def known() -> list[str]:
    """The elementwise functions of the registry that PyTorch has and that have a kernel, and the gated ones."""
    return [a.name for a in softknee.activations() if a.torch and a.kind == "elementwise" and cpu.operators(a)] + [
        *GATED
    ]


def peer(name: str) -> Callable[..., Tensor]:
    """What PyTorch's users call."""
    if name in GATED:
        return GATED[name]
    activation = softknee.get(name)
    function = getattr(F, str(activation.torch))
    if activation.name == "prelu":
        return lambda x: function(x, torch.full((1,), 0.25, dtype=x.dtype))
    given = {k: v for k, v in activation.defaults.items() if math.isfinite(v)}
    return functools.partial(function, **activation.torch_arguments, **given)


def compiled(name: str) -> Callable[..., Tensor]:
    """The peer under torch.compile, as a function of its own: the compiler counts its versions per code object."""
    theirs = peer(name)

    def call(*inputs: Tensor) -> Tensor:
        return theirs(*inputs)

    code = call.__code__.replace(co_name=name)
    own = types.FunctionType(code, call.__globals__, name, None, call.__closure__)
    return torch.compile(own, dynamic=True, fullgraph=True)


def exact(name: str) -> bool:
    """The gate: a sample of each kernel's errors is within what is recorded."""
    activation = softknee.get(name)
    for dtype in DTYPES:
        recorded = paths.figures(activation, dtype, "kernel") or []
        for order, figure in enumerate(recorded[:2]):
            if activation.kind == "gated":
                found = accuracy.joint(activation, dtype, order, count=20_000, kernel=True)
            else:
                found = accuracy.worst(activation, accuracy.ways(activation, dtype)["kernel"], dtype, order, 250 * 4001)
            if not found.ulp <= figure.ulp:
                print(f"{name}, {dtype}, order {order}: {found.ulp:.4g} ULPs, recorded {figure.ulp:g}", file=sys.stderr)
                return False
    return True


def timed(
    ways: dict[str, Callable[[], object]], seconds: float, typical: Callable = statistics.median, least: int = 7
) -> dict[str, float]:
    """Typical seconds of a call of each, taken in turn for `seconds` in all, but `least` times each."""
    for call in ways.values():
        call()
    times: dict[str, list[float]] = {name: [] for name in ways}
    end = time.perf_counter() + seconds
    while time.perf_counter() < end or len(next(iter(times.values()))) < least:
        for name, call in ways.items():
            start = time.perf_counter()
            call()
            times[name].append(time.perf_counter() - start)
    return {name: typical(values) for name, values in times.items()}


def sample(size: int, inputs: str) -> Tensor:
    """N(0, 1); of wide inputs, three in ten uniform in ±[5, 90], where functions saturate or underflow."""
    x = torch.randn(size)
    if inputs == "wide":
        tails = torch.empty(size).uniform_(5, 90) * torch.randn(size).sign()
        x = torch.where(torch.rand(size) < 0.3, tails, x)
    return x


def ways(
    name: str, dtype: torch.dtype, size: int, inputs: str, warm: bool, third: Callable[..., Tensor] | None
) -> dict[str, dict[str, Callable[[], object]]]:
    """The peers of each mode."""
    activation, theirs = softknee.get(name), peer(name)
    given = [sample(size, inputs).to(dtype) for _ in activation.inputs]
    leaves = [x.clone().requires_grad_() for x in given]
    grad = torch.randn(size).to(dtype)
    values = tuple(activation.defaults.values())

    def trained(function: Callable[..., Tensor]) -> Callable[[], object]:
        return lambda: torch.autograd.grad(function(*leaves), leaves, grad)

    peers = {"softknee": activation, "eager": theirs} | ({"compiled": third} if third else {})
    found: dict[str, dict[str, Callable[[], object]]] = {
        "forward": {who: functools.partial(function, *given) for who, function in peers.items()},
        "forward+backward": {who: trained(function) for who, function in peers.items()},
    }
    if warm:
        out = torch.empty(size, dtype=dtype)
        found["warm out="] = {
            "softknee": lambda: cpu.forward(activation, *given, *values, out=out),
            "eager": functools.partial(theirs, *given),
        }
    return found


def cells(names: list[str], quick: bool) -> Iterator[tuple[str, str, torch.dtype, str, str]]:
    """Regime, name, dtype, size, inputs, in the order of measurement."""
    for regime in REGIMES[1:] if quick else REGIMES:
        for name in names:
            for dtype in DTYPES:
                for size in ["1M"] if quick else SIZES:
                    yield regime, name, dtype, size, "N(0, 1)"
                if not quick and regime == "pages kept":
                    yield regime, name, dtype, "1M", "wide"


def bytes_kept(function: Callable[..., Tensor], dtype: torch.dtype = torch.bfloat16, size: int = 1 << 16) -> float:
    """What autograd keeps for backward of a function of two inputs, per output element, each storage once."""
    kept: dict[int, int] = {}

    def pack(x: Tensor) -> Tensor:
        kept[x.untyped_storage().data_ptr()] = x.untyped_storage().nbytes()
        return x

    gate, up = (torch.randn(size).to(dtype).requires_grad_() for _ in range(2))
    with torch.autograd.graph.saved_tensors_hooks(pack, lambda x: x):
        result = function(gate, up)  # alive until counted, lest one storage take another's address
    return sum(kept.values()) / result.numel()


def geomean(values: list[float]) -> float:
    return math.exp(statistics.fmean(map(math.log, values)))


def means(ratios: Ratios) -> list[dict[str, object]]:
    """Geometric means over the elementwise functions."""
    rows: list[dict[str, object]] = []
    for (regime, inputs, mode, dtype, size, who), found in ratios.items():
        values = [ratio for name, ratio in found.items() if name not in GATED]
        if values:
            rows.append({"regime": regime, "inputs": inputs, "mode": mode, "peer": who, "dtype": dtype, "size": size,
                         "functions": len(values), "geomean": round(geomean(values), 3)})  # fmt: skip
    return rows


def bars(ratios: Ratios) -> list[dict[str, object]]:
    """What was aimed at and what was reached, a line each; only those that were measured."""
    rows: list[dict[str, object]] = []

    def line(what: str, bar: float, reached: float, most: bool = False) -> None:
        passed = reached <= bar if most else reached >= bar
        rows.append({"what": what, "bar": bar, "reached": round(reached, 3), "passed": passed})

    def at(mode: str, dtype: str, size: str, who: str = "eager") -> dict[str, float]:
        return ratios.get(("pages kept", "N(0, 1)", mode, dtype, size, who), {})

    words = [str(dtype).removeprefix("torch.") for dtype in DTYPES]
    for mode, who, wanted in (
        ("forward", "eager", (2.2, 3.0, 3.0)),
        ("forward", "compiled", (2.0, 2.0, 2.0)),
        ("forward+backward", "eager", (2.0, 2.0, 2.0)),
    ):
        for dtype, bar in zip(words, wanted, strict=True):
            values = [ratio for name, ratio in at(mode, dtype, "1M", who).items() if name not in GATED]
            if values:
                line(f"{mode} {dtype} 1M, {who}: geomean of {len(values)} functions", bar, geomean(values))
    for name in ("tanh", "gelu_tanh", "mish", "selu", "tanhshrink"):
        if name in (found := at("forward", "float32", "1M")):
            line(f"forward float32 1M, eager: {name}", 4.0, found[name])
    for name in ("swiglu", "geglu"):
        for size in ("1M", "16M"):
            for dtype, bar in (("float32", 1.8), ("bfloat16", 3.0)):
                if name in (found := at("forward", dtype, size)):
                    line(f"forward {dtype} {size}, eager: {name}", bar, found[name])
    for dtype in ("float32", "bfloat16"):
        if "swiglu" in (found := at("forward+backward", dtype, "1M")):
            line(f"forward+backward {dtype} 1M, eager: swiglu", 2.5, found["swiglu"])
    slowest: dict[bool, tuple[float, str]] = {}
    for (regime, inputs, mode, dtype, size, who), found in ratios.items():
        if who == "eager" and SIZES[size] >= 1 << 16 and inputs == "N(0, 1)":
            for name, ratio in found.items():
                known_slow = name == "gelu" and dtype == "float32"
                if ratio < slowest.get(known_slow, (math.inf, ""))[0]:
                    slowest[known_slow] = ratio, f"{name} {mode} {dtype} {size}, {regime}"
    for known_slow, (ratio, where) in sorted(slowest.items()):
        kind = "gelu float32" if known_slow else "any function, dtype and size"
        line(f"slowest from 64K on, eager, {kind}: {where}", 0.8 if known_slow else 0.9, ratio)
    kept = {who: bytes_kept(way) for who, way in (("softknee", softknee.get("swiglu")), ("eager", GATED["swiglu"]))}
    line(f"bytes kept for backward per element, bfloat16 swiglu (eager {kept['eager']:g})", 4.0, kept["softknee"], True)
    return rows


def tables(ratios: Ratios, console: Console) -> None:
    """A table for each dtype: activations down, mode, size and peer across, of N(0, 1) with pages kept."""
    shown = [key for key in ratios if key[0] == "pages kept" and key[1] == "N(0, 1)" and key[2] != "warm out="]
    for dtype in dict.fromkeys(key[3] for key in shown):
        table = Table(title=f"{dtype}, pages kept, N(0, 1): the peer's time over softknee's", title_justify="left")
        table.add_column("activation")
        columns = [key for key in shown if key[3] == dtype]
        columns.sort(key=lambda key: (MODES.index(key[2]), key[5] != "eager"))
        for _, _, mode, _, size, who in columns:
            word = "f" if mode == "forward" else "f+b"
            table.add_column(f"{word} {size}" + (" compile" if who == "compiled" else ""), justify="right")
        for name in dict.fromkeys(name for key in columns for name in ratios[key]):
            table.add_row(name, *(f"{ratios[key][name]:.2f}" if name in ratios[key] else "" for key in columns))
        console.print(table)
    table = Table(title="geometric means over the elementwise functions, eager", title_justify="left")
    for column in ("regime", "inputs", "mode", "dtype", *SIZES):
        table.add_column(column, justify="right" if column in SIZES else "left", no_wrap=True)
    grouped: dict[tuple[str, ...], dict[str, str]] = {}
    for row in means(ratios):
        if row["peer"] == "eager":
            key = tuple(str(row[word]) for word in ("regime", "inputs", "mode", "dtype"))
            grouped.setdefault(key, {})[str(row["size"])] = f"{row['geomean']:.2f}"
    for key, by_size in grouped.items():
        table.add_row(*key, *(by_size.get(size, "") for size in SIZES))
    console.print(table)


def show_bars(rows: list[dict[str, object]], console: Console) -> None:
    console.print("\nBars: the peer's time over softknee's, pages kept, N(0, 1)")
    for row in rows:
        verdict = "[green]pass[/green]" if row["passed"] else "[red]FAIL[/red]"
        console.print(f"{verdict}  {row['reached']:6.2f}  bar {row['bar']:4}  {row['what']}", soft_wrap=True)
    softmax = RESULTS / "softmax.json"
    if softmax.exists():
        for row in json.loads(softmax.read_text())["geomeans"]:
            what = f"{row['activation']}, {'T learns' if row['learns'] else 'T = 1'}, {row['regime']}, {row['peer']}"
            least = f"geomean, least {row['least']:.2f} (benchmarks/softmax.py)"
            console.print(f"      {row['geomean']:6.2f}  {what}: {least}", soft_wrap=True)


def measure(
    names: list[str], arguments: argparse.Namespace, console: Console
) -> tuple[list[dict[str, object]], Ratios]:
    """All cells: the rows of the results file, and the ratios in them."""
    typical = min if arguments.least else statistics.median
    rows: list[dict[str, object]] = []
    ratios: Ratios = {}
    work, before, third = list(cells(names, arguments.quick)), "", None
    bar = Progress(
        TextColumn("{task.description:34}"), BarColumn(), TextColumn("{task.percentage:3.0f} %"),
        TimeElapsedColumn(), TimeRemainingColumn(), console=console,
    )  # fmt: skip
    with bar, contextlib.ExitStack() as keeping:
        task, kept = bar.add_task("", total=len(work)), False
        for regime, name, dtype, size, inputs in work:
            word = str(dtype).removeprefix("torch.")
            bar.update(task, description=f"{regime}, {name} {word} {size}")
            if regime == "pages kept" and not kept:
                keeping.enter_context(softknee.keep_pages(limit=None))
                kept = True
            if kept and arguments.compile and name != before:
                torch._dynamo.reset()
                third, before = compiled(name), name
            beside = third if size in COMPILED and inputs == "N(0, 1)" else None
            seconds = arguments.seconds * (2.0 if size == "1M" and kept else 0.0 if size == "16M" else 1.0)
            for mode, calls in ways(name, dtype, SIZES[size], inputs, kept, beside).items():
                with torch.set_grad_enabled(mode == "forward+backward"):
                    times = timed(calls, seconds, typical, 3 if size == "16M" else 7)
                row: dict[str, object] = {"activation": name, "dtype": word, "size": SIZES[size], "inputs": inputs}
                row |= {"regime": regime, "mode": mode}
                row |= {who: round(1e9 * seconds / SIZES[size], 4) for who, seconds in times.items()}
                rows.append(row)
                for who, taken in times.items():
                    if who != "softknee":
                        key = (regime, inputs, mode, word, size, who)
                        ratios.setdefault(key, {})[name] = taken / times["softknee"]
            bar.advance(task)
    return rows, ratios


def compact(result: dict[str, object]) -> str:
    """JSON with one line per row."""
    text = json.dumps(result, indent=1, ensure_ascii=False)
    return re.sub(r"\n {3,}|\n {2}(?=\})", " ", text) + "\n"


def main(given: list[str] | None = None) -> int:
    parser = argparse.ArgumentParser(description=(__doc__ or "").split("\n")[0])
    parser.add_argument("--no-compile", dest="compile", action="store_false", help="without torch.compile")
    parser.add_argument("--quick", action="store_true", help="1M elements with pages kept, and no file")
    parser.add_argument("--least", action="store_true", help="least times, for a machine that others use, not medians")
    parser.add_argument("--seconds", type=float, default=0.15, help="for the peers of one cell; twice as long at 1M")
    parser.add_argument("names", nargs="*", help="only these, and no file")
    arguments = parser.parse_args(given)
    console = Console(highlight=False)
    torch.set_num_threads(THREADS)
    torch.manual_seed(0)
    if not cpu.available():
        print(cpu.described(), file=sys.stderr)
        return 1
    names = [softknee.get(name).name for name in arguments.names] or known()
    if unknown := [name for name in names if name not in known()]:
        print(f"no kernel, or nothing of PyTorch's beside it: {', '.join(unknown)}", file=sys.stderr)
        return 2
    if not all(map(exact, names)):
        print("no speeds: a kernel is less exact than recorded", file=sys.stderr)
        return 1
    try:
        rows, ratios = measure(names, arguments, console)
    except KeyboardInterrupt:
        print("interrupted; the results file is as it was", file=sys.stderr)
        return 130
    found, reached = machine(), bars(ratios)
    tables(ratios, console)
    show_bars(reached, console)
    console.print("\n" + ", ".join(f"{key.replace('_', ' ')} {value}" for key, value in found.items()), soft_wrap=True)
    result: dict[str, object] = {
        "unit": "ns per element",
        "of": "the least times" if arguments.least else "medians",
        "isa": cpu.isa(),
        "machine": found,
        "bars": reached,
        "geomeans": means(ratios),
        "rows": rows,
    }
    if not arguments.names and not arguments.quick:
        write_whole(RESULTS / "cpu.json", compact(result))
    return 0


if __name__ == "__main__":
    sys.exit(main())
