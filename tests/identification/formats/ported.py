"""Small torch models whose exports must have the live model's census: every activation module, spellings, blocks."""

from __future__ import annotations

import math
import warnings
from collections.abc import Callable
from typing import Any

import torch
import torch.nn.functional as F
from torch import nn

import softknee


def exported(model: nn.Module, x: torch.Tensor, decomposed: bool = False, **options: Any) -> Any:
    """torch.export's program of a model, without the warnings of torch's own code."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        program = torch.export.export(model, (x,), **options)
        return program.run_decompositions() if decomposed else program


class Between(nn.Module):
    """linear → function → linear."""

    def __init__(self, function: Callable[[torch.Tensor], torch.Tensor], width: int = 6) -> None:
        super().__init__()
        self.function = function
        self.a, self.b = nn.Linear(width, width), nn.Linear(width, 3)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return self.b(self.function(self.a(x)))


def modules() -> dict[str, nn.Module]:
    """Every activation module of torch that the catalog has, as the registry names them."""
    made = {}
    for activation in softknee.activations():
        if activation.torch_module and activation.torch_module != "Identity" and activation.kind == "elementwise":
            made[activation.name] = getattr(nn, activation.torch_module)(**activation.torch_arguments or {})
    return made


SPELLINGS: dict[str, tuple[Callable[[torch.Tensor], torch.Tensor], str | None]] = {
    "gelu": (lambda x: 0.5 * x * (1 + torch.erf(x / math.sqrt(2))), "gelu"),
    "gelu by erfc": (lambda x: x * 0.5 * torch.erfc(-x / math.sqrt(2)), "gelu"),
    "gelu_tanh by a power": (lambda x: 0.5 * x * (1 + torch.tanh(0.7978845608 * (x + 0.044715 * x**3))), "gelu_tanh"),
    "gelu_tanh by products": (
        lambda x: 0.5 * x * (1 + torch.tanh(0.7978845608 * x * (1 + 0.044715 * x * x))), "gelu_tanh",
    ),
    "quick_gelu": (lambda x: x * torch.sigmoid(1.702 * x), "quick_gelu"),
    "silu": (lambda x: x / (1 + torch.exp(-x)), "silu"),
    "mish": (lambda x: x * torch.tanh(F.softplus(x)), "mish"),
    "hardswish": (lambda x: x * (x + 3).clamp(0, 6) / 6, "hardswish"),
    "relu2": (lambda x: F.relu(x) ** 2, "relu2"),
    "leaky_relu": (lambda x: torch.where(x > 0, x, 0.2 * x), "leaky_relu"),
    "relu by a mask": (lambda x: x.masked_fill(x < 0, 0.0), "relu"),
    "relu by a product": (lambda x: x * (x > 0), "relu"),
    "relu in place": (lambda x: F.relu_(x + 1), "relu"),
    "relu by assignment": (lambda x: _assigned(x), "relu"),
    "softcap": (lambda x: 30 * torch.tanh(x / 30), "softcap"),
    "1.773 is not 1.702": (lambda x: x * torch.sigmoid(1.773 * x), "swish"),
    "swapped coefficients": (lambda x: 0.5 * x * (1 + torch.tanh(0.044715 * (x + 0.7978845608 * x**3))), None),
    "a wrong coefficient": (lambda x: 0.5 * x * (1 + torch.tanh(0.7978845608 * (x + 0.44715 * x**3))), None),
    "a cube": (lambda x: F.relu(x) ** 3, None),
}  # fmt: skip


def _assigned(x: torch.Tensor) -> torch.Tensor:
    x = x.clone()
    x[x < 0] = 0.0
    return x


class RMSNorm(nn.Module):
    def __init__(self, width: int) -> None:
        super().__init__()
        self.weight = nn.Parameter(torch.ones(width))

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return x * torch.rsqrt(x.pow(2).mean(-1, keepdim=True) + 1e-6) * self.weight


class Attention(nn.Module):
    def __init__(self, width: int = 8) -> None:
        super().__init__()
        self.qkv, self.out = nn.Linear(width, 3 * width), nn.Linear(width, width)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        q, k, v = self.qkv(x).chunk(3, -1)
        weights = F.softmax(q @ k.transpose(-1, -2) / 2.8, -1)
        return self.out(weights @ v)


class Gated(nn.Module):
    """A feed-forward whose gate and up come out of one map: halves, or (clamped) every second."""

    def __init__(self, interleaved: bool, width: int = 8) -> None:
        super().__init__()
        self.gate_up, self.down = nn.Linear(width, 4 * width), nn.Linear(2 * width, width)
        self.interleaved = interleaved

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        h = self.gate_up(x)
        if self.interleaved:
            gate, up = h[..., ::2], h[..., 1::2]
            gate, up = gate.clamp(max=7.0), up.clamp(-7.0, 7.0)
            return self.down((up + 1) * (gate * torch.sigmoid(gate * 1.702)))
        gate, up = h.chunk(2, -1)
        return self.down(F.silu(gate) * up)


class Block(nn.Module):
    def __init__(self, feed_forward: nn.Module, norm: type[nn.Module], width: int = 8) -> None:
        super().__init__()
        self.norm1, self.attention = norm(width), Attention(width)
        self.norm2, self.feed_forward = norm(width), feed_forward

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        x = x + self.attention(self.norm1(x))
        return x + self.feed_forward(self.norm2(x))


class Convolutions(nn.Module):
    """A squeeze-and-excite block with in-place activations."""

    def __init__(self) -> None:
        super().__init__()
        self.stem, self.norm = nn.Conv2d(3, 8, 3), nn.BatchNorm2d(8)
        self.squeeze, self.excite, self.head = nn.Conv2d(8, 2, 1), nn.Conv2d(2, 8, 1), nn.Linear(8, 5)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        y = F.relu_(self.norm(self.stem(x)))
        y = y * torch.sigmoid(self.excite(F.relu(self.squeeze(F.adaptive_avg_pool2d(y, 1)))))
        return self.head(F.adaptive_avg_pool2d(y, 1).flatten(1))


class Reused(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.a, self.act, self.b = nn.Linear(8, 8), nn.SiLU(), nn.Linear(8, 8)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return self.act(self.b(self.act(self.a(x))))


class Recurrent(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.lstm, self.gru, self.rnn = nn.LSTM(8, 4, 2), nn.GRU(4, 4), nn.RNN(4, 4, nonlinearity="relu")

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return self.rnn(self.gru(self.lstm(x)[0])[0])[0]


class Attentive(nn.Module):
    """Both of torch's attentions, and the fused one as a function."""

    def __init__(self) -> None:
        super().__init__()
        self.one, self.other = nn.MultiheadAttention(8, 2, batch_first=True), nn.MultiheadAttention(8, 2)
        self.out = nn.Linear(8, 8)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        x = self.one(x, x, x)[0] + self.other(x, x, x, need_weights=False)[0]
        return self.out(F.scaled_dot_product_attention(x, x, x))


def blocks() -> dict[str, tuple[nn.Module, torch.Tensor]]:
    x = torch.randn(2, 3, 8)
    layer = nn.TransformerEncoderLayer(8, 2, 16, batch_first=True, activation="gelu")
    models: dict[str, nn.Module] = {
        "gated": nn.Sequential(Block(Gated(False), RMSNorm), Block(Gated(True), RMSNorm)),
        "plain": Block(nn.Sequential(nn.Linear(8, 16), nn.GELU(), nn.Linear(16, 8)), nn.LayerNorm),
        "reused": Reused(),
        "encoder": nn.TransformerEncoder(layer, 2),
        "encoder layer": nn.TransformerEncoderLayer(8, 2, 16, norm_first=True),
        "attentive": Attentive(),
        "recurrent": Recurrent(),
    }
    found = {name: (model.eval(), x) for name, model in models.items()}
    return found | {"convolutions": (Convolutions().eval(), torch.randn(2, 3, 8, 8))}


def said(census: softknee.Census) -> list[tuple[Any, ...]]:
    """What two censuses of one model must share."""
    return [
        (s.key, s.activation, {k: round(float(v), 6) for k, v in s.parameters.items()}, s.role, s.layout)
        for s in census
    ]  # fmt: skip
