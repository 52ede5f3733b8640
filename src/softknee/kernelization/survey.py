"""What can be run by softknee in a model, and what stays as it is for which reason."""

from __future__ import annotations

import inspect
import types
from collections.abc import Container, Iterator
from dataclasses import dataclass, replace
from typing import Any

import torch
from torch import Tensor, nn

from ..catalog import Activation
from ..identification import Site
from ..kernels.dispatch import call
from .recipes import Refusal, recipe, refuse_altered, try_function
from .rewriting import Place, Unreadable, global_names, locals_of, places
from .substitutes import (
    FUNCTIONS,
    GATES,
    METHODS,
    TABLES,
    Recipe,
    applied,
    before,
    hooked,
    origin,
    product,
    substitute,
)

_ROOTS = ("torch.", "transformers.modeling_utils", "softknee.")
"""Where the classes are from whose methods are left alone: PyTorch's, models' common base, our own."""


@dataclass(frozen=True)
class Replaced:
    """A site that softknee runs: the activation it applies, as which entry it runs ("swiglu" where the product with up
    is part of the call), what stands there, and why the product is not part of it where one might expect that."""

    site: str
    activation: str
    runs: str
    form: str
    where: str = ""
    note: str = ""

    @property
    def fused(self) -> bool:
        return self.runs != self.activation

    @property
    def shown(self) -> str:
        return f"{self.activation} → {self.runs}" if self.fused else self.activation


@dataclass(frozen=True)
class Skipped:
    """A site that stays as it is, and why. activation: None where it is unknown."""

    site: str
    activation: str | None
    reason: str


@dataclass(frozen=True)
class Change:
    """One module and the class it gets. site: what to call it in an error."""

    module: nn.Module
    theirs: type
    ours: type
    site: str

    def apply(self) -> None:
        object.__setattr__(self.module, "__class__", self.ours)

    def revert(self) -> None:
        if type(self.module) is self.ours:
            object.__setattr__(self.module, "__class__", self.theirs)


@dataclass(frozen=True)
class _Found:
    """A place in a method of a module where `activation` is applied and `runs` will run; `symbol` applies it now."""

    place: Place
    activation: Activation
    runs: Activation
    symbol: Any

    @property
    def product(self) -> bool:
        return self.place.kind == "product"

    def at(self, site: Site) -> bool:
        line = (site.source or "").rpartition(":")[2]
        first, last = self.place.lines
        return line.isdigit() and first <= int(line) <= last and site.activation in self.names

    @property
    def names(self) -> set[str | None]:
        """What an identification may call it: an argument may tell variants of one function apart."""
        found: set[str | None] = {self.activation.name, self.runs.name}
        if not isinstance(self.symbol, nn.Module):
            found |= {e.activation.name for e in TABLES.functions.get(self.symbol, ()) if e.activation is not None}
        return found


