"""Conditions on parameters, as a definition writes them: `"0 < beta"`, `"lower <= upper"`.

One comparison, `<` or `<=`, of a number or a parameter with a number or a parameter. Nothing is evaluated but that.
"""

from __future__ import annotations

import math
from collections.abc import Collection, Mapping
from dataclasses import dataclass
from typing import Any

from ..errors import InputError


@dataclass(frozen=True)
class Condition:
    """`left < right`, or `left <= right` unless `strict`; each side is a number or the name of a parameter."""

    left: float | str
    strict: bool
    right: float | str

    def __str__(self) -> str:
        return f"{_written(self.left)} {'<' if self.strict else '<='} {_written(self.right)}"

    @property
    def names(self) -> tuple[str, ...]:
        return tuple(side for side in (self.left, self.right) if isinstance(side, str))

    def holds(self, values: Mapping[str, Any]) -> Any:
        """Whether it holds for `values`: a bool, or a tensor of them where a value is a tensor. NaN holds nowhere."""
        left = values[self.left] if isinstance(self.left, str) else self.left
        right = values[self.right] if isinstance(self.right, str) else self.right
        return left < right if self.strict else left <= right


def parse_condition(text: str, parameters: Collection[str], owner: str) -> Condition:
    """The condition that `text` writes. Raises InputError, naming `owner`, where it is none."""
    words = text.split()
    if len(words) != 3 or words[1] not in ("<", "<="):
        raise InputError(f'{owner!r}: the condition {text!r} must read like "0 < beta" or "lower <= upper"')
    left, right = (_side(word, parameters, owner) for word in (words[0], words[2]))
    return Condition(left, words[1] == "<", right)


def ends(name: str, conditions: Collection[Condition]) -> tuple[float, float]:
    """The interval that numbers alone leave for the parameter `name`."""
    low = [c.left for c in conditions if c.right == name and not isinstance(c.left, str)]
    high = [c.right for c in conditions if c.left == name and not isinstance(c.right, str)]
    return max([-math.inf, *low]), min([math.inf, *high])


def _side(word: str, parameters: Collection[str], owner: str) -> float | str:
    if word in parameters:
        return word
    try:
        return float(word)
    except ValueError:
        raise InputError(
            f"{owner!r}: the condition names {word!r}, which is no number and not one of its parameters"
        ) from None


def _written(side: float | str) -> str:
    return side if isinstance(side, str) else f"{side:g}"
