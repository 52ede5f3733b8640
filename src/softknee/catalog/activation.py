"""What an activation is: one formula over the op table, its parameters, and what cannot be derived from them."""

from __future__ import annotations

import functools
import math
import pickle
import sys
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field, replace
from numbers import Real
from typing import TYPE_CHECKING, Any

import numpy as np
import torch
from torch import Tensor
from torch._subclasses.fake_tensor import is_fake

from ..backends import table
from ..backends.floats import unsteady
from ..backends.torch import Composite, RowTable, along, transformed
from ..errors import InputError, closest
from ..expression import Expr, OpTable, compile_source, differentiate, emit, symbol, trace
from ..plain import plain
from .conditions import Condition

if TYPE_CHECKING:
    from ..facts import Facts
    from ..kernels.paths import Path
    from ..nn import Activation as Module

KINDS = ("elementwise", "gated", "normalizer")
LAYOUTS = ("split", "gate_up", "up_gate", "interleaved")
MEANS = {"noise": 0.5, "deviate": 0.0}
"""The kinds of noise, by the name of the argument that takes it, and what each is where none is drawn."""

# `kernels.dispatch.call`, which imports this file. Bound at the first call: an import in every call takes 1.5 µs.
_call: Any = None
_direct: Any = None


def _bind() -> None:
    global _call, _direct
    from ..kernels.dispatch import call
    from ..kernels.short import direct

    _call, _direct = call, direct


@dataclass(frozen=True)
class Parameter:
    """A parameter: its default, whether modules learn it (one value, or one per channel), the ends of its interval.

    A switch, such as gumbel_softmax's `hard`, has True or False as its default and takes nothing else; a count, such
    as topk_softmax's `k`, has an int, and takes whole numbers.
    """

    name: str
    default: float
    learnable: bool = False
    low: float = -math.inf
    high: float = math.inf

    def check(self, value: Any, owner: str) -> None:
        """Raises InputError where `value` is of the wrong type, NaN as a number, or too large for a float."""
        if isinstance(self.default, bool):
            if not isinstance(value, bool):
                raise InputError(f"{owner}: {self.name} must be True or False, got {value!r}")
        elif isinstance(self.default, int):
            if isinstance(value, bool) or not isinstance(value, int):
                raise InputError(f"{owner}: {self.name} must be a whole number, got {value!r}")
        elif isinstance(value, Tensor):
            if not value.is_floating_point():
                dtype = str(value.dtype).removeprefix("torch.")
                raise InputError(f"{owner}: {self.name} must be a real floating-point tensor, got {dtype}")
        elif isinstance(value, bool) or not isinstance(value, Real):
            raise InputError(f"{owner}: {self.name} must be a number or a tensor, got {type(value).__name__}")
        elif value != value:
            raise InputError(f"{owner}: {self.name} must not be NaN")
        elif isinstance(value, int) and abs(value) > sys.float_info.max:
            raise InputError(
                f"{owner}: {self.name} must be at most {sys.float_info.max:g}, or inf; got a larger integer"
            )


