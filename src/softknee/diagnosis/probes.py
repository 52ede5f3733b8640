"""Probes measure and never judge: samples of pre-activations, packed into buffers and reduced a few at a time.

A `Probe` copies a fixed, deterministic sample of the rows (and positions) of each activation call into preallocated
buffers, many sites side by side, and reduces a buffer when it is full: a handful of large operations instead of
several small ones per call. What it keeps are `Sums`, which merge: over time, over devices, over ranks. Outputs are
never touched, nothing with a graph is kept, nothing waits for the device before `Probe.segments` is read.
"""

from __future__ import annotations

import functools
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from itertools import pairwise
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor

from softknee.errors import SoftkneeError

if TYPE_CHECKING:
    from softknee.catalog import Activation
    from softknee.identification import Census, Site

ROWS = 64
"""Rows sampled per batch."""
POSITIONS = 16
"""Positions (tokens, pixels) sampled per row."""
SLOT_ELEMENTS = 1 << 16
"""Largest sample of one activation call; wide layers give up positions, then rows."""
BUFFER_ELEMENTS = 1 << 21
"""Elements that the buffers of all sites hold together (8 MiB), unless one call of each already has more."""
CALLS = 128
"""Calls per site at which a buffer is reduced."""
HELD_ELEMENTS = 1 << 16
"""Inputs up to this size are held until the forward ends and looked at together; larger ones at once."""
TOTALS = 256
"""Whole-tensor sums held back before they are looked at."""
PARTS = 2
"""Parts over time into which a full buffer is reduced."""
SEGMENTS = 16
"""Parts kept of a site; when there are more, neighbours merge."""
SATURATION_SLOPE = 1e-2
"""ε: a unit is saturated where |f′| < ε."""
BINS = 4096
"""Histogram bins: sign, exponent and three bits of the mantissa, so 8 per octave (see `histogram_edges`)."""
NEVER = torch.iinfo(torch.int64).max

_UNIT_FIELDS = ("unit_sum", "unit_square", "unit_within")
_SITE_FIELDS = ("zeros", "saturated", "nonfinite", "input_sum", "input_square", "counts")


@dataclass(frozen=True)
class Sums:
    """Sums over sampled rows of sites that share a buffer; `merge` adds two of the same sites.

    Tensors have the site as their first dimension; unit-wise ones are (sites, units).
    """

    keys: tuple[str, ...]
    activation: Activation | None
    rows: tuple[int, ...]
    """Rows × positions per site."""
    freedom: tuple[int, ...]
    """Degrees of freedom of `unit_within`: Σ over batches of (rows − 1) × positions."""
    looked: tuple[int, ...]
    """Values per site behind `zeros`, `saturated`, `input_sum`, `input_square` and `counts`: the first call's of
    each buffer, since shares need fewer values than extremes."""
    unit_sum: Tensor
    unit_square: Tensor
    unit_within: Tensor
    """Σ over batches of the squared distance from the batch's own mean at the same position."""
    fired: Tensor
    """Bool: f′ was not 0 on at least one row."""
    sloped: bool
    """Whether f′ is known, so that `fired` and `saturated` mean something."""
    zeros: Tensor
    saturated: Tensor
    amax: Tensor
    nonfinite: Tensor
    first_nonfinite: Tensor
    """Step at which a value was first not finite, or `NEVER`."""
    input_sum: Tensor
    input_square: Tensor
    counts: Tensor
    """Histogram of pre-activations, (sites, BINS)."""

    def merge(self, other: Sums) -> Sums:
        """The sums over both samples; raises ValueError where the sites or the units differ."""
        if self.keys != other.keys or self.unit_sum.shape != other.unit_sum.shape:
            raise ValueError(
                f"sums of different sites do not merge: {self.keys} × {tuple(self.unit_sum.shape)[1:]} units and"
                f" {other.keys} × {tuple(other.unit_sum.shape)[1:]}"
            )
        added = {name: getattr(self, name) + getattr(other, name) for name in (*_UNIT_FIELDS, *_SITE_FIELDS)}
        return replace(
            self,
            rows=tuple(a + b for a, b in zip(self.rows, other.rows, strict=True)),
            freedom=tuple(a + b for a, b in zip(self.freedom, other.freedom, strict=True)),
            looked=tuple(a + b for a, b in zip(self.looked, other.looked, strict=True)),
            fired=self.fired | other.fired,
            sloped=self.sloped and other.sloped,
            amax=torch.maximum(self.amax, other.amax),
            first_nonfinite=torch.minimum(self.first_nonfinite, other.first_nonfinite),
            **added,
        )

    def site(self, index: int) -> Sums:
        """The sums of one site, on the host."""
        tensors = {
            name: getattr(self, name)[index : index + 1].cpu()
            for name in (*_UNIT_FIELDS, *_SITE_FIELDS, "fired", "amax", "first_nonfinite")
        }
        return replace(
            self,
            keys=(self.keys[index],),
            rows=(self.rows[index],),
            freedom=(self.freedom[index],),
            looked=(self.looked[index],),
            **tensors,
        )


