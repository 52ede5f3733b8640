"""`kernelize`: a model's activations run by softknee, `act(gate) * up` as one call, verified, and taken back by `revert`.

No module is exchanged: the modules that apply activations change their class (`substitutes`), those that write the
product out get their method with that one expression replaced (`rewriting`). Parameters, state dict, hooks, shared
modules, modes and devices are what they were. Nothing else of this package knows this module: it stands on
identification.
"""

from __future__ import annotations

import gc
import inspect
import statistics
import sys
import time
import types
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import Any

import torch
from torch import Tensor, nn
from torch.overrides import TorchFunctionMode

from ..catalog import Activation
from ..errors import InputError, SoftkneeError
from ..identification import Site, identify
from ..identification.models import arguments
from ..identification.observation import original
from ..identification.preservation import unchanged
from ..identification.recognition import tensors
from ..plain import plain_fields
from .recipes import Refusal, recipe, refuse_altered
from .rewriting import Place, Unreadable, locals_of, places
from .substitutes import FUNCTIONS, GATES, METHODS, REDUCING, TABLES, Recipe, Substitute, hooked, origin, product, substitute

ULPS = 4
"""By how many units in the last place an activation's value may differ without being another activation."""
FACTOR = 4.0
SECONDS, ROUNDS = 1.0, 9
_ROOTS = ("torch.", "transformers.modeling_utils", "softknee.")


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


@dataclass(frozen=True)
class Skipped:
    """A site that stays as it is, and why. activation: None where it is unknown."""

    site: str
    activation: str | None
    reason: str


@dataclass(frozen=True)
class Verification:
    """What was compared and how far apart it was.

    compared: "outputs", "outputs and gradients", or "each site by itself"; max_difference: the largest |difference|,
    at the tensor `at`, where `tolerance` was allowed; None where each site was tried by itself. judged: how.
    """

    compared: str
    judged: str
    max_difference: float | None = None
    tolerance: float | None = None
    at: str = ""


@dataclass(frozen=True)
class Kernelization:
    """What `kernelize` did to a model.

    seconds_before, seconds_after: median time of a forward pass, with its backward pass where the model is in training
    mode; bytes_before, bytes_after: what autograd keeps for backward, each storage once, without parameters and
    buffers; all None without example inputs, the bytes also where nothing requires gradients. timed: what was timed.
    """

    model: str
    replaced: tuple[Replaced, ...] = ()
    skipped: tuple[Skipped, ...] = ()
    verified: Verification | None = None
    seconds_before: float | None = None
    seconds_after: float | None = None
    bytes_before: int | None = None
    bytes_after: int | None = None
    timed: str = ""
    notes: tuple[str, ...] = ()
    changes: tuple[Change, ...] = field(default=(), repr=False, compare=False)

    def revert(self) -> None:
        """Makes the model what it was before. Safe to call twice, and after training: only classes change back."""
        for change in self.changes:
            change.revert()

    @property
    def fused(self) -> int:
        """How many sites run as one call with the product."""
        return sum(site.fused for site in self.replaced)

    @property
    def verdict(self) -> str:
        """One sentence."""
        if not self.replaced:
            return "nothing to replace" + (f": {len(self.skipped)} sites stay as they are" if self.skipped else "")
        fused = f", {self.fused} of them with their product" if self.fused else ""
        skipped = f"; {len(self.skipped)} skipped" if self.skipped else ""
        sites = "site runs" if len(self.replaced) == 1 else "sites run"
        return f"{len(self.replaced)} {sites} softknee{fused}{skipped}"

    def to_dict(self) -> dict[str, Any]:
        return plain_fields(self, leave_out=("changes",)) | {"verdict": self.verdict}

    def __str__(self) -> str:
        lines = [f"{self.model}: {self.verdict}"]
        lines += [
            f"  {r.site}  {r.activation}" + (f" → {r.runs}" if r.fused else "") + (f"; {r.note}" if r.note else "")
            for r in self.replaced
        ]
        lines += [f"  skipped {s.site}  {s.activation or 'unknown'}: {s.reason}" for s in self.skipped]
        if self.verified is not None:
            lines.append(f"verified: {said(self.verified)}")
        if self.seconds_before is not None and self.seconds_after is not None:
            lines.append(f"{self.timed}: {1e3 * self.seconds_before:.3g} → {1e3 * self.seconds_after:.3g} ms")
        if self.bytes_before is not None and self.bytes_after is not None:
            lines.append(f"kept for backward: {self.bytes_before:,} → {self.bytes_after:,} bytes")
        lines += [f"note: {note}" for note in self.notes]
        return "\n".join(lines)


