"""Random numbers that begin anew: what two trainings are given so that they differ in nothing else."""

from __future__ import annotations

import random
from collections.abc import Callable, Iterator
from contextlib import contextmanager

import numpy as np
import torch


@contextmanager
def seeded(seed: int) -> Iterator[Callable[[], None]]:
    """Python's, NumPy's and torch's generators seeded, and put back at the end; what is yielded seeds them again."""

    def reseed() -> None:
        random.seed(seed)
        np.random.seed(seed % 2**32)
        torch.manual_seed(seed)

    ours, theirs = random.getstate(), np.random.get_state()
    devices = range(torch.cuda.device_count()) if torch.cuda.is_initialized() else ()
    try:
        with torch.random.fork_rng(devices=devices):
            reseed()
            yield reseed
    finally:
        random.setstate(ours)
        np.random.set_state(theirs)
