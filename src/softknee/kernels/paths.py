"""Which path a call takes, and why.

    kernel      softknee's compiled kernels on the CPU, where they are measured exact, and PyTorch's op is not or is
                slower; on CUDA devices, where Triton is installed, one Triton kernel in place of the composite
    native      PyTorch's own op, where its measured error is no larger than the entry's own (or than 4 ULPs) and it
                loses no value: at the dtype, on the CPU that `accuracy.json` names; elsewhere only what is exact
    table       half precision on the CPU: f and f′ looked up, correctly rounded, wherever native is not both exact
                enough and faster
    composite   straight-line code from the definition: everything else

Forward and backward are chosen apart: PyTorch's tanh is good to 0.6 ULP, its derivative 1 − y² is 0 from 9.01 on.
Where kernel and native give the same bits, native serves the tensors too small for the kernel's call to pay.
"""

from __future__ import annotations

import functools
import json
from dataclasses import dataclass
from importlib import resources
from typing import Any

import torch

from ..catalog import Activation
from . import cpu, gpu
from .tables import HALVES

ENOUGH = 4.0
EXACT = 0.501
EXACT_JOINT = 0.51  # of a function of two inputs
ORDERS = ("f", "f′", "f″")


@dataclass(frozen=True)
class Figure:
    """The largest error, in ULPs, where it occurs, and where a value is lost (None: nowhere)."""

    ulp: float
    at: float
    lost: float | None = None


@dataclass(frozen=True)
class Path:
    """How a call is computed: `forward` and `backward` are each "kernel", "native", "table" or "composite"."""

    forward: str
    backward: str
    reason: str

    @property
    def way(self) -> str:
        """In a word, or two where they differ: "native, derivative composite"."""
        return self.forward if self.forward == self.backward else f"{self.forward}, derivative {self.backward}"

    def to_dict(self) -> dict[str, str]:
        return {"forward": self.forward, "backward": self.backward, "reason": self.reason}

    def __str__(self) -> str:
        return f"{self.way}: {self.reason}"


@functools.cache
def measured() -> dict[str, Any]:
    """`accuracy.json`: machine, versions, and per entry, dtype and path the figures of f, f′ and f″."""
    return json.loads((resources.files(__package__) / "accuracy.json").read_text())


def figures(activation: Activation, dtype: torch.dtype, path: str) -> list[Figure] | None:
    """The recorded figures of f, f′, f″, or None where there are none: a user's own activation, an op torch lacks."""
    if not (activation.formula.__module__ or "").startswith("softknee.catalog."):
        return None
    rows = measured()["entries"].get(activation.name, {}).get(str(dtype).removeprefix("torch."), {})
    if path not in rows:
        return None
    found = [rows[path][order] for order in ORDERS if order in rows[path]]
    return [Figure(float(ulp), float(at), None if lost is None else float(lost)) for ulp, at, lost in found]


def promised(activation: Activation, dtype: torch.dtype) -> list[Figure]:
    """The figures of f, f′, f″ on the path that a call takes on a CPU."""
    chosen = choose(activation, dtype)
    if activation.kind != "elementwise":
        return figures(activation, dtype, "kernel" if chosen.forward == "kernel" else "joint") or []
    forward, backward = (figures(activation, dtype, way) or [] for way in (chosen.forward, chosen.backward))
    return [*forward[:1], *backward[1:]]


def speed(activation: Activation, dtype: torch.dtype, path: str) -> float:
    """Recorded ns per element, forward, at 64K elements."""
    return measured()["entries"][activation.name][str(dtype).removeprefix("torch.")][path]["ns"]


@functools.cache
def choose(activation: Activation, dtype: torch.dtype, device: str = "cpu") -> Path:
    """The path of `activation` at Python-float parameters. Tensor parameters that `learned` has no path for take the
    composite, but for those that PyTorch's own function takes as tensors (PReLU's weight)."""
    without = uncompiled(activation, dtype, device)
    lacks = "composite" in (without.forward, without.backward)
    if device == "cuda" and lacks and gpu.asked() and gpu.takes(activation, dtype):
        forward, backward = (w if w == "native" else "kernel" for w in (without.forward, without.backward))
        return Path(forward, backward, without.reason)
    kernel = figures(activation, dtype, "kernel") if device == "cpu" and cpu.takes(activation, dtype) else None
    if kernel is None:
        return without
    if activation.kind == "normalizer":
        if kernel[0].lost is not None or kernel[0].ulp > _enough(activation, dtype, 0):
            return without
        return Path("kernel", "kernel", "one kernel, where PyTorch's ops are several")
    if dtype == torch.float64 and not _pays(activation):
        return without
    exact = [figure.lost is None and figure.ulp <= _enough(activation, dtype, i) for i, figure in enumerate(kernel)]
    backward = "kernel" if exact[1] else _own(activation, dtype, device)
    if not exact[0]:
        return Path(without.forward, without.backward if without.backward == "native" else backward, without.reason)
    if not _is_exact(activation, dtype):
        return Path("kernel", backward, without.reason)
    faster = speed(activation, dtype, "native") / speed(activation, dtype, "kernel")
    # Without a conversion there is nothing to gain but noise, and autograd takes PyTorch's op for less.
    margin = 1.1 if dtype == torch.float32 and same_bits(activation, dtype) else 1.0
    if faster < margin and without.forward == "native":
        return Path("native", without.backward if without.backward == "native" else backward, without.reason)
    return Path("kernel", backward, f"PyTorch's op takes {faster:.1f} times as long at 64K elements")