class Survey:
    """What can be replaced in a model, and what cannot for which reason.

    sites: the functional ones that were executed, None where nothing was. seen: places (module's id, line)
    where a gated activation was seen to run, None where nothing ran.
    """

    def __init__(self, model: nn.Module, sites: list[Site] | None) -> None:
        self.model = model
        self.sites: dict[str, list[Site]] | None = None
        if sites is not None:
            self.sites = {path: [s for s in sites if s.path == path] for path in {s.path for s in sites}}
        self.seen: set[tuple[int, int]] | None = None
        self.recipes: dict[int, Recipe] = {}
        self.refused: dict[int, str] = {}  # id of an activation module → why it stays as it is
        self.reasons: dict[
            int, list[tuple[str, Container[str | None]]]
        ] = {}  # id of a module → why calls in its methods stay as they are
        self.unfused: dict[int, str] = {}  # id of an activation module → why its product is not one call
        self.found: dict[int, list[_Found]] = {}
        self.changes: dict[int, Change] = {}
        self.tried: dict[tuple[Any, bool], str] = {}
        quantized = next((type(m).__name__ for m in model.modules() if "quantized" in type(m).__module__), None)
        self.foreign = "" if quantized is None else f"the model is quantized ({quantized}), and so may its inputs be"

    def modules(self, shapes: dict[str, tuple[int, ...] | None]) -> None:
        """Activation modules."""
        for path, module in self.model.named_modules():
            try:
                found = recipe(module, shapes.get(path))
                if found is None:
                    continue
                if self.foreign:
                    raise Refusal(self.foreign)
                self._change(module, substitute(type(module), found), path)
                self.recipes[id(module)] = found
            except Refusal as refusal:
                self.refused[id(module)] = str(refusal)

    def _change(self, module: nn.Module, cls: type, path: str) -> None:
        change = Change(module, type(module), cls, path or "the model's own forward")
        try:
            change.apply()
            change.revert()
        except TypeError as error:  # a class of another layout
            raise Refusal(f"its class cannot be changed: {error}") from None
        self.changes[id(module)] = change

    def methods(self) -> None:
        """Calls and products in methods."""
        for path, module in self.model.named_modules():
            skip = id(module) in self.refused or id(module) in self.recipes or self.foreign
            if isinstance(module, torch.fx.GraphModule):
                self._stays(module, "it is a traced graph, whose code is made from the graph")
            if skip or type(module).__module__.startswith(_ROOTS):
                continue
            found = list(self._places(module, None if self.sites is None else self.sites.get(path, [])))
            if not found:
                continue
            try:
                refuse_altered(module)
                self._change(module, substitute(type(module), frozenset(each.place for each in found)), path)
            except (Refusal, Unreadable) as reason:
                self._stays(module, str(reason))
                for each in found:
                    if isinstance(each.symbol, nn.Module):
                        self.unfused.setdefault(id(each.symbol), f"{type(module).__name__}: {reason}")
                continue
            self.found[id(module)] = found

    def _stays(self, module: nn.Module, reason: str, of: Container[str | None] = ()) -> None:
        """Why calls in the module's methods stay as they are: all, or those of some activations."""
        self.reasons.setdefault(id(module), []).append((reason, of))

    def _places(self, module: nn.Module, sites: list[Site] | None) -> Iterator[_Found]:
        held = {name for name, value in (*vars(module).items(), *module._modules.items()) if callable(value)}
        for name, function in _methods(type(module)):
            if not (held | _NAMES) & {*global_names(inspect.unwrap(function).__code__)}:
                continue
            try:
                every = [replace(place, method=name) for place in places(function)]
            except Unreadable as reason:
                self._stays(module, f"{function.__qualname__} {reason}")
                continue
            local = locals_of(function)
            taken: set[tuple[int, ...] | None] = set()
            # a product in one call reads the gate after up is made, which such a module might overwrite
            overwrites = any(getattr(each, "inplace", False) is True for each in module.modules())
            # products first: the calls in them are theirs
            for place in sorted(every, key=lambda place: place.kind != "product"):
                symbol = _symbol(place, module, function, local)
                if symbol is None or {place.at, place.stored} & (taken - {None}):
                    continue
                if isinstance(symbol, nn.Module):
                    found = self._of_module(place, symbol)
                else:
                    found = self._of_function(place, symbol, module, sites)
                if found is None:
                    continue
                if found.product and overwrites:
                    self.unfused.setdefault(id(symbol), "a module beside the activation works in place")
                    continue
                taken |= {place.at, place.stored, place.call}
                yield found

    def _of_module(self, place: Place, module: nn.Module) -> _Found | None:
        """A product with an activation module, which itself is replaced where it is."""
        known = self.recipes.get(id(module))
        if place.kind != "product" or known is None:
            return None
        entry = None if known.live else product(known.activation, dict(known.constants))
        if entry is None:
            reason = f"the catalog has no {_word(known)}(gate)·up"
        elif hooked(module):
            reason = "the activation has hooks, which one call would pass by"
        elif getattr(module, "inplace", False):
            reason = "the activation works in place"
        else:
            if (known, True) not in self.tried:
                self.tried[known, True] = _product_tried(known, entry)
            reason = self.tried[known, True]
        if entry is not None and not reason:
            return _Found(place, known.activation, entry, module)
        self.unfused[id(module)] = reason
        return None

    def _of_function(self, place: Place, function: Any, module: nn.Module, sites: list[Site] | None) -> _Found | None:
        try:
            known = FUNCTIONS.get(function)
        except TypeError:  # unhashable
            return None
        runs = None if known is None else known[0] if place.kind != "product" else GATES.get(function)
        if known is None or runs is None:
            return None
        found = _Found(place, known[0], runs, function)
        if sites is not None and not any(found.at(site) for site in sites):
            return None
        key = (function, place.kind == "product")
        if key not in self.tried:
            self.tried[key] = _tried(*key, known[0])
        if self.tried[key]:
            self._stays(module, f"softknee's is not the same: {self.tried[key]}", found.names)
            return None
        return found

    # -- what to say

    def rows(self, sites: tuple[Site, ...]) -> tuple[tuple[Replaced, ...], tuple[Skipped, ...]]:
        executed = self.sites is not None
        rows = [self._row(site) for site in sites if executed or site.form != "functional"]
        told = {site.path for site in sites if executed or site.form != "functional"}
        for path, module in self.model.named_modules() if not executed else ():
            if path not in told and (id(module) in self.recipes or id(module) in self.refused):
                rows.append(self._module(f"{path}#0", module, None))
            for each in self.found.get(id(module), ()):
                if not isinstance(each.symbol, nn.Module):  # which is said where it is
                    where = f"{origin(module).__qualname__}.{each.place.method}:{each.place.lines[0]}"
                    rows.append(Replaced(path, each.activation.name, each.runs.name, "functional", where))
        return (
            tuple(row for row in rows if isinstance(row, Replaced)),
            tuple(row for row in rows if isinstance(row, Skipped)),
        )

    def _row(self, site: Site) -> Replaced | Skipped:
        module = self.model.get_submodule(site.path)
        if site.form == "module" or id(module) in self.recipes or id(module) in self.refused:
            return self._module(site.key, module, site)
        for each in self.found.get(id(module), ()):
            if each.at(site):
                name = str(site.activation) if site.activation != each.runs.name else each.activation.name
                fused = each.product and self._ran(module, each)
                return Replaced(
                    site.key, name, each.runs.name if fused else name, "functional", site.source or "",
                    "" if fused or not each.product else f"not fused: {_UNLIKE}",
                )  # fmt: skip
        return Skipped(site.key, site.activation, self._why(site, module))

    def _module(self, key: str, module: nn.Module, site: Site | None) -> Replaced | Skipped:
        known = self.recipes.get(id(module))
        if known is None:
            reason = self.refused.get(id(module), "it is no module that can be replaced")
            return Skipped(key, site.activation if site is not None else None, reason)
        name, runs, note = known.activation.name, known.activation.name, self.unfused.get(id(module), "")
        products = [
            (owner, each) for owner in self.model.modules() for each in self.found.get(id(owner), ())
            if each.symbol is module
        ]  # fmt: skip
        if any(self._ran(owner, each) for owner, each in products):
            runs, note = products[0][1].runs.name, ""
        elif products:
            whys = [why for owner, _ in products for why, _ in self.reasons.get(id(owner), ())]
            note = "; ".join(dict.fromkeys([_UNLIKE, *whys]))
        elif not note and site is not None and site.role == "gate":
            note = "no method of a module writes the product with it as act(gate) * up"
        return Replaced(key, name, runs, "module", origin(module).__qualname__, note and f"not fused: {note}")

    def _ran(self, owner: nn.Module, each: _Found) -> bool:
        """Whether the place was seen to run as one call; without a run, whether it will."""
        first, _, last, _ = each.place.at
        return each.product and (
            self.seen is None or any((id(owner), line) in self.seen for line in range(first, last + 1))
        )

    def _why(self, site: Site, module: nn.Module) -> str:
        if self.foreign:
            return self.foreign
        if site.form == "fused":
            return "it is inside one kernel of PyTorch's with more than the activation"
        if site.implementation.startswith("softknee."):
            return "it is softknee's already"
        if site.activation is None:
            return site.note.removeprefix("unknown; ").removeprefix("unknown: ") or "the catalog does not have it"
        if site.evidence == "inferred":
            ours = f"softknee.functional.{site.activation}"
            return f"it is written out ({site.implementation}); {ours} is that in one call"
        if site.definition is not None and site.definition.stochastic:
            return "it draws random numbers, and softknee would draw others"
        reasons = [why for why, of in self.reasons.get(id(module), ()) if not of or site.activation in of]
        if reasons:
            return "; ".join(dict.fromkeys(reasons))
        return f"it is called at {site.source}, not by name in a method of {origin(module).__name__}"


