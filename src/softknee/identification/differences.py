"""Two censuses site by site: where two models apply different functions, by how much at worst, and what is known of it.

Sites are paired by their key; what is left by the number of the layer; what is left then by their order. Each pair's
functions are evaluated, so spellings and parameters of the same function are no difference. A model that was not
executed says nothing of the sites that it does not name.
"""

from __future__ import annotations

import difflib
import functools
import json
import re
from collections import Counter
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from importlib import resources
from typing import Any

import numpy as np
import torch

from ..errors import InputError
from ..plain import plain_fields
from .census import Census, Site
from .grouping import grouped, written
from .matching import gated_probes, tolerance

REACH = 12.0
"""Functions are compared for |x| up to this: beyond it the smooth ones are straight lines or constants."""

FAIL_ON = ("any", "numeric", "none")

_WRAPPERS = re.compile(r"^((model|module|transformer|_orig_mod|base_model)\.)+")
_HALF = (torch.float16, torch.bfloat16)


@dataclass(frozen=True)
class Trap:
    """A mistake that is known: what happens (why), what follows from it (usually), and where it was seen."""

    why: str
    usually: str
    seen: tuple[str, ...]


@dataclass(frozen=True)
class Difference:
    """Sites that differ in the same way.

    kind: "numeric" (other values), "layout" (gate and up lie elsewhere in a packed input), "unknown" (one of the two is
    unknown), "missing" (only one model has the site). before, after: the functions' names, None where missing. pairs:
    the sites' keys in either model. distance: the largest |Δf| for |x| ≤ 12, None where it was not evaluated; at: the
    inputs where; both: whether −x is as bad as x.
    """

    kind: str
    before: str | None
    after: str | None
    pairs: tuple[tuple[str | None, str | None], ...]
    distance: float | None = None
    at: tuple[float, ...] = ()
    both: bool = False
    trap: Trap | None = None

    def __len__(self) -> int:
        return len(self.pairs)

    def to_dict(self) -> dict[str, Any]:
        return plain_fields(self)

    def __str__(self) -> str:
        count = f"{len(self)} site{'s' if len(self) > 1 else ''}"
        if self.kind == "missing":
            side, name = ("first", self.before) if self.after is None else ("second", self.after)
            return f"{count}: {name} only in the {side}"
        off = "" if self.distance is None else f", {self.size}"
        return f"{count}: {self.before} → {self.after}{off}"

    @property
    def size(self) -> str:
        """`|Δf| ≤ 4.7e-4 at x = ±2.70`"""
        if self.distance is None:
            return ""
        if len(self.at) == 1:
            where = f"x = {'±' if self.both else ''}{abs(self.at[0]) if self.both else self.at[0]:#.3g}"
        else:
            where = ", ".join(f"{n} = {v:#.3g}" for n, v in zip(("gate", "up"), self.at, strict=False)) or "some rows"
        bound = "≥" if any(abs(v) > 0.999 * REACH for v in self.at) else "≤"  # it may grow beyond
        return f"|Δf| {bound} {_short(self.distance)} at {where}"

    @property
    def sites(self) -> str:
        """The keys, those of the second model beside them where they are other ones."""
        sides = [[key for key in side if key is not None] for side in zip(*self.pairs, strict=True)]
        first, second = (_listed(side) for side in sides)
        return first if first == second or not second else f"{first} | {second}" if first else second


