"""What probes and weights gave, put together as one `Measurement` for symptoms to judge. Still no judgement here."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor, nn

from softknee.diagnosis.probes import NEVER, Sums, histogram_edges, merge
from softknee.diagnosis.reports import LayerStatistics, SiteStatistics
from softknee.diagnosis.series import Series
from softknee.diagnosis.weights import MISSING, Weights
from softknee.errors import SoftkneeError

if TYPE_CHECKING:
    from softknee.catalog import Activation
    from softknee.identification import Census, Site

ROWS_NEEDED = 60
"""Below this a unit that fires on 5 % of rows may well not have fired (rule of three: 3/60)."""
ENDS = ("input", "output")
"""Keys under which a probe records the model's own input and output."""


@dataclass(frozen=True)
class Origin:
    """Where a value was first not finite."""

    step: int
    where: str
    """"input", "forward", "gradient" or "loss"."""
    site: str


@dataclass(frozen=True)
class Confidence:
    """How sure the model is of labelled rows; shares in [0, 1]."""

    rows: int
    confident: float
    """Share of rows whose largest probability is above .99."""
    confident_accuracy: float | None
    """Accuracy among those."""
    accuracy: float
    mean_confidence: float
    logit_scale: float
    """Mean over rows of the largest logit minus the mean logit."""
    held_out: bool
    """Whether the rows were given as held out from training."""
    train_accuracy: float | None = None


@dataclass(frozen=True)
class Measurement:
    """All that is known of a model: its sites, layers, input and output, and their course over the steps watched."""

    model: str
    census: Census | None
    trouble: str | None
    sites: tuple[SiteStatistics, ...]
    layers: tuple[LayerStatistics, ...]
    input: SiteStatistics | None
    output: SiteStatistics | None
    top_share: float | None
    """Largest share of a batch's rows whose largest output is the same one, mean over batches."""
    losses: tuple[tuple[int, float], ...]
    gradients: Mapping[str, tuple[float, ...]]
    """Name of a weight → norm of its gradient at each sampled step."""
    updates: Mapping[str, tuple[float, ...]]
    """Name of a weight → ‖Δw‖/‖w‖ of each sampled step."""
    gradient_steps: tuple[int, ...]
    update_steps: tuple[int, ...]
    origin: Origin | None
    steps: int
    every: int
    history: Mapping[str, Any]
    regularisers: tuple[str, ...]
    """Regularisers found: dropout layers, weight decay, label smoothing."""
    confidence: Confidence | None = None
    target_std: float | None = None
    """Standard deviation of real-valued targets, where they were given."""
    chance_loss: float | None = None
    """Loss of the best constant prediction, where it is known."""

    @property
    def watched(self) -> bool:
        """Whether training was watched (rather than a model looked at as it stands)."""
        return self.steps > 0

    @property
    def rows(self) -> int:
        return min((site.rows for site in self.sites), default=self.output.rows if self.output else 0)

    @property
    def hidden(self) -> tuple[SiteStatistics, ...]:
        """Sites inside the network: no heads, no attention softmax, no identities."""
        return tuple(site for site in self.sites if site.role in ("hidden", "gate") and site.activation != "identity")


def measure(
    *,
    model: nn.Module,
    census: Census | None,
    segments: Sequence[tuple[int, int, dict[str, Sums]]],
    order: Mapping[str, int],
    first_nonfinite: Mapping[str, int],
    weights: Weights,
    gradients: Series,
    updates: Series,
    choices: Series,
    losses: Series,
    extra: Mapping[str, Series],
    steps: int,
    every: int,
    trouble: str | None,
    optimizer: torch.optim.Optimizer | None = None,
) -> Measurement:
    """Put together what was collected.

    Sites are described by the later half of what was watched, so that a unit that died in mid-training is not
    excused by its beginnings (unless that is fewer than `ROWS_NEEDED` rows); where a value was first not finite is
    told from all of it.
    """
    late = [sums for _, last, sums in segments if last >= steps / 2] or [sums for *_, sums in segments]
    whole = merge([sums for *_, sums in segments])
    recent = whole | {key: sums for key, sums in merge(late).items() if sum(sums.rows) >= ROWS_NEEDED}
    places = {site.key: site for site in census.sites} if census is not None else {}
    # A step that a gradient scaler skipped has no gradients at all.
    seen = [
        (step, row)
        for step, row in zip(gradients.steps, gradients.values(), strict=True)
        if any(value != MISSING for value in row)
    ]
    gradient_steps, gradient_rows = [step for step, _ in seen], [row for _, row in seen]
    by_weight = _columns(weights.names, gradient_rows)
    moved = _columns(weights.names, updates.values())
    layers = _layers(census, weights, by_weight, moved)
    by_path = {layer.path: layer for layer in layers}
    keys = sorted((key for key in recent if key not in ENDS), key=lambda key: order.get(key, len(order)))
    sites = tuple(describe(recent[key], places.get(key), by_path) for key in keys)
    ends = {key: describe(recent[key], None, {}) for key in ENDS if key in recent}
    losses_seen = tuple(zip(losses.steps, (float(v) for v in losses.values()), strict=True))
    return Measurement(
        model=type(model).__name__,
        census=census,
        trouble=trouble,
        sites=sites,
        layers=layers,
        input=ends.get("input"),
        output=ends.get("output"),
        top_share=_top_share(choices, steps),
        losses=losses_seen,
        gradients=by_weight,
        updates=moved,
        gradient_steps=tuple(gradient_steps),
        update_steps=tuple(updates.steps),
        origin=_origin(whole, order, first_nonfinite, weights.names, gradient_steps, gradient_rows, losses_seen),
        steps=steps,
        every=every,
        history=_history(segments, order, gradient_steps, updates, by_weight, moved, losses_seen, extra),
        regularisers=_regularisers(model, optimizer),
    )


