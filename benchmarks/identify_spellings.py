"""The catalog's formulas in many spellings, as ONNX graphs between two matrix products; and near misses of each.

    python benchmarks/identify_spellings.py

A formula is written out node by node while rewriting rules are at work: commuted, reassociated, a sigmoid by exp or by
tanh, ReLU by Clip or |x|, powers for products, casts in between … Spellings that come out the same count once. Prints
how many are recognised, and every one that is not. Near misses have one constant 4 % off.
"""

from __future__ import annotations

import sys
import time
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

import numpy as np
import onnx
from onnx import helper, numpy_helper
from onnx.reference import ReferenceEvaluator

import softknee
from softknee.backends.onnx import Graph, OnnxTable, Value
from softknee.catalog import Activation
from softknee.expression import compile_source, emit, trace
from softknee.identification.formats.onnx import identify
from softknee.identification.matching import gated_probes, probes

WIDTH = 6
ROUNDED = {"half": np.float16}
RULES = (
    "as defined", "commute", "reassociate", "negate", "reciprocal", "power", "cube", "split constants", "fold scale",
    "sigmoid by exp", "sigmoid by reciprocal", "sigmoid by tanh", "tanh by sigmoid", "tanh by exp", "erf by oddness",
    "softplus by log", "softplus by logaddexp", "expm1 with one", "relu by clip", "relu by where", "relu by abs",
    "relu by mask", "bounds by clip", "where swapped", "where by mask", "casts", "identities", "sums", "native", "half",
)  # fmt: skip
TOGETHER = (("commute", "power", "casts"), ("reciprocal", "split constants"), ("negate", "reassociate", "identities"))


class Writer(Graph):
    """Nodes, each rewritten as the rules say. Constants are float32, or rounded to half precision."""

    def __init__(self, rules: tuple[str, ...], off: int | None = None) -> None:
        super().__init__()
        self.rules = rules
        self.off = off
        self.constants = 0
        self.made_of: dict[str, tuple[str, tuple[str, ...]]] = {}
        self.numbers: dict[str, float] = {}

    def name(self, value: Any) -> str:
        if isinstance(value, Value):
            return value.name
        number = float(value)
        if not np.isfinite(number) or number == round(number) or number in (0.5, 0.25):
            return self.held(number)
        self.constants += 1
        return self.held(number * (1.04 if self.off == self.constants - 1 else 1.0))

    def held(self, number: float) -> str:
        dtype = ROUNDED.get(next((r for r in self.rules if r in ROUNDED), ""), np.float32)
        result = self.constant(min(max(number, -3e38), 3e38), dtype) if dtype is np.float32 else None
        name = (result or self.constant(min(max(number, -6e4), 6e4), dtype)).name
        self.numbers[name] = number
        return name

    def plain(self, op: str, *inputs: Any, **attributes: Any) -> Value:
        result = super().node(op, *inputs, **attributes)
        self.made_of.setdefault(result.name, (op, tuple(self.nodes[-1].input)))
        return result

    def node(self, op: str, *inputs: Any, outputs: int = 1, **attributes: Any) -> Any:
        rules = self.rules
        inputs = tuple(Value(self, self.name(v)) for v in inputs)
        left, right = inputs if len(inputs) == 2 else (None, None)
        if left is not None and right is not None:
            if op == "Sub" and "negate" in rules:
                return self.node("Add", left, self.plain("Neg", right))
            if op == "Div" and "reciprocal" in rules:
                number = self.numbers.get(right.name)
                other = self.plain("Reciprocal", right) if number is None else Value(self, self.held(1 / number))
                return self.node("Mul", left, other)
            if op in ("Mul", "Add") and "reassociate" in rules and self.made_of.get(left.name, ("",))[0] == op:
                first, second = (Value(self, name) for name in self.made_of[left.name][1])
                return self.plain(op, first, self.plain(op, second, right))
            if op == "Mul" and "cube" in rules and self.made_of.get(left.name) == ("Mul", (right.name, right.name)):
                return self.plain("Pow", right, 3.0)
            if op == "Mul" and "power" in rules and left.name == right.name:
                return self.plain("Pow", left, 2.0)
            if op == "Mul" and "fold scale" in rules and self.numbers.get(left.name) == 0.5:
                return self.plain("Div", right, 2.0)
            number = self.numbers.get(right.name, self.numbers.get(left.name))
            if op == "Mul" and "split constants" in rules and number is not None and abs(number) not in (0, 1):
                rest = right if left.name in self.numbers else left
                return self.plain("Mul", Value(self, self.held(8.0)), self.plain("Mul", rest, self.held_(number / 8)))
            if op in ("Mul", "Add", "Max", "Min") and "commute" in rules:
                return self.plain(op, right, left)
            if op == "Add" and "sums" in rules:
                return self.plain("Sum", left, right)
        if op == "Where" and "where swapped" in rules:
            condition, yes, no = inputs
            return self.plain("Where", self.plain("Not", condition), no, yes)
        if op == "Where" and "where by mask" in rules:
            condition, yes, no = inputs
            mask = self.plain("Cast", condition, to=onnx.TensorProto.FLOAT)
            if self.numbers.get(yes.name) == 0:
                return self.plain("Mul", no, self.plain("Sub", 1.0, mask))
            return self.plain("Add", self.plain("Mul", mask, yes), self.plain("Mul", self.plain("Sub", 1.0, mask), no))
        result = self.plain(op, *inputs, **attributes)
        if "casts" in rules and op not in ("Less", "LessOrEqual", "Greater", "GreaterOrEqual", "Not"):
            wide = self.plain("Cast", result, to=onnx.TensorProto.DOUBLE)
            return self.plain("Cast", wide, to=onnx.TensorProto.FLOAT)
        if "identities" in rules:
            return self.plain("Identity", result)
        return result

    def held_(self, number: float) -> Value:
        return Value(self, self.held(number))


