"""Trials: every repair trained as an arm, on the same seed and budget, beside a baseline and a re-seeded
control.

All arms are scored on the same validation rows, so each is compared with the baseline row by row. The control
is the baseline with another seed: nothing was repaired in it, so what it gains or loses is what a seed is
worth, and an arm counts only beyond that. "Nothing helped" is an answer, and what did not help stays in the
table.
"""

from __future__ import annotations

import copy
import inspect
import math
import time
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field, fields, replace
from typing import Any

import numpy as np
import torch
from torch import nn

from softknee.diagnosis.progress import training_bar
from softknee.diagnosis.repairs import Repair, Settings
from softknee.diagnosis.seeds import seeded
from softknee.errors import InputError
from softknee.verification import Run, statistics

TrainFunction = Callable[[nn.Module, Settings], Any]
"""Trains the model in place, obeys the settings, and returns one score per validation row, higher is better."""

SIGNIFICANCE = 0.05
CONTROL_SEED = 1_000_003
"""Added to each seed for the control, so that its seeds are none of the others'."""


@dataclass(frozen=True)
class Arm:
    """One way of training and what it scored. Figures are None where the arm was not scored (`verdict` says why)."""

    name: str
    title: str
    edit: str
    size: int
    seconds: float = 0.0
    """Wall time over all seeds."""
    verdict: str = ""
    """"better", "worse", "not different", "baseline", "failed: why" or "not tried: why"."""
    accuracy: float | None = None
    """Mean score over rows and seeds."""
    fixed: int | None = None
    """(row, seed) pairs that score higher than the baseline's."""
    broken: int | None = None
    """(row, seed) pairs that score lower."""
    p: float | None = None
    """Exact McNemar; sign flips per row for scores that are not 0/1 and for several seeds. Before Holm's correction."""
    difference: float | None = None
    """Mean of score minus baseline score."""
    interval: tuple[float, float] | None = None
    """95 % of the difference, paired bootstrap over rows (all seeds of a row together)."""
    folk: bool = False
    note: str = ""
    repair: Repair | None = field(default=None, repr=False, compare=False)
    scores: np.ndarray | None = field(default=None, repr=False, compare=False)
    """(seeds, rows), float64."""
    model: nn.Module | None = field(default=None, repr=False, compare=False)
    """Trained with the first seed; kept for the baseline and the winner only."""

    def apply(self, model: nn.Module, *, inplace: bool = False, generator: torch.Generator | None = None) -> nn.Module:
        """The repaired model, on a copy unless `inplace`; see `Repair.apply`.

        It is not trained: repairs of the initialisation or the structure want training after them. The
        trained winner is `trial.best.model`.
        """
        if self.repair is None:
            raise InputError(f"the arm {self.name!r} repairs nothing, so there is nothing to apply")
        return self.repair.apply(model, inplace=inplace, generator=generator)

    def settings(self, settings: Settings | None = None) -> Settings:
        """The training settings with this arm's change, unchanged if it changes the model."""
        if self.repair is None:
            return Settings() if settings is None else settings
        return self.repair.settings(settings)

    @property
    def spread(self) -> str:
        """The difference with its interval; empty where there is none."""
        if self.difference is None or self.interval is None:
            return ""
        return f"{self.difference:+.3f} [{self.interval[0]:+.3f}, {self.interval[1]:+.3f}]"

    def to_dict(self) -> dict[str, Any]:
        return {
            "name": self.name,
            "title": self.title,
            "accuracy": self.accuracy,
            "fixed": self.fixed,
            "broken": self.broken,
            "p": self.p,
            "difference": self.difference,
            "interval": None if self.interval is None else list(self.interval),
            "verdict": self.verdict,
            "seconds": self.seconds,
            "edit": self.edit,
            "folk": self.folk,
            "note": self.note,
        }

    def __str__(self) -> str:
        if self.accuracy is None:
            return f"{self.title}: {self.verdict}"
        return f"{self.title}: {self.accuracy:.3f}, {self.verdict}"


