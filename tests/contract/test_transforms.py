"""Every entry under PyTorch's machinery: torch.func, autocast, checkpointing, threads, subclasses; stored."""

from __future__ import annotations

import copy
import functools
import io
import pickle
import threading

import pytest
import torch
from cases import gradients, inputs, numbers, tensors
from torch.func import grad, hessian, jacfwd, jacrev, jvp, vjp, vmap
from torch.utils.checkpoint import checkpoint

import softknee
import softknee.functional as SF

CLOSE = {"rtol": 1e-12, "atol": 1e-14}


def test_jacobians(case):
    x = inputs(case.activation, 2, 3, grad=False)
    every = tuple(range(len(x)))
    forward, reverse = jacfwd(case.seeded, every, randomness="same")(*x), jacrev(case.seeded, every)(*x)
    torch.testing.assert_close(forward, reverse, **CLOSE)
    torch.testing.assert_close(reverse, torch.autograd.functional.jacobian(case.seeded, x), **CLOSE)


def test_jvp_and_vjp(case):
    x = inputs(case.activation, 2, 3, grad=False)
    direction = tuple(torch.linspace(-1, 1, 6, dtype=torch.float64).view(2, 3) for _ in x)
    value, tangent = jvp(case.seeded, x, direction)
    again, pull = vjp(case.seeded, *x)
    weights = torch.linspace(1, 2, 6, dtype=torch.float64).view(2, 3)
    inner = sum((p * d).sum() for p, d in zip(pull(weights), direction, strict=True))
    torch.testing.assert_close(inner, (tangent * weights).sum(), **CLOSE)
    torch.testing.assert_close(value, again, **CLOSE)
    torch.testing.assert_close(value, case.seeded(*x), **CLOSE)


def test_hessian(case):
    x = inputs(case.activation, 2, 3, grad=False)
    weights = torch.linspace(0.5, 1.5, 6, dtype=torch.float64).view(2, 3)
    every = tuple(range(len(x)))
    found = hessian(lambda *x: (case.seeded(*x) * weights).sum(), every)
    if case.draws:
        with pytest.raises(RuntimeError, match="random operation"):
            found(*x)  # vmap asks which randomness is meant
        noisy = functools.partial(jacfwd, argnums=every, randomness="same")
        found = noisy(jacrev(lambda *x: (case.seeded(*x) * weights).sum(), every))
    wanted = torch.autograd.functional.hessian(lambda *x: (case.seeded(*x) * weights).sum(), x)
    torch.testing.assert_close(found(*x), wanted, **CLOSE)


def test_elementwise_transforms_are_its_derivatives(elementwise):
    (x,) = inputs(elementwise, 6, grad=False)
    second = hessian(lambda z: elementwise(z).sum())(x)
    assert torch.equal(second, second.diagonal().diag())
    wanted = torch.as_tensor(elementwise.derivative(x.numpy(), order=2))
    torch.testing.assert_close(second.diagonal(), wanted, rtol=1e-9, atol=1e-12)
    first = torch.as_tensor(elementwise.derivative(x.numpy()))
    torch.testing.assert_close(vmap(grad(elementwise))(x), first, rtol=1e-12, atol=1e-15)
    torch.testing.assert_close(jvp(elementwise, (x,), (torch.ones_like(x),))[1], first, rtol=1e-12, atol=1e-15)


def test_parameter_transforms(parametrized_case):
    """Gradient, forward derivative and Hessian of the parameters, and vmap over them."""
    case = parametrized_case
    x = inputs(case.activation, 2, 3, grad=False)
    given = tensors(case.activation, grad=False)
    names = list(given)

    def total(*values):
        y = case.seeded(*x, **dict(zip(names, values, strict=True)))
        return (y * torch.linspace(0.5, 1.5, 6, dtype=y.dtype).view(2, 3)).sum()

    values, every = tuple(given.values()), tuple(range(len(names)))
    reverse = jacrev(total, every)(*values)
    torch.testing.assert_close(jacfwd(total, every, randomness="same")(*values), reverse, **CLOSE)
    leaves = [v.clone().requires_grad_() for v in values]
    torch.testing.assert_close(list(reverse), list(torch.autograd.grad(total(*leaves), leaves)), **CLOSE)
    second = jacfwd(jacrev(total, every), every, randomness="same")(*values)
    torch.testing.assert_close(second, torch.autograd.functional.hessian(total, values), **CLOSE)
    if case.activation.kind == "elementwise" and not case.draws:
        weights = torch.linspace(0.5, 1.5, 6, dtype=torch.float64).view(2, 3)
        plain = {name: v.item() for name, v in given.items()}
        for i, name in enumerate(names):
            exact = torch.as_tensor(case.activation.derivative(x[0].numpy(), order=2, wrt=name, **plain))
            torch.testing.assert_close(second[i][i], (exact * weights).sum(), rtol=1e-9, atol=1e-11)
    many = [torch.stack([v, v * 1.01]) for v in values]
    each = vmap(total, randomness="same")(*many)
    torch.testing.assert_close(each, torch.stack([total(*(m[i] for m in many)) for i in range(2)]), **CLOSE)


