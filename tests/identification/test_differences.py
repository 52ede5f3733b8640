"""Two censuses compared: the right pairs, the right worst input, the known trap, and nothing where nothing differs."""

import json
from importlib import resources

import pytest
import torch
from torch import nn
from typer.testing import CliRunner

import softknee
from softknee.cli import app
from softknee.errors import InputError
from softknee.identification import Census, Site, identify
from softknee.identification.census import Candidate, Conflict
from softknee.identification.differences import trap
from softknee.identification.grouping import written


class Block(nn.Module):
    def __init__(self, act):
        super().__init__()
        self.up, self.down, self.act = nn.Linear(8, 16), nn.Linear(16, 8), act

    def forward(self, x):
        return x + self.down(self.act(self.up(x)))


class Gated(nn.Module):
    def __init__(self, act):
        super().__init__()
        self.gate, self.up, self.act = nn.Linear(8, 16), nn.Linear(8, 16), act

    def forward(self, x):
        return self.act(self.gate(x)) * self.up(x)


def census(make, layers=3, block=Block, inputs=None):
    model = nn.Sequential(*[block(make()) for _ in range(layers)])
    if block is Gated:
        model = model[:1]
    return identify(model, torch.randn(2, 8) if inputs is None else inputs)


def site(name, key="layers.0.act#0", parameters=None, **more):
    path, _, call = key.rpartition("#")
    return Site(key, path, int(call), name, parameters or {}, **more)


def whole(*sites, executed=True, **more):
    return Census("model", sites, executed=executed, **more)


def test_the_tanh_form_for_the_exact_one():
    (found,) = census(lambda: nn.GELU("tanh")).against(census(nn.GELU))
    assert (found.before, found.after, len(found)) == ("gelu_tanh", "gelu", 3)
    assert found.distance == pytest.approx(4.73e-4, rel=1e-2) and abs(found.at[0]) == pytest.approx(2.70, abs=0.01)
    assert found.both and "|Δf| ≤ 4.7e-4 at x = ±2.70" in str(found)
    assert found.sites == "{0–2}.act#0"
    assert "approximate" in found.trap.why


@pytest.mark.parametrize(
    ("first", "second", "distance", "at"),
    # reference figures, |x| ≤ 12
    [("gelu", "quick_gelu", 2.03e-2, 2.27), ("silu", "gelu", 0.193, None), ("relu", "gelu", 0.170, None)],
)
def test_how_far_apart(first, second, distance, at):
    (found,) = whole(site(first)).against(whole(site(second)))
    assert found.distance == pytest.approx(distance, rel=5e-3)
    assert at is None or abs(found.at[0]) == pytest.approx(at, abs=0.01)


def test_what_grows_is_said_to_grow():
    (found,) = whole(site("leaky_relu", parameters={"negative_slope": 0.1})).against(
        whole(site("leaky_relu", parameters={"negative_slope": 0.2}))
    )
    assert "|Δf| ≥ 1.2 at x = -12.0" in str(found) and "Darknet" in found.trap.why


@pytest.mark.parametrize(
    ("first", "second"),
    [
        (site("relu6"), site("hardtanh", parameters={"min_val": 0.0, "max_val": 6.0})),
        (site("silu"), site("swish", parameters={"beta": 1.0})),
        (site("swiglu", role="gate"), site("silu", role="gate")),
        (site("leaky_relu", parameters={"negative_slope": 0.01}), site("leaky_relu")),
    ],
)
def test_another_spelling_is_no_difference(first, second):
    found = whole(first).against(whole(second))
    assert not found.differences and found.same == 1 and not found.fails("any")


def test_gates():
    (found,) = census(nn.SiLU, block=Gated).against(census(lambda: nn.GELU("tanh"), block=Gated))
    assert found.kind == "numeric" and "SwiGLU" in found.trap.why
    (told,) = census(nn.SiLU, block=Gated).against(whole(site("gelu", role="gate", key="0.act#0"), executed=False))
    assert (told.before, told.after) == ("swiglu", "gelu") and len(told.at) == 2


def test_a_layer_that_is_missing_and_one_that_is_not_told():
    long, short = census(nn.ReLU, 4), census(nn.ReLU, 3)
    (found,) = long.against(short)
    assert (found.kind, found.before, found.after) == ("missing", "relu", None)
    assert long.against(short).fails("any") and not long.against(short).fails("numeric")
    told = long.against(Census("config.json", short.sites, executed=False))
    assert not told.differences and "1 × relu" in told.notes[0]


