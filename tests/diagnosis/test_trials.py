"""Trials: what an arm is, how it is judged, which one wins, and what happens when training fails."""

from __future__ import annotations

import dataclasses
import json
import pickle
import random

import numpy as np
import pytest
import torch
from torch import nn

import softknee
from softknee.diagnosis import Repair, Settings, Trial
from softknee.diagnosis.trials import CONTROL_SEED, SIGNIFICANCE, try_repairs
from softknee.errors import InputError

ROWS = 200


class Scored(nn.Module):
    """A model that carries the share of rows it gets right: training it only reads that off."""

    def __init__(self, right: float = 0.2) -> None:
        super().__init__()
        self.right = right
        self.weight = nn.Parameter(torch.zeros(2))


def raising(name: str, right: float, size: int = 2, **more: object) -> Repair:
    def change(model: nn.Module, generator: torch.Generator | None) -> nn.Module:
        model.right = right
        return model

    return Repair(name, f"right on {right:.0%}", f"right = {right}", size, change=change, **more)


def setting(name: str, size: int = 1, **changes: object) -> Repair:
    return Repair(name, name, name, size, tune=lambda settings: dataclasses.replace(settings, **changes))


def read_off(model: nn.Module, settings: Settings) -> np.ndarray:
    return (np.arange(ROWS) < round(model.right * ROWS)).astype(float)


def run(*repairs: Repair, train_fn=read_off, build_fn=Scored, **more: object) -> Trial:
    return try_repairs(repairs, train_fn, build_fn=build_fn, **more)


def test_the_better_arm_wins_and_every_arm_is_shown():
    trial = run(raising("mend", 0.9), raising("harm", 0.05), raising("nothing", 0.2))
    assert [arm.name for arm in trial.arms] == ["baseline", "control", "mend", "harm", "nothing"]
    assert [arm.verdict for arm in trial.arms] == ["baseline", "not different", "better", "worse", "not different"]
    assert trial.best is trial["mend"]
    best = trial.best
    assert (best.accuracy, best.fixed, best.broken) == (0.9, 140, 0)
    assert best.difference == pytest.approx(0.7)
    assert best.interval[0] < 0.7 < best.interval[1]
    assert best.p == pytest.approx(2 * 0.5**140)
    assert "mend scores 0.900" in trial.reason
    text = str(trial)
    assert all(arm.name in text for arm in trial.arms)
    assert "edit: right = 0.9" in text


def test_nothing_helped_is_an_answer():
    trial = run(raising("a", 0.2), raising("b", 0.21))
    assert trial.best is None
    assert trial.reason.startswith("nothing helped")
    assert len(run()) == 2


def test_ties_go_to_the_smallest_edit_then_to_the_order():
    trial = run(raising("large", 0.92, size=3), raising("small", 0.91, size=1), raising("also small", 0.915, size=1))
    assert trial.best.name == "small"
    assert set(trial.ties) == {"large", "small", "also small"}
    assert "large" in trial.reason
    # an arm that is told apart from the most accurate one is no tie, however small its edit
    trial = run(raising("large", 0.92, size=3), raising("small", 0.6, size=1))
    assert trial.best.name == "large"
    assert trial["small"].verdict == "better"


def test_only_beyond_what_a_seed_is_worth():
    def noisy(model: nn.Module, settings: Settings) -> np.ndarray:
        lift = 0.3 if settings.seed >= CONTROL_SEED else 0.0
        return (np.arange(ROWS) < round((model.right + lift) * ROWS)).astype(float)

    trial = run(raising("within", 0.45), train_fn=noisy)
    assert trial.control.verdict == "better"
    assert trial["within"].p < SIGNIFICANCE
    assert trial["within"].verdict == "not different"
    assert trial.best is None
    assert "another seed" in trial.reason
    assert run(raising("beyond", 0.95), train_fn=noisy).best.name == "beyond"


def test_holm_over_the_arms():
    # 8 fixed, 1 broken: p = 0.039, which alone is significant and among ten arms is not
    def nearly(model: nn.Module, settings: Settings) -> np.ndarray:
        scores = np.arange(ROWS) < 40
        if model.right == 0.9:
            scores[:1], scores[40:48] = False, True
        return scores

    assert run(raising("one", 0.9), train_fn=nearly).best.name == "one"
    trial = run(*(raising(f"arm {i}", 0.9) for i in range(10)), train_fn=nearly)
    assert trial.best is None
    assert all(arm.p < SIGNIFICANCE for arm in trial.arms[2:])


