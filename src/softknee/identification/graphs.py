"""The one neutral graph that every graph format is read into, and the Census of it.

A graph becomes a trace (tracing.py), so that cores are cut (cores.py) and sites are read (reading.py) as of a live
model. What differs: operations are executed by the NumPy functions that their reader bound, shapes may be unknown, and
constants may be rounded to half precision, which a match then allows for.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field, replace
from functools import cached_property
from typing import Any

import numpy as np
import torch

from .. import catalog
from ..catalog import Activation
from ..errors import InputError
from .census import Census, Conflict, Site
from .cores import Core, Regions
from .matching import Match, gated_probes, match_values, probes, tolerance
from .reading import Reading
from .tracing import Reference, Step, Trace, Value

SMALL = 2**16
"""How many elements a constant may have to be held; of larger ones only the shape is known (`Graph.weights`)."""


@dataclass(frozen=True)
class Node:
    """One operation.

    name: unique in the graph; for people.
    op: in its format's own words: "Gelu", "aten.gelu.default", "logistic".
    inputs: names of values, None where one is left out. outputs: likewise.
    kind: "elementwise", "affine" (a matrix product, a convolution), "reshape" (moves elements, or casts them),
        "softmax", "normalizer" or "other".
    evaluate: of an elementwise one: float64 arrays, one per input that is there, that broadcast → what the op computes,
        its attributes bound; comparisons give and take bool. dtype: what it computes in, "float32".
    source: "file.py:12". path: of the module whose forward applies it, as torch names modules ("layers.0.mlp.act").
    declared: what the format itself says the op is, ("gelu_tanh", {}).
    halves: of a reshape, which half of its input each output is: "first", "second", "even", "odd"; () if none.
    applies: of a fused op (recurrent, attention), what it applies inside: (activation, parameters, role, what for).
    note: what a reader of the site must know, such as a softmax's axis.
    """

    name: str
    op: str
    inputs: tuple[str | None, ...]
    outputs: tuple[str, ...]
    kind: str
    evaluate: Callable[..., np.ndarray] | None = None
    dtype: str | None = None
    source: str | None = None
    declared: tuple[str, dict[str, float]] | None = None
    path: str | None = None
    halves: tuple[str, ...] = ()
    applies: tuple[tuple[str | None, dict[str, float], str, str], ...] = ()
    note: str = ""


@dataclass(frozen=True)
class Graph:
    """Nodes in an order in which each reads only what is there: inputs, constants, weights, earlier outputs.

    constants: of at most SMALL elements. weights: the shapes of larger ones. shapes: of values, where they are known,
    None for a size that is not. declared: values that the format declares to be an activation of something, such as
    the result of a function named Gelu: (activation, parameters, who says so).
    """

    name: str
    nodes: tuple[Node, ...]
    inputs: tuple[str, ...]
    outputs: tuple[str, ...]
    constants: Mapping[str, np.ndarray] = field(default_factory=dict)
    weights: Mapping[str, tuple[int, ...]] = field(default_factory=dict)
    shapes: Mapping[str, tuple[int | None, ...]] = field(default_factory=dict)
    declared: Mapping[str, tuple[str, dict[str, float], str]] = field(default_factory=dict)


def census(graph: Graph) -> Census:
    """The activation sites of a graph: native operators as declared, cut-out cores as executed.

    Raises InputError for a graph whose nodes read what is not there, or define a value twice.
    """
    return _Graphed(graph).census()


# -- the graph as a trace

# What hands on its input's elements as they are; rounding and quantizing count as such
_NEUTRAL = {
    "cast", "castlike", "identity", "dropout", "alias", "clone", "contiguous", "copy", "detach", "to", "_to_copy",
    "convert_element_type", "reduce_precision", "stop_gradient", "copy_p", "optimization_barrier", "lift_fresh_copy",
    "quantizelinear", "dequantizelinear", "dynamicquantizelinear", "quantize_per_tensor", "dequantize_per_tensor",
    "reshape", "view", "_unsafe_view", "flatten", "unflatten", "squeeze", "unsqueeze", "expand_dims", "expand",
    "broadcast_in_dim",
}  # fmt: skip
_QUANTIZED = ("quantize", "dequantize")
_VIEWS = {"reshape", "view", "_unsafe_view", "flatten", "unflatten", "squeeze", "unsqueeze", "expand_dims", "expand",
          "broadcast_in_dim"}  # fmt: skip
_WORDS = {"integer_pow": "pow", "logistic": "sigmoid", "truediv": "div", "true_divide": "div", "subtract": "sub",
          "multiply": "mul", "divide": "div", "negative": "neg"}  # fmt: skip
# How many functions that are no activation are compared: 30 ms each, and an unknown activation makes some 20
_MOST_UNKNOWN = 90
_SUMS = ("reducesum", "reduce_sum", "sum")
_LOGSUMS = ("reducelogsumexp", "logsumexp")
# What rounding a constant to this may have moved it by, relative
_GRAIN = {"float32": 2.0**-24, "float16": 2.0**-11, "bfloat16": 2.0**-8}


def word(op: str) -> str:
    """An op in the words that cores.py knows: "mul" for "Mul", "aten.mul.Tensor", "aten::mul_"."""
    plain = re.sub(r"^(aten|prims|prim)[.:]+", "", op.rpartition("::")[2] if "::" in op else op)
    plain = plain.partition(".")[0].lower()
    plain = plain.rstrip("_") or plain
    return _WORDS.get(plain, plain)


@dataclass(frozen=True)
class _Declared:
    """A native operator that is an activation, in place of the call of one."""

    activation: Activation | None
    name: str
    parameters: dict[str, float]


@dataclass
class _Value(Value):
    size: tuple[int | None, ...] | None = None  # None where not even the rank is known


@dataclass
class _Operation(Step):
    node: Node = None  # type: ignore[assignment]

    @cached_property
    def name(self) -> str:
        plain = word(self.node.op)
        if self.node.kind == "affine":
            return "conv" if "conv" in plain else "matmul"
        if self.node.kind == "normalizer":
            return "norm"
        return "transpose" if self.node.kind == "reshape" and plain not in _NEUTRAL else plain

    @property
    def is_module(self) -> bool:
        return False

    @property
    def affine(self) -> bool:
        return self.node.kind == "affine"

    @property
    def recurrent(self) -> bool:
        return bool(self.node.applies)

    @property
    def neutral(self) -> bool:
        return self.node.kind == "reshape" and word(self.node.op) in _NEUTRAL

    @cached_property
    def halves(self) -> dict[int, str]:
        return dict(zip(self.outputs, self.node.halves, strict=False))


def _present(node: Node) -> Node:
    """The node without its absent inputs, in whose places `evaluate` is given None: Clip has no minimum."""
    evaluate = node.evaluate
    if evaluate is None or None not in node.inputs:
        return node

    def apply(*given: np.ndarray) -> np.ndarray:
        rest = iter(given)
        return evaluate(*(None if name is None else next(rest) for name in node.inputs))

    return replace(node, inputs=tuple(name for name in node.inputs if name is not None), evaluate=apply)


class _Flow(Trace):
    """A graph as a trace. What is computed from constants alone is computed, and no step."""

    values: list[Any]  # of _Value

    def __init__(self, graph: Graph) -> None:
        super().__init__([], [], (), {})
        self.names: dict[str, int] = {}
        for name in graph.inputs:
            self._name(name, graph, None)
        for name, array in graph.constants.items():
            self._name(name, graph, array)
        for name in graph.weights:
            self._name(name, graph, np.empty(0))
        for node in _alive(graph):
            self._node(node, graph)
        for name in graph.outputs:
            if name not in self.names:
                raise InputError(f"{graph.name}: the output {name!r} is computed nowhere")
        self.outputs = tuple(self.names[name] for name in graph.outputs)
        self.number()

    def alike(self, *values: int) -> bool:
        """Whether the values may have one shape, as far as shapes are known."""
        sizes = [s for v in values if (s := self.values[v].size) is not None]
        if len({len(s) for s in sizes}) > 1:
            return False
        return all(len({n for n in each if n is not None}) <= 1 for each in zip(*sizes, strict=True))

    def hands_on(self, step: Step) -> bool:
        unknown = any(self.values[v].size is None for v in (*step.inputs, *step.outputs))
        return super().hands_on(step) and not (unknown and step.name in _VIEWS)

    def _name(self, name: str, graph: Graph, constant: np.ndarray | None, dtype: torch.dtype = torch.float64) -> int:
        if name in self.names:
            raise InputError(f"{graph.name}: the value {name!r} is defined twice")
        size = graph.shapes.get(name, None if constant is None or not constant.size else constant.shape)
        if size is None and name in graph.weights:
            size = graph.weights[name]
        self.values.append(_Value(_shape(size), dtype, constant, size=size))  # type: ignore[arg-type]
        self.names[name] = len(self.values) - 1
        return self.names[name]

    def _node(self, node: Node, graph: Graph) -> None:
        missing = [name for name in node.inputs if name is not None and name not in self.names]
        if missing:
            raise InputError(f"{graph.name}: node {node.name!r} reads {missing[0]!r}, which is not computed before it")
        node = _present(node)
        given = [self.names[name] for name in node.inputs if name is not None]
        if all(not self.values[v].varies for v in given) and not node.applies:
            constant = _folded(node, [self.values[v].constant for v in given])
            for name in node.outputs:
                self._name(name, graph, constant)
            return
        dtype = self._logical(node, given)
        outputs = tuple(self._name(name, graph, None, dtype) for name in node.outputs)
        self._size(node, given, outputs)
        call: Any = None
        if node.declared is not None and node.kind == "elementwise":
            call = _Declared(catalog.get(node.declared[0]), *node.declared)
        path = node.path if node.path is not None else node.name
        arguments = tuple(Reference(v) for v in given)
        self.steps.append(_Operation(None, path, arguments, {}, outputs, call, node.source, node=node))

    def _logical(self, node: Node, given: list[int]) -> torch.dtype:
        """bool for a comparison: told by evaluating it once."""
        if node.kind != "elementwise" or node.evaluate is None:
            return self.values[given[0]].dtype if node.kind == "reshape" and given else torch.float64
        ones = [np.ones(2, dtype=bool if self.values[v].dtype == torch.bool else np.float64) for v in given]
        try:
            with np.errstate(all="ignore"):
                return torch.bool if np.asarray(node.evaluate(*ones)).dtype == bool else torch.float64
        except Exception:  # of types or with a number of inputs that it was not made for: nothing to execute
            return torch.float64

    def _size(self, node: Node, given: list[int], outputs: tuple[int, ...]) -> None:
        """The shape of an output that nobody has told, where it follows from the inputs'."""
        casts = node.kind == "reshape" and word(node.op) in _NEUTRAL - _VIEWS
        if node.kind not in ("elementwise", "softmax") and not casts:
            return
        sizes = [self.values[v].size for v in (given[:1] if casts else given)]
        if not sizes or None in sizes:
            return
        longest = max(map(len, sizes))
        columns = zip(*((1,) * (longest - len(s)) + tuple(s) for s in sizes), strict=True)
        size = tuple(_broadcast(column) for column in columns)
        for out in outputs:
            if self.values[out].size is None:
                self.values[out].size = size
                self.values[out].shape = _shape(size)


