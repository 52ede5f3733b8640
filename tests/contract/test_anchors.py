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
ROWS = torch.randn(64, 8, generator=torch.Generator().manual_seed(3), dtype=torch.float64)
NOISE = torch.rand(64, 8, generator=torch.Generator().manual_seed(4), dtype=torch.float64)


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


def entmax(name, **options):
    return lambda x, **parameters: getattr(pytest.importorskip("entmax"), name)(x, dim=-1, **options, **parameters)


def of_largest(x, k, filled):
    """The k largest of each row by PyTorch's topk, among what `filled` says."""
    largest = x.topk(k, -1)
    return torch.full_like(x, filled).scatter(-1, largest.indices, largest.values)


def torch_sparse_gate(gate, up, *, deviations):
    cutoff = gate.mean(-1, keepdim=True) + deviations * gate.std(-1, correction=0, keepdim=True)
    return F.gelu(F.relu(gate - cutoff), approximate="tanh") * up


def numpy_pau(x, **parameters):
    upper, lower = ([parameters[n] for n in sorted(parameters) if n.startswith(side)] for side in "ab")
    x = x.numpy()
    value = np.polynomial.Polynomial(upper)(x) / np.polynomial.Polynomial([1, *np.abs(lower)])(np.abs(x))
    return torch.as_tensor(value)


def torch_powlu(gate, up, *, m):
    z = gate.clamp(min=0)
    return torch.where(gate > 0, z ** (m / (z.sqrt() + 1)) * torch.sigmoid(z), F.silu(gate)) * up


def rms(x):
    return F.rms_norm(x, x.shape[-1:], eps=1e-6)


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
    "sparsemax": entmax("sparsemax"),
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
    "softmin": lambda x: F.softmin(x, -1),
    "hardmax": lambda x: onnx("Hardmax")(x, axis=-1),
    "topk_softmax": lambda x, k: F.softmax(of_largest(x, k, -np.inf), -1),
    "k_winners": lambda x, k: of_largest(x, k, 0.0),
    "softmax_plus_one": lambda x, sink: F.softmax(torch.cat([x, torch.full_like(x[:, :1], sink)], -1), -1)[:, :-1],
    "ssmax": lambda x, s: F.softmax(s * np.log(8) * x, -1),
    "entmax15": entmax("entmax15"),
    "entmax_alpha": entmax("entmax_bisect", n_iter=60),
    "solu": lambda x, norm, eps: x * F.softmax(x, -1),
    "poly_norm": lambda x, w1, w2, w3, b, eps: w1 * rms(x) + w2 * rms(x**2) + w3 * rms(x**3) + b,
    "squash": lambda x: F.normalize(x, dim=-1) * (1 - 1 / (1 + x.norm(dim=-1, keepdim=True) ** 2)),
    "maxout": lambda x, k: F.max_pool1d(x, k),
    "groupsort": lambda x, k: x.view(64, -1, k).sort(-1).values.flatten(1),
    "crelu": lambda x: torch.cat([F.relu(x), F.relu(-x)], -1),
    "gelu_sparse_glu": torch_sparse_gate,
    "powlu": torch_powlu,
    "pau": numpy_pau,
    "soft_clipping": lambda x, alpha: F.softplus(x, alpha) - F.softplus(x - 1, alpha),
    "sugar_relu": lambda x, alpha: F.relu(x),
    "spike_surrogate": lambda x, alpha: torch.heaviside(x, torch.tensor(1.0, dtype=x.dtype)),
    "prob_act": lambda x, sigma: F.relu(x),
    "noisy_relu": F.relu,
    "bernoulli_ste": lambda x: torch.sigmoid(x).round(),
    "cube": lambda x: x**3,
    "mexican_hat": lambda x: (1 - x**2) * torch.as_tensor(stats.norm.pdf(x.numpy())) * (2 * np.pi) ** 0.5,
    "repu": lambda x, power: F.relu(x) ** power,
    "drelu": lambda gate, up: F.relu(gate) * F.relu(up),
    "swiglu_step": hf_step,
}
FLOAT32 = {"situ_glu", "swish"}  # whose anchor computes in float32, or holds its attribute as one


@pytest.mark.wide
def test_anchor(activation):
    """At the defaults, and with the parameters moved."""
    if not activation.core and activation.name not in ANCHORS:
        pytest.skip("no library of the dev extra has it")
    anchor = ANCHORS[activation.name]  # an entry of the core without an anchor fails here
    inputs = {"elementwise": (X,), "gated": (GATES, UPS), "normalizer": (ROWS, ROWS.flip(0))}[activation.kind]
    inputs = inputs[: len(activation.inputs)]
    for given in settings(activation) if activation.kind != "normalizer" else [activation.defaults]:
        if activation.stochastic and activation.kind == "normalizer":
            ours = activation.along(-1, ROWS, NOISE, **given)
        elif activation.kind == "normalizer":
            ours = activation(*inputs, dim=-1, **given)
        else:
            ours = activation(*inputs, **given)
        rtol = 1e-6 if activation.name in FLOAT32 else 1e-11
        torch.testing.assert_close(ours, anchor(*inputs, **given), rtol=rtol, atol=1e-12)


def test_the_gradients_of_surrogates():
    """Those that their papers state, by other people's words for them."""
    x = X.clone().requires_grad_()

    def gradient(y):
        return torch.autograd.grad(y.sum(), x)[0]

    smooth = (x + 1.67) * torch.sigmoid(x) - 1.67 / 2
    torch.testing.assert_close(gradient(SF.sugar_relu(x)), gradient(smooth), rtol=1e-12, atol=1e-15)
    for alpha in (2.0, 5.0):  # snnTorch's and SpikingJelly's ATan
        wanted = alpha / 2 / (1 + (torch.pi / 2 * alpha * X) ** 2)
        torch.testing.assert_close(gradient(SF.spike_surrogate(x, alpha)), wanted, rtol=1e-12, atol=1e-15)


def test_the_sparse_gate_is_gemma_3n_s():
    """With its share of zeros in float32, as its code has it."""
    block = transformers("models.gemma3n.modeling_gemma3n").Gemma3nTextMLP
    for share in (0.95, 0.5):
        kept = block._gaussian_topk(SimpleNamespace(activation_sparsity=share), ROWS)
        quantile = torch.distributions.Normal(0, 1).icdf(torch.tensor(share)).item()
        ours = SF.gelu_sparse_glu(ROWS, ROWS.flip(0), deviations=quantile)
        torch.testing.assert_close(ours, F.gelu(kept, approximate="tanh") * ROWS.flip(0), rtol=1e-9, atol=1e-14)


def test_solu_with_its_norm():
    wanted = F.layer_norm(ROWS * F.softmax(ROWS, -1), (8,))
    torch.testing.assert_close(SF.solu(ROWS, norm=True), wanted, rtol=1e-11, atol=1e-13)


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
