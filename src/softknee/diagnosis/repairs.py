"""Repairs: what would mend a finding. Each proposes one edit and never applies it by itself.

A repair changes a model (`apply`, on a copy unless told otherwise), the training settings (`settings`), or
neither, when only a person can make the edit (`by_hand` says why and where). `propose(report)` collects the
repairs that the findings name, causes first, and the folk advice that the internet would give, marked as
such: a trial then shows what did *not* help too.
"""

from __future__ import annotations

import copy
import math
from collections import Counter
from collections.abc import Callable, Iterable, Iterator
from dataclasses import asdict, dataclass, field, replace
from functools import partial
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor, nn

from softknee.catalog import Activation, get
from softknee.diagnosis.reports import Finding, Report
from softknee.errors import InputError, closest
from softknee.identification.swapping import module_of, put, submodule
from softknee.nn import init

if TYPE_CHECKING:
    from softknee.diagnosis.trials import TrainFunction, Trial
    from softknee.identification import Census, Site

Findings = tuple[Finding, ...]
Change = Callable[[nn.Module, "torch.Generator | None"], nn.Module]

FOLK_ADVICE = ("swap_activation", "learning_rate", "clip")
"""What a search for "my network does not learn" answers with; measured beside the repairs, never preferred."""


@dataclass(frozen=True)
class Settings:
    """What a training function must obey, so that one function can train every arm of a trial.

    `lr_factor` multiplies its learning rate, `clip_norm` is the norm that gradients are clipped to (None:
    not), `label_smoothing` goes to the loss, `seed` into every generator that it makes.
    """

    seed: int = 0
    lr_factor: float = 1.0
    clip_norm: float | None = None
    label_smoothing: float = 0.0

    def to_dict(self) -> dict[str, Any]:
        return asdict(self)


@dataclass(frozen=True)
class Repair:
    """One edit that may mend a finding."""

    name: str
    title: str
    edit: str
    """The line of code to change."""
    size: int
    """Rank of the edit: 1 a number in the training settings, 2 a line beside the model, 3 a change of the model."""
    source: str = ""
    addresses: tuple[str, ...] = ()
    """Ids of the findings that it is proposed for."""
    folk: bool = False
    """Common advice that answers no cause that was found: it is measured, so that what does not help is seen."""
    by_hand: str = ""
    """Why it cannot be applied by `apply`, and what to do instead; empty when it can."""
    keeps_weights: bool = False
    """It mends trained weights: an arm of a trial starts from the diagnosed model's weights, not from fresh ones."""
    change: Change | None = field(default=None, repr=False, compare=False)
    tune: Callable[[Settings], Settings] | None = field(default=None, repr=False, compare=False)

    def apply(self, model: nn.Module, *, inplace: bool = False, generator: torch.Generator | None = None) -> nn.Module:
        """The repaired model: a deep copy unless `inplace`, with its own training mode, device and dtype.

        Weights are kept unless the repair is about weights. A repair of the training settings leaves the
        model as it is (see `settings`). New weights are drawn from `generator`, torch's global one if None.
        Raises `InputError` where only a person can make the edit, and if the plan was made for another model.
        """
        if self.by_hand:
            raise InputError(f"{self.name} cannot be applied for you, {self.by_hand}: {self.edit}")
        if not inplace:
            model = copy.deepcopy(model)
        return model if self.change is None else self.change(model, generator)

    def settings(self, settings: Settings | None = None) -> Settings:
        """`settings` (the defaults if None) with this repair's change; unchanged if it changes the model."""
        settings = Settings() if settings is None else settings
        return settings if self.tune is None else self.tune(settings)

    def to_dict(self) -> dict[str, Any]:
        return {
            "name": self.name,
            "title": self.title,
            "edit": self.edit,
            "size": self.size,
            "source": self.source,
            "addresses": list(self.addresses),
            "folk": self.folk,
            "by_hand": self.by_hand,
        }

    def __str__(self) -> str:
        return f"{self.title}: {self.edit}"


