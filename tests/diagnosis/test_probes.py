"""Sums: right against plain tensor arithmetic, mergeable, and taken without touching anything."""

from __future__ import annotations

import math

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor, nn

import softknee
from softknee.diagnosis.measurements import describe
from softknee.diagnosis.probes import BINS, ROWS, Probe, Sums, histogram_bin, histogram_edges, merge, reduce, sample
from softknee.identification import Observer


def sums(values: Tensor, name: str = "relu", key: str = "a#0", step: int = 0, **parameters: float) -> Sums:
    """Of (rows, units), one call."""
    return reduce((key,), values[None, None, :, None, :], [step], softknee.get(name), parameters)


def test_statistics_are_those_of_the_tensor() -> None:
    z = torch.randn(50, 7, generator=torch.Generator().manual_seed(0))
    z[:, 3] = -z[:, 3].abs()
    y = torch.relu(z)
    s = describe(sums(z), None, {})
    assert s.rows == 50
    assert s.units == 7
    assert s.mean == pytest.approx(y.mean().item(), rel=1e-5)
    assert s.std == pytest.approx(y.std(correction=0).item(), rel=1e-5)
    assert s.across_row_std == pytest.approx(y.var(0).mean().sqrt().item(), rel=1e-5)
    assert s.zeros == pytest.approx((y == 0).float().mean().item())
    assert s.saturated == pytest.approx((z <= 0).float().mean().item())
    assert s.dead_units == (3,)
    assert s.firing_bound == pytest.approx(3 / 50)
    assert s.amax == pytest.approx(y.max().item())
    assert s.input_mean == pytest.approx(z.mean().item(), rel=1e-4)
    assert s.input_std == pytest.approx(z.std(correction=0).item(), rel=1e-4)
    assert sum(s.histogram_counts) == 350
    assert s.nonfinite == 0


def test_across_row_std_survives_a_mean_a_million_times_larger() -> None:
    z = 1000 + 1e-3 * torch.randn(64, 16, generator=torch.Generator().manual_seed(0), dtype=torch.float64)
    assert describe(sums(z), None, {}).across_row_std == pytest.approx(z.var(0).mean().sqrt().item(), rel=1e-6)


@pytest.mark.parametrize("name", [a.name for a in softknee.activations() if a.kind == "elementwise" and a.core])
def test_fired_is_exactly_where_the_slope_is_not_zero(name: str) -> None:
    act = softknee.get(name)
    z = torch.randn(20, 12, generator=torch.Generator().manual_seed(1)) * 3
    z[:, :4] = torch.linspace(-300, -100, 20)[:, None]
    z[:, 4:6] = torch.linspace(100, 300, 20)[:, None]
    z[:, 6], z[10, 6] = -200.0, 200.0  # extremes on both sides
    expected = (act.slope(z) != 0).any(0)
    assert torch.equal(sums(z, name).fired[0], expected)


@settings(max_examples=40, deadline=None)
@given(st.integers(1, 30), st.integers(1, 30), st.integers(1, 6), st.integers(0, 10**6))
def test_merging_halves_is_measuring_the_whole(first: int, second: int, units: int, seed: int) -> None:
    z = torch.randn(first + second, units, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)
    both = sums(z[:first]).merge(sums(z[first:]))
    whole = sums(z)
    assert both.rows == whole.rows
    assert both.looked == whole.looked
    for name in ("unit_sum", "unit_square", "zeros", "saturated", "fired", "amax", "counts", "input_square"):
        torch.testing.assert_close(getattr(both, name), getattr(whole, name), rtol=1e-9, atol=1e-9, check_dtype=False)
    other = sums(z[first:]).merge(sums(z[:first]))
    assert torch.equal(other.fired, both.fired)
    assert other.unit_within.sum() == pytest.approx(both.unit_within.sum().item())


def test_merging_keeps_the_spread_within_batches() -> None:
    """A mean that moves from batch to batch is no signal that distinguishes rows."""
    still = [sums(torch.full((8, 3), float(level))) for level in (1, 5, 9)]
    merged = describe(still[0].merge(still[1]).merge(still[2]), None, {})
    assert merged.across_row_std == 0
    assert merged.std > 3