def describe(sums: Sums, site: Site | None, layers: Mapping[str, LayerStatistics]) -> SiteStatistics:
    """The statistics of one site from its sums (on the host, one site)."""
    rows, units = sums.rows[0], sums.unit_sum.shape[1]
    elements = max(1, rows * units)
    mean = float(sums.unit_sum.sum()) / elements
    variance = max(0.0, float(sums.unit_square.sum()) / elements - mean * mean)
    looked = max(1, sums.looked[0])
    input_mean = float(sums.input_sum[0]) / looked
    input_variance = float(sums.input_square[0]) / looked - input_mean**2
    freedom = sums.freedom[0]
    across = math.sqrt(float(sums.unit_within.mean()) / freedom) if freedom else None
    dead = tuple((~sums.fired[0]).nonzero().flatten().tolist()) if sums.sloped else ()
    edges, counts = histogram_edges(sums.counts[0].tolist())
    layer = layers.get(site.preceded_by) if site is not None and site.preceded_by is not None else None
    key = sums.keys[0]
    gains = exact_gains(sums.activation, site.parameters if site is not None else {})
    return SiteStatistics(
        key=key,
        path=site.path if site is not None else key.rpartition("#")[0],
        activation=sums.activation.name if sums.activation is not None else None,
        role=site.role if site is not None else "hidden",
        rows=rows,
        units=units,
        mean=mean,
        std=math.sqrt(variance) if not math.isnan(variance) else math.nan,
        across_row_std=across,
        zeros=float(sums.zeros[0]) / looked,
        saturated=float(sums.saturated[0]) / looked if sums.sloped else None,
        dead=len(dead) if sums.sloped else None,
        dead_units=dead,
        firing_bound=min(1.0, 3 / max(1, rows)),
        amax=float(sums.amax[0]),
        nonfinite=int(sums.nonfinite[0]),
        input_mean=input_mean,
        input_std=math.sqrt(max(0.0, input_variance)) if not math.isnan(input_variance) else math.nan,
        histogram_edges=edges,
        histogram_counts=counts,
        layer=site.preceded_by if site is not None else None,
        gain=layer.gain if layer is not None else None,
        exact_gain=gains[0],
        backward_gain=gains[1],
        gradient_norm=layer.gradient_norm if layer is not None else None,
        definition=sums.activation,
    )


def exact_gains(activation: Activation | None, parameters: Mapping[str, float]) -> tuple[float | None, float | None]:
    """1/√E[f(z)²] and 1/√E[f′(z)²] with these parameters; None for what is not elementwise or has none."""
    if activation is None or activation.kind != "elementwise":
        return None, None
    from softknee.facts import facts

    own = {name: value for name, value in parameters.items() if activation.defaults.get(name) != value}
    try:
        found = facts(activation, **own)
        gains = (float(found.gain), float(found.backward_gain))
    except (SoftkneeError, ArithmeticError, AttributeError, TypeError):
        return None, None
    return gains if all(map(math.isfinite, gains)) else (None, None)


def output_tensor(output: Any) -> Tensor | None:
    """The tensor that a model's output is about: itself, its `logits`, or the first one in it."""
    if isinstance(output, Tensor):
        return output
    named = output if isinstance(output, Mapping) else getattr(output, "__dict__", None)
    if isinstance(named, Mapping):
        for name in ("logits", "output", "prediction", "predictions"):
            if isinstance(named.get(name), Tensor):
                return named[name]
        items: Any = [value for name, value in named.items() if name != "loss"]
    elif isinstance(output, (tuple, list)):
        items = output
    else:
        return None
    for item in items:
        found = item if isinstance(item, Tensor) else output_tensor(item) if isinstance(item, (tuple, list)) else None
        if found is not None and found.dim() > 0 and found.is_floating_point():
            return found
    return None


def _columns(names: Sequence[str], rows: Sequence[Sequence[float]]) -> dict[str, tuple[float, ...]]:
    if not rows:
        return {}
    return {name: tuple(math.nan if row[i] == MISSING else row[i] for row in rows) for i, name in enumerate(names)}


