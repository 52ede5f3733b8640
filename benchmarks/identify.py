"""How well `softknee.identify` tells activations: every identity of the catalog, formats, spellings, real mistakes.

    python benchmarks/identify.py [--only WORD] [--output benchmarks/results/identify.json]

Each row of the table is a function that returns how many cases it tried and which it missed; a part of softknee that
is not there yet, or whose library is missing, says "not run". The fingerprint rows go through the whole catalog:
every activation at its defaults and at four other settings of its parameters (two of two digits, two of many), as a
plain function of a tensor. A case counts if what was found is the true function, parameters to 1e-3: another name for
the same function counts once it is said in the true one's parameters. In half precision a set of at most three
candidates that holds the truth counts, and a parameter to half a step of the dtype where that is more than 1e-3
(bfloat16: 3.9e-3; a constant that the function returns is not known better). "Every step" runs the formula itself in
half precision; "int8" puts inputs and outputs on 255 codes, where a parameter counts as in bfloat16. Writes
results/identify.json, unless --only is given; exits with 1 where less was reached than is asked for.
"""

from __future__ import annotations

import argparse
import importlib
import json
import math
import os
import random
import statistics
import struct
import subprocess
import sys
import tempfile
import time
import warnings
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import torch
from machine import machine
from rich.console import Console
from rich.progress import Progress
from rich.table import Table

import softknee
from softknee.backends import table
from softknee.catalog import Activation
from softknee.files import write_whole
from softknee.identification.matching import match
from softknee.identification.matching.fitting import Data, least_squares, roles

SAME = 1e-6  # of the same function, relative to max(1, |value|)
CLOSE = 1e-3  # of parameters, relative to max(1, |value|)
TYPES = 120  # of Hugging Face models

Progressing = Callable[[float], None]


@dataclass(frozen=True)
class Row:
    """One row of the table. reached: of `n` cases; misses: each in words; seconds: of processor, of each case."""

    reached: int
    n: int
    misses: tuple[str, ...] = ()
    seconds: tuple[float, ...] = ()


class NotRun(Exception):
    """A part that this row needs is not there."""


# -- fingerprints


@dataclass(frozen=True)
class Case:
    """An activation with parameters: one identity to be told."""

    activation: Activation
    parameters: dict[str, float] = field(default_factory=dict)

    def __str__(self) -> str:
        settings = ", ".join(f"{k}={v:.6g}" for k, v in self.parameters.items())
        return f"{self.activation.name}({settings})"


def cases() -> list[Case]:
    """Every activation that is a function of an input (those that draw numbers at each call are none, those with a
    surrogate are another one's values), at several settings."""
    found = []
    for activation in softknee.activations():
        rows = activation.kind == "normalizer" and (activation.resizes or len(activation.inputs) > 1)
        if activation.stochastic or activation.surrogate is not None or rows:
            continue
        found.append(Case(activation, dict(activation.defaults)))
        if activation.parameters:
            chance = np.random.default_rng([ord(letter) for letter in activation.name])
            found += [Case(activation, drawn(activation, chance, short)) for short in (True, True, False, False)]
    return found


def drawn(activation: Activation, chance: np.random.Generator, short: bool) -> dict[str, float]:
    """Parameters within the conditions, of the order of the defaults, of two digits if short."""
    while True:
        given = {}
        for name, parameter in activation.parameters.items():
            if not math.isfinite(parameter.default) or isinstance(parameter.default, bool):
                continue
            value = parameter.default * math.exp(chance.uniform(-1.0, 1.0))
            if parameter.default == 0.0:
                value = chance.uniform(0.05, 1.5) * chance.choice([-1.0, 1.0])
            given[name] = float(f"{value:.2g}") if short else value
            if isinstance(parameter.default, int):  # a count
                given[name] = max(1, round(value))
        if all(condition.holds(activation.defaults | given) for condition in activation.conditions):
            return activation.defaults | given


def once(case: Case, dtype: torch.dtype) -> Callable[..., torch.Tensor]:
    """The activation of tensors of that dtype, as softknee computes it: rounded once."""
    dim = {"dim": -1} if case.activation.kind == "normalizer" else {}
    return lambda *x: case.activation(*(t.to(dtype) for t in x), **dim, **case.parameters)


def stepwise(case: Case, dtype: torch.dtype) -> Callable[..., torch.Tensor]:
    """Every step of the formula rounded to that dtype, as a model's own code computes it."""
    ops = table("torch")
    return lambda *x: case.activation.formula(*(t.to(dtype) for t in x), ops, **case.parameters)


def tabulated(case: Case, dtype: torch.dtype) -> Callable[..., torch.Tensor]:
    """float32 in and out, through a table of one value for each number of that dtype."""
    return lambda *x: once(case, dtype)(*x).float()


