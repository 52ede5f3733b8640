"""The short way: what computes a common call with as little around it as there can be, bound once.

    way(activation, inputs, parameters, inplace)   a function of the inputs, or None: the call takes the long way
    direct(activation, x)                          the result of the commonest call, or None

Common is a call of plain tensors with numbers as parameters, into which nobody looks. Of `way`, the caller has asked
for `__torch_function__` before.
"""

from __future__ import annotations

import functools
import math
from collections.abc import Callable
from typing import Any, NamedTuple

import torch
from torch import Tensor
from torch.autograd import Function, forward_ad
from torch.autograd.graph import increment_version
from torch.compiler import is_compiling, is_dynamo_compiling
from torch.overrides import has_torch_function_unary

from ..catalog import Activation
from . import cpu, native, paths
from .output import keeps_output
from .paths import choose

_interpreters = torch._C._functorch.peek_interpreter_stack
_dispatch_modes = torch._C._len_torch_dispatch_stack
_recording = torch.is_grad_enabled

Call = Callable[..., Tensor]
# What a kernel's call costs more than that of PyTorch's op, in ns: its operator, and a Function in Python.
OPERATOR, FUNCTION = 200.0, 6000.0
GRAIN = 16384  # elements for which the kernels wake another thread


class Ways(NamedTuple):
    """What computes a call without autograd, with it, and both of these in place; None where only the long way does."""

    plain: Call | None = None
    recorded: Call | None = None
    inplace: Call | None = None
    inplace_recorded: Call | None = None


NONE = Ways()


def seen() -> bool:
    """Whether somebody looks into calls: a compiler, a torch.func transform, forward-mode AD, a dispatch mode."""
    return is_compiling() or _interpreters() is not None or forward_ad._current_level >= 0 or _dispatch_modes() > 0


def direct(activation: Activation, x: Any, *others: Any) -> Tensor | None:
    """The commonest call, of plain tensors on the CPU at the defaults; None where that is not it, or it fails."""
    # `seen` written out; a mode sees every property that is read, so that it is asked for first
    if type(x) is not Tensor or has_torch_function_unary(x) or is_dynamo_compiling() or _interpreters() is not None:
        return None
    if forward_ad._current_level >= 0 or _dispatch_modes() or not x.is_cpu:
        return None
    recorded = x.requires_grad
    for other in others:
        if type(other) is not Tensor or not other.is_cpu or other.dtype is not x.dtype:
            return None
        recorded = recorded or other.requires_grad
    found = _ways(activation, 1 + len(others), x.dtype, "cpu", ())
    op = found.recorded if recorded and _recording() else found.plain
    try:
        return None if op is None else op(x, *others)
    except (RuntimeError, IndexError, TypeError):
        return None


def way(activation: Activation, inputs: tuple[Any, ...], parameters: dict[str, Any], inplace: bool) -> Call | None:
    if seen():
        return None
    if len(inputs) == 1:
        (x,) = inputs
        if type(x) is not Tensor:
            return None
        device = "cpu" if x.is_cpu else x.device.type
        recorded = x.requires_grad
    elif len(inputs) == 2:
        x, up = inputs
        if type(x) is not Tensor or type(up) is not Tensor or x.dtype is not up.dtype:
            return None
        if not (x.is_cpu and up.is_cpu):
            return None
        device = "cpu"
        recorded = x.requires_grad or up.requires_grad
    else:
        return None
    if parameters and not _numbers(parameters):
        return None
    found = _ways(activation, len(inputs), x.dtype, device, tuple(parameters.items()) if parameters else ())
    if inplace:
        return found.inplace_recorded if recorded and _recording() else found.inplace
    return found.recorded if recorded and _recording() else found.plain


def _numbers(parameters: dict[str, Any]) -> bool:
    """Whether all are numbers that one equal to them may stand for: not True, which is 1, nor −0, which is 0."""
    for value in parameters.values():
        if type(value) is not float and type(value) is not int:
            return False
        if not value and math.copysign(1.0, value) < 0.0:
            return False
    return True


