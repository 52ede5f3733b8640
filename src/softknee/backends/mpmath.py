"""mpmath: the oracle. The plain formula to any number of digits (`mpmath.mp.workdps`), one scalar at a time."""

from __future__ import annotations

from typing import Any

from mpmath import mp, mpf

from ..expression import OpTable

_HUGE = mpf(2) ** 4096


class MpmathTable(OpTable):
    name = "mpmath"

    @property
    def pi(self) -> Any:
        return +mp.pi

    def exp(self, x: Any) -> Any:
        # mpmath reduces the argument by ln 2 to all its digits: e^(−e^(10⁹)) would need a billion of them
        if abs(x) > _HUGE:
            return mpf(0) if x < 0 else mp.inf
        return mp.exp(x)

    expm1 = staticmethod(mp.expm1)
    log = staticmethod(mp.log)
    sqrt = staticmethod(mp.sqrt)
    sin = staticmethod(mp.sin)
    cos = staticmethod(mp.cos)
    atan = staticmethod(mp.atan)
    erf = staticmethod(mp.erf)
    erfc = staticmethod(mp.erfc)
    sign = staticmethod(mp.sign)

    def abs(self, x: Any) -> Any:
        return abs(x)

    def log1p(self, x: Any) -> Any:
        return mp.log1p(x)

    def tanh(self, x: Any) -> Any:
        return mp.sign(x) if abs(x) > _HUGE else mp.tanh(x)

    def sech2(self, x: Any) -> Any:
        return 1 / mp.cosh(x) ** 2

    def sigmoid(self, x: Any) -> Any:
        return 1 / (1 + mp.exp(-x))

    def softplus(self, x: Any) -> Any:
        return mp.log1p(mp.exp(x)) if x < 0 else x + mp.log1p(mp.exp(-x))

    def maximum(self, a: Any, b: Any) -> Any:
        return a if a > b else mpf(b)

    def minimum(self, a: Any, b: Any) -> Any:
        return a if a < b else mpf(b)

    def where(self, condition: bool, a: Any, b: Any) -> Any:
        return a if condition else b


OPS = MpmathTable()
