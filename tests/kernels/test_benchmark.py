"""`benchmarks/cpu.py` runs, says what was reached, and prints no speed of a kernel that is not exact."""

from __future__ import annotations

import importlib.util
import sys
from pathlib import Path

import pytest
import torch

import softknee
from softknee.kernels import cpu

BENCHMARKS = Path(__file__).parents[2] / "benchmarks"
pytestmark = pytest.mark.skipif(not cpu.takes(softknee.get("silu"), torch.float32), reason=cpu.described())


@pytest.fixture
def benchmark(monkeypatch, tmp_path):
    """The script as a module; its results go elsewhere."""
    monkeypatch.syspath_prepend(str(BENCHMARKS))
    spec = importlib.util.spec_from_file_location("softknee_benchmark_cpu", BENCHMARKS / "cpu.py")
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    monkeypatch.setattr(module, "RESULTS", tmp_path)
    monkeypatch.setattr(module, "THREADS", 1)
    monkeypatch.setenv("COLUMNS", "200")
    monkeypatch.setattr(module, "SIZES", {"4K": 4096, "64K": 1 << 16, "1M": 1 << 17, "16M": 1 << 18})
    threads = torch.get_num_threads()
    yield module
    torch.set_num_threads(threads)
    sys.modules.pop("machine", None)


def test_it_prints_ratios_and_bars(benchmark, capsys):
    assert benchmark.main(["--no-compile", "--seconds", "0.001", "tanh", "swiglu"]) == 0
    printed = capsys.readouterr().out
    for words in ("forward float32 1M, eager: tanh", "forward bfloat16 16M, eager: swiglu", "slowest from 64K on"):
        assert words in printed
    assert "4.00  bar  4.0  bytes kept for backward per element, bfloat16 swiglu (eager 6)" in printed
    assert "as it comes" in printed and "wide" in printed and "threads 1" in printed
    assert not list(benchmark.RESULTS.iterdir())


@pytest.mark.parametrize("wrong", ["forward", "derivatives"])
def test_no_speed_of_a_kernel_that_is_off(benchmark, monkeypatch, capsys, wrong):
    right = getattr(cpu, wrong)

    def planted(activation, *arguments, **options):
        found = right(activation, *arguments, **options)
        off = 1 + 64 * torch.finfo(arguments[0].dtype).eps
        return found * off if wrong == "forward" else tuple(each * off for each in found)

    monkeypatch.setattr(cpu, wrong, planted)
    assert benchmark.main(["--no-compile", "--quick", "--seconds", "0.001", "silu"]) == 1
    printed = capsys.readouterr()
    assert not printed.out
    assert "no speeds: a kernel is less exact than recorded" in printed.err
    assert f"silu, torch.float32, order {int(wrong == 'derivatives')}:" in printed.err


def test_the_old_results_survive_an_interruption(benchmark, monkeypatch):
    old = benchmark.RESULTS / "cpu.json"
    old.write_text("old")

    def interrupted(*arguments, **options):
        raise KeyboardInterrupt

    monkeypatch.setattr(benchmark, "exact", lambda name: True)
    monkeypatch.setattr(benchmark, "timed", interrupted)
    assert benchmark.main(["--no-compile"]) == 130
    assert old.read_text() == "old"


def test_bars_are_what_was_measured(benchmark):
    key = ("pages kept", "N(0, 1)", "forward", "float32", "1M", "eager")
    rows = {row["what"]: row for row in benchmark.bars({key: {"tanh": 8.0, "mish": 2.0, "swiglu": 1.0}})}
    mean = rows["forward float32 1M, eager: geomean of 2 functions"]
    assert mean["reached"] == 4.0 and mean["passed"] and mean["bar"] == 2.2
    assert rows["forward float32 1M, eager: tanh"]["passed"] and not rows["forward float32 1M, eager: mish"]["passed"]
    assert not rows["forward float32 1M, eager: swiglu"]["passed"]
    assert not any("bfloat16 1M" in what for what in rows)