@dataclass(frozen=True)
class Trial:
    """What was tried and what came of it."""

    arms: tuple[Arm, ...]
    """Baseline, control, then the repairs in the order of the plan."""
    best: Arm | None
    """The winner; None when nothing helped."""
    ties: tuple[str, ...]
    """Arms that cannot be told from the most accurate one; the winner is the smallest edit among them."""
    reason: str
    """Why this one won, or why none did: one sentence."""
    seeds: tuple[int, ...]
    rows: int

    @property
    def baseline(self) -> Arm:
        return self.arms[0]

    @property
    def control(self) -> Arm:
        return self.arms[1]

    def __iter__(self) -> Iterator[Arm]:
        return iter(self.arms)

    def __len__(self) -> int:
        return len(self.arms)

    def __getitem__(self, name: str) -> Arm:
        for arm in self.arms:
            if arm.name == name:
                return arm
        raise InputError(f"the trial has no arm {name!r}; it has: {', '.join(arm.name for arm in self.arms)}")

    def to_dict(self) -> dict[str, Any]:
        return {
            "arms": [arm.to_dict() for arm in self.arms],
            "winner": None if self.best is None else self.best.name,
            "ties": list(self.ties),
            "reason": self.reason,
            "seeds": list(self.seeds),
            "rows": self.rows,
        }

    def __str__(self) -> str:
        seeds = "seed " + ", ".join(map(str, self.seeds))
        lines = [f"{len(self.arms)} arms, {self.rows} validation rows, {seeds}: {self.reason}"]
        lines.append(
            f"  {'arm':<22} {'accuracy':>8} {'fixed':>6} {'broken':>6} {'p':>8} {'difference (95%)':>24} {'s':>6}"
            "  verdict"
        )
        for arm in sorted(self.arms, key=_by_accuracy):
            mark = "*" if self.best is not None and arm.name == self.best.name else " "
            accuracy, fixed, broken, p = (
                "-" if value is None else format(value, form)
                for value, form in ((arm.accuracy, ".3f"), (arm.fixed, ""), (arm.broken, ""), (arm.p, ".2g"))
            )
            note = f"{' (folk advice)' if arm.folk else ''}{f'; {arm.note}' if arm.note else ''}"
            lines.append(
                f"{mark} {arm.name:<22} {accuracy:>8} {fixed:>6} {broken:>6} {p:>8} {arm.spread:>24}"
                f" {arm.seconds:>6.1f}  {arm.verdict}{note}"
            )
        if self.best is not None:
            lines.append(f"edit: {self.best.edit}")
        return "\n".join(lines)


