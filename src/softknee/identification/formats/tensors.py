"""What the names and shapes of tensors say of the activations between them, where nothing else is known.

They tell where a feed-forward block is, whether it is gated and how its halves lie, and that an activation learns
parameters; not which function it is. For that the architectures of transformers are counted that have a block of
this name and kind: one activation if they all agree, otherwise the candidates with their shares.
"""

from __future__ import annotations

import functools
import re
from collections import Counter
from collections.abc import Mapping
from dataclasses import dataclass

from ..census import Candidate, Census, Site
from .architectures import architectures
from .gates import core, gated

# (what feeds the gate, what feeds the other half, what follows), then (one map for both, or for the only one; what
# follows), which the shapes tell apart
_SPLIT = (
    ("gate_proj", "up_proj", "down_proj"), ("w1", "w3", "w2"), ("wi_0", "wi_1", "wo"), ("gate", "up", "down"),
    ("linear_1_gate", "linear_1", "linear_2"), ("fc1_g", "fc1_x", "fc2"),
)  # fmt: skip
_PAIRS = (
    ("gate_up_proj", "down_proj"), ("up_proj", "down_proj"), ("c_fc", "c_proj"), ("fc1", "fc2"), ("lin1", "lin2"),
    ("dense_h_to_4h", "dense_4h_to_h"), ("linear1", "linear2"), ("linear_1", "linear_2"), ("fc_in", "fc_out"),
    ("wi", "wo"), ("Wi", "Wo"), ("w12", "w3"), ("weights_in", "weights_out"), ("lin_1", "lin_2"), ("w1", "w2"),
    ("intermediate.dense", "output.dense"), ("intermediate_dense", "output_dense"), ("fc11", "fc2"),
)  # fmt: skip
_PACKED = {"gate_up_proj"}
_ENDINGS = re.compile(
    r"[._](weight|bias|qweight|qzeros|scales|g_idx|blocks|weight_packed|weight_scale|weight_scale_inv|weight_shape)$"
)
_ACTIVATION = re.compile(r"(^|[._])(act|act_fn|activation|activation_fn|activate|prelu|act\d|actv|snake)$")
_NUMBER = re.compile(r"(?<![^.])\d+(?![^.])")


@dataclass(frozen=True)
class Tensor:
    """dtype as the file writes it, shape."""

    dtype: str
    shape: tuple[int, ...]


@dataclass(frozen=True)
class FeedForward:
    """Two or three maps with an activation between. path: of the module that holds them; layout: None if not gated."""

    path: str
    gated: bool
    layout: str | None
    names: tuple[str, ...]
    units: int | None


def feedforwards(tensors: Mapping[str, Tensor]) -> list[FeedForward]:
    """The feed-forward blocks, in the order of the file."""
    held: dict[str, dict[str, tuple[int, ...]]] = {}
    for name, tensor in tensors.items():
        stem = _ENDINGS.sub("", name)
        place, _, child = stem.rpartition(".")
        if stem == name or name.endswith(("weight", "blocks", "weight_packed")) or child not in held.get(place, {}):
            held.setdefault(place, {})[child] = tensor.shape
        outer, _, inner = place.rpartition(".")
        if f"{inner}.{child}" in ("intermediate.dense", "output.dense"):
            held.setdefault(outer, {})[f"{inner}.{child}"] = (
                tensor.shape if len(tensor.shape) > 1 else held.get(outer, {}).get(f"{inner}.{child}", ())
            )
    found = []
    for place, children in held.items():
        block = _block(place, children)
        if block is not None:
            found.append(block)
    return found


def _block(place: str, children: Mapping[str, tuple[int, ...]]) -> FeedForward | None:
    for names in _SPLIT:
        if all(name in children for name in names):
            return FeedForward(place, True, "split", names, _inner(children[names[0]], children[names[2]])[1])
    for first, last in _PAIRS:
        if first in children and last in children:
            wide, narrow = _inner(children[first], children[last])
            packed = first in _PACKED or (wide is not None and narrow is not None and wide == 2 * narrow)
            return FeedForward(place, packed, "gate_up" if first in _PACKED else None, (first, last), narrow)
    return None


