"""`kernelize`: a model's activations run by softknee, `act(gate) * up` as one call, verified, with a way back.

No module is exchanged: the modules that apply activations change their class (`substitutes`), those that write the
product out get their method with that one expression replaced (`rewriting`). Parameters, state dict, hooks, shared
modules, modes and devices are what they were.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any

import torch
from torch import nn

from ..errors import InputError
from ..identification import identify
from ..identification.observation import original
from ..plain import plain_fields
from .survey import Change, Replaced, Skipped, Survey
from .trial import Trial, Verification


@dataclass(frozen=True)
class Kernelization:
    """What `kernelize` did to a model.

    seconds_before, seconds_after: median time of a forward pass, with its backward pass where the model is in training
    mode; bytes_before, bytes_after: what autograd keeps for backward, each storage once, without parameters and
    buffers; all None without example inputs, the bytes also where nothing requires gradients. timed: what was timed.
    """

    model: str
    replaced: tuple[Replaced, ...] = ()
    skipped: tuple[Skipped, ...] = ()
    verified: Verification | None = None
    seconds_before: float | None = None
    seconds_after: float | None = None
    bytes_before: int | None = None
    bytes_after: int | None = None
    timed: str = ""
    notes: tuple[str, ...] = ()
    changes: tuple[Change, ...] = field(default=(), repr=False, compare=False)

    def revert(self) -> None:
        """Makes the model what it was before. Safe to call twice, and after training: only classes change back."""
        for change in self.changes:
            change.revert()

    @property
    def verdict(self) -> str:
        """One sentence."""
        stay = f"{len(self.skipped)} stay as they are" if len(self.skipped) != 1 else "1 stays as it is"
        if not self.replaced:
            return f"nothing to replace: {stay if self.skipped else 'no activation was found'}"
        fused = sum(site.fused for site in self.replaced)
        runs = "1 site runs softknee" if len(self.replaced) == 1 else f"{len(self.replaced)} sites run softknee"
        return (
            runs + (f", {fused} with the product in one call" if fused else "") + (f"; {stay}" if self.skipped else "")
        )

    @property
    def measured(self) -> tuple[str, ...]:
        """What was verified, timed and counted, a phrase each."""
        phrases = [] if self.verified is None else [f"verified: {self.verified}"]
        if self.seconds_before is not None and self.seconds_after is not None:
            phrases.append(f"{self.timed}: {_ms(self.seconds_before)} → {_ms(self.seconds_after)} ms")
        if self.bytes_before is not None and self.bytes_after is not None:
            phrases.append(f"kept for backward: {self.bytes_before:,} → {self.bytes_after:,} bytes")
        return tuple(phrases)

    def to_dict(self) -> dict[str, Any]:
        return {"verdict": self.verdict} | plain_fields(self, leave_out=("changes",))

    def __str__(self) -> str:
        sites = [f"  {r.site}  {r.shown}" + (f"; {r.note}" if r.note else "") for r in self.replaced]
        sites += [f"  stays: {s.site}  {s.activation or 'unknown'}: {s.reason}" for s in self.skipped]
        return "\n".join([f"{self.model}: {self.verdict}", *sites, *self.measured, *(f"note: {n}" for n in self.notes)])


def kernelize(model: nn.Module, example_inputs: Any = None) -> Kernelization:
    """Lets softknee run the model's activations, in place, and returns what was done; `.revert()` takes it back.

    Replaced are activation modules, PyTorch's, transformers' and anyone's that behave as a catalog entry; activation
    functions called in a module's own methods; and products `act(gate) * up` written there, which become one call
    where the catalog has the gated activation. What stays as it is stands in `.skipped`, with the reason.

    model: a module; what `torch.compile` or DataParallel wraps is taken out of the wrapper. example_inputs: as for
    `identify`. With them the model is run, its outputs (in training mode gradients too) before and after are compared,
    time and bytes kept for backward measured; without them each replacement is tried by itself.
    Raises InputError for something that is no module and inputs that the model does not take; SoftkneeError where
    outputs differ by more than rounding explains: then nothing is changed, and the error names the first site.
    """
    if not isinstance(model, nn.Module):
        got = f"the class {model.__name__}: make one" if isinstance(model, type) else type(model).__name__
        raise InputError(f"model must be a torch.nn.Module, got {got}")
    model = original(model)
    census = identify(model, example_inputs)
    survey = Survey(model, [site for site in census if site.form == "functional"] if census.executed else None)
    with torch.random.fork_rng(devices=[]):
        survey.modules({site.path: site.shape for site in census if site.form == "module"})
        survey.methods()
    changes = tuple(survey.changes.values())
    measured: dict[str, Any] = {}
    if changes and example_inputs is None:
        judged = "values and gradients on random inputs, in float64 and in the model's dtype"
        measured["verified"] = Verification("each site by itself", judged)
    elif changes:
        try:
            measured, survey.seen = Trial(model, example_inputs, changes).run()
        finally:
            for change in changes:
                change.revert()
    for change in changes:
        change.apply()
    replaced, skipped = survey.rows(census.sites)
    notes = _notes(model, census.executed)
    return Kernelization(census.model, replaced, skipped, **measured, notes=notes, changes=changes)


def _ms(seconds: float) -> str:
    return f"{1e3 * seconds:,.0f}" if seconds >= 0.1 else f"{1e3 * seconds:.3g}"


def _notes(model: nn.Module, executed: bool) -> tuple[str, ...]:
    notes = []
    if not executed:
        notes.append("not executed (no example inputs): neither time nor bytes are known, nor which calls are made")
    if any(hasattr(m, "_compiled_call_impl") and m._compiled_call_impl is not None for m in model.modules()):
        notes.append("a module is compiled: compiled code is made anew at the next call, from softknee's composites")
    return tuple(notes)
