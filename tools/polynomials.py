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
from collections.abc import Callable
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


# erfcx in q = (v − K)/(v + K): with K about 2, polynomials in q serve all v ≥ 0
K = 2.0
FARTHEST = 15.0  # from there on erfc times any float32 is 0


def scaled_erfcx(q: np.ndarray) -> np.ndarray:
    v = K * (1 + q) / (1 - q)
    return special.erfcx(v) * (v + K)


def log1p_ratio(t: np.ndarray) -> np.ndarray:
    return np.where(t == 0, 1.0, np.log1p(t) / np.where(t == 0, 1.0, t))


def one(t: np.ndarray) -> np.ndarray:
    return np.ones_like(t)


FITS = (
    Fit("half_exp", "e^t/2, |t| ≤ ln 2/2", lambda t: np.exp(t) / 2, -HALF_LN2, HALF_LN2, (6, 5, 4),
        lambda t: np.exp(-t) * 2, (0.5,)),
    Fit("exp", "e^t, |t| ≤ ln 2/2", np.exp, -HALF_LN2, HALF_LN2, (6, 5, 4), lambda t: np.exp(-t), (1.0,)),
    Fit("expm1", "(e^t − 1 − t)/t², |t| ≤ ln 2/2, relative to e^t − 1", series(lambda k: 1 / factorial(k + 2), 20),
        -HALF_LN2, HALF_LN2, (4, 3, 3), lambda t: np.abs(t) / series(lambda k: 1 / factorial(k + 1), 20)(t)),
    Fit("log1p", "log(1 + t)/t, 0 ≤ t ≤ 1", log1p_ratio, 0.0, 1.0, (9, 7, 6), lambda t: 1 / log1p_ratio(t), (1.0,)),
    Fit("atanh", "(atanh(s)/s − 1)/s² in t = s², |s| ≤ 3 − √8, relative to atanh(s)/s",
        series(lambda k: 1 / (2 * k + 3), 40), 0.0, (3 - 8**0.5) ** 2, (3, 2, 2), lambda t: t),
    Fit("erfcx", f"(v + {K:g})·erfcx(v) in t = (v − {K:g})/(v + {K:g}), 0 ≤ v ≤ {FARTHEST:g}", scaled_erfcx,
        -1.0, (FARTHEST - K) / (FARTHEST + K), (10, 8, 6), lambda t: 1 / scaled_erfcx(t)),
    Fit("erf", "(erf(x)/x − 2/√π) in t = x², |x| ≤ 1, relative to erf(x)/x",
        lambda t: np.where(t == 0, 2 / np.pi**0.5, special.erf(np.sqrt(t)) / np.sqrt(np.where(t == 0, 1, t))),
        0.0, 1.0, (7, 6, 5), one),
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
            shown = ", ".join(f"{np.float32(c)!s}f" for c in coefficients)
            bound = f"2^{np.log2(error(fit, coefficients)):.1f}"
            lines.append(f"constexpr float {fit.name}_{kind}[] = {{{shown}}};  // error {bound}")
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
