"""Repairs: each on a model that needs it, on a copy, with the edit it names; and the plan that proposes them."""

from __future__ import annotations

import json
import pickle
import time

import numpy as np
import pytest
import torch
from torch import nn
from torch.nn import functional as F

import softknee
from softknee.diagnosis import Finding, Plan, Repair, Report, Settings, SiteStatistics
from softknee.diagnosis.repairs import BUILDERS, FOLK_ADVICE, propose, revive, temper
from softknee.errors import InputError

X = torch.randn(64, 8, generator=torch.Generator().manual_seed(0))


def mlp(activation=nn.ReLU, depth: int = 3, width: int = 16) -> nn.Sequential:
    torch.manual_seed(0)
    layers: list[nn.Module] = [nn.Linear(8, width), activation()]
    for _ in range(depth - 1):
        layers += [nn.Linear(width, width), activation()]
    return nn.Sequential(*layers, nn.Linear(width, 3))


def finding(*repairs: str, symptom: str = "wrong_gain", site: str = "model", caused_by: str | None = None) -> Finding:
    return Finding(symptom, site, symptom, "warning", "measured", {}, "t", "s", caused_by, repairs)


def report(model: nn.Module, *findings: Finding, x: torch.Tensor = X, statistics=()) -> Report:
    census = softknee.identify(model, x)
    return Report("model", "ill", findings, (), (), len(x), 0, tuple(statistics), (), census=census)


def plan(model: nn.Module, *repairs: str, **more) -> Plan:
    return propose(report(model, finding(*repairs), **more), model)


def same(one: nn.Module, other: nn.Module) -> bool:
    mine, theirs = one.state_dict(), other.state_dict()
    return mine.keys() == theirs.keys() and all(torch.equal(mine[key], theirs[key]) for key in mine)


# --- weights -------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("method", ["exact_gain", "he_gain", "xavier_gain"])
def test_gains_mend_a_signal_that_fades(method):
    model = mlp(depth=20, width=64)
    before = [parameter.clone() for parameter in model.parameters()]
    repair = plan(model, method)[method]
    mended = repair.apply(model, generator=torch.Generator().manual_seed(0))
    assert all(torch.equal(*pair) for pair in zip(model.parameters(), before, strict=True))
    assert mended(X).std(0).mean() > 100 * model(X).std(0).mean()
    again = repair.apply(model, generator=torch.Generator().manual_seed(0))
    assert same(mended, again)
    assert repair.apply(model, inplace=True) is model
    assert repair.edit.startswith("softknee.nn.init.initialize(model, softknee.identify(model, example_inputs)")


def dead(model: nn.Module, key: str, units: tuple[int, ...], layer: str) -> SiteStatistics:
    return SiteStatistics(
        key, key.split("#")[0], "relu", "hidden", 64, 16, 0.0, 0.0, 0.0, 1.0, None, len(units), units, 0.05, 0.0, 0,
        0.0, 0.0, (), (), layer=layer,
    )  # fmt: skip


def test_revive_brings_dead_units_back_and_changes_no_output():
    model = mlp()
    with torch.no_grad():
        model[2].bias[[3, 5]] = -100.0
    assert not model[:4](X)[:, [3, 5]].any()
    repair = plan(model, "revive", statistics=[dead(model, "3#0", (3, 5), "2")])["revive"]
    mended = repair.apply(model)
    torch.testing.assert_close(mended(X), model(X))
    assert (mended[:4](X)[:, [3, 5]] > 0).any(0).all()
    assert (model[2].bias[[3, 5]] == -100.0).all()
    mended(X).square().sum().backward()
    assert mended[4].weight.grad[:, [3, 5]].abs().sum() > 0  # so the unit learns again
    assert repair.keeps_weights
    assert "revive 2 dead units" in repair.title


