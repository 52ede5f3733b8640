"""Bounded, S-shaped activations: gates and probabilities."""

from .spec import elementwise


@elementwise(
    aliases=("logistic", "expit"),
    source="Verhulst 1845; Rumelhart et al. 1986, Nature 323",
    limits=(0.0, 1.0),
    torch="sigmoid",
    torch_module="Sigmoid",
    tags=("gate", "binary-output"),
)
def sigmoid(x, ops):
    """The logistic function, 1/(1 + e⁻ˣ). Its derivative is at most 1/4."""
    return ops.sigmoid(x)


@elementwise(
    source="LeCun et al. 1998, Efficient BackProp",
    limits=(-1.0, 1.0),
    torch="tanh",
    torch_module="Tanh",
    tags=("gate", "hidden"),
)
def tanh(x, ops):
    """The hyperbolic tangent."""
    return ops.tanh(x)
