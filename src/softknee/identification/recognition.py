"""Which catalog entry a torch module or function is, told from the registry's own `.torch` fields.

Nothing is listed here by hand: `Activation.torch_module`, `.torch` and `.torch_arguments` name the module class, the
function and the fixed arguments, and every spelling of the function (`F.relu`, `torch.relu`, `Tensor.relu`, each with
and without the in-place underscore) follows from the name. Activations that torch has and the catalog has not
(`torch.nn.Hardtanh` before it is defined) are recognised as activations with `activation=None`.
"""

from __future__ import annotations

import inspect
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, field
from typing import Any

import torch
from torch import nn
from torch.overrides import get_testing_overrides

from .. import catalog

_NAMESPACES = (nn.functional, torch, torch.Tensor, torch.special)
_TORCH_ACTIVATIONS = nn.modules.activation
_ATTENTION = nn.functional.scaled_dot_product_attention, nn.functional.multi_head_attention_forward


@dataclass(frozen=True)
class Entry:
    """One activation a torch symbol may stand for, and the arguments that say it is this one.

    parameters, implementation: as identified before, where the symbol itself cannot tell.
    """

    activation: Any | None
    name: str
    arguments: Mapping[str, Any] = field(default_factory=dict)
    parameters: Mapping[str, float] | None = None
    implementation: str | None = None

    def selected_by(self, value: Callable[[str], Any]) -> bool:
        return all(value(key) == wanted for key, wanted in self.arguments.items())


def qualified(symbol: Any) -> str:
    """`package.module.name` of a class or function, in the spelling a user would import."""
    if isinstance(symbol, catalog.Activation):
        return f"softknee.functional.{symbol.name}"
    name = getattr(symbol, "__name__", type(symbol).__name__)
    for namespace in (nn.functional, torch):
        if getattr(namespace, name, None) is symbol or getattr(namespace, name, None) == symbol:
            return f"{namespace.__name__}.{name}"
    if hasattr(torch.Tensor, name) and type(symbol).__name__ in ("method_descriptor", "wrapper_descriptor"):
        return f"torch.Tensor.{name}"
    for spelling, function in vars(nn.functional).items():  # F.logsigmoid is a builtin of another name
        if function is symbol:
            return f"torch.nn.functional.{spelling}"
    home = getattr(symbol, "__module__", None)
    return f"{home}.{getattr(symbol, '__qualname__', name)}" if home else name


class Tables:
    """The registry as two look-ups, taken when an observer is built (so later registrations need a new one)."""

    def __init__(self) -> None:
        self.modules: dict[type, list[Entry]] = {}
        self.functions: dict[Any, list[Entry]] = {}
        for activation in catalog.activations():
            arguments = activation.torch_arguments or {}
            entry = Entry(activation, activation.name, arguments)
            if activation.torch_module and activation.torch_module != "Identity":  # what is not there is no site
                self.modules.setdefault(getattr(nn, activation.torch_module), []).append(entry)
            if activation.torch:
                self._add_function(activation.torch, entry)
                for alias in activation.aliases:  # torch.special.expit
                    self._add_function(alias, entry, (torch.special,))
        functions = {name.replace("_", ""): name for name in vars(nn.functional) if name.strip("_") == name}
        for name, cls in vars(_TORCH_ACTIVATIONS).items():
            if not (isinstance(cls, type) and issubclass(cls, nn.Module)) or cls is nn.MultiheadAttention:
                continue
            if cls is nn.Module or cls.__module__ != _TORCH_ACTIVATIONS.__name__:
                continue
            entry = Entry(None, name)
            self.modules.setdefault(cls, [entry])
            function = functions.get(name.lower())
            if function and getattr(nn.functional, function) not in self.functions:
                self._add_function(function, entry)
        for entries in (*self.modules.values(), *self.functions.values()):
            entries.sort(key=lambda entry: -len(entry.arguments))  # the most specific first

    def _add_function(self, name: str, entry: Entry, namespaces: tuple[Any, ...] = _NAMESPACES) -> None:
        for namespace in namespaces:
            for spelling in (name, f"{name}_"):
                function = getattr(namespace, spelling, None)
                if callable(function):
                    entries = self.functions.setdefault(function, [])
                    if entry not in entries:
                        entries.append(entry)

    def of_module(self, module: nn.Module) -> Entry | None:
        """The entry of an activation module, or None for a module that is no (known) activation."""
        own = getattr(module, "activation", None)
        if isinstance(own, catalog.Activation) and hasattr(module, "settings"):
            return Entry(own, own.name)
        for cls in type(module).__mro__:
            if cls in self.modules and type(module).forward is cls.forward:  # type: ignore[attr-defined]
                entries = self.modules[cls]
                chosen = (e for e in entries if e.selected_by(lambda key: getattr(module, key, None)))
                return next(chosen, Entry(None, cls.__name__))
        return None

    def of_call(self, function: Any, arguments: tuple, keywords: Mapping[str, Any]) -> Entry | None:
        """The entry of an activation call, or None for any other function."""
        own = getattr(function, "activation", None)
        if isinstance(own, catalog.Activation):
            return Entry(own, own.name)
        if isinstance(function, catalog.Activation):
            return Entry(function, function.name)
        try:
            entries = self.functions.get(function)
        except TypeError:  # an unhashable callable is none of torch's
            return None
        if entries is None:
            return None
        if len(entries) == 1 and not entries[0].arguments:
            return entries[0]
        given = bind(function, arguments, keywords)
        chosen = (e for e in entries if e.selected_by(given.get))
        return next(chosen, Entry(None, entries[-1].name))

    @staticmethod
    def is_attention(function: Any) -> bool:
        """Whether the function applies a softmax inside a fused kernel."""
        return function in _ATTENTION


