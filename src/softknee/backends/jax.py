"""JAX: any expression as a function with derivatives of every order, under jit, grad, vmap and jvp.

`Composite(expression, names, inputs)` computes straight-line code. JAX never differentiates that code: each derivative
is the same construction on the derived expression, so that a branch which was not taken cannot send NaN back and tails
keep their relative accuracy. XLA flushes subnormal numbers to 0, results too.
"""

from __future__ import annotations

import functools
from collections.abc import Sequence
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jax import lax

from ..errors import InputError
from ..expression import Expr, compile_source, differentiate, emit
from . import numpy as reference
from .floats import FloatTable, unsteady


def _primitive(name: str, function: Any) -> Any:
    # A formula may apply a primitive to a parameter that is a Python float, an exact double.
    exact = getattr(reference.OPS, name)

    def primitive(self: Any, *arguments: Any) -> Any:
        if all(isinstance(a, (bool, int, float)) for a in arguments):
            with np.errstate(all="ignore"):
                return float(exact(*arguments))
        return function(*arguments)

    return primitive


class JaxTable(FloatTable):
    name = "jax"
    pi = np.pi

    exp = _primitive("exp", jnp.exp)
    expm1 = _primitive("expm1", jnp.expm1)
    log = _primitive("log", jnp.log)
    log1p = _primitive("log1p", jnp.log1p)
    sqrt = _primitive("sqrt", jnp.sqrt)
    sin = _primitive("sin", jnp.sin)
    cos = _primitive("cos", jnp.cos)
    atan = _primitive("atan", jnp.arctan)
    tanh = _primitive("tanh", jnp.tanh)
    erf = _primitive("erf", lax.erf)
    erfc = _primitive("erfc", lax.erfc)
    abs = _primitive("abs", jnp.abs)
    sign = _primitive("sign", jnp.sign)
    maximum = _primitive("maximum", jnp.maximum)
    minimum = _primitive("minimum", jnp.minimum)

    def where(self, condition: Any, a: Any, b: Any) -> Any:
        return (a if condition else b) if isinstance(condition, (bool, np.bool_)) else jnp.where(condition, a, b)

    def finite(self, a: Any) -> Any:
        if isinstance(a, float):
            return reference.OPS.finite(a)
        large = float(jnp.finfo(a.dtype).max) / 256
        return jnp.clip(a, -large, large)

    def amax(self, x: Any) -> Any:
        return lax.stop_gradient(jnp.max(x, axis=-1, keepdims=True))

    def total(self, x: Any) -> Any:
        return jnp.sum(x, axis=-1, keepdims=True)

    def descending(self, x: Any) -> Any:
        return -jnp.sort(-x, axis=-1)

    def cumulative(self, x: Any) -> Any:
        return jnp.cumsum(x, axis=-1)

    def grouped(self, x: Any, size: int) -> Any:
        return x.reshape(*x.shape[:-1], x.shape[-1] // size, size)

    def flat(self, x: Any) -> Any:
        return x.reshape(*x.shape[:-2], x.shape[-2] * x.shape[-1])

    def joined(self, a: Any, b: Any) -> Any:
        return jnp.concatenate([a, b], axis=-1)


OPS = JaxTable()


class Composite:
    """A function of `names` (arrays, or Python floats for parameters), computed by straight-line code.

    The result has the promoted dtype of the first `inputs` of them and the broadcast shape; half precision is computed
    in float32 and rounded once. `values`: the parameters that are Python floats, which the code holds as doubles.
    """

    def __init__(
        self,
        expression: Expr,
        names: Sequence[str],
        inputs: int,
        defaults: Sequence[float] = (),
        values: Sequence[tuple[str, float]] = (),
        derived: bool = False,
    ) -> None:
        self.expression = expression
        self.names = tuple(names)
        self.inputs = inputs
        self.defaults = tuple(defaults)
        self.values = dict(values)
        self.derived = derived
        self.arrays = tuple(name for name in names if name not in self.values)
        self.function = jax.custom_jvp(self._compute)
        self.function.defjvp(self._jvp)

    @functools.cached_property
    def _code(self) -> Any:
        inputs, parameters = self.names[: self.inputs], self.names[self.inputs :]
        finite = unsteady(self.expression, inputs, parameters, self.defaults) if self.derived else ()
        return compile_source(emit([self.expression], "forward", self.names, finite), "forward")

    def _compute(self, *arrays: Any) -> Any:
        dtype = jnp.result_type(*arrays[: self.inputs])
        working = jnp.float32 if jnp.finfo(dtype).bits < 32 else dtype
        given = {name: jnp.asarray(a, working) for name, a in zip(self.arrays, arrays, strict=True)}
        result = self._code(OPS, *[(given | self.values)[name] for name in self.names])
        shape = jnp.broadcast_shapes(*[a.shape for a in given.values()])
        return jnp.broadcast_to(jnp.asarray(result, working), shape).astype(dtype)

    def _jvp(self, primals: tuple[Any, ...], tangents: tuple[Any, ...]) -> tuple[Any, Any]:
        value = self.function(*primals)
        moved = jnp.zeros_like(value)
        for name, tangent in zip(self.arrays, tangents, strict=True):
            moved = moved + self._partial(name).function(*primals) * tangent
        return value, moved.astype(value.dtype)

    def _partial(self, name: str) -> Composite:
        if name not in self._partials:
            derived = differentiate(self.expression, name)
            values = tuple(self.values.items())
            self._partials[name] = Composite(derived, self.names, self.inputs, self.defaults, values, True)
        return self._partials[name]

    @functools.cached_property
    def _partials(self) -> dict[str, Composite]:
        return {}


def checked(array: Any, owner: str, name: str) -> Any:
    """`array` as JAX's. Raises InputError for what is not real floating point."""
    try:
        found = jnp.asarray(array)
    except TypeError:
        raise InputError(f"{owner}: {name} must be an array, got {type(array).__name__}") from None
    if not jnp.issubdtype(found.dtype, jnp.floating):
        raise InputError(f"{owner}: {name} must be a real floating-point array, got {found.dtype}")
    return found