@functools.lru_cache(maxsize=4096)  # a schedule may move a parameter at every step
def _ways(
    activation: Activation, inputs: int, dtype: torch.dtype, device: str, given: tuple[tuple[str, float], ...]
) -> Ways:
    if activation.kind == "normalizer" or inputs != len(activation.inputs) or not dtype.is_floating_point:
        return NONE
    resolved = activation.resolve(dict(given))
    if activation.kind == "elementwise" and activation.expression.op == "symbol":
        return NONE  # the identity
    chosen = choose(activation, dtype, device)
    if chosen.forward == "kernel" and device != "cpu":
        return NONE
    if chosen.forward == "kernel":
        kernels = _kernels(activation, dtype, tuple(resolved.values()), chosen.backward == "kernel")
        if given:
            return kernels
        if activation.kind == "elementwise" and chosen.backward == "kernel":
            kernels = kernels._replace(recorded=_recorded_at_defaults(activation, dtype))
        if not paths.same_bits(activation, dtype):
            return kernels
        natives = _natives(activation, dtype, resolved, True)
        saved = max(paths.speed(activation, dtype, "native") - paths.speed(activation, dtype, "kernel"), 1e-9)
        # Backward saves about the same; but in float32, with nothing to convert, both wait for the memory.
        trained = FUNCTION / (2 * saved) if dtype is not torch.float32 else math.inf
        return kernels._replace(
            plain=_by_size(natives.plain, kernels.plain, OPERATOR / saved),
            recorded=_by_size(natives.recorded, kernels.recorded, trained),
        )
    if chosen.forward == "native" and activation.kind == "elementwise":
        return _natives(activation, dtype, resolved, chosen.backward == "native")
    return NONE


def _by_size(native: Call | None, kernel: Call | None, elements: float) -> Call | None:
    """Of two that give the same bits the one that costs less: the kernel from so many elements on, of one thread."""
    if native is None or kernel is None:
        return kernel
    if elements > GRAIN:  # threads share the work, and with it what the kernel saves
        elements *= torch.get_num_threads()
    return lambda x: native(x) if x.numel() < elements else kernel(x)


def _kernels(activation: Activation, dtype: torch.dtype, values: tuple[float, ...], differentiable: bool) -> Ways:
    kernel, _, _ = _operators(activation)
    elementwise = activation.kind == "elementwise"
    keeps = elementwise and keeps_output(activation, values, dtype)
    recorded = _recorded(activation, keeps)
    inplace = _inplace(activation, values) if elementwise else None
    inplace_recorded = _inplace_recorded(activation, values) if keeps and differentiable else None
    if not values:
        return Ways(kernel, recorded if differentiable else None, inplace, inplace_recorded)
    return Ways(
        lambda *inputs: kernel(*inputs, *values),
        (lambda *inputs: recorded(*inputs, *values)) if differentiable else None,
        inplace,
        inplace_recorded,
    )


def _natives(activation: Activation, dtype: torch.dtype, resolved: dict[str, float], differentiable: bool) -> Ways:
    learns = any(p.learnable for p in activation.parameters.values())  # and wants its parameter as a tensor
    if learns or not all(native.usual(activation, name, value) for name, value in resolved.items()):
        return NONE
    function = native.function(activation)
    given = native.arguments(activation, resolved)
    call = functools.partial(function, **given) if given else function
    inplace = None
    if (writes := native.inplace(activation)) is not None:
        inplace = functools.partial(writes, **given)
    # In place, PyTorch's derivative is made of the output, too, where that has lost its tails: elu's is y + α.
    exact = differentiable and keeps_output(activation, tuple(resolved.values()), dtype)
    return Ways(call, call if differentiable else None, inplace, inplace if exact else None)


@functools.cache
def _recorded(activation: Activation, keeps: bool) -> Call:
    """The kernels under autograd.

    keeps: backward keeps the output in the input's place. A backward that is differentiated again, or that somebody
    looks into, is the composite's.
    """
    forward, _, derivatives = _operators(activation)
    inputs = len(activation.inputs)

    class Kernel(Function):
        @staticmethod
        def forward(ctx: Any, *arguments: Any) -> Tensor:
            y = forward(*arguments)
            if len(arguments) > inputs:
                ctx.values = arguments[inputs:]
                arguments = arguments[:inputs]
            ctx.save_for_backward(*((y,) if keeps else arguments))
            return y

        backward = _backward(activation, derivatives)

    return _applied(Kernel, inputs)


