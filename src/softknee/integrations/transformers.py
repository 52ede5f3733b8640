"""Hugging Face transformers: an activation that a config can name, in `hidden_act` and its kin.

    softknee.integrations.transformers.register(mine)
    LlamaConfig(hidden_act="mine", …)

A config holds the name, not the function: whoever loads it runs the same line first. Needs transformers 4.20 or later.
"""

from __future__ import annotations

import functools
from typing import Any

from ..catalog import Activation, get
from ..errors import InputError


def register(activation: str | Activation, name: str | None = None, overwrite: bool = False, **parameters: Any) -> str:
    """Puts `activation` into ACT2FN and ACT2CLS, from which models make a module at each place; returns its name there.

    name: what configs call it; the activation's own unless given. parameters: the module's, such as `beta=2.0`,
    `channels=…`, `learn=("beta",)`. The same definition again takes its place.
    Raises InputError for a gated activation or a normalizer, a name that means another function there unless
    `overwrite`, a parameter that is wrong, or where transformers is not installed.
    """
    try:
        from transformers.activations import ACT2CLS, ACT2FN
    except ModuleNotFoundError as error:
        raise InputError(f"integrations.transformers needs {error.name}: pip install transformers") from error

    activation = get(activation)
    name = activation.name if name is None else name
    if not isinstance(name, str) or not name:
        raise InputError(f"name must be a word, such as {activation.name!r}; got {name!r}")
    if activation.kind != "elementwise":
        why = (
            "; a model multiplies by up itself: register what is done to the gate" if activation.kind == "gated" else ""
        )
        raise InputError(f"{activation.name} is {activation.kind}, and ACT2FN holds functions of one tensor{why}")
    activation.module(**parameters)  # which says what is wrong with them
    held = dict.get(ACT2FN, name)  # its own access makes a module
    if held is not None and not overwrite and not _same(held, activation, parameters):
        raise InputError(f"transformers knows {name!r} already; choose another name or pass overwrite=True")
    ACT2FN[name] = ACT2CLS[name] = functools.partial(_module, activation, **parameters)
    return name


def _module(activation: Activation, **parameters: Any) -> Any:
    return activation.module(**parameters)


def _same(held: Any, activation: Activation, parameters: dict[str, Any]) -> bool:
    """Whether it is what the same cell of a notebook put there."""
    if not isinstance(held, functools.partial) or held.func is not _module or held.keywords != parameters:
        return False
    theirs = held.args[0]
    places = [(one.formula.__module__, one.formula.__qualname__, one.given) for one in (theirs, activation)]
    return places[0] == places[1]
