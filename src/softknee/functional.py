"""Every registered activation as a function: `import softknee.functional as SF`.

Where PyTorch has the function, ours has its name and signature, so `F.silu` may become `SF.silu`. Three differ:
gumbel_softmax lacks `eps`, which PyTorch ignores; softmax and log_softmax lack `_stacklevel` and need `dim`; softplus's
`threshold` is infinite, where PyTorch's is 20. Nothing is written per activation; the signatures stand in the generated
`functional.pyi`.

    elementwise   SF.silu(input, inplace=False), SF.elu(input, alpha=1.0), SF.gelu(input, approximate="tanh")
    gated         SF.swiglu(gate, up), or one packed tensor: SF.swiglu(packed, dim=-1, layout="gate_up")
    normalizers   SF.softmax(input, dim, *, dtype=None, temperature=1.0), SF.sparsemax(input, dim=-1)
    stochastic    SF.rrelu(input, training=True, generator=None), SF.gumbel_softmax(logits, tau=1.0, hard=False)
"""

from __future__ import annotations

import functools
import inspect
from collections.abc import Callable
from typing import Any

from torch import Tensor

from .catalog import Activation, activations
from .errors import InputError
from .kernels.dispatch import call
from .kernels.packed import call_packed
from .kernels.packed import unpack as unpack
from .kernels.short import direct

_POSITIONAL, _KEYWORD = inspect.Parameter.POSITIONAL_OR_KEYWORD, inspect.Parameter.KEYWORD_ONLY


def _elementwise(activation: Activation) -> Callable[..., Tensor]:
    flags = ("training", "inplace") if activation.stochastic else ("inplace",)
    names = (*activation.parameters, *flags)

    def function(input: Tensor, *args: Any, **kwargs: Any) -> Tensor:
        if not args and not kwargs and (y := direct(activation, input)) is not None:
            return y
        return call(activation, input, **_named(activation, names, args, kwargs) if args else kwargs)

    parameters = [(p.name, p.default, _POSITIONAL) for p in activation.parameters.values()]
    parameters += [(flag, False, _POSITIONAL) for flag in flags]
    parameters += [("generator", None, _KEYWORD)] if activation.stochastic else []
    return _dressed(function, activation, ["input"], parameters)


def _whole(activation: Activation, dim: Any) -> None:
    if isinstance(dim, bool):  # an int to Python
        raise InputError(f"{activation.name}: dim must be a whole number, got {dim}")


def _named(
    activation: Activation,
    names: tuple[str, ...],
    args: tuple[Any, ...],
    kwargs: dict[str, Any],
    first: str = "input",
) -> dict[str, Any]:
    """The arguments after `first`, by name."""
    if len(args) > len(names):
        raise TypeError(
            f"{activation.name} takes {', '.join((first, *names))}; got {len(args)} arguments after {first}"
        )
    for name in names[: len(args)] if kwargs else ():
        if name in kwargs:
            raise TypeError(f"{activation.name} got {name!r} twice")
    return dict(zip(names, args, strict=False)) | kwargs


def _variants(activation: Activation) -> Callable[..., Tensor]:
    """A function of PyTorch's that is several activations, told apart by an argument: gelu's `approximate`."""
    variants = {tuple(a.torch_arguments.items()): a for a in activations() if a.torch == activation.torch}
    ((key, default),) = activation.torch_arguments.items()

    def function(input: Tensor, *args: Any, **kwargs: Any) -> Tensor:
        kwargs = _named(activation, (key,), args, kwargs)
        chosen = kwargs.pop(key, default)
        if ((key, chosen),) not in variants:
            known = ", ".join(repr(v) for ((_, v),) in variants)
            raise InputError(f"{activation.name}: {key}={chosen!r} is unknown; it must be one of {known}")
        return call(variants[((key, chosen),)], input, **kwargs)

    return _dressed(function, activation, ["input"], [(key, default, _POSITIONAL), ("inplace", False, _KEYWORD)])


def _packed(activation: Activation) -> Callable[..., Tensor]:
    """PyTorch's glu: one packed tensor."""

    def function(input: Tensor, dim: int = -1, *, layout: str = str(activation.layout), **parameters: Any) -> Tensor:
        _whole(activation, dim)
        return call_packed(activation, input, dim, layout, **parameters)

    options = [("dim", -1, _POSITIONAL), ("layout", activation.layout, _KEYWORD)]
    return _dressed(function, activation, ["input"], options)


