"""GGUF headers: architecture, keys, gates, versions, byte orders, size of tokenizers."""

from __future__ import annotations

import time

import numpy as np
import pytest
from samples import blocks, gguf

import softknee
from softknee.identification.formats.gguf import _table


def named(path, metadata, tensors, **how):
    census = softknee.identify(gguf(path / "m.gguf", metadata, tensors, **how))
    return {site.key: site for site in census}, census


@pytest.mark.parametrize("version", [1, 2, 3])
@pytest.mark.parametrize("order", ["<", ">"])
def test_versions_and_byte_orders(tmp_path, version, order):
    sites, census = named(
        tmp_path, {"general.architecture": "gemma2", "general.name": "small"}, blocks(), version=version, order=order
    )
    assert list(sites) == ["blk.0.attn#0", "blk.0.ffn#0", "blk.1.attn#0", "blk.1.ffn#0"]
    ffn = sites["blk.1.ffn#0"]
    assert (ffn.activation, ffn.role, ffn.layout, ffn.evidence) == ("geglu_tanh", "gate", "split", "inferred")
    assert census.model == "small" and any("float16" in note for note in census.notes)


@pytest.mark.parametrize(
    ("kind", "gated", "packed", "expected"),
    [
        ("llama", True, False, "swiglu"), ("phi3", False, True, "swiglu"), ("gpt2", False, False, "gelu_tanh"),
        ("nemotron", False, False, "relu2"), ("bitnet", True, False, "swiglu"), ("t5", False, False, "relu"),
        ("t5", True, False, "geglu_tanh"), ("smallthinker", True, False, "reglu"),
        ("falcon", False, False, "gelu_tanh"),
        ("modern-bert", False, True, "geglu_tanh"), ("gpt-oss", True, False, "swiglu_oai"),
        ("apertus", False, False, "xielu"),
    ],
)  # fmt: skip
def test_the_architecture_decides_and_the_tensors_say_whether_it_is_gated(tmp_path, kind, gated, packed, expected):
    sites, _ = named(tmp_path, {"general.architecture": kind}, blocks(1, gated, packed))
    site = sites["blk.0.ffn#0"]
    assert site.activation == expected
    assert (site.role == "gate") == (gated or packed)
    assert site.layout == ("gate_up" if packed else "split" if gated else None)


def test_a_key_that_names_it_is_declared(tmp_path):
    sites, census = named(
        tmp_path,
        {"general.architecture": "modern-bert", "modern-bert.hidden_activation": "silu"},
        blocks(1, False, True),
    )
    assert (sites["blk.0.ffn#0"].activation, sites["blk.0.ffn#0"].evidence) == ("swiglu", "declared")
    assert not census.conflicts
    sites, census = named(
        tmp_path,
        {"general.architecture": "modern-bert", "modern-bert.hidden_activation": "mish"},
        blocks(1, False, True),
    )
    assert sites["blk.0.ffn#0"].activation == "geglu_tanh"  # what llama.cpp falls back to
    assert census.conflicts[0].declared == "mish" and str(census).startswith("CONFLICT")


@pytest.mark.parametrize(
    ("keys", "expected"),
    [
        ({"clip.use_gelu": True}, "gelu_tanh"),
        ({"clip.use_silu": True}, "silu"),
        ({"clip.use_gelu": False}, "quick_gelu"),
    ],
)
def test_clip(tmp_path, keys, expected):
    tensors = {"v." + name: shape for name, shape in blocks(1, False).items()}
    sites, _ = named(tmp_path, {"general.architecture": "clip", **keys}, tensors)
    assert sites["v.blk.0.ffn#0"].activation == expected


def test_clip_that_says_both(tmp_path):
    both = {"general.architecture": "clip", "clip.use_gelu": True, "clip.use_silu": True}
    assert named(tmp_path, both, blocks(1, False))[1].conflicts


def test_parameters_of_each_layer(tmp_path):
    keys = {f"xielu.{name}": [0.25, 0.5] for name in ("alpha_p", "alpha_n", "beta", "eps")}
    sites, _ = named(tmp_path, {"general.architecture": "apertus", **keys}, blocks(2, False))
    assert sites["blk.0.ffn#0"].parameters["alpha_p"] == 0.25 and sites["blk.1.ffn#0"].parameters["beta"] == 0.5
    assert sites["blk.1.ffn#0"].evidence == "declared"
    clamps = {"general.architecture": "step35", "step35.swiglu_clamp_shexp": [0.0, 16.0]}
    sites, _ = named(tmp_path, clamps, blocks())
    assert sites["blk.0.ffn#0"].name == "swiglu" and sites["blk.1.ffn#0"].name == "swiglu_step(limit=16)"


def test_experts_and_shared_experts(tmp_path):
    tensors = {}
    for ending in ("_exps", "_shexp"):
        tensors |= {f"blk.0.ffn_{part}{ending}.weight": (2, 8, 4) for part in ("gate", "up", "down")}
    sites, _ = named(tmp_path, {"general.architecture": "qwen3moe"}, tensors)
    assert [s.name for s in sites.values()] == ["swiglu", "swiglu"] and "blk.0.ffn_exps#0" in sites


def test_an_architecture_that_is_not_known(tmp_path):
    sites, census = named(tmp_path, {"general.architecture": "next-year"}, blocks(1))
    assert sites["blk.0.ffn#0"].activation is None and sites["blk.0.ffn#0"].role == "gate"
    assert "'next-year' is not in the table" in census.notes[0]


def test_a_header_without_tensors_has_its_block_count(tmp_path):
    sites, _ = named(tmp_path, {"general.architecture": "llama", "llama.block_count": 3}, {})
    assert [s.activation for s in sites.values() if s.role == "gate"] == ["swiglu"] * 3


def test_a_tokenizer_is_passed_over_in_less_than_a_second(tmp_path):
    words = [f"token{i}" for i in range(100_000)]
    path = tmp_path / "big.gguf"
    metadata = {"tokenizer.ggml.tokens": words, "tokenizer.ggml.merges": words * 3, "general.architecture": "llama"}
    gguf(path, metadata, blocks(80))
    began = time.process_time()
    assert softknee.identify(path).counts() == {"softmax": 80, "swiglu": 80}
    assert time.process_time() - began < 1.0


def test_files_that_llama_cpp_s_own_library_writes(tmp_path):
    library = pytest.importorskip("gguf")
    path = tmp_path / "real.gguf"
    writer = library.GGUFWriter(path, "qwen2")
    writer.add_block_count(1)
    writer.add_token_list([f"t{i}" for i in range(5000)])
    writer.add_token_scores([0.5] * 5000)
    for name, shape in blocks(1).items():
        writer.add_tensor(name, np.zeros(shape, np.float16))
    writer.write_header_to_file()
    writer.write_kv_data_to_file()
    writer.write_tensors_to_file()
    writer.close()
    assert softknee.identify(path).counts() == {"softmax": 1, "swiglu": 1}


def test_the_table_names_entries_and_architectures_that_exist():
    table = _table()
    names = set()
    for entry in table["architectures"].values():
        runs = entry["runs"]
        names |= set(runs.values()) if isinstance(runs, dict) else {runs} - {None}
    assert all(softknee.get(name) for name in names | set(table["hidden_activation"].values()))
    library = pytest.importorskip("gguf")
    missing = set(library.MODEL_ARCH_NAMES.values()) - set(table["architectures"])
    assert len(missing) <= 0.1 * len(library.MODEL_ARCH_NAMES), missing
