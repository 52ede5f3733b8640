"""Every activation of small models, transformers' and written by hand, replaced by ours: outputs and gradients stay.

No tolerance is typed in. PyTorch's model in float64 is the truth; how far its own float32 run is from that says how far
rounding moves this model. Ours in float32 may be FACTOR times as far; in float64, the same scaled by the dtypes' ε.
"""

from __future__ import annotations

import contextlib
import copy

import pytest
import torch
from swapping import FUNCTIONS, Swap, Wide, swap_modules
from zoo import MODELS

import softknee.functional as SF

FACTOR = 4.0
EPS = {dtype: torch.finfo(dtype).eps for dtype in (torch.float64, torch.float32, torch.bfloat16)}
# PyTorch's hardsigmoid holds the slope 1/6 in float32, in float64 too.
FLOAT32_SLOPE = "mobilenet_v3"


def build(name, train=False):
    torch.manual_seed(0)
    model, inputs = MODELS[name]()
    norms = [m for m in model.modules() if isinstance(m, torch.nn.modules.batchnorm._BatchNorm)]
    for norm in norms:  # statistics of these inputs, and a scale at which relu6 and hardswish meet both ends
        norm.momentum = None
        torch.nn.init.constant_(norm.weight, 3.0)
    if norms:
        with torch.no_grad():
            model.train()(**inputs)
    return model.train(train), inputs


def tensors(output):
    """The floating-point tensors of a model's output, first level."""
    if isinstance(output, torch.Tensor):
        return [output]
    values = output.values() if hasattr(output, "values") else output
    return [v for v in values if isinstance(v, torch.Tensor) and v.is_floating_point()]


def run(model, inputs, dtype, swap=None):
    """`gradients` of a copy of the model in `dtype`, with `swap` in charge."""
    model = copy.deepcopy(model).to(dtype)
    if swap is not None and swap.modules:
        swap_modules(model)
    inputs = {k: v.to(dtype) if v.is_floating_point() else v for k, v in inputs.items()}
    with Wide() if dtype == torch.float64 else contextlib.nullcontext(), swap or contextlib.nullcontext():
        torch.manual_seed(1)  # dropout
        outputs = tensors(model(**inputs))
    return gradients(model, outputs)


def gradients(model, outputs):
    """{name: tensor} in float64: the outputs, and the gradients of a fixed random sum of them."""
    generator = torch.Generator().manual_seed(2)
    weights = [torch.randn(y.shape, generator=generator, dtype=torch.float64).to(y.dtype) for y in outputs]
    sum((y * w).sum() for y, w in zip(outputs, weights, strict=True)).backward()
    found = {f"output {i}": y.detach().double() for i, y in enumerate(outputs)}
    grads = {n: p.grad.double() for n, p in model.named_parameters() if p.grad is not None}
    return found | grads


def apart(got, wanted):
    """{name: ‖got − wanted‖} and {name: ‖wanted‖}."""
    assert got.keys() == wanted.keys(), got.keys() ^ wanted.keys()
    return {n: (got[n] - wanted[n]).norm().item() for n in wanted}, {n: wanted[n].norm().item() for n in wanted}


def agree(got, truth, theirs, dtype, reference=torch.float32):
    """Raises AssertionError where ours is further from the truth than rounding in PyTorch's model explains.

    theirs: PyTorch's run in `reference`. A gradient that is 0 but for rounding (an attention's key bias) is judged by
    the rounding too, and every tensor may be off by ε of its norm.
    """
    mine, _ = apart(got, truth)
    rounding, norms = apart(theirs, truth)
    scale = EPS[dtype] / EPS[reference]
    wrong = {
        n: (mine[n], FACTOR * scale * rounding[n])
        for n in truth
        if not mine[n] <= FACTOR * (scale * rounding[n] + EPS[dtype] * norms[n])
    }
    assert not wrong, wrong


@pytest.fixture(scope="module")
def reference():
    """{name: (model, inputs, PyTorch's run in float64, in float32)}, made when asked for."""
    made = {}

    def of(name):
        if name not in made:
            model, inputs = build(name)
            made[name] = model, inputs, *(run(model, inputs, d) for d in (torch.float64, torch.float32))
        return made[name]

    return of


