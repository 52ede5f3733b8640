"""What every reader needs to be safe with a file that nobody vouches for: bounded reads, JSON, members of archives.

Whatever is wrong with the file is one InputError. A length is held against the size of the file before anything of
that length is read; nothing is unpacked to disk, and of an archive only members that are asked for by name are read.
"""

from __future__ import annotations

import json
import os
import struct
import zipfile
import zlib
from pathlib import Path
from typing import Any

from ...errors import InputError

LIMIT = 16 << 20  # bytes of JSON: the largest index that is known (of 90,000 tensors) has 9 million


def regular(path: str | os.PathLike[str]) -> Path:
    """The path, if it is a file that can be read. Raises InputError otherwise."""
    found = Path(path)
    try:
        if not found.exists():
            raise InputError(f"there is no file {str(path)!r}")
        if not found.is_file():
            raise InputError(f"{found} is not a regular file")
        with found.open("rb"):
            pass
    except (OSError, ValueError) as error:  # ValueError: a null byte in the name
        raise InputError(f"cannot read {str(path)!r}: {getattr(error, 'strerror', None) or error}") from None
    return found


def beginning(path: Path, length: int) -> bytes:
    """The first `length` bytes, fewer where the file is shorter."""
    try:
        with path.open("rb") as file:
            return file.read(length)
    except OSError as error:
        raise InputError(f"cannot read {path}: {error.strerror or error}") from None


def whole(path: Path, limit: int = LIMIT) -> bytes:
    size = path.stat().st_size
    if size > limit:
        raise InputError(f"{path} has {size} bytes, more than the {limit} that are read as JSON")
    return beginning(path, limit)


def decoded(data: bytes, what: str) -> Any:
    """`data` as JSON. Raises InputError, which names `what` it is, where it is none or nested too deeply."""
    try:
        return json.loads(data.decode("utf-8-sig"))
    except RecursionError:
        raise InputError(f"{what} is nested too deeply to be a configuration") from None
    except (ValueError, MemoryError) as error:
        raise InputError(f"{what} is not JSON: {error}") from None


def table(data: bytes, what: str) -> dict[str, Any]:
    """A JSON object. Raises InputError for anything else."""
    found = decoded(data, what)
    if not isinstance(found, dict):
        raise InputError(f"{what} holds a JSON {type(found).__name__}; it must be an object")
    return found


class Archive:
    """The members of a zip file by name. Raises InputError where it is damaged."""

    def __init__(self, path: Path) -> None:
        self.path = path
        try:
            with zipfile.ZipFile(path) as archive:
                self.members = {info.filename: info for info in archive.infolist()}
        except _DAMAGE as error:
            raise InputError(f"{path} is a damaged zip archive: {error}") from None

    def read(self, name: str, limit: int = LIMIT) -> bytes:
        """One member, whose unpacked size is held against `limit` both as stated and as found."""
        info = self.members.get(name)
        if info is None:
            raise InputError(f"{self.path} has no member {name!r}")
        if info.file_size > limit:
            raise InputError(f"{name} in {self.path} has {info.file_size} bytes, more than the {limit} that are read")
        try:
            with zipfile.ZipFile(self.path) as archive, archive.open(info) as member:
                data = member.read(limit + 1)
        except _DAMAGE as error:
            raise InputError(f"{name} in {self.path} is damaged: {error}") from None
        if len(data) > limit:
            raise InputError(f"{name} in {self.path} unpacks to more than the {limit} bytes that are read")
        return data


_DAMAGE = (
    zipfile.BadZipFile, zipfile.LargeZipFile, zlib.error, struct.error, EOFError, OSError, RuntimeError, ValueError,
    NotImplementedError, OverflowError, IndexError, MemoryError,
)  # fmt: skip
