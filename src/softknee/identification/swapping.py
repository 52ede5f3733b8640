"""`swap`: other activations in a model, and nothing else changed: weights, dtypes, devices, modes, hooks' owners.

What is swapped is a module, or a function that a module holds (`self.activation = F.relu`). An activation that is a
call in somebody's forward is not ours to rewrite: the error says where it stands.
"""

from __future__ import annotations

import copy
import inspect
import math
from collections.abc import Mapping
from typing import Any

import torch
from torch import nn

from ..catalog import Activation, get
from ..catalog.chosen import chosen
from ..errors import InputError, closest
from .census import Census, Site
from .differences import gate
from .models import identify
from .observation import original

Target = str | Activation | nn.Module


def swap(
    model: nn.Module,
    changes: Mapping[str, Target],
    example_inputs: Any = None,
    *,
    inplace: bool = False,
) -> nn.Module:
    """`model` with other activations: a copy, or itself where `inplace`.

    changes: what to swap → what for. A key is an activation ("gelu_tanh", with parameters "leaky_relu:negative_slope=
    0.2", gated ones as "swiglu"), a site's key ("blocks.0.act#0") or a module's path. A value is a name, with
    parameters or without, an `Activation`, or a module, of which each place gets a copy. example_inputs: as for
    `identify`, whose Census tells the sites; without them only what modules declare is known.

    The new modules have the training mode of the old ones, and dtype and device of the model's parameters near them.
    Raises InputError for a key that names nothing in the model, and for a site that cannot be swapped, with the reason.
    """
    if not isinstance(model, nn.Module):
        raise InputError(f"model must be a torch.nn.Module, got {type(model).__name__}")
    if not isinstance(changes, Mapping) or not changes:
        raise InputError(f"changes must map activations or sites to what they become, got {changes!r}")
    census = identify(model, example_inputs)
    chosen = [(site, target) for key, target in changes.items() for site in _sites(census, key, model, changes)]
    if not inplace:
        model = copy.deepcopy(model)
    inner = original(model)
    done: dict[str, Site] = {}
    for site, target in chosen:
        new = _target(site, target)
        if site.form == "module":
            if site.path in done:  # a module that is used several times has several sites
                continue
            swapped = put(inner, site.path, new)
            if swapped is not inner:  # the model itself is the activation
                return swapped
        else:
            _put_function(inner, site, new)
        done[site.path] = site
    return model


def put(model: nn.Module, path: str, module: nn.Module) -> nn.Module:
    """`model` with `module` in the place of the module at `path`, and wherever else the model holds that one.

    Mode, dtype and device are taken over. The root itself is replaced where the path is empty.
    """
    old = submodule(model, path)
    like = next((t for t in (*old.parameters(), *model.parameters()) if t.is_floating_point()), None)
    if like is not None and not like.is_meta:
        module.to(device=like.device, dtype=like.dtype)
    module.train(old.training)
    if old is model:
        return module
    for parent in list(model.modules()):
        for name, child in parent._modules.items():
            if child is old:
                setattr(parent, name, module)
                _tell(parent)
    return model


def submodule(model: nn.Module, path: str) -> nn.Module:
    """The module at `path`. Raises InputError where there is none."""
    try:
        return model.get_submodule(path)
    except AttributeError:
        kind = type(model).__name__
        raise InputError(f"{kind} has no module {path!r}; it is another model than was identified") from None


def module_of(activation: Activation) -> nn.Module:
    """A module that applies it: PyTorch's own where it has one, so that the model needs no softknee to run."""
    if activation.torch_module is None:
        return activation.module()
    cls = getattr(nn, activation.torch_module)
    known = inspect.signature(cls).parameters
    given = {name: v for name, v in activation.defaults.items() if math.isfinite(v)}  # no limit is no argument
    learned = any(parameter.learnable for parameter in activation.parameters.values())  # it starts where PyTorch says
    if not learned and not given.keys() <= known.keys():
        return activation.module()
    return cls(**activation.torch_arguments, **({} if learned else given))


