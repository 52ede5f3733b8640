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
import statistics
import sys
import time
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
            random = np.random.default_rng([ord(letter) for letter in activation.name])
            found += [Case(activation, drawn(activation, random, short)) for short in (True, True, False, False)]
    return found


def drawn(activation: Activation, random: np.random.Generator, short: bool) -> dict[str, float]:
    """Parameters within the conditions, of the order of the defaults, of two digits if short."""
    while True:
        given = {}
        for name, parameter in activation.parameters.items():
            if not math.isfinite(parameter.default):
                continue
            value = parameter.default * math.exp(random.uniform(-1.0, 1.0))
            if parameter.default == 0.0:
                value = random.uniform(0.05, 1.5) * random.choice([-1.0, 1.0])
            given[name] = float(f"{value:.2g}") if short else value
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
    if found.kind != case.activation.kind:
        return False
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


# -- what lies elsewhere


def supplied(where: str) -> Callable[[Progressing], Row]:
    """A row that a function of the tests gives, `module:name`: () → (reached, n, misses)."""

    def row(progress: Progressing) -> Row:
        module, name = where.split(":")
        sys.path.insert(0, str(Path(__file__).parent.parent))
        try:
            function = getattr(importlib.import_module(module), name, None)
        except ModuleNotFoundError as error:
            raise NotRun(f"needs {error.name}") from error
        if function is None:
            raise NotRun(f"needs {where}")
        reached, n, misses = function()
        return Row(reached, n, tuple(misses))

    return row


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
    "exporter spellings": (1.0, supplied("tests.identification.spellings:reached")),
    "Hugging Face model types": (0.99, supplied("tests.identification.huggingface_types:reached")),
    "museum: mismatches flagged": (0.95, supplied("tests.museum.confusion:mismatches")),
    "museum: clean ports not flagged": (1.0, supplied("tests.museum.confusion:ports")),
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
