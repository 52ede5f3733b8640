"""The Census: which activations a model really uses, where, and how that is known. Results only; frozen."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

import torch

from ..catalog import Activation, get
from ..plain import plain, plain_fields
from .grouping import grouped, written

if TYPE_CHECKING:
    from .differences import Differences


@dataclass(frozen=True)
class Span:
    """Where a hand-written activation begins and ends, so that an Observer can watch it.

    begin, end: (path, which torch function called there in one forward, its name) of the first step that reads the
    input and of the last step; argument: which of the first step's tensors the input is; covers: keys of the
    activation calls that are part of it and no sites of their own.
    """

    begin: tuple[str, int, str]
    end: tuple[str, int, str]
    argument: int
    covers: tuple[str, ...] = ()


@dataclass(frozen=True)
class Candidate:
    """One of the activations that a site's data cannot tell apart. confidence: 0 to 1; those of a site sum to 1."""

    activation: str
    parameters: dict[str, float] = field(default_factory=dict)
    confidence: float = 1.0

    @property
    def name(self) -> str:
        return _written(self.activation, self.parameters)

    def to_dict(self) -> dict[str, Any]:
        return plain_fields(self)


@dataclass(frozen=True)
class Site:
    """One place where an activation is applied.

    key: `path#call`, the path of the module whose forward applies it (of an activation module: its own) and the
        number of the call made there in one forward.
    activation: the catalog name, None if unknown; parameters: as configured, or as fitted.
    evidence: "declared" (the module says so, or the kernel is documented to), "observed" (it was executed),
        "inferred" (matched by behaviour).
    form: "module", "functional" or "fused"; implementation: the symbol, or the ops of a hand-written one.
    source: "file.py:12" for what a forward calls itself.
    role: "hidden", "gate", "attention" or "head".
    shape: of the activation's input as observed; units: its extent along unit_dim (-1, or 1 behind convolutions).
    measured: whether an Observer can watch it.
    preceded_by: path of the affine map that feeds it, where that can be told.
    note: the nearest neighbour of an unknown one, and what else a reader must know.
    dtype: what it is computed in, "float32". layout: of a gated one whose halves come out of one map: "gate_up",
        "up_gate" or "interleaved"; "split" where they are two maps.
    candidates: where the data cannot tell one activation (a quantized graph), those that it may be, likeliest first.
    affine: (a, b) where a·f(x) + b is computed and only f is the activation; None where nothing stands around it.
    span: of a hand-written one, for the Observer. definition: the activation itself, which a user's own has without
        being registered. Neither is part of `to_dict()`.
    """

    key: str
    path: str
    call: int
    activation: str | None
    parameters: dict[str, float] = field(default_factory=dict)
    evidence: str = "observed"
    form: str = "module"
    implementation: str = ""
    source: str | None = None
    role: str = "hidden"
    shape: tuple[int, ...] | None = None
    units: int | None = None
    unit_dim: int = -1
    measured: bool = True
    preceded_by: str | None = None
    note: str = ""
    dtype: str | None = None
    layout: str | None = None
    candidates: tuple[Candidate, ...] = ()
    affine: tuple[float, float] | None = None
    span: Span | None = field(default=None, repr=False)
    definition: Activation | None = field(default=None, repr=False, compare=False)

    def __post_init__(self) -> None:
        if (self.definition.name if self.definition else None) != self.activation:
            object.__setattr__(self, "definition", get(self.activation) if self.activation else None)

    def to_dict(self) -> dict[str, Any]:
        return plain_fields(self, leave_out=("span", "definition"))

    @property
    def name(self) -> str:
        """The activation with its parameters, as one would write it: `leaky_relu(negative_slope=0.2)`."""
        return "unknown" if self.activation is None else _written(self.activation, self.parameters)

    def __str__(self) -> str:
        where = f" at {self.source}" if self.source else ""
        note = f"; {self.note}" if self.note else ""
        return f"{self.key}  {self.name}  {self.role}, {self.form}, {self.evidence}{where}{note}"


def _written(activation: str, parameters: Mapping[str, float]) -> str:
    settings = ", ".join(f"{k}={v}" if isinstance(v, bool) else f"{k}={v:g}" for k, v in parameters.items())
    return f"{activation}({settings})" if settings else activation


@dataclass(frozen=True)
class Conflict:
    """Two sources that say different things about the same sites.

    sites: keys, in the order of execution; declared, found: what each source says, as one would write it;
    sources: where each says so, ("config.json: hidden_act", "graph"); what: the consequence, or the known trap.
    """

    sites: tuple[str, ...]
    declared: str
    found: str
    sources: tuple[str, str]
    what: str = ""

    def to_dict(self) -> dict[str, Any]:
        return plain_fields(self)

    def __str__(self) -> str:
        where = "" if not self.sites else self.sites[0] if len(self.sites) == 1 else f"{len(self.sites)} sites"
        more = f"; {self.what}" if self.what else ""
        said = f"{self.sources[0]} says {self.declared}, {self.sources[1]} says {self.found}"
        return f"CONFLICT: {f'{where}: ' if where else ''}{said}{more}"


