"""safetensors and checkpoints: what names and shapes tell, that weights stay unread, that pickles are refused."""

from __future__ import annotations

import json
import pickle
import time

import pytest
import torch
from samples import feedforward, safetensors
from torch import nn

import softknee
from softknee.errors import InputError
from softknee.identification.formats.tensors import Tensor, candidates, feedforwards


def blocks(**shapes):
    return [(b.path, b.gated, b.layout) for b in feedforwards({k: Tensor("F32", v) for k, v in shapes.items()})]


@pytest.mark.parametrize(
    ("names", "expected"),
    [
        ({"w1": (8, 4), "w2": (4, 8), "w3": (8, 4)}, (True, "split")),
        ({"gate_proj": (8, 4), "up_proj": (8, 4), "down_proj": (4, 8)}, (True, "split")),
        ({"gate_up_proj": (16, 4), "down_proj": (4, 8)}, (True, "gate_up")),
        ({"up_proj": (8, 4), "down_proj": (4, 8)}, (False, None)),
        ({"wi_0": (8, 4), "wi_1": (8, 4), "wo": (4, 8)}, (True, "split")),
        ({"wi": (8, 4), "wo": (4, 8)}, (False, None)),
        ({"Wi": (16, 4), "Wo": (4, 8)}, (True, None)),
        ({"c_fc": (4, 8), "c_proj": (8, 4)}, (False, None)),
        ({"dense_h_to_4h": (16, 4), "dense_4h_to_h": (4, 8)}, (True, None)),
        ({"fc1": (8, 4), "fc2": (4, 8)}, (False, None)),
    ],
)
def test_a_block_s_gate_shows_in_its_names_and_shapes(names, expected):
    found = blocks(**{f"h.0.mlp.{name}.weight": shape for name, shape in names.items()})
    assert found == [("h.0.mlp", *expected)]


def test_bert_s_block_is_in_two_modules():
    shapes = {"intermediate.dense.weight": (8, 4), "output.dense.weight": (4, 8), "intermediate.dense.bias": (8,)}
    found = blocks(**{f"encoder.layer.0.{name}": shape for name, shape in shapes.items()})
    assert ("encoder.layer.0", False, None) in found


def test_names_leave_candidates_with_their_shares(tmp_path):
    census = softknee.identify(safetensors(tmp_path / "model.safetensors", feedforward()))
    assert [site.key for site in census] == ["model.layers.0.mlp#0", "model.layers.1.mlp#0"]
    site = census[0]
    assert (site.activation, site.role, site.layout, site.evidence) == (None, "gate", "split", "inferred")
    assert site.candidates[0].activation == "swiglu" and site.candidates[0].confidence > 0.7
    assert "geglu_tanh" in {c.activation for c in site.candidates}
    assert sum(c.confidence for c in site.candidates) == pytest.approx(1, abs=0.01)
    assert not candidates("nobody.has.this", True)


def test_learned_parameters_show(tmp_path):
    shapes = {"body.act.weight": (64,), "mlp.act_fn.alpha_p": (1,), "mlp.act_fn.alpha_n": (1,), "v.act1.alpha": (8,)}
    census = softknee.identify(safetensors(tmp_path / "model.safetensors", shapes))
    assert {s.path: s.activation for s in census} == {"body.act": "prelu", "mlp.act_fn": "xielu", "v.act1": "snake"}
    assert census["body.act#0"].units == 64


