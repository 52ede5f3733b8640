"""The nonlinear cores of a trace: hand-written activations cut out of a forward and matched by what they compute.

A region is everything derived elementwise from one value (its root) and constants: `0.5 * x * (1 + tanh(…))`. Within
it the core with the most nonlinear steps that replays as a catalog activation is a site; scaling around it, residual
additions and norms stay outside. A gated core has two roots, gate and up: what is clamped, shifted or capped before
their product belongs to it. Cores are replayed in float64 on probe points, so what is matched is behaviour, never
spelling.
"""

from __future__ import annotations

import copy
import functools
from collections.abc import Collection, Iterator
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from torch import nn

from ..catalog import Activation, get
from ..errors import InputError
from ..expression import trace
from ..expression.graph import walk
from .matching import Match, match, probes, recognised
from .tracing import Reference, Step, Trace, mapped, references

_LINEAR = {"add", "sub", "rsub", "radd", "neg", "positive"}
# Smooth single operations that norms, losses and parametrisations are made of; unmatched, they are no activation
_PLUMBING = {"exp", "log", "sqrt", "rsqrt", "reciprocal", "square", "pow", "rpow", "abs", "div", "rdiv", "mul", "log1p"}
# What a gated activation ends with: gate by up; the others end spellings that cannot overflow, or are masked
_ENDS = {"mul", "rmul", "div", "where", "add", "radd"}
_MOST_STEPS = 40
_LONGEST = 256  # steps of a region that is searched; a longer one is unrolled, and only its calls are told
_CHOICES = {"where", "gt", "ge", "lt", "le"}
_ARITHMETIC = {"symbol", "constant", "pi", "add", "sub", "mul", "div", "neg"}


@dataclass(frozen=True)
class Core:
    """Steps that compute `last` from `first` (of a gated one, the gate) elementwise, and what they were matched as."""

    first: int
    last: int
    steps: tuple[int, ...]  # indices
    found: Match | None  # None: a single call of a known activation, which needs no matching
    up: int | None = None  # of a gated one, the other root

    def formula(self, trace: Trace) -> str:
        """The steps in words: `x * sigmoid(1.702 * x)` shortened to its operations."""
        return " → ".join(trace.steps[i].name for i in self.steps)


@functools.cache
def _tagged(name: str) -> bool:
    packet = getattr(torch.ops.aten, name, None)
    if packet is None:
        return False
    overloads = (getattr(packet, each) for each in packet.overloads())
    return any(torch.Tag.pointwise in overload.tags for overload in overloads)


def pointwise(step: Step) -> bool:
    """Whether the step works on each element by itself, as torch's own operator tags say."""
    if step.call is not None:
        activation = step.call.activation
        if activation is not None:
            return activation.kind == "elementwise"
        return step.call.form != "fused" and step.call.name.lower() not in ("softmin", "softmax2d", "glu")
    if step.is_module or step.affine:
        return False
    name = {"rsub": "sub", "radd": "add", "rmul": "mul", "rdiv": "div", "rpow": "pow"}.get(step.name, step.name)
    return name != "dropout" and _tagged({"clip": "clamp", "greater": "gt", "less": "lt"}.get(name, name))


def _kin(activation: Activation) -> tuple[Activation, ...]:
    """What linear steps around an activation may make of it: those of the same primitives, if any but itself."""
    if activation.kind != "elementwise" or activation.stochastic:
        return ()
    own = _primitives(activation)
    kin = tuple(a for a in recognised() if a.kind == "elementwise" and _primitives(a) == own)
    return kin if own and (len(kin) > 1 or activation.parameters) else ()


@functools.lru_cache(maxsize=256)
def _primitives(activation: Activation) -> frozenset[str]:
    if activation.stochastic:
        return frozenset()
    formula = trace(activation.formula, activation.inputs, activation.parameters)
    # tanh is a scaled and shifted sigmoid
    used = frozenset({"tanh": "sigmoid"}.get(node.op, node.op) for node in walk(formula)) - _ARITHMETIC
    return used - _CHOICES or used


# −(bending steps), steps, first value, last value, the steps
_Candidate = tuple[int, int, int, int, list[Step]]


