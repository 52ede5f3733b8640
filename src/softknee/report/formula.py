"""An activation's formula on one line, as it is read: `x·σ(x)`, `x if x > 0 else negative_slope·x`.

Written from the definition itself, so that a user's own activation has one too, in the order in which it was written;
SymPy (`Activation.latex`) would reorder it, and is not always there.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from softknee.catalog import Activation
from softknee.expression.graph import Expr, lift, symbol, walk
from softknee.expression.tracing import TracingTable

from .figures import MINUS

LONGEST = 400
"""Letters that a formula may have; a longer one is not read."""

# How tightly a piece holds together: an operand that holds less tightly than its operator needs brackets.
CHOICE, COMPARISON, SUM, SIGN, PRODUCT, POWER, ATOM = range(7)

SUPERSCRIPTS = str.maketrans(f"{MINUS}0123456789xz", "⁻⁰¹²³⁴⁵⁶⁷⁸⁹ˣᶻ")
SIGNS = {"lt": "<", "le": "≤", "gt": ">", "ge": "≥"}
NAMES = {"sigmoid": "σ", "maximum": "max", "minimum": "min", "sech2": "sech²", "amax": "max", "total": "Σ"}


class _Reading(TracingTable):
    """Records what a normalizer does too, and leaves out what only arithmetic in floating point needs."""

    name = "sympy"  # as to SymPy, other definitions give their plain formula

    def with_slope(self, value: Any, x: Any, slope: Any) -> Any:
        return value

    def amax(self, x: Any) -> Any:
        return Expr("amax", lift(x))

    def total(self, x: Any) -> Any:
        return Expr("total", lift(x))


def formula(activation: Activation) -> str | None:
    """The definition on one line, or None where it cannot be written so (a normalizer by an algorithm, or too long).

    A switch or a count stands at its default; what is random is called noise, or deviate.
    """
    expression = read(activation)
    if expression is None:
        return None
    written: dict[Expr, tuple[str, int]] = {}
    for node in walk(expression):
        written[node] = _written(node, written)
        if len(written[node][0]) > LONGEST:
            return None
    return written[expression][0]


def read(activation: Activation) -> Expr | None:
    """The definition as it is read, without what only arithmetic in floating point needs; None where it is no
    expression (a normalizer by an algorithm)."""
    switches = {name: value for name, value in activation.defaults.items() if isinstance(value, int)}
    parameters = {name: symbol(name) for name in activation.parameters} | switches
    inputs = [symbol(name) for name in (*activation.inputs, *([activation.noise] if activation.noise else []))]
    try:
        return lift(activation.formula(*inputs, _Reading(), **parameters))
    except Exception:
        return None  # a normalizer may be any function of arrays


def _written(node: Expr, of: dict[Expr, tuple[str, int]]) -> tuple[str, int]:
    """The node's text and how tightly it holds together, from those of its arguments."""

    def held(argument: Expr, tightly: int) -> str:
        text, holds = of[argument]
        return text if holds >= tightly else f"({text})"

    op, args = node.op, node.args
    if op == "symbol":
        return str(args[0]), ATOM
    if op == "constant":
        return _constant(args[0])
    if op == "pi":
        return "π", ATOM
    if op in SIGNS:
        return f"{held(args[0], SUM)} {SIGNS[op]} {held(args[1], SUM)}", COMPARISON
    if op == "where":
        condition, a, b = args
        return f"{held(a, SUM)} if {held(condition, COMPARISON)} else {held(b, CHOICE)}", CHOICE
    if op == "add":
        right, holds = of[args[1]]
        if holds == SIGN:
            return f"{held(args[0], SUM)} {MINUS} {right.removeprefix(MINUS)}", SUM
        return f"{held(args[0], SUM)} + {held(args[1], SUM)}", SUM
    if op == "sub":
        return f"{held(args[0], SUM)} {MINUS} {held(args[1], PRODUCT)}", SUM
    if op == "neg":
        return f"{MINUS}{held(args[0], PRODUCT)}", SIGN
    if op == "mul":
        found = factors(node)
        sign = MINUS if found[0].op == "neg" else ""
        if sign:
            found = [*factors(found[0].args[0]), *found[1:]]
        first, *others = runs(found)
        text = "·".join([_power(first, held, PRODUCT if sign else SIGN), *(_power(run, held, POWER) for run in others)])
        return sign + text, SIGN if sign else PRODUCT
    if op == "div":
        return f"{held(args[0], SIGN)}/{held(args[1], POWER)}", PRODUCT
    if op == "exp":
        return _exponential(of[args[0]][0])
    if op == "expm1":
        return f"{_exponential(of[args[0]][0])[0]} {MINUS} 1", SUM
    if op == "log1p":
        return f"log(1 + {held(args[0], SUM)})", ATOM
    if op == "abs":
        return f"|{of[args[0]][0]}|", ATOM
    if op == "sqrt":
        return f"√{held(args[0], ATOM)}", POWER
    return f"{NAMES.get(op, op)}({', '.join(of[a][0] for a in args)})", ATOM


def _constant(value: float) -> tuple[str, int]:
    text = f"{abs(value):.6g}".replace("inf", "∞").replace("e-", f"e{MINUS}").replace("e+", "e")
    return (text, ATOM) if not value < 0 else (f"{MINUS}{text}", SIGN)


def factors(node: Expr) -> list[Expr]:
    """The factors of a chain of products, from left to right."""
    return [node] if node.op != "mul" else [*factors(node.args[0]), *factors(node.args[1])]


def runs(of: Sequence[Expr]) -> list[tuple[Expr, int]]:
    """Neighbours that are equal, counted: x·x·x is one factor of power 3."""
    found: list[tuple[Expr, int]] = []
    for factor in of:
        if found and found[-1][0] is factor:
            found[-1] = (factor, found[-1][1] + 1)
        else:
            found.append((factor, 1))
    return found


def _power(run: tuple[Expr, int], held: Any, tightly: int) -> str:
    factor, times = run
    if times == 1:
        return str(held(factor, tightly))
    return f"{held(factor, ATOM)}{str(times).translate(SUPERSCRIPTS)}"


def _exponential(exponent: str) -> tuple[str, int]:
    short = exponent.translate(SUPERSCRIPTS)
    simple = exponent.removeprefix(MINUS) in ("x", "z")
    return (f"e{short}", POWER) if simple else (f"exp({exponent})", ATOM)