def said(verified: Verification) -> str:
    """The verification in a sentence."""
    if verified.max_difference is None:
        return f"{verified.compared}: {verified.judged}"
    return (
        f"{verified.compared} differ by {verified.max_difference:.2g} at most, {verified.tolerance:.2g} allowed: "
        f"{verified.judged}"
    )


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


def kernelize(model: nn.Module, example_inputs: Any = None) -> Kernelization:
    """Lets softknee run the model's activations, in place, and returns what was done; `.revert()` takes it back.

    Replaced are activation modules, PyTorch's, transformers' and anyone's that behave as a catalog entry; activation
    functions called in a module's own methods; and products `act(gate) * up` written there, which become one call
    where the catalog has the gated activation. What stays as it is stands in `.skipped`, with the reason.

    model: a module; what `torch.compile` or DataParallel wraps is taken out of the wrapper. example_inputs: as for
    `identify`. With them the model is run, its outputs (in training mode gradients too) before and after are compared,
    time and bytes kept for backward measured; without them each replacement is tried by itself.
    Raises InputError for something that is no module and inputs that the model does not take; SoftkneeError where
    outputs differ by more than rounding explains: then nothing is changed, and the error names the first site.
    """
    if not isinstance(model, nn.Module):
        got = f"the class {model.__name__}: make one" if isinstance(model, type) else type(model).__name__
        raise InputError(f"model must be a torch.nn.Module, got {got}")
    model = original(model)
    census = identify(model, example_inputs)
    survey = _Survey(model)
    with unchanged(model):
        survey.modules({site.path: site.shape for site in census if site.form == "module"})
        survey.methods([site for site in census if site.form == "functional"] if census.executed else None)
    replaced, skipped = survey.rows(census.sites, census.executed)
    result = {"model": census.model, "replaced": replaced, "skipped": skipped, "notes": _notes(model, census.executed)}
    changes = tuple(survey.changes.values())
    if not changes:
        return Kernelization(**result)
    if example_inputs is None:
        judged = "values and gradients on random inputs, in float64 and in the model's dtype"
        for change in changes:
            change.apply()
        return Kernelization(**result, changes=changes, verified=Verification("each site by itself", judged))
    trial = _Trial(model, example_inputs, changes)
    try:
        measured = trial.run()
    except BaseException:
        for change in changes:
            change.revert()
        raise
    return Kernelization(**result, changes=changes, **measured)


def _notes(model: nn.Module, executed: bool) -> tuple[str, ...]:
    notes = []
    if not executed:
        notes.append("not executed (no example inputs): neither time nor bytes are known, nor which calls are made")
    if any(hasattr(m, "_compiled_call_impl") and m._compiled_call_impl is not None for m in model.modules()):
        notes.append("a module is compiled: compiled code is made anew at the next call, from softknee's composites")
    return tuple(notes)


# -- finding