def quantized(case: Case, dtype: torch.dtype) -> Callable[..., torch.Tensor]:
    """Inputs and outputs on grids of 255 int8 codes, per tensor; inputs from −8 to 8."""
    grid = torch.linspace(-8.0, 8.0, 255, dtype=torch.float64)
    scale = float(case.activation(grid, **case.parameters).abs().max()) / 127 or 1.0

    def function(x: torch.Tensor) -> torch.Tensor:
        codes = (x.double() * 127 / 8).round().clamp(-127, 127)
        y = case.activation(codes * 8 / 127, **case.parameters)
        return ((y / scale).round().clamp(-127, 127) * scale).to(x.dtype)

    return function


def told(case: Case, name: str | None, parameters: dict[str, float], dtype: torch.dtype) -> bool:
    """Whether this is the case's function, parameters to `CLOSE`, or to what a number of that dtype tells."""
    if name is None:
        return False
    found = softknee.get(name)
    if found is case.activation and close(parameters, case.parameters, dtype):
        return True
    if found.kind != case.activation.kind:  # sorting groups of one changes nothing
        rows = np.sin(np.arange(64.0).reshape(4, 16) ** 1.5) * 9.0
        both = {found.kind, case.activation.kind} == {"elementwise", "normalizer"}
        return both and np.allclose(found.value(rows, **parameters), case.activation.value(rows, **case.parameters))
    x = np.linspace(-11.93, 11.87, 1999)
    points = (x,) if found.kind != "gated" else (x, 3.0 * np.sin(7.0 * x))
    with np.errstate(all="ignore"):
        value, truth = found.value(*points, **parameters), case.activation.value(*points, **case.parameters)
        if np.allclose(value, truth, rtol=SAME, atol=SAME, equal_nan=True):
            return True
    names = roles(case.activation).smooth if found.kind != "normalizer" else ()
    if not names:
        return False
    # Another name for it, or mirrored parameters: what was found, said in the true one's parameters next to the truth
    said = Data(points, value, np.maximum(1.0, np.abs(value)))
    begin = np.array([[case.parameters[n] for n in names]])
    near, _ = least_squares(case.activation, names, begin, said, case.parameters)
    own = case.parameters | dict(zip(names, near.tolist(), strict=True))
    same = np.allclose(value, case.activation.value(*points, **own), rtol=SAME, atol=SAME, equal_nan=True)
    return same and close(own, case.parameters, dtype)


def close(found: dict[str, float], true: dict[str, float], dtype: torch.dtype) -> bool:
    least = max(CLOSE, torch.finfo(dtype).eps / 2)
    return all(abs(found[k] - v) <= least * max(1.0, abs(v)) or found[k] == v for k, v in true.items())


def fingerprints(
    make: Callable[[Case, torch.dtype], Callable[..., torch.Tensor]], dtype: torch.dtype, most: int, kinds: str = ""
) -> Callable[[Progressing], Row]:
    """A row: every case (of these kinds) made into a function by `make`, told among at most `most` candidates."""

    def row(progress: Progressing) -> Row:
        everything = softknee.activations()
        tried = [c for c in cases() if c.activation.kind in (kinds or c.activation.kind)]
        misses, seconds = [], []
        for i, case in enumerate(tried):
            function = make(case, dtype)
            started = time.process_time()
            found = match(function, inputs=len(case.activation.inputs), activations=everything)
            seconds.append(time.process_time() - started)
            answers = [(c.activation, c.parameters) for c in found.candidates] if most > 1 else []
            answers = answers or [(found.activation, found.parameters)]
            if len(answers) > most or not any(told(case, *answer, dtype) for answer in answers):
                others = f", {len(answers)} candidates" if len(answers) > 1 else ""
                misses.append(f"{case}: {found.describe()}{others}")
            progress((i + 1) / len(tried))
        return Row(len(tried) - len(misses), len(tried), tuple(misses), tuple(seconds))

    return row


# -- graphs, files, mistakes


def beside(name: str, folder: str) -> Any:
    """A module of another folder of the project. Raises NotRun where a library that it needs is missing."""
    path = str(Path(__file__).parent.parent / folder)
    if path not in sys.path:
        sys.path.insert(0, path)
    try:
        return importlib.import_module(name)
    except ModuleNotFoundError as error:
        raise NotRun(f"needs {error.name}") from error


def spellings(progress: Progressing) -> Row:
    """The catalog's formulas rewritten by rules, as ONNX graphs."""
    spelt = beside("identify_spellings", "benchmarks")
    tried = list(spelt.spellings())
    misses = []
    for i, spelling in enumerate(tried):
        if not spelt.recognised(spelling):
            misses.append(str(spelling))
        progress((i + 1) / len(tried))
    return Row(len(tried) - len(misses), len(tried), tuple(misses))


