"""A definition given as text: `define("x * sigmoid(1.702 * x)")`.

The text is read as the syntax of one expression and walked node by node: arithmetic, comparisons in a condition, the
primitives of the op table, the inputs, the parameters, pi, numbers. Anything else is refused where it stands. Nothing
of the text is ever executed.
"""

from __future__ import annotations

import ast
import functools
import inspect
import math
import operator
import re
from collections.abc import Callable
from typing import Any

from ..errors import InputError, closest
from ..expression.tracing import UNARY
from .activation import Activation
from .spec import elementwise, gated

LONGEST = 1000  # characters
LARGEST = 200  # nodes
HIGHEST = 16  # power

PRIMITIVES = {**{name: (name, 1) for name in UNARY}, **dict.fromkeys(("maximum", "max"), ("maximum", 2))}
PRIMITIVES |= dict.fromkeys(("minimum", "min"), ("minimum", 2)) | {"where": ("where", 3)}
ARITHMETIC: dict[type, Callable[[Any, Any], Any]] = {
    ast.Add: operator.add,
    ast.Sub: operator.sub,
    ast.Mult: operator.mul,
    ast.Div: operator.truediv,
}
COMPARISONS: dict[type, Callable[[Any, Any], Any]] = {
    ast.Lt: operator.lt,
    ast.LtE: operator.le,
    ast.Gt: operator.gt,
    ast.GtE: operator.ge,
}

# What the tree becomes: a function of the op table and the values of the names.
Step = Callable[[Any, dict[str, Any]], Any]


def define(text: str, name: str = "custom", **parameters: float) -> Activation:
    """An activation from text, elementwise in `x` or gated in `gate` and `up`; not registered.

    text: `x * tanh(softplus(x))`, `where(x > 0, x, slope * x)` or `x if x > 0 else slope * x`, `gate * up`; the
    functions are those of the op table (`max` and `min` too). After semicolons it may give parameters their defaults:
    `x * sigmoid(beta * x); beta = 1.5`; so may `parameters`.
    Raises InputError for what is not of that form, naming it and its column.
    """
    if not isinstance(text, str):
        raise InputError(f"a definition must be text, got {type(text).__name__}")
    if len(text) > LONGEST:
        raise InputError(f"a definition may have {LONGEST} characters, this has {len(text)}")
    if not name.isidentifier():
        raise InputError(f"the name of a definition must be an identifier, got {name!r}")
    formula, *defaults = text.split(";")
    given = dict(_default(each) for each in defaults if each.strip()) | parameters
    reader = _Reader(formula, given)
    step = reader.read()
    two = reader.used & {"gate", "up"}
    if two and "x" in reader.used:
        raise InputError(f"{formula.strip()!r} has both x and {' and '.join(sorted(two))}; a gated activation has no x")
    if not two and "x" not in reader.used:
        raise InputError(f"{formula.strip()!r} does not depend on x, nor on gate and up")
    if unused := set(given) - reader.used:
        raise InputError(f"{formula.strip()!r} has no {' and no '.join(sorted(unused))}")
    inputs = ("gate", "up") if two else ("x",)

    def function(*values: Any, **settings: Any) -> Any:
        *arrays, ops = values
        return step(ops, dict(zip(inputs, arrays, strict=True)) | settings)

    positional, keyword = inspect.Parameter.POSITIONAL_OR_KEYWORD, inspect.Parameter.KEYWORD_ONLY
    arguments = [inspect.Parameter(word, positional) for word in (*inputs, "ops")]
    arguments += [inspect.Parameter(word, keyword, default=value) for word, value in given.items()]
    function.__signature__ = inspect.Signature(arguments)  # type: ignore[attr-defined]
    function.__name__ = name
    function.__module__ = "text"  # it is no entry of the catalog
    function.__doc__ = formula.strip()
    try:
        return (gated if two else elementwise)(function)
    except TypeError as error:
        raise InputError(f"{formula.strip()!r}: {error}") from None


def _default(text: str) -> tuple[str, float]:
    matched = re.fullmatch(r"\s*(\w+)\s*=\s*(\S+)\s*", text)
    try:
        assert matched is not None
        value = float(matched[2])
    except (AssertionError, ValueError):
        raise InputError(f"a parameter is given as name = number, got {text.strip()!r}") from None
    return matched[1], value


