"""PyTorch's fused encoder layer, which computes what a flag says and not what its activation is.

In eval mode without gradients `nn.TransformerEncoderLayer` may run as one kernel that knows ReLU and the exact GELU.
Which of them is kept as a number when the layer is made: 2 for any `nn.GELU`, its tanh form too, and the number stays
what it was when the activation is replaced afterwards.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence

from torch import nn

from .census import Conflict, Site

_FUSED = {1: "relu", 2: "gelu"}


def conflicts(model: nn.Module, sites: Sequence[Site]) -> Iterator[Conflict]:
    """One for each encoder layer whose kernel computes another activation than the layer's own."""
    for path, layer in model.named_modules():
        if not isinstance(layer, nn.TransformerEncoderLayer):
            continue
        fused = _FUSED.get(layer.activation_relu_or_gelu) if _fuses(layer) else None
        inner = f"{path}.activation" if path else "activation"
        for site in sites:
            if fused is not None and site.path in (path, inner) and site.role != "attention" and site.name != fused:
                yield Conflict(
                    (site.key,), site.name, fused,
                    (f"{inner} of nn.TransformerEncoderLayer", "its fused kernel (eval mode, no gradients)"),
                    "training and inference differ; set activation_relu_or_gelu = 0 on the layer, or use softknee.swap",
                )  # fmt: skip


def _fuses(layer: nn.TransformerEncoderLayer) -> bool:
    """Whether the layer is one that PyTorch runs as one kernel, inputs and modes allowing."""
    attention = layer.self_attn
    return (
        attention.batch_first
        and attention.in_proj_bias is not None
        and attention._qkv_same_embed_dim
        and attention.num_heads % 2 == 0
        and layer.norm1.eps == layer.norm2.eps
    )
