"""Configs: what they declare is what runs; a contradiction in them, or with the tensors beside them, shows."""

from __future__ import annotations

import json
import subprocess
import sys
import time
from pathlib import Path

import pytest
from samples import feedforward, safetensors

import softknee
from softknee.errors import InputError
from softknee.identification.formats.architectures import architectures
from softknee.identification.formats.gates import core, gated
from softknee.identification.formats.huggingface import from_config

ROOT = Path(__file__).parents[3]


def told(**settings):
    return from_config(settings)


def ffn(census):
    return {site.name for site in census if site.form == "module" and site.role in ("gate", "hidden")}


# -- against models that run


@pytest.fixture(scope="module")
def engine():
    pytest.importorskip("transformers")
    sys.path.insert(0, str(ROOT / "tools"))
    import architectures as engine

    return engine


TYPES = [
    "llama",
    "gemma2",
    "gpt2",
    "bert",
    "t5",
    "gpt_oss",
    "qwen2_moe",
    "clip",
    "modernbert",
    "whisper",
    "deepseek_v3",
]


@pytest.mark.parametrize("model_type", TYPES)
def test_what_a_config_declares_is_what_a_tiny_random_model_runs(engine, model_type):
    assert engine.compare(model_type, layers=3) == []  # the table was derived from models of 4


@pytest.mark.parametrize(("model_type", "key"), [("llama", "hidden_act"), ("gpt2", "activation_function")])
def test_another_value_of_the_key_is_another_model(engine, model_type, key):
    settings = engine.tiny(model_type, layers=2) | {key: "relu"}
    seen = engine.observe(model_type, settings)
    assert engine.agree(from_config(settings), seen) == []
    assert engine.agree(from_config(settings | {key: "silu"}), seen) != []


def test_a_config_of_another_model_does_not_agree(engine):
    seen = engine.observe("gpt2", engine.tiny("gpt2", layers=2))
    assert engine.agree(from_config(engine.tiny("llama", layers=2)), seen)


def test_no_default_config_of_a_type_that_is_known_has_a_conflict(engine):
    flagged = {}
    for model_type in architectures()["types"]:
        census = from_config(engine.default(model_type))
        if census.conflicts:
            flagged[model_type] = [str(c) for c in census.conflicts]
    assert flagged == {}


def test_the_table_names_entries_that_exist():
    types = architectures()["types"]
    assert len(types) > 500
    names = {row["is"] for entry in types.values() for row in entry["sites"]}
    assert all(softknee.get(name) for name in names)
    parts = {kind for entry in types.values() for _, kind in entry.get("parts", {}).values()}
    assert len(parts - types.keys()) <= 5  # some need packages that are not installed where the table is derived


# -- what configs on disk look like


def test_a_config_alone_gives_every_layer_by_the_model_s_own_paths(tmp_path):
    path = tmp_path / "config.json"
    path.write_text(
        json.dumps(
            {"architectures": ["LlamaForCausalLM"], "model_type": "llama", "hidden_act": "silu",
             "num_hidden_layers": 32, "torch_dtype": "bfloat16"}
        )
    )  # fmt: skip
    census = softknee.identify(path)
    site = census["model.layers.31.mlp.act_fn#0"]
    assert (site.activation, site.role, site.layout, site.dtype) == ("swiglu", "gate", "split", "bfloat16")
    assert (site.evidence, site.implementation) == ("declared", "config.json: hidden_act")
    assert census.counts() == {"softmax": 32, "swiglu": 32} and not census.executed
    assert census["model.layers.0.self_attn#0"].role == "attention"
    assert softknee.identify(tmp_path).to_dict() == census.to_dict()


def test_a_key_that_is_left_out_has_the_default_of_transformers():
    site = told(model_type="llama", num_hidden_layers=1)["layers.0.mlp.act_fn#0"]
    assert site.activation == "swiglu" and site.evidence == "inferred" and "hidden_act = 'silu'" in site.implementation


@pytest.mark.parametrize(
    ("settings", "expected"),
    [
        ({"model_type": "bloom"}, {"gelu_tanh"}),
        ({"model_type": "falcon"}, {"gelu"}),
        ({"model_type": "opt", "activation_function": "relu"}, {"relu"}),
        ({"model_type": "gemma2", "hidden_activation": "gelu_pytorch_tanh"}, {"geglu_tanh"}),
        ({"model_type": "bitnet", "hidden_act": "relu2"}, {"relu2_glu"}),
        ({"model_type": "nemotron", "hidden_act": "relu2"}, {"relu2"}),
        ({"model_type": "apertus", "hidden_act": "xielu"}, {"xielu"}),
        ({"model_type": "llama", "hidden_act": "mish"}, {"mish"}),
        ({"model_type": "t5", "feed_forward_proj": "gated-gelu"}, {"geglu_tanh"}),
        ({"model_type": "t5", "feed_forward_proj": "gated-silu"}, {"swiglu"}),
        ({"model_type": "t5"}, {"relu"}),
    ],
)
def test_families(settings, expected):
    census = from_config(settings)
    assert ffn(census) == expected and not census.conflicts


def test_layers_of_a_mixture_of_experts():
    census = told(model_type="deepseek_v3", num_hidden_layers=5, first_k_dense_replace=2)
    assert "layers.1.mlp.act_fn#0" in census and "layers.2.mlp.act_fn#0" not in census
    assert "layers.2.mlp.experts.act_fn#0" in census and "layers.1.mlp.experts.act_fn#0" not in census
    assert census["layers.2.mlp.experts.act_fn#0"].layout == "gate_up"


def test_gpt_oss_is_interleaved_and_clamped():
    census = told(model_type="gpt_oss", num_hidden_layers=1, swiglu_limit=7.0)
    site = census["layers.0.mlp.experts#0"]
    assert site.name == "swiglu_oai(alpha=1.702, limit=7)" and site.layout == "interleaved"