class _Survey:
    """What can be replaced in a model, and what cannot for which reason."""

    def __init__(self, model: nn.Module) -> None:
        self.model = model
        self.paths = {id(module): path for path, module in model.named_modules()}
        self.recipes: dict[int, Recipe] = {}
        self.refused: dict[int, str] = {}
        self.changes: dict[int, Change] = {}
        self.places: dict[str, list[tuple[Place, Activation, Activation]]] = {}  # path → place, activation, runs
        self.fused: dict[int, str] = {}  # id of an activation module → the entry that its product runs as
        self.unfused: dict[int, str] = {}  # … → why not
        self.unreadable: dict[str, list[str]] = {}
        quantized = next((type(m).__name__ for m in model.modules() if "quantized" in type(m).__module__), None)
        self.foreign = None if quantized is None else f"the model is quantized ({quantized}): its inputs may be too"

    def modules(self, shapes: dict[str, tuple[int, ...] | None]) -> None:
        """Activation modules."""
        for path, module in self.model.named_modules():
            try:
                found = recipe(module, shapes.get(path))
                if found is not None and self.foreign is not None:
                    raise Refusal(self.foreign)
            except Refusal as refusal:
                self.refused[id(module)] = str(refusal)
                continue
            if found is not None:
                self.recipes[id(module)] = found
                self._change(module, substitute(type(module), found), path)

    def _change(self, module: nn.Module, cls: type, path: str) -> None:
        self.changes[id(module)] = Change(module, type(module), cls, path or "the model's own forward")

    def methods(self, sites: list[Site] | None) -> None:
        """Calls and products in methods. sites: the functional ones that were executed, None if nothing was."""
        wanted: dict[str, list[Site]] = {}
        for site in sites or ():
            wanted.setdefault(site.path, []).append(site)
        for path, module in self.model.named_modules():
            if id(module) in self.recipes or id(module) in self.refused or self.foreign is not None:
                continue
            if type(module).__module__.startswith(_ROOTS):
                continue
            found = list(self._places(path, module, None if sites is None else wanted.get(path, [])))
            if not found:
                continue
            try:
                if isinstance(module, Substitute):
                    raise Refusal("it is softknee's already")
                refuse_altered(module)
                cls = substitute(type(module), frozenset(place for place, _, _ in found))
            except (Refusal, Unreadable) as reason:
                self.unreadable.setdefault(path, []).append(str(reason))
                continue
            self.places[path] = found
            self._change(module, cls, path)

    def _places(
        self, path: str, module: nn.Module, sites: list[Site] | None
    ) -> Iterator[tuple[Place, Activation, Activation]]:
        for function in _methods(type(module)):
            names = {*function.__code__.co_names, *(n for c in _codes(function.__code__) for n in c.co_names)}
            if not names & self._interesting(module):
                continue
            try:
                every = places(function)
            except Unreadable as reason:
                self.unreadable.setdefault(path, []).append(f"{function.__qualname__} {reason}")
                continue
            local = locals_of(function)
            taken: set[tuple[int, ...]] = set()
            for place in sorted(every, key=lambda p: (p.kind != "product", p.kind)):
                if place.at in taken or (place.stored and place.stored in taken):
                    continue
                found = self._replacement(module, function, place, local, sites)
                if found is not None:
                    taken.update({place.at, *([place.stored] if place.stored else [])})
                    if place.kind == "product":  # the call in it is gone
                        taken.update(p.at for p in every if p.kind != "product" and p.lines == place.lines and p.callee == place.callee)
                    yield (place, *found)

    @staticmethod
    def _interesting(module: nn.Module) -> set[str]:
        children = {name for name, _ in module.named_children()}
        own = {name for name, value in vars(module).items() if callable(value)}
        return {*children, *own, *_NAMES}

    def _replacement(
        self, module: nn.Module, function: types.FunctionType, place: Place, local: set[str], sites: list[Site] | None
    ) -> tuple[Activation, Activation] | None:
        """The activation applied at the place, and what is to run there; None for anything else."""
        if place.kind == "method":
            symbol = METHODS.get(place.callee)
        else:
            symbol = _resolve(place.callee, module, function, local)
        if isinstance(symbol, nn.Module):
            known = self.recipes.get(id(symbol))
            if place.kind != "product" or known is None:
                return None
            entry = None if known.live else product(known.activation, dict(known.constants))
            reason = self._against(symbol, known, entry)
            if reason:
                self.unfused.setdefault(id(symbol), reason)
                return None
            assert entry is not None
            self.fused[id(symbol)] = entry.name
            return known.activation, entry
        try:
            if symbol not in FUNCTIONS:
                return None
        except TypeError:
            return None
        if place.kind == "product":
            if symbol not in GATES:
                return None
            entry_of = TABLES.of_call(symbol, (), {})
            assert entry_of is not None and entry_of.activation is not None
            activation, runs = entry_of.activation, GATES[symbol]
        else:
            activation = runs = FUNCTIONS[symbol][0]
        if sites is not None:
            there = [site for site in sites if _stands(site, place)]
            names = {activation.name, runs.name} | {a.name for a in _variants(activation)}
            if not any(site.activation in names for site in there):
                return None
        return activation, runs

    @staticmethod
    def _against(module: nn.Module, known: Recipe, entry: Activation | None) -> str:
        if entry is None:
            return f"the catalog has no gated {_word(known)}"
        if hooked(module):
            return "the activation has hooks, which one call would pass by"
        if getattr(module, "inplace", False):
            return "the activation works in place"
        return ""

    # -- what to say

    def rows(self, sites: tuple[Site, ...], executed: bool) -> tuple[tuple[Replaced, ...], tuple[Skipped, ...]]:
        replaced, skipped = [], []
        seen = set()
        for site in sites:
            row = self._row(site)
            (replaced if isinstance(row, Replaced) else skipped).append(row)
            seen.add(site.path)
        if not executed:
            for path, module in self.model.named_modules():
                if path in seen:
                    continue
                if id(module) in self.recipes or id(module) in self.refused:
                    row = self._module_row(f"{path}#0", module)
                    (replaced if isinstance(row, Replaced) else skipped).append(row)
                for place, activation, runs in self.places.get(path, ()):
                    if runs.kind == "gated" and activation.kind != "gated" and not _is_function(place, module):
                        continue  # said with the activation module
                    where = f"{type(module).__name__}.{place.method}:{place.lines[0]}"
                    replaced.append(Replaced(path, activation.name, runs.name, "functional", where))
        return tuple(replaced), tuple(skipped)  # type: ignore[arg-type]

    def _row(self, site: Site) -> Replaced | Skipped:
        module = self.model.get_submodule(site.path)
        if site.form == "module" or id(module) in self.recipes or id(module) in self.refused:
            return self._module_row(site.key, module, site)
        if site.form == "fused":
            return Skipped(site.key, site.activation, "it is inside PyTorch's own kernel of the whole layer")
        for place, activation, runs in self.places.get(site.path, ()):
            if _stands(site, place) and site.activation in {activation.name, runs.name, *(a.name for a in _variants(activation))}:
                name = site.activation if runs is activation else activation.name
                shown = name if runs is activation else runs.name
                return Replaced(site.key, str(name), str(shown), "functional", site.source or "")
        return Skipped(site.key, site.activation, self._why(site, module))

    def _module_row(self, key: str, module: nn.Module, site: Site | None = None) -> Replaced | Skipped:
        known = self.recipes.get(id(module))
        if known is None:
            name = None if site is None else site.activation
            return Skipped(key, name, self.refused.get(id(module), "it is none of the modules that can be replaced"))
        runs = self.fused.get(id(module))
        note = ""
        if runs is None and site is not None and site.role == "gate":
            note = f"not fused: {self.unfused.get(id(module)) or 'no product act(gate) * up is written in a method of its own'}"
        elif runs is None and id(module) in self.unfused:
            note = f"not fused: {self.unfused[id(module)]}"
        name = known.activation.name
        return Replaced(key, name, runs or name, "module", origin(module).__qualname__, note)

    def _why(self, site: Site, module: nn.Module) -> str:
        if self.foreign is not None:
            return self.foreign
        if isinstance(module, Substitute):
            return "it is softknee's already"
        if site.implementation.startswith("softknee."):
            return "it is softknee's already"
        if "→" in site.implementation:
            return f"it is written out ({site.implementation}); softknee.functional.{site.activation} is that in one call"
        definition = site.definition
        if definition is not None and definition.stochastic:
            return "it draws random numbers, and softknee would draw others"
        if site.path in self.unreadable:
            return "; ".join(dict.fromkeys(self.unreadable[site.path]))
        if site.activation is None:
            return site.note or "the catalog does not have it"
        return f"it is called at {site.source}, outside the methods of {type(module).__name__} that can be rewritten"


