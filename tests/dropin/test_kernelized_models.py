"""`softknee.kernelize` on the small models: what it says of each, that the model stays itself, and the way back."""

from __future__ import annotations

import copy
import io
import pickle

import pytest
import torch
from test_swapped_models import build, tensors
from zoo import MODELS, ROPE, TEXT, _config, hf, tokens

import softknee


def run(model, inputs):
    torch.manual_seed(1)
    with torch.no_grad():
        return tensors(model(**inputs))


@pytest.mark.parametrize("train", [False, True])
@pytest.mark.parametrize("name", MODELS)
def test_kernelized(name, train):
    model, inputs = build(name, train)
    state, kinds = copy.deepcopy(model.state_dict()), [type(m) for m in model.modules()]
    wanted = run(copy.deepcopy(model), inputs)
    census = softknee.identify(model, inputs)
    result = softknee.kernelize(model, inputs)
    assert [*result.replaced, *result.skipped] and len(result.replaced) + len(result.skipped) == len(census)
    assert all(s.reason for s in result.skipped)
    assert list(model.state_dict()) == list(state)
    assert all(torch.equal(v, state[k]) for k, v in model.state_dict().items())
    copied = pickle.loads(pickle.dumps(model)) if name in PICKLABLE else copy.deepcopy(model)
    assert all(map(torch.equal, run(copied, inputs), run(copy.deepcopy(model), inputs)))
    result.revert()
    assert [type(m) for m in model.modules()] == kinds
    assert all(map(torch.equal, run(copy.deepcopy(model), inputs), wanted))


PICKLABLE = {"llama", "bert", "t5_gated", "gpt2", "apertus"}


def causal(kind, **settings):
    return hf(f"{kind}ForCausalLM", _config(f"{kind}Config", **(TEXT | ROPE | settings)), input_ids=tokens())


@pytest.mark.parametrize(
    ("kind", "settings", "runs", "note"),
    [
        ("Llama", {}, "silu → swiglu", ""),
        ("Mistral", {}, "silu → swiglu", ""),
        ("Qwen2", {}, "silu → swiglu", ""),
        ("Qwen3", {"head_dim": 8}, "silu → swiglu", ""),
        ("Phi3", {}, "silu → swiglu", ""),
        ("Gemma2", {"head_dim": 8, "hidden_activation": "gelu"}, "gelu → geglu", ""),
        ("Gemma", {"head_dim": 8}, "gelu_tanh → geglu_tanh", ""),
        ("Mixtral", {"num_local_experts": 2}, "silu", "MixtralExperts.forward is decorated"),
    ],
)
def test_feed_forward_blocks_of_language_models(kind, settings, runs, note):
    model, inputs = causal(kind, **settings)
    model.train()
    result = softknee.kernelize(model, inputs)
    acts = [r for r in result.replaced if r.activation in ("silu", "gelu", "gelu_tanh")]
    assert len(acts) >= 2 and {r.shown for r in acts} == {runs} and all(note in r.note for r in acts)
    if "→" in runs:
        assert result.bytes_after < result.bytes_before
    without = softknee.kernelize(causal(kind, **settings)[0])
    assert {r.activation for r in without.replaced} >= {r.activation for r in acts}


def test_experts_whose_product_is_a_method_of_its_own():
    model, inputs = causal("Mixtral", num_local_experts=2)
    model.config._experts_implementation = "batched_mm"
    result = softknee.kernelize(model.train(), inputs)
    assert {r.shown for r in result.replaced if r.activation == "silu"} == {"silu → swiglu"}


def test_what_stays_of_gpt_oss_is_said():
    model, inputs = build("gpt_oss")
    reasons = {s.activation: s.reason for s in softknee.kernelize(model, inputs).skipped}
    assert "softknee.functional.swiglu_oai is that in one call" in reasons["swiglu_oai"]
    assert "not by name in a method of GptOssAttention" in reasons["softmax"]


def test_gradient_checkpointing():
    model, inputs = causal("Llama")
    grads = []
    for each in (copy.deepcopy(model), model):
        each.train().activation_checkpointing_enable()
        if each is model:
            softknee.kernelize(each, inputs)
        each(**inputs, labels=inputs["input_ids"]).loss.backward()
        grads.append([p.grad for p in each.parameters()])
    for theirs, ours in zip(*grads, strict=True):
        torch.testing.assert_close(ours, theirs, rtol=1e-4, atol=1e-6)


def test_a_block_compiles_whole_and_a_model_is_saved_and_loaded(tmp_path):
    model, inputs = causal("Llama")
    result = softknee.kernelize(model, inputs)
    mlp, x = model.model.layers[0].mlp, torch.randn(2, 3, 32)
    torch.compiler.reset()
    torch.testing.assert_close(torch.compile(mlp, fullgraph=True, backend="aot_eager")(x), mlp(x))
    file = io.BytesIO()
    torch.save(model.state_dict(), file)
    file.seek(0)
    other, _ = causal("Llama")
    other.load_state_dict(torch.load(file))
    model.save_pretrained(tmp_path)
    loaded = type(model).from_pretrained(tmp_path, attn_implementation="eager")
    result.revert()
    wanted = run(model, inputs)
    for each in (other, loaded):
        assert all(map(torch.equal, run(each.eval(), inputs), run(model.eval(), inputs))), wanted