def near_misses(progress: Progressing) -> Row:
    """The same with one constant 4 % off: told apart."""
    spelt = beside("identify_spellings", "benchmarks")
    tried = list(spelt.near_misses())
    misses = [str(spelling) for spelling in tried if spelt.recognised(spelling)]
    return Row(len(tried) - len(misses), len(tried), tuple(misses))


def model_types(progress: Progressing) -> Row:
    """Model types of transformers, drawn by chance: what the config declares against what a tiny random model runs."""
    derived = beside("architectures", "tools")
    known = derived.types()
    misses, tried = [], 0
    for model_type in random.Random(0).sample(known, len(known)):
        if tried == TYPES:
            break
        try:
            wrong = derived.compare(model_type)
        except derived.Failed:  # it cannot be built or run here
            continue
        tried += 1
        misses += [f"{model_type}: {'; '.join(wrong)}"] if wrong else []
        progress(tried / TYPES)
    return Row(tried - len(misses), tried, tuple(misses))


def walked(items: str, module: str) -> Callable[[Progressing], Row]:
    """The museum: its exhibits or its clean ports."""

    def row(progress: Progressing) -> Row:
        confusion = beside("confusion", "tests/museum")
        every = getattr(beside(module, "tests/museum"), items)
        outcomes = []
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # the exporters' own
            for i, outcome in enumerate(confusion.walk(every)):
                outcomes.append(outcome)
                progress((i + 1) / len(every))
        wrong = tuple(f"{o.name}: {o.said or 'nothing said'}" for o in outcomes if not o.right)
        return Row(len(outcomes) - len(wrong), len(outcomes), wrong)

    return row


# -- times


def config_file(folder: Path) -> Path:
    path = folder / "config.json"
    path.write_text(json.dumps({"model_type": "llama", "num_hidden_layers": 32, "hidden_act": "silu"}))
    return path


