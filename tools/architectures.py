"""Derives src/softknee/identification/formats/huggingface.json: which activation each architecture of transformers has.

Nothing is read from its documentation, everything is tried. A tiny random model of each type is run and identified,
which gives its sites; the same type at its default size on the meta device gives the layers that have them; and a
model built with one key of its config changed shows what that key governs. No weights, no network, no remote code.

    python tools/architectures.py            # writes the table (10 minutes)
    python tools/architectures.py --check llama gemma2 …    # fails if what is derived differs from what is committed

`compare` also serves the tests and the benchmark: it holds the answer from a config against a run.
"""

from __future__ import annotations

import argparse
import contextlib
import copy
import functools
import inspect
import json
import math
import os
import re
import signal
import sys
import warnings
from collections.abc import Callable, Iterable, Iterator
from pathlib import Path
from typing import Any

os.environ["HF_HUB_OFFLINE"] = "1"

import torch
import transformers
from torch import nn
from transformers import AutoModel
from transformers.activations import ACT2CLS, ACT2FN
from transformers.models.auto import modeling_auto
from transformers.models.auto.configuration_auto import CONFIG_MAPPING

import softknee
from softknee.catalog.names import resolve
from softknee.errors import InputError
from softknee.files import write_whole
from softknee.identification import Census, Site
from softknee.identification.formats.architectures import NAME, packed, unpacked
from softknee.identification.formats.gates import core, gated, settled
from softknee.identification.formats.huggingface import KEYS, from_config
from softknee.identification.recognition import Tables, module_parameters

TABLE = Path(__file__).parents[1] / "src/softknee/identification/formats" / NAME
OTHER = "mish"  # what a key is set to: no architecture has it by default
LAYERS = 4  # of a tiny model: enough for a pattern of three linear layers and a full one
SECONDS = 30  # for one model

# What a tiny model's sizes are: at most these.
SIZES = {
    "hidden_size": 32, "d_model": 32, "n_embd": 32, "embed_dim": 32, "dim": 32, "embedding_size": 32, "emb_dim": 32,
    "intermediate_size": 48, "moe_intermediate_size": 24, "shared_expert_intermediate_size": 24, "hidden_dim": 48,
    "ffn_dim": 48, "encoder_ffn_dim": 48, "decoder_ffn_dim": 48, "d_ff": 48, "d_kv": 8, "n_inner": 48,
    "num_attention_heads": 4, "num_key_value_heads": 2, "encoder_attention_heads": 4, "decoder_attention_heads": 4,
    "n_head": 4, "n_heads": 4, "num_heads": 4, "head_dim": 8, "rotary_dim": 4, "qk_rope_head_dim": 8,
    "qk_nope_head_dim": 8, "v_head_dim": 8, "qk_head_dim": 16, "kv_lora_rank": 16, "q_lora_rank": 16,
    "vocab_size": 128, "num_experts": 4, "num_local_experts": 4, "n_routed_experts": 4, "num_experts_per_tok": 2,
    "num_experts_per_token": 2,
    "n_group": 1, "projection_size": 32, "mamba_n_heads": 8, "mamba_d_head": 8,
    "topk_group": 1, "max_position_embeddings": 128, "image_size": 32, "patch_size": 8,
}  # fmt: skip
COUNTS = (
    "num_hidden_layers", "n_layer", "n_layers", "num_layers", "encoder_layers", "decoder_layers", "num_decoder_layers",
    "depth", "num_encoder_layers",
)  # fmt: skip
_WIDTHS = ("hidden_size", "embed_dim", "image_size", "patch_size", "dim", "head_dim")
_MADE_FOR_SIZE = ("out_features", "out_indices", "stage_names")
# Keys that give a parameter of an activation, besides those that give the activation
_NUMBERS = re.compile(r"(limit|alpha|softcap|soft_cap|softcapping|negative_slope)")
_NO_KEY = re.compile(r"(^|\.)(model_type|architectures|position_embedding_type|_.*)$")

Pattern = str


class Failed(Exception):
    """The model cannot be built or run here; the text says why."""


