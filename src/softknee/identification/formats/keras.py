"""Keras 3: a .keras file (a zip with config.json), or the JSON of a model. Nothing is deserialized, no lambda runs.

The config lists the layers, nested models among them; their activations are named as Keras names them, which bare
"gelu", "leaky_relu" and "hard_sigmoid" show to be no other ecosystem's names.
"""

from __future__ import annotations

import os
from collections.abc import Iterator, Mapping
from typing import Any

from ...catalog.names import resolve
from ...errors import InputError
from ..census import Census, Site
from . import parsing
from .gates import settled

_DEPTH = 50  # of nested models
_SITES = 20_000
_NESTED = ("layer", "forward_layer", "backward_layer", "cell")  # what a wrapper wraps
_ATTENTION = ("MultiHeadAttention", "GroupedQueryAttention", "GroupQueryAttention", "Attention", "AdditiveAttention")
_GATED = ("recurrent_activation",)


def read(path: str | os.PathLike[str]) -> Census:
    """The Census of a .keras file or of a model's JSON. Raises InputError where it is no model's configuration."""
    found = parsing.regular(path)
    if parsing.beginning(found, 4) == b"PK\x03\x04":
        archive = parsing.Archive(found)
        config = parsing.table(archive.read("config.json"), f"config.json in {found}")
        metadata = archive.read("metadata.json") if "metadata.json" in archive.members else b"{}"
        version = parsing.table(metadata, f"metadata.json in {found}").get("keras_version")
    else:
        config = parsing.table(parsing.whole(found), str(found))
        version = config.get("keras_version")
    return from_config(config, str(version or ""), found.name)


def from_config(config: Mapping[str, Any], version: str = "", name: str = "config.json") -> Census:
    """The Census of a model's configuration, as `model.to_json()` and config.json hold it."""
    inner = config.get("config")
    if not isinstance(inner, Mapping) or not isinstance(config.get("class_name"), str):
        raise InputError(f"{name} is no Keras model: it must have a class_name and a config")
    reading = _Reading(version)
    try:
        reading.layer(config, "", 0, False)
    except RecursionError:
        raise InputError(f"{name} is nested too deeply to be a model") from None
    title = inner.get("name") if isinstance(inner.get("name"), str) else config["class_name"]
    return Census(str(title), tuple(reading.sites), executed=False, notes=tuple(dict.fromkeys(reading.notes)))


class _Reading:
    """Collects the sites of a model's layers, in the order in which the config lists them."""

    def __init__(self, version: str) -> None:
        self.old = version.startswith(("1.", "2."))
        self.source = f"Keras {version}" if version else "Keras"
        self.sites: list[Site] = []
        self.notes: list[str] = []

    def layer(self, described: Any, path: str, depth: int, last: bool) -> None:
        """One layer, and the layers inside it. path: of what holds it; last: whether the model ends with it."""
        if not isinstance(described, Mapping) or not isinstance(described.get("config"), Mapping):
            return
        if depth > _DEPTH:
            raise InputError(f"models are nested more than {_DEPTH} deep at {path[:80]!r}")
        config, kind = described["config"], str(described.get("class_name"))
        name = config.get("name")
        here = ".".join(filter(None, (path, str(name) if isinstance(name, str) and depth else "")))
        layers = config.get("layers")
        if isinstance(layers, list):
            ends = _ends(config, layers)
            for number, layer in enumerate(layers):
                self.layer(layer, here, depth + 1, number in ends and (last or depth == 0))
            return
        self._own(kind, described, config, here, last)
        for key in _NESTED:
            if key in config:
                self.layer(config[key], here, depth + 1, last)
        for cell in config["cells"] if isinstance(config.get("cells"), list) else ():
            self.layer(cell, here, depth + 1, last)

    def _own(self, kind: str, described: Mapping[str, Any], config: Mapping[str, Any], path: str, last: bool) -> None:
        role = "head" if last else "hidden"
        dtype = _dtype(config.get("dtype"))
        call = 0
        if kind == "Lambda":
            note = "a Lambda layer is code, which is not run"
            self._add(path, 0, None, {}, role, "Lambda", note, dtype)
            return
        for name, parameters, note in _of_class(kind, config, self.old):
            self._add(path, call, name, parameters, role, f"{kind}", note, dtype)
            call += 1
        if kind in _ATTENTION:
            self._add(path, call, "softmax", settled("softmax"), "attention", kind, "", dtype)
            call += 1
        for key in ("recurrent_activation", "activation"):
            if key not in config or config[key] is None:
                continue
            name, parameters, note = self._named(config[key])
            if name == "identity":
                continue
            self._add(path, call, name, parameters, "gate" if key in _GATED else role, f"{kind}: {key}", note, dtype)
            call += 1
        package, registered = described.get("module"), described.get("registered_name")
        if isinstance(package, str) and not package.startswith(("keras", "tensorflow")) and registered is not None:
            self.notes.append(
                f"{path or kind} is a layer of somebody's own ({package}.{kind}): what its code calls is not seen"
            )

    def _named(self, value: Any, depth: int = 0) -> tuple[str | None, dict[str, float], str]:
        """(entry, parameters, note) of an activation as a layer holds it: a name, a function, a layer."""
        if isinstance(value, str):
            return self._resolved(value)
        if isinstance(value, Mapping) and depth < 4:
            kind, inner = value.get("class_name"), value.get("config")
            if kind == "function" and isinstance(inner, str):
                own = value.get("module")
                if isinstance(own, str) and own not in ("builtins", "keras.activations", "keras.ops"):
                    return None, {}, f"a function of somebody's own: {own}.{inner}"[:120]
                return self._resolved(inner)
            if kind in ("__lambda__", None) or "value" in value or "code" in value:
                return None, {}, "a lambda is code, which is not run"
            if isinstance(kind, str) and isinstance(inner, Mapping):
                for found in _of_class(kind, inner, self.old):
                    return found
                if kind == "Activation":
                    return self._named(inner.get("activation"), depth + 1)
                return None, {}, f"a {kind[:60]}, which is no activation that is known here"
            if isinstance(inner, str):
                return self._resolved(inner)
        return None, {}, f"{str(value)[:60]!r} is no activation that is known here"

    def _resolved(self, name: str) -> tuple[str | None, dict[str, float], str]:
        for ecosystem in ("keras2", "keras") if self.old else ("keras",):
            try:
                act = resolve(name, ecosystem)
            except InputError:
                continue
            return act.name, dict(act.defaults), ""
        return None, {}, f"{name[:60]!r} is no activation of {self.source}"

    def _add(
        self, path: str, call: int, name: str | None, parameters: dict[str, float], role: str, where: str, note: str,
        dtype: str | None,
    ) -> None:  # fmt: skip
        if len(self.sites) >= _SITES:
            raise InputError(f"there are more than {_SITES} activations: this is no model")
        self.sites.append(
            Site(
                f"{path}#{call}", path, call, name, parameters, "declared", "module", f"{self.source}: {where}",
                role=role, measured=False, note=note, dtype=dtype,
            )
        )  # fmt: skip


