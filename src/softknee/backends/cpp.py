"""C++: an activation's value and derivatives as functions of SIMD vectors, for the CPU kernels.

`functor(activation)` is a struct with `forward` and `backward` over the primitives of `kernels/cpu/math.h`;
`uniforms(activation)` computes what depends on the parameters alone, once per call and in double. Both are written to
committed files by `tools/kernels.py`. An activation that uses a primitive which `math.h` lacks raises
NotImplementedError.

Emission (`expression/emission.py`) has made products with a decaying factor into `exp_times` and so on. Here

    constants and parameters move out of products, and a division by them becomes a product
    a·b + c with a·b used nowhere else becomes fma
    the argument of a primitive that amplifies its relative error is Wide (math.h)
    a comparison of x with a number t that float32 does not have compares with t rounded down (≤, >) or up (<, ≥)

The code is one for vectors of floats and of doubles: numbers are written as doubles, and what float32 does about its
own rounding (`rest`, `bound`, `A::wide`) is nothing where they are held exactly.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

import numpy as np

from ..expression import Expr, constant, symbol
from ..expression.emission import rewritten
from ..expression.graph import COMPARISONS, walk
from .floats import unsteady

if TYPE_CHECKING:
    from ..catalog import Activation

DIRECT = {
    "expm1", "decay_expm1", "atan", "erf", "x_phi", "x_phi_times", "x_phi_slope", "log", "log1p", "sqrt", "abs",
    "sign", "maximum", "minimum", "where", "finite",
}  # fmt: skip
AMPLIFYING = {
    "exp", "exp_times", "decay_exp", "decay_exp_times", "tanh", "sigmoid", "sigmoid_times", "softplus",
    "sech2_half", "sech2_half_times", "sigmoid_slope",
}  # fmt: skip
RATIONAL = {
    "symbol", "constant", "add", "sub", "mul", "div", "neg", "abs", "sign", "maximum", "minimum", "where", "finite",
    "sqrt", *COMPARISONS,
}  # fmt: skip
PERIODIC = {"sin", "cos"}  # a large argument's rounding is all that counts, in half precision too
INFIX = {"add": "+", "sub": "-", "mul": "*", "div": "/", "lt": "<", "le": "<=", "gt": ">", "ge": ">="}
# x ≤ t for a float x is x ≤ the largest float that is not above t
DIRECTED = {"lt": "up", "ge": "up", "le": "down", "gt": "down"}
MIRRORED = {"lt": "gt", "gt": "lt", "le": "ge", "ge": "le"}
ZERO, ONE, MINUS = constant(0.0), constant(1.0), constant(-1.0)


@dataclass
class Slots:
    """The uniforms of one activation: expressions of parameters, each as a float and what that leaves ("value"), or
    rounded "up" or "down"."""

    places: dict[tuple[Expr, str], int] = field(default_factory=dict)
    size: int = 0

    def place(self, node: Expr, kind: str) -> int:
        key = (node, kind)
        if key not in self.places:
            self.places[key] = self.size
            self.size += 2 if kind == "value" else 1
        return self.places[key]


class Simplifier:
    """Constants and uniforms out of products: every product is K·Z, K a number of the call, Z of the element."""

    def __init__(self, inputs: Sequence[str]) -> None:
        self.inputs = set(inputs)
        self.seen: dict[Expr, Expr] = {}
        self.fixed: dict[Expr, bool] = {}

    def uniform(self, node: Expr) -> bool:
        """Whether it depends on no input."""
        if node not in self.fixed:
            for part in walk(node):
                if part not in self.fixed:
                    if part.op == "symbol":
                        self.fixed[part] = part.args[0] not in self.inputs
                    else:
                        self.fixed[part] = all(self.fixed[a] for a in part.args if isinstance(a, Expr))
        return self.fixed[node]

    def __call__(self, node: Expr) -> Expr:
        if node in self.seen:
            return self.seen[node]
        if node.op in ("symbol", "constant") or self.uniform(node):
            result = node
        else:
            result = self._built(node.op, [self(a) for a in node.args])
        self.seen[node] = result
        return result

    def _built(self, op: str, args: list[Expr]) -> Expr:
        if op == "neg":
            return self.product(MINUS, args[0])
        if op == "mul":
            return self.product(*args)
        if op == "div" and self.uniform(args[1]):
            return self.product(self.number("div", ONE, args[1]), args[0])
        if op == "div":
            (k, z), (j, y) = self.split(args[0]), self.split(args[1])
            return self.product(self.number("div", k, j), Expr("div", z, y))
        if op in ("sech2", "sech2_times"):
            twice = self.product(constant(2.0), args[-1])
            k, _ = self.split(twice)
            if k.op == "constant" and k.args[0] < 0:  # it is even
                twice = self.product(MINUS, twice)
            return Expr(op.replace("sech2", "sech2_half"), *args[:-1], twice)
        if op in ("erfc", "erfc_times") and (gate := self._gate(*args)) is not None:
            return gate
        if op == "minimum" and args[0] is self.product(MINUS, args[1]):
            return self.product(MINUS, Expr("abs", args[1]))  # which is seen to fall
        if op == "where":
            args = self._where_negative(*args)
        if op == "add":
            for a, b in (args, args[::-1]):
                if (joined := self._joined(a, b)) is not None:
                    return joined
        return Expr(op, *args)

    def _gate(self, *args: Expr) -> Expr | None:
        """a·x·erfc(−x/√2) as 2a·x·Φ(x), which needs neither −x/√2 nor a branch."""
        k, x = self.split(args[-1])
        if len(args) == 1 or not near(k, -math.sqrt(0.5)):
            return None
        j, z = self.split(args[0])
        factors = self._factors(z)
        if x not in factors:
            return None
        factors.remove(x)
        rest = ONE
        for factor in factors:
            rest = self.product(rest, factor)
        return self.product(
            self.product(constant(2.0), j), Expr("x_phi", x) if rest is ONE else Expr("x_phi_times", rest, x)
        )

    def _factors(self, node: Expr) -> list[Expr]:
        return [node] if node.op != "mul" else [f for part in node.args for f in self._factors(part)]

    def _joined(self, a: Expr, b: Expr) -> Expr | None:
        """a·σ(u) + b·sech²(u/2) as σ(u)·(a + 4b·σ(−u)), whose factors keep their relative accuracy near a root; and
        Φ(x) + x·φ(x), φ = Φ′, as (x·Φ(x))′ in one, likewise."""
        (k, z), (j, y) = self.split(a), self.split(b)
        if z.op == "erfc_times" and y.op == "exp_times":
            (half, one), (root, x), (r, u) = map(self.split, (z.args[0], y.args[0], z.args[1]))
            square = self.product(constant(-0.5), self.product(x, x))
            fits = one is ONE and k is j is ONE and u is x and y.args[1] is square
            constants = ((half, 0.5), (root, math.sqrt(0.5 / math.pi)), (r, -math.sqrt(0.5)))
            if fits and all(near(number, value) for number, value in constants):
                return Expr("x_phi_slope", x)
        pair = z.op.removesuffix("_times") == "sigmoid" and y.op.removesuffix("_times") == "sech2_half"
        if not pair or z.args[-1] is not y.args[-1]:
            return None
        u = z.args[-1]
        factor = self.product(k, z.args[0] if z.op.endswith("_times") else ONE)
        other = self.product(self.product(constant(4.0), j), y.args[0] if y.op.endswith("_times") else ONE)
        return Expr("sigmoid_slope", factor, other, u)

    def _where_negative(self, condition: Expr, yes: Expr, no: Expr) -> list[Expr]:
        """In the branch of a choice by the sign of x that has x ≤ 0, exponentials of x only fall."""
        if condition.op not in COMPARISONS or condition.args[1] is not ZERO:
            return [condition, yes, no]
        x = condition.args[0]
        if condition.op in ("gt", "ge"):
            return [condition, yes, self._decaying(no, x)]
        return [condition, self._decaying(yes, x), no]

    def _decaying(self, node: Expr, x: Expr) -> Expr:
        if node.op in ("exp", "exp_times", "expm1") and negative(node.args[-1], x):
            return Expr(f"decay_{node.op}", *node.args)
        if node.op in ("add", "sub", "mul", "neg"):
            return Expr(node.op, *(self._decaying(a, x) for a in node.args))
        return node

    def number(self, op: str, a: Expr, b: Expr) -> Expr:
        """A product or quotient of numbers."""
        if op == "mul" and a.op == "constant" and b.op == "mul" and b.args[0].op == "constant":
            return self.number("mul", self.number("mul", a, b.args[0]), b.args[1])
        if a.op == b.op == "constant":
            return constant(snapped(a.args[0] * b.args[0] if op == "mul" else a.args[0] / b.args[0]))
        return a if b is ONE else b if a is ONE and op == "mul" else Expr(op, a, b)

    def split(self, node: Expr) -> tuple[Expr, Expr]:
        """K and Z."""
        if self.uniform(node):
            return node, ONE
        if node.op == "mul" and self.uniform(node.args[0]):
            return node.args[0], node.args[1]
        if node.op == "neg":
            return MINUS, node.args[0]
        return ONE, node

    def product(self, a: Expr, b: Expr) -> Expr:
        (k, z), (j, y) = self.split(a), self.split(b)
        number = self.number("mul", k, j)
        rest = y if z is ONE else z if y is ONE else Expr("mul", z, y)
        if rest is ONE:
            return number
        return rest if number is ONE else Expr("neg", rest) if number is MINUS else Expr("mul", number, rest)


class Emitter:
    """Straight-line C++ for several expressions over the same inputs."""

    def __init__(self, inputs: Sequence[str], slots: Slots) -> None:
        self.simplify = Simplifier(inputs)
        self.slots = slots
        self.inputs = tuple(inputs)
        self.lines: list[str] = []
        self.names: dict[object, str] = {}
        self.uses: dict[Expr, int] = {}
        self.logistic: dict[Expr, int] = {}

    def emit(self, roots: Sequence[Expr], finite: Sequence[str]) -> list[str]:
        """The roots' values, as names or literals; `lines` then holds the statements."""
        simplified = [self.simplify(rewritten(root)) for root in roots]
        for node in walk(*simplified):
            for argument in node.args:
                if isinstance(argument, Expr):
                    self.uses[argument] = self.uses.get(argument, 0) + 1
            if (u := logistic_of(node)) is not None:
                self.logistic[u] = self.logistic.get(u, 0) + 1
        for root in simplified:
            self.uses[root] = self.uses.get(root, 0) + 1
        self.lines += [f"{name} = A::finite({name});" for name in finite]
        return [self.value(root) for root in simplified]

    def value(self, node: Expr) -> str:
        if node not in self.names:
            self.names[node] = self._made(node)
        return self.names[node]

    def _named(self, key: object, text: str, kind: str = "V") -> str:
        if key not in self.names:
            name = f"t{sum(line.startswith('const') for line in self.lines)}"
            self.lines.append(f"const {kind} {name} = {text};")
            self.names[key] = name
        return self.names[key]

    def _made(self, node: Expr) -> str:
        op = node.op
        if op == "constant":
            return f"V({literal(node.args[0])})"
        if self.simplify.uniform(node):
            return f"V(u[{self.slots.place(node, 'value')}])"
        if op == "symbol":
            return identifier(node.args[0])
        kind = "M" if op in COMPARISONS else "V"
        return self._named(node, self._text(node), kind)

    def _text(self, node: Expr) -> str:
        op, args = node.op, node.args
        if op in COMPARISONS:
            return self._comparison(op, *args)
        if op in ("add", "sub"):
            return self._sum(op, *args)
        if op == "neg":
            return f"-{self.value(args[0])}"
        if op == "mul" and args[1].op == "mul" and self.uses[args[1]] == 1:
            # from the left, as it was written: a square may overflow where its product with a small number does not
            first, second, third = map(self.value, (args[0], *args[1].args))
            return f"{first} * {second} * {third}"
        if op in INFIX:
            return f"{self.value(args[0])} {INFIX[op]} {self.value(args[1])}"
        if op in ("erfc", "erfc_times"):
            *factor, u = args
            square = self.argument(self.simplify.product(MINUS, self.simplify.product(u, u)))
            arguments = self.argument(u), self.argument(self.simplify.product(constant(math.sqrt(2.0)), u)), square
            return f"A::{op}({', '.join([*map(self.value, factor), *arguments])})"
        if op in AMPLIFYING:
            *factor, u = args
            if op == "sigmoid_slope":
                a, b = factor
                return f"A::{op}({self.value(a)}, {self.gate(b)}, {self.argument(u)})"
            base = logistic_of(node)
            if base is not None and self.logistic[base] > 1:
                # all on the same exponential and the same quotient
                word = op.replace("sigmoid", "sigmoid_minus") if base is not u else op
                return f"A::joint_{word}({', '.join([*map(self.value, factor), self.argument(base)])})"
            falls = op.startswith("exp") and self.falling(u)
            name = f"decay_{op}" if falls else op
            return f"A::{name}({', '.join([*map(self.value, factor), self.argument(u)])})"
        if op in PERIODIC:
            return f"A::{op}({self.argument(args[0], 'A::Exact')})"
        if op in ("maximum", "minimum") and any(map(self.simplify.uniform, args)):
            number, other = args if self.simplify.uniform(args[0]) else reversed(args)
            word = "larger" if op == "maximum" else "smaller"
            return f"{word}({self.value(number)}, {self.value(other)})"
        if op in DIRECT:
            return f"A::{op}({', '.join(map(self.value, args))})"
        raise NotImplementedError(f"math.h has no {op!r}")

    def _sum(self, op: str, a: Expr, b: Expr) -> str:
        if op == "add" and self.simplify.uniform(a):
            a, b = b, a
        if self.simplify.uniform(b) and not self.single(b):
            # near a root, what rounding the number leaves is all that counts
            rest = f"{INFIX[op]} {self.rest(b)}"
            if a.op == "mul" and self.uses[a] == 1:
                x, y = map(self.value, a.args)
                text = f"fma({x}, {y}, {'' if op == 'add' else '-'}{self.value(b)}) {rest}"
                k, z = a.args
                if op == "sub" and z.op != "symbol" and self.simplify.uniform(k) and not self.single(k):
                    return f"fma({self.rest(k)}, {y}, {text})"  # an input may be ∞, and the rest negative
                return text
            return f"{self.value(a)} {INFIX[op]} {self.value(b)} {rest}"
        if op == "add" and a.op == "sigmoid_times":
            a, b = b, a
        if op == "add" and b.op == "sigmoid_times" and b.args[1].op == "neg" and self.logistic[b.args[1].args[0]] > 1:
            factor, u = b.args
            return f"A::joint_sigmoid_minus_sum({self.value(factor)}, {self.argument(u.args[0])}, {self.value(a)})"
        if b.op == "mul" and self.uses[b] == 1:
            x, y = map(self.value, b.args)
            return f"{'fma' if op == 'add' else 'fnma'}({x}, {y}, {self.value(a)})"
        if a.op == "mul" and self.uses[a] == 1 and (op == "add" or b.op == "constant"):
            x, y = map(self.value, a.args)
            return f"fma({x}, {y}, {self.value(b if op == 'add' else constant(-b.args[0]))})"
        return f"{self.value(a)} {INFIX[op]} {self.value(b)}"

    def single(self, node: Expr) -> bool:
        """Whether a number is a float32."""
        return node.op == "constant" and (not math.isfinite(node.args[0]) or node.args[0] == np.float32(node.args[0]))

    def rest(self, node: Expr) -> str:
        """What rounding a number to float32 leaves."""
        if node.op == "constant":
            return f"V(rest({literal(node.args[0])}))"
        return f"V(u[{self.slots.place(node, 'value') + 1}])"

    def _comparison(self, op: str, a: Expr, b: Expr) -> str:
        if self.simplify.uniform(a) and not self.simplify.uniform(b):
            a, b, op = b, a, MIRRORED[op]
        if b.op == "constant":
            near = directed(b.args[0], DIRECTED[op])
            both = literal(near) if near == b.args[0] else f"bound({literal(near)}, {literal(b.args[0])})"
            bound = f"V({both})"
        elif self.simplify.uniform(b):
            bound = f"V(u[{self.slots.place(b, DIRECTED[op])}])"
        else:
            bound = self.value(b)
        return f"{self.value(a)} {INFIX[op]} {bound}"

    def falling(self, u: Expr) -> bool:
        """Whether u ≤ 0 can be seen."""
        k, z = self.simplify.split(u)
        square = z.op == "abs" or (z.op == "mul" and z.args[0] is z.args[1])
        return square and k.op == "constant" and k.args[0] < 0

    def argument(self, node: Expr, arithmetic: str = "A") -> str:
        """Of an amplifying primitive: Wide where it is not exact."""
        if self.exact(node):
            return self.value(node)
        return self.widened(node, arithmetic)

    def gate(self, node: Expr) -> str:
        """Wide where that is cheap: a number times an input or an odd cubic."""
        _, z = self.simplify.split(node)
        return self.argument(node) if z.op == "symbol" or odd_cubic(z) else self.value(node)

    def exact(self, node: Expr) -> bool:
        """Whether float32 arithmetic gives it without rounding."""
        k, z = self.simplify.split(node)
        return (z.op == "symbol" or (z.op == "abs" and self.exact(z.args[0]))) and (
            k.op == "constant" and abs(math.frexp(k.args[0])[0]) == 0.5
        )

    def widened(self, node: Expr, arithmetic: str = "A") -> str:
        key = (arithmetic, node)

        def wide(*nodes: Expr) -> str:
            return ", ".join(self.widened(part, arithmetic) for part in nodes)

        if key in self.names:
            return self.names[key]
        if node.op == "constant":
            return f"{arithmetic}::wide({literal(node.args[0])})"
        if self.simplify.uniform(node):
            place = self.slots.place(node, "value")
            return f"{arithmetic}::wide(u[{place}], u[{place + 1}])"
        k, z = self.simplify.split(node)
        if k.op == "constant" and (found := odd_cubic(z)) is not None:
            x, c = found
            first = short(k.args[0])
            parts = (first, k.args[0] - first, k.args[0] * c, k.args[0] * c - float(np.float32(k.args[0] * c)))
            given = ", ".join([self.value(x), *map(literal, parts)])
            return self._named(key, f"{arithmetic}::odd_cubic({given})", "auto")
        if z.op == "mul" and k.op == "constant" and abs(math.frexp(k.args[0])[0]) == 0.5 and k is not ONE:
            left = self.simplify.product(k, z.args[0])
            return self._named(key, f"{arithmetic}::product({wide(left, z.args[1])})", "auto")
        if node.op in ("mul", "add") and not self.exact(node):
            word = "product" if node.op == "mul" else "sum"
            return self._named(key, f"{arithmetic}::{word}({wide(*node.args)})", "auto")
        if node.op == "sub":
            right = self.simplify.product(MINUS, node.args[1])
            return self._named(key, f"{arithmetic}::sum({wide(node.args[0], right)})", "auto")
        if node.op == "neg" and not self.exact(node):
            return self._named(key, f"{arithmetic}::minus({wide(node.args[0])})", "auto")
        return self.value(node)


