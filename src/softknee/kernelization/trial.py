"""A model run with and without changes on the same inputs: are the results the same, what do time and memory say?

What "the same" means is measured: every activation's values are moved by ULPS units in the last place, and the results
may differ by FACTOR times what that makes of them.
"""

from __future__ import annotations

import gc
import statistics
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn
from torch.overrides import TorchFunctionMode

from ..catalog import Activation
from ..errors import SoftkneeError
from ..identification.models import arguments
from ..identification.preservation import unchanged
from ..identification.recognition import tensors
from .substitutes import after, before
from .survey import Change

ULPS = 4
FACTOR = 4.0
SECONDS, ROUNDS = 1.0, 9


@dataclass(frozen=True)
class Verification:
    """What was compared and how far apart it was.

    compared: "outputs", "outputs and gradients", or "each site by itself"; max_difference: the largest |difference|,
    at the tensor `at`, where `tolerance` was allowed; None where each site was tried by itself. judged: how.
    """

    compared: str
    judged: str
    max_difference: float | None = None
    tolerance: float | None = None
    at: str = ""

    def __str__(self) -> str:
        if self.max_difference is None:
            return f"{self.compared}, {self.judged}"
        return f"{self.compared} within {self.max_difference:.2g}, {self.tolerance:.2g} allowed ({self.judged})"


class _Rounding(TorchFunctionMode):
    """Moves every value of softknee's activations by up to ULPS units in the last place of itself and of the mean.

    seen: (id of the module, line) of each gated call that a method made.
    """

    def __init__(self, seed: int) -> None:
        super().__init__()
        self.seed = seed
        self.seen: set[tuple[int, int]] = set()

    def __torch_function__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        if isinstance(func, Activation) and func.kind == "gated":
            self._note(sys._getframe(1))
        result = func(*args, **(kwargs or {}))
        if not isinstance(func, Activation):
            return result
        self.seed += 1
        generator = torch.Generator(result.device).manual_seed(self.seed)
        noise = torch.rand(result.shape, generator=generator, device=result.device, dtype=torch.float32) * 2 - 1
        y = result.detach()
        size = torch.where(y.isfinite(), y.abs(), 0.0)
        moved = noise.to(y.dtype) * ULPS * torch.finfo(y.dtype).eps * (size + size.mean())
        return result + moved

    def _note(self, frame: Any) -> None:
        while frame is not None and frame.f_code not in (before.__code__, after.__code__):
            frame = frame.f_back
        caller = None if frame is None else frame.f_back
        if caller is not None and caller.f_code.co_argcount:
            owner = caller.f_locals.get(caller.f_code.co_varnames[0])
            self.seen.add((id(owner), caller.f_lineno))


