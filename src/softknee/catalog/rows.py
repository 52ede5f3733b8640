"""Activations over a dimension that need no more than their definition: PyTorch runs it on its own table."""

import math

from ..errors import InputError
from .normalizers import softmax
from .smooth import gelu_tanh
from .spec import normalizer


def _ones(x, ops):
    return ops.where(x < math.inf, 1.0, 1.0)


def _positive(x, ops):
    return ops.where(x <= 0.0, 0.0, x)  # NaN stays


def _mean(x, ops):
    return ops.total(x) / ops.total(_ones(x, ops))


def _root(square, ops):
    """√square, with the derivative 0 where it is 0."""
    positive = square > 0.0
    return ops.where(positive, ops.sqrt(ops.where(positive, square, 1.0)), square)


def _largest(x, k, ops):
    """1 at the k largest of a row, of equal ones at the first; 0 elsewhere. NaN all over a row that has one."""
    falling = ops.descending(x)
    least = -ops.amax(ops.where(ops.cumulative(_ones(x, ops)) > k, -math.inf, -falling))
    above, tied = ops.where(x > least, 1.0, 0.0), ops.where(x >= least, 1.0, 0.0)
    room = k - ops.total(above)
    chosen = ops.where(ops.cumulative(tied - above) <= room, tied, above)
    top = ops.amax(x)
    return chosen + ops.where(ops.abs(top) < math.inf, 0.0, ops.where(ops.abs(top) >= math.inf, 0.0, top))


def _grouped(x, k, ops, name):
    size = getattr(x, "shape", (k,))[-1]  # a graph may not know it
    if size % k:
        raise InputError(f"{name}: k={k} must divide the size of the dimension, which is {size}")
    return ops.grouped(x, k)


def _softmin(x, dim):
    return softmax.apply(-x, dim)


@normalizer(_softmin, source="PyTorch", torch="softmin", torch_module="Softmin", tags=("attention",))
def softmin(x, ops):
    """softmax(−x): the smallest has the largest share."""
    return softmax.on(ops, -x)


@normalizer(source="ONNX Hardmax", dim=-1, tags=("sparse",))
def hardmax(x, ops):
    """1 at the largest, of equal ones at the first, 0 elsewhere. Its derivative is 0."""
    return _largest(x, 1, ops) + ops.where(ops.abs(x) < math.inf, 0.0 * x, 0.0)


@normalizer(
    source="Shazeer et al. 2017, arXiv:1701.06538",
    conditions=("1 <= k",),
    dim=-1,
    module_name="TopKSoftmax",
    tags=("routing", "sparse"),
)
def topk_softmax(x, ops, *, k=2):
    """Softmax over the k largest, of equal ones the first, 0 elsewhere: a router's gates."""
    return softmax.on(ops, ops.where(_largest(x, k, ops) < 0.5, -math.inf, x))


@normalizer(
    aliases=("kwta",),
    source="Xiao et al. 2019, arXiv:1905.10510",
    conditions=("1 <= k",),
    dim=-1,
    module_name="KWinners",
    tags=("hidden", "sparse"),
)
def k_winners(x, ops, *, k=2):
    """The k largest as they are, of equal ones the first, 0 elsewhere. Papers state k as a share of the units."""
    return ops.where(_largest(x, k, ops) < 0.5, 0.0, x)


@normalizer(
    aliases=("softmax1", "quiet_softmax", "softmax_off_by_one"),
    source="Miller 2023; learned sinks: OpenAI 2025, gpt-oss, arXiv:2508.10925",
    learnable=("sink",),
    conditions=("sink < inf",),
    dim=-1,
    module_name="SoftmaxPlusOne",
    tags=("attention", "llm"),
)
def softmax_plus_one(x, ops, *, sink=0.0):
    """exp(xᵢ)/(exp(sink) + Σ exp(xⱼ)): softmax that may attend to nothing. gpt-oss learns a sink per head."""
    top = ops.maximum(ops.amax(x), sink)
    e = ops.exp(x - top)
    return e / (ops.exp(sink - top) + ops.total(e))


