"""Against implementations that are not ours: a formula that is wrong everywhere is caught here. Kinks as in PyTorch.

Every entry of the core has an anchor: 64 points of PyTorch's function where there is one, else SciPy's, ONNX's
reference evaluator's, the code of the models that transformers ships, or entmax's. Of the wide catalog those have one
that any of these libraries has.
"""

from __future__ import annotations

import functools
import importlib
from types import SimpleNamespace

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from oracle import settings
from scipy import integrate, special, stats

import softknee
import softknee.functional as SF

X = torch.linspace(-6, 6, 64, dtype=torch.float64)
GATES = torch.linspace(-9.3, 11.9, 64, dtype=torch.float64)
UPS = 6.5 * torch.randn(64, generator=torch.Generator().manual_seed(2), dtype=torch.float64)
ROWS = torch.randn(64, 7, generator=torch.Generator().manual_seed(3), dtype=torch.float64)
NOISE = torch.rand(64, 7, generator=torch.Generator().manual_seed(4), dtype=torch.float64)


def pytorch(activation):
    """PyTorch's function, called with the entry's parameters by name."""
    function = getattr(F, activation.torch)

    def anchor(x, **parameters):
        if activation.name == "prelu":
            parameters["weight"] = torch.tensor([parameters["weight"]], dtype=x.dtype)
        return function(x, **activation.torch_arguments, **parameters)

    return anchor


def onnx(op):
    """ONNX's reference evaluator; the operator's attributes are the parameters."""

    def anchor(*inputs, **attributes):
        onnx = pytest.importorskip("onnx")
        from onnx import helper
        from onnx.reference import ReferenceEvaluator

        names = [f"x{i}" for i in range(len(inputs))]
        kind = onnx.TensorProto.DOUBLE
        values = [helper.make_tensor_value_info(name, kind, [None]) for name in (*names, "y")]
        node = helper.make_node(op, names, ["y"], **attributes)
        model = helper.make_model(helper.make_graph([node], op, values[:-1], values[-1:]))
        (y,) = ReferenceEvaluator(model).run(None, {n: x.numpy() for n, x in zip(names, inputs, strict=True)})
        return torch.as_tensor(y)

    return anchor


def transformers(module):
    pytest.importorskip("transformers")
    return importlib.import_module(f"transformers.{module}")


def act2fn(name):
    return lambda x, **parameters: transformers("activations").ACT2FN[name](x)


def hf_laplace(x, **parameters):
    return transformers("activations").LaplaceActivation()(x, **parameters)


def hf_xielu(x, *, alpha_p, alpha_n, beta, eps):
    module = transformers("activations").XIELUActivation(beta=beta, eps=eps, dtype=torch.float64)
    for name, value in (("alpha_p", alpha_p), ("alpha_n", alpha_n)):
        torch.nn.init.constant_(getattr(module, name), value)
    return module._xielu_python(x).detach()


def hf_softcap(x, *, cap):
    return transformers("models.inkling2.modeling_inkling2").Inkling2Softcap(cap)(x)


def hf_gpt_oss(gate, up, *, alpha, limit):
    experts = transformers("models.gpt_oss.modeling_gpt_oss").GptOssExperts
    return experts._apply_gate(SimpleNamespace(alpha=alpha, limit=limit), torch.stack([gate, up], -1).flatten(-2))


def hf_deepseek(gate, up, *, limit):
    experts = transformers("models.deepseek_v4.modeling_deepseek_v4").DeepseekV4Experts
    return experts._apply_gate(SimpleNamespace(act_fn=F.silu, limit=limit), torch.cat([gate, up], -1))


def hf_step(gate, up, *, limit):
    experts = transformers("models.step3p7.modeling_step3p7").Step3p7Experts
    return experts._apply_gate(SimpleNamespace(act_fn=F.silu, limit=limit), torch.cat([gate, up], -1))


def hf_situ(gate, up, *, gate_cap, up_cap):
    config = SimpleNamespace(mlp_gate_softcap=gate_cap, mlp_up_softcap=up_cap)
    return transformers("models.inkling2.modeling_inkling2").Inkling2SoftcappedSwiGLU(config)(gate, up)


