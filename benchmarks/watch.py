"""What `softknee.watch` costs per training step, beside the unwatched loop and naive hooks, in one process.

    python benchmarks/watch.py [--output benchmarks/results/watch.json] [--rounds 30]

The demo's model (8 hidden layers × 64 ReLU, 64 inputs, 10 classes), batch 64, SGD, one thread. Every variant trains
its own copy; rounds of 200 steps are interleaved, the order rotates, and a ratio is taken within a round. Naive hooks
compute mean, std and the share of zeros of each activation's output at every step, each with `.item()`.
"""

from __future__ import annotations

import argparse
import json
import os
import platform
import statistics
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

import softknee

STEPS = 200
TARGET_EVERY_STEP = 0.25
TARGET_DEFAULT = 0.02


def build() -> tuple[nn.Sequential, torch.optim.Optimizer]:
    torch.manual_seed(0)
    layers: list[nn.Module] = []
    for _ in range(8):
        layers += [nn.Linear(64, 64), nn.ReLU()]
    model = nn.Sequential(*layers, nn.Linear(64, 10))
    return model, torch.optim.SGD(model.parameters(), 0.05)


def naive(model: nn.Module, kept: list[float]) -> None:
    """Three reductions per activation with `.item()`, as hooks are usually written."""

    def hook(module: nn.Module, args: tuple[Any, ...], output: Tensor) -> None:
        kept[:] = [output.mean().item(), output.std().item(), (output == 0).float().mean().item()]

    for module in model.modules():
        if isinstance(module, nn.ReLU):
            module.register_forward_hook(hook)


def training(
    model: nn.Module, optimizer: torch.optim.Optimizer, batches: list[tuple[Tensor, Tensor]], w: Any
) -> Callable[[], float]:
    """A round: seconds per step over `STEPS` steps."""

    def go() -> float:
        started = time.perf_counter()
        for step in range(STEPS):
            x, y = batches[step % len(batches)]
            loss = nn.functional.cross_entropy(model(x), y)
            optimizer.zero_grad()
            loss.backward()
            optimizer.step()
            if w is not None:
                w.log(loss=loss)
        return (time.perf_counter() - started) / STEPS

    return go


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--output", type=Path, default=Path(__file__).parent / "results" / "watch.json")
    parser.add_argument("--rounds", type=int, default=30)
    arguments = parser.parse_args()
    torch.set_num_threads(1)
    generator = torch.Generator().manual_seed(0)
    batches = [
        (torch.rand(64, 64, generator=generator), torch.randint(10, (64,), generator=generator)) for _ in range(16)
    ]
    variants: dict[str, Callable[[], float]] = {}
    models: dict[str, nn.Module] = {}
    blocks = []
    kept: list[float] = []
    default = softknee.watch(build()[0]).every
    for name, every in (("unwatched", None), ("every=1", 1), (f"default (every={default})", default), ("naive", None)):
        model, optimizer = build()
        w = None
        if every is not None:
            w = softknee.watch(model, optimizer, every=every).__enter__()
            blocks.append(w)
        if name == "naive":
            naive(model, kept)
        models[name], variants[name] = model, training(model, optimizer, batches, w)
    for go in variants.values():  # warm up, the first forward's identification included
        go()
    names = list(variants)
    seconds: dict[str, list[float]] = {name: [] for name in names}
    for turn in range(arguments.rounds):
        for name in names[turn % len(names) :] + names[: turn % len(names)]:
            seconds[name].append(variants[name]())
    for block in blocks:
        block.close()
    reference = list(models["unwatched"].parameters())
    for name, model in models.items():
        if not all(torch.equal(a, b) for a, b in zip(reference, model.parameters(), strict=True)):
            print(f"refused: {name} trained to other weights than the unwatched model")
            return 1
    result: dict[str, Any] = {
        "what": "seconds per training step, median over rounds; overhead: median over rounds of the ratio, minus 1",
        "model": "8 hidden layers x 64 ReLU, 64 inputs, 10 classes; batch 64; SGD",
        "rounds": arguments.rounds,
        "steps_per_round": STEPS,
        "threads": 1,
        "machine": f"{platform.machine()}, {os.cpu_count()} cores, {platform.system()}",
        "python": platform.python_version(),
        "torch": torch.__version__,
        "softknee": softknee.__version__,
        "targets": {"every=1": TARGET_EVERY_STEP, "default": TARGET_DEFAULT},
        "every=1": "activations at every step, from one row in four; gradients, updates and outputs at every 16th",
        "weights_bit_identical": True,
        "variants": {},
    }
    for name in names:
        ratios = [a / b for a, b in zip(seconds[name], seconds["unwatched"], strict=True)]
        quartiles = statistics.quantiles(ratios, n=4)
        result["variants"][name] = {
            "microseconds_per_step": round(statistics.median(seconds[name]) * 1e6, 1),
            "overhead": round(statistics.median(ratios) - 1, 4),
            "overhead_quartiles": [round(quartiles[0] - 1, 4), round(quartiles[2] - 1, 4)],
        }
        shown = result["variants"][name]
        print(f"{name:<22} {shown['microseconds_per_step']:>8.1f} µs/step   {shown['overhead']:+.1%}")
    met = (
        result["variants"]["every=1"]["overhead"] <= TARGET_EVERY_STEP
        and result["variants"][names[2]]["overhead"] <= TARGET_DEFAULT
    )
    result["targets_met"] = met
    print(f"targets ≤ {TARGET_EVERY_STEP:.0%} and ≤ {TARGET_DEFAULT:.0%}: {'met' if met else 'missed'}")
    arguments.output.parent.mkdir(parents=True, exist_ok=True)
    arguments.output.write_text(json.dumps(result, indent=1) + "\n")
    return 0 if met else 1


if __name__ == "__main__":
    sys.exit(main())
