"""A watch changes nothing, keeps nothing, leaves nothing behind, and tells a training step from everything else."""

from __future__ import annotations

import gc
import weakref
from typing import Any

import pytest
import torch
from torch import Tensor, nn

import softknee
from softknee.errors import InputError


def model(act: type[nn.Module] = nn.ReLU) -> nn.Sequential:
    torch.manual_seed(0)
    return nn.Sequential(nn.Linear(8, 16), act(), nn.Linear(16, 16), act(), nn.Linear(16, 3))


def data(rows: int = 32) -> tuple[Tensor, Tensor]:
    generator = torch.Generator().manual_seed(1)
    return torch.randn(rows, 8, generator=generator), torch.randint(3, (rows,), generator=generator)


def fit(net: nn.Module, w: Any, steps: int = 40, log: str = "after", optimizer: Any = None) -> list[float]:
    optimizer = optimizer or torch.optim.SGD(net.parameters(), 0.1)
    x, y = data()
    losses = []
    for _ in range(steps):
        loss = nn.functional.cross_entropy(net(x), y)
        optimizer.zero_grad()
        loss.backward()
        if w is not None and log == "before":
            w.log(loss=loss)
        optimizer.step()
        if w is not None and log == "after":
            w.log(loss=loss)
        losses.append(loss.item())
    return losses


def hooks(net: nn.Module) -> int:
    return sum(len(m._forward_hooks) + len(m._forward_pre_hooks) + len(m._backward_hooks) for m in net.modules())


@pytest.mark.parametrize("every", [1, 3, 25])
@pytest.mark.parametrize("given", [True, False])
def test_training_is_bit_identical(every: int, given: bool) -> None:
    plain, watched = model(), model()
    expected = fit(plain, None)
    optimizer = torch.optim.SGD(watched.parameters(), 0.1)
    with softknee.watch(watched, optimizer if given else None, every=every) as w:
        assert fit(watched, w, optimizer=optimizer) == expected
    assert w.step == 40
    for a, b in zip(plain.parameters(), watched.parameters(), strict=True):
        assert torch.equal(a, b)


def test_dropout_draws_the_same_numbers() -> None:
    def build() -> nn.Module:
        return nn.Sequential(model(), nn.Dropout(0.5))

    torch.manual_seed(3)
    expected = fit(build(), None)
    torch.manual_seed(3)
    net = build()
    with softknee.watch(net, every=1) as w:
        assert fit(net, w) == expected


def test_nothing_is_left_behind_also_on_an_exception() -> None:
    net = model()
    optimizer = torch.optim.SGD(net.parameters(), 0.1)

    def failing() -> None:
        with softknee.watch(net, optimizer, every=1) as w:
            fit(net, w, steps=3, optimizer=optimizer)
            raise KeyError("in the middle")

    with pytest.raises(KeyError):
        failing()
    assert hooks(net) == 0
    assert not optimizer._optimizer_step_pre_hooks
    assert not optimizer._optimizer_step_post_hooks
    assert torch.nn.functional.relu(torch.ones(1)) == 1


