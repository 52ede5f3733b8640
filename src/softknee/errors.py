"""What softknee raises when the caller can mend it: one sentence that names what was wrong and what would be right."""

from __future__ import annotations

import difflib
from collections.abc import Iterable


class SoftkneeError(ValueError):
    """Anything softknee refuses; the command line prints it as one line and exits with 2."""


class InputError(SoftkneeError):
    """An argument, a file or a name that does not fit."""


def closest(word: str, choices: Iterable[str]) -> str:
    """`"; did you mean 'a' or 'b'?"` for the choices that look like `word`, or an empty string."""
    near = difflib.get_close_matches(word, sorted(set(choices)), n=3, cutoff=0.6)
    return f"; did you mean {' or '.join(map(repr, near))}?" if near else ""
