"""An activation and the gated one that it makes: silu(gate)·up is swiglu. Files name the one, models run the other."""

from __future__ import annotations

from ...catalog import get

_GATED = {
    "silu": "swiglu",
    "gelu": "geglu",
    "gelu_tanh": "geglu_tanh",
    "quick_gelu": "geglu_quick",
    "relu": "reglu",
    "relu2": "relu2_glu",
    "sigmoid": "glu",
    "identity": "bilinear",
}
_CORES = {name: core for core, name in _GATED.items()} | {
    "swiglu_clamped": "silu",
    "swiglu_step": "silu",
    "swiglu_oai": "quick_gelu",
}


def gated(activation: str) -> str | None:
    """The entry for `activation(gate) · up`, None where the catalog has none: "swiglu" of "silu"."""
    return _GATED.get(activation)


def core(activation: str) -> str:
    """What is applied to the gate, clamps left out: "silu" of "swiglu" and of "swiglu_clamped"; itself if not gated."""
    return _CORES.get(activation, activation)


def settled(activation: str | None) -> dict[str, float]:
    """The parameters that an entry has where nobody sets them; none where they are learned, and so in the weights."""
    if activation is None:
        return {}
    entry = get(activation)
    return {} if any(p.learnable for p in entry.parameters.values()) else dict(entry.defaults)
