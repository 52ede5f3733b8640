"""ONNX: any expression as the body of a function over the operators of opset 18 and later.

The body computes in float64 and rounds once to its input's type, whatever that is: float32 results are right to half a
ULP wherever the runtime's own operators in double are. Parameters are numbers in the body, exact doubles.
"""

from __future__ import annotations

import functools
import math
import operator
from collections.abc import Sequence
from typing import Any

import numpy as np
import onnx
from onnx import helper

from . import numpy as reference
from .floats import FloatTable, polynomial, powers


class Value:
    """One result in a graph under construction; arithmetic adds nodes."""

    def __init__(self, graph: Graph, name: str) -> None:
        self.graph = graph
        self.name = name

    def _with(self, op: str, other: Any, swapped: bool = False) -> Value:
        return self.graph.node(op, *((other, self) if swapped else (self, other)))

    def __add__(self, other: Any) -> Value:
        return self._with("Add", other)

    def __radd__(self, other: Any) -> Value:
        return self._with("Add", other, True)

    def __sub__(self, other: Any) -> Value:
        return self._with("Sub", other)

    def __rsub__(self, other: Any) -> Value:
        return self._with("Sub", other, True)

    def __mul__(self, other: Any) -> Value:
        return self._with("Mul", other)

    def __rmul__(self, other: Any) -> Value:
        return self._with("Mul", other, True)

    def __truediv__(self, other: Any) -> Value:
        return self._with("Div", other)

    def __rtruediv__(self, other: Any) -> Value:
        return self._with("Div", other, True)

    def __pow__(self, exponent: int) -> Value:
        return functools.reduce(operator.mul, [self] * exponent)

    def __neg__(self) -> Value:
        return self.graph.node("Neg", self)

    def __abs__(self) -> Value:
        return self.graph.node("Abs", self)

    def __lt__(self, other: Any) -> Value:
        return self._with("Less", other)

    def __le__(self, other: Any) -> Value:
        return self._with("LessOrEqual", other)

    def __gt__(self, other: Any) -> Value:
        return self._with("Greater", other)

    def __ge__(self, other: Any) -> Value:
        return self._with("GreaterOrEqual", other)


class Graph:
    """Nodes in order. The same operator on the same inputs is one node."""

    def __init__(self) -> None:
        self.nodes: list[onnx.NodeProto] = []
        self.made: dict[Any, str] = {}

    def node(self, op: str, *inputs: Any, outputs: int = 1, **attributes: Any) -> Any:
        names = tuple(self.name(value) for value in inputs)
        key = (op, names, tuple(sorted(attributes.items())), outputs)
        if key not in self.made:
            name = f"v{len(self.nodes)}"
            results = [name, *(f"{name}_{i}" for i in range(1, outputs))]
            self.nodes.append(helper.make_node(op, names, results, **attributes))
            self.made[key] = name
        first = self.made[key]
        found = [Value(self, first), *(Value(self, f"{first}_{i}") for i in range(1, outputs))]
        return found[0] if outputs == 1 else found

    def name(self, value: Any) -> str:
        return value.name if isinstance(value, Value) else self.constant(float(value)).name

    def constant(self, value: Any, dtype: Any = np.float64) -> Value:
        array = np.asarray(value, dtype)
        key = ("Constant", array.dtype.str, array.shape, array.tobytes())
        if key not in self.made:
            name = f"v{len(self.nodes)}"
            tensor = onnx.numpy_helper.from_array(array, name)
            self.nodes.append(helper.make_node("Constant", [], [name], value=tensor))
            self.made[key] = name
        return Value(self, self.made[key])


def _primitive(name: str, build: Any) -> Any:
    # A formula may apply a primitive to a parameter, which is a number.
    exact = getattr(reference.OPS, name)

    def primitive(self: OnnxTable, *arguments: Any) -> Any:
        if any(isinstance(a, Value) for a in arguments):
            return build(self, *arguments)
        with np.errstate(all="ignore"):
            return float(exact(*arguments))

    return primitive


def _operator(name: str, operator: str) -> Any:
    return _primitive(name, lambda self, *arguments: self.graph.node(operator, *arguments))


def _expm1(self: OnnxTable, x: Value) -> Value:
    # 2·tanh(x/2)/(1 − tanh(x/2)), which does not cancel near 0
    t = self.tanh(0.5 * x)
    return self.where(abs(x) < 1.0, 2.0 * t / (1.0 - t), self.exp(x) - 1.0)


def _log1p(self: OnnxTable, x: Value) -> Value:
    # 2·atanh(x/(2 + x)), which does not cancel near 0
    near = abs(x) < 0.5
    inside = self.where(near, x, 0.0)
    return self.where(near, 2.0 * self.graph.node("Atanh", inside / (2.0 + inside)), self.log(1.0 + x))