@functools.cache
def _recorded_at_defaults(activation: Activation, dtype: torch.dtype) -> Call:
    """The same of one input at the parameters' defaults, which nothing need carry to backward: 1 µs less."""
    forward, _, derivative = _operators(activation)
    composite, values = activation.composite, tuple(activation.defaults.values())
    keeps = keeps_output(activation, values, dtype)

    class Kernel(Function):
        @staticmethod
        def forward(ctx: Any, x: Tensor) -> Tensor:
            y = forward(x, *values)
            ctx.save_for_backward(y if keeps else x)
            return y

        @staticmethod
        def backward(ctx: Any, grad: Tensor) -> Any:
            (saved,) = ctx.saved_tensors
            if _recording() or type(grad) is not Tensor or seen():
                return composite.gradients_at(grad, (saved, *values), ctx.needs_input_grad)[0]
            return derivative(grad, saved, *values)

    apply, alive = _apply(Kernel), torch._C._functorch.unwrap_if_dead
    return lambda x: apply(alive(x))


@functools.cache
def _recorded_inplace(activation: Activation) -> Call:
    """The same in place: only where the output serves backward, since the input is gone."""
    _, out, derivatives = _operators(activation)

    class InPlace(Function):
        @staticmethod
        def forward(ctx: Any, x: Tensor, *values: float) -> Tensor:
            ctx.mark_dirty(x)
            out(x, *values, out=x)
            ctx.values = values
            ctx.save_for_backward(x)
            return x

        backward = _backward(activation, derivatives)

    return _applied(InPlace, 1)


def _backward(activation: Activation, kernel: Call) -> Any:
    """(grad) -> the gradients of the inputs, and None for each of the numbers."""
    constants = (None,) * len(activation.parameters)
    composite, pair = activation.composite, len(activation.inputs) == 2

    def backward(ctx: Any, grad: Tensor) -> Any:
        saved = ctx.saved_tensors
        if constants:
            saved = (*saved, *ctx.values)
        if seen() or _recording() or type(grad) is not Tensor:
            return composite.gradients_at(grad, saved, ctx.needs_input_grad)
        if pair:
            if not grad.shape == saved[0].shape == saved[1].shape:
                return composite.gradients_at(grad, saved, ctx.needs_input_grad)
            return (*kernel(grad, *saved), *constants)
        return (kernel(grad, *saved), *constants) if constants else kernel(grad, *saved)

    return staticmethod(backward)


def _apply(function: type[Function]) -> Call:
    """Its `apply` less what PyTorch does there about torch.func's transforms, none of which is active: 1.5 µs."""
    return super(Function, function).apply  # type: ignore[misc]


def _applied(function: type[Function], inputs: int) -> Call:
    apply = _apply(function)
    alive = torch._C._functorch.unwrap_if_dead  # a wrapper that outlived its transform is no leaf of its own
    if inputs == 2:
        return lambda gate, up, *values: apply(alive(gate), alive(up), *values)
    return lambda x, *values: apply(alive(x), *values)


def _operators(activation: Activation) -> tuple[Any, Any, Any]:
    """The functions that `torch.ops` calls, as in `cpu`."""
    found = cpu.operators(activation)
    assert found is not None
    forward, out, backward = found
    return forward._op, out._op, backward._op


def _inplace(activation: Activation, values: tuple[float, ...]) -> Call:
    forward, out, _ = _operators(activation)

    def call(x: Tensor) -> Tensor:
        if not x.is_contiguous() or x.is_inference():
            return x.copy_(forward(x, *values))
        out(x, *values, out=x)
        increment_version(x)
        return x

    return call


def _inplace_recorded(activation: Activation, values: tuple[float, ...]) -> Call:
    function = _recorded_inplace(activation)
    forward = _recorded(activation, True)

    def call(x: Tensor) -> Tensor:
        # `copy_` says what is wrong with a leaf, and writes through a view.
        if x.is_leaf or x._is_view() or not x.is_contiguous():
            return x.copy_(forward(x, *values))
        return function(x, *values)

    return call


def plain(x: Tensor) -> bool:
    """Whether it holds numbers that may be looked at: no fake or wrapped tensor, and nobody records what is done."""
    return type(x) in (Tensor, torch.nn.Parameter) and not _dispatch_modes()
