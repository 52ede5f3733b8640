"""The kernels' error in plain ULPs: a sample of all inputs and the recorded worst; `make exhaustive` takes all."""

from __future__ import annotations

import importlib.util
import json
import math
from pathlib import Path

import numpy as np
import pytest
import torch

import softknee
from softknee.errors import InputError
from softknee.kernels import cpu, ulp
from softknee.kernels.paths import ORDERS

RESULTS = Path(__file__).parents[2] / "benchmarks/results/ulp.json"
KERNELS = ulp.swept()
STRIDE = 65_537  # coprime to 2³²: every exponent and sign, other mantissas each time
needs_kernels = pytest.mark.skipif(not KERNELS, reason=cpu.described())


def as_bits(values) -> torch.Tensor:
    """Unsigned bits as int32."""
    return torch.from_numpy(np.asarray(values, dtype=np.uint32).view(np.int32).copy())


def judged(way, truth, order, values) -> ulp.Tally:
    judge = ulp.Judge(way, truth, order)
    with torch.no_grad():
        return sum((judge.inputs(each) for each in as_bits(values).split(ulp.BLOCK)), ulp.Tally())


@pytest.mark.parametrize("order", [0, 1], ids=ORDERS[:2])
@pytest.mark.parametrize("activation", KERNELS, ids=lambda a: a.name)
def test_no_error_is_larger_than_recorded(activation, order):
    if not RESULTS.exists():
        pytest.skip("benchmarks/results/ulp.json is not there: run make exhaustive")
    entries = json.loads(RESULTS.read_text())["entries"]
    if ORDERS[order] not in entries.get(activation.name, {}):
        pytest.skip("not swept yet: run make exhaustive")
    recorded = entries[activation.name][ORDERS[order]]
    assert recorded["inputs"] == 1 << 32
    truth, _, _ = ulp.oracle(activation, order, 1 << 12)
    values = [int(recorded["bits"], 16), *range(17, 1 << 32, STRIDE)]
    found = judged(ulp.kernel(activation, order), truth, order, values)
    assert found.ulp <= float(recorded["ulp"]), hex(found.bits)
    assert found.wrong == 0 or recorded["wrong"], hex(found.wrong_bits)
    at_worst = judged(ulp.kernel(activation, order), truth, order, values[:1])
    assert at_worst.ulp == pytest.approx(float(recorded["ulp"]), abs=2e-4) or cpu.isa() != "avx512"


@needs_kernels
def test_the_two_oracles_agree():
    for name in ("gelu", "mish", "relu", "squareplus"):
        for order in (0, 1):
            assert ulp.oracle(softknee.get(name), order, 1 << 12)[2] <= ulp.NEAR


@needs_kernels
def test_an_oracle_that_is_off_is_refused(monkeypatch):
    true = ulp.composite

    def planted(activation, order):
        way = true(activation, order)
        return lambda x: torch.where(x == x[100], way(x) * (1 + 2.0**-30), way(x))

    monkeypatch.setattr(ulp, "composite", planted)
    with pytest.raises(InputError, match="silu: f in float64 by kernel and composite differ at x = "):
        ulp.oracle(softknee.get("silu"), 0, 1 << 12)


@needs_kernels
@pytest.mark.parametrize("order", [0, 1], ids=ORDERS[:2])
def test_a_planted_fault_is_found_and_counted(order):
    activation = softknee.get("tanh")
    way, (truth, _, _) = ulp.kernel(activation, order), ulp.oracle(activation, order, 1 << 12)
    values = [*range(0x3E000000, 0x3E000000 + 3 * ulp.BLOCK)]
    clean = judged(way, truth, order, values)
    assert clean.above == 0 and clean.judged == clean.inputs == len(values)
    victim = as_bits([values[100_000]]).view(torch.float32)

    def faulty(x):
        return torch.where(x == victim, way(x) * (1 + 12 * 2.0**-23), way(x))

    found = judged(faulty, truth, order, values)
    assert found.above == 1 and found.bits == values[100_000] and found.ulp > ulp.MANY