# -- what is asked for


def _sites(census: Census, key: str, model: nn.Module, changes: Mapping[str, Target]) -> list[Site]:
    """The sites that `key` names."""
    if not isinstance(key, str):
        raise InputError(f"changes: a key is the name of an activation or a site, got {key!r}")
    found = [site for site in census if key in (site.key, site.path)]
    if not found:
        wanted = _named(key)
        if wanted is None:
            known = dict.fromkeys([s.activation for s in census if s.activation] + [s.key for s in census])
            raise InputError(
                f"changes: {key!r} is no site of the model and no activation{closest(key, [k for k in known if k])}"
            )
        by_site = {each for each in changes if each in census or any(s.path == each for s in census)}
        found = [s for s in census if _is(s, wanted, ":" in key) and not {s.key, s.path} & by_site]
    if not found:
        counted = ", ".join(f"{n} × {name}" for name, n in census.counts().items()) or "no activation"
        told = "" if census.executed else "; give example_inputs to see those that are called as functions"
        raise InputError(f"changes: the model has no {key}; it has {counted}{told}")
    return found


def _named(text: str) -> Activation | None:
    try:
        activation, parameters = chosen(text)
    except InputError:
        return None
    return activation.at(**parameters)


def _is(site: Site, wanted: Activation, exactly: bool) -> bool:
    names = {site.activation, gate(site.activation) if site.definition and site.definition.kind == "gated" else None}
    if wanted.name not in names:
        return False
    return not exactly or {**wanted.defaults, **site.parameters} == dict(wanted.defaults)


def _target(site: Site, target: Target) -> nn.Module:
    """What to put at the site: of a gated one, which is a module times something, what gates."""
    if site.form == "fused":
        raise InputError(f"{site.key} is computed inside {site.implementation}, which takes no other activation")
    if isinstance(target, nn.Module):
        return copy.deepcopy(target)
    if isinstance(target, str):
        activation, parameters = chosen(target)
        target = activation.at(**parameters)
    if not isinstance(target, Activation):
        raise InputError(f"changes: {site.key} cannot become a {type(target).__name__}; give a name or a module")
    kind = "elementwise" if site.definition is None else site.definition.kind
    if target.kind == "gated" and site.role == "gate":
        inner = gate(target.name)
        if inner is None:
            raise InputError(f"{site.key}: {target.name} is more than an activation times up; write the block anew")
        target = get(inner)
    elif target.kind != kind and not (kind == "gated" and target.kind == "elementwise"):
        raise InputError(f"{site.key} is {site.name}; it cannot become {target.name}, which is {target.kind}")
    return module_of(target)


def _put_function(model: nn.Module, site: Site, new: nn.Module) -> None:
    """At a site that calls a function which its module holds, the function of `new`."""
    owner = submodule(model, site.path)
    held = [n for n, f in vars(owner).items() if callable(f) and not isinstance(f, type) and _spells(f, site)]
    if len(held) != 1:
        where = f" at {site.source}" if site.source else ""
        raise InputError(
            f"{site.key} is a call of {site.implementation}{where}, not a module: edit that line, or make it a module"
        )
    delattr(owner, held[0])
    setattr(owner, held[0], new)
    _tell(owner)


def _tell(owner: nn.Module) -> None:
    """Tells an encoder layer which activation its fused kernel may compute: ReLU, the exact GELU, or none."""
    if isinstance(owner, nn.TransformerEncoderLayer):
        act = owner.activation
        exact = isinstance(act, nn.GELU) and act.approximate == "none"
        owner.activation_relu_or_gelu = 1 if isinstance(act, nn.ReLU) else 2 if exact else 0


def _spells(function: Any, site: Site) -> bool:
    from .recognition import Tables

    entry = Tables().of_call(function, (torch.zeros(1),), {})
    return entry is not None and entry.activation is not None and entry.activation is site.definition
