"""Derivatives of every entry by autograd: first and second order, of inputs and of every parameter; in place."""

from __future__ import annotations

import pytest
import torch
from cases import gradients, inputs, numbers, tensors
from torch.autograd import gradcheck, gradgradcheck
from torch.autograd.gradcheck import GradcheckError

import softknee

# as parameters stand to an input of shape (2, 3, 2): one for all, one per channel (dimension 1), a row each, each its
# own, and one that makes the result larger than the input
SHAPES = {"scalar": (), "channel": (3, 1), "row": (2, 1, 1), "full": (2, 3, 2), "larger": (2, 1, 1, 1)}


@pytest.mark.wide
def test_gradcheck(case):
    x = inputs(case.activation, 3, 4)
    if case.activation.surrogate is None:
        assert gradcheck(case.seeded, x, check_forward_ad=True, check_batched_grad=True)


@pytest.mark.wide
def test_gradgradcheck(case):
    x = inputs(case.activation, 2, 4)
    if case.activation.surrogate is None:
        assert gradgradcheck(case.seeded, x)


@pytest.mark.wide
def test_a_surrogate_s_gradient(elementwise_case):
    """Backward takes the surrogate's derivative, of every order, while the values are the function's own."""
    case = elementwise_case
    if case.activation.surrogate is None:
        pytest.skip("has its own derivative")
    (x,) = inputs(case.activation, 3, 4)
    passing = case.activation.passing
    assert gradcheck(passing, x) and gradgradcheck(passing, x)
    found, wanted = case.seeded(x), passing(x)
    assert not torch.allclose(found, wanted)
    for _ in range(2):
        found, wanted = (torch.autograd.grad(y.sum(), x, create_graph=True)[0] for y in (found, wanted))
        torch.testing.assert_close(found, wanted)
        if not wanted.requires_grad:
            return


@pytest.mark.parametrize("shape", ["scalar", "channel"])
def test_parameter_gradcheck(parametrized_case, shape):
    case = parametrized_case
    x, given = inputs(case.activation, 2, 3, 2), tensors(case.activation, *SHAPES[shape])

    def function(*arguments):
        return case.seeded(*arguments[: len(x)], **dict(zip(given, arguments[len(x) :], strict=True)))

    arguments = (*x, *given.values())
    assert gradcheck(function, arguments, check_forward_ad=True)
    assert gradgradcheck(function, arguments)


@pytest.mark.parametrize("shape", SHAPES)
def test_parameters_broadcast(parametrized_case, shape):
    """Each element is what the same numbers give alone, and a parameter's gradient is the sum of its elements'."""
    case = parametrized_case
    x, given = inputs(case.activation, 2, 3, 2), tensors(case.activation, *SHAPES[shape])
    if case.activation.kind == "normalizer" and shape in ("channel", "full"):
        given = {name: v.detach()[..., :1].requires_grad_() for name, v in given.items()}
    y = case.seeded(*x, **given)
    wide = {name: v.detach().expand(y.shape).clone().requires_grad_() for name, v in given.items()}
    if case.activation.kind == "normalizer":
        wide = {name: v.detach()[..., :1].clone().requires_grad_() for name, v in wide.items()}
    expanded = tuple(v.detach().expand(y.shape) for v in x)
    if not case.draws or shape != "larger":
        torch.testing.assert_close(case.seeded(*expanded, **wide), y, rtol=1e-13, atol=1e-15)
        each = gradients(case.seeded(*expanded, **wide), wide.values())
        summed = [g.sum_to_size(v.shape) for g, v in zip(each, given.values(), strict=True)]
        torch.testing.assert_close(gradients(y, given.values()), summed, rtol=1e-12, atol=1e-14)
    assert [g.shape for g in gradients(case.seeded(*x, **given), x)] == [v.shape for v in x]


@pytest.mark.wide
def test_numbers_and_tensors_agree(parametrized_case):
    case = parametrized_case
    x, given = inputs(case.activation, 3, 4), numbers(case.activation)
    as_tensors = {name: torch.tensor(value, dtype=torch.float64) for name, value in given.items()}
    found, wanted = case.seeded(*x, **given), case.seeded(*x, **as_tensors)
    torch.testing.assert_close(found, wanted, rtol=1e-14, atol=1e-15)
    torch.testing.assert_close(gradients(found, x), gradients(wanted, x), rtol=1e-13, atol=1e-15)


def test_learned_per_channel(activation):
    """A 1-D tensor for a parameter that modules learn is one value per channel, dimension 1, with its gradient."""
    learnable = [name for name, p in activation.parameters.items() if p.learnable]
    if not learnable:
        pytest.skip("learns nothing unless told to")
    given = {name: v for name, v in tensors(activation, 3).items() if name in learnable}
    for shape in ((2, 3), (2, 3, 4), (2, 3, 2, 2), (3,)):
        (x,) = inputs(activation, *shape)
        y = activation(x, **given)
        at = 1 if len(shape) > 1 else 0
        for c in range(3):
            alone = activation(x.select(at, c), **{name: v[c].item() for name, v in given.items()})
            torch.testing.assert_close(y.select(at, c), alone, rtol=1e-14, atol=1e-15)
        assert gradcheck(lambda x, *p: activation(x, **dict(zip(given, p, strict=True))), (x, *given.values()))


@pytest.mark.wide
def test_gates_broadcast(gated):
    gate, up = inputs(gated, 2, 3)
    wanted = gated(gate.detach().expand(4, 2, 3), up.detach()[:1].expand(4, 2, 3))
    got = gated(gate, up[:1].expand(4, 1, 3))
    assert torch.equal(got, wanted)
    assert gradcheck(gated, (gate[:1, :1].detach().requires_grad_(), up))
    assert gradcheck(gated, (gate, up.detach()[0, 0].requires_grad_()))


