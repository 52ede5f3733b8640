"""Every entry under torch.compile, one graph without a break, and under torch.export: equal to eager."""

from __future__ import annotations

import shutil

import pytest
import torch
from cases import cases, gradients, inputs, numbers, tensors
from torch.export import Dim

import softknee
from softknee.errors import InputError

CLOSE = {"rtol": 1e-12, "atol": 1e-14}


@pytest.fixture(autouse=True)
def _fresh():
    torch._dynamo.reset()
    yield
    torch._dynamo.reset()


def compiled(function, **options):
    return torch.compile(function, fullgraph=True, backend="aot_eager", **options)


def seeded(function, *arguments):
    torch.manual_seed(11)
    return function(*arguments)


def same(got, wanted, leaves):
    """Equal results, and equal gradients of a sum in which each has a weight of its own."""
    torch.testing.assert_close(got, wanted, **CLOSE)
    found, truth = (
        gradients(torch.cat([(1 + i) * y.flatten() for i, y in enumerate(r)]), leaves) for r in (got, wanted)
    )
    torch.testing.assert_close(found, truth, **CLOSE)


def test_compile(case):
    """Called plainly, and with tensors for its parameters; values and every gradient."""
    function, names = case.function, list(numbers(case.activation))

    def both(parameters, *x):
        plain = [function(*x)]
        return [*plain, function(*x, **dict(zip(names, parameters, strict=True)))] if names else plain

    x, parameters = inputs(case.activation, 4, 5), list(tensors(case.activation).values())
    same(seeded(compiled(both), parameters, *x), seeded(both, parameters, *x), (*x, *parameters))


def test_compile_dynamic_shapes(case):
    """One graph serves every size, with numbers for the parameters."""
    function, given = case.function, numbers(case.activation)

    def called(*x):
        return [function(*x, **given)]

    dynamic = compiled(called, dynamic=True)
    for shape, stance in (((4, 5), "default"), ((7, 3), "fail_on_recompile")):
        x = inputs(case.activation, *shape)
        with torch.compiler.set_stance(stance):
            got = seeded(dynamic, *x)
        same(got, seeded(called, *x), x)


def test_compile_module(parametrized_case):
    """A module with everything learned that can be, in training: it takes optimizer steps as the eager one does."""
    case = parametrized_case
    learn = tuple(numbers(case.activation))
    eager, other = case.module(learn=learn).double(), case.module(learn=learn).double()
    function = compiled(other)
    x = inputs(case.activation, 3, 4)
    for _ in range(2):
        for module, call in ((eager, eager), (other, function)):
            for v in module.parameters():
                v.grad = None
            seeded(call, *x).square().sum().backward()
            with torch.no_grad():
                for v in module.parameters():
                    v -= 1e-3 * v.grad
    for a, b in zip(eager.parameters(), other.parameters(), strict=True):
        torch.testing.assert_close(b, a, **CLOSE)


def applied(every, inplace=False):
    """One function that applies them all, to a copy of the first input if in place."""
    functions = [(case.function, len(case.activation.inputs)) for case in every]

    def forward(gate, up):
        if inplace:
            return [function(gate * 1.0, inplace=True) for function, _ in functions]
        return [function(gate) if count == 1 else function(gate, up) for function, count in functions]

    return forward


def close(every, found, wanted, **tolerance):
    for case, mine, theirs in zip(every, found, wanted, strict=True):
        torch.testing.assert_close(mine, theirs, **tolerance, msg=lambda m, c=case: f"{c.name}: {m}")


def total(results):
    weights = [torch.linspace(0.5, 1.5, y.numel()).view(y.shape) * (1 + i / 64) for i, y in enumerate(results)]
    return sum((y * w.to(y.dtype)).sum() for y, w in zip(results, weights, strict=True))


@pytest.mark.parametrize("dtype", [torch.float64, torch.bfloat16])
def test_compile_without_gradients(dtype):
    """Half precision too (of the core): what eager looks up in a table is computed here, to within a rounding."""
    every = [case for case in cases() if case.activation.core or dtype == torch.float64]
    forward = applied(every)
    x = inputs(softknee.get("swiglu"), 4, 6, dtype=dtype, grad=False)
    unit = 4 * torch.finfo(dtype).eps
    close(every, seeded(compiled(forward), *x), seeded(forward, *x), rtol=unit, atol=unit)


def test_compile_inplace():
    every = [case for case in cases() if case.activation.kind == "elementwise" and case.activation.core]
    forward = applied(every, inplace=True)
    x = inputs(softknee.get("swiglu"), 4, 5)
    found, wanted = seeded(compiled(forward), *x), seeded(forward, *x)
    close(every, found, wanted, **CLOSE)
    torch.testing.assert_close(gradients(total(found), x[:1]), gradients(total(wanted), x[:1]), **CLOSE)


