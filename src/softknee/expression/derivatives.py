"""Derivatives: one rule per primitive, applied forwards, with sharing.

The rules are closed over the primitives, so every order exists, and they are chosen so that neither tails nor roots
cancel: tanh′ is sech² (not 1 − tanh²) and σ′ is sech²(x/2)/4 (not σ − σ²), whose own derivatives are products again.
At a kink the derivative is that of the branch which the definition takes there.
"""

from __future__ import annotations

from collections.abc import Callable

from .graph import COMPARISONS, Expr, constant, symbol, walk
from .tracing import TracingTable

_ops = TracingTable()
ZERO, ONE = constant(0.0), constant(1.0)


def add(a: Expr, b: Expr) -> Expr:
    if a is ZERO:
        return b
    if a is b:
        return product(constant(2.0), a)
    return a if b is ZERO else a + b


def sub(a: Expr, b: Expr) -> Expr:
    if b is ZERO:
        return a
    return neg(b) if a is ZERO else a - b


def neg(a: Expr) -> Expr:
    if a.op == "constant":
        return constant(-a.args[0])
    return a.args[0] if a.op == "neg" else -a


def product(a: Expr, b: Expr) -> Expr:
    # Only derivatives are built here, where a literal 0 means "does not depend", so 0·∞ is rightly 0.
    if a is ZERO or b is ZERO:
        return ZERO
    if a.op == b.op == "constant":
        return constant(a.args[0] * b.args[0])
    if b.op == "constant":
        a, b = b, a
    return b if a is ONE else a * b


def div(a: Expr, b: Expr) -> Expr:
    return ZERO if a is ZERO else a / b


def _where(condition: Expr, a: Expr, b: Expr) -> Expr:
    return a if a is b else _ops.where(condition, a, b)


# name -> f(u) ↦ f′(u)
UNARY_RULES: dict[str, Callable[[Expr], Expr]] = {
    "exp": lambda u: _ops.exp(u),
    "expm1": lambda u: _ops.exp(u),
    "log": lambda u: 1.0 / u,
    "log1p": lambda u: 1.0 / (1.0 + u),
    "sqrt": lambda u: 0.5 / _ops.sqrt(u),
    "sin": lambda u: _ops.cos(u),
    "cos": lambda u: -_ops.sin(u),
    "atan": lambda u: 1.0 / (1.0 + u * u),
    "tanh": lambda u: _ops.sech2(u),
    "sech2": lambda u: -2.0 * _ops.tanh(u) * _ops.sech2(u),
    "sigmoid": lambda u: 0.25 * _ops.sech2(0.5 * u),
    "softplus": lambda u: _ops.sigmoid(u),
    "erf": lambda u: (2.0 / _ops.sqrt(_ops.pi)) * _ops.exp(-(u * u)),
    "erfc": lambda u: (-2.0 / _ops.sqrt(_ops.pi)) * _ops.exp(-(u * u)),
    "abs": lambda u: _ops.sign(u),
    "sign": lambda u: ZERO,
    "neg": lambda u: constant(-1.0),
}


def differentiate(expression: Expr, name: str, order: int = 1) -> Expr:
    """∂ᵒʳᵈᵉʳ expression / ∂ nameᵒʳᵈᵉʳ."""
    for _ in range(order):
        expression = _once(expression, name)
    return expression


def _once(root: Expr, name: str) -> Expr:
    wanted = symbol(name)
    d: dict[Expr, Expr] = {}
    for node in walk(root):
        op, args = node.op, node.args
        if op in ("symbol", "constant", "pi"):
            d[node] = ONE if node is wanted else ZERO
        elif op in COMPARISONS:
            d[node] = ZERO
        elif op in UNARY_RULES:
            inner = d[args[0]]
            d[node] = ZERO if inner is ZERO else product(inner, UNARY_RULES[op](args[0]))
        elif op in ("add", "sub"):
            d[node] = (add if op == "add" else sub)(d[args[0]], d[args[1]])
        elif op == "mul":
            a, b = args
            d[node] = add(product(d[a], b), product(a, d[b]))
        elif op == "div":
            # (a/b)′ = a′/b − (a/b)·b′/b
            a, b = args
            d[node] = sub(div(d[a], b), product(node, div(d[b], b)))
        elif op == "maximum":
            d[node] = _where(args[0] > args[1], d[args[0]], d[args[1]])
        elif op == "minimum":
            d[node] = _where(args[0] < args[1], d[args[0]], d[args[1]])
        elif op == "with_slope":
            value, x, slope = args
            d[node] = d[value] if d[x] is ZERO else product(d[x], slope)
        elif op == "where":
            d[node] = _where(args[0], d[args[1]], d[args[2]])
        else:
            raise NotImplementedError(f"the primitive {op!r} has no derivative rule")
    return d[root]