@dataclass(frozen=True)
class Differences:
    """What two models do differently. same: pairs of sites that are the same function; notes: what was not compared."""

    before: str
    after: str
    differences: tuple[Difference, ...]
    same: int
    notes: tuple[str, ...] = ()

    def __iter__(self) -> Any:
        return iter(self.differences)

    def __len__(self) -> int:
        return len(self.differences)

    def fails(self, on: str = "any") -> bool:
        """Whether a gate that looks for "any" difference, for a "numeric" one only, or for "none", says no.

        Raises InputError for another word.
        """
        if on not in FAIL_ON:
            raise InputError(f"fail_on={on!r} is unknown; it is one of {', '.join(FAIL_ON)}")
        return on != "none" and any(on == "any" or d.kind == "numeric" for d in self.differences)

    def to_dict(self) -> dict[str, Any]:
        return plain_fields(self)

    @property
    def verdict(self) -> str:
        sites = f"{self.same} site{'' if self.same == 1 else 's'}"
        if not self.differences:
            return f"no difference: {sites} compared" if self.same else "nothing to compare: the sites have no partners"
        differ = sum(map(len, self.differences))
        return f"{differ} site{' differs' if differ == 1 else 's differ'}, {self.same} are the same"

    def __str__(self) -> str:
        lines = [f"{self.before} → {self.after}: {self.verdict}"]
        for each in self.differences:
            lines += [f"  {each}", f"     at {each.sites}"]
            if each.trap is not None:
                lines += [f"     why: {each.trap.why}", f"     usually: {each.trap.usually}"]
                lines += [f"     seen: {', '.join(each.trap.seen)}"] if each.trap.seen else []
        return "\n".join([*lines, *(f"  note: {note}" for note in self.notes)])


def against(before: Census, after: Census) -> Differences:
    """Where `after` applies another function than `before`."""
    found: list[tuple[Site | None, Site | None, Difference]] = []
    notes = [f"{census.model}: {conflict}" for census in (before, after) for conflict in census.conflicts]
    same = 0
    partial = [not census.executed for census in (before, after)]
    untold: dict[str, list[Site]] = {}
    pairs = _paired(before.sites, after.sites)
    recurrent = {(s.path, s.name) for pair in pairs if None not in pair for s in pair if s and _recurrent(*pair)}
    for a, b in pairs:
        if a is None or b is None:
            site = a or b
            assert site is not None
            if (site.path, site.name) in recurrent:  # the same cell, written out for every step
                same += 1
            elif partial[a is not None]:  # the model that lacks it does not name everything
                untold.setdefault((before, after)[a is not None].model, []).append(site)
            else:
                found.append((a, b, Difference("missing", a.name if a else None, b.name if b else None, ())))
            continue
        difference, note = _compared(a, b)
        notes += [note] if note else []
        if difference is None:
            same += 1
        else:
            found.append((a, b, difference))
    for model, sites in untold.items():
        counted = Census("", tuple(sites)).counts()
        notes.append(f"{model} does not say: " + ", ".join(f"{n} × {name}" for name, n in counted.items()))
    groups = grouped(
        found,
        lambda each: (each[0] or each[1]).key,
        lambda each: (each[2].kind, each[2].before, each[2].after, each[2].at),
    )
    kinds = ("numeric", "layout", "unknown", "missing")
    every = [_together([(a and a.key, b and b.key) for a, b, _ in group], group[0][2]) for group in groups]
    every.sort(key=lambda each: kinds.index(each.kind))
    return Differences(before.model, after.model, tuple(every), same, tuple(dict.fromkeys(notes)))


def _recurrent(a: Site | None, b: Site | None) -> bool:
    """Whether one of them is a gate inside a recurrent module, whose steps the other model may have one by one."""
    return any(site is not None and site.form == "fused" and site.role != "attention" for site in (a, b))


def _together(pairs: list[tuple[str | None, str | None]], like: Difference) -> Difference:
    return Difference(like.kind, like.before, like.after, tuple(pairs), like.distance, like.at, like.both, like.trap)


# -- which site is which


def _paired(before: Sequence[Site], after: Sequence[Site]) -> list[tuple[Site | None, Site | None]]:
    pairs: list[tuple[Site | None, Site | None]] = []
    for key in (_by_key, _by_layer):
        first, second = _unique(before, key), _unique(after, key)
        common = first.keys() & second.keys()
        pairs += [(site, second[k]) for k, site in first.items() if k in common]
        before, after = ([s for s in side if key(s) not in common] for side in (before, after))
    for slot in dict.fromkeys(_slot(site) for site in (*before, *after)):
        pairs += _in_order([s for s in before if _slot(s) == slot], [s for s in after if _slot(s) == slot])
    return pairs


def _unique(sites: Sequence[Site], key: Callable[[Site], Any]) -> dict[Any, Site]:
    """Sites by a key that they have and share with no other."""
    counted = Counter(map(key, sites))
    return {k: site for site in sites if (k := key(site)) is not None and counted[k] == 1}


