"""PyTorch: the differentiable composite of any expression.

`Composite(expression, names, inputs)` is a function of tensors and floats that has gradients of every order. Eager, it
is a bare `autograd.Function`, whose backward is the same construction on the derived expression; under torch.func and
forward-mode derivatives one with `jvp` and a generated vmap rule; under `torch.compile` a flat one without either,
which Dynamo can follow. Autograd never walks
through the composite's own operations, so a branch that was not taken cannot send NaN back, and only the arguments
are kept for backward. Half precision is computed in float32 and rounded once.
"""

from __future__ import annotations

import functools
import math
from collections.abc import Callable, Mapping, Sequence
from typing import Any

import torch
from torch import Tensor
from torch.autograd.function import once_differentiable

from ..errors import InputError
from ..expression import Expr, compile_source, differentiate, emit, product, symbol
from .floats import FloatTable, unsteady


def _unary(function: Callable[[Tensor], Tensor]) -> Any:
    # A formula may apply a primitive to a parameter that is a Python float, an exact double.
    # Under the compiler the number may be symbolic, which a tensor without dimensions can hold and a float cannot.
    def primitive(self: Any, x: Any) -> Any:
        if isinstance(x, Tensor):
            return function(x)
        value = function(torch.tensor(x, dtype=torch.float64))
        return value if torch.compiler.is_compiling() else value.item()

    return primitive