def hf_snake(x, *, alpha):
    module = transformers("models.dac.modeling_dac").Snake1d(1).double()
    torch.nn.init.constant_(module.alpha, alpha)
    return module(x.view(1, 1, -1)).flatten().detach()


def hf_snake_beta(x, *, alpha, beta):
    module = transformers("models.qwen3_omni_moe.modeling_qwen3_omni_moe").SnakeBeta(1).double()
    torch.nn.init.constant_(module.alpha, alpha)
    torch.nn.init.constant_(module.beta, beta)
    return module(x.view(1, 1, -1)).flatten().detach()


def hf_gated(name):
    """The gate of a model's feed-forward block, by the activation's name there."""
    return lambda gate, up, **parameters: transformers("activations").ACT2FN[name](gate) * up


def squareplus_root(x, *, b):
    """The larger root y of y² − x·y − b/4, by the eigenvalues of its companion matrix."""
    return torch.tensor([np.roots([1.0, -v, -b / 4]).max() for v in x.tolist()], dtype=torch.float64)


def sparse_plus_integral(x):
    """The integral of the piecewise linear sigmoid, by quadrature."""
    return torch.tensor(
        [integrate.quad(lambda t: np.clip((t + 1) / 2, 0, 1), -7, v, points=(-1, 1))[0] for v in x.tolist()],
        dtype=torch.float64,
    )


def entmax(x):
    return pytest.importorskip("entmax").sparsemax(x, dim=-1)


def gumbel(x, *, tau, hard):
    return F.softmax((x + torch.as_tensor(stats.gumbel_r.ppf(NOISE.numpy()))) / tau, -1)


def tempered(function):
    return lambda x, temperature: function(x / temperature, -1)


ANCHORS = {a.name: pytorch(a) for a in softknee.activations() if a.torch and a.kind == "elementwise"} | {
    "identity": lambda x: torch.nn.Identity()(x),
    "swish": lambda x, beta: onnx("Swish")(x, alpha=beta),
    "xielu": hf_xielu,
    "relu2": act2fn("relu2"),
    "thresholded_relu": lambda x, threshold: onnx("ThresholdedRelu")(x, alpha=threshold),
    "softcap": hf_softcap,
    "laplace": hf_laplace,
    "quick_gelu": act2fn("quick_gelu"),
    "sqrt_softplus": act2fn("sqrtsoftplus"),
    "squareplus": squareplus_root,
    "sparse_plus": sparse_plus_integral,
    "glu": lambda gate, up: F.glu(torch.cat([up, gate])),
    "reglu": lambda gate, up: F.relu(gate) * up,
    "geglu": lambda gate, up: torch.as_tensor(stats.norm.cdf(gate.numpy())) * gate * up,
    "swiglu": onnx("SwiGLU"),
    "swiglu_oai": hf_gpt_oss,
    "swiglu_clamped": hf_deepseek,
    "situ_glu": hf_situ,
    "softmax": tempered(F.softmax),
    "log_softmax": tempered(F.log_softmax),
    "sparsemax": entmax,
    "gumbel_softmax": gumbel,
}
# of the wide catalog
ANCHORS |= {
    "threshold": F.threshold,
    "gelu_10": act2fn("gelu_10"),
    "exp": torch.exp,
    "expm1": torch.special.expm1,
    "erf": torch.special.erf,
    "atan": torch.atan,
    "asinh": torch.asinh,
    "abs": torch.abs,
    "sign": torch.sign,
    "step": lambda x, threshold: torch.heaviside(x - threshold, torch.tensor(1.0, dtype=x.dtype)),
    "probit": torch.special.ndtr,
    "sine": lambda x, omega: torch.sin(omega * x),
    "siren": lambda x, omega: torch.sin(omega * x),
    "sinc": torch.sinc,
    "snake": hf_snake,
    "snake_beta": hf_snake_beta,
    "gaussian": lambda x, sigma: torch.as_tensor(stats.norm(0, sigma).pdf(x.numpy())) * sigma * (2 * np.pi) ** 0.5,
    "golu": lambda x: x * torch.as_tensor(stats.gumbel_r.cdf(x.numpy())),
    "atlu": lambda x: x * torch.as_tensor(stats.cauchy.cdf(x.numpy())),
    "iglu": lambda x, sigma: x * torch.as_tensor(stats.cauchy(0, 1 / sigma).cdf(x.numpy())),
    "geglu_tanh": hf_gated("gelu_pytorch_tanh"),
    "geglu_quick": hf_gated("quick_gelu"),
    "relu2_glu": hf_gated("relu2"),
    "bilinear": torch.mul,
    "swiglu_step": hf_step,
}
FLOAT32 = {"situ_glu", "swish"}  # whose anchor computes in float32, or holds its attribute as one