@dataclass(frozen=True)
class Plan:
    """The repairs for one diagnosed model: those that findings ask for, causes first, then folk advice."""

    report: Report
    repairs: tuple[Repair, ...]
    model: nn.Module | None = field(default=None, repr=False, compare=False)
    """The diagnosed model; arms of a trial are fresh copies of it unless `try_all` is given a `build_fn`."""

    def __iter__(self) -> Iterator[Repair]:
        return iter(self.repairs)

    def __len__(self) -> int:
        return len(self.repairs)

    def __getitem__(self, name: str) -> Repair:
        for repair in self.repairs:
            if repair.name == name:
                return repair
        names = [repair.name for repair in self.repairs]
        raise InputError(f"the plan has no repair {name!r}{closest(str(name), names)}; it has: {', '.join(names)}")

    def try_all(
        self,
        train_fn: TrainFunction,
        seeds: Iterable[int] = (0,),
        build_fn: Callable[[], nn.Module] | None = None,
        *,
        progress: Any = None,
    ) -> Trial:
        """Train every repair as an arm, beside a baseline and a re-seeded control; see `trials.try_repairs`."""
        from softknee.diagnosis.trials import try_repairs

        if build_fn is None and self.model is None:
            raise InputError("this plan has no model to start arms from: give build_fn, a function that builds one")
        return try_repairs(self.repairs, train_fn, seeds=seeds, model=self.model, build_fn=build_fn, progress=progress)

    def to_dict(self) -> dict[str, Any]:
        return {"verdict": self.report.verdict, "repairs": [repair.to_dict() for repair in self.repairs]}

    def __str__(self) -> str:
        if not self.repairs:
            return f"No repairs: {self.report.verdict}"
        lines = [f"Repairs for: {self.report.verdict}"]
        for repair in self.repairs:
            mark = " (folk advice)" if repair.folk else " (by hand)" if repair.by_hand else ""
            lines.append(f"  {repair.name:<20} {repair.title}{mark}")
            lines.append(f"  {'':<20}   {repair.edit}")
        return "\n".join(lines)


def propose(report: Report, model: nn.Module | None = None) -> Plan:
    """The plan for a report. `model` is the diagnosed one, the report's own if it kept it.

    A repair that cannot do anything to this model (dropout before a head that was not found, a swap to the
    activation that is already there) is left out. Nothing at or above a warning: an empty plan. Raises `InputError`
    if a finding asks for a repair that does not exist.
    """
    from softknee.identification import Census

    # A model that could not be identified has no known sites: repairs of the settings are left.
    census = Census(report.model, ()) if report.census is None else report.census
    model = report.subject if model is None else model
    findings = [finding for finding in report.findings if finding.severity != "info"]
    if not findings:
        return Plan(report, (), model)
    wanted: dict[str, Findings] = {}
    for finding in sorted(findings, key=lambda finding: finding.caused_by is not None):
        for name in finding.repairs:
            wanted[name] = (*wanted.get(name, ()), finding)
    for name in FOLK_ADVICE:
        wanted.setdefault(name, ())
    repairs = []
    for name, asking in wanted.items():
        if name not in BUILDERS:
            raise InputError(f"no repair is called {name!r}{closest(name, BUILDERS)}; there are: {', '.join(BUILDERS)}")
        folk = name in FOLK_ADVICE and all(finding.caused_by is not None for finding in asking)
        for build in BUILDERS[name]:
            repair = build(report, census, asking)
            if repair is not None:
                repairs.append(replace(repair, addresses=tuple(finding.id for finding in asking), folk=folk))
    return Plan(report, tuple(repairs), model)


# --- weights ------------------------------------------------------------------------------------------------


def _gain(method: str, title: str, source: str, report: Report, census: Census, findings: Findings) -> Repair | None:
    if not census.affines:
        return None
    argument = "" if method == "exact" else f', "{method}"'
    return Repair(
        name=f"{method}_gain",
        title=title,
        edit=f"softknee.nn.init.initialize(model, softknee.identify(model, example_inputs){argument})",
        size=2,
        source=source,
        change=partial(_initialize, census=census, method=method),
    )


def _initialize(model: nn.Module, generator: torch.Generator | None, *, census: Census, method: str) -> nn.Module:
    return init.initialize(model, census, method, generator=generator)


def _revive(report: Report, census: Census, findings: Findings) -> Repair | None:
    dead = {entry.key: entry.dead_units for entry in report.statistics if entry.dead_units and entry.layer is not None}
    if not dead:
        return None
    count = sum(map(len, dead.values()))
    return Repair(
        name="revive",
        title=f"revive {count} dead units",
        edit='report.plan()["revive"].apply(model, inplace=True)',
        size=2,
        source="ReDo, Sokar et al. 2023, arXiv:2302.12902",
        keeps_weights=True,
        change=partial(_revive_all, census=census, dead=dead),
    )


def _revive_all(
    model: nn.Module, generator: torch.Generator | None, *, census: Census, dead: dict[str, tuple[int, ...]]
) -> nn.Module:
    for key, units in dead.items():
        revive(model, census, key, units, generator=generator)
    return model


