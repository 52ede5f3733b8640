"""`diagnose`: look at a model as it stands, on given data, and leave it exactly as it was."""

from __future__ import annotations

import contextlib
import inspect
import sys
from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any

import numpy as np
import torch
from torch import Tensor, nn

from softknee.diagnosis.causes import judge
from softknee.diagnosis.measurements import Confidence, measure, output_tensor
from softknee.diagnosis.probes import Probe, unit_dimension
from softknee.diagnosis.reports import Report
from softknee.diagnosis.series import Series
from softknee.diagnosis.symptoms import CONFIDENT
from softknee.diagnosis.weights import Weights
from softknee.errors import InputError
from softknee.identification import identify
from softknee.identification.observation import Observer
from softknee.identification.preservation import unchanged

if TYPE_CHECKING:
    from softknee.identification import Census

BATCH = 256
"""Rows per forward where the data come as one tensor."""
GRADIENT_BATCHES = 8
"""Batches on which gradients are taken."""
TARGETS = ("labels", "targets", "label", "target", "y")
"""Keys under which a dict batch may hold its targets."""

Loss = Callable[[Any, Tensor], Tensor]


@dataclass(frozen=True)
class Batch:
    """One forward's arguments, and the targets if there are any."""

    args: tuple[Any, ...]
    kwargs: dict[str, Any]
    targets: Tensor | None = None

    @property
    def rows(self) -> int:
        for value in (*self.args, *self.kwargs.values()):
            if isinstance(value, Tensor) and value.dim() > 0:
                return value.shape[0]
        return 0


def diagnose(
    model: nn.Module,
    data: Any,
    *,
    loss_fn: Loss | None = None,
    held_out: Any = None,
    max_rows: int = 10_000,
    progress: bool | None = None,
) -> Report:
    """Measure a model on data and judge it; nothing is trained.

    data: a tensor of inputs, `(inputs, targets)`, a dict of keyword arguments (targets under "labels", "targets",
        "label", "target" or "y"), or an iterable of such batches (list, DataLoader). The first dimension is rows.
        NumPy arrays are taken as tensors; everything is moved to the model's device.
    loss_fn: `loss_fn(output, targets)` → a number to differentiate; default: what the output carries as `.loss`, else
        cross entropy for integer targets and mean squared error for real ones. Without targets no gradient is taken.
    held_out: labelled data of the same forms that the model was not trained on: over-confidence is judged there.
    max_rows: how many rows to look at. progress: a progress bar; None: when standard error is a terminal.

    The model runs in the mode it is in, with dropout layers off. Parameters, gradients, buffers, random number
    generators, modes and hooks are afterwards what they were. Raises InputError for data of another form.
    """
    if not isinstance(model, nn.Module):
        raise InputError(f"model must be a torch.nn.Module, got {type(model).__name__}")
    if any(tensor.device.type == "meta" for tensor in (*model.parameters(), *model.buffers())):
        raise InputError("model is on the meta device and has no values: model.to_empty(device=…), then initialise it")
    if max_rows < 1:
        raise InputError(f"max_rows must be at least 1, got {max_rows}")
    modes = {module: module.training for module in model.modules()}
    with unchanged(model), undrawn(data, held_out):
        for module, mode in modes.items():
            module.training = mode and not isinstance(module, nn.modules.dropout._DropoutNd)
        return _diagnose(model, data, loss_fn, held_out, max_rows, progress)