class _Reader:
    """Reads one text; remembers the names that it used."""

    def __init__(self, text: str, parameters: dict[str, float]) -> None:
        self.text = text
        self.names = {"x", "gate", "up", *parameters}
        self.used: set[str] = set()
        self.nodes = 0

    def read(self) -> Step:
        stripped = self.text.strip()
        try:
            tree = ast.parse(stripped, mode="eval")
        except SyntaxError as error:
            raise InputError(f"{stripped!r} is not an expression: {error.msg} at column {error.offset}") from None
        except (ValueError, RecursionError, MemoryError):
            raise InputError("the definition is nested too deeply, or has a character that no formula has") from None
        return self.step(tree.body)

    def step(self, node: ast.AST) -> Step:
        self.nodes += 1
        if self.nodes > LARGEST:
            raise InputError(f"the definition has more than {LARGEST} parts")
        match node:
            case ast.Constant(value=value):
                return self.number(node, value)
            case ast.Name(id="pi"):
                return lambda ops, values: ops.pi
            case ast.Name(id=name):
                return self.named(node, name)
            case ast.UnaryOp(op=ast.USub() | ast.UAdd(), operand=inner):
                of = self.step(inner)
                return (lambda ops, values: -of(ops, values)) if isinstance(node.op, ast.USub) else of
            case ast.BinOp(left=left, op=ast.Pow(), right=exponent):
                return self.power(left, exponent)
            case ast.BinOp(left=left, op=op, right=right) if type(op) in ARITHMETIC:
                return self.both(ARITHMETIC[type(op)], left, right)
            case ast.Call(func=ast.Name(id=name), args=arguments, keywords=[]):
                return self.call(node, name, arguments)
            case ast.IfExp(test=test, body=body, orelse=other):
                return self.primitive("where", [self.condition(test), self.step(body), self.step(other)])
            case ast.Compare():
                raise self.refused(node, "a comparison stands in where(condition, a, b) only")
        raise self.refused(node, "what a definition has are numbers, names, + - * / **, brackets and functions")

    def number(self, node: ast.AST, value: Any) -> Step:
        if isinstance(value, bool) or not isinstance(value, (int, float)):
            raise self.refused(node, "only numbers stand for themselves")
        try:
            held = float(value)
        except OverflowError:
            held = math.inf
        if not math.isfinite(held):
            raise self.refused(node, "the number is too large")
        return lambda ops, values: held

    def named(self, node: ast.AST, name: str) -> Step:
        if name not in self.names:
            hint = f"; {name} is a function: {name}(…)" if name in PRIMITIVES else closest(name, self.names)
            raise self.refused(node, f"{name!r} is neither x, gate, up, pi nor a parameter with a default{hint}")
        self.used.add(name)
        return lambda ops, values: values[name]

    def both(self, operation: Callable[[Any, Any], Any], left: ast.AST, right: ast.AST) -> Step:
        a, b = self.step(left), self.step(right)
        return lambda ops, values: _calculated(operation, a(ops, values), b(ops, values))

    def power(self, base: ast.AST, exponent: ast.AST) -> Step:
        whole = isinstance(exponent, ast.Constant) and type(exponent.value) is int
        if not whole or not 1 <= exponent.value <= HIGHEST:  # type: ignore[attr-defined]
            raise self.refused(exponent, f"a power is a whole number from 1 to {HIGHEST}")
        count, of = exponent.value, self.step(base)  # type: ignore[attr-defined]

        def product(ops: Any, values: dict[str, Any]) -> Any:
            return functools.reduce(operator.mul, [of(ops, values)] * count)

        return product

    def call(self, node: ast.AST, name: str, arguments: list[ast.expr]) -> Step:
        if name not in PRIMITIVES:
            raise self.refused(node, f"there is no function {name!r}{closest(name, PRIMITIVES)}")
        primitive, wanted = PRIMITIVES[name]
        if len(arguments) != wanted:
            raise self.refused(node, f"{name} takes {wanted} argument{'s' * (wanted > 1)}, got {len(arguments)}")
        if primitive == "where":
            test, *branches = arguments
            return self.primitive("where", [self.condition(test), *map(self.step, branches)])
        return self.primitive(primitive, [self.step(argument) for argument in arguments])

    def primitive(self, name: str, steps: list[Step]) -> Step:
        return lambda ops, values: getattr(ops, name)(*[step(ops, values) for step in steps])

    def condition(self, node: ast.AST) -> Step:
        match node:
            case ast.Compare(left=left, ops=[op], comparators=[right]) if type(op) in COMPARISONS:
                return self.both(COMPARISONS[type(op)], left, right)
        raise self.refused(node, "a condition is one comparison, such as x > 0")

    def refused(self, node: ast.AST, reason: str) -> InputError:
        return InputError(f"{self.text.strip()!r}, column {getattr(node, 'col_offset', 0) + 1}: {reason}")


def _calculated(operation: Callable[[Any, Any], Any], a: Any, b: Any) -> Any:
    try:
        return operation(a, b)
    except (ZeroDivisionError, OverflowError) as error:
        raise InputError(f"the definition calculates {a:g} and {b:g}: {error}") from None
