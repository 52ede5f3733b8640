"""The front door: the format by content, the command line, `identify` on paths."""

from __future__ import annotations

import json
import zipfile

import pytest
import torch
from samples import blocks, feedforward, gguf, safetensors
from torch import nn

import softknee
from softknee.cli import main
from softknee.errors import InputError
from softknee.identification.formats import format_of

LLAMA = {"model_type": "llama", "hidden_act": "gelu", "num_hidden_layers": 1}


@pytest.fixture
def files(tmp_path):
    """A file of each format under a name that says nothing."""
    gguf(tmp_path / "gguf", {"general.architecture": "llama"}, blocks(1))
    safetensors(tmp_path / "safetensors", feedforward(1))
    (tmp_path / "huggingface").write_text(json.dumps(LLAMA))
    (tmp_path / "keras").write_text(json.dumps({"class_name": "Sequential", "config": {"layers": []}}))
    model = nn.Sequential(nn.Linear(2, 2), nn.ReLU())
    torch.save(model.state_dict(), tmp_path / "checkpoint")
    members = {
        "torchscript": ("m/data.pkl", "m/code/__torch__.py", "m/constants.pkl"),
        "exported": (
            "m/data/weights/weight_0",
            "m/models/model.json",
            "m/archive_format",
            "m/data/sample_inputs/model.pt",
        ),
    }
    for name, held in members.items():
        with zipfile.ZipFile(tmp_path / name, "w") as archive:
            for member in held:
                archive.writestr(member, b"")
    (tmp_path / "onnx").write_bytes(b"\x08\x0a\x12\x07pytorch")
    return tmp_path


@pytest.mark.parametrize(
    "name", ["gguf", "safetensors", "huggingface", "keras", "checkpoint", "exported", "torchscript", "onnx"]
)
def test_the_format_is_told_by_content_whatever_the_name(files, name):
    assert format_of(files / name) == name
    (files / name).rename(files / "model.bin")
    assert format_of(str(files / "model.bin")) == name


def test_a_directory(files):
    (files / "config.json").write_text(json.dumps(LLAMA))
    assert format_of(files) == "huggingface"
    (files / "config.json").unlink()
    with pytest.raises(InputError, match=r"no config\.json and no \.safetensors"):
        format_of(files)


def test_identify_takes_paths_and_no_inputs_for_them(files):
    assert softknee.identify(files / "huggingface").counts()["geglu"] == 1
    assert softknee.identify(str(files / "gguf")).counts()["swiglu"] == 1
    with pytest.raises(InputError, match="example_inputs"):
        softknee.identify(files / "gguf", torch.zeros(1))


def run(capsys, *arguments):
    with pytest.raises(SystemExit) as stop:
        main(["identify", *map(str, arguments)])
    return stop.value.code, *capsys.readouterr()


def test_the_command_line(files, capsys, tmp_path):
    code, out, _ = run(capsys, files / "huggingface", "--json")
    assert code == 0 and json.loads(out)["sites"][1]["activation"] == "geglu"
    code, out, err = run(capsys, files / "checkpoint")
    assert (code, out) == (2, "") and "--allow-pickle" in err and err.count("\n") == 1
    assert run(capsys, files / "checkpoint", "--allow-pickle")[0] == 0
    code, _, err = run(capsys, files / "missing.gguf")
    assert code == 2 and "there is no file" in err and "missing.gguf" in err
    (tmp_path / "model.py").write_text("")
    code, _, err = run(capsys, tmp_path / "model.py")
    assert code == 2 and "model.py:build" in err
