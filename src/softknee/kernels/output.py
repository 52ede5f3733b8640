"""When backward may keep the output in the input's place: f′(f(x)) = f′(x) at every number x of the dtype.

The next layer holds the output anyway, so that nothing is kept in addition. It is proved from the definition: f′ must
be constant between the numbers that it compares x with, and f, between them, x itself, a number, or c·x with c > 0. So
are relu, leaky_relu, hardtanh, thresholded_relu and hardshrink, and whatever a definition of that form says.

Elsewhere the input is kept. y·(1 − y), 1 − y² and y + α are the derivatives of sigmoid, tanh and elu, but 0 wherever
the output is rounded to its limit (from |x| = 17 on in float32), while f′ is still a number that can be divided by.
"""

from __future__ import annotations

import functools
import math

import torch

from ..catalog import Activation
from ..expression import Expr, differentiate
from ..expression.graph import COMPARISONS, walk


class _Unknown(Exception):
    """The expression has another form."""


@functools.lru_cache(maxsize=4096)
def keeps_output(activation: Activation, values: tuple[float, ...], dtype: torch.dtype) -> bool:
    """Whether it is proved for an elementwise activation at these parameters."""
    (x,) = activation.inputs
    pieces = _Pieces(x, dict(zip(activation.parameters, values, strict=True)))
    try:
        return _proved(activation.expression, differentiate(activation.expression, x), pieces, dtype)
    except _Unknown:
        return False


def _proved(f: Expr, derivative: Expr, pieces: _Pieces, dtype: torch.dtype) -> bool:
    def slope(at: float) -> float:
        return pieces.number(pieces.leaf(derivative, at))

    ends = sorted({0.0, *(sign * t for root in (f, derivative) for t in pieces.compared(root) for sign in (1, -1))})
    between = [low / 2 + high / 2 for low, high in zip(ends, ends[1:], strict=False)]
    samples = [-math.inf, *ends, *between, math.inf, math.nan]  # one of every piece: f′ is the same throughout
    for at in samples:
        leaf, wanted = pieces.leaf(f, at), slope(at)
        if leaf.op == "symbol" and leaf.args[0] == pieces.x:
            continue
        if leaf.op == "mul" and pieces.scales(leaf):
            # It may be rounded to anything on its side of 0, and to 0.
            side = [s for s in samples if s == 0 or (s > 0) == (at > 0)]
            if at == at and any(slope(s) != wanted for s in side if s == s):
                return False
        elif slope(torch.tensor(pieces.number(leaf), dtype=dtype).item()) != wanted:
            return False
    return True


class _Pieces:
    """The pieces of expressions in `x`, the parameters being numbers."""

    def __init__(self, x: str, values: dict[str, float]) -> None:
        self.x = x
        self.values = values

    def number(self, node: Expr) -> float:
        if node.op == "constant":
            return float(node.args[0])
        if node.op == "symbol" and node.args[0] in self.values:
            return self.values[node.args[0]]
        raise _Unknown

    def scales(self, node: Expr) -> bool:
        """c·x with c > 0"""
        factors = [a for a in node.args if not (a.op == "symbol" and a.args[0] == self.x)]
        return len(factors) == 1 and 0.0 < self.number(factors[0]) < math.inf

    def leaf(self, node: Expr, at: float) -> Expr:
        """What the expression is at x = `at`, where it chooses between several."""
        while node.op in ("where", "maximum", "minimum"):
            if node.op == "where":
                condition, first, second = node.args
                node = first if self._holds(condition.op, *(self._value(a, at) for a in condition.args)) else second
            else:
                first, second = node.args
                a, b = self._value(first, at), self._value(second, at)
                node = first if a != a or (a > b) == (node.op == "maximum") else second
        return node

    def compared(self, root: Expr) -> list[float]:
        """The numbers that x is compared with."""
        nodes = [node for node in walk(root) if node.op in (*COMPARISONS, "maximum", "minimum")]
        return [self._value(a, 0.0) for node in nodes for a in node.args]

    def _value(self, node: Expr, at: float) -> float:
        if node.op == "symbol" and node.args[0] == self.x:
            return at
        return abs(self._value(node.args[0], at)) if node.op == "abs" else self.number(node)

    @staticmethod
    def _holds(comparison: str, a: float, b: float) -> bool:
        return {"lt": a < b, "le": a <= b, "gt": a > b, "ge": a >= b}[comparison]