def test_vmap(case):
    """The rows one by one: what the whole is, wherever the batch dimension stands, and with one input unbatched."""
    x = inputs(case.activation, 3, 4, grad=False)
    if case.draws:
        with pytest.raises(RuntimeError, match="randomness"):
            vmap(case.function)(*x)
        same = vmap(case.seeded, randomness="same")(*(v.expand(3, 3, 4) for v in x))
        assert torch.equal(same[0], same[1])
        different = vmap(case.seeded, randomness="different")(*(v.expand(3, 3, 4) for v in x))
        assert not torch.equal(different[0], different[1])
        return
    whole = case.function(*x)
    torch.testing.assert_close(vmap(case.function)(*x), whole, **CLOSE)
    torch.testing.assert_close(vmap(case.function, in_dims=1)(*(v.t() for v in x)), whole, **CLOSE)
    stacked = vmap(vmap(case.function))(*(v.view(3, 2, 2) for v in x))
    torch.testing.assert_close(stacked, case.function(*(v.view(3, 2, 2) for v in x)), **CLOSE)
    if len(x) == 2:
        torch.testing.assert_close(
            vmap(case.function, (0, None))(x[0], x[1][0]), case.function(x[0], x[1][0].expand(3, 4)), **CLOSE
        )


def test_per_sample_gradients(parametrized_case):
    """vmap(grad) of a parameter: one gradient a sample, which sum to the batch's."""
    case = parametrized_case
    if case.draws:
        pytest.skip("vmap and a loop draw noise of different shapes")
    x, given = inputs(case.activation, 5, 3, grad=False), tensors(case.activation)

    def loss(given, *x):
        return case.function(*x, **given).square().sum()

    fixed = {name: v.detach() for name, v in given.items()}
    each = vmap(grad(loss), in_dims=(None, *[0] * len(x)))(fixed, *x)
    whole = torch.autograd.grad(loss(given, *x), list(given.values()))
    torch.testing.assert_close([g.sum(0) for g in each.values()], list(whole), rtol=1e-10, atol=1e-12)


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16])
def test_autocast_and_half(case, dtype):
    """Half precision in and out, gradients too, under autocast and without; close to the exact function."""
    x = inputs(case.activation, 4, 4, dtype=dtype)
    wide = tuple(v.detach().double().requires_grad_() for v in x)
    wanted = case.seeded(*wide)
    exact = gradients(wanted, wide)
    tolerance = {"rtol": 2e-2, "atol": 1e-2}
    for enabled in (False, True):
        with torch.autocast("cpu", dtype=dtype, enabled=enabled):
            y = case.seeded(*x)
        assert y.dtype == dtype or enabled
        found = gradients(y, x)
        assert {g.dtype for g in found} == {dtype}
        if not case.draws:  # half precision draws its noise in float32
            torch.testing.assert_close(y.double(), wanted, **tolerance)
            torch.testing.assert_close([g.double() for g in found], exact, rtol=5e-2, atol=2e-2)


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16])
def test_autocast_between_layers(case, dtype):
    """Between linear layers, as autocast is used: it runs, in the dtype that PyTorch's own function gives there."""
    wide = 2 if case.activation.kind == "gated" else 1
    first, last, module = torch.nn.Linear(6, 4 * wide), torch.nn.Linear(4, 2), case.module()
    x = torch.randn(5, 6)
    with torch.autocast("cpu", dtype=dtype):
        hidden = module(first(x))
        y = last(hidden)
        theirs = getattr(torch.nn.functional, case.activation.torch or "", None)
        if theirs is not None and case.activation.kind == "normalizer":
            assert hidden.dtype == theirs(first(x), dim=-1).dtype
        elif case.activation.kind != "normalizer":
            assert hidden.dtype == dtype
    y.float().sum().backward()
    for parameter in (*first.parameters(), *module.parameters()):
        assert parameter.grad is not None and parameter.grad.isfinite().all()
        assert parameter.grad.dtype == torch.float32


@pytest.mark.parametrize("use_reentrant", [False, True])
def test_checkpoint(case, use_reentrant):
    """Recomputed in the backward pass: the same gradients, of inputs and learned parameters, with the same noise."""
    learn = tuple(numbers(case.activation))
    module = case.module(learn=learn).double()
    x = inputs(case.activation, 3, 4)
    leaves = (*x, *module.parameters())

    def losses():
        torch.manual_seed(3)
        return module(*x)

    def again():
        torch.manual_seed(3)
        return checkpoint(module, *x, use_reentrant=use_reentrant)

    plain = losses()
    plain.square().sum().backward()
    wanted = [v.grad.clone() for v in leaves]
    for v in leaves:
        v.grad = None
    kept = again()
    assert torch.equal(kept, plain)
    torch.rand(5)  # noise drawn elsewhere in between
    kept.square().sum().backward()
    assert all(torch.equal(v.grad, g) for v, g in zip(leaves, wanted, strict=True))


