"""Modules that apply an activation. They hold state only; the work is `kernels.dispatch.call`.

`Activation` applies any entry of the catalog. The named classes (`SiLU`, `LeakyReLU`, `SwiGLU`, …) are made from the
registry; where PyTorch has the class, ours has its name, arguments and state_dict.
"""

from __future__ import annotations

import functools
from typing import Any

import torch
from torch import Tensor, nn

from ..catalog import Activation as Definition
from ..catalog import activations, get
from ..catalog.activation import LAYOUTS
from ..errors import InputError
from ..kernels.dispatch import call, per_channel
from ..kernels.packed import call_packed


class Activation(nn.Module):
    """Applies a catalog activation.

    activation: a name or an `Activation`. channels: learnable parameters are one value, or one per channel (dimension
    1 of an input with more than one dimension, else the last). learn: names of further parameters to learn. Other
    keywords are the activation's parameters. A gated activation takes gate and up, or one packed tensor, split along
    `dim` by `layout`; a normalizer works along `dim`. Parameters that are not learned are attributes that one may
    set, as PyTorch's; a state dict that holds one (transformers' XIELU: beta, eps) sets it.

    Raises InputError for unknown names, parameters out of range, a tensor for a parameter that is not learned (it would
    be no state), `channels` that do not match the input.
    """

    def __init__(
        self,
        activation: str | Definition,
        *,
        inplace: bool = False,
        channels: int = 1,
        learn: tuple[str, ...] = (),
        dim: int | None = None,
        layout: str | None = None,
        device: Any = None,
        dtype: torch.dtype | None = None,
        **parameters: Any,
    ) -> None:
        super().__init__()
        self.activation = get(activation)
        if not isinstance(inplace, bool):
            raise InputError(f"{self.activation.name}: inplace must be True or False, got {inplace!r}")
        if inplace and self.activation.kind != "elementwise":
            raise InputError(f"{self.activation.name} is {self.activation.kind} and does not work in place")
        self.inplace = inplace
        self.layout = layout or self.activation.layout
        if layout is not None and (self.activation.kind != "gated" or layout not in LAYOUTS[1:]):
            raise InputError(
                f"{self.activation.name}: layout={layout!r} is unknown; for a gated activation it is one of "
                f"{', '.join(LAYOUTS[1:])}"
            )
        if isinstance(dim, bool):
            raise InputError(f"{self.activation.name}: dim must be a whole number, got {dim}")
        self.dim = self.activation.dim if dim is None else dim
        if self.activation.kind == "normalizer" and self.dim is None:
            raise InputError(f"{self.activation.name} needs dim, the dimension along which it works; for scores dim=-1")
        whole = isinstance(channels, int) and not isinstance(channels, bool)
        learns = any(p.learnable for p in self.activation.parameters.values())
        several = self.activation.kind == "elementwise" or (self.activation.kind == "normalizer" and learns)
        if not whole or channels < 1 or (channels > 1 and not several):
            allowed = "a whole number of at least 1" if several else "1"
            raise InputError(f"{self.activation.name}: channels must be {allowed}, got {channels!r}")
        resolved = self.activation.resolve(parameters)
        if isinstance(learn, str):
            raise InputError(f"learn must be a tuple of names, got the string {learn!r}")
        for name in learn:
            if name not in resolved:
                raise InputError(f"{self.activation.name} has no parameter {name!r} to learn")
        self.learned = tuple(n for n, p in self.activation.parameters.items() if p.learnable or n in learn)
        self.settings = {name: value for name, value in resolved.items() if name not in self.learned}
        for name, value in self.settings.items():
            if isinstance(value, Tensor):
                raise InputError(f"{self.activation.name}: {name} is a tensor; to learn it pass learn=({name!r},)")
        for name in self.learned:
            value = torch.as_tensor(resolved[name], dtype=dtype or torch.get_default_dtype(), device=device)
            if value.ndim > 1 or value.numel() not in (1, channels):
                raise InputError(
                    f"{self.activation.name}: {name} of shape {tuple(value.shape)} does not fit channels={channels}; "
                    f"it must be one value{f', or {channels}' if channels > 1 else ''}"
                )
            self.register_parameter(name, nn.Parameter(value.detach().expand(channels).clone()))

    def forward(self, *inputs: Tensor) -> Tensor:
        act = self.activation
        if not inputs or not isinstance(inputs[0], Tensor):
            return call(act, *inputs)  # which says what is wrong
        # what is at its default is left out: the call is shorter
        parameters = {name: value for name, value in self.settings.items() if value != act.defaults[name]}
        for name in self.learned:
            parameters[name] = per_channel(act, name, getattr(self, name), inputs[0])
        if act.kind == "normalizer":
            return call(act, *inputs, dim=self.dim, **parameters)
        if act.kind == "gated":
            if len(inputs) == 1:
                return call_packed(act, inputs[0], -1 if self.dim is None else self.dim, str(self.layout), **parameters)
            return call(act, *inputs, **parameters)
        if act.stochastic:
            parameters["training"] = self.training
        return call(act, *inputs, inplace=self.inplace, **parameters)

    def __getattr__(self, name: str) -> Any:
        settings = self.__dict__.get("settings", {})
        return settings[name] if name in settings else super().__getattr__(name)

    def __setattr__(self, name: str, value: Any) -> None:
        settings = self.__dict__.get("settings", {})
        if name in settings:
            settings[name] = self.activation.resolve(settings | {name: value})[name]
        else:
            super().__setattr__(name, value)

    def _load_from_state_dict(self, state_dict: dict[str, Any], prefix: str, *args: Any) -> None:
        held = {n: torch.as_tensor(state_dict[prefix + n]) for n in self.settings if prefix + n in state_dict}
        for name, value in held.items():
            if value.numel() != 1:
                raise InputError(f"{prefix}{name} must be one value, got a tensor of shape {tuple(value.shape)}")
        if held:
            values = self.activation.resolve({name: value.item() for name, value in held.items()})
            self.settings |= {name: values[name] for name in held}
            state_dict = {key: value for key, value in state_dict.items() if key.removeprefix(prefix) not in held}
        super()._load_from_state_dict(state_dict, prefix, *args)

    def extra_repr(self) -> str:
        given = {k: v for k, v in self.settings.items() if v != self.activation.defaults[k]}
        words = [repr(self.activation.name)] if type(self) is Activation else []
        words += [f"{k}={v}" for k, v in given.items()]
        words += [f"{name}: {getattr(self, name).numel()} learned" for name in self.learned]
        words += [f"dim={self.dim}"] if self.dim is not None else []
        words += [f"layout={self.layout!r}"] if self.layout != self.activation.layout else []
        return ", ".join(words + (["inplace=True"] if self.inplace else []))


