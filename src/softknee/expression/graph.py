"""Expressions: immutable, interned (equal structure is the same object), so common subexpressions are shared."""

from __future__ import annotations

import weakref
from collections.abc import Iterator
from typing import Any, ClassVar, TypeAlias, Union

Operand: TypeAlias = Union["Expr", int, float]
COMPARISONS = ("lt", "le", "gt", "ge")


class Expr:
    """A node: a primitive's name and its arguments. Leaves: `symbol` (a name), `constant` (a float), `pi`."""

    __slots__ = ("__weakref__", "args", "op")
    op: str
    args: tuple[Any, ...]

    _interned: ClassVar[weakref.WeakValueDictionary[tuple[Any, ...], Expr]] = weakref.WeakValueDictionary()

    def __new__(cls, op: str, *args: Any) -> Expr:
        # repr tells 0.0 from -0.0 and makes NaN equal to itself, which == does not.
        key = (op, *(a if isinstance(a, Expr) else repr(a) for a in args))
        found = cls._interned.get(key)
        if found is None:
            found = super().__new__(cls)
            object.__setattr__(found, "op", op)
            object.__setattr__(found, "args", args)
            cls._interned[key] = found
        return found

    def __setattr__(self, name: str, value: Any) -> None:
        raise AttributeError("an Expr cannot be changed")

    def __add__(self, other: Operand) -> Expr:
        return Expr("add", self, lift(other))

    def __radd__(self, other: Operand) -> Expr:
        return Expr("add", lift(other), self)

    def __sub__(self, other: Operand) -> Expr:
        return Expr("sub", self, lift(other))

    def __rsub__(self, other: Operand) -> Expr:
        return Expr("sub", lift(other), self)

    def __mul__(self, other: Operand) -> Expr:
        return Expr("mul", self, lift(other))

    def __rmul__(self, other: Operand) -> Expr:
        return Expr("mul", lift(other), self)

    def __truediv__(self, other: Operand) -> Expr:
        return Expr("div", self, lift(other))

    def __rtruediv__(self, other: Operand) -> Expr:
        return Expr("div", lift(other), self)

    def __neg__(self) -> Expr:
        return Expr("neg", self)

    def __pos__(self) -> Expr:
        return self

    def __abs__(self) -> Expr:
        return Expr("abs", self)

    def __pow__(self, exponent: int) -> Expr:
        if not isinstance(exponent, int) or exponent < 1:
            raise TypeError(
                f"an activation may only use positive integer powers, got {exponent!r}; "
                "write other powers with ops.exp and ops.log, or ops.sqrt"
            )
        power = self
        for _ in range(exponent - 1):
            power = power * self
        return power

    def __lt__(self, other: Operand) -> Expr:
        return Expr("lt", self, lift(other))

    def __le__(self, other: Operand) -> Expr:
        return Expr("le", self, lift(other))

    def __gt__(self, other: Operand) -> Expr:
        return Expr("gt", self, lift(other))

    def __ge__(self, other: Operand) -> Expr:
        return Expr("ge", self, lift(other))

    def __bool__(self) -> bool:
        raise TypeError("an activation cannot branch with `if` on its input; use ops.where(condition, a, b)")

    def __repr__(self) -> str:
        if self.op == "symbol":
            return str(self.args[0])
        if self.op == "constant":
            return repr(self.args[0])
        return f"{self.op}({', '.join(map(repr, self.args))})" if self.args else self.op


def lift(value: Any) -> Expr:
    """`value` as an expression; numbers become constants."""
    if isinstance(value, Expr):
        return value
    if isinstance(value, (int, float)) and not isinstance(value, bool):
        return constant(value)
    raise TypeError(f"an activation's formula may hold expressions and numbers, got {type(value).__name__}")


def constant(value: float) -> Expr:
    return Expr("constant", float(value))


def symbol(name: str) -> Expr:
    return Expr("symbol", name)


def walk(*roots: Expr) -> Iterator[Expr]:
    """Every distinct node, arguments before the nodes that use them."""
    done: set[Expr] = set()
    stack = [(root, False) for root in reversed(roots)]
    while stack:
        node, ready = stack.pop()
        if node in done:
            continue
        if ready:
            done.add(node)
            yield node
        else:
            stack.append((node, True))
            stack.extend((a, False) for a in reversed(node.args) if isinstance(a, Expr))


def symbols(*roots: Expr) -> tuple[str, ...]:
    """Names of the symbols that occur, in order of first use."""
    return tuple(node.args[0] for node in walk(*roots) if node.op == "symbol")