def bind(function: Any, arguments: tuple, keywords: Mapping[str, Any]) -> dict[str, Any]:
    """The call's arguments by name, defaults filled in; torch's builtins have their signature in torch.overrides."""
    if isinstance(function, catalog.Activation):
        return dict(zip(function.inputs, arguments, strict=False)) | dict(keywords)
    try:
        signature = inspect.signature(function)
    except (TypeError, ValueError):
        described = get_testing_overrides().get(function)
        if described is None:
            return dict(keywords)
        signature = inspect.signature(described)
    try:
        bound = signature.bind_partial(*arguments, **keywords)
    except TypeError:
        return dict(keywords)
    bound.apply_defaults()
    return dict(bound.arguments)


def module_parameters(entry: Entry, module: nn.Module) -> dict[str, float]:
    """The activation's parameters as this module holds them; per-channel parameters give their mean."""
    if entry.activation is None:
        return {}
    settings = getattr(module, "settings", {})
    return _parameters(entry.activation, lambda name: getattr(module, name, settings.get(name)))


def call_parameters(entry: Entry, function: Any, arguments: tuple, keywords: Mapping[str, Any]) -> dict[str, float]:
    """The activation's parameters as this call gives them."""
    if entry.activation is None or not entry.activation.parameters:
        return {}
    given = bind(function, arguments, keywords)
    return _parameters(entry.activation, given.get)


def _parameters(activation: Any, value: Callable[[str], Any]) -> dict[str, float]:
    found: dict[str, float] = {}
    for name, parameter in activation.parameters.items():
        given = value(name)
        if given is None:
            given = parameter.default
        if isinstance(given, torch.Tensor):
            if given.numel() == 0 or given.is_meta:
                continue
            given = given.detach().double().mean().item()
        if isinstance(given, (int, float)):
            found[name] = bool(given) if isinstance(parameter.default, bool) else float(given)
    return found


def bare(function: Any) -> str:
    """`mul` for `torch.mul`, `Tensor.mul_`, `Tensor.__mul__`; `get_T` for the property `Tensor.T`."""
    name = getattr(function, "__name__", type(function).__name__)
    if name == "__get__":
        return "get_" + getattr(getattr(function, "__self__", None), "__name__", "property")
    if name.startswith("__") and name.endswith("__"):
        name = name.strip("_")
        reflected = name.removeprefix("i") if name in ("iadd", "isub", "imul", "itruediv", "ipow") else name
        return {"truediv": "div", "rtruediv": "rdiv"}.get(reflected, reflected)
    return name.rstrip("_")


def tensors(item: Any) -> Iterator[torch.Tensor]:
    """Every tensor in nested tuples, lists, dicts and dataclass-like outputs."""
    if isinstance(item, torch.Tensor):
        yield item
    elif isinstance(item, dict):
        for each in item.values():
            yield from tensors(each)
    elif isinstance(item, (list, tuple)):
        for each in item:
            yield from tensors(each)
    elif hasattr(item, "__dataclass_fields__"):
        for name in item.__dataclass_fields__:
            yield from tensors(getattr(item, name, None))
