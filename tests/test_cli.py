"""The command line: every command, JSON that is JSON, one line per error with exit code 2, gates with exit code 1."""

from __future__ import annotations

import json
import math
import os
import subprocess
import sys
from pathlib import Path

import pytest
import torch
from torch import nn

import softknee
from softknee import cli

MODEL = """
import torch
from torch import nn


def build():
    return nn.Sequential(nn.Linear(6, 16), nn.GELU(), nn.Linear(16, 3))


def data():
    x = torch.randn(64, 6, generator=torch.Generator().manual_seed(0))
    return x, x[:, :3].argmax(1)


not_a_model = 3


def broken():
    raise RuntimeError("no <weights> here")


def exits():
    raise SystemExit(0)


class Talking(nn.Module):
    def forward(self, x):
        print("running")
        return torch.relu(x)
"""


@pytest.fixture
def target(tmp_path):
    path = tmp_path / "models.py"
    path.write_text(MODEL)
    return path


@pytest.fixture
def run(capsys):
    def call(*arguments: object) -> tuple[int, str, str]:
        with pytest.raises(SystemExit) as stop:
            cli.main([str(argument) for argument in arguments])
        out, err = capsys.readouterr()
        return stop.value.code, out, err

    return call


def test_list(run):
    code, out, _ = run("list")
    assert code == 0
    assert all(a.name in out for a in softknee.activations())
    code, out, _ = run("list", "--kind", "gated", "--json")
    assert code == 0
    names = [entry["name"] for entry in json.loads(out)]
    assert names == [a.name for a in softknee.activations() if a.kind == "gated"]
    code, out, _ = run("list", "--tag", "gate")
    assert "sigmoid" in out and "silu" not in out


def listed(run, *arguments):
    code, out, _ = run("list", *arguments, "--json")
    assert code == 0
    return {entry["name"] for entry in json.loads(out)}


def test_list_filters_combine(run):
    gated = listed(run, "--kind", "gated")
    ffn, llm = listed(run, "--tag", "ffn"), listed(run, "--tag", "llm")
    assert listed(run, "--kind", "gated", "--tag", "llm", "--tag", "ffn") == gated & ffn & llm
    assert "swiglu" in gated & ffn & llm and ffn & llm < llm
    assert "gelu_tanh" in listed(run, "--search", "gelu_new"), "an alias"
    assert listed(run, "--search", "LEAKY relu") >= {"leaky_relu", "prelu", "rrelu"}, "every word, in any case"
    assert "mish" in listed(run, "--search", "Misra"), "a source"
    code, out, _ = run("list", "--kind", "gated", "--tag", "cnn", "--search", "nothing")
    assert code == 0 and out == "no activation fits: gated, tagged cnn, 'nothing'\n"
    assert listed(run, "--search", "nothing like it") == set()


def test_list_fits_and_counts(run):
    out = run("list")[1]
    lines = out.splitlines()
    assert max(map(len, lines)) <= 80
    kinds = {kind: sum(a.kind == kind for a in softknee.activations()) for kind in ("elementwise", "gated")}
    assert all(f"{kind}  {n}" in lines for kind, n in kinds.items())
    assert f"{len(softknee.activations())} activations" in out
    assert f"llm {len(listed(run, '--tag', 'llm'))}" in out


def test_show(run):
    code, out, _ = run("show", "relu", "gelu_new", "softmax")
    assert code == 0 and "gelu_tanh" in out and "1.414" in out
    code, out, _ = run("show", "sigmoid", "--json")
    (entry,) = json.loads(out)
    assert entry["name"] == "sigmoid" and entry["facts"]["largest_derivative"]["value"] == 0.25
    assert entry["formula"] == "σ(x)" and entry["facts"]["limits"] == [0.0, 1.0]


def test_show_tells_all_of_one(run):
    out = run("show", "gelu_tanh")[1]
    assert "arXiv:1606.08415" in out and "over a copy" in out and "triton" in out and "GPT-2" in out
    assert any("\u2801" <= letter <= "\u28ff" for letter in out) and max(map(len, out.splitlines())) <= 80
    (entry,) = json.loads(run("show", "gelu_tanh", "--json")[1])
    assert entry["cost"]["float32"]["ns"] > 0 and "triton" in entry["code"]
    assert any("GPT-2" in model["models"] and model["evidence"].startswith("read") for model in entry["models"])
    unmeasured = run("show", "x * sigmoid(2 * x)")[1]
    assert "not measured" in unmeasured and "models that run" not in unmeasured