def logistic_of(node: Expr) -> Expr | None:
    """The u of a function of σ(u) or σ(−u)."""
    if node.op in ("sigmoid", "sigmoid_times", "sigmoid_slope", "sech2_half", "sech2_half_times"):
        u = node.args[-1]
        return u.args[0] if u.op == "neg" else u
    return None


def negative(u: Expr, x: Expr) -> bool:
    """Whether u ≤ 0 where x ≤ 0 can be seen."""
    return u is x or (u.op == "minimum" and any(negative(a, x) for a in u.args))


def odd_cubic(node: Expr) -> tuple[Expr, float] | None:
    """x and c ≥ 0 of x + c·x³."""
    if node.op != "add" or node.args[0].op != "symbol" or node.args[1].op != "mul":
        return None
    x, (c, cube) = node.args[0], node.args[1].args
    cubed = cube.op == "mul" and {cube.args[0], cube.args[1]} == {x, Expr("mul", x, x)}
    return (x, c.args[0]) if cubed and c.op == "constant" and c.args[0] >= 0 else None


def identifier(name: str) -> str:
    return "grad" if name.startswith("_grad") else name


def literal(value: float) -> str:
    """The double in C++, which a vector of floats rounds."""
    if math.isinf(value):
        return "infinity" if value > 0 else "-infinity"
    return repr(value)


