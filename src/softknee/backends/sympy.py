"""SymPy: for showing a formula, never for computing one."""

from __future__ import annotations

from typing import Any

import sympy

from ..expression import OpTable


class SympyTable(OpTable):
    name = "sympy"
    pi = sympy.pi

    exp = staticmethod(sympy.exp)
    log = staticmethod(sympy.log)
    sqrt = staticmethod(sympy.sqrt)
    sin = staticmethod(sympy.sin)
    cos = staticmethod(sympy.cos)
    atan = staticmethod(sympy.atan)
    tanh = staticmethod(sympy.tanh)
    erf = staticmethod(sympy.erf)
    erfc = staticmethod(sympy.erfc)
    abs = staticmethod(sympy.Abs)
    sign = staticmethod(sympy.sign)
    sigmoid = staticmethod(sympy.Function(r"\sigma"))
    softplus = staticmethod(sympy.Function("softplus"))

    def expm1(self, x: Any) -> Any:
        return sympy.exp(x) - 1

    def log1p(self, x: Any) -> Any:
        return sympy.log(1 + x)

    def sech2(self, x: Any) -> Any:
        return sympy.sech(x) ** 2

    def maximum(self, a: Any, b: Any) -> Any:
        return sympy.Max(a, b, evaluate=False)

    def minimum(self, a: Any, b: Any) -> Any:
        return sympy.Min(a, b, evaluate=False)

    def where(self, condition: Any, a: Any, b: Any) -> Any:
        return sympy.Piecewise((a, condition), (b, True), evaluate=False)


OPS = SympyTable()