def _ends(config: Mapping[str, Any], layers: list[Any]) -> set[int]:
    """Which of the layers give the model's outputs."""
    outputs = config.get("output_layers")
    if not isinstance(outputs, list):
        return {len(layers) - 1}
    names = set(_strings(outputs, 0))
    return {
        i
        for i, layer in enumerate(layers)
        if isinstance(layer, Mapping)
        and isinstance(layer.get("config"), Mapping)
        and layer["config"].get("name") in names
    }


def _strings(value: Any, depth: int) -> Iterator[str]:
    if isinstance(value, str):
        yield value
    elif isinstance(value, list) and depth < 8:
        for each in value:
            yield from _strings(each, depth + 1)


def _of_class(kind: str, config: Mapping[str, Any], old: bool) -> Iterator[tuple[str | None, dict[str, float], str]]:
    """What a layer that is an activation computes; nothing for other layers."""

    def number(key: str, usual: float | None) -> float | None:
        value = config.get(key, usual)
        if isinstance(value, Mapping):  # an array: {"class_name": "__numpy__", "config": {"value": …}}
            inner = value.get("config")
            value = inner.get("value") if isinstance(inner, Mapping) else None
        return float(value) if isinstance(value, (int, float)) and not isinstance(value, bool) else None

    if kind == "ReLU":
        yield _rectifier(
            number("negative_slope", 0.0) or 0.0, number("max_value", None), number("threshold", 0.0) or 0.0
        )
    elif kind == "LeakyReLU":
        slope = number("negative_slope", None)
        slope = number("alpha", 0.3) if slope is None else slope  # Keras 2's word
        yield "leaky_relu", {"negative_slope": 0.3 if slope is None else slope}, ""
    elif kind == "ELU":
        alpha = number("alpha", 1.0)
        yield "elu", {"alpha": 1.0 if alpha is None else alpha}, ""
    elif kind == "ThresholdedReLU":
        theta = number("theta", 1.0)
        yield "thresholded_relu", {"threshold": 1.0 if theta is None else theta}, ""
    elif kind == "PReLU":
        yield "prelu", {}, "learned: its values are in the weights, which are not read"
    elif kind == "Softmax":
        axis = config.get("axis", -1)
        yield "softmax", settled("softmax"), "" if axis == -1 else f"over axis {str(axis)[:20]}"


def _rectifier(slope: float, top: float | None, threshold: float) -> tuple[str | None, dict[str, float], str]:
    if threshold == 0 and slope == 0:
        if top is None:
            return "relu", {}, ""
        return ("relu6", {}, "") if top == 6 else ("hardtanh", {"min_val": 0.0, "max_val": top}, "")
    if top is None and threshold == 0:
        return "leaky_relu", {"negative_slope": slope}, ""
    if top is None and slope == 0:
        return "thresholded_relu", {"threshold": threshold}, ""
    said = f"max_value={top}, negative_slope={slope}, threshold={threshold}"
    return None, {}, f"ReLU({said}) is not in the catalog"


def _dtype(value: Any) -> str | None:
    """What a layer computes in: of a policy such as mixed_float16, float16."""
    if isinstance(value, Mapping):
        inner = value.get("config")
        value = inner.get("name") if isinstance(inner, Mapping) else None
    return value.removeprefix("mixed_") if isinstance(value, str) else None
