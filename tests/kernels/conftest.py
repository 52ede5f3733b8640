"""A fixture for the paths that an installation without compiled kernels takes."""

from __future__ import annotations

import pytest

from softknee.kernels import cpu, paths, short


def _forget() -> None:
    for cached in (paths.choose, paths.uncompiled, paths.learned, short._ways):
        cached.cache_clear()


@pytest.fixture
def without_kernels(monkeypatch):
    """Every call takes the path that it takes where no kernels are compiled."""
    monkeypatch.setattr(cpu, "takes", lambda activation, dtype: False)
    _forget()
    yield
    _forget()
