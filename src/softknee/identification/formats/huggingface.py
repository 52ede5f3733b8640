"""Hugging Face configs: config.json alone, or a directory with it. No weights are needed and none are read.

`huggingface.json` (tools/architectures.py derives it from transformers) says of each model type which modules apply
an activation in which layers, which key of the config names it, and what the key is where a config leaves it out. So
transformers need not be installed, and no code of a model runs. What the config says is *declared*; what follows from
the architecture or its defaults is *inferred*. Where the config contradicts itself, the architecture or the tensors
beside it, that is a conflict.
"""

from __future__ import annotations

import os
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from ...catalog.names import resolve
from ...errors import InputError
from ..census import Census, Conflict, Site
from . import parsing, safetensors
from .architectures import architectures
from .gates import core, gated, settled
from .tensors import FeedForward, Tensor, feedforwards

# Keys that name the activation of the feed-forward blocks in one architecture or another
KEYS = (
    "hidden_act", "hidden_activation", "activation_function", "activation", "act_fn", "hidden_act_fn", "ffn_act_fn",
    "mlp_hidden_act", "mlp_activation", "dense_act_fn", "afn", "activation_fn_name", "feed_forward_proj",
)  # fmt: skip
_COUNTS = ("num_hidden_layers", "n_layer", "num_layers", "n_layers", "encoder_layers", "depth")
_LAYERS = 4096  # more than this in one config is no model
_SITES = 20_000
_CLIP_ALL = "a limit of 0 clamps gate and up to 0; where no clamp is meant, the key must be absent"


def read(path: str | os.PathLike[str]) -> Census:
    """The Census of a config.json, or of the model in a directory. Raises InputError where it is no such thing."""
    found = Path(path)
    file = parsing.regular(found / "config.json" if found.is_dir() else found)
    settings = parsing.table(parsing.whole(file), str(file))
    census = from_config(settings, file.name)
    if found.is_dir() and any(found.glob("*.safetensors")):
        census = against(census, safetensors.headers(found))
    return census


def from_config(settings: Mapping[str, Any], name: str = "config.json") -> Census:
    """The Census of a config that is already a dict; `name` is what to call it in the answer."""
    try:
        reading = _Reading(name)
        reading.model(settings)
    except RecursionError:
        raise InputError(f"{name} is nested too deeply to be a configuration") from None
    stated = settings.get("architectures")
    title = (
        stated[0] if isinstance(stated, list) and stated and isinstance(stated[0], str) else settings.get("model_type")
    )
    if not reading.sites and not reading.notes:
        if reading.known(settings) is None:
            raise InputError(f"{name} has no model_type that is known, nor any of {', '.join(KEYS[:4])}")
        reading.notes.append(f"no activation is known of {title}")
    return Census(
        str(title or name), tuple(reading.sites), executed=False, notes=tuple(dict.fromkeys(reading.notes)),
        conflicts=tuple(reading.conflicts),
    )  # fmt: skip


def against(census: Census, tensors: Mapping[str, Tensor]) -> Census:
    """The Census, with a conflict for each kind of block that only one of config and tensors has as gated."""
    blocks = {b.path: b for b in feedforwards(tensors)}
    wrong: dict[tuple[str, str], list[str]] = {}
    matched = False
    for site in census.sites:
        block = _around(site, blocks)
        if block is None or site.role not in ("gate", "hidden"):
            continue
        matched = True
        is_gated = site.role == "gate"
        if is_gated != block.gated:
            maps = f"{'a gated' if block.gated else 'an ungated'} block ({', '.join(block.names)})"
            wrong.setdefault((site.name, maps), []).append(site.key)
    conflicts = tuple(
        Conflict(
            tuple(keys),
            name,
            maps,
            ("config.json", "safetensors"),
            "the weights are of another block than the config's",
        )
        for (name, maps), keys in wrong.items()
    )
    told = "; their names agree with it" if matched and not wrong else ""
    note = f"the {len(tensors)} tensors beside the config were compared by name and shape{told}; no weight was read"
    return replace(census, conflicts=census.conflicts + conflicts, notes=(*census.notes, note))


def _around(site: Site, blocks: Mapping[str, FeedForward]) -> FeedForward | None:
    """The block that a site is in: at its path, or at that of the module around it, with or without a prefix."""
    for path in (site.path, site.path.rpartition(".")[0], site.path.rpartition(".")[0].rpartition(".")[0]):
        for place in (path, path.partition(".")[2]):
            if place and place in blocks and (path != site.path or site.form != "module"):
                return blocks[place]
    return None