@pytest.mark.parametrize("fault", ["raises", "nan scores", "nan weights"])
def test_an_arm_that_fails_is_an_arm(fault):
    def train(model: nn.Module, settings: Settings) -> np.ndarray:
        if model.right == 0.9:
            if fault == "raises":
                raise RuntimeError("loss is inf\nat step 3")
            if fault == "nan scores":
                return np.full(ROWS, np.nan)
            nn.init.constant_(model.weight, float("nan"))
        return read_off(model, settings)

    trial = run(raising("fails", 0.9), raising("works", 0.8), train_fn=train)
    assert trial["fails"].verdict.startswith("failed: ")
    assert trial["fails"].accuracy is None
    assert trial.best.name == "works"
    assert "failed: " in str(trial)
    if fault == "raises":
        assert trial["fails"].verdict == "failed: RuntimeError: loss is inf"


def test_a_baseline_that_diverges_is_still_the_baseline():
    def train(model: nn.Module, settings: Settings) -> np.ndarray:
        if settings.clip_norm is None:
            nn.init.constant_(model.weight, float("inf"))
            return np.zeros(ROWS)
        return np.ones(ROWS)

    trial = run(setting("clip", clip_norm=1.0), train_fn=train)
    assert "diverged" in trial.baseline.note
    assert trial.best.name == "clip"


@pytest.mark.parametrize("fails", [0, CONTROL_SEED])
def test_where_only_the_baseline_or_the_control_fails_nothing_is_chosen(fails):
    def train(model: nn.Module, settings: Settings) -> np.ndarray:
        if model.right == 0.2 and settings.seed == fails:
            raise FloatingPointError("nan")
        return read_off(model, settings)

    trial = run(raising("mend", 0.9), train_fn=train)
    assert trial.best is None
    assert "nothing chosen" in trial.reason
    assert "failed: FloatingPointError: nan" in trial.reason
    assert trial["mend"].accuracy == 0.9
    json.dumps(trial.to_dict(), allow_nan=False)
    assert "mend" in str(trial)


def test_an_arm_that_ends_well_where_baseline_and_control_fail_is_better():
    def train(model: nn.Module, settings: Settings) -> np.ndarray:
        if settings.lr_factor == 1.0 and settings.clip_norm is None:
            raise FloatingPointError("nan")
        return read_off(Scored(0.8 if settings.clip_norm else 0.3), settings)

    trial = run(setting("rate", lr_factor=0.1), setting("clip", clip_norm=1.0), raising("swap", 0.9), train_fn=train)
    assert trial["swap"].verdict.startswith("failed")
    assert (trial["rate"].verdict, trial["rate"].p) == ("better", None)
    assert trial.best.name == "clip"
    assert trial.reason == "clip scores 0.800 where the baseline has failed: FloatingPointError: nan"
    assert "ends well" in str(trial)


def test_interrupts_go_through_and_generators_are_put_back():
    def interrupted(model: nn.Module, settings: Settings) -> np.ndarray:
        torch.rand(3), np.random.rand(3), random.random()
        if model.right == 0.9:
            raise KeyboardInterrupt
        return read_off(model, settings)

    torch.manual_seed(5), np.random.seed(5), random.seed(5)
    expected = torch.rand(4), np.random.rand(4), random.random()
    torch.manual_seed(5), np.random.seed(5), random.seed(5)
    with pytest.raises(KeyboardInterrupt):
        run(raising("mend", 0.9), train_fn=interrupted)
    assert torch.equal(torch.rand(4), expected[0])
    assert (np.random.rand(4) == expected[1]).all()
    assert random.random() == expected[2]


def test_arms_start_alike_and_the_control_does_not():
    seen: dict[str, list[torch.Tensor]] = {"weights": [], "draws": []}

    def train(model: nn.Module, settings: Settings) -> torch.Tensor:
        seen["weights"].append(model.weight.detach().clone())
        seen["draws"].append(torch.rand(2))
        return torch.ones(5)

    def drawing(model: nn.Module, generator: torch.Generator | None) -> nn.Module:
        torch.rand(7, generator=generator)
        return model

    run(Repair("draws", "", "", 1, change=drawing), train_fn=train, build_fn=lambda: nn.Linear(3, 3), seeds=(4,))
    baseline, control, arm = seen["weights"]
    assert torch.equal(baseline, arm)
    assert not torch.equal(baseline, control)
    assert torch.equal(seen["draws"][0], seen["draws"][2])  # what a repair draws does not shift the training's draws


