"""`identify`: which activations a torch model, or a function of tensors, really uses. Runs it once, changes nothing."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator, Mapping
from dataclasses import replace
from typing import Any

import torch
from torch import nn

from .. import catalog
from ..errors import InputError
from .census import Affine, Census, Head, Site, Span
from .cores import Core, Regions, of_module
from .folding import collapses
from .matching import Match, gated_probes, match, match_values
from .observation import Observer, original
from .preservation import unchanged
from .recognition import Entry, Tables, call_parameters, module_parameters, qualified
from .tracing import Recorder, Step, Trace, mapped

# The gates of torch's recurrent modules, as their documentation gives them
_GATES: dict[str, tuple[tuple[str, str], ...]] = {
    "LSTM": (("sigmoid", "input gate"), ("sigmoid", "forget gate"), ("sigmoid", "output gate"),
             ("tanh", "cell candidate"), ("tanh", "cell output")),
    "GRU": (("sigmoid", "reset gate"), ("sigmoid", "update gate"), ("tanh", "candidate")),
}  # fmt: skip
_PRODUCTS = {"matmul", "bmm", "mm", "baddbmm", "einsum"}
_RESHAPES = {"chunk", "split", "getitem", "unbind", "tensor_split", "narrow", "select", "split_with_sizes",
             "transpose", "permute", "movedim", "get_T", "get_mT", "swapaxes"}  # fmt: skip
_CONVOLUTIONS = ("conv", "Conv")


def identify(model: nn.Module | Callable[..., torch.Tensor], example_inputs: Any = None) -> Census:
    """The activation sites of `model`, its head, blocks, affine maps, and affine maps that are one.

    model: a module (a compiled or DataParallel one stands for the module inside), or a function of one tensor (or of
        NumPy arrays, or of floats), which is matched by behaviour. example_inputs: a tensor, a tuple of arguments, or
        a dict of keyword arguments; the model is run on copies of them once, in eval mode, without gradients, and is
        afterwards what it was. Without them nothing is executed: only what modules declare is known, and the Census
        says so.

    Not folded: convolutions. Not looked into: TorchScript, and what a fused kernel computes (declared instead).
    Raises InputError for a model that cannot be run on these inputs, with the module in which it failed.
    """
    if not isinstance(model, nn.Module):
        if callable(model) and not isinstance(model, type):
            return _of_function(model)
        got = f"the class {model.__name__}: make one" if isinstance(model, type) else type(model).__name__
        raise InputError(f"model must be a torch.nn.Module or a function of a tensor, got {got}")
    model = original(model)
    _check(model)
    if example_inputs is None:
        return _declared(model)
    args, kwargs = arguments(example_inputs)
    recorder = Recorder()
    observer = Observer(
        model, operation=recorder.operation, entered=recorder.entered, left=recorder.left, functional=True
    )
    with unchanged(model):
        try:
            with observer:
                model(*args, **kwargs)
                counts = observer.counts
        except Exception as error:
            where = f"in {recorder.failed!r}" if recorder.failed else "in its own forward"
            shapes = ", ".join(f"{k}{tuple(t.shape)}" for k, t in _named_tensors(args, kwargs)) or "no tensors"
            raise InputError(
                f"{type(model).__name__} raised {type(error).__name__} {where} when run on example_inputs "
                f"({shapes}): {error}"
            ) from error
        return _Reading(model, recorder.trace(counts)).census()


def _check(model: nn.Module) -> None:
    if isinstance(model, torch.jit.ScriptModule):
        raise InputError("model is a TorchScript module, which cannot be observed; give the Python module it came from")
    for name, parameter in model.named_parameters():
        if isinstance(parameter, nn.parameter.UninitializedParameter):
            raise InputError(f"parameter {name!r} is uninitialized (a lazy module); run the model once before identify")


def arguments(example: Any) -> tuple[tuple, dict[str, Any]]:
    """Positional and keyword arguments, on copies: a model may work in place on what it is given."""

    def copied(item: Any) -> Any:
        return item.detach().clone() if isinstance(item, torch.Tensor) else item

    if isinstance(example, torch.Tensor):
        return (copied(example),), {}
    if isinstance(example, Mapping):
        wrong = [key for key in example if not isinstance(key, str)]
        if wrong:
            raise InputError(f"example_inputs as a dict are keyword arguments; {wrong[0]!r} is not a name")
        return (), mapped(dict(example), copied)
    if isinstance(example, (tuple, list)):
        return tuple(mapped(item, copied) for item in example), {}
    raise InputError(
        f"example_inputs must be a tensor, a tuple of arguments or a dict of keyword arguments, "
        f"got {type(example).__name__}"
    )


def _named_tensors(args: tuple, kwargs: Mapping[str, Any]) -> Iterator[tuple[str, torch.Tensor]]:
    for item in args:
        if isinstance(item, torch.Tensor):
            yield "", item
    for name, item in kwargs.items():
        if isinstance(item, torch.Tensor):
            yield f"{name}: ", item


# -- without running


def _of_function(function: Callable[..., torch.Tensor]) -> Census:
    """One site: what a function of one tensor computes, matched by behaviour."""
    name = getattr(function, "__name__", type(function).__name__)
    if isinstance(function, catalog.Activation):
        site = Site(
            f"{name}#0", name, 0, function.name, function.defaults, "declared", "functional", qualified(function),
            measured=False, definition=function,
        )  # fmt: skip
        return Census(name, (site,), executed=False)
    entry = Tables().of_call(function, (), {})
    own = None if entry is None else entry.activation
    if entry is not None and own is not None and not any(p.learnable for p in own.parameters.values()):
        # torch's own is what torch calls it; one that needs more than its input (prelu) cannot be evaluated either
        site = Site(
            f"{name}#0", name, 0, own.name, call_parameters(entry, function, (), {}), "declared", "functional",
            qualified(function), measured=False, definition=own,
        )  # fmt: skip
        return Census(name, (site,), executed=False)
    # by itself it may be any of them; what is cut out of a forward is more often a part of something else
    found = match(function, activations=catalog.activations())
    site = Site(
        f"{name}#0", name, 0, found.activation, found.parameters if found.activation else {}, "inferred", "functional",
        qualified(function), measured=False, note=_note(found), candidates=found.candidates,
    )  # fmt: skip
    return Census(name, (site,))


def _note(found: Match) -> str:
    return found.note if found.activation else found.describe()


def _declared(model: nn.Module) -> Census:
    tables = Tables()
    sites: list[Site] = []
    for path, module in model.named_modules():
        entry = tables.of_module(module)
        if entry is not None:
            sites.append(_settle(Site(
                f"{path}#0", path, 0, entry.activation.name if entry.activation else None,
                module_parameters(entry, module), "declared", "module", qualified(type(module)),
                definition=entry.activation,
            ), entry, module))  # fmt: skip
        elif isinstance(module, (nn.RNNBase, nn.RNNCellBase)):
            sites += _recurrent(path, module)
        elif isinstance(module, nn.MultiheadAttention):
            sites.append(_attention(path, 0, qualified(type(module))))
        else:
            functions = [(k, tables.of_call(v, (), {})) for k, v in vars(module).items() if callable(v)]
            for number, (name, found) in enumerate((k, e) for k, e in functions if e is not None):
                sites.append(Site(
                    f"{path}#{number}", path, number, found.activation.name if found.activation else None, {},
                    "declared", "functional", qualified(getattr(module, name)), definition=found.activation,
                ))  # fmt: skip
    note = "not executed (no example inputs): only what modules declare; function calls and reuse are not seen"
    return Census(type(model).__name__, tuple(sites), blocks=_blocks(model, sites), executed=False, notes=(note,))


def _unseen(model: nn.Module) -> Iterator[str]:
    """What runs past the observer: one note for each such part."""
    scripted = [path for path, module in model.named_modules() if isinstance(module, torch.jit.ScriptModule)]
    for path in scripted:
        if path.rpartition(".")[0] not in scripted:
            yield f"{path} is TorchScript, whose activations cannot be seen"
    for path, module in model.named_modules():
        graph = module.graph if isinstance(module, torch.fx.GraphModule) else None
        if graph is not None and any(isinstance(node.target, torch._ops.OpOverload) for node in graph.nodes):
            yield f"{path or 'the model'} is an exported graph of ATen operators, whose activations cannot be seen"


def _settle(site: Site, entry: Entry, symbol: Callable[..., torch.Tensor]) -> Site:
    """An activation that torch has and the catalog has not by name: matched by behaviour, or unknown."""
    if entry.activation is not None:
        return site
    try:
        found = match(symbol)
    except InputError as error:
        return replace(site, activation=None, note=f"{entry.name}: {error}")
    if found.activation is None:
        return replace(site, activation=None, note=f"{entry.name}: {found.describe()}")
    return replace(
        site, activation=found.activation, parameters=found.parameters, evidence="inferred", note=found.note,
        candidates=found.candidates,
    )  # fmt: skip


def _recurrent(path: str, module: nn.Module) -> list[Site]:
    kind = type(module).__name__.removesuffix("Cell")
    gates = _GATES.get(kind) or ((str(getattr(module, "nonlinearity", "tanh")), "hidden state"),)
    layers = getattr(module, "num_layers", 1) * (2 if getattr(module, "bidirectional", False) else 1)
    more = f", the same in each of {layers} layers and directions" if layers > 1 else ""
    return [
        Site(
            f"{path}#{n}", path, n, name, {}, "declared", "fused", qualified(type(module)),
            role="gate" if "gate" in what else "hidden", units=int(module.hidden_size), measured=False,  # type: ignore[arg-type]
            note=f"{what}{more}; not measured",
        )
        for n, (name, what) in enumerate(gates)
    ]  # fmt: skip


def _attention(path: str, number: int, implementation: str, source: str | None = None) -> Site:
    return Site(
        f"{path}#{number}", path, number, "softmax", {"temperature": 1.0}, "declared", "fused", implementation, source,
        role="attention", measured=False, note="inside a fused attention kernel; not measured",
    )  # fmt: skip


def _blocks(model: nn.Module, sites: list[Site]) -> dict[str, tuple[str, ...]]:
    """Path of each block (a child with children, looked for inside lists and sequences) → its activations."""
    paths = list(_block_paths(model, "")) or [""]
    return {
        path: tuple(s.activation or "unknown" for s in sites if not path or f"{s.path}.".startswith(f"{path}."))
        for path in paths
    }


def _block_paths(module: nn.Module, path: str) -> Iterator[str]:
    for name, child in module.named_children():
        inner = f"{path}.{name}" if path else name
        if next(child.children(), None) is None:
            continue
        blocks = list(_block_paths(child, inner))
        if isinstance(child, (nn.ModuleList, nn.ModuleDict, nn.Sequential)) and blocks:
            yield from blocks
        else:
            yield inner


# -- from a run


class _Reading:
    """A Census read off one trace."""

    def __init__(self, model: nn.Module, trace: Trace) -> None:
        self.model = model
        self.trace = trace
        self.counts = dict(trace.counts)
        self.cache: dict[str, Match | None] = {}
        self.modules: dict[int, Match | None] = {}
        self.products: dict[tuple, str | None] = {}
        self.custom: dict[int, Match] = {}  # id of the step → what the custom module is
        self._open_custom_modules()
        self.regions = Regions(trace, self.cache)
        self.covered: set[int] = set()  # steps that are part of a core
        self.sites: list[tuple[int, Site, int, int]] = []  # order, site, value in, value out

    def census(self) -> Census:
        trace = self.trace
        for core in self.regions.cores():
            self._core(core)
            self.covered.update(core.steps)
        for step in trace.steps:
            self._step(step)
        self.sites.sort(key=lambda entry: entry[0])
        self._gates()
        self._roles()
        sites = [entry[1] for entry in self.sites]
        affines = self._affines()
        return Census(
            type(self.model).__name__, tuple(sites), self._head(), _blocks(self.model, sites), collapses(trace),
            affines, notes=tuple(_unseen(self.model)),
        )  # fmt: skip

    def _open_custom_modules(self) -> None:
        """Custom leaf modules that are elementwise stay one step; others give way to the steps inside them.

        So do those that are no catalog activation as a whole, but only scale one: relu(x)·2.
        """
        closed = self.trace.steps
        self.custom = {id(s): m for s in closed if s.inner is not None and (m := self._custom(s)) is not None}
        unknown = [s for s in closed if id(s) in self.custom and self.custom[id(s)].activation is None]
        if unknown:
            self._replace(closed, {id(s) for s in closed if id(s) in self.custom} - {id(s) for s in unknown})
            regions = Regions(self.trace, self.cache)
            known = {i for c in regions.cores() if c.found is None or c.found.activation for i in c.steps}
            for step in unknown:
                assert step.inner is not None
                if all(s.index in known or regions.linear(s) for s in step.inner):
                    del self.custom[id(step)]
        self._replace(closed, set(self.custom))

    def _replace(self, steps: list[Step], keep: set[int]) -> None:
        """The trace with these steps, custom modules opened except those to `keep`."""
        self.trace.steps = [
            s for step in steps for s in ((step,) if step.inner is None or id(step) in keep else step.inner)
        ]
        self.trace.number()

    def _custom(self, step: Step) -> Match | None:
        given = self.trace.varying(step)
        if len(given) != 1 or len(step.outputs) != 1 or step.keywords or len(step.arguments) > 1:
            return None
        x, y = (self.trace.values[v] for v in (given[0], step.outputs[0]))
        if x.shape != y.shape or not x.dtype.is_floating_point:
            return None
        module = step.symbol
        if id(module) not in self.modules:
            try:
                self.modules[id(module)] = of_module(module, x.shape, x.dtype)
            except Exception:  # somebody's module, on values it was not made for
                self.modules[id(module)] = None
        return self.modules[id(module)]

    # -- sites

    def _core(self, core: Core) -> None:
        trace = self.trace
        steps = [trace.steps[i] for i in core.steps]
        last = steps[-1]
        if core.found is None:
            self._add(last, core.first, core.last, self._called(last))
            return
        calls = [s.call for s in steps if s.call is not None]
        if calls:
            path, number = calls[0].path, calls[0].number
        else:
            path = last.path
            number = self.counts.get(path, 0)
            self.counts[path] = number + 1
        found = core.found
        site = Site(
            f"{path}#{number}", path, number, found.activation, found.parameters if found.activation else {},
            "inferred", "functional", core.formula(trace), last.source, note=_note(found),
        )  # fmt: skip
        if core.up is not None:
            up = self._affine_before(core.up)
            site = replace(site, role="gate", note="" if up is None else f"up from {up.path or 'its own forward'}")
        span = self._span(core, steps, tuple(call.key for call in calls))
        site = replace(site, span=span, measured=span is not None)
        self._add(last, core.first, core.last, site)

    def _span(self, core: Core, steps: list[Step], covers: tuple[str, ...]) -> Span | None:
        """Where an Observer finds the core again; None where it begins or ends inside a module."""
        first = next((s for s in steps if core.first in s.inputs and not s.is_module), None)
        last = steps[-1]
        if first is None or first.ordinal is None or last.ordinal is None:
            return None
        begin = (first.path, first.ordinal, first.name)
        return Span(begin, (last.path, last.ordinal, last.name), first.inputs.index(core.first), covers)

    def _step(self, step: Step) -> None:
        """What is no elementwise core: gated and normalizing calls, fused kernels, custom modules."""
        if id(step) in self.custom:
            found = self.custom[id(step)]
            number = sum(s.symbol is step.symbol for s in self.trace.steps[: step.index])
            site = Site(
                f"{step.path}#{number}", step.path, number, found.activation,
                found.parameters if found.activation else {}, "inferred", "module", qualified(type(step.symbol)),
                note=_note(found),
            )  # fmt: skip
            self._add(step, self.trace.varying(step)[0], step.outputs[0], site)
        elif step.recurrent:
            if not any(s.path == step.path for _, s, _, _ in self.sites):  # a cell in a loop is reported once
                for site in _recurrent(step.path, step.symbol):
                    self._add(step, step.inputs[0], step.outputs[0], site)
        elif step.call is not None and step.call.form == "fused":
            call = step.call
            self._add(step, step.inputs[0], step.outputs[0],
                      _attention(call.path, call.number, call.implementation, call.source))  # fmt: skip
        elif step.call is not None and step.index not in self.covered:
            given = self.trace.varying(step) or step.inputs
            if given:
                self._add(step, given[0], step.outputs[0], self._called(step))

    def _called(self, step: Step) -> Site:
        call = step.call
        assert call is not None
        site = Site(
            call.key, call.path, call.number, call.activation.name if call.activation else None, call.parameters,
            "observed", call.form, call.implementation, call.source, definition=call.activation,
        )  # fmt: skip
        if call.form == "module":
            return _settle(site, call.entry, call.symbol)
        arguments, keywords = step.arguments[1:], step.keywords
        return _settle(site, call.entry, lambda x: call.symbol(x, *arguments, **keywords))

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
        )  # fmt: skip
        self.sites.append((step.index, site, first, last))

    def _affine_before(self, value: int) -> Step | None:
        """The affine map that feeds the value, through norms, pooling and rearrangement but no activation or sum."""
        while (step := self.trace.producer(value)) is not None:
            if step.affine:
                return step
            given = self.trace.varying(step)
            bends = step.call is not None or id(step) in self.custom or step.recurrent
            if bends or len(given) != 1 or not self._carries(step):
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
                alike = trace.values[gate].shape == trace.values[up].shape == trace.values[step.outputs[0]].shape
                projected = self._affine_before(first) is not None and self._affine_before(up) is not None
                if name is not None and alike and projected and self._apart(gate, up, outputs):
                    up_path = self._affine_before(up)
                    assert up_path is not None
                    word = f"{site.name}(gate) * up, up from {up_path.path or 'its own forward'}"
                    site = replace(site, activation=name, note="; ".join(filter(None, (site.note, word))))
                self.sites[at] = (order, site, first, last)
                break

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
        shape = self.trace.values[step.outputs[0]].shape
        conv = step.name.startswith(_CONVOLUTIONS)
        features = (shape[1] if conv and len(shape) > 2 else shape[-1]) if shape else None
        for _, site, _, _ in self.sites:
            if site.role == "head":
                return Head(step.path, site.activation or "unknown", features, site.key)
        return Head(step.path, "output" if features == 1 else "logits", features)