@contextlib.contextmanager
def limited(seconds: int = SECONDS) -> Iterator[None]:
    """Raises Failed for whatever goes wrong inside, and after so many seconds."""

    def late(*_: object) -> None:
        raise TimeoutError(f"more than {seconds} s")

    before = signal.signal(signal.SIGALRM, late)
    signal.alarm(seconds)
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            yield
    except Exception as error:
        raise Failed(
            f"{type(error).__name__}: {str(error).strip().splitlines()[0] if str(error).strip() else ''}"[:160]
        ) from error
    finally:
        signal.alarm(0)
        signal.signal(signal.SIGALRM, before)


# -- configs and models


def types() -> list[str]:
    """The model types that `AutoModel` can build."""
    return sorted(t for t in CONFIG_MAPPING if CONFIG_MAPPING[t] in modeling_auto.MODEL_MAPPING)


def default(model_type: str) -> dict[str, Any]:
    return CONFIG_MAPPING[model_type]().to_dict()


def configured(model_type: str, settings: dict[str, Any]) -> Any:
    settings = {k: v for k, v in settings.items() if k != "model_type"}
    return CONFIG_MAPPING[model_type].from_dict(copy.deepcopy(settings))


def tiny(model_type: str, layers: int = LAYERS) -> dict[str, Any]:
    """The default config of a type, made so small that a random model of it runs in a blink."""
    return _small(default(model_type), layers)


def _small(settings: dict[str, Any], layers: int) -> dict[str, Any]:
    counts = {settings[k] for k in COUNTS if isinstance(settings.get(k), int)}
    small: dict[str, Any] = {}
    staged = any(isinstance(settings.get(k), (list, tuple)) for k in ("num_heads", "num_attention_heads", "depths"))
    for key, value in settings.items():
        if key in _MADE_FOR_SIZE:
            continue
        if key == "per_layer_config" and isinstance(value, dict):
            small[key] = {k: v for k, v in value.items() if int(k) < layers}
        elif isinstance(value, dict):
            small[key] = _small(value, layers)
            if key in ("rope_parameters", "rope_scaling") and not any(isinstance(v, dict) for v in value.values()):
                small[key] |= {"mrope_section": [2, 1, 1]}
        elif key == "num_key_value_heads":
            small[key] = 4 if value in (None, settings.get("num_attention_heads")) else 2
        elif key in COUNTS and type(value) is int:
            small[key] = min(value, layers)
        elif isinstance(value, list) and len(value) in counts:
            small[key] = value[:layers]
        elif key in SIZES and type(value) is int and not (staged and key in _WIDTHS):
            small[key] = min(value, SIZES[key])
        elif key == "use_cache":
            small[key] = False
        elif key == "head_dim" and value is None:
            small[key] = SIZES[key]
        elif key in ("pad_token_id", "bos_token_id", "eos_token_id") and type(value) is int:
            small[key] = value if value < 100 else 1
        else:
            small[key] = value
    return small


def build(model_type: str, settings: dict[str, Any], device: str = "cpu") -> nn.Module:
    with torch.device(device), torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        return AutoModel.from_config(configured(model_type, settings)).eval()


def inputs(model: nn.Module) -> Iterator[dict[str, torch.Tensor]]:
    """What the model may want to be called with, likeliest first."""
    config: Any = model.config
    vision = next((c for c in (config, getattr(config, "vision_config", None)) if hasattr(c, "image_size")), config)
    size = getattr(vision, "image_size", 32) or 32
    height, width = size if isinstance(size, (list, tuple)) else (size, size)
    ids = torch.arange(3, 11)[None]
    pixels = torch.linspace(-2, 2, 3 * height * width).reshape(1, 3, height, width).sin()
    mels = getattr(config, "num_mel_bins", None) or 80
    frames = 2 * (getattr(config, "max_source_positions", None) or 50)
    given = {
        "input_ids": {"input_ids": ids, **({"decoder_input_ids": ids} if config.is_encoder_decoder else {})},
        "pixel_values": {"pixel_values": pixels},
        "input_values": {"input_values": torch.linspace(-40, 40, 4000)[None].sin()},
        "input_features": {"input_features": torch.linspace(-40, 40, mels * frames).reshape(1, mels, frames).sin()},
    }
    first = str(getattr(model, "main_input_name", "input_ids"))
    yield given.get(first, given["input_ids"])
    if first in given and first != "input_ids":
        yield given[first] | {"decoder_input_ids": ids}
    yield given["input_ids"] | given["pixel_values"]
    yield given["pixel_values"] | {"decoder_input_ids": ids}
    yield from given.values()


