"""Fits the polynomials of the CPU kernels: writes `src/softknee/kernels/cpu/polynomials.h`.

python tools/polynomials.py            fit (about 10 s) and write
python tools/polynomials.py --check    fail unless the file is what the fit gives

Each is a minimax polynomial under a weight, by Lawson's iteration (least squares whose weights grow where the error is
largest) at Chebyshev points in float64. Coefficients are rounded to float32 one at a time, from the lowest, which
matters most, and the rest is fitted again around what is rounded. The error in the comment is measured at 40,000
points with exact arithmetic on the rounded coefficients: the rounding of the evaluation comes on top.
"""

from __future__ import annotations

import argparse
import sys
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from scipy import special

TARGET = Path(__file__).parent.parent / "src/softknee/kernels/cpu/polynomials.h"
HALF_LN2 = 0.5 * np.log(2) * (1 + 2.0**-12)  # the reduction's n is rounded from a rounded product

Function = Callable[[np.ndarray], np.ndarray]


@dataclass(frozen=True)
class Fit:
    """`function` ≈ Σ cₖ·tᵏ on [low, high], by degree per accuracy. weight: of the error. first: coefficients given."""

    name: str
    meaning: str
    function: Function
    low: float
    high: float
    degrees: tuple[int, int, int]  # for float32, float16, bfloat16
    weight: Function
    first: tuple[float, ...] = ()


def series(terms: Callable[[int], float], count: int) -> Function:
    """Σ terms(k)·tᵏ."""
    return lambda t: sum(terms(k) * t**k for k in range(count))


def factorial(k: int) -> float:
    return float(special.factorial(k, exact=True))


def tail(y: np.ndarray) -> np.ndarray:
    return special.erfcx(-y / np.sqrt(2)) / 2


def log1p_ratio(t: np.ndarray) -> np.ndarray:
    return np.where(t == 0, 1.0, np.log1p(t) / np.where(t == 0, 1.0, t))


EIGHTH = np.pi / 4 + 0.01  # the reduction's quarter is rounded from a rounded product
SIGNS = [1.0, -1.0] * 9


def atan_rest(t: np.ndarray) -> np.ndarray:
    a = np.sqrt(t)
    near = series(lambda k: SIGNS[k + 1] / (2 * k + 3), 12)(np.minimum(t, 0.01))
    return np.where(t < 0.01, near, (np.arctan(a) / np.where(a == 0, 1, a) - 1) / np.where(t == 0, 1, t))


def erf_ratio(t: np.ndarray) -> np.ndarray:
    return np.where(t == 0, 2 / np.pi**0.5, special.erf(np.sqrt(t)) / np.sqrt(np.where(t == 0, 1, t)))


FITS = (
    Fit("half_exp", "e^t/2, |t| ≤ ln 2/2", lambda t: np.exp(t) / 2, -HALF_LN2, HALF_LN2, (6, 5, 4),
        lambda t: np.exp(-t) * 2, (0.5,)),
    Fit("gauss", "e^(−t/2), |t| ≤ ln 2", lambda t: np.exp(-t / 2), -2 * HALF_LN2, 2 * HALF_LN2, (6, 5, 4),
        lambda t: np.exp(t / 2), (1.0,)),
    Fit("exp", "e^t, |t| ≤ ln 2/2", np.exp, -HALF_LN2, HALF_LN2, (6, 5, 4), lambda t: np.exp(-t), (1.0,)),
    Fit("expm1", "(e^t − 1 − t)/t², |t| ≤ ln 2/2, relative to e^t − 1", series(lambda k: 1 / factorial(k + 2), 20),
        -HALF_LN2, HALF_LN2, (4, 3, 3), lambda t: np.abs(t) / series(lambda k: 1 / factorial(k + 1), 20)(t)),
    Fit("log1p", "log(1 + t)/t, 0 ≤ t ≤ 1", log1p_ratio, 0.0, 1.0, (9, 7, 6), lambda t: 1 / log1p_ratio(t), (1.0,)),
    Fit("atanh", "(atanh(s)/s − 1)/s² in t = s², |s| ≤ 3 − √8, relative to atanh(s)/s",
        series(lambda k: 1 / (2 * k + 3), 40), 0.0, (3 - 8**0.5) ** 2, (3, 2, 2), lambda t: t),
    Fit("sin", "(sin(r)/r − 1)/r² in t = r², |r| ≤ π/4, relative to sin(r)/r",
        series(lambda k: SIGNS[k + 1] / factorial(2 * k + 3), 9),
        0.0, EIGHTH**2, (2, 2, 1), lambda t: t / series(lambda k: SIGNS[k] / factorial(2 * k + 1), 9)(t)),
    Fit("cos", "(cos(r) − 1 + r²/2)/r⁴ in t = r², |r| ≤ π/4, relative to cos(r)",
        series(lambda k: SIGNS[k] / factorial(2 * k + 4), 9),
        0.0, EIGHTH**2, (2, 2, 1), lambda t: t * t / series(lambda k: SIGNS[k] / factorial(2 * k), 9)(t)),
    Fit("atan", "(atan(a)/a − 1)/a² in t = a², |a| ≤ 1, relative to atan(a)/a", atan_rest,
        0.0, 1.0, (8, 6, 5), lambda t: t / (1 + t * atan_rest(t))),
    Fit("erf", "erf(x)/x − 1 in t = x², |x| ≤ 1, relative to erf(x)/x", lambda t: erf_ratio(t) - 1, 0.0, 1.0, (7, 6, 5),
        lambda t: 1 / erf_ratio(t)),
)  # fmt: skip


