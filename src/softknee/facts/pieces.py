"""An activation at fixed parameters as a function of one number: the pieces between its breakpoints, each without a
branch.

Between two breakpoints every comparison has one outcome, so the formula is there one smooth expression. Extrema,
slopes, jumps, parity and regions are read off those, one-sided where two of them meet.
"""

from __future__ import annotations

import functools
import math
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np

from ..catalog import Activation
from ..expression import Expr, constant, differentiate, symbol
from ..expression.graph import COMPARISONS, lift, walk
from ..expression.tracing import TracingTable
from .intervals import Enclosure, evaluate
from .proofs import REACH, bounded, isolate

X = symbol("x")
ZERO = constant(0.0)


@dataclass(frozen=True, eq=False)
class Piece:
    """f on (low, high), as an expression in "x" without branches; ends may be infinite.

    stable: the same function in a form that cancels less, all over the line, branches and all.
    """

    low: float
    high: float
    expression: Expr
    stable: Expr | None = None

    @functools.cached_property
    def _derivatives(self) -> list[list[Expr]]:
        return [[self.expression] if self.stable is None else [self.expression, self.stable]]

    def derivative(self, order: int) -> Expr:
        """The derivative of that order, without branches."""
        return self._forms(order)[0]

    def _forms(self, order: int) -> list[Expr]:
        while len(self._derivatives) <= order:
            self._derivatives.append([simplified(differentiate(form, "x")) for form in self._derivatives[-1]])
        return self._derivatives[order]

    def enclose(self, order: int, low: Any, high: Any) -> Enclosure:
        """What the derivative of that order is over intervals in the piece; at its ends, from this side."""
        formula, *stable = self._forms(order)
        found = evaluate(formula, low, high)
        if stable:
            other = evaluate(stable[0], low, high)
            # at an end of the piece the stable form may already be what it is beyond
            own = (np.asarray(low) == high) & ((np.asarray(low) == self.low) | (np.asarray(low) == self.high))
            met = found.meet(other)
            use = ~own & (met.low <= met.high)
            found = Enclosure(*(np.where(use, a, b) for a, b in zip(met.parts, found.parts, strict=True)))
        return found

    def vanishes(self, order: int = 0) -> bool:
        """Whether the derivative of that order is 0 all over the piece."""
        found = evaluate(self.derivative(order), max(self.low, -REACH), min(self.high, REACH))
        return bool(found.low == 0 == found.high)

    def roots(self, order: int = 0) -> tuple[tuple[float, ...], bool]:
        """The roots of the derivative of that order, ends included, and whether these are all; none where it vanishes
        altogether."""
        if self.vanishes(order):
            return (), True
        return isolate(lambda n, low, high: self.enclose(order + n, low, high), self.low, self.high)

    def bounded(self, most: float, sign: int = 1, order: int = 0, within: tuple[float, float] | None = None) -> bool:
        """Whether sign·f⁽ᵒʳᵈᵉʳ⁾ ≤ most is shown, all over the piece or on an interval in it."""
        low, high = within or (self.low, self.high)
        return bounded(lambda n, left, right: self.enclose(order + n, left, right), low, high, most, sign)


class _Plain(TracingTable):
    """Records the plain formula, also of what a formula calls: the branches of a stable form are no breakpoints."""

    name = "mpmath"


def bound(activation: Activation, parameters: Mapping[str, float]) -> tuple[Expr, Expr | None]:
    """The formula in "x" alone (parameters as numbers, up = 1, noise at its mean), and the stable form, if any."""
    names = {name: symbol(name) for name in activation.parameters}
    formula = lift(activation.on(_Plain(), *map(symbol, activation.inputs), **names))
    known = {name: constant(float(value)) for name, value in parameters.items()}
    known |= {name: constant(1.0) for name in activation.inputs[1:]}
    known[activation.inputs[0]] = X
    plain, stable = simplified(formula, known), simplified(activation.expression, known)
    return plain, None if stable is plain else stable