_UNLIKE = "the product did not run where it could be one call, or not on two tensors of one shape and dtype"


def _product_tried(known: Recipe, entry: Activation) -> str:
    """Why the gated entry cannot take the place of activation(gate)·up, empty where it can."""

    def theirs(x: Tensor) -> Tensor:
        gate, up = x.chunk(2, -1)
        constants: dict[str, Any] = dict(known.constants)
        return call(known.activation, gate, **constants) * up

    try:
        try_function(theirs, lambda x: call(entry, *x.chunk(2, -1)), entry.name)
    except Refusal as refusal:
        return str(refusal)
    return ""


def _tried(function: Any, fused: bool, activation: Activation) -> str:
    """Why our function cannot take the place of PyTorch's, empty where it can."""
    if any(p.learnable for p in activation.parameters.values()):
        arguments: tuple[Any, ...] = ()
        extra = [p.default for p in activation.parameters.values() if p.learnable]

        def theirs(x: Tensor) -> Any:
            return function(x, *(torch.tensor([value], dtype=x.dtype) for value in extra))

        def ours(x: Tensor) -> Any:
            return applied(function, x, *(torch.tensor([value], dtype=x.dtype) for value in extra))
    elif fused:

        def theirs(x: Tensor) -> Any:
            gate, up = x.chunk(2, -1)
            return function(gate) * up

        def ours(x: Tensor) -> Any:
            gate, up = x.chunk(2, -1)
            return before(function, gate, up)
    else:
        arguments = (-1,) if activation.kind in ("normalizer", "gated") else ()

        def theirs(x: Tensor) -> Any:
            return function(x, *arguments)

        def ours(x: Tensor) -> Any:
            return applied(function, x, *arguments)

    try:
        try_function(theirs, ours, activation.name)
    except Refusal as refusal:
        return str(refusal)
    return ""


