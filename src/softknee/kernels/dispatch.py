"""The one door through which every activation of tensors goes: checks the arguments and takes the path.

`paths.py` says which there are and when each is taken; `short.py` has the common calls' bound. The call is visible to
`__torch_function__` as a call of the `Activation` itself.
"""

from __future__ import annotations

import functools
from typing import Any

import torch
from torch import Tensor
from torch.compiler import is_compiling
from torch.overrides import handle_torch_function, has_torch_function

from ..backends.torch import transformed
from ..catalog import Activation
from ..errors import InputError
from . import cpu, gpu, native, normalizers, tables
from .paths import Path, choose, learned, uncompiled
from .short import plain, way


def call(activation: Activation, *inputs: Tensor, inplace: bool = False, **parameters: Any) -> Tensor:
    """`activation(*inputs)`; with `inplace`, written into the first input, as PyTorch's `inplace=True` does.

    A normalizer takes `dim` (and `dtype`, to which the input is converted first) among its parameters, a stochastic
    activation `generator`, an elementwise one of them `training`. A 1-D tensor for a parameter that modules learn
    (PReLU's weight) is one value per channel, dimension 1.
    Raises InputError for a wrong number of inputs, a dtype that is not real floating point, a wrong parameter.
    """
    if has_torch_function(inputs):
        return handle_torch_function(activation, inputs, *inputs, inplace=inplace, **parameters)
    if inplace is not False and inplace is not True:
        raise InputError(f"{activation.name}: inplace must be True or False, got {inplace!r}")
    if (short := way(activation, inputs, parameters, inplace)) is not None:
        try:
            return short(*inputs)
        except (RuntimeError, IndexError, TypeError) as error:
            raise _refusal(activation, inputs, parameters) or error from None
    if activation.kind == "normalizer" and len(parameters) == len(inputs) == 1 and not inplace:
        # The same for a normalizer, whose commonest call has its dim alone: 4 µs less of 11.
        x, dim = inputs[0], parameters.get("dim")
        if type(dim) is int and not is_compiling() and _fused(activation, x, dim, activation.defaults):
            return normalizers.apply(activation, x, dim, **activation.defaults)
    _counted(activation, inputs)
    if inplace and activation.kind != "elementwise":
        raise InputError(f"{activation.name} is {activation.kind} and does not work in place")
    if inplace:
        # The copy keeps what backward needs, which this call is about to overwrite.
        leaves = (inputs[0], *parameters.values())
        recorded = torch.is_grad_enabled() and any(isinstance(v, Tensor) and v.requires_grad for v in leaves)
        x = inputs[0].clone() if recorded else inputs[0]
        return inputs[0].copy_(_explained(activation, (x,), parameters))
    return _explained(activation, inputs, parameters)


def path(activation: Activation, *inputs: Tensor, **parameters: Any) -> Path:
    """The path that `activation(*inputs, **parameters)` takes, and why. Raises as the call does."""
    _counted(activation, inputs)
    x = inputs[0]
    if activation.kind == "elementwise" and not (x.is_floating_point() or x.is_complex()):
        _of_integers(activation, x.new_zeros(1), parameters)
        return Path("native", "native", "PyTorch's op says what integers give")
    _check(activation, inputs)
    if (refusal := _refusal(activation, inputs, parameters)) is not None:
        raise refusal
    dim = parameters.get("dim")
    parameters = dict(parameters)
    training = parameters.pop("training", False) if activation.stochastic else False
    for word in ("dim", "dtype") if activation.kind == "normalizer" else ("inplace",):
        parameters.pop(word, None)
    if activation.stochastic:
        parameters.pop("generator", None)
    resolved = settled(activation, x, parameters)
    if activation.kind == "elementwise" and activation.expression.op == "symbol":
        return Path("native", "native", "the identity returns its input")
    looked_into = is_compiling() or transformed()
    chosen = _chosen(activation, x.dtype, x.device.type, looked_into)
    if activation.kind == "normalizer":
        fused = not looked_into and _fused(activation, x, activation.dim if dim is None else dim, resolved)
        return chosen if fused else uncompiled(activation, x.dtype, x.device.type)
    if looked_into:
        natively = chosen.forward == chosen.backward == "native" and not transformed()
        return (
            chosen if natively else Path("composite", "composite", "a compiler or torch.func transform looks into it")
        )
    if training:
        return Path("composite", "composite", "it draws its own noise")
    if _takes_tensors(activation, x, [*resolved.values()]):
        found = learned(activation, x.dtype, x.device.type)
        assert found is not None
        return found
    if chosen.forward == "native" and native.takes(activation, x, resolved):
        return chosen
    if tensors := [name for name, value in resolved.items() if isinstance(value, Tensor)]:
        return Path("composite", "composite", f"{tensors[0]} is a tensor, whose gradient the composite has")
    if chosen.forward == "native":
        return Path("composite", "composite", "a parameter is far from 1, where PyTorch's op is not measured")
    return chosen