@normalizer(
    aliases=("scalable_softmax",),
    source="Nakanishi 2025, arXiv:2501.19399",
    learnable=("s",),
    conditions=("-inf < s", "s < inf"),
    dim=-1,
    module_name="SSMax",
    tags=("attention", "llm"),
    unverified="where s starts; 0.43 is that of the paper's first figure",
)
def ssmax(x, ops, *, s=0.43):
    """softmax(s·log(n)·x) of the n scores that are not masked by −∞: long rows do not flatten. s is learned."""
    there = x > -math.inf
    scale = s * ops.log(ops.total(ops.where(there, 1.0, 0.0)))
    return softmax.on(ops, ops.where(there, scale * ops.where(there, x, 0.0), x))


def _head(falling, ops):
    """For every head of a falling row, the τ with Σ (z − τ)² = 1 over it."""
    rank = ops.cumulative(_ones(falling, ops))
    mean = ops.cumulative(falling) / rank
    rest = (1.0 - (ops.cumulative(falling * falling) - rank * mean * mean)) / rank
    return mean - ops.sqrt(ops.maximum(rest, 0.0))


@normalizer(source="Peters et al. 2019, arXiv:1905.05702", dim=-1, module_name="Entmax15", tags=("attention", "sparse"))
def entmax15(x, ops):
    """max(x/2 − τ, 0)², τ such that they sum to 1: between softmax and sparsemax, with zeros."""
    z = 0.5 * (x - ops.amax(x))
    falling = ops.descending(z)
    least = -ops.amax(ops.where(_head(falling, ops) <= falling, -falling, -math.inf))
    inside = z >= least  # given these, τ is the root of a quadratic, whose derivatives are exact
    size = ops.total(ops.where(inside, 1.0, 0.0))
    mean = ops.total(ops.where(inside, z, 0.0)) / size
    deviation = ops.where(inside, z - mean, 0.0)
    tau = mean - ops.sqrt((1.0 - ops.total(deviation * deviation)) / size)
    gap = ops.where(z <= tau, 0.0, z - tau)
    return gap * gap


@normalizer(
    aliases=("entmax",),
    source="Peters et al. 2019, arXiv:1905.05702; learned alpha: Correia et al. 2019, arXiv:1909.00015",
    learnable=("alpha",),
    conditions=("1 < alpha", "alpha < inf"),
    dim=-1,
    module_name="EntmaxAlpha",
    tags=("attention", "sparse", "learnable"),
)
def entmax_alpha(x, ops, *, alpha=1.5):
    """max((alpha − 1)·x − τ, 0)^(1/(alpha − 1)), τ such that they sum to 1. alpha → 1 is softmax, 2 is sparsemax."""
    z = (alpha - 1.0) * (x - ops.amax(x))

    def shares(tau):
        gap = ops.where(z <= tau, 1.0, z - tau)
        return ops.where(z <= tau, 0.0, ops.exp(ops.log(gap) / (alpha - 1.0))), gap

    tau = -_ones(ops.amax(z), ops)
    for step in range(1, 53):
        tau = ops.where(ops.total(shares(tau + 0.5**step)[0]) >= 1.0, tau + 0.5**step, tau)
    for _ in range(2):  # each doubles the orders of the derivatives of τ that are exact
        p, gap = shares(tau)
        tau = tau + (alpha - 1.0) * (ops.total(p) - 1.0) / ops.total(p / gap)
    return shares(tau)[0]


@normalizer(
    source="Elhage et al. 2022, Softmax Linear Units",
    conditions=("0 < eps",),
    dim=-1,
    module_name="SoLU",
    tags=("transformer",),
)
def solu(x, ops, *, norm=False, eps=1e-5):
    """x·softmax(x). norm: its layer norm, without weights, which the paper's models and x-transformers put behind."""
    y = x * softmax.on(ops, x)
    centred = y - _mean(y, ops)
    return centred / ops.sqrt(_mean(centred * centred, ops) + eps) if norm else y