def gguf_file(folder: Path) -> Path:
    """A header of a model of 32 layers with a vocabulary of 128,000 words."""

    def text(word: str) -> bytes:
        return struct.pack("<Q", len(word)) + word.encode()

    words = b"".join(text(f"word{i}") for i in range(128_000))
    keys = [
        text("general.architecture") + struct.pack("<I", 8) + text("llama"),
        text("llama.block_count") + struct.pack("<II", 4, 32),
        text("tokenizer.ggml.tokens") + struct.pack("<IIQ", 9, 8, 128_000) + words,
    ]
    names = [f"blk.{i}.ffn_{part}.weight" for i in range(32) for part in ("gate", "up", "down")]
    tensors = [text(name) + struct.pack("<IQQIQ", 2, 32, 32, 0, 4096 * i) for i, name in enumerate(names)]
    path = folder / "model.gguf"
    head = b"GGUF" + struct.pack("<IQQ", 3, len(tensors), len(keys)) + b"".join(keys) + b"".join(tensors)
    path.write_bytes(head.ljust(-(-len(head) // 32) * 32, b"\0") + bytes(4096 * len(tensors)))
    return path


def seven_billion(folder: Path) -> Path:
    """Four sparse shards of a model of 32 layers: names, shapes and offsets as in a set of 13 GB."""
    shapes = {"q_proj": (4096, 4096), "k_proj": (4096, 4096), "v_proj": (4096, 4096), "o_proj": (4096, 4096),
              "gate_proj": (11008, 4096), "up_proj": (11008, 4096), "down_proj": (4096, 11008)}  # fmt: skip
    weights = {}
    for shard in range(4):
        header: dict[str, Any] = {}
        end = 0
        for layer in range(8 * shard, 8 * shard + 8):
            for part, shape in shapes.items():
                block = "mlp" if shape != (4096, 4096) else "self_attn"
                size = 2 * shape[0] * shape[1]
                name = f"model.layers.{layer}.{block}.{part}.weight"
                header[name] = {"dtype": "BF16", "shape": shape, "data_offsets": [end, end + size]}
                weights[name] = f"model-{shard}.safetensors"
                end += size
        text = json.dumps(header).encode()
        with open(folder / f"model-{shard}.safetensors", "wb") as file:
            file.write(struct.pack("<Q", len(text)) + text)
            file.truncate(8 + len(text) + end)
    (folder / "model.safetensors.index.json").write_text(json.dumps({"weight_map": weights}))
    return folder


def timed(make: Callable[[Path], Path], most: float, start: bool = False) -> Callable[[Progressing], Row]:
    """The least of five times of `identify` in a fresh process, with start-up or without, against `most` seconds."""

    def row(progress: Progressing) -> Row:
        code = "import time, sys, softknee.identification; t = time.perf_counter(); softknee.identify(sys.argv[1]); "
        code += "print(time.perf_counter() - t)"
        seconds = []
        with tempfile.TemporaryDirectory() as folder:
            path = make(Path(folder))
            for i in range(6):
                started = time.perf_counter()
                if start:
                    command = [sys.executable, "-m", "softknee.cli", "identify", str(path), "--json"]
                else:
                    command = [sys.executable, "-c", code, str(path)]
                done = subprocess.run(command, capture_output=True, text=True, check=True, env=_bytecode())
                seconds.append(time.perf_counter() - started if start else float(done.stdout))
                progress((i + 1) / 6)
        best = min(seconds[1:])
        return Row(int(best <= most), 1, () if best <= most else (f"{best:.2f} s, asked {most} s",), tuple(seconds[1:]))

    return row


def _bytecode() -> dict[str, str]:
    """As a user's installation has it: compiled once."""
    return {k: v for k, v in os.environ.items() if k != "PYTHONDONTWRITEBYTECODE"}


# name → the least share that is asked for (None: none is), and the row
ROWS: dict[str, tuple[float | None, Callable[[Progressing], Row]]] = {
    "fingerprint, float64": (0.995, fingerprints(once, torch.float64, 1)),
    "fingerprint, float32": (0.995, fingerprints(once, torch.float32, 1)),
    "fingerprint, float16": (0.98, fingerprints(once, torch.float16, 3)),
    "fingerprint, bfloat16": (0.98, fingerprints(once, torch.bfloat16, 3)),
    "fingerprint, table of float16": (0.98, fingerprints(tabulated, torch.float16, 3)),
    "fingerprint, float16, every step": (None, fingerprints(stepwise, torch.float16, 3, "elementwise gated")),
    "fingerprint, bfloat16, every step": (None, fingerprints(stepwise, torch.bfloat16, 3, "elementwise gated")),
    "fingerprint, int8": (None, fingerprints(quantized, torch.bfloat16, 3, "elementwise")),
    "spellings recognised": (1.0, spellings),
    "near misses told apart": (1.0, near_misses),
    "Hugging Face model types": (0.99, model_types),
    "museum: mismatches flagged": (0.95, walked("EXHIBITS", "exhibits")),
    "museum: clean ports not flagged": (1.0, walked("PORTS", "ports")),
    "time: config.json, < 1 s of work": (1.0, timed(config_file, 1.0)),
    "time: config.json, ≤ 2.5 s with start-up": (1.0, timed(config_file, 2.5, start=True)),
    "time: GGUF header, < 1 s of work": (1.0, timed(gguf_file, 1.0)),
    "time: GGUF header, ≤ 2.5 s with start-up": (1.0, timed(gguf_file, 2.5, start=True)),
    "time: safetensors of 7 billion, < 2 s": (1.0, timed(seven_billion, 2.0)),
}


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--output", type=Path, default=Path(__file__).parent / "results" / "identify.json")
    parser.add_argument("--only", default="", help="rows whose name holds this; nothing is written")
    arguments = parser.parse_args()
    torch.set_num_threads(1)
    shown = Table("", "reached", "share", "asked", "median ms", "worst ms", title="identify")
    rows: dict[str, Any] = {}
    console = Console()
    with Progress(console=console, transient=True) as bar:
        for name, (least, run) in ROWS.items():
            if arguments.only not in name:
                continue
            task = bar.add_task(name, total=1.0)
            asked = "" if least is None else f"{least:.1%}"
            try:
                row = run(lambda share, task=task: bar.update(task, completed=share))  # type: ignore[misc]
            except NotRun as reason:
                rows[name] = {"not_run": str(reason), "asked": least}
                shown.add_row(name, "not run", "", asked, "", "")
                continue
            finally:
                bar.remove_task(task)
            share = row.reached / row.n
            times = [1e3 * f(row.seconds) for f in (statistics.median, max)] if row.seconds else []
            rows[name] = {
                "reached": row.reached, "n": row.n, "share": round(share, 4), "asked": least,
                "met": least is None or share >= least, "misses": row.misses,
                "milliseconds_of_processor": dict(zip(("median", "worst"), (round(t, 1) for t in times), strict=False)),
            }  # fmt: skip
            shown.add_row(name, f"{row.reached}/{row.n}", f"{share:.2%}", asked, *(f"{t:.0f}" for t in times))
    console.print(shown)
    for name, row in rows.items():
        for miss in row.get("misses", ()):
            console.print(f"{name}: {miss}", highlight=False, soft_wrap=True)
    if not arguments.only:
        result = {"what": __doc__, "rows": rows, "machine": machine()}
        write_whole(arguments.output, json.dumps(result, indent=1, ensure_ascii=False) + "\n")
    return 0 if all(row.get("met", True) for row in rows.values()) else 1


if __name__ == "__main__":
    sys.exit(main())