@functools.cache
def _named(definition: Definition) -> type[Activation]:
    names = list(definition.parameters)
    if definition.kind == "elementwise":
        names.append("inplace")
    else:
        names.insert(0, "dim")

    def __init__(self: Activation, *args: Any, **kwargs: Any) -> None:
        if len(args) > len(names):
            raise TypeError(
                f"{definition.class_name} takes {', '.join(names) or 'no arguments'}; got {len(args)} arguments"
            )
        Activation.__init__(self, definition, **dict(zip(names, args, strict=False)), **kwargs)

    members = {"__init__": __init__, "__doc__": definition.__doc__, "__module__": __name__}
    return type(definition.class_name, (Activation,), members)


CLASSES: dict[str, type[Activation]] = {}
for _definition in activations():
    CLASSES[_definition.class_name] = globals()[_definition.class_name] = _named(_definition)


def __getattr__(name: str) -> type[Activation]:
    # what was registered later
    for definition in activations():
        if definition.class_name == name:
            return _named(definition)
    raise AttributeError(f"module 'softknee.nn' has no attribute {name!r}")


class PReLU(Activation):
    """`torch.nn.PReLU`: num_parameters slopes (1, or one per channel) that start at `init`."""

    def __init__(self, num_parameters: int = 1, init: float = 0.25, device: Any = None, dtype: Any = None) -> None:
        super().__init__("prelu", channels=num_parameters, weight=init, device=device, dtype=dtype)
        self.num_parameters, self.init = num_parameters, init


class GELU(Activation):
    """`torch.nn.GELU`: approximate is "none" (exact) or "tanh"."""

    def __init__(self, approximate: str = "none") -> None:
        variants = {a.torch_arguments["approximate"]: a for a in activations() if a.torch == "gelu"}
        if approximate not in variants:
            raise InputError(f"approximate={approximate!r} is unknown; it must be one of {', '.join(variants)}")
        super().__init__(variants[approximate])
        self.approximate = approximate

    def extra_repr(self) -> str:
        return f"approximate={self.approximate!r}"


class Identity(Activation):
    """`torch.nn.Identity`: takes any arguments and ignores them."""

    def __init__(self, *args: Any, **kwargs: Any) -> None:
        super().__init__("identity")


CLASSES |= {"PReLU": PReLU, "GELU": GELU, "Identity": Identity}