def _by_key(site: Site) -> tuple[str, int]:
    return _WRAPPERS.sub("", site.path.strip("/").replace("/", ".")), site.call


def _by_layer(site: Site) -> tuple[str, tuple[str, ...]] | None:
    numbers = tuple(re.findall(r"\d+", site.path))
    return (_slot(site), numbers) if numbers else None


def _slot(site: Site) -> str:
    """What can stand for each other: attention for attention, a head for a head, all else in one."""
    return site.role if site.role in ("attention", "head") else "hidden"


def _in_order(before: Sequence[Site], after: Sequence[Site]) -> Iterable[tuple[Site | None, Site | None]]:
    first, second = ([site.name for site in side] for side in (before, after))
    for _, i, j, k, m in difflib.SequenceMatcher(None, first, second, autojunk=False).get_opcodes():
        together = min(j - i, m - k)
        yield from zip(before[i : i + together], after[k : k + together], strict=True)
        yield from ((site, None) for site in before[i + together : j])
        yield from ((None, site) for site in after[k + together : m])


# -- whether it is the same function


def _compared(a: Site, b: Site) -> tuple[Difference | None, str]:
    """How two sites differ, None where they do not; and what a reader should know of it all the same."""
    if a.definition is None or b.definition is None:
        other = b if a.definition is None else a
        unknown = a if a.definition is None else b
        if any(candidate.activation == other.activation for candidate in unknown.candidates):
            return None, f"{unknown.key} cannot be told from {other.name}, nor from other candidates"
        if a.definition is b.definition and a.note == b.note:
            return None, f"{a.key} is the same unknown in both: {a.note}"
        return Difference("unknown", a.name, b.name, ()), ""
    distance, at, both, limit = _measured(_function(a), _function(b), _precision(a, b))
    if distance > limit:
        return Difference("numeric", a.name, b.name, (), distance, at, both, trap(a, b)), ""
    layouts = {a.layout, b.layout} - {None, "split"}
    if len(layouts) == 2 and None not in (a.layout, b.layout):
        return Difference("layout", f"{a.name} [{a.layout}]", f"{b.name} [{b.layout}]", (), trap=_LAYOUT), ""
    return None, ""


_LAYOUT = Trap(
    "one side takes the gate from the half of the packed projection in which the other has up",
    "garbled output unless the weights were rearranged with it",
    (),
)


def _precision(*sites: Site) -> float:
    """The largest relative difference that is rounding: of the coarser of the dtypes in which they were observed."""
    dtypes = [getattr(torch, site.dtype, torch.float64) for site in sites if site.dtype and site.evidence != "declared"]
    return max([tolerance(d) for d in dtypes if d in _HALF], default=tolerance(torch.float64))


@dataclass(frozen=True)
class _Function:
    """kind: "elementwise", "gated" or "normalizer"; of one that gates what is declared elsewhere, act(gate)·up."""

    kind: str
    name: str
    definition: Any
    parameters: tuple[tuple[str, float], ...]

    @property
    def inputs(self) -> int:
        return len(self.definition.inputs)

    def __call__(self, *inputs: np.ndarray) -> np.ndarray:
        with np.errstate(all="ignore"):
            value = self.definition.value(*inputs[: self.inputs], **dict(self.parameters))
        return value * inputs[1] if self.kind == "gated" and self.definition.kind == "elementwise" else value


def _function(site: Site) -> _Function:
    definition = site.definition
    assert definition is not None
    return _Function(definition.kind, site.name, definition, tuple(sorted(site.parameters.items())))