def _inner(first: tuple[int, ...], last: tuple[int, ...]) -> tuple[int | None, int | None]:
    """What the first map gives and the last one takes; they differ where two halves are packed in one."""
    if len(first) < 2 or len(last) < 2:
        return None, None
    (a, b), (c, d) = first[-2:], last[-2:]
    if b == c:  # (out, in), as in torch.nn.Linear
        return a, d
    return (b, c) if a == d else (None, None)  # (in, out), as in GPT-2


def census(model: str, tensors: Mapping[str, Tensor], source: str) -> Census:
    """What can be inferred from names and shapes alone; `source` says where they are from."""
    sites = []
    for block in feedforwards(tensors):
        likely = candidates(block.path, block.gated)
        alone = len(likely) == 1
        kind = "gated" if block.gated else "not gated"
        what = f"{kind}: it has {', '.join(block.names)}"
        if not alone:
            what += "; the names do not tell which function" + (
                "" if likely else ", and no architecture is known that has them"
            )
        sites.append(
            Site(
                f"{block.path}#0", block.path, 0, likely[0].activation if alone else None, {}, "inferred", "functional",
                source, role="gate" if block.gated else "hidden", units=block.units, measured=False, note=what,
                layout=block.layout, candidates=() if alone else likely,
            )
        )  # fmt: skip
    sites += _learnable(tensors, source)
    known = "config.json or the program that made it says which activations it has"
    notes = [f"inferred from {source}; the weights were not read", known]
    if not sites:
        notes.insert(0, f"none of the {len(tensors)} tensors has the name of a feed-forward block or an activation")
    return Census(model, tuple(sites), executed=False, notes=tuple(notes))


def _learnable(tensors: Mapping[str, Tensor], source: str) -> list[Site]:
    """Activations that have parameters of their own, which are in the weights."""
    held: dict[str, dict[str, tuple[int, ...]]] = {}
    for name, tensor in tensors.items():
        place, _, leaf = name.rpartition(".")
        held.setdefault(place, {})[leaf] = tensor.shape
    sites = []
    for place, leaves in held.items():
        if {"alpha_p", "alpha_n"} <= leaves.keys():
            name = "xielu"
        elif (
            not _ACTIVATION.search(place)
            or not leaves
            or any(len([n for n in s if n != 1]) > 1 for s in leaves.values())
        ):
            continue
        elif leaves.keys() == {"weight"}:
            name = "prelu"
        elif leaves.keys() == {"alpha", "beta"}:
            name = "snake_beta"
        elif leaves.keys() == {"alpha"}:
            name = "snake"
        else:
            continue
        counts = {leaf: functools.reduce(lambda a, b: a * b, shape, 1) for leaf, shape in leaves.items()}
        learned = ", ".join(f"{count} × {leaf}" for leaf, count in counts.items())
        sites.append(
            Site(
                f"{place}#0", place, 0, name, {}, "inferred", "module", source, units=max(counts.values()),
                measured=False, note=f"learned: {learned}; the values are in the weights, which are not read",
            )
        )  # fmt: skip
    return sites


def candidates(path: str, is_gated: bool) -> tuple[Candidate, ...]:
    """The activations of the architectures that have a block at such a path, gated or not, by their shares."""
    pattern = _NUMBER.sub("{}", path)
    parts = pattern.split(".")
    counted: Counter[str] = Counter()
    for start in range(len(parts)):  # whatever the model that it is part of puts before it
        counted += _counts(is_gated).get(".".join(parts[start:]), Counter())
    total = sum(counted.values())
    return tuple(Candidate(name, {}, round(count / total, 4)) for name, count in counted.most_common())


@functools.cache
def _counts(is_gated: bool) -> dict[str, Counter[str]]:
    """Pattern of a block's path → how many architectures have which activation there."""
    found: dict[str, Counter[str]] = {}
    for entry in architectures()["types"].values():
        for row in entry["sites"]:
            if row.get("role", "hidden") not in ("gate", "hidden") or row["is"] in ("softmax", "softplus", "softcap"):
                continue
            gate = row.get("role") == "gate" and (row["is"] != core(row["is"]) or gated(row["is"]) is None)
            inside = row.get("form", "module") == "module"
            place = row["path"].rpartition(".")[0] if inside else row["path"]
            if gate == is_gated and ("layout" in row) == is_gated and (inside or is_gated):
                for name in {place, place.removesuffix(".intermediate")}:
                    found.setdefault(name, Counter())[row["is"]] += 1
    return found