@functools.cache
def learned(activation: Activation, dtype: torch.dtype, device: str = "cpu") -> Path | None:
    """The path where a parameter that modules learn is a tensor, if the kernels serve it: they have its gradient in the
    pass that has the input's, while PyTorch's PReLU writes one of the input's size and sums it, ten times as long."""
    if device != "cpu" or not any(p.learnable for p in activation.parameters.values()):
        return None
    kernel = figures(activation, dtype, "kernel") if cpu.takes(activation, dtype) else None
    if kernel is None or any(f.lost is not None or f.ulp > _enough(activation, dtype, i) for i, f in enumerate(kernel)):
        return None
    return Path("kernel", "kernel", "the gradients of input and parameters come from one pass")


def _pays(activation: Activation) -> bool:
    """Whether the float64 kernel, with the C library's functions, is faster than PyTorch's vectors. Gated ones all
    are: the composite goes over memory for every step."""
    elementwise = activation.kind == "elementwise"
    return not elementwise or speed(activation, torch.float64, "kernel") < speed(activation, torch.float64, "composite")


def same_bits(activation: Activation, dtype: torch.dtype) -> bool:
    """Whether PyTorch's op and the kernel are both correctly rounded, f and f′, at the defaults."""
    without = uncompiled(activation, dtype)
    both = [figures(activation, dtype, path) for path in ("native", "kernel")]
    exact = all(found is not None and max(figure.ulp for figure in found[:2]) <= 0.5 for found in both)
    return exact and without.forward == without.backward == "native"


def _is_exact(activation: Activation, dtype: torch.dtype) -> bool:
    """Whether PyTorch has an op on the CPU whose values are good enough."""
    native = figures(activation, dtype, "native") if activation.torch is not None else None
    if native is None:
        return False
    own = _own(activation, dtype, "cpu")
    return not _wrong("f", native[0], (figures(activation, dtype, own) or native)[0], own, "cpu")


def _enough(activation: Activation, dtype: torch.dtype, order: int) -> float:
    """The error that is good enough: in half precision correctly rounded (gated ones: but for one value in a hundred
    near a tie), else 4 ULPs; or what the other path has."""
    own = _own(activation, dtype, "cpu") if activation.kind == "elementwise" else "joint"
    mine = figures(activation, dtype, own)
    half = EXACT if activation.kind == "elementwise" else EXACT_JOINT
    return max(half if dtype in HALVES else ENOUGH, mine[order].ulp if mine and len(mine) > order else 0.0)


def _own(activation: Activation, dtype: torch.dtype, device: str) -> str:
    half = dtype in HALVES and device == "cpu" and activation.kind == "elementwise"
    return "table" if half else "composite"


@functools.cache
def uncompiled(activation: Activation, dtype: torch.dtype, device: str = "cpu") -> Path:
    """The path without the compiled kernels."""
    if activation.kind == "normalizer":
        return Path("native", "native", "PyTorch's reductions, around what the definition adds")
    own = _own(activation, dtype, device)
    has = activation.kind == "elementwise" and activation.torch is not None
    native = figures(activation, dtype, "native") if has else None
    if native is None:
        return Path(
            own, own, "PyTorch has no op for it" if not has else f"PyTorch's op is not measured in {_word(dtype)}"
        )
    mine = figures(activation, dtype, own) or [Figure(EXACT, 0.0)] * len(ORDERS)
    wrong = [_wrong(order, theirs, ours, own, device) for order, theirs, ours in zip(ORDERS, native, mine, strict=True)]
    if wrong[0]:
        return Path(own, own, f"PyTorch's {wrong[0]}")
    if own == "table" and (slower := speed(activation, dtype, "native") / speed(activation, dtype, "table")) > 1:
        return Path(own, own, f"correctly rounded, and PyTorch's op takes {slower:.1f} times as long at 64K elements")
    if failing := wrong[1] or wrong[2]:
        return Path("native", own, f"PyTorch's {failing}")
    return Path("native", "native", "PyTorch's op is as exact" if device == "cpu" else "PyTorch's op is exact")


def _wrong(order: str, theirs: Figure, ours: Figure, own: str, device: str) -> str:
    """What speaks against PyTorch's op; empty where nothing does."""
    enough = EXACT if own == "table" or device != "cpu" else max(ENOUGH, ours.ulp)
    if theirs.lost is not None:
        return f"{order} is lost at x = {theirs.lost:.4g}"
    if not theirs.ulp <= enough:
        return f"{order} is off by {theirs.ulp:.3g} ULPs at x = {theirs.at:.4g}"
    return ""


def _word(dtype: torch.dtype) -> str:
    return str(dtype).removeprefix("torch.")