@dataclass(frozen=True, eq=False)
class Activation:
    """A catalog entry. Calling it applies it to tensors, differentiably: `silu(x)`, `swiglu(gate, up)`.

    formula: the definition over an op table; `stable`, if given, is the same function in a form that does not cancel,
    from which code and derivatives are made (a test proves the two equal). limits: f(−∞) and f(+∞). conditions: what
    holds between parameters. torch, torch_module, torch_arguments: what PyTorch calls it. module_name: the class in
    `softknee.nn`. layout: how a gated activation finds gate and up in one packed tensor. noise: what the formula takes
    besides its inputs, one number per element, or nothing: "noise" is uniform on (0, 1), "deviate" normal; an
    elementwise activation draws it in training, a normalizer at every call. surrogate: the function whose derivative
    with respect to the input stands for f's own. resizes: a normalizer's result has another size. core: of
    the inner catalog, which has compiled kernels and is anchored to code that is not ours. unverified: what of the
    formula is not checked against its paper or two implementations. equivalent_to: entries that are the same function
    as this one at its defaults, with the parameters that make them so.
    """

    name: str
    kind: str
    formula: Callable[..., Any]
    inputs: tuple[str, ...]
    parameters: Mapping[str, Parameter]
    summary: str
    source: str = ""
    aliases: tuple[str, ...] = ()
    stable: Callable[..., Any] | None = None
    limits: tuple[float, float] | None = None
    torch: str | None = None
    torch_module: str | None = None
    torch_arguments: Mapping[str, Any] = field(default_factory=dict)
    module_name: str | None = None
    layout: str | None = None
    dim: int | None = None
    tags: tuple[str, ...] = ()
    conditions: tuple[Condition, ...] = ()
    noise: str = ""
    surrogate: Callable[..., Any] | None = None
    resizes: bool = False
    core: bool = False
    unverified: str = ""
    equivalent_to: Mapping[str, Mapping[str, float]] = field(default_factory=dict)
    apply: Callable[..., Tensor] | None = None
    given: Mapping[str, float] = field(default_factory=dict)  # what `at` was given
    _composite: Composite | None = field(default=None, init=False)

    def __repr__(self) -> str:
        given = ", ".join(f"{name}={value:g}" for name, value in self.given.items())
        return f"<activation {self.name}({given})>" if given else f"<activation {self.name}>"

    def __reduce__(self) -> Any:
        # By reference to the definition, as functions are pickled; equality stays identity.
        if "<locals>" in self.formula.__qualname__:
            raise pickle.PicklingError(f"cannot pickle the activation {self.name!r}: it is defined inside a function")
        return (_definition, (self.formula.__module__, self.formula.__qualname__, dict(self.given)))

    def __copy__(self) -> Activation:
        return self

    def __deepcopy__(self, memo: Any) -> Activation:
        return self

    def __call__(self, *inputs: Tensor, **parameters: Any) -> Tensor:
        """The activation of tensors: floating point, any shape; gated ones take gate and up, which broadcast.

        Raises InputError for a wrong number of inputs, a dtype that is not real floating point, a parameter that does
        not exist or lies out of range.
        """
        if _call is None:
            _bind()
        if not parameters and inputs and (y := _direct(self, *inputs)) is not None:
            return y
        return _call(self, *inputs, **parameters)

    def path(self, *inputs: Tensor, **parameters: Any) -> Path:
        """Which path a call with these arguments takes (PyTorch's op, a table, the composite), and why.

        Nothing is computed. Raises as the call would.
        """
        from ..kernels.dispatch import path

        return path(self, *inputs, **parameters)

    def on(self, ops: OpTable, *inputs: Any, **parameters: Any) -> Any:
        """The body on an op table: the plain formula where arithmetic is exact, else the stable form.

        For use in other definitions: `silu.on(ops, gate) * up`.
        """
        exact = ops.name in ("mpmath", "sympy")
        body = self.formula if exact or self.stable is None else self.stable
        noise = (MEANS[self.noise],) if self.noise and len(inputs) == len(self.inputs) else ()
        if isinstance(ops, RowTable) and self.kind != "normalizer":
            return self.composite(*inputs, *(self.defaults | parameters).values())
        return body(*inputs, *noise, ops, **(self.defaults | parameters))

    @property
    def stochastic(self) -> bool:
        """Whether it draws noise."""
        return bool(self.noise)

    @functools.cached_property
    def own(self) -> Activation:
        """The same values with their own derivative: itself, unless a surrogate's is declared."""
        return self if self.surrogate is None else replace(self, surrogate=None)

    @functools.cached_property
    def passing(self) -> Activation:
        """The function whose derivative backward takes: itself, unless it declares another."""
        if self.surrogate is None:
            return self
        return replace(self, formula=self.surrogate, stable=None, surrogate=None, noise="", limits=None)

    @property
    def measured(self) -> bool:
        """Whether it has figures of accuracy, and kernels: the core, and the gates of feed-forward blocks. All would
        take as long again to compile, for what few networks have."""
        return self.core or "ffn" in self.tags

    @functools.cached_property
    def defaults(self) -> dict[str, float]:
        return {p.name: p.default for p in self.parameters.values()}

    @property
    def class_name(self) -> str:
        """The name of its module class: the declared one, PyTorch's, else the name in camel case."""
        camel = "".join(part.capitalize() for part in self.name.split("_"))
        return self.module_name or self.torch_module or camel

    def resolve(self, parameters: Mapping[str, Any]) -> dict[str, Any]:
        """Defaults overridden by `parameters`, checked. Raises InputError for unknown names and values out of range."""
        for name, value in parameters.items():
            if name not in self.parameters:
                known = f"its parameters are {', '.join(self.parameters)}" if self.parameters else "it has none"
                raise InputError(f"{self.name} has no parameter {name!r}; {known}{closest(name, self.parameters)}")
            self.parameters[name].check(value, self.name)
        given = {
            name: v if isinstance(v, Tensor) or isinstance(self.parameters[name].default, int) else float(v)
            for name, v in parameters.items()
        }
        resolved = self.defaults | given
        for condition in self.conditions:
            if any(name in given for name in condition.names) and not _holds(condition, resolved):
                found = ", ".join(f"{name}={_failing(condition, name, resolved)}" for name in condition.names)
                raise InputError(f"{self.name}: {found} is out of range; it must be {condition}")
        return resolved

    def at(self, **parameters: float) -> Activation:
        """The same activation with other defaults: `leaky_relu.at(negative_slope=0.2)`; itself where none differs.

        Raises InputError as a call does, and for a tensor.
        """
        for name, value in parameters.items():
            if isinstance(value, Tensor):
                raise InputError(f"{self.name}: a default must be a number, and {name} is a tensor")
        resolved = self.resolve(parameters)
        differ = tuple((name, value) for name, value in resolved.items() if value != self.defaults[name])
        return _at(self, differ) if differ else self

    def name_in(self, ecosystem: str, opset: int | None = None) -> str | None:
        """What another library calls it, with its arguments there: `gelu_tanh.name_in("onnx", opset=20)` is
        "Gelu(approximate='tanh')". None where it has no name of its own there.

        Raises InputError for an unknown ecosystem; `softknee.catalog.names.ecosystems()` lists them.
        """
        from .names import name_in

        return name_in(self, ecosystem, opset)

    @functools.cached_property
    def expression(self) -> Expr:
        """The traced body; symbols are the inputs' and the parameters' names."""
        if self.kind == "normalizer":
            raise InputError(
                f"{self.name} is a normalizer: it reduces over a dimension and has no elementwise expression"
            )
        return self._with_surrogate(trace(self._body, self.inputs, self.parameters, self.name))

    def _with_surrogate(self, expression: Expr) -> Expr:
        if self.surrogate is None:
            return expression
        x = self.inputs[0]
        return Expr("with_slope", expression, symbol(x), differentiate(self.passing.expression, x))

    def _body(self, *arguments: Any, **parameters: Any) -> Any:
        *inputs, ops = arguments
        return self.on(ops, *inputs, **parameters)

    @property
    def names(self) -> tuple[str, ...]:
        return (*self.inputs, *self.parameters)

    @property
    def composite(self) -> Composite:
        """The differentiable composite in PyTorch, of `names` in order."""
        if torch.compiler.is_compiling() or self._composite is None:
            self._make_composite()
        assert self._composite is not None
        return self._composite

    # At first use, which may be under Dynamo: it cannot trace how, but it runs what is marked as constant.
    def _make_composite(self) -> None:
        if self._composite is None:
            made = Composite(self.expression, self.names, len(self.inputs), tuple(self.defaults.values()))
            object.__setattr__(self, "_composite", made)

    _make_composite._dynamo_marked_constant = True  # type: ignore[attr-defined]

    @functools.cached_property
    def sampled(self) -> Composite:
        """The same of a stochastic activation with its noise: of the inputs, the noise, the parameters."""
        inputs = (*self.inputs, self.noise)
        expression = self._with_surrogate(trace(self._body, inputs, self.parameters, self.name))
        names, defaults = (*inputs, *self.parameters), (MEANS[self.noise], *self.defaults.values())
        return Composite(expression, names, len(self.inputs), defaults)

    def along(self, dim: int, *inputs: Tensor, **parameters: Any) -> Tensor:
        """A normalizer of tensors along a dimension, its noise among the inputs, all parameters given and checked."""
        if self.apply is not None:
            return self.apply(*inputs, dim, **parameters)
        return along(dim, self.formula, inputs, parameters)

    @functools.cached_property
    def _slope(self) -> Composite:
        derived = differentiate(self.expression, self.inputs[0])
        return Composite(derived, self.names, len(self.inputs), tuple(self.defaults.values()), derived=True)

    def slope(self, *inputs: Tensor, **parameters: Any) -> Tensor:
        """f′ at `inputs` with respect to the first of them, without autograd; shape and dtype of the input."""
        from ..kernels.dispatch import settled

        resolved = settled(self, inputs[0], parameters)
        with torch.no_grad():
            return self._slope.evaluate(*inputs, *(resolved[p] for p in self.parameters))

    def value(self, *inputs: Any, **parameters: Any) -> Any:
        """The NumPy reference in float64, elementwise (a normalizer: over the last axis)."""
        return self.derivative(*inputs, order=0, **parameters)

    def derivative(self, *inputs: Any, order: int = 1, wrt: str | None = None, **parameters: Any) -> Any:
        """The `order`-th derivative with respect to `wrt` (an input or a parameter; the first input unless said).

        NumPy, float64, elementwise. Raises InputError for a normalizer with order > 0, a negative order, an unknown
        `wrt`.
        """
        if not isinstance(order, int) or order < 0:
            raise InputError(f"{self.name}: order must be a whole number of at least 0, got {order!r}")
        if wrt is not None and wrt not in self.names:
            raise InputError(f"{self.name}: wrt={wrt!r} is unknown; it must be one of {', '.join(self.names)}")
        ops = table("numpy")
        arrays = [np.asarray(x, dtype=np.float64) for x in inputs]
        resolved = self.resolve(parameters)
        with np.errstate(all="ignore"):
            if self.kind == "normalizer" and order == 0:
                return self.on(ops, *arrays, **resolved)
            code = self._numpy(order, wrt or self.inputs[0])
            result = code(ops, *arrays, *(resolved[p] for p in self.parameters))
            shape = np.broadcast_shapes(*(a.shape for a in arrays))
            return np.broadcast_to(np.asarray(result, dtype=np.float64), shape).copy()[()]

    @functools.cached_property
    def _numpy_codes(self) -> dict[tuple[int, str], Callable[..., Any]]:
        return {}

    def _numpy(self, order: int, wrt: str) -> Callable[..., Any]:
        if (order, wrt) not in self._numpy_codes:
            derived = differentiate(self.expression, wrt, order)
            values = tuple(self.defaults.values())
            finite = unsteady(derived, self.inputs, tuple(self.parameters), values) if order else ()
            source = emit([derived], self.name, self.names, finite)
            self._numpy_codes[order, wrt] = compile_source(source, self.name)
        return self._numpy_codes[order, wrt]

    def latex(self) -> str:
        """The formula for display, from SymPy."""
        import sympy

        if self.kind == "normalizer":
            softmax = r"\frac{e^{x_i/T}}{\sum_j e^{x_j/T}}"
            known = {
                "softmax": softmax,
                "log_softmax": rf"\log {softmax}",
                "sparsemax": r"\left(\arg\min_{p \in \Delta} \|p - x\|^2\right)_i",
                "gumbel_softmax": r"\frac{e^{(x_i + g_i)/\tau}}{\sum_j e^{(x_j + g_j)/\tau}}, \; g = -\log(-\log u)",
            }
            return known.get(self.name, rf"{_word(self.name)}(x)_i")
        from sympy.printing.latex import greek_letters_set

        def spelled(name: str) -> str:
            return name if len(name) == 1 or name in greek_letters_set else _word(name)

        arguments = {name: sympy.Symbol(spelled(name), real=True) for name in self.names}
        inputs = [arguments[name] for name in self.inputs]
        parameters = {name: arguments[name] for name in self.parameters}
        return sympy.latex(self.on(table("sympy"), *inputs, **parameters))

    @property
    def facts(self) -> Facts:
        """What follows from the definition: range, extrema, gains, dead and saturated regions."""
        from ..facts import facts

        return facts(self)

    def to_dict(self) -> dict[str, Any]:
        """What is declared, and the facts at the default parameters, as plain JSON types."""
        declared = {
            "name": self.name,
            "kind": self.kind,
            "aliases": self.aliases,
            "summary": self.summary,
            "source": self.source,
            "parameters": self.defaults,
            "conditions": [str(condition) for condition in self.conditions],
            "learnable": [p.name for p in self.parameters.values() if p.learnable],
            "torch": self.torch,
            "torch_module": self.torch_module,
            "layout": self.layout,
            "tags": self.tags,
            "core": self.core,
            "unverified": self.unverified,
            "equivalent_to": {name: dict(given) for name, given in self.equivalent_to.items()},
        }
        from ..kernels.paths import choose

        paths = {str(d).removeprefix("torch."): choose(self, d).to_dict() for d in (torch.float32, torch.bfloat16)}
        return plain(declared | {"paths": paths, "facts": None if self.kind == "normalizer" else self.facts})

    def module(self, **parameters: Any) -> Module:
        """A `torch.nn.Module` that applies it."""
        from ..nn import Activation as Module

        return Module(self, **parameters)