def simplified(expression: Expr, known: Mapping[str, Expr] | None = None) -> Expr:
    """The expression with `known` symbols replaced, and without branches that numbers alone decide."""
    found: dict[Expr, Expr] = {}
    for node in walk(expression):
        if node.op == "symbol":
            found[node] = (known or {}).get(node.args[0], node)
        elif node.op in ("constant", "pi"):
            found[node] = node
        else:
            found[node] = _simple(node.op, [found[a] for a in node.args])
    return found[expression]


def _simple(op: str, args: list[Expr]) -> Expr:
    a = args[0]
    if op == "where" and a.op in COMPARISONS:
        outcome = _outcome(a)
        if outcome is not None:
            return args[1] if outcome else args[2]
        if args[1] is args[2]:
            return args[1]
    elif all(one.op == "constant" for one in args) and op in ("neg", "abs", "sign", "maximum", "minimum"):
        values = [one.args[0] for one in args]
        if op in ("maximum", "minimum"):
            return constant(max(values) if op == "maximum" else min(values))
        return constant({"neg": -values[0], "abs": abs(values[0]), "sign": float(np.sign(values[0]))}[op])
    elif op == "mul":
        if args[1] is constant(1.0):
            return a
        if a is constant(1.0):
            return args[1]
    elif (op in ("add", "sub") and args[1] is ZERO) or (op == "div" and args[1] is constant(1.0)):
        return a
    elif op == "add" and a is ZERO:
        return args[1]
    elif op == "sub" and a is args[1]:
        return ZERO
    return Expr(op, *args)


def _outcome(comparison: Expr) -> bool | None:
    """What a comparison of constants gives."""
    if any(node.args[0] == "x" for node in walk(comparison) if node.op == "symbol"):
        return None
    left, right = (evaluate(side, 0.0, 0.0) for side in comparison.args)
    verdict = {"lt": left < right, "le": left <= right, "gt": left > right, "ge": left >= right}[comparison.op]
    return True if bool(verdict.holds) else False if bool(verdict.fails) else None


def split(expression: Expr, stable: Expr | None = None) -> tuple[tuple[Piece, ...], bool]:
    """The pieces; one with all its branches, and False, where the roots of a condition are too many (|sin x|)."""
    edges: list[float] = []
    complete = True
    for node in walk(expression):
        if node.op in ("maximum", "minimum") or node.op in COMPARISONS:
            difference = simplified(node.args[0] - node.args[1])
        elif node.op in ("abs", "sign"):
            difference = node.args[0]
        else:
            continue
        ends = [-math.inf, *edges, math.inf]
        for low, high in zip(ends[:-1], ends[1:], strict=True):
            # what stands inside the condition may branch itself; those nodes came first
            piece = Piece(low, high, _resolved(difference, low, high))
            roots, all_found = piece.roots()
            edges = _distinct([*edges, *roots])
            complete &= all_found
    if not complete:
        return (Piece(-math.inf, math.inf, expression, stable),), False
    ends = [-math.inf, *edges, math.inf]
    pieces: list[Piece] = []
    for low, high in zip(ends[:-1], ends[1:], strict=True):
        own = _resolved(expression, low, high)
        if pieces and pieces[-1].expression is own:  # a condition changes, and nothing with it
            pieces[-1] = Piece(pieces[-1].low, high, own, stable)
        else:
            pieces.append(Piece(low, high, own, stable))
    return tuple(pieces), True


def _distinct(edges: list[float]) -> list[float]:
    """Sorted, and of those that only rounding tells apart, one."""
    found: list[float] = []
    for edge in sorted(edges):
        if not found or edge - found[-1] > 1e-13 * max(abs(edge), 1e-3):
            found.append(edge + 0.0)
    return found


def inside(low: float, high: float) -> float:
    """A number between two ends."""
    if math.isinf(low) and math.isinf(high):
        return 0.7  # 0 is where things happen
    if math.isinf(low):
        return high - max(1.0, abs(high))
    if math.isinf(high):
        return low + max(1.0, abs(low))
    return low + 0.5 * (high - low)