class Regions:
    """The regions of a trace. `root[v]`: the value that v is derived from elementwise; a root is its own."""

    def __init__(self, trace: Trace, cache: dict[str, Match | None] | None = None) -> None:
        self.trace = trace
        self.cache = {} if cache is None else cache  # what was matched before, by signature
        self.root = list(range(len(trace.values)))
        self.members: dict[int, list[Step]] = {}
        for step in trace.steps:
            if len(step.outputs) != 1:
                continue
            given = trace.varying(step)
            out = step.outputs[0]
            if len(given) == 0 or not (self.pointwise(step) or trace.hands_on(step) or self._masks(step)):
                continue
            roots = {self.root[v] for v in given}
            if len(roots) == 1 and trace.alike(*given, *roots, out):
                root = roots.pop()
                self.root[out] = root
                self.members.setdefault(root, []).append(step)

    def pointwise(self, step: Step) -> bool:
        """Whether the step works on each element by itself."""
        return pointwise(step)

    def _masks(self, step: Step) -> bool:
        """Whether the step is `x[condition] = number`, which is elementwise too."""
        if step.name != "setitem" or len(step.arguments) != 3 or not isinstance(step.arguments[1], Reference):
            return False
        return self.trace.values[step.arguments[1].value].dtype == torch.bool

    def cores(self) -> Iterator[Core]:
        """Every core, gated ones first, regions in the order of execution, no step in two of them."""
        taken: set[int] = set()
        for core in self._gated():
            taken.update(core.steps)
            yield core
        for root, steps in self.members.items():
            yield from self._of_region(root, [s for s in steps if s.index not in taken])

    def _gated(self) -> Iterator[Core]:
        """Products of two roots that are a gated activation as a whole: `silu(gate.clamp(max=7)) * up.clamp(-7, 7)`.

        `act(gate) * up`, with nothing done to up, is the activation's own site.
        """
        trace = self.trace
        pairs: dict[int, frozenset[int]] = {}  # value → its two roots
        products: dict[frozenset[int], list[Step]] = {}
        for step in trace.steps:
            given = trace.varying(step)
            if len(step.outputs) != 1 or not self.pointwise(step):
                continue
            if len(given) == 1 and self.root[given[0]] in pairs and self.linear(step):  # 0.5 * (gate * …)
                products.setdefault(pairs[self.root[given[0]]], []).append(step)
            if len(given) != 2:
                continue
            (out,) = step.outputs
            sides = [pairs.get(self.root[v], frozenset({self.root[v]})) for v in given]
            roots = sides[0] | sides[1]
            if len(roots) != 2 or not trace.alike(*given, *roots, out):
                continue
            pairs[out] = roots
            bare = any(trace.back(v) in roots for v in given)
            if step.name in _ENDS and not (bare and max(map(len, sides)) == 1):
                products.setdefault(roots, []).append(step)
        for roots, steps in products.items():
            if not all(self.fed(root) for root in roots):
                continue
            for step in reversed(steps[-_MOST_STEPS:]):
                first, second = sorted(roots)
                inside = self._between((first, second), step.outputs[0], pairs)
                found = self.match((first, second), step.outputs[0], inside) if inside else None
                if found is not None and found.activation is not None:
                    gate, up = (first, second) if found.order == "gate_up" else (second, first)
                    yield Core(gate, step.outputs[0], tuple(s.index for s in inside or ()), found, up)
                    break

    def _of_region(self, root: int, steps: list[Step]) -> Iterator[Core]:
        bending = [s for s in steps if not self.linear(s)]
        if not bending:
            return
        if len(steps) == 1 and bending[0].call is not None and bending[0].call.activation is not None:
            yield self._single(bending[0])
            return
        if len(steps) > _LONGEST:
            yield from (self._single(s) for s in bending if s.call is not None and s.call.activation is not None)
            return
        candidates: list[_Candidate] = []
        values = [root, *(s.outputs[0] for s in steps)] if len(steps) <= _MOST_STEPS else [root]
        for step in steps:
            if not self.trace.values[step.outputs[0]].dtype.is_floating_point:
                continue
            for first in values:
                inside = self._between((first,), step.outputs[0])
                if inside is None:
                    continue
                bent = [s for s in inside if not self.linear(s)]
                weight = len(bent)
                # activations that follow each other are sites of their own, whatever they come to together
                if weight == 1 or any(s.call is None for s in bent):
                    candidates.append((-weight, len(inside), first, step.outputs[0], inside))
        candidates.sort(key=lambda c: (c[0], c[1], c[3]))
        taken: set[int] = set()
        chosen = []
        for _, _, first, last, inside in candidates:
            bends = [s.index for s in inside if not self.linear(s)]
            if taken.intersection(bends):  # linear steps may serve two cores; bending ones belong to one
                continue
            if len(inside) == 1 and inside[0].call is not None:
                core = self._single(inside[0])
            else:
                found = self.match((first,), last, inside)
                if found is None or found.activation in (None, "identity"):
                    continue
                core = Core(first, last, tuple(s.index for s in inside), found)
            taken.update(bends)
            chosen.append(self._widened(core, bends, candidates))
        unknown = self._unknown(root, steps, candidates, taken)
        if unknown is not None:
            chosen = [core for core in chosen if not set(core.steps) & set(unknown.steps)] + [unknown]
        yield from sorted(chosen, key=lambda c: c.steps[-1])

    def _single(self, step: Step) -> Core:
        return Core(self.trace.varying(step)[0], step.outputs[0], (step.index,), None)

    def _widened(self, core: Core, bends: list[int], candidates: list[_Candidate]) -> Core:
        """The core with the linear steps around it, where that is another activation: `30 * tanh(x / 30)`."""
        call = self.trace.steps[bends[0]].call
        if core.found is not None:
            name, parameters = core.found.activation, core.found.parameters
        else:
            assert call is not None
            name, parameters = call.name, call.parameters
        activation = call.activation if core.found is None and call is not None else get(str(name))
        kin = () if activation is None else _kin(activation)
        wider = [c for c in candidates if len(c[4]) > len(core.steps)] if kin else []
        for _, _, first, last, inside in sorted(wider, key=lambda c: -c[1]):
            if [s.index for s in inside if not self.linear(s)] != bends:
                continue
            if all(s.index in core.steps or self.trace.hands_on(s) for s in inside):
                continue
            found = self.match((first,), last, inside, kin)
            if found is not None and found.activation and (found.activation, found.parameters) != (name, parameters):
                return Core(first, last, tuple(s.index for s in inside), found)
        return core

    def _unknown(self, root: int, steps: list[Step], candidates: list[_Candidate], taken: set[int]) -> Core | None:
        """What bends like an activation where one would stand, but is none that the catalog knows: `relu(x)³`."""
        if not self.fed(root):
            return None
        for _, _, first, last, inside in candidates:
            bends = [s for s in inside if not self.linear(s)]
            left = [s for s in bends if s.index not in taken]
            if not left or all(s.call is None and s.name in _PLUMBING for s in bends):
                continue
            # an activation that is also used by itself stays a site of its own
            used = (c for s in bends if s.index in taken for c in self.trace.consumers(s.outputs[0]))
            if any(c not in inside for c in used) or not self._feeds(last, steps):
                continue
            found = self.match((first,), last, inside)
            if found is None or found.note or found.activation or self._straight(first, last, inside):
                continue
            return Core(first, last, tuple(s.index for s in inside), found)
        return None

    def fed(self, root: int) -> bool:
        """Whether an affine map or a norm stands before the value, with nothing but rearrangement between."""
        step = self.trace.producer(root)
        while step is not None:
            if step.affine or "norm" in step.name.lower():
                return True
            given = self.trace.varying(step)
            if step.name in ("add", "radd") or (step.name == "mul" and len(given) == 2):
                return True
            if len(given) != 1 or self.pointwise(step):
                return False
            step = self.trace.producer(given[0])
        return False

    def _feeds(self, value: int, steps: list[Step]) -> bool:
        """Whether the value, or what the region makes of it, leaves the region as a whole, not for a reduction."""
        if self.trace.is_output(value):
            return True
        for consumer in self.trace.consumers(value):
            if not consumer.outputs:
                continue
            if consumer in steps:
                if self.linear(consumer) and self._feeds(consumer.outputs[0], steps):
                    return True
            elif consumer.affine or consumer.is_module or self.trace.alike(consumer.outputs[0], value):
                return True
        return False

    def _between(self, firsts: tuple[int, ...], last: int, pairs: Collection[int] = ()) -> list[Step] | None:
        """The steps that compute `last` from `firsts` and constants alone; None where something else enters.

        pairs: values made of two roots, which are no inputs.
        """
        found: dict[int, Step] = {}
        waiting = [last]
        reached = set()
        while waiting:
            value = waiting.pop()
            if value in firsts:
                reached.add(value)
                continue
            step = self.trace.producer(value)
            if step is None or (value == self.root[value] and value not in pairs):
                return None
            if step.index not in found:
                found[step.index] = step
                waiting += self.trace.varying(step)
        return [found[i] for i in sorted(found)] if len(reached) == len(firsts) else None

    def linear(self, step: Step) -> bool:
        """Whether the step is affine in what varies."""
        if self.trace.hands_on(step) or (step.call is None and step.name in _LINEAR):
            return True
        if step.call is not None:
            return False
        uses = [r.value for r in references((step.arguments, step.keywords))]
        varying = [v for v in uses if self.trace.values[v].varies]
        if step.name in ("mul", "rmul"):
            return len(varying) == 1
        if step.name == "div" and not step.keywords.get("rounding_mode"):
            head = step.arguments[0] if step.arguments else None
            return len(varying) == 1 and isinstance(head, Reference) and head.value == varying[0]
        return False

    # -- replaying

    def match(
        self, firsts: tuple[int, ...], last: int, steps: list[Step], kin: tuple[Activation, ...] | None = None
    ) -> Match | None:
        """What `last`, as a function of `firsts`, is (of `kin`, if given); None where it cannot be replayed."""
        signature = f"{self.signature(firsts, steps)}{'' if kin is None else kin}"
        if signature not in self.cache:
            try:
                self.cache[signature] = match(self.replay(firsts, last, steps), inputs=len(firsts), activations=kin)
            except (InputError, RuntimeError, TypeError):  # a module that cannot be copied, a constant that is gone
                self.cache[signature] = None
        return self.cache[signature]

    def replay(self, firsts: tuple[int, ...], last: int, steps: list[Step]) -> Any:
        """The function of one tensor per first value, of any shape, that the steps compute."""
        modules = {id(s.symbol): copy.deepcopy(s.symbol).double() for s in steps if s.is_module}

        def function(*given: torch.Tensor) -> torch.Tensor:
            held = dict(zip(firsts, given, strict=True))
            dtype = given[0].dtype

            def look_up(item: Any) -> Any:
                if not isinstance(item, Reference):
                    return item
                return held[item.value] if item.value in held else self._scalar(item.value, dtype)

            for step in steps:
                arguments, keywords = mapped((step.arguments, step.keywords), look_up)
                if self.trace.hands_on(step):
                    result = held[self.trace.varying(step)[0]]
                else:
                    symbol = modules[id(step.symbol)].to(dtype) if step.is_module else step.symbol
                    arguments = mapped(arguments, _fresh)
                    result = symbol(*arguments, **mapped(keywords, _fresh))
                    if step.name == "setitem":
                        result = arguments[0]
                held[step.outputs[0]] = result
            return held[last]

        return function

    def _scalar(self, value: int, dtype: torch.dtype) -> torch.Tensor:
        """A constant as one number: parameters per channel stand with their first entry."""
        constant = self.trace.values[value].constant
        if constant is None or constant.numel() == 0:
            raise InputError("a constant of the region is missing")
        scalar = constant.detach().reshape(-1)[0].cpu()
        return scalar.to(dtype) if scalar.is_floating_point() else scalar

    def _straight(self, first: int, last: int, steps: list[Step]) -> bool:
        grid = probes()
        with torch.no_grad():
            y = self.replay((first,), last, steps)(torch.as_tensor(grid)).double().numpy()
        return bool(np.allclose(np.polyval(np.polyfit(grid, y, 1), grid), y, rtol=1e-9, atol=1e-9))

    def signature(self, firsts: tuple[int, ...], steps: list[Step]) -> str:
        names = {first: f"x{i}" for i, first in enumerate(firsts)}
        words: list[str] = []

        def spell(item: Any) -> Any:
            if not isinstance(item, Reference):
                return item
            if item.value in names:
                return names[item.value]
            return repr(self._scalar(item.value, torch.float64).item())

        for step in steps:
            given = mapped((step.arguments, step.keywords), spell)
            symbol: Any = step.name
            if step.is_module:
                state = [p.detach().reshape(-1)[:1].tolist() for p in step.symbol.parameters()]
                symbol = (type(step.symbol).__qualname__, step.symbol.extra_repr(), state)
            names[step.outputs[0]] = f"v{len(words)}"
            words.append(f"{symbol}{given}")
        return "; ".join(words)


