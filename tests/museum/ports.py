"""Clean ports: the same model in another format, of which nothing may be flagged."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import rooms
import torch
import torch.nn.functional as F
from rooms import Convolution, Deep, Gated, Head, Hidden, Packed, gelu_tanh, halves, product, relu2
from torch import Tensor, nn


@dataclass(frozen=True)
class Port:
    """before, after: make what `identify` is given, in a folder. slow: takes more than a second."""

    name: str
    before: Callable[[Path], tuple]
    after: Callable[[Path], tuple]
    slow: bool = False


class Attention(nn.Module):
    """A block with attention written out, a gated feed-forward part, norms and residuals."""

    inputs = (5, 8)

    def __init__(self, act: Callable[[Tensor], Tensor], fused: bool = False) -> None:
        super().__init__()
        self.qkv, self.out = nn.Linear(8, 24), nn.Linear(8, 8)
        self.gate, self.up, self.down = nn.Linear(8, 16), nn.Linear(8, 16), nn.Linear(16, 8)
        self.first, self.second, self.act, self.fused = nn.LayerNorm(8), nn.LayerNorm(8), rooms.Act(act), fused

    def forward(self, x: Tensor) -> Tensor:
        q, k, v = self.qkv(self.first(x)).chunk(3, dim=-1)
        if self.fused:
            mixed = F.scaled_dot_product_attention(q[:, None], k[:, None], v[:, None])[:, 0]  # heads, as exporters want
        else:
            mixed = torch.softmax(q @ k.transpose(-1, -2) / 8**0.5, dim=-1) @ v
        x = x + self.out(mixed)
        hidden = self.second(x)
        return x + self.down(self.act(self.gate(hidden)) * self.up(hidden))


class Squeeze(nn.Module):
    """Squeeze and excite: a sigmoid that scales channels, behind a convolution with hard swish."""

    inputs = (4, 6, 6)

    def __init__(self) -> None:
        super().__init__()
        self.conv, self.bn, self.act = nn.Conv2d(4, 8, 3), nn.BatchNorm2d(8), nn.Hardswish()
        self.reduce, self.relu, self.expand, self.gate = nn.Linear(8, 2), nn.ReLU(), nn.Linear(2, 8), nn.Hardsigmoid()

    def forward(self, x: Tensor) -> Tensor:
        x = self.act(self.bn(self.conv(x)))
        scale = self.gate(self.expand(self.relu(self.reduce(x.mean((2, 3))))))
        return x * scale[:, :, None, None]


class Recurrent(nn.Module):
    inputs = (4, 6)

    def __init__(self, kind: type[nn.RNNBase]) -> None:
        super().__init__()
        self.rnn, self.head = kind(6, 5, batch_first=True), nn.Linear(5, 2)

    def forward(self, x: Tensor) -> Tensor:
        return self.head(self.rnn(x)[0][:, -1])


def _network(make: Callable[[], nn.Module]) -> Callable[[], nn.Module]:
    def build() -> nn.Module:
        torch.manual_seed(0)
        return make().eval()

    return build


NETWORKS: dict[str, Callable[[], nn.Module]] = {
    name: _network(make)
    for name, make in {
        "relu": lambda: Convolution(nn.ReLU()),
        "relu6": lambda: Convolution(nn.ReLU6()),
        "leaky_relu": lambda: Convolution(nn.LeakyReLU(0.2)),
        "prelu": lambda: Convolution(nn.PReLU(6)),
        "elu": lambda: Hidden(nn.ELU(0.7)),
        "selu": lambda: Hidden(nn.SELU()),
        "celu": lambda: Hidden(nn.CELU(0.5)),
        "gelu": lambda: Deep(nn.GELU(), nn.GELU(), nn.GELU()),
        "gelu_tanh": lambda: Hidden(nn.GELU("tanh")),
        "quick_gelu": lambda: Hidden(rooms.quick(1.702)),
        "silu": lambda: Deep(nn.SiLU(), nn.SiLU(), nn.SiLU()),
        "mish": lambda: Convolution(nn.Mish()),
        "hardswish": lambda: Convolution(nn.Hardswish()),
        "hardsigmoid": lambda: Hidden(nn.Hardsigmoid()),
        "hardtanh": lambda: Hidden(nn.Hardtanh(-2.0, 2.0)),
        "softplus": lambda: Hidden(nn.Softplus()),
        "softsign": lambda: Hidden(nn.Softsign()),
        "tanh": lambda: Hidden(nn.Tanh()),
        "sigmoid": lambda: Head(nn.Sigmoid()),
        "softmax": lambda: Head(nn.Softmax(-1)),
        "log_softmax": lambda: Head(nn.LogSoftmax(-1)),
        "tanhshrink": lambda: Hidden(nn.Tanhshrink()),
        "logsigmoid": lambda: Head(nn.LogSigmoid()),
        "relu2": lambda: Hidden(relu2),
        "softcap": lambda: Head(rooms.softcap(30.0)),
        "swiglu": lambda: Gated(product(F.silu)),
        "geglu": lambda: Packed(halves(product(F.gelu))),
        "geglu_tanh": lambda: Gated(product(gelu_tanh)),
        "glu": lambda: Packed(nn.GLU()),
        "swiglu_oai": lambda: Packed(halves(rooms.swiglu_oai(7.0), "interleaved")),
        "swiglu_clamped": lambda: Gated(rooms.clamped_before),
        "attention, swiglu": lambda: Attention(F.silu),
        "attention, fused, geglu": lambda: Attention(F.gelu, fused=True),
        "squeeze and excite": Squeeze,
        "lstm": lambda: Recurrent(nn.LSTM),
        "gru": lambda: Recurrent(nn.GRU),
    }.items()
}  # fmt: skip

FORMATS: dict[str, tuple[rooms.Target, bool]] = {
    "onnx 14": (rooms.onnx(14), False),
    "onnx 17": (rooms.onnx(17), False),
    "onnx 20": (rooms.onnx(20), False),
    "onnx 18, dynamo": (rooms.onnx(18, dynamo=True), True),
    "onnx 20, dynamo": (rooms.onnx(20, dynamo=True), True),
    "export": (rooms.exported(False), False),
    "export, decomposed": (rooms.exported(True), True),
    "export archive": (rooms.archive, False),
    "torchscript": (rooms.scripted, False),
}


def _made(network: Callable[[], nn.Module], form: rooms.Target) -> Callable[[Path], tuple]:
    return lambda folder: form(network(), folder)


def _ports() -> list[Port]:
    return [
        Port(f"{name} → {word}", _made(network, rooms.live), _made(network, form), slow)
        for name, network in NETWORKS.items()
        for word, (form, slow) in FORMATS.items()
    ]


PORTS: list[Port] = _ports()


def verdict(before: Any, after: Any) -> list[str]:
    """What is flagged of a port: differences, conflicts, unknown sites, as lines."""
    found = before.against(after)
    return [*map(str, found.differences), *map(str, (*before.conflicts, *after.conflicts))]