def _explained(activation: Activation, inputs: tuple[Tensor, ...], parameters: dict[str, Any]) -> Tensor:
    try:
        return _out_of_place(activation, inputs, parameters)
    except (RuntimeError, IndexError, TypeError) as error:
        raise _refusal(activation, inputs, parameters) or error from None


def _refusal(activation: Activation, inputs: tuple[Tensor, ...], parameters: dict[str, Any]) -> InputError | None:
    """What PyTorch refused, in the words of the call: a layout, an option, shapes that do not broadcast. Looked into
    only once something failed, so that a call that is right pays nothing for it."""
    name, x = activation.name, inputs[0]
    for word, v in zip(activation.inputs, inputs, strict=True):
        if v.layout is not torch.strided or v.is_nested:
            layout = "nested" if v.is_nested else str(v.layout).removeprefix("torch.")
            mend = (
                "to_dense()" if not v.is_nested else "values()" if v.layout is torch.jagged else "to_padded_tensor(…)"
            )
            return InputError(f"{name}: {word} must be a dense tensor, got one of layout {layout}; pass its {mend}")
    for option, kind, right in (("dtype", torch.dtype, "a torch.dtype"), ("generator", torch.Generator, "a generator")):
        value = parameters.get(option)
        if value is not None and not isinstance(value, kind):
            return InputError(f"{name}: {option} must be {right}, got {value!r}")
    if activation.kind == "normalizer":
        dim, limit = parameters.get("dim", activation.dim), max(x.ndim, 1)
        if not isinstance(dim, int) or not -limit <= dim < limit:
            return InputError(
                f"{name}: dim={dim!r} does not fit an input of shape {tuple(x.shape)}; it must be a whole number "
                f"from {-limit} to {limit - 1}"
            )
    given = list(zip(activation.inputs, inputs, strict=True))
    given += [(p, _channelled(activation, p, v, x)) for p, v in parameters.items() if isinstance(v, Tensor)]
    for i, (word, v) in enumerate(given):
        for other, w in given[:i]:
            try:
                torch.broadcast_shapes(v.shape, w.shape)
            except RuntimeError:
                return InputError(
                    f"{name}: {other} of shape {tuple(w.shape)} and {word} of shape {tuple(v.shape)} do not broadcast"
                )
    return None


def _out_of_place(activation: Activation, inputs: tuple[Tensor, ...], parameters: dict[str, Any]) -> Tensor:
    if activation.kind == "normalizer":
        return _normalize(activation, inputs, **parameters)
    x = inputs[0]
    if activation.kind == "elementwise" and not (x.is_floating_point() or x.is_complex()):
        return _of_integers(activation, x, parameters)
    _check(activation, inputs)
    if activation.stochastic:
        return _sampled(activation, x, **parameters)
    resolved = activation.resolve(parameters) if parameters else activation.defaults
    if activation.composite.expression.op == "symbol":
        return x  # the identity
    return _computed(activation, inputs, resolved)