def observe(model_type: str, settings: dict[str, Any]) -> Census:
    """The Census of a random model with this config, from a run. Raises Failed where it cannot be built or run."""
    with limited():
        meta = build(model_type, settings, "meta")
        size = sum(p.numel() for p in meta.parameters())
        if size > 60_000_000:
            raise ValueError(f"has {size / 1e6:.0f} million parameters even so")
        model = build(model_type, settings)
        first: Exception | None = None
        for given in inputs(model):
            try:
                return softknee.identify(model, given)
            except InputError as error:
                first = first or error
        assert first is not None
        raise first


def agree(declared: Census, seen: Census) -> list[str]:
    """Where a config's answer is not what ran: one line for each of its sites, and for each feed-forward one it lacks.

    A gate counts as its activation: `silu` that gates is `swiglu`. Parameters to 1e-6. Parts of the model that the run
    did not reach are left out.
    """
    found = {site.key: site for site in seen.sites}
    ran = {site.path.partition(".")[0] for site in seen.sites}
    wrong = []
    for site in declared.sites:
        other = found.pop(site.key, None)
        if other is None and site.path.partition(".")[0] not in ran:
            continue  # a part that these inputs do not reach, such as the vision model without an image
        if other is None:
            wrong.append(f"{site.key}: declared {site.name}, not seen")
        elif not _same(site, other):
            wrong.append(f"{site.key}: declared {site.name}, seen {other.name}")
    wrong += [
        f"{site.key}: seen {site.name}, not declared"
        for site in found.values()
        if site.form == "module" and site.activation is not None
    ]
    return wrong


def compare(model_type: str, layers: int = 3) -> list[str]:
    """Where the answer from a small model's config is not what the model runs. Raises Failed where it cannot run."""
    settings = tiny(model_type, layers)
    seen = observe(model_type, settings)
    declared = from_config(settings | {"architectures": None})
    return [f"conflict: {c}" for c in declared.conflicts] + agree(declared, seen)


def _same(declared: Site, seen: Site) -> bool:
    if declared.activation is None or seen.activation is None:
        return declared.activation == seen.activation
    a, b = core(declared.activation), core(seen.activation)
    if a != b and declared.activation != seen.activation:
        return False
    if declared.activation == seen.activation:
        pairs = [(v, seen.parameters.get(k, v)) for k, v in declared.parameters.items()]
        return all(math.isclose(a, b, rel_tol=1e-6, abs_tol=1e-6) for a, b in pairs)
    return True


# -- deriving


def numbered(path: str) -> tuple[Pattern, tuple[int, ...]]:
    """`layers.3.mlp` → ("layers.{}.mlp", (3,))."""
    parts = path.split(".")
    return ".".join("{}" if p.isdigit() else p for p in parts), tuple(int(p) for p in parts if p.isdigit())


def module_sites(model: nn.Module) -> dict[str, tuple[str, dict[str, float]]]:
    """Path of each activation module of a model that need not have weights → activation, parameters."""
    tables = Tables()
    classes = {c[0] if isinstance(c, tuple) else c: n for n, c in reversed(ACT2CLS.items())}
    classes |= {type(ACT2FN[n]): n for n in reversed(ACT2CLS) if n in ("gelu_pytorch_tanh", "gelu_python_tanh")}
    found = {}
    for path, module in model.named_modules():
        name = classes.get(type(module))
        if name is not None and name != "linear":
            act = resolve(name, "transformers")
            found[path] = (act.name, {} if act.name == "xielu" else dict(act.defaults))
            continue
        entry = tables.of_module(module)
        if entry is not None and entry.activation is not None and entry.activation.name != "identity":
            with contextlib.suppress(Exception):
                found[path] = (entry.activation.name, module_parameters(entry, module))
    return found


