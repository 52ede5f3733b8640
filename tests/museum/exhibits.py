"""The museum: mistakes that shipped, each as the model that was meant, the model that ran, and the right answer."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

import torch
import torch.nn.functional as F
from torch import nn

import rooms
from rooms import Convolution, Deep, Gated, Head, Hidden, Packed, gelu_tanh, halves, product, relu2

UNKNOWN = "unknown"


@dataclass(frozen=True)
class Exhibit:
    """before, after: make what `identify` is given, in a folder; after of a config alone is None, and a conflict is the
    answer. pair: what is meant, what runs (as `Site.name`, its parameters left out). at: in the key of each site."""

    name: str
    before: Callable[[Path], tuple]
    after: Callable[[Path], tuple] | None
    pair: tuple[str, str]
    at: str = "act"


def _net(network: Any, *acts: Any) -> Callable[[], nn.Module]:
    def build() -> nn.Module:
        torch.manual_seed(0)
        return network(*(act() if isinstance(act, partial) else act for act in acts))

    return build


# what is meant, what runs → the answer. Networks; each is shown live and as an ONNX graph
_NETWORKS: list[tuple[str, Callable, Callable, tuple[str, str]]] = [
    ("BitNet with SiLU for ReLU²", _net(Gated, product(relu2)), _net(Gated, product(F.silu)), ("*", "swiglu")),
    ("Gemma-2 with SiLU for tanh-GELU", _net(Gated, product(gelu_tanh)), _net(Gated, product(F.silu)), ("*", "swiglu")),
    ("Falcon with the tanh form for the exact GELU", _net(Hidden, F.gelu), _net(Hidden, gelu_tanh), ("gelu", "gelu_tanh")),
    ("Gemma's experts with erf for tanh", _net(Gated, product(gelu_tanh)), _net(Gated, product(F.gelu)), ("*", "geglu")),
    ("a quantized path with SwiGLU for gpt-oss's", _net(Gated, rooms.swiglu_oai(7.0)), _net(Gated, product(F.silu)), ("swiglu_oai", "swiglu")),
    ("every GELU mapped to tanh by policy", _net(Deep, *[F.gelu] * 3), _net(Deep, *[gelu_tanh] * 3), ("gelu", "gelu_tanh")),
    ("ModernBERT with GELU for SiLU", _net(Packed, halves(product(F.silu))), _net(Packed, halves(product(F.gelu))), ("swiglu", "geglu")),
    ("QuickGELU lost on reload", _net(Hidden, rooms.quick(1.702)), _net(Hidden, F.gelu), ("quick_gelu", "gelu")),
    ("approximate='tanh' dropped", _net(Hidden, gelu_tanh), _net(Hidden, F.gelu), ("gelu_tanh", "gelu")),
    ("an importer's tanh formula lacks the root", _net(Hidden, gelu_tanh), _net(Hidden, rooms.gelu_without_the_root), ("gelu_tanh", UNKNOWN)),
    ("gelu_fast with swapped coefficients", _net(Hidden, gelu_tanh), _net(Hidden, rooms.gelu_with_swapped_coefficients), ("gelu_tanh", UNKNOWN)),
    ("1.773 for 1.702", _net(Hidden, rooms.quick(1.702)), _net(Hidden, rooms.quick(1.773)), ("quick_gelu", "swish")),
    ("GELU by a table of half precision", _net(Hidden, F.gelu), _net(Hidden, rooms.gelu_by_a_table), ("gelu", "gelu_tanh")),
    ("a tanh that saturates at 1.044", _net(Hidden, torch.tanh), _net(Hidden, rooms.tanh_too_large), ("tanh", "*")),
    ("GELU by a tanh that saturates at 1.044", _net(Hidden, gelu_tanh), _net(Hidden, rooms.gelu_of_it), ("gelu_tanh", UNKNOWN)),
    ("GELU that is NaN below −13", _net(Hidden, F.gelu), _net(Hidden, rooms.gelu_that_breaks), ("gelu", UNKNOWN)),
    ("swiglu_limit 0 clamps everything", _net(Gated, rooms.swiglu_oai(7.0)), _net(Gated, rooms.swiglu_oai(0.0)), ("swiglu_oai", "*")),
    ("Darknet's slope for TensorFlow's", _net(Convolution, nn.LeakyReLU(0.2)), _net(Convolution, nn.LeakyReLU(0.1)), ("leaky_relu", "leaky_relu")),
    ("PyTorch's slope for Darknet's", _net(Convolution, nn.LeakyReLU(0.1)), _net(Convolution, nn.LeakyReLU()), ("leaky_relu", "leaky_relu")),
    ("the clamp of SwiGLU dropped", _net(Gated, rooms.clamped_before), _net(Gated, product(F.silu)), ("swiglu_clamped", "swiglu")),
    ("the clamp behind SiLU, not before it", _net(Gated, rooms.clamped_before), _net(Gated, rooms.clamped_after), ("swiglu_clamped", "swiglu_step")),
    ("the clamp around the product", _net(Gated, rooms.clamped_before), _net(Gated, rooms.clamped_as_a_whole), ("swiglu_clamped", "*")),
    ("the gate clamped on both sides", _net(Gated, rooms.clamped_before), _net(Gated, rooms.clamped_on_both_sides), ("swiglu_clamped", "*")),
    ("another limit", _net(Gated, rooms.swiglu_oai(7.0)), _net(Gated, rooms.swiglu_oai(10.0)), ("swiglu_oai", "swiglu_oai")),
    ("the wrong half gates", _net(Packed, halves(product(F.silu))), _net(Packed, halves(product(F.silu), "up_gate")), ("swiglu", "swiglu")),
    ("GLU with the halves exchanged", _net(Packed, nn.GLU()), _net(Packed, halves(product(torch.sigmoid))), ("glu", "glu")),
    ("interleaved weights read as packed", _net(Packed, halves(rooms.swiglu_oai(7.0), "interleaved")), _net(Packed, halves(rooms.swiglu_oai(7.0))), ("swiglu_oai", "swiglu_oai")),
    ("ReLU6 without its limit", _net(Convolution, nn.ReLU6()), _net(Convolution, nn.ReLU()), ("relu6", "relu")),
    ("hard swish as SiLU", _net(Convolution, nn.Hardswish()), _net(Convolution, nn.SiLU()), ("hardswish", "silu")),
    ("Keras 2's hard sigmoid for PyTorch's", _net(Hidden, nn.Hardsigmoid()), _net(Hidden, lambda x: (0.2 * x + 0.5).clamp(0, 1)), ("hardsigmoid", "*")),
    ("ELU with another alpha", _net(Hidden, nn.ELU()), _net(Hidden, nn.ELU(0.1)), ("elu", "elu")),
    ("SELU without its scale", _net(Hidden, nn.SELU()), _net(Hidden, nn.ELU(1.6732632423543772)), ("selu", "elu")),
    ("CELU for ELU", _net(Hidden, nn.ELU(2.0)), _net(Hidden, nn.CELU(2.0)), ("elu", "celu")),
    ("Mish as SiLU", _net(Convolution, nn.Mish()), _net(Convolution, nn.SiLU()), ("mish", "silu")),
    ("softplus with another beta", _net(Hidden, nn.Softplus()), _net(Hidden, nn.Softplus(beta=2.0)), ("softplus", "softplus")),
    ("ReLU for ReLU²", _net(Hidden, relu2), _net(Hidden, F.relu), ("relu2", "relu")),
    ("SiLU for QuickGELU", _net(Hidden, rooms.quick(1.702)), _net(Hidden, F.silu), ("quick_gelu", "silu")),
    ("softsign for tanh", _net(Hidden, torch.tanh), _net(Hidden, F.softsign), ("tanh", "softsign")),
    ("hardtanh to [−1, 1] for ReLU6", _net(Hidden, nn.ReLU6()), _net(Hidden, nn.Hardtanh()), ("relu6", "hardtanh")),
    ("the soft cap of the logits with another cap", _net(Head, rooms.softcap(30.0)), _net(Head, rooms.softcap(50.0)), ("softcap", "softcap")),
    ("sigmoid for softmax", _net(Head, nn.Softmax(-1)), _net(Head, nn.Sigmoid()), ("softmax", "sigmoid")),
    ("probabilities for log-probabilities", _net(Head, nn.LogSoftmax(-1)), _net(Head, nn.Softmax(-1)), ("log_softmax", "softmax")),
    ("one layer of three", _net(Deep, *[F.gelu] * 3), _net(Deep, F.gelu, F.silu, F.gelu), ("gelu", "silu")),
]  # fmt: skip


def _shown(network: Callable[[], nn.Module], form: rooms.Target) -> Callable[[Path], tuple]:
    return lambda folder: form(network(), folder)


EXHIBITS = [
    Exhibit(f"{name} [{word}]", _shown(before, rooms.live), _shown(after, form), pair)
    for name, before, after, pair in _NETWORKS
    for word, form in (("live", rooms.live), ("onnx", rooms.onnx(17)))
]