class Spelt(OnnxTable):
    """The op table by which a formula is written out."""

    graph: Writer

    def rule(self, *names: str) -> str:
        return next((name for name in names if name in self.graph.rules), "")

    def sigmoid(self, x: Any) -> Any:
        rule = self.rule("sigmoid by exp", "sigmoid by reciprocal", "sigmoid by tanh")
        if rule == "sigmoid by exp":
            return 1.0 / (1.0 + self.exp(-x))
        if rule == "sigmoid by reciprocal":
            return self.graph.node("Reciprocal", self.exp(-x) + 1.0)
        if rule == "sigmoid by tanh":
            return 0.5 * (1.0 + self.tanh(0.5 * x))
        return self.graph.node("Sigmoid", x)

    def tanh(self, x: Any) -> Any:
        rule = self.rule("tanh by sigmoid", "tanh by exp")
        if rule == "tanh by sigmoid":
            return 2.0 * self.graph.node("Sigmoid", 2.0 * x) - 1.0
        if rule == "tanh by exp":  # exp(2x) alone overflows in the products of x³
            e = self.exp(-2.0 * abs(x))
            return self.sign(x) * (1.0 - e) / (1.0 + e)
        return self.graph.node("Tanh", x)

    def sigmoid_times(self, a: Any, u: Any) -> Any:
        return a * self.sigmoid(u)

    def erfc_times(self, a: Any, u: Any) -> Any:
        return a * self.erfc(u)

    def exp_times(self, a: Any, u: Any) -> Any:
        return a * self.exp(u)

    def erf(self, x: Any) -> Any:
        return self.graph.node("Erf", x) if isinstance(x, Value) else super().erf(x)

    def erfc(self, x: Any) -> Any:
        return 1.0 + self.erf(-x) if self.rule("erf by oddness") else 1.0 - self.erf(x)

    def exp(self, x: Any) -> Any:
        return self.graph.node("Exp", x) if isinstance(x, Value) else super().exp(x)

    def expm1(self, x: Any) -> Any:
        x = self.minimum(x, 0.0) if self.rule("where by mask", "expm1 with one") else x
        return self.exp(x) - 1.0

    def log1p(self, x: Any) -> Any:
        return self.log(1.0 + x)

    def softplus(self, x: Any) -> Any:
        rule = self.rule("softplus by log", "softplus by logaddexp")
        if rule == "softplus by log":
            return self.log(1.0 + self.exp(x))
        if rule == "softplus by logaddexp":
            return self.maximum(x, 0.0) + self.log(1.0 + self.exp(-abs(x)))
        return self.graph.node("Softplus", x)

    def maximum(self, a: Any, b: Any) -> Any:
        if not isinstance(a, Value) or b != 0.0:
            if self.rule("bounds by clip") and isinstance(a, Value) != isinstance(b, Value):
                x, low = (a, b) if isinstance(a, Value) else (b, a)
                return self.graph.plain("Clip", x, low)
            return self.graph.node("Max", a, b)
        rule = self.rule("relu by clip", "relu by where", "relu by abs", "relu by mask", "native")
        if rule == "relu by clip":
            return self.graph.plain("Clip", a, 0.0)
        if rule == "relu by where":
            return self.where(a > 0.0, a, 0.0)
        if rule == "relu by abs":
            return 0.5 * (a + abs(a))
        if rule == "relu by mask":
            return a * self.graph.plain("Cast", a > 0.0, to=onnx.TensorProto.FLOAT)
        return self.graph.node("Relu" if rule else "Max", *([a] if rule else [a, 0.0]))


