"""Deterministic and quiet: one thread, a fixed seed, the same hypothesis examples on every machine."""

from __future__ import annotations

import hypothesis
import pytest
import torch

hypothesis.settings.register_profile("softknee", derandomize=True, database=None, deadline=None)
hypothesis.settings.load_profile("softknee")


@pytest.fixture(autouse=True)
def _fixed_seed():
    torch.manual_seed(0)


def pytest_configure():
    torch.set_num_threads(1)