def halves(module: nn.Module) -> str | None:
    """How gate and up come to an activation inside this module: the layout, or None where nothing says it is gated."""
    names = {n for n, _ in module.named_children()} | {n for n, _ in module.named_parameters(recurse=False)}
    if {"gate_up_proj", "gate_up", "Wi"} & names:
        return "interleaved" if "::2" in inspect.getsource(type(module)) else "gate_up"
    for pair in ({"gate_proj", "up_proj"}, {"w1", "w3"}, {"wi_0", "wi_1"}, {"gate", "up"}):
        if pair <= names:
            return "split"
    return None


def _flat(settings: dict[str, Any], prefix: str = "") -> Iterator[tuple[str, Any]]:
    for key, value in settings.items():
        if not isinstance(key, str) or key in ("id2label", "label2id"):
            continue
        if isinstance(value, dict):
            yield from _flat(value, f"{prefix}{key}.")
        else:
            yield prefix + key, value


def put(settings: dict[str, Any], key: str, value: Any) -> dict[str, Any]:
    """A copy of a config with one key, dotted where it is nested, at another value."""
    changed = copy.deepcopy(settings)
    *outer, last = key.split(".")
    inner = changed
    for part in outer:
        inner = inner[part]
    inner[last] = value
    return changed


def activation_keys(settings: dict[str, Any]) -> list[str]:
    """Keys that may name an activation."""
    return [
        key
        for key, value in _flat(settings)
        if not _NO_KEY.search(key)
        and (
            (isinstance(value, str) and (value in ACT2CLS or key.endswith("feed_forward_proj")))
            or (value is None and re.search(r"(act|activation)(_fn|_function)?$", key.rpartition(".")[2]))
        )
    ]


