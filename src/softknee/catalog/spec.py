"""How an activation is written: `elementwise`, `gated` and `normalizer` turn a definition into an `Activation`.

Positional arguments before `ops` are inputs, keyword-only arguments after it are parameters with their defaults:

    @elementwise(aliases=("swish",), source="Elfwing et al. 2017, arXiv:1702.03118")
    def silu(x, ops):
        "Sigmoid-weighted linear unit, x·σ(x)."
        return x * ops.sigmoid(x)

A last input named `noise` makes it stochastic: one number per element, uniform on (0, 1), drawn at each call; one named
`deviate` is normal, of mean 0 and variance 1. Where nothing is drawn (RReLU outside training; facts, derivatives) it is
its mean, ½ or 0.
"""

from __future__ import annotations

import functools
import inspect
from collections.abc import Callable, Mapping
from typing import Any

import torch
from torch import Tensor

from ..errors import InputError
from .activation import LAYOUTS, MEANS, Activation, Parameter
from .conditions import ends, parse_condition

# What functions and modules call their own arguments and state; a parameter of that name could not be given.
TAKEN = {
    "activation", "channels", "deviate", "device", "dim", "distribution", "dtype", "gate", "generator", "inplace",
    "input", "layout", "learn", "learned", "mode", "noise", "order", "self", "settings", "tensor", "training", "up",
    "wrt",
}  # fmt: skip


def _define(
    formula: Callable[..., Any],
    *,
    kind: str,
    learnable: tuple[str, ...] = (),
    conditions: tuple[str, ...] = (),
    **declared: Any,
) -> Activation:
    name = formula.__name__
    if not name.isidentifier():
        raise InputError(f"an activation has the name of its function, and {name} is none; define it with def")
    arguments = list(inspect.signature(formula).parameters.values())
    names = [a.name for a in arguments]
    if "ops" not in names:
        raise InputError(f"the definition of {name!r} must take the op table as an argument named 'ops'")
    for word in names:
        if word.startswith("_"):
            raise InputError(f"{name!r}: the argument {word!r} must not begin with an underscore")
    at = names.index("ops")
    noise = names[at - 1] if kind != "gated" and at > 1 and names[at - 1] in MEANS else ""
    inputs = tuple(names[: at - 1] if noise else names[:at])
    wanted = {"elementwise": (1,), "gated": (2,), "normalizer": (1, 2)}[kind]
    if len(inputs) not in wanted:
        raise InputError(
            f"the {kind} definition {name!r} must take {' or '.join(map(str, wanted))} input(s) before 'ops', it takes "
            f"{len(inputs)}"
        )
    own = {argument.name: argument.default for argument in arguments[at + 1 :]}
    for word, default in own.items():
        if word in TAKEN or hasattr(torch.nn.Module, word):
            raise InputError(f"{name!r}: a parameter cannot be named {word!r}, which modules use themselves")
        if not isinstance(default, (int, float)) or (isinstance(default, bool) and kind != "normalizer"):
            raise InputError(f"{name!r}: the parameter {word!r} needs a number as its default")
    for words, of in ((learnable, "learnable"), (conditions, "conditions"), (declared.get("aliases"), "aliases")):
        if isinstance(words, str):
            raise InputError(f"{name!r}: {of} must be a tuple, got the string {words!r}")
    for word in learnable:
        if word not in own:
            raise InputError(f"{name!r} declares {word!r}, which is not one of its parameters")
    parsed = tuple(parse_condition(text, own, name) for text in conditions)
    # A normalizer may have switches and counts; every other number is a float.
    values = {word: default if kind == "normalizer" else float(default) for word, default in own.items()}
    parameters = {word: Parameter(word, v, word in learnable, *ends(word, parsed)) for word, v in values.items()}
    summary = (inspect.getdoc(formula) or "").split("\n\n")[0].replace("\n", " ")
    activation = Activation(
        name, kind, formula, inputs, parameters, summary, conditions=parsed, noise=noise, **declared
    )
    activation.resolve(activation.defaults)  # which must keep its own conditions
    object.__setattr__(activation, "__doc__", inspect.getdoc(formula))
    object.__setattr__(activation, "__name__", name)
    if kind != "normalizer" and not (formula.__module__ or "").startswith(f"{__package__}."):
        # Here, so that a definition that cannot be traced is refused where it stands. The catalog's own can, its tests
        # say: 0.3 ms each that most programs need for a few of them.
        activation.composite  # noqa: B018
    if kind != "normalizer" and noise:
        activation.sampled  # noqa: B018
    return activation