@pytest.mark.wide
def test_anchor(activation):
    """At the defaults, and with the parameters moved."""
    if not activation.core and activation.name not in ANCHORS:
        pytest.skip("no library of the dev extra has it")
    anchor = ANCHORS[activation.name]  # an entry of the core without an anchor fails here
    inputs = {"elementwise": (X,), "gated": (GATES, UPS), "normalizer": (ROWS,)}[activation.kind]
    for given in settings(activation) if activation.kind != "normalizer" else [activation.defaults]:
        if activation.stochastic and activation.kind == "normalizer":
            ours = activation.apply(ROWS, NOISE, -1, **given)
        elif activation.kind == "normalizer":
            ours = activation(ROWS, dim=-1, **given)
        else:
            ours = activation(*inputs, **given)
        rtol = 1e-6 if activation.name in FLOAT32 else 1e-11
        torch.testing.assert_close(ours, anchor(*inputs, **given), rtol=rtol, atol=1e-12)


def test_a_wrong_formula_fails():
    @softknee.elementwise(core=True)
    def silu(x, ops):
        return x * ops.sigmoid(1.01 * x)

    test_anchor(softknee.get("silu"))
    with pytest.raises(AssertionError):
        test_anchor(silu)


def test_an_entry_without_an_anchor_fails():
    @softknee.elementwise(core=True)
    def nobodys(x, ops):
        return x

    with pytest.raises(KeyError):
        test_anchor(nobodys)


def test_temperature(normalizer):
    names = [n for n in normalizer.parameters if n in ("temperature", "tau")]
    for name in names if not normalizer.stochastic else ():
        for dim in (0, 1, -1):
            theirs = getattr(F, normalizer.torch)(ROWS / 0.3, dim)
            torch.testing.assert_close(normalizer(ROWS, dim=dim, **{name: 0.3}), theirs, rtol=1e-10, atol=1e-12)


def test_noise_of_rrelu():
    """Given its slopes, it is a leaky ReLU; the slopes are uniform between lower and upper."""
    rrelu = softknee.get("rrelu")
    x = -torch.ones(20_000, dtype=torch.float64)
    drawn = -rrelu(x, training=True, generator=torch.Generator().manual_seed(0)).numpy()
    assert stats.kstest(drawn, stats.uniform(1 / 8, 1 / 3 - 1 / 8).cdf).pvalue > 1e-3
    assert torch.equal(rrelu(x), F.rrelu(x))


def test_samples_of_gumbel_softmax():
    """A category is drawn as often as softmax says, as PyTorch's does."""
    logits = torch.tensor([1.0, 0.0, -1.0]).expand(20_000, 3)
    ours = softknee.get("gumbel_softmax")(logits, hard=True, generator=torch.Generator().manual_seed(0)).sum(0)
    assert stats.chisquare(ours.numpy(), 20_000 * logits[0].softmax(-1).double().numpy()).pvalue > 1e-3


def test_equals_scipy():
    x = X.numpy()
    anchors = {
        "sigmoid": special.expit(x),
        "logsigmoid": special.log_expit(x),
        "softplus": np.logaddexp(x, 0),
        "gelu": x * special.ndtr(x),
        "laplace": stats.norm(0.707107, 0.282095).cdf(x),
        "tanh": np.sinh(x) / np.cosh(x),
        "silu": x / (1 + np.exp(-x)),
        "mish": x * np.tanh(np.log1p(np.exp(x))),
    }
    for name, values in anchors.items():
        np.testing.assert_allclose(softknee.get(name).value(x), values, rtol=1e-12, atol=1e-15)
    np.testing.assert_allclose(softknee.get("softmax").value(ROWS.numpy()), special.softmax(ROWS.numpy(), -1))