def test_threads(activation):
    """First called from several threads at once, a definition that nothing has been derived from yet."""
    fresh = pickle.loads(pickle.dumps(activation)) if activation.kind == "normalizer" else copy_of(activation)
    x = inputs(activation, 16)
    options = {"dim": -1} if activation.kind == "normalizer" else {}
    start, found = threading.Barrier(4), [None] * 4

    def work(i):
        mine = tuple(v.detach().clone().requires_grad_() for v in x)
        generator = {"generator": torch.Generator().manual_seed(1)} if activation.stochastic else {}
        start.wait()
        y = fresh(*mine, **options, **generator)
        first = torch.autograd.grad(y.square().sum(), mine, create_graph=True)
        second = torch.autograd.grad(sum(g.sum() for g in first), mine)
        found[i] = [y.detach(), *first, *second]

    threads = [threading.Thread(target=work, args=(i,)) for i in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert all(torch.equal(a, b) for other in found[1:] for a, b in zip(found[0], other, strict=True))


def copy_of(activation):
    """The same definition, defined once more."""
    define = softknee.elementwise if activation.kind == "elementwise" else softknee.gated
    return define(activation.formula, stable=activation.stable) if activation.stable else define(activation.formula)


class Tagged(torch.Tensor):
    """A subclass that notes which functions it meets."""

    seen: list = []  # noqa: RUF012

    @classmethod
    def __torch_function__(cls, function, types, args=(), kwargs=None):
        cls.seen.append(function)
        return super().__torch_function__(function, types, args, kwargs or {})


def test_a_subclass_sees_the_activation(case):
    """`__torch_function__` is called with the activation itself, and its results are of the subclass."""
    x = inputs(case.activation, 3, 4, grad=False)
    Tagged.seen.clear()
    y = case.seeded(*(v.as_subclass(Tagged) for v in x))
    assert Tagged.seen[0] is case.activation and type(y) is Tagged
    # a subclass has no kernels: another path to the same values
    torch.testing.assert_close(y.as_subclass(torch.Tensor), case.seeded(*x), rtol=2e-14, atol=1e-15)


def test_deepcopy_and_state_dict(case):
    """A module with everything learned that can be: copied, stored, loaded, moved to another dtype."""
    learn = tuple(numbers(case.activation))
    module = case.module(learn=learn)
    for parameter in module.parameters():
        parameter.data.mul_(1.05).add_(0.01)
    x = inputs(case.activation, 3, 4, dtype=torch.float32, grad=False)

    def value(module):
        torch.manual_seed(5)
        return module(*x)

    wanted = value(module)
    assert wanted.dtype == torch.float32 and set(module.state_dict()) == set(learn)
    copied = copy.deepcopy(module)
    assert torch.equal(value(copied), wanted) and copied.training == module.training
    for mine, theirs in zip(copied.parameters(), module.parameters(), strict=True):
        assert mine is not theirs and mine.data_ptr() != theirs.data_ptr()
    stored = io.BytesIO()
    torch.save(module.state_dict(), stored)
    stored.seek(0)
    twin = case.module(learn=learn)
    twin.load_state_dict(torch.load(stored, weights_only=True))
    assert torch.equal(value(twin), wanted)
    assert torch.equal(value(pickle.loads(pickle.dumps(module))), wanted)
    if learn:
        with pytest.raises(RuntimeError, match=f"Missing key.*{learn[0]}"):
            twin.load_state_dict({})
    for dtype in (torch.float64, torch.bfloat16):
        moved = copy.deepcopy(module).to(dtype)
        y = moved(*(v.to(dtype).requires_grad_() for v in x))
        y.sum().backward()
        assert y.dtype == dtype and {p.grad.dtype for p in moved.parameters()} <= {dtype}


def test_pickle_keeps_identity(activation):
    """By reference, as functions are: the activation, its function, an instance of its class."""
    assert pickle.loads(pickle.dumps(activation)) is activation
    assert copy.deepcopy(activation) is copy.copy(activation) is activation
    function = getattr(SF, activation.name)
    assert pickle.loads(pickle.dumps(function)) is function and copy.deepcopy(function) is function
    named = getattr(softknee.nn, activation.class_name)
    made = named(dim=1) if activation.kind == "normalizer" else named()
    again = pickle.loads(pickle.dumps(made))
    assert type(again) is named and again.activation is activation and repr(again) == repr(made)
