"""Every test here runs off the registry: a new activation is tested because it exists.

The core of the catalog goes through all of them; the wide catalog through those marked `wide`: values, derivatives and
limits against the oracle, autograd, bad input. What the others ask is not asked of a definition, but of the code that
all definitions share.
"""

from __future__ import annotations

from cases import cases, violations

import softknee

EVERY = softknee.activations()


def pytest_generate_tests(metafunc):
    wide = metafunc.definition.get_closest_marker("wide") is not None
    every = [a for a in EVERY if wide or a.core]
    called = [case for case in cases() if wide or case.activation.core]
    for name, entries in (
        ("elementwise", [a for a in every if a.kind == "elementwise"]),
        ("gated", [a for a in every if a.kind == "gated"]),
        ("normalizer", [a for a in every if a.kind == "normalizer"]),
        ("traced", [a for a in every if a.kind != "normalizer"]),
        ("activation", every),
        ("parametrized", [a for a in every if a.parameters]),
        ("case", called),
        ("elementwise_case", [case for case in called if case.activation.kind == "elementwise"]),
        ("parametrized_case", [case for case in called if case.activation.parameters]),
    ):
        if name in metafunc.fixturenames:
            metafunc.parametrize(name, entries, ids=lambda a: a.name)
    if "violation" in metafunc.fixturenames:
        broken = [(a, *violation) for a in every for violation in violations(a)]
        metafunc.parametrize("violation", broken, ids=lambda v: f"{v[0].name}-{v[1]}={v[2]:g}")
