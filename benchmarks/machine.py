"""What every results file says about where it was measured."""

from __future__ import annotations

import os
import platform

import numpy as np
import torch

import softknee
from softknee.environment import processor


def machine() -> dict[str, object]:
    """Processor, cores, threads in use, vector instructions and versions."""
    return {
        "processor": processor(),
        "cores": os.cpu_count(),
        "threads": torch.get_num_threads(),
        "vector_instructions": torch.backends.cpu.get_cpu_capability(),
        "python": platform.python_version(),
        "torch": torch.__version__,
        "numpy": np.__version__,
        "softknee": softknee.__version__,
    }