def test_revive_forgets_the_optimizer_state_of_those_weights_only():
    model = mlp()
    census = softknee.identify(model, X)
    optimizer = torch.optim.Adam(model.parameters())
    model(X).square().sum().backward()
    optimizer.step()
    before = optimizer.state[model[2].weight]["exp_avg"].clone()
    revive(model, census, "3#0", [3], optimizer=optimizer)
    state = optimizer.state[model[2].weight]["exp_avg"]
    assert not state[3].any()
    assert torch.equal(state[:3], before[:3])
    assert not optimizer.state[model[2].bias]["exp_avg"][3]
    assert not optimizer.state[model[4].weight]["exp_avg_sq"][:, 3].any()
    assert optimizer.state[model[4].weight]["exp_avg_sq"][:, 2].any()


def test_revive_channels_behind_a_flatten():
    torch.manual_seed(0)
    model = nn.Sequential(nn.Conv2d(1, 4, 3), nn.ReLU(), nn.Flatten(), nn.Linear(4 * 36, 2))
    x = torch.randn(5, 1, 8, 8)
    with torch.no_grad():
        model[0].bias[2] = -100.0
    mended = revive(nn.Sequential(*model), softknee.identify(model, x), "1#0", [2])
    block = mended[3].weight.view(2, 4, 36)
    assert not block[:, 2].any()
    assert block[:, [0, 1, 3]].all()
    assert (mended[:2](x)[:, 2] > 0).any()


# --- the model -----------------------------------------------------------------------------------------------------


def test_swap_replaces_hidden_modules_and_keeps_the_rest():
    model = nn.Sequential(mlp(), nn.Sigmoid()).eval()
    repairs = plan(model, "swap_activation")
    leaky, gelu = repairs["leaky_relu"].apply(model), repairs["gelu"].apply(model)
    assert [type(module).__name__ for module in leaky[0][1::2]] == ["LeakyReLU"] * 3
    assert [type(module).__name__ for module in gelu[0][1::2]] == ["GELU"] * 3
    assert leaky[0][1].negative_slope == 0.01
    assert isinstance(gelu[1], nn.Sigmoid)  # the head is no hidden activation
    assert not leaky[0][1].training
    assert isinstance(model[0][1], nn.ReLU)
    assert same(model, leaky)
    assert repairs["gelu"].edit == "ReLU → nn.GELU(approximate='none') at 0.1, 0.3, 0.5"
    # a unit with a negative pre-activation lets a gradient through again
    z = torch.full((1, 16), -1.0, requires_grad=True)
    leaky[0][1](z).sum().backward()
    assert (z.grad == pytest.approx(0.01)) if z.grad.dim() == 0 else torch.allclose(z.grad, torch.tensor(0.01))


def test_a_reused_module_is_swapped_wherever_it_stands():
    shared = nn.ReLU()
    model = nn.Sequential(nn.Linear(8, 8), shared, nn.Linear(8, 8), shared, nn.Linear(8, 2))
    swapped = plan(model, "swap_activation")["leaky_relu"].apply(model)
    assert isinstance(swapped[1], nn.LeakyReLU)
    assert swapped[1] is swapped[3]
    swapped(X)


def test_there_is_no_swap_to_what_is_already_there():
    repairs = plan(mlp(nn.GELU), "swap_activation")
    assert "gelu" not in [repair.name for repair in repairs]
    assert repairs["leaky_relu"].apply(mlp(nn.GELU))[1].negative_slope == 0.01


