"""One forward pass as steps over values: what was computed from what. The raw material of a Census.

A step is a torch function that was called, or a whole module of torch (Linear, BatchNorm, an activation), or a custom
leaf module with its own steps inside. A value is one version of one tensor: an in-place operation makes a new one.
Values that do not depend on the model's inputs (parameters, buffers, literals) are constants. No activation is kept
alive: tensors are known by weak references.
"""

from __future__ import annotations

import functools
import sys
import weakref
from collections.abc import Iterator
from dataclasses import dataclass, field
from typing import Any

import torch
from torch import nn

from .observation import Call, caller
from .recognition import bare, tensors

# Functions that hand on the values they are given, where the shape stays the same
_NEUTRAL = {
    "contiguous", "clone", "detach", "to", "float", "double", "half", "bfloat16", "type", "type_as", "alias", "cpu",
    "cuda", "dropout", "dropout1d", "dropout2d", "dropout3d", "alpha_dropout", "feature_alpha_dropout", "flatten",
    "view", "reshape", "view_as", "reshape_as", "squeeze", "unsqueeze", "expand", "expand_as", "identity",
    "get_data", "unflatten",
}  # fmt: skip
_NEUTRAL_MODULES = (nn.Identity, nn.modules.dropout._DropoutNd, nn.Flatten, nn.Unflatten)
_AFFINE = {"linear", "addmm", "matmul", "mm", "bmm", "einsum", "conv1d", "conv2d", "conv3d",
           "conv_transpose1d", "conv_transpose2d", "conv_transpose3d"}  # fmt: skip
_AFFINE_MODULES = (nn.Linear, nn.modules.conv._ConvNd)
_RECURRENT = (nn.RNNBase, nn.RNNCellBase)


@dataclass(frozen=True)
class Reference:
    """A value's place in the arguments of a step."""

    value: int


@dataclass
class Value:
    shape: tuple[int, ...]
    dtype: torch.dtype
    constant: torch.Tensor | None = None
    producer: int | None = None  # index of a step
    consumers: list[int] = field(default_factory=list)

    @property
    def varies(self) -> bool:
        """Whether it depends on the model's inputs."""
        return self.constant is None


@dataclass
class Step:
    symbol: Any  # the function, or the module
    path: str
    arguments: tuple
    keywords: dict[str, Any]
    outputs: tuple[int, ...]
    call: Call | None = None
    source: str | None = None
    ordinal: int | None = None  # which torch function of its path, in this forward
    inner: list[Step] | None = None  # of a custom leaf module
    rows: tuple[torch.Tensor, torch.Tensor] | None = None  # some rows of an affine map's input and output
    index: int = -1

    @property
    def is_module(self) -> bool:
        return isinstance(self.symbol, nn.Module)

    @functools.cached_property
    def name(self) -> str:
        """The operation's bare name: `mul` for `x * 2`, `2 * x`, `x.mul_(2)`; a class name for modules."""
        if self.is_module:
            return type(self.symbol).__name__
        return bare(self.symbol)

    @functools.cached_property
    def inputs(self) -> tuple[int, ...]:
        return tuple(r.value for r in references((self.arguments, self.keywords)))

    @property
    def halves(self) -> dict[int, str]:
        """Of an output that is half of the input along some dimension: "first", "second", "even" or "odd"."""
        if self.name in ("chunk", "split", "tensor_split") and len(self.outputs) == 2:
            return dict(zip(self.outputs, ("first", "second"), strict=True))
        if self.name != "getitem" or len(self.arguments) < 2:
            return {}
        index = self.arguments[1] if isinstance(self.arguments[1], tuple) else (self.arguments[1],)
        cuts = [(s.start, s.stop, s.step) for s in index if isinstance(s, slice) and s != slice(None)]
        if len(cuts) != 1:
            return {}
        start, stop, step = cuts[0]
        if step == 2 and stop is None and start in (None, 0, 1):
            return {self.outputs[0]: "odd" if start else "even"}
        if step in (None, 1) and (stop is None) != (start in (None, 0)):
            return {self.outputs[0]: "second" if stop is None else "first"}
        return {}

    @property
    def affine(self) -> bool:
        if self.is_module:
            return isinstance(self.symbol, _AFFINE_MODULES)
        return self.name in _AFFINE

    @property
    def recurrent(self) -> bool:
        return isinstance(self.symbol, _RECURRENT)

    @property
    def neutral(self) -> bool:
        """Whether it hands on its input's values (in eval mode), if the shape stays."""
        if self.is_module:
            return isinstance(self.symbol, _NEUTRAL_MODULES)
        return self.name in _NEUTRAL


