"""The CPU kernels beside eager PyTorch: speed-ups per activation, dtype and size, and their geometric means.

    python benchmarks/cpu.py [--compile] [--quick] [--least] [names …]

In one process, interleaved: the median of each peer's times, and their ratio (above 1: softknee is faster). Regimes:
as it comes; warm, the output written into an existing tensor (forward only). Inputs are N(0, 1). PyTorch's side is its
function, or what its users write for what it lacks; half precision of the gated ones is eager PyTorch's, which rounds
twice. Prints nothing of speed if a kernel's error is larger than recorded. Writes results/cpu.json.
"""

from __future__ import annotations

import argparse
import functools
import json
import math
import statistics
import sys
import time
from collections.abc import Callable
from pathlib import Path

import torch
import torch.nn.functional as F
from machine import machine
from torch import Tensor

import softknee
from softknee.kernels import accuracy, cpu, paths

DTYPES = (torch.float32, torch.bfloat16, torch.float16)
SIZES = (1 << 12, 1 << 16, 1 << 20)
GATED: dict[str, Callable[[Tensor, Tensor], Tensor]] = {
    "swiglu": lambda gate, up: F.silu(gate) * up,
    "geglu": lambda gate, up: F.gelu(gate) * up,
    "reglu": lambda gate, up: F.relu(gate) * up,
    "glu": lambda gate, up: torch.sigmoid(gate) * up,
}


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
            if found.ulp > figure.ulp:
                print(f"{name}, {dtype}, order {order}: {found.ulp:.4g} ULPs, recorded {figure.ulp:g}", file=sys.stderr)
                return False
    return True


def timed(ways: dict[str, Callable[[], object]], seconds: float, typical: Callable = statistics.median) -> dict:
    """Typical seconds of a call of each, taken in turn for `seconds` in all."""
    for call in ways.values():
        call()
    times: dict[str, list[float]] = {name: [] for name in ways}
    end = time.perf_counter() + seconds
    while time.perf_counter() < end or len(next(iter(times.values()))) < 7:
        for name, call in ways.items():
            start = time.perf_counter()
            call()
            times[name].append(time.perf_counter() - start)
    return {name: typical(values) for name, values in times.items()}


def ways(name: str, dtype: torch.dtype, size: int, compiled: Callable[..., Tensor] | None) -> dict[str, dict]:
    """The peers of each regime."""
    activation, theirs = softknee.get(name), peer(name)
    inputs = [torch.randn(size).to(dtype) for _ in activation.inputs]
    leaves = [x.clone().requires_grad_() for x in inputs]
    grad, out = torch.randn(size).to(dtype), torch.empty(size, dtype=dtype)
    values = tuple(activation.defaults.values())

    def trained(function: Callable[..., Tensor]) -> Callable[[], object]:
        return lambda: torch.autograd.grad(function(*leaves), leaves, grad)

    peers = {"softknee": activation, "eager": theirs} | ({"compiled": compiled} if compiled else {})
    return {
        "forward": {who: functools.partial(function, *inputs) for who, function in peers.items()},
        "forward+backward": {who: trained(function) for who, function in peers.items()},
        "warm out=": {
            "softknee": lambda: cpu.forward(activation, *inputs, *values, out=out),
            "eager": functools.partial(theirs, *inputs),
        },
    }


def geomean(values: list[float]) -> float:
    return math.exp(statistics.fmean(map(math.log, values)))


def main() -> int:
    parser = argparse.ArgumentParser(description=(__doc__ or "").split("\n")[0])
    parser.add_argument("--compile", action="store_true", help="torch.compile as a third peer")
    parser.add_argument("--quick", action="store_true", help="only 1M elements")
    parser.add_argument("--least", action="store_true", help="least times, for a machine that others use, not medians")
    parser.add_argument("names", nargs="*")
    arguments = parser.parse_args()
    known = [a.name for a in softknee.activations() if a.torch and a.kind == "elementwise" and cpu.operators(a)]
    names = arguments.names or [*known, *GATED]
    if not cpu.available():
        print(cpu.described(), file=sys.stderr)
        return 1
    if not all(map(exact, names)):
        print("no speeds: a kernel is less exact than recorded", file=sys.stderr)
        return 1
    typical = min if arguments.least else statistics.median
    rows: list[dict[str, object]] = []
    ratios: dict[tuple[str, str, str, int], dict[str, float]] = {}
    for name in names:
        compiled = torch.compile(peer(name), dynamic=False) if arguments.compile else None
        for dtype in DTYPES:
            for size in SIZES[-1:] if arguments.quick else SIZES:
                word = str(dtype).removeprefix("torch.")
                row: dict[str, object] = {"activation": name, "dtype": word, "size": size}
                for regime, calls in ways(name, dtype, size, compiled).items():
                    with torch.set_grad_enabled(regime == "forward+backward"):
                        times = timed(calls, 0.1 if size > 1 << 16 else 0.03, typical)
                    for who, seconds in times.items():
                        row[f"{regime}, {who}"] = round(1e9 * seconds / size, 4)
                        if who != "softknee":
                            ratio = seconds / times["softknee"]
                            row[f"{regime}, {who}/softknee"] = round(ratio, 3)
                            ratios.setdefault((regime, who, word, size), {})[name] = ratio
                rows.append(row)
                shown = [f"{k.split(',')[0]} {v:.2f}" for k, v in row.items() if k.endswith("eager/softknee")]
                print(f"{name:14} {word:9} {size:8}  " + "  ".join(shown), flush=True)
    means = []
    for (regime, who, word, size), found in ratios.items():
        mean = geomean([ratio for name, ratio in found.items() if name not in GATED] or list(found.values()))
        means.append({"regime": regime, "peer": who, "dtype": word, "size": size, "geomean": round(mean, 3)})
        print(f"geomean {regime:17} {who:9} {word:9} {size:8} {mean:.2f}")
    result = {
        "unit": "ns per element",
        "of": "the least times" if arguments.least else "medians",
        "isa": cpu.isa(),
        "geomeans": means,
        "rows": rows,
    }
    result["machine"] = machine()
    if not arguments.names:
        path = Path(__file__).parent / "results/cpu.json"
        path.write_text(json.dumps(result, indent=1, ensure_ascii=False) + "\n")
    return 0


if __name__ == "__main__":
    sys.exit(main())
