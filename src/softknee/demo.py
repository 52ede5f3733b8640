"""The demo: an ordinary classifier that does not learn. The cause, every repair tried, the winner proved, the patch.

scikit-learn's 1,797 handwritten digits, 60/20/20; 8 hidden layers of 64 ReLUs with PyTorch's own initialisation,
trained by SGD at 0.05. Nothing is sabotaged and nothing below is known in advance: every figure is measured, and
another seed gives others.
"""

from __future__ import annotations

import platform
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import torch
from torch import Tensor, nn

import softknee

from .diagnosis import Report, Settings, watch
from .errors import InputError
from .files import write_whole
from .identification import identify
from .report import Story, dumps, render, write
from .verification import Dataset, calibrate, compare, evaluate, overlap

if TYPE_CHECKING:
    from rich.console import Console

HIDDEN_LAYERS, WIDTH, LEARNING_RATE, BATCH, EPOCHS = 8, 64, 0.05, 64, 40


@dataclass(frozen=True)
class Digits:
    """1,797 images of 8 × 8 pixels in [0, 1] as rows of 64, split by class: float32 inputs, int64 targets."""

    train: Dataset
    validation: Dataset
    test: Dataset

    @staticmethod
    def load(seed: int) -> Digits:
        """Raises InputError where scikit-learn is not installed."""
        try:
            from sklearn.datasets import load_digits
            from sklearn.model_selection import train_test_split
        except ModuleNotFoundError as error:
            raise InputError("the demo needs scikit-learn's digits: pip install 'softknee[demo]'") from error
        x, y = load_digits(return_X_y=True)
        rows = np.arange(len(x))
        train, rest = train_test_split(rows, train_size=0.6, stratify=y, random_state=seed)
        validation, test = train_test_split(rest, train_size=0.5, stratify=y[rest], random_state=seed)

        def dataset(index: Any, name: str) -> Dataset:
            inputs, targets = torch.tensor(x[index] / 16, dtype=torch.float32), torch.tensor(y[index])
            return Dataset(inputs, targets, [f"digit {label}" for label in y[index]], name=name)

        return Digits(dataset(train, "training"), dataset(validation, "validation"), dataset(test, "test"))


def build() -> nn.Sequential:
    """The classifier as anyone would write it."""
    layers: list[nn.Module] = []
    for i in range(HIDDEN_LAYERS):
        layers += [nn.Linear(WIDTH if i else 64, WIDTH), nn.ReLU()]
    return nn.Sequential(*layers, nn.Linear(WIDTH, 10))


def train(model: nn.Module, data: Dataset, settings: Settings, epochs: int, watched: bool = False) -> Report | None:
    """Plain SGD on cross entropy, in place. With `watched`, the diagnosis of the training."""
    x, y = columns(data)
    optimizer = torch.optim.SGD(model.parameters(), lr=LEARNING_RATE * settings.lr_factor)
    loss_fn = nn.CrossEntropyLoss(label_smoothing=settings.label_smoothing)
    generator = torch.Generator().manual_seed(settings.seed)
    model.train()

    def step(rows: Tensor) -> Tensor:
        optimizer.zero_grad()
        loss = loss_fn(model(x[rows]), y[rows])
        loss.backward()
        if settings.clip_norm is not None:
            nn.utils.clip_grad_norm_(model.parameters(), settings.clip_norm)
        optimizer.step()
        return loss

    batches = (rows for _ in range(epochs) for rows in torch.randperm(len(x), generator=generator).split(BATCH))
    if not watched:
        for rows in batches:
            step(rows)
        return None
    with watch(model, optimizer) as w:
        for rows in batches:
            w.log(loss=step(rows))
    return w.report()


def columns(data: Dataset) -> tuple[Tensor, Tensor]:
    """Inputs and targets, as tensors."""
    assert isinstance(data.inputs, Tensor) and isinstance(data.targets, Tensor)
    return data.inputs, data.targets


def run(output: Path, *, seed: int = 0, epochs: int = EPOCHS, console: Console | None = None) -> tuple[Story, bool]:
    """The whole story, written to `output`/report.html and summary.json; and whether the repair is proved.

    Takes one thread. Raises InputError where an extra is not installed or `output` cannot be written.
    """
    if epochs < 1:
        raise InputError(f"epochs must be at least 1, got {epochs}")
    from rich.console import Console

    out = console or Console()
    began = time.perf_counter()
    with one_thread():
        story, proved = _run(output, seed, epochs, out)
    out.print(f"[dim]{time.perf_counter() - began:.0f} s[/]")
    return story, proved