def histogram_bin(values: Tensor) -> Tensor:
    """Bin of each value: the upper 12 bits of its float32 pattern, sign first."""
    bits = values.to(torch.float32).contiguous().view(torch.int32)
    return (bits >> 20) & (BINS - 1)


def histogram_edges(counts: Sequence[int], octaves: int = 5) -> tuple[tuple[float, ...], tuple[int, ...]]:
    """Edges and counts of the histogram over its populated range.

    Bins are eight to the octave for `octaves` octaves below the largest magnitude; what is smaller shares one bin
    around zero. Values that are not finite are left out.
    """
    half = BINS // 2
    positive, negative = list(counts[:half]), list(counts[half:])
    finite = 255 * 8
    top = max((i for i in range(finite) if positive[i] or negative[i]), default=0)
    low = max(0, (top // 8 + 1 - octaves) * 8)

    def edge(index: int) -> float:
        return 0.0 if index == 0 else 2.0 ** (index // 8 - 127) * (1 + index % 8 / 8)

    upper = [edge(i) for i in range(max(low, 1), top + 2)]
    edges = [-value for value in reversed(upper)] + upper
    start = max(low, 1)
    centre = sum(positive[:start]) + sum(negative[:start])
    bins = [*reversed(negative[start : top + 1]), centre, *positive[start : top + 1]]
    return tuple(edges), tuple(bins)


@torch.no_grad()
def reduce(
    keys: tuple[str, ...],
    inputs: Tensor,
    steps: Sequence[int],
    activation: Activation | None,
    parameters: dict[str, float],
    outputs: Tensor | None = None,
    thin: int = 1,
) -> Sums:
    """Sums of packed samples.

    `inputs`: (sites, batches, rows, positions, units), pre-activations. `outputs`: the same shape; None recomputes
    them, which an elementwise activation allows (with no activation they are the inputs). `steps`: the training step
    of each batch. One row in `thin` counts; that all are finite is looked at in any case.
    """
    total = inputs.sum((2, 3, 4))
    if outputs is not None:
        total = total + outputs.sum((2, 3, 4))
    inputs = inputs[:, :, ::thin]
    outputs = outputs[:, :, ::thin] if outputs is not None else None
    sites, batches, rows, positions, units = inputs.shape
    # NaN stands for a parameter that differs per unit, which cannot be told here.
    known = activation is not None and activation.kind == "elementwise"
    known &= all(value == value for value in parameters.values())
    if outputs is not None:
        values = outputs
    elif activation is None:
        values = inputs
    else:
        values = activation(inputs, **parameters)

    mean = values.mean(2, keepdim=True)
    low, high = inputs.amin((1, 2, 3)), inputs.amax((1, 2, 3))
    largest = torch.maximum(values.amax((1, 2, 3)).amax(1), -values.amin((1, 2, 3)).amin(1))
    # NaN and Inf survive sums and extremes, so the small tensors tell of the large ones.
    suspect = ~(total.isfinite() & mean.isfinite().flatten(2).all(2))
    when = torch.tensor(list(steps), dtype=torch.int64, device=inputs.device)
    host = inputs.device.type == "cpu"  # where looking at a value costs nothing
    if host and not suspect.any():
        nonfinite = torch.zeros(sites, dtype=torch.int64)
    else:
        nonfinite = (~(inputs.isfinite() & values.isfinite())).sum((1, 2, 3, 4))
        nonfinite = torch.maximum(nonfinite, suspect.sum(1))

    part = inputs[:, 0]
    zeros = values[:, 0].flatten(1).eq(0).sum(1)
    fired = torch.ones(sites, units, dtype=torch.bool, device=inputs.device)
    saturated = torch.zeros(sites, dtype=torch.int64, device=inputs.device)
    if known and activation is not None:
        saturated = (activation.slope(part, **parameters).abs() < SATURATION_SLOPE).sum((1, 2, 3))
        fired = _fired(inputs, low, high, activation, parameters, host)
    # In place where the values are our own: fresh memory costs more than the arithmetic.
    own = values is not inputs and values is not outputs
    centred = values.sub_(mean) if own else values - mean
    within = centred.mul_(centred).sum((1, 2, 3))
    bins = histogram_bin(part).flatten(1).to(torch.int64)
    offsets = torch.arange(sites, device=inputs.device).unsqueeze(1) * BINS
    counts = torch.bincount((bins + offsets).flatten(), minlength=sites * BINS).view(sites, BINS)
    return Sums(
        keys=keys,
        activation=activation,
        rows=(batches * rows * positions,) * sites,
        freedom=(batches * (rows - 1) * positions,) * sites,
        looked=(rows * positions * units,) * sites,
        unit_sum=mean.sum((1, 2, 3), dtype=torch.float64) * rows,
        unit_square=within.to(torch.float64) + mean.square().sum((1, 2, 3), dtype=torch.float64) * rows,
        unit_within=within.to(torch.float64),
        fired=fired,
        sloped=known,
        zeros=zeros,
        saturated=saturated,
        amax=largest.to(torch.float64),
        nonfinite=nonfinite,
        first_nonfinite=torch.where(suspect, when, NEVER).amin(1),
        input_sum=part.sum((1, 2, 3), dtype=torch.float64),
        input_square=part.square().sum((1, 2, 3), dtype=torch.float64),
        counts=counts,
    )


def _fired(
    inputs: Tensor, low: Tensor, high: Tensor, activation: Activation, parameters: dict[str, float], host: bool
) -> Tensor:
    """(sites, units): whether f′ is not 0 somewhere. `low` and `high` are each unit's extreme inputs.

    A unit whose f′ is not 0 at one of its extremes has fired, one whose extremes lie in one dead interval has not;
    only the others (f′ underflows in floating point) are looked at row by row.
    """
    if not host:
        return (activation.slope(inputs, **parameters) != 0).flatten(1, 3).any(1)
    fired = (activation.slope(torch.stack((low, high)), **parameters) != 0).any(0)
    doubtful = ~fired
    for start, end in _dead(activation, tuple(parameters.items())):
        doubtful &= ~((low >= start) & (high <= end))
    if doubtful.any():
        rows = inputs.flatten(1, 3).transpose(1, 2)[doubtful]
        fired[doubtful] = (activation.slope(rows, **parameters) != 0).any(1)
    return fired


@functools.cache
def _dead(activation: Activation, parameters: tuple[tuple[str, float], ...]) -> tuple[tuple[float, float], ...]:
    """Intervals where f′ is exactly 0; none where facts cannot tell."""
    from softknee.facts import facts

    try:
        return tuple((float(start), float(end)) for start, end in facts(activation, **dict(parameters)).dead or ())
    except (SoftkneeError, ArithmeticError, TypeError):
        return ()


def sample(shape: torch.Size, unit_dim: int, most: int = ROWS) -> tuple[tuple[slice, ...], tuple[int, int, int]]:
    """Slices that take the sample from a tensor whose units are last, and its (rows, positions, units)."""
    sizes = list(shape)
    units = sizes.pop(unit_dim)
    rows, spatial = (sizes[0], sizes[1:]) if sizes else (1, [])
    afford = max(1, SLOT_ELEMENTS // max(units, 1))
    take = min(rows, most, afford)
    budget = max(1, min(POSITIONS, afford // max(take, 1)))
    slices = [_spread(rows, take)]
    positions = 1
    for index, size in enumerate(spatial):
        left = len(spatial) - index
        count = max(1, min(size, int(budget ** (1 / left) + 1e-9)))
        slices.append(_spread(size, count))
        positions *= count
        budget = max(1, budget // count)
    return (*slices, slice(None)), (take, positions, units)


def _spread(size: int, count: int) -> slice:
    """`count` of `size` indices, evenly apart."""
    stride = max(1, size // max(count, 1))
    return slice(0, stride * (count - 1) + 1, stride)


class _Group:
    """A buffer that sites with the same activation, parameters and sample shape share."""

    def __init__(
        self,
        activation: Activation | None,
        parameters: dict[str, float],
        shape: tuple[int, int, int],
        dtype: torch.dtype,
        device: torch.device,
        observed: bool | None,
        calls: int,
        thin: int,
    ) -> None:
        self.activation, self.parameters, self.shape = activation, parameters, shape
        self.thin = thin
        self.calls = calls
        self.dtype, self.device, self.observed = dtype, device, observed
        self.slots: list[_Slot] = []
        self.inputs = self._new(0)
        self.outputs = self._new(0) if observed else None

    def _new(self, sites: int) -> Tensor:
        with torch.inference_mode(False):
            return torch.zeros((sites, self.calls, *self.shape), dtype=self.dtype, device=self.device)

    def add(self, slot: _Slot) -> None:
        """Make room for one more site; buffers double, so that a model's first forward stays linear."""
        if len(self.slots) == self.inputs.shape[0]:
            room = max(1, 2 * len(self.slots))
            inputs = self._new(room)
            inputs[: len(self.slots)] = self.inputs
            self.inputs = inputs
            if self.outputs is not None:
                outputs = self._new(room)
                outputs[: len(self.slots)] = self.outputs
                self.outputs = outputs
            for known in self.slots:
                known.bind(self)
        slot.row = len(self.slots)
        self.slots.append(slot)
        slot.bind(self)

    def take(self) -> list[tuple[int, int, Sums]]:
        """Reduce what is there, in `PARTS` parts over time, and empty the buffer: (first step, last step, sums)."""
        alike: dict[tuple[int, ...], list[_Slot]] = {}
        for slot in self.slots:
            if slot.fill:
                alike.setdefault(tuple(slot.steps), []).append(slot)
        result = []
        for steps, slots in alike.items():
            keys = tuple(slot.key for slot in slots)
            rows: Any = slice(0, len(slots))
            if len(slots) < len(self.slots):
                rows = torch.tensor([slot.row for slot in slots], device=self.device)
            bounds = sorted({len(steps) * part // PARTS for part in range(PARTS + 1)})
            for start, end in pairwise(bounds):
                inputs = self.inputs[rows, start:end]
                outputs = None if self.outputs is None else self.outputs[rows, start:end]
                of = steps[start:end]
                sums = reduce(keys, inputs, of, self.activation, self.parameters, outputs, self.thin)
                result.append((of[0], of[-1], sums))
            for slot in slots:
                slot.clear()
        return result


class _Slot:
    """Where the samples of one site of one shape go."""

    __slots__ = ("calls", "fill", "group", "into", "key", "outputs", "partial", "pile", "row", "shape", "slices",
                 "steps", "trivial", "unit_dim")  # fmt: skip

    def __init__(
        self, key: str, shape: torch.Size, unit_dim: int, slices: tuple[slice, ...], size: tuple[int, int, int]
    ) -> None:
        self.key, self.shape, self.unit_dim, self.slices = key, shape, unit_dim, slices
        count = size[0] * size[1] * size[2]
        self.partial = count < shape.numel()
        self.trivial = not self.partial and len(shape) == 2 and unit_dim in (-1, 1)
        self.row = self.fill = 0
        self.pile: list[tuple[_Slot, Tensor, int]] | None = None
        """Where its inputs wait, with its group's others, for the forward to end; None: they are copied at once."""
        self.steps: list[int] = []

    def bind(self, group: _Group) -> None:
        self.group, self.calls = group, group.calls
        picked = [
            len(range(*s.indices(n))) for s, n in zip(self.slices, _units_last(self.shape, self.unit_dim), strict=True)
        ]
        self.into = [group.inputs[self.row, call].view(picked) for call in range(group.calls)]
        self.outputs = (
            [] if group.outputs is None else [group.outputs[self.row, call].view(picked) for call in range(group.calls)]
        )

    def pick(self, tensor: Tensor) -> Tensor:
        if self.trivial:
            return tensor
        if len(self.shape) == 2 and self.unit_dim in (-1, 1):
            return tensor[self.slices[0]]
        if tensor.dim() < 2:
            return tensor.reshape(1, -1)[self.slices]
        return tensor.movedim(self.unit_dim, -1)[self.slices]

    def clear(self) -> None:
        self.fill = 0
        self.steps = []


def _units_last(shape: torch.Size, unit_dim: int) -> list[int]:
    sizes = list(shape) if len(shape) > 1 else [1, shape.numel()]
    sizes.append(sizes.pop(unit_dim))
    return sizes


class Probe:
    """Callbacks for an observer of activation calls, and what they measured.

    `unit_dim(key, shape)` tells which dimension of a site's tensor holds its units; `rows` are sampled per call,
    `calls` of a site are reduced together, one row in `thin`. `before` and `after` are to be called just before and
    just after an activation is applied, between `begin_forward` and `end_forward`; `end_step` once per sampled step.
    """

    def __init__(
        self, unit_dim: Callable[[str, torch.Size], int], rows: int = ROWS, calls: int = CALLS, thin: int = 1
    ) -> None:
        self.unit_dim, self.rows, self.calls, self.thin = unit_dim, rows, calls, thin
        self.sites = 0
        """How many sites to expect, which the buffers share."""
        self.step = 0
        self.order: dict[str, int] = {}
        """Site keys in the order in which they were first executed."""
        self.live = True
        """Off: calls are ignored."""
        self.first_nonfinite: dict[str, int] = {}
        """Key → first step at which `check` found a value that is not finite."""
        self._piles: dict[Any, list[tuple[_Slot, Tensor, int]]] = {}
        self._totals: list[tuple[tuple[str, ...], int, Tensor]] = []
        self._slots: dict[str, _Slot] = {}
        self._all: dict[tuple[Any, ...], _Slot] = {}
        self._groups: dict[Any, _Group] = {}
        self._course: dict[Any, list[tuple[int, int, Sums]]] = {}

    def before(self, call: Any) -> None:
        """Sample the input of an activation that is about to be applied (and may overwrite it)."""
        if not self.live:
            return
        key = call.key
        value = call.inputs[0]
        slot = self._slots.get(key)
        if slot is not None and slot.pile is not None and slot.shape == value.shape and not value.is_inference():
            slot.pile.append((slot, value, value._version))
            return
        if slot is not None and slot.trivial and slot.fill < slot.calls and slot.shape == value.shape:
            slot.into[slot.fill].copy_(value.detach())  # what follows, for the usual case
            slot.steps.append(self.step)
            slot.fill += 1
            return
        if slot is None or slot.shape != value.shape:
            activation = call.activation
            if not _measurable(value) or (activation is not None and activation.kind == "gated"):
                return
            slot = self._slot(key, value, activation, call.parameters)
            if slot.trivial and not call.inplace and value.dtype == slot.group.dtype and value.numel() <= HELD_ELEMENTS:
                slot.pile = self._piles.setdefault(id(slot.group), [])
        self._copy(slot, value)

    def after(self, call: Any, output: Any) -> None:
        """Sample the output, where it cannot be recomputed from the input."""
        if not self.live:
            return
        slot = self._slots.get(call.key)
        if slot is None:
            if not isinstance(output, Tensor) or not _measurable(output) or call.activation is None:
                return
            if call.activation.kind != "gated":
                return
        if slot is None or (call.activation is not None and call.activation.kind == "gated"):
            if slot is None or slot.shape != output.shape:
                slot = self._slot(call.key, output, call.activation, {})
            self._copy(slot, output)
        if slot.outputs and slot.shape == output.shape:
            slot.outputs[slot.fill - 1].copy_(slot.pick(output.detach()))

    def record(self, key: str, value: Tensor) -> None:
        """Sample a tensor that is no activation's input, such as the model's output."""
        slot = self._slots.get(key)
        if slot is None or slot.shape != value.shape:
            if not _measurable(value):
                return
            slot = self._slot(key, value, None, {}, observed=False)
        self._copy(slot, value)

    def check(self, key: str, value: Tensor) -> None:
        """Note whether a whole tensor is finite: a sample may miss the one row that is not, a sum does not."""
        self.order.setdefault(key, len(self.order))
        self._totals.append(((key,), self.step, value.detach().sum(dtype=torch.float32)))

    def end_forward(self) -> None:
        """Sample the inputs held back since the forward began, all at once, and let them go."""
        for pile in self._piles.values():
            if pile:
                self._copy_all(pile)
                pile.clear()

    def _copy_all(self, pile: list[tuple[_Slot, Tensor, int]]) -> None:
        """One copy for all sites of a group where each ran once, in order; else one each."""
        for slot, value, version in pile:
            if value._version != version:  # overwritten since: this one is lost, and from now on copied at once
                slot.pile = None
        pile = [entry for entry in pile if entry[0].pile is not None]
        if not pile:
            return
        slots = [slot for slot, _, _ in pile]
        group, fill = slots[0].group, slots[0].fill
        if slots == group.slots and fill < group.calls and all(slot.fill == fill for slot in slots):
            torch._foreach_copy_([slot.into[fill] for slot in slots], [value.detach() for _, value, _ in pile])
            for slot in slots:
                slot.steps.append(self.step)
                slot.fill = fill + 1
            return
        for slot, value, _ in pile:
            self._copy(slot, value)

    def begin_forward(self) -> None:
        """Forget what a forward that failed has left."""
        for pile in self._piles.values():
            pile.clear()

    def _settle(self) -> None:
        """Look at the sums that `check` noted; keep the first step at which one was not finite."""
        by_device: dict[torch.device, list[tuple[tuple[str, ...], int, Tensor]]] = {}
        for entry in self._totals:
            by_device.setdefault(entry[2].device, []).append(entry)
        for entries in by_device.values():
            bad = ~torch.cat([total.reshape(-1) for *_, total in entries]).isfinite()
            if bad.any():
                noted = [(key, step) for keys, step, _ in entries for key in keys]
                for (key, step), hit in zip(noted, bad.tolist(), strict=True):
                    if hit:
                        self.first_nonfinite.setdefault(key, step)
        self._totals.clear()

    def last(self, key: str) -> Tensor:
        """The sample of `key` last taken, (rows, ..., units): a view into the buffer, to be used at once."""
        slot = self._slots[key]
        return slot.into[slot.fill - 1]

    def _copy(self, slot: _Slot, value: Tensor) -> None:
        value = value.detach()
        if slot.fill == slot.group.calls:
            self._reduce(slot.group)
        slot.into[slot.fill].copy_(value if slot.trivial else slot.pick(value))
        if slot.partial:
            self.check(slot.key, value)
        slot.steps.append(self.step)
        slot.fill += 1

    def _slot(
        self,
        key: str,
        value: Tensor,
        activation: Activation | None,
        parameters: dict[str, float],
        observed: bool | None = None,
    ) -> _Slot:
        known = self._all.get((key, value.shape, value.device))
        if known is None:
            self.order.setdefault(key, len(self.order))
            unit_dim = -1 if value.dim() < 2 else self.unit_dim(key, value.shape)
            shape = value.shape if value.dim() > 1 else torch.Size((1, value.numel()))
            slices, size = sample(shape, unit_dim, self.rows)
            known = _Slot(key, value.shape, unit_dim, slices, size)
            dtype = torch.float64 if value.dtype == torch.float64 else torch.float32
            if observed is None:
                observed = not _pure(activation)
            name = (activation, tuple(sorted(parameters.items())), size, dtype, value.device, observed)
            group = self._groups.get(name)
            if group is None:
                self._trim()
                room = BUFFER_ELEMENTS // max(8, self.sites) // (size[0] * size[1] * size[2])
                calls = max(1, min(self.calls, room))
                group = _Group(activation, dict(parameters), size, dtype, value.device, observed, calls, self.thin)
                self._groups[name] = group
            group.add(known)
            self._all[key, value.shape, value.device] = known
        self._slots[key] = known
        return known

    def _trim(self, limit: int = 64) -> None:
        """Forget the buffers when shapes keep changing, so that memory stays bounded."""
        if len(self._groups) >= limit:
            for group in self._groups.values():
                self._reduce(group)
            self._groups.clear()
            self._piles.clear()
            self._slots.clear()
            self._all.clear()

    def _reduce(self, group: _Group) -> None:
        for first, last, sums in group.take():
            course = self._course.setdefault((sums.keys, sums.unit_sum.shape[1], sums.unit_sum.device), [])
            course.append((first, last, sums))
            if len(course) > SEGMENTS:
                pairs = zip(course[:-1:2], course[1::2], strict=True)
                course[:-1] = [(a[0], b[1], a[2].merge(b[2])) for a, b in pairs]

    def end_step(self) -> None:
        """Close a sampled step."""
        if len(self._totals) >= TOTALS:
            self._settle()

    def reset(self) -> None:
        """Forget everything measured so far."""
        for group in self._groups.values():
            for slot in group.slots:
                slot.clear()
        self._totals.clear()
        self._course.clear()
        self.first_nonfinite.clear()

    def segments(self) -> tuple[tuple[int, int, dict[str, Sums]], ...]:
        """(first step, last step, site key → its sums) over time, on the host. Waits for the device."""
        self._settle()
        for group in self._groups.values():
            self._reduce(group)
        parts: dict[tuple[int, int], list[dict[str, Sums]]] = {}
        for course in self._course.values():
            for first, last, sums in course:
                sites = {key: sums.site(index) for index, key in enumerate(sums.keys)}
                parts.setdefault((last, first), []).append(sites)
        return tuple((first, last, merge(parts[last, first])) for last, first in sorted(parts))


def _pure(activation: Activation | None) -> bool:
    """Whether outputs follow from inputs: not where they are drawn, or a parameter is learned (maybe per unit)."""
    return (
        activation is not None
        and activation.kind == "elementwise"
        and not activation.stochastic
        and not any(parameter.learnable for parameter in activation.parameters.values())
    )


def recomputable(site: Site) -> bool:
    """Whether a probe can do without this site's outputs."""
    return _pure(site.definition)


def unit_dimension(census: Census | None, key: str, shape: torch.Size) -> int:
    """Which dimension of a site's tensor holds its units: the census' word, else the customary layout."""
    for site in census.sites if census is not None else ():
        if site.key == key and -len(shape) <= site.unit_dim < len(shape):
            return site.unit_dim
    images = census is None or key in ("input", "output") or any(a.kind.startswith("Conv") for a in census.affines)
    return 1 if len(shape) in (4, 5) and images else -1


def _measurable(value: Tensor) -> bool:
    return (
        not torch.compiler.is_compiling()  # first: Dynamo warns of what it cannot trace
        and value.is_floating_point()
        and value.numel() > 0
        and not value.is_sparse
        and value.device.type != "meta"
        and not torch._C._functorch.is_functorch_wrapped_tensor(value)
    )


def merge(parts: Sequence[dict[str, Sums]]) -> dict[str, Sums]:
    """Site sums of several segments or ranks as one. A site whose number of units changed keeps the larger part."""
    result: dict[str, Sums] = {}
    for part in parts:
        for key, sums in part.items():
            held = result.get(key)
            if held is None:
                result[key] = sums
            elif held.unit_sum.shape == sums.unit_sum.shape:
                result[key] = held.merge(sums)
            elif sum(sums.rows) > sum(held.rows):
                result[key] = sums
    return result