def _computed(activation: Activation, inputs: tuple[Tensor, ...], resolved: dict[str, Any]) -> Tensor:
    x, compiling = inputs[0], is_compiling()
    values = [_channelled(activation, name, value, x) for name, value in resolved.items()]
    if activation.torch is not None and activation.kind == "elementwise":
        chosen = _chosen(activation, x.dtype, x.device.type, compiling)
        natively = chosen.forward == "native" and native.takes(activation, x, resolved)
        if natively and (compiling or not _takes_tensors(activation, x, values)):
            # A transform may ask for rules that PyTorch's op lacks. Where autograd records nothing, the forward
            # alone counts.
            recorded = torch.is_grad_enabled() and x.requires_grad
            if (chosen.backward == "native" or not (recorded or compiling)) and not transformed():
                return native.call(activation, x, resolved)
    composite = activation.composite
    if not compiling and composite.kernel is None:
        attach(activation)
    return composite(*inputs, *values)


def attach(activation: Activation) -> None:
    """Puts the faster ways of computing f and f′ under the activation's composite."""
    if activation.kind == "elementwise":
        activation.composite.derivatives[0].kernel = functools.partial(_derivative, activation)
        if any(p.learnable for p in activation.parameters.values()):
            activation.composite.gradients = functools.partial(_learned_gradients, activation)
        activation.composite.kernel = functools.partial(_forward, activation)
    else:
        activation.composite.gradients = functools.partial(_gated_gradients, activation)
        activation.composite.kernel = functools.partial(_gated, activation)


def _chosen(activation: Activation, dtype: torch.dtype, device: str, looked_into: bool) -> Path:
    """The path; what a compiler or a transform looks into has no kernels."""
    return (uncompiled if looked_into else choose)(activation, dtype, device)


_chosen._dynamo_marked_constant = True  # type: ignore[attr-defined]  # Dynamo runs it, and does not follow the cache


def _gated(activation: Activation, gate: Tensor, up: Tensor, *values: Any) -> Tensor | None:
    if plain(gate) and choose(activation, gate.dtype, gate.device.type).forward == "kernel":
        return (cpu if gate.is_cpu else gpu).forward(activation, gate, up, *values)
    return None


def _gated_gradients(
    activation: Activation, grad: Tensor, gate: Tensor, up: Tensor, *values: Any
) -> tuple[Tensor, ...] | None:
    same = grad.shape == gate.shape == up.shape
    if same and plain(gate) and choose(activation, gate.dtype, gate.device.type).backward == "kernel":
        return (cpu if gate.is_cpu else gpu).derivatives(activation, grad, gate, up, *values)
    return None


def _takes_tensors(activation: Activation, x: Tensor, values: list[Any]) -> bool:
    """Whether some parameter is a tensor, and the kernels serve it."""
    tensors = [value for value in values if isinstance(value, Tensor)]
    if not tensors or learned(activation, x.dtype, x.device.type) is None:
        return False
    return all(map(plain, (x, *tensors))) and cpu.takes_tensors(activation, x, *values)


def _learned_gradients(
    activation: Activation, grad: Tensor, x: Tensor, *values: Any
) -> tuple[Tensor | None, ...] | None:
    """Of the input and of the parameters that are tensors."""
    tensors = [value for value in values if isinstance(value, Tensor)]
    if not tensors or not all(map(plain, (grad, x, *tensors))) or not learned(activation, x.dtype, x.device.type):
        return None
    return cpu.gradients(activation, grad, x, *values)


