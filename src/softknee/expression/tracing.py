"""Tracing: run a definition on symbols, with an op table whose primitives build expressions."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

from .graph import Expr, lift, symbol
from .table import OpTable


class TracingTable(OpTable):
    """The op table that records. `ops.pi` stays a symbol, so that mpmath may have all its digits."""

    name = "tracing"
    pi = Expr("pi")


def _recorder(op: str) -> Callable[..., Expr]:
    return lambda self, *args: Expr(op, *map(lift, args))


UNARY: tuple[str, ...] = (
    "exp",
    "expm1",
    "log",
    "log1p",
    "sqrt",
    "sin",
    "cos",
    "atan",
    "tanh",
    "sech2",
    "sigmoid",
    "softplus",
)
UNARY += ("erf", "erfc", "abs", "sign")
for _op in (*UNARY, "maximum", "minimum", "where"):
    setattr(TracingTable, _op, _recorder(_op))

_TABLE = TracingTable()


def trace(function: Callable[..., Any], inputs: tuple[str, ...], parameters: Mapping[str, Any] | None = None) -> Expr:
    """The expression of `function(*inputs, ops, **parameters)`; a parameter stands as a symbol of its name.

    Raises TypeError, naming the definition, where it uses what the op table does not know.
    """
    try:
        result = function(*map(symbol, inputs), _TABLE, **{name: symbol(name) for name in parameters or ()})
        return lift(result)
    except (TypeError, AttributeError) as error:
        name = getattr(function, "__name__", repr(function))
        raise TypeError(f"the definition of {name!r} cannot be traced: {error}") from error