def test_show_code(run):
    assert run("show", "mish", "--code", "triton")[1].count("@triton.jit") == 2
    code, out, _ = run("show", "silu", "elu:alpha=0.5", "--code", "numpy")
    assert code == 0 and "def silu(ops, x):" in out and "# elu(ops, x, alpha=0.5)" in out
    (told,) = json.loads(run("show", "swiglu", "--code", "latex", "--json")[1])
    assert told["name"] == "swiglu" and told["backend"] == "latex" and "gate" in told["code"]
    code, out, err = run("show", "softmax", "--code", "cpp")
    assert (code, out) == (2, "") and err.count("\n") == 1 and "there is definition, latex, onnx" in err


def test_show_at_parameters(run):
    code, out, _ = run("show", "leaky_relu:negative_slope=0.5", "leaky_relu", "lrelu:negative_slope=0.5")
    assert code == 0 and "negative_slope = 0.01" in " ".join(out.split())
    gain = next(line for line in out.splitlines() if line.strip().startswith("gain"))
    assert gain.split() == ["gain", "1.265", "1.414"], "each once, and each its own"
    entries = json.loads(run("show", "elu:alpha=2", "elu", "--json")[1])
    assert [entry["facts"]["range"][0] for entry in entries] == [-2.0, -1.0]


def test_plot(run, tmp_path):
    code, out, _ = run("plot", "relu", "gelu", "silu", "--derivative")
    assert code == 0 and "f(x)" in out and "f′(x)" in out and "\x1b" not in out
    assert max(map(len, out.splitlines())) <= 80 and any("\u2801" <= letter <= "\u28ff" for letter in out)
    told = json.loads(run("plot", "elu:alpha=2", "--range", "-3", "1", "--json")[1])
    assert told["range"] == [-3, 1] and told["curves"][0]["value"][0] == pytest.approx(2 * (math.exp(-3) - 1))
    for ending in ("png", "svg", "html"):
        path = tmp_path / f"folder/curves.{ending}"
        assert run("plot", "relu", "hardshrink", "-d", "-o", path) == (0, f"written to {path}\n", "")
        assert path.stat().st_size > 5_000


def test_identify(run, target, tmp_path):
    code, out, _ = run("identify", f"{target}:build", "--input", "float32[2,6]")
    assert code == 0 and "gelu" in out and "observed" in out
    page = tmp_path / "census.html"
    code, out, _ = run("identify", f"{target}:build", "-i", "float32[2,6]", "--json", "-o", page)
    assert json.loads(out)["sites"][0]["activation"] == "gelu" and page.read_text().startswith("<!DOCTYPE html>")
    code, out, _ = run("identify", f"{target}:build")
    assert code == 0 and "declared" in out


def test_what_the_model_prints_is_not_our_output(run, target):
    code, out, err = run("identify", f"{target}:Talking", "-i", "float32[2,6]", "--json")
    assert code == 0 and json.loads(out)["sites"] and set(err.split()) == {"running"}
    code, out, err = run("diagnose", f"{target}:Talking", "-i", "float32[8,6]", "--json")
    assert code == 0 and json.loads(out) and "running" in err


@pytest.mark.parametrize("arguments", [["list"], ["list", "--json"], ["env"], ["env", "--json"]])
def test_a_reader_that_leaves_is_no_verdict(arguments):
    command = Path(sys.executable).parent / "softknee"
    with subprocess.Popen([command, *arguments], stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True) as process:
        process.stdout.close()
        assert process.stderr.read() == ""
        assert process.wait(60) == 141


def test_a_terminal_without_unicode():
    command = Path(sys.executable).parent / "softknee"
    for options in ([], ["--json"]):
        environment = {**os.environ, "PYTHONIOENCODING": "ascii"}
        done = subprocess.run([command, "show", "silu", *options], capture_output=True, env=environment, timeout=60)
        assert done.returncode == 0 and b"Sigmoid-weighted linear unit, x??(x)" in done.stdout


def test_diagnose(run, target):
    code, out, _ = run("diagnose", f"{target}:build", "--data", f"{target}:data", "--json")
    assert code == 0 and json.loads(out)["verdict"]
    code, out, _ = run("diagnose", f"{target}:build", "--input", "float32[64,6]")
    assert code == 0 and "healthy" in out