def try_repairs(
    repairs: Sequence[Repair],
    train_fn: TrainFunction,
    *,
    seeds: Iterable[int] = (0,),
    model: nn.Module | None = None,
    build_fn: Callable[[], nn.Module] | None = None,
    progress: bool | Callable[[Arm], None] | None = None,
) -> Trial:
    """Train `repairs` as arms beside a baseline and a control, and choose.

    `train_fn(model, settings)` trains in place and returns one score per row on fixed validation rows, in fixed order:
    a 1-D tensor, array or sequence (0/1 for right or wrong, or any float where higher is better), or a verification
    `Run` (its first metric). It runs once per arm and seed with Python's, NumPy's and torch's generators seeded; they
    are put back after.

    An arm starts from `build_fn()` under its seed. Without one it starts from a copy of `model` in which
    every module that has `reset_parameters` is reset under that seed, children first; parameters without are
    kept, and the arm's note says so. (An initialisation that the model's own constructor does is lost that
    way: give `build_fn`.) A repair that mends trained weights starts from `model` as it is, with all its
    earlier training.

    "better" and "worse" need p < 0.05 after Holm's correction over the arms, an interval that excludes 0, and
    more than the control gained or lost if that came out different. The winner is the smallest edit among the
    arms that are better and cannot be told from the most accurate one; equal edits go by the order of
    `repairs`, because accuracy among ties is noise. An arm that raises, returns NaN or ends with weights that
    are not finite has failed, with its reason as its verdict; KeyboardInterrupt goes through. Where baseline and
    control both fail, an arm that does not is better; where one of them does, nothing is chosen.

    `progress`: None shows a bar where stdout is a terminal, True and False force it, a function gets each arm
    as it ends (its verdict is not final then). Raises `InputError` for arguments that do not fit.
    """
    if not isinstance(seeds, Iterable):
        raise InputError(f"seeds must be one or more whole numbers, such as ({seeds},), not {seeds!r}")
    seeds = tuple(seeds)
    if not seeds or any(isinstance(seed, bool) or not isinstance(seed, int) for seed in seeds):
        raise InputError(f"seeds must be one or more whole numbers, not {seeds!r}")
    if len(set(seeds)) < len(seeds):
        raise InputError(f"seeds must differ from each other, not {seeds!r}")
    if not callable(train_fn):
        raise InputError(f"train_fn must be a function of a model and its settings, not {type(train_fn).__name__}")
    if build_fn is not None and not callable(build_fn):
        raise InputError(f"build_fn must be a function that returns a new model, not {type(build_fn).__name__}")
    names = [repair.name for repair in repairs]
    if len(set(names)) < len(names):
        raise InputError(f"repairs must have names of their own, not {', '.join(names)}")
    if model is None and build_fn is None:
        raise InputError("give model or build_fn: arms need something to start from")
    start = _Start(model, build_fn)
    arms: list[Arm] = []
    held: tuple[str, nn.Module | None] = ("", None)
    with _shown(progress, 2 + len(repairs)) as show:
        baseline, trained = _run(start, train_fn, seeds, Arm("baseline", "as it is", "", 0))
        baseline = replace(baseline, model=trained, verdict=baseline.verdict or "baseline")
        show(baseline)
        control, _ = _run(
            start, train_fn, [seed + CONTROL_SEED for seed in seeds], Arm("control", "another seed", "", 0)
        )
        control = _compared(control, baseline)
        if control.p is not None:
            control = replace(control, verdict=_verdict(control, control.p, 0.0))
        show(control)
        for repair in repairs:
            arm = Arm(repair.name, repair.title, repair.edit, repair.size, folk=repair.folk, repair=repair)
            arm, trained = _run(start, train_fn, seeds, arm)
            arms = _judged(control, [*arms, _compared(arm, baseline)])
            best = _choose(baseline, control, arms)[0]
            if best is not None and best.name == arm.name:
                held = (arm.name, trained)  # one trained repair is kept: the one that leads so far
            show(arms[-1])
    best, ties, reason = _choose(baseline, control, arms)
    if best is not None:
        if held[0] != best.name:
            # Verdicts move as arms join (Holm): an arm that was let go may lead in the end. Its seed trains it again.
            held = (best.name, _run(start, train_fn, seeds[:1], best)[1])
        winner = replace(best, model=held[1])
        arms = [winner if arm is best else arm for arm in arms]
        best = winner
    rows = 0 if baseline.scores is None else baseline.scores.shape[1]
    return Trial((baseline, control, *arms), best, ties, reason, seeds, rows)


# --- running an arm -----------------------------------------------------------------------------------------


@dataclass(frozen=True)
class _Start:
    """Where arms start from: `build`, or the diagnosed `model` with its weights drawn anew."""

    model: nn.Module | None
    build: Callable[[], nn.Module] | None

    def __call__(self, repair: Repair | None) -> tuple[nn.Module, str]:
        """A model to repair and train, from torch's global generator, and a note about what it kept."""
        if repair is not None and repair.keeps_weights:
            if self.model is None:
                raise _NotTried("it mends trained weights, and the trial was given no trained model")
            return copy.deepcopy(self.model), "continues from the diagnosed weights, so it had their training too"
        if self.build is not None:
            built = self.build()
            if not isinstance(built, nn.Module):
                raise InputError(f"build_fn must return a torch.nn.Module, not {type(built).__name__}")
            return built, ""
        assert self.model is not None
        fresh = copy.deepcopy(self.model)
        kept = _reset(fresh)
        fresh.zero_grad(set_to_none=True)
        note = f"{len(kept)} parameters kept their weights: {', '.join(kept[:3])}{'…' if len(kept) > 3 else ''}"
        return fresh.train(), note if kept else ""


class _NotTried(Exception):
    """Why an arm was not run."""


