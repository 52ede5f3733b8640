"""Every test here runs off the registry: a new activation is tested because it exists."""

from __future__ import annotations

from cases import cases, violations

import softknee

ELEMENTWISE = [a for a in softknee.activations() if a.kind == "elementwise"]
GATED = [a for a in softknee.activations() if a.kind == "gated"]
NORMALIZERS = [a for a in softknee.activations() if a.kind == "normalizer"]
EVERY = ELEMENTWISE + GATED + NORMALIZERS


def pytest_generate_tests(metafunc):
    for name, entries in (
        ("elementwise", ELEMENTWISE),
        ("gated", GATED),
        ("normalizer", NORMALIZERS),
        ("traced", ELEMENTWISE + GATED),
        ("activation", EVERY),
        ("parametrized", [a for a in EVERY if a.parameters]),
        ("case", cases()),
        ("elementwise_case", [case for case in cases() if case.activation.kind == "elementwise"]),
        ("parametrized_case", [case for case in cases() if case.activation.parameters]),
    ):
        if name in metafunc.fixturenames:
            metafunc.parametrize(name, entries, ids=lambda a: a.name)
    if "violation" in metafunc.fixturenames:
        broken = [(a, *violation) for a in EVERY for violation in violations(a)]
        metafunc.parametrize("violation", broken, ids=lambda v: f"{v[0].name}-{v[1]}={v[2]:g}")
