"""GGUF, the format of llama.cpp: the header alone, metadata and the names of the tensors.

A GGUF file names no activation, with few exceptions: the engine decides by the architecture's name. `gguf.json` holds
what llama.cpp runs for each; a block that has a gate in the file is gated. A key that does name one (that of
ModernBERT's kin, CLIP's two flags, xIELU's parameters, the clamps of SwiGLU) makes the answer *declared*, else it is
*inferred*.
"""

from __future__ import annotations

import functools
import json
import os
import re
import struct
from collections.abc import Mapping
from importlib import resources
from pathlib import Path
from typing import Any

from ...errors import InputError
from ..census import Census, Conflict, Site
from . import parsing
from .gates import core, gated, settled
from .tensors import Tensor

_HEADER = 48 << 20  # bytes: metadata with a tokenizer of 260,000 tokens and its merges has 20 million
_SCALARS = {0: "B", 1: "b", 2: "H", 3: "h", 4: "I", 5: "i", 6: "f", 7: "?", 10: "Q", 11: "q", 12: "d"}
_STRING, _ARRAY = 8, 9
_KEPT = 4096  # elements of an array that are kept: a value of each layer; longer ones are a tokenizer's
_LAYERS = 4096
_BLOCK = re.compile(r"(?P<block>(?:[a-z]+\.)*blk\.\d+)\.(?P<part>[a-z0-9_]+)(?:\.(?P<kind>weight|bias|scale))?$")
_KINDS = {"": "ffn", "_exps": "ffn_exps", "_shexp": "ffn_shexp", "_chexps": "ffn_chexps"}


def read(path: str | os.PathLike[str]) -> Census:
    """The Census of a .gguf file. Raises InputError where its header is damaged or cut off."""
    found = parsing.regular(path)
    metadata, tensors = header(found)
    return census(metadata, tensors, found.name)


def header(path: Path) -> tuple[dict[str, Any], dict[str, Tensor]]:
    """Metadata by key (of arrays longer than 4,096 only the first elements), and name → type and shape of each tensor.

    Versions 1 to 3, both byte orders. Raises InputError where a length or a type does not fit the file.
    """
    return _Header(parsing.beginning(path, _HEADER), path).read()


class _Header:
    """A position in the bytes of a header."""

    def __init__(self, data: bytes, path: Path) -> None:
        self.data = data
        self.path = path
        self.at = 4
        self.order = "<"
        self.wide = True  # lengths of 8 bytes; version 1 has 4

    def read(self) -> tuple[dict[str, Any], dict[str, Tensor]]:
        if self.data[:4] != b"GGUF":
            raise InputError(f"{self.path} does not begin with GGUF")
        (version,) = self.take("I")
        if version & 0xFFFF == 0 and version:
            self.order, self.at = ">", 4
            (version,) = self.take("I")
        if not 1 <= version <= 3:
            raise InputError(f"{self.path} is GGUF version {version}; 1 to 3 are known")
        self.wide = version > 1
        count, keys = self.length(), self.length()
        self.fits(keys, 13 if self.wide else 9, "keys")
        self.fits(count, 24 if self.wide else 16, "tensors")
        metadata: dict[str, Any] = {}
        for _ in range(keys):
            key = self.string()
            if key in metadata:
                raise InputError(f"{self.path} has the key {key[:80]!r} twice: it is damaged")
            metadata[key] = self.value(self.take("I")[0], 0)
        tensors: dict[str, Tensor] = {}
        for _ in range(count):
            name = self.string()
            (dimensions,) = self.take("I")
            if dimensions > 8 or name in tensors:
                wrong = "twice" if name in tensors else f"with {dimensions} dimensions"
                raise InputError(f"{self.path} has the tensor {name[:80]!r} {wrong}: it is damaged")
            shape = self.take(f"{dimensions}{'Q' if self.wide else 'I'}")
            kind, _ = self.take("IQ")
            tensors[name] = Tensor(str(kind), tuple(reversed(shape)))
        return metadata, tensors

    def take(self, form: str) -> tuple[Any, ...]:
        # "=": no padding between fields; the byte order comes first
        size = struct.calcsize(self.order + form)
        self.ends(size)
        found = struct.unpack_from(self.order + form, self.data, self.at)
        self.at += size
        return found

    def ends(self, size: int) -> None:
        if size > len(self.data) - self.at:
            more = (
                "its header is longer than any that is read"
                if len(self.data) == _HEADER
                else "it is cut off or damaged"
            )
            raise InputError(f"{self.path} ends within its header, at byte {self.at}: {more}")

    def fits(self, count: int, each: int, what: str) -> None:
        if count * each > len(self.data) - self.at:
            raise InputError(f"{self.path} says it has {count} {what}, for which it is too short: cut off or damaged")

    def length(self) -> int:
        return self.take("Q" if self.wide else "I")[0]

    def string(self) -> str:
        size = self.length()
        self.ends(size)
        self.at += size
        return self.data[self.at - size : self.at].decode("utf-8", "replace")

    def value(self, kind: int, depth: int) -> Any:
        if kind in _SCALARS:
            return self.take(_SCALARS[kind])[0]
        if kind == _STRING:
            return self.string()
        if kind != _ARRAY or depth > 4:
            raise InputError(
                f"{self.path} has a value of type {kind} at byte {self.at}, which is not known: it is damaged"
            )
        (inner,) = self.take("I")
        count = self.length()
        if inner in _SCALARS:
            size = struct.calcsize("=" + _SCALARS[inner])
            self.fits(count, size, "elements in an array")
            kept = min(count, _KEPT)
            found = list(struct.unpack_from(f"{self.order}{kept}{_SCALARS[inner]}", self.data, self.at))
            self.at += count * size
            return found
        self.fits(count, 8 if self.wide else 4, "elements in an array")
        if inner == _STRING and count > _KEPT:
            return self._skipped(count)
        return [self.value(inner, depth + 1) for _ in range(count)]

    def _skipped(self, count: int) -> list[Any]:
        """Goes past an array of strings, of which none is kept: a tokenizer's hundreds of thousands."""
        unpack = struct.Struct(self.order + ("Q" if self.wide else "I")).unpack_from
        step, data, at, end = (8 if self.wide else 4), self.data, self.at, len(self.data)
        for _ in range(count):
            if at + step > end:
                break
            at += step + unpack(data, at)[0]
        self.at = at
        self.ends(0)
        return []


