"""A plain function as a function of tensors: of torch, NumPy or JAX arrays, or of one number (`math.tanh`)."""

from __future__ import annotations

import inspect
import math
import sys
import warnings
from collections.abc import Callable
from contextlib import AbstractContextManager, nullcontext
from typing import Any

import numpy as np
import torch


def on_tensors(function: Callable[..., Any]) -> Callable[..., torch.Tensor]:
    """`function`, which is given tensors first, then NumPy arrays, then one number at a time, until it takes them.

    JAX functions are run in 64 bits. What none of these suits raises what it raised for the first.
    """
    ways = [_tensors, _arrays, _numbers]
    if isinstance(function, np.ufunc):
        ways = [_arrays]

    def apply(*inputs: torch.Tensor) -> torch.Tensor:
        failure: Exception | None = None
        for way in list(ways):
            try:
                with warnings.catch_warnings():
                    warnings.simplefilter("ignore", DeprecationWarning)  # NumPy's, of being given tensors
                    result = way(function, inputs)
            except Exception as error:  # whatever the function raises
                failure = failure or error
                continue
            ways[:] = [way]
            return result
        assert failure is not None
        raise failure

    return apply


def arity(function: Callable[..., Any]) -> int:
    """How many arguments the function must be given, 1 where it cannot be told."""
    if isinstance(function, np.ufunc):
        return function.nin
    try:
        parameters = inspect.signature(function).parameters.values()
    except (TypeError, ValueError):  # a builtin
        return 1
    kinds = (inspect.Parameter.POSITIONAL_ONLY, inspect.Parameter.POSITIONAL_OR_KEYWORD)
    return max(1, sum(p.kind in kinds and p.default is p.empty for p in parameters))


def _tensors(function: Callable[..., Any], inputs: tuple[torch.Tensor, ...]) -> torch.Tensor:
    return _tensor(function(*inputs))


def _arrays(function: Callable[..., Any], inputs: tuple[torch.Tensor, ...]) -> torch.Tensor:
    with np.errstate(all="ignore"), _in_64_bits():
        return _tensor(function(*(x.numpy().copy() for x in inputs)))


def _numbers(function: Callable[..., Any], inputs: tuple[torch.Tensor, ...]) -> torch.Tensor:
    def at(*numbers: float) -> float:
        try:
            return float(function(*numbers))
        except OverflowError:
            return math.inf
        except (ArithmeticError, ValueError) as error:  # of the math module, outside a function's domain
            if isinstance(error, ZeroDivisionError) or "math" in str(error) or "expected a" in str(error):
                return math.nan
            raise

    values = [at(*numbers) for numbers in zip(*(x.flatten().tolist() for x in inputs), strict=True)]
    return torch.tensor(values, dtype=inputs[0].dtype).reshape(inputs[0].shape)


def _tensor(result: Any) -> Any:
    """A NumPy or JAX array as a tensor, anything else as it is."""
    if isinstance(result, torch.Tensor) or not hasattr(result, "__array__"):
        return result
    array = np.asarray(result)
    if array.dtype.name == "bfloat16":  # JAX's, which torch does not take from NumPy
        return torch.from_numpy(array.astype(np.float32)).bfloat16()
    return torch.from_numpy(np.array(array))


def _in_64_bits() -> AbstractContextManager[Any]:
    jax = sys.modules.get("jax")
    return nullcontext() if jax is None else jax.enable_x64(True)
