"""What the exhibits are made of: small networks around one activation, the mistakes themselves, and file formats."""

from __future__ import annotations

import json
import warnings
from collections.abc import Callable
from pathlib import Path
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn

WIDTH, HIDDEN = 8, 24


class Act(nn.Module):
    """A function of tensors as the module `act`."""

    def __init__(self, function: Callable[..., Tensor]) -> None:
        super().__init__()
        self.function = function

    def forward(self, *inputs: Tensor) -> Tensor:
        return self.function(*inputs)


def _module(function: Any) -> nn.Module:
    return function if isinstance(function, nn.Module) else Act(function)


class Hidden(nn.Module):
    """norm → up → act → down, and a residual connection."""

    inputs = (WIDTH,)

    def __init__(self, act: Any) -> None:
        super().__init__()
        self.norm = nn.LayerNorm(WIDTH)
        self.up, self.act, self.down = nn.Linear(WIDTH, HIDDEN), _module(act), nn.Linear(HIDDEN, WIDTH)

    def forward(self, x: Tensor) -> Tensor:
        return x + self.down(self.act(self.up(self.norm(x))))


class Gated(nn.Module):
    """Two projections of which one gates the other, by a function of both."""

    inputs = (WIDTH,)

    def __init__(self, act: Any) -> None:
        super().__init__()
        self.gate_proj, self.up_proj = nn.Linear(WIDTH, HIDDEN), nn.Linear(WIDTH, HIDDEN)
        self.act, self.down_proj = _module(act), nn.Linear(HIDDEN, WIDTH)

    def forward(self, x: Tensor) -> Tensor:
        return x + self.down_proj(self.act(self.gate_proj(x), self.up_proj(x)))


class Packed(nn.Module):
    """One projection that holds gate and up; the function takes them apart."""

    inputs = (WIDTH,)

    def __init__(self, act: Any) -> None:
        super().__init__()
        self.gate_up, self.act, self.down = nn.Linear(WIDTH, 2 * HIDDEN), _module(act), nn.Linear(HIDDEN, WIDTH)

    def forward(self, x: Tensor) -> Tensor:
        return x + self.down(self.act(self.gate_up(x)))


class Head(nn.Module):
    """A classifier and what is applied to its scores."""

    inputs = (WIDTH,)

    def __init__(self, act: Any) -> None:
        super().__init__()
        self.linear, self.act = nn.Linear(WIDTH, 5), _module(act)

    def forward(self, x: Tensor) -> Tensor:
        return self.act(self.linear(x))


class Convolution(nn.Module):
    inputs = (3, 8, 8)

    def __init__(self, act: Any) -> None:
        super().__init__()
        self.conv, self.bn, self.act = nn.Conv2d(3, 6, 3, padding=1), nn.BatchNorm2d(6), _module(act)
        self.linear = nn.Linear(6, 4)

    def forward(self, x: Tensor) -> Tensor:
        return self.linear(self.act(self.bn(self.conv(x))).mean((2, 3)))


class Deep(nn.Module):
    """Three blocks, of which only the second may differ."""

    inputs = (WIDTH,)

    def __init__(self, *acts: Any) -> None:
        super().__init__()
        self.layers = nn.ModuleList(Hidden(act) for act in acts)

    def forward(self, x: Tensor) -> Tensor:
        for layer in self.layers:
            x = layer(x)
        return x


# -- the mistakes


def halves(function: Callable[[Tensor, Tensor], Tensor], layout: str = "gate_up") -> Callable[[Tensor], Tensor]:
    def packed(x: Tensor) -> Tensor:
        if layout == "interleaved":
            return function(x[..., ::2], x[..., 1::2])
        first, second = x.chunk(2, dim=-1)
        return function(first, second) if layout == "gate_up" else function(second, first)

    return packed


def product(function: Callable[[Tensor], Tensor]) -> Callable[[Tensor, Tensor], Tensor]:
    return lambda gate, up: function(gate) * up


def gelu_tanh(x: Tensor) -> Tensor:
    return F.gelu(x, approximate="tanh")


def relu2(x: Tensor) -> Tensor:
    return F.relu(x).square()


