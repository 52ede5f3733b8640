"""Tracing: run a definition on symbols, with an op table whose primitives build expressions."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

from ..errors import closest
from .graph import COMPARISONS, Expr, lift, symbol, walk
from .table import OpTable


class TracingTable(OpTable):
    """The op table that records. `ops.pi` stays a symbol, so that mpmath may have all its digits."""

    name = "tracing"
    pi = Expr("pi")

    def __getattr__(self, name: str) -> Any:
        known = (*UNARY, *OTHERS)
        raise AttributeError(f"the op table has no {name!r}{closest(name, known)}; it has {', '.join(known)}")


def _recorder(op: str) -> Callable[..., Expr]:
    return lambda self, *args: Expr(op, *map(lift, args))


UNARY = (
    "exp", "expm1", "log", "log1p", "sqrt", "sin", "cos", "atan", "tanh", "sech2", "sigmoid", "softplus", "erf", "erfc",
    "abs", "sign",
)  # fmt: skip
OTHERS = ("maximum", "minimum", "where", "with_slope")
for _op in (*UNARY, *OTHERS):
    setattr(TracingTable, _op, _recorder(_op))

_TABLE = TracingTable()


def trace(
    function: Callable[..., Any],
    inputs: tuple[str, ...],
    parameters: Mapping[str, Any] | None = None,
    name: str | None = None,
) -> Expr:
    """The expression of `function(*inputs, ops, **parameters)`; a parameter stands as a symbol of its name.

    Raises TypeError, naming the definition (the function's name, or `name`), where it uses what the op table does not
    know.
    """
    try:
        result = function(*map(symbol, inputs), _TABLE, **{name: symbol(name) for name in parameters or ()})
        expression = lift(result)
        _check(expression)
        return expression
    except (TypeError, AttributeError) as error:
        name = name or getattr(function, "__name__", repr(function))
        raise TypeError(f"the definition of {name!r} cannot be traced: {error}") from error


def _check(expression: Expr) -> None:
    """A comparison is for `where`, and `where` for a comparison: backends do not agree on what else it might mean."""
    if expression.op in COMPARISONS:
        raise TypeError("it returns a comparison; return ops.where(condition, a, b)")
    for node in walk(expression):
        for place, argument in enumerate(node.args):
            compares = isinstance(argument, Expr) and argument.op in COMPARISONS
            if compares != (node.op == "where" and place == 0):
                wrong = (
                    "calculates with a comparison" if compares else "gives ops.where a condition that compares nothing"
                )
                raise TypeError(f"it {wrong}; write ops.where(x > 0, a, b)")