@dataclass(frozen=True)
class Affine:
    """An affine map that was executed: its fans, the key of the site that follows and of the one it reads, if any."""

    path: str
    kind: str
    fan_in: int
    fan_out: int
    followed_by: str | None = None
    preceded_by: str | None = None

    def to_dict(self) -> dict[str, Any]:
        return plain_fields(self)


@dataclass(frozen=True)
class Collapse:
    """Consecutive affine maps with no nonlinearity between: together they are one, x·weightᵀ + bias, at any depth.

    weight: (out, in), bias: (out,), float64, folded; max_difference: the largest |folded − executed| on the inputs
    that were given, in float64 against the model's own output.
    """

    paths: tuple[str, ...]
    weight: torch.Tensor
    bias: torch.Tensor
    max_difference: float
    note: str = ""

    def to_dict(self) -> dict[str, Any]:
        return {
            "paths": list(self.paths),
            "weight_shape": list(self.weight.shape),
            "max_difference": plain(self.max_difference),
            "note": self.note,
        }

    def __str__(self) -> str:
        shape = "×".join(map(str, self.weight.shape))
        note = f"; {self.note}" if self.note else ""
        return f"{' → '.join(self.paths)} is one affine map ({shape}), off by {self.max_difference:.2g}{note}"


@dataclass(frozen=True)
class Head:
    """The last affine map and what is applied to its output.

    kind: "logits" (several outputs, nothing follows), "output" (one), "softmax", "log_softmax", "sigmoid", or another
    activation's name; activation: the site's key, None where nothing follows.
    """

    path: str
    kind: str
    features: int | None
    activation: str | None = None

    def to_dict(self) -> dict[str, Any]:
        return plain_fields(self)


@dataclass(frozen=True)
class Census:
    """Every activation site of a model, in the order of execution.

    executed: False where no example inputs were given, so that only declared module sites are known. notes: what was
    not looked at, and why. blocks: path of each direct child → the nonlinearities in it. conflicts: where two sources
    disagree, shown before anything else.
    """

    model: str
    sites: tuple[Site, ...]
    head: Head | None = None
    blocks: dict[str, tuple[str, ...]] = field(default_factory=dict)
    collapses: tuple[Collapse, ...] = ()
    affines: tuple[Affine, ...] = ()
    executed: bool = True
    notes: tuple[str, ...] = ()
    conflicts: tuple[Conflict, ...] = ()

    def __iter__(self) -> Iterator[Site]:
        return iter(self.sites)

    def __len__(self) -> int:
        return len(self.sites)

    def __getitem__(self, key: str | int) -> Site:
        if isinstance(key, int):
            return self.sites[key]
        for site in self.sites:
            if site.key == key:
                return site
        raise KeyError(f"no site {key!r}; the sites are {', '.join(s.key for s in self.sites) or 'none'}")

    def __contains__(self, key: object) -> bool:
        return any(key in (site.key, site) for site in self.sites)

    @property
    def functional(self) -> bool:
        """Whether watching this model's sites needs to see function calls."""
        return any(site.measured and site.form == "functional" for site in self.sites)

    def counts(self) -> dict[str, int]:
        """How many sites each activation has, most used first; unknown ones under "unknown"."""
        found: dict[str, int] = {}
        for site in self.sites:
            found[site.activation or "unknown"] = found.get(site.activation or "unknown", 0) + 1
        return dict(sorted(found.items(), key=lambda item: -item[1]))

    def groups(self) -> list[tuple[str, list[Site]]]:
        """Sites that are the same in every layer, together, under one key: `layers.{0–31}.mlp.act#0`."""
        several = grouped(self.sites, lambda s: s.key, lambda s: (s.name, s.role, s.form, s.evidence, s.shape, s.note))
        return [(written([site.key for site in group]), group) for group in several]

    def against(self, other: Census) -> Differences:
        """Where `other` applies other functions than this: site by site, by how much at worst, and why that happens."""
        from .differences import against

        return against(self, other)

    def to_dict(self) -> dict[str, Any]:
        return plain_fields(self)

    def __str__(self) -> str:
        counted = ", ".join(f"{n} × {name}" for name, n in self.counts().items()) or "no activation"
        lines = [*map(str, self.conflicts), f"{self.model}: {counted}"]
        columns = [("site", "activation", "role", "form", "evidence", "shape", "where")]
        for site in self.sites:
            shape = "-" if site.shape is None else "×".join(map(str, site.shape)) or "scalar"
            where = site.source or site.implementation
            columns.append((site.key, site.name, site.role, site.form, site.evidence, shape, where))
        if self.sites:
            widths = [max(len(row[i]) for row in columns) for i in range(len(columns[0]))]
            lines += [
                "  " + "  ".join(c.ljust(w) for c, w in zip(row, widths, strict=True)).rstrip() for row in columns
            ]
        lines += [f"  {site.key}: {site.note}" for site in self.sites if site.note]
        for site in self.sites:
            if site.candidates:
                alike = ", ".join(f"{c.name} {c.confidence:.0%}" for c in site.candidates)
                lines.append(f"  {site.key}: may be {alike}")
        if self.head is not None:
            features = f", {self.head.features} features" if self.head.features is not None else ""
            lines.append(f"head: {self.head.kind} from {self.head.path or '(model)'}{features}")
        lines += [f"collapse: {collapse}" for collapse in self.collapses]
        lines += [f"note: {note}" for note in self.notes]
        return "\n".join(lines)
