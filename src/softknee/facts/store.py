"""Facts that were computed before, on disk: one JSON file per activation, parameters and version of the code.

They lie in `softknee/facts` of the user's cache directory ($XDG_CACHE_HOME, else ~/.cache). SOFTKNEE_CACHE names
another directory in its place, or is "off". A file that is damaged, or was made by other code, counts for nothing; one
that cannot be written is not written. The oldest go when there are more than FILES.
"""

from __future__ import annotations

import contextlib
import functools
import hashlib
import json
import os
from collections.abc import Callable
from pathlib import Path
from typing import Any, TypeVar

import numpy as np

from ..errors import InputError
from ..expression import Expr
from ..expression.graph import walk
from ..files import write_whole

FILES = 4096
T = TypeVar("T")


def directory() -> Path | None:
    """Where facts are kept, or None where they are not."""
    named = os.environ.get("SOFTKNEE_CACHE", "")
    if named.lower() in ("off", "0", "none"):
        return None
    if named:
        return Path(named).expanduser() / "facts"
    try:
        return Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache") / "softknee" / "facts"
    except RuntimeError:  # no home directory
        return None


def key(*parts: Any) -> str:
    """A name for what facts follow from: expressions, numbers and words; another version of the code has another."""
    digest = hashlib.sha256(_code().encode())
    for part in parts:
        text = _written(part) if isinstance(part, Expr) else part.hex() if isinstance(part, float) else repr(part)
        digest.update(f"{len(text)}:{text}".encode())
    return digest.hexdigest()


def _written(expression: Expr) -> str:
    """One line per node: as long as the graph, where the nested form may be exponentially longer."""
    places: dict[Expr, int] = {}
    lines = []
    for node in walk(expression):
        places[node] = len(places)
        lines.append(f"{node.op} {[places[a] if isinstance(a, Expr) else repr(a) for a in node.args]}")
    return "\n".join(lines)


@functools.cache
def _code() -> str:
    """What the results depend on besides the definition: the code that makes them and the libraries under it."""
    import scipy  # 8 ms, which only those who ask for facts pay

    digest = hashlib.sha256(f"{np.__version__} {scipy.__version__}".encode())
    package = Path(__file__).parent.parent
    for folder in ("facts", "expression", "backends"):
        for file in sorted((package / folder).glob("*.py")):
            digest.update(file.read_bytes())
    digest.update((package / "catalog" / "activation.py").read_bytes())
    return digest.hexdigest()


class Store:
    """The facts of one key. `shapes` names the tuples that may occur, by which they are read back."""

    def __init__(self, name: str, shapes: tuple[type, ...], used: bool = True) -> None:
        self.name = name
        self.shapes = {shape.__name__: shape for shape in shapes}
        self.used = used

    @property
    def path(self) -> Path | None:
        folder = directory() if self.used else None
        return None if folder is None else folder / f"{self.name}.json"

    @functools.cached_property
    def _known(self) -> dict[str, Any]:
        return self._read()

    def get(self, fact: str, compute: Callable[[], T]) -> T:
        """The fact of that name, from the file if it is there."""
        path = self.path
        if path is None:
            return compute()
        if fact in self._known:
            return self._known[fact]
        value = compute()
        # what another process has found meanwhile stays
        self._known.update({**self._read(), fact: value})
        content = json.dumps({name: self._packed(known) for name, known in self._known.items()})
        with contextlib.suppress(InputError):
            if not path.exists():
                _make_room(path.parent)
            write_whole(path, json.dumps({"sum": _sum(content), "facts": content}))
        return value

    def _read(self) -> dict[str, Any]:
        path = self.path
        if path is None:
            return {}
        try:
            file = json.loads(path.read_text(encoding="utf-8"))
            if file["sum"] != _sum(file["facts"]):
                return {}
            return {name: self._unpacked(value) for name, value in json.loads(file["facts"]).items()}
        except (OSError, ValueError, KeyError, TypeError, AttributeError, RecursionError):
            return {}

    def _packed(self, value: Any) -> Any:
        if isinstance(value, tuple):
            name = type(value).__name__ if type(value).__name__ in self.shapes else ""
            return [name, *map(self._packed, value)]
        return value

    def _unpacked(self, value: Any) -> Any:
        if isinstance(value, list):
            parts = tuple(map(self._unpacked, value[1:]))
            return self.shapes[value[0]](*parts) if value[0] else parts
        return value


def _sum(content: str) -> str:
    return hashlib.sha256(content.encode()).hexdigest()


def _make_room(folder: Path) -> None:
    """Removes the older half of the files where there are too many: learned parameters make a file each."""
    with contextlib.suppress(OSError):
        files = [entry for entry in os.scandir(folder) if entry.name.endswith(".json")]
        if len(files) >= FILES:
            for entry in sorted(files, key=lambda e: e.stat().st_mtime)[: len(files) // 2]:
                with contextlib.suppress(OSError):
                    os.unlink(entry.path)
