"""softknee: activation functions for PyTorch, defined once, run exactly, identified, diagnosed, verified.

Packages are nouns (`softknee.catalog`), the verbs stand here (`softknee.identify`). Everything below is loaded at
its first use, so that `import softknee` costs next to nothing beyond `import torch`.
"""

from __future__ import annotations

import importlib
from typing import Any

__version__ = "0.1.0"

_HOME = {
    "Activation": "catalog",
    "Parameter": "catalog",
    "activations": "catalog",
    "define": "catalog",
    "elementwise": "catalog",
    "gated": "catalog",
    "get": "catalog",
    "register": "catalog",
    "Census": "identification",
    "Site": "identification",
    "identify": "identification",
    "swap": "identification",
    "Finding": "diagnosis",
    "Report": "diagnosis",
    "Settings": "diagnosis",
    "diagnose": "diagnosis",
    "Race": "diagnosis",
    "race": "diagnosis",
    "watch": "diagnosis",
    "Kernelization": "kernelization",
    "kernelize": "kernelization",
    "keep_pages": "kernels.allocation",
    "explain": "guide",
    "recommend": "guide",
    "Comparison": "verification",
    "Dataset": "verification",
    "Run": "verification",
    "compare": "verification",
    "evaluate": "verification",
    "overlap": "verification",
}
_PACKAGES = (
    "backends",
    "catalog",
    "diagnosis",
    "errors",
    "expression",
    "facts",
    "functional",
    "guide",
    "identification",
    "int8",
    "integrations",
    "kernelization",
    "kernels",
    "nn",
    "report",
    "verification",
)
_OPTIONAL = ("jax", "onnx")  # not for `import *`: their libraries may be missing

__all__ = ["__version__", *sorted(_HOME), *_PACKAGES]


def __getattr__(name: str) -> Any:
    if name in _HOME:
        value = getattr(importlib.import_module(f"softknee.{_HOME[name]}"), name)
        globals()[name] = value
        return value
    if name in _PACKAGES or name in _OPTIONAL:
        return importlib.import_module(f"softknee.{name}")
    raise AttributeError(f"module 'softknee' has no attribute {name!r}")


def __dir__() -> list[str]:
    return sorted([*__all__, *_OPTIONAL])
