"""Example inputs from the command line: `float32[1,3,224,224]`, several separated by `;`, by name `mask=bool[1,16]`."""

from __future__ import annotations

import re
from collections.abc import Iterable
from typing import Any

import torch

from ..errors import InputError, closest

_DTYPES = {
    name: getattr(torch, name)
    for name in (
        "float64", "double", "float32", "float", "float16", "half", "bfloat16", "bool", "uint8", "uint16", "uint32",
        "uint64", "int8", "int16", "short", "int32", "int", "int64", "long",
    )
}  # fmt: skip
_SPECIFICATION = re.compile(r"(?:(?P<name>[A-Za-z_]\w*)\s*=\s*)?(?P<dtype>\w+)\s*\[(?P<shape>[\d\s,]*)\]")
_MOST = 2**31  # elements


def parse_inputs(specifications: str | Iterable[str], seed: int = 0) -> tuple[Any, ...] | dict[str, torch.Tensor]:
    """The tensors that `specifications` describe: a tuple of them, or a dict where they have names.

    Floats are normal, integers are 0 or 1 (safe as indices), booleans all true; the generator is fixed by `seed`.
    Raises InputError for anything that is not `dtype[sizes]` or `name=dtype[sizes]`, and for named and unnamed mixed.
    """
    given = [specifications] if isinstance(specifications, str) else list(specifications)
    words = [word.strip() for item in given for word in item.split(";") if word.strip()]
    if not words:
        raise InputError("an input is empty; write one as float32[1,3,224,224]")
    generator = torch.Generator().manual_seed(seed)
    tensors: list[tuple[str | None, torch.Tensor]] = [_tensor(word, generator) for word in words]
    names = [name for name, _ in tensors if name is not None]
    if not names:
        return tuple(tensor for _, tensor in tensors)
    if len(names) != len(tensors):
        raise InputError(f"either every input has a name or none has: {'; '.join(words)}")
    if len(set(names)) != len(names):
        raise InputError(f"an input is named twice: {', '.join(names)}")
    return {name: tensor for name, tensor in tensors if name is not None}


def _tensor(word: str, generator: torch.Generator) -> tuple[str | None, torch.Tensor]:
    found = _SPECIFICATION.fullmatch(word)
    if found is None:
        raise InputError(
            f"input {word!r} is not of the form dtype[sizes], such as float32[1,3,224,224] or ids=int64[1,16]"
        )
    dtype = _DTYPES.get(found["dtype"])
    if dtype is None:
        hint = closest(found["dtype"], _DTYPES)
        raise InputError(
            f"input {word!r}: dtype {found['dtype']!r} is unknown{hint or '; float32 and int64 are usual'}"
        )
    sizes = [size.strip() for size in found["shape"].split(",")] if found["shape"].strip() else []
    if any(not size.isdigit() for size in sizes):
        raise InputError(f"input {word!r}: the sizes must be numbers separated by commas, such as [1,3,224,224]")
    shape = [int(size) for size in sizes]
    count = 1
    for size in shape:
        count *= size
    if count > _MOST:
        raise InputError(f"input {word!r} would have {count:,} elements; at most {_MOST:,} are made")
    if dtype.is_floating_point:
        return found["name"], torch.randn(shape, generator=generator).to(dtype)
    if dtype == torch.bool:
        return found["name"], torch.ones(shape, dtype=dtype)
    return found["name"], torch.randint(0, 2, shape, generator=generator).to(dtype)