def short(value: float) -> float:
    """Its first 12 bits."""
    digits, exponent = math.frexp(value)
    return math.ldexp(math.trunc(digits * 4096), exponent - 12)


def snapped(value: float) -> float:
    """A power of two where the value is one but for double's rounding, as (1/√2)² is."""
    digits, exponent = math.frexp(value)
    near = abs(abs(digits) - 0.5) < 1e-15 or abs(abs(digits) - 1.0) < 1e-15
    return math.copysign(math.ldexp(round(2 * abs(digits)), exponent - 1), value) if near else value


def near(number: Expr, value: float) -> bool:
    """Whether it is this constant but for double's rounding."""
    return number.op == "constant" and math.isclose(number.args[0], value, rel_tol=1e-15)


def directed(value: float, way: str) -> float:
    """The float32 nearest to it that is not below (up) or not above (down)."""
    near = np.float32(value)
    if way == "up" and near < value:
        return float(np.nextafter(near, np.float32(np.inf)))
    if way == "down" and near > value:
        return float(np.nextafter(near, np.float32(-np.inf)))
    return float(near)


@dataclass(frozen=True)
class Code:
    """What is emitted of an activation: the functor's source, and the uniforms'."""

    functor: str
    uniforms: str
    size: int


def code(activation: Activation) -> Code:
    """Raises NotImplementedError where `math.h` lacks a primitive."""
    slots = Slots()
    inputs, defaults = activation.inputs, tuple(activation.defaults.values())
    forward = _function(activation, slots, "forward", [activation.expression], inputs, ())
    partials = activation.composite.derivatives[: len(inputs)]
    names = ("_grad", *inputs)
    roots = [_of_grad(partial.expression, partial.names[0]) for partial in partials]
    unsteady_names: dict[str, None] = {}
    for root in roots:
        unsteady_names |= dict.fromkeys(unsteady(root, names, tuple(activation.parameters), defaults))
    backward = _function(activation, slots, "backward", roots, names, tuple(unsteady_names))
    learned = [name for name, p in activation.parameters.items() if p.learnable]
    if learned:
        partials = [activation.composite.derivatives[activation.names.index(n)] for n in (*inputs, *learned)]
        roots = [_of_grad(partial.expression, partial.names[0]) for partial in partials]
        for root in roots:
            unsteady_names |= dict.fromkeys(unsteady(root, names, tuple(activation.parameters), defaults))
        words = (*inputs, *learned)
        backward += _function(activation, slots, "gradients", roots, names, tuple(unsteady_names), words)
        backward.append(f"  static constexpr int learned = {len(learned)};")
    lines = [*_roundings(activation), *forward, *backward]
    functor = "\n".join([f"// {activation.summary}", f"struct {activation.name} {{", *lines, "};", ""])
    return Code(functor, _uniforms(activation, slots), slots.size)


