"""What does not fit is refused with an InputError that names the argument, its value and what would be right."""

from __future__ import annotations

import contextlib
import functools
import itertools
import math
import re

import numpy as np
import pytest
import torch
from cases import cases, inputs, numbers, tensors, violations

import softknee
import softknee.functional as SF
from softknee.errors import InputError

CASES = {case.name: case for case in cases()}


def refused(*parts):
    """Raises InputError, whose message holds all the parts, in this order."""
    return pytest.raises(InputError, match=".*".join(re.escape(str(part)) for part in parts))


def example(activation, *shape):
    return inputs(activation, *(shape or (3, 4)), grad=False)


def call(activation, *x, **given):
    return CASES[activation.name].function(*x, **given)


@pytest.mark.wide
def test_a_value_that_breaks_a_condition(violation):
    """Each condition, each parameter in it: as a number, as a tensor, as one element of many, in a module."""
    activation, name, number, condition = violation
    x = example(activation)
    message = (activation.name, name, f"{number:g}"[:6], "out of range; it must be", condition)
    count = isinstance(activation.defaults[name], int)
    with refused(activation.name, name, "must be a whole number") if count else refused(*message):
        call(activation, *x, **{name: torch.tensor(number, dtype=torch.float64)})
    many = torch.full((3, 1), float(activation.defaults[name]), dtype=torch.float64)
    many[2] = number
    with (
        contextlib.nullcontext()
        if count
        else refused(activation.name, f"{name}=[", f"{number:g}"[:6], "out of range; it must be", condition)
    ):
        call(activation, *x, **{name: 2 if count else many})
    for build in (functools.partial(call, activation, *x), CASES[activation.name].module):
        with refused(activation.name, name, "must not be NaN") if math.isnan(number) else refused(*message):
            build(**{name: number})


def test_a_number_that_is_no_float(parametrized):
    """NaN, and an integer beyond the largest float, of whatever sign."""
    for name in numbers(parametrized):
        wrong = {math.nan: "must not be NaN", np.float32("nan"): "must not be NaN"}
        wrong |= {sign * 10**400: "must be at most 1.79769e+308, or inf" for sign in (1, -1)}
        for value, message in wrong.items():
            for build in (
                functools.partial(call, parametrized, *example(parametrized)),
                CASES[parametrized.name].module,
            ):
                with refused(f"{parametrized.name}: {name} {message}"):
                    build(**{name: value})


@pytest.mark.wide
def test_an_infinite_parameter_is_refused_or_gives_no_nan(parametrized):
    """Of those that modules do not learn: what may be infinite has its limit as its value."""
    line = torch.tensor([-3.0, -1e-3, 0.0, 1e-3, 3.0])
    for name, end in itertools.product(numbers(parametrized), (-math.inf, math.inf)):
        if parametrized.parameters[name].learnable:
            continue
        x = [line.clone().requires_grad_() for _ in parametrized.inputs]
        try:
            y = call(parametrized, *x, **{name: end})
        except InputError:
            continue
        assert not any(v.isnan().any() for v in (y, *torch.autograd.grad(y.sum(), x))), (name, end)


def test_every_condition_is_broken_above(activation):
    named = {name for condition in activation.conditions for name in condition.names}
    assert {name for name, *_ in violations(activation)} == named
    for name, number, _ in violations(activation):
        assert not all(c.holds(activation.defaults | {name: number}) for c in activation.conditions)


def test_the_element_that_is_wrong_is_shown():
    temperature = torch.ones(64, 1)
    temperature[50] = 0.0
    with refused("softmax: temperature=[0.0] is out of range; it must be 0 < temperature"):
        SF.softmax(torch.randn(64, 5), -1, temperature=temperature)
    with refused("hardtanh: min_val=[2.0], max_val=1.0 is out of range; it must be min_val <= max_val"):
        SF.hardtanh(torch.randn(3), min_val=torch.tensor([0.0, 2.0, -1.0]))


@pytest.mark.parametrize("value", ["1", None, [1.0], {}, 1j, torch.float32, np.ones(2)], ids=lambda v: type(v).__name__)
def test_a_value_of_the_wrong_type(parametrized, value):
    x = example(parametrized)
    for name, parameter in parametrized.parameters.items():
        right = "must be True or False" if isinstance(parameter.default, bool) else "must be a number or a tensor"
        with refused(f"{parametrized.name}: {name} {right}, got"):
            call(parametrized, *x, **{name: value})
        with refused(f"{parametrized.name}: {name} {right}, got"):
            CASES[parametrized.name].module(**{name: value})


