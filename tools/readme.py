"""Fills the README's outputs and figures: from a run of the demo, of its own snippet, and from benchmarks/results/."""

from __future__ import annotations

import contextlib
import io
import json
import re
import sys
import tempfile
from pathlib import Path

from rich.console import Console

from softknee import demo
from softknee.report import render
from softknee.report.choice import choices

ROOT = Path(__file__).parent.parent
README = ROOT / "README.md"


def demo_output() -> str:
    """What the demo prints from the diagnosis to the patch, without the table of sites."""
    text = io.StringIO()
    with tempfile.TemporaryDirectory() as folder:
        demo.run(Path(folder), console=Console(file=text, width=100))
    told = text.getvalue()
    told = told[told.index("DIAGNOSE") : told.index(str(folder))]
    told = re.sub(r"\n\n  site activation.*?(?=\n\n)", "", told, flags=re.DOTALL)
    return "```\n" + "\n".join(line.rstrip() for line in told.strip().splitlines()) + "\n```"


def snippet_output(readme: str, call: str) -> str:
    """What the README's own snippet with this call prints."""
    snippet = next(s for s in snippets(readme) if call in s)
    text = io.StringIO()
    folder = tempfile.mkdtemp()
    path = Path(folder) / "block.py"
    path.write_text(snippet)
    with contextlib.redirect_stdout(text):
        exec(compile(snippet, str(path), "exec"), {"__name__": "readme"})
    return "```\n" + text.getvalue().rstrip() + "\n```"


def show_output() -> str:
    """What `softknee show` prints of one."""
    text = io.StringIO()
    render(choices(["mish"]), Console(file=text, width=100, highlight=False))
    return "```\n" + text.getvalue().rstrip() + "\n```"


def snippets(readme: str) -> list[str]:
    return re.findall(r"```python\n(.*?)```", readme, flags=re.DOTALL)


def figures() -> str:
    """One row per committed results file."""

    def load(name: str) -> dict:
        return json.loads((ROOT / f"benchmarks/results/{name}.json").read_text())

    imports, watch, healthy, report = load("imports"), load("watch"), load("healthy"), load("report")
    calls = {(row["activation"], row["dtype"]): row for row in load("calls")["rows"]}

    def gain(mode: str, dtype: str) -> str:
        sought = {
            "regime": "pages kept",
            "inputs": "N(0, 1)",
            "size": "1M",
            "mode": mode,
            "dtype": dtype,
            "peer": "eager",
        }
        (found,) = [row["geomean"] for row in load("cpu")["geomeans"] if sought.items() <= row.items()]
        return f"{found:.1f}×"

    def call(name: str, dtype: str) -> str:
        row = calls[name, dtype]
        ours, theirs = row["call_us"]["forward"], row["call_us"]["forward torch"]
        return f"{name} {ours:.1f} µs against {theirs:.1f} ({row['path'].split(':')[0]})"

    overhead = {name: variant["overhead"] for name, variant in watch["variants"].items()}
    rows = [
        (
            "`import softknee` over `import torch`",
            f"{imports['stages']['import softknee']['median']:.1f} ms (bar 80), "
            f"{sum(s['median'] for s in imports['stages'].values()):.0f} ms with all of it loaded",
            "imports",
        ),
        (
            "an eager call on 64 elements against PyTorch's",
            f"{call('relu', 'float32')}, {call('silu', 'float32')}, {call('mish', 'bfloat16')} in bfloat16",
            "calls",
        ),
        (
            "compiled kernels, 1M elements, two threads, pages kept: PyTorch's eager time over ours, geometric mean",
            f"forward {gain('forward', 'float32')} float32, {gain('forward', 'bfloat16')} bfloat16; "
            f"with backward {gain('forward+backward', 'float32')}, {gain('forward+backward', 'bfloat16')}",
            "cpu",
        ),
        (
            "`watch` per training step of the demo's model",
            f"{overhead['default (every=100)']:+.1%} by default (bar 2%), {overhead['every=1']:+.1%} with every step's "
            f"activations (bar 25%); three naive reductions {overhead['naive']:+.1%}",
            "watch",
        ),
        (
            "false alarms on healthy trainings",
            f"{healthy['false_alarms']} of {healthy['runs']} runs with a finding ≥ warning",
            "healthy",
        ),
        (
            "the demo's page, the demo",
            f"{report['page_bytes'] / 2**20:.2f} MiB (bar 3), {report['demo_seconds']:.0f} s (bar 90)",
            "report",
        ),
    ]
    lines = ["| what | figure | script |", "|---|---|---|"]
    lines += [f"| {what} | {figure} | [`benchmarks/{name}.py`](benchmarks/{name}.py) |" for what, figure, name in rows]
    return "\n".join(lines)


def main() -> int:
    readme = README.read_text()
    outputs = {
        "demo": demo_output(),
        "show": show_output(),
        "identify": snippet_output(readme, "softknee.identify(Block()"),
        "kernelize": snippet_output(readme, "softknee.kernelize(model"),
        "names": snippet_output(readme, 'ecosystem="jax"'),
        "figures": figures(),
    }
    for name, text in outputs.items():
        readme = re.sub(
            f"(<!-- {name} -->\n).*?(<!-- /{name} -->)",
            lambda m, t=text: m[1] + t + "\n" + m[2],
            readme,
            flags=re.DOTALL,
        )
    README.write_text(readme)
    return 0


if __name__ == "__main__":
    sys.exit(main())