@dataclass(frozen=True)
class Piecewise:
    """`function` on 0 ≥ y > −20 by sixteen polynomials in y − centre, of relative accuracy.

    With w = 1 − ¾·y, 1 ≤ w < 16, the pieces are quarters of w's octaves, so that bits 21 to 24 of w number them: 12 to
    15 for the first octave, then from 0.
    """

    name: str
    meaning: str
    function: Function
    degrees: tuple[int, int, int]

    def pieces(self) -> list[tuple[float, float]]:
        """From the first w to the last of each, in order of their number."""
        found = [(2.0**octave * (1 + k / 4), 2.0**octave * (1 + (k + 1) / 4)) for octave in range(4) for k in range(4)]
        return found[4:] + found[:4]

    def fits(self) -> list[tuple[float, Fit]]:
        """Each piece's centre, and its fit around it."""
        made = []
        for first, last in self.pieces():
            low, high = (1 - last) / 0.75, (1 - first) / 0.75
            # of the floats near the middle the one whose value is nearest to a float: rounding the constant
            # coefficient would shift the whole piece
            near = np.float32((low + high) / 2) * (1 + np.float32(2.0**-23) * np.arange(-128, 129, dtype=np.float32))
            value = self.function(near.astype(np.float64))
            centre = float(near[np.argmin(np.abs(value.astype(np.float32) - value))])
            moved = lambda t, centre=centre: self.function(t + centre)  # noqa: E731
            weight = lambda t, centre=centre: 1 / self.function(t + centre)  # noqa: E731
            made.append((centre, Fit(self.name, "", moved, low - centre, high - centre, self.degrees, weight)))
        return made


PIECEWISE = (
    Piecewise("tail", "e^(y²/2)·Φ(y), −20 < y ≤ 0, Φ the normal distribution function", tail, (6, 5, 4)),
)  # fmt: skip


def chebyshev(low: float, high: float, count: int) -> np.ndarray:
    return (low + high) / 2 + (high - low) / 2 * np.cos(np.pi * (np.arange(count) + 0.5) / count)


def minimax(fit: Fit, degree: int, given: list[float]) -> np.ndarray:
    """The coefficients after those given that make the largest weighted error least."""
    t = chebyshev(fit.low, fit.high, 1000)
    weight, known = fit.weight(t), len(given)
    target = (fit.function(t) - sum(c * t**k for k, c in enumerate(given))) * weight
    # scaled powers, so that least squares is well conditioned
    size = max(abs(fit.low), abs(fit.high))
    powers = np.stack([(t / size) ** k for k in range(known, degree + 1)], axis=1) * weight[:, None]
    lawson = np.ones_like(t)
    best, least = np.zeros(degree + 1 - known), np.inf
    for _ in range(60):
        root = np.sqrt(lawson)[:, None]
        coefficients = np.linalg.lstsq(powers * root, target * root[:, 0], rcond=None)[0]
        error = np.abs(powers @ coefficients - target)
        if error.max() < least:
            best, least = coefficients, error.max()
        lawson *= error + 1e-3 * error.max()
        lawson /= lawson.sum()
    return best / size ** np.arange(known, degree + 1)


def rounded(fit: Fit, degree: int) -> list[float]:
    given = [float(np.float32(c)) for c in fit.first]
    while len(given) <= degree:
        given.append(float(np.float32(minimax(fit, degree, given)[0])))
    return given


def error(fit: Fit, coefficients: list[float]) -> float:
    t = chebyshev(fit.low, fit.high, 40_000)
    value = sum(c * t**k for k, c in enumerate(coefficients))
    return float(np.max(np.abs((value - fit.function(t)) * fit.weight(t))))


def numbers(values: Iterable[float]) -> str:
    return ", ".join(f"{np.float32(v)!s}f" for v in values)


def text() -> str:
    lines = [
        "// Generated by tools/polynomials.py: coefficients from the lowest power, for float32, float16 and bfloat16.",
        "#pragma once",
        "",
        "namespace softknee {",
        "namespace polynomials {",
        "",
    ]
    for fit in FITS:
        lines.append(f"// {fit.meaning}")
        for kind, degree in zip(("full", "half", "bfloat"), fit.degrees, strict=True):
            coefficients = rounded(fit, degree)
            bound = f"2^{np.log2(error(fit, coefficients)):.1f}"
            lines.append(f"constexpr float {fit.name}_{kind}[] = {{{numbers(coefficients)}}};  // error {bound}")
        lines.append("")
    for each in PIECEWISE:
        fits = each.fits()
        lines += [f"// {each.meaning}: a row of sixteen pieces' centres, then of each power's coefficients"]
        lines.append(f"alignas(64) constexpr float {each.name}_centres[16] = {{{numbers([c for c, _ in fits])}}};")
        for kind, degree in zip(("full", "half", "bfloat"), each.degrees, strict=True):
            found = [rounded(fit, degree) for _, fit in fits]
            bound = max(error(fit, coefficients) for (_, fit), coefficients in zip(fits, found, strict=True))
            head = f"alignas(64) constexpr float {each.name}_{kind}[{degree + 1}][16]"
            lines.append(f"{head} = {{  // error 2^{np.log2(bound):.1f}")
            lines += [f"    {{{numbers([c[k] for c in found])}}}," for k in range(degree + 1)]
            lines.append("};")
        lines.append("")
    lines += ["}  // namespace polynomials", "}  // namespace softknee", ""]
    return "\n".join(lines)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--check", action="store_true")
    arguments = parser.parse_args()
    if arguments.check:
        sys.exit(TARGET.read_text() != text())
    TARGET.write_text(text())


if __name__ == "__main__":
    main()