def save_runs(tmp_path, wrong):
    x = torch.randn(400, 4, generator=torch.Generator().manual_seed(1))
    y = x.argmax(1)

    def worse(x):
        out = x.clone()
        out[:wrong] = out[:wrong].roll(1, 1)
        return out

    dataset = softknee.Dataset(x, y)
    softknee.evaluate(nn.Identity(), dataset, version="a").save(tmp_path / "a.json")
    softknee.evaluate(worse, dataset, version="b", batch_size=400).save(tmp_path / "b.json")
    return tmp_path / "a.json", tmp_path / "b.json"


def test_compare_is_a_gate(run, tmp_path):
    a, b = save_runs(tmp_path, wrong=30)
    code, out, _ = run("compare", a, b, "--json")
    assert code == 0 and json.loads(out)["broken"] == 30
    assert run("compare", a, b, "--fail-on", "worse", "--margin", "0.5pp")[0] == 1
    assert run("compare", b, a, "--fail-on", "worse")[0] == 0, "better is not worse"
    assert run("compare", a, a, "--fail-on", "worse")[0] == 0, "the same is not worse"
    assert run("compare", a, b, "--fail-on", "worse", "--margin", "20pp")[0] == 0, "within the margin"


def test_version(run):
    assert run("--version") == (0, f"{softknee.__version__}\n", "")


def test_env(run):
    code, out, _ = run("env", "--json")
    assert code == 0 and json.loads(out)["torch"] == torch.__version__
    assert "composite" in run("env")[1]


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["show", "gelo"], "did you mean 'gelu'"),
        (["list", "--kind", "gate"], "must be one of elementwise, gated, normalizer"),
        (["list", "--tag", "x"], "must be one of"),
        (["show", "elu:alfa=1"], "did you mean 'alpha'"),
        (["show", "elu:alpha=x"], "alpha must be a number"),
        (["plot", "gelo"], "did you mean 'gelu'"),
        (["plot", "softmax"], "it is a normalizer"),
        (["plot", "relu", "--range", "2", "1"], "the lower first, got 2 and 1"),
        (["plot", "relu", "--range", "nan", "1"], "the lower first, got nan and 1"),
        (["plot", "relu", "--range", "a", "1"], "--range"),
        (["plot", "relu", "-o", "curves.jpg"], "its name must end in .png, .svg, .html"),
        (["plot", "relu", "-o", "models.py/curves.svg"], "cannot write"),
        (["plot"], "NAME"),
        (["identify", "nowhere.py:build"], "nowhere.py"),
        (["identify", "build"], "pkg.module:build"),
        (["identify", "{target}:not_a_model"], "it must be a torch.nn.Module"),
        (["identify", "{target}:broken"], "no <weights> here"),
        (["identify", "{target}:exits"], "it called sys.exit(0)"),
        (["identify", "{target}:build", "-i", "float33[2,6]"], "float33"),
        (["identify", "{target}:build", "-i", "float32[2,7]"], "mat1 and mat2"),
        (["diagnose", "{target}:build"], "--data"),
        (["compare", "a.json", "b.json"], "a.json"),
        (["compare", "a.json", "b.json", "--fail-on", "x"], "--fail-on 'x' is unknown"),
        (["compare", "a.json", "b.json", "--margin", "much"], "much"),
        (["demo", "--epochs", "0"], "epochs must be at least 1"),
        (["identify"], "TARGET"),
        (["frobnicate"], "frobnicate"),
    ],
)
def test_errors_are_one_line(run, target, arguments, message, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    code, out, err = run(*(a.replace("{target}", str(target)) for a in arguments))
    assert code == 2 and out == ""
    assert message in err and err.count("\n") == 1 and err.startswith("softknee: ")


def test_debug_shows_the_traceback():
    with pytest.raises(softknee.errors.InputError):
        cli.main(["--debug", "show", "gelo"])


def test_an_unexpected_error_is_one_line_too(run, monkeypatch):
    import softknee.environment

    monkeypatch.setattr(softknee.environment, "environment", lambda: 1 / 0)
    code, _, err = run("env")
    assert code == 2 and err == "softknee: ZeroDivisionError: division by zero (--debug shows where)\n"


def test_interrupt(run, monkeypatch):
    import softknee.environment

    def interrupted():
        raise KeyboardInterrupt

    monkeypatch.setattr(softknee.environment, "environment", interrupted)
    code, _, err = run("env")
    assert code == 130 and "Traceback" not in err


def test_installed_command_and_help():
    command = Path(sys.executable).parent / "softknee"
    for arguments in ((), ("--help",), ("compare", "--help")):
        done = subprocess.run([command, *arguments], capture_output=True, text=True, timeout=60)
        assert done.returncode == 0, done.stderr
        assert "Usage" in done.stdout + done.stderr
