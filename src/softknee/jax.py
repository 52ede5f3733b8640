"""Every activation in JAX: `softknee.jax.gelu_tanh(x)`, `softknee.jax.swiglu(gate, up)`, `softknee.jax.softmax(x)`.

Made from the same definitions: values, and derivatives of every order, in JAX's transforms. A user's own activation:
`softknee.jax.function(mine)(x)`. Needs JAX: pip install 'softknee[jax]'.
"""

from __future__ import annotations

import functools
from collections.abc import Callable
from typing import TYPE_CHECKING, Any

from .catalog import Activation, activations, get
from .errors import InputError

if TYPE_CHECKING:
    from .backends.jax import Composite


@functools.cache
def function(activation: Activation | str) -> Callable[..., Any]:
    """The activation as a function of JAX arrays.

    Elementwise ones take x, gated ones gate and up, which broadcast; parameters by name, as Python floats (exact
    doubles) or arrays that are differentiated; a normalizer `axis`, −1 unless given. A stochastic one has its noise at
    its mean, as in evaluation. The result has the inputs' dtype; float16 and bfloat16 are computed in float32.
    Raises InputError for a wrong number of inputs, a dtype that is not real floating point, and as `activation` does
    for its parameters; where JAX is not installed.
    """
    activation = get(activation)
    _backend()
    made = _normalizer(activation) if activation.kind == "normalizer" else _pointwise(activation)
    made.__name__ = made.__qualname__ = activation.name
    made.__doc__ = f"{activation.summary}\n\nSource: {activation.source}"
    return made


def _pointwise(activation: Activation) -> Callable[..., Any]:
    from .backends.jax import checked

    def apply(*inputs: Any, **parameters: Any) -> Any:
        if len(inputs) != len(activation.inputs):
            raise InputError(f"{activation.name} takes {' and '.join(activation.inputs)}, got {len(inputs)} inputs")
        arrays = [checked(x, activation.name, word) for x, word in zip(inputs, activation.inputs, strict=True)]
        floats, given = _split(activation, parameters)
        return _composite(activation, tuple(floats.items())).function(*arrays, *given.values())

    return apply


def _normalizer(activation: Activation) -> Callable[..., Any]:
    import jax.numpy as jnp

    from .backends.jax import OPS, checked

    count = len(activation.inputs)

    def apply(*arguments: Any, axis: int = -1, **parameters: Any) -> Any:
        given, (axis, *more) = arguments[:count], (*arguments[count:], axis)
        if len(given) < count or len(more) > 1:
            raise InputError(f"{activation.name} takes {' and '.join(activation.inputs)}, got {len(arguments)} inputs")
        arrays = [checked(x, activation.name, word) for x, word in zip(given, activation.inputs, strict=True)]
        x = arrays[0]
        if isinstance(axis, bool) or not isinstance(axis, int) or not -max(x.ndim, 1) <= axis < max(x.ndim, 1):
            raise InputError(f"{activation.name}: axis={axis!r} does not fit an input of shape {x.shape}")
        floats, learned = _split(activation, parameters)
        dtype = jnp.result_type(*arrays)
        wide = jnp.float32 if jnp.finfo(dtype).bits < 32 else dtype
        last = [jnp.moveaxis(jnp.atleast_1d(a.astype(wide)), axis, -1) for a in arrays]
        result = jnp.moveaxis(activation.on(OPS, *last, **floats, **learned), -1, axis).astype(dtype)
        return result if x.ndim or result.size > 1 else result.reshape(())

    return apply


def _split(activation: Activation, parameters: dict[str, Any]) -> tuple[dict[str, float], dict[str, Any]]:
    """The parameters that are numbers, checked, and those that are arrays, in order."""
    from .backends.jax import checked

    floats = {name: v for name, v in parameters.items() if isinstance(v, (bool, int, float))}
    resolved = activation.resolve(floats)
    given = {name: checked(v, activation.name, name) for name, v in parameters.items() if name not in floats}
    if unknown := set(given) - set(resolved):
        activation.resolve(dict.fromkeys(unknown, 0.0))  # raises
    return (
        {name: value for name, value in resolved.items() if name not in given},
        {name: given[name] for name in resolved if name in given},
    )


@functools.lru_cache(maxsize=1024)
def _composite(activation: Activation, floats: tuple[tuple[str, float], ...]) -> Composite:
    from .backends.jax import Composite

    defaults = tuple(activation.defaults.values())
    return Composite(activation.expression, activation.names, len(activation.inputs), defaults, floats)


def _backend() -> None:
    try:
        import jax  # noqa: F401
    except ModuleNotFoundError as error:
        raise InputError("softknee.jax needs jax: pip install 'softknee[jax]'") from error


def __dir__() -> list[str]:
    return ["function", *(a.name for a in activations())]


def __getattr__(name: str) -> Callable[..., Any]:
    if not name.startswith("_"):
        for activation in activations():
            if name in (activation.name, *activation.aliases):
                return function(activation)
    raise AttributeError(f"module 'softknee.jax' has no attribute {name!r}")