def quick(constant: float) -> Callable[[Tensor], Tensor]:
    return lambda x: x * torch.sigmoid(constant * x)


def gelu_without_the_root(x: Tensor) -> Tensor:
    """2/π where √(2/π) should stand."""
    return 0.5 * x * (1 + torch.tanh(0.63661977 * (x + 0.044715 * x**3)))


def gelu_with_swapped_coefficients(x: Tensor) -> Tensor:
    return 0.5 * x * (1 + torch.tanh(x * 0.044715 * (1 + 0.7978845608 * x * x)))


def gelu_by_a_table(x: Tensor) -> Tensor:
    """The tanh form looked up in 65,536 entries of half precision."""
    return gelu_tanh(x.half().to(x.dtype)).half().to(x.dtype)


def tanh_too_large(x: Tensor) -> Tensor:
    """A rational approximation that goes on to 1.044 where it should end at 1."""
    return 1.044 * torch.tanh(x / 1.044)


def gelu_of_it(x: Tensor) -> Tensor:
    return 0.5 * x * (1 + tanh_too_large(0.7978845608 * (x + 0.044715 * x**3)))


def gelu_that_breaks(x: Tensor) -> Tensor:
    """NaN below −13."""
    return torch.where(x < -13, torch.nan, F.gelu(x))


def swiglu_oai(limit: float) -> Callable[[Tensor, Tensor], Tensor]:
    def function(gate: Tensor, up: Tensor) -> Tensor:
        gate, up = gate.clamp(max=limit), up.clamp(-limit, limit)
        return gate * torch.sigmoid(1.702 * gate) * (up + 1)

    return function


def clamped_before(gate: Tensor, up: Tensor) -> Tensor:
    return F.silu(gate.clamp(max=10.0)) * up.clamp(-10.0, 10.0)


def clamped_after(gate: Tensor, up: Tensor) -> Tensor:
    return F.silu(gate).clamp(max=10.0) * up.clamp(-10.0, 10.0)


def clamped_as_a_whole(gate: Tensor, up: Tensor) -> Tensor:
    return (F.silu(gate) * up).clamp(-10.0, 10.0)


def clamped_on_both_sides(gate: Tensor, up: Tensor) -> Tensor:
    return F.silu(gate.clamp(-10.0, 10.0)) * up.clamp(-10.0, 10.0)


def softcap(cap: float) -> Callable[[Tensor], Tensor]:
    return lambda x: cap * torch.tanh(x / cap)


# -- formats: a network → what `identify` is given


Target = Callable[[nn.Module, Path], tuple]


def example(model: nn.Module) -> Tensor:
    return torch.linspace(-2, 2, 2 * int(torch.tensor(model.inputs).prod())).reshape(2, *model.inputs)


def live(model: nn.Module, folder: Path) -> tuple:
    return model, example(model)


def onnx(opset: int, dynamo: bool = False) -> Target:
    def write(model: nn.Module, folder: Path) -> tuple:
        path = folder / f"{type(model).__name__}-{id(model)}.onnx"
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # the exporters' own deprecations
            torch.onnx.export(
                model.eval(), (example(model),), str(path), opset_version=opset, dynamo=dynamo, verbose=False
            )
        return (path,)

    return write


def _program(model: nn.Module) -> torch.export.ExportedProgram:
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", UserWarning)  # of the flat weights that recurrent modules keep
        return torch.export.export(model.eval(), (example(model),))


def exported(decomposed: bool) -> Target:
    def write(model: nn.Module, folder: Path) -> tuple:
        program = _program(model)
        return (program.run_decompositions() if decomposed else program,)

    return write


def archive(model: nn.Module, folder: Path) -> tuple:
    """A torch.export archive."""
    path = folder / f"{id(model)}.pt2"
    torch.export.save(_program(model), str(path))
    return (path,)


def scripted(model: nn.Module, folder: Path) -> tuple:
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        return (torch.jit.trace(model.eval(), example(model)),)


def config(folder: Path, **keys: Any) -> tuple:
    """A config.json of these keys."""
    path = folder / f"{len(list(folder.iterdir()))}" / "config.json"
    path.parent.mkdir(parents=True)
    path.write_text(json.dumps(keys))
    return (path,)
