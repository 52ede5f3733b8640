"""Healthy trainings, on which a diagnosis must find nothing: the false alarms of `softknee.watch` and `diagnose`.

    python benchmarks/healthy.py [--output benchmarks/results/healthy.json] [--only NAME]

Each run is an ordinary network that learns its task (the accuracy on held-out rows says so, and a run that does not
learn fails the benchmark): MLPs, residual CNNs and small transformers, many activations, widths, learning rates,
optimizers, mixed precision, gradient accumulation, sparse ReLU networks. Every one is watched while it trains and
diagnosed afterwards; a finding of severity warning or above is a false alarm, and the script exits with 1.
"""

from __future__ import annotations

import argparse
import contextlib
import json
import platform
import sys
import time
from collections.abc import Iterator
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

import softknee

LEARNED = 0.85
"""Held-out accuracy, mean over the classes, from which a run counts as one that has learned."""


@dataclass(frozen=True)
class Training:
    """One healthy training: what is trained, and how."""

    family: str
    activation: str
    depth: int = 3
    width: int = 64
    optimizer: str = "sgd"
    lr: float = 0.05
    steps: int = 400
    batch: int = 64
    init: str = "stock"
    amp: bool = False
    accumulate: int = 1
    momentum: float = 0.9
    dropout: float = 0.0
    weight_decay: float = 0.0
    seed: int = 0

    @property
    def name(self) -> str:
        extras = [
            f"{self.init}" if self.init != "stock" else "",
            "bf16" if self.amp else "",
            f"accumulate{self.accumulate}" if self.accumulate > 1 else "",
            f"dropout{self.dropout:g}" if self.dropout else "",
            f"decay{self.weight_decay:g}" if self.weight_decay else "",
            f"batch{self.batch}" if self.batch != 64 else "",
            f"seed{self.seed}" if self.seed else "",
        ]
        core = f"{self.family}-{self.activation}-{self.depth}x{self.width}-{self.optimizer}{self.lr:g}"
        return "-".join([core, *(extra for extra in extras if extra)])


class Residual(nn.Module):
    """x + f(x), normalised; convolutions."""

    def __init__(self, channels: int, activation: str) -> None:
        super().__init__()
        self.first = nn.Conv2d(channels, channels, 3, padding=1)
        self.norm = nn.BatchNorm2d(channels)
        self.act = softknee.nn.Activation(activation)
        self.second = nn.Conv2d(channels, channels, 3, padding=1)

    def forward(self, x: Tensor) -> Tensor:
        return x + self.second(self.act(self.norm(self.first(x))))


class Block(nn.Module):
    """A pre-norm transformer block."""

    def __init__(self, width: int, activation: str, dropout: float) -> None:
        super().__init__()
        self.norm1, self.norm2 = nn.LayerNorm(width), nn.LayerNorm(width)
        self.attention = nn.MultiheadAttention(width, 4, batch_first=True)
        self.up, self.down = nn.Linear(width, 4 * width), nn.Linear(4 * width, width)
        self.act = softknee.nn.Activation(activation)
        self.dropout = nn.Dropout(dropout)

    def forward(self, x: Tensor) -> Tensor:
        h = self.norm1(x)
        x = x + self.attention(h, h, h, need_weights=False)[0]
        return x + self.dropout(self.down(self.act(self.up(self.norm2(x)))))


class Transformer(nn.Module):
    """Digits as eight tokens of eight pixels, or sequences of token ids."""

    def __init__(self, training: Training, tokens: int | None, classes: int) -> None:
        super().__init__()
        width = training.width
        self.embed: nn.Module = nn.Linear(8, width) if tokens is None else nn.Embedding(tokens, width)
        self.place = nn.Parameter(torch.randn(1, 16, width) * 0.02)
        self.blocks = nn.Sequential(
            *(Block(width, training.activation, training.dropout) for _ in range(training.depth))
        )
        self.norm = nn.LayerNorm(width)
        self.head = nn.Linear(width, classes)

    def forward(self, x: Tensor) -> Tensor:
        x = x.unflatten(1, (8, 8)) if x.is_floating_point() else x
        h = self.embed(x)
        h = self.blocks(h + self.place[:, : h.shape[1]])
        return self.head(self.norm(h).mean(1))