def revive(
    model: nn.Module,
    census: Census,
    site: str,
    units: Iterable[int],
    *,
    optimizer: torch.optim.Optimizer | None = None,
    generator: torch.Generator | None = None,
) -> nn.Module:
    """Bring `units` of `site` back, in place (ReDo, arXiv:2302.12902): the network's function does not change.

    Their incoming weights are drawn anew (exact gain of what feeds the layer) with bias 0, their outgoing
    weights set to 0 so that nothing downstream is disturbed, and the optimizer's state for all of these is
    zeroed. A dead unit outputs a constant 0 for the activations that die, so zeroing loses nothing. Raises
    `InputError` if the site is not fed by an affine layer.
    """
    path = census[site].preceded_by
    if path is None:
        raise InputError(f"{site} is not fed by an affine layer, so its units cannot be revived")
    rows = torch.as_tensor(sorted(units), dtype=torch.long)
    layer = model.get_submodule(path)
    fed_by = init.feeding_site(census, path)
    gain = 1.0 if fed_by is None else init.site_gain(census[fed_by])
    std = gain / math.sqrt(init.layer_fans(layer)[0])
    with torch.no_grad():
        weight = layer.weight
        assert isinstance(weight, Tensor)
        dim = 1 if getattr(layer, "transposed", False) else 0
        rows = rows.to(weight.device)
        drawn = torch.empty_like(weight.index_select(dim, rows)).normal_(0.0, std, generator=generator)
        weight.index_copy_(dim, rows, drawn)
        _forget(optimizer, weight, dim, rows)
        bias = getattr(layer, "bias", None)
        if isinstance(bias, Tensor):
            bias.index_fill_(0, rows, 0.0)
            _forget(optimizer, bias, 0, rows)
        for affine in census.affines:
            if init.feeding_site(census, affine.path) == site:
                _cut(model.get_submodule(affine.path), rows, census[site].units, optimizer)
    return model


def _forget(optimizer: torch.optim.Optimizer | None, parameter: Tensor, dim: int, index: Tensor) -> None:
    if optimizer is not None:
        for state in optimizer.state.get(parameter, {}).values():
            if isinstance(state, Tensor) and state.shape == parameter.shape:
                state.index_fill_(dim, index, 0.0)


def _cut(layer: nn.Module, units: Tensor, of: int | None, optimizer: torch.optim.Optimizer | None) -> None:
    """Zero what `layer` reads from `units`, which are numbered out of `of`."""
    weight = layer.weight
    assert isinstance(weight, Tensor)
    dim = 0 if getattr(layer, "transposed", False) else 1
    inputs = weight.shape[dim]
    if getattr(layer, "groups", 1) != 1 or not of or inputs % of:
        return  # which weights read the unit cannot be told; it then starts with the outgoing weights that it had
    block = inputs // of  # behind a flatten, a channel is a block of columns
    columns = (units[:, None] * block + torch.arange(block, device=units.device)).flatten()
    weight.index_fill_(dim, columns, 0.0)
    _forget(optimizer, weight, dim, columns)


# --- the model ----------------------------------------------------------------------------------------------


def _swap(name: str, title: str, source: str, report: Report, census: Census, findings: Findings) -> Repair | None:
    target = get(name)
    sites = [site for site in census if site.role == "hidden" and _swappable(site, target)]
    if not sites:
        return None
    paths = [site.path for site in sites if site.form == "module"]
    lines = list(dict.fromkeys(_line(site, target) for site in sites if site.form == "functional"))
    edits = list(lines)
    if paths:
        old = " and ".join(
            dict.fromkeys(site.implementation.rpartition(".")[2] for site in sites if site.form == "module")
        )
        edits.insert(0, f"{old} → {_constructor(target)} at {_listed(paths)}")
    return Repair(
        name=name,
        title=title,
        edit="; ".join(edits),
        size=3,
        source=source,
        by_hand="the activation is a function call in your code" if lines else "",
        change=partial(_swap_all, paths=tuple(dict.fromkeys(paths)), target=target),
    )


def _swap_with_gain(report: Report, census: Census, findings: Findings) -> Repair | None:
    """A swap alone keeps weights that were drawn for the old activation."""
    swap = _swap("gelu", "", "Hendrycks & Gimpel 2016, arXiv:1606.08415", report, census, findings)
    if swap is None or swap.change is None or not census.affines:
        return None
    target = get("gelu")
    swapped = [
        replace(site, activation=target.name, parameters={}, definition=target)
        if site.role == "hidden" and _swappable(site, target)
        else site
        for site in census
    ]
    return replace(
        swap,
        name="gelu_exact_gain",
        title="swap to GELU, with its exact gain at initialisation",
        edit=f"{swap.edit}; softknee.nn.init.initialize(model, softknee.identify(model, example_inputs))",
        change=partial(_swap_and_initialize, swap=swap.change, census=replace(census, sites=tuple(swapped))),
    )


