"""Measures how exact every path of every activation is: `src/softknee/kernels/accuracy.json`, `docs/accuracy.md`.

python tools/accuracy.py            measure everything (about 5 minutes) and write both
python tools/accuracy.py --kernels  measure only the compiled kernels (a minute), and write both
python tools/accuracy.py --docs     write the page from the figures that are there
python tools/accuracy.py --check    fail unless the page is what the figures give
"""

from __future__ import annotations

import argparse
import json
import math
import re
import sys
import time
from pathlib import Path

import torch

from softknee.catalog import Activation, activations
from softknee.environment import processor
from softknee.files import write_whole
from softknee.kernels import accuracy, cpu, paths
from softknee.kernels.accuracy import Evaluate, Figure

ROOT = Path(__file__).parent.parent
FIGURES = ROOT / "src/softknee/kernels/accuracy.json"
PAGE = ROOT / "docs/accuracy.md"
# What is not measured takes tables and the composite, whose bound tests/contract keeps.
MEASURED = [activation for activation in activations() if activation.measured]
RUNTIME = ROOT / "benchmarks/results/onnxruntime.json"
KINDS = {"elementwise": "Elementwise", "gated": "Gated", "normalizer": "Normalizers"}


def seconds(ways: dict[str, Evaluate], x: torch.Tensor) -> dict[str, float]:
    """The least time of each way's forward, taken in turn."""
    best = dict.fromkeys(ways, float("inf"))
    with torch.no_grad():
        for _ in range(15):
            for name, evaluate in ways.items():
                start = time.perf_counter()
                evaluate(x, 0)
                best[name] = min(best[name], time.perf_counter() - start)
    return best


def measure(activation: Activation, dtype: torch.dtype, kernels: bool = False) -> dict[str, dict[str, object]]:
    """Per path, and in half precision per table: [ULPs, at, lost] of f, f′, f″, and the forward's time. kernels: only
    the compiled ones."""
    if activation.kind != "elementwise":
        orders = paths.ORDERS[: 2 if activation.kind == "gated" else 1]
        kinds = ({} if kernels else {"joint": False}) | ({"kernel": True} if cpu.takes(activation, dtype) else {})
        return {
            kind: {word: row(accuracy.joint(activation, dtype, i, kernel=compiled)) for i, word in enumerate(orders)}
            for kind, compiled in kinds.items()
        }
    ways = accuracy.ways(activation, dtype)
    times = seconds(ways, torch.randn(1 << 16).to(dtype))
    rows: dict[str, dict[str, object]] = {}
    for name, evaluate in ways.items():
        if kernels and name != "kernel":
            continue
        rows[name] = {word: row(accuracy.worst(activation, evaluate, dtype, i)) for i, word in enumerate(paths.ORDERS)}
        rows[name]["ns"] = round(times[name] / (1 << 16) * 1e9, 3)
    return rows


def row(figure: Figure) -> list[float | str | None]:
    """JSON has no infinity: a string stands for it, which `float` reads."""
    values = (accuracy.stated(figure.ulp), figure.at, figure.lost)
    return [str(value) if value is not None and math.isinf(value) else value for value in values]


def compact(record: object) -> str:
    """JSON with one line per path."""
    text = json.dumps(record, indent=1, ensure_ascii=False)
    return re.sub(r"\n {4,}|\n {3}(?=})", " ", text) + "\n"


def page() -> str:
    """The table as Markdown: what a call gives, on the path that it takes."""
    recorded = json.loads(FIGURES.read_text())
    text = [INTRODUCTION.format(torch=recorded["torch"], machine=recorded["machine"])]
    for kind, title in KINDS.items():
        columns = [str(dtype).removeprefix("torch.") for dtype in accuracy.DTYPES]
        words = ("f", "f′") if kind != "normalizer" else ("f",)
        heads = [f"{column} {word}" for column in columns for word in words]
        text += [f"\n## {title}\n", f"| activation | {' | '.join(heads)} |", f"|---|{'---|' * len(heads)}"]
        for activation in MEASURED:
            if activation.kind == kind:
                text.append(f"| {activation.name} | {' | '.join(cells(activation, words))} |")
    text.append("\n## Where PyTorch's own op is not used\n")
    text += ["| activation | dtype | path | why |", "|---|---|---|---|"]
    for activation in MEASURED:
        if activation.kind == "elementwise" and activation.torch is not None:
            for dtype in accuracy.DTYPES:
                chosen = paths.choose(activation, dtype)
                if "native" not in (chosen.forward, chosen.backward) or chosen.forward != chosen.backward:
                    text.append(f"| {activation.name} | {str(dtype)[6:]} | {chosen.way} | {chosen.reason} |")
    return "\n".join([*text, *onnx_runtime()]) + "\n"


