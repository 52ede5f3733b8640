"""Activations over a dimension: NaN and masks, groups that do not fit, sizes that change, learned sinks, transforms."""

from __future__ import annotations

import math

import pytest
import torch
import torch.nn.functional as F

import softknee
import softknee.functional as SF
import softknee.nn as sn
from softknee.errors import InputError

NORMALIZERS = [a for a in softknee.activations() if a.kind == "normalizer" and not a.stochastic]
MASKABLE = ("softmax_plus_one", "ssmax", "entmax15", "entmax_alpha", "topk_softmax", "sparsemax", "softmax")
X = torch.randn(3, 4, 8, generator=torch.Generator().manual_seed(0), dtype=torch.float64)


@pytest.mark.parametrize("activation", NORMALIZERS, ids=lambda a: a.name)
def test_nan_stays_and_stays_in_its_row(activation):
    x = [X[0].clone() for _ in activation.inputs]
    x[0][1, 2] = math.nan
    y = activation(*x, dim=-1)
    assert y[1].isnan().any() and not y[[0, 2, 3]].isnan().any()
    across = activation(*(v.t() for v in x), dim=0).t()
    torch.testing.assert_close(across, y, equal_nan=True, rtol=1e-14, atol=1e-15)


@pytest.mark.parametrize("name", MASKABLE)
def test_what_is_masked_has_no_share_and_no_gradient(name):
    x = X[0].clone()
    x[:, 3] = -math.inf
    x.requires_grad_()
    y = getattr(SF, name)(x, -1)
    (grad,) = torch.autograd.grad(y[:, 0].sum(), x)
    assert (y[:, 3] == 0).all() and (grad[:, 3] == 0).all() and grad.isfinite().all()
    kept = [0, 1, 2, 4, 5, 6, 7]
    torch.testing.assert_close(y[:, kept], getattr(SF, name)(x[:, kept], -1), rtol=1e-14, atol=1e-16)


def test_of_equal_ones_the_first_are_taken():
    x = torch.tensor([[1.0, 2.0, 2.0, 2.0, -math.inf, math.inf]])
    assert SF.hardmax(x[:, :4]).tolist() == [[0, 1, 0, 0]] and SF.hardmax(x).tolist() == [[0, 0, 0, 0, 0, 1]]
    assert SF.k_winners(x[:, :4]).tolist() == [[0, 2, 2, 0]]
    assert SF.topk_softmax(x[:, :4]).tolist() == [[0, 0.5, 0.5, 0]]
    assert SF.k_winners(x[:, :5], k=9).tolist() == x[:, :5].tolist(), "there are no more than all"
    tied = torch.tensor([[3.0, 3.0]], requires_grad=True)
    assert torch.autograd.grad(SF.maxout(tied).sum(), tied)[0].tolist() == [[1, 0]]


def test_sizes_change_along_the_dimension():
    assert (
        SF.crelu(X, 1).shape == (3, 8, 8)
        and SF.maxout(X, 1).shape == (3, 2, 8)
        and SF.maxout(X, k=4).shape == (3, 4, 2)
    )
    assert sn.CReLU(dim=1)(X).shape == (3, 8, 8) and sn.Maxout(k=8)(X.to("meta")).shape == (3, 4, 1)
    assert SF.crelu(X.bfloat16()).dtype == torch.bfloat16


@pytest.mark.parametrize(
    ("call", "message"),
    [
        (lambda: SF.maxout(X, k=3), "maxout: k=3 must divide the size of the dimension, which is 8"),
        (lambda: SF.groupsort(X, 1, k=8), "groupsort: k=8 must divide the size of the dimension, which is 4"),
        (lambda: softknee.get("maxout").value(X.numpy(), k=3), "k=3 must divide"),
        (lambda: SF.topk_softmax(X, k=0), "k=0 is out of range; it must be 1 <= k"),
        (lambda: SF.topk_softmax(X, k=2.0), "k must be a whole number, got 2.0"),
        (lambda: sn.KWinners(k=True), "k must be a whole number, got True"),
        (lambda: SF.k_winners(X, k=torch.tensor(2)), "k must be a whole number, got tensor"),
        (lambda: softknee.get("gelu_sparse_glu")(X), "takes gate and up as tensors"),
        (lambda: sn.CReLU(channels=4), "channels must be 1, got 4"),
    ],
)
def test_what_does_not_fit(call, message):
    with pytest.raises(InputError, match=message):
        call()


def test_a_sink_per_head():
    """gpt-oss's: one logit per head, dimension 1, that takes its share and is dropped."""
    scores = X.view(3, 4, 2, 4)
    module = sn.SoftmaxPlusOne(channels=4, sink=torch.tensor([-1.0, 0.0, 1.0, 2.0])).double()
    column = module.sink.view(1, 4, 1, 1).expand(3, 4, 2, 1)
    wanted = F.softmax(torch.cat([scores, column], -1), -1)[..., :-1]
    torch.testing.assert_close(module(scores), wanted)
    grads = [torch.autograd.grad(y.square().sum(), module.sink)[0] for y in (module(scores), wanted)]
    torch.testing.assert_close(*grads)


@pytest.mark.parametrize("name", ["entmax15", "maxout", "crelu", "softmax_plus_one"])
def test_compiled_and_mapped(name):
    function = getattr(SF, name)
    torch._dynamo.reset()
    results = []
    for made in (function, torch.compile(function, fullgraph=True, backend="aot_eager"), torch.func.vmap(function)):
        x = X.clone().requires_grad_()
        y = made(x)
        results.append((y.detach(), torch.autograd.grad(y.square().sum(), x)[0]))
    for other in results[1:]:
        torch.testing.assert_close(other, results[0])


@pytest.mark.parametrize("alpha", [1.0001, 1.2, 2.0, 3.5])
def test_entmax_between_softmax_and_beyond_sparsemax(alpha):
    y = SF.entmax_alpha(X, alpha=alpha)
    torch.testing.assert_close(y.sum(-1), torch.ones(3, 4, dtype=torch.float64), rtol=1e-9, atol=0)
    near = {1.0001: (SF.softmax(X, -1), 1e-3), 2.0: (SF.sparsemax(X), 1e-12)}
    if alpha in near:
        torch.testing.assert_close(y, near[alpha][0], rtol=0, atol=near[alpha][1])


def test_entmax_learns_its_alpha():
    alpha = torch.tensor(1.4, dtype=torch.float64, requires_grad=True)
    assert torch.autograd.gradcheck(lambda a: SF.entmax_alpha(X[0], alpha=a), alpha)
    assert torch.autograd.gradgradcheck(lambda a: SF.entmax_alpha(X[0, :1], alpha=a), alpha)