def _run(start: _Start, train_fn: TrainFunction, seeds: Sequence[int], arm: Arm) -> tuple[Arm, nn.Module | None]:
    """`arm` with its scores, or with the verdict that says why it has none; and the model of the first seed."""
    began = time.perf_counter()
    scores: list[np.ndarray] = []
    first: nn.Module | None = None
    repair, verdict, note = arm.repair, "", ""
    for seed in seeds:
        asked = Settings(seed=seed) if repair is None else repair.settings(Settings(seed=seed))
        settings = _Watched(**asked.to_dict())
        with seeded(seed) as reseed:
            try:
                if repair is not None and repair.by_hand:
                    raise _NotTried(repair.by_hand)
                # as a person would: torch.manual_seed(seed); model = build(); model = repair.apply(model)
                model, note = start(repair)
                if repair is not None:
                    model = repair.apply(model, inplace=True)
                reseed()
                result = train_fn(model, settings)
            except _NotTried as why:
                verdict = f"not tried: {why}"
            except Exception as error:
                if repair is None and isinstance(error, InputError):
                    raise  # a wrong argument, not a model that fails
                verdict = f"failed: {type(error).__name__}: {_first_line(error)}"
        if verdict:
            break
        row = _row_scores(result)
        ignored = [name for name in _changed(asked) if name not in settings.read]
        diverged = _not_finite(model)
        if ignored:
            verdict = f"not tried: train_fn never reads settings.{ignored[0]}"
        elif np.isnan(row).any():
            verdict = f"failed: {int(np.isnan(row).sum())} of {row.size} scores are NaN"
        elif diverged and repair is not None:
            verdict = f"failed: diverged, {diverged} is not finite after training"
        elif diverged:
            note = f"diverged: {diverged} is not finite after training"
        if scores and row.size != scores[0].size:
            raise InputError(
                f"train_fn returned {row.size} scores, and {scores[0].size} with another seed: rows are fixed"
            )
        if verdict:
            break
        scores.append(row)
        first = model if first is None else first
    arm = replace(arm, seconds=time.perf_counter() - began, verdict=verdict, note=note)
    if verdict:
        return arm, None
    table = np.stack(scores)
    return replace(arm, scores=table, accuracy=float(table.mean())), first


def _reset(model: nn.Module) -> list[str]:
    """Draw new weights for every module that knows how, children before parents; names of the parameters left."""
    kept: list[str] = []

    def visit(module: nn.Module, prefix: str, covered: bool) -> None:
        reset = getattr(module, "reset_parameters", None) or getattr(module, "_reset_parameters", None)
        if reset is not None and inspect.signature(reset).parameters:
            reset = None  # one that wants arguments is for its author to call
        covered = covered or reset is not None
        for name, child in module.named_children():
            visit(child, f"{prefix}{name}.", covered)
        if reset is not None:
            reset()
        elif not covered:
            kept.extend(prefix + name for name, _ in module.named_parameters(recurse=False))

    with torch.no_grad():
        visit(model, "", False)
    return kept


class _Watched(Settings):
    """Settings that note which of them are read: a knob that nobody reads has not been tried."""

    read: set[str]

    def __init__(self, *values: Any, **named: Any) -> None:
        super().__init__(*values, **named)
        object.__setattr__(self, "read", set())

    def __getattribute__(self, name: str) -> Any:
        if name in _KNOBS and "read" in object.__getattribute__(self, "__dict__"):
            self.read.add(name)
        return super().__getattribute__(name)

    def __reduce__(self) -> Any:
        # Sent to another process it is plain settings; what is read there cannot be seen, so all counts as read.
        return Settings, tuple(getattr(self, name) for name in _KNOBS)

    def __repr__(self) -> str:
        return repr(Settings(**self.to_dict()))


_KNOBS = tuple(entry.name for entry in fields(Settings))


def _changed(settings: Settings) -> list[str]:
    plain = Settings(seed=settings.seed)
    return [name for name in _KNOBS if getattr(settings, name) != getattr(plain, name)]


def _row_scores(result: Any) -> np.ndarray:
    values = result
    if isinstance(result, Run):
        metric = result.metric()
        values = result.scores[metric] if result.higher_is_better[metric] else -result.scores[metric]
    if isinstance(values, torch.Tensor):
        values = values.detach().cpu().double().numpy()
    try:
        row = np.asarray(values, dtype=np.float64)
    except (TypeError, ValueError):
        row = np.empty((0, 0))
    if row.ndim != 1 or row.size == 0:
        found = f"shape {tuple(row.shape)}" if hasattr(values, "shape") else type(result).__name__
        raise InputError(f"train_fn must return one score per validation row (1-D, not empty), not {found}")
    return row


def _not_finite(model: nn.Module) -> str | None:
    return next((name for name, p in model.named_parameters() if not torch.isfinite(p).all()), None)


def _first_line(error: Exception) -> str:
    return next(iter(str(error).strip().splitlines()), "")[:160]


# --- judging ------------------------------------------------------------------------------------------------


