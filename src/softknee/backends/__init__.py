"""One op table per target. `table("numpy")` gives one; each loads its library only then."""

from __future__ import annotations

import importlib

from ..errors import InputError, closest
from ..expression import OpTable

BACKENDS = ("numpy", "torch", "mpmath", "sympy", "jax", "onnx")


def table(name: str) -> OpTable:
    """The op table of a backend.

    Raises InputError for a name that is none of `BACKENDS`, or where the backend's library is not installed.
    """
    if name not in BACKENDS:
        raise InputError(f"backend {name!r} is unknown; there are {', '.join(BACKENDS)}{closest(name, BACKENDS)}")
    try:
        return importlib.import_module(f"softknee.backends.{name}").OPS
    except ModuleNotFoundError as error:
        extra = {"jax": "jax", "onnx": "identify"}.get(name, "facts")
        raise InputError(f"the {name} backend needs {error.name}: pip install 'softknee[{extra}]'") from error