def build(training: Training) -> nn.Module:
    """The model of a run, initialised as it says."""
    torch.manual_seed(training.seed)
    act = training.activation
    model: nn.Module
    if training.family in ("mlp", "imbalanced"):
        layers: list[nn.Module] = []
        for i in range(training.depth):
            layers += [nn.Linear(64 if i == 0 else training.width, training.width), softknee.nn.Activation(act)]
            if training.dropout:
                layers.append(nn.Dropout(training.dropout))
        model = nn.Sequential(*layers, nn.Linear(training.width, 10))
    elif training.family == "cnn":
        c = training.width
        model = nn.Sequential(
            nn.Unflatten(1, (1, 8, 8)),
            nn.Conv2d(1, c, 3, padding=1),
            *(Residual(c, act) for _ in range(training.depth)),
            nn.BatchNorm2d(c),
            softknee.nn.Activation(act),
            nn.AdaptiveAvgPool2d(2),
            nn.Flatten(),
            nn.Linear(4 * c, 10),
        )
    elif training.family == "transformer":
        model = Transformer(training, None, 10)
    elif training.family == "sequence":
        model = Transformer(training, 8, 8)
    else:
        raise ValueError(f"no such family: {training.family}")
    if training.init == "sparse":
        for module in list(model.modules())[:-1]:
            if isinstance(module, nn.Linear):
                nn.init.kaiming_normal_(module.weight)
                nn.init.constant_(module.bias, -0.3)  # most units are silent on most rows, none for good
    if training.init == "exact":
        for module in model.modules():
            if isinstance(module, nn.Linear):
                softknee.nn.init.exact_(module.weight, act)
                nn.init.zeros_(module.bias)
    return model


def digits() -> tuple[Tensor, Tensor, Tensor, Tensor]:
    """scikit-learn's digits in [0, 1], 1,347 rows to train on and 450 held out."""
    from sklearn.datasets import load_digits

    x, y = load_digits(return_X_y=True)
    order = torch.randperm(len(x), generator=torch.Generator().manual_seed(0))
    inputs, targets = torch.tensor(x / 16, dtype=torch.float32)[order], torch.tensor(y)[order]
    return inputs[:1347], targets[:1347], inputs[1347:], targets[1347:]


def sequences() -> tuple[Tensor, Tensor, Tensor, Tensor]:
    """Sequences of 16 tokens out of 8; the class is the most frequent one."""
    generator = torch.Generator().manual_seed(0)
    target = torch.randint(8, (2048,), generator=generator)
    tokens = torch.randint(8, (2048, 16), generator=generator)
    tokens = torch.where(torch.rand(2048, 16, generator=generator) < 0.5, target[:, None], tokens)
    return tokens[:1536], target[:1536], tokens[1536:], target[1536:]


def batches(inputs: Tensor, targets: Tensor, size: int, seed: int) -> Iterator[tuple[Tensor, Tensor]]:
    generator = torch.Generator().manual_seed(seed)
    while True:
        order = torch.randperm(len(inputs), generator=generator)
        for part in order.split(size):
            yield inputs[part], targets[part]


@dataclass(frozen=True)
class Outcome:
    """What became of a run."""

    name: str
    training: dict[str, Any]
    accuracy: float
    seconds: float
    alarms: tuple[str, ...]
    notes: tuple[str, ...]

    @property
    def passed(self) -> bool:
        return self.accuracy >= LEARNED and not self.alarms