def _diagnose(
    model: nn.Module, data: Any, loss_fn: Loss | None, held_out: Any, max_rows: int, progress: bool | None
) -> Report:
    device = next((p.device for p in (*model.parameters(), *model.buffers())), torch.device("cpu"))
    census: Census | None = None
    trouble: str | None = None
    weights, gradients, choices = Weights(model), Series(), Series()
    probe = Probe(lambda key, shape: unit_dimension(census, key, shape), rows=BATCH, calls=1)
    probe.live = False
    seen = _Labelled()
    targets_seen: list[Tensor] = []
    observer: Observer | None = None
    try:
        for step, batch in enumerate(_shown(batches(data, model, device, max_rows), progress)):
            if observer is None:
                example: Any = batch.args if not batch.kwargs else batch.kwargs
                try:
                    census = identify(model, example)
                except Exception as problem:  # a model that cannot be identified can still be measured
                    trouble = f"{type(problem).__name__}: {problem}"
                observer = Observer(model, probe.before, probe.after, census=census).__enter__()
            probe.step, probe.live = step, True
            probe.begin_forward()
            for value in (*batch.args, *batch.kwargs.values()):
                if isinstance(value, Tensor) and value.is_floating_point():
                    probe.record("input", value)
                    break
            differentiate = batch.targets is not None and step < GRADIENT_BATCHES and bool(weights.parameters)
            with torch.set_grad_enabled(differentiate):
                output = model(*batch.args, **batch.kwargs)
            probe.live = False
            probe.end_forward()
            result = output_tensor(output)
            if result is not None and result.is_floating_point():
                probe.record("output", result)
                if result.dim() > 1 and result.shape[-1] > 1:
                    choices.add(step, probe.last("output").argmax(-1).flatten())
                if batch.targets is not None:
                    seen.add(census, result.detach(), batch.targets)
                    if batch.targets.is_floating_point():
                        targets_seen.append(batch.targets.detach().float().flatten()[:BATCH])
            if differentiate and batch.targets is not None:
                with torch.enable_grad():
                    loss = _loss(loss_fn, census, output, result, batch.targets)
                if loss.requires_grad:
                    grads = torch.autograd.grad(loss, weights.parameters, allow_unused=True)
                    norms = weights.gradient_norms(grads)
                    if norms is not None:
                        gradients.add(step, norms)
            probe.end_step()
    finally:
        if observer is not None:
            observer.close()
    if observer is None:
        raise InputError("data holds no batch: give at least one row")
    measurement = measure(
        model=model,
        census=census,
        segments=probe.segments(),
        order=probe.order,
        first_nonfinite=probe.first_nonfinite,
        weights=weights,
        gradients=gradients,
        updates=Series(),
        choices=choices,
        losses=Series(),
        extra={},
        steps=0,
        every=1,
        trouble=trouble,
    )
    confidence = seen.confidence(held_out=False)
    if held_out is not None:
        other = _Labelled()
        with torch.no_grad():
            for batch in batches(held_out, model, device, max_rows):
                result = output_tensor(model(*batch.args, **batch.kwargs))
                if result is not None and batch.targets is not None:
                    other.add(census, result, batch.targets)
        outside = other.confidence(held_out=True)
        if outside is None:
            raise InputError("held_out holds no class labels: give (inputs, integer targets)")
        if confidence is not None:
            outside = replace(outside, train_accuracy=confidence.accuracy)
        confidence = outside
    spread = float(torch.cat(targets_seen).std()) if sum(map(len, targets_seen)) > 1 else None
    return judge(replace(measurement, confidence=confidence, target_std=spread), model)


# -- leaving no trace


@contextlib.contextmanager
def undrawn(*sources: Any) -> Iterator[None]:
    """What data loaders draw from generators of their own is put back."""
    generators = [
        (generator, generator.get_state())
        for source in sources
        for holder in (source, getattr(source, "sampler", None))
        for generator in (getattr(holder, "generator", None),)
        if isinstance(generator, torch.Generator)
    ]
    try:
        yield
    finally:
        for generator, state in generators:
            generator.set_state(state)


# -- data


def batches(data: Any, model: nn.Module, device: torch.device, max_rows: int) -> Iterator[Batch]:
    """The batches in `data`, up to `max_rows` rows. Raises InputError for a form that is not known."""
    left = max_rows
    for batch in _batches(data, model):
        if left <= 0:
            return
        batch = Batch(
            tuple(_moved(value, device) for value in batch.args),
            {name: _moved(value, device) for name, value in batch.kwargs.items()},
            _moved(batch.targets, device),
        )
        left -= max(1, batch.rows)
        yield batch


def _moved(value: Any, device: torch.device) -> Any:
    return value.to(device) if isinstance(value, Tensor) else value


def _batches(data: Any, model: nn.Module) -> Iterator[Batch]:
    if isinstance(data, np.ndarray):
        data = torch.as_tensor(data)
    if not isinstance(data, (Tensor, tuple, list, Mapping)) and hasattr(data, "inputs") and hasattr(data, "targets"):
        data = (data.inputs, data.targets)
    if isinstance(data, Tensor):
        if data.dim() == 0:
            raise InputError("data is a single number; its first dimension must be rows")
        for part in data.split(BATCH) if len(data) else ():
            yield Batch((part,), {})
    elif isinstance(data, Mapping) or (isinstance(data, tuple) and len(data) == 2):
        whole = _batch(data, model)
        inputs, targets = whole.args[0] if len(whole.args) == 1 else None, whole.targets
        if isinstance(inputs, Tensor) and isinstance(targets, Tensor) and inputs.dim() and targets.dim():
            if len(inputs) != len(targets):
                raise InputError(f"data has {len(inputs)} rows of inputs and {len(targets)} of targets")
            for x, y in zip(inputs.split(BATCH), targets.split(BATCH), strict=True) if len(inputs) else ():
                yield Batch((x,), {}, y)
        else:
            yield whole
    elif isinstance(data, Iterable) and not isinstance(data, (str, bytes, tuple)):
        for item in data:
            yield _batch(item, model)
    else:
        raise InputError(
            f"data must be a tensor, (inputs, targets), a dict, or an iterable of these, got {type(data).__name__}"
            + (f" of length {len(data)}" if isinstance(data, tuple) else "")
        )


def _batch(item: Any, model: nn.Module) -> Batch:
    if isinstance(item, np.ndarray):
        item = torch.as_tensor(item)
    if isinstance(item, Tensor):
        return Batch((item,), {})
    if isinstance(item, Mapping):
        kwargs = dict(item)
        name = next((name for name in TARGETS if name in kwargs), None)
        if name is None:
            return Batch((), kwargs)
        labels = _tensor(kwargs[name])
        if name not in inspect.signature(model.forward).parameters:
            del kwargs[name]
        return Batch((), kwargs, labels)
    if isinstance(item, (tuple, list)) and 1 <= len(item) <= 2:
        inputs = item[0]
        targets = _tensor(item[1]) if len(item) == 2 else None
        if isinstance(inputs, Mapping):
            return Batch((), dict(inputs), targets)
        if isinstance(inputs, (tuple, list)) and all(isinstance(v, Tensor) for v in inputs):
            return Batch(tuple(inputs), {}, targets)
        return Batch((_tensor(inputs),), {}, targets)
    raise InputError(f"a batch must be a tensor, (inputs, targets) or a dict, got {type(item).__name__}")


