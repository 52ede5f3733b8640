"""How exact a way of computing an activation is, measured against float64, or mpmath where the way is float64 itself.

The figures stand in `accuracy.json`, written by `tools/accuracy.py`: the table in the documentation, the choice between
paths (`paths.py`) and the tests' bounds are all read from there. Elementwise activations are measured at chosen points,
gated ones and normalizers at random ones.

An error is stated in units of ulp(f) + |x·f′|·ε, what rounding the input once may do to the result; of derivatives in
units of ulp(max(|f′|, 2⁻⁴)) + |x·f″|·ε, since a root has no relative accuracy. In half precision the unit is the ULP
alone. A value is lost where the result is 0, of the wrong sign or not finite, although the exact one is a normal number
and no root is near; also at ±∞.
"""

from __future__ import annotations

import functools
import math
from collections.abc import Callable
from typing import Any

import numpy as np
import torch
from torch import Tensor

from ..backends import table
from ..backends.torch import Composite
from ..catalog import Activation
from ..errors import InputError
from . import cpu, dispatch, native, normalizers, tables
from .paths import Figure

DTYPES = (torch.float64, torch.float32, torch.bfloat16, torch.float16)
FLOOR = 2.0**-4
Evaluate = Callable[..., Tensor]


def settings(activation: Activation, dtype: torch.dtype) -> list[dict[str, float]]:
    """The parameters to measure at: the defaults, and all finite ones moved, so far as their conditions allow."""
    given = {name: p.default for name, p in activation.parameters.items() if not isinstance(p.default, bool)}
    moved = {name: 1.3 * value + 0.125 for name, value in given.items() if math.isfinite(value)}
    # The parameter's own rounding is not the activation's error: in eighths, which every dtype holds; float64 holds
    # all, and PyTorch's derivative of celu rounds its alpha to float32 there.
    if dtype != torch.float64:
        moved = {name: round(8 * value) / 8 for name, value in moved.items()}
    try:
        activation.resolve(moved)
    except InputError:
        moved = {}
    return [{}, moved] if moved else [{}]


def ways(activation: Activation, dtype: torch.dtype) -> dict[str, Evaluate]:
    """Every way there is of computing it: `way(x, order, **parameters)` by name."""
    found: dict[str, Evaluate] = {}
    composite = Composite(
        activation.expression, activation.names, len(activation.inputs), tuple(activation.defaults.values())
    )

    def values(parameters: dict[str, float]) -> list[float]:
        return [(activation.defaults | parameters)[name] for name in activation.parameters]

    def by_composite(x: Tensor, order: int, **parameters: float) -> Tensor:
        return differentiated(lambda v: composite(v, *values(parameters)), x, order)

    def by_native(x: Tensor, order: int, **parameters: float) -> Tensor:
        return differentiated(lambda v: native.call(activation, v, activation.resolve(parameters)), x, order)

    def by_table(x: Tensor, order: int, **parameters: float) -> Tensor:
        if order > 1:
            return by_composite(x, order, **parameters)
        given = tuple(values(parameters))
        if order == 0:
            return dispatch.tabled(activation, x, given)
        return dispatch.tabled_slope(activation, x, given).to(x.dtype)

    def by_kernel(x: Tensor, order: int, **parameters: float) -> Tensor:
        if order > 1:
            return by_composite(x, order, **parameters)
        given = values(parameters)
        if order == 0:
            result = cpu.forward(activation, x, *given)
        else:
            result = (cpu.derivatives(activation, torch.ones_like(x), x, *given) or [None])[0]
        assert result is not None
        return result

    found["composite"] = by_composite
    if cpu.takes(activation, dtype):
        found["kernel"] = by_kernel
    if dtype in tables.HALVES:
        found["table"] = by_table
    if activation.torch is not None:
        found["native"] = by_native
    return found


def differentiated(function: Callable[[Tensor], Tensor], x: Tensor, order: int) -> Tensor:
    """f, f′ or f″ at `x` by autograd."""
    x = x.detach().requires_grad_(order > 0)
    y = function(x)
    for left in range(order, 0, -1):
        if not y.requires_grad:  # a constant
            return torch.zeros_like(x)
        (y,) = torch.autograd.grad(y.sum(), x, create_graph=left > 1)
    return y.detach()


def worst(activation: Activation, evaluate: Evaluate, dtype: torch.dtype, order: int, stride: int = 4001) -> Figure:
    """The largest figure over all `settings`; an op that has no derivative of that order is infinitely wrong."""
    found = []
    for parameters in settings(activation, dtype):
        try:
            found.append(figure(activation, evaluate, dtype, order, stride, **parameters))
        except (RuntimeError, NotImplementedError):
            return Figure(math.inf, 0.0, 0.0)
    largest = max(found, key=lambda f: f.ulp)
    lost = [f.lost for f in found if f.lost is not None] + _lost_at_the_ends(activation, evaluate, dtype, order)
    return Figure(largest.ulp, largest.at, min(lost, key=abs) if lost else None)


