"""Torch's fused kernels hide nothing from identify: fast paths are off while a model is observed, and on again after;
what stays fused is declared."""

import warnings

import pytest
import torch
from torch import nn

from softknee.errors import InputError
from softknee.identification import Observer, identify


@pytest.fixture(params=[True, False], ids=["fast path on", "fast path off"])
def fast(request):
    before = torch.backends.mha.get_fastpath_enabled()
    torch.backends.mha.set_fastpath_enabled(request.param)
    yield request.param
    torch.backends.mha.set_fastpath_enabled(before)


def encoder(**options):
    layer = nn.TransformerEncoderLayer(8, 2, 16, batch_first=True, **options)
    return nn.TransformerEncoder(layer, 2, enable_nested_tensor=not options.get("norm_first", False))


@pytest.mark.parametrize(
    ("options", "activation"),
    [
        ({}, "relu"),
        ({"activation": "gelu"}, "gelu"),
        ({"activation": nn.functional.silu, "norm_first": True}, "silu"),
        ({"activation": nn.GELU("tanh")}, "gelu_tanh"),
    ],
)
@pytest.mark.parametrize("masked", [False, True])
def test_an_encoder_in_eval_mode_shows_its_activations(fast, options, activation, masked):
    model, x = encoder(**options).eval(), torch.randn(2, 3, 8)
    with torch.inference_mode():
        expected = model(x)
    given = {"src": x}
    if masked:  # on the fast path it becomes a nested tensor
        given["src_key_padding_mask"] = torch.tensor([[False, False, True], [False, True, True]])
    census = identify(model, given)
    found = [(s.path.split(".")[1], s.activation, s.form == "fused", s.role) for s in census]
    assert found == [
        (str(layer), *site)
        for layer in (0, 1)
        for site in (("softmax", True, "attention"), (activation, False, "hidden"))
    ]
    assert torch.backends.mha.get_fastpath_enabled() is fast
    assert not model.training
    with torch.inference_mode():
        assert torch.equal(model(x), expected)


def test_the_fast_path_is_what_it_was_after_an_exception(fast):
    with pytest.raises(InputError):
        identify(encoder(), torch.randn(2, 3, 7))
    assert torch.backends.mha.get_fastpath_enabled() is fast


def test_an_observer_sees_the_feed_forward_of_an_encoder_in_eval_mode(fast):
    model, x = encoder(activation="gelu").eval(), torch.randn(2, 3, 8)
    seen = []
    with torch.no_grad(), Observer(model, lambda call: seen.append((call.path, call.name)), census=identify(model, x)):
        model(x)
    assert seen == [("layers.0", "gelu"), ("layers.1", "gelu")]


class Fused(nn.Module):
    def __init__(self):
        super().__init__()
        self.attention = nn.MultiheadAttention(8, 2, batch_first=True)
        self.lstm, self.gru, self.rnn, self.cell = nn.LSTM(8, 8), nn.GRU(8, 8), nn.RNN(8, 8), nn.GRUCell(8, 8)

    def forward(self, x):
        x, _ = self.attention(x, x, x)
        x = nn.functional.scaled_dot_product_attention(x, x, x, is_causal=True)
        for module in (self.lstm, self.gru, self.rnn):
            x, _ = module(x)
        return self.cell(x[:, 0])


def test_what_stays_fused_is_declared(fast):
    for model in (Fused(), Fused().eval()):
        census = identify(model, torch.randn(2, 3, 8))
        assert all((s.form, s.evidence, s.measured) == ("fused", "declared", False) for s in census)
        assert [(s.path, s.activation) for s in census] == [
            ("attention", "softmax"), ("", "softmax"),
            *(("lstm", a) for a in ("sigmoid", "sigmoid", "tanh", "sigmoid", "tanh")),
            *(("gru", a) for a in ("sigmoid", "sigmoid", "tanh")), ("rnn", "tanh"),
            *(("cell", a) for a in ("sigmoid", "sigmoid", "tanh")),
        ]  # fmt: skip


def test_the_order_of_an_lstms_gates_is_the_order_in_which_they_are_computed():
    model, x = nn.Sequential(nn.LSTMCell(8, 4)), torch.randn(2, 8)
    declared = [s.activation for s in identify(model, x)]
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # of torch's own code
        decomposed = identify(torch.export.export(model, (x,)).run_decompositions())
    assert [s.activation for s in decomposed] == declared
