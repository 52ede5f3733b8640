"""Triton: an activation's value and derivatives as GPU kernels over the primitives of `kernels/gpu/math.py`.

`code(activation)` is the source of two kernels, `forward` and `backward`, and the numbers of the call that they take.
Products are arranged as for C++ (`Simplifier`); what depends on the parameters alone is computed in double before the
call. An activation that uses a primitive which `math.py` lacks raises NotImplementedError.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np

from ..expression import Expr, compile_source, emit
from ..expression.emission import rewritten
from ..expression.graph import COMPARISONS
from .cpp import DIRECTED, INFIX, MINUS, MIRRORED, Simplifier, Slots, _of_grad, directed
from .floats import unsteady

if TYPE_CHECKING:
    from ..catalog import Activation

DIRECT = {
    "log",
    "log1p",
    "sqrt",
    "sign",
    "maximum",
    "minimum",
    "expm1",
    "atan",
    "erf",
    "x_phi",
    "x_phi_times",
    "x_phi_slope",
}
AMPLIFYING = {
    "exp", "exp_times", "tanh", "sigmoid", "sigmoid_times", "softplus", "sech2_half", "sech2_half_times", "sin", "cos",
    "sigmoid_slope", "erfc", "erfc_times",
}  # fmt: skip


class Emitter:
    """Straight-line Triton for several expressions over the same inputs."""

    def __init__(self, inputs: Sequence[str], slots: Slots) -> None:
        self.simplify = Simplifier(inputs)
        self.slots = slots
        self.lines: list[str] = []
        self.names: dict[Expr, str] = {}
        self.pairs: dict[Expr, tuple[str, str]] = {}

    def emit(self, roots: Sequence[Expr], finite: Sequence[str]) -> list[str]:
        self.lines += [f"{name} = m.finite({name})" for name in finite]
        return [self.value(self.simplify(rewritten(root))) for root in roots]

    def _new(self) -> str:
        return f"_t{len(self.lines)}"

    def value(self, node: Expr) -> str:
        if node not in self.names:
            text = self._text(node)
            if node.op not in ("constant", "symbol") and not self.simplify.uniform(node):
                name = self._new()
                self.lines.append(f"{name} = {text}")
                text = name
            self.names[node] = text
        return self.names[node]

    def _text(self, node: Expr) -> str:
        op, args = node.op.removeprefix("decay_"), node.args
        if op == "constant":
            return literal(args[0])
        if self.simplify.uniform(node):
            return f"_u{self.slots.place(node, 'value')}"
        if op == "symbol":
            return str(args[0])
        if op in COMPARISONS:
            return self._comparison(op, *args)
        if op in ("add", "sub") and any(map(self.simplify.uniform, args)):
            # near a root, what rounding the number leaves is all that counts
            a, b = args if self.simplify.uniform(args[1]) else reversed(args)
            if op == "add":
                return f"({self.value(a)} + {self.value(b)}) + {self.wide(b)[1]}"
            mark = "-" if b is args[1] else "+"
            first = f"{self.value(args[0])} - {self.value(args[1])}"
            return f"({first}) {mark} {self.wide(b)[1]}"
        if op == "neg":
            return f"-{self.value(args[0])}"
        if op == "div":
            a, b = map(self.value, args)
            # a number becomes as long as what it is divided by
            return f"tl.div_rn(tl.where({b} == {b}, {a}, {b}), {b})"
        if op in INFIX:
            return f"{self.value(args[0])} {INFIX[op]} {self.value(args[1])}"
        if op in AMPLIFYING:
            *factors, u = args
            return f"m.{op}({', '.join([*map(self.value, factors), *self.wide(u)])})"
        if op == "where":
            return f"tl.where({', '.join(map(self.value, args))})"
        if op == "abs":
            return f"tl.abs({self.value(args[0])})"
        if op in DIRECT:
            return f"m.{op}({', '.join(map(self.value, args))})"
        raise NotImplementedError(f"kernels/gpu/math.py has no {op!r}")

    def _comparison(self, op: str, a: Expr, b: Expr) -> str:
        if self.simplify.uniform(a) and not self.simplify.uniform(b):
            a, b, op = b, a, MIRRORED[op]
        if b.op == "constant":
            bound = literal(directed(b.args[0], DIRECTED[op]))
        elif self.simplify.uniform(b):
            bound = f"_u{self.slots.place(b, DIRECTED[op])}"
        else:
            bound = self.value(b)
        return f"{self.value(a)} {INFIX[op]} {bound}"

    def wide(self, node: Expr) -> tuple[str, str]:
        """The nearest float32, and the rest."""
        if node not in self.pairs:
            self.pairs[node] = self._wide(node)
        return self.pairs[node]

    def _wide(self, node: Expr) -> tuple[str, str]:
        if node.op == "constant":
            near = float(np.float32(node.args[0]))
            return literal(near), literal(node.args[0] - near if math.isfinite(near) else 0.0)
        if self.simplify.uniform(node):
            place = self.slots.place(node, "value")
            return f"_u{place}", f"_u{place + 1}"
        if node.op == "neg":
            u, r = self.wide(node.args[0])
            return f"(-{u})", f"(-{r})"
        if node.op == "mul":
            k = node.args[0]
            if k.op == "constant" and abs(math.frexp(k.args[0])[0]) == 0.5:
                u, r = self.wide(node.args[1])
                return f"({literal(k.args[0])} * {u})", f"({literal(k.args[0])} * {r})"
            return self._pair("product", *map(self._long, node.args))
        if node.op == "add":
            return self._pair("plus", *map(self._long, node.args))
        if node.op == "sub":
            return self._pair("plus", self._long(node.args[0]), self._long(self.simplify.product(MINUS, node.args[1])))
        return self.value(node), "0.0"

    def _long(self, node: Expr) -> tuple[str, str]:
        """The same, a number as a tensor, of whose bits there are heads."""
        u, r = self.wide(node)
        return (f"({u} + tl.zeros([1], tl.float32))", r) if self.simplify.uniform(node) else (u, r)

    def _pair(self, word: str, a: tuple[str, str], b: tuple[str, str]) -> tuple[str, str]:
        name = self._new()
        self.lines.append(f"{name}, {name}r = m.{word}({', '.join([*a, *b])})")
        return name, f"{name}r"


def literal(value: float) -> str:
    if math.isfinite(value):
        return repr(value) if math.copysign(1.0, value) > 0 else f"({value!r})"
    return f'float("{value}")'


@dataclass(frozen=True)
class Code:
    """The kernels' sources, and the numbers that they take after the sizes and strides, made of the parameters."""

    forward: str
    backward: str
    numbers: Callable[..., list[float]]