def test_sites_are_paired_by_layer_where_names_differ():
    llama = [site("silu", f"model.layers.{i}.mlp.act_fn#0", role="gate") for i in range(4)]
    engine = [site("relu2" if i == 2 else "silu", f"blk.{i}.ffn#0", role="gate") for i in range(4)]
    (found,) = whole(*llama).against(whole(*engine))
    assert found.pairs == (("model.layers.2.mlp.act_fn#0", "blk.2.ffn#0"),)
    assert found.trap is not None and "BitNet" in "".join(found.trap.seen)


def test_an_inserted_activation_shifts_nothing():
    first = [site("relu", "a#0"), site("gelu", "b#0"), site("tanh", "c#0")]
    second = [site("relu", "p#0"), site("silu", "q#0"), site("gelu", "r#0"), site("tanh", "s#0")]
    (found,) = whole(*first).against(whole(*second))
    assert (found.kind, found.after) == ("missing", "silu")


def test_unknown_candidates_layouts_and_conflicts():
    unknown = site(
        None, note="nearest is gelu", candidates=(Candidate("gelu", {}, 0.6), Candidate("gelu_tanh", {}, 0.4))
    )
    assert not whole(site("gelu")).against(whole(unknown)).differences
    (found,) = whole(site("relu")).against(whole(unknown))
    assert found.kind == "unknown" and whole(site("relu")).against(whole(unknown)).fails("any")
    (found,) = whole(site("swiglu", layout="gate_up")).against(whole(site("swiglu", layout="up_gate")))
    assert found.kind == "layout"
    conflict = Conflict(("a#0",), "gelu", "gelu_tanh", ("hidden_act", "hidden_activation"))
    assert "CONFLICT" in whole(site("gelu"), conflicts=(conflict,)).against(whole(site("gelu"))).notes[0]


def test_rounding_in_half_precision_is_no_difference():
    fitted = site("leaky_relu", parameters={"negative_slope": 0.0999756}, dtype="float16", evidence="inferred")
    exact = site("leaky_relu", parameters={"negative_slope": 0.1})
    assert not whole(exact).against(whole(fitted)).differences
    assert whole(exact).against(whole(site("leaky_relu", parameters={"negative_slope": 0.0999756}))).differences


def test_a_model_is_the_same_as_itself():
    every = [site(a.name, f"{i}.act#0") for i, a in enumerate(softknee.activations())]
    found = whole(*every).against(whole(*every))
    assert not found.differences and found.same == len(every)


def test_every_trap_names_activations_and_is_found():
    held = json.loads(resources.files("softknee.identification").joinpath("mismatches.json").read_text())
    for each in held["traps"]:
        names = each["between"]
        assert all(softknee.get(name).name == name for name in names)
        assert each["why"] and each["usually"]
        assert trap(site(names[0]), site(names[-1])) is not None
    assert trap(site("relu"), site("tanh")) is None


@pytest.mark.parametrize(
    ("keys", "expected"),
    [
        (["a#0"], "a#0"),
        ([f"h.{i}.a#0" for i in (0, 1, 2)], "h.{0–2}.a#0"),
        ([f"h.{i}.a#0" for i in (0, 2, 3, 4)], "h.{0,2–4}.a#0"),
        ([f"h.{i}.a#0" for i in (1, 3, 5, 7)], "h.{1,3,…,7}.a#0"),
    ],
)
def test_written(keys, expected):
    assert written(keys) == expected


def test_on_the_command_line(tmp_path):
    (tmp_path / "models.py").write_text(
        "from torch import nn\n"
        "def before(): return nn.Sequential(nn.Linear(4, 8), nn.GELU('tanh'), nn.Linear(8, 2))\n"
        "def after(): return nn.Sequential(nn.Linear(4, 8), nn.GELU(), nn.Linear(8, 2))\n"
    )
    at = f"{tmp_path}/models.py"
    runner = CliRunner()
    result = runner.invoke(app, ["identify", f"{at}:before", "--against", f"{at}:after"])
    assert result.exit_code == 1 and "gelu_tanh → gelu" in result.output
    result = runner.invoke(app, ["identify", f"{at}:before", "--against", f"{at}:after", "--fail-on", "none", "--json"])
    assert result.exit_code == 0 and json.loads(result.stdout)["differences"][0]["after"] == "gelu"
    assert runner.invoke(app, ["identify", f"{at}:before", "--against", f"{at}:before"]).exit_code == 0
    result = runner.invoke(app, ["identify", f"{at}:before", "--fail-on", "some"])
    assert isinstance(result.exception, InputError)
