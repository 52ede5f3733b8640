"""Gated activations: f(gate)·up, of two projections of the same input."""

from .rectifiers import relu
from .sigmoids import sigmoid
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
