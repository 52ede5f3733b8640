"""`watch`: measure a model while it trains, at a bounded cost, and leave nothing behind.

    with softknee.watch(model, optimizer) as w:
        for x, y in loader:
            loss = loss_fn(model(x), y)
            loss.backward()
            optimizer.step()
            optimizer.zero_grad()
            w.log(loss=loss)
    print(w.report())

Every `every`-th training step is measured, and a few of the first. (Below `every=4` the activations are, of each batch
one row in four; gradients, updates and outputs, which are dearer and change slowly, every sixteenth time.)

Given the optimizer, a step is a call of `optimizer.step()`: gradients are read just before it (after clipping and
unscaling), weights around it, and it does not matter where `log` is called. Without it, a step is a call of
`log(loss=…)`, and gradients are read there if it stands between `backward()` and `zero_grad()`. Gradient accumulation
is several forwards in one step. Forwards in evaluation mode or without grad are left out, unless there are no others.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor, nn

from softknee.diagnosis.measurements import Measurement, measure, output_tensor
from softknee.diagnosis.probes import Probe, recomputable, unit_dimension
from softknee.diagnosis.series import Series
from softknee.diagnosis.taps import Taps
from softknee.diagnosis.weights import MISSING, Weights
from softknee.errors import InputError
from softknee.identification import identify
from softknee.identification.observation import Observer

if TYPE_CHECKING:
    from softknee.diagnosis.reports import Report
    from softknee.identification import Census


SPARSE = 3
"""Up to this interval gradients, updates and outputs are read at every `APART`-th measured step only."""
APART = 16
THIN = 4
"""One sampled row in so many is reduced when every step is measured; whether all are finite is still looked at."""


class Watch:
    """The block that `watch` opens; see the module's docstring. `report()` may be called inside it and after it."""

    def __init__(
        self, model: nn.Module, optimizer: torch.optim.Optimizer | None = None, every: int = 100, scaler: Any = None
    ) -> None:
        if not isinstance(model, nn.Module):
            raise InputError(f"model must be a torch.nn.Module, got {type(model).__name__}")
        if optimizer is not None and not isinstance(optimizer, torch.optim.Optimizer):
            raise InputError(f"optimizer must be a torch.optim.Optimizer, got {type(optimizer).__name__}")
        if isinstance(every, bool) or not isinstance(every, int) or every < 1:
            raise InputError(f"every must be a whole number of steps, at least 1, got {every!r}")
        self.model, self.optimizer, self.every, self.scaler = model, optimizer, every, scaler
        self.step = 0
        """Training steps completed."""
        self._next = 1
        """The next one to be measured, behind the present one."""
        self.census: Census | None = None
        self.trouble: str | None = None
        """Why the model could not be identified, if it could not."""
        self._probe = Probe(self._unit_dim, thin=1 if every > SPARSE else THIN)
        self._weights = Weights(model)
        self._losses = Series(4096)
        self._extra: dict[str, Series] = {}
        self._gradients = Series()
        self._updates = Series()
        self._choices = Series()
        self._seer: Observer | Taps | None = None
        """Built once; entered for the steps that are measured, and then also `_observer`."""
        self._observer: Observer | Taps | None = None
        self._light = False
        """Whether all sites are modules of which the probe needs the inputs only."""
        self._open = False
        self._handles: list[Any] = []
        self._ends: tuple[Any, ...] = ()
        self._snapshot: Tensor | None = None
        self._rank = -1
        self._identified = False
        self._identifying = False
        self._probe.live = False

    # -- the block

    def __enter__(self) -> Watch:
        if self._open:
            raise RuntimeError("this watch is already open")
        try:
            self._open = True
            self._attach()
            if self.optimizer is not None:
                self._handles.append(self.optimizer.register_step_post_hook(self._after_update))
        except BaseException:
            self.close()
            raise
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def close(self) -> None:
        """Take every hook off; safe to call twice."""
        self._detach()
        for handle in self._handles:
            handle.remove()
        self._handles = []
        self._open = self._probe.live = False
        self._snapshot = None

    def _attach(self) -> None:
        if self._seer is None:
            if self._light and self.census is not None:
                self._seer = Taps(self.model, self.census, self._probe.before)
            else:
                self._seer = Observer(self.model, self._probe.before, self._probe.after, census=self.census)
        self._seer.__enter__()
        self._observer = self._seer
        # In front of the observer's own, so that identifying at the first forward is over before it begins.
        self._ends = (
            self.model.register_forward_pre_hook(self._enters, prepend=True, with_kwargs=True),
            self.model.register_forward_hook(self._leaves),
        )
        if self.optimizer is not None:
            self._ends += (self.optimizer.register_step_pre_hook(self._before_update),)
        self._snapshot = self._weights.snapshot()

    def _detach(self) -> None:
        observer, self._observer = self._observer, None
        if observer is not None:
            observer.close()
        for handle in self._ends:
            handle.remove()
        self._ends = ()

    # -- a forward

    def _enters(self, module: nn.Module, args: tuple[Any, ...], kwargs: dict[str, Any]) -> None:
        if self._observer is None or self._identifying:
            return
        self._probe.live = False
        rank = 2 * module.training + torch.is_grad_enabled()
        if rank < self._rank:
            return
        if rank > self._rank:
            self._probe.reset()
            self._rank = rank
        if not self._identified:
            self._identify(args, kwargs)
        self._probe.step = self.step
        self._probe.live = True
        self._probe.begin_forward()
        for value in (*args, *kwargs.values()):
            if isinstance(value, Tensor) and value.is_floating_point():
                self._probe.check("input", value)
                break

    def _identify(self, args: tuple[Any, ...], kwargs: dict[str, Any]) -> None:
        self._identified = self._identifying = True
        self._probe.live = False
        try:
            self.census = identify(self.model, bound(self.model, args, kwargs))
            self._probe.sites = len(self.census)
            measured = [site for site in self.census.sites if site.measured]
            self._light = all(site.form == "module" and recomputable(site) for site in measured)
            self._seer = None  # one that knows the census, from the next step on
        except Exception as problem:  # the training must go on whatever the model does when run once more
            self.trouble = f"{type(problem).__name__}: {problem}"
        finally:
            self._identifying = False

    def _leaves(self, module: nn.Module, args: tuple[Any, ...], output: Any) -> None:
        if not self._probe.live or self._identifying:
            return
        self._probe.live = False
        self._probe.end_forward()
        value = output_tensor(output) if self._due else None
        if value is not None and value.is_floating_point() and value.numel():
            self._probe.record("output", value)
            if value.dim() > 1 and value.shape[-1] > 1:
                self._choices.add(self.step, self._probe.last("output").argmax(-1).flatten())

    def _unit_dim(self, key: str, shape: torch.Size) -> int:
        return unit_dimension(self.census, key, shape)

    # -- a step

    @property
    def _due(self) -> bool:
        """Whether this step, a measured one, is also one for the dearer measurements."""
        return self.every > SPARSE or self.step // self.every % APART == 0

    def _before_update(self, *_: Any) -> None:
        if self._observer is not None and self._due:
            self._read_gradients()

    def _after_update(self, *_: Any) -> None:
        # Most steps are not measured, so this is the usual case, and it has to be quick.
        if self._observer is None and self.step + 1 < self._next:
            self.step += 1
        else:
            self._end_step()

    def _read_gradients(self) -> None:
        norms = self._weights.gradient_norms()
        if norms is None:
            return
        scale = getattr(self.optimizer, "grad_scale", None)
        if scale is None and self.optimizer is None and self.scaler is not None:
            scale = self.scaler.get_scale()
        if scale is not None:
            norms = torch.where(norms == MISSING, norms, norms / scale)
        found = getattr(self.optimizer, "found_inf", None)
        if isinstance(found, Tensor):
            norms = torch.where(found > 0, MISSING, norms)
        self._gradients.add(self.step, norms)

    @torch.no_grad()
    def _end_step(self) -> None:
        if self._observer is not None:
            if self._snapshot is not None:
                now = self._weights.snapshot()
                if now is not None and now.shape == self._snapshot.shape:
                    self._updates.add(self.step, self._weights.ratios(self._snapshot, now))
                self._snapshot = None
            self._probe.live = False  # still on where a forward failed
            self._probe.end_step()
        self.step += 1
        if self.step >= self._next:
            self._next = self._after(self.step)
            if self._observer is None or self._seer is None:
                self._detach()
                self._attach()
            elif self._due:
                self._snapshot = self._weights.snapshot()
        elif self._observer is not None:
            self._detach()

    def _after(self, step: int) -> int:
        """The next step to measure: every `every`-th; before the first of those also 1, 2, 4, 8, …, for beginnings
        matter and are short."""
        regular = (step // self.every + 1) * self.every
        return min(regular, 1 << step.bit_length()) if step < self.every else regular

    def log(self, loss: Tensor | float | None = None, **values: Tensor | float) -> None:
        """Note the loss of a training step (and any other numbers by name). Only detached scalars are kept.

        Raises InputError for a tensor of more than one element.
        """
        if loss is not None:
            plain = type(loss) is Tensor and loss.is_cpu and loss.dim() == 0
            self._losses.add(self.step, loss.item() if plain else _number("loss", loss))  # type: ignore[union-attr]
        for name, value in values.items():
            self._extra.setdefault(name, Series(4096)).add(self.step, _number(name, value))
        if self.optimizer is None and loss is not None and self._open:
            if self._observer is not None and self._due:
                self._read_gradients()
            self._after_update()

    # -- the outcome

    def measurement(self) -> Measurement:
        """Everything measured so far, ready to be judged. Waits for the device."""
        return measure(
            model=self.model,
            census=self.census,
            segments=self._probe.segments(),
            order=self._probe.order,
            first_nonfinite=self._probe.first_nonfinite,
            weights=self._weights,
            gradients=self._gradients,
            # LBFGS takes many inner steps in one, whose sum is no step to judge a learning rate by
            updates=Series() if isinstance(self.optimizer, torch.optim.LBFGS) else self._updates,
            choices=self._choices,
            losses=self._losses,
            extra=self._extra,
            steps=self.step,
            every=self.every,
            trouble=self.trouble,
            optimizer=self.optimizer,
        )

    def report(self) -> Report:
        """Judge what was measured so far."""
        from softknee.diagnosis.causes import judge

        return judge(self.measurement(), self.model)


def watch(
    model: nn.Module, optimizer: torch.optim.Optimizer | None = None, every: int = 100, *, scaler: Any = None
) -> Watch:
    """Watch `model` in a `with` block while it trains; `w.log(loss=…)` notes the loss, `w.report()` judges.

    every: measure one training step in so many; before the first of them also steps 1, 2, 4, 8 and so on. (Below 4 the
    activations at each, gradients, updates and outputs at every sixteenth of them.) scaler: the
    GradScaler in use, only needed without an optimizer (then call `log` before `scaler.step`). Outputs stay
    bit-identical, memory bounded, and every hook is gone when the block ends, also on an exception. The first forward
    is run once more to identify the model.

    Raises InputError for arguments of the wrong type.
    """
    return Watch(model, optimizer, every, scaler)


def _number(name: str, value: Any) -> Any:
    if isinstance(value, Tensor):
        if value.numel() != 1:
            raise InputError(f"{name} must be a single number, got a tensor of shape {tuple(value.shape)}")
        return value.item() if value.device.type == "cpu" else value.detach().reshape(())
    try:
        return float(value)
    except (TypeError, ValueError):
        raise InputError(f"{name} must be a number or a one-element tensor, got {type(value).__name__}") from None


def bound(model: nn.Module, args: tuple[Any, ...], kwargs: Mapping[str, Any]) -> Any:
    """The arguments of a forward in the form `identify` takes: a tuple, or a dict where there are keywords."""
    if not kwargs:
        return args
    if not args:
        return dict(kwargs)
    import inspect

    parameters = list(inspect.signature(model.forward).parameters)
    return {**dict(zip(parameters, args, strict=False)), **kwargs}