def _swap_and_initialize(
    model: nn.Module, generator: torch.Generator | None, *, swap: Change, census: Census
) -> nn.Module:
    return init.initialize(swap(model, generator), census, generator=generator)


def _line(site: Site, target: Activation) -> str:
    if site.source is not None and site.source.startswith("torch/"):
        return f"the module at {site.path!r}: activation={_call(target)}"  # torch's own code takes it as an argument
    return f"{site.source or site.key}: {site.implementation} → {_call(target)}"


def _swappable(site: Site, target: Activation) -> bool:
    if site.form not in ("module", "functional") or site.activation == target.name:
        return False
    if site.definition is None:
        return site.form == "module"
    return site.definition.kind == "elementwise"


def _swap_all(
    model: nn.Module, generator: torch.Generator | None, *, paths: tuple[str, ...], target: Activation
) -> nn.Module:
    old = {id(submodule(model, path)): path for path in paths}  # one module may stand at several paths
    for path in old.values():
        model = put(model, path, module_of(target))
    return model


def _insert(report: Report, census: Census, findings: Findings) -> Repair | None:
    # A finding stands at the last layer of its chain; a chain that no finding names is deliberate (a low-rank pair).
    chains = [collapse.paths for collapse in census.collapses if collapse.paths[-1] in {f.site for f in findings}]
    if not chains:
        return None
    hidden = (site.definition for site in census if site.role == "hidden" and site.definition is not None)
    used = Counter(activation for activation in hidden if activation.kind == "elementwise")
    activation = used.most_common(1)[0][0] if used else get("gelu")
    # A chain of n affine maps lacks n - 1 activations, one behind each but the last.
    paths = tuple(dict.fromkeys(path for chain in chains for path in chain[:-1]))
    wrapped = f"nn.Sequential({_expression(paths[0])}, {_constructor(activation)})"
    return Repair(
        name="insert_activation",
        title=f"insert the missing {activation.name} after {_listed(paths)}",
        edit=f"{_expression(paths[0])} = {wrapped}" + (f"  # so at {_listed(paths)}" if len(paths) > 1 else ""),
        size=3,
        source="W₂(W₁x + b₁) + b₂ is one affine map",
        change=partial(_insert_all, paths=paths, activation=activation),
    )


def _insert_all(
    model: nn.Module, generator: torch.Generator | None, *, paths: tuple[str, ...], activation: Activation
) -> nn.Module:
    for path in paths:
        layer = submodule(model, path)
        model = put(model, path, nn.Sequential(layer, module_of(activation)))
    return model


def _dropout(report: Report, census: Census, findings: Findings) -> Repair | None:
    if census.head is None:
        return None
    path = census.head.path
    return Repair(
        name="dropout",
        title="dropout 0.5 before the head",
        edit=f"{_expression(path)} = nn.Sequential(nn.Dropout(0.5), {_expression(path)})",
        size=3,
        source="Srivastava et al. 2014, JMLR 15",
        change=partial(_drop_before, path=path),
    )


def _drop_before(model: nn.Module, generator: torch.Generator | None, *, path: str) -> nn.Module:
    head = submodule(model, path)
    return put(model, path, nn.Sequential(nn.Dropout(0.5), head))


class Temperature(nn.Module):
    """Divides logits by a fixed temperature (Guo et al. 2017, arXiv:1706.04599). Any shape, dtype kept."""

    temperature: Tensor

    def __init__(self, temperature: float) -> None:
        super().__init__()
        if not (math.isfinite(temperature) and temperature > 0):
            raise InputError(f"temperature must be a positive number, not {temperature!r}")
        self.register_buffer("temperature", torch.tensor(float(temperature)))

    def forward(self, input: Tensor) -> Tensor:
        return input / self.temperature.to(input.dtype)

    def extra_repr(self) -> str:
        return f"{self.temperature.item():.4g}"


def temper(model: nn.Module, census: Census, temperature: float, *, inplace: bool = False) -> nn.Module:
    """The model with its logits divided by `temperature`, on a copy unless `inplace`: no prediction changes.

    Fit `temperature` on validation rows (`softknee.verification.fit_temperature`). Raises `InputError` where
    the head is not an affine layer that the census could tell.
    """
    if census.head is None:
        raise InputError("the census names no head, so there are no logits to divide: divide the output by hand")
    path = census.head.path
    model = model if inplace else copy.deepcopy(model)
    head = submodule(model, path)
    scale = Temperature(temperature).to(next((p.device for p in head.parameters()), None))
    return put(model, path, nn.Sequential(head, scale))


