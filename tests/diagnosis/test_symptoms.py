"""Each symptom: a broken model that shows it and a near miss that stays silent; healthy trainings show nothing."""

from __future__ import annotations

import importlib.util
import math
import sys
from collections.abc import Callable
from pathlib import Path

import pytest
import torch
from torch import Tensor, nn

import softknee
from softknee.diagnosis.reports import Finding, Report
from softknee.diagnosis.symptoms import SYMPTOMS


def clusters(rows: int = 640, classes: int = 10, seed: int = 0) -> tuple[Tensor, Tensor]:
    """Well separated classes in 64 dimensions, values about as large as pixels in [0, 1]."""
    generator = torch.Generator().manual_seed(seed)
    centres = torch.rand(classes, 64, generator=torch.Generator().manual_seed(99))
    y = torch.randint(classes, (rows,), generator=generator)
    return (centres[y] + 0.15 * torch.randn(rows, 64, generator=generator)).clamp(0, 1), y


def mlp(depth: int = 3, width: int = 64, act: Callable[[], nn.Module] = nn.ReLU, out: int = 10) -> nn.Sequential:
    torch.manual_seed(0)
    layers: list[nn.Module] = []
    for i in range(depth):
        layers += [nn.Linear(64 if i == 0 else width, width), act()]
    return nn.Sequential(*layers, nn.Linear(width, out))


def scaled(model: nn.Sequential, gain: float) -> nn.Sequential:
    """All hidden weights N(0, gain²/fan_in), biases zero."""
    generator = torch.Generator().manual_seed(1)
    with torch.no_grad():
        for module in list(model)[:-1]:
            if isinstance(module, nn.Linear):
                module.weight.normal_(0, gain / math.sqrt(module.in_features), generator=generator)
                module.bias.zero_()
    return model


def train(
    model: nn.Module,
    lr: float = 0.05,
    steps: int = 120,
    every: int = 2,
    optimizer: torch.optim.Optimizer | None = None,
    loss_fn: Callable[[Tensor, Tensor], Tensor] = nn.functional.cross_entropy,
    data: tuple[Tensor, Tensor] | None = None,
) -> Report:
    x, y = clusters() if data is None else data
    optimizer = optimizer or torch.optim.SGD(model.parameters(), lr)
    with softknee.watch(model, optimizer, every=every) as w:
        for step in range(steps):
            rows = torch.arange(step * 64, step * 64 + 64) % len(x)
            loss = loss_fn(model(x[rows]), y[rows])
            loss.backward()
            optimizer.step()
            optimizer.zero_grad()
            w.log(loss=loss)
    return w.report()


def found(report: Report, symptom: str) -> list[Finding]:
    return [f for f in report.findings if f.symptom == symptom and f.severity != "info"]


def checked(report: Report, symptom: str) -> bool:
    title = next(s.title for s in SYMPTOMS if s.name == symptom)
    return title in report.checked


# -- healthy


def healthy() -> object:
    path = Path(__file__).parents[2] / "benchmarks" / "healthy.py"
    spec = importlib.util.spec_from_file_location("healthy", path)
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    sys.modules["healthy"] = module
    spec.loader.exec_module(module)
    return module


HEALTHY = (
    "mlp-relu-3x64-sgd0.05",
    "mlp-gelu-3x64-sgd0.05",
    "mlp-tanh-3x64-sgd0.05",
    "mlp-relu-8x64-sgd0.03-exact",
    "mlp-relu-3x64-sgd0.05-sparse",
    "mlp-relu-3x64-sgd0.05-accumulate4-batch16",
    "mlp-relu-3x64-sgd0.05-bf16",
    "imbalanced-relu-2x64-sgd0.05",
    "cnn-relu-2x16-sgd0.05",
    "transformer-relu-2x32-adam0.002",
)


