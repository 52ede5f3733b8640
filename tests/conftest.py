"""Deterministic and quiet: one thread, a fixed seed, the same hypothesis examples on every machine, no facts from a
cache that an earlier run left."""

from __future__ import annotations

import os

import hypothesis
import pytest
import torch

hypothesis.settings.register_profile("softknee", derandomize=True, database=None, deadline=None)
hypothesis.settings.load_profile("softknee")


@pytest.fixture(autouse=True)
def _fixed_seed():
    torch.manual_seed(0)


def pytest_configure():
    os.environ["SOFTKNEE_CACHE"] = "off"
    torch.set_num_threads(1)