@normalizer(
    source="Zhuo et al. 2024 (PolyCom), arXiv:2411.03884",
    learnable=("w1", "w2", "w3", "b"),
    conditions=("0 < eps", "eps < inf"),
    dim=-1,
    module_name="PolyNorm",
    tags=("hidden", "llm", "learnable"),
)
def poly_norm(x, ops, *, w1=1 / 3, w2=1 / 3, w3=1 / 3, b=0.0, eps=1e-6):
    """w1·n(x) + w2·n(x²) + w3·n(x³) + b, n(v) = v/√(mean(v²) + eps). Implementations may store w3 first."""
    scale = ops.maximum(ops.amax(ops.abs(x)), 1.0)  # of which nothing depends, but x⁶ overflows
    u = x / scale

    def normed(v, of):
        return v / ops.sqrt(_mean(v * v, ops) + eps / (of * of))

    powers = w1 * normed(u, scale) + w2 * normed(u * u, scale * scale) + w3 * normed(u * u * u, scale * scale * scale)
    return powers + b


@normalizer(aliases=("capsule",), source="Sabour et al. 2017, arXiv:1710.09829", dim=-1, tags=("capsule",))
def squash(x, ops):
    """x·|x|/(1 + |x|²), |x| the length of the row: it keeps its direction, and its length comes below 1."""
    scale = ops.maximum(ops.amax(ops.abs(x)), 1.0)  # of which nothing depends, but x² overflows
    u = x / scale
    square = ops.total(u * u)
    return u * _root(square, ops) / (1.0 / (scale * scale) + square)


@normalizer(
    source="Goodfellow et al. 2013, arXiv:1302.4389",
    conditions=("1 <= k",),
    dim=-1,
    resizes=True,
    tags=("hidden",),
)
def maxout(x, ops, *, k=2):
    """The largest of each group of k neighbours: a k-th of the size."""
    groups = _grouped(x, k, ops, "maxout")
    return ops.flat(ops.total(ops.where(_largest(groups, 1, ops) < 0.5, 0.0, groups)))


@normalizer(
    source="Anil et al. 2018, arXiv:1811.05381",
    conditions=("1 <= k",),
    dim=-1,
    module_name="GroupSort",
    tags=("hidden", "lipschitz"),
)
def groupsort(x, ops, *, k=2):
    """Each group of k neighbours, sorted upwards. MaxMin and OPLU are k = 2 with the larger first."""
    return ops.flat(-ops.descending(-_grouped(x, k, ops, "groupsort")))


@normalizer(
    source="Shang et al. 2016, arXiv:1603.05201", dim=-1, resizes=True, module_name="CReLU", tags=("hidden", "cnn")
)
def crelu(x, ops):
    """relu(x), then relu(−x): twice the size."""
    return ops.joined(_positive(x, ops), _positive(-x, ops))


@normalizer(
    aliases=("gelu_and_mul_sparse",),
    source="Gemma 3n 2025, Hugging Face transformers",
    conditions=("-inf < deviations", "deviations < inf"),
    dim=-1,
    module_name="GELUSparseGLU",
    tags=("transformer", "llm", "sparse"),
)
def gelu_sparse_glu(gate, up, ops, *, deviations=1.6448536269514722):
    """gelu_tanh(max(gate − mean − deviations·std, 0))·up, mean and std of the row of gates, for sparsity.

    Gemma 3n states the share of zeros, 0.95, of which deviations is the normal quantile, Φ⁻¹.
    """
    mean = _mean(gate, ops)
    deviation = _root(_mean((gate - mean) * (gate - mean), ops), ops)
    return gelu_tanh.on(ops, _positive(gate - mean - deviations * deviation, ops)) * up
