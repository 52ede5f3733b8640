"""kernelize: what it replaces and what it leaves, that the function stays, that a wrong replacement is caught."""

from __future__ import annotations

import copy
import functools
import io
import json
import pickle
import subprocess
import sys

import pytest
import torch
import torch.nn.functional as F
from rich.console import Console
from torch import nn

import softknee
from softknee.errors import InputError, SoftkneeError
from softknee.kernelization import substitutes, survey
from softknee.kernelization.substitutes import Recipe, Substitute
from softknee.report import render


class MLP(nn.Module):
    """As transformers writes it."""

    def __init__(self, act=None, dim=8, hidden=12):
        super().__init__()
        self.gate_proj, self.up_proj = nn.Linear(dim, hidden), nn.Linear(dim, hidden)
        self.down_proj = nn.Linear(hidden, dim)
        self.act_fn = nn.SiLU() if act is None else act

    def forward(self, x):
        return self.down_proj(self.act_fn(self.gate_proj(x)) * self.up_proj(x))


class Packed(nn.Module):
    def __init__(self):
        super().__init__()
        self.both, self.act = nn.Linear(8, 16), nn.GELU()

    def forward(self, x):
        gate, up = self.both(x).chunk(2, dim=-1)
        up = up * self.act(gate)
        return up


class Stored(nn.Module):
    def __init__(self):
        super().__init__()
        self.a, self.b, self.act, self.drop = nn.Linear(8, 8), nn.Linear(8, 8), nn.ReLU(), nn.Dropout(0.3)

    def forward(self, x):
        hidden = self.act(self.a(x))
        linear = self.b(x)
        x = hidden * linear
        x = self.drop(x)
        if x.dtype != self.a.weight.dtype:
            x = x.to(self.a.weight.dtype)
        return x


class Functions(nn.Module):
    def __init__(self):
        super().__init__()
        self.a, self.b = nn.Linear(8, 8), nn.Linear(8, 8)
        self.act = F.mish

    def forward(self, x, scale: float = 1.0):
        y = F.silu(self.a(x)) * self.b(x)
        z = torch.sigmoid(y).relu() + F.gelu(y, approximate="tanh") + self.act(y)
        if scale > 0.5:
            z = z + F.leaky_relu(y, negative_slope=0.2) * scale
        return z.tanh() + torch.softmax(y, dim=-1) + F.elu(y, 0.5)


class QuickGELU(nn.Module):
    def forward(self, x):
        return x * torch.sigmoid(1.702 * x)


class Swish(nn.Module):
    def __init__(self):
        super().__init__()
        self.beta = nn.Parameter(torch.tensor(1.3))

    def forward(self, x):
        return x * torch.sigmoid(self.beta * x)


def x(*shape):
    return torch.randn(*(shape or (4, 8)))


def classes(model):
    return [type(m) for m in model.modules()]


def sites(result):
    return {r.site: r.runs for r in result.replaced}


# -- what is replaced


@pytest.mark.parametrize("train", [False, True])
@pytest.mark.parametrize(
    ("build", "runs"),
    [
        (MLP, {"act_fn#0": "swiglu"}),
        (lambda: MLP(nn.ReLU()), {"act_fn#0": "reglu"}),
        (lambda: MLP(nn.Sigmoid()), {"act_fn#0": "glu"}),
        (lambda: MLP(nn.GELU("tanh")), {"act_fn#0": "geglu_tanh"}),
        (lambda: MLP(QuickGELU()), {"act_fn#0": "geglu_quick"}),
        (lambda: MLP(nn.PReLU(12)), {"act_fn#0": "prelu"}),
        (lambda: MLP(Swish()), {"act_fn#0": "swish"}),
        (Packed, {"act#0": "geglu"}),
        (Stored, {"act#0": "reglu"}),
    ],
)  # fmt: skip
def test_modules_and_products(build, runs, train):
    model = build().train(train)
    before = copy.deepcopy(model)
    result = softknee.kernelize(model, x())
    assert sites(result) == runs and not result.skipped
    assert result.verified.compared == ("outputs and gradients" if train else "outputs")
    assert result.verified.max_difference <= result.verified.tolerance
    given = x()
    with torch.random.fork_rng():
        wanted = before(given)
    got = model(given)
    torch.testing.assert_close(got, wanted)
    got.sum().backward()
    wanted.sum().backward()
    for (name, mine), theirs in zip(model.named_parameters(), before.parameters(), strict=True):
        torch.testing.assert_close(mine.grad, theirs.grad, msg=name)