@pytest.mark.parametrize("name", HEALTHY)
def test_a_healthy_training_raises_no_alarm(name: str) -> None:
    pytest.importorskip("sklearn")
    bench = healthy()
    training = next(t for t in bench.trainings() if t.name == name)  # type: ignore[attr-defined]
    outcome = bench.run(training)  # type: ignore[attr-defined]
    assert outcome.alarms == ()
    assert outcome.accuracy >= 0.85


def test_the_bench_has_fifty_distinct_runs() -> None:
    names = [t.name for t in healthy().trainings()]  # type: ignore[attr-defined]
    assert len(set(names)) == len(names) >= 50


# -- one by one


def test_wrong_gain_accumulates_over_depth() -> None:
    report = train(mlp(depth=8), steps=150)
    (cause,) = found(report, "wrong_gain")
    assert cause.evidence["measured_gain"] == pytest.approx(1 / math.sqrt(3), rel=0.02)
    assert cause.evidence["exact_gain"] == pytest.approx(math.sqrt(2), rel=1e-6)
    assert "exact_gain" in cause.repairs


def test_wrong_gain_near_misses() -> None:
    assert not found(train(mlp(depth=3)), "wrong_gain")  # the same gain, too shallow to matter
    torch.manual_seed(0)
    layers: list[nn.Module] = []
    for _ in range(8):
        layers += [nn.Linear(64, 64), nn.LayerNorm(64), nn.ReLU()]
    normalised = train(nn.Sequential(*layers, nn.Linear(64, 10)))  # the same gain, normalised away
    assert checked(normalised, "wrong_gain")
    assert not found(normalised, "wrong_gain")


def test_wrong_gain_too_large_saturates() -> None:
    report = softknee.diagnose(scaled(mlp(4, act=nn.Tanh), 40.0), clusters())
    (cause,) = found(report, "wrong_gain")
    assert cause.evidence["measured_gain"] == pytest.approx(40, rel=0.05)
    assert all(f.caused_by == cause.id for f in found(report, "saturation"))


def test_unstable_update() -> None:
    report = train(mlp(), lr=10.0)
    (finding,) = found(report, "unstable_update")
    assert finding.caused_by is None
    assert finding.repairs[0] == "learning_rate"
    near = mlp()
    assert not found(train(near, optimizer=torch.optim.Adam(near.parameters(), 1e-2)), "unstable_update")


def test_a_zero_initialised_layer_is_not_unstable() -> None:
    model = mlp()
    nn.init.zeros_(model[-1].weight)
    assert not found(train(model), "unstable_update")


def test_frozen_update() -> None:
    report = train(mlp(), lr=1e-9)
    (finding,) = found(report, "frozen_update")
    assert [f.caused_by for f in found(report, "flat_loss")] == [finding.id]
    near = train(mlp(), lr=1e-2)
    assert checked(near, "frozen_update")
    assert not found(near, "frozen_update")


class Planted(nn.Module):
    """Goes wrong in a chosen place."""

    def __init__(self, where: str) -> None:
        super().__init__()
        self.first, self.second, self.head = nn.Linear(64, 32), nn.Linear(32, 32), nn.Linear(32, 10)
        self.one, self.two = nn.ReLU(), nn.ReLU()
        self.where = where

    def forward(self, x: Tensor) -> Tensor:
        h = self.one(self.first(x))
        if self.where == "forward":
            h = torch.log(h)  # −∞ where a unit is silent
        if self.where == "gradient":
            h = h + torch.sqrt(h - h.detach())  # √0: finite, but its derivative is not
        if self.where == "large":
            h = h * 1e20
        h = self.two(self.second(h))
        return self.head(h / 1e20 if self.where == "large" else h)


def test_nonfinite_names_the_first_site_forward() -> None:
    torch.manual_seed(0)
    report = train(Planted("forward"), every=1, steps=60)
    (finding,) = found(report, "nonfinite")
    assert finding.site == "two#0"
    assert finding.evidence["step"] == 0
    assert finding.evidence["where"] == "forward"


def test_nonfinite_in_the_gradient_comes_before_what_follows_from_it() -> None:
    torch.manual_seed(0)
    report = train(Planted("gradient"), every=1, steps=60)
    (finding,) = found(report, "nonfinite")
    assert finding.evidence["where"] == "gradient"
    assert finding.site == "first.weight"


