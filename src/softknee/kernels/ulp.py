"""The error of the float32 kernels in plain ULPs, block by block: cheap enough for all 2³² inputs.

The unit of f is ulp(f), of f′ ulp(max(|f′|, 2⁻⁴)), with nothing allowed for the input's rounding. It holds where the
true value is finite in float32 and, of f, normal. Everything else must be of the right kind: a subnormal or zero result
where the true value is below the smallest normal number, the right infinity where it overflows or is one, NaN where it
is NaN.

The true value is the definition's in float64: by the kernel or by the composite, whichever is faster; the other checks
it at a sample of the inputs.
"""

from __future__ import annotations

import time
from collections.abc import Callable
from dataclasses import asdict, dataclass, fields
from typing import Any

import numpy as np
import torch
from torch import Tensor

from ..catalog import Activation
from ..errors import InputError
from . import cpu
from .accuracy import FLOOR

BLOCK = 1 << 16
"""Inputs judged at a time: six arrays of 8 bytes each stay in a core's cache."""
BLOCKS = (1 << 32) // BLOCK
MANY = 4.0
"""Errors above this many ULPs are counted."""
NEAR = 2.0**-10
"""The most that two ways of computing the true value may differ by, in float32's ULPs."""
_EXPONENT = np.int64(0x7FF0000000000000)
_TINY, _EPS = float(np.finfo(np.float32).tiny), float(np.finfo(np.float32).eps)
_OVER = 2.0**128 - 2.0**103  # from here on float32 rounds to infinity
Evaluate = Callable[[Tensor], Tensor]


@dataclass
class Tally:
    """What was found among `inputs`; tallies of disjoint inputs add up."""

    inputs: int = 0
    judged: int = 0
    """Where ULPs are counted."""
    ulp: float = 0.0
    bits: int = 0
    """The input with the largest error, as float32's bits."""
    above: int = 0
    """Errors of more than `MANY` ULPs."""
    subnormal: int = 0
    """True values below the smallest normal number, zero included."""
    flushed: int = 0
    """Of these, at least half the smallest subnormal number, and the result is 0."""
    other: int = 0
    """True values that overflow or are infinite or NaN."""
    wrong: int = 0
    """Results of the wrong kind where no ULPs are counted."""
    wrong_bits: int | None = None
    """The input of one of these."""

    def __add__(self, also: Tally) -> Tally:
        first = self if self.ulp >= also.ulp else also
        sums = {f.name: getattr(self, f.name) + getattr(also, f.name) for f in fields(self) if f.name in _COUNTS}
        wrong_bits = also.wrong_bits if self.wrong_bits is None else self.wrong_bits
        return Tally(**sums, ulp=first.ulp, bits=first.bits, wrong_bits=wrong_bits)

    def to_dict(self) -> dict[str, Any]:
        return asdict(self)


_COUNTS = ("inputs", "judged", "above", "subnormal", "flushed", "other", "wrong")


def kernel(activation: Activation, order: int) -> Evaluate:
    """f or f′ at the defaults, by the compiled kernel of the input's dtype.

    Raises InputError where there is none.
    """
    found = cpu.operators(activation)
    if found is None:
        raise InputError(f"{activation.name} has no compiled kernel: {cpu.described()}")
    values = tuple(activation.defaults.values())
    if order == 0:
        return lambda x: found[0](x, *values)
    ones = {dtype: torch.ones(BLOCK, dtype=dtype) for dtype in (torch.float32, torch.float64)}
    return lambda x: found[2](ones[x.dtype][: len(x)], x, *values)


def composite(activation: Activation, order: int) -> Evaluate:
    """f or f′ at the defaults, by the definition's straight-line code."""
    values, own = tuple(activation.defaults.values()), activation.composite
    if order == 0:
        return lambda x: own.compute(x, *values)
    return lambda x: own.derivatives[0](torch.ones_like(x), x, *values)