def _alive(graph: Graph) -> list[Node]:
    """The nodes that an output depends on."""
    wanted, alive = set(graph.outputs), []
    for node in reversed(graph.nodes):
        if wanted.intersection(node.outputs):
            wanted.update(name for name in node.inputs if name is not None)
            alive.append(node)
    return alive[::-1]


def _shape(size: tuple[int | None, ...] | None) -> tuple[int, ...]:
    """Of a rank that is known, with 1 for what is not."""
    return tuple(1 if n is None else n for n in size or ())


def _broadcast(column: tuple[int | None, ...]) -> int | None:
    larger = {n for n in column if n != 1}
    return 1 if not larger else larger.pop() if len(larger) == 1 else None


def _folded(node: Node, given: list[np.ndarray]) -> np.ndarray:
    """What a node makes of constants; empty where it cannot be told."""
    if any(not np.size(a) for a in given) or not given:
        return np.empty(0)
    if node.kind == "reshape":
        whole = word(node.op) in _NEUTRAL or bool(np.all(given[0] == np.ravel(given[0])[0]))
        return given[0] if whole else np.empty(0)  # which part of it is moved where is not looked into
    if node.kind != "elementwise" or node.evaluate is None:
        return np.empty(0)
    try:
        with np.errstate(all="ignore"):
            wide = [a if a.dtype == bool else np.asarray(a, np.float64) for a in given]
            if np.broadcast(*wide).size > SMALL:
                return np.empty(0)
            return np.asarray(node.evaluate(*wide))
    except Exception:  # shapes that do not go together, values that a table cannot look up
        return np.empty(0)


