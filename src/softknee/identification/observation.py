"""Seeing activations being applied while a model runs: the one mechanism, under `identify` and under `watch`.

An `Observer` is a context manager around any number of forward passes of one model. It hooks activation modules, and
(unless `functional=False`) opens a `TorchFunctionMode` inside the model's forward, and only there, for activations
that are called as functions. What happens inside an activation module is the module's: a call is never seen twice.
Keys are `path#n`: the path of the module whose forward applies the activation (for an activation module its own), n
counting the calls made there in one forward, so a reused module has several keys and keys repeat from step to step.

Nothing is changed: outputs are what they were, hooks are gone when the block ends (also on an exception), and a
recomputation outside the model's forward (activation checkpointing) is not seen. Forwards in other threads are kept
apart. Calls to `model.forward` or to other methods of the model bypass hooks and are not seen.
"""

from __future__ import annotations

import os
import sys
import threading
from collections.abc import Callable, Mapping
from typing import TYPE_CHECKING, Any

import torch
from torch import nn
from torch.overrides import TorchFunctionMode

from ..errors import InputError
from .recognition import Entry, Tables, bare, bind, call_parameters, module_parameters, qualified, tensors

if TYPE_CHECKING:
    from .census import Census, Site

_TORCH = os.path.dirname(torch.__file__)
_PACKAGE = os.path.dirname(os.path.dirname(os.path.abspath(__file__)))
# frames that belong to the call itself and not to whoever made it
_TRANSPARENT = tuple(
    os.path.join(_TORCH, *parts)
    for parts in (("overrides.py",), ("nn", "functional.py"), ("_tensor.py",), ("_jit_internal.py",), ("utils",))
) + tuple(
    os.path.join(_PACKAGE, part) for part in ("identification", "functional.py", "catalog", "expression", "kernels")
)


class Call:
    """One application of an activation, as the callbacks get it.

    `key`, `path`, `number`; `activation` (a catalog `Activation`, or None where torch has an activation that the
    catalog has not); `name` (the torch name in that case); `form` ("module", "functional" or "fused"); `inputs`, the
    tensors it is applied to; `inplace`; and, worked out when asked for, `implementation`, `parameters` (floats) and
    `source` ("file.py:12", None for modules).
    """

    __slots__ = (
        "_arguments", "_frame", "_keywords", "entry", "form", "inputs", "number", "path", "symbol",
    )  # fmt: skip

    def __init__(
        self, path: str, number: int, entry: Entry, form: str, symbol: Any,
        arguments: tuple, keywords: Mapping[str, Any], frame: tuple[str, int] | None,
    ) -> None:  # fmt: skip
        self.path = path
        self.number = number
        self.entry = entry
        self.form = form
        self.symbol = symbol
        self._arguments = arguments
        self._keywords = keywords
        self._frame = frame
        given = (*arguments, *keywords.values()) if keywords else arguments
        self.inputs = tuple(value for value in given if isinstance(value, torch.Tensor))

    @property
    def key(self) -> str:
        return f"{self.path}#{self.number}"

    @property
    def activation(self) -> Any | None:
        return self.entry.activation

    @property
    def name(self) -> str:
        return self.entry.name

    @property
    def implementation(self) -> str:
        if self.entry.implementation is not None:
            return self.entry.implementation
        return qualified(type(self.symbol) if self.form == "module" else self.symbol)

    @property
    def parameters(self) -> dict[str, float]:
        if self.entry.parameters is not None:
            return dict(self.entry.parameters)
        if self.form == "module":
            return module_parameters(self.entry, self.symbol)
        return call_parameters(self.entry, self.symbol, self._arguments, self._keywords)

    @property
    def dim(self) -> int | None:
        """The dimension a normalizing or gated call works along, None if it has none."""
        if self.form == "module":
            value = getattr(self.symbol, "dim", None)
        else:
            value = bind(self.symbol, self._arguments, self._keywords).get("dim")
        return value if isinstance(value, int) else None

    @property
    def inplace(self) -> bool:
        if self.form == "module":
            return bool(getattr(self.symbol, "inplace", False))
        if getattr(self.symbol, "__name__", "").endswith("_"):
            return True
        if len(self._arguments) + len(self._keywords) == 1:
            return False
        return bool(bind(self.symbol, self._arguments, self._keywords).get("inplace", False))

    @property
    def source(self) -> str | None:
        return None if self._frame is None else _spelled(*self._frame)

    def __repr__(self) -> str:
        return f"Call({self.key!r}, {self.name!r}, form={self.form!r})"