def _temperature(report: Report, census: Census, findings: Findings) -> Repair | None:
    if census.head is None:
        return None
    return Repair(
        name="temperature",
        title="divide the logits by a fitted temperature",
        edit="model = softknee.diagnosis.repairs.temper(model, census, T)",
        size=2,
        source="Guo et al. 2017, arXiv:1706.04599",
        by_hand="it is fitted after training and changes no prediction; "
        "T = softknee.verification.fit_temperature(logits, targets) on validation rows, then the edit",
    )


# --- training settings --------------------------------------------------------------------------------------


def _rate(report: Report, census: Census, findings: Findings) -> Repair:
    frozen = bool(findings) and all(finding.symptom == "frozen_update" for finding in findings)
    factor = 10.0 if frozen else 0.1
    return Repair(
        name="raise_learning_rate" if frozen else "lower_learning_rate",
        title=f"learning rate × {factor:g}",
        edit=f"lr = {factor:g} * lr",
        size=1,
        tune=partial(_scale_rate, factor=factor),
    )


def _scale_rate(settings: Settings, *, factor: float) -> Settings:
    return replace(settings, lr_factor=settings.lr_factor * factor)


def _clip(report: Report, census: Census, findings: Findings) -> Repair:
    return Repair(
        name="clip",
        title="clip the gradient norm to 1",
        edit="torch.nn.utils.clip_grad_norm_(model.parameters(), 1.0)  # before optimizer.step()",
        size=1,
        source="Pascanu et al. 2013, arXiv:1211.5063",
        tune=partial(_set, clip_norm=1.0),
    )


def _smooth(report: Report, census: Census, findings: Findings) -> Repair:
    return Repair(
        name="label_smoothing",
        title="label smoothing 0.1",
        edit="loss = F.cross_entropy(logits, targets, label_smoothing=0.1)",
        size=1,
        source="Szegedy et al. 2016, arXiv:1512.00567",
        tune=partial(_set, label_smoothing=0.1),
    )


def _set(settings: Settings, **changes: Any) -> Settings:
    return replace(settings, **changes)


Builder = Callable[[Report, "Census", Findings], "Repair | None"]

BUILDERS: dict[str, tuple[Builder, ...]] = {
    "exact_gain": (partial(_gain, "exact", "exact gain of each activation at initialisation", "softknee.nn.init"),),
    "he_gain": (partial(_gain, "he", "He initialisation", "He et al. 2015, arXiv:1502.01852"),),
    "xavier_gain": (partial(_gain, "xavier", "Xavier initialisation", "Glorot & Bengio 2010, AISTATS"),),
    "insert_activation": (_insert,),
    "revive": (_revive,),
    "swap_activation": (
        partial(_swap, "leaky_relu", "swap to LeakyReLU(0.01)", "Maas et al. 2013"),
        partial(_swap, "gelu", "swap to GELU", "Hendrycks & Gimpel 2016, arXiv:1606.08415"),
    ),
    "swap_with_gain": (_swap_with_gain,),
    "learning_rate": (_rate,),
    "clip": (_clip,),
    "dropout": (_dropout,),
    "label_smoothing": (_smooth,),
    "temperature": (_temperature,),
}
"""What a finding may ask for, by the name it uses. A builder returns None where it could change nothing."""


# --- in words ------------------------------------------------------------------------------------------------


def _constructor(activation: Activation) -> str:
    arguments = ", ".join(f"{name}={value!r}" for name, value in activation.torch_arguments.items())
    # PyTorch's constructors take numbers; what is learned starts at its own default, and no limit is no argument
    numbers = (p.default for p in activation.parameters.values() if not p.learnable and math.isfinite(p.default))
    arguments = arguments or ", ".join(f"{number:g}" for number in numbers)
    if activation.torch_module is not None:
        return f"nn.{activation.torch_module}({arguments})"
    return f"softknee.nn.Activation({activation.name!r})"


def _call(activation: Activation) -> str:
    return f"F.{activation.torch}" if activation.torch is not None else f"softknee.functional.{activation.name}"


def _expression(path: str) -> str:
    """`layers.3.act` as Python: `model.layers[3].act`."""
    return "model" + "".join(f"[{part}]" if part.isdigit() else f".{part}" for part in path.split(".") if part)


def _listed(paths: Iterable[str], most: int = 4) -> str:
    names = [path or "the model itself" for path in dict.fromkeys(paths)]
    return ", ".join(names[:most]) + (f" and {len(names) - most} more" if len(names) > most else "")