class Functional(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.first, self.second = nn.Linear(8, 8), nn.Linear(8, 2)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return self.second(F.relu(self.first(x)))


def test_a_functional_site_gets_file_line_and_edit():
    model = Functional()
    repair = plan(model, "swap_activation")["leaky_relu"]
    line = Functional.forward.__code__.co_firstlineno + 1
    assert f"test_repairs.py:{line}" in repair.edit
    assert "→ F.leaky_relu" in repair.edit
    with pytest.raises(InputError, match=rf"test_repairs\.py:{line}"):
        repair.apply(model)


def test_an_activation_in_torch_s_own_code_is_an_argument():
    model = nn.TransformerEncoderLayer(8, 2, 16, batch_first=True)
    repair = plan(model, "swap_activation", x=torch.randn(2, 3, 8))["gelu"]
    assert repair.edit == "the module at '': activation=F.gelu"
    with pytest.raises(InputError, match="activation=F.gelu"):
        repair.apply(model)


def test_a_missing_activation_is_inserted():
    torch.manual_seed(0)
    model = nn.Sequential(nn.Linear(8, 8), nn.Tanh(), nn.Linear(8, 8), nn.Linear(8, 8), nn.Linear(8, 2))
    chain = softknee.identify(model, X).collapses[0].paths
    asked = finding("insert_activation", symptom="missing_nonlinearity", site=chain[-1])
    repair = propose(report(model, asked), model)["insert_activation"]
    mended = repair.apply(model)
    assert not softknee.identify(mended, X).collapses
    assert isinstance(mended[2][1], nn.Tanh)
    assert isinstance(mended[3][1], nn.Tanh)
    assert isinstance(model[2], nn.Linear)
    assert repair.edit.startswith("model[2] = nn.Sequential(model[2], nn.Tanh())")
    # a chain that no finding names was meant
    asked = finding("insert_activation", symptom="missing_nonlinearity", site="elsewhere")
    assert "insert_activation" not in [r.name for r in propose(report(model, asked), model)]


def test_dropout_stands_before_the_head():
    model = mlp()
    repair = plan(model, "dropout")["dropout"]
    mended = repair.apply(model)
    assert repair.edit == "model[6] = nn.Sequential(nn.Dropout(0.5), model[6])"
    assert isinstance(mended[6][0], nn.Dropout)
    torch.testing.assert_close(mended.eval()(X), model(X))
    assert not torch.equal(mended.train()(X), model(X))
    assert plan(nn.Linear(8, 3), "dropout")["dropout"].apply(nn.Linear(8, 3))[0].p == 0.5  # the root is the head


def test_temperature_divides_logits_and_changes_no_prediction():
    model = mlp()
    with torch.no_grad():
        model[6].weight.mul_(50.0)
    census = softknee.identify(model, X)
    targets = torch.randint(0, 3, (64,), generator=torch.Generator().manual_seed(0))
    value = softknee.verification.fit_temperature(model(X).detach(), targets)
    cooled = temper(model, census, value)
    torch.testing.assert_close(cooled(X), model(X) / value)
    assert F.cross_entropy(cooled(X), targets) < F.cross_entropy(model(X), targets)
    assert torch.equal(cooled(X).argmax(1), model(X).argmax(1))
    assert isinstance(model[6], nn.Linear)
    assert temper(model.double(), census, 2.0)(X.double()).dtype == torch.float64
    with pytest.raises(InputError, match="positive number"):
        temper(model, census, 0.0)
    with pytest.raises(InputError, match="fit_temperature"):
        plan(mlp(), "temperature")["temperature"].apply(mlp())


# --- training settings ---------------------------------------------------------------------------------------------


def test_repairs_of_the_training_settings():
    model = mlp()
    repairs = plan(model, "learning_rate", "clip", "label_smoothing")
    settings = Settings(seed=3, lr_factor=2.0)
    assert repairs["lower_learning_rate"].settings(settings) == Settings(3, 0.2)
    assert repairs["clip"].settings(settings) == Settings(3, 2.0, clip_norm=1.0)
    assert repairs["label_smoothing"].settings() == Settings(label_smoothing=0.1)
    for name in ("lower_learning_rate", "clip", "label_smoothing"):
        unchanged = repairs[name].apply(model)
        assert unchanged is not model
        assert same(unchanged, model)
    assert plan(model, "exact_gain")["exact_gain"].settings(settings) == settings


def test_a_frozen_update_wants_a_higher_learning_rate():
    model = mlp()
    frozen = finding("learning_rate", symptom="frozen_update")
    assert propose(report(model, frozen), model)["raise_learning_rate"].settings().lr_factor == 10.0
    both = propose(report(model, frozen, finding("learning_rate", symptom="rising_loss")), model)
    assert both["lower_learning_rate"].settings().lr_factor == 0.1


# --- the plan ------------------------------------------------------------------------------------------------------


def test_causes_come_first_and_folk_advice_last_and_marked():
    model = mlp()
    cause = finding("exact_gain", "he_gain")
    consequence = finding("swap_activation", symptom="dead_unit", site="3#0", caused_by=cause.id)
    made = propose(report(model, consequence, cause), model)
    assert [repair.name for repair in made] == [
        "exact_gain", "he_gain", "leaky_relu", "gelu", "lower_learning_rate", "clip",
    ]  # fmt: skip
    assert made["exact_gain"].addresses == (cause.id,)
    assert not made["exact_gain"].folk
    assert made["leaky_relu"].addresses == (consequence.id,)
    assert made["leaky_relu"].folk  # it answers a consequence, and no cause
    assert made["clip"].addresses == ()
    assert made["clip"].folk
    direct = propose(report(model, finding("swap_activation", symptom="dead_unit", site="3#0")), model)
    assert not direct["leaky_relu"].folk
    text = str(made)
    assert all(repair.name in text and repair.edit in text for repair in made)
    assert "folk advice" in text
    assert len(made) == 6


def test_a_healthy_model_gets_no_repairs():
    model = mlp()
    assert len(propose(report(model), model)) == 0
    note = Finding("flat_loss", "model", "flat", "info", "m", {}, "t", "s", None, ("learning_rate",))
    assert len(propose(report(model, note), model)) == 0
    assert str(propose(report(model), model)).startswith("No repairs")


def test_a_model_that_could_not_be_identified_gets_repairs_of_its_settings():
    asked = finding("exact_gain", "dropout", "temperature", "clip", "insert_activation", "revive")
    made = propose(Report("model", "ill", (asked,), (), (), 1, 0, (), ()))
    assert [repair.name for repair in made] == ["clip", "lower_learning_rate"]


def test_names_that_do_not_exist():
    with pytest.raises(InputError, match="did you mean 'exact_gain'"):
        plan(mlp(), "exact_gian")
    with pytest.raises(InputError, match="did you mean 'exact_gain'"):
        plan(mlp(), "exact_gain")["exact_gian"]
    assert set(FOLK_ADVICE) <= set(BUILDERS)


def test_a_plan_for_another_model_is_refused():
    repairs = plan(mlp(), "exact_gain", "swap_activation", "dropout")
    for repair in repairs:
        if repair.change is not None:
            with pytest.raises(InputError, match=r"another model|identify this model"):
                repair.apply(nn.Sequential(nn.Linear(8, 8)))


def test_repairs_and_plans_are_plain_results():
    model = mlp()
    made = plan(model, "exact_gain", "swap_activation", "clip", "dropout", "temperature", "label_smoothing")
    json.dumps(made.to_dict(), allow_nan=False)
    for repair in made:
        copied = pickle.loads(pickle.dumps(repair))
        assert copied == repair
        assert "function" not in repr(repair)
        assert repair.edit
        assert repair.source or repair.name == "lower_learning_rate"
    assert isinstance(made["clip"], Repair)


def test_a_plan_without_a_model_wants_build_fn():
    made = propose(report(mlp(), finding("exact_gain")))
    with pytest.raises(InputError, match="build_fn"):
        made.try_all(lambda model, settings: np.ones(3))
    assert made.try_all(lambda model, settings: np.ones(3), build_fn=mlp).best is None


def test_a_report_knows_the_model_that_arms_start_from():
    model = mlp(depth=20, width=64)
    made = softknee.diagnose(model, X).plan()
    assert made.model is model
    starts = []

    def train_fn(started: nn.Module, settings: Settings) -> np.ndarray:
        starts.append((settings.lr_factor, settings.clip_norm, started(X).std(0).mean().item()))
        return np.ones(3)

    trial = made.try_all(train_fn)
    assert trial.best is None
    assert [arm.name for arm in trial][:3] == ["baseline", "control", "exact_gain"]
    assert starts[2][2] > 100 * starts[0][2]
    with softknee.watch(model) as w:
        model(X)
    assert w.report().plan().model is model


# --- all of it, on real digits -------------------------------------------------------------------------------------


def test_the_exact_gain_mends_a_deep_relu_network_and_the_folk_advice_does_not():
    datasets = pytest.importorskip("sklearn.datasets")
    pixels, digits = datasets.load_digits(return_X_y=True)
    x, y = torch.tensor(pixels / 16, dtype=torch.float32), torch.tensor(digits)
    order = torch.randperm(len(x), generator=torch.Generator().manual_seed(0))
    train, valid = order[:1100], order[1100:1450]

    def build() -> nn.Module:
        layers: list[nn.Module] = []
        for _ in range(8):
            layers += [nn.Linear(64, 64), nn.ReLU()]
        return nn.Sequential(*layers, nn.Linear(64, 10))

    def train_fn(model: nn.Module, settings: Settings) -> torch.Tensor:
        generator = torch.Generator().manual_seed(settings.seed)
        optimizer = torch.optim.SGD(model.parameters(), lr=0.05 * settings.lr_factor)
        for _ in range(40):
            for rows in train[torch.randperm(len(train), generator=generator)].split(64):
                loss = F.cross_entropy(model(x[rows]), y[rows])
                optimizer.zero_grad()
                loss.backward()
                if settings.clip_norm is not None:
                    nn.utils.clip_grad_norm_(model.parameters(), settings.clip_norm)
                optimizer.step()
        model.eval()
        with torch.no_grad():
            return model(x[valid]).argmax(1) == y[valid]

    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    try:
        began = time.perf_counter()
        torch.manual_seed(0)
        model = build()
        made = propose(report(model, finding("exact_gain"), x=x[train]), model)
        trial = made.try_all(train_fn)
        assert time.perf_counter() - began < 60
    finally:
        torch.set_num_threads(threads)
    assert trial.baseline.accuracy < 0.2
    assert trial.control.verdict == "not different"
    assert trial.best.name == "exact_gain"
    assert trial.best.accuracy > 0.9
    assert all(trial[name].verdict == "not different" for name in ("leaky_relu", "gelu", "lower_learning_rate", "clip"))
    with torch.no_grad():
        assert (trial.best.model(x[valid]).argmax(1) == y[valid]).double().mean().item() == trial.best.accuracy


def test_a_swap_with_its_exact_gain_mends_deep_sigmoids_where_neither_does_alone():
    from softknee import demo
    from softknee.diagnosis import Settings

    data = demo.Digits.load(0)
    x, y = demo.columns(data.validation)

    def build():
        layers = [m for _ in range(12) for m in (nn.Linear(64, 64), nn.Sigmoid())]
        return nn.Sequential(*layers, nn.Linear(64, 10))

    def train(model, settings):
        demo.train(model, data.train, settings, epochs=20)
        with torch.no_grad():
            return model(x).argmax(-1) == y

    torch.manual_seed(0)
    plan = demo.train(model := build(), data.train, Settings(), 10, watched=True).plan()
    trial = plan.try_all(train, build_fn=build, progress=False)
    assert trial.best is not None and trial.best.name == "gelu_exact_gain" and trial.best.accuracy > 0.8
    assert all(trial[name].accuracy < 0.2 for name in ("exact_gain", "gelu", "control"))
    repaired = trial.best.apply(model)
    assert sum(isinstance(m, nn.GELU) for m in repaired) == 12 and isinstance(model[1], nn.Sigmoid)
    std = repaired[2].weight.std().item() * 8
    assert std == pytest.approx(softknee.get("gelu").facts.gain, rel=0.05)
