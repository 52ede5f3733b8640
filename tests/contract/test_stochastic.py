"""Entries that draw: from the generator they are given, from the distribution they state, with one noise per call."""

from __future__ import annotations

import math

import pytest
import torch
from cases import gradients, inputs
from scipy import stats
from torch.nn import functional as F

import softknee
import softknee.functional as SF
from softknee.errors import InputError

TRAINED = ("rrelu", "prob_act", "noisy_relu", "bernoulli_ste")
FORMS = {name: {"training": True} for name in TRAINED} | {"gumbel_softmax": {}}
LOGITS = torch.tensor([1.0, 0.0, -1.0, 2.0, 0.5], dtype=torch.float64)


def test_every_entry_that_draws_is_here():
    assert {a.name for a in softknee.activations() if a.stochastic} == set(FORMS)


@pytest.fixture(params=FORMS)
def draw(request):
    function, options = getattr(SF, request.param), FORMS[request.param]
    return lambda x, **given: function(x, **options, **given)


def generator(seed=0):
    return torch.Generator().manual_seed(seed)


@pytest.mark.parametrize("dtype", [torch.float64, torch.float32, torch.bfloat16, torch.float16])
def test_a_generator_decides(draw, dtype):
    """The same state gives the same result; another gives another; PyTorch's own generator is left alone."""
    x = torch.linspace(-2, -0.1, 64, dtype=dtype)
    before = torch.get_rng_state()
    first, again, other = (draw(x, generator=generator(seed)) for seed in (5, 5, 6))
    assert torch.equal(first, again) and not torch.equal(first, other)
    assert torch.equal(torch.get_rng_state(), before)
    shared = generator(5)
    assert torch.equal(draw(x, generator=shared), first) and not torch.equal(draw(x, generator=shared), first)


def test_without_one_pytorchs_decides(draw):
    x = torch.linspace(-2, -0.1, 64)
    results = []
    for seed in (5, 5, 6):
        torch.manual_seed(seed)
        results.append(draw(x))
    assert torch.equal(results[0], results[1]) and not torch.equal(results[0], results[2])
    assert not torch.equal(draw(x), draw(x))


def test_rrelu_slopes_are_uniform():
    """One slope per element, uniform on [lower, upper], independent of the input and of its neighbours."""
    x = -torch.linspace(0.5, 4, 20_000, dtype=torch.float64)
    for lower, upper in ((1 / 8, 1 / 3), (0.0, 1.0), (-0.5, 0.25)):
        slopes = SF.rrelu(x, lower, upper, training=True, generator=generator()) / x
        assert lower <= slopes.min() and slopes.max() <= upper
        assert stats.kstest(slopes.numpy(), stats.uniform(lower, upper - lower).cdf).pvalue > 0.01
        assert abs(stats.pearsonr(slopes[1:], slopes[:-1])[0]) < 0.02 and abs(stats.pearsonr(slopes, x)[0]) < 0.02
    positive = x.abs()
    assert torch.equal(SF.rrelu(positive, training=True), positive)
    wrong = SF.rrelu(x, 0.0, 1.0, training=True, generator=generator()).square() / x.square()
    assert stats.kstest(wrong.numpy(), stats.uniform(0, 1).cdf).pvalue < 1e-6, "squares of uniform numbers are not"


def test_rrelu_is_its_mean_outside_training():
    x = torch.linspace(-3, 3, 33, dtype=torch.float64)
    assert torch.equal(SF.rrelu(x), SF.rrelu(x, training=False))
    torch.testing.assert_close(SF.rrelu(x, 0.1, 0.5), F.leaky_relu(x, 0.3), rtol=1e-15, atol=0)
    torch.testing.assert_close(SF.rrelu(x), F.rrelu(x), rtol=1e-15, atol=0)
    module = softknee.nn.RReLU(0.1, 0.5).eval()
    torch.testing.assert_close(module(x), F.leaky_relu(x, 0.3), rtol=1e-15, atol=0)
    module.train()
    assert not torch.equal(module(x), module(x))
    equal = SF.rrelu(x, 0.25, 0.25, training=True)
    torch.testing.assert_close(equal, F.leaky_relu(x, 0.25), rtol=1e-15, atol=0)


def test_rrelu_gradients_are_the_slopes_drawn():
    x = torch.linspace(-3, 3, 400, dtype=torch.float64, requires_grad=True)
    lower, upper = (torch.tensor(v, dtype=torch.float64, requires_grad=True) for v in (0.1, 0.4))
    y = SF.rrelu(x, lower, upper, training=True)
    slope, down, up = torch.autograd.grad(y.sum(), (x, lower, upper))
    torch.testing.assert_close(slope * x, y, rtol=1e-14, atol=0)
    # y = (lower + (upper − lower)·u)·x at x < 0, so ∂y/∂lower + ∂y/∂upper = x there, and u lies between
    torch.testing.assert_close(down + up, x[x < 0].sum())
    noise = (slope[x < 0] - 0.1) / 0.3
    torch.testing.assert_close(up, (noise * x[x < 0]).sum())