def test_functions_in_a_forward():
    model = Functions().train()
    before = copy.deepcopy(model)
    result = softknee.kernelize(model, x())
    assert not result.skipped
    assert [r.shown for r in result.replaced] == [
        "silu → swiglu", "sigmoid", "relu", "gelu_tanh", "mish", "leaky_relu", "tanh", "softmax", "elu",
    ]  # fmt: skip
    given = x()
    torch.testing.assert_close(model(given), before(given))
    torch.testing.assert_close(model(given, scale=0.1), before(given, scale=0.1))  # the branch not seen


def test_without_inputs_each_site_is_tried_by_itself():
    model = nn.Sequential(MLP(), QuickGELU(), Functions(), nn.Linear(8, 2))
    result = softknee.kernelize(model)
    assert result.seconds_before is result.bytes_before is None and result.verified.max_difference is None
    assert "each site by itself" in str(result) and "not executed" in str(result)
    assert {"silu → swiglu", "quick_gelu", "softmax"} <= {r.shown for r in result.replaced}
    assert all(isinstance(m, Substitute) for m in (model[0], model[0].act_fn, model[1], model[2]))


def test_fewer_bytes_are_kept_for_a_product():
    result = softknee.kernelize(MLP(dim=64, hidden=256), x(32, 64))
    # silu(gate) itself is kept no more
    assert result.bytes_before - result.bytes_after == 32 * 256 * 4
    assert result.seconds_before > 0 and result.seconds_after > 0


def test_parameters_are_not_counted_and_storages_once():
    model = nn.Sequential(nn.Linear(8, 8, bias=False), nn.ReLU())
    result = softknee.kernelize(model, x())
    assert result.bytes_before == 2 * 4 * 8 * 4  # the input, and relu's output; no weight


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16, torch.float64])
def test_dtypes(dtype):
    model = nn.Sequential(MLP(), QuickGELU(), Functions()).to(dtype).train()
    result = softknee.kernelize(model, x().to(dtype))
    assert len(result.replaced) == 11 and model(x().to(dtype)).dtype == dtype


# -- the model stays what it was


def test_revert_is_exact():
    shared = nn.SiLU()
    model = nn.Sequential(MLP(shared), MLP(shared), nn.PReLU(8), Functions(), nn.BatchNorm1d(8), nn.Dropout()).train()
    model[2].eval()
    optimizer = torch.optim.SGD(model.parameters(), 0.1)
    state = {k: v.clone() for k, v in model.state_dict().items()}
    objects, kinds, modes = [id(m) for m in model.modules()], classes(model), [m.training for m in model.modules()]
    attributes = [dict(vars(m)) for m in model.modules()]
    parameters = [id(p) for p in model.parameters()]
    given = x()
    random = torch.random.get_rng_state()
    wanted = model(given)
    torch.random.set_rng_state(random)
    model.load_state_dict(state)

    result = softknee.kernelize(model, given)
    assert torch.equal(torch.random.get_rng_state(), random)
    assert classes(model) != kinds
    for _ in range(2):
        assert list(model.state_dict()) == list(state)
        assert all(torch.equal(v, state[k]) for k, v in model.state_dict().items())
        assert [id(m) for m in model.modules()] == objects and [m.training for m in model.modules()] == modes
        assert [id(p) for p in model.parameters()] == parameters
        assert [id(p) for g in optimizer.param_groups for p in g["params"]] == parameters
        assert all(vars(m) == a for m, a in zip(model.modules(), attributes, strict=True))
        assert all(p.grad is None for p in model.parameters())
        result.revert()
        assert classes(model) == kinds
    assert torch.equal(model(given), wanted)


