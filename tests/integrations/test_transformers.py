"""A config names an activation of one's own, and models made from it apply, train and are identified by it."""

import pytest
import torch

import softknee
from softknee.errors import InputError

transformers = pytest.importorskip("transformers")
tables = pytest.importorskip("transformers.activations")
register, ACT2FN = softknee.integrations.transformers.register, tables.ACT2FN
SMALL = {"hidden_size": 16, "num_hidden_layers": 2, "num_attention_heads": 2, "intermediate_size": 32, "vocab_size": 50}


@pytest.fixture(autouse=True)
def _restored():
    before = [(table, list(dict.items(table))) for table in (ACT2FN, tables.ACT2CLS)]
    yield
    for table, entries in before:
        table.clear()
        table.update(entries)


@softknee.elementwise(learnable=("beta",))
def mine(x, ops, *, beta=1.0):
    """x times a sigmoid, and half of x's sine"""
    return x * ops.sigmoid(beta * x) + 0.5 * ops.sin(x)


def sin_half(x):
    return x * torch.sigmoid(1.5 * x) + 0.5 * torch.sin(x)


@pytest.mark.parametrize(
    ("config", "model", "calls"), [("LlamaConfig", "LlamaModel", 2), ("BertConfig", "BertModel", 2)]
)
def test_a_config_names_it(config, model, calls):
    assert register(mine, beta=1.5) == "mine"
    torch.manual_seed(0)
    made = getattr(transformers, model)(getattr(transformers, config)(hidden_act="mine", **SMALL)).eval()
    tokens = torch.arange(8)[None]
    out = made(tokens).last_hidden_state
    out.square().sum().backward()
    learned = {name: p.grad for name, p in made.named_parameters() if name.endswith("beta")}
    assert len(learned) == calls and all(grad is not None and grad.abs().sum() > 0 for grad in learned.values())
    assert softknee.identify(made, tokens).counts()["mine"] == calls

    ACT2FN["theirs"] = type("Theirs", (torch.nn.Module,), {"forward": lambda self, x: sin_half(x)})
    theirs = getattr(transformers, model)(getattr(transformers, config)(hidden_act="theirs", **SMALL)).eval()
    theirs.load_state_dict({k: v for k, v in made.state_dict().items() if not k.endswith("beta")})
    torch.testing.assert_close(theirs(tokens).last_hidden_state, out)


def test_each_place_has_a_module_of_its_own():
    register("swish", "mine2", beta=2.0)
    assert ACT2FN["mine2"] is not ACT2FN["mine2"]
    assert ACT2FN["mine2"].beta.item() == tables.ACT2CLS["mine2"]().beta.item() == 2.0


def test_a_saved_model_comes_back(tmp_path):
    register(mine)
    made = transformers.BertModel(transformers.BertConfig(hidden_act="mine", **SMALL)).eval()
    made.save_pretrained(tmp_path)
    again = transformers.BertModel.from_pretrained(tmp_path).eval()
    tokens = torch.arange(8)[None]
    torch.testing.assert_close(again(tokens).last_hidden_state, made(tokens).last_hidden_state)


def test_what_is_taken_is_kept():
    with pytest.raises(InputError, match="knows 'gelu' already"):
        register("mish", "gelu")
    register("mish", "gelu", overwrite=True)
    assert ACT2FN["gelu"].activation is softknee.get("mish")
    register(mine)
    register(mine)  # the cell again
    with pytest.raises(InputError, match="knows 'mine' already"):
        register(mine, beta=2.0)


@pytest.mark.parametrize(
    ("given", "message"),
    [
        ({"activation": "swiglu"}, "register what is done to the gate"),
        ({"activation": "softmax"}, "softmax is normalizer"),
        ({"activation": "nothing"}, "unknown"),
        ({"activation": "elu", "alhpa": 2.0}, "alpha"),
        ({"activation": "elu", "name": ""}, "must be a word"),
    ],
)
def test_bad_input_is_named(given, message):
    with pytest.raises(InputError, match=message):
        register(**given)