def _roundings(activation: Activation) -> list[str]:
    """How forward and backward become bfloat16 (kernels.h). Loops of learned parameters must agree with these."""
    partials = activation.composite.derivatives[: len(activation.inputs)]
    learned = any(p.learnable for p in activation.parameters.values())
    found = []
    for name, roots, inputs in (
        ("forward", [activation.expression], activation.inputs),
        ("backward", [p.expression for p in partials], (partials[0].names[0], *activation.inputs)),
    ):
        simplify = Simplifier(inputs)
        kinds = {rounding(simplify(rewritten(root)), inputs) for root in roots}
        kind = "even" if learned or len(kinds) > 1 else kinds.pop()
        found.append(f"  static constexpr Rounding rounding_{name} = Rounding::{kind};")
    return found


def rounding(root: Expr, inputs: Sequence[str]) -> str:
    """none: what is computed of bfloat16 is bfloat16. away: a tie is float32's own rounding, or in a branch that is
    rational, where half a ULP is the error either way. even: the rest."""
    if _kept(root, inputs):
        return "none"
    return "even" if all(node.op in RATIONAL for node in walk(root)) else "away"


def _kept(node: Expr, inputs: Sequence[str]) -> bool:
    """Whether it is one of the inputs, or a number of 8 bits; or its product with 0 or ±1."""
    if node.op == "symbol":
        return node.args[0] in inputs
    if node.op == "constant":
        return not math.isfinite(node.args[0]) or _bfloat16(node.args[0])
    if node.op == "where":
        return all(_kept(branch, inputs) for branch in node.args[1:])
    if node.op in ("neg", "abs", "maximum", "minimum", "finite"):
        return all(_kept(argument, inputs) for argument in node.args)
    pairs = (node.args, node.args[::-1]) if node.op == "mul" else ()
    return any(_unit(factor) and _kept(other, inputs) for factor, other in pairs)


