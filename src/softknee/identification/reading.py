"""What is read off a trace and its cores alike, whatever it was recorded from: where the sites stand and what for.

`Reading` is the common part; a subclass says what a core and what a single step is as a Site.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import replace

import torch

from .. import catalog
from .census import Affine, Head, Site
from .cores import Core, Regions
from .matching import gated_probes, match_values
from .tracing import Step, Trace

# The gates of recurrent layers, as torch's documentation gives them
GATES: dict[str, tuple[tuple[str, str], ...]] = {
    "LSTM": (("sigmoid", "input gate"), ("sigmoid", "forget gate"), ("tanh", "cell candidate"),
             ("sigmoid", "output gate"), ("tanh", "cell output")),
    "GRU": (("sigmoid", "reset gate"), ("sigmoid", "update gate"), ("tanh", "candidate")),
}  # fmt: skip
_PRODUCTS = {"matmul", "bmm", "mm", "baddbmm", "einsum"}
_RESHAPES = {"chunk", "split", "getitem", "unbind", "tensor_split", "narrow", "select", "split_with_sizes",
             "transpose", "permute", "movedim", "get_T", "get_mT", "swapaxes"}  # fmt: skip
_CONVOLUTIONS = ("conv", "Conv")


class Reading:
    """The sites, affine maps and head of one trace."""

    def __init__(self, trace: Trace) -> None:
        self.trace = trace
        self.counts = dict(trace.counts)
        self.products: dict[tuple, str | None] = {}
        self.covered: set[int] = set()  # steps that are part of a core
        self.sites: list[tuple[int, Site, int, int]] = []  # order, site, value in, value out

    regions: Regions

    def read(self) -> tuple[Site, ...]:
        for core in self.regions.cores():
            self._core(core)
            self.covered.update(core.steps)
        for step in self.trace.steps:
            self._step(step)
        self.sites.sort(key=lambda entry: entry[0])
        self._gates()
        self._roles()
        return tuple(entry[1] for entry in self.sites)

    def _core(self, core: Core) -> None:
        """Adds the site of a core."""
        raise NotImplementedError

    def _step(self, step: Step) -> None:
        """Adds the sites of what is no elementwise core."""
        raise NotImplementedError

    def _bends(self, step: Step) -> bool:
        """Whether a single step is an activation, or has some inside."""
        return step.call is not None or step.recurrent

    def _number(self, path: str) -> int:
        number = self.counts.get(path, 0)
        self.counts[path] = number + 1
        return number

    def _add(self, step: Step, first: int, last: int, site: Site) -> None:
        value = self.trace.values[first]
        unit_dim = self._unit_dim(first)
        units = site.units
        if units is None and len(value.shape) >= 1:
            units = value.shape[unit_dim] if len(value.shape) >= abs(unit_dim) + (unit_dim > 0) else value.shape[-1]
        affine = self._affine_before(first)
        site = replace(
            site, shape=value.shape, units=units, unit_dim=unit_dim,
            preceded_by=affine.path if affine is not None else None,
            dtype=site.dtype or str(value.dtype).removeprefix("torch."),
        )  # fmt: skip
        self.sites.append((step.index, site, first, last))

    def _affine_before(self, value: int) -> Step | None:
        """The affine map that feeds the value, through norms, pooling and rearrangement but no activation or sum."""
        while (step := self.trace.producer(value)) is not None:
            if step.affine:
                return step
            given = self.trace.varying(step)
            if self._bends(step) or len(given) != 1 or not self._carries(step):
                return None
            value = given[0]
        return None

    def _carries(self, step: Step) -> bool:
        if step.is_module:
            return True
        if self.regions.root[step.outputs[0]] != step.outputs[0]:
            return step.call is None and self.regions.linear(step)
        return step.neutral or step.name in _RESHAPES or "norm" in step.name or "pool" in step.name

    def _unit_dim(self, value: int) -> int:
        """1 behind convolutions as long as the layout is (N, C, …), else −1."""
        shape = self.trace.values[value].shape
        if len(shape) < 3:
            return -1
        seen: set[int] = set()
        waiting = [value]
        while waiting:
            step = self.trace.producer(waiting.pop())
            if step is None or step.index in seen:
                continue
            seen.add(step.index)
            if step.affine:
                if step.name.startswith(_CONVOLUTIONS):
                    return 1
                return -1
            if step.name in _RESHAPES - {"chunk", "split", "getitem"} or step.name in ("flatten", "Flatten"):
                continue
            waiting += self.trace.varying(step)
        return -1

    # -- what the sites are for

    def _gates(self) -> None:
        """`act(gate) * up`: one gated site where gate and up are projections and the catalog has the product."""
        trace = self.trace
        outputs = {entry[3]: i for i, entry in enumerate(self.sites)}
        for step in trace.steps:
            given = trace.varying(step)
            if step.name not in ("mul", "rmul") or len(given) != 2 or step.index in self.covered:
                continue
            for gate, up in sorted((given, given[::-1]), key=lambda pair: self._gating(pair[0], outputs)):
                at = outputs.get(trace.back(gate))
                if at is None:
                    continue
                order, site, first, last = self.sites[at]
                site = replace(site, role="gate")
                name = self._product(site)
                alike = self._twins(gate, up, step.outputs[0])
                projected = self._affine_before(first) is not None and self._affine_before(up) is not None
                if name is not None and alike and projected and self._apart(gate, up, outputs):
                    up_path = self._affine_before(up)
                    assert up_path is not None
                    word = f"{site.name}(gate) * up, up from {up_path.path or 'its own forward'}"
                    site = replace(
                        site, activation=name, parameters=catalog.get(name).defaults,
                        note="; ".join(filter(None, (site.note, word))),
                        layout=self._layout(gate, up),
                    )  # fmt: skip
                self.sites[at] = (order, site, first, last)
                break

    def _twins(self, gate: int, up: int, product: int) -> bool:
        """Whether gate and up have one shape: neither is broadcast, as what a squeeze-excite block multiplies with."""
        return self.trace.alike(gate, up, product)

    def _layout(self, gate: int, up: int) -> str | None:
        """How gate and up come out of their projection: two maps, or two halves of one, which first."""
        (gates, first), (ups, second) = self._half(gate), self._half(up)
        if gates == ups and first and second:
            return {"firstsecond": "gate_up", "secondfirst": "up_gate"}.get(first + second, "interleaved")
        maps = self._affine_before(gates), self._affine_before(ups)
        return "split" if None not in maps and maps[0] is not maps[1] else None

    def _half(self, value: int) -> tuple[int, str]:
        """The value that `value` is made of elementwise, and, if it is half of another, that and which half."""
        root = self.trace.back(self.regions.root[value])
        step = self.trace.producer(root)
        half = step.halves.get(root, "") if step is not None else ""
        return (self.trace.back(self.trace.varying(step)[0]), half) if step is not None and half else (root, "")

    def _gating(self, value: int, outputs: Mapping[int, int]) -> tuple[int, bool]:
        """Sorts which of two activations gates the other: the one that is broadcast, then the one within [0, 1]."""
        at = outputs.get(self.trace.back(value))
        act = None if at is None else self.sites[at][1].definition
        within = act is not None and act.kind == "elementwise" and act.facts.range == (0.0, 1.0)
        return math.prod(self.trace.values[value].shape), not within

    def _apart(self, gate: int, up: int, outputs: Mapping[int, int]) -> bool:
        """Whether gate and up come from two values, and up is not itself an activation's output."""
        root = self.regions.root
        return root[gate] != root[up] and self.trace.back(up) not in outputs

    def _product(self, site: Site) -> str | None:
        """The gated activation that is this site's activation of one input times another, at its defaults."""
        act = site.definition
        if act is None or act.kind != "elementwise":
            return None
        key = (act, *site.parameters.items())
        if key not in self.products:
            gate, up = gated_probes()
            found = match_values((gate, up), act.value(gate, **site.parameters) * up)
            told = found.activation is not None and found.parameters == catalog.get(found.activation).defaults
            self.products[key] = found.activation if told else None
        return self.products[key]

    def _roles(self) -> None:
        last = self._last_affine()
        for at, (order, site, first, out) in enumerate(self.sites):
            if site.role != "hidden":
                continue
            role = "hidden"
            if site.definition is not None and site.definition.kind == "gated":
                role = "gate"
            elif site.activation in ("softmax", "log_softmax") and self._weighs(out):
                role = "attention"
            elif last is not None and order > last.index and self._affine_before(first) is last:
                role = "head"
            self.sites[at] = (order, replace(site, role=role), first, out)

    def _weighs(self, value: int) -> bool:
        """Whether the value is multiplied, as a matrix, with another that varies: attention weights."""
        for step in self.trace.consumers(value):
            if step.name in _PRODUCTS and len(self.trace.varying(step)) > 1:
                return True
            if step.name in _RESHAPES | {"unsqueeze", "view", "reshape"} and self._weighs(step.outputs[0]):
                return True
        return False

    # -- affine maps

    def _last_affine(self) -> Step | None:
        return next((s for s in reversed(self.trace.steps) if self._is_affine(s)), None)

    def _is_affine(self, step: Step) -> bool:
        """An affine map of what varies, its weight constant: not the product of two activations."""
        return step.affine and len(self.trace.varying(step)) == 1

    def _affines(self) -> tuple[Affine, ...]:
        after: dict[int, str] = {}
        for _, site, first, _ in self.sites:
            step = self._affine_before(first)
            if step is not None:
                after.setdefault(step.index, site.key)
        outputs = {out: site.key for _, site, _, out in self.sites}
        found = []
        for step in filter(self._is_affine, self.trace.steps):
            fan_in, fan_out = self._fans(step)
            value = self._rearranged(self.trace.varying(step)[0])
            kind = type(step.symbol).__name__ if step.is_module else step.name
            found.append(Affine(step.path, kind, fan_in, fan_out, after.get(step.index), outputs.get(value)))
        return tuple(found)

    def _rearranged(self, value: int) -> int:
        """The value whose elements these are: back through copies, reshapes, transposes, slices."""
        while (step := self.trace.producer(value)) is not None and (step.neutral or step.name in _RESHAPES):
            given = self.trace.varying(step)
            if len(given) != 1:
                break
            value = given[0]
        return value

    def _fans(self, step: Step) -> tuple[int, int]:
        weight = getattr(step.symbol, "weight", None) if step.is_module else None
        if weight is None and step.name not in ("einsum", "bmm"):  # whose weights have any layout
            constants = [self.trace.values[v].constant for v in step.inputs]
            weight = next((c for c in constants if c is not None and c.ndim >= 2), None)
        if not isinstance(weight, torch.Tensor) or weight.ndim < 2:
            shapes = [self.trace.values[v].shape for v in (self.trace.varying(step)[0], step.outputs[0])]
            return shapes[0][-1], shapes[1][-1]
        field = int(weight[0, 0].numel())
        fan_in, fan_out = weight.shape[1] * field, weight.shape[0] * field
        if step.name in ("matmul", "mm", "addmm") or "transpose" in step.name.lower():
            return fan_out, fan_in
        return fan_in, fan_out

    def _head(self) -> Head | None:
        step = self._last_affine()
        if step is None:
            return None
        value = self.trace.values[step.outputs[0]]
        conv = step.name.startswith(_CONVOLUTIONS) and len(value.shape) > 2
        features = self._features(step.outputs[0], 1 if conv else -1) if value.shape else None
        for _, site, _, _ in self.sites:
            if site.role == "head":
                return Head(step.path, site.activation or "unknown", features, site.key)
        return Head(step.path, "output" if features == 1 else "logits", features)

    def _features(self, value: int, dim: int) -> int | None:
        return self.trace.values[value].shape[dim]