def census(metadata: Mapping[str, Any], tensors: Mapping[str, Tensor], name: str) -> Census:
    """The Census from a header's contents."""
    kind = metadata.get("general.architecture")
    title = metadata.get("general.name")
    model = str(title) if isinstance(title, str) and title else name
    if not isinstance(kind, str):
        raise InputError(f"{name} has no general.architecture, so that nothing says which model it is")
    reading = _Reading(metadata, tensors, kind)
    sites = reading.sites()
    notes = [f"architecture {kind}; {reading.source} decides by it what runs"] if kind in reading.known else []
    if kind not in reading.known:
        notes.append(
            f"the architecture {kind!r} is not in the table of {reading.source}: its activations are not known"
        )
    if any(site.activation and core(site.activation) in ("gelu_tanh", "quick_gelu") for site in sites):
        notes.append("on a CPU llama.cpp takes GELU from a table of float16, off by up to 3.9e-3")
    return Census(model, tuple(sites), executed=False, notes=tuple(notes), conflicts=tuple(reading.conflicts))


class _Reading:
    def __init__(self, metadata: Mapping[str, Any], tensors: Mapping[str, Tensor], kind: str) -> None:
        self.metadata, self.tensors, self.kind = metadata, tensors, kind
        held = _table()
        self.source: str = held["source"]
        self.known: dict[str, Any] = held["architectures"]
        self.from_string: dict[str, str] = held["hidden_activation"]
        self.entry = self.known.get(kind, {})
        self.conflicts: list[Conflict] = []

    def sites(self) -> list[Site]:
        sites: list[Site] = []
        for block, parts in self._blocks().items():
            number = int(block.rpartition(".")[2])
            if any(part.startswith(("attn_q", "attn_k")) for part in parts):
                sites.append(
                    self._site(f"{block}.attn", "softmax", {}, "attention", "inferred", f"{self.source}: {self.kind}")
                )
            for ending, place in _KINDS.items():
                if f"ffn_up{ending}" in parts or f"ffn_gate_up{ending}" in parts:
                    sites.append(self._feedforward(f"{block}.{place}", number, ending, parts))
        self._clamped_to_nothing(sites)
        return sites

    def _blocks(self) -> dict[str, dict[str, tuple[int, ...]]]:
        """Block → its weights by name; where the file lists no tensors, blocks of which only the number is known."""
        blocks: dict[str, dict[str, tuple[int, ...]]] = {}
        for name, tensor in self.tensors.items():
            found = _BLOCK.match(name)
            if found is not None and found["kind"] in (None, "weight"):
                blocks.setdefault(found["block"], {})[found["part"]] = tensor.shape
        if not self.tensors:
            count = self.metadata.get(f"{self.kind}.block_count")
            if type(count) is int and 0 < count <= _LAYERS:
                gate = {"ffn_gate": ()} if self.entry.get("gated", True) else {}
                blocks = {f"blk.{i}": {"attn_q": (), "ffn_up": (), **gate} for i in range(count)}
        return blocks

    def _feedforward(self, path: str, block: int, ending: str, parts: Mapping[str, tuple[int, ...]]) -> Site:
        up, down = parts.get(f"ffn_up{ending}", ()), parts.get(f"ffn_down{ending}", ())
        packed = f"ffn_gate_up{ending}" in parts or (
            f"ffn_gate{ending}" not in parts and len(up) > 1 and len(down) > 1 and up[-2] == 2 * down[-1]
        )
        is_gated = packed or f"ffn_gate{ending}" in parts
        layout = "gate_up" if packed else "split" if is_gated else None
        op, evidence, where, note = self._op(path, is_gated)
        parameters: dict[str, float] = {}
        name = op if op is None or not is_gated else gated(op) or op
        if op == "xielu":
            parameters, evidence, where = self._xielu(block)
        limit = self._clamp(block, ending)
        if limit is not None and name == "swiglu":
            name = "swiglu_clamped" if self.entry.get("clamp") == "before" else "swiglu_step"
            parameters = {"limit": limit}
        return self._site(path, name, parameters, "gate" if is_gated else "hidden", evidence, where, layout, note)

    def _op(self, path: str, is_gated: bool) -> tuple[str | None, str, str, str]:
        """(the activation before gating, evidence, where it is said, note)."""
        for key in (f"{self.kind}.hidden_activation", f"{self.kind}.hidden_act"):
            said = self.metadata.get(key)
            if isinstance(said, str) and self.entry.get("key"):
                usual = self.entry["runs"]
                op = self.from_string.get(said)
                if op is None:
                    where = f"{key} = {said[:40]!r}"
                    conflict = Conflict(
                        (f"{path}#0",), said[:40], usual, (key, self.source), "an unknown name falls back"
                    )
                    self.conflicts.append(conflict)
                    return usual, "inferred", where, f"{self.source} does not know the name and runs {usual}"
                return op, "declared", key, ""
        if self.kind == "clip":
            for key, op in (("clip.use_gelu", "gelu_tanh"), ("clip.use_silu", "silu")):
                if self.metadata.get(key) is True:
                    return op, "declared", key, ""
            return "quick_gelu", "inferred", f"{self.source}: clip, neither use_gelu nor use_silu", ""
        runs = self.entry.get("runs")
        if isinstance(runs, Mapping):
            runs = runs["gated" if is_gated else "ungated"]
        return (
            runs,
            "inferred",
            f"{self.source}: {self.kind}",
            self.entry.get("note", "") if runs else "not in the table",
        )

    def _xielu(self, block: int) -> tuple[dict[str, float], str, str]:
        found = {}
        for name in ("alpha_p", "alpha_n", "beta", "eps"):
            value = self.metadata.get(f"xielu.{name}")
            value = value[block] if isinstance(value, list) and block < len(value) else value
            if isinstance(value, float):
                found[name] = value
        if found:
            return found, "declared", "xielu.alpha_p"
        return {}, "inferred", f"{self.source}: {self.kind}"

    def _clamp(self, block: int, ending: str) -> float | None:
        key = "swiglu_clamp_exp" if ending == "_exps" else "swiglu_clamp_shexp"
        value = self.metadata.get(f"{self.kind}.{key}")
        value = value[block] if isinstance(value, list) and block < len(value) else value
        # llama.cpp takes anything up to 1e-6 as no clamp
        return float(value) if isinstance(value, float) and value > 1e-6 else None

    def _clamped_to_nothing(self, sites: list[Site]) -> None:
        both = [k for k in ("clip.use_gelu", "clip.use_silu") if self.metadata.get(k) is True]
        if self.kind == "clip" and len(both) == 2:
            keys = tuple(s.key for s in sites if s.role != "attention")
            said = (both[0], both[1])
            self.conflicts.append(Conflict(keys, "gelu_tanh", "silu", said, "llama.cpp refuses to load it"))

    @staticmethod
    def _site(
        path: str, name: str | None, parameters: dict[str, float], role: str, evidence: str, where: str,
        layout: str | None = None, note: str = "",
    ) -> Site:  # fmt: skip
        return Site(
            f"{path}#0", path, 0, name, settled(name) | parameters, evidence, "functional", where, role=role,
            measured=False, note=note, layout=layout,
        )  # fmt: skip


@functools.cache
def _table() -> dict[str, Any]:
    return json.loads(resources.files(__package__).joinpath("gguf.json").read_text(encoding="utf-8"))