def joint(
    activation: Activation, dtype: torch.dtype, order: int, count: int = 1_000_000, kernel: bool = False
) -> Figure:
    """The error of a gated activation (order 1: both partial derivatives), or of a normalizer, by its composite or its
    kernel, over random inputs."""
    generator = torch.Generator().manual_seed(0)
    if activation.kind == "normalizer":
        x = (3 * torch.randn(count // 32, 32, generator=generator)).to(dtype)
        given: dict[str, Any] = {"generator": generator.clone_state()} if activation.stochastic else {}
        noise = [dispatch.noise_like(x, generator).numpy().astype(np.longdouble)] if activation.stochastic else []
        if kernel:
            got = normalizers.forward(activation, x, -1, **activation.defaults)
        elif activation.stochastic:
            got = dispatch.call(activation, x, dim=-1, **given)
        else:
            got = activation.along(-1, x, **activation.defaults)
        truth = activation.on(table("numpy"), x.double().numpy().astype(np.longdouble), *noise).astype(np.float64)
        return error(truth.ravel(), np.ones(x.numel()), got.ravel(), x.ravel(), FLOOR)
    count = count if dtype != torch.float64 else 500
    pair = [v.to(dtype) for v in 3 * torch.randn(2, count, generator=generator, dtype=torch.float64)]
    apart = torch.ones(count, dtype=torch.bool)
    for kink in activation.facts.breakpoints or () if order else ():
        for v in pair:
            apart &= (v.double().abs() - abs(kink)).abs() > 1e-9
    pair = [v[apart].requires_grad_(order > 0) for v in pair]
    at = pair[0].detach()
    results = _joint_results(activation, pair, order, kernel)
    found = []
    other = np.maximum(1.0, np.abs(pair[1].detach().double().numpy()))
    for name, got in zip(activation.inputs, results, strict=False):
        truth, slope = (_joint_exact(activation, pair, n, name) for n in (order, order + 1))
        # ∂/∂gate is up times something with a root
        floor = (FLOOR * other if name == "gate" else FLOOR) if order else 0.0
        found.append(error(truth, slope, got, at, floor))
    return max(found, key=lambda f: f.ulp)


def _joint_results(activation: Activation, pair: list[Tensor], order: int, kernel: bool) -> list[Tensor]:
    values = tuple(activation.defaults.values())
    if kernel:
        with torch.no_grad():
            ones = torch.ones_like(pair[0])
            found = (
                cpu.derivatives(activation, ones, *pair, *values)
                if order
                else [cpu.forward(activation, *pair, *values)]
            )
        return [result for result in found or () if result is not None]
    y = Composite(activation.expression, activation.names, 2, values)(*pair, *values)
    return list(torch.autograd.grad(y.sum(), pair)) if order else [y]


def _joint_exact(activation: Activation, pair: list[Tensor], order: int, wrt: str) -> np.ndarray:
    arrays = [v.detach().double().numpy() for v in pair]
    if pair[0].dtype != torch.float64:
        return np.asarray(activation.derivative(*arrays, order=order, wrt=wrt))
    return np.array([_with_digits(activation, point, order, {}, wrt) for point in zip(*arrays, strict=True)])


def _lost_at_the_ends(activation: Activation, evaluate: Evaluate, dtype: torch.dtype, order: int) -> list[float]:
    """±∞ where the definition has a value there and `evaluate` has not."""
    ends = torch.tensor([-math.inf, math.inf], dtype=dtype)
    truth = np.asarray(activation.derivative(ends.double().numpy(), order=order))
    missing = np.isnan(evaluate(ends, order).double().numpy()) & ~np.isnan(truth)
    return [end for end, missed in zip(ends.tolist(), missing, strict=True) if missed]


# What is stated is rounded up, so that another processor's last bit does not break it.
_STEPS = (0.5, 0.501, 0.51, 0.6, 0.75, 1.0, 1.5, 2.0, 3.0, 4.0, 6.0, 8.0)


def stated(ulp: float) -> float:
    """`ulp` rounded up to what is promised; powers of √2 above 8."""
    if not math.isfinite(ulp):
        return ulp
    if ulp <= _STEPS[-1]:
        return next(step for step in _STEPS if ulp <= step)
    return float(f"{2 ** (math.ceil(2 * math.log2(ulp) - 1e-9) / 2):.3g}")


@functools.cache
def points(activation: Activation, dtype: torch.dtype, stride: int = 4001) -> Tensor:
    """All finite values of a half precision; of float32 every `stride`-th, of float64 some, and what lies at kinks."""
    if dtype in (torch.bfloat16, torch.float16):
        x = torch.arange(65_536, dtype=torch.int32).to(torch.int16).view(dtype)
        return x[x.isfinite()]
    near = [b + d for b in (0.0, *(activation.facts.breakpoints or ())) for d in (0.0, 1e-7, -1e-7, 1e-3, -1e-3)]
    tails = np.linspace(-120, 120, 24_001)
    if dtype == torch.float32:
        bits = torch.arange(-(2**31), 2**31, stride, dtype=torch.int64).to(torch.int32)
        x = torch.cat([bits.view(dtype), torch.tensor([*near, *tails], dtype=torch.float64).to(dtype)])
    else:
        rng = np.random.default_rng(0)
        spread = np.exp(rng.uniform(-40, 7, 500)) * rng.choice([-1, 1], 500)
        x = torch.tensor([*near, *spread, *rng.normal(0, 3, 2000), *tails[::120] * 6], dtype=dtype)[
            :: max(1, stride // 4001)
        ]
    return x[x.abs() < torch.finfo(dtype).max / 256]


def exact(activation: Activation, x: Tensor, order: int, **parameters: float) -> np.ndarray:
    """f, f′ or f″ at `x` as float64; for float64 itself from mpmath."""
    if x.dtype == torch.float64:
        return _with_all_digits(activation, tuple(x.tolist()), order, tuple(parameters.items()))
    given: dict[str, Any] = dict(parameters)
    return np.asarray(activation.derivative(x.double().numpy(), order=order, **given))


@functools.lru_cache(maxsize=64)
def _with_all_digits(
    activation: Activation, x: tuple[float, ...], order: int, parameters: tuple[tuple[str, float], ...]
) -> np.ndarray:
    return np.array([_with_digits(activation, (value,), order, dict(parameters)) for value in x])


def _with_digits(
    activation: Activation, point: tuple[float, ...], order: int, parameters: dict[str, float], wrt: str | None = None
) -> float:
    import mpmath

    place = activation.inputs.index(wrt) if wrt else 0

    def along(value: Any) -> Any:
        given = {name: mpmath.mpf(p) for name, p in (activation.defaults | parameters).items()}
        inputs = [*point[:place], value, *point[place + 1 :]]
        return mpmath.mpf(activation.on(table("mpmath"), *map(mpmath.mpf, inputs), **given))

    # 1 + tanh(u) keeps its digits down to the smallest double with 360
    for digits in (60, 360):
        with mpmath.workdps(digits):
            at = mpmath.mpf(point[place])
            value = mpmath.diff(along, at, order) if order else along(at)
        if abs(value) > 1e-25:
            break
    return float(value)


def figure(
    activation: Activation, evaluate: Evaluate, dtype: torch.dtype, order: int, stride: int = 4001, **parameters: float
) -> Figure:
    """The error of `evaluate(x, order)` over all points."""
    x = points(activation, dtype, stride)
    if order > 1 and dtype == torch.float64:
        x = x[::4]  # second differences with 360 digits take their time
    if order:
        # what a derivative is at a kink is a convention, and the oracle's differences straddle it
        for kink in activation.facts.breakpoints or ():
            x = x[(x.double() - kink).abs() > 1e-9]
    given: dict[str, Any] = dict(parameters)
    next_one = activation.derivative(x.double().numpy(), order=order + 1, **given)
    truth = exact(activation, x, order, **parameters)
    return error(truth, np.asarray(next_one), evaluate(x, order, **parameters), x, FLOOR if order else 0.0)


def error(truth: np.ndarray, slope: np.ndarray, got: Tensor, x: Tensor, floor: Any) -> Figure:
    """The largest error of `got` against `truth`, whose derivative is `slope`, at `x`.

    Without a floor only normal numbers count (of half precision subnormal ones too).
    """
    info = torch.finfo(x.dtype)
    half = x.dtype in tables.HALVES
    smallest = info.tiny * info.eps if half else info.tiny
    values, at, size = got.double().numpy(), x.double().numpy(), np.abs(truth)
    representable = np.isfinite(truth) & (size <= info.max)  # beyond it, infinity is right
    judged = representable & ((size >= smallest) | (np.asarray(floor) > 0))
    with np.errstate(all="ignore"):
        exponent = np.frexp(np.maximum(size, np.maximum(floor, smallest)))[1] - 1
        unit = np.ldexp(info.eps, np.maximum(exponent, round(math.log2(info.tiny))))
        if not half:
            unit = unit + np.abs(at * slope) * info.eps
        distance = np.where(judged, np.abs(values - truth) / unit, 0.0)
        distance = np.where(np.isnan(distance), np.inf, distance)
        # near a root zero and sign are a matter of rounding x
        certain = judged & (size >= smallest) & (size > 8 * info.eps * np.abs(at * slope))
        lost = certain & ~(np.sign(values) == np.sign(truth)) | judged & ~np.isfinite(values)
    worst = int(np.argmax(distance))
    where = np.flatnonzero(lost)
    first = float(at[where[np.argmin(np.abs(at[where]))]]) if where.size else None
    return Figure(float(distance[worst]), float(at[worst]), first)