def _gated(activation: Activation) -> Callable[..., Tensor]:
    def function(
        gate: Tensor, up: Tensor | None = None, *, dim: int = -1, layout: str | None = None, **parameters: Any
    ) -> Tensor:
        _whole(activation, dim)
        if up is None:
            return call_packed(activation, gate, dim, layout or str(activation.layout), **parameters)
        if layout not in (None, "split"):
            raise InputError(f"{activation.name}: layout={layout!r} is for one packed tensor; gate and up were given")
        return call(activation, gate, up, **parameters)

    parameters = [(p.name, p.default, _KEYWORD) for p in activation.parameters.values()]
    options = [("up", None, _POSITIONAL), ("dim", -1, _KEYWORD), ("layout", None, _KEYWORD), *parameters]
    return _dressed(function, activation, ["gate"], options)


def _normalizer(activation: Activation) -> Callable[..., Tensor]:
    """PyTorch's softmax takes dim first; its gumbel_softmax calls the input logits and takes the parameters first."""
    parameters = [(p.name, p.default, _KEYWORD) for p in activation.parameters.values()]
    options: list[tuple[str, Any, Any]] = [("dtype", None, _KEYWORD)]
    if not activation.stochastic:

        def function(input: Tensor, dim: int | None = None, **keywords: Any) -> Tensor:
            return call(activation, input, dim=dim, **keywords)

        def function_of_two(gate: Tensor, up: Tensor, dim: int | None = None, **keywords: Any) -> Tensor:
            return call(activation, gate, up, dim=dim, **keywords)

        two = len(activation.inputs) == 2
        made, required = (function_of_two, ["gate", "up"]) if two else (function, ["input"])
        options += parameters
        if activation.dim is None:
            return _dressed(made, activation, [*required, "dim"], options)
        return _dressed(made, activation, required, [("dim", activation.dim, _POSITIONAL), *options])

    names, options = (*activation.parameters, "dim"), [*options, ("generator", None, _KEYWORD)]

    def sampled(logits: Tensor, *args: Any, **kwargs: Any) -> Tensor:
        return call(activation, logits, **_named(activation, names, args, kwargs, activation.inputs[0]))

    parameters = [(name, default, _POSITIONAL) for name, default, _ in parameters]
    return _dressed(sampled, activation, ["logits"], [*parameters, ("dim", activation.dim, _POSITIONAL), *options])


def _dressed(
    function: Any, activation: Activation, required: list[str], optional: list[tuple[str, Any, Any]]
) -> Callable[..., Tensor]:
    positional = [inspect.Parameter(name, _POSITIONAL) for name in required]
    rest = [inspect.Parameter(name, kind, default=default) for name, default, kind in optional]
    function.__signature__ = inspect.Signature([*positional, *rest])
    function.__name__ = function.__qualname__ = activation.name
    function.__module__ = __name__
    function.__doc__ = f"{activation.__doc__}\n\nSource: {activation.source}"
    function.activation = activation
    return function


@functools.cache
def function(activation: Activation) -> Callable[..., Tensor]:
    """The function of any activation, a user's own too."""
    if activation.kind == "normalizer":
        return _normalizer(activation)
    if activation.kind == "gated":
        return _packed(activation) if activation.torch else _gated(activation)
    if activation.torch == activation.name and activation.torch_arguments:
        return _variants(activation)
    return _elementwise(activation)


def stub() -> str:
    """The text of `functional.pyi`."""
    kinds = {float: "float | Tensor", bool: "bool", int: "int", str: "str"}
    lines = [
        "# Generated by tools/stubs.py from the catalog.",
        "from typing import Any",
        "",
        "from torch import Generator, Tensor, dtype as _dtype",
        "",
    ]
    lines += [
        "from .catalog import Activation",
        "",
        "def function(activation: Activation) -> Any: ...",
        "def stub() -> str: ...",
    ]
    lines += ["def unpack(packed: Tensor, dim: int = -1, layout: str = ...) -> tuple[Tensor, Tensor]: ..."]
    for activation in activations():
        arguments: list[str] = []
        for p in inspect.signature(function(activation)).parameters.values():
            if p.kind is _KEYWORD and "*" not in arguments:
                arguments.append("*")
            if p.default is inspect.Parameter.empty:
                arguments.append(f"{p.name}: {'int' if p.name == 'dim' else 'Tensor'}")
            elif p.default is None:
                none = {"dtype": "_dtype | None", "layout": "str | None", "generator": "Generator | None"}.get(
                    p.name, "Tensor | None"
                )
                arguments.append(f"{p.name}: {none} = None")
            else:
                value = "..." if isinstance(p.default, float) else repr(p.default)
                arguments.append(f"{p.name}: {kinds[type(p.default)]} = {value}")
        lines.append(f"def {activation.name}({', '.join(arguments)}) -> Tensor: ...")
    return "\n".join(lines) + "\n"


for _activation in activations():
    globals()[_activation.name] = function(_activation)


def __getattr__(name: str) -> Callable[..., Tensor]:
    # what was registered later
    for activation in activations():
        if activation.name == name:
            return function(activation)
    raise AttributeError(f"module 'softknee.functional' has no attribute {name!r}")