def test_a_copy_of_the_model_is_drawn_anew_and_the_model_is_left_alone():
    model = nn.Sequential(nn.Linear(4, 4), nn.BatchNorm1d(4), nn.MultiheadAttention(4, 2), Scored()).eval()
    with torch.no_grad():
        for parameter in model.parameters():
            parameter.fill_(3.0)
    model[0].weight.grad = torch.ones(4, 4)
    starts = []

    def train(started: nn.Module, settings: Settings) -> torch.Tensor:
        starts.append({name: p.detach().clone() for name, p in started.named_parameters()})
        assert started.training
        assert started[0].weight.grad is None
        nn.init.constant_(started[0].weight, 7.0)
        return torch.ones(5)

    trial = try_repairs((), train, model=model)
    assert all((p == 3.0).all() for p in model.parameters())
    assert not model.training
    assert trial.baseline.note == "1 parameters kept their weights: 3.weight"
    assert (starts[0]["3.weight"] == 3.0).all()
    assert (starts[0]["1.weight"] == 1.0).all()
    torch.manual_seed(0)
    assert torch.equal(starts[0]["0.weight"], nn.Linear(4, 4).weight)  # as if built under that seed
    assert not (starts[0]["2.in_proj_weight"] == 3.0).any()


def test_a_repair_of_trained_weights_continues_from_them():
    model = nn.Linear(2, 2)
    nn.init.constant_(model.weight, 3.0)
    revive = Repair("revive", "", "", 2, keeps_weights=True, change=lambda model, generator: model)
    starts = []

    def train(started: nn.Module, settings: Settings) -> torch.Tensor:
        starts.append(started.weight.detach().clone())
        return torch.ones(5)

    trial = try_repairs([revive], train, model=model)
    assert (starts[2] == 3.0).all()
    assert not (starts[0] == 3.0).any()
    assert "continues from the diagnosed weights" in trial["revive"].note
    assert try_repairs([revive], train, build_fn=lambda: nn.Linear(2, 2))["revive"].verdict.startswith("not tried")


def test_several_seeds_are_paired_and_rows_stay_together():
    def train(model: nn.Module, settings: Settings) -> np.ndarray:
        scores = read_off(model, settings)
        return np.roll(scores, settings.seed % 7)

    trial = run(raising("mend", 0.9), train_fn=train, seeds=(0, 1, 2))
    assert trial.best.scores.shape == (3, ROWS)
    assert trial.best.fixed - trial.best.broken == 3 * 140
    assert trial.seeds == (0, 1, 2)
    assert trial.rows == ROWS
    # three copies of the same rows say no more than one does
    one = run(raising("mend", 0.3)).arms[2]
    three = run(raising("mend", 0.3), seeds=(0, 1, 2)).arms[2]
    assert three.fixed == 3 * one.fixed
    assert three.interval == one.interval
    assert three.p > one.p / 10


def test_scores_may_be_any_floats():
    def train(model: nn.Module, settings: Settings) -> torch.Tensor:
        noise = torch.randn(ROWS, generator=torch.Generator().manual_seed(settings.seed % 2**31))
        return -1.0 + noise + model.right

    trial = run(raising("mend", 3.0), train_fn=train)
    assert trial.best.name == "mend"
    assert trial.best.difference == pytest.approx(2.8, abs=1e-6)


def test_a_run_is_scores_too():
    def train(model: nn.Module, settings: Settings) -> object:
        def answers(inputs: torch.Tensor) -> torch.Tensor:
            return nn.functional.one_hot((inputs[:, 0] < model.right * ROWS).long(), 2).float()

        return softknee.evaluate(answers, rows, metrics=[metric], version="v")

    x = torch.arange(ROWS).float().unsqueeze(1)
    rows = softknee.Dataset(x, torch.ones(ROWS, dtype=torch.long))
    metric = "accuracy"
    assert run(raising("mend", 0.9), train_fn=train).best.accuracy == 0.9


def test_a_setting_that_training_never_reads_was_not_tried():
    def deaf(model: nn.Module, settings: Settings) -> np.ndarray:
        return read_off(model, settings)

    def hears(model: nn.Module, settings: Settings) -> np.ndarray:
        assert settings.clip_norm in (None, 1.0)
        return read_off(model, settings)

    clip = setting("clip", clip_norm=1.0)
    assert run(clip, train_fn=deaf)["clip"].verdict == "not tried: train_fn never reads settings.clip_norm"
    assert run(clip, train_fn=hears)["clip"].verdict == "not different"
    # sent to another process it is plain settings, and counts as read
    sent = run(clip, train_fn=lambda model, settings: (pickle.loads(pickle.dumps(settings)), np.ones(3))[1])
    assert sent["clip"].verdict == "not different"
    assert run(clip, train_fn=lambda model, s: (dataclasses.replace(s, seed=1), np.ones(3))[1])["clip"].p == 1.0