@pytest.mark.parametrize("dtype", [torch.int64, torch.bool, torch.complex64])
def test_a_parameter_of_the_wrong_dtype(parametrized, dtype):
    word = str(dtype).removeprefix("torch.")
    for name in numbers(parametrized):
        with refused(f"{parametrized.name}: {name} must be a real floating-point tensor, got {word}"):
            call(parametrized, *example(parametrized), **{name: torch.ones(1).to(dtype)})


def test_a_switch_takes_no_number(parametrized):
    for name, parameter in parametrized.parameters.items():
        wrong = (1, 0.0, torch.tensor(True)) if isinstance(parameter.default, bool) else (True, False)
        for value in wrong:
            with refused(f"{parametrized.name}: {name} must be"):
                call(parametrized, *example(parametrized), **{name: value})


def test_an_unknown_parameter(activation):
    """The message lists those there are, and the one that was meant."""
    x = example(activation)
    if activation.kind == "normalizer":
        function = functools.partial(getattr(SF, activation.name), *x, dim=-1)
    else:
        function = functools.partial(getattr(SF, activation.name), *(x if activation.name != "glu" else x[:1]))
    known = f"its parameters are {', '.join(activation.parameters)}" if activation.parameters else "it has none"
    for build in (
        lambda **given: call(activation, *x, **given),
        function,
        CASES[activation.name].module,
    ):
        with refused(activation.name, "has no parameter 'nonsense'", known):
            build(nonsense=1.0)
    for name in activation.parameters:
        if len(name) > 3:
            with refused("has no parameter", f"did you mean '{name}'"):
                call(activation, *x, **{name[:-1] + "q" + name[-1]: 1.0})


@pytest.mark.parametrize(
    "wrong", [[1.0, 2.0], 1.0, None, "x", np.ones(3), torch.nn.ReLU()], ids=lambda v: type(v).__name__
)
def test_an_input_that_is_no_tensor(activation, wrong):
    """Named by the argument's word, in a call, as a function and in a module."""
    x = list(example(activation))
    words = " and ".join(activation.inputs)
    for at in range(len(x)):
        given = [*x[:at], wrong, *x[at + 1 :]]
        with refused(activation.name, "takes", words, type(wrong).__name__):
            call(activation, *given)
        with refused(type(wrong).__name__) if at == 0 or wrong is not None else refused("up"):
            CASES[activation.name].module()(*given)
    if activation.kind == "normalizer":
        with refused(activation.name, "takes", words, type(wrong).__name__):
            getattr(SF, activation.name)(wrong, dim=-1)


def test_a_wrong_number_of_inputs(activation):
    x, words = example(activation), " and ".join(activation.inputs)
    for given in ((), (*x, x[0]), (*x, x[0], x[0])):
        with refused(activation.name, "takes", words):
            call(activation, *given)
    with refused(activation.name, "takes", words):
        CASES[activation.name].module()()


def test_parameters_that_do_not_broadcast(parametrized):
    """Both shapes are named, and which argument has which."""
    x = example(parametrized, 2, 3, 4)
    for name in numbers(parametrized):
        value = tensors(parametrized, 2, 5, 1, grad=False)[name]
        with refused(f"{parametrized.name}: {name} of shape (2, 5, 1) does not broadcast with the input's (2, 3, 4)"):
            call(parametrized, *x, **{name: value})


def test_inputs_that_do_not_broadcast(gated):
    gate, up = example(gated, 3, 4)[0], example(gated, 3, 5)[1]
    for build in (gated, getattr(SF, gated.name) if not gated.torch else gated, CASES[gated.name].module()):
        with refused(gated.name, "gate of shape (3, 4) and up of shape (3, 5) do not broadcast"):
            build(gate, up)


