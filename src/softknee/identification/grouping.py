"""Sites that differ only by the layer they are in, written once: `layers.{0–31}.mlp.act#0`."""

from __future__ import annotations

import re
from collections.abc import Callable, Hashable, Iterable, Sequence
from itertools import pairwise
from typing import Any

_NUMBER = re.compile(r"\d+")


def grouped(items: Iterable[Any], key: Callable[[Any], str], alike: Callable[[Any], Hashable]) -> list[list[Any]]:
    """The items in groups in which `alike` is equal, and `key`, a site's, but for its numbers; in their order."""
    groups: dict[Hashable, list[Any]] = {}
    for item in items:
        path, _, call = key(item).rpartition("#")
        groups.setdefault((_NUMBER.sub("#", path), call, alike(item)), []).append(item)
    return list(groups.values())


def written(keys: Sequence[str]) -> str:
    """Several keys of one pattern as one: each number that varies becomes the range or the list of its values."""
    if len(keys) < 2:
        return keys[0] if keys else ""
    pieces = _NUMBER.split(keys[0])
    columns = zip(*(_NUMBER.findall(key) for key in keys), strict=True)
    numbers = [_values(sorted({int(n) for n in column})) for column in columns]
    return "".join(piece + number for piece, number in zip(pieces, [*numbers, ""], strict=True))


def _values(numbers: list[int]) -> str:
    """5 → "5"; 0, 1, 2 → "{0–2}"; 0, 2, 3, 4 → "{0,2–4}"; 1, 3, 5, 7 → "{1,3,…,7}"."""
    if len(numbers) == 1:
        return str(numbers[0])
    steps = {b - a for a, b in pairwise(numbers)}
    if len(steps) == 1 and steps != {1} and len(numbers) > 3:
        return f"{{{numbers[0]},{numbers[1]},…,{numbers[-1]}}}"
    runs: list[list[int]] = []
    for number in numbers:
        if runs and number == runs[-1][-1] + 1:
            runs[-1].append(number)
        else:
            runs.append([number])
    return "{" + ",".join(str(r[0]) if len(r) == 1 else f"{r[0]}–{r[-1]}" for r in runs) + "}"
