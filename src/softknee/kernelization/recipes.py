"""Which activation a module is, and whether it may be applied in its place: told by its class, else by behaviour.

Every recipe has been tried: values and gradients on random inputs, in float64 and in the module's own dtype.
"""

from __future__ import annotations

import copy
import inspect
from collections.abc import Callable
from typing import Any

import torch
from torch import nn
from torch.overrides import TorchFunctionMode

from ..catalog import get
from ..identification.cores import of_module
from ..identification.matching import tolerance
from ..identification.recognition import Entry, bare
from .substitutes import TABLES, WIDE, Recipe, Substitute, substitute

ROWS, COLUMNS = 64, 16


class Refusal(Exception):
    """Why a module keeps its own forward, in a few words."""


def refuse_altered(module: nn.Module) -> None:
    """Raises Refusal for modules that something else has altered or that are not run as Python."""
    cls = type(module)
    if isinstance(module, torch.jit.ScriptModule):
        raise Refusal("it is TorchScript")
    if "forward" in vars(module):
        raise Refusal("its forward has been replaced on the module itself (by accelerate's hooks, for example)")
    if nn.utils.parametrize.is_parametrized(module):
        raise Refusal("it is parametrized")
    if any(base.__module__.startswith("torch.distributed") for base in cls.__mro__):
        raise Refusal("it is sharded (FSDP); kernelize it before sharding")
    if any("quantized" in base.__module__ for base in cls.__mro__):
        raise Refusal("it is quantized")
    if any("__init_subclass__" in vars(base) for base in cls.__mro__[:-1]):
        raise Refusal("its class does something of its own when a subclass is made")
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
    return Recipe(activation, (), live, wide=activation.torch in WIDE)


def _matched(module: nn.Module, entry: Entry | None, shape: tuple[int, ...] | None) -> Recipe | None:
    state = [name for name, _ in (*module.named_parameters(), *module.named_buffers())]
    try:
        found = of_module(_copied(module).cpu(), shape or (ROWS, COLUMNS), _dtype(module))
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
    return Recipe(activation, constants, tuple(state), wide=_widens(module))


class _Called(TorchFunctionMode):
    def __init__(self) -> None:
        super().__init__()
        self.names: set[str] = set()

    def __torch_function__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        self.names.add(bare(func))
        return func(*args, **(kwargs or {}))


def _widens(module: nn.Module) -> bool:
    """Whether a forward has steps that autocast computes in float32."""
    try:
        with torch.no_grad(), _Called() as called:
            _copied(module).cpu()(torch.zeros(2, COLUMNS, dtype=_dtype(module)))
    except Exception:  # it insists on another shape
        return True
    return not called.names.isdisjoint(WIDE)


def _dtype(module: nn.Module) -> torch.dtype:
    found = next((t.dtype for t in (*module.parameters(), *module.buffers()) if t.is_floating_point()), None)
    return found or torch.get_default_dtype()


# -- trying


def _try(module: nn.Module, found: Recipe, custom: bool) -> None:
    """Raises Refusal where the substitute is not what the module is, in either mode, or a parameter is not followed."""
    if any(t.is_meta for t in (*module.parameters(), *module.buffers())):
        raise Refusal("its parameters are on the meta device, where nothing can be tried")
    theirs = _copied(module).cpu()
    cls = substitute(type(module), found)
    # of a module with parameters per channel, as many channels
    x = _inputs(next((p.numel() for p in module.parameters() if p.numel() > 1), COLUMNS))
    if getattr(module, "dim", -1) not in (-1, 0, 1):
        x = x.reshape(8, 8, 4, -1)
    for moved in (False, True)[: 1 + (custom and bool(found.live))]:
        for dtype in (torch.float64, _dtype(module)):
            for training in (False, True)[: 1 + custom]:
                case = copy.deepcopy(theirs).to(dtype).train(training)
                with torch.no_grad():
                    for name in found.live if moved else ():
                        getattr(case, name).mul_(1.1).add_(0.05)
                ours = copy.deepcopy(case)
                object.__setattr__(ours, "__class__", cls)
                before = dict(vars(case))
                compare(case, ours, x.to(dtype), found.activation.name)
                changed = [k for k, v in vars(case).items() if k not in before or before[k] is not v]
                if changed:
                    raise Refusal(f"its forward changes the module ({', '.join(changed)})")


def _copied(module: nn.Module) -> nn.Module:
    """A copy without hooks: what those hold may be anything."""
    bare = module.__class__.__new__(module.__class__)
    hooks = {name: type(value)() for name, value in vars(module).items() if name.endswith("_hooks") and value}
    vars(bare).update(vars(module) | hooks)
    try:
        return copy.deepcopy(bare)
    except Exception as error:  # whatever the module holds
        raise Refusal(f"it cannot be copied, to be tried: {error}") from None


def _inputs(columns: int) -> torch.Tensor:
    generator = torch.Generator().manual_seed(0)
    return 3 * torch.randn(ROWS, columns, generator=generator, dtype=torch.float64)


def try_function(theirs: Callable[..., Any], ours: Callable[..., Any], name: str) -> None:
    """Raises Refusal where two functions of a tensor are not the same."""
    for dtype in (torch.float64, torch.get_default_dtype()):
        compare(theirs, ours, _inputs(COLUMNS).to(dtype), name)


def compare(theirs: Callable[..., Any], ours: Callable[..., Any], x: torch.Tensor, name: str) -> None:
    """Raises Refusal where values or gradients at `x` differ by more than rounding explains."""
    results = []
    for each in (theirs, ours):
        given = x.clone().requires_grad_()
        learned = [p for p in each.parameters() if p.requires_grad] if isinstance(each, nn.Module) else []
        try:
            with torch.enable_grad(), torch.random.fork_rng(devices=[]):
                y = each(given * 1.0)  # not a leaf: it may work in place
                weights = torch.linspace(-1, 1, y.numel(), dtype=y.dtype).reshape(y.shape)
                grads = torch.autograd.grad((y * weights).sum(), [given, *learned], allow_unused=True)
        except Exception as error:
            whose = "its own forward" if each is theirs else "softknee's"
            raise Refusal(f"{whose} raises {type(error).__name__} when tried: {error}") from None
        results.append((y.detach(), *grads))
    bound = tolerance(x.dtype)
    kinds = [("value", bound), ("gradient", 4 * bound)]
    kinds += [("parameters' gradient", 4 * bound * x.numel() ** 0.5)] * (len(results[0]) - 2)  # a sum
    for (what, allowed), a, b in zip(kinds, *results, strict=True):
        _alike(what, a, b, name, allowed)


def _alike(what: str, theirs: torch.Tensor | None, mine: torch.Tensor | None, name: str, bound: float) -> None:
    if theirs is None or mine is None:
        if theirs is not mine:
            raise Refusal(f"it has {'no' if theirs is None else 'a'} {what}, unlike {name}")
        return
    if (theirs.dtype, theirs.shape) != (mine.dtype, mine.shape):
        kinds = [f"{str(t.dtype).removeprefix('torch.')} {tuple(t.shape)}" for t in (theirs, mine)]
        raise Refusal(f"its {what} is {kinds[0]}, {name}'s {kinds[1]}")
    away = (theirs.double() - mine.double()).abs() / theirs.double().abs().clamp(min=1.0)
    if not float(away.max()) <= bound:
        word = str(theirs.dtype).removeprefix("torch.")
        raise Refusal(
            f"its {what} is not {name}'s: off by {float(away.max()):.2g} in {word}, where rounding explains {bound:.1g}"
        )
