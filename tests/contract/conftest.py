"""Every test here runs off the registry: a new activation is tested because it exists."""

from __future__ import annotations

import softknee

ELEMENTWISE = [a for a in softknee.activations() if a.kind == "elementwise"]
GATED = [a for a in softknee.activations() if a.kind == "gated"]
NORMALIZERS = [a for a in softknee.activations() if a.kind == "normalizer"]


def pytest_generate_tests(metafunc):
    for name, entries in (
        ("elementwise", ELEMENTWISE),
        ("gated", GATED),
        ("normalizer", NORMALIZERS),
        ("traced", ELEMENTWISE + GATED),
        ("activation", ELEMENTWISE + GATED + NORMALIZERS),
    ):
        if name in metafunc.fixturenames:
            metafunc.parametrize(name, entries, ids=lambda a: a.name)