def code(activation: Activation) -> Code:
    """Raises NotImplementedError where `math.py` lacks a primitive."""
    inputs, parameters = activation.inputs, tuple(activation.parameters)
    defaults, slots = tuple(activation.defaults.values()), Slots()
    roots = [_of_grad(p.expression, p.names[0]) for p in activation.composite.derivatives[: len(inputs)]]
    names = ("_grad", *inputs)
    finite = dict.fromkeys(name for root in roots for name in unsteady(root, names, parameters, defaults))
    bodies = []
    for emitted, given, kept in (([activation.expression], inputs, ()), (roots, names, tuple(finite))):
        emitter = Emitter(given, slots)
        bodies.append((given, emitter.emit(emitted, kept), emitter.lines))
    forward, backward = (
        _kernel(word, given, results, lines, slots.size)
        for word, (given, results, lines) in zip(("forward", "backward"), bodies, strict=True)
    )
    return Code(forward, backward, _numbers(slots, parameters))


def _kernel(word: str, given: Sequence[str], results: list[str], lines: list[str], size: int) -> str:
    """One program writes BLOCK elements of one row; rows may lie apart, their elements not."""
    outputs = [f"_out{k}" for k in range(len(results))]
    tensors = [*(f"{name}_at" for name in given), *(f"{name}_at" for name in outputs)]
    arguments = [*tensors, *(f"{name}_stride" for name in (*given, *outputs)), "_columns", "_blocks"]
    arguments += [f"_u{k}" for k in range(size)]
    body = [
        "_program = tl.program_id(0).to(tl.int64)",
        "_row = _program // _blocks",
        "_column = (_program % _blocks) * BLOCK + tl.arange(0, BLOCK)",
        "_inside = _column < _columns",
        *(
            f"{n} = tl.load({n}_at + _row * {n}_stride + _column, mask=_inside, other=0.0).to(tl.float32)"
            for n in given
        ),
        *lines,
    ]
    for name, result in zip(outputs, results, strict=True):
        filled = (
            f"({result}) + tl.zeros([BLOCK], tl.float32)"
            if result.startswith(("_u", "(")) or result[0].isdigit()
            else result
        )
        place = f"{name}_at + _row * {name}_stride + _column"
        body.append(f"tl.store({place}, ({filled}).to({name}_at.dtype.element_ty), mask=_inside)")
    return "\n".join(
        [
            "import triton",
            "import triton.language as tl",
            "",
            "from softknee.kernels.gpu import math as m",
            "",
            "",
            "@triton.jit",
            f"def {word}({', '.join(arguments)}, BLOCK: tl.constexpr):",
            *(f"    {line}" for line in body),
            "",
        ]
    )


def _numbers(slots: Slots, parameters: Sequence[str]) -> Callable[..., list[float]]:
    if not slots.places:
        return lambda *values: []
    from .numpy import OPS

    places = list(slots.places)
    # a last 0 makes it a tuple of any length
    make: Any = compile_source(
        emit([*(node for node, _ in places), Expr("constant", 0.0)], "numbers", parameters), "numbers"
    )

    def numbers(*values: float) -> list[float]:
        with np.errstate(all="ignore"):
            *exact, _ = map(float, make(OPS, *map(np.float64, values)))
            found = []
            for (_, kind), value in zip(places, exact, strict=True):
                if kind != "value":
                    found.append(directed(value, kind))
                    continue
                near = float(np.float32(value))
                found += [near, value - near if math.isfinite(near) else 0.0]
        return found

    return numbers