def test_old_checkpoints_load_and_learned_parameters_stay_the_same_object():
    model = nn.Sequential(nn.Linear(8, 8), nn.PReLU(8), Swish())
    old = {k: torch.rand_like(v) for k, v in model.state_dict().items()}
    weight = model[1].weight
    softknee.kernelize(model, x())
    model.load_state_dict(old)
    assert model[1].weight is weight and torch.equal(weight, old["1.weight"])
    given = x()
    wanted = F.prelu(given, old["1.weight"])
    torch.testing.assert_close(model[1](given), wanted)
    torch.testing.assert_close(model[2](given), given * torch.sigmoid(old["2.beta"] * given))


def test_a_shared_module_stays_shared():
    act = nn.Tanh()
    model = nn.Sequential(act, nn.Linear(8, 8), act)
    result = softknee.kernelize(model, x())
    assert sites(result) == {"0#0": "tanh", "0#1": "tanh"}
    assert model[0] is model[2] is act and len(result.changes) == 1


def test_hooks_stay_and_see_what_they_saw():
    model = MLP().train()
    seen = []
    handle = model.act_fn.register_forward_hook(lambda m, args, out: seen.append((args[0], out)))
    result = softknee.kernelize(model, x())
    (row,) = result.replaced
    assert row.runs == "silu" and "has hooks" in row.note
    seen.clear()
    model(x())
    torch.testing.assert_close(seen[0][1], F.silu(seen[0][0]))
    handle.remove()


def test_what_hooks_hold_is_not_copied():
    class Holder:
        def __deepcopy__(self, memo):
            raise AssertionError("copied")

        def hook(self, module, args, output):
            return None

    model = nn.Sequential(nn.SiLU(), QuickGELU())
    for act in model:
        act.register_forward_hook(Holder().hook)
    assert len(softknee.kernelize(model).replaced) == 2


def test_hooks_that_come_later_are_called_too():
    model = MLP()
    result = softknee.kernelize(model, x())
    assert result.replaced[0].fused
    seen = []
    model.act_fn.register_forward_hook(lambda m, args, out: seen.append(out))
    model(x())
    assert len(seen) == 1


def test_what_comes_in_the_place_of_an_activation_later_is_used():
    model, given = MLP(), x()
    softknee.kernelize(model, given)
    model.act_fn = nn.Tanh()
    wanted = model.down_proj(torch.tanh(model.gate_proj(given)) * model.up_proj(given))
    assert torch.equal(model(given), wanted)


class Steep(nn.Module):
    def __init__(self):
        super().__init__()
        self.slope = 0.2

    def forward(self, x):
        return torch.where(x > 0, x, self.slope * x)


def test_an_attribute_that_is_set_counts():
    model = nn.Sequential(nn.LeakyReLU(0.1), Steep())
    assert len(softknee.kernelize(model, x()).replaced) == 2
    model[0].negative_slope = 0.5
    assert model[0](torch.tensor(-1.0)).item() == -0.5 and isinstance(model[0], Substitute)
    model[1].slope = 0.5  # which only its own forward knows of
    assert model[1](torch.tensor(-1.0)).item() == -0.5 and type(model[1]) is Steep


def test_inplace_stays_in_place():
    for act in (nn.SiLU(inplace=True), nn.ReLU(inplace=True)):
        model = nn.Sequential(nn.Linear(8, 8), act).eval()
        softknee.kernelize(model, x())
        with torch.no_grad():
            h = x()
            assert model[1](h) is h and (h >= -0.3).all()


def test_other_inputs_than_one_tensor_of_numbers_take_the_own_forward():
    model = nn.ReLU()
    softknee.kernelize(model)
    assert isinstance(model, Substitute)
    assert model(torch.tensor([-1, 2])).tolist() == [0, 2]
    assert model(input=torch.tensor([-1.0])).tolist() == [0.0]
    with pytest.raises(TypeError):
        model()


def test_identification_sees_the_same_activations():
    model = nn.Sequential(MLP(), QuickGELU(), nn.LeakyReLU(0.3), Functions())
    before = softknee.identify(model, x())
    softknee.kernelize(model, x())
    after = softknee.identify(model, x())
    assert [(s.key, s.activation, s.role) for s in after] == [(s.key, s.activation, s.role) for s in before]
    assert [s.parameters for s in after] == [s.parameters for s in before]