@pytest.mark.parametrize("dtype", [torch.float64, torch.float32], ids=str)
@pytest.mark.parametrize("name", MODELS)
def test_swapped(name, dtype, reference):
    model, inputs, truth, theirs = reference(name)
    swap = Swap()
    got = run(model, inputs, dtype, swap)
    assert swap.swapped and not swap.left, swap.left
    if name == FLOAT32_SLOPE and dtype == torch.float64:
        agree({"output 0": got["output 0"]}, {"output 0": truth["output 0"]}, {"output 0": theirs["output 0"]}, dtype)
        with pytest.raises(AssertionError, match="parts.0.weight"):
            agree(got, truth, theirs, dtype)
        dtype = torch.float32
    agree(got, truth, theirs, dtype)


def test_enough_models_of_many_kinds(reference):
    """Twenty and more; between them every function of PyTorch's but one that draws at every call and one that no
    model has."""
    assert len(MODELS) >= 20
    ran = set()
    for name in MODELS:
        swap = Swap()
        run(*reference(name)[:2], torch.float32, swap)
        ran |= set(swap.swapped)
    assert {name for name, _ in FUNCTIONS.values()} - ran == {"gumbel_softmax", "softmin"}
    assert ran >= {"quick_gelu", "gelu_tanh", "relu2", "xielu", "laplace", "sqrt_softplus", "sparsemax"}
    assert ran >= {"swiglu", "geglu", "swiglu_oai", "swiglu_clamped"}


@pytest.mark.parametrize("name", ["bert", "t5", "resnet", "self_normalizing", "efficientnet", "dcgan"])
def test_in_training(name):
    """Dropout from the same seed, statistics of the batch."""
    model, inputs = build(name, train=True)
    truth, theirs = (run(model, inputs, dtype) for dtype in (torch.float64, torch.float32))
    agree(run(model, inputs, torch.float32, Swap()), truth, theirs, torch.float32)


@pytest.mark.parametrize("name", ["llama", "vit", "gpt_oss", "vae", "unet", "sparse_coding"])
def test_in_bfloat16(name, reference):
    model, inputs, truth, _ = reference(name)
    theirs, got = (run(model, inputs, torch.bfloat16, swap) for swap in (None, Swap()))
    agree(got, truth, theirs, torch.bfloat16, torch.bfloat16)


@pytest.mark.parametrize("name", ["llama", "apertus", "vit", "vae", "yolo", "mobilenet_v2"])
def test_compiled(name, reference):
    """Ours under torch.compile, forward and backward, against PyTorch's model as it stands."""
    model, inputs, truth, theirs = reference(name)
    model = copy.deepcopy(model)
    assert swap_modules(model)
    torch.compiler.reset()
    model.compile(backend="aot_eager")
    outputs = tensors(model(**inputs))
    agree(gradients(model, outputs), truth, theirs, torch.float32)


# The comparison itself


@pytest.mark.parametrize(
    ("name", "fault"),
    [
        ("vit", {"gelu": SF.gelu_tanh}),
        ("wav2vec2_conformer", {"gelu": SF.gelu_tanh}),
        ("efficientnet", {"silu": SF.quick_gelu}),
        ("dcgan", {"leaky_relu": lambda x, negative_slope, inplace: SF.leaky_relu(x, negative_slope + 1e-4)}),
        ("lstm", {"tanh": lambda x: SF.tanh(x * (1 + 1e-4))}),
    ],
)
def test_a_wrong_activation_fails(name, fault, reference):
    model, inputs, truth, theirs = reference(name)
    for dtype in (torch.float64, torch.float32):
        with pytest.raises(AssertionError, match="output 0"):
            agree(run(model, inputs, dtype, Swap(modules=False, **fault)), truth, theirs, dtype)


def test_what_is_not_swapped_is_seen(monkeypatch, reference):
    """A function that the swap does not know is found below, as an operator."""
    monkeypatch.delitem(FUNCTIONS, torch.nn.functional.gelu)
    swap = Swap(modules=False)
    run(*reference("vit")[:2], torch.float32, swap)
    assert set(swap.left) == {"gelu"}