def _symbol(place: Place, module: nn.Module, function: types.FunctionType, local: set[str]) -> Any:
    """What is called at the place, None where that cannot be told without running."""
    if place.kind == "method":
        return METHODS.get(place.callee)
    return _resolve(place.callee, module, function, local)


def _word(known: Recipe) -> str:
    settings = ", ".join([*(f"{k}={v:g}" for k, v in known.constants), *known.live])
    return f"{known.activation.name}({settings})" if settings else known.activation.name


_NAMES = {name for f, (a, _, _) in FUNCTIONS.items() for name in (getattr(f, "__name__", ""), str(a.torch), *a.aliases)}


def _methods(cls: type) -> Iterator[tuple[str, types.FunctionType]]:
    """The methods that instances of somebody's class have, most derived first."""
    seen = set()
    for base in cls.__mro__:
        if base.__module__.startswith(_ROOTS) or not issubclass(base, nn.Module):
            continue
        for name, value in vars(base).items():
            if name not in seen and isinstance(value, types.FunctionType) and not name.startswith("__"):
                seen.add(name)
                yield name, value


def _resolve(callee: str, module: nn.Module, function: types.FunctionType, local: set[str]) -> Any:
    """What a dotted name stands for in the module's method now; None where that cannot be told without running."""
    root, *rest = callee.split(".")
    variables = function.__code__.co_varnames
    if variables and root == variables[0] and function.__code__.co_argcount:
        value: Any = module
    elif root in local:
        return None
    elif root in function.__code__.co_freevars:
        cell = (function.__closure__ or ())[function.__code__.co_freevars.index(root)]
        try:
            value = cell.cell_contents
        except ValueError:
            return None
    else:
        value = function.__globals__.get(root)
    for name in rest:
        if isinstance(value, nn.Module):
            held = {**vars(value), **value._modules}
            value = held.get(name, inspect.getattr_static(type(value), name, None))
        elif isinstance(value, (types.ModuleType, type)):
            value = getattr(value, name, None)
        else:
            return None
    return value