def test_an_exception_inside_a_forward() -> None:
    class Failing(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.net, self.fail = model(), False

        def forward(self, x: Tensor) -> Tensor:
            h = self.net(x)
            if self.fail:
                raise RuntimeError("data loader")
            return h

    net = Failing()
    with softknee.watch(net, every=1) as w:
        fit(net, w, steps=3)
        net.fail = True
        with pytest.raises(RuntimeError, match="data loader"):
            net(data()[0])
        net.fail = False
        fit(net, w, steps=3)
    assert hooks(net) == 0
    assert w.step == 6


def test_no_graph_and_no_activation_is_kept_alive() -> None:
    class Token:
        pass

    tokens = []

    class Marked(torch.autograd.Function):
        """The identity; what its graph node holds dies with the graph."""

        @staticmethod
        def forward(ctx: Any, x: Tensor) -> Tensor:
            ctx.token = Token()
            tokens.append(weakref.ref(ctx.token))
            return x.clone()

        @staticmethod
        def backward(ctx: Any, gradient: Tensor) -> Tensor:
            return gradient

    net = model()
    x, y = data()
    with softknee.watch(net, every=1) as w:
        loss = nn.functional.cross_entropy(net(Marked.apply(x.requires_grad_())), y)
        assert tokens[-1]() is not None
        w.log(loss=loss, extra=loss)
        del loss
        gc.collect()
        assert [token() for token in tokens] == [None] * len(tokens)


@pytest.mark.parametrize("log", ["before", "after"])
def test_with_the_optimizer_it_does_not_matter_where_log_stands(log: str) -> None:
    net = model()
    optimizer = torch.optim.SGD(net.parameters(), 0.1)
    with softknee.watch(net, optimizer, every=1) as w:
        fit(net, w, log=log, optimizer=optimizer)
    m = w.measurement()
    assert m.steps == 40
    assert len(m.losses) == 40
    reference = model()
    x, y = data()
    nn.functional.cross_entropy(reference(x), y).backward()
    assert m.gradients["0.weight"][0] == pytest.approx(reference[0].weight.grad.norm().item(), rel=1e-5)
    expected = 0.1 * reference[0].weight.grad.norm() / reference[0].weight.norm()
    assert m.updates["0.weight"][0] == pytest.approx(expected.item(), rel=1e-4)


def test_gradients_are_missing_not_zero_when_log_comes_too_late() -> None:
    net = model()
    optimizer = torch.optim.SGD(net.parameters(), 0.1)
    x, y = data()
    with softknee.watch(net, every=1) as w:
        for _ in range(5):
            loss = nn.functional.cross_entropy(net(x), y)
            loss.backward()
            optimizer.step()
            optimizer.zero_grad()
            w.log(loss=loss)
    assert any("no gradient was seen" in line for line in w.report().unchecked)
    assert w.measurement().updates


def test_accumulation_is_several_forwards_in_one_step() -> None:
    net = model()
    optimizer = torch.optim.SGD(net.parameters(), 0.1)
    x, y = data()
    with softknee.watch(net, optimizer, every=1) as w:
        for _ in range(6):
            for part in range(4):
                loss = nn.functional.cross_entropy(net(x[part * 8 : part * 8 + 8]), y[part * 8 : part * 8 + 8])
                loss.backward()
                w.log(loss=loss)
            optimizer.step()
            optimizer.zero_grad()
    m = w.measurement()
    assert m.steps == 6
    assert len(m.losses) == 24


def test_validation_inside_the_block_does_not_count() -> None:
    torch.manual_seed(0)
    plain, mixed = model(), model()
    optimizers = [torch.optim.SGD(net.parameters(), 0.1) for net in (plain, mixed)]
    x, y = data()
    with softknee.watch(plain, optimizers[0], every=1) as a, softknee.watch(mixed, optimizers[1], every=1) as b:
        for _ in range(10):
            for net, optimizer in zip((plain, mixed), optimizers, strict=True):
                nn.functional.cross_entropy(net(x), y).backward()
                optimizer.step()
                optimizer.zero_grad()
            mixed.eval()
            mixed(x * 100)
            mixed.train()
            with torch.no_grad():
                mixed(x * 100)
    assert [s.to_dict() for s in a.report().stats()] == [s.to_dict() for s in b.report().stats()]


def test_a_model_in_evaluation_mode_all_along_is_measured() -> None:
    net = model().eval()
    with softknee.watch(net) as w, torch.no_grad():
        net(torch.randn(100, 8))
    assert [s.rows for s in w.report().stats()] == [64, 64]


def test_scaled_gradients_do_not_look_like_an_explosion() -> None:
    net = model()
    optimizer = torch.optim.SGD(net.parameters(), 0.1)
    scaler = torch.amp.GradScaler("cpu", init_scale=2.0**16)
    x, y = data()
    with softknee.watch(net, optimizer, every=1) as w:
        for _ in range(5):
            loss = nn.functional.cross_entropy(net(x), y)
            scaler.scale(loss).backward()
            scaler.step(optimizer)
            scaler.update()
            optimizer.zero_grad()
            w.log(loss=loss)
    assert max(w.measurement().gradients["0.weight"]) < 10


def test_without_the_optimizer_the_scaler_tells_the_scale() -> None:
    net = model()
    scaler = torch.amp.GradScaler("cpu", init_scale=2.0**16)
    x, y = data()
    with softknee.watch(net, every=1, scaler=scaler) as w:
        loss = nn.functional.cross_entropy(net(x), y)
        scaler.scale(loss).backward()
        w.log(loss=loss)
    assert max(w.measurement().gradients["0.weight"]) < 10


def test_bfloat16_autocast() -> None:
    net = model(nn.GELU)
    x, y = data()
    with softknee.watch(net, every=1) as w:
        for _ in range(5):
            with torch.autocast("cpu", torch.bfloat16):
                loss = nn.functional.cross_entropy(net(x), y)
            loss.backward()
            w.log(loss=loss)
    assert [s.activation for s in w.report().stats()] == ["gelu", "gelu"]


class Shared(nn.Module):
    """One activation module used twice, a functional one, keyword arguments and a dict for an output."""

    def __init__(self) -> None:
        super().__init__()
        self.a, self.b, self.c, self.act = nn.Linear(8, 8), nn.Linear(8, 8), nn.Linear(8, 3), nn.Tanh()

    def forward(self, *, x: Tensor, scale: float = 1.0) -> dict[str, Any]:
        h = self.act(self.b(self.act(self.a(x * scale))))
        return {"hidden": h, "logits": self.c(torch.nn.functional.gelu(h)), "note": "text"}


def test_reused_modules_keywords_and_dicts() -> None:
    torch.manual_seed(0)
    net = Shared()
    x, y = data()
    with softknee.watch(net, every=1) as w:
        for _ in range(3):
            loss = nn.functional.cross_entropy(net(x=x, scale=2.0)["logits"], y)
            loss.backward()
            w.log(loss=loss)
    report = w.report()
    assert [s.key for s in report.stats()] == ["act#0", "act#1", "#0"]
    assert report.output["units"] == 3


def test_the_last_batch_may_be_smaller() -> None:
    net = model()
    with softknee.watch(net, every=4) as w:
        for rows in (32, 32, 5, 32, 1):
            net(torch.randn(rows, 8))
            w.log(loss=1.0)
    assert [s.rows for s in w.report().stats()] == [32 + 32 + 5 + 1] * 2  # steps 0, 1, 2 and 4


def test_history_is_bounded_and_spans_everything() -> None:
    net = model()
    with softknee.watch(net, every=1) as w:
        fit(net, w, steps=1100)
    history = w.report().history
    assert len(history["loss"]["step"]) == 1100
    assert len(history["across_row_std"]["step"]) <= 17
    assert history["across_row_std"]["step"][-1] >= 1090
    assert len(history["gradient_norm"]["step"]) <= 512


def test_report_inside_the_block_and_again() -> None:
    net = model()
    with softknee.watch(net, every=1) as w:
        fit(net, w, steps=20)
        first = w.report()
        fit(net, w, steps=20)
    assert (first.steps, w.report().steps) == (20, 40)
    assert w.report().to_dict() == w.report().to_dict()


def test_nothing_seen_is_not_healthy() -> None:
    with softknee.watch(model()) as w:
        pass
    report = w.report()
    assert not report.healthy
    assert report.verdict.startswith("don't know")
    with softknee.watch(model()) as w:
        w.model(torch.randn(7, 8))
    assert w.report().verdict == "don't know: needs 53 more rows (7 seen)"


@pytest.mark.parametrize(
    ("arguments", "match"),
    [
        ({"model": "net"}, "torch.nn.Module, got str"),
        ({"optimizer": "sgd"}, "Optimizer, got str"),
        ({"every": 0}, "at least 1, got 0"),
        ({"every": 2.5}, "at least 1, got 2.5"),
    ],
)
def test_bad_arguments(arguments: dict[str, Any], match: str) -> None:
    with pytest.raises(InputError, match=match):
        softknee.watch(**{"model": model(), **arguments})


def test_bad_losses() -> None:
    with softknee.watch(model()) as w:
        with pytest.raises(InputError, match="single number"):
            w.log(loss=torch.ones(3))
        with pytest.raises(InputError, match="got str"):
            w.log(loss="low")


def test_the_first_nan_is_named_at_a_step_that_is_not_measured_in_full() -> None:
    class Late(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.a, self.b, self.act, self.inplace = nn.Linear(8, 8), nn.Linear(8, 3), nn.ReLU(), nn.ReLU(inplace=True)
            self.calls = 0

        def forward(self, x: Tensor) -> Tensor:
            h = self.act(self.a(x))
            if self.fail:
                h = h - torch.tensor(float("inf"))
            return self.b(self.inplace(h))

        fail = False

    torch.manual_seed(0)
    net = Late()
    with softknee.watch(net, every=1) as w:
        for step in range(6):
            net.fail = step >= 5
            w.log(loss=net(data()[0]).sum())  # relu hides -inf: the loss stays finite
    (finding,) = [f for f in w.report().findings if f.symptom == "nonfinite"]
    assert (finding.site, finding.evidence["step"]) == ("inplace#0", 5)


def test_reused_modules_keep_their_keys_when_hooked_lightly() -> None:
    torch.manual_seed(0)
    act = nn.Tanh()
    net = nn.Sequential(nn.Linear(8, 8), act, nn.Linear(8, 8), act, nn.Linear(8, 3))
    with softknee.watch(net, every=4) as w:
        for _ in range(20):
            net(data()[0])
            w.log(loss=1.0)
    assert w._light
    stats = w.report().stats()
    assert [s.key for s in stats] == ["1#0", "1#1"]
    assert [s.rows for s in stats] == [stats[0].rows] * 2
    with torch.no_grad():
        z = net[2](torch.tanh(net[0](data()[0])))
    assert stats[1].input_mean == pytest.approx(z.mean().item(), abs=1e-4)


@pytest.mark.parametrize("grad", [True, False])
def test_an_input_overwritten_later_in_the_forward_is_read_before(grad: bool) -> None:
    class Overwrites(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.layer, self.act = nn.Linear(8, 16), nn.ReLU()

        def forward(self, x: Tensor) -> Tensor:
            h = self.layer(x)
            y = self.act(h)
            h.fill_(-1.0)
            return y

    net = Overwrites()
    with softknee.watch(net, every=1) as w, torch.set_grad_enabled(grad):
        for _ in range(8):
            net(torch.randn(32, 8))
            w.log(loss=1.0)
    (site,) = w.report().stats()
    assert site.dead == 0
    assert site.zeros is not None and site.zeros < 0.9


def test_ones_own_activation_is_watched_without_registration() -> None:
    @softknee.elementwise
    def own(x, ops, *, a=1.0):  # type: ignore[no-untyped-def]
        """x·tanh(a·x)."""
        return x * ops.tanh(a * x)

    net = nn.Sequential(nn.Linear(8, 16), own.module(a=2.0), nn.Linear(16, 2))
    with softknee.watch(net, every=1) as w:
        for _ in range(6):
            net(torch.randn(32, 8))
            w.log(loss=1.0)
    (site,) = w.report().stats()
    assert site.activation == "own" and site.dead == 0 and site.exact_gain == pytest.approx(own.facts.gain_with(a=2.0))
    assert "definition" not in site.to_dict()


def test_a_compiled_model_is_watched_without_a_warning() -> None:
    torch.manual_seed(0)
    net = nn.Sequential(nn.Linear(8, 16), nn.ReLU(), nn.Linear(16, 3))
    compiled = torch.compile(net, backend="eager")
    optimizer = torch.optim.SGD(net.parameters(), 0.1)
    x, y = torch.randn(32, 8), torch.randint(3, (32,))
    with softknee.watch(compiled, optimizer, every=1) as w:
        for _ in range(3):
            optimizer.zero_grad()
            loss = nn.functional.cross_entropy(compiled(x), y)
            loss.backward()
            optimizer.step()
            w.log(loss=loss)
    assert w.report().steps == 3 and w.report().output["rows"] > 0
    assert not any(module._forward_hooks or module._forward_pre_hooks for module in net.modules())


def test_lbfgs_takes_many_steps_in_one() -> None:
    net, (x, y) = model(), (torch.randn(64, 8), torch.randint(0, 2, (64,)))
    optimizer = torch.optim.LBFGS(net.parameters(), lr=1.0, max_iter=20)
    with softknee.watch(net, optimizer, every=1) as w:
        for _ in range(12):

            def closure() -> Tensor:
                optimizer.zero_grad()
                loss = nn.functional.cross_entropy(net(x), y)
                loss.backward()
                return loss

            w.log(loss=optimizer.step(closure))  # type: ignore[arg-type]
    report = w.report()
    assert not [f for f in report.findings if "update" in f.symptom]
    assert any(line.startswith("unstable update: single updates") for line in report.unchecked)