def original(model: nn.Module) -> nn.Module:
    """The module a wrapper stands for: `torch.compile`d, `DataParallel`, `DistributedDataParallel`."""
    while True:
        inner = getattr(model, "_orig_mod", None)  # torch.compile
        if inner is None and isinstance(model, nn.DataParallel | nn.parallel.DistributedDataParallel):
            inner = model.module
        if not isinstance(inner, nn.Module):
            return model
        model = inner


class _Run(threading.local):
    """What one forward pass of the root keeps, per thread."""

    depth = 0  # of the root in itself
    hidden = 0  # > 0: inside an activation module
    mode: TorchFunctionMode | None = None

    def __init__(self) -> None:
        self.counts: dict[str, int] = {}
        self.ordinals: dict[str, int] = {}
        self.open: dict[str, Call] = {}
        self.stack: list[str] = []
        self.pending: list[Call | None] = []

    def number(self, path: str) -> int:
        n = self.counts.get(path, 0)
        self.counts[path] = n + 1
        return n


class _Mode(TorchFunctionMode):
    def __init__(self, observer: Observer) -> None:
        super().__init__()
        self._observer = observer

    def __torch_function__(self, func: Any, types: Any, args: tuple = (), kwargs: Any = None) -> Any:
        return self._observer._called(func, args, kwargs or {})