# -- cores


class _GraphRegions(Regions):
    """Cores are executed by what the reader bound to each node."""

    trace: _Flow
    left = _MOST_UNKNOWN

    def pointwise(self, step: Step) -> bool:
        node = step.node  # type: ignore[attr-defined]
        return node.kind == "elementwise" and not (node.dtype or "").startswith(("int", "uint"))

    def fed(self, root: int) -> bool:
        return self.trace.producer(root) is None or super().fed(root)

    def match(
        self, firsts: tuple[int, ...], last: int, steps: list[Step], kin: tuple[Activation, ...] | None = None
    ) -> Match | None:
        before = len(self.cache)
        try:
            if self.left <= 0 and f"{self.signature(firsts, steps)}{'' if kin is None else kin}" not in self.cache:
                return None
            found = super().match(firsts, last, steps, kin)
        except InputError:  # it cannot be executed
            return None
        if len(self.cache) > before and (found is None or found.activation is None):
            self.left -= 1
        if found is None or found.activation is not None or found.note:
            return found
        key = f"rounded {self.signature(firsts, steps)} {kin}"
        if key not in self.cache:
            self.cache[key] = self._loosely(firsts, last, steps, kin, found) or found
        return self.cache[key]

    def _loosely(
        self, firsts: tuple[int, ...], last: int, steps: list[Step], kin: tuple[Activation, ...] | None, nearest: Match
    ) -> Match | None:
        """The match of a core whose constants were rounded: no further away than that can have moved it."""
        rounded = self._rounded(steps)

        def at(dtype: torch.dtype) -> tuple[tuple[np.ndarray, ...], np.ndarray, float]:
            given = (probes(),) if len(firsts) == 1 else gated_probes()
            points = tuple(np.asarray(torch.as_tensor(p).to(dtype).double()) for p in given)
            exact = self.values(firsts, last, steps, points)
            moved = sum(
                np.abs(self.values(firsts, last, steps, points, {value: 1 + grain}) - exact)
                for value, grain in rounded.items()
            )
            return points, exact, float(np.nanmax(moved / np.maximum(1.0, np.abs(exact)), initial=0.0))

        if not rounded or not 0 < (limit := at(torch.float64)[-1]) < tolerance(torch.bfloat16):
            return None
        limit = 1.5 * limit + tolerance(torch.float64)
        if nearest.distance > limit:
            return None
        coarse = torch.float16 if limit < tolerance(torch.float16) else torch.bfloat16
        points, exact, _ = at(coarse)
        found = match_values(points, exact, coarse, kin)
        return found if found.activation is not None and found.distance <= limit else None

    def _rounded(self, steps: list[Step]) -> dict[int, float]:
        """The constants that may have been rounded, and by how much: not 0.5, 1 or 3, which any precision holds."""
        found = {}
        for step in steps:
            grain = _GRAIN.get(step.node.dtype or "", 0.0)  # type: ignore[attr-defined]
            for v in step.inputs:
                constant = self.trace.values[v].constant
                if constant is None or not np.size(constant) or constant.dtype == bool:
                    continue
                coarse = max(grain, _GRAIN.get(str(constant.dtype), 0.0))
                mantissa = np.frexp(float(np.ravel(constant)[0]))[0]
                if coarse and mantissa * 64 != np.round(mantissa * 64):
                    found[v] = coarse
        return found

    def values(
        self, firsts: tuple[int, ...], last: int, steps: list[Step], points: tuple[np.ndarray, ...],
        factors: Mapping[int, float] | None = None,
    ) -> np.ndarray:  # fmt: skip
        """`last` at these points of `firsts`; InputError where it cannot be executed."""
        held: dict[int, Any] = dict(zip(firsts, points, strict=True))

        def value(v: int) -> Any:
            if v in held:
                return held[v]
            constant = self.trace.values[v].constant
            if constant is None or not np.size(constant):
                raise InputError("a constant of the region is not in the file")
            # parameters per channel stand with their first entry
            scalar = np.ravel(constant)[0]
            if constant.dtype == bool:
                return scalar
            if scalar.dtype in (np.float32, np.float16):
                scalar = str(scalar)  # 0.1, as it was written, not 0.10000000149
            return np.float64(scalar) * (factors or {}).get(v, 1.0)

        with np.errstate(all="ignore"):
            for step in steps:
                if self.trace.hands_on(step):
                    held[step.outputs[0]] = held[self.trace.varying(step)[0]]
                    continue
                try:
                    result = step.node.evaluate(*(value(v) for v in step.inputs))  # type: ignore[attr-defined]
                except InputError:
                    raise
                except Exception as error:
                    raise InputError(f"{step.name} cannot be executed: {error}") from error
                held[step.outputs[0]] = np.broadcast_to(result, points[0].shape)
        return held[last]

    def replay(self, firsts: tuple[int, ...], last: int, steps: list[Step]) -> Any:
        def function(*given: torch.Tensor) -> torch.Tensor:
            points = tuple(t.double().numpy() for t in given)
            return torch.as_tensor(np.array(self.values(firsts, last, steps, points), np.float64)).to(given[0].dtype)

        return function

    def signature(self, firsts: tuple[int, ...], steps: list[Step]) -> str:
        """The values at the probes: what is the same there is the same, however it is spelt."""
        points = (probes(),) if len(firsts) == 1 else gated_probes()
        return f"{len(firsts)} {self.values(firsts, steps[-1].outputs[0], steps, points).tobytes().hex()}"