Definition = Callable[..., Any]


def elementwise(
    formula: Definition | None = None,
    *,
    aliases: tuple[str, ...] = (),
    source: str = "",
    stable: Definition | None = None,
    surrogate: Definition | None = None,
    limits: tuple[float, float] | None = None,
    learnable: tuple[str, ...] = (),
    conditions: tuple[str, ...] = (),
    torch: str | None = None,
    torch_module: str | None = None,
    torch_arguments: Mapping[str, Any] | None = None,
    module_name: str | None = None,
    tags: tuple[str, ...] = (),
    core: bool = False,
    unverified: str = "",
    equivalent_to: Mapping[str, Mapping[str, float]] | None = None,
) -> Any:
    """Defines an activation of one input: `f(x, ops, *, parameter=default)`. Usable bare or with arguments.

    conditions: what parameters must keep, such as `"0 < beta"`. surrogate: `g(x, ops, *, parameters)`, whose derivative
    backward takes in place of f's own: of a step, or straight through. The result is an `Activation`, not registered:
    `softknee.register(act)` makes its name known everywhere.
    Raises InputError for a definition of another shape, TypeError for one that steps outside the op table.
    """
    declared: dict[str, Any] = {
        "aliases": aliases, "source": source, "stable": stable, "surrogate": surrogate, "limits": limits,
        "learnable": learnable, "conditions": conditions, "torch": torch, "torch_module": torch_module,
        "torch_arguments": torch_arguments or {}, "module_name": module_name, "tags": tags, "core": core,
        "unverified": unverified, "equivalent_to": equivalent_to or {},
    }  # fmt: skip
    define: Definition = functools.partial(_define, kind="elementwise", **declared)
    return define(formula) if formula is not None else define


def gated(
    formula: Definition | None = None,
    *,
    aliases: tuple[str, ...] = (),
    source: str = "",
    layout: str = "gate_up",
    conditions: tuple[str, ...] = (),
    torch: str | None = None,
    torch_module: str | None = None,
    module_name: str | None = None,
    tags: tuple[str, ...] = (),
    core: bool = False,
    unverified: str = "",
    equivalent_to: Mapping[str, Mapping[str, float]] | None = None,
) -> Any:
    """Defines an activation of two inputs: `f(gate, up, ops)`. `layout` is how a packed tensor holds the two."""
    if layout not in LAYOUTS:
        raise InputError(f"layout={layout!r} is unknown; it must be one of {', '.join(LAYOUTS)}")
    declared: dict[str, Any] = {
        "aliases": aliases, "source": source, "layout": layout, "conditions": conditions, "torch": torch,
        "torch_module": torch_module, "module_name": module_name, "tags": tags, "core": core,
        "unverified": unverified, "equivalent_to": equivalent_to or {},
    }  # fmt: skip
    define: Definition = functools.partial(_define, kind="gated", **declared)
    return define(formula) if formula is not None else define


def normalizer(
    apply: Callable[..., Tensor] | None = None,
    *,
    aliases: tuple[str, ...] = (),
    source: str = "",
    learnable: tuple[str, ...] = (),
    conditions: tuple[str, ...] = (),
    dim: int | None = None,
    resizes: bool = False,
    torch: str | None = None,
    torch_module: str | None = None,
    module_name: str | None = None,
    tags: tuple[str, ...] = (),
    core: bool = False,
    unverified: str = "",
) -> Any:
    """Defines an activation over a dimension, of one input or two, written over the last.

    A default that is True or False is a switch, one that is a whole number a count. resizes: the result has another
    size along the dimension. apply: `apply(x, dim, **parameters)`, or `apply(x, noise, dim, **parameters)` of a
    stochastic one, where PyTorch does better than the definition on its table, with autograd.
    """
    declared: dict[str, Any] = {
        "aliases": aliases, "source": source, "learnable": learnable, "conditions": conditions, "dim": dim,
        "resizes": resizes, "torch": torch, "torch_module": torch_module, "module_name": module_name, "tags": tags,
        "core": core, "unverified": unverified, "apply": apply,
    }  # fmt: skip
    return functools.partial(_define, kind="normalizer", **declared)
