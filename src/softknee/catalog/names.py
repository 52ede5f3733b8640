"""What a name means elsewhere: bare "gelu" is the exact function in PyTorch and the tanh form in JAX and ggml.

`names.json` holds, for each ecosystem, what it calls an activation, and what that is here:

    "gelu"                            an entry
    "gelu(approximate=True)"          the same name with an argument that makes it another function
    "LeakyRelu(alpha=0.01)"           an argument with its default there, which the meaning uses:
        "1 leaky_relu(negative_slope=alpha)"    first the version since which it exists (ONNX: the opset)

Read from the sources of 2025 and 2026; what can be installed is executed by the tests.
"""

from __future__ import annotations

import functools
import json
import re
from collections.abc import Mapping
from dataclasses import dataclass
from importlib import resources
from typing import TYPE_CHECKING, Any

from ..errors import InputError, closest

if TYPE_CHECKING:
    from .activation import Activation

_CALL = re.compile(r"(?:(?P<since>\d+) )?(?P<name>[^()]+?)(?:\((?P<arguments>.*)\))?")


@dataclass(frozen=True)
class Meaning:
    """A name as an ecosystem writes it, and the entry that it is.

    arguments: what is written after the name, with its defaults there. parameters: the entry's, each a number or the
    argument that gives it.
    """

    name: str
    arguments: Mapping[str, Any]
    entry: str
    parameters: Mapping[str, Any]
    since: int = 0

    @property
    def fixed(self) -> dict[str, Any]:
        """The arguments that choose the function."""
        used = set(map(str, self.parameters.values()))
        return {name: value for name, value in self.arguments.items() if name not in used}

    def resolved(self, given: Mapping[str, Any]) -> dict[str, float]:
        """The entry's parameters, where the call has the arguments `given`."""
        values = {**self.arguments, **given}
        return {name: values.get(str(value), value) for name, value in self.parameters.items()}

    def written(self, activation: Activation) -> str | None:
        """`activation` as the ecosystem writes it; None where this name cannot give its parameters."""
        entry = activation.defaults
        arguments = dict(self.fixed)
        for name, value in entry.items():
            source = self.parameters.get(name)
            if source in self.arguments:
                if value != self.arguments[str(source)]:
                    arguments[str(source)] = value
            elif value != (_settled(self.entry).get(name) if source is None else source):
                return None
        inside = ", ".join(f"{name}={value!r}" for name, value in arguments.items())
        return f"{self.name}({inside})" if inside else self.name


def ecosystems() -> dict[str, str]:
    """The ecosystems whose names are known, with a word on each."""
    return {name: held["about"] for name, held in _held().items()}


def resolve(name: str, ecosystem: str) -> Activation:
    """What `ecosystem` means by `name`, which may carry arguments: "gelu", "gelu(approximate=True)".

    An activation at other parameters than the entry's comes with those as its defaults.
    Raises InputError for an ecosystem or a name that is unknown, and where the entry is not in the catalog.
    """
    from .registry import get

    _, base, given = parsed(name, "name")
    known = meanings(ecosystem)
    for meaning in known:
        fixed = meaning.fixed
        matches = meaning.name == base and all(given.get(k) == v for k, v in fixed.items())
        if matches and set(given) <= set(meaning.arguments):
            return get(meaning.entry).at(**meaning.resolved(given))
    names = dict.fromkeys(m.name for m in known)
    if base in names:
        ways = ", ".join(_spelled(m) for m in known if m.name == base)
        raise InputError(f"{ecosystem}'s {base} is known as {ways}; got {name!r}")
    raise InputError(f"{ecosystem} has no activation {name!r} that is known here{closest(base, names)}")


def name_in(activation: Activation, ecosystem: str, opset: int | None = None) -> str | None:
    """What `ecosystem` calls it, with the arguments that it takes there: "Gelu(approximate='tanh')".

    None where it has no name of its own there, or has it only after `opset`.
    Raises InputError for an unknown ecosystem.
    """
    found = []
    for meaning in meanings(ecosystem):
        if meaning.entry in (activation.name, *activation.aliases) and (opset is None or meaning.since <= opset):
            written = meaning.written(activation)
            if written is not None:
                found.append((len(meaning.fixed), written))
    return min(found, key=lambda each: each[0])[1] if found else None


def parsed(text: str, argument: str) -> tuple[int, str, dict[str, Any]]:
    """Version, name and arguments of "20 Gelu(approximate='tanh')". Raises InputError where it is not of that form."""
    matched = _CALL.fullmatch(text) if isinstance(text, str) else None
    if matched is None:
        raise InputError(f"{argument} must be a name, with arguments in brackets or without, got {text!r}")
    arguments: dict[str, Any] = {}
    for each in filter(None, (matched["arguments"] or "").split(",")):
        name, equals, value = map(str.strip, each.partition("="))
        if not equals or not name.isidentifier() or not value:
            raise InputError(f"{argument}: the arguments of {text!r} must be of the form word=value")
        arguments[name] = _literal(value)
    return int(matched["since"] or 0), matched["name"], arguments


def meanings(ecosystem: str) -> tuple[Meaning, ...]:
    """All names of an ecosystem. Raises InputError for one that is unknown."""
    if ecosystem not in _held():
        known = ", ".join(_held())
        raise InputError(f"ecosystem={ecosystem!r} is unknown{closest(str(ecosystem), _held())}; it is one of {known}")
    return _meanings(ecosystem)


@functools.cache
def _meanings(ecosystem: str) -> tuple[Meaning, ...]:
    found = []
    for written, meaning in _held()[ecosystem]["names"].items():
        _, name, arguments = parsed(written, ecosystem)
        since, entry, parameters = parsed(meaning, ecosystem)
        found.append(Meaning(name, arguments, entry, parameters, since))
    if ecosystem == "torch":
        found += _of_torch()
    return tuple(found)


def _of_torch() -> list[Meaning]:
    """What the entries themselves say of PyTorch's names."""
    from .registry import activations

    found = []
    for activation in activations():
        for name in filter(None, (activation.torch, activation.torch_module)):
            if not activation.torch_arguments:
                parameters = {p: p for p in activation.parameters}
                found.append(Meaning(name, activation.defaults, activation.name, parameters))
    return found


@functools.cache
def _held() -> dict[str, Any]:
    return json.loads(resources.files(__package__).joinpath("names.json").read_text(encoding="utf-8"))


def _settled(entry: str) -> dict[str, float]:
    from .registry import get

    return get(entry).defaults


def _spelled(meaning: Meaning) -> str:
    inside = ", ".join(f"{name}={value!r}" for name, value in meaning.arguments.items())
    return f"{meaning.name}({inside})" if inside else meaning.name


def _literal(text: str) -> Any:
    if text in ("True", "False"):
        return text == "True"
    if len(text) > 1 and text[0] == text[-1] and text[0] in "'\"":
        return text[1:-1]
    try:
        return float(text)
    except ValueError:
        return text
