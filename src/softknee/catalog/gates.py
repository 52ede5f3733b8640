"""Gated activations: f(gate)·up, of two projections of the same input."""

from .rectifiers import relu
from .sigmoids import sigmoid, softcap
from .smooth import gelu, silu
from .spec import gated


@gated(
    source="Dauphin et al. 2016, arXiv:1612.08083",
    layout="up_gate",
    torch="glu",
    torch_module="GLU",
    tags=("ffn",),
)
def glu(gate, up, ops):
    """Gated linear unit, σ(gate)·up. Packed as PyTorch has it: the gate is the second half."""
    return sigmoid.on(ops, gate) * up


@gated(source="Shazeer 2020, arXiv:2002.05202", module_name="ReGLU", tags=("ffn",))
def reglu(gate, up, ops):
    """ReLU-gated linear unit, relu(gate)·up."""
    return relu.on(ops, gate) * up


@gated(
    aliases=("gelu_and_mul", "geglu_erf"),
    source="Shazeer 2020, arXiv:2002.05202",
    module_name="GEGLU",
    tags=("ffn", "transformer"),
)
def geglu(gate, up, ops):
    """GELU-gated linear unit, gelu(gate)·up, with the exact GELU."""
    return gelu.on(ops, gate) * up


@gated(
    aliases=("silu_and_mul",),
    source="Shazeer 2020, arXiv:2002.05202",
    module_name="SwiGLU",
    tags=("ffn", "transformer", "llm"),
)
def swiglu(gate, up, ops):
    """SiLU-gated linear unit, silu(gate)·up."""
    return silu.on(ops, gate) * up


def _clip(x, limit, ops):
    # minimum and maximum pass the derivative on to their second argument at a tie: to x, as torch.clamp does
    return ops.minimum(limit, ops.maximum(-limit, x))


@gated(
    aliases=("swigluoai", "clamped_swiglu"),
    source="OpenAI 2025, gpt-oss, arXiv:2508.10925",
    layout="interleaved",
    conditions=("-inf < alpha", "alpha < inf", "0 < limit"),
    module_name="SwiGLUOAI",
    tags=("ffn", "transformer", "llm"),
)
def swiglu_oai(gate, up, ops, *, alpha=1.702, limit=7.0):
    """gpt-oss's SwiGLU: g·σ(alpha·g)·(u + 1), g = min(gate, limit), u = clip(up, ±limit). Packed interleaved."""
    g = ops.minimum(limit, gate)
    return g * ops.sigmoid(alpha * g) * (_clip(up, limit, ops) + 1.0)


@gated(
    aliases=("silu_and_mul_with_clamp",),
    source="DeepSeek-V4; GLM-5.3",
    conditions=("0 < limit",),
    module_name="SwiGLUClamped",
    tags=("ffn", "transformer", "llm"),
)
def swiglu_clamped(gate, up, ops, *, limit=10.0):
    """SwiGLU of clamped inputs: silu(min(gate, limit))·clip(up, ±limit). The gate is clamped first, and only above."""
    return silu.on(ops, ops.minimum(limit, gate)) * _clip(up, limit, ops)


@gated(
    aliases=("situ_and_mul", "softcapped_swiglu"),
    source="Kimi K3 2026, arXiv:2607.24653; Inkling-2",
    conditions=("0 < gate_cap", "gate_cap < inf", "0 < up_cap", "up_cap < inf"),
    module_name="SiTUGLU",
    tags=("ffn", "transformer", "llm"),
)
def situ_glu(gate, up, ops, *, gate_cap=4.0, up_cap=25.0):
    """SwiGLU with both linear parts softly capped: σ(gate)·softcap(gate, gate_cap)·softcap(up, up_cap)."""
    return sigmoid.on(ops, gate) * softcap.on(ops, gate, cap=gate_cap) * softcap.on(ops, up, cap=up_cap)