class Derivation:
    """What is found out about one model type."""

    def __init__(self, model_type: str) -> None:
        self.type = model_type
        self.default = default(model_type)
        self.why_not_run = ""
        try:
            with limited():
                self.meta = build(model_type, self.default, "meta")
        except Failed:  # defaults that no model can have (a number of heads that is None): those of a small one do
            self.default = _small(self.default, 1 << 30)
            with limited():
                self.meta = build(model_type, self.default, "meta")
        self.modules = dict(self.meta.named_modules())
        self.places: dict[Pattern, list[tuple[int, ...]]] = {}
        for path in self.modules:
            pattern, index = numbered(path)
            self.places.setdefault(pattern, []).append(index)
        self.of_module = module_sites(self.meta)
        try:
            self.tiny = tiny(model_type)
            self.run: Census | None = observe(model_type, self.tiny)
        except Failed as error:
            self.run, self.why_not_run = None, str(error)

    def entry(self) -> dict[str, Any]:
        parts = self.parts()
        rows = [r for r in self.rows() if not any(r[0].startswith(prefix) for prefix, _ in parts.values())]
        keys = self.governed(rows) if rows else {}
        sites, used = [], set()
        for pattern, call, site, indices in rows:
            key, numbers = keys.get((pattern, call), (None, {}))
            layout = halves(self.owner(pattern, indices, site))
            which = self.which(pattern, indices)
            used |= {k for k in (key, *numbers.values(), *_keys_of(which)) if k}
            kind = "gate" if layout and site.role in ("gate", "hidden") and site.form == "module" else site.role
            name = site.activation
            if kind == "gate" and layout and site.form == "module":
                name = gated(core(name)) or name
            parameters = {} if name != site.activation else _telling(site)
            for parameter, source in numbers.items():
                parameters[parameter] = source
            row: dict[str, Any] = {"path": pattern, "is": name}
            row |= {k: v for k, v in (("call", call), ("with", parameters), ("key", key), ("layers", which)) if v}
            row |= {
                k: v for k, v in (("role", kind), ("form", site.form)) if v != {"role": "hidden", "form": "module"}[k]
            }
            row |= {"layout": layout} if layout and kind == "gate" else {}
            sites.append(row)
        flat = dict(_flat(self.default))
        entry: dict[str, Any] = {"model": type(self.meta).__name__, "prefix": type(self.meta).base_model_prefix}
        entry["sites"] = _joined(sites)
        entry["heads"] = self.heads()
        used |= {s["key"] for h in entry["heads"].values() for s in h.get("sites", ()) if "key" in s}
        used |= {"feed_forward_proj"} & flat.keys()
        entry["defaults"] = {k: _period(flat[k]) for k in sorted(used) if k in flat}
        entry["unread"] = {k: self.default[k] for k in KEYS if k not in used and isinstance(self.default.get(k), str)}
        if parts:
            entry["parts"] = {key: list(value) for key, value in parts.items()}
        if self.run is None:
            entry["ran"] = False
        return {k: v for k, v in entry.items() if v or k in ("sites", "ran")}

    def heads(self) -> dict[str, Any]:
        """Class of each model with a head → where the base model stands in it, and the head's own activations."""
        found: dict[str, Any] = {}
        base = getattr(self, "tiny", self.default)
        with limited():
            inner = set(module_sites(build(self.type, base, "meta")))
            names = {p for p, _ in build(self.type, base, "meta").named_modules()}
        prefix = type(self.meta).base_model_prefix
        for cls in _heads(type(self.meta.config)):
            with contextlib.suppress(Failed), limited():
                sites = self._of_class(cls, base)
                held = {p: sum(p + n in sites[1] for n in names) for p in (f"{prefix}.", "")}
                place = max(held, key=lambda p: held[p])
                if held[place] < len(names) / 2:
                    continue
                own = {p: v for p, v in sites[0].items() if p not in {place + q for q in inner}}
                head: dict[str, Any] = {} if place else {"prefix": ""}
                if gone := sorted({numbered(q)[0] for q in inner if place + q not in sites[0]}):
                    head["without"] = gone
                if own:
                    head["sites"] = [{"path": p, "is": name} for p, (name, _) in own.items()]
                    for key in activation_keys(base):
                        if not key.endswith("feed_forward_proj"):
                            now = self._of_class(cls, put(base, key, OTHER))[0]
                            for row in head["sites"]:
                                if row["path"] in now and now[row["path"]][0] == OTHER != row["is"]:
                                    row.setdefault("key", key)
                if head:
                    found[cls.__name__] = head
        return found

    def _of_class(self, cls: Any, settings: dict[str, Any]) -> tuple[dict[str, tuple[str, dict[str, float]]], set[str]]:
        with torch.device("meta"):
            model = cls._from_config(configured(self.type, settings))
        return module_sites(model), {p for p, _ in model.named_modules()}

    def owner(self, pattern: Pattern, indices: list[tuple[int, ...]], site: Site) -> nn.Module:
        path = pattern.format(*indices[0])
        return self.modules[path.rpartition(".")[0] if site.form == "module" else path]

    def rows(self) -> list[tuple[Pattern, int, Site, list[tuple[int, ...]]]]:
        """(pattern of the path, call, the site, the indices that have it in the default model), in order."""
        rows: dict[tuple[Pattern, int], tuple[Site, list[tuple[int, ...]]]] = {}
        kinds: dict[tuple[Pattern, int], set[str]] = {}
        for site in self.run.sites if self.run is not None else ():
            pattern, _ = numbered(site.path)
            kinds.setdefault((pattern, site.call), set()).add(site.activation or "unknown")
            if (pattern, site.call) not in rows and self.places.get(pattern):
                rows[pattern, site.call] = (site, self.alike(pattern, site.call))
        known = {key: row for key, row in rows.items() if row[0].activation and len(kinds[key]) == 1}
        seen = {pattern for pattern, _ in rows}
        for path, (name, parameters) in self.of_module.items():
            pattern, index = numbered(path)
            if pattern in seen and (pattern, 0) not in known:
                continue
            around = pattern.rpartition(".")[0]
            if pattern not in seen and any(f"{p}.".startswith(f"{around}.") for p in seen):
                continue  # its surroundings ran, and it was not called
            if (pattern, 0) not in known:
                known[pattern, 0] = (Site(f"{path}#0", path, 0, name, parameters, "declared"), [])
            if pattern not in seen:
                known[pattern, 0][1].append(index)
        return [(pattern, call, site, indices) for (pattern, call), (site, indices) in known.items()]

    def alike(self, pattern: Pattern, call: int) -> list[tuple[int, ...]]:
        """Where the default model has modules at such paths, of the classes that were seen to have this call."""
        assert self.run is not None
        seen = [s.path for s in self.run.sites if (numbered(s.path)[0], s.call) == (pattern, call)]
        classes = {type(self.modules[path]) for path in seen if path in self.modules}
        indices = self.places[pattern]
        return [i for i in indices if type(self.modules[pattern.format(*i)]) in classes] or indices

    def parts(self) -> dict[str, tuple[str, str]]:
        """Key of each nested config whose model is built as such inside this one → (its path, its type)."""
        found = {}
        for key, value in self.default.items():
            kind = value.get("model_type") if isinstance(value, dict) else None
            if kind not in CONFIG_MAPPING or CONFIG_MAPPING[kind] not in modeling_auto.MODEL_MAPPING:
                continue
            try:
                classes = modeling_auto.MODEL_MAPPING[CONFIG_MAPPING[kind]]
            except ValueError:  # transformers names a class there that it has not
                continue
            classes = classes if isinstance(classes, (tuple, list)) else (classes,)
            paths = [p for p, m in self.modules.items() if p and isinstance(m, tuple(classes))]
            if len(paths) == 1:
                found[key] = (paths[0] + ".", kind)
        return found

    def governed(
        self, rows: list[tuple[Pattern, int, Site, list[tuple[int, ...]]]]
    ) -> dict[tuple[Pattern, int], tuple[str | None, dict[str, str]]]:
        """(pattern, call) → the key that names its activation, and its parameters that a key gives."""
        found: dict[tuple[Pattern, int], tuple[str | None, dict[str, str]]] = {}
        base = self.tiny if self.run is not None else self.default
        for key in activation_keys(base):
            if key.endswith("feed_forward_proj"):
                value = "gated-silu" if "gated" in dict(_flat(base))[key] else "silu"
            else:
                value = OTHER
            for place in self._changed(base, key, value):
                before = found.get(place)
                if before is None or before[0] is None:
                    found[place] = (key, {})
        if self.run is None:
            return found
        for key, value in _flat(base):
            if type(value) in (int, float) and _NUMBERS.search(key.rpartition(".")[2]) and not isinstance(value, bool):
                with contextlib.suppress(Failed):
                    other = value * 1.5 or 1.5
                    census = observe(self.type, put(base, key, type(value)(other)))
                    self._moved(census, key, float(type(value)(other)), found)
        return found

    def _changed(self, base: dict[str, Any], key: str, value: str) -> set[tuple[Pattern, int]]:
        settings = put(base, key, value)
        found: set[tuple[Pattern, int]] = set()
        with contextlib.suppress(Failed), limited():
            before, now = (module_sites(build(self.type, s, "meta")) for s in (base, settings))
            found |= {(numbered(p)[0], 0) for p, v in now.items() if p in before and v[0] != before[p][0]}
        if self.run is not None and any(s.form != "module" and s.role != "attention" for s in self.run.sites):
            with contextlib.suppress(Failed):
                old = {s.key: core(s.activation or "") for s in self.run.sites}
                for s in observe(self.type, settings).sites:
                    if s.key in old and core(s.activation or "") != old[s.key]:
                        found.add((numbered(s.path)[0], s.call))
        return found

    def _moved(
        self,
        census: Census,
        key: str,
        value: float,
        found: dict[tuple[Pattern, int], tuple[str | None, dict[str, str]]],
    ) -> None:
        assert self.run is not None
        before = {s.key: s for s in self.run.sites}
        for site in census.sites:
            old = before.get(site.key)
            if old is None or old.activation != site.activation:
                continue
            for name, now in site.parameters.items():
                if abs(now - value) <= 1e-5 * abs(value) and abs(old.parameters.get(name, now) - now) > 1e-5:
                    place = (numbered(site.path)[0], site.call)
                    known = found.setdefault(place, (None, {}))
                    known[1].setdefault(name, key)

    # -- which layers

    def which(self, pattern: Pattern, indices: list[tuple[int, ...]]) -> dict[str, Any] | None:
        """The rule that gives these indices from the config; None where there is no index."""
        if indices == [()]:
            return None
        columns = list(zip(*indices, strict=True))
        constant = [len(set(c)) == 1 for c in columns]
        if all(constant) and len(indices) == 1 and not self._counts(1):
            return {"only": [list(i) for i in indices]}
        varying = [c for c, same in zip(columns, constant, strict=True) if not same] or [columns[0]]
        fixed = [c[0] if same else None for c, same in zip(columns, constant, strict=True)]
        if len(varying) == 1:
            rule = self._rule(pattern, sorted(set(varying[0])))
            if rule is not None and len(set(indices)) == len(indices):
                return {"at": fixed, **rule} if len(fixed) > 1 else rule
        if len(varying) == 2:
            for key, value in _flat(self.default):
                if isinstance(value, list) and value and all(type(v) is int for v in value):
                    pairs = {(i, j) for i, n in enumerate(value) for j in range(n)}
                    if pairs == set(zip(*varying, strict=True)):
                        return {"at": fixed, "ragged": key} if len(fixed) > 2 else {"ragged": key}
        return {"only": [list(i) for i in indices]} if len(indices) <= 64 else {"only": [list(i) for i in indices[:64]]}

    def _counts(self, n: int) -> list[str]:
        keys = [k for k, v in _flat(self.default) if type(v) is int and v == n and re.search(r"(layer|depth|block)", k)]
        return sorted(keys, key=lambda k: (k.rpartition(".")[2] not in COUNTS, k.count("."), k))

    def _rule(self, pattern: Pattern, layers: list[int]) -> dict[str, Any] | None:
        flat = dict(_flat(self.default))
        for key in self._counts(len(layers)):
            if layers == list(range(len(layers))) and self._follows(pattern, key):
                return {"count": key}
        wanted = set(layers)
        lists = {k: v for k, v in flat.items() if isinstance(v, list) and len(v) > max(layers)}
        totals = [k for k, v in flat.items() if k.rpartition(".")[2] in COUNTS and type(v) is int and v > max(layers)]
        for total in totals:
            every = set(range(flat[total]))
            for key, value in flat.items():
                if (
                    type(value) is not int
                    or not re.search(r"(dense|sparse|moe|expert|layer|step|interval|freq)", key)
                    or key == total
                ):
                    continue
                if wanted == set(range(min(value, flat[total]))):
                    return {"count": total, "below": key}
                if wanted == set(range(value, flat[total])):
                    return {"count": total, "from": key}
                if value > 1 and wanted == {i for i in every if (i + 1) % value == 0}:
                    return {"count": total, "every": key}
                if value > 1 and wanted == {i for i in every if (i + 1) % value}:
                    return {"count": total, "not_every": key}
            for key, value in lists.items():
                if len(value) == flat[total]:
                    kinds = {str(value[i]) for i in layers}
                    if wanted == {i for i in every if str(value[i]) in kinds} and len(kinds) < len(
                        set(map(str, value))
                    ):
                        return {"count": total, "where": key, "in": sorted(kinds)}
            for key, value in flat.items():
                if isinstance(value, list) and value and all(type(v) is int for v in value):
                    if wanted == set(value):
                        return {"count": total, "listed": key}
                    if wanted == every - set(value):
                        return {"count": total, "not_listed": key}
        return None

    def _follows(self, pattern: Pattern, key: str) -> bool:
        """Whether the model really has one such layer less where this key says so."""
        value = dict(_flat(self.default))[key]
        if len(self._counts(value)) == 1 or value == 1:
            return True
        try:
            now = self.shortened(key, value - 1)
        except Failed:
            return True
        return sum(numbered(p)[0] == pattern for p in now) < len(self.places[pattern])

    @functools.cache  # noqa: B019 (one derivation at a time)
    def shortened(self, key: str, value: int) -> list[str]:
        before = dict(_flat(self.default))[key]
        changed = put(self.default, key, value)
        for name, held in _flat(changed):  # what says something of each layer
            if isinstance(held, list) and len(held) == before:
                changed = put(changed, name, held[:value])
        with limited():
            return [p for p, _ in build(self.type, changed, "meta").named_modules()]