def test_channels_that_do_not_match(parametrized):
    learnable = [name for name, p in parametrized.parameters.items() if p.learnable]
    for name in learnable:
        (x,) = example(parametrized, 2, 3, 4)
        message = (parametrized.name, name, "4 channels", "shape (2, 3, 4) has 3 in dimension 1")
        with refused(*message):
            call(parametrized, x, **{name: tensors(parametrized, 4)[name]})
        with refused(parametrized.name, learnable[0], *message[2:]):
            softknee.nn.Activation(parametrized, channels=4).double()(x)
        with refused(parametrized.name, name, "shape () has no"):
            call(parametrized, x[0, 0, 0], **{name: tensors(parametrized, 4)[name]})
    if parametrized.kind == "elementwise":
        learn = tuple(numbers(parametrized))
        with refused("channels, but the input of shape (2, 3, 4) has 3 in dimension 1"):
            softknee.nn.Activation(parametrized, channels=4, learn=learn).double()(example(parametrized, 2, 3, 4)[0])


@pytest.mark.parametrize("dim", [2, -3, 7, "rows", 1.0, (0, 1)])
def test_a_dim_that_does_not_fit(normalizer, dim):
    x = torch.randn(3, 4)
    right = "shape (3, 4); it must be a whole number from -2 to 1"
    for given in ({}, numbers(normalizer)):
        with refused(normalizer.name, f"dim={dim!r}", right):
            normalizer(x, dim=dim, **given)
    with refused(normalizer.name, f"dim={dim!r}", right):
        softknee.nn.Activation(normalizer, dim=dim)(x)


def test_no_dim(normalizer):
    """Where the entry has a default it is taken; where it has none, it must be said."""
    x = torch.randn(3, 4)
    if normalizer.dim is not None:
        assert normalizer(x).shape == x.shape
        return
    for build in (normalizer, getattr(SF, normalizer.name)):
        with refused(f"{normalizer.name} needs dim"):
            build(x)
    with refused(f"{normalizer.name} needs dim"):
        softknee.nn.Activation(normalizer)


def test_a_dtype_that_is_none(normalizer):
    x = torch.randn(3, 4)
    for wrong in ("float32", 32):
        with refused(f"{normalizer.name}: dtype must be a torch.dtype, got {wrong!r}"):
            normalizer(x, dim=-1, dtype=wrong)
    with refused(normalizer.name, "must be a real floating-point tensor, got int64"):
        normalizer(x, dim=-1, dtype=torch.int64)


def test_a_packed_tensor_that_does_not_split(gated):
    """An odd size, a dim out of range, no dimension, no tensor; as a function and as a module."""
    function, module = getattr(SF, gated.name), softknee.nn.Activation(gated)
    for build in (function, module):
        with refused("even size along dim=-1, got shape (4, 5)"):
            build(torch.randn(4, 5))
        with refused("even size", "got shape ()"):
            build(torch.tensor(1.0))
        with refused("got list"):
            build([1.0, 2.0])
    for dim in (2, -3, "rows"):
        right = f"dim={dim!r} does not fit a packed tensor of shape (4, 6); it must be a whole number from -2 to 1"
        with refused(right):
            function(torch.randn(4, 6), dim=dim)
        with refused(right):
            softknee.nn.Activation(gated, dim=dim)(torch.randn(4, 6))
    with refused("layout='packed' is unknown", "gate_up, up_gate, interleaved"):
        function(torch.randn(4, 6), layout="packed")
    with refused("layout='packed' is unknown", "gate_up, up_gate, interleaved"):
        softknee.nn.Activation(gated, layout="packed")


def test_what_does_not_work_in_place(activation):
    if activation.kind == "elementwise":
        pytest.skip("works in place")
    with refused(activation.name, activation.kind, "does not work in place"):
        call(activation, *example(activation), inplace=True)


def test_float8_is_refused(activation):
    x = [v.float().to(torch.float8_e4m3fn) for v in example(activation)]
    if activation.name != "identity":
        with refused(activation.name, "float8_e4m3fn"):
            call(activation, *x)


def test_a_model_is_left_as_it_was(activation):
    """What is refused in place has written nothing, and drawn nothing."""
    if activation.kind != "elementwise":
        pytest.skip("does not work in place")
    (x,) = example(activation)
    before, state = x.clone(), torch.get_rng_state()
    with pytest.raises(InputError):
        activation(x, nonsense=1.0, inplace=True)
    for name in numbers(activation):
        with pytest.raises(InputError):
            activation(x, inplace=True, **{name: torch.ones(5, 1, dtype=torch.float64)})
    assert torch.equal(x, before) and torch.equal(torch.get_rng_state(), state)
