"""Each primitive of the compiled kernels is as exact as math.h says above it, on every instruction set.

The bound is read from math.h, "1.5 ULPs" in the comment before the function, so that the two cannot differ. The truth
is the NumPy table's in float64, itself held to mpmath's.
"""

from __future__ import annotations

import ctypes
import functools
import math
import re

import mpmath
import numpy as np
import pytest

from softknee.backends import table
from softknee.kernels import cpu

pytestmark = pytest.mark.skipif(not cpu.available(), reason="the kernels are not compiled here")

HEADER = (cpu.LIBRARY.parent / "math.h").read_text()
PRIMITIVES = (
    "exp", "expm1", "log", "log1p", "sin", "cos", "atan", "tanh", "sech2", "sigmoid", "softplus", "erf", "erfc",
    "x_phi", "x_phi_slope",
)  # fmt: skip
FLOORS = {"x_phi_slope": 2.0**-4}  # a root has no relative accuracy
EXACT = ("sqrt", "abs", "sign")
RUN = cpu.ISAS[cpu.ISAS.index(cpu.isa()) :] if cpu.available() else ()  # whoever has one has those after it


def stated(name: str) -> float:
    """The error in ULPs that a comment states last before the function."""
    name = {"sech2": "sech2_half_times"}.get(name, name)
    before = HEADER[: re.search(rf"\bV {name}\(", HEADER).start()]
    return float(re.findall(r"^ *//.*?([\d.]+) ULPs?\b", before, re.MULTILINE)[-1])


def computed(isa: str, name: str, x: np.ndarray, kind: int = 0) -> np.ndarray:
    x, out = np.ascontiguousarray(x), np.empty_like(x)
    library = ctypes.CDLL(str(cpu.LIBRARY))
    pointers = (ctypes.c_void_p(v.ctypes.data) for v in (x, out))
    failed = library.softknee_primitive(isa.encode(), name.encode(), kind, ctypes.c_int64(x.size), *pointers)
    assert not failed, name
    return out


def exactly(ops, name: str, x):
    """The truth, over the NumPy or the mpmath table."""
    if name.startswith("x_phi"):
        left, root = -x / ops.sqrt(2.0), ops.sqrt(2.0 * ops.pi)
        if name == "x_phi":
            return ops.erfc_times(0.5 * x, left)
        return 0.5 * ops.erfc(left) + ops.exp_times(x / root, -0.5 * x * x)
    return getattr(ops, name)(x)


@functools.cache
def sample() -> np.ndarray:
    """Every 4001st float32, the middle densely, and what is special."""
    strided = np.arange(0, 2**32, 4001, dtype=np.uint64).astype(np.uint32).view(np.float32)
    halves = np.arange(0, 2**14, dtype=np.float64) * (math.pi / 2)  # where sin and cos have roots
    special = [0.0, 1e-45, 1e-40, 1.1754944e-38, 1.0, math.sqrt(0.5), 2.0**17, 3.4028235e38, math.inf, math.nan]
    positive = np.concatenate([np.linspace(0, 20, 200_001), np.linspace(20, 120, 50_001), halves, special])
    ends = [-1.0 + 2.0**-24, -103.972, 88.7228, -87.33654]
    finite = np.concatenate([positive, -positive, ends]).astype(np.float32)
    return np.concatenate([strided[~np.isnan(strided)], finite])


@functools.cache
def truth(name: str) -> np.ndarray:
    with np.errstate(all="ignore"):
        return np.asarray(exactly(table("numpy"), name, sample().astype(np.float64)))


def off(name: str, got: np.ndarray) -> np.ndarray:
    """The distance in ULPs of float32, of subnormal results in theirs; ∞ where only one is a number."""
    exact, floor = truth(name), FLOORS.get(name, 0.0)
    got = got.astype(np.float64)
    with np.errstate(all="ignore"):
        rounded = exact.astype(np.float32).astype(np.float64)
        unit = np.ldexp(1.0, np.maximum(np.frexp(np.maximum(np.abs(exact), floor))[1] - 24, -149))
        distance = np.where(got == rounded, 0.0, np.abs(got - exact) / unit)
    distance[np.isnan(got) & np.isnan(exact)] = 0.0
    distance[np.isnan(got) != np.isnan(exact)] = np.inf
    return distance


@pytest.mark.parametrize("isa", RUN)
@pytest.mark.parametrize("name", PRIMITIVES)
def test_as_exact_as_stated(name, isa):
    x = sample()
    got = computed(isa, name, x)
    wrong = off(name, got)
    # subnormal results may be rounded twice
    least = np.abs(truth(name)) < np.finfo(np.float32).tiny
    wrong[least] -= 1.0
    worst = int(np.argmax(wrong))
    assert wrong[worst] <= stated(name), (x[worst], got[worst], truth(name)[worst])
    zero = x == 0
    expected = truth(name)[zero].astype(np.float32)
    assert np.array_equal(got[zero], expected) and np.array_equal(np.signbit(got[zero]), np.signbit(expected))


@pytest.mark.parametrize("name", PRIMITIVES)
def test_the_same_bits_on_every_instruction_set(name):
    x = sample()
    results = [computed(isa, name, x) for isa in RUN]
    # exp's scale rounds twice on some where a result is subnormal
    normal = np.isnan(results[0]) | (np.abs(results[0]) >= np.finfo(np.float32).tiny)
    for other in results[1:]:
        assert np.array_equal(results[0][normal], other[normal], equal_nan=True)


@pytest.mark.parametrize("isa", RUN)
@pytest.mark.parametrize("name", EXACT)
def test_exact(name, isa):
    assert np.array_equal(computed(isa, name, sample()), truth(name).astype(np.float32), equal_nan=True)


@pytest.mark.parametrize("isa", RUN)
@pytest.mark.parametrize("name", PRIMITIVES)
def test_half_precision(name, isa):
    """Of every float16, where the result is one: the rounding, and a thousandth of a ULP."""
    x = np.arange(65_536, dtype=np.uint16).view(np.float16)
    with np.errstate(all="ignore"):
        exact = np.asarray(exactly(table("numpy"), name, x.astype(np.float64)))
        rounded = exact.astype(np.float16).astype(np.float64)
        got = computed(isa, name, x, kind=1).astype(np.float64)
        size = np.maximum(np.abs(exact), FLOORS.get(name, 0.0))
        wrong = np.where(
            got == rounded, 0.0, np.abs(got - exact) / np.ldexp(1.0, np.maximum(np.frexp(size)[1] - 11, -24))
        )
    assert np.array_equal(np.isnan(got), np.isnan(exact))
    assert np.nanmax(wrong) <= 0.501, x[np.nanargmax(wrong)]


def test_a_bound_too_low_is_refuted():
    for name in PRIMITIVES:
        assert off(name, computed("portable", name, sample())).max() > stated(name) / 4


@pytest.mark.parametrize("name", PRIMITIVES)
def test_the_truth(name):
    """float64 is right to a hundred-thousandth of a ULP of float32."""
    rng = np.random.default_rng(0)
    x = np.float32(rng.choice([-1, 1], 40) * np.exp(rng.uniform(-20, 4, 40)))
    x = np.abs(x) if name.startswith("log") else x
    with mpmath.workdps(60):
        expected = [exactly(table("mpmath"), name, mpmath.mpf(float(v))) for v in x]
    for value, exact in zip(exactly(table("numpy"), name, x.astype(np.float64)), expected, strict=True):
        assert abs(value - float(exact)) <= 2.0**-41 * max(abs(float(exact)), FLOORS.get(name, 1e-300))