@functools.lru_cache(maxsize=1024)
def _measured(a: _Function, b: _Function, relative: float) -> tuple[float, tuple[float, ...], bool, float]:
    """The largest |a − b|, where, whether −x is as bad, and the largest that would be rounding."""
    kinds = {a.kind, b.kind}
    if kinds == {"elementwise", "gated"}:  # one says silu of the gate, the other swiglu
        a, b = (_Function("gated", f.name, f.definition, f.parameters) for f in (a, b))
    elif len(kinds) > 1:
        return np.inf, (), False, 0.0
    if a.kind == "elementwise":
        return _elementwise(a, b, relative)
    if a.kind == "gated":
        side = np.linspace(-REACH, REACH, 481)
        points = tuple(p.ravel() for p in np.meshgrid(side, side, indexing="ij"))
    else:
        if a.inputs != b.inputs:
            return np.inf, (), False, 0.0
        random = np.random.default_rng(0)
        points = tuple(random.normal(0.0, 3.0, (64, 16)) for _ in range(a.inputs))
    first, second = a(*points), b(*points)
    if first.shape != second.shape:
        return np.inf, (), False, 0.0
    off = _off(first, second)
    worst = int(off.argmax())
    excess = off - relative * np.maximum(1.0, np.abs(first))
    at = tuple(float(p[worst]) for p in points) if a.kind == "gated" else ()
    return (float(off.max()), at, False, 0.0) if excess.max() > 0 else (0.0, (), False, 0.0)


def _elementwise(a: _Function, b: _Function, relative: float) -> tuple[float, tuple[float, ...], bool, float]:
    from scipy.optimize import minimize_scalar

    x = np.linspace(-REACH, REACH, 4801)
    first, second = a(x), b(x)
    off = _off(first, second)
    if not (off > relative * np.maximum(1.0, np.abs(first))).any():
        return 0.0, (), False, 0.0
    worst = int(off.argmax())
    low, high = float(x[max(0, worst - 1)]), float(x[min(len(x) - 1, worst + 1)])
    refined = minimize_scalar(lambda t: -_off(a(np.array([t])), b(np.array([t])))[0], bounds=(low, high))
    at, largest = float(x[worst]), float(off[worst])
    if -refined.fun > largest:
        at, largest = float(refined.x), float(-refined.fun)
    mirrored = float(_off(a(np.array([-at])), b(np.array([-at])))[0])
    return largest, (at,), at != 0 and abs(mirrored - largest) <= 1e-6 * largest, 0.0


def _off(first: np.ndarray, second: np.ndarray) -> np.ndarray:
    with np.errstate(all="ignore"):
        off = np.abs(first - second)
    same = (first == second) | (np.isnan(first) & np.isnan(second))
    return np.where(same, 0.0, np.where(np.isnan(off), np.inf, off))


# -- what is known of it


def trap(a: Site, b: Site) -> Trap | None:
    """What is known of running `b` for `a`, or `a` for `b`; None where nothing is."""
    names = {_family(a), _family(b)}
    return next((known for between, known in _traps() if between == names), None)


def _family(site: Site) -> str:
    """The activation; of a gated one what it does to the gate, so that swiglu against geglu is silu against gelu."""
    definition = site.definition
    if definition is None or definition.kind != "gated":
        return str(site.activation)
    return gate(definition.name) or definition.name


@functools.cache
def gate(name: str) -> str | None:
    """silu for swiglu: what a product gates with; None for more than a product."""
    from ..catalog import activations, get

    gate, up = gated_probes()
    values = get(name).value(gate, up)
    for activation in activations():
        if activation.kind == "elementwise" and not activation.stochastic and not activation.parameters:
            with np.errstate(all="ignore"):
                if np.allclose(activation.value(gate) * up, values, rtol=1e-12, atol=1e-12):
                    return activation.name
    return None


@functools.cache
def _traps() -> tuple[tuple[set[str], Trap], ...]:
    held = json.loads(resources.files(__package__).joinpath("mismatches.json").read_text(encoding="utf-8"))
    return tuple(
        (set(each["between"]), Trap(each["why"], each["usually"], tuple(each["seen"]))) for each in held["traps"]
    )


def _short(value: float) -> str:
    """4.7e-4, 0.193, 12: two or three digits as people write them."""
    if value == 0 or not np.isfinite(value):
        return f"{value:g}"
    if 1e-3 <= value < 1e5:
        return f"{value:.3g}"
    mantissa, _, exponent = f"{value:.1e}".partition("e")
    return f"{mantissa}e{int(exponent)}"


def _listed(keys: Sequence[str]) -> str:
    return ", ".join(written(group) for group in grouped(keys, str, lambda _: None))