def _forward(activation: Activation, x: Tensor, *values: Any) -> Tensor | None:
    tensors = [value for value in values if isinstance(value, Tensor)]
    if not all(map(plain, (x, *tensors))):
        return None
    if tensors:
        return cpu.learned(activation, x, *values) if learned(activation, x.dtype, x.device.type) else None
    chosen = choose(activation, x.dtype, x.device.type)
    if chosen.forward == "kernel":
        return (cpu if x.is_cpu else gpu).forward(activation, x, *values)
    if chosen.forward == "table":
        return tabled(activation, x, values)
    resolved = dict(zip(activation.parameters, values, strict=True))
    if chosen.forward == "native" and native.takes(activation, x, resolved):
        with torch.no_grad():
            return native.call(activation, x, resolved)
    return None


def _derivative(activation: Activation, grad: Tensor, x: Tensor, *values: Any) -> Tensor | None:
    """grad·f′(x)"""
    if not plain(x):
        return None
    if choose(activation, x.dtype, x.device.type).backward == "kernel" and grad.shape == x.shape:
        found = (cpu if x.is_cpu else gpu).derivatives(activation, grad, x, *values)
        if found is not None:
            return found[0]
    half = x.dtype in tables.HALVES and x.device.type == "cpu" and grad.dtype == x.dtype
    if not half or grad.shape != x.shape or any(isinstance(value, Tensor) for value in values):
        return None
    return (grad.float() * tabled_slope(activation, x, values)).to(x.dtype)


def tabled(activation: Activation, x: Tensor, values: tuple[float, ...]) -> Tensor:
    """f by table: half precision, `values` the parameters."""
    return tables.apply((activation, 0, values), lambda wide: activation.composite.compute(wide, *values), x)


def tabled_slope(activation: Activation, x: Tensor, values: tuple[float, ...]) -> Tensor:
    """f′ by table, in float32: it is rounded once more, after its product with the gradient."""
    partial = activation.composite.derivatives[0]

    def exact(wide: Tensor) -> Tensor:
        return partial.compute(torch.ones_like(wide), wide, *values)

    return tables.apply((activation, 1, values), exact, x, torch.float32)


def _of_integers(activation: Activation, x: Tensor, parameters: dict[str, Any]) -> Tensor:
    """What PyTorch does with integers and booleans: some functions keep them, some convert, most refuse."""
    resolved = activation.resolve(parameters)
    if activation.expression.op == "symbol":
        return x
    try:
        if activation.torch is not None:
            return native.call(activation, x, resolved)
    except (RuntimeError, NotImplementedError):
        pass
    _check(activation, (x,))
    raise AssertionError("unreachable")


def _sampled(
    activation: Activation,
    x: Tensor,
    training: bool = False,
    generator: torch.Generator | None = None,
    **parameters: Any,
) -> Tensor:
    if not isinstance(training, bool):
        raise InputError(f"{activation.name}: training must be True or False, got {training!r}")
    resolved = activation.resolve(parameters)
    if not training:
        return _computed(activation, (x,), resolved)
    values = [_channelled(activation, name, resolved[name], x) for name in activation.parameters]
    return activation.sampled(x, noise_like(x, generator, activation.noise), *values)


def noise_like(x: Tensor, generator: torch.Generator | None = None, kind: str = "noise") -> Tensor:
    """Numbers uniform on (0, 1), or normal deviates, one per element of `x`; float64 for float64, else float32.

    Without a generator they come from PyTorch's, whose state activation checkpointing restores.
    """
    dtype = torch.float64 if x.dtype == torch.float64 else torch.float32
    # passed only where given: no graph of symbolic shapes takes the argument
    given: dict[str, Any] = {} if generator is None else {"generator": generator}
    if kind == "deviate":
        return torch.randn(x.shape, dtype=dtype, device=x.device, **given)
    noise = torch.rand(x.shape, dtype=dtype, device=x.device, **given)
    # rand includes 0, where a logarithm is infinite: half its grid's step instead
    return noise.clamp(min=2.0**-54 if dtype == torch.float64 else 2.0**-25)