def _heads(config: type) -> list[Any]:
    """The classes that put a head on the model of this config."""
    found: dict[Any, None] = {}
    for name, mapping in sorted(vars(modeling_auto).items()):
        if name.startswith("MODEL_FOR_") and name.endswith("_MAPPING") and config in mapping:
            classes = mapping[config]
            found.update(dict.fromkeys(classes if isinstance(classes, (tuple, list)) else (classes,)))
    return list(found)


def _period(value: Any) -> Any:
    """A list that repeats itself as its period: {"repeat": [...]}."""
    if not isinstance(value, list) or len(value) < 4:
        return value
    for n in range(1, len(value) // 2 + 1):
        if all(value[i] == value[i % n] for i in range(len(value))):
            return {"repeat": value[:n]}
    return value


def _joined(sites: list[dict[str, Any]]) -> list[dict[str, Any]]:
    """The sites, with the clamps that a run sees beside an expert's activation made part of it: swiglu_clamped."""
    limits = {
        r["path"]: r["with"]["max_val"]
        for r in sites
        if r["is"] == "hardtanh" and isinstance(r["with"].get("max_val"), str)
    }
    joined = []
    for row in sites:
        around = row["path"] if row.get("form") else row["path"].rpartition(".")[0]
        if row["is"] == "hardtanh" and row["path"] in limits:
            continue
        if around in limits and core(row["is"]) == "silu":
            row = row | {"is": "swiglu_clamped", "with": {"limit": limits[around]}, "role": "gate"}
        elif around in limits and row["is"] in ("quick_gelu", "swish"):
            row = row | {"is": "swiglu_oai", "with": {"alpha": "swiglu_alpha", "limit": limits[around]}, "role": "gate"}
        joined.append(row)
    return joined


def _telling(site: Site) -> dict[str, float]:
    """Parameters that are not the entry's own defaults."""
    assert site.activation is not None
    usual = settled(site.activation)
    return {k: v for k, v in site.parameters.items() if k in usual and abs(v - usual[k]) > 1e-9}


def _keys_of(which: dict[str, Any] | None) -> Iterator[str]:
    for word, value in (which or {}).items():
        if word in ("count", "below", "from", "every", "not_every", "where", "listed", "not_listed", "ragged"):
            yield value


def derive(model_types: Iterable[str], told: Callable[[str], None]) -> dict[str, Any]:
    found = {}
    for model_type in model_types:
        try:
            one = Derivation(model_type)
            entry = one.entry()
            if not entry["sites"] and "parts" not in entry:
                raise Failed("no activation is known of it")
            found[model_type] = entry
            why = f", not run: {one.why_not_run}" if one.run is None else ""
            told(f"{model_type}: {len(found[model_type]['sites'])} sites{why}")
        except Failed as error:
            told(f"{model_type}: {error}")
        except Exception as error:  # transformers is large: one type that is unlike the others is only left out
            told(f"{model_type}: {type(error).__name__}: {error}")
    return found


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("types", nargs="*", help="model types; all of them unless given")
    parser.add_argument(
        "--check", action="store_true", help="write nothing, exit with 1 where the table says otherwise"
    )
    chosen = parser.parse_args()
    transformers.logging.set_verbosity_error()
    held = unpacked(json.loads(TABLE.read_text())) if TABLE.exists() else {"types": {}}
    found = derive(chosen.types or types(), lambda line: print(line, flush=True))
    if chosen.check:
        wrong = [t for t, entry in found.items() if held["types"].get(t) != entry]
        print(f"{len(found) - len(wrong)} of {len(found)} as committed" + f"; not {', '.join(wrong)}" * bool(wrong))
        return bool(wrong)
    source = f"transformers {transformers.__version__}, derived by tools/architectures.py"
    write_whole(TABLE, packed(source, held["types"] | found if chosen.types else found))
    return 0


if __name__ == "__main__":
    sys.exit(main())
