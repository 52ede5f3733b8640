"""`identify`: which activations a torch model, or a function of tensors, really uses. Runs it once, changes nothing."""

from __future__ import annotations

import os
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import replace
from typing import Any

import torch
from torch import nn

from .. import catalog
from ..errors import InputError
from . import fastpath, formats
from .census import Census, Site, Span
from .cores import Core, Regions, of_module
from .folding import collapses
from .matching import Match, match
from .matching.sampling import arity
from .observation import Observer, original
from .preservation import unchanged
from .reading import GATES, Reading
from .recognition import Entry, Tables, call_parameters, module_parameters, qualified
from .tracing import Recorder, Step, Trace, mapped


def identify(
    model: nn.Module | Callable[..., Any] | str | os.PathLike[str],
    example_inputs: Any = None,
    *,
    allow_pickle: bool = False,
) -> Census:
    """The activation sites of `model`, its head, blocks, affine maps, and affine maps that are one.

    model: a module (a compiled or DataParallel one stands for the module inside); a function of one tensor, array or
        number, or of two (gate, up), which is matched by behaviour; a graph (TorchScript, an exported program, an ONNX
        model), which is read as it is and not run; or the path of a file or directory in any format that `formats.read`
        knows. Nothing in a file is executed.
    example_inputs: a tensor, a tuple of arguments, or a dict of keyword arguments; a module is run on copies of them
        once, in eval mode, without gradients and fused fast paths, and is afterwards what it was. Without them nothing
        is executed: only what modules declare is known, and the Census says so. A JAX function is traced on them.
    allow_pickle: whether a pickled checkpoint may be loaded, with weights_only=True.

    Not folded: convolutions. Not looked into: what a fused kernel computes (declared instead).
    Raises InputError for a model that cannot be run on these inputs, with the module in which it failed.
    """
    if isinstance(model, (str, os.PathLike)):
        if example_inputs is not None:
            raise InputError("example_inputs are for a model that can be run, not for a file")
        return formats.read(model, allow_pickle=allow_pickle)
    read = _as_graph(model, example_inputs)
    if read is not None:
        return read
    if not isinstance(model, nn.Module):
        if callable(model) and not isinstance(model, type):
            return _of_function(model)
        got = f"the class {model.__name__}: make one" if isinstance(model, type) else type(model).__name__
        raise InputError(f"model must be a torch.nn.Module, a function of a tensor or the path of a model, got {got}")
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
        return _Observed(model, recorder.trace(counts)).census()


def _as_graph(model: Any, example_inputs: Any) -> Census | None:
    """The Census of what is a graph, and is read instead of run; None for anything else."""
    if isinstance(model, (torch.jit.ScriptModule, torch.jit.ScriptFunction)):
        from .formats import torchscript

        return torchscript.identify(model)
    if isinstance(model, torch.fx.GraphModule) or type(model).__name__ == "ExportedProgram":
        from .formats import exported

        return exported.identify(model) if exported.exports(model) else None
    if type(model).__name__ == "ModelProto":
        from .formats import onnx

        return onnx.identify(model)
    if example_inputs is not None and callable(model) and not isinstance(model, nn.Module):
        from .formats import jaxpr

        return jaxpr.identify(model, example_inputs) if jaxpr.made_for_jax(model, example_inputs) else None
    return None


def _check(model: nn.Module) -> None:
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
    found = match(function, inputs=min(arity(function), 2), activations=catalog.activations())
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
    return Census(
        type(model).__name__, tuple(sites), blocks=_blocks(model, sites), executed=False, notes=(note,),
        conflicts=tuple(fastpath.conflicts(model, sites)),
    )  # fmt: skip


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
    gates = GATES.get(kind) or ((str(getattr(module, "nonlinearity", "tanh")), "hidden state"),)
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


def _blocks(model: nn.Module, sites: Sequence[Site]) -> dict[str, tuple[str, ...]]:
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


class _Observed(Reading):
    """A Census read off a run."""

    def __init__(self, model: nn.Module, trace: Trace) -> None:
        super().__init__(trace)
        self.model = model
        self.cache: dict[str, Match | None] = {}
        self.modules: dict[int, Match | None] = {}
        self.custom: dict[int, Match] = {}  # id of the step → what the custom module is
        self._open_custom_modules()
        self.regions = Regions(trace, self.cache)

    def census(self) -> Census:
        sites = self.read()
        return Census(
            type(self.model).__name__, sites, self._head(), _blocks(self.model, sites), collapses(self.trace),
            self._affines(), notes=tuple(_unseen(self.model)),
            conflicts=tuple(fastpath.conflicts(self.model, sites)),
        )  # fmt: skip

    def _bends(self, step: Step) -> bool:
        return super()._bends(step) or id(step) in self.custom

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
            number = self._number(path)
        found = core.found
        site = Site(
            f"{path}#{number}", path, number, found.activation, found.parameters if found.activation else {},
            "inferred", "functional", core.formula(trace), last.source, note=_note(found),
        )  # fmt: skip
        if core.up is not None:
            up = self._affine_before(core.up)
            note = "" if up is None else f"up from {up.path or 'its own forward'}"
            site = replace(site, role="gate", note=note, layout=self._layout(core.first, core.up))
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
        if call.activation is not None and call.activation.kind == "gated" and len(call.inputs) == 1:
            site = replace(site, layout=getattr(call.symbol, "layout", None) or call.activation.layout)
        if call.form == "module":
            return _settle(site, call.entry, call.symbol)
        arguments, keywords = step.arguments[1:], step.keywords
        return _settle(site, call.entry, lambda x: call.symbol(x, *arguments, **keywords))