class Trial:
    """A model run with and without the changes on the same inputs."""

    def __init__(self, model: nn.Module, example_inputs: Any, changes: tuple[Change, ...]) -> None:
        self.model = model
        self.example_inputs = example_inputs
        self.changes = changes
        self.modes = [(module, module.training) for module in model.modules()]
        self.training = model.training
        self.leaves = [(n, p) for n, p in model.named_parameters() if p.requires_grad]
        # what a run with the same random numbers compares: outputs, in training gradients
        self.backward = self.training and bool(self.leaves)

    def run(self) -> tuple[dict[str, Any], set[tuple[int, int]]]:
        """What was found, and where gated activations were seen; the changes may be applied afterwards or not."""
        theirs = self._results()
        self._apply()
        ours = self._results()
        modes = [_Rounding(seed) for seed in (1000, 2000)]
        rounded = [self._results(mode) for mode in modes]
        verified = self._judged(theirs, ours, rounded)
        if isinstance(verified, str):
            where = self._where(theirs, rounded)
            raise SoftkneeError(f"{type(self.model).__name__}: {verified}; {where}; the model is as it was")
        kept_after = self._bytes()
        self._revert()
        kept_before = self._bytes()
        seconds = self._seconds()
        found = {
            "verified": verified, "timed": "forward and backward" if self.backward else "forward",
            "seconds_before": seconds[0], "seconds_after": seconds[1],
            "bytes_before": kept_before, "bytes_after": kept_after,
        }  # fmt: skip
        return found, modes[0].seen

    def _apply(self, only: Change | None = None) -> None:
        for change in self.changes:
            change.revert() if only is not None and change is not only else change.apply()

    def _revert(self) -> None:
        for change in self.changes:
            change.revert()

    @contextmanager
    def _running(self, gradients: bool) -> Iterator[tuple[tuple, dict[str, Any]]]:
        with unchanged(self.model):
            for module, training in self.modes:
                module.training = training
            torch.manual_seed(0)  # the same dropout in every run
            with torch.set_grad_enabled(gradients):
                yield arguments(self.example_inputs)

    def _results(self, mode: TorchFunctionMode | None = None) -> dict[str, Tensor]:
        """{name: tensor}: outputs, and in training the gradients of a fixed random sum of them."""
        with self._running(self.backward) as (args, kwargs):
            if mode is None:
                output = self.model(*args, **kwargs)
            else:
                with mode:
                    output = self.model(*args, **kwargs)
            found = [t for t in tensors(output) if t.is_floating_point()]
            results = {f"output {i}": t.detach().clone() for i, t in enumerate(found)}
            if self.backward:
                results |= self._gradients(found)
        return results

    def _gradients(self, outputs: list[Tensor]) -> dict[str, Tensor]:
        recorded = [y for y in outputs if y.requires_grad]
        if not recorded:
            return {}
        weights = []
        for i, y in enumerate(recorded):
            generator = torch.Generator(y.device).manual_seed(i)
            weights.append(torch.randn(y.shape, generator=generator, device=y.device).to(y.dtype))
        grads = torch.autograd.grad(recorded, [p for _, p in self.leaves], weights, allow_unused=True)
        named = zip(self.leaves, grads, strict=True)
        return {f"gradient of {name}": grad for (name, _), grad in named if grad is not None}

    def _judged(
        self, theirs: dict[str, Tensor], ours: dict[str, Tensor], rounded: list[dict[str, Tensor]]
    ) -> Verification | str:
        """The verification, or what is wrong."""
        if theirs.keys() != ours.keys():
            return f"{', '.join(sorted(theirs.keys() ^ ours.keys()))} exist only in one of two runs, before and after"
        if not theirs:
            return Verification("outputs", "there is no tensor of floating-point numbers among them")
        worst: tuple[float, str, float, float] = (-1.0, "", 0.0, 0.0)
        for name, wanted in theirs.items():
            got = ours[name]
            if (got.dtype, got.shape) != (wanted.dtype, wanted.shape):
                return f"{name} is {got.dtype} {tuple(got.shape)} where it was {wanted.dtype} {tuple(wanted.shape)}"
            size = _largest(wanted)
            noise = max(_apart(each[name], got) for each in rounded if name in each)
            allowed = FACTOR * (noise + torch.finfo(wanted.dtype).eps * size)
            away = _apart(got, wanted)
            share = away / allowed if allowed else float(away > 0)
            if share > worst[0] or share != share:
                worst = (share, name, away, allowed)
        share, name, away, allowed = worst
        if not share <= 1:
            return f"{name} differs by {away:.2g} where rounding explains {allowed:.2g}"
        judged = f"{FACTOR:g} times the effect of moving every activation by {ULPS} units in the last place"
        compared = "outputs and gradients" if self.backward else "outputs"
        return Verification(compared, judged, away, allowed, name)

    def _where(self, theirs: dict[str, Tensor], rounded: list[dict[str, Tensor]]) -> str:
        """The first change that alone makes the difference."""
        for change in self.changes:
            self._apply(change)
            if isinstance(self._judged(theirs, self._results(), rounded), str):
                return f"replacing {change.site} ({change.theirs.__name__}) alone makes it so"
        return "no replacement alone makes it so"

    def _bytes(self) -> int | None:
        if not self.leaves:
            return None
        known = {t.untyped_storage()._cdata for t in (*self.model.parameters(), *self.model.buffers()) if not t.is_meta}
        kept: dict[int, int] = {}

        def pack(tensor: Tensor) -> Tensor:
            if tensor.layout == torch.strided:
                storage = tensor.untyped_storage()
                if storage._cdata not in known:
                    kept[storage._cdata] = storage.nbytes()
            return tensor

        with self._running(True) as (args, kwargs), torch.autograd.graph.saved_tensors_hooks(pack, lambda t: t):
            output = self.model(*args, **kwargs)  # alive until all is counted
        del output
        return sum(kept.values())

    def _seconds(self) -> tuple[float, float]:
        """Median seconds without and with the changes, in turn, in the same process."""
        timings: tuple[list[float], list[float]] = ([], [])
        with self._running(self.backward) as given:
            spent = 0.0
            for round_ in range(ROUNDS + 1):
                for which, change in enumerate((self._revert, self._apply)):
                    change()
                    seconds = self._once(given)
                    if round_:  # the first warms up
                        timings[which].append(seconds)
                    spent += seconds
                if round_ and spent > SECONDS:
                    break
        return statistics.median(timings[0]), statistics.median(timings[1])

    def _once(self, given: tuple[tuple, dict[str, Any]]) -> float:
        args, kwargs = given
        gc_was_on = gc.isenabled()
        gc.disable()
        try:
            self._wait()
            start = time.perf_counter()
            output = self.model(*args, **kwargs)
            if self.backward:
                self._gradients([t for t in tensors(output) if t.is_floating_point()])
            self._wait()
            return time.perf_counter() - start
        finally:
            if gc_was_on:
                gc.enable()

    def _wait(self) -> None:
        if any(p.device.type == "cuda" for p in self.model.parameters()):
            torch.cuda.synchronize()


def _largest(tensor: Tensor) -> float:
    known = torch.where(tensor.isfinite(), tensor.abs(), 0.0)
    return float(known.max()) if known.numel() else 0.0


def _apart(a: Tensor, b: Tensor) -> float:
    """The largest |a − b|; equal infinities and NaNs are no difference, other ones are infinite."""
    if not a.numel():
        return 0.0
    a, b = a.double(), b.double()
    away = torch.where((a == b) | (a.isnan() & b.isnan()), 0.0, (a - b).abs())
    return float(torch.where(away.isnan(), torch.inf, away).max())
