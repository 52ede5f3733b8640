"""A race tells apart what differs, calls equal what is, and says how many seeds it lacks."""

import json
import math
import random

import numpy as np
import pytest
import torch
from torch import nn

import softknee
from softknee.errors import InputError

GENERATOR = torch.Generator().manual_seed(0)
X = torch.randn(600, 6, generator=GENERATOR)
Y = (X[:, :1] * X[:, 1:2] > 0).float()


def build(make):
    return nn.Sequential(nn.Linear(6, 16), make(), nn.Linear(16, 16), make(), nn.Linear(16, 1))


def train(network, steps=60):
    optimizer = torch.optim.Adam(network.parameters(), lr=0.02)
    for _ in range(steps):
        optimizer.zero_grad()
        nn.functional.binary_cross_entropy_with_logits(network(X[:400]), Y[:400]).backward()
        optimizer.step()
    with torch.no_grad():
        return -float(nn.functional.binary_cross_entropy_with_logits(network(X[400:]), Y[400:]))


def test_it_tells_apart_what_differs():
    found = softknee.race(["gelu", "identity", "gelu_tanh"], build, train, seeds=8, example_inputs=X[:2])
    gelu, identity, gelu_tanh = found.runners
    assert gelu.conclusion == "baseline" and gelu.paired is None
    assert identity.conclusion == "different: worse"  # a linear network cannot learn a product's sign
    assert gelu_tanh.conclusion.startswith("equivalent")  # the same weights and batches, and nearly the same function
    assert found.initialized
    assert "identity falls behind gelu" in found.conclusion
    assert "gelu_tanh and gelu are equivalent" in str(found)
    assert json.loads(json.dumps(found.to_dict()))["runners"][1]["conclusion"] == "different: worse"


def test_an_activation_beside_itself_differs_in_nothing():
    @softknee.elementwise
    def mine(x, ops):
        """ReLU by another name"""
        return ops.maximum(x, 0.0)

    found = softknee.race(["relu", mine], build, train, seeds=3, example_inputs=X[:2])
    first, second = found.runners
    np.testing.assert_allclose(first.scores, second.scores, rtol=1e-4)
    assert first.parameters == second.parameters


def test_few_seeds_are_said_to_be_too_few():
    found = softknee.race(["relu", "leaky_relu"], build, train, seeds=3, example_inputs=X[:2], margin=1e-6)
    assert found.runners[1].paired.verdict == "underpowered"
    assert "seeds" in found.runners[1].conclusion
    assert "underpowered, needs" in found.conclusion


def scored(shift, seeds=5):
    """A race of which nothing is trained: tanh scores `shift` above relu, with a spread of 1 between seeds."""

    def train(network):
        first, second = torch.randn(2).tolist()
        return first + (shift + 0.1 * second if network.activation.name == "tanh" else 0.0)

    return softknee.race(["relu", "tanh"], lambda make: make(), train, seeds=seeds, margin=0.001).runners[1]


@pytest.mark.parametrize("shift", [0.0, 0.05, 0.1, 0.3, 1.0, -1.0])
def test_verdict_and_interval_agree_at_five_seeds(shift):
    found = scored(shift).paired
    assert (found.verdict == "different") == (not found.interval.low <= 0 <= found.interval.high)
    assert found.verdict == ("different" if abs(shift) >= 0.05 else "underpowered")


def test_equal_differences_have_no_spread_to_judge_by():
    def train(network):
        return float(network.activation.name == "tanh") / 128  # one more of 128 rows, as it happens, each time

    few, many = (softknee.race(["relu", "tanh"], lambda make: make(), train, seeds=n).runners[1] for n in (3, 7))
    assert few.paired.verdict == "underpowered" and few.paired.interval == (-math.inf, math.inf)
    assert many.paired.verdict == "different" and many.paired.interval.low > 0


def test_what_a_caller_had_drawn_goes_on():
    torch.manual_seed(1), np.random.seed(1), random.seed(1)
    wanted = torch.rand(1).item(), np.random.rand(), random.random()
    torch.manual_seed(1), np.random.seed(1), random.seed(1)
    softknee.race(["relu", "tanh"], build, lambda network: torch.rand(1).item(), seeds=2)
    assert (torch.rand(1).item(), np.random.rand(), random.random()) == wanted


def test_a_failed_training_has_no_score():
    def fails(network):
        if any(getattr(m, "activation", None) is softknee.get("tanh") for m in network.modules()):
            raise RuntimeError("out of memory")
        return math.nan if torch.initial_seed() == 1 else 1.0

    found = softknee.race(["relu", "tanh", "silu"], build, fails, seeds=3)
    relu, tanh, silu = found.runners
    assert tanh.conclusion == "no score: RuntimeError: out of memory"
    assert math.isnan(tanh.mean) and relu.mean == 1.0
    assert silu.paired.rows == 2 and "scored nan" in silu.failures
    assert "tanh: no score" in found.conclusion


@pytest.mark.parametrize(
    ("activations", "arguments", "message"),
    [
        (["relu"], {}, "at least two"),
        ("relu", {}, "at least two"),
        (["relu", "relu"], {}, "different names"),
        (["relu", "tanh"], {"seeds": 1}, "seeds must be at least two"),
        (["relu", "tanh"], {"seeds": [1, 1]}, "seeds must be at least two"),
        (["relu", "nothing"], {}, "unknown"),
    ],
)
def test_bad_input_is_named(activations, arguments, message):
    with pytest.raises(InputError, match=message):
        softknee.race(activations, build, train, **arguments)


def test_networks_of_different_size_are_refused():
    def wider(make):
        return nn.Sequential(nn.Linear(6, 16 if make().activation.name == "relu" else 20), make())

    with pytest.raises(InputError, match="parameters with tanh and 112 with relu"):
        softknee.race(["relu", "tanh"], wider, lambda network: 1.0, seeds=2)
    with pytest.raises(InputError, match="train must return one score"):
        softknee.race(["relu", "tanh"], build, lambda network: "good", seeds=2)
    with pytest.raises(InputError, match=r"build must return a torch\.nn\.Module, got int"):
        softknee.race(["relu", "tanh"], lambda make: 3, train, seeds=2)
