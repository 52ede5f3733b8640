from __future__ import annotations

import pytest
from stories import make_story

from softknee.report import Story


@pytest.fixture(scope="session")
def story() -> Story:
    return make_story()