def run(training: Training) -> Outcome:
    """Train it watched, diagnose it afterwards."""
    started = time.perf_counter()
    train_x, train_y, test_x, test_y = sequences() if training.family == "sequence" else digits()
    if training.family == "imbalanced":
        train_y, test_y = (train_y == 8).long(), (test_y == 8).long()
    model = build(training)
    optimizer: torch.optim.Optimizer
    if training.optimizer == "sgd":
        optimizer = torch.optim.SGD(
            model.parameters(), training.lr, training.momentum, weight_decay=training.weight_decay
        )
    else:
        optimizer = torch.optim.AdamW(model.parameters(), training.lr, weight_decay=training.weight_decay)
    source = batches(train_x, train_y, training.batch, training.seed)
    with softknee.watch(model, optimizer, every=5) as w:
        for _ in range(training.steps):
            for _ in range(training.accumulate):
                x, y = next(source)
                context = torch.autocast("cpu", torch.bfloat16) if training.amp else contextlib.nullcontext()
                with context:
                    loss = nn.functional.cross_entropy(model(x), y)
                (loss / training.accumulate).backward()
                w.log(loss=loss)
            optimizer.step()
            optimizer.zero_grad()
    watched = w.report()
    model.eval()
    looked = softknee.diagnose(model, (train_x, train_y), held_out=(test_x, test_y), progress=False)
    with torch.no_grad():
        right = model(test_x).argmax(1) == test_y
        recalls = [right[test_y == label].float().mean() for label in test_y.unique()]
        accuracy = torch.stack(recalls).mean().item()
    found = [("watch", f) for f in watched.findings] + [("diagnose", f) for f in looked.findings]
    return Outcome(
        name=training.name,
        training=asdict(training),
        accuracy=accuracy,
        seconds=time.perf_counter() - started,
        alarms=tuple(f"{verb}: {f}" for verb, f in found if f.severity != "info"),
        notes=tuple(f"{verb}: {f}" for verb, f in found if f.severity == "info"),
    )


