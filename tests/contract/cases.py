"""What every entry is called with: inputs away from its kinks, values of its parameters, noise from a fixed seed."""

from __future__ import annotations

import itertools
import math
from collections.abc import Callable
from typing import Any, NamedTuple

import torch
from torch import Tensor

import softknee
from softknee.catalog import Activation


class Case(NamedTuple):
    """An entry as it is called: a normalizer along its last dimension, a stochastic one in training or not."""

    name: str
    activation: Activation
    options: dict[str, Any]

    @property
    def draws(self) -> bool:
        return self.activation.stochastic and (self.activation.kind == "normalizer" or "training" in self.options)

    @property
    def function(self) -> Callable[..., Tensor]:
        activation, options = self.activation, self.options
        return lambda *inputs, **parameters: activation(*inputs, **options, **parameters)

    @property
    def seeded(self) -> Callable[..., Tensor]:
        """The same with the same noise at each call."""
        function = self.function
        if not self.draws:
            return function

        def call(*inputs: Tensor, **parameters: Any) -> Tensor:
            torch.manual_seed(11)
            return function(*inputs, **parameters)

        return call

    def module(self, **options: Any) -> torch.nn.Module:
        dim = {"dim": -1} if self.activation.kind == "normalizer" else {}
        module = softknee.nn.Activation(self.activation, **dim, **options)
        return module.train("training" in self.options)


def cases() -> list[Case]:
    made = []
    for activation in softknee.activations():
        options = {"dim": -1} if activation.kind == "normalizer" else {}
        made.append(Case(activation.name, activation, options))
        if activation.stochastic and activation.kind == "elementwise":
            made.append(Case(f"{activation.name}-training", activation, {"training": True}))
    return made


def torchs(activation: Activation, *x: Tensor) -> Tensor | None:
    """What PyTorch's own function answers, at the defaults; None where it has none of the same inputs."""
    function = getattr(torch.nn.functional, activation.torch or "", None)
    if function is None or activation.kind == "gated":
        return None
    given = dict(activation.torch_arguments)
    if activation.kind == "normalizer":
        given["dim"] = -1
    if activation.name == "prelu":
        given["weight"] = torch.full((1,), 0.25, dtype=x[0].dtype, device=x[0].device)
    return function(*x, **given)


def inputs(activation: Activation, *shape: int, dtype=torch.float64, grad: bool = True) -> tuple[Tensor, ...]:
    """Random tensors, away from kinks, where differences of the checks would straddle them."""
    generator = torch.Generator().manual_seed(7)
    made = []
    for _ in activation.inputs:
        x = torch.randn(shape, generator=generator, dtype=torch.float64)
        for kink in () if activation.kind == "normalizer" else activation.facts.breakpoints:
            x = torch.where((x - kink).abs() < 1e-2, x + 0.05, x)
        made.append(x.to(dtype).requires_grad_(grad))
    return tuple(made)


def numbers(activation: Activation) -> dict[str, float]:
    """A number for each parameter, near its default but not equal to it; switches and counts are left out."""
    given = {}
    for name, parameter in activation.parameters.items():
        if not isinstance(parameter.default, int):
            default = parameter.default
            given[name] = 1.03 * default + 0.01 if math.isfinite(default) else 2.5
    activation.resolve(given)
    return given


def tensors(activation: Activation, *shape: int, dtype=torch.float64, grad: bool = True) -> dict[str, Tensor]:
    """The same as tensors of a shape, whose elements differ."""
    spread = 1.0 + 0.003 * torch.arange(math.prod(shape), dtype=torch.float64).view(shape)
    made = {name: (value * spread).to(dtype).requires_grad_(grad) for name, value in numbers(activation).items()}
    activation.resolve(made)
    return made


def gradients(y: Tensor, of) -> list[Tensor]:
    """Of a weighted sum, so that elements do not stand in for one another."""
    weights = torch.linspace(0.5, 1.5, y.numel(), dtype=y.dtype, device=y.device).view(y.shape)
    return list(torch.autograd.grad((y * weights).sum(), list(of), allow_unused=True))


def violations(activation: Activation) -> list[tuple[str, float, Any]]:
    """For each condition and each parameter in it, numbers that break it, and the first condition that each breaks."""
    found: dict[tuple[str, str], tuple[str, float, Any]] = {}
    for condition, side in itertools.product(activation.conditions, ("left", "right")):
        name, other = getattr(condition, side), getattr(condition, "right" if side == "left" else "left")
        if isinstance(name, str):
            bound = activation.defaults[other] if isinstance(other, str) else other
            outside = 1.0 if side == "left" else -1.0
            near = (bound + outside, bound + 1e-3 * outside, bound, math.nan)
            for number in (int(near[0]),) if isinstance(activation.defaults[name], int) else near:
                values = activation.defaults | {name: number}
                broken = [c for c in activation.conditions if not c.holds(values)]
                if broken:
                    found[name, f"{number:g}"] = (name, number, broken[0])
    return list(found.values())