@dataclass
class Trace:
    steps: list[Step]
    values: list[Value]
    outputs: tuple[int, ...]
    counts: dict[str, int]  # activation calls per path

    def varying(self, step: Step) -> tuple[int, ...]:
        """The step's inputs that depend on the model's inputs, without repetition."""
        return tuple(dict.fromkeys(v for v in step.inputs if self.values[v].varies))

    def producer(self, value: int) -> Step | None:
        index = self.values[value].producer
        return None if index is None else self.steps[index]

    def back(self, value: int) -> int:
        """The value that `value` is a copy of: back through dropout, casts, identities."""
        while (step := self.producer(value)) is not None and self.hands_on(step):
            value = self.varying(step)[0]
        return value

    def hands_on(self, step: Step) -> bool:
        given = self.varying(step)
        if not step.neutral or len(given) != 1 or len(step.outputs) != 1:
            return False
        return self.alike(given[0], step.outputs[0])

    def alike(self, *values: int) -> bool:
        """Whether the values have one shape."""
        return len({self.values[v].shape for v in values}) == 1

    def consumers(self, value: int) -> Iterator[Step]:
        """Who uses the value, copies of it included."""
        for index in self.values[value].consumers:
            step = self.steps[index]
            if self.hands_on(step):
                yield from self.consumers(step.outputs[0])
            else:
                yield step

    def is_output(self, value: int) -> bool:
        if value in self.outputs:
            return True
        steps = (self.steps[i] for i in self.values[value].consumers)
        return any(self.is_output(s.outputs[0]) for s in steps if self.hands_on(s))

    def number(self) -> None:
        """Indexes the steps and links values to them; again after steps have been replaced."""
        for value in self.values:
            value.producer = None
            value.consumers = []
        for index, step in enumerate(self.steps):
            step.index = index
            for v in dict.fromkeys(step.inputs):
                self.values[v].consumers.append(index)
            for v in step.outputs:
                self.values[v].producer = index