@dataclass(frozen=True)
class Spelling:
    activation: Activation
    rules: tuple[str, ...]
    model: onnx.ModelProto

    @property
    def name(self) -> str:
        return f"{self.activation.name}: {' + '.join(self.rules)}"

    def values(self) -> np.ndarray:
        """What the spelling should be, at the probes."""
        return self.activation.value(*(gated_probes() if self.activation.kind == "gated" else [probes()]))


def spell(activation: Activation, rules: tuple[str, ...], off: int | None = None) -> onnx.ModelProto | None:
    """The model of one spelling; off: which constant is 4 % off; None where the formula has no such."""
    writer = Writer(rules, off)
    inputs = [Value(writer, name) for name in activation.inputs]
    for value in inputs:
        writer.made[value.name] = value.name
    formula = trace(activation.formula, activation.inputs, activation.parameters)
    code = compile_source(emit([formula], "forward", activation.names), "forward")
    result = code(Spelt(writer), *inputs, *activation.defaults.values())
    if off is not None and off >= writer.constants:
        return None
    half = any(rule in ROUNDED for rule in rules)
    kind = onnx.TensorProto.FLOAT16 if half else onnx.TensorProto.FLOAT
    dtype = np.float16 if half else np.float32
    nodes = []
    if len(inputs) == 2:
        nodes += [helper.make_node("MatMul", ["x", "w"], ["both"])]
        nodes += [helper.make_node("Split", ["both"], list(activation.inputs), axis=-1, num_outputs=2)]
    else:
        nodes += [
            helper.make_node("MatMul", ["x", "w"], [activation.inputs[0] if activation.inputs[0] != "x" else "h"])
        ]
    if len(inputs) == 1 and activation.inputs[0] == "x":  # the formula's own input is called so too
        for node in writer.nodes:
            node.input[:] = ["h" if name == "x" else name for name in node.input]
    nodes += [*writer.nodes, helper.make_node("MatMul", [result.name, "v"], ["y"])]
    weights = [
        numpy_helper.from_array(np.ones((WIDTH, WIDTH * len(inputs)), dtype), "w"),
        numpy_helper.from_array(np.ones((WIDTH, WIDTH), dtype), "v"),
    ]
    ends = [helper.make_tensor_value_info(name, kind, ["n", WIDTH]) for name in ("x", "y")]
    graph = helper.make_graph(nodes, activation.name, ends[:1], ends[1:], weights)
    return helper.make_model(graph, opset_imports=[helper.make_opsetid("", 18)])


