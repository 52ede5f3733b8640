"""Which activation a module is, and whether it may be applied in its place: told by its class, else by behaviour.

Every recipe has been tried: values and gradients on random inputs, in float64 and in the module's own dtype.
"""

from __future__ import annotations

import copy
import inspect
from typing import Any

import torch
from torch import nn

from ..catalog import get
from ..identification.cores import of_module
from ..identification.matching import match, tolerance
from ..identification.recognition import Entry
from .substitutes import TABLES, Recipe, Substitute, substitute

ROWS, COLUMNS = 64, 16


class Refusal(Exception):
    """Why a module keeps its own forward, in a few words."""


def refuse_altered(module: nn.Module) -> None:
    """Raises Refusal for modules that something else has altered or that are not run as Python."""
    cls = type(module)
    if isinstance(module, torch.jit.ScriptModule):
        raise Refusal("it is TorchScript")
    if isinstance(module, torch.fx.GraphModule):
        raise Refusal("it is a traced graph")
    if "forward" in vars(module):
        raise Refusal("its forward has been replaced on the module itself (by accelerate's hooks, for example)")
    if nn.utils.parametrize.is_parametrized(module):
        raise Refusal("it is parametrized")
    if any(base.__module__.startswith("torch.distributed") for base in cls.__mro__):
        raise Refusal("it is sharded (FSDP); kernelize it before sharding")
    if any("quantized" in base.__module__ for base in cls.__mro__):
        raise Refusal("it is quantized")
    if cls.__reduce_ex__ is not object.__reduce_ex__ or cls.__reduce__ is not object.__reduce__:
        raise Refusal("it pickles in a way of its own")


def recipe(module: nn.Module, shape: tuple[int, ...] | None = None) -> Recipe | None:
    """How to apply an activation module; None for one that is no activation. shape: of its inputs, where it insists.

    Raises Refusal for an activation that must stay as it is.
    """
    entry = TABLES.of_module(module)
    custom = entry is None
    if custom and not _may_be(module):
        return None
    if isinstance(module, Substitute) or (entry is not None and entry.activation and hasattr(module, "settings")):
        raise Refusal("it is softknee's already")
    if entry is not None:
        refuse_altered(module)
    found = _declared(module, entry) if entry is not None and entry.activation else _matched(module, entry, shape)
    if found is not None:
        refuse_altered(module)
        _try(module, found, custom)
    return found


def _may_be(module: nn.Module) -> bool:
    """Whether a module of somebody's class could be an activation: no children, one input, no matrices."""
    if next(module.children(), None) is not None or type(module).__module__.startswith("torch."):
        return False
    if isinstance(module, torch.jit.ScriptModule) or any(p.ndim > 1 for p in module.parameters()):
        return False
    try:
        parameters = list(inspect.signature(type(module).forward).parameters.values())[1:]
    except (TypeError, ValueError):
        return False
    needed = [p for p in parameters if p.default is p.empty and p.kind in (p.POSITIONAL_ONLY, p.POSITIONAL_OR_KEYWORD)]
    return len(needed) == 1 and not any(p.kind is p.KEYWORD_ONLY and p.default is p.empty for p in parameters)


def _declared(module: nn.Module, entry: Entry) -> Recipe:
    activation = entry.activation
    assert activation is not None
    if activation.stochastic:
        raise Refusal("it draws random numbers, and softknee would draw others")
    if activation.kind == "normalizer" and getattr(module, "dim", activation.dim) is None:
        raise Refusal("its dim is left to PyTorch's guess; set it")
    live = tuple(name for name in activation.parameters if hasattr(module, name))
    return Recipe(activation, (), live)


def _matched(module: nn.Module, entry: Entry | None, shape: tuple[int, ...] | None) -> Recipe | None:
    state = [name for name, _ in (*module.named_parameters(), *module.named_buffers())]
    try:
        found = of_module(module, shape or (ROWS, COLUMNS), _dtype(module))
    except Exception:  # somebody's module, on values it was not made for
        found = None
    if found is None:
        if entry is not None:
            raise Refusal(f"the catalog has no {entry.name}")
        return None
    if found.activation is None:
        raise Refusal(found.describe())
    activation = get(found.activation)
    if activation.kind != "elementwise":
        raise Refusal(f"it is {found.activation} along a dimension that it chooses itself")
    foreign = [name for name in state if name not in activation.parameters]
    if foreign or (state and not set(state) <= set(activation.parameters)):
        raise Refusal(f"it is {found.describe()}, but holds {', '.join(foreign)}, which softknee's does not have")
    constants = tuple((n, v) for n, v in found.parameters.items() if n not in state and v != activation.defaults[n])
    return Recipe(activation, constants, tuple(state))


