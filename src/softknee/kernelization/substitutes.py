"""Classes that stand in for a module's own: the same module object, another forward.

A module is kernelized by changing its class to one made here from it, and restored by changing it back. Everything
that the module holds stays where it is: parameters, buffers, hooks, the training flag, its place in the model, other
modules' references to it, its keys in the state dict; `isinstance` and the class's name hold as well. Copies and
pickles keep the substitute: it is made again from how it was made, and where that cannot be (the class's source has
changed in the meantime) the module is of its own class again.
"""

from __future__ import annotations

import contextlib
import functools
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn.modules.module import _has_any_global_hook

from ..catalog import Activation, get
from ..functional import function as functional
from ..identification.matching import gated_probes, match_values
from ..identification.recognition import Tables
from ..kernels.dispatch import call
from ..kernels.packed import call_packed
from .rewriting import Place, Unreadable, rewrite


@dataclass(frozen=True)
class Recipe:
    """How an activation module applies its activation: `constants` are passed as they are, `live` parameters are read
    from the module at each call; `wide`: under autocast it is the module's own again, whose steps autocast computes
    in float32."""

    activation: Activation
    constants: tuple[tuple[str, float], ...] = ()
    live: tuple[str, ...] = ()
    wide: bool = False


# of what activations are written with, what autocast computes in float32, on CUDA or elsewhere
WIDE = {
    "cumsum", "exp", "expm1", "log", "log10", "log1p", "log2", "log_softmax", "logsumexp", "norm", "pow", "prod",
    "reciprocal", "rdiv", "rpow", "rsqrt", "sinh", "cosh", "softmax", "softmin", "softplus", "sum", "tan",
}  # fmt: skip


class Substitute(nn.Module):
    """What every substitute has besides its own class."""

    _origin: type
    _made_from: Any
    _gated: Activation | None = None

    def __reduce_ex__(self, protocol: Any) -> Any:
        reduced: Any = super().__reduce_ex__(max(2, int(protocol)))
        return (_blank, (self._origin, self._made_from), *reduced[2:])


def _blank(origin: type, made_from: Any) -> Any:
    cls: Any = origin
    with contextlib.suppress(Unreadable):
        cls = substitute(origin, made_from)
    return cls.__new__(cls)


def substitute(origin: Any, made_from: Recipe | frozenset[Place]) -> type:
    """The substitute of the class: of an activation module by a Recipe, of a class whose methods apply activations
    themselves by the places. Raises Unreadable where the methods' source cannot be had."""
    return _substitute(origin, made_from)


@functools.cache
def _substitute(origin: Any, made_from: Recipe | frozenset[Place]) -> type:
    members: dict[str, Any] = {"_origin": origin, "_made_from": made_from, "__doc__": origin.__doc__}
    if isinstance(made_from, Recipe):
        members |= _members(origin, made_from)
    else:
        for name in sorted({place.method for place in made_from}):
            chosen = frozenset(place for place in made_from if place.method == name)
            members[name] = rewrite(getattr(origin, name), chosen, HELPERS)
    made = type(origin.__name__, (Substitute, origin), members)
    made.__module__ = __name__
    return made


def origin(module: nn.Module) -> type:
    """The module's class as it was before it was kernelized."""
    return type(module)._origin if isinstance(module, Substitute) else type(module)


# -- activation modules


def _members(origin: type, recipe: Recipe) -> dict[str, Any]:
    activation, constants, live = recipe.activation, dict(recipe.constants), recipe.live
    defaults = {name: activation.defaults[name] for name in live}
    theirs: Callable[..., Any] = origin.forward  # type: ignore[attr-defined]
    kept = {*live, "training", "inplace", "dim"}

    def parameters(module: Any) -> dict[str, Any]:
        # what is at its default is left out: the call is shorter
        given = dict(constants)
        for name, default in defaults.items():
            value = getattr(module, name)
            if isinstance(value, Tensor) or value != default:
                given[name] = value
        return given

    def elementwise(self: Any, *args: Any, **kwargs: Any) -> Any:
        if len(args) != 1 or kwargs or not plain(args[0]) or (recipe.wide and widened(args[0])):
            return theirs(self, *args, **kwargs)
        given = parameters(self) if defaults or constants else {}
        if self.__dict__.get("inplace"):
            given["inplace"] = True
        return call(activation, args[0], **given)

    def normalizer(self: Any, *args: Any, **kwargs: Any) -> Any:
        dim = getattr(self, "dim", activation.dim)
        if len(args) != 1 or kwargs or not plain(args[0]) or dim is None or (recipe.wide and widened(args[0])):
            return theirs(self, *args, **kwargs)
        return call(activation, args[0], dim=dim, **parameters(self))

    def gated(self: Any, *args: Any, **kwargs: Any) -> Any:
        if len(args) != 1 or kwargs or not plain(args[0]) or args[0].size(self.dim) % 2:
            return theirs(self, *args, **kwargs)
        return call_packed(activation, args[0], self.dim, str(activation.layout), **parameters(self))

    def __setattr__(self: Any, name: str, value: Any) -> None:
        # whatever else its own forward reads: from here on it is the module's own again
        if name not in kept and not name.startswith("_"):
            object.__setattr__(self, "__class__", origin)
        nn.Module.__setattr__(self, name, value)

    def _get_name(self: Any) -> str:
        return f"softknee.{origin.__name__}"

    forward = {"elementwise": elementwise, "normalizer": normalizer, "gated": gated}[activation.kind]
    gate = None if live else product(activation, constants)
    # activation and settings: what identification knows an activation module by
    return {
        "forward": forward, "__setattr__": __setattr__, "_get_name": _get_name, "_gated": gate,
        "activation": activation, "settings": constants,
    }  # fmt: skip