@dataclass(frozen=True)
class _Config:
    """One config, perhaps nested in another: what it holds, where its modules stand, what its type is known by."""

    settings: Mapping[str, Any]
    entry: Mapping[str, Any]
    prefix: str
    where: str  # "config.json: text_config."

    def get(self, key: str) -> tuple[Any, bool]:
        """The value of a key, dotted where it is nested, and whether the config itself gives it."""
        found: Any = self.settings
        for part in key.split("."):
            found = found.get(part) if isinstance(found, Mapping) else None
        if found is not None:
            return found, True
        return self.entry.get("defaults", {}).get(key), False

    def number(self, key: str) -> int:
        value, _ = self.get(key)
        if type(value) is not int or not 0 <= value <= _LAYERS:
            raise InputError(f"{self.where}{key} is {value!r}; it must be a number of layers, at most {_LAYERS}")
        return value

    def each(self, key: str, count: int) -> list[Any]:
        """One value for each layer: a list as given, or the default's, repeated."""
        value, _ = self.get(key)
        if isinstance(value, Mapping) and isinstance(value.get("repeat"), list) and value["repeat"]:
            period = value["repeat"]
            return [period[i % len(period)] for i in range(count)]
        return list(value) if isinstance(value, list) else []


class _Reading:
    """Collects the sites of a config and of those nested in it."""

    def __init__(self, name: str) -> None:
        self.name = name
        self.sites: list[Site] = []
        self.conflicts: list[Conflict] = []
        self.notes: list[str] = []
        self.source = architectures()["source"].partition(",")[0]

    def model(self, settings: Mapping[str, Any]) -> None:
        entry = self.known(settings.get("model_type"))
        where = f"{self.name}: "
        if entry is None:
            self._unknown(settings, where, "")
            return
        stated = settings.get("architectures")
        name = stated[0] if isinstance(stated, list) and stated else None
        head = entry.get("heads", {}).get(name, {}) if isinstance(name, str) else {}
        bare = name is None or name == entry["model"]
        prefix = "" if bare or not entry.get("prefix") else entry["prefix"] + "."
        config = _Config(settings, entry, head.get("prefix", prefix), where)
        self._config(config, set(head.get("without", ())))
        for row in head.get("sites", ()):
            self._row(replace(config, prefix=""), row | {"role": "head"}, {})

    @staticmethod
    def known(model_type: Any) -> Mapping[str, Any] | None:
        return architectures()["types"].get(model_type) if isinstance(model_type, str) else None

    def _config(self, config: _Config, without: set[str]) -> None:
        first = len(self.sites)
        shifted: dict[str, int] = {}
        for row in config.entry["sites"]:
            if row["path"] not in without:
                self._row(config, row, shifted)
        self._ignored(config, self.sites[first:])
        for key, (place, usual) in config.entry.get("parts", {}).items():
            self._part(config, key, config.prefix + place, usual)
        if config.entry.get("ran") is False and config.entry["sites"]:
            model = config.entry["model"]
            self.notes.append(f"{model} could not be run when the table was made: its function calls are not in it")

    def _part(self, config: _Config, key: str, prefix: str, usual: str) -> None:
        inner = config.settings.get(key)
        where = f"{config.where}{key}."
        if not isinstance(inner, Mapping):
            # before they were nested, the text model's keys stood in the outer config
            flat = key == "text_config" and any(k in config.settings for k in _COUNTS)
            inner, where = (config.settings, config.where) if flat else ({}, where)
            kind = usual
        else:
            kind = inner.get("model_type", usual)
        entry = self.known(kind)
        if entry is None:
            self._unknown(inner, where, prefix)
        else:
            self._config(_Config(inner, entry, prefix, where), set())

    def _room(self, more: int = 1) -> None:
        if len(self.sites) + more > _SITES:
            raise InputError(f"{self.name} describes more than {_SITES} activations: this is no model")

    # -- one row of the table

    def _row(self, config: _Config, row: Mapping[str, Any], shifted: dict[str, int]) -> None:
        parameters: dict[str, float] = {}
        for name, value in row.get("with", {}).items():
            number = config.get(value)[0] if isinstance(value, str) else value
            if number is None or isinstance(number, bool) or not isinstance(number, (int, float)):
                # a cap or clamp that the config switches off: what follows moves up in its module's count
                if row["is"] == "softcap":
                    shifted[row["path"]] = shifted.get(row["path"], 0) + 1
                    return
                continue
            parameters[name] = float(number)
        name, evidence, where, note = self._activation(config, row)
        call = row.get("call", 0) - shifted.get(row["path"], 0)
        gate = row.get("role") == "gate"
        layout = row.get("layout")
        if row["path"].endswith("DenseReluDense.act"):
            gate, layout = self._t5_gate(config)
            name = (gated(name) or name) if gate and name else name
        elif name is not None and row["is"] != core(row["is"]) and row.get("key"):
            if core(row["is"]) == name:
                name = row["is"]
            else:
                name, parameters = gated(name) or name, {}
        elif name is not None and name != row["is"]:
            parameters = {}
        usual = settled(name)
        parameters = usual | {k: v for k, v in parameters.items() if k in usual}
        role = "gate" if gate else row.get("role", "hidden")
        if len((row.get("layers") or {}).get("only", ())) > 1:
            which = "stands where it does by default: which layers have it does not follow from the config"
            self.notes.append(f"{config.prefix}{row['path']} {which}")
        keys = []
        for path in self._paths(config, row):
            self._room()
            keys.append(f"{path}#{call}")
            self.sites.append(
                Site(
                    keys[-1], path, call, name, parameters, evidence, row.get("form", "module"), where, role=role,
                    measured=False, note=note, dtype=_dtype(config.settings), layout=layout if gate else None,
                )
            )  # fmt: skip
        if keys and parameters.get("limit") == 0:
            limit = row["with"]["limit"]
            said = (f"{config.where}{limit}", self.source)
            self.conflicts.append(Conflict(tuple(keys), "limit 0", "a clamp to 0", said, _CLIP_ALL))
        if (
            keys
            and config.entry["model"] == "GemmaModel"
            and name == "geglu_tanh"
            and config.get("hidden_act") == ("gelu", True)
        ):
            said = (f"{config.where}hidden_act", self.source)
            what = (
                "Gemma was trained with the tanh form; an engine that takes hidden_act at its word runs the exact one"
            )
            self.conflicts.append(Conflict(tuple(keys), "gelu", "gelu_tanh", said, what))

    def _activation(self, config: _Config, row: Mapping[str, Any]) -> tuple[str | None, str, str, str]:
        """(entry, evidence, where it is said, note) of one row."""
        key = row.get("key")
        if key is None:
            return row["is"], "inferred", f"{self.source}: {config.entry['model']}", ""
        value, given = config.get(key)
        ecosystem = "transformers"
        projection = config.settings.get("feed_forward_proj")
        if key == "dense_act_fn" and isinstance(projection, str):
            ours = _resolved(projection, "transformers.t5")
            other = _resolved(value, "transformers") if given else None
            if not given or ours is None:
                key, value, given, ecosystem = "feed_forward_proj", projection, True, "transformers.t5"
            elif other is not None and core(ours) != other:
                said = (f"{config.where}feed_forward_proj", f"{config.where}dense_act_fn")
                conflict = Conflict((), core(ours), other, said, "dense_act_fn is what runs")
                if conflict not in self.conflicts:
                    self.conflicts.append(conflict)
        elif config.entry["model"] == "GemmaModel" and value == "gelu":
            ecosystem = "transformers.gemma"
        evidence, where = (
            ("declared", config.where + key) if given else ("inferred", f"{self.source}: {key} = {value!r}")
        )
        name = _resolved(value, ecosystem)
        if name is None:
            return None, evidence, where, f"{where} = {str(value)[:60]!r} is no activation that is known here"
        return core(name), evidence, where, ""

    def _t5_gate(self, config: _Config) -> tuple[bool, str | None]:
        said = config.settings.get("feed_forward_proj")
        stated = config.settings.get("is_gated_act")
        is_gated = stated if isinstance(stated, bool) else str(said).startswith("gated")
        if said is None and stated is None:
            is_gated = str(config.entry.get("defaults", {}).get("feed_forward_proj", "")).startswith("gated")
        return is_gated, "split" if is_gated else None

    def _paths(self, config: _Config, row: Mapping[str, Any]) -> Iterator[str]:
        """The path of the module in each layer that the rule gives."""
        for index in _indices(config, row.get("layers")):
            yield config.prefix + row["path"].format(*index)

    def _ignored(self, config: _Config, sites: list[Site]) -> None:
        """Keys that name an activation, which this architecture does not read and does not have."""
        rows = config.entry["sites"]
        used = {row["key"] for row in rows if "key" in row}
        used |= {r["key"] for h in config.entry.get("heads", {}).values() for r in h.get("sites", ()) if "key" in r}
        blocks = [s for s in sites if s.form == "module" and s.role in ("gate", "hidden") and s.activation]
        found = {core(str(s.activation)) for s in blocks}
        if not found:
            return
        for key in KEYS:
            value = config.settings.get(key)
            if key in used or not isinstance(value, str) or (key == "feed_forward_proj" and "dense_act_fn" in used):
                continue
            if config.entry.get("unread", {}).get(key) == value:
                continue  # what transformers itself writes there
            name = _resolved(value, "transformers") or _resolved(value, "vllm")
            if name is not None and core(name) not in found:
                reads = sorted(used & set(KEYS))
                instead = f"{self.source}: {', '.join(reads) or config.entry['model']}"
                what = f"{key} is ignored by {config.entry['model']}; an engine that reads it runs {name}"
                names = ", ".join(dict.fromkeys(s.name for s in blocks))
                said = (f"{config.where}{key}", instead)
                self.conflicts.append(Conflict(tuple(s.key for s in blocks), name, names, said, what))

    # -- what the table does not have

    def _unknown(self, settings: Mapping[str, Any], where: str, prefix: str) -> None:
        """A model type that transformers does not have: what the usual keys say, layer by layer."""
        kind = settings.get("model_type")
        inner = {k: v for k, v in settings.items() if isinstance(v, Mapping)}
        given = {k: settings[k] for k in KEYS if isinstance(settings.get(k), str)}
        counts = [settings[k] for k in _COUNTS if type(settings.get(k)) is int]
        count = min(max(counts[0], 0), _LAYERS) if counts else None
        for key, value in given.items():
            name = _resolved(value, "transformers.t5" if key == "feed_forward_proj" else "transformers")
            note = "" if name else f"{where}{key} = {value[:60]!r} is no activation that is known here"
            places = [f"{prefix}{key}"] if count is None else [f"{prefix}layers.{i}" for i in range(count)]
            self._room(len(places))
            for place in places if key == next(iter(given)) else [f"{prefix}{key}"]:
                self.sites.append(
                    Site(
                        f"{place}#0", place, 0, name, settled(name), "declared", "functional", where + key,
                        measured=False, note=note, dtype=_dtype(settings),
                    )
                )  # fmt: skip
        names = {_resolved(v, "transformers") for k, v in given.items() if k != "feed_forward_proj"} - {None}
        if len(names) > 1:
            (a, b), said = list(given.items())[:2], list(given)
            what = "which of them is read is not known"
            self.conflicts.append(Conflict((), a[1], b[1], (where + said[0], where + said[1]), what))
        if given:
            self.notes.append(
                f"model_type {kind!r} is not in the table of {self.source}: "
                "where the activation stands, and whether it gates, is not known"
            )
        for key, part in inner.items():
            entry = self.known(part.get("model_type"))
            if entry is not None:
                self._config(_Config(part, entry, f"{prefix}{key}.", f"{where}{key}."), set())
            elif any(k in part for k in KEYS):
                self._unknown(part, f"{where}{key}.", f"{prefix}{key}.")


