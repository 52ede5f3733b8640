"""`swap` changes the activation and nothing else, says what it cannot change, and takes what it is asked for."""

import copy

import pytest
import torch
import torch.nn.functional as F
from torch import nn

import softknee
from softknee.errors import InputError

X = torch.linspace(-3, 3, 12).reshape(2, 6)


class Called(nn.Module):
    """Holds a function, as much of torch and of transformers does."""

    def __init__(self, activation=F.relu):
        super().__init__()
        self.linear, self.activation = nn.Linear(6, 6), activation

    def forward(self, x):
        return self.activation(self.linear(x))


class Written(nn.Module):
    def __init__(self):
        super().__init__()
        self.linear = nn.Linear(6, 6)

    def forward(self, x):
        return F.gelu(self.linear(x))


class Gated(nn.Module):
    def __init__(self, act):
        super().__init__()
        self.gate, self.up, self.act = nn.Linear(6, 8), nn.Linear(6, 8), act

    def forward(self, x):
        return self.act(self.gate(x)) * self.up(x)


def network():
    return nn.Sequential(nn.Linear(6, 6), nn.GELU("tanh"), nn.Linear(6, 6), nn.ReLU(), nn.Linear(6, 6), nn.GELU("tanh"))


def names(model, x=X):
    return [site.name for site in softknee.identify(model, x)]


def test_by_name_and_nothing_else_changes():
    model = network().double().eval()
    before = copy.deepcopy(model)
    swapped = softknee.swap(model, {"gelu_tanh": "gelu"})
    assert names(swapped, X.double()) == ["gelu", "relu", "gelu"]
    assert names(model, X.double()) == ["gelu_tanh", "relu", "gelu_tanh"]
    assert not any(module.training for module in swapped.modules())
    for (name, theirs), (other, ours) in zip(before.named_parameters(), swapped.named_parameters(), strict=True):
        assert name == other and torch.equal(theirs, ours) and ours.dtype == torch.float64
    expected = F.gelu(before[4](F.relu(before[2](F.gelu(before[0](X.double()))))))
    assert torch.equal(swapped(X.double()), expected)


def test_per_site_in_place_and_with_parameters():
    model = network()
    same = softknee.swap(model, {"1": "leaky_relu:negative_slope=0.2", "5#0": nn.Tanh()}, inplace=True)
    assert same is model and names(model) == ["leaky_relu(negative_slope=0.2)", "relu", "tanh"]
    assert isinstance(model[1], nn.LeakyReLU)


def test_a_site_named_by_its_key_goes_before_its_activation():
    assert names(softknee.swap(network(), {"gelu_tanh": "gelu", "5#0": "silu"})) == ["gelu", "relu", "silu"]


def test_parameters_choose_among_sites():
    model = nn.Sequential(nn.Linear(6, 6), nn.LeakyReLU(0.1), nn.Linear(6, 6), nn.LeakyReLU(0.2))
    assert names(softknee.swap(model, {"leaky_relu:negative_slope=0.2": "relu"})) == [
        "leaky_relu(negative_slope=0.1)",
        "relu",
    ]


def test_learned_parameters_have_the_models_dtype():
    model = softknee.swap(network().double(), {"relu": "prelu"})
    assert isinstance(model[3], nn.PReLU) and model[3].weight.dtype == torch.float64
    model(X.double()).sum().backward()


def test_a_module_used_twice_and_at_two_places():
    act = nn.ReLU()
    model = nn.Sequential(nn.Linear(6, 6), act, nn.Linear(6, 6), act)
    swapped = softknee.swap(model, {"relu": "silu"}, X)
    assert swapped[1] is swapped[3] and isinstance(swapped[1], nn.SiLU)


def test_functions_that_a_module_holds():
    swapped = softknee.swap(nn.Sequential(Called(), Called(F.gelu)), {"relu": "silu"}, X)
    assert names(swapped) == ["silu", "gelu"]


@pytest.mark.parametrize("training", [True, False])
def test_the_fused_kernel_of_a_transformer_layer_is_told(training):
    layer = nn.TransformerEncoderLayer(8, 2, 16, dropout=0.0, activation="relu", batch_first=True).train(training)
    x = torch.randn(2, 3, 8)
    for target, function in (("gelu", F.gelu), ("gelu_tanh", lambda h: F.gelu(h, approximate="tanh"))):
        swapped = softknee.swap(layer, {"relu": target}, x)
        expected = copy.deepcopy(layer)
        expected.activation, expected.activation_relu_or_gelu = function, 0
        with torch.no_grad():
            assert torch.allclose(swapped(x), expected(x), atol=1e-6)


def test_gates():
    swapped = softknee.swap(Gated(nn.SiLU()), {"swiglu": "geglu"}, X)
    assert names(swapped) == ["geglu"] and isinstance(swapped.act, nn.GELU)
    assert names(softknee.swap(Gated(nn.SiLU()), {"silu": "gelu"}, X)) == ["geglu"]
    with pytest.raises(InputError, match="more than an activation times up"):
        softknee.swap(Gated(nn.SiLU()), {"swiglu": "swiglu_oai"}, X)


def test_the_model_itself_may_be_the_activation():
    assert isinstance(softknee.swap(nn.ReLU(), {"relu": "gelu"}), nn.GELU)


def test_every_elementwise_entry():
    for activation in softknee.activations():
        if activation.kind == "elementwise":
            swapped = softknee.swap(network(), {"relu": activation}, X)
            assert torch.isfinite(swapped(X)).all() or not torch.isfinite(activation(X)).all(), activation.name


@pytest.mark.parametrize(
    ("model", "changes", "said"),
    [
        (network(), {"silu": "gelu"}, "has no silu; it has 2 × gelu_tanh"),
        (network(), {"gelu_tan": "gelu"}, "did you mean"),
        (network(), {"1": "glue"}, "'glue' is unknown"),
        (network(), {"1": "softmax"}, "which is normalizer"),
        (network(), {"1": 3}, "cannot become a int"),
        (network(), {}, "changes must map"),
        (network(), ["relu"], "changes must map"),
        ("relu", {"relu": "gelu"}, "must be a torch.nn.Module"),
        (Written(), {"gelu": "silu"}, r"test_swapping.py:\d+, not a module"),
        (nn.LSTM(6, 6), {"tanh": "relu"}, "takes no other activation"),
    ],
)
def test_what_cannot_be_done_is_said(model, changes, said):
    with pytest.raises(InputError, match=said):
        softknee.swap(model, changes, X)