def plain(x: Any) -> bool:
    """Whether it is a tensor of real numbers as the catalog's activations take them: dense, not quantized."""
    return isinstance(x, Tensor) and x.is_floating_point() and x.layout == torch.strided and not x.is_nested


def widened(x: Tensor) -> bool:
    """Whether autocast is on where x is."""
    return torch.is_autocast_enabled(x.device.type)


def product(activation: Activation, parameters: dict[str, Any]) -> Activation | None:
    """The catalog's entry for activation(gate)·up, at its defaults; None where it has none."""
    if activation.kind != "elementwise" or activation.stochastic:
        return None
    return _product(activation, tuple(sorted(parameters.items())))


@functools.cache
def _product(activation: Activation, parameters: tuple[tuple[str, float], ...]) -> Activation | None:
    gate, up = gated_probes()
    found = match_values((gate, up), activation.value(gate, **dict(parameters)) * up)
    if found.activation is None or found.order != "gate_up" or found.distance > 1e-12:
        return None
    entry = get(found.activation)
    return entry if found.parameters == entry.defaults else None


# -- functions

TABLES = Tables()


def _functions() -> dict[Any, tuple[Activation, Callable[..., Tensor], bool]]:
    """PyTorch's function → an entry that it may be, our function with its signature, whether it works in place."""
    found = {}
    for function, entries in TABLES.functions.items():
        entry = entries[0].activation
        if entry is not None and not entry.stochastic:
            inplace = getattr(function, "__name__", "").endswith("_")
            ours = functional(get(str(entry.torch)) if entry.torch_arguments else entry)
            found[function] = (entry, functools.partial(ours, inplace=True) if inplace else ours, inplace)
    return found


FUNCTIONS = _functions()
OURS = {function: ours for function, (_, ours, _) in FUNCTIONS.items()}
# those that a product takes away; PyTorch's in-place ones change the gate, which stays to be read
GATES = {
    function: gate
    for function, (_, _, inplace) in FUNCTIONS.items()
    if not inplace
    and (entry := TABLES.of_call(function, (), {})) is not None
    and entry.activation is not None
    and not any(p.learnable for p in entry.activation.parameters.values())
    and (gate := product(entry.activation, {})) is not None
}
WIDENED = {function for function, (entry, _, _) in FUNCTIONS.items() if entry.torch in WIDE}
REDUCING = {function for function, (entry, _, _) in FUNCTIONS.items() if entry.kind == "normalizer"}
METHODS = {n: f for f in OURS if getattr(torch.Tensor, n := getattr(f, "__name__", ""), None) is f}


def takes(function: Any, args: tuple, kwargs: dict[str, Any]) -> bool:
    """Whether our function takes this call of PyTorch's as it is."""
    if not args or not plain(args[0]) or "out" in kwargs or "_stacklevel" in kwargs:
        return False
    if function in WIDENED and widened(args[0]):
        return False
    if function in REDUCING:
        dim = args[1] if len(args) > 1 else kwargs.get("dim")
        return len(args) < 3 and isinstance(dim, int)
    return True


def applied(function: Any, *args: Any, **kwargs: Any) -> Any:
    """`function(*args, **kwargs)`"""
    ours = OURS.get(function) if not isinstance(function, nn.Module) else None
    if ours is None or not takes(function, args, kwargs):
        return function(*args, **kwargs)
    return ours(*args, **kwargs)


def method(receiver: Any, name: str, *args: Any, **kwargs: Any) -> Any:
    """`receiver.name(*args, **kwargs)`"""
    if type(receiver) is Tensor and name in METHODS:
        return applied(METHODS[name], receiver, *args, **kwargs)
    return getattr(receiver, name)(*args, **kwargs)


def before(function: Any, gate: Any, up: Any) -> Any:
    """`function(gate) * up`"""
    entry = _entry(function)
    if entry is None or not _alike(gate, up):
        return applied(function, gate) * up
    return call(entry, gate, up)


def after(up: Any, function: Any, gate: Any) -> Any:
    """`up * function(gate)`"""
    entry = _entry(function)
    if entry is None or not _alike(gate, up):
        return up * applied(function, gate)
    return call(entry, gate, up)


HELPERS: dict[str, Callable[..., Any]] = {"call": applied, "method": method, "before": before, "after": after}


def _entry(function: Any) -> Activation | None:
    if not isinstance(function, nn.Module):
        return GATES.get(function)
    if isinstance(function, Substitute) and not hooked(function) and "forward" not in function.__dict__:
        return None if function.__dict__.get("inplace") else function._gated
    return None


def hooked(module: nn.Module) -> bool:
    """Whether somebody listens to the module's calls, which a product would pass by."""
    own = module._forward_hooks or module._forward_pre_hooks or module._backward_hooks or module._backward_pre_hooks
    return bool(own) or bool(_has_any_global_hook())


def _alike(gate: Any, up: Any) -> bool:
    return (
        plain(gate)
        and isinstance(up, Tensor)
        and (gate.dtype, gate.shape, gate.device) == (up.dtype, up.shape, up.device)
    )