def _fresh(item: Any) -> Any:
    # an in-place step must not overwrite what another step of the core still reads
    return item.clone() if isinstance(item, torch.Tensor) else item


def of_module(module: nn.Module, shape: tuple[int, ...], dtype: torch.dtype) -> Match | None:
    """What a custom module computes elementwise; None if it is not elementwise, is affine, or cannot be told.

    Tried on a copy, in float64 and free of shape; else (a module that insists on its shape) in the shape it was
    given, probes filling the elements.
    """
    double = copy.deepcopy(module).eval().double()
    own = copy.deepcopy(module).eval()

    def free(x: torch.Tensor) -> torch.Tensor:
        return (double if x.dtype == torch.float64 else own)(x)

    def shaped(x: torch.Tensor) -> torch.Tensor:
        size = int(np.prod(shape))
        if size == 0:
            raise InputError("the module was given an empty tensor")
        filled = torch.nn.functional.pad(x.reshape(-1), (0, -x.numel() % size))
        chunks = [free(part.reshape(shape)) for part in filled.split(size)]
        if any(c.shape != torch.Size(shape) for c in chunks):
            raise InputError("the module changes the shape")
        return torch.cat([c.reshape(-1) for c in chunks])[: x.numel()].reshape(x.shape)

    for function in (free, shaped):
        try:
            found = match(function)
        except InputError:
            continue
        if found.activation == "identity":
            return None
        if found.activation is None:
            if found.note:  # not elementwise, as far as this form tells
                continue
            x = torch.as_tensor(probes())
            with torch.no_grad():
                y = function(x).double().numpy()
            if not np.isfinite(y).all() or np.allclose(np.polyval(np.polyfit(x, y, 1), x), y, rtol=1e-6, atol=1e-6):
                return None
        return found
    return None