def _run(output: Path, seed: int, epochs: int, out: Console) -> tuple[Story, bool]:
    def step(name: str, what: str) -> None:
        out.print(f"\n[bold]{name}[/]  [dim]{what}[/]")

    data = Digits.load(seed)
    x_validation, y_validation = columns(data.validation)
    x_test, y_test = columns(data.test)
    out.print(
        f"[bold]softknee demo[/]  {HIDDEN_LAYERS} hidden layers × {WIDTH} ReLU, PyTorch's own initialisation, SGD "
        f"{LEARNING_RATE}, {epochs} epochs, seed {seed}\n"
        f"{len(data.train)} training, {len(data.validation)} validation, {len(data.test)} test rows of handwritten "
        f"digits; {overlap(data.train, data.test)}",
        highlight=False,
    )

    step("IDENTIFY", "which activations does it apply?")
    torch.manual_seed(seed)
    model = build()
    census = identify(model, x_validation[:8])
    render(census, out)

    step("DIAGNOSE", "watched while it trains")
    before = train(model, data.train, Settings(seed=seed), epochs, watched=True)
    assert before is not None
    render(before, out)

    step("TRY", "every repair and the folk advice, same seed and budget, on validation rows")
    plan = before.plan()

    def train_and_score(fresh: nn.Module, settings: Settings) -> Tensor:
        train(fresh, data.train, settings, epochs)
        fresh.eval()
        with torch.no_grad():
            return (fresh(x_validation).argmax(-1) == y_validation).double()

    trial = plan.try_all(train_and_score, seeds=(seed,), build_fn=build)
    render(trial, out)
    provenance = _provenance(seed, epochs)
    if trial.best is None or trial.best.model is None or trial.baseline.model is None:
        story = Story(
            "softknee demo", f"No repair helped: {trial.reason}", "", census, before, trial=trial, provenance=provenance
        )
        return _written(story, output, out), False
    winner = trial.best.model

    step("VERIFY", "the winner against the original on untouched rows, row by row")
    runs = [
        evaluate(
            m, data.test, ("accuracy",), version=version, seed=seed, budget=f"{epochs} epochs", training=data.train
        )
        for m, version in ((trial.baseline.model, "as it was"), (winner, trial.best.title))
    ]
    comparison = compare(runs[0], runs[1])
    render(comparison, out)
    proved = comparison.verdict == "different" and comparison.direction == "better"

    step("CALIBRATE", "is it as sure as it is right? Temperature from validation rows, judged on test rows")
    winner.eval()
    with torch.no_grad():
        calibration = calibrate(winner(x_validation), y_validation, winner(x_test), y_test)
    render(calibration, out)

    # The same measurement on the repaired model, for the page's before and after.
    torch.manual_seed(seed)
    again = build()
    trial.best.apply(again, inplace=True)
    after = train(again, data.train, trial.best.settings(Settings(seed=seed)), epochs, watched=True)

    images = dict(zip(data.test.ids, x_test.view(-1, 8, 8).numpy(), strict=True))
    changed = {row.id for row in comparison.rows("changed")}
    causes = "; ".join(f"{cause.title}: {cause.message}" for cause in before.causes)
    scores = (
        f"accuracy {comparison.result.before:.3f} → {comparison.result.after:.3f} on {len(data.test)} untouched rows"
    )
    verdict = f"{causes[:1].upper()}{causes[1:]}. Mended by the {trial.best.title}: {scores}."
    if not proved:
        verdict = f"Not proved: {comparison.conclusion}"
    story = Story(
        "softknee demo", verdict, trial.best.edit, census, before, after, trial, comparison, calibration,
        {row: image for row, image in images.items() if row in changed}, provenance,
    )  # fmt: skip
    step("PATCH", "the line to change")
    out.print(f"  {story.patch}", highlight=False, markup=False)
    return _written(story, output, out), proved


def _written(story: Story, output: Path, out: Console) -> Story:
    page = output / "report.html"
    write(story, page)
    write_whole(output / "summary.json", dumps(story.summary()) + "\n")
    out.print(f"\n[bold]{page}[/] ({page.stat().st_size / 2**20:.1f} MiB, opens offline), {output / 'summary.json'}")
    return story


def _provenance(seed: int, epochs: int) -> dict[str, Any]:
    return {
        "seed": seed,
        "epochs": epochs,
        "batch": BATCH,
        "learning rate": LEARNING_RATE,
        "data": "scikit-learn load_digits, 1,797 rows, 60/20/20 by class",
        "softknee": softknee.__version__,
        "torch": torch.__version__,
        "python": platform.python_version(),
        "machine": platform.machine(),
        "threads": 1,
    }


@contextmanager
def one_thread() -> Iterator[None]:
    """One thread inside the block: sums are then added up in one order, and figures repeat."""
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    try:
        yield
    finally:
        torch.set_num_threads(threads)