def onnx_runtime() -> list[str]:
    """The section on ONNX Runtime, of what benchmarks/onnx_runtime.py measured."""
    recorded = json.loads(RUNTIME.read_text())
    machine = "{processor} ({vector_instructions})".format(**recorded["machine"])
    text = [RUNTIME_INTRODUCTION.format(onnxruntime=recorded["onnxruntime"], machine=machine)]
    text += ["| activation | operator | its error | error of the body |", "|---|---|---|---|"]
    for name, row in recorded["entries"].items():
        told = ["not there" if found is None else stated(*found) for found in (row["native"], row["body"])]
        text.append(f"| {name} | {row['operator']} | {' | '.join(told)} |")
    return text


def stated(ulp: float, at: float, lost: float | None) -> str:
    return f"{float(ulp):.4g}" + ("" if lost is None else f" (lost at {float(lost):.4g})")


def cells(activation: Activation, words: tuple[str, ...]) -> list[str]:
    found = []
    for dtype in accuracy.DTYPES:
        for figure in paths.promised(activation, dtype)[: len(words)]:
            found.append(f"{figure.ulp:.4g}" + ("" if figure.lost is None else f" (0 from {figure.lost:.4g})"))
    return found


INTRODUCTION = """# How exact

The largest error of each activation on the path that a call takes on a CPU; `softknee.get("silu").path(x)` says which
that is, and why. Measured by `make accuracy` with PyTorch {torch} on {machine},
rounded up to the number that the tests enforce.

- **f** counts wherever the exact value is a normal number (bfloat16, float16: subnormal ones too), in units of
  ulp(f) + |x·f′|·ε: what rounding the input once may do. 0.5 is correctly rounded.
- **f′** counts in units of ulp(max(|f′|, 2⁻⁴)) + |x·f″|·ε: a root has no relative accuracy. Of a gated activation both
  partial derivatives count, that with respect to the gate relative to |up|.
- Normalizers: f in units of ulp(max(|f|, 2⁻⁴)) + |x|·ε.
- In bfloat16 and float16 the unit is the ULP alone.
- bfloat16 and float16: all inputs. float32: every 4001st of all bit patterns, [−120, 120] in steps of 0.01, and the
  neighbourhood of each kink. float64: 500 random exponents, 2000 normal numbers and the tails, against mpmath. Gated
  activations and normalizers: a million random inputs (float64: 500), normal with deviation 3.
"""


RUNTIME_INTRODUCTION = """
## In ONNX Runtime

float32 on the CPU, in the units of f above: the runtime's own operators, and the function bodies that
`softknee.onnx.function` writes, which compute in float64. By `benchmarks/onnx_runtime.py` with onnxruntime
{onnxruntime} on {machine}. *Lost at* is the input nearest to 0 at which the result is 0, NaN
or of the wrong sign, where the exact one is a normal number. `softknee.onnx.model(name, native=False)` takes the body.
"""


def main() -> int:
    parser = argparse.ArgumentParser(description=(__doc__ or "").split("\n")[0])
    parser.add_argument("--docs", action="store_true", help="only write docs/accuracy.md")
    parser.add_argument("--check", action="store_true", help="exit 1 unless docs/accuracy.md is up to date")
    parser.add_argument("--kernels", action="store_true", help="only the compiled kernels; others keep their figures")
    parser.add_argument("names", nargs="*", help="only these activations; the others keep their figures")
    arguments = parser.parse_args()
    if not arguments.docs and not arguments.check:
        torch.set_num_threads(1)
        old = json.loads(FIGURES.read_text())["entries"] if FIGURES.exists() else {}
        entries = {}
        for activation in MEASURED:
            if arguments.names and activation.name not in arguments.names:
                entries[activation.name] = old.get(activation.name, {})
                continue
            start = time.perf_counter()
            entries[activation.name] = {}
            for dtype in accuracy.DTYPES:
                word = str(dtype).removeprefix("torch.")
                kept = old[activation.name][word] if arguments.kernels else {}
                entries[activation.name][word] = kept | measure(activation, dtype, arguments.kernels)
            print(f"{activation.name:20} {time.perf_counter() - start:5.1f} s", flush=True)
        record = {
            "torch": torch.__version__,
            "machine": f"{processor()} ({torch.backends.cpu.get_cpu_capability()})",
            "entries": entries,
        }
        write_whole(FIGURES, compact(record))
        paths.measured.cache_clear()
        paths.choose.cache_clear()
        paths.uncompiled.cache_clear()
    if arguments.check and cpu.isa() != "avx512":
        print("docs/accuracy.md tells of the paths on an AVX-512 machine; not checked here")
        return 0
    text = page()
    if arguments.check:
        return int(not PAGE.exists() or PAGE.read_text() != text)
    write_whole(PAGE, text)
    return 0


if __name__ == "__main__":
    sys.exit(main())