def test_copies_and_pickles_stay_kernelized():
    model, given = nn.Sequential(MLP(), Stored(), nn.PReLU(8), QuickGELU()).eval(), x()
    softknee.kernelize(model, given)
    file = io.BytesIO()
    torch.save(model, file)
    file.seek(0)
    for other in (copy.deepcopy(model), pickle.loads(pickle.dumps(model)), torch.load(file, weights_only=False)):
        assert classes(other) == classes(model)
        assert torch.equal(other(given), model(given))
        assert not {p.data_ptr() for p in other.parameters()} & {p.data_ptr() for p in model.parameters()}
        assert repr(other) == repr(model) and "softknee.PReLU" in repr(model)


def test_torch_compile_takes_it_whole():
    for model in (MLP(), Functions(), Stored().eval()):
        given = x()
        softknee.kernelize(model, given)
        wanted = model(given)
        torch.compiler.reset()
        got = torch.compile(model, fullgraph=True, backend="aot_eager")(given)
        torch.testing.assert_close(got, wanted)
        got.sum().backward()
        assert all(p.grad is not None for p in model.parameters())


def test_a_compiled_model_is_kernelized_inside():
    model, given = MLP(), x()
    compiled = torch.compile(model, backend="eager")
    wanted = compiled(given)
    result = softknee.kernelize(compiled, given)
    assert isinstance(model, Substitute) and result.replaced[0].fused
    torch.testing.assert_close(compiled(given), wanted)


def test_transforms():
    model, given = MLP().double(), x().double()
    wanted = torch.func.jacrev(model)(given)
    softknee.kernelize(model, given)
    torch.testing.assert_close(torch.func.jacrev(model)(given), wanted)
    torch.testing.assert_close(torch.func.vmap(model)(given), model(given))


def test_autocast_and_checkpointing():
    from torch.utils.checkpoint import checkpoint

    model, given = MLP().train(), x()
    reference = copy.deepcopy(model)
    softknee.kernelize(model, given)
    grads = []
    for each in (reference, model):
        with torch.autocast("cpu", torch.bfloat16):
            y = checkpoint(each, given, use_reentrant=False)
        y.float().sum().backward()
        grads.append([p.grad for p in each.parameters()])
    for theirs, ours in zip(*grads, strict=True):
        torch.testing.assert_close(ours, theirs, rtol=0.02, atol=0.02)  # bfloat16's ε is 0.008


class Cubic(nn.Module):
    """gelu_new: under autocast the power is float32 on CUDA, and so is what follows."""

    def forward(self, x):
        return 0.5 * x * (1 + torch.tanh(0.7978845608028654 * (x + 0.044715 * torch.pow(x, 3.0))))


@pytest.mark.parametrize("build", [nn.Softplus, lambda: nn.Softmax(-1), Cubic, nn.SiLU, QuickGELU])
def test_under_autocast_the_dtype_is_what_it_was(build, monkeypatch):
    model = build()
    softknee.kernelize(model)
    wide = isinstance(model, (nn.Softplus, nn.Softmax, Cubic))
    calls = []
    monkeypatch.setattr(substitutes, "call", lambda activation, *a, **k: calls.append(activation) or a[0])
    for autocast, ours in ((False, True), (True, not wide)):
        with torch.autocast("cpu", torch.bfloat16, enabled=autocast):
            model(x())
        assert bool(calls) is ours
        calls.clear()


# -- what is skipped


class Surrogate(nn.Module):
    """relu with another gradient."""

    def forward(self, x):
        return x + (x.relu() - x).detach()


class Counting(nn.Module):
    def __init__(self):
        super().__init__()
        self.calls = 0

    def forward(self, x):
        self.calls += 1
        return x.relu()


class Learned(nn.Module):
    def __init__(self):
        super().__init__()
        self.slope = nn.Parameter(torch.tensor(0.25))

    def forward(self, x):
        return torch.where(x > 0, x, self.slope * x)


class Bumpy(nn.Module):
    def forward(self, x):
        return torch.sin(3 * x) + x**2


class Modal(nn.Module):
    """Another function in training."""

    def forward(self, x):
        return x.tanh() if self.training else x.relu()


class Uncopied(nn.SiLU):
    def __init__(self):
        super().__init__()
        self.held = (i for i in ())