def _counted(activation: Activation, inputs: tuple[Any, ...]) -> None:
    if len(inputs) != len(activation.inputs) or not all(isinstance(x, Tensor) for x in inputs):
        given = ", ".join(type(x).__name__ for x in inputs) or "nothing"
        raise InputError(f"{activation.name} takes {' and '.join(activation.inputs)} as tensors, got {given}")


def _check(activation: Activation, inputs: tuple[Tensor, ...]) -> None:
    for name, x in zip(activation.inputs, inputs, strict=True):
        if not x.is_floating_point() or x.dtype.itemsize < 2:
            right = "have 16 bits an element or more" if x.is_floating_point() else "be a real floating-point tensor"
            dtype = str(x.dtype).removeprefix("torch.")
            raise InputError(f"{activation.name}: {name} must {right}, got {dtype}")


def settled(activation: Activation, x: Tensor, parameters: dict[str, Any]) -> dict[str, Any]:
    """All parameters, checked, as they broadcast with `x`."""
    resolved = activation.resolve(parameters)
    return {name: _channelled(activation, name, value, x) for name, value in resolved.items()}


def _channelled(activation: Activation, name: str, value: Any, x: Tensor) -> Any:
    if not isinstance(value, Tensor) or not value.ndim:
        return value
    if value.ndim == 1 and activation.parameters[name].learnable:
        return per_channel(activation, name, value, x)
    try:
        torch.broadcast_shapes(value.shape, x.shape)
    except RuntimeError:
        raise InputError(
            f"{activation.name}: {name} of shape {tuple(value.shape)} does not broadcast with the input's "
            f"{tuple(x.shape)}"
        ) from None
    return value


def per_channel(activation: Activation, name: str, value: Tensor, x: Tensor) -> Tensor:
    """A 1-D parameter as it broadcasts with `x`: one value for all, or one per channel.

    The channels are dimension 1, as for `torch.nn.functional.prelu`, or the only dimension there is.
    Raises InputError where their numbers differ.
    """
    if value.numel() == 1:
        return value if x.ndim else value.squeeze(0)
    at = 1 if x.ndim > 1 else 0
    if x.ndim == 0 or x.size(at) != value.numel():
        raise InputError(
            f"{activation.name}: {name} has {value.numel()} channels, but the input of shape {tuple(x.shape)} has "
            f"{x.size(at) if x.ndim else 'no'} in dimension {at}"
        )
    after = x.ndim - 1 - at
    return value.view(-1, *[1] * after) if after else value  # autograd goes back through a view too


def _normalize(
    activation: Activation,
    inputs: tuple[Tensor, ...],
    dim: int | None = None,
    dtype: torch.dtype | None = None,
    generator: torch.Generator | None = None,
    **parameters: Any,
) -> Tensor:
    if isinstance(dim, bool):  # an int to Python
        raise InputError(f"{activation.name}: dim must be a whole number, got {dim}")
    dim = activation.dim if dim is None else dim
    if dim is None:
        raise InputError(
            f"{activation.name} needs dim, the dimension along which it works; for class scores it is dim=-1"
        )
    inputs = inputs if dtype is None else tuple(x.to(dtype) for x in inputs)
    _check(activation, inputs)
    x = inputs[0]
    resolved = settled(activation, x, parameters)
    if activation.stochastic:
        return activation.along(dim, *inputs, noise_like(x, generator, activation.noise), **resolved)
    if not torch.compiler.is_compiling() and _fused(activation, x, dim, resolved):
        return normalizers.apply(activation, x, dim, **resolved)
    return activation.along(dim, *inputs, **resolved)


def _fused(activation: Activation, x: Tensor, dim: int | None, resolved: dict[str, Any]) -> bool:
    """Whether a kernel does all of it."""
    if transformed() or not plain(x) or choose(activation, x.dtype, x.device.type).forward != "kernel":
        return False
    return normalizers.takes(x, dim, **resolved)