def test_what_does_not_fit_is_not_merged() -> None:
    with pytest.raises(ValueError, match="different sites"):
        sums(torch.randn(3, 2)).merge(sums(torch.randn(3, 4)))
    with pytest.raises(ValueError, match="different sites"):
        sums(torch.randn(3, 2), key="a#0").merge(sums(torch.randn(3, 2), key="b#0"))
    kept = merge([{"a#0": sums(torch.randn(3, 2))}, {"a#0": sums(torch.randn(9, 4))}])
    assert kept["a#0"].rows == (9,)


def test_first_nonfinite_step_and_count() -> None:
    z = torch.randn(1, 3, 5, 1, 4)
    z[0, 1, 2, 0, 3] = math.nan
    z[0, 2, 0, 0, 0] = -math.inf  # relu hides it: 0
    s = reduce(("a#0",), z, [10, 11, 12], softknee.get("relu"), {})
    assert s.first_nonfinite.tolist() == [11]
    assert s.nonfinite.tolist() == [2]


@settings(max_examples=200, deadline=None)
@given(st.floats(allow_nan=False, allow_infinity=False, width=32))
def test_every_value_lies_in_its_histogram_bin(value: float) -> None:
    counts = torch.bincount(histogram_bin(torch.tensor([value])).flatten().long(), minlength=BINS).tolist()
    edges, bins = histogram_edges(counts, octaves=1000)
    assert len(edges) == len(bins) + 1
    assert sum(bins) == 1
    at = bins.index(1)
    assert edges[at] <= value <= edges[at + 1]


@pytest.mark.parametrize(
    ("shape", "unit_dim"),
    [
        ((64, 64), -1),
        ((1000, 8), -1),
        ((4, 100, 16), -1),
        ((8, 16, 30, 30), 1),
        ((3, 5, 7, 9, 11), 1),
        ((2, 200_000), -1),
    ],
)
def test_a_sample_is_what_its_slices_give(shape: tuple[int, ...], unit_dim: int) -> None:
    slices, (rows, positions, units) = sample(torch.Size(shape), unit_dim)
    picked = torch.zeros(shape).movedim(unit_dim, -1)[slices]
    assert picked.shape[0] == rows <= ROWS
    assert picked.shape[-1] == units == shape[unit_dim]
    assert picked.numel() == rows * positions * units


def test_functional_and_inplace_sites_are_read_before_they_are_overwritten() -> None:
    class Net(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.a, self.b, self.act = nn.Linear(6, 6), nn.Linear(6, 6), nn.ReLU(inplace=True)

        def forward(self, x: Tensor) -> Tensor:
            return torch.nn.functional.silu(self.b(self.act(self.a(x))), inplace=True)

    torch.manual_seed(0)
    net, x = Net(), torch.randn(10, 6)
    probe = Probe(lambda key, shape: -1)
    with torch.no_grad():
        z1 = net.a(x)
        expected = {"act#0": z1, "#0": net.b(torch.relu(z1))}
        plain = net(x)
        with Observer(net, probe.before, probe.after):
            watched = net(x)
    assert torch.equal(plain, watched)
    ((_, _, found),) = probe.segments()
    for key, z in expected.items():
        assert found[key].input_sum.item() == pytest.approx(z.double().sum().item(), rel=1e-5)


def test_memory_is_bounded_when_shapes_keep_changing() -> None:
    probe, act = Probe(lambda key, shape: -1), nn.ReLU()
    with Observer(act, probe.before, probe.after):
        for rows in range(1, 300):
            act(torch.randn(rows, rows % 50 + 1))
    assert len(probe._groups) <= 64
    assert len(probe._all) <= 300


@pytest.mark.parametrize("shape", [(), (1,), (5,), (0, 4), (1, 1), (2, 3, 4, 5, 6)])
def test_odd_shapes(shape: tuple[int, ...]) -> None:
    probe, act = Probe(lambda key, s: -1), nn.ReLU()
    with Observer(act, probe.before, probe.after):
        act(torch.ones(shape))
    assert len(probe.segments()) == (0 if 0 in shape else 1)


def test_unknown_and_learned_activations_are_described_by_their_outputs() -> None:
    act, z = nn.PReLU(3, init=0.5), torch.randn(40, 3, generator=torch.Generator().manual_seed(0))
    with torch.no_grad():
        act.weight.copy_(torch.tensor([0.1, 0.2, 0.9]))
    probe = Probe(lambda key, s: -1)
    with Observer(act, probe.before, probe.after):
        y = act(z)
    ((_, _, found),) = probe.segments()
    assert describe(found["#0"], None, {}).mean == pytest.approx(y.mean().item(), rel=1e-5)