class Reducing(nn.SiLU):
    def __reduce__(self):
        return (Reducing, ())


class Registering(nn.SiLU):
    def __init_subclass__(cls, **kwargs):
        raise AssertionError("somebody's own")


class Slots(nn.SiLU):
    __slots__ = ("__weakref__2",)


def patched():
    module = nn.SiLU()
    module.forward = F.silu
    return module


def parametrized():
    module = nn.PReLU()
    nn.utils.parametrize.register_parametrization(module, "weight", nn.Identity())
    return module


def sharded():
    # the class that fully_shard makes
    return type("FSDPSiLU", (type("FSDPModule", (), {"__module__": "torch.distributed.fsdp"}), nn.SiLU), {})()


@pytest.mark.parametrize(
    ("build", "reason"),
    [
        (nn.RReLU, "random numbers"),
        (nn.Softmax, "dim is left"),
        (Surrogate, "gradient is not relu's"),
        (Counting, "changes the module"),
        (Learned, "holds slope"),
        (Bumpy, "nearest is"),
        (Modal, "is not relu's"),
        (Uncopied, "cannot be copied"),
        (Reducing, "pickles in a way of its own"),
        (Registering, "when a subclass is made"),
        (patched, "replaced on the module itself"),
        (parametrized, "parametrized"),
        (sharded, "FSDP"),
        (lambda: nn.PReLU(device="meta"), "meta device"),
        (softknee.nn.SiLU, "softknee's already"),
    ],
)  # fmt: skip
def test_modules_that_stay(build, reason):
    model = nn.Sequential(build())
    before = classes(model)
    result = softknee.kernelize(model)
    assert not result.replaced and "nothing to replace" in str(result) and classes(model) == before
    (row,) = result.skipped
    assert row.site == "0#0" and reason in row.reason


class Owner(nn.Module):
    """Fixed by what its forward is."""

    def __init__(self):
        super().__init__()
        self.a = nn.Linear(8, 8)


def silu_elsewhere(x):
    return F.silu(x)


class Elsewhere(Owner):
    def forward(self, x):
        return silu_elsewhere(self.a(x))


class WrittenOut(Owner):
    def forward(self, x):
        x = self.a(x)
        return 0.5 * x * (1 + torch.tanh(0.7978845608 * (x + 0.044715 * x**3)))


def decorator(function):
    @functools.wraps(function)
    def wrapped(*args, **kwargs):
        return function(*args, **kwargs)

    return wrapped


class Decorated(Owner):
    @decorator
    def forward(self, x):
        return F.silu(self.a(x))


class Noisy(Owner):
    def forward(self, x):
        return F.rrelu(self.a(x), training=self.training)


class Attending(nn.Module):
    def __init__(self):
        super().__init__()
        self.attention = nn.MultiheadAttention(8, 2)

    def forward(self, x):
        return self.attention(x, x, x)[0]


class SiLUOwner(Owner):
    def forward(self, x):
        return F.silu(self.a(x))


ShardedOwner = type("FSDPOwner", (type("FSDPModule", (), {"__module__": "torch.distributed.fsdp"}), SiLUOwner), {})


def sourceless():
    space = {"Owner": Owner, "F": F}
    exec("class Sourceless(Owner):\n    def forward(self, x):\n        return F.silu(self.a(x))", space)
    return space["Sourceless"]()


@pytest.mark.parametrize(
    ("build", "reason"),
    [
        (Elsewhere, "not by name in a method of Elsewhere"),
        (WrittenOut, "softknee.functional.gelu_tanh is that in one call"),
        (Decorated, "is decorated"),
        (Noisy, "random numbers"),
        (sourceless, "has no source at hand"),
        (Attending, "one kernel of PyTorch's"),
        (ShardedOwner, "FSDP"),
    ],
)  # fmt: skip
def test_calls_that_stay(build, reason):
    model = build()
    kind, given = type(model), x()
    wanted = model.eval()(given)
    result = softknee.kernelize(model, given)
    assert not result.replaced and type(model) is kind and torch.equal(model(given), wanted)
    (row,) = result.skipped
    assert reason in row.reason


