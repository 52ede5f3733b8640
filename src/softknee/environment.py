"""What this installation is: versions, which extras are there, which fast paths run."""

from __future__ import annotations

import os
import platform
from importlib import metadata
from typing import Any

EXTRAS = {
    "facts": ("mpmath", "sympy"),
    "report": ("jinja2",),
    "plot": ("matplotlib",),
    "demo": ("scikit-learn",),
}


def version(distribution: str) -> str | None:
    """Its installed version, or None."""
    try:
        return metadata.version(distribution)
    except metadata.PackageNotFoundError:
        return None


def processor() -> str:
    """The CPU's model as Linux names it, "unknown" elsewhere."""
    try:
        with open("/proc/cpuinfo", encoding="utf-8") as file:
            return next((line.split(":")[1].strip() for line in file if line.startswith("model name")), "unknown")
    except OSError:
        return "unknown"


def environment() -> dict[str, Any]:
    """Versions, threads, extras (what each still lacks) and which path an activation takes, in plain words."""
    import torch

    import softknee

    from .kernels import allocation, cpu

    missing = {extra: [d for d in names if version(d) is None] for extra, names in EXTRAS.items()}
    return {
        "softknee": softknee.__version__,
        "python": platform.python_version(),
        "platform": platform.platform(),
        "torch": torch.__version__,
        "threads": torch.get_num_threads(),
        "cores": os.cpu_count(),
        "vector instructions": torch.backends.cpu.get_cpu_capability(),
        "cuda": torch.version.cuda if torch.cuda.is_available() else None,
        "extras": {
            extra: "installed" if not names else f"lacks {', '.join(names)}: pip install 'softknee[{extra}]'"
            for extra, names in missing.items()
        },
        "kernels": cpu.described(),
        "freed pages": allocation.described(),
        "paths": "the fastest that is exact: compiled kernel, PyTorch's op, table of a half precision, composite",
    }