def test_a_model_of_two_reads_each_part_by_its_own_type():
    census = told(
        model_type="llava", architectures=["LlavaForConditionalGeneration"],
        text_config={"model_type": "gemma2", "num_hidden_layers": 1},
        vision_config={"model_type": "siglip_vision_model", "num_hidden_layers": 1},
    )  # fmt: skip
    assert census["model.language_model.layers.0.mlp.act_fn#0"].activation == "geglu_tanh"
    assert {s.name for s in census if s.path.startswith("model.vision_tower") and s.role == "hidden"} == {"gelu_tanh"}


def test_a_head_has_its_own_activations():
    census = told(model_type="bert", architectures=["BertForMaskedLM"], num_hidden_layers=1, hidden_act="relu")
    assert census["cls.predictions.transform.transform_act_fn#0"].activation == "relu"
    assert "bert.pooler.activation#0" not in census  # a masked language model has no pooler
    assert "pooler.activation#0" in told(model_type="bert", architectures=["BertModel"], num_hidden_layers=1)


def test_a_type_that_transformers_does_not_have():
    census = told(model_type="next_year", hidden_act="silu", num_hidden_layers=2)
    assert [(s.key, s.activation, s.evidence) for s in census] == [
        ("layers.0#0", "silu", "declared"), ("layers.1#0", "silu", "declared"),
    ]  # fmt: skip
    assert "not in the table" in census.notes[0]


def test_a_name_that_nobody_knows():
    (_, site) = told(model_type="llama", num_hidden_layers=1, hidden_act="nonsense")
    assert site.activation is None and "'nonsense' is no activation" in site.note


# -- conflicts


def conflict(census):
    (found,) = census.conflicts
    assert str(census).startswith("CONFLICT")
    return found


def test_gemma_s_bare_gelu_is_the_tanh_form():
    found = conflict(told(model_type="gemma", num_hidden_layers=2, hidden_act="gelu"))
    assert (found.declared, found.found, len(found.sites)) == ("gelu", "gelu_tanh", 2)


def test_two_keys_that_disagree_and_one_that_is_ignored():
    found = conflict(
        told(model_type="gemma2", num_hidden_layers=2, hidden_act="silu", hidden_activation="gelu_pytorch_tanh")
    )
    assert (found.declared, found.found) == ("silu", "geglu_tanh") and found.sources[0] == "config.json: hidden_act"
    assert not told(
        model_type="gemma2", num_hidden_layers=2, hidden_act="gelu_new", hidden_activation="gelu_pytorch_tanh"
    ).conflicts
    found = conflict(told(model_type="bloom", n_layer=1, hidden_act="silu"))
    assert "ignored" in found.what
    found = conflict(told(model_type="next_year", hidden_act="silu", hidden_activation="gelu"))
    assert (found.declared, found.found) == ("silu", "gelu")


def test_a_limit_of_zero_clamps_everything():
    found = conflict(told(model_type="gpt_oss", num_hidden_layers=1, swiglu_limit=0.0))
    assert "clamps" in found.what


def test_t5_that_says_two_things():
    found = conflict(told(model_type="t5", feed_forward_proj="gated-gelu", dense_act_fn="relu", is_gated_act=True))
    assert {found.declared, found.found} == {"gelu_tanh", "relu"}


def write(folder, settings, shapes):
    (folder / "config.json").write_text(json.dumps(settings))
    safetensors(folder / "model.safetensors", shapes)
    return softknee.identify(folder)


def test_a_config_against_the_tensors_beside_it(tmp_path):
    llama = {"architectures": ["LlamaForCausalLM"], "model_type": "llama", "num_hidden_layers": 2}
    census = write(tmp_path, llama, feedforward())
    assert not census.conflicts and any("agree" in note for note in census.notes)
    ungated = {name: shape for name, shape in feedforward().items() if "gate_proj" not in name}
    found = conflict(write(tmp_path, llama, ungated))
    assert found.declared == "swiglu" and "ungated" in found.found and len(found.sites) == 2
    nemotron = {"architectures": ["NemotronForCausalLM"], "model_type": "nemotron", "num_hidden_layers": 2}
    assert not write(tmp_path, nemotron, ungated).conflicts
    found = conflict(write(tmp_path, nemotron, feedforward()))
    assert found.declared == "relu2" and "gate_proj" in found.found


# -- cost


def test_a_config_takes_less_than_a_second_and_loads_no_transformers(tmp_path):
    path = tmp_path / "config.json"
    path.write_text(json.dumps({"model_type": "qwen3_next", "num_hidden_layers": 64}))
    code = (
        "import sys, time, softknee; t = time.process_time(); softknee.identify(sys.argv[1]);"
        "print(time.process_time() - t, 'transformers' in sys.modules)"
    )
    began = time.process_time()
    out = subprocess.run([sys.executable, "-c", code, path], capture_output=True, text=True, check=True, timeout=60)
    seconds, loaded = out.stdout.split()
    assert float(seconds) < 2.5 and loaded == "False"  # with what it loads itself
    began = time.process_time()
    softknee.identify(path)
    assert time.process_time() - began < 1.0


@pytest.mark.parametrize("held", ["[]", "3", "{}", '{"model_type": 3}', "{", '{"model_type": "next_year"}'])
def test_what_is_no_config(tmp_path, held):
    (tmp_path / "config.json").write_text(held)
    with pytest.raises(InputError):
        softknee.identify(tmp_path)


def test_gates_and_their_cores():
    assert gated("silu") == "swiglu" and gated("mish") is None
    assert core("swiglu") == core("swiglu_clamped") == "silu" and core("mish") == "mish"
