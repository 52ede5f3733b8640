"""The Observer sees every activation once, before it is overwritten, and leaves nothing behind."""

import copy
import threading
import warnings

import pytest
import torch
import torch.nn.functional as F
from torch import nn
from torch.utils.checkpoint import checkpoint

import softknee.functional as SF
import softknee.nn
from softknee.errors import InputError
from softknee.identification import Observer, identify


class Functional(nn.Module):
    def __init__(self):
        super().__init__()
        self.linear = nn.Linear(4, 4)
        self.act = nn.ReLU()

    def forward(self, x):
        x = self.act(self.linear(x))
        x = F.relu(x + 0.1, inplace=True)
        x = torch.relu(x).relu()
        x = self.act(self.linear(x))
        x = torch.sigmoid_(x.tanh() * 1.5)
        x = F.gelu(x, approximate="tanh")
        x = F.leaky_relu(x, 0.2)
        return SF.elu(SF.silu(x), alpha=0.5).softmax(-1)


def seen(model, x, **options):
    calls = []
    with Observer(model, calls.append, **options):
        model(x)
    return calls


def test_functions_methods_and_reused_modules_are_each_seen_once():
    calls = seen(Functional(), torch.randn(3, 4))
    assert [(c.key, c.activation.name) for c in calls] == [
        ("act#0", "relu"), ("#0", "relu"), ("#1", "relu"), ("#2", "relu"), ("act#1", "relu"), ("#3", "tanh"),
        ("#4", "sigmoid"), ("#5", "gelu_tanh"), ("#6", "leaky_relu"), ("#7", "silu"), ("#8", "elu"), ("#9", "softmax"),
    ]  # fmt: skip
    assert [c.inplace for c in calls] == [k in (1, 6) for k in range(12)]
    assert calls[8].parameters == {"negative_slope": 0.2}
    assert calls[10].parameters == {"alpha": 0.5}
    assert calls[1].source.rpartition(":")[0].endswith("test_observation.py")
    assert calls[0].source is None
    assert calls[0].implementation == "torch.nn.modules.activation.ReLU"
    assert calls[1].implementation == "torch.nn.functional.relu"


def test_functional_false_sees_modules_only():
    assert [c.key for c in seen(Functional(), torch.randn(3, 4), functional=False)] == ["act#0", "act#1"]


def test_counters_start_again_with_every_forward():
    model = Functional()
    keys = []
    with Observer(model, lambda c: keys.append(c.key)):
        model(torch.randn(2, 4))
        first = list(keys)
        model(torch.randn(2, 4))
    assert keys == first * 2


def test_before_reads_the_input_that_an_inplace_call_overwrites():
    class Model(nn.Module):
        def forward(self, x):
            return F.relu_(x)

    x = torch.tensor([-1.0, 2.0])
    inputs, outputs = [], []
    with Observer(Model(), lambda c: inputs.append(c.inputs[0].clone()), lambda c, y: outputs.append(y.clone())) as o:
        o.model(x)
    assert inputs[0].tolist() == [-1.0, 2.0]
    assert outputs[0].tolist() == [0.0, 2.0]


def test_outputs_and_gradients_are_bit_identical():
    torch.manual_seed(0)
    model, x = Functional(), torch.randn(5, 4)
    plain = model(x)
    plain.square().sum().backward()
    gradient = model.linear.weight.grad.clone()
    model.zero_grad()
    with Observer(model, lambda c: c.inputs[0].mean(), lambda c, y: y.mean()):
        watched = model(x)
    watched.square().sum().backward()
    assert torch.equal(plain, watched)
    assert torch.equal(gradient, model.linear.weight.grad)


def hooks(model):
    return [len(m._forward_hooks) + len(m._forward_pre_hooks) for m in model.modules()]


def test_hooks_are_gone_afterwards_and_after_an_exception():
    model = nn.Sequential(nn.Linear(4, 4), nn.ReLU(), nn.Linear(3, 3))
    with Observer(model, lambda c: None), pytest.raises(RuntimeError, match="shapes"):
        model(torch.randn(2, 4))
    assert hooks(model) == [0, 0, 0, 0]
    with torch.overrides.TorchFunctionMode():  # the stack of modes is empty again
        pass
    assert torch.overrides._get_current_function_mode_stack() == []
    # the same Observer goes on after a forward that failed
    keys = []
    with Observer(model, lambda c: keys.append(c.key)):
        for _ in range(2):
            with pytest.raises(RuntimeError):
                model(torch.randn(2, 4))
    assert keys == ["1#0", "1#0"]


def test_an_exception_in_a_callback_leaves_nothing_behind():
    def refuse(call):
        raise ZeroDivisionError

    for model in (Functional(), nn.Sequential(nn.ReLU())):
        with Observer(model, refuse), pytest.raises(ZeroDivisionError):
            model(torch.randn(2, 4))
        assert sum(hooks(model)) == 0
        assert torch.overrides._get_current_function_mode_stack() == []


