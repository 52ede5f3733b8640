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
from contextlib import nullcontext
from pathlib import Path
from typing import IO, Any

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
    """The members of a zip file by name. Raises InputError where it is damaged, or lists more than any model has.

    what: how errors name it, by default its path. bare: names without the one folder that all members lie in.
    """

    def __init__(
        self, file: str | os.PathLike[str] | IO[bytes], what: str | None = None, *, bare: bool = False
    ) -> None:
        self.what = what if what is not None else str(file)
        try:
            count = _listed(file)
            if count > _MOST_MEMBERS:
                raise InputError(f"{self.what} lists {count:,} members; more than {_MOST_MEMBERS:,} are no model")
            self._zip = zipfile.ZipFile(file)
        except _DAMAGE as error:
            if isinstance(error, InputError):
                raise
            raise InputError(f"{self.what} is a damaged zip archive: {error}") from None
        self.members = {info.filename: info for info in self._zip.infolist()}
        folders = {name.partition("/")[0] for name in self.members}
        if bare and len(folders) == 1 and len(self.members) > 1:
            self.members = {name.partition("/")[2]: info for name, info in self.members.items()}

    def __enter__(self) -> Archive:
        return self

    def __exit__(self, *_: object) -> None:
        self._zip.close()

    def read(self, name: str, limit: int = LIMIT) -> bytes:
        """One member, whose unpacked size is held against `limit` both as stated and as found."""
        info = self.members.get(name)
        if info is None:
            raise InputError(f"{self.what} has no member {name!r}")
        if info.file_size > limit:
            raise InputError(f"{name} in {self.what} has {info.file_size} bytes, more than the {limit} that are read")
        try:
            with self._zip.open(info) as member:
                data = member.read(limit + 1)
        except _DAMAGE as error:
            raise InputError(f"{name} in {self.what} is damaged: {error}") from None
        if len(data) > limit:
            raise InputError(f"{name} in {self.what} unpacks to more than the {limit} bytes that are read")
        return data


_MOST_MEMBERS = 100_000


def _listed(file: str | os.PathLike[str] | IO[bytes]) -> int:
    """How many members a zip file says it has, before its directory is read; 0 where that is not found."""
    with open(file, "rb") if isinstance(file, (str, os.PathLike)) else nullcontext(file) as stream:
        stream.seek(0, os.SEEK_END)
        stream.seek(max(0, stream.tell() - 66_000))
        tail = stream.read()
    at = tail.rfind(b"PK\x06\x06")  # the long record, of a large archive
    if at >= 0:
        return int.from_bytes(tail[at + 32 : at + 40], "little")
    at = tail.rfind(b"PK\x05\x06")
    return int.from_bytes(tail[at + 10 : at + 12], "little") if at >= 0 else 0


_DAMAGE = (
    zipfile.BadZipFile, zipfile.LargeZipFile, zlib.error, struct.error, EOFError, OSError, RuntimeError, ValueError,
    NotImplementedError, OverflowError, IndexError, MemoryError,
)  # fmt: skip