def trainings() -> list[Training]:
    """All runs."""
    every = ("relu", "leaky_relu", "elu", "selu", "gelu", "gelu_tanh", "silu", "mish", "tanh", "softplus", "hardswish")
    mlps = [Training("mlp", act, steps=600 if act == "softplus" else 400) for act in every]
    mlps += [
        Training("mlp", "sigmoid", depth=1, lr=0.5),
        Training("mlp", "sigmoid", depth=2, optimizer="adam", lr=1e-2),
        Training("mlp", "prelu"),
        Training("mlp", "relu", depth=1, width=16),
        Training("mlp", "relu", depth=2, width=256, optimizer="adam", lr=1e-3),
        Training("mlp", "relu", depth=4, width=32, optimizer="adam", lr=3e-3),
        Training("mlp", "relu", depth=5, optimizer="adam", lr=1e-3),
        Training("mlp", "relu", depth=6, optimizer="adam", lr=2e-3, steps=800),
        Training("mlp", "relu", init="sparse"),
        Training("mlp", "relu", init="sparse", width=256, optimizer="adam", lr=1e-3),
        Training("imbalanced", "relu", depth=2),
        Training("imbalanced", "gelu", depth=2, optimizer="adam", lr=3e-3),
        Training("mlp", "relu", depth=8, init="exact", lr=0.03),
        Training("mlp", "relu", depth=12, init="exact", lr=0.02, steps=800),
        Training("mlp", "gelu", depth=8, init="exact", lr=0.03),
        Training("mlp", "tanh", depth=8, init="exact", lr=0.03),
        Training("mlp", "silu", depth=6, init="exact", optimizer="adam", lr=1e-3),
        Training("mlp", "relu", width=512, lr=0.02),
        Training("mlp", "relu", lr=0.1, momentum=0.0),
        Training("mlp", "relu", lr=0.02),
        Training("mlp", "relu", optimizer="adam", lr=1e-2),
        Training("mlp", "relu", optimizer="adam", lr=3e-4, steps=800),
        Training("mlp", "gelu", optimizer="adam", lr=1e-3, weight_decay=0.1),
        Training("mlp", "relu", amp=True),
        Training("mlp", "gelu", amp=True, optimizer="adam", lr=1e-3),
        Training("mlp", "relu", accumulate=4, batch=16),
        Training("mlp", "tanh", accumulate=2, batch=32, optimizer="adam", lr=1e-3),
        Training("mlp", "relu", dropout=0.3),
        Training("mlp", "relu", width=512, depth=2, optimizer="adam", lr=1e-3, weight_decay=1.0, steps=600),
        Training("mlp", "relu", steps=2500, depth=2, lr=0.2),
        Training("mlp", "relu", batch=8, lr=0.02),
        Training("mlp", "leaky_relu", depth=8, init="exact", lr=0.03, seed=1),
        Training("mlp", "elu", depth=6, optimizer="adam", lr=1e-3),
        Training("mlp", "relu", depth=3, width=64, seed=1, lr=0.05),
        Training("mlp", "relu", depth=3, width=64, seed=2, lr=0.05),
    ]
    cnns = [Training("cnn", act, depth=2, width=16, lr=0.05, steps=120) for act in ("relu", "gelu", "silu", "elu")]
    cnns += [
        Training("cnn", "leaky_relu", depth=3, width=8, optimizer="adam", lr=3e-3, steps=150),
        Training("cnn", "relu", depth=4, width=12, optimizer="adam", lr=3e-3, steps=150),
        Training("cnn", "relu", depth=2, width=16, lr=0.05, steps=120, amp=True),
        Training("cnn", "tanh", depth=2, width=12, lr=0.05, steps=150),
    ]
    former = {"depth": 2, "width": 32, "optimizer": "adam", "lr": 2e-3, "steps": 300}
    transformers = [Training("transformer", act, **former) for act in ("gelu", "relu", "silu", "gelu_tanh")]
    transformers += [
        Training("transformer", "gelu", **{**former, "depth": 4, "steps": 250}),
        Training("transformer", "relu", **former, dropout=0.1),
        Training("transformer", "gelu", **former, amp=True),
        Training("sequence", "gelu", **{**former, "steps": 200}),
        Training("sequence", "silu", **{**former, "steps": 200}, accumulate=2, batch=32),
    ]
    return mlps + cnns + transformers


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--output", type=Path, default=Path(__file__).parent / "results" / "healthy.json")
    parser.add_argument("--only", default="")
    arguments = parser.parse_args()
    torch.set_num_threads(1)
    outcomes = []
    for training in trainings():
        if arguments.only in training.name:
            outcomes.append(run(training))
            last = outcomes[-1]
            print(f"{'ok  ' if last.passed else 'FAIL'} {last.name:<45} {last.accuracy:.3f} {last.seconds:5.1f} s")
            for alarm in last.alarms:
                print(f"       {alarm}")
    failed = [outcome.name for outcome in outcomes if not outcome.passed]
    seconds = sum(outcome.seconds for outcome in outcomes)
    print(f"{len(outcomes)} healthy trainings, {len(failed)} with an alarm or not learned, {seconds:.0f} s")
    if not arguments.only:
        arguments.output.parent.mkdir(parents=True, exist_ok=True)
        result = {
            "what": "false alarms on healthy trainings: watch(every=5) while training, diagnose afterwards",
            "learned_from": LEARNED,  # accuracy, mean over the classes
            "runs": len(outcomes),
            "failed": failed,
            "false_alarms": sum(len(outcome.alarms) for outcome in outcomes),
            "seconds": round(seconds, 1),
            "python": platform.python_version(),
            "torch": torch.__version__,
            "softknee": softknee.__version__,
            "machine": platform.machine(),
            "threads": 1,
            "outcomes": [asdict(outcome) for outcome in outcomes],
        }
        arguments.output.write_text(json.dumps(result, indent=1) + "\n")
    return 1 if failed else 0


if __name__ == "__main__":
    sys.exit(main())