def _resolved(expression: Expr, low: float, high: float) -> Expr:
    """The expression on (low, high), where no condition changes its outcome."""
    at = inside(low, high)
    found: dict[Expr, Expr] = {}
    for node in walk(expression):
        args = [found[a] if isinstance(a, Expr) else a for a in node.args]
        result = node if node.op in ("symbol", "constant", "pi") else None
        if node.op in ("maximum", "minimum"):
            sign = _sign(args[0], args[1], at)
            # at a tie all over the piece the second is taken, as by the derivative's rule
            result = None if sign is None else args[0] if sign == (1 if node.op == "maximum" else -1) else args[1]
        elif node.op == "abs":
            sign = _sign(args[0], ZERO, at)
            result = None if sign is None else args[0] if sign > 0 else _simple("neg", [args[0]]) if sign else ZERO
        elif node.op == "sign":
            sign = _sign(args[0], ZERO, at)
            result = None if sign is None else constant(float(sign))
        elif node.op == "where":
            sign = _sign(args[0].args[0], args[0].args[1], at)
            if sign is not None:
                holds = {"lt": sign < 0, "le": sign <= 0, "gt": sign > 0, "ge": sign >= 0}[args[0].op]
                result = args[1] if holds else args[2]
        found[node] = _simple(node.op, args) if result is None else result
    return found[expression]


def _sign(a: Expr, b: Expr, at: float) -> int | None:
    """Whether a − b is positive (1), negative (−1) or 0 at a number; None where rounding hides it."""
    difference = evaluate(_simple("sub", [a, b]), at, at)
    if difference.low == 0 == difference.high:
        return 0
    if difference.low > 0 or (difference.low >= 0 and difference.nonzero):
        return 1
    return -1 if difference.high < 0 or (difference.high <= 0 and difference.nonzero) else None


def mirrors(left: Piece, right: Piece) -> tuple[bool, bool]:
    """Whether f is shown to be even, and to be odd, of a piece and its mirror image."""
    (s, a), (t, b) = normal(simplified(left.expression, {"x": -X})), normal(right.expression)
    zero = a is b is ZERO
    return a is b and (s == t or zero), a is b and (s == -t or zero)


ODD = {"tanh", "sin", "atan", "erf", "sign"}
EVEN = {"cos", "sech2", "abs"}


def normal(expression: Expr) -> tuple[int, Expr]:
    """An expression without branches, as a sign and a form in which every minus is pulled out as far as it goes."""
    found: dict[Expr, tuple[int, Expr]] = {}
    rank: dict[Expr, int] = {}

    def made(sign: int, op: str, *args: Expr) -> tuple[int, Expr]:
        node = Expr(op, *args)
        rank.setdefault(node, hash((op, *(rank[a] for a in args))))
        return sign, node

    for node in walk(expression):
        op = node.op
        args = [found[a] for a in node.args if isinstance(a, Expr)]
        if op == "constant":
            value = node.args[0]
            found[node] = (-1, constant(-value)) if value < 0 else (1, constant(abs(value)))
            rank[found[node][1]] = hash(value * value)
        elif not args:
            found[node] = (1, node)
            rank[node] = hash(repr(node))
        elif op == "neg":
            found[node] = (-args[0][0], args[0][1])
        elif op == "with_slope":
            found[node] = args[0]
        elif op in ("mul", "div"):
            (s, a), (t, b) = args
            if op == "mul" and rank[b] < rank[a]:
                a, b = b, a
            found[node] = made(s * t, op, a, b)
        elif op in ("add", "sub"):
            (s, a), (t, b) = args
            t = -t if op == "sub" else t
            if rank[b] < rank[a]:
                (s, a), (t, b) = (t, b), (s, a)
            found[node] = made(s, "add" if s == t else "sub", a, b)
        elif op in ODD or op in EVEN:
            found[node] = made(args[0][0] if op in ODD else 1, op, args[0][1])
        else:
            signed = [a if s > 0 else made(1, "neg", a)[1] for s, a in args]
            found[node] = made(1, op, *signed)
    return found[expression]
