"""A race: several activations in the same network, told apart as far as the seeds allow.

Everything else is held constant: each seed gives all of them the same random numbers for the weights and for the
training, every layer is initialised with the exact gain of its activation, and the networks must be of one size. A
score is compared with the first activation's seed by seed, by Student's paired test: verdict and interval are of one
kind. "Underpowered, needs n seeds" is an answer, and among activations of one family the usual one.
"""

from __future__ import annotations

import itertools
import math
import time
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from torch import nn

from softknee.catalog import Activation, get
from softknee.diagnosis.progress import training_bar
from softknee.diagnosis.seeds import seeded
from softknee.errors import InputError
from softknee.identification import identify
from softknee.nn.init import initialize
from softknee.plain import plain
from softknee.verification.statistics import Paired, paired

Build = Callable[[Callable[[], nn.Module]], nn.Module]
"""Makes the network; calls what it is given wherever it wants the activation."""
Train = Callable[[nn.Module], float]
"""Trains the network in place and returns its score on rows it was not trained on."""

CONFIDENCE = 0.95


@dataclass(frozen=True)
class Runner:
    """One activation and what it scored, seed by seed; NaN where it has no score."""

    name: str
    scores: tuple[float, ...]
    parameters: int
    """Trainable numbers in the network."""
    seconds: float
    failures: tuple[str, ...]
    """Why scores are missing, each reason once."""
    paired: Paired | None
    """Against the first; None for the first itself, and where no seed scored both."""

    @property
    def mean(self) -> float:
        """Over the seeds that scored."""
        kept = [score for score in self.scores if math.isfinite(score)]
        return sum(kept) / len(kept) if kept else math.nan

    @property
    def deviation(self) -> float:
        """Standard deviation over the seeds that scored: what a seed is worth."""
        kept = [score for score in self.scores if math.isfinite(score)]
        return float(np.std(kept, ddof=1)) if len(kept) > 1 else math.nan

    @property
    def conclusion(self) -> str:
        """ "baseline", "different: better", "equivalent within ±0.005", "underpowered: needs 34 seeds" …"""
        if self.paired is not None:
            return self.paired.conclusion.replace("rows", "seeds")
        return "no score: " + "; ".join(self.failures) if self.failures else "baseline"

    def to_dict(self) -> dict[str, Any]:
        own = {name: getattr(self, name) for name in self.__dataclass_fields__}
        return plain({**own, "mean": self.mean, "deviation": self.deviation, "conclusion": self.conclusion})


@dataclass(frozen=True)
class Race:
    """What `race` found: the runners in the order given, the first being what the others are compared with."""

    runners: tuple[Runner, ...]
    seeds: tuple[int, ...]
    initialized: bool
    """Whether the layers were given the exact gain; False: as the network's own code initialises them."""

    @property
    def conclusion(self) -> str:
        """One sentence."""
        first, *others = self.runners
        apart = [r.name for r in others if r.paired and r.paired.conclusion == "different: better"]
        behind = [r.name for r in others if r.paired and r.paired.conclusion == "different: worse"]
        same = [r.name for r in others if r.paired and r.paired.verdict == "equivalent"]
        open_ = [r for r in others if r.paired and r.paired.verdict == "underpowered"]
        parts = [f"{', '.join(apart)} beats {first.name}"] if apart else []
        parts += [f"{', '.join(behind)} falls behind {first.name}"] if behind else []
        parts += [f"{', '.join(same)} and {first.name} are equivalent"] if same else []
        needed = [r.paired.rows_needed for r in open_ if r.paired and r.paired.rows_needed]
        names = ", ".join(r.name for r in open_)
        parts += (
            [f"{names}: underpowered, {f'needs {max(needed):,} seeds' if needed else 'needs more seeds'}"]
            if open_
            else []
        )
        parts += [f"{r.name}: no score" for r in self.runners if not any(map(math.isfinite, r.scores))]
        return "; ".join(parts) + "."

    def to_dict(self) -> dict[str, Any]:
        return plain(
            {
                "conclusion": self.conclusion,
                "runners": self.runners,
                "seeds": self.seeds,
                "initialized": self.initialized,
                "confidence": CONFIDENCE,
            }
        )

    def __str__(self) -> str:
        rows = [("activation", "mean", "± seed", "difference", "interval", "verdict")]
        for r in self.runners:
            p = r.paired
            difference = f"{p.difference:+.4g}" if p else ""
            interval = f"{p.interval.low:+.4g} to {p.interval.high:+.4g}" if p else ""
            rows.append((r.name, f"{r.mean:.4g}", f"{r.deviation:.2g}", difference, interval, r.conclusion))
        widths = [max(map(len, column)) for column in zip(*rows, strict=True)]
        lines = ["  ".join(word.ljust(w) for word, w in zip(row, widths, strict=True)).rstrip() for row in rows]
        many = len(self.runners) - 1
        how = "exact gains" if self.initialized else "as the network initialises itself; give example_inputs for gains"
        last = (
            f"{len(self.seeds)} seeds in pairs; intervals at {1 - (1 - CONFIDENCE) / max(many, 1):.4g} "
            f"(Bonferroni over {many}); initialisation: {how}"
        )
        return "\n".join([self.conclusion, "", *lines, "", last])