def test_a_traced_graph_and_torchscript_stay():
    traced = torch.fx.symbolic_trace(nn.Sequential(MLP(), SiLUOwner()))
    result = softknee.kernelize(traced, x())
    assert sites(result) == {"0.act_fn#0": "silu"}
    assert result.skipped[0].activation == "silu" and "traced graph" in result.skipped[0].reason
    with pytest.warns(DeprecationWarning, match="jit.script"):
        scripted = nn.Sequential(nn.ReLU(), torch.jit.script(nn.ReLU()))
    assert sites(softknee.kernelize(scripted, x())) == {"0#0": "relu"}


def test_a_quantized_model_stays():
    class QuantizedThing(nn.Module):
        __module__ = "torch.ao.nn.quantized.modules"

        def forward(self, x):
            return x

    model = nn.Sequential(QuantizedThing(), nn.ReLU(), Functions())
    result = softknee.kernelize(model, x())
    assert not result.replaced and {r.reason for r in result.skipped} == {result.skipped[0].reason}
    assert "the model is quantized (QuantizedThing)" in result.skipped[0].reason


class Broadcast(nn.Module):
    def __init__(self):
        super().__init__()
        self.a, self.b, self.act = nn.Linear(8, 1), nn.Linear(8, 8), nn.Sigmoid()

    def forward(self, x):
        return self.act(self.a(x)) * self.b(x)


class InPlace(nn.Module):
    """What the gate was made of is changed between."""

    def __init__(self):
        super().__init__()
        self.act = nn.SiLU()

    def forward(self, x):
        x = x + 1
        h = self.act(x)
        x.mul_(2)
        return h * x


class Overwriting(nn.Module):
    """What the gate is made of is overwritten where up is made."""

    def __init__(self):
        super().__init__()
        self.act, self.other = nn.Sigmoid(), nn.ReLU(inplace=True)

    def forward(self, x):
        x = x + 1
        return self.act(x) * self.other(x)


class OverwritingInWords(nn.Module):
    def __init__(self):
        super().__init__()
        self.act = nn.Sigmoid()

    def forward(self, x):
        x = x + 1
        return self.act(x.view(-1)) * x.mul_(2).view(-1)


class Twice(nn.Module):
    def __init__(self):
        super().__init__()
        self.act = nn.SiLU()

    def forward(self, x):
        h = self.act(x + 1)
        return h * x + h


@pytest.mark.parametrize(
    ("build", "note"),
    [
        (lambda: MLP(nn.Mish()), "the catalog has no mish(gate)·up"),
        (lambda: MLP(nn.SiLU(inplace=True)), "works in place"),
        (Broadcast, "not on two tensors of one shape"),
        (InPlace, ""),
        (Overwriting, "works in place"),
        (OverwritingInWords, ""),
        (Twice, ""),
    ],
)
def test_products_that_stay(build, note):
    model, given = build(), x()
    with torch.no_grad():
        wanted = model(given.clone())
        for inputs in (None, given):
            result = softknee.kernelize(model, inputs)
            row = result.replaced[0]
            assert (not row.fused or (inputs is None and build is Broadcast)) and (inputs is None or note in row.note)
            if inputs is None:
                result.revert()
        torch.testing.assert_close(model(given.clone()), wanted)


# -- verification


@pytest.fixture
def wrong(monkeypatch):
    """A survey that takes SiLU for GELU, tried by nobody."""
    honest = survey.recipe

    def recipe(module, shape=None):
        return Recipe(softknee.get("gelu")) if isinstance(module, nn.SiLU) else honest(module, shape)

    monkeypatch.setattr(survey, "recipe", recipe)


def test_a_wrong_replacement_is_caught_and_named(wrong):
    model = nn.Sequential(nn.Linear(8, 8), nn.Tanh(), nn.Linear(8, 8), nn.SiLU(), nn.Linear(8, 3)).eval()
    before, given = classes(model), x()
    wanted = model(given)
    with pytest.raises(SoftkneeError, match=r"output 0 differs by .* replacing 3 \(SiLU\) alone .* as it was"):
        softknee.kernelize(model, given)
    assert classes(model) == before and torch.equal(model(given), wanted)


