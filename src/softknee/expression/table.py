"""The op table: the whole vocabulary in which an activation is written.

A definition is a Python function `f(x, ops)` that uses `+ - * / **` (integer powers), comparisons and the methods
below, and nothing else. Each backend is one subclass; each primitive has one derivative rule (`derivatives.py`).
"""

from __future__ import annotations

from typing import Any, ClassVar


class OpTable:
    """What every backend provides. Elementwise; arguments are the backend's arrays or Python floats."""

    pi: Any
    name: ClassVar[str] = "abstract"

    # Each method is one primitive. A backend that lacks one inherits the refusal.
    def exp(self, x: Any) -> Any:
        raise self._lacks("exp")

    def expm1(self, x: Any) -> Any:
        raise self._lacks("expm1")

    def log(self, x: Any) -> Any:
        raise self._lacks("log")

    def log1p(self, x: Any) -> Any:
        raise self._lacks("log1p")

    def sqrt(self, x: Any) -> Any:
        raise self._lacks("sqrt")

    def sin(self, x: Any) -> Any:
        raise self._lacks("sin")

    def cos(self, x: Any) -> Any:
        raise self._lacks("cos")

    def atan(self, x: Any) -> Any:
        raise self._lacks("atan")

    def tanh(self, x: Any) -> Any:
        raise self._lacks("tanh")

    def sech2(self, x: Any) -> Any:
        """1/cosh²(x), the derivative of tanh, without the cancellation in 1 − tanh²."""
        raise self._lacks("sech2")

    def sigmoid(self, x: Any) -> Any:
        raise self._lacks("sigmoid")

    def softplus(self, x: Any) -> Any:
        """log(1 + eˣ)."""
        raise self._lacks("softplus")

    def erf(self, x: Any) -> Any:
        raise self._lacks("erf")

    def erfc(self, x: Any) -> Any:
        raise self._lacks("erfc")

    def abs(self, x: Any) -> Any:
        raise self._lacks("abs")

    def sign(self, x: Any) -> Any:
        raise self._lacks("sign")

    def maximum(self, a: Any, b: Any) -> Any:
        """The larger; NaN if either is. At a tie the derivative is b's (so relu′(0) = 0, as in PyTorch)."""
        raise self._lacks("maximum")

    def minimum(self, a: Any, b: Any) -> Any:
        """The smaller; NaN if either is. At a tie the derivative is b's."""
        raise self._lacks("minimum")

    def where(self, condition: Any, a: Any, b: Any) -> Any:
        """`a` where the condition holds, else `b`; the derivative is the chosen branch's, never a mixture."""
        raise self._lacks("where")

    def with_slope(self, value: Any, x: Any, slope: Any) -> Any:
        """`value`, declaring that its derivative with respect to `x` is `slope`: for a form whose own rule would
        cancel. Other derivatives (a parameter's) follow from `value`."""
        return value

    # Over the last dimension, which is the one that a normalizer works along: for those, which are not traced. What is
    # reduced is kept as size 1.
    def amax(self, x: Any) -> Any:
        """The largest, as a number to shift or scale by: no derivative is taken of it."""
        raise self._lacks("amax")

    def total(self, x: Any) -> Any:
        raise self._lacks("total")

    def descending(self, x: Any) -> Any:
        """Sorted, the largest first."""
        raise self._lacks("descending")

    def cumulative(self, x: Any) -> Any:
        """Running totals."""
        raise self._lacks("cumulative")

    def grouped(self, x: Any, size: int) -> Any:
        """Neighbours in groups of `size`, each group a last dimension of its own."""
        raise self._lacks("grouped")

    def flat(self, x: Any) -> Any:
        """The last two dimensions as one: what `grouped` takes apart."""
        raise self._lacks("flat")

    def joined(self, a: Any, b: Any) -> Any:
        """b after a."""
        raise self._lacks("joined")

    # A coefficient times a factor that decays: `a·exp(u)` and its kin. In floating point the factor underflows long
    # before the product does, and ∞·0 is NaN where the limit is 0; a backend with machine arithmetic therefore
    # applies the exponent last (`backends/floats.py`). Emission puts them in; definitions need not.
    def exp_times(self, a: Any, u: Any) -> Any:
        return a * self.exp(u)

    def sigmoid_times(self, a: Any, u: Any) -> Any:
        return a * self.sigmoid(u)

    def sech2_times(self, a: Any, u: Any) -> Any:
        return a * self.sech2(u)

    def erfc_times(self, a: Any, u: Any) -> Any:
        return a * self.erfc(u)

    def finite(self, a: Any) -> Any:
        """`a` kept 2⁸ below the largest number, which leaves room for a few factors; NaN stays.

        Nothing to do where numbers have no end.
        """
        return a

    def _lacks(self, primitive: str) -> NotImplementedError:
        return NotImplementedError(f"the {self.name} backend has no primitive {primitive!r}")