def test_a_third_derivative(elementwise_case):
    case = elementwise_case
    (x,) = inputs(case.activation, 6)
    y = case.seeded(x)
    for _ in range(3):
        (y,) = torch.autograd.grad(y.sum(), x, create_graph=True) if y.requires_grad else (torch.zeros_like(x),)
    if not case.draws:
        wanted = torch.as_tensor(case.activation.derivative(x.detach().numpy(), order=3))
        torch.testing.assert_close(y.detach(), wanted, rtol=1e-8, atol=1e-10)
    assert y.isfinite().all()


def test_only_what_is_asked_for(parametrized_case):
    """The gradient of a parameter alone, and of an input alone, are those of both together."""
    case = parametrized_case
    x, given = inputs(case.activation, 2, 3), tensors(case.activation)
    both = gradients(case.seeded(*x, **given), (*x, *given.values()))
    fixed = tuple(v.detach() for v in x)
    parameters = gradients(case.seeded(*fixed, **given), given.values())
    alone = gradients(case.seeded(*x, **{name: v.detach() for name, v in given.items()}), x)
    torch.testing.assert_close([*alone, *parameters], both, rtol=1e-12, atol=1e-14)


def test_backward_twice_needs_the_graph(case):
    """As of any op: without retain_graph a second backward raises, it does not answer wrongly."""
    x = inputs(case.activation, 3)
    y = case.function(*x)
    y.sum().backward()
    if case.name != "identity":
        with pytest.raises(RuntimeError, match="second time"):
            y.sum().backward()


@pytest.mark.wide
def test_inplace(elementwise_case):
    case = elementwise_case
    (x,) = inputs(case.activation, 8, grad=False)
    mine = x.clone()
    assert case.seeded(mine, inplace=True) is mine
    assert torch.equal(mine, case.seeded(x))
    leaf = x.clone().requires_grad_()
    wanted = gradients(case.seeded(leaf), [leaf])
    middle = leaf * 1.0
    assert case.seeded(middle, inplace=True) is middle
    torch.testing.assert_close(gradients(middle, [leaf]), wanted, rtol=1e-12, atol=1e-15)
    assert gradgradcheck(lambda x: case.seeded(x * 1.0, inplace=True), (leaf,))


def test_inplace_keeps_what_torch_keeps(elementwise_case):
    """A leaf that requires grad is refused; the version counter tells autograd of a value it needs; views are written
    through; memory that several elements share is refused."""
    case = elementwise_case
    (x,) = inputs(case.activation, 6)
    before = x.detach().clone()
    with pytest.raises(RuntimeError, match="leaf Variable that requires grad"):
        case.function(x, inplace=True)
    assert torch.equal(x.detach(), before)
    needed = torch.exp(x)
    case.function(needed, inplace=True)
    whole = before.clone()
    case.seeded(whole[::2], inplace=True)
    assert torch.equal(whole[::2], case.seeded(before[::2])) and torch.equal(whole[1::2], before[1::2])
    if case.name == "identity":
        return  # changes nothing
    with pytest.raises(RuntimeError, match="single memory location"):
        case.function(before[:1].expand(4), inplace=True)
    with pytest.raises(RuntimeError, match="modified by an inplace operation"):
        needed.sum().backward()


def test_inplace_with_learned_parameters(parametrized_case):
    case = parametrized_case
    if case.activation.kind != "elementwise":
        pytest.skip("works in place only if elementwise")
    (x,), given = inputs(case.activation, 2, 3), tensors(case.activation)
    wanted = gradients(case.seeded(x, **given), (x, *given.values()))
    got = gradients(case.seeded(x * 1.0, inplace=True, **given), (x, *given.values()))
    torch.testing.assert_close(got, wanted, rtol=1e-12, atol=1e-14)
    plain = x.detach().clone()
    case.seeded(plain, inplace=True, **given)
    torch.testing.assert_close(gradients(plain, given.values()), wanted[1:], rtol=1e-12, atol=1e-14)


def test_no_grad_and_inference_mode(case):
    x = inputs(case.activation, 3, 4)
    wanted = case.seeded(*(v.detach() for v in x))
    with torch.no_grad():
        y = case.seeded(*x)
        assert y is x[0] or not y.requires_grad
        assert torch.equal(y, wanted)
    with torch.inference_mode():
        y = case.seeded(*x)
        assert torch.equal(y, wanted)
        assert torch.equal(case.seeded(*(v.clone() for v in x)), wanted)
        if case.activation.kind == "elementwise":
            mine = x[0].clone()
            assert torch.equal(case.seeded(mine, inplace=True), wanted)
    # outside again, an inference tensor may be used where nothing is to be differentiated
    inferred = case.seeded(y) if len(x) == 1 else case.seeded(y, y)
    assert torch.equal(inferred, case.seeded(*[y.clone()] * len(x)))


def test_the_result_is_no_view_of_the_input(case):
    x = inputs(case.activation, 3, 4, grad=False)
    y = case.function(*x)
    if case.name == "identity":
        assert torch.equal(y, x[0])
    else:
        assert all(y.untyped_storage().data_ptr() != v.untyped_storage().data_ptr() for v in x)


def test_a_wrong_derivative_would_fail():
    """The checks above can fail: a slope declared wrong by one part in a hundred is caught."""

    def stable(x, ops):
        return ops.with_slope(ops.tanh(x), x, 1.01 * ops.sech2(x))

    @softknee.elementwise(stable=stable)
    def wrong(x, ops):
        """tanh."""
        return ops.tanh(x)

    x = torch.linspace(-1, 1, 5, dtype=torch.float64, requires_grad=True)
    with pytest.raises(GradcheckError):
        gradcheck(wrong, (x,))
