"""Where a function is evaluated, and how: tensors, NumPy arrays or numbers, at most `BUDGET` elements in all.

Probes have eight significant bits, so that rounding them to float16 or bfloat16 changes nothing: what half precision
does to values is then told from what it does to inputs.
"""

from __future__ import annotations

import contextlib
import functools
import inspect
import random
from collections.abc import Callable, Iterator
from typing import Any

import numpy as np
import torch

from ...errors import InputError

BUDGET = 512
# Of two inputs: beyond the limits that gated activations are clamped at (7, 10, 25), and never twice the same distance
_GATE = (-37.0, -27.125, -17.25, -9.625, -5.3125, -2.6875, -1.1015625, -0.30078125,
         0.201171875, 0.80078125, 1.6015625, 3.09375, 6.1875, 11.6875, 21.875, 33.0)  # fmt: skip
_UP = (-39.0, -28.25, -15.875, -8.125, -4.40625, -2.109375, -0.8984375, -0.201171875,
       0.10009765625, 0.6015625, 1.296875, 2.59375, 5.6875, 12.375, 24.125, 36.0)  # fmt: skip


def probes() -> np.ndarray:
    """256 inputs: dense where activations bend, densest about 0, some in the tails, the usual kinks exactly."""
    return _probes().copy()


@functools.cache
def _probes() -> np.ndarray:
    dense = np.linspace(-8.9, 8.9, 159)
    near = np.linspace(-0.97, 0.97, 38)
    tails = np.geomspace(9.1, 40.0, 16)
    kinks = np.array([2.0**-20, 1e-3, 0.02, 0.5, 1.0, 2.0, 2.5, 3.0, 4.0, 6.0, 7.0])
    points = np.concatenate([dense, near, tails, -tails, kinks, -kinks, [0.0]])
    points = torch.as_tensor(points).bfloat16().double().numpy()
    points = np.unique(points)
    extra = torch.linspace(-4.53, 4.47, 256 - len(points), dtype=torch.float64).bfloat16().double().numpy()
    return np.sort(np.concatenate([points, extra + 0.0078125]))


def gated_probes() -> tuple[np.ndarray, np.ndarray]:
    """256 pairs of gate and up."""
    gate, up = np.meshgrid(_GATE, _UP, indexing="ij")
    return gate.ravel(), up.ravel()


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


class Sampler:
    """Calls a function of tensors, of NumPy arrays or of Python floats, whichever it takes, and counts elements.

    dtype: of the tensors given; where the function refuses it, they are float32. precision: what its results carry at
    most, the dtype given or, if that is narrower, the dtype returned. left: how many elements may still be asked for.
    Raises InputError where the function cannot be called like that or returns something else than a tensor (array,
    number) of its input's shape.
    """

    def __init__(self, function: Callable[..., Any], inputs: int, dtype: torch.dtype) -> None:
        self.function = function
        self.left = BUDGET
        self.precision = dtype
        self._way = self._settled(tuple(np.array([0.5, -1.25]) for _ in range(inputs)), dtype)

    def __call__(self, *points: np.ndarray) -> np.ndarray:
        """The function at `points`, float64."""
        try:
            with np.errstate(all="ignore"):
                return self._way(points)
        except InputError:
            raise
        except Exception as error:  # whatever the caller's function raises
            raise InputError(
                f"the function cannot be evaluated on a tensor of shape {points[0].shape}: {error}"
            ) from error

    def _settled(self, two: tuple[np.ndarray, ...], dtype: torch.dtype) -> Callable[..., np.ndarray]:
        """The first way of calling it that works on two elements."""
        failure: Exception | None = None
        as_tensors: list[Callable[..., np.ndarray]] = [
            functools.partial(self._tensors, dtype=kind) for kind in dict.fromkeys((dtype, torch.float32))
        ]
        for way in (*as_tensors, self._arrays, self._numbers):
            try:
                with np.errstate(all="ignore"):
                    way(two)
            except InputError:
                raise
            except Exception as error:  # whatever the caller's function raises
                failure = failure or error
                continue
            return way
        raise InputError(f"the function cannot be evaluated on a tensor: {failure}")

    def _spend(self, points: tuple[np.ndarray, ...]) -> None:
        self.left -= points[0].size

    def _tensors(self, points: tuple[np.ndarray, ...], dtype: torch.dtype) -> np.ndarray:
        self._spend(points)
        with torch.no_grad():
            result = self.function(*(torch.tensor(p, dtype=dtype) for p in points))  # copies: it may work in place
        self.precision = dtype
        if isinstance(result, torch.Tensor):
            if result.is_floating_point() and result.dtype.itemsize < dtype.itemsize:
                self.precision = result.dtype
            if not result.is_complex() and result.shape == points[0].shape:
                return result.detach().cpu().double().numpy()
            got = f"{result.dtype} {tuple(result.shape)}"
        else:
            if isinstance(result, np.ndarray):
                return _real(result, points[0].shape)
            got = type(result).__name__
        raise InputError(f"the function must return one real tensor of its input's shape {points[0].shape}, got {got}")

    def _arrays(self, points: tuple[np.ndarray, ...]) -> np.ndarray:
        self._spend(points)
        self.precision = torch.float64
        result = np.asarray(self.function(*(p.copy() for p in points)))
        if result.dtype.name == "bfloat16":  # JAX's, which is none of NumPy's
            result, self.precision = result.astype(np.float64), torch.bfloat16
        if result.dtype.kind == "f" and result.dtype.itemsize < 8:
            self.precision = torch.float32 if result.dtype.itemsize == 4 else torch.float16
        return _real(result, points[0].shape)

    def _numbers(self, points: tuple[np.ndarray, ...]) -> np.ndarray:
        """NaN where the function raises what arithmetic raises: an overflow, a logarithm of a negative number."""
        self._spend(points)
        self.precision = torch.float64
        values = np.full(points[0].size, np.nan)
        for i, given in enumerate(zip(*(p.ravel().tolist() for p in points), strict=True)):
            try:
                values[i] = float(self.function(*given))
            except (ArithmeticError, ValueError):
                if points[0].size == 2:
                    raise
        return values.reshape(points[0].shape)


def _real(result: np.ndarray, shape: tuple[int, ...]) -> np.ndarray:
    if result.dtype.kind not in "fiub" or result.shape != shape:
        got = f"{result.dtype} {result.shape}"
        raise InputError(f"the function must return one real tensor of its input's shape {shape}, got {got}")
    return result.astype(np.float64)


@contextlib.contextmanager
def undisturbed() -> Iterator[None]:
    """Random states are afterwards what they were, and begin at a fixed one, so that answers repeat."""
    devices = range(torch.cuda.device_count()) if torch.cuda.is_initialized() else ()
    ours, numpys = random.getstate(), np.random.get_state()
    try:
        with torch.random.fork_rng(devices=devices):
            torch.manual_seed(0)
            np.random.seed(0)
            random.seed(0)
            yield
    finally:
        random.setstate(ours)
        np.random.set_state(numpys)