def _unit(node: Expr) -> bool:
    if node.op == "where":
        return all(map(_unit, node.args[1:]))
    return node.op == "constant" and node.args[0] in (0.0, 1.0, -1.0)


def _bfloat16(value: float) -> bool:
    digits = math.ldexp(math.frexp(value)[0], 8)
    return value == 0.0 or (digits == round(digits) and 2.0**-126 <= abs(value) < 2.0**127)


def _of_grad(expression: Expr, name: str) -> Expr:
    """With the cotangent called `_grad`."""
    seen: dict[Expr, Expr] = {symbol(name): symbol("_grad")}
    for node in walk(expression):
        if node not in seen:
            arguments = [seen[a] if isinstance(a, Expr) else a for a in node.args]
            seen[node] = Expr(node.op, *arguments)
    return seen[expression]


def _function(
    activation: Activation,
    slots: Slots,
    name: str,
    roots: Sequence[Expr],
    inputs: Sequence[str],
    finite: Sequence[str],
    words: Sequence[str] = (),
) -> list[str]:
    """words: whose gradients the roots are, written to an array; else those of the inputs, by reference if several."""
    emitter = Emitter(inputs, slots)
    results = emitter.emit(roots, finite)
    arguments = [f"V {identifier(i)}" for i in inputs] + ["U u"]
    if words:
        arguments += ["V* of"]
        last = [f"    of[{k}] = {r};  // {word}" for k, (r, word) in enumerate(zip(results, words, strict=True))]
    elif len(roots) > 1:
        of = [f"of_{i}" for i in activation.inputs]
        arguments += [f"V& {o}" for o in of]
        last = [f"    {o} = {r};" for o, r in zip(of, results, strict=True)]
    else:
        last = [f"    return {results[0]};"]
    kind = "V" if len(roots) == 1 and not words else "void"
    return [
        "  template <class A, class U>",
        f"  static SOFTKNEE_INLINE {kind} {name}({', '.join(arguments)}) {{",
        *(f"    {line}" for line in emitter.lines),
        *last,
        "  }",
    ]