def _is_function(place: Place, module: nn.Module) -> bool:
    function = inspect.getattr_static(type(module), place.method)
    return not isinstance(_resolve(place.callee, module, function, locals_of(function)), nn.Module)


def _word(known: Recipe) -> str:
    settings = ", ".join([*(f"{k}={v:g}" for k, v in known.constants), *known.live])
    return f"{known.activation.name}({settings})" if settings else known.activation.name


def _variants(activation: Activation) -> list[Activation]:
    """Activations that one function of PyTorch's is, told apart by an argument."""
    if not activation.torch_arguments:
        return [activation]
    return [a for a, _, _ in FUNCTIONS.values() if a.torch == activation.torch] + [
        e.activation for entries in TABLES.functions.values() for e in entries
        if e.activation is not None and e.activation.torch == activation.torch
    ]  # fmt: skip


_NAMES = {name for function in FUNCTIONS for name in (getattr(function, "__name__", ""),)} | {
    str(activation.torch) for activation, _, _ in FUNCTIONS.values()
} | {"expit", "logsigmoid"}  # fmt: skip


def _codes(code: types.CodeType) -> Iterator[types.CodeType]:
    for each in code.co_consts:
        if isinstance(each, types.CodeType):
            yield each
            yield from _codes(each)


def _methods(cls: type) -> Iterator[types.FunctionType]:
    """The methods that instances of somebody's class have, most derived first."""
    seen = set()
    for base in cls.__mro__:
        if base.__module__.startswith(_ROOTS) or base is object:
            continue
        for name, value in vars(base).items():
            if name not in seen and isinstance(value, types.FunctionType) and not name.startswith("__"):
                seen.add(name)
                if value.__name__ == name:
                    yield value


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