def median(values: Sequence[float]) -> float | None:
    """Median of what is a number; None where nothing is."""
    ordered = sorted(value for value in values if not math.isnan(value))
    return ordered[len(ordered) // 2] if ordered else None


def _layers(
    census: Census | None,
    weights: Weights,
    gradients: Mapping[str, tuple[float, ...]],
    updates: Mapping[str, tuple[float, ...]],
) -> tuple[LayerStatistics, ...]:
    norms = dict(zip(weights.names, weights.norms(), strict=True))
    layers = []
    for affine in census.affines if census is not None else ():
        if affine.path not in weights.spreads:
            continue
        name = f"{affine.path}.weight" if affine.path else "weight"
        course = gradients.get(name, ())
        steps = updates.get(name, ())
        finite = [value for value in steps if not math.isnan(value)]
        layers.append(
            LayerStatistics(
                path=affine.path,
                kind=affine.kind,
                fan_in=affine.fan_in,
                fan_out=affine.fan_out,
                gain=weights.spreads[affine.path] * math.sqrt(affine.fan_in),
                weight_norm=norms.get(name, math.nan),
                gradient_norm=median(course[len(course) // 2 :]),
                update_ratio=median(steps),
                largest_update_ratio=max(finite, default=None),
            )
        )
    return tuple(layers)


def _top_share(choices: Series, steps: int) -> float | None:
    shares = []
    for step, chosen in zip(choices.steps, choices.values(), strict=True):
        if step >= steps / 2 and len(chosen) > 1:
            counts: dict[int, int] = {}
            for index in chosen:
                counts[index] = counts.get(index, 0) + 1
            shares.append(max(counts.values()) / len(chosen))
    return sum(shares) / len(shares) if shares else None


def _origin(
    sums: Mapping[str, Sums],
    order: Mapping[str, int],
    checked: Mapping[str, int],
    names: Sequence[str],
    gradient_steps: Sequence[int],
    gradient_rows: Sequence[Sequence[float]],
    losses: Sequence[tuple[int, float]],
) -> Origin | None:
    """The first value that was not finite: by step, then input, forward in executed order, loss, gradient."""
    found: list[tuple[int, int, Origin]] = []
    for key in order:
        step = min(int(sums[key].first_nonfinite[0]) if key in sums else NEVER, checked.get(key, NEVER))
        if step != NEVER:
            where = "input" if key == "input" else "forward"
            found.append((step, -1 if key == "input" else order.get(key, len(order)), Origin(step, where, key)))
    for step, loss in losses:
        if not math.isfinite(loss):
            found.append((step, len(order) + 1, Origin(step, "loss", "model")))
            break
    for step, row in zip(gradient_steps, gradient_rows, strict=True):
        # Backward runs from the last layer to the first, so the last bad one was the first to be made.
        bad = [i for i, value in enumerate(row) if math.isinf(value) or math.isnan(value)]
        if bad:
            found.append((step, len(order) + 2, Origin(step, "gradient", names[bad[-1]])))
            break
    return min(found, key=lambda entry: entry[:2])[2] if found else None


def _history(
    segments: Sequence[tuple[int, int, dict[str, Sums]]],
    order: Mapping[str, int],
    gradient_steps: Sequence[int],
    updates: Series,
    by_weight: Mapping[str, tuple[float, ...]],
    moved: Mapping[str, tuple[float, ...]],
    losses: Sequence[tuple[int, float]],
    extra: Mapping[str, Series],
) -> dict[str, Any]:
    across: dict[str, list[float | None]] = {}
    dead: dict[str, list[int | None]] = {}
    for key in sorted(order, key=order.__getitem__):
        described = [describe(sums[key], None, {}) if key in sums else None for *_, sums in segments]
        across[key] = [None if s is None else s.across_row_std for s in described]
        if key not in ENDS:
            dead[key] = [None if s is None else s.dead for s in described]
    ends = [last for _, last, _ in segments]
    return {
        "loss": {"step": [step for step, _ in losses], "value": [loss for _, loss in losses]},
        "gradient_norm": {"step": list(gradient_steps), **{k: list(v) for k, v in by_weight.items()}},
        "update_ratio": {"step": list(updates.steps), **{k: list(v) for k, v in moved.items()}},
        "across_row_std": {"step": ends, **across},
        "dead": {"step": ends, **dead},
        **{name: {"step": list(s.steps), "value": [float(v) for v in s.values()]} for name, s in extra.items()},
    }


def _regularisers(model: nn.Module, optimizer: torch.optim.Optimizer | None) -> tuple[str, ...]:
    found = []
    for path, module in model.named_modules():
        if isinstance(module, nn.modules.dropout._DropoutNd) and module.p > 0:
            found.append(f"dropout {module.p:g} at {path or 'model'}")
    decay = max((group.get("weight_decay", 0) or 0 for group in optimizer.param_groups), default=0) if optimizer else 0
    if decay:
        found.append(f"weight decay {decay:g}")
    return tuple(found)