class TorchTable(FloatTable):
    """The primitives in one working dtype, which decides what a `where` between two bare numbers gives."""

    name = "torch"
    pi = torch.pi

    def __init__(self, dtype: torch.dtype = torch.float64) -> None:
        self.dtype = dtype

    exp = _unary(torch.exp)
    expm1 = _unary(torch.expm1)
    log = _unary(torch.log)
    log1p = _unary(torch.log1p)
    sqrt = _unary(torch.sqrt)
    sin = _unary(torch.sin)
    cos = _unary(torch.cos)
    atan = _unary(torch.atan)
    tanh = _unary(torch.tanh)
    erf = _unary(torch.erf)
    erfc = _unary(torch.erfc)
    erfcx = _unary(torch.special.erfcx)
    abs = _unary(torch.abs)
    sign = _unary(torch.sgn)

    def finite(self, a: Any) -> Any:
        if not isinstance(a, Tensor):
            return a
        large = torch.finfo(a.dtype).max / 256
        return a.clamp(-large, large)

    def maximum(self, a: Any, b: Any) -> Any:
        if not isinstance(b, Tensor):
            return a.clamp(min=b) if isinstance(a, Tensor) else max(a, b)
        return torch.maximum(a, b) if isinstance(a, Tensor) else b.clamp(min=a)

    def minimum(self, a: Any, b: Any) -> Any:
        if not isinstance(b, Tensor):
            return a.clamp(max=b) if isinstance(a, Tensor) else min(a, b)
        return torch.minimum(a, b) if isinstance(a, Tensor) else b.clamp(max=a)

    def where(self, condition: Any, a: Any, b: Any) -> Any:
        if not isinstance(condition, Tensor):
            return a if condition else b
        if not isinstance(a, Tensor) and not isinstance(b, Tensor):
            return torch.full_like(condition, self._held(b), dtype=self.dtype).masked_fill(condition, self._held(a))
        return torch.where(condition, self._held(a), self._held(b))

    def amax(self, x: Any) -> Any:
        # of an empty row there is none, and nothing to shift
        return x.detach().amax(-1, keepdim=True) if x.shape[-1] else x.new_zeros(*x.shape[:-1], 1)

    def total(self, x: Any) -> Any:
        return x.sum(-1, keepdim=True)

    def descending(self, x: Any) -> Any:
        return x.sort(-1, descending=True).values

    def cumulative(self, x: Any) -> Any:
        return x.cumsum(-1)

    def grouped(self, x: Any, size: int) -> Any:
        return x.unflatten(-1, (x.shape[-1] // size, size))

    def flat(self, x: Any) -> Any:
        return x.flatten(-2)

    def joined(self, a: Any, b: Any) -> Any:
        return torch.cat([a, b], -1)

    def _held(self, a: Any) -> Any:
        """A number beyond the dtype's largest is infinite; PyTorch refuses it here."""
        beyond = isinstance(a, float) and abs(a) > torch.finfo(self.dtype).max
        return math.copysign(math.inf, a) if beyond else a


class RowTable(TorchTable):
    """For a definition that runs along the last dimension: other definitions in it are their own composites, so that
    autograd does not walk through their branches."""


OPS = TorchTable()
_ROWS = {dtype: RowTable(dtype) for dtype in (torch.float32, torch.float64)}
_TABLES = {dtype: TorchTable(dtype) for dtype in (torch.float32, torch.float64)}
_HALVES = (torch.float16, torch.bfloat16)


def along(dim: int, body: Callable[..., Tensor], inputs: Sequence[Tensor], parameters: Mapping[str, Any]) -> Tensor:
    """`body(*inputs, ops, **parameters)`, a definition over the last dimension, along `dim`.

    Autograd differentiates it. Half precision is computed in float32 and rounded once. A parameter that is a tensor
    broadcasts with the inputs as they come. The result has the inputs' promoted dtype, and as many dimensions.
    """
    dtype = functools.reduce(torch.promote_types, [x.dtype for x in inputs])
    working = torch.float32 if dtype in _HALVES else dtype
    dimensions = max(x.ndim for x in inputs)

    def last(x: Tensor) -> Tensor:
        wide = x.to(working)
        return wide.reshape(*[1] * (dimensions - x.ndim), *x.shape, *[1] * (not dimensions)).movedim(dim, -1)

    given = {name: last(v) if isinstance(v, Tensor) and v.ndim else v for name, v in parameters.items()}
    result = body(*map(last, inputs), _ROWS[working], **given).movedim(-1, dim).to(dtype)
    return result if dimensions else result.squeeze(0)


class Composite:
    """A function of `names` (tensors, or floats for parameters), computed by straight-line code.

    The result has the promoted dtype of the first `inputs` of them and the broadcast shape. Arguments are positional,
    in the order of `names`. defaults: of the names after the inputs. derived: the expression is a derivative, whose
    code must be right at ±∞ too.
    """

    def __init__(
        self, expression: Expr, names: Sequence[str], inputs: int, defaults: Sequence[float] = (), derived: bool = False
    ) -> None:
        self.expression = expression
        self.names = tuple(names)
        self.inputs = inputs
        self.defaults = tuple(defaults)
        self.derived = derived
        self._code: Callable[..., Any] | None = None
        self._flat: type[torch.autograd.Function] | None = None
        # A faster way to the same values, put here by `kernels`; it answers None to what it cannot do.
        self.kernel: Callable[..., Tensor | None] | None = None
        # The same for the gradients of inputs, and then of parameters that are tensors, all in one pass:
        # (grad, *arguments) -> those of the inputs, or of all arguments.
        self.gradients: Callable[..., tuple[Tensor | None, ...] | None] | None = None

    def __call__(self, *arguments: Tensor | float) -> Tensor:
        wanted = torch.is_grad_enabled() and any(isinstance(a, Tensor) and a.requires_grad for a in arguments)
        if torch.compiler.is_compiling():
            return self.flat.apply(*arguments) if wanted else self.evaluate(*arguments)
        if transformed():
            return self._transformable.apply(*arguments)
        return self._recorded.apply(*arguments) if wanted else self.evaluate(*arguments)

    def evaluate(self, *arguments: Tensor | float) -> Tensor:
        """The value alone, without autograd."""
        if not torch.compiler.is_compiling() and self.kernel is not None and not transformed():
            fast = self.kernel(*arguments)
            if fast is not None:
                return fast
        return self.compute(*arguments)

    def compute(self, *arguments: Tensor | float) -> Tensor:
        """The value by the composite's own code; half precision in float32, rounded once."""
        tensors = [a for a in arguments if isinstance(a, Tensor)]
        dtype = tensors[0].dtype
        if len(tensors) > 1:
            dtype = functools.reduce(
                torch.promote_types, [a.dtype for a in arguments[: self.inputs] if isinstance(a, Tensor)]
            )
        working = torch.float32 if dtype in _HALVES else dtype
        if working not in _TABLES:
            raise InputError(f"an activation needs a floating-point tensor, got {str(dtype).removeprefix('torch.')}")
        if torch.compiler.is_compiling() or self._code is None:
            self._make_code()
        assert self._code is not None
        cast = [a.to(working) if isinstance(a, Tensor) else a for a in arguments]
        result = self._code(_TABLES[working], *cast)
        shape = tensors[0].shape if len(tensors) == 1 else torch.broadcast_shapes(*[a.shape for a in tensors])
        if not isinstance(result, Tensor):
            like = next(a for a in cast if isinstance(a, Tensor))
            result = torch.full_like(like, result).expand(shape).clone()
        elif result.shape != shape:
            result = result.expand(shape).clone()
        elif any(result is a for a in arguments):
            result = result.clone()
        return result.to(dtype)

    @functools.cached_property
    def _recorded(self) -> type[torch.autograd.Function]:
        """For plain autograd: without `setup_context`, which makes PyTorch inspect a signature at every call, 8 µs."""
        composite = self

        class Recorded(torch.autograd.Function):
            @staticmethod
            def forward(ctx: Any, *arguments: Any) -> Tensor:
                _keep(ctx, arguments)
                return composite.evaluate(*arguments)

            @staticmethod
            def backward(ctx: Any, grad: Tensor) -> tuple[Any, ...]:
                return composite.gradients_at(grad, _kept(ctx), ctx.needs_input_grad)

        return Recorded

    @functools.cached_property
    def _transformable(self) -> type[torch.autograd.Function]:
        """For torch.func's transforms and forward-mode derivatives."""
        composite = self

        class Transformable(torch.autograd.Function):
            generate_vmap_rule = True

            @staticmethod
            def forward(*arguments: Any) -> Tensor:
                return composite.evaluate(*arguments)

            @staticmethod
            def setup_context(ctx: Any, inputs: tuple[Any, ...], output: Any) -> None:
                _keep(ctx, inputs)
                ctx.save_for_forward(*(a for a in inputs if isinstance(a, Tensor)))

            @staticmethod
            def backward(ctx: Any, grad: Tensor) -> tuple[Any, ...]:
                return composite.gradients_at(grad, _kept(ctx), ctx.needs_input_grad)

            @staticmethod
            def jvp(ctx: Any, *tangents: Any) -> Tensor:
                arguments = _kept(ctx)
                moved = [i for i, t in enumerate(tangents) if isinstance(t, Tensor)]
                parts = [composite.derivatives[i](tangents[i], *arguments) for i in moved]
                return functools.reduce(torch.add, parts)

        return Transformable

    def gradients_at(self, grad: Tensor, arguments: Sequence[Any], needed: Sequence[bool]) -> tuple[Any, ...]:
        """`grad` times the derivative with respect to each argument, differentiable again; None where not needed."""
        if self.gradients is not None and not torch.is_grad_enabled() and not transformed():
            fast = self.gradients(grad, *arguments)
            if fast is not None:
                return *fast, *[None] * (len(arguments) - len(fast))
        return tuple(
            _reduced(self.derivatives[i], grad, arguments, i) if wanted else None for i, wanted in enumerate(needed)
        )

    @property
    def flat(self) -> type[torch.autograd.Function]:
        """The Function that Dynamo traces: no jvp, a backward that is not differentiated again."""
        self._make_flat()
        assert self._flat is not None
        return self._flat

    # Code is made at first use. Dynamo cannot trace how, but it runs what is marked as constant.
    def _make_code(self) -> None:
        if self._code is None:
            inputs, values = self.names[: self.inputs], self.defaults
            finite = unsteady(self.expression, inputs, self.names[self.inputs :], values) if self.derived else ()
            self._code = compile_source(emit([self.expression], "forward", self.names, finite), "forward")

    def _make_flat(self) -> None:
        if self._flat is None:
            for part in self.derivatives:
                part._make_code()
            self._flat = _flat_function(self, [_plain(part) for part in self.derivatives])

    for _made in (_make_code, _make_flat):
        _made._dynamo_marked_constant = True  # type: ignore[attr-defined]

    @functools.cached_property
    def derivatives(self) -> list[Composite]:
        # The cotangent is part of the expression: the product is rounded once, and its tail is safe.
        name = f"_grad{len(self.names)}"  # a backward of a backward has one more
        partials = [product(symbol(name), differentiate(self.expression, n)) for n in self.names]
        return [Composite(part, (name, *self.names), 1 + self.inputs, self.defaults, True) for part in partials]


def _plain(partial: Composite) -> Callable[..., Tensor]:
    code = partial._code
    assert code is not None

    def run(grad: Tensor, *arguments: Any) -> Tensor:
        working = torch.float64 if grad.dtype == torch.float64 else torch.float32
        cast = [a.to(working) if isinstance(a, Tensor) else a for a in (grad, *arguments)]
        result = code(_TABLES[working], *cast)
        return result if isinstance(result, Tensor) else torch.full_like(cast[0], result)

    return run


def _flat_function(composite: Composite, partials: list[Callable[..., Tensor]]) -> type[torch.autograd.Function]:
    class Flat(torch.autograd.Function):
        @staticmethod
        def forward(ctx: Any, *arguments: Any) -> Tensor:
            _keep(ctx, arguments)
            return composite.evaluate(*arguments)

        @staticmethod
        @once_differentiable
        def backward(ctx: Any, grad: Tensor) -> tuple[Any, ...]:
            arguments = _kept(ctx)
            return tuple(
                _sum_to(partials[i](grad, *arguments), arguments[i]) if needed else None
                for i, needed in enumerate(ctx.needs_input_grad)
            )

    return Flat


def _keep(ctx: Any, arguments: tuple[Any, ...]) -> None:
    ctx.save_for_backward(*(a for a in arguments if isinstance(a, Tensor)))
    ctx.floats = tuple(None if isinstance(a, Tensor) else a for a in arguments)


def _kept(ctx: Any) -> list[Any]:
    tensors = iter(ctx.saved_tensors)
    return [next(tensors) if a is None else a for a in ctx.floats]


def _sum_to(grad: Tensor, argument: Tensor) -> Tensor:
    return grad.sum_to_size(argument.shape).to(argument.dtype)


def _reduced(partial: Composite, grad: Tensor, arguments: Sequence[Any], index: int) -> Tensor:
    argument = arguments[index]
    if argument.shape == grad.shape and argument.dtype == grad.dtype:
        return partial(grad, *arguments)
    # A parameter's gradient is a sum over many elements: keep its terms in the working dtype.
    wide = torch.float32 if grad.dtype in _HALVES else grad.dtype
    return _sum_to(partial(grad.to(wide), *[a.to(wide) if isinstance(a, Tensor) else a for a in arguments]), argument)


def transformed() -> bool:
    """Whether a torch.func transform (vmap, grad, jvp) or forward-mode AD is active."""
    return torch._C._functorch.peek_interpreter_stack() is not None or torch.autograd.forward_ad._current_level >= 0