def test_nonfinite_in_one_row_of_the_data() -> None:
    x, y = clusters()
    x[70, 3] = math.nan
    report = train(mlp(), data=(x, y), every=1, steps=60)
    causes = report.causes
    assert [cause.symptom for cause in causes] == ["nonfinite"]
    assert causes[0].evidence["where"] == "input"
    assert causes[0].evidence["step"] == 1


def test_nonfinite_in_a_row_that_is_not_sampled() -> None:
    class Rare(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.net = mlp(2)
            self.act = nn.ReLU()

        def forward(self, x: Tensor) -> Tensor:
            poison = torch.zeros(len(x), 1)
            poison[1] = math.inf
            return self.net(self.act(x - poison))

    x, _ = clusters(rows=6400)
    with softknee.watch(Rare(), every=1) as w:
        w.model(x[:1000])
        w.log(loss=1.0)
    (finding,) = found(w.report(), "nonfinite")
    assert finding.site == "act#0"


def test_large_but_finite_is_no_nan() -> None:
    torch.manual_seed(0)
    assert not found(softknee.diagnose(Planted("large"), clusters()), "nonfinite")


def test_missing_nonlinearity() -> None:
    torch.manual_seed(0)
    report = softknee.diagnose(
        nn.Sequential(nn.Linear(64, 64), nn.Linear(64, 64), nn.ReLU(), nn.Linear(64, 10)), clusters()
    )
    (finding,) = found(report, "missing_nonlinearity")
    assert "insert_activation" in finding.repairs
    assert not found(softknee.diagnose(mlp(2), clusters()), "missing_nonlinearity")
    low_rank = nn.Sequential(nn.Linear(64, 4), nn.Linear(4, 64), nn.ReLU(), nn.Linear(64, 10))
    assert not found(softknee.diagnose(low_rank, clusters()), "missing_nonlinearity")


def test_exploding_gradient() -> None:
    class Shrinking(nn.Module):
        """The signal is kept, the gradient is not: each layer's input gradient is multiplied by 4."""

        def __init__(self) -> None:
            super().__init__()
            self.layers = nn.ModuleList(nn.Linear(64, 64) for _ in range(8))
            self.head = nn.Linear(64, 10)

        def forward(self, x: Tensor) -> Tensor:
            for layer in self.layers:
                h = torch.tanh(layer(x))
                x = h * 4 - (h * 3).detach()
            return self.head(x)

    torch.manual_seed(0)
    model = Shrinking()
    for layer in model.layers:
        nn.init.orthogonal_(layer.weight, 1.2)
    report = softknee.diagnose(model, clusters())
    assert found(report, "exploding_gradient")
    assert not found(softknee.diagnose(scaled(mlp(8), math.sqrt(2)), clusters()), "exploding_gradient")


def test_dead_unit() -> None:
    model = mlp(3)
    nn.init.constant_(model[2].bias, -10.0)
    report = train(model)
    (finding,) = [f for f in found(report, "dead_unit") if f.caused_by is None]
    assert finding.site == "3#0"
    assert finding.evidence["dead"] == 64
    assert [cause.symptom for cause in report.causes] == ["dead_unit"]
    assert "revive" in finding.repairs


def test_sparse_is_not_dead() -> None:
    model = scaled(mlp(2, width=256), math.sqrt(2))
    nn.init.constant_(model[0].bias, -0.5)
    report = softknee.diagnose(model, clusters())
    assert report.stats()[0].zeros > 0.6
    assert not found(report, "dead_unit")


def test_a_unit_that_dies_in_mid_training_is_found() -> None:
    model, (x, y) = mlp(2), clusters()
    with softknee.watch(model, every=1) as w:
        for step in range(200):
            if step == 60:
                nn.init.constant_(model[0].bias, -10.0)
            loss = nn.functional.cross_entropy(model(x[:64]), y[:64])
            w.log(loss=loss)
    assert found(w.report(), "dead_unit")


def test_saturation() -> None:
    model = mlp(2, act=nn.Sigmoid)
    with torch.no_grad():
        model[0].weight.mul_(100)
    report = softknee.diagnose(model, clusters())
    assert [f.site for f in found(report, "saturation")] == ["1#0"]
    assert not found(softknee.diagnose(mlp(2, act=nn.Sigmoid), clusters()), "saturation")
    one_sided = mlp(2)
    nn.init.constant_(one_sided[0].bias, -0.5)
    assert not found(softknee.diagnose(one_sided, clusters()), "saturation")


def test_forward_drift_needs_a_hundredfold() -> None:
    shrinking = softknee.diagnose(scaled(mlp(8), 0.5), clusters())
    (finding,) = found(shrinking, "forward_drift")
    assert finding.evidence["factor"] < 1e-2
    growing = softknee.diagnose(scaled(mlp(8), 4.0), clusters())
    assert found(growing, "forward_drift")[0].evidence["factor"] > 100
    assert not found(softknee.diagnose(scaled(mlp(8), math.sqrt(2)), clusters()), "forward_drift")


def test_vanishing_gradient() -> None:
    report = softknee.diagnose(mlp(10, act=nn.Sigmoid), clusters())
    assert found(report, "vanishing_gradient")
    near = softknee.diagnose(scaled(mlp(10), math.sqrt(2)), clusters())
    assert checked(near, "vanishing_gradient")
    assert not found(near, "vanishing_gradient")


def test_constant_output() -> None:
    model = mlp(3)
    nn.init.constant_(model[4].bias, -10.0)
    assert found(softknee.diagnose(model, clusters()), "constant_output")
    x, y = clusters()
    imbalanced = mlp(2, out=2)
    nn.init.constant_(imbalanced[-1].bias, 0.0)
    with torch.no_grad():
        imbalanced[-1].bias[0] = 3.0  # always class 0, yet rows differ
    report = softknee.diagnose(imbalanced, (x, (y == 11).long()))
    assert report.output["top_class_share"] == 1.0
    assert not found(report, "constant_output")


def test_constant_output_of_a_regression() -> None:
    x, _ = clusters()
    model = mlp(2, out=1)
    target = x.sum(1, keepdim=True) * 10
    nn.init.zeros_(model[-1].weight)
    assert found(softknee.diagnose(model, (x, target)), "constant_output")
    offset = mlp(2, out=1)
    with torch.no_grad():
        offset[-1].weight.mul_(300)
        offset[-1].bias.fill_(1e3)  # a large mean is not a constant
    assert not found(softknee.diagnose(offset, (x, 1e3 + target - target.mean())), "constant_output")


def test_flat_loss_only_at_chance() -> None:
    (finding,) = found(train(mlp(8), steps=100), "flat_loss")
    assert "over 100 steps" in finding.message
    model = mlp(2)
    train(model, lr=0.2, steps=400)
    settled = train(model, lr=1e-5, steps=100)  # flat, but it has learned
    assert not found(settled, "flat_loss")


def test_rising_loss() -> None:
    model = mlp(2)
    climbing = torch.optim.SGD(model.parameters(), 0.02, maximize=True)
    assert found(train(model, optimizer=climbing), "rising_loss")
    assert not found(train(mlp(2)), "rising_loss")


def test_over_confidence() -> None:
    x, y = clusters()
    wrong = y.clone()
    wrong[:200] = (wrong[:200] + 1) % 10
    model = mlp(2)
    train(model, lr=0.2, steps=300)
    with torch.no_grad():
        model[-1].weight.mul_(20)
        model[-1].bias.mul_(20)
    report = softknee.diagnose(model, (x, y), held_out=(x, wrong))
    (finding,) = found(report, "over_confidence")
    assert finding.evidence["train_held_out_gap"] == pytest.approx(200 / 640, abs=0.02)
    assert finding.evidence["regularisers"] == "none found"
    assert finding.evidence["held_out"] == "yes"
    assert "temperature" in finding.repairs
    assert not found(softknee.diagnose(model, (x, y)), "over_confidence")  # sure, and right


def test_a_model_that_learned_nothing_is_not_called_over_confident() -> None:
    """Surer than it is right, as every untrained model is: near miss."""
    x, y = clusters()
    model = mlp(2)
    with torch.no_grad():
        model[-1].weight.mul_(20)
        confidence = model(x).softmax(-1).amax(-1)
    right = (model(x).argmax(-1) == y.roll(7)).float().mean()
    assert confidence.mean() - right > 0.2 and not (confidence > 0.99).any()
    assert not found(softknee.diagnose(model, (x, y.roll(7))), "over_confidence")


# -- weights that start all alike


@pytest.mark.parametrize("act", [nn.ReLU, nn.Tanh])
def test_zero_weights_are_the_cause_and_dead_units_follow(act: Callable[[], nn.Module]) -> None:
    model = mlp(3, act=act)
    for parameter in model.parameters():
        nn.init.zeros_(parameter)
    report = softknee.diagnose(model, clusters())
    assert [f.symptom for f in report.causes] == ["wrong_gain"]
    assert report.plan().repairs[0].name == "exact_gain"


def test_one_zero_layer_that_a_residual_network_starts_with_is_no_fault() -> None:
    class Block(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.inner, self.outer = nn.Linear(64, 64), nn.Linear(64, 64)
            nn.init.zeros_(self.outer.weight)

        def forward(self, x: Tensor) -> Tensor:
            return x + self.outer(self.inner(x).relu())

    torch.manual_seed(0)
    assert not found(
        softknee.diagnose(nn.Sequential(*[Block() for _ in range(4)], nn.Linear(64, 10)), clusters()), "wrong_gain"
    )


# -- an activation too flat for its depth


@pytest.mark.parametrize("depth", [12, 30])
def test_sigmoids_at_depth_are_the_cause_not_their_initialisation(depth: int) -> None:
    report = softknee.diagnose(mlp(depth, act=nn.Sigmoid), clusters())
    assert [f.symptom for f in report.causes] == ["fading_activation"]
    (cause,) = report.causes
    assert cause.evidence["best_factor_per_layer"] == pytest.approx(1.8462285 / 4.7226461, rel=1e-6)
    assert {"forward_drift", "vanishing_gradient"} <= {f.symptom for f in report.consequences(cause)}
    plan = report.plan()
    assert plan.repairs[0].name == "gelu_exact_gain" and not plan.repairs[0].folk


def test_where_the_depth_is_not_too_much_for_the_activation() -> None:
    """Near misses: few sigmoids; a stock initialisation that the exact gain mends; sigmoids behind normalisation."""
    x, y = clusters()
    assert not found(softknee.diagnose(mlp(4, act=nn.Sigmoid), (x, y)), "fading_activation")
    relu = softknee.diagnose(mlp(12), (x, y))
    assert [f.symptom for f in relu.causes] == ["wrong_gain"]
    width = x.shape[1]
    blocks = [m for _ in range(12) for m in (nn.Linear(width, width), nn.BatchNorm1d(width), nn.Sigmoid())]
    assert not found(softknee.diagnose(nn.Sequential(*blocks, nn.Linear(width, 10)), (x, y)), "fading_activation")


# -- what cannot be judged


def test_every_symptom_says_what_it_needs() -> None:
    report = softknee.diagnose(mlp(2), clusters()[0])
    for title in ("flat loss", "unstable update", "over-confidence", "vanishing gradient"):
        assert any(line.startswith(f"{title}: ") for line in report.unchecked)
        assert title not in report.checked
    assert set(report.checked) | {line.split(":")[0] for line in report.unchecked} == {s.title for s in SYMPTOMS}


def test_thresholds_and_sources_are_told() -> None:
    for finding in train(mlp(8), steps=100).findings:
        assert finding.threshold
        assert finding.source
        assert finding.evidence