def test_what_callbacks_compute_is_not_seen():
    calls = []

    def before(call):
        calls.append(call.key)
        torch.relu(call.inputs[0])

    with Observer(Functional(), before) as o:
        o.model(torch.randn(2, 4))
    assert len(calls) == 12


def test_recomputation_in_backward_is_not_a_second_call():
    class Model(nn.Module):
        def __init__(self):
            super().__init__()
            self.part = nn.Sequential(nn.Linear(4, 4), nn.ReLU())

        def forward(self, x):
            return checkpoint(self.part, x, use_reentrant=False)

    keys = []
    with Observer(Model(), lambda c: keys.append(c.key)) as o:
        o.model(torch.randn(2, 4, requires_grad=True)).sum().backward()
    assert keys == ["part.1#0"]


def test_forwards_in_other_threads_are_kept_apart():
    model = nn.Sequential(*[nn.ReLU() for _ in range(20)], Functional())
    keys = {}
    with Observer(model, lambda c: keys.setdefault(threading.get_ident(), []).append(c.key)):
        barrier = threading.Barrier(3)

        def work():
            barrier.wait(timeout=30)
            for _ in range(5):
                model(torch.randn(2, 4))
            barrier.wait(timeout=30)

        threads = [threading.Thread(target=work) for _ in range(3)]
        [t.start() for t in threads]
        [t.join() for t in threads]
    assert len(keys) == 3
    for found in keys.values():
        assert found == found[:32] * 5


def test_own_modules_are_sites_with_their_settings():
    model = nn.Sequential(softknee.nn.Activation("leaky_relu", negative_slope=0.3), softknee.nn.GELU("tanh"))
    calls = seen(model, torch.randn(2, 4))
    assert [(c.key, c.activation.name, c.parameters) for c in calls] == [
        ("0#0", "leaky_relu", {"negative_slope": 0.3}), ("1#0", "gelu_tanh", {}),
    ]  # fmt: skip


def test_nn_identity_is_no_activation():
    assert seen(nn.Sequential(nn.Identity(), nn.Dropout()), torch.randn(2, 4)) == []


def test_a_subclass_that_overrides_forward_is_not_taken_for_its_parent():
    class Odd(nn.GELU):
        def forward(self, x):
            return torch.tanh(x)

    class Even(nn.GELU):
        pass

    calls = seen(nn.Sequential(Odd(), Even("tanh")), torch.randn(2, 4))
    assert [(c.key, c.activation.name) for c in calls] == [("0#0", "tanh"), ("1#0", "gelu_tanh")]


class HandWritten(nn.Module):
    def __init__(self):
        super().__init__()
        self.linear = nn.Linear(6, 6)
        self.custom = CustomSwish()

    def forward(self, x):
        h = self.linear(x)
        x = x + h * torch.sigmoid(h)
        x = self.linear(self.custom(self.linear(x)))
        return F.relu(self.linear(x.clamp(min=0)))


class CustomSwish(nn.Module):
    def forward(self, x):
        return x * torch.sigmoid(x)


def test_with_a_census_hand_written_activations_are_watched_as_what_they_are():
    model, x = HandWritten(), torch.randn(3, 6)
    census = identify(model, x)
    differences = {}

    def after(call, output):
        expected = call.activation(call.inputs[0], **call.parameters)
        differences[call.key, call.activation.name] = (expected - output).abs().max().item()

    for _ in range(2):
        with Observer(model, after=after, census=census), torch.no_grad():
            model(x)
        assert set(differences) == {(s.key, s.activation) for s in census}
        assert set(differences) == {("#0", "silu"), ("custom#0", "silu"), ("#2", "relu"), ("#1", "relu")}
        assert max(differences.values()) < 1e-6


def test_a_forward_that_takes_another_turn_than_identified_does_no_harm():
    class Turning(nn.Module):
        def __init__(self):
            super().__init__()
            self.linear = nn.Linear(4, 4)

        def forward(self, x):
            x = self.linear(x)
            if self.training:
                x = x.abs() + 1
            return x * torch.sigmoid(x)

    model = Turning()
    census = identify(model, torch.randn(2, 4))
    calls = []
    with Observer(model, calls.append, census=census):
        model.train()(torch.randn(2, 4))
        model.eval()(torch.randn(2, 4))
    assert [c.key for c in calls] == ["#0"]


def test_a_model_that_cannot_be_observed_is_refused():
    with pytest.raises(InputError, match=r"torch\.nn\.Module, got int"):
        Observer(3)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        scripted = torch.jit.trace(nn.ReLU(), torch.randn(2))
    with pytest.raises(InputError, match="TorchScript"):
        Observer(scripted)


def test_deepcopy_of_an_observed_model_does_not_report():
    model, calls = nn.Sequential(nn.ReLU()), []
    with Observer(model, calls.append):
        model(torch.randn(2))
    copy.deepcopy(model)(torch.randn(2))
    assert len(calls) == 1