def _holds(condition: Condition, values: Mapping[str, Any]) -> bool:
    """Whether it holds; of a tensor that cannot be looked at, or only by waiting for a device, it is taken to."""
    tensors = [values[name] for name in condition.names if isinstance(values[name], Tensor)]
    if not tensors:
        return condition.holds(values)
    unseen = torch.compiler.is_compiling() or transformed()
    if unseen or any(t.device.type != "cpu" or is_fake(t) for t in tensors):
        return True
    if all(t.numel() == 1 for t in tensors):  # as numbers, 2 µs, where three ops on tensors take 20
        return bool(condition.holds({n: v.item() if isinstance(v, Tensor) else v for n, v in values.items()}))
    return bool(condition.holds(values).all())


def _failing(condition: Condition, name: str, resolved: Mapping[str, Any]) -> str:
    """The value of `name`; of a tensor, those elements at which the condition fails."""
    value = resolved[name]
    if not isinstance(value, Tensor):
        return repr(value)
    fails = ~torch.as_tensor(condition.holds(resolved))
    values = value.detach().expand(fails.shape)[fails]
    return f"{values[:8].tolist()}{' …' if len(values) > 8 else ''}"


def _word(name: str) -> str:
    escaped = name.replace("_", r"\_")
    return rf"\mathrm{{{escaped}}}"


def _definition(module: str, qualname: str, given: Mapping[str, float]) -> Any:
    import importlib

    return functools.reduce(getattr, qualname.split("."), importlib.import_module(module)).at(**given)


@functools.cache
def _at(activation: Activation, given: tuple[tuple[str, float], ...]) -> Activation:
    values = dict(given)
    parameters = {name: replace(p, default=values.get(name, p.default)) for name, p in activation.parameters.items()}
    return replace(activation, parameters=parameters, given={**activation.given, **values})
