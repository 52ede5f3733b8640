"""Pickled checkpoints (.pt, .pth, .bin, .ckpt): refused unless asked for by name, and then without running anything.

A pickle is a program. `torch.load(weights_only=True)` runs it with tensors and plain containers alone, which is what
`allow_pickle=True` does here; names and shapes of the tensors are then read as from safetensors.
"""

from __future__ import annotations

import os
from collections.abc import Iterator, Mapping
from typing import Any

import torch

from ...errors import InputError
from ..census import Census
from . import parsing
from .tensors import Tensor, census


def read(path: str | os.PathLike[str], *, allow_pickle: bool = False) -> Census:
    """The Census of a pickled checkpoint. Raises InputError unless `allow_pickle`, and where it holds more than
    tensors."""
    found = parsing.regular(path)
    if not allow_pickle:
        raise InputError(
            f"{found} is a pickle, which can run any code when it is loaded; allow_pickle=True (--allow-pickle) loads "
            "its tensors with weights_only=True, or convert it to safetensors"
        )
    try:
        with torch.device("cpu"):
            held = _loaded(found)
    except Exception as error:  # a damaged pickle may raise anything
        first = (str(error).strip().splitlines() or [type(error).__name__])[0]
        raise InputError(f"{found} cannot be loaded with weights_only=True: {first[:200]}") from None
    tensors = {name: Tensor(str(t.dtype).removeprefix("torch."), tuple(t.shape)) for name, t in _named(held)}
    if not tensors:
        raise InputError(f"{found} holds no tensors that have names; it must be a state dict, or hold one")
    return census(found.name, tensors, "the names of the tensors")


def _loaded(path: Any) -> Any:
    if parsing.beginning(path, 4) == b"PK\x03\x04":
        return torch.load(path, map_location="cpu", weights_only=True, mmap=True)
    return torch.load(path, map_location="cpu", weights_only=True)


def _named(held: Any, prefix: str = "", depth: int = 0) -> Iterator[tuple[str, torch.Tensor]]:
    """Tensors by name; {"state_dict": …}, {"model": …} and the like are looked into, optimizers are not."""
    if not isinstance(held, Mapping) or depth > 4:
        return
    inner = next((k for k in ("state_dict", "model_state_dict", "model", "module", "net") if k in held), None)
    if depth == 0 and inner is not None and isinstance(held[inner], Mapping):
        yield from _named(held[inner])
        return
    for key, value in held.items():
        if isinstance(value, torch.Tensor):
            yield f"{prefix}{key}", value
        elif isinstance(value, Mapping) and not str(key).startswith("optim"):
            yield from _named(value, f"{prefix}{key}.", depth + 1)