def _tensor(value: Any) -> Tensor:
    if isinstance(value, Tensor):
        return value
    try:
        return torch.as_tensor(value)
    except (TypeError, ValueError, RuntimeError):
        raise InputError(f"inputs and targets must be tensors or arrays, got {type(value).__name__}") from None


def _shown(items: Iterable[Batch], progress: bool | None) -> Iterable[Batch]:
    if progress is None:
        progress = sys.stderr.isatty()
    if not progress:
        return items
    from rich.console import Console
    from rich.progress import track

    return track(items, description="diagnosing", console=Console(stderr=True), transient=True)


# -- targets


def _classes(census: Census | None, output: Tensor, targets: Tensor) -> tuple[Tensor, Tensor] | None:
    """(log-probabilities as (rows, classes), labels as (rows,)), or None where the targets are no class labels."""
    if targets.is_floating_point() or targets.is_complex():
        return None
    kind = census.head.kind if census is not None and census.head is not None else "logits"
    labels = targets.reshape(-1).long()
    if output.numel() == labels.numel():
        p = output.reshape(-1, 1).double()
        positive = p.clamp_min(0).log() if kind == "sigmoid" else nn.functional.logsigmoid(p)
        negative = (1 - p).clamp_min(0).log() if kind == "sigmoid" else nn.functional.logsigmoid(-p)
        return torch.cat((negative, positive), 1), labels
    if output.dim() == targets.dim() + 1:
        at = -1 if output.shape[:-1] == targets.shape else 1
        if output.movedim(at, -1).shape[:-1] != targets.shape:
            return None
        flat = output.movedim(at, -1).reshape(-1, output.shape[at]).double()
        if kind == "softmax":
            return flat.clamp_min(0).log(), labels
        return flat.log_softmax(-1), labels
    return None


def _loss(loss_fn: Loss | None, census: Census | None, output: Any, value: Tensor | None, targets: Tensor) -> Tensor:
    if loss_fn is not None:
        loss = loss_fn(output, targets)
        if not isinstance(loss, Tensor) or loss.numel() != 1:
            shape = tuple(loss.shape) if isinstance(loss, Tensor) else type(loss).__name__
            raise InputError(f"loss_fn must return a single number, got {shape}")
        return loss
    carried = output.get("loss") if isinstance(output, Mapping) else getattr(output, "loss", None)
    if isinstance(carried, Tensor) and carried.numel() == 1:
        return carried
    if value is None:
        raise InputError(f"the model's output is no tensor ({type(output).__name__}): give loss_fn(output, targets)")
    classes = _classes(census, value, targets)
    if classes is not None:
        scores, labels = classes
        keep = labels >= 0  # −100 marks what is not to be predicted
        if bool((labels >= scores.shape[1]).any()):
            raise InputError(
                f"targets hold class {int(labels.max())} but the model's output has {scores.shape[1]} classes"
            )
        return nn.functional.nll_loss(scores[keep], labels[keep])
    if targets.numel() == value.numel():
        return nn.functional.mse_loss(value, targets.to(value.dtype).reshape(value.shape))
    raise InputError(
        f"targets of shape {tuple(targets.shape)} and {targets.dtype} do not fit an output of shape"
        f" {tuple(value.shape)}: give loss_fn(output, targets)"
    )


class _Labelled:
    """Sums over labelled rows."""

    def __init__(self) -> None:
        self.rows = 0
        self.sums = torch.zeros(5, dtype=torch.float64)

    @torch.no_grad()
    def add(self, census: Census | None, output: Tensor, targets: Tensor) -> None:
        classes = _classes(census, output, targets)
        if classes is None:
            return
        scores, labels = classes
        keep = (labels >= 0) & (labels < scores.shape[1])
        scores, labels = scores[keep], labels[keep]
        if not len(labels):
            return
        top, guess = scores.max(1)
        sure, right = top.exp() > CONFIDENT, guess == labels
        finite = scores.clamp_min(-100)
        parts = (sure, sure & right, right, top.exp(), finite.max(1).values - finite.mean(1))
        self.sums += torch.stack([part.double().sum() for part in parts]).cpu()
        self.rows += len(labels)

    def confidence(self, held_out: bool) -> Confidence | None:
        if not self.rows:
            return None
        sure, sure_right, right, top, scale = self.sums.tolist()
        return Confidence(
            rows=self.rows,
            confident=sure / self.rows,
            confident_accuracy=sure_right / sure if sure else None,
            accuracy=right / self.rows,
            mean_confidence=top / self.rows,
            logit_scale=scale / self.rows,
            held_out=held_out,
        )