def _compared(arm: Arm, baseline: Arm) -> Arm:
    """`arm` with its figures against the baseline, where both were scored."""
    if arm.scores is None or baseline.scores is None:
        return arm
    if arm.scores.shape != baseline.scores.shape:
        raise InputError(
            f"train_fn returned {arm.scores.shape[1]} scores for {arm.name} and {baseline.scores.shape[1]} for the "
            "baseline: every arm must be scored on the same validation rows"
        )
    change = arm.scores - baseline.scores
    low, high = statistics.paired_bootstrap(baseline.scores.mean(0), arm.scores.mean(0))
    return replace(
        arm,
        fixed=int((change > 0).sum()),
        broken=int((change < 0).sum()),
        p=_p(baseline.scores, arm.scores),
        difference=float(change.mean()),
        interval=(low, high),
    )


def _p(before: np.ndarray, after: np.ndarray) -> float:
    change = after - before
    if len(change) == 1 and np.isin(before, (0, 1)).all() and np.isin(after, (0, 1)).all():
        return float(statistics.mcnemar_exact(int((change > 0).sum()), int((change < 0).sum())))
    return statistics.sign_flip(change.mean(0))  # all seeds of a row flip together


def _verdict(arm: Arm, p: float, noise: float) -> str:
    """`noise`: what a seed is worth, in the unit of the score."""
    assert arm.interval is not None
    low, high = arm.interval
    if p < SIGNIFICANCE and low > noise:
        return "better"
    if p < SIGNIFICANCE and high < -noise:
        return "worse"
    return "not different"


def _judged(control: Arm, arms: Sequence[Arm]) -> list[Arm]:
    """`arms` with their verdicts: Holm over those that were compared, and beyond what the control shows of noise."""
    p = {arm.name: arm.p for arm in arms if arm.p is not None}
    adjusted = dict(zip(p, statistics.holm(list(p.values())), strict=True))
    noise = _noise(control)
    judged = []
    for arm in arms:
        if arm.p is not None:
            arm = replace(arm, verdict=_verdict(arm, adjusted[arm.name], noise))
        elif arm.scores is not None and control.scores is None:
            arm = replace(arm, verdict="better", note="ends well where the baseline failed, twice")
        elif arm.scores is not None:
            arm = replace(arm, verdict="not compared: the baseline failed")
        judged.append(arm)
    return judged


def _noise(control: Arm) -> float:
    if control.interval is None or control.verdict == "not different":
        return 0.0
    return max(abs(end) for end in control.interval)


def _choose(baseline: Arm, control: Arm, arms: Sequence[Arm]) -> tuple[Arm | None, tuple[str, ...], str]:
    """The winner, the names of all that tie with the most accurate arm, and why."""
    was = "has " + baseline.verdict if baseline.accuracy is None else f"scores {baseline.accuracy:.3f}"
    if (baseline.scores is None) != (control.scores is None):
        then = "ends well" if control.scores is not None else "has " + control.verdict
        return None, (), f"nothing chosen: the baseline {was}; with another seed it {then}"
    better = sorted((arm for arm in arms if arm.verdict == "better"), key=_by_accuracy)
    if not better:
        if _noise(control) and any(arm.difference is not None and arm.difference > 0 for arm in arms):
            noise = f"another seed alone changes that by {control.spread}, more than any repair can be told from"
            return None, (), f"nothing chosen: the baseline {was}, and {noise}; give more seeds or train longer"
        return None, (), f"nothing helped: the baseline {was}, and no arm is better"
    ties = [arm for arm in better if arm is better[0] or not _apart(better[0], arm)]
    best = min((arm for arm in arms if arm in ties), key=lambda arm: arm.size)  # of equal edits the plan's first
    others = ", ".join(arm.name for arm in ties if arm is not best)
    reason = f"{best.name} scores {best.accuracy:.3f} where the baseline {was}"
    if others:
        reason += f"; {others} cannot be told from it, and ties go to the smallest edit, then to the first"
    return best, tuple(arm.name for arm in ties), reason


def _apart(top: Arm, arm: Arm) -> bool:
    assert top.scores is not None
    assert arm.scores is not None
    return _p(arm.scores, top.scores) < SIGNIFICANCE


def _by_accuracy(arm: Arm) -> float:
    return math.inf if arm.accuracy is None else -arm.accuracy


# --- progress -----------------------------------------------------------------------------------------------


@contextmanager
def _shown(progress: bool | Callable[[Arm], None] | None, arms: int) -> Iterator[Callable[[Arm], None]]:
    if callable(progress):
        yield progress
    else:
        with training_bar(progress, "training arms", arms) as step:
            yield lambda arm: step(str(arm))