def test_ulps_are_plain():
    """1 + 3 ε is off by 3; so is 1.99 + 3 ε; of f′ below 2⁻⁴ the unit is that of 2⁻⁴."""
    eps, x = 2.0**-23, [1.0, 1.9921875, 2.0**-10]
    bits = np.array(x, dtype=np.float32).view(np.uint32)

    def off(x):
        return (x.double() + 3 * eps * torch.where(x < 1, 2.0**-4, 1.0)).float()

    for order, wanted in ((0, 3 * 2.0**6), (1, 3.0)):
        assert judged(off, torch.clone, order, bits).ulp == wanted
    assert judged(off, torch.clone, 0, bits[:2]).ulp == 3.0


def test_what_is_no_number_of_ulps_must_be_of_the_right_kind():
    """The identity's values, and wrong ones in their place."""
    x = np.array([1e-40, 0.0, math.inf, -math.inf, math.nan, 1.0], dtype=np.float32)
    right = judged(torch.clone, torch.clone, 0, x.view(np.uint32))
    assert (right.inputs, right.judged, right.subnormal, right.other, right.wrong) == (6, 1, 2, 3, 0)
    assert judged(lambda x: x * (x.abs() > 1e-38), torch.clone, 0, x[:2].view(np.uint32)).flushed == 1
    for wrong, at in ((math.nan, 0), (-1e-40, 0), (1.0, 1), (-math.inf, 2), (3e38, 2), (math.inf, 3), (0.0, 4)):

        def way(_, wrong=wrong, at=at):
            y = torch.from_numpy(x.copy())
            y[at] = wrong
            return y

        found = judged(way, torch.clone, 0, x.view(np.uint32))
        assert found.wrong == 1 and found.wrong_bits == int(x.view(np.uint32)[at])
    lost = judged(lambda x: torch.full_like(x, math.nan), torch.clone, 0, x[5:].view(np.uint32))
    assert lost.ulp == math.inf and lost.above == 1


@needs_kernels
def test_blocks_are_all_inputs():
    judge = ulp.Judge(torch.clone, torch.clone, 0)
    for index in (0, 1, 0x7FFF, 0x8000, 0xFFFF):
        judge.block(index)
        bits = judge._bits.numpy().view(np.uint32)
        assert bits[0] == index << 16 and bits[-1] == (index << 16) + 0xFFFF


@pytest.fixture
def exhaustive(monkeypatch, tmp_path):
    """`tools/exhaustive.py` as a module, with its files elsewhere."""
    path = Path(__file__).parents[2] / "tools/exhaustive.py"
    spec = importlib.util.spec_from_file_location("softknee_exhaustive", path)
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    monkeypatch.setattr(module, "ROOT", tmp_path)
    monkeypatch.setattr(module, "STATE", tmp_path / "build/ulp.json")
    return module


@needs_kernels
def test_a_sweep_goes_on_where_it_stopped(exhaustive, monkeypatch, tmp_path, capsys):
    asked = []

    def interrupted(keys, state, jobs, console):
        for key in keys:
            asked.append((key, state.missing(key)))
            for part in state.missing(key)[: 40 if len(asked) < 3 else None]:
                tally = ulp.Tally(inputs=1 << 26, judged=1 << 26, ulp=part / 32, bits=part)
                state.add(key, part, tally.to_dict())
        state.write()
        if len(asked) < 3:
            raise KeyboardInterrupt

    monkeypatch.setattr(exhaustive, "sweep", interrupted)
    monkeypatch.setattr(exhaustive, "estimate", lambda *_: 0.0)
    output = tmp_path / "ulp.json"
    command = ["exhaustive.py", "--output", str(output), "relu"]
    monkeypatch.setattr("sys.argv", command)
    assert exhaustive.main() == 130 and not output.exists()
    assert exhaustive.main() == 0
    assert [len(missing) for _, missing in asked] == [64, 64, 24, 24]
    found = json.loads(output.read_text())["entries"]["relu"]["f"]
    assert (
        found["inputs"] == 1 << 32
        and found["bits"] == "0x0000003f"
        and found["ulp"] == pytest.approx(63 / 32, abs=1e-4)
    )
    monkeypatch.setattr(exhaustive, "fingerprint", lambda name: "other kernels")
    assert exhaustive.State(False).missing(("relu", 0)) == list(range(64))
    exhaustive.STATE.write_text("{")
    assert exhaustive.State(False).missing(("relu", 0)) == list(range(64))
    monkeypatch.setattr("sys.argv", ["exhaustive.py", "swiglu"])
    assert exhaustive.main() == 2 and "no float32 kernel: swiglu" in capsys.readouterr().err