def subjects() -> list[Activation]:
    """What is spelt: every entry that behaviour is compared with, but the identity."""
    from softknee.identification.matching import recognised

    known = [a for a in recognised() if a.kind in ("elementwise", "gated") and not a.stochastic]
    return [a for a in known if a.name not in ("identity", "prelu", "swish", "threshold")]


def spellings(activations: list[Activation] | None = None) -> Iterator[Spelling]:
    """Every spelling that differs from those before it, activation by activation."""
    for activation in subjects() if activations is None else activations:
        seen = set()
        for rules in (*((rule,) for rule in RULES), *TOGETHER):
            model = spell(activation, rules)
            assert model is not None
            text = b"".join(node.SerializeToString() for node in model.graph.node)
            if text not in seen:
                seen.add(text)
                yield Spelling(activation, rules, model)


def near_misses(activations: list[Activation] | None = None) -> Iterator[Spelling]:
    """Each with one constant 4 % off, where that makes another function: not a guard against overflow."""
    for activation in subjects() if activations is None else activations:
        for off in range(12):
            model = spell(activation, ("as defined",), off)
            if model is None:
                break
            spelling = Spelling(activation, (f"constant {off} is 4 % off",), model)
            wanted = spelling.values()
            if np.max(np.abs(executed(spelling) - wanted) / np.maximum(1, np.abs(wanted))) > 1e-4:
                yield spelling


def executed(spelling: Spelling) -> np.ndarray:
    """What the model's own nodes compute at the probes, by onnx's reference evaluator."""
    nodes = [n for n in spelling.model.graph.node if n.op_type not in ("MatMul", "Split")]
    names = spelling.model.graph.node[len(spelling.activation.inputs) - 1].output
    points = gated_probes() if spelling.activation.kind == "gated" else (probes(),)
    ends = [helper.make_tensor_value_info(n, onnx.TensorProto.FLOAT, [None]) for n in (*names, nodes[-1].output[0])]
    graph = helper.make_graph(nodes, "core", ends[:-1], ends[-1:])
    evaluator = ReferenceEvaluator(helper.make_model(graph, opset_imports=[helper.make_opsetid("", 18)]))
    given = {name: p.astype(np.float32) for name, p in zip(names, points, strict=True)}
    with np.errstate(all="ignore"):
        return np.asarray(evaluator.run(None, given)[0])


def distance(spelling: Spelling) -> tuple[float, str]:
    """How far what is found is from what was spelt, relative to max(1, |value|); and its name."""
    sites = list(identify(spelling.model))
    if len(sites) != 1 or sites[0].definition is None:
        return np.inf, "; ".join(map(str, sites)) or "nothing"
    (site,) = sites
    wanted = spelling.values()
    if site.definition.kind != spelling.activation.kind:
        return np.inf, str(site)
    points = gated_probes() if site.definition.kind == "gated" else (probes(),)
    off = np.abs(site.definition.value(*points, **site.parameters) - wanted) / np.maximum(1, np.abs(wanted))
    return float(off.max()), str(site)


def recognised(spelling: Spelling) -> bool:
    """Whether what is found is what was spelt; constants that were rounded to half move it by a little."""
    return distance(spelling)[0] <= (2e-3 if "half" in spelling.rules else 1e-6)


def main() -> int:
    began = time.perf_counter()
    every = list(spellings())
    missed = [(s, distance(s)) for s in every if not recognised(s)]
    print(f"spellings: {len(every) - len(missed)} of {len(every)} recognised, {time.perf_counter() - began:.1f} s")
    for spelling, (far, found) in missed:
        print(f"  {spelling.name}: off by {far:.2g}: {found[:150]}")
    near = list(near_misses())
    taken = [s for s in near if recognised(s)]
    print(f"near misses: {len(near) - len(taken)} of {len(near)} told apart")
    for spelling in taken:
        print(f"  {spelling.name}")
    print(f"softknee {softknee.__version__}, onnx {onnx.__version__}, {sys.platform}")
    return 1 if missed or taken else 0


if __name__ == "__main__":
    sys.exit(main())
