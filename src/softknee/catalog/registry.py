"""The registry: every name that `softknee.get` knows. Filled from the definition files of this package."""

from __future__ import annotations

import importlib
import pkgutil
from types import ModuleType

from ..errors import InputError, closest
from .activation import KINDS, Activation

_BY_NAME: dict[str, Activation] = {}
_INFRASTRUCTURE = {"activation", "chosen", "conditions", "names", "registry", "spec", "text"}


def register(activation: Activation, overwrite: bool = False) -> Activation:
    """Makes `activation` known by its name and aliases. Registering the same definition again changes nothing.

    With `overwrite` it takes the place of an activation of the same name, whose aliases go too, and the alias of
    another. Raises InputError where a name is taken by another activation, unless `overwrite`.
    """
    if not isinstance(activation, Activation):
        raise InputError(f"register takes an activation, got {type(activation).__name__}; define one with @elementwise")
    names = (activation.name, *activation.aliases)
    if not overwrite:
        for name in names:
            holder = _BY_NAME.get(name)
            if holder is not None and not _same(holder, activation):
                raise InputError(
                    f"the name {name!r} of {activation.name!r} is taken by {holder.name!r}; "
                    "choose another or pass overwrite=True"
                )
        if len(set(names)) != len(names):
            raise InputError(f"{activation.name!r} lists a name twice among its aliases: {', '.join(names)}")
    replaced = _BY_NAME.get(activation.name)
    if replaced is not None and replaced.name == activation.name:
        for name in [name for name, holder in _BY_NAME.items() if holder is replaced]:
            del _BY_NAME[name]
    _BY_NAME.update(dict.fromkeys(names, activation))
    return activation


def _same(a: Activation, b: Activation) -> bool:
    # Running a notebook cell twice makes a new object of the same definition.
    if a is b:
        return True
    same_place = (a.formula.__module__, a.formula.__qualname__) == (
        b.formula.__module__,
        b.formula.__qualname__,
    )
    return same_place and a.name == b.name and a.given == b.given


def get(name: str | Activation, ecosystem: str | None = None) -> Activation:
    """The activation of that name or alias. An Activation is returned as it is.

    With `ecosystem` it is what that library means by the name: `get("gelu", ecosystem="jax")` is the tanh form, and
    `get("leaky_relu", ecosystem="keras")` has a slope of 0.2.
    Raises InputError for an unknown name, with the names that look like it, and an unknown ecosystem.
    """
    if ecosystem is not None and isinstance(name, str):
        from .names import resolve

        return resolve(name, ecosystem)
    if isinstance(name, Activation):
        return name
    if not isinstance(name, str):
        raise InputError(f"an activation is named by a string, got {type(name).__name__}")
    try:
        return _BY_NAME[name]
    except KeyError:
        # names are in lower case, the classes of modules are not
        lower = name.lower()
        near = closest(lower, [lower] if lower in _BY_NAME else _BY_NAME) or closest(name, _BY_NAME)
        raise InputError(f"activation {name!r} is unknown{near or '; see softknee list'}") from None


def activations() -> tuple[Activation, ...]:
    """Every registered activation: elementwise, gated, normalizers, each in order of definition."""
    return tuple(sorted(dict.fromkeys(_BY_NAME.values()), key=lambda a: KINDS.index(a.kind)))


def discover(package: ModuleType) -> None:
    """Registers what the definition files of `package` define: one file is all that an activation needs."""
    for info in sorted(pkgutil.iter_modules(package.__path__), key=lambda i: i.name):
        if info.name not in _INFRASTRUCTURE:
            module = importlib.import_module(f"{package.__name__}.{info.name}")
            for value in vars(module).values():
                if isinstance(value, Activation) and value.formula.__module__ == module.__name__:
                    register(value)
