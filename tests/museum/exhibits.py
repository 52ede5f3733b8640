"""The museum: mistakes that shipped, each as the model that was meant, the model that ran, and the right answer."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import rooms
import torch
import torch.nn.functional as F
from rooms import Convolution, Deep, Gated, Head, Hidden, Packed, gelu_tanh, halves, product, relu2
from torch import nn

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


# the mistake, the network, what is meant, what runs, and the answer; each is shown live and as an ONNX graph
_NETWORKS: list[tuple[str, type, Any, Any, str, str]] = [
    ("BitNet with SiLU for ReLU²", Gated, product(relu2), product(F.silu), "*", "swiglu"),
    ("Gemma-2 with SiLU for tanh-GELU", Gated, product(gelu_tanh), product(F.silu), "*", "swiglu"),
    ("Falcon with the tanh form for the exact GELU", Hidden, F.gelu, gelu_tanh, "gelu", "gelu_tanh"),
    ("Gemma's experts with erf for tanh", Gated, product(gelu_tanh), product(F.gelu), "*", "geglu"),
    ("a quantized path with SwiGLU for gpt-oss's", Gated,
     rooms.swiglu_oai(7.0), product(F.silu), "swiglu_oai", "swiglu"),
    ("every GELU mapped to tanh by policy", Deep, [F.gelu] * 3, [gelu_tanh] * 3, "gelu", "gelu_tanh"),
    ("ModernBERT with GELU for SiLU", Packed, halves(product(F.silu)), halves(product(F.gelu)), "swiglu", "geglu"),
    ("QuickGELU lost on reload", Hidden, rooms.quick(1.702), F.gelu, "quick_gelu", "gelu"),
    ("approximate='tanh' dropped", Hidden, gelu_tanh, F.gelu, "gelu_tanh", "gelu"),
    ("an importer's tanh formula lacks the root", Hidden, gelu_tanh, rooms.gelu_without_the_root, "gelu_tanh", UNKNOWN),
    ("gelu_fast with swapped coefficients", Hidden,
     gelu_tanh, rooms.gelu_with_swapped_coefficients, "gelu_tanh", UNKNOWN),
    ("1.773 for 1.702", Hidden, rooms.quick(1.702), rooms.quick(1.773), "quick_gelu", "swish"),
    ("GELU by a table of half precision", Hidden, F.gelu, rooms.gelu_by_a_table, "gelu", "gelu_tanh"),
    ("a tanh that saturates at 1.044", Hidden, torch.tanh, rooms.tanh_too_large, "tanh", "*"),
    ("GELU by a tanh that saturates at 1.044", Hidden, gelu_tanh, rooms.gelu_of_it, "gelu_tanh", UNKNOWN),
    ("GELU that is NaN below −13", Hidden, F.gelu, rooms.gelu_that_breaks, "gelu", UNKNOWN),
    ("swiglu_limit 0 clamps everything", Gated, rooms.swiglu_oai(7.0), rooms.swiglu_oai(0.0), "swiglu_oai", "*"),
    ("Darknet's slope for TensorFlow's", Convolution, nn.LeakyReLU(0.2), nn.LeakyReLU(0.1), "leaky_relu", "leaky_relu"),
    ("PyTorch's slope for Darknet's", Convolution, nn.LeakyReLU(0.1), nn.LeakyReLU(), "leaky_relu", "leaky_relu"),
    ("the clamp of SwiGLU dropped", Gated, rooms.clamped_before, product(F.silu), "swiglu_clamped", "swiglu"),
    ("the clamp behind SiLU, not before it", Gated,
     rooms.clamped_before, rooms.clamped_after, "swiglu_clamped", "swiglu_step"),
    ("the clamp around the product", Gated, rooms.clamped_before, rooms.clamped_as_a_whole, "swiglu_clamped", "*"),
    ("the gate clamped on both sides", Gated, rooms.clamped_before, rooms.clamped_on_both_sides, "swiglu_clamped", "*"),
    ("another limit", Gated, rooms.swiglu_oai(7.0), rooms.swiglu_oai(10.0), "swiglu_oai", "swiglu_oai"),
    ("the wrong half gates", Packed, halves(product(F.silu)), halves(product(F.silu), "up_gate"), "swiglu", "swiglu"),
    ("GLU with the halves exchanged", Packed, nn.GLU(), halves(product(torch.sigmoid)), "glu", "glu"),
    ("interleaved weights read as packed", Packed,
     halves(rooms.swiglu_oai(7.0), "interleaved"), halves(rooms.swiglu_oai(7.0)), "swiglu_oai", "swiglu_oai"),
    ("ReLU6 without its limit", Convolution, nn.ReLU6(), nn.ReLU(), "relu6", "relu"),
    ("hard swish as SiLU", Convolution, nn.Hardswish(), nn.SiLU(), "hardswish", "silu"),
    ("Keras 2's hard sigmoid for PyTorch's", Hidden,
     nn.Hardsigmoid(), lambda x: (0.2 * x + 0.5).clamp(0, 1), "hardsigmoid", "*"),
    ("ELU with another alpha", Hidden, nn.ELU(), nn.ELU(0.1), "elu", "elu"),
    ("SELU without its scale", Hidden, nn.SELU(), nn.ELU(1.6732632423543772), "selu", "elu"),
    ("CELU for ELU", Hidden, nn.ELU(2.0), nn.CELU(2.0), "elu", "celu"),
    ("Mish as SiLU", Convolution, nn.Mish(), nn.SiLU(), "mish", "silu"),
    ("softplus with another beta", Hidden, nn.Softplus(), nn.Softplus(beta=2.0), "softplus", "softplus"),
    ("ReLU for ReLU²", Hidden, relu2, F.relu, "relu2", "relu"),
    ("SiLU for QuickGELU", Hidden, rooms.quick(1.702), F.silu, "quick_gelu", "silu"),
    ("softsign for tanh", Hidden, torch.tanh, F.softsign, "tanh", "softsign"),
    ("hardtanh to [−1, 1] for ReLU6", Hidden, nn.ReLU6(), nn.Hardtanh(), "relu6", "hardtanh"),
    ("the soft cap of the logits with another cap", Head,
     rooms.softcap(30.0), rooms.softcap(50.0), "softcap", "softcap"),
    ("sigmoid for softmax", Head, nn.Softmax(-1), nn.Sigmoid(), "softmax", "sigmoid"),
    ("probabilities for log-probabilities", Head, nn.LogSoftmax(-1), nn.Softmax(-1), "log_softmax", "softmax"),
    ("one layer of three", Deep, [F.gelu] * 3, [F.gelu, F.silu, F.gelu], "gelu", "silu"),
]  # fmt: skip


def _shown(network: type, acts: Any, form: rooms.Target) -> Callable[[Path], tuple]:
    def make(folder: Path) -> tuple:
        torch.manual_seed(0)
        return form(network(*(acts if isinstance(acts, list) else [acts])), folder)

    return make


EXHIBITS = [
    Exhibit(f"{name} [{word}]", _shown(network, meant, rooms.live), _shown(network, runs, form), (before, after))
    for name, network, meant, runs, before, after in _NETWORKS
    for word, form in (("live", rooms.live), ("onnx", rooms.onnx(17)))
]


def _config(keys: dict[str, Any]) -> Callable[[Path], tuple]:
    return lambda folder: rooms.config(folder, **keys)


def _kept(**keys: Any) -> dict[str, Any]:
    return {"num_hidden_layers": 2, **keys}


# the mistake, the config that was meant, the one that is run (None: the config contradicts itself or its engine), the
# answer, and where
_CONFIGS: list[tuple[str, dict[str, Any], dict[str, Any] | None, str, str, str]] = [
    ("Gemma's gelu is the tanh form", _kept(model_type="gemma", hidden_act="gelu"), None, "gelu", "gelu_tanh", "mlp"),
    ("hidden_act beside hidden_activation",
     _kept(model_type="gemma2", hidden_act="gelu", hidden_activation="silu"), None, "gelu", "swiglu", "mlp"),
    ("a key that the architecture ignores", {"model_type": "bloom", "n_layer": 2, "hidden_act": "relu"}, None,
     "relu", "gelu_tanh", "mlp"),
    ("a limit of 0", _kept(model_type="gpt_oss", swiglu_limit=0.0), None, "limit 0", "a clamp to 0", "experts"),
    ("gelu_new for gelu", _kept(model_type="bert", hidden_act="gelu"), _kept(model_type="bert", hidden_act="gelu_new"),
     "gelu", "gelu_tanh", "intermediate"),
    ("Llama's activation for Gemma's", _kept(model_type="gemma2"), _kept(model_type="llama"),
     "geglu_tanh", "swiglu", "mlp"),
    ("quick_gelu for gelu",
     {"model_type": "clip_vision_model", "num_hidden_layers": 2, "hidden_act": "quick_gelu"},
     {"model_type": "clip_vision_model", "num_hidden_layers": 2, "hidden_act": "gelu"}, "quick_gelu", "gelu", "mlp"),
]  # fmt: skip

EXHIBITS += [
    Exhibit(f"{name} [config]", _config(meant), None if runs is None else _config(runs), (before, after), at)
    for name, meant, runs, before, after, at in _CONFIGS
]


def _graph_of(config: dict[str, Any], acts: list[Any]) -> tuple[Callable[[Path], tuple], Callable[[Path], tuple]]:
    return _config(config), _shown(Deep, acts, rooms.onnx(17))


def _encoder(folder: Path, *, activation: Any) -> tuple:
    torch.manual_seed(0)
    layer = nn.TransformerEncoderLayer(8, 2, 16, dropout=0.0, activation=activation, batch_first=True).eval()
    return layer, torch.randn(1, 3, 8)


def _replaced(folder: Path) -> tuple:
    layer, x = _encoder(folder, activation="relu")
    layer.activation = F.silu
    return layer, x


EXHIBITS += [
    Exhibit("a config and its graph", *_graph_of(_kept(model_type="bert", hidden_act="gelu", num_hidden_layers=3),
            [gelu_tanh] * 3), ("gelu", "gelu_tanh"), ""),
    Exhibit("PyTorch's fused layer takes the tanh form for the exact GELU",
            lambda folder: _encoder(folder, activation=nn.GELU("tanh")), None, ("gelu_tanh", "gelu"), "activation"),
    Exhibit("PyTorch's fused layer goes on with the old activation", _replaced, None, ("silu", "relu"), ""),
]  # fmt: skip