def _indices(config: _Config, rule: Mapping[str, Any] | None) -> Iterator[tuple[int, ...]]:
    """The numbers in the path of each module that a rule of the table gives."""
    if rule is None:
        yield ()
        return
    if "only" in rule:
        yield from map(tuple, rule["only"])
        return
    fixed = rule.get("at", [None])

    def placed(*numbers: int) -> tuple[int, ...]:
        rest = iter(numbers)
        return tuple(next(rest) if n is None else n for n in fixed)

    if "ragged" in rule:
        depths = config.each(rule["ragged"], 0)
        if not all(type(n) is int and 0 <= n <= _LAYERS for n in depths) or len(depths) > 64:
            raise InputError(
                f"{config.where}{rule['ragged']} is {str(depths)[:60]}; it must be a list of numbers of blocks"
            )
        fixed = rule.get("at", [None, None])
        for i, depth in enumerate(depths):
            yield from (placed(i, j) for j in range(depth))
        return
    count = config.number(rule["count"])
    layers = range(count)
    if "below" in rule:
        layers = range(min(count, config.number(rule["below"])))
    elif "from" in rule:
        layers = range(config.number(rule["from"]), count)
    chosen: list[int] = list(layers)
    if "every" in rule or "not_every" in rule:
        step = max(1, config.number(rule.get("every") or rule["not_every"]))
        chosen = [i for i in layers if ((i + 1) % step == 0) == ("every" in rule)]
    elif "where" in rule:
        kinds = config.each(rule["where"], count)
        chosen = [i for i in layers if i < len(kinds) and str(kinds[i]) in rule["in"]]
    elif "listed" in rule or "not_listed" in rule:
        listed = config.each(rule.get("listed") or rule["not_listed"], count)
        chosen = [i for i in layers if (i in listed) == ("listed" in rule)]
    yield from (placed(i) for i in chosen)


def _resolved(value: Any, ecosystem: str) -> str | None:
    """What a name means in an ecosystem: the entry, None where it has no such name."""
    if not isinstance(value, str):
        return None
    try:
        return resolve(value, ecosystem).name
    except InputError:
        return None


def _dtype(settings: Mapping[str, Any]) -> str | None:
    found = settings.get("dtype", settings.get("torch_dtype"))
    return found.removeprefix("torch.") if isinstance(found, str) and found != "auto" else None