class Observer:
    """Calls `before(call)` just before an activation is applied (in-place ones have not overwritten their input yet)
    and `after(call, output)` just after.

    functional: also see activations called as functions; False leaves the mode off (cheaper, for a model that is
        known to have module sites only). By default what `census` says, and True without one.
    census: what `identify` found in this model. With it custom activation modules and hand-written activations are
        seen as the sites they are, and the calls inside them are not.
    operation(func, args, kwargs, output, path, call, ordinal): every torch function called in the model's forward
        outside activation modules; `call` is set where it is an activation, `ordinal` counts the
        functions called in a path.
    entered(path, module, args, kwargs), left(path, module, output, call): every module of the model,
        the root included; `call` is set where the module is an activation.

    Raises InputError for a model that cannot be observed (TorchScript).
    """

    def __init__(
        self,
        model: nn.Module,
        before: Callable[[Call], Any] | None = None,
        after: Callable[[Call, Any], Any] | None = None,
        *,
        functional: bool | None = None,
        census: Census | None = None,
        operation: Callable[..., Any] | None = None,
        entered: Callable[..., Any] | None = None,
        left: Callable[..., Any] | None = None,
    ) -> None:
        if not isinstance(model, nn.Module):
            raise InputError(f"model must be a torch.nn.Module, got {type(model).__name__}")
        self.model = original(model)
        if isinstance(self.model, torch.jit.ScriptModule):
            raise InputError(
                "model is a TorchScript module, whose calls cannot be observed; give the Python module it came from"
            )
        self._before = before
        self._after = after
        self._operation = operation
        self._entered = entered
        self._left = left
        if functional is None:
            functional = census is None or census.functional
        self._functional = functional or operation is not None
        self._tables = Tables()
        self._custom: dict[str, Entry] = {}
        self._identified: dict[str, Entry] = {}
        self._covered: set[str] = set()
        self._begins_at: dict[tuple[str, int], list[Site]] = {}
        self._ends_at: dict[tuple[str, int], list[Site]] = {}
        for site in census.sites if census is not None else ():
            self._expect(site)
        self._handles: list[Any] = []
        self._run = _Run()

    def _expect(self, site: Site) -> None:
        if site.evidence != "inferred" or not site.measured:
            return
        entry = Entry(site.definition, site.activation or "unknown", parameters=site.parameters,
                      implementation=site.implementation)  # fmt: skip
        self._identified[site.key] = entry
        if site.form == "module":
            self._custom[site.path] = entry
        elif site.span is not None:
            self._covered.update(site.span.covers)
            self._begins_at.setdefault(site.span.begin[:2], []).append(site)
            self._ends_at.setdefault(site.span.end[:2], []).append(site)

    # -- the block

    def __enter__(self) -> Observer:
        if self._handles:
            raise RuntimeError("this Observer is already in use")
        every = self._functional or self._entered is not None or self._left is not None
        try:
            for path, module in self.model.named_modules():
                if isinstance(module, torch.jit.ScriptModule):  # takes no hooks; its calls cannot be seen
                    continue
                entry = self._custom.get(path) or self._tables.of_module(module)
                if entry is not None:
                    self._hook(module, self._module_enters(path, entry), self._module_leaves(path))
                elif every:
                    self._hook(module, self._enters(path), self._leaves(path))
            # last, so that the root's pre-hook comes first and its own hook last
            root = self.model
            self._handles += [
                root.register_forward_pre_hook(self._begins, prepend=True, with_kwargs=True),
                root.register_forward_hook(self._ends, always_call=True),
            ]
        except BaseException:
            self.close()
            raise
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    @property
    def counts(self) -> dict[str, int]:
        """Activation calls per path in the last forward of this thread."""
        return dict(self._run.counts)

    def close(self) -> None:
        """Takes every hook off; safe to call twice."""
        for handle in self._handles:
            handle.remove()
        self._handles = []
        self._stop()

    def _hook(self, module: nn.Module, enters: Any, leaves: Any) -> None:
        # inside the hooks that the module has of its own: what those apply is not the module's doing
        self._handles.append(module.register_forward_pre_hook(enters, with_kwargs=True))
        self._handles.append(module.register_forward_hook(leaves, always_call=True, prepend=True))

    def _tell(self, callback: Callable[..., Any] | None, *arguments: Any) -> None:
        """Calls back from a hook, with the mode off: what a callback computes is not the model's doing."""
        if callback is None:
            return
        if self._functional:
            with torch._C.DisableTorchFunction():
                callback(*arguments)
        else:
            callback(*arguments)

    # -- the root

    def _begins(self, module: nn.Module, args: tuple, kwargs: dict) -> None:
        run = self._run
        if run.depth == 0:
            run.counts.clear()
            run.ordinals.clear()
            run.open.clear()
            run.stack.clear()
            run.pending.clear()
            run.hidden = 0
            if self._functional:
                run.mode = _Mode(self)
                run.mode.__enter__()
        run.depth += 1

    def _ends(self, module: nn.Module, args: tuple, output: Any) -> None:
        self._run.depth -= 1
        if self._run.depth <= 0:
            self._stop()

    def _stop(self) -> None:
        run = self._run
        run.depth = 0
        mode, run.mode = run.mode, None
        if mode is not None:
            mode.__exit__(None, None, None)

    # -- modules

    def _module_enters(self, path: str, entry: Entry) -> Any:
        def enters(module: nn.Module, args: tuple, kwargs: dict) -> None:
            run = self._run
            if not run.depth:
                return
            call = None
            if not run.hidden:
                call = Call(path, run.number(path), entry, "module", module, args, kwargs, None)
                if call.key not in self._covered:
                    self._tell(self._before, call)
                self._tell(self._entered, path, module, args, kwargs)
            run.pending.append(call)
            run.hidden += 1

        return enters

    def _module_leaves(self, path: str) -> Any:
        def leaves(module: nn.Module, args: tuple, output: Any) -> None:
            run = self._run
            if not run.depth or not run.pending:
                return
            run.hidden -= 1
            call = run.pending.pop()
            if call is not None:
                if output is not None and call.key not in self._covered:
                    self._tell(self._after, call, output)
                self._tell(self._left, path, module, output, call)

        return leaves

    def _enters(self, path: str) -> Any:
        def enters(module: nn.Module, args: tuple, kwargs: dict) -> None:
            run = self._run
            if not run.depth:
                return
            run.stack.append(path)
            if not run.hidden:
                self._tell(self._entered, path, module, args, kwargs)

        return enters

    def _leaves(self, path: str) -> Any:
        def leaves(module: nn.Module, args: tuple, output: Any) -> None:
            run = self._run
            if not run.depth or not run.stack:
                return
            run.stack.pop()
            if not run.hidden:
                self._tell(self._left, path, module, output, None)

        return leaves

    # -- functions

    def _called(self, func: Any, args: tuple, kwargs: dict) -> Any:
        run = self._run
        if run.hidden or not run.depth:
            return func(*args, **kwargs)
        path = run.stack[-1] if run.stack else ""
        ordinal = run.ordinals.get(path, 0)
        run.ordinals[path] = ordinal + 1
        if self._begins_at:
            self._begin(func, args, kwargs, path, ordinal)
        entry = self._tables.of_call(func, args, kwargs)
        call = None
        if entry is not None or self._tables.is_attention(func):
            form = "fused" if entry is None else "functional"
            frame = _outside(sys._getframe(1))
            call = Call(path, run.number(path), entry or _SOFTMAX_INSIDE, form, func, args, kwargs, frame)
            call.entry = self._identified.get(call.key, call.entry)
        told = call if call is not None and call.form != "fused" and call.key not in self._covered else None
        if told is not None and self._before is not None:
            self._before(told)
        output = func(*args, **kwargs)
        if told is not None and self._after is not None:
            self._after(told, output)
        if self._ends_at:
            self._end(func, output, path, ordinal)
        if self._operation is not None:
            self._operation(func, args, kwargs, output, path, call, ordinal)
        return output

    # -- hand-written activations

    def _begin(self, func: Any, args: tuple, kwargs: dict, path: str, ordinal: int) -> None:
        for site in self._begins_at.get((path, ordinal), ()):
            assert site.span is not None
            given = list(tensors((args, kwargs)))
            # a forward that took another turn than the one identified is not what the census speaks of
            if bare(func) != site.span.begin[2] or len(given) <= site.span.argument:
                continue
            frame = _outside(sys._getframe(2))
            root = (given[site.span.argument],)
            call = Call(site.path, site.call, self._identified[site.key], "functional", None, root, {}, frame)
            self._run.open[site.key] = call
            if self._before is not None:
                self._before(call)

    def _end(self, func: Any, output: Any, path: str, ordinal: int) -> None:
        for site in self._ends_at.get((path, ordinal), ()):
            call = self._run.open.pop(site.key, None)
            assert site.span is not None
            if call is not None and bare(func) == site.span.end[2] and self._after is not None:
                self._after(call, output)


_SOFTMAX_INSIDE = Entry(None, "softmax")


def caller(frame: Any) -> str | None:
    """ "file.py:12" of the code that called the torch function now in an observer's hands, from `frame` outwards."""
    found = _outside(frame)
    return None if found is None else _spelled(*found)


def _outside(frame: Any) -> tuple[str, int] | None:
    while frame is not None:
        file = frame.f_code.co_filename
        if not file.startswith(_TRANSPARENT):
            return file, frame.f_lineno
        frame = frame.f_back
    return None


def _spelled(file: str, line: int) -> str:
    here = os.getcwd() + os.sep
    for root, name in ((_TORCH, "torch"), (_PACKAGE, "softknee")):
        if file.startswith(root + os.sep):
            return f"{name}{file[len(root) :]}:{line}"
    return f"{file[len(here) :] if file.startswith(here) else os.path.basename(file)}:{line}"
