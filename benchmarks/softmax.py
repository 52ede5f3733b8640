"""Softmax and log-softmax with a temperature beside PyTorch's ops: speed-ups by shape and dtype.

    python benchmarks/softmax.py [--compile] [--quick] [--least]

The peers divide and take the softmax, `torch.softmax(x / T, -1)`, eagerly or under torch.compile; float16 and bfloat16
round twice there. T is a tensor that learns, whose gradient is wanted with the input's; or the number 1, where eager is
`torch.softmax(x, -1)` alone. In one process, interleaved: the median of each peer's times, and their ratio (above 1:
softknee is faster). Inputs are N(0, 1), malloc as the environment tunes it, for all alike. Prints nothing of speed if
a result or a gradient is off. Writes results/softmax.json.
"""

from __future__ import annotations

import argparse
import json
import os
import statistics
import sys
from collections.abc import Callable
from pathlib import Path

import torch
from cpu import geomean, timed
from machine import machine
from torch import Tensor

import softknee
from softknee.kernels import accuracy, cpu, paths

DTYPES = (torch.float32, torch.bfloat16, torch.float16)
# a vocabulary's logits, a batch of classes, attention, a large matrix, one long row
SHAPES = ((8, 32_000), (128, 1024), (16, 8, 197, 197), (65_536, 10), (4096, 4096), (1, 1 << 20))
NAMES = ("softmax", "log_softmax")
TEMPERATURE = 1.25


def exact(name: str) -> bool:
    """The gate: the kernel is as exact as recorded, and gradients on a sample agree with those in float64."""
    activation, theirs = softknee.get(name), getattr(torch, name)
    for dtype in DTYPES:
        recorded = paths.figures(activation, dtype, "kernel")
        if not recorded or accuracy.joint(activation, dtype, 0, 64_000, kernel=True).ulp > recorded[0].ulp:
            return False
        x, grad = (torch.randn(64, 333).to(dtype) for _ in range(2))
        leaves = x.requires_grad_(), torch.full((64, 1), TEMPERATURE, requires_grad=True)
        wide = x.detach().double().requires_grad_(), leaves[1].detach().double().requires_grad_()
        got = torch.autograd.grad(activation(leaves[0], dim=-1, temperature=leaves[1]), leaves, grad)
        wanted = torch.autograd.grad(theirs(wide[0] / wide[1], -1), wide, grad.double())
        for ours, truth in zip(got, wanted, strict=True):
            if (ours - truth).abs().max() > 8 * torch.finfo(dtype).eps * truth.abs().max():
                return False
    return True


def ways(name: str, dtype: torch.dtype, shape: tuple[int, ...], learns: bool, compiled: dict) -> dict[str, dict]:
    """The peers of each regime."""
    activation, theirs = softknee.get(name), getattr(torch, name)
    x, grad = (torch.randn(shape).to(dtype) for _ in range(2))
    temperature = torch.tensor(TEMPERATURE, dtype=dtype)
    peers: dict[str, Callable[..., Tensor]]
    if learns:
        peers = {
            "softknee": lambda x, t: activation(x, dim=-1, temperature=t),
            "eager": lambda x, t: theirs(x / t, -1),
            "compiled": lambda x, t: compiled[name, True](x, t),
        }
    else:
        peers = {
            "softknee": lambda x, t: activation(x, dim=-1),
            "eager": lambda x, t: theirs(x, -1),
            "compiled": lambda x, t: compiled[name, False](x),
        }
    if not compiled:
        del peers["compiled"]
    leaves = (x.clone().requires_grad_(), temperature.clone().requires_grad_())[: 1 + learns]

    def trained(function: Callable[..., Tensor]) -> Callable[[], object]:
        return lambda: torch.autograd.grad(function(leaves[0], leaves[-1]), leaves, grad)

    return {
        "forward": {who: lambda f=f: f(x, temperature) for who, f in peers.items()},
        "forward+backward": {who: trained(f) for who, f in peers.items()},
    }


def main() -> int:
    parser = argparse.ArgumentParser(description=(__doc__ or "").split("\n")[0])
    parser.add_argument("--compile", action="store_true", help="torch.compile as a third peer")
    parser.add_argument("--quick", action="store_true", help="softmax of two shapes, and no file")
    parser.add_argument("--least", action="store_true", help="least times, for a machine that others use, not medians")
    arguments = parser.parse_args()
    if not cpu.available():
        print(cpu.described(), file=sys.stderr)
        return 1
    torch.manual_seed(0)
    if not all(map(exact, NAMES)):
        print("no speeds: a kernel is less exact than recorded, or a gradient is off", file=sys.stderr)
        return 1
    typical = min if arguments.least else statistics.median
    rows: list[dict[str, object]] = []
    ratios: dict[tuple[str, bool, str, str], list[float]] = {}
    for name in NAMES[: 1 if arguments.quick else None]:
        theirs = getattr(torch, name)
        for dtype in DTYPES:
            for shape in SHAPES[1:3] if arguments.quick else SHAPES:
                compiled = {}
                if arguments.compile:
                    torch._dynamo.reset()
                    compiled[name, True] = torch.compile(lambda x, t, f=theirs: f(x / t, -1), dynamic=False)
                    compiled[name, False] = torch.compile(lambda x, f=theirs: f(x, -1), dynamic=False)
                for learns in (True, False):
                    word, size = str(dtype).removeprefix("torch."), torch.Size(shape).numel()
                    row: dict[str, object] = {"activation": name, "dtype": word, "shape": shape, "learns": learns}
                    shown = ""
                    for regime, calls in ways(name, dtype, shape, learns, compiled).items():
                        with torch.set_grad_enabled(regime == "forward+backward"):
                            times = timed(calls, 0.4, typical)
                        for who, seconds in times.items():
                            row[f"{regime}, {who}"] = round(1e9 * seconds / size, 4)
                            if who != "softknee":
                                ratio = seconds / times["softknee"]
                                row[f"{regime}, {who}/softknee"] = round(ratio, 3)
                                ratios.setdefault((name, learns, regime, who), []).append(ratio)
                                shown += f"  {regime} {who} {ratio:.2f}"
                    rows.append(row)
                    setting = "T learns" if learns else "T = 1"
                    print(f"{name:11} {word:8} {'×'.join(map(str, shape)):16} {setting:8}{shown}", flush=True)
    means = []
    for (name, learns, regime, who), found in ratios.items():
        mean, least = round(geomean(found), 3), round(min(found), 3)
        means.append(
            {"activation": name, "learns": learns, "regime": regime, "peer": who, "geomean": mean, "least": least}
        )
        setting = "T learns" if learns else "T = 1"
        print(f"geomean {name:11} {setting:8} {regime:16} {who:8} {mean:.2f}, least {least:.2f}")
    result = {
        "unit": "ns per element",
        "of": "the least times" if arguments.least else "medians",
        "isa": cpu.isa(),
        "malloc": {k: v for k, v in sorted(os.environ.items()) if k.startswith("MALLOC_")},
        "geomeans": means,
        "rows": rows,
        "machine": machine(),
    }
    if not arguments.quick:
        path = Path(__file__).parent / "results/softmax.json"
        path.write_text(json.dumps(result, indent=1, ensure_ascii=False) + "\n")
    return 0


if __name__ == "__main__":
    sys.exit(main())
