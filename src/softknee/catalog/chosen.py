"""An activation at parameters, as people type it: `leaky_relu:negative_slope=0.2`, `softplus:beta=2,threshold=20`."""

from __future__ import annotations

import math

from ..errors import InputError
from .activation import Activation
from .registry import get

_SWITCH = {"true": True, "false": False}


def chosen(text: str) -> tuple[Activation, dict[str, float]]:
    """The activation that `text` names, and the values of all its parameters.

    Raises InputError for a name that is unknown and a parameter that is unknown, no number or out of range.
    """
    name, colon, given = text.partition(":")
    activation = get(name)
    return activation, activation.resolve(_parameters(activation, given) if colon else {})


def _parameters(activation: Activation, text: str) -> dict[str, float]:
    found: dict[str, float] = {}
    if not text.strip():
        known, name = ", ".join(activation.parameters), activation.name
        right = f"write {name}:parameter=value, of {known}" if known else f"{name} has no parameters"
        raise InputError(f"nothing stands behind the colon of '{name}:{text}'; {right}")
    for piece in text.split(","):
        name, equals, value = (part.strip() for part in piece.partition("="))
        if not (name and equals and value):
            raise InputError(
                f"{activation.name}:{text} cannot be read at {piece!r}; "
                f"write {activation.name}:parameter=value, several with commas between them"
            )
        if name in found:
            raise InputError(f"{activation.name}:{text} gives {name} twice")
        if name not in activation.parameters:
            activation.resolve({name: 1.0})  # says so
        switch = isinstance(activation.defaults[name], bool)
        read = _SWITCH.get(value.lower()) if switch else _number(value)
        if read is None:
            wanted = "true or false" if switch else "a number"
            raise InputError(f"{activation.name}: {name} must be {wanted}, got {value!r}")
        found[name] = read
    return found


def _number(text: str) -> float | None:
    try:
        return None if math.isnan(value := float(text)) else value
    except ValueError:
        return None