@pytest.mark.parametrize("dtype", [torch.float64, torch.float32])
def test_normal_noise_is_normal(dtype):
    """relu(x) + sigma·e of prob_act, and x + √σ(x)·e of noisy_relu where it is far above 0."""
    x = torch.full((20_000,), 3.0, dtype=dtype)
    added = SF.prob_act(x, 0.5, training=True, generator=generator()) - x
    assert stats.kstest(added.numpy(), stats.norm(0, 0.5).cdf).pvalue > 0.01
    y = SF.noisy_relu(20 + x, training=True, generator=generator(1)) - 23
    assert stats.kstest(y.numpy(), stats.norm(0, 1).cdf).pvalue > 0.01
    cut = SF.noisy_relu(0 * x, training=True, generator=generator(2))
    assert (cut >= 0).all() and abs((cut == 0).double().mean() - 0.5) < 0.02
    assert cut.square().mean().item() == pytest.approx(0.25, rel=0.05)  # half of the variance σ(0)
    assert torch.equal(SF.prob_act(-x), torch.zeros_like(x)) and torch.equal(SF.noisy_relu(x), x)
    assert stats.kstest(added.numpy(), stats.norm(0, 0.6).cdf).pvalue < 1e-6, "another variance is told apart"


def test_bernoulli_ste_is_one_as_often_as_the_sigmoid_says():
    for value in (-2.0, 0.0, 0.7):
        x = torch.full((20_000,), value, requires_grad=True)
        y = SF.bernoulli_ste(x, training=True, generator=generator())
        assert set(y.tolist()) == {0.0, 1.0}
        share = float(torch.sigmoid(x.detach()[0]))
        assert stats.binomtest(int(y.detach().sum()), 20_000, share).pvalue > 0.01
        assert torch.equal(torch.autograd.grad(y.sum(), x)[0], torch.ones_like(x))
    assert SF.bernoulli_ste(torch.tensor([-1.0, 0.0, 1.0])).tolist() == [0.0, 0.0, 1.0]


def test_gumbel_softmax_draws_categories_as_softmax_says():
    """The largest entry falls on each category with the probability of softmax, at every temperature."""
    probabilities = torch.softmax(LOGITS, -1)
    rows = LOGITS.expand(20_000, -1)
    for tau in (0.1, 1.0, 5.0):
        for hard in (False, True):
            y = SF.gumbel_softmax(rows, tau=tau, hard=hard, generator=generator())
            counts = torch.bincount(y.argmax(-1), minlength=5)
            assert stats.chisquare(counts, 20_000 * probabilities).pvalue > 0.01
            torch.testing.assert_close(y.sum(-1), torch.ones(20_000, dtype=torch.float64))
    assert stats.chisquare(counts, 20_000 * torch.softmax(1.2 * LOGITS, -1)).pvalue < 1e-6


def test_gumbel_softmax_is_distributed_as_pytorchs():
    rows = LOGITS.expand(4000, -1)
    torch.manual_seed(1)
    mine, theirs = SF.gumbel_softmax(rows, tau=0.7), F.gumbel_softmax(rows, tau=0.7)
    for i in range(5):
        assert stats.ks_2samp(mine[:, i], theirs[:, i]).pvalue > 0.01


def test_gumbel_softmax_hard_is_straight_through():
    """One-hot forward; backward is that of the soft sample with the same noise."""
    x = LOGITS.expand(6, -1).clone().requires_grad_()
    hard = SF.gumbel_softmax(x, tau=0.7, hard=True, generator=generator(3))
    soft = SF.gumbel_softmax(x, tau=0.7, generator=generator(3))
    torch.testing.assert_close(hard, F.one_hot(soft.argmax(-1), 5).double())
    torch.testing.assert_close(gradients(hard, [x]), gradients(soft, [x]))
    column = SF.gumbel_softmax(x, hard=True, dim=0)
    torch.testing.assert_close(column.sum(0), torch.ones(5, dtype=torch.float64))


def test_noise_never_reaches_an_end():
    """No draw is so small that a logarithm is infinite: a million of float32, whose grid includes 0."""
    y = SF.gumbel_softmax(torch.zeros(2, 500_000), generator=generator())
    assert y.isfinite().all() and (y > 0).all()


def test_facts_and_values_are_those_of_the_mean():
    rrelu = softknee.get("rrelu")
    x = torch.linspace(-3, 3, 13, dtype=torch.float64)
    torch.testing.assert_close(torch.as_tensor(rrelu.value(x.numpy())), rrelu(x), rtol=1e-15, atol=0)
    assert rrelu.derivative(-1.0) == pytest.approx((1 / 8 + 1 / 3) / 2)
    assert softknee.get("gumbel_softmax").value(LOGITS.numpy()).sum() == pytest.approx(1)


def test_wrong_options_are_refused():
    x = torch.randn(3)
    with pytest.raises(InputError, match="generator must be a generator, got 3"):
        SF.rrelu(x, training=True, generator=3)
    with pytest.raises(InputError, match="generator must be a generator, got 'seed'"):
        SF.gumbel_softmax(x, generator="seed")
    with pytest.raises(InputError, match="training must be True or False, got 'yes'"):
        SF.rrelu(x, training="yes")
    with pytest.raises(InputError, match="hard must be True or False, got 1"):
        SF.gumbel_softmax(x, hard=1)
    with pytest.raises(InputError, match="lower=0.5, upper=0.1 is out of range; it must be lower <= upper"):
        SF.rrelu(x, 0.5, 0.1)
    with pytest.raises(InputError, match="no parameter 'generator'"):
        SF.silu(x, generator=generator())


def test_the_two_moments_of_rrelu():
    (x,) = inputs(softknee.get("rrelu"), 1, dtype=torch.float64, grad=False)
    x = -x.abs().expand(50_000)
    y = SF.rrelu(x, training=True, generator=generator())
    assert (y.mean() / x[0]).item() == pytest.approx((1 / 8 + 1 / 3) / 2, rel=5e-3)
    assert (y.std() / -x[0]).item() == pytest.approx((1 / 3 - 1 / 8) / math.sqrt(12), rel=2e-2)