class Recorder:
    """The callbacks `operation`, `entered`, `left` of an Observer, and the Trace they make."""

    def __init__(self) -> None:
        self.values: list[Value] = []
        self.outputs: tuple[int, ...] = ()
        self.failed: str | None = None  # path of the innermost module that was left without a result
        self._known: dict[int, tuple[Any, int]] = {}
        self._lists: list[list[Step]] = [[]]
        self._frames: list[tuple[str, str, Any]] = []  # path, kind, template of the arguments
        self._opaque = 0

    def trace(self, counts: dict[str, int]) -> Trace:
        trace = Trace(self._lists[0], self.values, self.outputs, dict(counts))
        trace.number()
        return trace

    # -- callbacks

    def operation(
        self, func: Any, args: tuple, kwargs: dict, output: Any, path: str, call: Call | None, ordinal: int
    ) -> None:
        self.failed = None
        if self._opaque:
            return
        name = getattr(func, "__name__", "")
        if name == "__setitem__":
            output = args[0]
        results = list(tensors(output))
        if not results:
            return
        arguments, keywords = self._templates(args, kwargs)
        given = {id(t) for t in tensors((args, kwargs))}
        inplace = (name.endswith("_") and not name.endswith("__")) or name == "__setitem__" or "out" in kwargs
        inplace = inplace or (call is not None and call.inplace)
        if all(id(t) in given for t in results) and not inplace:
            return  # handed on as it is
        outputs = self._results(results, arguments, keywords, creates=_creates(name))
        step = Step(func, path, arguments, keywords, outputs, call, _source(), ordinal)
        if step.affine:
            step.rows = _rows(next(tensors(args), None), results[0])
        self._lists[-1].append(step)

    def entered(self, path: str, module: nn.Module, args: tuple, kwargs: dict) -> None:
        self.failed = None
        if not self._frames:  # the root: what it is given is not constant
            for tensor in tensors((args, kwargs)):
                self._name(tensor, Value(tuple(tensor.shape), tensor.dtype))
        kind = self._kind(module)
        rows = next(tensors((args, kwargs)), None) if isinstance(module, nn.Linear) else None
        self._frames.append((path, kind, (*self._templates(args, kwargs), _sample(rows), _inputs(args, kwargs))))
        if kind == "opaque":
            self._opaque += 1
        elif kind == "custom":
            self._lists.append([])

    def left(self, path: str, module: nn.Module, output: Any, call: Call | None) -> None:
        if not self._frames:
            return
        _, kind, (arguments, keywords, rows, given) = self._frames.pop()
        inner = self._lists.pop() if kind == "custom" else None
        if call is not None:  # a subclass of an activation module is that activation
            inner = None
        if kind == "opaque":
            self._opaque -= 1
        if output is None:
            self.failed = self.failed if self.failed is not None else path
            return
        if not self._frames:
            self.outputs = tuple(self._value(t) for t in tensors(output))
        if self._opaque or kind == "inside":
            return
        results = list(tensors(output))
        if not results:
            return
        if inner is not None:
            # its own steps have named the results already
            outputs = tuple(self._value(t) for t in results)
            self._lists[-1].append(Step(module, path, arguments, keywords, outputs, call, inner=inner))
            return
        changed = call is not None and call.inplace
        if all(id(t) in given for t in results) and not changed:
            return
        step = Step(module, path, arguments, keywords, self._results(results, arguments, keywords), call)
        if rows is not None:
            step.rows = _rows(rows, results[0])
        self._lists[-1].append(step)

    def _kind(self, module: nn.Module) -> str:
        if self._opaque:
            return "opaque"
        leaf = next(module.children(), None) is None
        own = type(module).__module__.startswith(("torch.nn", "torch.ao.nn"))
        if isinstance(module, (*_AFFINE_MODULES, *_RECURRENT)) or (own and leaf):
            return "opaque"
        if hasattr(module, "settings") and hasattr(module, "activation") and leaf:
            return "opaque"
        # not inside another custom leaf: its steps belong to that one
        return "custom" if leaf and len(self._lists) == 1 else "inside"

    # -- values

    def _templates(self, args: tuple, kwargs: dict) -> tuple[tuple, dict]:
        def refer(item: Any) -> Any:
            return Reference(self._value(item)) if isinstance(item, torch.Tensor) else item

        return mapped(args, refer), mapped(kwargs, refer)

    def _value(self, tensor: torch.Tensor) -> int:
        found = self._known.get(id(tensor))
        if found is not None and found[0]() is tensor:
            return found[1]
        return self._name(tensor, Value(tuple(tensor.shape), tensor.dtype, constant=tensor))

    def _name(self, tensor: torch.Tensor, value: Value) -> int:
        self.values.append(value)
        self._known[id(tensor)] = (weakref.ref(tensor), len(self.values) - 1)
        return len(self.values) - 1

    def _results(
        self, results: list[torch.Tensor], arguments: tuple, keywords: dict, creates: bool = False
    ) -> tuple[int, ...]:
        refs = references((arguments, keywords))
        varies = not creates and any(self.values[r.value].varies for r in refs)
        return tuple(self._name(t, Value(tuple(t.shape), t.dtype, constant=None if varies else t)) for t in results)


def _creates(name: str) -> bool:
    # a tensor like another has its shape, not its values
    return name.endswith("_like") or name.startswith("new_")


def references(item: Any) -> Iterator[Reference]:
    if isinstance(item, Reference):
        yield item
    elif isinstance(item, (list, tuple)):
        for each in item:
            yield from references(each)
    elif isinstance(item, dict):
        yield from references(list(item.values()))


def mapped(item: Any, change: Any) -> Any:
    if isinstance(item, tuple):
        return tuple(mapped(each, change) for each in item)
    if isinstance(item, list):
        return [mapped(each, change) for each in item]
    if isinstance(item, dict):
        return {key: mapped(each, change) for key, each in item.items()}
    return change(item)


def _inputs(args: tuple, kwargs: dict) -> set[int]:
    return {id(t) for t in tensors((args, kwargs))}


def _sample(tensor: torch.Tensor | None) -> torch.Tensor | None:
    """Up to 64 rows of a tensor whose last dimension is the features, in float64."""
    if tensor is None or tensor.ndim < 1 or not tensor.is_floating_point() or tensor.is_meta:
        return None
    return tensor.detach().reshape(-1, tensor.shape[-1])[:64].double().clone() if tensor.numel() else None


def _rows(given: torch.Tensor | None, result: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor] | None:
    first, last = _sample(given), _sample(result)
    return None if first is None or last is None else (first, last)


def _source() -> str | None:
    return caller(sys._getframe(1))