def _dtype(module: nn.Module) -> torch.dtype:
    found = next((t.dtype for t in (*module.parameters(), *module.buffers()) if t.is_floating_point()), None)
    return found or torch.get_default_dtype()


# -- trying


def _try(module: nn.Module, found: Recipe, custom: bool) -> None:
    """Raises Refusal where the substitute is not what the module is, in either mode, or a parameter is not followed."""
    theirs = copy.deepcopy(module)
    for hooks in ("_forward_hooks", "_forward_pre_hooks", "_backward_hooks", "_backward_pre_hooks"):
        getattr(theirs, hooks).clear()
    if any(t.is_meta for t in (*theirs.parameters(), *theirs.buffers())):
        raise Refusal("its parameters are on the meta device, where nothing can be tried")
    theirs = theirs.cpu()
    cls = substitute(type(module), found)
    generator = torch.Generator().manual_seed(0)
    # enough rows for one channel each of a module with parameters per channel
    channels = max([COLUMNS, *(p.numel() for p in module.parameters())])
    x = 3 * torch.randn(ROWS, channels, generator=generator, dtype=torch.float64)
    if type(module).__name__ == "Softmax2d" or getattr(module, "dim", -1) not in (-1, 0, 1):
        x = x.reshape(8, 8, 4, -1)
    for moved in (False, True)[: 1 + (custom and bool(found.live))]:
        for dtype in (torch.float64, _dtype(module)):
            for training in (False, True)[: 1 + custom]:
                case = copy.deepcopy(theirs).to(dtype).train(training)
                with torch.no_grad():
                    for name in found.live if moved else ():
                        getattr(case, name).mul_(1.1).add_(0.05)
                _compare(case, cls, x.to(dtype), found.activation.name)


def _compare(module: nn.Module, cls: type, x: torch.Tensor, name: str) -> None:
    ours = copy.deepcopy(module)
    object.__setattr__(ours, "__class__", cls)
    before = dict(vars(module))
    results = []
    for each in (module, ours):
        given = x.clone().requires_grad_()
        try:
            with torch.enable_grad(), torch.random.fork_rng(devices=[]):
                y = each(given * 1.0)  # not a leaf: it may work in place
                weights = torch.linspace(-1, 1, y.numel(), dtype=y.dtype).reshape(y.shape)
                leaves = [given, *(p for p in each.parameters() if p.requires_grad)]
                grads = torch.autograd.grad((y * weights).sum(), leaves, allow_unused=True)
        except Exception as error:
            whose = "its own forward" if each is module else "softknee's"
            raise Refusal(f"{whose} raises {type(error).__name__} when tried: {error}") from None
        results.append((y.detach(), *grads))
    changed = [key for key, value in vars(module).items() if key not in before or before[key] is not value]
    if changed:
        raise Refusal(f"its forward changes the module ({', '.join(changed)})")
    word = str(x.dtype).removeprefix("torch.")
    for what, theirs, mine in zip(("values", "gradient", *("parameters' gradient" for _ in results[0][2:])), *results, strict=True):
        if theirs is None or mine is None:
            if theirs is not mine:
                raise Refusal(f"its {what} are not {name}'s: one of them has none")
            continue
        if theirs.dtype != mine.dtype or theirs.shape != mine.shape:
            raise Refusal(f"its {what} are {theirs.dtype} {tuple(theirs.shape)}, {name}'s {mine.dtype} {tuple(mine.shape)}")
        bound = tolerance(x.dtype) * (1 if what == "values" else 4)
        if what == "parameters' gradient":  # a sum
            bound *= max(1.0, x.numel() ** 0.5)
        away = (theirs.double() - mine.double()).abs() / theirs.double().abs().clamp(min=1.0)
        if not float(away.max()) <= bound:
            raise Refusal(
                f"its {what} are not {name}'s in {word}: off by {float(away.max()):.2g}, more than rounding ({bound:.1g})"
            )


