"""Gated activations: f(gate)·up, of two projections of the same input."""

import math

from .rectifiers import relu, thresholded_relu
from .sigmoids import sigmoid, softcap, tanh
from .smooth import gelu, gelu_tanh, quick_gelu, silu
from .spec import gated


@gated(
    aliases=("sigmoid_gate", "sigmoid_gate_attn"),
    source="Dauphin et al. 2016, arXiv:1612.08083; as a gate of attention: Qiu et al. 2025, arXiv:2505.06708",
    layout="up_gate",
    torch="glu",
    torch_module="GLU",
    tags=("ffn",),
    core=True,
)
def glu(gate, up, ops):
    """Gated linear unit, σ(gate)·up. Packed as PyTorch has it: the gate is the second half."""
    return sigmoid.on(ops, gate) * up


@gated(source="Shazeer 2020, arXiv:2002.05202", module_name="ReGLU", tags=("ffn",), core=True)
def reglu(gate, up, ops):
    """ReLU-gated linear unit, relu(gate)·up."""
    return relu.on(ops, gate) * up


@gated(
    aliases=("gelu_and_mul", "geglu_erf"),
    source="Shazeer 2020, arXiv:2002.05202",
    module_name="GEGLU",
    tags=("ffn", "transformer"),
    core=True,
)
def geglu(gate, up, ops):
    """GELU-gated linear unit, gelu(gate)·up, with the exact GELU."""
    return gelu.on(ops, gate) * up


@gated(
    aliases=("silu_and_mul",),
    source="Shazeer 2020, arXiv:2002.05202",
    module_name="SwiGLU",
    tags=("ffn", "transformer", "llm"),
    core=True,
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
    core=True,
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
    core=True,
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
    core=True,
)
def situ_glu(gate, up, ops, *, gate_cap=4.0, up_cap=25.0):
    """SwiGLU with both linear parts softly capped: σ(gate)·softcap(gate, gate_cap)·softcap(up, up_cap)."""
    return sigmoid.on(ops, gate) * softcap.on(ops, gate, cap=gate_cap) * softcap.on(ops, up, cap=up_cap)


@gated(
    aliases=("geglu_gelu_tanh",),
    source="Shazeer 2020, arXiv:2002.05202; Gemma 2024, arXiv:2403.08295",
    module_name="GEGLUTanh",
    tags=("ffn", "transformer", "llm"),
)
def geglu_tanh(gate, up, ops):
    """GELU-gated linear unit with GELU's tanh form: Gemma's and T5 1.1's, and what ggml calls GEGLU."""
    return gelu_tanh.on(ops, gate) * up


@gated(source="ggml GEGLU_QUICK", module_name="GEGLUQuick", tags=("ffn", "transformer", "llm"))
def geglu_quick(gate, up, ops):
    """GELU-gated linear unit with GELU's sigmoid form, quick_gelu(gate)·up."""
    return quick_gelu.on(ops, gate) * up


@gated(
    aliases=("simple_gate", "star_gate"),
    source="Dauphin et al. 2016, arXiv:1612.08083; Chen et al. 2022 (NAFNet), arXiv:2204.04676",
    tags=("ffn",),
)
def bilinear(gate, up, ops):
    """gate·up, a gated unit without an activation."""
    return gate * up


@gated(
    aliases=("relu2_and_mul",),
    source="BitNet b1.58 2B4T 2025, arXiv:2504.12285",
    module_name="ReLU2GLU",
    tags=("ffn", "transformer", "llm"),
)
def relu2_glu(gate, up, ops):
    """Squared-ReLU-gated linear unit, max(gate, 0)²·up."""
    # gate·up first: the square may overflow where the product does not
    return ops.where(gate <= 0.0, 0.0, gate * (gate * up))


@gated(
    source="Song et al. 2024 (Turbo Sparse), arXiv:2406.05955",
    module_name="DReLU",
    tags=("ffn", "sparse", "llm"),
)
def drelu(gate, up, ops):
    """relu(gate)·relu(up): both must be positive, for sparsity."""
    return ops.where(gate <= 0.0, 0.0, ops.where(up <= 0.0, 0.0, gate * up))


@gated(
    aliases=("gated_tanh",),
    source="van den Oord et al. 2016, arXiv:1606.05328",
    layout="up_gate",
    module_name="GTU",
    tags=("audio",),
)
def gtu(gate, up, ops):
    """Gated tanh unit, σ(gate)·tanh(up). Packed as WaveNet's has it: the gate is the second half."""
    return sigmoid.on(ops, gate) * tanh.on(ops, up)


@gated(
    aliases=("fatrelu_and_mul",),
    source="Song et al. 2024 (ProSparse), arXiv:2402.13516; MiniCPM-S",
    conditions=("0 <= threshold",),
    module_name="FATReLUGLU",
    tags=("ffn", "sparse", "llm"),
    equivalent_to={"reglu": {}},
)
def fatrelu_glu(gate, up, ops, *, threshold=0.0):
    """ReLU-gated linear unit whose gate must pass a threshold, which each model states: gate·up where gate is above."""
    return thresholded_relu.on(ops, gate, threshold=threshold) * up


@gated(
    aliases=("swiglustep", "swiglustep_and_mul"),
    source="Step-3.7 2026",
    conditions=("0 < limit",),
    module_name="SwiGLUStep",
    tags=("ffn", "transformer", "llm"),
)
def swiglu_step(gate, up, ops, *, limit=7.0):
    """SwiGLU clamped after its activation: min(silu(gate), limit)·clip(up, ±limit). Step-3.7's own limit is 16."""
    return ops.minimum(limit, silu.on(ops, gate)) * _clip(up, limit, ops)


@gated(
    source="Ling Team 2026, arXiv:2605.25704",
    conditions=("0 < m", "m < inf"),
    module_name="PowLU",
    tags=("transformer", "llm"),
    unverified="the paper was not read, one implementation agrees; nor was its packed layout",
)
def powlu(gate, up, ops, *, m=3.0):
    """σ(gate)·up times gate below 0, gate^(m/(√gate + 1)) above: a power that grows ever slower."""
    log, root = ops.log(gate), ops.sqrt(gate)
    # what log/(root + 1) is by the gate, as one difference
    slope = (1.0 + 1.0 / root - 0.5 * log) / root / ((root + 1.0) * (root + 1.0))
    exponent = m * ops.with_slope(log / (root + 1.0), gate, slope)
    power = ops.exp(ops.where(gate < math.inf, exponent, 0.0))
    return ops.where(gate > 0.0, power, gate) * ops.sigmoid(gate) * up