def race(
    activations: Sequence[str | Activation],
    build: Build,
    train: Train,
    seeds: int | Iterable[int] = 10,
    *,
    example_inputs: Any = None,
    margin: float = 0.005,
    higher_is_better: bool = True,
    size_tolerance: float = 0.01,
    progress: bool | None = None,
) -> Race:
    """Trains the same network with each activation, and says which of them can be told from the first.

    build(make) returns a fresh network, in which make() is the activation as a module (of gate and up for a gated
    one). train(network) trains it and returns one score. seeds: how many, or which. example_inputs: what the network
    takes (`softknee.identify`'s), from which each layer's gain follows; without them the network's own initialisation
    stays. margin: a difference of scores that does not matter. size_tolerance: by how much the number of trainable
    parameters may differ from the first's; a learned activation's few are within it, a gated block must be narrower.

    A training that raises, or scores NaN or ±∞, has no score; the others go on. Random numbers of Python, NumPy and
    torch are put back at the end.
    Raises InputError for fewer than two activations or seeds, networks of different size, a score that is no number.
    """
    if isinstance(activations, (str, Activation)) or len(entries := [get(a) for a in activations]) < 2:
        raise InputError(
            "activations must be a list of at least two, the first being what the others are compared with"
        )
    if len({a.name for a in entries}) < len(entries):
        raise InputError(f"activations must have different names, got {', '.join(a.name for a in entries)}")
    if isinstance(seeds, bool):
        raise InputError(f"seeds must be how many, or which, got {seeds}")
    chosen = tuple(range(seeds)) if isinstance(seeds, int) else tuple(seeds)
    if len(chosen) < 2 or len(set(chosen)) < len(chosen) or not all(isinstance(seed, int) for seed in chosen):
        raise InputError(f"seeds must be at least two different whole numbers, or how many, got {seeds!r}")
    scores: dict[str, list[float]] = {a.name: [] for a in entries}
    failures: dict[str, dict[str, None]] = {a.name: {} for a in entries}
    seconds = dict.fromkeys(scores, 0.0)
    sizes: dict[str, int] = {}
    with training_bar(progress, "training", len(entries) * len(chosen)) as step:
        # each seed with every activation before the next seed: what the machine does meanwhile hits all alike
        for seed, activation in itertools.product(chosen, entries):
            name, start = activation.name, time.perf_counter()
            with seeded(seed) as reseed:
                network = build(activation.module)
                if not isinstance(network, nn.Module):
                    raise InputError(f"build must return a torch.nn.Module, got {type(network).__name__}")
                sizes[name] = sum(p.numel() for p in network.parameters() if p.requires_grad)
                _same_size(sizes, entries[0].name, name, size_tolerance)
                if example_inputs is not None:
                    census = identify(network, example_inputs)
                    reseed()
                    initialize(network, census)
                reseed()
                score, failure = _scored(train, network)
            scores[name].append(score)
            if failure:
                failures[name][failure] = None
            seconds[name] += time.perf_counter() - start
            step(f"{name}, seed {seed}")
    first = entries[0].name
    confidence = 1 - (1 - CONFIDENCE) / (len(entries) - 1)
    runners = []
    for activation in entries:
        name = activation.name
        both = np.isfinite(scores[first]) & np.isfinite(scores[name])
        compared = None
        if name != first and both.any():
            compared = paired(
                scores[first],
                scores[name],
                margin=margin,
                confidence=confidence,
                higher_is_better=higher_is_better,
                few=True,
            )
        why = tuple(failures[name])
        if name != first and compared is None and not why:
            why = (f"{first} has none to compare with",)
        runners.append(Runner(name, tuple(scores[name]), sizes[name], seconds[name], why, compared))
    return Race(tuple(runners), chosen, example_inputs is not None)


def _scored(train: Train, network: nn.Module) -> tuple[float, str | None]:
    try:
        score = train(network)
    except (RuntimeError, ArithmeticError, ValueError) as error:
        if isinstance(error, InputError):
            raise
        return math.nan, f"{type(error).__name__}: {str(error).splitlines()[0] if str(error) else ''}"
    try:
        value = float(score)
    except (TypeError, ValueError):
        raise InputError(f"train must return one score, a number; got {type(score).__name__}") from None
    return (value, None) if math.isfinite(value) else (math.nan, f"scored {value}")


def _same_size(sizes: dict[str, int], first: str, name: str, tolerance: float) -> None:
    if abs(sizes[name] - sizes[first]) > tolerance * sizes[first]:
        raise InputError(
            f"the network has {sizes[name]:,} parameters with {name} and {sizes[first]:,} with {first}; build it of "
            "one size (a gated block has three matrices: two thirds of the width), or pass size_tolerance"
        )