def _uniforms(activation: Activation, slots: Slots) -> str:
    lines = []
    if slots.places:
        lines += [f"  const double {name} = p[{i}];" for i, name in enumerate(activation.parameters)]
    for (node, kind), place in slots.places.items():
        lines.append(f"  {kind}({_double(node)}, u + {place});")
    used = " ".join(lines)
    lines = [line for line in lines if not (m := line.strip()).startswith("const") or used.count(m.split()[2]) > 1]
    return "\n".join(
        ["template <class R>", f"static void {activation.name}_uniforms(const double* p, R* u) {{", *lines, "}", ""]
        if lines
        else ["template <class R>", f"static void {activation.name}_uniforms(const double*, R*) {{}}", ""]
    )


def _double(node: Expr) -> str:
    """An expression of parameters in double."""
    if node.op == "symbol":
        return str(node.args[0])
    if node.op == "constant":
        value = node.args[0]
        return repr(value) if math.isfinite(value) else "INFINITY" if value > 0 else "-INFINITY"
    args = [_double(a) for a in node.args]
    if node.op in INFIX:
        return f"({args[0]} {INFIX[node.op]} {args[1]})"
    if node.op == "neg":
        return f"(-{args[0]})"
    if node.op == "where":
        return f"({args[0]} ? {args[1]} : {args[2]})"
    if node.op.endswith("_times"):
        return f"({args[0]} * {node.op.removesuffix('_times')}({args[1]}))"
    return f"{node.op}({', '.join(args)})"