def oracle(activation: Activation, order: int, count: int = 1 << 16) -> tuple[Evaluate, str, float]:
    """The true value in float64: the faster way, its name, and the most by which the two differ, in ULPs of float32, at
    `count` inputs of all magnitudes.

    Raises InputError where they differ by more than `NEAR`.
    """
    ways = {"kernel": kernel(activation, order), "composite": composite(activation, order)}
    bits = torch.arange(count, dtype=torch.int64) * ((1 << 32) // count) + 4001
    x = bits.to(torch.int32).view(torch.float32).double()
    values, seconds = {}, {}
    with torch.no_grad():
        for name, way in ways.items():
            pieces = x.split(BLOCK)
            for each in pieces[:1]:
                way(each)  # the first call registers and emits
            start = time.perf_counter()
            values[name] = torch.cat([way(each).broadcast_to(each.shape) for each in pieces]).numpy()
            seconds[name] = time.perf_counter() - start
    a, b = values["kernel"], values["composite"]
    with np.errstate(all="ignore"):
        unit = np.maximum(_unit(b), FLOOR if order else _TINY) * _EPS
        same = (a == b) | (np.isnan(a) & np.isnan(b)) | ((np.abs(a) >= _OVER) & (np.abs(b) >= _OVER) & (a * b > 0))
        apart = np.where(same, 0.0, np.abs(a - b) / unit)
    apart[np.isnan(apart)] = np.inf
    if not apart.max() <= NEAR:
        at = x[int(apart.argmax())].item()
        raise InputError(f"{activation.name}: f{'′' * order} in float64 by kernel and composite differ at x = {at!r}")
    faster = min(seconds, key=seconds.__getitem__)
    return ways[faster], faster, float(apart.max())


def _unit(truth: np.ndarray) -> np.ndarray:
    """The power of two at or below |truth|."""
    return (truth.view(np.int64) & _EXPONENT).view(np.float64)


class Judge:
    """Compares `way` in float32 with `truth` in float64; the arrays that it works in are made once."""

    def __init__(self, way: Evaluate, truth: Evaluate, order: int) -> None:
        self.way, self.truth, self.order = way, truth, order
        self._low = torch.arange(BLOCK, dtype=torch.int32)
        self._bits = torch.empty(BLOCK, dtype=torch.int32)
        self._x = torch.empty(BLOCK, dtype=torch.float64)
        self._error = torch.empty(BLOCK, dtype=torch.float64)
        self._power = np.empty(BLOCK, dtype=np.int64)

    def block(self, index: int) -> Tally:
        """All inputs whose upper 16 bits are `index`."""
        torch.add(self._low, (index << 16) - ((index >> 15) << 32), out=self._bits)
        return self.inputs(self._bits)

    def inputs(self, bits: Tensor) -> Tally:
        """The inputs with these bits (int32), at most `BLOCK` of them."""
        count = len(bits)
        x32 = bits.view(torch.float32)
        x64, error = self._x[:count], self._error[:count]
        x64.copy_(x32)
        truth = self.truth(x64)
        got = self.way(x32)
        if truth.shape != x64.shape:  # a constant derivative
            truth = truth.broadcast_to(x64.shape).contiguous()
        torch.sub(error.copy_(got), truth, out=error)
        with np.errstate(all="ignore"):
            return self._judged(bits.numpy(), got.numpy(), truth.numpy(), error.numpy(), self._power[:count])

    def _judged(
        self, bits: np.ndarray, got: np.ndarray, truth: np.ndarray, error: np.ndarray, power: np.ndarray
    ) -> Tally:
        np.bitwise_and(truth.view(np.int64), _EXPONENT, out=power)
        unit = power.view(np.float64)
        plain = float(unit.max()) < 2.0**127  # infinite where truth is NaN or infinite
        if self.order:
            np.maximum(unit, FLOOR, out=unit)
        else:
            plain = plain and float(unit.min()) >= _TINY
        np.abs(error, out=error)
        np.divide(error, unit, out=error)
        largest = float(error.max()) / _EPS
        if plain and largest < np.inf:
            above = int(np.count_nonzero(error > MANY * _EPS)) if largest > MANY else 0
            at = int(bits[int(error.argmax())]) & 0xFFFFFFFF
            return Tally(len(bits), len(bits), largest, at, above)
        return self._sorted(bits, got, truth, error / _EPS)

    def _sorted(self, bits: np.ndarray, got: np.ndarray, truth: np.ndarray, ulps: np.ndarray) -> Tally:
        """Where not every true value is an ordinary number."""
        size = np.abs(truth)
        counted = size < _OVER
        small = counted & (size < _TINY) if not self.order else np.zeros_like(counted)
        counted &= ~small
        ulps = np.where(counted, ulps, 0.0)
        ulps[np.isnan(ulps)] = np.inf
        high, nan = size >= _OVER, np.isnan(truth)
        wrong = small & (~(np.abs(got) <= _TINY) | (got * np.sign(truth) < 0))
        wrong |= high & (got != np.copysign(np.inf, truth))
        wrong |= nan & ~np.isnan(got)
        where = np.flatnonzero(wrong)
        worst = int(ulps.argmax())
        return Tally(
            inputs=len(bits),
            judged=int(counted.sum()),
            ulp=float(ulps[worst]),
            bits=int(bits[worst]) & 0xFFFFFFFF,
            above=int(np.count_nonzero(ulps > MANY)),
            subnormal=int(small.sum()),
            flushed=int(np.count_nonzero(small & (got == 0) & (size >= 2.0**-150))),
            other=int(high.sum() + nan.sum()),
            wrong=len(where),
            wrong_bits=int(bits[where[0]]) & 0xFFFFFFFF if where.size else None,
        )


def swept() -> list[Activation]:
    """The core elementwise activations that have a kernel."""
    from ..catalog import activations

    return [a for a in activations() if a.kind == "elementwise" and cpu.takes(a, torch.float32)]
