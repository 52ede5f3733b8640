"""NumPy: the reference in fp64. Accuracy of the elementary functions is NumPy's and SciPy's."""

from __future__ import annotations

from typing import Any

import numpy as np

from .floats import FloatTable

_LARGE = float(np.finfo(np.float64).max) / 256


class NumpyTable(FloatTable):
    name = "numpy"
    pi = np.pi

    exp = staticmethod(np.exp)
    expm1 = staticmethod(np.expm1)
    log = staticmethod(np.log)
    log1p = staticmethod(np.log1p)
    sqrt = staticmethod(np.sqrt)
    sin = staticmethod(np.sin)
    cos = staticmethod(np.cos)
    atan = staticmethod(np.arctan)
    tanh = staticmethod(np.tanh)
    abs = staticmethod(np.abs)
    sign = staticmethod(np.sign)
    maximum = staticmethod(np.maximum)
    minimum = staticmethod(np.minimum)
    where = staticmethod(np.where)

    def finite(self, a: Any) -> Any:
        return np.clip(a, -_LARGE, _LARGE)

    def amax(self, x: Any) -> Any:
        return np.max(x, axis=-1, keepdims=True)

    def total(self, x: Any) -> Any:
        return np.sum(x, axis=-1, keepdims=True)

    def descending(self, x: Any) -> Any:
        return -np.sort(-x, axis=-1)

    def cumulative(self, x: Any) -> Any:
        return np.cumsum(x, axis=-1)

    def grouped(self, x: Any, size: int) -> Any:
        return x.reshape(*x.shape[:-1], x.shape[-1] // size, size)

    def flat(self, x: Any) -> Any:
        return x.reshape(*x.shape[:-2], x.shape[-2] * x.shape[-1])

    def joined(self, a: Any, b: Any) -> Any:
        return np.concatenate([a, b], axis=-1)

    def erf(self, x: Any) -> Any:
        from scipy import special

        return special.erf(x)

    def erfc(self, x: Any) -> Any:
        from scipy import special

        return special.erfc(x)

    def erfcx(self, x: Any) -> Any:
        from scipy import special

        return special.erfcx(x)


OPS = NumpyTable()