def _stands(site: Site, place: Place) -> bool:
    line = (site.source or "").rpartition(":")[2]
    return line.isdigit() and place.lines[0] <= int(line) <= place.lines[1]


# -- verifying and measuring


class _Rounding(TorchFunctionMode):
    """Moves every value of softknee's activations by up to ULPS units in the last place of itself and of the mean."""

    def __init__(self, seed: int) -> None:
        super().__init__()
        self.seed = seed

    def __torch_function__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        result = func(*args, **(kwargs or {}))
        if not isinstance(func, Activation):
            return result
        self.seed += 1
        generator = torch.Generator(result.device).manual_seed(self.seed)
        noise = torch.rand(result.shape, generator=generator, device=result.device, dtype=torch.float32) * 2 - 1
        y = result.detach()
        size = torch.where(y.isfinite(), y.abs(), 0.0)
        moved = noise.to(y.dtype) * ULPS * torch.finfo(y.dtype).eps * (size + size.mean())
        return result + moved


class _Trial:
    """A model run with and without the changes on the same inputs."""

    def __init__(self, model: nn.Module, example_inputs: Any, changes: tuple[Change, ...]) -> None:
        self.model = model
        self.example_inputs = example_inputs
        self.changes = changes
        self.modes = [(module, module.training) for module in model.modules()]
        self.training = model.training
        self.leaves = [(n, p) for n, p in model.named_parameters() if p.requires_grad]
        # what a run with the same random numbers compares: outputs, in training gradients
        self.backward = self.training and bool(self.leaves)

    def run(self) -> dict[str, Any]:
        theirs = self._results()
        self._apply()
        ours = self._results()
        rounded = [self._results(_Rounding(1000 * seed)) for seed in (1, 2)]
        verified = self._judged(theirs, ours, rounded)
        if isinstance(verified, str):
            where = self._where(theirs, rounded)
            self._revert()
            raise SoftkneeError(f"{type(self.model).__name__}: {verified}; {where}; the model is as it was")
        after = self._bytes()
        self._revert()
        before = self._bytes()
        seconds = self._seconds()
        self._apply()
        return {
            "verified": verified, "seconds_before": seconds[0], "seconds_after": seconds[1], "bytes_before": before,
            "bytes_after": after, "timed": "forward and backward" if self.backward else "forward",
        }  # fmt: skip

    def _apply(self, only: Change | None = None) -> None:
        for change in self.changes:
            change.revert() if only is not None and change is not only else change.apply()

    def _revert(self) -> None:
        for change in self.changes:
            change.revert()

    @contextmanager
    def _running(self, gradients: bool) -> Iterator[tuple[tuple, dict[str, Any]]]:
        with unchanged(self.model):
            for module, training in self.modes:
                module.training = training
            torch.manual_seed(0)  # the same dropout in every run
            with torch.set_grad_enabled(gradients):
                yield arguments(self.example_inputs)

    def _results(self, mode: TorchFunctionMode | None = None) -> dict[str, Tensor]:
        """{name: tensor}: outputs, and in training the gradients of a fixed random sum of them."""
        with self._running(self.backward) as (args, kwargs):
            if mode is None:
                output = self.model(*args, **kwargs)
            else:
                with mode:
                    output = self.model(*args, **kwargs)
            found = [t for t in tensors(output) if t.is_floating_point()]
            results = {f"output {i}": t.detach().clone() for i, t in enumerate(found)}
            if self.backward:
                results |= self._gradients(found)
        return results

    def _gradients(self, outputs: list[Tensor]) -> dict[str, Tensor]:
        recorded = [y for y in outputs if y.requires_grad]
        if not recorded:
            return {}
        weights = []
        for i, y in enumerate(recorded):
            generator = torch.Generator(y.device).manual_seed(i)
            weights.append(torch.randn(y.shape, generator=generator, device=y.device).to(y.dtype))
        grads = torch.autograd.grad(recorded, [p for _, p in self.leaves], weights, allow_unused=True)
        named = zip(self.leaves, grads, strict=True)
        return {f"gradient of {name}": grad for (name, _), grad in named if grad is not None}

    def _judged(
        self, theirs: dict[str, Tensor], ours: dict[str, Tensor], rounded: list[dict[str, Tensor]]
    ) -> Verification | str:
        """The verification, or what is wrong."""
        if theirs.keys() != ours.keys():
            return f"{', '.join(sorted(theirs.keys() ^ ours.keys()))} exist only in one of two runs, before and after"
        if not theirs:
            return Verification("outputs", "there is no tensor of floating-point numbers among them")
        worst: tuple[float, str, float, float] = (-1.0, "", 0.0, 0.0)
        for name, wanted in theirs.items():
            got = ours[name]
            if (got.dtype, got.shape) != (wanted.dtype, wanted.shape):
                return f"{name} is {got.dtype} {tuple(got.shape)} where it was {wanted.dtype} {tuple(wanted.shape)}"
            size = _largest(wanted)
            noise = max(_apart(each[name], got) for each in rounded if name in each)
            allowed = FACTOR * (noise + torch.finfo(wanted.dtype).eps * size)
            away = _apart(got, wanted)
            share = away / allowed if allowed else float(away > 0)
            if share > worst[0] or share != share:
                worst = (share, name, away, allowed)
        share, name, away, allowed = worst
        if not share <= 1:
            return f"{name} differs by {away:.2g} where rounding explains {allowed:.2g}"
        judged = (
            f"{FACTOR:g} times what it makes when every activation is moved by {ULPS} units in its last place, same "
            "inputs and random numbers"
        )
        compared = "outputs and gradients" if self.backward else "outputs"
        return Verification(compared, judged, away, allowed, name)

    def _where(self, theirs: dict[str, Tensor], rounded: list[dict[str, Tensor]]) -> str:
        """The first change that alone makes the difference."""
        for change in self.changes:
            self._apply(change)
            if isinstance(self._judged(theirs, self._results(), rounded), str):
                return f"replacing {change.site} ({change.theirs.__name__}) alone makes it so"
        return "no replacement alone makes it so"

    def _bytes(self) -> int | None:
        if not self.leaves:
            return None
        known = {t.untyped_storage()._cdata for t in (*self.model.parameters(), *self.model.buffers()) if not t.is_meta}
        kept: dict[int, int] = {}

        def pack(tensor: Tensor) -> Tensor:
            if tensor.layout == torch.strided:
                storage = tensor.untyped_storage()
                if storage._cdata not in known:
                    kept[storage._cdata] = storage.nbytes()
            return tensor

        with self._running(True) as (args, kwargs), torch.autograd.graph.saved_tensors_hooks(pack, lambda t: t):
            output = self.model(*args, **kwargs)  # alive until all is counted
        del output
        return sum(kept.values())

    def _seconds(self) -> tuple[float, float]:
        """Median seconds without and with the changes, in turn, in the same process."""
        timings: tuple[list[float], list[float]] = ([], [])
        with self._running(self.backward) as given:
            spent = 0.0
            for round_ in range(ROUNDS + 1):
                for which, change in enumerate((self._revert, self._apply)):
                    change()
                    seconds = self._once(given)
                    if round_:  # the first warms up
                        timings[which].append(seconds)
                    spent += seconds
                if round_ and spent > SECONDS:
                    break
        return statistics.median(timings[0]), statistics.median(timings[1])

    def _once(self, given: tuple[tuple, dict[str, Any]]) -> float:
        args, kwargs = given
        gc_was_on = gc.isenabled()
        gc.disable()
        try:
            self._wait()
            start = time.perf_counter()
            output = self.model(*args, **kwargs)
            if self.backward:
                self._gradients([t for t in tensors(output) if t.is_floating_point()])
            self._wait()
            return time.perf_counter() - start
        finally:
            if gc_was_on:
                gc.enable()

    def _wait(self) -> None:
        if any(p.device.type == "cuda" for p in self.model.parameters()):
            torch.cuda.synchronize()


def _largest(tensor: Tensor) -> float:
    known = torch.where(tensor.isfinite(), tensor.abs(), 0.0)
    return float(known.max()) if known.numel() else 0.0


def _apart(a: Tensor, b: Tensor) -> float:
    """The largest |a − b|; equal infinities and NaNs are no difference, other ones are infinite."""
    if not a.numel():
        return 0.0
    a, b = a.double(), b.double()
    away = torch.where((a == b) | (a.isnan() & b.isnan()), 0.0, (a - b).abs())
    return float(torch.where(away.isnan(), torch.inf, away).max())
