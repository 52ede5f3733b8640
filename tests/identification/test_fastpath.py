"""The fused encoder layer computes what its flag says: told where that is another activation than the layer's own."""

import pytest
import torch
import torch.nn.functional as F
from torch import nn

import softknee

X = 3 * torch.randn(2, 3, 8, generator=torch.Generator().manual_seed(0))


def layer(activation, **more):
    torch.manual_seed(0)
    return nn.TransformerEncoderLayer(8, 2, 16, dropout=0.0, activation=activation, batch_first=True, **more).eval()


@pytest.mark.parametrize("inputs", [None, X])
def test_the_tanh_form_becomes_the_exact_one(inputs):
    model = nn.TransformerEncoder(layer(nn.GELU("tanh")), 2)
    found = softknee.identify(model, inputs).conflicts
    assert [(c.declared, c.found) for c in found] == [("gelu_tanh", "gelu")] * 2
    assert found[0].sites == ("layers.0.activation#0",) and "no gradients" in str(found[0])
    # and so it is: the kernel's result is not the layer's
    with torch.no_grad():
        fused = model.layers[0](X)
        torch.backends.mha.set_fastpath_enabled(False)
        try:
            apart = model.layers[0](X)
        finally:
            torch.backends.mha.set_fastpath_enabled(True)
    assert (fused - apart).abs().max() > 1e-5


def test_an_activation_replaced_by_hand():
    model = layer("relu")
    model.activation = F.silu
    assert [(c.declared, c.found) for c in softknee.identify(model, X).conflicts] == [("silu", "relu")]
    assert not softknee.identify(softknee.swap(layer("relu"), {"relu": "silu"}, X), X).conflicts


@pytest.mark.parametrize(
    "model",
    [layer("relu"), layer("gelu"), layer(nn.ReLU()), layer(nn.GELU()), layer(nn.SiLU()),
     layer(nn.GELU("tanh"), bias=False)],
    ids=["relu", "gelu", "ReLU", "GELU", "SiLU", "not fused"],
)  # fmt: skip
def test_nothing_is_said_of_others(model):
    assert not softknee.identify(model, X).conflicts