def test_shards_of_seven_billion_parameters_in_two_seconds_and_no_weight_read(tmp_path):
    shapes = feedforward(32, 4096)
    shapes = {name: tuple(11008 if n == 8192 else n for n in shape) for name, shape in shapes.items()}
    shapes |= {f"model.layers.{i}.self_attn.{p}_proj.weight": (4096, 4096) for i in range(32) for p in "qkvo"}
    names = list(shapes)
    place = {}
    for number in range(4):
        shard = f"model-0000{number}-of-00004.safetensors"
        part = {name: shapes[name] for name in names[number::4]}
        safetensors(tmp_path / shard, part, "BF16", sparse=True)
        place |= dict.fromkeys(part, shard)
    index = tmp_path / "model.safetensors.index.json"
    index.write_text(json.dumps({"metadata": {}, "weight_map": place}))
    held = sum(file.stat().st_size for file in tmp_path.glob("*.safetensors"))
    assert held > 12e9 > 1e9 > sum(file.stat().st_blocks * 512 for file in tmp_path.glob("*.safetensors"))
    for target in (tmp_path, index):
        began = time.perf_counter()
        census = softknee.identify(target)
        assert len(census) == 32 and census[0].units == 11008
        assert time.perf_counter() - began < 2.0  # 13 GB of holes would take longer to read
    (tmp_path / "model-00003-of-00004.safetensors").unlink()
    with pytest.raises(InputError, match="00003"):
        softknee.identify(index)


@pytest.mark.parametrize("shard", ["../outside.safetensors", "/etc/passwd", "..", "a/b.safetensors"])
def test_an_index_cannot_lead_outside_its_directory(tmp_path, shard):
    index = tmp_path / "model.safetensors.index.json"
    index.write_text(json.dumps({"weight_map": {"a": shard}}))
    with pytest.raises(InputError, match="not a file beside it"):
        softknee.identify(index)


@pytest.mark.parametrize(
    "entry",
    [
        {"dtype": "F32", "shape": [2], "data_offsets": [0, 99]}, {"dtype": "F32", "shape": [2], "data_offsets": [8, 0]},
        {"dtype": "F32", "shape": [-2], "data_offsets": [0, 8]}, {"dtype": "F99", "shape": [2], "data_offsets": [0, 8]},
        {"dtype": "F32", "shape": [3], "data_offsets": [0, 8]}, {"dtype": "F32", "shape": [True]},
        {"dtype": "F32", "shape": "2", "data_offsets": [0, 8]}, {"dtype": 3}, [], None, 7,
        {"dtype": "F32", "shape": [2**40, 2**40], "data_offsets": [0, 8]},
    ],
)  # fmt: skip
def test_a_header_that_does_not_fit_its_file(tmp_path, entry):
    text = json.dumps({"a": entry}).encode()
    path = tmp_path / "m.safetensors"
    path.write_bytes(len(text).to_bytes(8, "little") + text + bytes(8))
    with pytest.raises(InputError, match="damaged"):
        softknee.identify(path)


def test_the_library_s_own_files(tmp_path):
    library = pytest.importorskip("safetensors.torch")
    tensors = {name: torch.zeros(shape, dtype=torch.bfloat16) for name, shape in feedforward().items()}
    library.save_file(tensors, tmp_path / "model.safetensors", {"format": "pt"})
    assert len(softknee.identify(tmp_path)) == 2


@pytest.mark.parametrize("how", [{}, {"_use_new_zipfile_serialization": False}])
def test_a_checkpoint_is_refused_unless_asked_for(tmp_path, how):
    model = nn.Sequential(nn.Linear(2, 2), nn.PReLU(2))
    path = tmp_path / "model.bin"
    torch.save({"state_dict": nn.ModuleDict({"activation": nn.PReLU(2), "body": model}).state_dict()}, path, **how)
    with pytest.raises(InputError, match=r"pickle.*allow_pickle"):
        softknee.identify(path)
    census = softknee.identify(path, allow_pickle=True)
    assert [(s.key, s.activation, s.units) for s in census] == [("activation#0", "prelu", 2)]


class Evil:
    def __init__(self, trace):
        self.trace = trace

    def __reduce__(self):
        return open, (str(self.trace), "w")


def test_what_a_pickle_would_run_is_not_run(tmp_path):
    trace = tmp_path / "executed"
    for name, write in {"a.pt": torch.save, "b.pkl": lambda o, p: p.write_bytes(pickle.dumps(o))}.items():
        path = tmp_path / name
        write({"a": Evil(trace)}, path)
        trace.unlink(missing_ok=True)
        for allow in (False, True):
            with pytest.raises(InputError):
                softknee.identify(path, allow_pickle=allow)
            assert not trace.exists()