def test_by_hand_repairs_are_listed_untried():
    trial = run(Repair("temperature", "", "", 1, by_hand="fit it after training"))
    assert trial["temperature"].verdict == "not tried: fit it after training"
    assert trial.best is None


def test_one_trained_repair_is_kept_and_it_is_the_winner():
    trained = []

    def train(model: nn.Module, settings: Settings) -> np.ndarray:
        trained.append(model)
        return read_off(model, settings)

    trial = run(raising("a", 0.5), raising("b", 0.9), raising("c", 0.6), train_fn=train)
    assert trial.best.model is trained[3]
    assert trial.baseline.model is trained[0]
    assert [arm.name for arm in trial.arms if arm.model is not None] == ["baseline", "b"]


def test_applying_the_winner():
    trial = run(raising("mend", 0.9), setting("clip", clip_norm=1.0))
    model = Scored()
    mended = trial.best.apply(model)
    assert (model.right, mended.right) == (0.2, 0.9)
    assert trial.best.apply(model, inplace=True) is model
    assert trial["clip"].settings(Settings(seed=3)) == Settings(seed=3, clip_norm=1.0)
    assert trial.baseline.settings() == Settings()
    with pytest.raises(InputError, match="repairs nothing"):
        trial.baseline.apply(model)


def test_to_dict_is_plain_json():
    def fails(model: nn.Module, settings: Settings) -> np.ndarray:
        if model.right == 0.5:
            raise RuntimeError("no")
        return read_off(model, settings)

    trial = run(raising("mend", 0.9), raising("fails", 0.5), train_fn=fails)
    written = json.loads(json.dumps(trial.to_dict(), allow_nan=False))
    assert written["winner"] == "mend"
    assert set(written["arms"][2]) >= {
        "name", "title", "accuracy", "fixed", "broken", "p", "difference", "interval", "verdict", "seconds", "edit",
    }  # fmt: skip
    assert written["arms"][3]["accuracy"] is None


def test_progress(capsys):
    ended = []
    run(raising("mend", 0.9), progress=ended.append)
    assert [arm.name for arm in ended] == ["baseline", "control", "mend"]
    run(raising("mend", 0.9))  # not a terminal: nothing
    assert capsys.readouterr().out == ""
    run(raising("mend", 0.9), progress=True)


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"seeds": ()}, "seeds must be"),
        ({"seeds": 3}, r"such as \(3,\)"),
        ({"build_fn": 3}, "build_fn must be"),
        ({"seeds": (0.5,)}, "seeds must be"),
        ({"seeds": (1, 1)}, "seeds must differ"),
        ({"train_fn": 3}, "train_fn must be a function"),
        ({"train_fn": lambda model, settings: 0.9}, "one score per validation row"),
        ({"train_fn": lambda model, settings: None}, "not NoneType"),
        ({"train_fn": lambda model, settings: torch.ones(3, 2)}, r"not shape \(3, 2\)"),
        ({"train_fn": lambda model, settings: []}, "not empty"),
        ({"train_fn": lambda model, settings: np.ones(3 if model.right == 0.2 else 4)}, "same validation rows"),
        ({"train_fn": lambda model, settings: np.ones(1 + settings.seed), "seeds": (0, 1)}, "rows are fixed"),
        ({"build_fn": None}, "give model or build_fn"),
        ({"build_fn": lambda: 3}, "build_fn must return"),
    ],
)
def test_wrong_arguments_are_named(arguments, message):
    with pytest.raises(InputError, match=message):
        run(raising("mend", 0.9), **arguments)


def test_repairs_need_names_of_their_own():
    with pytest.raises(InputError, match="names of their own"):
        run(raising("mend", 0.9), raising("mend", 0.8))


def test_a_winner_that_was_overtaken_is_trained_again():
    def train(model: nn.Module, settings: Settings) -> np.ndarray:
        scores = np.arange(ROWS) < {0.2: 40, 0.90: 180, 0.95: 190, 0.955: 200}[model.right]
        if model.right == 0.955:
            scores[:9] = False  # as right as "large", but not told apart from "small"
        return scores

    arms = raising("small", 0.90, 1), raising("large", 0.95, 2), raising("top", 0.955, 3)
    assert run(*arms[:2], train_fn=train).best.name == "large"
    trial = run(*arms, train_fn=train)
    assert trial.best.name == "small"
    assert trial.best.model.right == 0.90
