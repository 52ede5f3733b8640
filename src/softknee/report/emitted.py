"""The code that an activation becomes in every backend, as text: what is run, made from the definition.

    code("mish", "triton")      the two kernels
    available("softmax")        definition, latex, onnx

numpy, torch, jax and mpmath run the same straight-line functions over op tables of their own, whose primitives keep
tails exact.
"""

from __future__ import annotations

import functools
import inspect
import textwrap
from collections.abc import Callable

from softknee.backends import table
from softknee.backends.floats import unsteady
from softknee.catalog import Activation
from softknee.errors import InputError, closest
from softknee.expression import differentiate, emit

from .choice import Choice, Named

STRAIGHT = ("numpy", "torch", "jax", "mpmath")
"""Backends that differ in the op table alone."""


def code(what: Named, backend: str) -> str:
    """The code of `what` in `backend`, one of `BACKENDS`; parameters of the choice are in it where they are numbers.

    Raises InputError for a backend that is unknown or has no code of this activation, naming those that have, and
    where the library that writes it is not installed.
    """
    choice = Choice.of(what)
    activation = choice.activation.at(**choice.parameters)
    if backend not in BACKENDS:
        known = ", ".join(BACKENDS)
        raise InputError(f"backend {backend!r} is unknown; it must be one of {known}{closest(backend, BACKENDS)}")
    try:
        return BACKENDS[backend](activation).strip("\n")
    except NotImplementedError as error:
        others = ", ".join(available(activation))
        raise InputError(f"{activation.name} has no code for {backend}: {error}; there is {others}") from None


def available(what: Named) -> tuple[str, ...]:
    """The backends that have code of it, installed or not."""
    activation = Choice.of(what).activation
    found = []
    for name, write in BACKENDS.items():
        try:
            LIBRARY.get(name, write)(activation)
            found.append(name)
        except NotImplementedError:
            continue
    return tuple(found)


def _pointwise(activation: Activation) -> None:
    if activation.kind == "normalizer":
        raise NotImplementedError("it reduces over a dimension; its definition is its code")


def _definition(activation: Activation) -> str:
    if activation.formula.__module__ == "text":
        given = "".join(f"; {name} = {value!r}" for name, value in activation.defaults.items())
        return f'softknee.define("{activation.formula.__doc__}{given}", name="{activation.name}")'
    try:
        parts = [inspect.getsource(activation.formula)]
        if activation.stable is not None and (stable := inspect.getsource(activation.stable)) not in parts[0]:
            parts.append(stable)
    except OSError:
        raise NotImplementedError("its source is not in a file") from None
    return "\n\n".join(textwrap.dedent(part) for part in parts)


def _latex(activation: Activation) -> str:
    table("sympy")  # says what is missing
    return activation.latex()


def _sympy(activation: Activation) -> str:
    """In SymPy's own functions."""
    _pointwise(activation)
    ops = table("sympy")
    import sympy

    symbols = {name: sympy.Symbol(name, real=True) for name in activation.names}
    inputs = [symbols[name] for name in activation.inputs]
    found = activation.on(ops, *inputs, **{name: symbols[name] for name in activation.parameters})
    found = sympy.sympify(found).replace(type(ops).sigmoid, lambda u: 1 / (1 + sympy.exp(-u)))
    return str(found.replace(type(ops).softplus, lambda u: sympy.log(1 + sympy.exp(u))))


def _straight(activation: Activation, backend: str) -> str:
    """f and its derivative over an op table."""
    _pointwise(activation)
    given, values = tuple(activation.parameters), tuple(activation.defaults.values())
    lines = ["from softknee.backends import table", "", f'ops = table("{backend}")', "", ""]
    lines += [emit([activation.expression], activation.name, activation.names), ""]
    for name in activation.inputs:
        derived = differentiate(activation.expression, name)
        finite = unsteady(derived, activation.inputs, given, values)
        lines += [emit([derived], f"{activation.name}_d{name}", activation.names, finite), ""]
    arguments = [*activation.inputs, *(f"{name}={value!r}" for name, value in activation.defaults.items())]
    lines += [f"# {activation.name}(ops, {', '.join(arguments)})"]
    return "\n".join(lines)


def _onnx_can(activation: Activation) -> None:
    if activation.kind == "normalizer" and activation.stochastic:
        raise NotImplementedError("it draws noise at every call")


def _onnx(activation: Activation) -> str:
    _onnx_can(activation)
    from softknee.onnx import function

    made = function(activation)
    from onnx import printer

    return printer.to_text(made)


def _triton(activation: Activation) -> str:
    _pointwise(activation)
    from softknee.backends.triton import code as kernels

    made = kernels(activation)
    head, body = made.forward.split("@triton.jit", 1)
    values = made.numbers(*activation.defaults.values())
    last = f"\n\n# the arguments _u…, of the parameters: {', '.join(map(repr, values))}" if values else ""
    return f"{head}@triton.jit{body}\n\n@triton.jit{made.backward.split('@triton.jit', 1)[1]}{last}"


def _cpp(activation: Activation) -> str:
    _pointwise(activation)
    from softknee.backends.cpp import code as functor

    made = functor(activation)
    return f"{made.functor}\n{made.uniforms}"


BACKENDS: dict[str, Callable[[Activation], str]] = {
    "definition": _definition,
    "latex": _latex,
    "sympy": _sympy,
    **{name: functools.partial(_straight, backend=name) for name in STRAIGHT},
    "onnx": _onnx,
    "triton": _triton,
    "cpp": _cpp,
}
LIBRARY: dict[str, Callable[[Activation], object]] = {
    "latex": lambda activation: None,
    "sympy": _pointwise,
    "onnx": _onnx_can,
}
"""What says whether there is code, where writing it takes a library that may be missing."""