def test_compile_of_ones_own():
    """An activation that was never called before is compiled all the same."""

    @softknee.elementwise
    def own(x, ops, *, a=1.5):
        """x·tanh(a·x)."""
        return x * ops.tanh(a * x)

    x = torch.randn(5, requires_grad=True)
    y = compiled(own)(x)
    torch.testing.assert_close(torch.autograd.grad(y.sum(), x)[0], own.slope(x))


def test_compile_per_channel():
    learnable = [a for a in softknee.activations() if any(p.learnable for p in a.parameters.values())]
    modules = [softknee.nn.Activation(a, channels=3).double() for a in learnable]

    def forward(x):
        return [module(x) for module in modules]

    (x,) = inputs(learnable[0], 2, 3, 4)
    same(seeded(compiled(forward), x), seeded(forward, x), [x, *(p for module in modules for p in module.parameters())])


@pytest.mark.parametrize(
    ("wrong", "message"), [({"alpha": -1.0}, "alpha=-1.0 is out of range"), ({"alfa": 1.0}, "no parameter 'alfa'")]
)
def test_compile_refuses_what_eager_refuses(wrong, message):
    """A wrong parameter is an error under the compiler too, not a wrong value."""

    def call(x):
        return softknee.functional.celu(x, **wrong)

    with pytest.raises(torch._dynamo.exc.Unsupported, match=message):
        compiled(call)(torch.randn(3))
    torch._dynamo.reset()
    with pytest.raises(InputError, match=message):
        torch.compile(call, backend="aot_eager")(torch.randn(3))


inductor = pytest.mark.skipif(not any(map(shutil.which, ("c++", "g++", "clang++"))), reason="needs a C++ compiler")


@inductor
def test_inductor():
    """Code of every entry from PyTorch's own compiler: one module that applies them all, forward and backward."""
    every = [case for case in cases() if not case.draws]
    forward = applied(every)
    x = inputs(softknee.get("swiglu"), 8, 16, dtype=torch.float32)
    found, wanted = torch.compile(forward, fullgraph=True)(*x), forward(*x)
    close(every, found, wanted, rtol=2e-6, atol=2e-6)
    torch.testing.assert_close(gradients(total(found), x), gradients(total(wanted), x), rtol=1e-5, atol=1e-4)


@inductor
def test_inductor_draws():
    """Noise under PyTorch's compiler: a slope in [lower, upper], the gradient that slope, rows that sum to 1."""
    x = torch.randn(4, 64, requires_grad=True)

    def forward(x):
        return softknee.functional.rrelu(x, training=True), softknee.functional.gumbel_softmax(x)

    slopes, rows = torch.compile(forward, fullgraph=True)(x)
    (found,) = torch.autograd.grad(slopes.sum(), x, retain_graph=True)
    torch.testing.assert_close(found * x, slopes)
    left = found[x < 0]
    assert 1 / 8 <= left.min() < 0.15 and 0.3 < left.max() <= 1 / 3 and left.unique().numel() > 100
    torch.testing.assert_close(rows.sum(-1), torch.ones(4))
    assert torch.autograd.grad(rows.square().sum(), x)[0].abs().sum() > 0


class Applied(torch.nn.Module):
    def __init__(self, case):
        super().__init__()
        self.function = case.function

    def forward(self, *x):
        return self.function(*x)


def test_export(case):
    """A program for any batch size, and of the module with what it learns."""
    x = inputs(case.activation, 2, 3, dtype=torch.float32, grad=False)
    module = Applied(case).train("training" in case.options)
    batch = Dim("batch", min=2, max=64)
    program = torch.export.export(module, x, dynamic_shapes={"x": tuple({0: batch} for _ in x)})
    for rows in (2, 5):
        x = inputs(case.activation, rows, 3, dtype=torch.float32, grad=False)
        torch.testing.assert_close(seeded(program.module(), *x), seeded(module, *x))


def test_export_module(case):
    learn = tuple(numbers(case.activation))
    module = case.module(learn=learn)
    x = inputs(case.activation, 2, 3, dtype=torch.float32, grad=False)
    program = torch.export.export(module, x)
    assert set(program.state_dict) == set(learn)
    torch.testing.assert_close(seeded(program.module(), *x), seeded(module, *x))
    names = {node.target.__module__ for node in program.graph.nodes if callable(node.target)}
    assert all(name.startswith(("torch", "_operator")) for name in names), "runs where softknee is not installed"