# -- sites


class _Graphed(Reading):
    """The Census of one graph."""

    trace: _Flow
    regions: _GraphRegions

    def __init__(self, graph: Graph) -> None:
        super().__init__(_Flow(graph))
        self.graph = graph
        self.regions = _GraphRegions(self.trace)
        self.conflicts: list[Conflict] = []

    def census(self) -> Census:
        self.read()
        order: dict[str, int] = {}
        keys: dict[str, str] = {}
        for at, (index, site, first, last) in enumerate(self.sites):  # numbered as they are executed
            number = order.get(site.path, 0)
            order[site.path] = number + 1
            keys[site.key] = f"{site.path}#{number}"
            self.sites[at] = (index, replace(site, key=keys[site.key], call=number), first, last)
        conflicts = tuple(replace(c, sites=tuple(keys[k] for k in c.sites)) for c in self.conflicts)
        notes = () if self.regions.left > 0 else (f"after {_MOST_UNKNOWN} unknown functions no more were compared",)
        sites = tuple(entry[1] for entry in self.sites)
        return Census(self.graph.name, sites, self._head(), notes=notes, conflicts=conflicts)

    def _core(self, core: Core) -> None:
        steps = [self.trace.steps[i] for i in core.steps]
        last: Any = steps[-1]
        found = core.found
        if found is None:
            site = self._native(last)
        else:
            site = self._site(
                last, found.activation, found.parameters if found.activation else {}, "observed",
                core.formula(self.trace), found.note if found.activation else found.describe(),
            )  # fmt: skip
        if any(word(s.node.op).startswith(_QUANTIZED) for s in steps):  # type: ignore[attr-defined]
            note = "quantized in between; what its operations are is told by them, not by their rounded values"
            site = replace(site, note="; ".join(filter(None, (site.note, note))))
        if core.up is not None:
            site = replace(site, role="gate", layout=self._layout(core.first, core.up))
        else:
            self._contradicted(core, steps, site)
        self._add(last, core.first, core.last, replace(site, affine=self._around(core.last)))

    def _add(self, step: Step, first: int, last: int, site: Site) -> None:
        super()._add(step, first, last, site)
        size = self.trace.values[first].size
        order, site, *_ = self.sites[-1]
        units = None if size is None or len(size) < abs(site.unit_dim) + (site.unit_dim > 0) else size[site.unit_dim]
        shape = None if size is None or None in size else size
        self.sites[-1] = (order, replace(site, shape=shape, units=units), first, last)

    def _site(
        self, step: Any, name: str | None, parameters: dict[str, float], evidence: str, implementation: str, note: str
    ) -> Site:
        number = self._number(step.path)
        return Site(
            f"{step.path}#{number}", step.path, number, name, dict(parameters), evidence, "functional", implementation,
            step.source, measured=False, note=note, dtype=step.node.dtype,
        )  # fmt: skip

    def _native(self, step: Any) -> Site:
        name, parameters = step.node.declared
        return self._site(step, name, parameters, "declared", step.node.op, step.node.note)

    def _step(self, step: Any) -> None:
        node = step.node
        for name, parameters, role, what in node.applies if step.inputs else ():
            site = self._site(step, name, parameters, "declared", node.op, f"{what}; inside {node.op}")
            self._add(step, step.inputs[0], step.outputs[0], replace(site, form="fused", role=role))
        if node.applies or step.index in self.covered or not self.trace.varying(step):
            return
        if node.declared is not None:
            self._add(step, self.trace.varying(step)[0], step.outputs[0], self._native(step))
        elif (normalized := self._normalized(step)) is not None:
            name, first = normalized
            site = self._site(step, name, {"temperature": 1.0}, "observed", f"exp → sum → {step.name}", "")
            self._add(step, first, step.outputs[0], site)

    def _normalized(self, step: Step) -> tuple[str, int] | None:
        """Whether the step ends a softmax that is spelt out, eˣ / Σ eˣ, or its logarithm; and the value it is of."""
        if step.name not in ("div", "sub") or len(step.inputs) != 2:
            return None
        left, right = (self.trace.back(v) for v in step.inputs)
        total = self._before(right)
        if step.name == "sub":
            if total is not None and total.name in _LOGSUMS:
                shared = self._unshifted(self.trace.back(total.inputs[0])) == self._unshifted(left)
                return ("log_softmax", self._unshifted(left)) if shared else None
            if total is None or total.name != "log":
                return None
            total = self._before(total.inputs[0])
        if total is None or total.name not in _SUMS:
            return None
        power = self.trace.back(total.inputs[0])
        exp = self._before(power)
        if exp is None or exp.name != "exp" or (left != power and step.name == "div"):
            return None
        base = self.trace.back(exp.inputs[0])
        if step.name == "sub" and base != left:
            return None
        return ("softmax" if step.name == "div" else "log_softmax"), self._unshifted(base)

    def _before(self, value: int) -> Step | None:
        """What computes the value, before views and broadcasts of it."""
        while (step := self.trace.producer(value)) is not None and step.name in _NEUTRAL | {"transpose"}:
            given = self.trace.varying(step)
            if len(given) != 1:
                break
            value = given[0]
        return step

    def _unshifted(self, value: int) -> int:
        """x, of x − max(x)."""
        step = self.trace.producer(value)
        if step is None or step.name != "sub" or len(step.inputs) != 2:
            return value
        most = self._before(step.inputs[1])
        while most is not None and most.name in ("max", "maximum", "where") and len(self.trace.varying(most)) == 1:
            most = self._before(self.trace.varying(most)[0])  # −inf is kept out of the shift
        return self.trace.back(step.inputs[0]) if most is not None and "max" in most.name else value

    def _around(self, value: int) -> tuple[float, float] | None:
        """(a, b) of the a·f(x) + b that is made of the value f(x), with single numbers, before anything else is."""
        scale, shift = 1.0, 0.0
        while True:
            readers = {s.index: s for s in self.trace.consumers(value)}
            if len(readers) != 1 or self.trace.is_output(value):
                break
            (step,) = readers.values()
            constants = [self.trace.values[v].constant for v in step.inputs if not self.trace.values[v].varies]
            single = all(c is not None and np.size(c) == 1 for c in constants)
            if not (single and constants and self.regions.pointwise(step) and self.regions.linear(step)):
                break
            given = self.trace.varying(step)
            try:
                at = self.regions.values(given, step.outputs[0], [step], (np.array([0.0, 1.0]),))
            except InputError:
                break
            scale, shift = scale * float(at[1] - at[0]), shift * float(at[1] - at[0]) + float(at[0])
            value = step.outputs[0]
        return None if (scale, shift) == (1.0, 0.0) else (scale, shift)

    def _contradicted(self, core: Core, steps: list[Step], site: Site) -> None:
        """A conflict where the format declares the value as an activation that the core does not compute."""
        for name, (declared, parameters, who) in self.graph.declared.items():
            if name not in self.trace.names:  # computed for nothing
                continue
            if self.trace.back(self.trace.names[name]) != self.trace.back(core.last):
                continue
            activation = catalog.get(declared)
            if activation.kind != "elementwise" or activation.stochastic:
                continue
            x = probes()
            got = self.regions.values((core.first,), core.last, steps, (x,))
            off = np.abs(activation.value(x, **parameters) - got) / np.maximum(1.0, np.abs(got))
            far = float(np.nanmax(off))
            if far > max(tolerance(torch.float64), 4 * _GRAIN.get(site.dtype or "", 0.0)):
                said = Site("", "", 0, declared, parameters).name
                what = f"they differ by up to {far:.2g}, at x = {x[int(np.nanargmax(off))]:.3g}"
                found = site.name if site.activation else site.note
                self.conflicts.append(Conflict((site.key,), said, found, (who, "the executed graph"), what))

    def _twins(self, gate: int, up: int, product: int) -> bool:
        if not super()._twins(gate, up, product):
            return False
        if all((s := self.trace.values[v].size) is not None and None not in s for v in (gate, up, product)):
            return True
        # Shapes are not all known: what is computed from one value is not a squeezed copy times the original
        maps = [self._affine_before(self.regions.root[v]) for v in (gate, up)]
        sources = {self.trace.back(self.trace.varying(m)[0]) for m in maps if m is not None}
        return None not in maps and len(sources) == 1

    def _features(self, value: int, dim: int) -> int | None:
        size = self.trace.values[value].size
        return None if not size or len(size) < abs(dim) else size[dim]