# Runtimes have Erf in float32 at most, some with an error of 1e-7: not used.
@functools.cache
def _erf_series() -> tuple[float, ...]:
    """erf(u)/u for |u| ≤ 1, in powers of 2u² − 1."""
    return powers(lambda t: math.erf(math.sqrt(0.5 * t + 0.5)) / math.sqrt(0.5 * t + 0.5), 15)


def _erf(self: OnnxTable, u: Value) -> Value:
    square = self.minimum(u * u, 1.0)
    inner = u * polynomial(_erf_series(), 2.0 * square - 1.0)
    return self.where(abs(u) < 1.0, inner, self.sign(u) * (1.0 - _erfc_tail(self, u)))


def _erfc(self: OnnxTable, u: Value) -> Value:
    tail = _erfc_tail(self, u)
    return self.where(abs(u) < 1.0, 1.0 - _erf(self, u), self.where(u < 0.0, 2.0 - tail, tail))


def _erfc_tail(self: OnnxTable, u: Value) -> Value:
    v = self.maximum(abs(u), 1.0)
    return self.erfcx(v) * self.exp(-(v * v))


class OnnxTable(FloatTable):
    """The primitives as nodes of `graph`."""

    name = "onnx"
    pi = math.pi

    def __init__(self, graph: Graph | None = None) -> None:
        self.graph = graph or Graph()

    exp = _operator("exp", "Exp")
    log = _operator("log", "Log")
    sqrt = _operator("sqrt", "Sqrt")
    sin = _operator("sin", "Sin")
    cos = _operator("cos", "Cos")
    atan = _operator("atan", "Atan")
    tanh = _operator("tanh", "Tanh")
    abs = _operator("abs", "Abs")
    sign = _operator("sign", "Sign")
    maximum = _operator("maximum", "Max")
    minimum = _operator("minimum", "Min")
    expm1 = _primitive("expm1", _expm1)
    log1p = _primitive("log1p", _log1p)
    erf = _primitive("erf", _erf)
    erfc = _primitive("erfc", _erfc)

    def where(self, condition: Any, a: Any, b: Any) -> Any:
        return self.graph.node("Where", condition, a, b) if isinstance(condition, Value) else a if condition else b

    def finite(self, a: Any) -> Any:
        large = float(np.finfo(np.float64).max) / 256
        return self.maximum(self.minimum(a, large), -large)

    def amax(self, x: Any) -> Any:
        return self.graph.node("ReduceMax", x, self.graph.constant([-1], np.int64), keepdims=1)

    def total(self, x: Any) -> Any:
        return self.graph.node("ReduceSum", x, self.graph.constant([-1], np.int64), keepdims=1)

    def descending(self, x: Any) -> Any:
        size = self.graph.node("Shape", x, start=-1)
        return self.graph.node("TopK", x, size, outputs=2, axis=-1)[0]

    def cumulative(self, x: Any) -> Any:
        return self.graph.node("CumSum", x, self.graph.constant(-1, np.int64))

    def grouped(self, x: Any, size: int) -> Any:
        return self._shaped(x, -1, [-1, size])

    def flat(self, x: Any) -> Any:
        return self._shaped(x, -2, [-1])

    def _shaped(self, x: Any, end: int, last: list[int]) -> Any:
        """With other dimensions in place of those from `end` on."""
        kept = self.graph.node("Shape", x, end=end)
        shape = self.graph.node("Concat", kept, self.graph.constant(last, np.int64), axis=0)
        return self.graph.node("Reshape", x, shape)

    def joined(self, a: Any, b: Any) -> Any:
        return self.graph.node("Concat", a, b, axis=-1)


OPS = OnnxTable()


def function_proto(
    domain: str, name: str, inputs: Sequence[str], opset: int, doc: str, body: Any
) -> onnx.FunctionProto:
    """The function `name` of `domain`: `body(ops, *values)` in float64, its result in the first input's type."""
    graph = Graph()
    wide = [graph.node("Cast", Value(graph, word), to=onnx.TensorProto.DOUBLE) for word in inputs]
    result = body(OnnxTable(graph), *wide)
    if not isinstance(result, Value):  # a constant function
        result = graph.node("Add", graph.node("Mul", wide[0], 0.0), result)
    graph.nodes.append(helper.make_node("CastLike", [result.name, inputs[0]], ["y"]))
    opsets = [helper.make_opsetid("", opset)]
    return helper.make_function(domain, name, list(inputs), ["y"], graph.nodes, opsets, doc_string=doc)