def slope(function, at, wrt=0):
    at = [torch.tensor([v], dtype=torch.float64, requires_grad=True) for v in at]
    return torch.autograd.grad(function(*at).sum(), at[wrt])[0].item()


def test_derivative_at_each_kink_is_torchs(elementwise):
    if elementwise.torch is None:
        pytest.skip("torch has no such function")
    for given in settings(elementwise):
        theirs = functools.partial(pytorch(elementwise), **given)
        ours = functools.partial(elementwise, **given)
        for kink in softknee.facts.facts(elementwise, **given).breakpoints:
            # PyTorch's derivative of celu holds 1/alpha as a float32
            assert slope(ours, [kink]) == pytest.approx(slope(theirs, [kink]), rel=1e-7), (kink, given)


@pytest.mark.parametrize(
    ("name", "kink", "wanted"),
    [
        ("relu", 0.0, 0.0),
        ("leaky_relu", 0.0, 0.01),
        ("hardtanh", -1.0, 0.0),
        ("hardtanh", 1.0, 0.0),
        ("relu6", 0.0, 0.0),
        ("relu6", 6.0, 0.0),
        ("hardsigmoid", -3.0, 0.0),
        ("hardsigmoid", 3.0, 0.0),
        ("hardswish", -3.0, 0.0),
        ("hardswish", 3.0, 1.0),
        ("hardshrink", 0.5, 0.0),
        ("thresholded_relu", 1.0, 0.0),
    ],
)
def test_derivative_at_a_kink_is_what_is_stated(name, kink, wanted):
    assert slope(softknee.get(name), [kink]) == wanted


@pytest.mark.parametrize(("name", "anchor"), [("swiglu_oai", hf_gpt_oss), ("swiglu_clamped", hf_deepseek)])
def test_clamped_gates_pass_the_derivative_on_at_their_limits(name, anchor):
    """As torch.clamp does, whose derivative at its limits is 1; and 0 beyond them."""
    activation = softknee.get(name)
    limit = activation.defaults["limit"]
    theirs = functools.partial(anchor, **activation.defaults)
    for at in ((limit, 1.5), (-limit, 1.5), (2.0, limit), (2.0, -limit), (limit, limit), (2.0, limit + 1e-9)):
        for wrt in (0, 1):
            assert slope(activation, at, wrt) == pytest.approx(slope(theirs, at, wrt), rel=1e-12), (at, wrt)
    assert slope(activation, (limit, 1.5)) != 0 and slope(activation, (2.0, limit), 1) != 0
    assert slope(activation, (limit + 1e-9, 1.5)) == 0 and slope(activation, (-limit - 1e-9, 1.5)) != 0


def test_packed_glu_is_torchs():
    packed = torch.randn(5, 8)
    torch.testing.assert_close(SF.glu(packed), F.glu(packed))
    torch.testing.assert_close(SF.glu(packed[:4], 0), F.glu(packed[:4], 0))


def test_published_constants():
    """Figures that papers and textbooks print, from the definitions."""
    softmax = softknee.get("softmax")
    for t, row in ((0.5, [0.864, 0.117, 0.019]), (2.0, [0.502, 0.304, 0.194])):
        assert softmax.value([2.0, 1.0, 0.1], temperature=t).round(3).tolist() == row
    assert softknee.get("sigmoid").facts.largest_derivative.value == 0.25
    assert softknee.get("silu").facts.minimum.x == pytest.approx(-1.2785, abs=5e-5)
    assert softknee.get("gelu").facts.minimum.x == pytest.approx(-0.7518, abs=5e-5)
    assert softknee.get("mish").facts.minimum.x == pytest.approx(-1.1924, abs=5e-5)
    gap = np.abs(softknee.get("gelu").value(X.numpy()) - softknee.get("gelu_tanh").value(X.numpy())).max()
    assert 4.5e-4 < gap < 4.74e-4
