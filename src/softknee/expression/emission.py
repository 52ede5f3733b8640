"""Emission: expressions become the source of one straight-line Python function over an op table.

Every shared subexpression is computed once; subexpressions of constants are folded to one double. A product with a
factor that decays (`exp`, `sigmoid`, `sech2`, `erfc`) becomes `ops.exp_times(coefficient, u)` and so on, which a
backend with machine arithmetic evaluates without early underflow.
"""

from __future__ import annotations

import linecache
import math
from collections.abc import Callable, Sequence
from typing import Any

from .graph import Expr, constant, walk

INFIX = {"add": "+", "sub": "-", "mul": "*", "div": "/", "lt": "<", "le": "<=", "gt": ">", "ge": ">="}

# Applied in this order, the first innermost: sech² and exp vanish at an end where σ may be 1 and the coefficient ∞;
# multiplied by them first, the product is 0 before σ sees it.
DECAYING = ("sech2", "exp", "erfc", "sigmoid")


def emit(roots: Sequence[Expr], name: str, arguments: Sequence[str], finite: Sequence[str] = ()) -> str:
    """Source of `def name(ops, *arguments)` that returns the roots' values (one alone, several as a tuple).

    arguments: no underscore in front, which is how the code's own names begin.
    finite: arguments that are kept from overflow first (`ops.finite`). A derivative's terms at ±∞ may be 0·∞, while at
    a huge finite number it already has its limit.
    """
    results = [rewritten(root) for root in roots]
    lines = [f"    {argument} = ops.finite({argument})" for argument in finite]
    names: dict[Expr, str] = {}
    for node in walk(*results):
        if node.op == "symbol":
            names[node] = node.args[0]
        elif node.op == "constant":
            names[node] = _literal(node.args[0])
        elif node.op == "pi":
            names[node] = "ops.pi"
        else:
            names[node] = f"_{len(lines) - len(finite)}"
            lines.append(f"    {names[node]} = {_text(node, [names[a] for a in node.args])}")
    returned = ", ".join(names[root] for root in results)
    return "\n".join([f"def {name}(ops, {', '.join(arguments)}):", *lines, f"    return {returned}", ""])


def rewritten(root: Expr) -> Expr:
    """The expression that is emitted: constants folded, products with a decaying factor as one primitive."""
    return _rewrite(root, {})


def compile_source(source: str, name: str) -> Callable[..., Any]:
    """The function `name` that emitted `source` defines; tracebacks show its lines."""
    filename = f"<softknee {name} {hash(source):x}>"
    namespace: dict[str, Any] = {}
    exec(compile(source, filename, "exec"), namespace)
    linecache.cache[filename] = (len(source), None, source.splitlines(True), filename)
    return namespace[name]


def _text(node: Expr, args: list[str]) -> str:
    if node.op in INFIX:
        return f"{args[0]} {INFIX[node.op]} {args[1]}"
    if node.op == "neg":
        return f"-{args[0]}"
    return f"ops.{node.op}({', '.join(args)})"


def _literal(value: float) -> str:
    if math.isfinite(value):
        return repr(value) if value >= 0 and math.copysign(1.0, value) > 0 else f"({value!r})"
    # no name that an argument could have
    return "(1e999 - 1e999)" if math.isnan(value) else "1e999" if value > 0 else "(-1e999)"


def _fold(op: str, values: list[float]) -> float | None:
    """The value of a primitive at constants, or None where it is better left to the backend."""
    try:
        match op, values:
            case "neg", [a]:
                return -a
            case "add", [a, b]:
                return a + b
            case "sub", [a, b]:
                return a - b
            case "mul", [a, b]:
                return a * b
            case "div", [a, b]:
                return a / b
            case (("exp" | "expm1" | "log" | "log1p" | "sqrt" | "sin" | "cos" | "atan" | "tanh"), [a]):
                return float(getattr(math, op)(a))
    except (ValueError, ZeroDivisionError, OverflowError):
        return None
    return None


def _rewrite(node: Expr, seen: dict[Expr, Expr]) -> Expr:
    if node in seen:
        return seen[node]
    if node.op in ("symbol", "constant"):
        result = node
    elif node.op == "pi":
        result = constant(math.pi)
    elif node.op == "with_slope":
        result = _rewrite(node.args[0], seen)
    elif node.op in ("mul", "div"):
        result = _product(node, seen)
    else:
        result = _folded(node.op, [_rewrite(a, seen) for a in node.args])
    seen[node] = result
    return result


def _folded(op: str, args: list[Expr]) -> Expr:
    if all(a.op == "constant" for a in args):
        value = _fold(op, [a.args[0] for a in args])
        if value is not None:
            return constant(value)
    return Expr(op, *args)


def _factors(node: Expr) -> tuple[list[Expr], list[Expr]]:
    """Numerator and denominator of a chain of products, quotients and signs."""
    if node.op == "mul":
        (an, ad), (bn, bd) = _factors(node.args[0]), _factors(node.args[1])
        return an + bn, ad + bd
    if node.op == "div":
        (an, ad), (bn, bd) = _factors(node.args[0]), _factors(node.args[1])
        return an + bd, ad + bn
    if node.op == "neg":
        n, d = _factors(node.args[0])
        return [constant(-1.0), *n], d
    return [node], []


def _product(node: Expr, seen: dict[Expr, Expr]) -> Expr:
    above, below = _factors(node)
    decaying = [f for f in above if f.op in DECAYING]
    if not decaying:
        return _folded(node.op, [_rewrite(a, seen) for a in node.args])
    above = [_rewrite(f, seen) for f in above if f not in decaying]
    scale = math.prod(f.args[0] for f in above if f.op == "constant")
    coefficient = constant(scale)
    for factor in (f for f in above if f.op != "constant"):
        coefficient = factor if coefficient is constant(1.0) else Expr("mul", coefficient, factor)
    for factor in below:
        coefficient = _folded("div", [coefficient, _rewrite(factor, seen)])
    for factor in sorted(decaying, key=lambda f: DECAYING.index(f.op)):
        argument = _rewrite(factor.args[0], seen)
        if coefficient is constant(1.0):
            coefficient = Expr(factor.op, argument)
        else:
            coefficient = Expr(f"{factor.op}_times", coefficient, argument)
    return coefficient