@pytest.mark.parametrize("given", [True, False])
def test_a_wrong_product_is_caught(monkeypatch, given):
    monkeypatch.setattr(survey, "product", lambda *_: softknee.get("reglu"))
    model = MLP()
    (row,) = softknee.kernelize(model, x() if given else None).replaced
    assert not row.fused and "is not reglu's" in row.note


def test_a_wrong_product_is_caught_by_the_run(monkeypatch):
    monkeypatch.setattr(survey, "product", lambda *_: softknee.get("reglu"))
    monkeypatch.setattr(survey, "_product_tried", lambda *_: "")
    monkeypatch.setattr(substitutes, "product", lambda *_: softknee.get("reglu"))
    substitutes._substitute.cache_clear()
    model = MLP()
    with pytest.raises(SoftkneeError, match="alone makes it so|no replacement alone"):
        softknee.kernelize(model, x())
    assert type(model) is MLP and type(model.act_fn) is nn.SiLU
    substitutes._substitute.cache_clear()


def test_a_wrong_function_is_caught(monkeypatch):
    monkeypatch.setitem(substitutes.OURS, F.elu, softknee.functional.selu)
    result = softknee.kernelize(Functions(), x())
    (row,) = result.skipped
    assert row.activation == "elu" and "is not elu's" in row.reason


def test_a_wrong_gradient_is_caught_in_training(monkeypatch):
    class Wrong(torch.autograd.Function):
        @staticmethod
        def forward(ctx, x):
            return x.tanh()

        @staticmethod
        def backward(ctx, grad):
            return grad

    model = nn.Sequential(nn.Linear(8, 8), nn.Tanh(), nn.Linear(8, 8))
    cls = substitutes.substitute(nn.Tanh, Recipe(softknee.get("tanh")))
    monkeypatch.setattr(cls, "forward", lambda self, x: Wrong.apply(x))
    monkeypatch.setattr(survey, "recipe", lambda m, s: Recipe(softknee.get("tanh")) if isinstance(m, nn.Tanh) else None)
    softknee.kernelize(model.eval(), x()).revert()  # outputs are the same
    with pytest.raises(SoftkneeError, match=r"gradient of 0\..* differs .* replacing 1 \(Tanh\)"):
        softknee.kernelize(model.train(), x())


# -- bad input, and what is said


def test_bad_input():
    for model in (F.silu, 3, nn.SiLU):
        with pytest.raises(InputError, match="must be a torch.nn.Module"):
            softknee.kernelize(model)
    with pytest.raises(InputError, match="MLP raised RuntimeError in 'gate_proj'.*mat1 and mat2"):
        softknee.kernelize(MLP(), x(4, 5))
    with pytest.raises(InputError, match="example_inputs must be a tensor"):
        softknee.kernelize(MLP(), 3)


def test_nothing_to_replace_is_said():
    result = softknee.kernelize(nn.Linear(3, 3), x(2, 3))
    assert str(result) == "Linear: nothing to replace: no activation was found"
    assert result.verified is None
    result.revert()
    model = MLP()
    softknee.kernelize(model, x())
    again = softknee.kernelize(model, x())
    assert "softknee's already" in again.skipped[0].reason and not again.changes


def test_json_and_terminal():
    model = nn.Sequential(MLP(), MLP(), nn.RReLU())
    result = softknee.kernelize(model, x())
    told = json.loads(softknee.report.dumps(result))
    assert told["replaced"][0]["runs"] == "swiglu" and told["skipped"][0]["activation"] == "rrelu"
    assert told["bytes_after"] < told["bytes_before"] and "changes" not in told
    text = io.StringIO()
    render(result, Console(file=text, width=80))
    assert "0.act_fn#0 and 1 more" in text.getvalue() and "silu → swiglu" in text.getvalue()
    assert "rrelu stays" in text.getvalue() and max(map(len, text.getvalue().splitlines())) <= 80


def test_importing_softknee_loads_none_of_it():
    program = (
        "import softknee, sys; assert 'softknee.kernelization' not in sys.modules; softknee.kernelization; "
        "print(softknee.kernelize.__name__, softknee.Kernelization.__name__)"
    )
    run = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, timeout=60)
    assert run.stdout.strip() == "kernelize Kernelization", run.stderr
